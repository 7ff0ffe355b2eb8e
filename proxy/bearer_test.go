package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authproxy/assertion"
	"authproxy/devprovider"
	"authproxy/oidc"
	"authproxy/policy"
	"authproxy/proxy"
)

// bearerRoutes are judged by what access tokens say.
func bearerRoutes() []proxy.Route {
	entry := func(e policy.Entry) *policy.Policy { return &policy.Policy{Entries: []policy.Entry{e}} }
	return append(usualRoutes(),
		proxy.Route{Path: "/items", Policy: entry(policy.Entry{Permissions: []string{"read:items"}})},
		proxy.Route{Path: "/write", Policy: entry(policy.Entry{Permissions: []string{"write:items"}})},
		proxy.Route{Path: "/scope", Policy: entry(policy.Entry{Scopes: []string{"read:items"}})},
	)
}

// newBearerWorld is a world in which access tokens for the API are credentials; change may be nil.
func newBearerWorld(t testing.TB, s setup, change func(*proxy.Options)) *world {
	t.Helper()
	s.options = func(o *proxy.Options) {
		r, err := oidc.NewResource(o.Provider, apiAudience, nil)
		if err != nil {
			t.Fatal(err)
		}
		o.Bearer, o.Routes = r, bearerRoutes()
		if change != nil {
			change(o)
		}
	}
	return newWorld(t, s)
}

// accessToken is a token of that user for the API.
func (w *world) accessToken(username string, change func(*devprovider.Token)) string {
	token := w.provider.AccessToken(clientID, username, apiAudience, []string{"openid", "read:items"}, change)
	w.canaries = append(w.canaries, token)
	return token
}

// call makes a request of an API client: nothing of a browser, one Authorization line unless it is "".
func (w *world) call(t testing.TB, path, authorization string, headers ...string) *reply {
	t.Helper()
	return w.newBrowser(t).send(http.MethodGet, path, "", append([]string{"Authorization", authorization}, headers...)...)
}

