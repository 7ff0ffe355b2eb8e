package proxy_test

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"authproxy/assertion"
	"authproxy/devprovider"
	"authproxy/identity"
	"authproxy/oidc"
	"authproxy/policy"
	"authproxy/proxy"
	"authproxy/proxy/pages/pagestest"
	"authproxy/session"
)

// worldKey is the signing key of a world.
func worldKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := assertion.DeriveKey([]byte("canary-session-key-0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var sharedKey = []byte("canary-shared-key-0123456789abcdefg")

// newAppWorld is a world that gives out app tokens, good for ten minutes, and takes them as credentials; change may be nil.
func newAppWorld(t testing.TB, s setup, change func(*proxy.Options)) *world {
	t.Helper()
	w := newBearerWorld(t, s, func(o *proxy.Options) {
		o.AppToken = &proxy.AppToken{TTL: 10 * time.Minute, Handoff: true, SigningKeys: []*ecdsa.PrivateKey{worldKey(t)}}
		if change != nil {
			change(o)
		}
	})
	w.canaries = append(w.canaries, string(sharedKey))
	return w
}

// appToken is a token as a script of our pages gets it.
func (b *browser) appToken() string {
	b.t.Helper()
	token, _ := b.tokenAnswer()["access_token"].(string)
	b.w.canaries = append(b.w.canaries, token)
	return token
}

func (b *browser) tokenAnswer() (answer map[string]any) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(b.fetch(http.MethodPost, "/auth/token", "").wants(b.t, 200).body), &answer); err != nil {
		b.t.Fatal(err)
	}
	return answer
}

// opened is a JWT in its two readable parts.
func opened(t testing.TB, token string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no JWT", token)
	}
	for i, to := range []*map[string]any{&header, &claims} {
		if err := json.Unmarshal(must(base64.RawURLEncoding.DecodeString(parts[i])), to); err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

func TestTheAppsOwnPagesGetATokenAboutWhoIsSignedIn(t *testing.T) {
	w := newAppWorld(t, setup{}, nil)
	b := w.signedIn(t, "ada")
	r := b.fetch(http.MethodPost, "/auth/token", "").wants(t, 200)
	for name, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "Access-Control-Allow-Origin": ""} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s %q, want %q", name, got, want)
		}
	}
	var answer map[string]any
	if err := json.Unmarshal([]byte(r.body), &answer); err != nil {
		t.Fatal(err)
	}
	token, _ := answer["access_token"].(string)
	w.canaries = append(w.canaries, token)
	if want := map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": 600.0}; !maps.Equal(answer, want) {
		t.Errorf("the answer is %v, want %v", answer, want)
	}

	var published jose.JSONWebKeySet
	if err := json.Unmarshal(w.proxy.PublicKeys(), &published); err != nil {
		t.Fatal(err)
	}
	jws := must(jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256}))
	if _, err := jws.Verify(published); err != nil {
		t.Errorf("the token does not verify with the published keys: %v", err)
	}
	header, claims := opened(t, token)
	if header["typ"] != "authproxy-app+jwt" {
		t.Errorf("typ %q", header["typ"])
	}
	b.fetch(http.MethodGet, "/x", "").wants(t, 200)
	now := float64(w.clock.Now().Unix())
	want := map[string]any{"iss": w.origin, "aud": w.origin, "sub": adaSubject, "idp": w.provider.Issuer(), "iat": now, "exp": now + 600, "jti": claims["jti"],
		"sid": w.assertion(t, w.upstream.last(t))["sid"], "name": "Ada Lovelace", "username": "ada", "email": "ada@example.com", "email_verified": true,
		"groups": []any{"admins", "staff"}, "scope": "openid profile email"}
	if diff := cmp.Diff(want, claims); diff != "" {
		t.Errorf("the claims differ (-want +got):\n%s", diff)
	}
	if _, other := opened(t, b.appToken()); claims["jti"] == "" || other["jti"] == claims["jti"] {
		t.Errorf("two tokens with the jti %q", claims["jti"])
	}
	_, bob := opened(t, w.signedIn(t, "bob").appToken())
	if bob["email_verified"] != false {
		t.Errorf("email_verified %v of an address that is not, want false", bob["email_verified"])
	}
	_, eve := opened(t, w.signedIn(t, "eve").appToken())
	for _, name := range []string{"email", "email_verified", "name", "groups"} {
		if v, ok := eve[name]; ok {
			t.Errorf("%s %v of somebody without one", name, v)
		}
	}
}