// assertion is what the upstream's request says in its assertion.
func (w *world) assertion(t testing.TB, r *asked) map[string]any {
	t.Helper()
	claims, err := assertion.Verify(r.Header.Get("X-Authproxy-Assertion"), w.proxy.PublicKeys(), w.origin, w.upstream.URL, w.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	return claims
}

// wantsChallenge fails the test unless the reply refuses a bearer token with that error (RFC 6750 §3).
func (r *reply) wantsChallenge(t testing.TB, status int, code string) map[string]string {
	t.Helper()
	body := r.wantsJSON(t, status, code)
	if got := r.Header.Get("WWW-Authenticate"); !strings.HasPrefix(got, `Bearer realm="app.test", error="`+code+`", error_description="`) {
		t.Errorf("%s answers with WWW-Authenticate %q, want error %q", r.at, got, code)
	}
	return body
}

func TestAnAccessTokenSaysWhoMakesTheRequest(t *testing.T) {
	w := newBearerWorld(t, setup{}, nil)
	for _, row := range []struct {
		user, path string
		want       int
	}{
		{"ada", "/x", 200}, {"bob", "/x", 200}, {"eve", "/x", 200}, {"ada", "/public", 200}, {"ada", "/api", 200}, {"ada", "/gate", 200},
		{"ada", "/items", 200}, {"bob", "/items", 200}, {"eve", "/items", 403}, {"ada", "/write", 200}, {"bob", "/write", 403}, {"eve", "/scope", 200},
		{"ada", "/admin", 403}, // the token names no groups
	} {
		t.Run(row.user+" at "+row.path, func(t *testing.T) {
			n := len(w.upstream.requests())
			r := w.call(t, row.path, "Bearer "+w.accessToken(row.user, nil))
			if got := r.Header["Set-Cookie"]; got != nil {
				t.Errorf("Set-Cookie %q, want none", got)
			}
			if row.want == http.StatusForbidden {
				r.wantsChallenge(t, 403, "insufficient_scope")
				if len(w.upstream.requests()) != n {
					t.Error("the upstream was asked")
				}
				return
			}
			r.wants(t, row.want, "GET "+row.path)
			h := w.upstream.last(t).Header
			if got := h["Authorization"]; got != nil {
				t.Error("the upstream got the token")
			}
			c := w.assertion(t, w.upstream.last(t))
			if sub := c["sub"]; sub != h.Get("X-Forwarded-User") || c["idp"] != w.provider.Issuer() {
				t.Errorf("the assertion is about %q of %q, X-Forwarded-User is %q", sub, c["idp"], h.Get("X-Forwarded-User"))
			}
			if got := r.Header.Get("Cache-Control"); got != "private" {
				t.Errorf("Cache-Control %q, want private", got)
			}
		})
	}
	if got := w.log.request(t, "/items")["subject"]; got != "sms|eve 1" {
		t.Errorf("the log says %q", got)
	}
}

// TOK-25.
func TestABearerTokenHasOneSpelling(t *testing.T) {
	w := newBearerWorld(t, setup{}, nil)
	good := w.accessToken("ada", nil)
	for _, row := range []struct {
		name  string
		lines []string
		want  string // "" is let in
	}{
		{"as RFC 6750 writes it", []string{"Bearer " + good}, ""},
		{"in small letters", []string{"bearer " + good}, ""},
		{"in large letters", []string{"BEARER " + good}, ""},
		{"two spaces", []string{"Bearer  " + good}, "invalid_token"},
		{"a tab", []string{"Bearer\t" + good}, "invalid_token"},
		{"no space", []string{"Bearer" + good}, "login_required"},
		{"something behind", []string{"Bearer " + good + " x"}, "invalid_token"},
		{"a comma behind", []string{"Bearer " + good + ","}, "invalid_token"},
		{"another credential behind", []string{"Bearer " + good + ", Basic x"}, "invalid_token"},
		{"in quotes", []string{`Bearer "` + good + `"`}, "invalid_token"},
		{"as a parameter", []string{"Bearer token=" + good}, "invalid_token"},
		{"nothing", []string{"Bearer"}, "invalid_token"},
		{"only padding", []string{"Bearer ="}, "invalid_token"},
		{"a comma at once", []string{"Bearer," + good}, "invalid_token"},
		{"two lines", []string{"Bearer " + good, "Bearer " + good}, "invalid_token"},
		{"a second line with another scheme", []string{"Bearer " + good, "Basic x"}, "invalid_token"},
		{"a first line with another scheme", []string{"Basic x", "bearer " + good}, "invalid_token"},
		{"behind another scheme", []string{"Basic x, Bearer " + good}, "login_required"},
		{"without a scheme", []string{good}, "login_required"},
		{"another scheme", []string{"Basic " + good}, "login_required"},
		{"a longer scheme", []string{"Bearer-Token " + good}, "login_required"},
		{"letters that fold", []string{"Beaᵣer " + good}, "login_required"},
		{"empty", []string{""}, "login_required"},
	} {
		t.Run(row.name, func(t *testing.T) {
			n := len(w.upstream.requests())
			req := must(http.NewRequest(http.MethodGet, w.origin+"/x", nil))
			req.Header["Authorization"] = row.lines
			r := w.newBrowser(t).do(req)
			if row.want == "" {
				r.wants(t, 200)
				return
			}
			r.wantsJSON(t, 401, row.want)
			if len(w.upstream.requests()) != n {
				t.Error("the upstream was asked")
			}
		})
	}
	b := w.newBrowser(t)
	b.send(http.MethodGet, "/x?access_token="+good, "").wantsJSON(t, 401, "login_required")
	b.send(http.MethodPost, "/x", "access_token="+good, "Content-Type", "application/x-www-form-urlencoded").wantsJSON(t, 401, "login_required")
	b.send(http.MethodGet, "/x", "", "X-Authorization", "Bearer "+good).wantsJSON(t, 401, "login_required")
	b.send(http.MethodGet, "/x", "", "Proxy-Authorization", "Bearer "+good).wantsJSON(t, 401, "login_required")
	b.send(http.MethodGet, "/x", "", "Cookie", w.cookie+"="+good).wantsJSON(t, 401, "login_required")
}

func TestARefusedTokenIsExplained(t *testing.T) {
	w := newBearerWorld(t, setup{}, nil)
	for _, row := range []struct{ name, token, says, logged string }{
		{"opaque", "canary-opaque-token", "opaque: request one for the audience " + apiAudience, "opaque"},
		{"encrypted", "eyJhbGciOiJkaXIifQ..canary-iv.x.y", "opaque: request one for the audience " + apiAudience, "opaque"},
		{"expired", w.accessToken("ada", func(t *devprovider.Token) { t.Claims["exp"] = w.clock.Now().Add(-time.Hour).Unix() }), "has expired", "expired"},
		{"for another API", w.accessToken("ada", func(t *devprovider.Token) { t.Claims["aud"] = "https://other.test" }), "another audience: request one for " + apiAudience, "audience"},
		{"of another key", w.accessToken("ada", func(t *devprovider.Token) { t.Key = devprovider.UnpublishedKey() }), "not accepted here", "signature"},
		{"an ID token", w.accessToken("ada", func(t *devprovider.Token) { t.Claims["nonce"] = "n" }), "not accepted here", "token_type"},
		{"our assertion", func() string {
			w.call(t, "/x", "Bearer "+w.accessToken("ada", nil)).wants(t, 200)
			return w.upstream.last(t).Header.Get("X-Authproxy-Assertion")
		}(), "not accepted here", "issuer_mismatch"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w.canaries = append(w.canaries, row.token)
			path := "/x/" + strings.ReplaceAll(row.name, " ", "-")
			body := w.call(t, path, "Bearer "+row.token).wantsChallenge(t, 401, "invalid_token")
			if !strings.Contains(body["message"], row.says) {
				t.Errorf("the message is %q, want %q in it", body["message"], row.says)
			}
			if got := w.log.request(t, path); got["reason"] != "bearer token refused: "+row.logged || got["level"] != "INFO" {
				t.Errorf("the log says %v at %v", got["reason"], got["level"])
			}
			nav := w.newBrowser(t).navigate(path, "Authorization", "Bearer "+row.token)
			nav.wantsChallenge(t, 401, "invalid_token") // never a redirect
		})
	}
}

// A token that is none of ours may be the app's own.
func TestAPublicRouteIsNeitherClosedNorOpenedAsSomebodyByABadToken(t *testing.T) {
	w := newBearerWorld(t, setup{}, nil)
	for name, line := range map[string]string{"opaque": "Bearer the-apps-own", "malformed": "Bearer  x", "another scheme": "Basic eDp5",
		"expired": "Bearer " + w.accessToken("ada", func(t *devprovider.Token) { t.Claims["exp"] = 1 })} {
		t.Run(name, func(t *testing.T) {
			w.call(t, "/public/x", line).wants(t, 200)
			h := w.upstream.last(t).Header
			if h["X-Forwarded-User"] != nil || h["X-Authproxy-Assertion"] != nil {
				t.Errorf("the upstream got %q", h)
			}
			if got := h.Get("Authorization"); got != line {
				t.Errorf("the upstream got Authorization %q, want %q", got, line)
			}
		})
	}
}

func TestASessionAndATokenTogetherAreRefused(t *testing.T) {
	w := newBearerWorld(t, setup{}, nil)
	b := w.signedIn(t, "bob")
	n := len(w.upstream.requests())
	for _, path := range []string{"/x", "/public", "/auth/me", "/auth/"} {
		for _, user := range []string{"ada", "bob"} {
			b.fetch(http.MethodGet, path, "", "Authorization", "Bearer "+w.accessToken(user, nil)).wantsChallenge(t, 400, "invalid_request")
		}
		b.navigate(path, "Authorization", "Bearer nonsense").wantsChallenge(t, 400, "invalid_request")
		w.call(t, path, "Bearer "+w.accessToken("ada", nil), "Cookie", w.cookie+"=nonsense").wantsChallenge(t, 400, "invalid_request")
	}
	if len(w.upstream.requests()) != n {
		t.Error("the upstream was asked")
	}
	b.fetch(http.MethodGet, "/x", "", "Authorization", "Basic eDp5").wants(t, 200)
	b.fetch(http.MethodGet, "/x", "").wants(t, 200)
}