func TestOtherSitesGetNoToken(t *testing.T) {
	w := newAppWorld(t, setup{}, nil)
	b := w.signedIn(t, "ada")
	for _, row := range []struct {
		name    string
		headers []string
		want    int
	}{
		{"our own page", nil, 200},
		{"our own page, without Fetch Metadata", []string{"Sec-Fetch-Site", "", "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", ""}, 200},
		{"another site", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 403},
		{"another site, without Fetch Metadata", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "", "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", ""}, 403},
		{"a sandbox", []string{"Origin", "null", "Sec-Fetch-Site", "cross-site"}, 403},
		{"a sandbox, without Fetch Metadata", []string{"Origin", "null", "Sec-Fetch-Site", "", "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", ""}, 403},
		{"a neighbour", []string{"Origin", "http://other.test", "Sec-Fetch-Site", "same-site"}, 403},
		{"another port", []string{"Origin", "http://app.test:81", "Sec-Fetch-Site", "same-site"}, 403},
	} {
		t.Run(row.name, func(t *testing.T) {
			// The harness's browser holds Lax cookies back from other sites; one that does not is no help to them.
			r := b.fetch(http.MethodPost, "/auth/token", "", append(row.headers, "Cookie", "")...)
			if row.want != 200 {
				r = w.newBrowser(t).fetch(http.MethodPost, "/auth/token", "", append(row.headers, "Cookie", w.cookie+"="+b.session())...)
				r.wantsJSON(t, 403, "cross_site")
				return
			}
			r.wants(t, 200, "access_token")
		})
	}
	w.newBrowser(t).fetch(http.MethodPost, "/auth/token", "").wantsJSON(t, 401, "login_required")
	b.fetch(http.MethodGet, "/auth/token", "").wants(t, 405)
	w.newBrowser(t).fetch(http.MethodPost, "/auth/token", "", "Authorization", "Bearer "+b.appToken()).wantsJSON(t, 401, "login_required") // no token begets another
	w.newBrowser(t).fetch(http.MethodPost, "/auth/token", "", "Authorization", "Bearer "+w.accessToken("ada", nil)).wantsJSON(t, 401, "login_required")
}

func TestAnAppTokenLivesNoLongerThanItsSession(t *testing.T) {
	for _, row := range []struct {
		name       string
		idle, life time.Duration
		after      time.Duration
		want       float64 // 0: none is given
	}{
		{"a session with much time", 0, 0, 0, 600},
		{"one that ends soon", 0, time.Hour, 55 * time.Minute, 300},
		{"one that ends within the second", 0, time.Hour + time.Second/2, time.Hour, 0},
		{"one that ends when it is not used", 2 * time.Minute, time.Hour, 0, 120},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newAppWorld(t, setup{idle: row.idle, life: row.life}, nil)
			b := w.signedIn(t, "ada")
			w.clock.advance(row.after)
			if row.want == 0 {
				b.fetch(http.MethodPost, "/auth/token", "").wantsJSON(t, 401, "login_required")
				return
			}
			answer := b.tokenAnswer()
			token, _ := answer["access_token"].(string)
			w.canaries = append(w.canaries, token)
			_, claims := opened(t, token)
			if life := claims["exp"].(float64) - claims["iat"].(float64); life != row.want || answer["expires_in"] != row.want {
				t.Errorf("it lives for %v s and expires in %v s, want %v s", life, answer["expires_in"], row.want)
			}
		})
	}
}

func TestAnAppTokenIsACredentialUntilItExpires(t *testing.T) {
	w := newAppWorld(t, setup{}, nil)
	line := "Bearer " + w.signedIn(t, "ada").appToken()
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 200}, {0, 200}, {10*time.Minute - 1, 200}, {1, 401}, {0, 401}} { // no leeway: the clock is ours
		w.clock.advance(step.after)
		w.call(t, "/x", line).wants(t, step.want)
	}
	if body := w.call(t, "/x", line).wantsChallenge(t, 401, "invalid_token"); body["message"] != "the access token has expired" {
		t.Errorf("the message is %q", body["message"])
	}
}

func TestAnAppTokenDiesWithItsSession(t *testing.T) {
	end := func(sel func(w *world, id string) session.Selector) func(*testing.T, *world, *browser, string) {
		return func(t *testing.T, w *world, b *browser, id string) {
			if err := w.sessions.End(t.Context(), sel(w, id)); err != nil {
				t.Fatal(err)
			}
		}
	}
	backChannel := func(user func(w *world) (username, sid string)) func(*testing.T, *world, *browser, string) {
		return func(t *testing.T, w *world, b *browser, id string) {
			name, sid := user(w)
			if d := w.provider.SendLogout(clientID, w.provider.LogoutToken(clientID, name, sid, nil)); d.Status != 200 {
				t.Fatalf("back-channel logout: %+v", d)
			}
		}
	}
	for _, row := range []struct {
		name string
		do   func(t *testing.T, w *world, b *browser, id string)
		want int
	}{
		{"the user signs out", func(t *testing.T, w *world, b *browser, id string) { b.post("/auth/logout", nil) }, 401},
		{"the provider ends its session", backChannel(func(w *world) (string, string) { return "ada", w.provider.LastSID() }), 401},
		{"the provider ends another one", backChannel(func(w *world) (string, string) { return "ada", "another-sid" }), 200},
		{"the provider ends all of the user", backChannel(func(w *world) (string, string) { return "ada", "" }), 401},
		{"the provider ends all of another user", backChannel(func(w *world) (string, string) { return "bob", "" }), 200},
		{"it is revoked", end(func(_ *world, id string) session.Selector { return session.Selector{ID: id} }), 401},
		{"another one is revoked", end(func(*world, string) session.Selector { return session.Selector{ID: "other"} }), 200},
		{"all are revoked", end(func(*world, string) session.Selector { return session.Selector{All: true} }), 401},
		{"the user signs in anew", func(t *testing.T, w *world, b *browser, id string) { b.follow("/auth/login") }, 401},
		{"the browser loses its cookie", func(t *testing.T, w *world, b *browser, id string) { b.jar.kept = nil }, 200},
		{"we start again", func(t *testing.T, w *world, b *browser, id string) { w.restart() }, 200},
	} {
		for _, file := range []bool{false, true} {
			t.Run(row.name+map[bool]string{false: ", cookie store", true: ", file store"}[file], func(t *testing.T) {
				w := newAppWorld(t, setup{file: file}, nil)
				b := w.signedIn(t, "ada")
				token := b.appToken()
				w.call(t, "/x", "Bearer "+token).wants(t, 200)
				_, claims := opened(t, token)
				w.clock.advance(time.Second)
				row.do(t, w, b, claims["sid"].(string))
				r := w.call(t, "/x", "Bearer "+token)
				if row.want == 401 {
					if body := r.wantsChallenge(t, 401, "invalid_token"); body["message"] != "the session of the token has ended" {
						t.Errorf("the message is %q", body["message"])
					}
					return
				}
				r.wants(t, row.want)
			})
		}
	}
}

// A store that does not answer does not say that a session has ended.
func TestAnAppTokenIsNeitherGoodNorBadWhileTheStoreIsDown(t *testing.T) {
	w := newAppWorld(t, setup{file: true}, nil)
	line := "Bearer " + w.signedIn(t, "ada").appToken()
	w.call(t, "/x", line).wants(t, 200)
	n := len(w.upstream.requests())
	w.store.Close()
	w.call(t, "/x", line).wantsJSON(t, 503, "session_store_unavailable")
	w.call(t, "/public", line).wantsJSON(t, 503, "session_store_unavailable")
	if len(w.upstream.requests()) != n {
		t.Error("the upstream was asked")
	}
}