func TestOurOwnPagesKnowSessionsOnly(t *testing.T) {
	w := newBearerWorld(t, setup{}, nil)
	line := "Bearer " + w.accessToken("ada", nil)
	w.call(t, "/auth/me", line).wantsJSON(t, 401, "login_required")
	w.newBrowser(t).navigate("/auth/", "Authorization", line).wantsPage(t, 200, "Sign in")
}

// TOK-11: what is remembered of a token is that it is good, not for what.
func TestATokenIsJudgedAnewOnEachRoute(t *testing.T) {
	for _, order := range [][]string{{"/items", "/write"}, {"/write", "/items"}} {
		w := newBearerWorld(t, setup{}, nil)
		line := "Bearer " + w.accessToken("bob", nil)
		want := map[string]int{"/items": 200, "/write": 403}
		for range 2 {
			for _, path := range order {
				w.call(t, path, line).wants(t, want[path])
			}
		}
		var running sync.WaitGroup
		for i := range 20 {
			b, path := w.newBrowser(t), order[i%2]
			running.Go(func() {
				if r := b.send(http.MethodGet, path, "", "Authorization", line); r.StatusCode != want[path] {
					t.Errorf("%s answers %d, want %d", path, r.StatusCode, want[path])
				}
			})
		}
		running.Wait()
	}
}

// TOK-31: what is remembered outlives a key that is taken back by minutes only.
func TestATokenOfAKeyThatWasTakenBackIsRefusedSoon(t *testing.T) {
	w := newBearerWorld(t, setup{}, nil)
	line := "Bearer " + w.accessToken("ada", nil)
	w.call(t, "/x", line).wants(t, 200)
	n := w.provider.Count("jwks")
	w.provider.RotateKeys()
	for range 5 {
		w.call(t, "/x", line).wants(t, 200)
	}
	if got := w.provider.Count("jwks") - n; got != 0 {
		t.Errorf("%d fetches of the keys for a token that is known", got)
	}
	w.call(t, "/x", "Bearer "+w.accessToken("ada", nil)).wants(t, 200) // the next key was published before
	w.clock.advance(10*time.Minute + time.Second)
	w.call(t, "/x", line).wantsChallenge(t, 401, "invalid_token")
}

func TestATokenIsGoodUntilItExpires(t *testing.T) {
	w := newBearerWorld(t, setup{}, nil)
	line := "Bearer " + w.accessToken("ada", nil) // for an hour
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 200}, {59 * time.Minute, 200}, {time.Minute, 200}, {59 * time.Second, 200}, {time.Second, 401}, {time.Hour, 401}} {
		w.clock.advance(step.after)
		w.call(t, "/x", line).wants(t, step.want)
	}
}

func TestATokenIsKnownForItsLifeAndFiveMinutesAtMost(t *testing.T) {
	now := time.Now()
	for _, row := range []struct {
		life, after time.Duration
		want        bool
	}{{time.Hour, 5*time.Minute - 1, true}, {time.Hour, 5 * time.Minute, false}, {time.Minute, time.Minute - 1, true}, {time.Minute, time.Minute, false}, {-time.Second, 0, false}} {
		if got := proxy.GrantKnown(now.Add(row.life), now, now.Add(row.after)); got != row.want {
			t.Errorf("a token that lives for %s is known after %s: %v, want %v", row.life, row.after, got, row.want)
		}
	}
}

func TestWhatIsRememberedOfTokensIsBounded(t *testing.T) {
	for _, length := range []int{800, 64 << 10} {
		entries, counted, limit := proxy.GrantsCost(20_000, length)
		if entries != counted || counted > limit || counted < limit*9/10 {
			t.Errorf("with tokens of %d bytes: %d bytes remembered, counted as %d, want as many as fit into %d", length, entries, counted, limit)
		}
	}
}