// With a token a user may do what the session lets them do.
func TestAnAppTokenIsJudgedLikeItsSession(t *testing.T) {
	e := func(e policy.Entry) *policy.Policy { return &policy.Policy{Entries: []policy.Entry{e}} }
	policies := []struct {
		name string
		*policy.Policy
	}{
		{"groups", e(policy.Entry{Groups: []string{"admins"}})},
		{"other-groups", e(policy.Entry{Groups: []string{"owners"}})},
		{"emails", e(policy.Entry{Emails: []string{"ada@example.com"}})},
		{"domains", e(policy.Entry{EmailDomains: []string{"example.com"}})},
		{"subjects", e(policy.Entry{Subjects: []string{adaSubject}})},
		{"scopes", e(policy.Entry{Scopes: []string{"email"}})},
		{"permissions", e(policy.Entry{Permissions: []string{"write:items"}})},
		{"organizations", e(policy.Entry{Organizations: []string{"org_demo"}})},
		{"claims", e(policy.Entry{Claims: []policy.Claim{{Name: "department", Values: []string{"research"}}}})},
		{"odd-claims", e(policy.Entry{Claims: []policy.Claim{{Name: "sid", Values: []string{"x"}}}})}, // a claim of the provider that is called like one of ours
		{"recent", &policy.Policy{SignedIn: true, MaxAuthAge: time.Hour}},
		{"acr", &policy.Policy{SignedIn: true, ACR: "gold"}},
	}
	for _, user := range []string{"ada", "bob", "eve"} {
		who := identityOf(user)
		t.Run(user, func(t *testing.T) {
			w := newAppWorld(t, setup{}, func(o *proxy.Options) {
				o.Identity.OnlyGroups = []string{"staff"} // for upstreams, not for policies
				o.Routes = nil
				for _, row := range policies {
					o.Routes = append(o.Routes, proxy.Route{Path: "/" + row.name, Policy: row.Policy})
				}
			})
			who.Issuer = w.provider.Issuer()
			b := w.newBrowser(t)
			_, cookie, err := w.sessions.Begin(t.Context(), &session.Session{Identity: who})
			if err != nil {
				t.Fatal(err)
			}
			b.jar.keep(must(url.Parse(w.origin)), []*http.Cookie{cookie})
			token := b.appToken()
			for _, row := range policies {
				want := row.Decide(who, w.clock.Now()).Allowed
				bySession := b.fetch(http.MethodGet, "/"+row.name, "").StatusCode == 200
				headers := w.upstream.requests()
				byToken := w.call(t, "/"+row.name, "Bearer "+token).StatusCode == 200
				if bySession != want || byToken != want {
					t.Errorf("%s: allowed by session %v, by token %v, want %v", row.name, bySession, byToken, want)
				}
				if want {
					one, two := headers[len(headers)-1].Header, w.upstream.last(t).Header
					for _, name := range []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups"} {
						if !slices.Equal(one[name], two[name]) {
							t.Errorf("%s: %s is %q by session and %q by token", row.name, name, one[name], two[name])
						}
					}
					first, second := w.assertion(t, headers[len(headers)-1]), w.assertion(t, w.upstream.last(t))
					delete(first, "jti")
					delete(second, "jti")
					if diff := cmp.Diff(first, second); diff != "" {
						t.Errorf("%s: the assertions differ (-session +token):\n%s", row.name, diff)
					}
				}
			}
		})
	}
}

// Only what we made is believed: not what somebody signed who has the key, and nothing else that we sign.
func TestATokenThatWeDidNotMakeIsNoAppToken(t *testing.T) {
	for name, key := range map[string]any{"ES256": worldKey(t), "HS256": sharedKey} {
		t.Run(name, func(t *testing.T) {
			w := newAppWorld(t, setup{}, func(o *proxy.Options) {
				if k, shared := key.([]byte); shared {
					o.AppToken.Key = k
				}
			})
			b := w.signedIn(t, "ada")
			good := b.appToken()
			other := w.signedIn(t, "bob").appToken()
			w.call(t, "/x", "Bearer "+good).wants(t, 200)
			headerOf, _ := opened(t, other)
			for _, row := range []struct {
				name string
				key  any
				do   func(header, claims map[string]any)
				want bool
			}{
				{"the same, signed again", key, nil, true},
				{"another subject", key, func(_, c map[string]any) { c["sub"] = "auth0|bob" }, false},
				{"more groups", key, func(_, c map[string]any) { c["groups"] = []string{"root"} }, false},
				{"a longer life", key, func(_, c map[string]any) { c["exp"] = 1 << 40 }, false},
				{"another session", key, func(_, c map[string]any) { c["sid"] = "x" }, false},
				{"the reference of another token", key, func(h, _ map[string]any) { h["ref"] = headerOf["ref"] }, false},
				{"no reference", key, func(h, _ map[string]any) { delete(h, "ref") }, false},
				{"a reference of another type", key, func(h, _ map[string]any) { h["ref"] = 1 }, false},
				{"the session cookie as reference", key, func(h, _ map[string]any) { h["ref"] = b.session() }, false},
				{"another typ", key, func(h, _ map[string]any) { h["typ"] = "JWT" }, false},
				{"typ in other letters", key, func(h, _ map[string]any) { h["typ"] = "authproxy-APP+jwt" }, false},
				{"typ under another name", key, func(h, _ map[string]any) { h["Typ"] = h["typ"]; delete(h, "typ") }, false},
				{"the typ of assertions", key, func(h, _ map[string]any) { h["typ"] = assertion.Type }, false},
				{"alg none", nil, func(h, _ map[string]any) { h["alg"] = "none" }, false},
				{"no signature", nil, nil, false},
				{"another alg", devprovider.UnpublishedKey(), func(h, _ map[string]any) { h["alg"] = "RS256" }, false},
				{"HS256 with the published keys", w.proxy.PublicKeys(), func(h, _ map[string]any) { h["alg"] = "HS256" }, false},
				{"another key", must(assertion.DeriveKey(bytes.Repeat([]byte("x"), 32))), nil, false},
				{"a kid that nobody knows", key, func(h, _ map[string]any) { h["kid"] = "x" }, false},
				{"crit", key, func(h, _ map[string]any) { h["crit"], h["x"] = []string{"x"}, 1 }, false},
			} {
				t.Run(row.name, func(t *testing.T) {
					header, claims := opened(t, good)
					payload := must(base64.RawURLEncoding.DecodeString(strings.Split(good, ".")[1]))
					if row.do != nil {
						before := must(json.Marshal(claims))
						row.do(header, claims)
						if after := must(json.Marshal(claims)); !bytes.Equal(before, after) {
							payload = after
						}
					}
					forged := (&devprovider.Token{Header: header, Payload: payload, Key: row.key}).Sign()
					w.canaries = append(w.canaries, forged)
					r := w.call(t, "/x", "Bearer "+forged)
					if row.want {
						r.wants(t, 200)
						return
					}
					r.wantsChallenge(t, 401, "invalid_token")
				})
			}
			const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
			last := alphabet[strings.IndexByte(alphabet, good[len(good)-1])^1] // the same signature for a lenient decoder
			for name, token := range map[string]string{"in another spelling": good[:len(good)-1] + string(last), "cut": good[:len(good)-2], "longer": good + "A", "with padding": good + "=", "in four parts": good + ".x"} {
				w.call(t, "/x/"+strings.ReplaceAll(name, " ", "-"), "Bearer "+token).wantsChallenge(t, 401, "invalid_token")
			}
		})
	}
}

// An assertion goes to upstreams, which must not be able to use it here.
func TestOurAssertionIsNoCredential(t *testing.T) {
	w := newAppWorld(t, setup{}, nil)
	w.signedIn(t, "ada").fetch(http.MethodGet, "/x", "").wants(t, 200)
	w.call(t, "/x", "Bearer "+w.upstream.last(t).Header.Get("X-Authproxy-Assertion")).wantsChallenge(t, 401, "invalid_token")
}

// Installations may share their keys, and a configuration may change.
func TestAnAppTokenOfAnotherConfigurationIsRefused(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(o *proxy.Options)
		host   string
		want   int
	}{
		{"the same", func(*proxy.Options) {}, "app.test", 200},
		{"another public_url", func(o *proxy.Options) { o.PublicURL = must(url.Parse("http://other.test")) }, "other.test", 401},
		{"another provider", func(o *proxy.Options) {
			o.Provider = must(oidc.New(oidc.Config{Issuer: "https://other.example/", ClientID: clientID, ClientSecret: clientSecret, RedirectURL: "http://app.test/auth/callback"}))
		}, "app.test", 401},
		{"other signing keys", func(o *proxy.Options) {
			o.AppToken = &proxy.AppToken{TTL: time.Minute, SigningKeys: []*ecdsa.PrivateKey{must(assertion.DeriveKey(bytes.Repeat([]byte("x"), 32)))}}
		}, "app.test", 401},
		{"a new signing key before the old one", func(o *proxy.Options) {
			o.AppToken = &proxy.AppToken{TTL: time.Minute, SigningKeys: []*ecdsa.PrivateKey{must(assertion.DeriveKey(bytes.Repeat([]byte("x"), 32))), worldKey(t)}}
		}, "app.test", 200},
		{"other session keys", func(o *proxy.Options) { o.Sealer = must(session.NewSealer([][]byte{bytes.Repeat([]byte("x"), 32)})) }, "app.test", 401},
		{"app tokens switched off", func(o *proxy.Options) { o.AppToken = nil }, "app.test", 401},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newAppWorld(t, setup{}, nil)
			line := "Bearer " + w.signedIn(t, "ada").appToken()
			opts := w.opts
			row.change(&opts)
			var h http.Handler = must(proxy.New(opts))
			w.handler.Store(&h)
			r := w.newBrowser(t).send(http.MethodGet, "http://"+row.host+"/x", "", "Authorization", line)
			if r.StatusCode != row.want {
				t.Errorf("%s, want %d: %s", r.Status, row.want, r.body)
			}
		})
	}
}