// Nobody is anonymous because an issuer is down.
func TestAnIssuerThatIsDownIsAnOutage(t *testing.T) {
	w := newBearerWorld(t, setup{}, nil)
	known, other := w.accessToken("ada", nil), w.accessToken("bob", nil)
	refused := func(what, token string) {
		t.Helper()
		for _, path := range []string{"/x", "/public"} {
			if r := w.call(t, path, "Bearer "+token); r.Header.Get("Retry-After") == "" {
				t.Errorf("%s: no Retry-After", what)
			} else {
				r.wantsJSON(t, 503, "provider_unavailable")
			}
		}
	}
	w.faults(func(f *devprovider.Faults) { f.Fail = map[string]int{"discovery": 503} })
	refused("no discovery", known)
	w.faults(func(f *devprovider.Faults) { f.Fail = map[string]int{"jwks": 500} })
	w.clock.advance(time.Minute)
	refused("no keys", known)
	if got := w.log.request(t, "/x"); got["error"] == nil || got["level"] != "ERROR" {
		t.Errorf("the log says %v at %v", got["error"], got["level"])
	}
	w.faults(func(f *devprovider.Faults) { f.Fail = nil })
	w.clock.advance(time.Minute)
	w.call(t, "/x", "Bearer "+known).wants(t, 200)
	w.faults(func(f *devprovider.Faults) { f.Down = true })
	w.clock.advance(time.Minute)
	w.call(t, "/x", "Bearer "+known).wants(t, 200)
	w.call(t, "/x", "Bearer "+other).wants(t, 200) // the last good keys are of use
}