func TestUpstreamsNeverGetAppTokens(t *testing.T) {
	for _, forwards := range []bool{false, true} {
		w := newAppWorld(t, setup{}, func(o *proxy.Options) { o.Identity.AccessToken = forwards })
		w.call(t, "/x", "Bearer "+w.signedIn(t, "ada").appToken()).wants(t, 200)
		if got := w.upstream.last(t).Header["Authorization"]; got != nil {
			t.Errorf("forwarding %v: the upstream got %d Authorization lines", forwards, len(got))
		}
	}
}

// Authorization holds credentials with bearer only. The app may still verify the token by itself.
func TestWithoutBearerAnAppTokenIsForTheAppToRead(t *testing.T) {
	w := newAppWorld(t, setup{}, func(o *proxy.Options) { o.Bearer = nil })
	b := w.signedIn(t, "ada")
	line := "Bearer " + b.appToken()
	w.call(t, "/x", line).wantsJSON(t, 401, "login_required")
	b.fetch(http.MethodGet, "/x", "", "Authorization", line).wants(t, 200)
	if got := w.upstream.last(t).Header.Get("Authorization"); got != line {
		t.Error("the upstream did not get the token beside the session")
	}
}

func TestASharedKeySignsAppTokens(t *testing.T) {
	w := newAppWorld(t, setup{}, func(o *proxy.Options) { o.AppToken.Key = sharedKey })
	token := w.signedIn(t, "ada").appToken()
	jws := must(jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.HS256}))
	if _, err := jws.Verify(sharedKey); err != nil {
		t.Errorf("the token does not verify: %v", err)
	}
	if keys := string(w.proxy.PublicKeys()); strings.Contains(keys, "oct") || strings.Contains(keys, base64.RawURLEncoding.EncodeToString(sharedKey)) {
		t.Errorf("the shared key is published: %s", keys)
	}
	w.call(t, "/x", "Bearer "+token).wants(t, 200)
}

func TestAppTokensNeedAKeyAndALife(t *testing.T) {
	w := newWorld(t, setup{})
	for name, conf := range map[string]*proxy.AppToken{
		"no key":       {TTL: time.Minute},
		"a short key":  {TTL: time.Minute, Key: sharedKey[:31]},
		"an empty key": {TTL: time.Minute, Key: []byte{}},
		"no life":      {SigningKeys: []*ecdsa.PrivateKey{worldKey(t)}},
	} {
		opts := w.opts
		opts.AppToken = conf
		if _, err := proxy.New(opts); err == nil || strings.Contains(err.Error(), string(sharedKey[:31])) {
			t.Errorf("%s: New = %v, want an error without the key", name, err)
		}
	}
}

func TestAppTokensAreOffUnlessAskedFor(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.signedIn(t, "ada")
	b.fetch(http.MethodPost, "/auth/token", "").wantsJSON(t, 404, "not_found")
	b.navigate("/auth/handoff").wantsPage(t, 404, "Page not found")
	w = newAppWorld(t, setup{}, func(o *proxy.Options) { o.AppToken.Handoff = false })
	b = w.signedIn(t, "ada")
	b.navigate("/auth/handoff").wantsPage(t, 404, "Page not found")
	b.post("/auth/logout", nil).wants(t, 303)
}

// handed is what a hand-over page puts into localStorage, and where it goes on to.
func handed(t testing.TB, r *reply) (token, to string) {
	t.Helper()
	page := pagestest.Check(t, r.Header, r.body)
	link := page.All("a")[0]
	return link.Attrs["data-token"], link.Attrs["href"]
}

func TestTheHandOverPageGivesATokenAndGoesOn(t *testing.T) {
	w := newAppWorld(t, setup{}, nil)
	b := w.signedIn(t, "ada")
	for _, row := range []struct{ returnTo, want string }{
		{"", "/"}, {"/app?x=1&y=%2F#top", "/app?x=1&y=%2F#top"}, {w.origin + "/app", "/app"}, {"/auth/", "/auth/"},
		{"https://evil.example/", "/"}, {"//evil.example", "/"}, {`/\evil.example`, "/"}, {"javascript:alert(1)", "/"}, {"/auth/logout", "/"}, {"/auth/token", "/"},
		{`/"</script><script>alert(1)</script>`, "/%22%3c/script%3e%3cscript%3ealert%281%29%3c/script%3e"},
	} {
		r := b.navigate("/auth/handoff?"+url.Values{"return_to": {row.returnTo}}.Encode()).wantsPage(t, 200, "One moment")
		token, to := handed(t, r)
		w.canaries = append(w.canaries, token)
		if _, claims := opened(t, token); claims["sub"] != adaSubject {
			t.Errorf("return_to %q: a token of %q", row.returnTo, claims["sub"])
		}
		if to != row.want && to != "/" {
			t.Errorf("return_to %q leads to %q, want %q", row.returnTo, to, row.want)
		}
		if row.want == "/" && to != "/" || strings.HasPrefix(row.returnTo, "/app") && to != row.want {
			t.Errorf("return_to %q leads to %q, want %q", row.returnTo, to, row.want)
		}
		w.call(t, "/x", "Bearer "+token).wants(t, 200)
	}
	b.navigate("/auth/handoff?return_to=/a&return_to=/b").wantsPage(t, 400, "We could not read that request")
}