func TestFurtherIssuersAreKnownBeforeTheFirstToken(t *testing.T) {
	second, err := devprovider.Start(devprovider.Options{Users: devprovider.DemoUsers(), APIs: []devprovider.API{{Identifier: apiAudience}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.Close)
	discovered := make(chan struct{}, 100)
	second.Set(func(f *devprovider.Faults) {
		f.Discovery = func(map[string]any) { discovered <- struct{}{} }
	})
	w := newBearerWorld(t, setup{}, func(o *proxy.Options) {
		o.Bearer = must(oidc.NewResource(o.Provider, apiAudience, []string{o.Provider.Issuer(), second.Issuer()}))
	})
	w.run()
	select {
	case <-discovered:
	case <-time.After(patience):
		t.Fatal("the other issuer was not discovered")
	}
	token := second.AccessToken("some-client", "bob", apiAudience, nil, nil)
	w.canaries = append(w.canaries, token)
	w.call(t, "/items", "Bearer "+token).wants(t, 200)
	if got := w.assertion(t, w.upstream.last(t))["idp"]; got != second.Issuer() {
		t.Errorf("the assertion names %q, want %q", got, second.Issuer())
	}
	w.call(t, "/items", "Bearer "+w.accessToken("bob", nil)).wants(t, 200)
}

func TestTheAccessTokenIsForwardedWhenTheConfigurationSaysSo(t *testing.T) {
	for _, forwards := range []bool{false, true} {
		w := newBearerWorld(t, setup{}, func(o *proxy.Options) { o.Identity.AccessToken = forwards })
		for _, scheme := range []string{"Bearer ", "bEARER "} {
			token := w.accessToken("ada", nil)
			var want []string
			if forwards {
				want = []string{"Bearer " + token}
			}
			for range 2 {
				w.call(t, "/x", scheme+token).wants(t, 200)
				if got := w.upstream.last(t).Header["Authorization"]; !slices.Equal(got, want) {
					t.Errorf("forwarding %v: the upstream got %d Authorization lines, want %d", forwards, len(got), len(want))
				}
			}
		}
	}
}

func TestTheAssertionsOfATokenHaveOneSID(t *testing.T) {
	w := newBearerWorld(t, setup{}, nil)
	one, two := w.accessToken("ada", nil), w.accessToken("ada", func(t *devprovider.Token) { t.Claims["jti"] = "2" })
	sid := func(token string) (string, string) {
		w.call(t, "/x", "Bearer "+token).wants(t, 200)
		r := w.upstream.last(t)
		sid, _ := w.assertion(t, r)["sid"].(string)
		return sid, r.Header.Get("X-Authproxy-Assertion")
	}
	first, minted := sid(one)
	if first == "" || strings.Contains(one, first) {
		t.Errorf("sid %q, want one that does not tell the token", first)
	}
	if again, same := sid(one); again != first || same != minted {
		t.Error("the second request has another sid or assertion")
	}
	w.clock.advance(6 * time.Minute) // verified again, and minted again
	if again, same := sid(one); again != first || same == minted {
		t.Error("after six minutes the sid is another, or the assertion the same")
	}
	if other, _ := sid(two); other == first {
		t.Error("another token has the same sid")
	}
}

func TestARouteThatWantsAFresherLoginIsNoRedirectForTokens(t *testing.T) {
	w := newBearerWorld(t, setup{}, nil)
	plain := "Bearer " + w.accessToken("ada", nil)
	fresh := "Bearer " + w.accessToken("ada", func(t *devprovider.Token) { t.Claims["auth_time"] = w.clock.Now().Unix() })
	strong := "Bearer " + w.accessToken("ada", func(t *devprovider.Token) { t.Claims["acr"] = "gold" })
	b := w.newBrowser(t)
	for _, path := range []string{"/fresh", "/strong"} {
		r := b.navigate(path, "Authorization", plain).wants(t, 401)
		if got := r.Header.Get("WWW-Authenticate"); !strings.Contains(got, `error="insufficient_user_authentication"`) { // RFC 9470 §3
			t.Errorf("%s answers with WWW-Authenticate %q", path, got)
		}
	}
	w.call(t, "/fresh", fresh).wants(t, 200)
	w.call(t, "/strong", strong).wants(t, 200)
}

func TestATokenMayOpenAWebSocketWithoutAnOrigin(t *testing.T) {
	w := newBearerWorld(t, setup{}, nil)
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Upgrade", "websocket")
		rw.Header().Set("Connection", "Upgrade")
		rw.WriteHeader(http.StatusSwitchingProtocols)
	})
	for _, row := range []struct {
		name, origin string
		want         int
	}{{"none", "", 101}, {"ours", "Origin: http://app.test\r\n", 101}, {"another site's", "Origin: https://evil.example\r\n", 403}, {"null", "Origin: null\r\n", 403}} {
		t.Run(row.name, func(t *testing.T) {
			c := w.dial(t)
			fmt.Fprintf(c, "GET /x HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%sAuthorization: Bearer %s\r\n\r\n",
				row.origin, w.accessToken("ada", nil))
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != row.want {
				t.Errorf("status %d, want %d", res.StatusCode, row.want)
			}
		})
	}
}

// events asks the upstream for a stream that does not end. Each call of next lets it send something and says what came; ""
// is the end.
func (w *world) events(t testing.TB, authorization string) (next func() string) {
	t.Helper()
	more := make(chan struct{}, 1)
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		for {
			select {
			case <-more:
				io.WriteString(rw, "data: x\n")
				rw.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			case <-w.upstream.released:
				return
			}
		}
	})
	req := must(http.NewRequest(http.MethodGet, w.origin+"/events", nil))
	req.Header.Set("Authorization", authorization)
	more <- struct{}{}
	res := w.newBrowser(t).open(req)
	t.Cleanup(func() { res.Body.Close() })
	body := bufio.NewReader(res.Body)
	if line, err := body.ReadString('\n'); line != "data: x\n" {
		t.Fatalf("the stream begins with %q, %v", line, err)
	}
	return func() string {
		select {
		case more <- struct{}{}:
		default: // the upstream has gone
		}
		line, _ := body.ReadString('\n')
		return line
	}
}

func TestAStreamEndsWhenItsAccessTokenExpires(t *testing.T) {
	w := newBearerWorld(t, setup{}, nil)
	next := w.events(t, "Bearer "+w.accessToken("ada", nil))
	w.clock.advance(time.Hour - 1)
	w.proxy.CheckStreams(t.Context())
	if got := next(); got != "data: x\n" {
		t.Errorf("before the token expires the stream goes on with %q", got)
	}
	w.clock.advance(1)
	w.proxy.CheckStreams(t.Context())
	if got := next(); got != "" {
		t.Errorf("after the token expired the stream goes on with %q", got)
	}
}

func TestUsersWhoSignInHaveThePermissionsOfTheirAccessTokens(t *testing.T) {
	w := newBearerWorld(t, setup{rp: func(c *oidc.Config) { c.Audience, c.Scopes = apiAudience, append(c.Scopes, "offline_access") }}, nil)
	ada, bob := w.signedIn(t, "ada"), w.signedIn(t, "bob")
	ada.fetch(http.MethodGet, "/write", "").wants(t, 200)
	bob.fetch(http.MethodGet, "/items", "").wants(t, 200)
	bob.fetch(http.MethodGet, "/write", "").wantsJSON(t, 403, "forbidden")
}

func TestWithoutBearerAuthorizationIsNoneOfOurBusiness(t *testing.T) {
	w := newWorld(t, setup{})
	line := "Bearer " + w.accessToken("ada", nil)
	w.call(t, "/x", line).wantsJSON(t, 401, "login_required")
	w.call(t, "/public", line).wants(t, 200)
	if h := w.upstream.last(t).Header; h.Get("Authorization") != line || h["X-Forwarded-User"] != nil {
		t.Errorf("the upstream got %q", h)
	}
	w.signedIn(t, "ada").fetch(http.MethodGet, "/x", "", "Authorization", line).wants(t, 200)
}

// What is read is the whole of one line, by the grammar of RFC 6750 §2.1.
func FuzzBearerToken(f *testing.F) {
	for _, s := range []string{"Bearer x", "bearer a.b-c_d~e+f/g==", "Bearer", "Bearer ", "Bearer  x", "Bearer\tx", "Bearer x y", "Bearer x,", "Bearerx", "Basic x", "", "Bearer =", "Bearer x=y", "Bearer ü"} {
		f.Add(s, "")
		f.Add(s, "Basic y")
	}
	grammar := regexp.MustCompile(`^(?i:Bearer) ([A-Za-z0-9\-._~+/]+=*)$`)
	meant := regexp.MustCompile(`^(?i:Bearer)($|[^!#$%&'*+\-.^_` + "`" + `|~0-9A-Za-z])`)
	f.Fuzz(func(t *testing.T, one, two string) {
		h := http.Header{"Authorization": {one}}
		if two != "" {
			h["Authorization"] = append(h["Authorization"], two)
		}
		token, found := proxy.BearerToken(h)
		want := ""
		if m := grammar.FindStringSubmatch(one); m != nil && two == "" {
			want = m[1]
		}
		if token != want {
			t.Errorf("BearerToken(%q, %q) = %q, want %q", one, two, token, want)
		}
		if wantFound := meant.MatchString(one) || meant.MatchString(two); found != wantFound {
			t.Errorf("BearerToken(%q, %q): found = %v, want %v", one, two, found, wantFound)
		}
	})
}

// What finding out who makes a request costs, with a token that is known.
func BenchmarkBearer(b *testing.B) {
	for _, row := range []struct {
		name  string
		file  bool
		token func(w *world) string
	}{
		{"access token", false, func(w *world) string { return w.accessToken("ada", nil) }},
		{"app token, cookie store", false, func(w *world) string { return w.signedIn(b, "ada").appToken() }},
		{"app token, file store", true, func(w *world) string { return w.signedIn(b, "ada").appToken() }},
	} {
		b.Run(row.name, func(b *testing.B) {
			w := newAppWorld(b, setup{file: row.file}, nil)
			r := must(http.NewRequest(http.MethodGet, w.origin+"/x", nil))
			r.RequestURI, r.Host, r.RemoteAddr = "/x", "app.test", "127.0.0.1:1"
			r.Header.Set("Authorization", "Bearer "+row.token(w))
			s := w.proxy.Begin(r)
			if err := s.Locate(); err != nil {
				b.Fatal(err)
			}
			if err := s.Match(); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Authenticate(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