func TestTheHandOverPageIsForNavigationsOnly(t *testing.T) {
	w := newAppWorld(t, setup{}, nil)
	b := w.signedIn(t, "ada")
	for name, r := range map[string]*reply{
		"a script":   b.fetch(http.MethodGet, "/auth/handoff", ""),
		"an image":   b.send(http.MethodGet, "/auth/handoff", "", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image", "Sec-Fetch-Site", "same-origin"),
		"a prefetch": b.navigate("/auth/handoff", "Sec-Purpose", "prefetch"),
	} {
		if r.StatusCode != 400 || strings.Contains(r.body, "eyJ") {
			t.Errorf("%s gets %s: %s", name, r.Status, r.body)
		}
	}
	b.send(http.MethodPost, "/auth/handoff", "").wants(t, 405)
}

func TestTheHandOverPageSendsThroughTheLoginFirst(t *testing.T) {
	for name, s := range map[string]setup{"Lax": {}, "Strict": {sameSite: http.SameSiteStrictMode}} {
		t.Run(name, func(t *testing.T) {
			w := newAppWorld(t, s, nil)
			b := w.newBrowser(t)
			first := b.navigate("/auth/handoff?return_to=/app")
			if first.StatusCode != 302 || strings.Contains(first.body, "eyJ") {
				t.Fatalf("%s: %s", first.Status, first.body)
			}
			token, to := handed(t, b.follow("/auth/handoff?return_to=/app").wantsPage(t, 200, "One moment"))
			w.canaries = append(w.canaries, token)
			if to != "/app" {
				t.Errorf("it goes on to %q, want /app", to)
			}
			w.call(t, "/x", "Bearer "+token).wants(t, 200)
		})
	}
	w := newAppWorld(t, setup{}, nil)
	w.newBrowser(t).fetch(http.MethodGet, "/auth/handoff", "").wantsJSON(t, 401, "login_required")
	b := w.newBrowser(t) // an app may ask for both at once
	if r := b.follow("/auth/login?return_to=" + url.QueryEscape("/auth/handoff?return_to=/app")); r.at != w.origin+"/auth/handoff?return_to=/app" {
		t.Errorf("a login with the hand-over page as its return_to ends at %s", r.at)
	} else {
		token, _ := handed(t, r)
		w.canaries = append(w.canaries, token)
	}
}

// The server cannot empty localStorage but with everything that the app keeps there.
func TestSigningOutTakesTheTokenAwayAndNothingElse(t *testing.T) {
	w := newAppWorld(t, setup{}, nil)
	b := w.signedIn(t, "ada")
	token := b.appToken()
	r := b.post("/auth/logout", url.Values{"return_to": {"/bye"}}).wantsPage(t, 200, "One moment")
	page := pagestest.Check(t, r.Header, r.body)
	if script := page.All("script")[0].Text(); !strings.Contains(script, `localStorage.removeItem("authproxy_token")`) || strings.Contains(script, "clear") {
		t.Errorf("the script is %s", script)
	}
	if r.Header["Clear-Site-Data"] != nil {
		t.Errorf("Clear-Site-Data %q", r.Header["Clear-Site-Data"])
	}
	to := must(url.Parse(page.All("a")[0].Attrs["href"]))
	back := to.Query().Get("post_logout_redirect_uri") + to.Query().Get("returnTo")
	if !strings.HasPrefix(to.String(), w.provider.Issuer()) || back != w.origin+"/bye" {
		t.Errorf("the page goes on to %s, want the provider's logout and back to /bye", to)
	}
	if b.session() != "" {
		t.Error("the browser kept its session")
	}
	w.call(t, "/x", "Bearer "+token).wantsChallenge(t, 401, "invalid_token")

	b = w.signedIn(t, "ada")
	b.fetch(http.MethodPost, "/auth/logout", "").wants(t, 303) // a script of the app removes the key by itself
}

func TestAStreamEndsWhenTheSessionOfItsAppTokenDoes(t *testing.T) {
	for _, file := range []bool{false, true} {
		w := newAppWorld(t, setup{file: file}, nil)
		b := w.signedIn(t, "ada")
		next := w.events(t, "Bearer "+b.appToken())
		w.clock.advance(time.Hour) // the token expires; the stream is the session's
		w.proxy.CheckStreams(t.Context())
		if got := next(); got != "data: x\n" {
			t.Errorf("while the session lives the stream goes on with %q", got)
		}
		b.fetch(http.MethodPost, "/auth/logout", "").wants(t, 303)
		w.proxy.CheckStreams(t.Context())
		if got := next(); got != "" {
			t.Errorf("after the session has ended the stream goes on with %q", got)
		}
	}
}

// Whatever comes as a token, only one that we made is an app token.
func FuzzAppToken(f *testing.F) {
	w := newAppWorld(f, setup{}, nil)
	good := w.signedIn(f, "ada").appToken()
	header, rest, _ := strings.Cut(good, ".")
	f.Add(good)
	f.Add(header + "." + rest + ".")
	f.Add(header + "..")
	f.Add(strings.Replace(good, header, base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"authproxy-app+jwt"}`)), 1))
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, token string) {
		if token == good || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return
		}
		r := must(http.NewRequest(http.MethodGet, w.origin+"/x", nil))
		r.RequestURI, r.Host, r.RemoteAddr = "/x", "app.test", "127.0.0.1:1"
		r.Header.Set("Authorization", "Bearer "+token)
		s := w.proxy.Begin(r)
		if err := s.Locate(); err != nil {
			t.Fatal(err)
		}
		if err := s.Match(); err != nil {
			t.Fatal(err)
		}
		if err := s.Authenticate(); err == nil {
			t.Errorf("%q is believed to be %s", token, s.Who().Subject)
		}
	})
}

// identityOf is what a login could bring of a demo user.
func identityOf(username string) *identity.Identity {
	who := &identity.Identity{Subject: "sms|eve 1"}
	switch username {
	case "ada":
		who = &identity.Identity{Subject: adaSubject, Email: "ada@example.com", EmailVerified: true, Name: "Ada Lovelace", Username: "ada", Groups: []string{"admins", "staff"},
			Organization: "org_demo", Permissions: []string{"read:items", "write:items"}, Scopes: []string{"openid", "email"}, ACR: "gold", AuthTime: time.Now().Truncate(time.Second),
			Claims: map[string]any{"department": "research", "level": 3.5, "sid": "x", "roles": []any{"owner"}}}
	case "bob":
		who = &identity.Identity{Subject: "auth0|bob", Email: "bob@example.com", Name: "Bob <b> \u2028 Kahn", Groups: []string{"staff", "a,b"}, AuthTime: time.Now().Add(-2 * time.Hour).Truncate(time.Second)}
	}
	return who
}
