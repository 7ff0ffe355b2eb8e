package proxy_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"authproxy/devprovider"
	"authproxy/oidc"
	"authproxy/proxy"
)

// A provider that fails must neither sign somebody in nor leave the user without a way on; who is signed in stays so.
func TestWhatAUserSeesWhenTheProviderDoesNotSignThemIn(t *testing.T) {
	tokenError := func(status int, code, description string) func(*devprovider.Faults) {
		return func(f *devprovider.Faults) {
			f.TokenError = devprovider.Error{Status: status, Code: code, Description: description}
		}
	}
	claim := func(name string, value any) func(*devprovider.Faults) {
		return func(f *devprovider.Faults) { f.IDToken = func(t *devprovider.Token) { t.Claims[name] = value } }
	}
	const (
		unavailable   = "Sign-in is temporarily unavailable"
		expired       = "Sign-in link expired"
		misconfigured = "Configuration problem"
		failed        = "We could not sign you in"
		denied        = "Access denied"
	)
	for _, c := range []struct {
		name   string
		fault  func(*devprovider.Faults)
		status int
		title  string
		text   string // in the page, before escaping
		log    string // in the error of the request event
		retry  string
	}{
		{"an Action denies", func(f *devprovider.Faults) {
			f.Deny, f.DenyDescription = "access_denied", "Only staff may come in"
		}, 403, denied, "Only staff may come in", "Only staff may come in", ""},
		{"an Action denies with a word of its own", func(f *devprovider.Faults) {
			f.Deny, f.DenyDescription = "suspicious_tls_fingerprint", "No."
		}, 403, denied, "No.", "suspicious_tls_fingerprint", ""},
		{"without a word of explanation", func(f *devprovider.Faults) { f.Deny = "access_denied" }, 403, denied, "Use another account", "access_denied", ""},
		{"the user is blocked", func(f *devprovider.Faults) { f.SignInAs = "mallory" }, 403, denied, "user is blocked", "user is blocked", ""},
		{"the address is not verified", func(f *devprovider.Faults) {
			f.Deny, f.DenyDescription = "unauthorized", "Please verify your email before logging in."
		}, 403, denied, "Please verify your email before logging in.", "unauthorized", ""},
		{"markup in the description", func(f *devprovider.Faults) {
			f.Deny, f.DenyDescription = "access_denied", `<script>alert("x")</script><img src=x>`
		}, 403, denied, `<script>alert("x")</script><img src=x>`, "access_denied", ""},
		{"silent login is not possible", func(f *devprovider.Faults) { f.Deny = "login_required" }, 403, denied, "", "login_required", ""},
		{"a scope that the provider does not know", func(f *devprovider.Faults) {
			f.Deny, f.DenyDescription = "invalid_scope", "Unknown scope: x"
		}, 500, misconfigured, "", "Unknown scope: x", ""},
		{"the back button", func(f *devprovider.Faults) {
			f.Deny, f.DenyDescription = "invalid_request", "You may have pressed the back button, refreshed during login"
		}, 400, expired, "", "back button", ""},
		{"the provider has a problem", func(f *devprovider.Faults) { f.Deny = "server_error" }, 503, unavailable, "", "server_error", "10"},
		{"the provider is overloaded", func(f *devprovider.Faults) { f.Deny = "temporarily_unavailable" }, 503, unavailable, "", "temporarily_unavailable", "10"},

		{"token: too many requests", tokenError(429, "too_many_requests", "Global limit has been reached"), 503, unavailable, "", "status 429", "10"},
		{"token: status 500", func(f *devprovider.Faults) { f.Fail = map[string]int{"token": 500} }, 503, unavailable, "", "status 500", "5"},
		{"token: status 502", func(f *devprovider.Faults) { f.Fail = map[string]int{"token": 502} }, 503, unavailable, "", "status 502", "5"},
		{"token: the connection breaks", func(f *devprovider.Faults) {
			f.Intercept = func(endpoint string, _ http.ResponseWriter, _ *http.Request) bool {
				if endpoint == "token" {
					panic(http.ErrAbortHandler)
				}
				return false
			}
		}, 503, unavailable, "", "token: the provider is unavailable", "5"},
		{"token: a page instead of JSON", func(f *devprovider.Faults) { f.Raw = map[string]string{"token": "<html>maintenance</html>"} }, 403, failed, "", "malformed", ""},
		{"token: more than 1 MiB", func(f *devprovider.Faults) { f.Raw = map[string]string{"token": strings.Repeat(" ", 2<<20)} }, 403, failed, "", "longer than", ""},
		{"token: no ID token", func(f *devprovider.Faults) {
			f.TokenResponse = func(a map[string]any) { delete(a, "id_token") }
		}, 403, failed, "", "id_token_missing", ""},
		{"token: the secret is wrong, as Auth0 says it", tokenError(401, "access_denied", "Unauthorized"), 500, misconfigured, "", "check client_secret, and that Credentials > Authentication Method is Post", ""},
		{"token: the secret is wrong, as the RFC says it", tokenError(401, "invalid_client", ""), 500, misconfigured, "", "check client_secret", ""},
		{"token: the grant type is not allowed", tokenError(403, "unauthorized_client", "Grant type 'authorization_code' not allowed for the client."), 500, misconfigured, "", "grant types", ""},
		{"token: the code was used", tokenError(403, "invalid_grant", "Invalid authorization code"), 400, expired, "", "invalid_grant", ""},
		{"token: an error that nobody knows", tokenError(400, "strange", ""), 403, failed, "", "token_refused", ""},

		{"ID token: HS256", func(f *devprovider.Faults) {
			f.IDToken = func(t *devprovider.Token) { t.Header["alg"], t.Key = "HS256", []byte(clientSecret) }
		}, 500, misconfigured, "", "JWT signature algorithm is HS256; set RS256", ""},
		{"ID token: the nonce of another login", claim("nonce", "other"), 403, failed, "", "nonce", ""},
		{"ID token: another audience", claim("aud", "other"), 403, failed, "", "hint: check provider.client_id", ""},
		{"ID token: another issuer", claim("iss", "https://other.test/"), 403, failed, "", "provider.issuer or provider.domain", ""},
		{"ID token: another algorithm", func(f *devprovider.Faults) {
			f.IDToken = func(t *devprovider.Token) { t.Header["alg"] = "PS256" }
		}, 500, misconfigured, "", "hint: set provider.id_token_alg: PS256", ""},
		{"ID token: nobody's", func(f *devprovider.Faults) {
			f.IDToken = func(t *devprovider.Token) { delete(t.Claims, "sub") }
		}, 403, failed, "", "subject", ""},
		{"ID token: a key that is not published", func(f *devprovider.Faults) {
			f.IDToken = func(t *devprovider.Token) { t.Key = devprovider.UnpublishedKey() }
		}, 403, failed, "", "signature", ""},

		{"callback: the issuer of somebody else", func(f *devprovider.Faults) {
			f.Callback = func(v url.Values) { v.Set("iss", "https://evil.test/") }
		}, 400, expired, "", "issuer_mismatch", ""},
		{"callback: no code", func(f *devprovider.Faults) { f.Callback = func(v url.Values) { v.Del("code") } }, 400, expired, "", "missing_code", ""},
		{"callback: two codes", func(f *devprovider.Faults) { f.Callback = func(v url.Values) { v.Add("code", "another") } }, 400, expired, "", "a parameter of the callback came twice: code", ""},
		{"callback: an error beside a code", func(f *devprovider.Faults) {
			f.Callback = func(v url.Values) { v.Set("error", "access_denied"); v.Set("error_description", "both") }
		}, 403, denied, "both", "access_denied", ""},

		{"keys: status 500", func(f *devprovider.Faults) { f.Fail = map[string]int{"jwks": 500} }, 503, unavailable, "", "keys: the provider is unavailable", "5"},
		{"keys: a page instead of JSON", func(f *devprovider.Faults) { f.Raw = map[string]string{"jwks": "<html>"} }, 503, unavailable, "", "keys: the provider is unavailable", "5"},

		{"userinfo: status 500", func(f *devprovider.Faults) { f.Fail = map[string]int{"userinfo": 500} }, 503, unavailable, "", "userinfo: the provider is unavailable", "5"},
		{"userinfo: too many requests", func(f *devprovider.Faults) {
			f.Intercept = func(endpoint string, w http.ResponseWriter, _ *http.Request) bool {
				if endpoint == "userinfo" {
					w.Header().Set("Retry-After", "42")
					w.WriteHeader(http.StatusTooManyRequests)
				}
				return endpoint == "userinfo"
			}
		}, 503, unavailable, "", "status 429", "42"},
		{"userinfo: of another user", func(f *devprovider.Faults) {
			f.UserInfo = func(claims map[string]any) { claims["sub"] = "auth0|other" }
		}, 403, failed, "", "sub is not that of the ID token", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, setup{rp: func(conf *oidc.Config) { conf.Userinfo = strings.HasPrefix(c.name, "userinfo") }})
			var known *browser
			if !strings.HasPrefix(c.name, "keys") { // which would be known already
				known = w.signedIn(t, "bob")
			}
			w.faults(func(f *devprovider.Faults) {
				f.SignInAs = "ada"
				c.fault(f)
			})
			b := w.newBrowser(t)
			callback := b.login("/deep?x=1")
			r := b.back(callback).wantsPage(t, c.status, c.title)
			if c.text != "" && !strings.Contains(r.body, html.EscapeString(c.text)) {
				t.Errorf("the page does not say %q: %s", c.text, r.brief())
			}
			if got := r.Header.Get("Retry-After"); got != c.retry {
				t.Errorf("Retry-After is %q, want %q", got, c.retry)
			}
			e := w.log.find(t, "the failed login", func(r record) bool { return r["path"] == "/auth/callback" && r["status"] == float64(c.status) })[0]
			if !strings.Contains(fmt.Sprint(e["error"], e["reason"]), c.log) {
				t.Errorf("the log says error %q and reason %q, want %q", e["error"], e["reason"], c.log)
			}
			level := "WARN"
			if c.status >= 500 {
				level = "ERROR"
			}
			if e["level"] != level {
				t.Errorf("the level is %v, want %s", e["level"], level)
			}
			if id, _ := e["request_id"].(string); id == "" || !strings.Contains(r.body, id) {
				t.Errorf("the page does not show the request ID %q of the log", id)
			}
			u := must(url.Parse(callback))
			for _, secret := range []string{u.Query().Get("state"), u.Query().Get("code")} {
				if len(secret) > 8 && strings.Contains(r.body, secret) {
					t.Error("the page has the state or code in it")
				}
			}
			if b.session() != "" || len(b.logins()) > 0 {
				t.Errorf("the browser has the session %q and the login cookies %q", b.session(), b.logins())
			}
			if n := w.provider.Count("token"); strings.HasPrefix(c.name, "callback") && n > 1 { // bob's
				t.Errorf("the code was sent to the provider %d times", n-1)
			}
			if known != nil {
				known.fetch("GET", "/api/x", "").wants(t, 200)
			}
			w.faults(func(f *devprovider.Faults) { *f = devprovider.Faults{SignInAs: "ada"} })
			w.clock.advance(time.Second) // keys that could not be had are not asked for again at once
			b.follow("/deep?x=1").wants(t, 200, "GET /deep?x=1")
		})
	}
}

func TestADeniedLoginOffersAnotherAccountAndTriesNothingByItself(t *testing.T) {
	w := newWorld(t, setup{})
	w.faults(func(f *devprovider.Faults) {
		f.Deny, f.DenyDescription = "access_denied", strings.Repeat("because ", 5000)[:6000]
	})
	b := w.newBrowser(t)
	r := b.follow("/deep?x=1").wantsPage(t, 403, "Access denied")
	if n := w.provider.Count("authorize"); n != 1 {
		t.Errorf("the login was tried %d times", n)
	}
	if refresh.MatchString(r.body) || strings.Count(r.body, "because") > 30 {
		t.Errorf("the page sends on by itself, or quotes without end: %d bytes", len(r.body))
	}
	another := "/auth/login?" + url.Values{"prompt": {"login"}, "return_to": {"/deep?x=1"}}.Encode()
	if !strings.Contains(r.body, `href="`+html.EscapeString(another)+`"`) {
		t.Errorf("the page does not offer another account: %s", r.brief())
	}
	w.faults(func(f *devprovider.Faults) { f.Deny = ""; f.SignInAs = "bob" })
	b.follow(another).wants(t, 200, "GET /deep?x=1")
	if got := w.provider.Last("authorize").Query.Get("prompt"); got != "login" { // Auth0 keeps the session of whom it denied
		t.Errorf("the provider was asked for prompt %q", got)
	}
	w.newBrowser(t).fetch("GET", "/auth/callback?error=access_denied&state=x", "").wantsJSON(t, 400, "unknown_state")
}

// A reload repeats the request: it must not look like an attack, nor deny again what another account may do.
func TestReloadingADeniedLoginBeginsAgainInsteadOfFailing(t *testing.T) {
	w := newWorld(t, setup{})
	w.faults(func(f *devprovider.Faults) { f.Deny = "access_denied" })
	b := w.newBrowser(t)
	callback := b.login("/x")
	b.back(callback).wants(t, 403)
	w.faults(func(f *devprovider.Faults) { f.Deny = "" })
	b.onwardFrom(b.back(callback)).wants(t, 200, "GET /x")
}

func TestAWrongClientSecretIsAConfigurationProblemWithAHintInTheLog(t *testing.T) {
	w := newWorld(t, setup{client: func(c *devprovider.Client) { c.Secret = "another secret" }})
	w.newBrowser(t).follow("/").wantsPage(t, 500, "Configuration problem")
	e := w.log.find(t, "the failed login", func(r record) bool { return r["status"] == 500.0 })[0]
	if text := fmt.Sprint(e["error"]); !strings.Contains(text, "refused this proxy's client credentials") || !strings.Contains(text, "hint: check client_secret") || e["level"] != "ERROR" {
		t.Errorf("the log says %s at level %v", text, e["level"])
	}
}

func TestClocksMayDifferByTheLeewayAndNoMore(t *testing.T) {
	for _, c := range []struct {
		ahead  time.Duration // of the provider
		status int
	}{{50 * time.Second, 200}, {-50 * time.Second, 200}, {2 * time.Minute, 403}, {-11 * time.Hour, 403}} {
		t.Run(c.ahead.String(), func(t *testing.T) {
			w := newWorld(t, setup{})
			w.faults(func(f *devprovider.Faults) { f.Clock = c.ahead })
			r := w.newBrowser(t).follow("/")
			if c.status == 200 {
				r.wants(t, 200)
				return
			}
			r.wantsPage(t, 403, "We could not sign you in")
			text := fmt.Sprint(w.log.find(t, "the failed login", func(r record) bool { return r["status"] == 403.0 })[0]["error"])
			for _, want := range []string{fmt.Sprintf("clock is %d s", int(c.ahead.Abs().Seconds())), "hint: set the clock, best by NTP"} {
				if !strings.Contains(text, want) {
					t.Errorf("the log says %q, want %q in it", text, want)
				}
			}
		})
	}
}

func TestASessionThatDoesNotFitIntoACookieNamesWhatCostsMost(t *testing.T) {
	w := newWorld(t, setup{})
	w.faults(func(f *devprovider.Faults) { f.SignInAs = "big" })
	b := w.newBrowser(t)
	b.follow("/").wantsPage(t, 500, "Your account is too large")
	e := w.log.find(t, "the failed login", func(r record) bool { return r["status"] == 500.0 })[0]
	if text := fmt.Sprint(e["error"]); !strings.Contains(text, "the dearest parts are groups (") || !strings.Contains(text, "set session.store to file") {
		t.Errorf("the log says %s", text)
	}
	if b.session() != "" {
		t.Error("there is a session")
	}
	file := newWorld(t, setup{file: true})
	file.signedIn(t, "big").navigate("/x").wants(t, 200)
}

func TestAProviderThatIsDownAtTheStartIsFoundLater(t *testing.T) {
	for _, c := range []struct {
		name   string
		fault  func(*devprovider.Faults)
		status int
		title  string
		log    string
	}{
		{"down", func(f *devprovider.Faults) { f.Down = true }, 503, "Sign-in is temporarily unavailable", "discovery: the provider is unavailable"},
		{"discovery: status 500", func(f *devprovider.Faults) { f.Fail = map[string]int{"discovery": 500} }, 503, "Sign-in is temporarily unavailable", "status 500"},
		{"discovery: status 404", func(f *devprovider.Faults) { f.Fail = map[string]int{"discovery": 404} }, 503, "Sign-in is temporarily unavailable", "status 404"},
		{"discovery: a page instead of JSON", func(f *devprovider.Faults) { f.Raw = map[string]string{"discovery": "<html>"} }, 503, "Sign-in is temporarily unavailable", "not a JSON object; hint: "},
		{"discovery: another issuer", func(f *devprovider.Faults) {
			f.Discovery = func(d map[string]any) { d["issuer"] = d["issuer"].(string) + "other" }
		}, 500, "Configuration problem", "issuer_mismatch"},
		{"discovery: endpoints in the clear elsewhere", func(f *devprovider.Faults) {
			f.Discovery = func(d map[string]any) { d["token_endpoint"] = "http://token.example/" }
		}, 500, "Configuration problem", "token_endpoint"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, setup{})
			w.faults(c.fault)
			b := w.newBrowser(t)
			r := b.navigate("/deep?x=1").wantsPage(t, c.status, c.title)
			if (r.Header.Get("Retry-After") == "") == (c.status == 503) || len(lines(r)) > 0 {
				t.Errorf("Retry-After %q, cookies %q", r.Header.Get("Retry-After"), lines(r))
			}
			if e := w.log.request(t, "/deep"); !strings.Contains(fmt.Sprint(e["error"]), c.log) {
				t.Errorf("the log says %v", e["error"])
			}
			b.fetch("GET", "/api/x", "").wantsJSON(t, 401, "login_required") // not a word about the provider
			b.navigate("/public").wants(t, 200)
			b.navigate("/auth/").wants(t, 200)
			w.faults(func(f *devprovider.Faults) { *f = devprovider.Faults{SignInAs: "ada"} })
			w.clock.advance(time.Second)
			b.follow("/deep?x=1").wants(t, 200, "GET /deep?x=1")
		})
	}
}

func TestSessionsLiveOnWhileTheProviderIsDown(t *testing.T) {
	for _, file := range []bool{false, true} {
		w := newWorld(t, setup{file: file})
		b := w.signedIn(t, "ada")
		w.faults(func(f *devprovider.Faults) { f.Down = true })
		for range 20 {
			w.clock.advance(time.Hour)
			b.navigate("/x").wants(t, 200)
		}
		w.restart() // which knows nothing of the provider yet
		b.navigate("/x").wants(t, 200)
		b.navigate("/auth/me").wants(t, 200, adaSubject)
	}
}

func TestAProviderThatHangsIsNotWaitedForLong(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for real timeouts")
	}
	for _, endpoint := range []string{"discovery", "token", "jwks", "userinfo"} {
		t.Run(endpoint, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, setup{rp: func(c *oidc.Config) { c.Userinfo = true }})
			release := make(chan struct{})
			t.Cleanup(func() { close(release) })
			hang := func(f *devprovider.Faults) {
				f.Intercept = func(e string, _ http.ResponseWriter, r *http.Request) bool {
					if e == endpoint {
						select {
						case <-release:
						case <-r.Context().Done():
						}
					}
					return e == endpoint
				}
			}
			b := w.newBrowser(t)
			ask := func() *reply { return b.navigate("/x") }
			if endpoint != "discovery" {
				callback := b.login("/x")
				ask = func() *reply { return b.back(callback) }
			}
			w.faults(hang)
			begun := time.Now()
			r := ask().wantsPage(t, 503, "Sign-in is temporarily unavailable")
			if took := time.Since(begun); took > 9*time.Second {
				t.Errorf("the user waited %s", took)
			}
			if r.Header.Get("Retry-After") != "5" {
				t.Errorf("Retry-After is %q", r.Header.Get("Retry-After"))
			}
		})
	}
}

// The state is looked at before anything else: a stranger's callback costs the provider nothing (RFC 9700 §2.1).
func TestNoCallbackOfAStrangerReachesTheProvider(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	b.login("/x")
	before := w.provider.Count("")
	random := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	for _, q := range []string{"code=x&state=a" + random, "code=x&state=b" + random, "error=access_denied&state=a" + random, "code=x", "state=", "code=x&state=" + clientSecret,
		"code=%zz&state=a", "code=a&code=b&state=x", strings.Repeat("a=1&", 5000)} {
		b.fetch("GET", "/auth/callback?"+q, "").wants(t, 400)
	}
	if got := w.provider.Count(""); got != before {
		t.Errorf("the provider was asked %d times", got-before)
	}
}

func TestWhatTheCallbackRefusesExpiresItsLoginCookie(t *testing.T) {
	w := newWorld(t, setup{})
	for name, change := range map[string]func(url.Values){
		"an error":          func(v url.Values) { v.Set("error", "access_denied") },
		"a code of nothing": func(v url.Values) { v.Set("code", "nothing") },
		"no code":           func(v url.Values) { v.Del("code") },
		"another issuer":    func(v url.Values) { v.Set("iss", "https://evil.test/") },
	} {
		b := w.newBrowser(t)
		u := must(url.Parse(b.login("/x")))
		q := maps.Clone(u.Query())
		change(q)
		u.RawQuery = q.Encode()
		r := b.back(u.String())
		if r.StatusCode < 400 || len(b.logins()) > 0 || b.session() != "" {
			t.Errorf("%s: %s, login cookies %q", name, r.Status, b.logins())
		}
	}
}

func TestAProviderThatPromisesItsIssuerMustNameIt(t *testing.T) { // RFC 9207 §2.4
	w := newWorld(t, setup{})
	w.faults(func(f *devprovider.Faults) { f.PromiseIss = true })
	w.newBrowser(t).follow("/x").wants(t, 200)
	w.faults(func(f *devprovider.Faults) { f.Callback = func(v url.Values) { v.Del("iss") } })
	w.newBrowser(t).follow("/x").wantsPage(t, 400, "Sign-in link expired")
}

func TestClaimsAreReadByTheirExactNames(t *testing.T) {
	w := newWorld(t, setup{})
	w.faults(func(f *devprovider.Faults) { f.SignInAs = "case" }) // claims Email and Sub beside email and sub
	b := w.newBrowser(t)
	b.follow("/").wantsPage(t, 403, "We could not sign you in")
	if b.session() != "" {
		t.Error("there is a session")
	}
}

func TestNamesBeyondASCIIReachTheUpstreamEncoded(t *testing.T) {
	w := newWorld(t, setup{options: func(o *proxy.Options) {
		o.Identity.Headers = append(o.Identity.Headers, proxy.Header{Name: "X-Forwarded-Name", Source: "name"})
	}})
	b := w.signedIn(t, "zoë")
	h := w.upstream.last(t).Header
	for name, want := range map[string]string{
		"X-Forwarded-Name": "Zo%C3%AB Fr%C3%B6hlich %F0%9F%A6%8A", "X-Forwarded-Groups": "staff,%C3%84rzte%2C Praxis", "X-Forwarded-User": "auth0|zoe frohlich",
		"X-Forwarded-Preferred-Username": "zo%C3%AB",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	b.navigate("/auth/").wants(t, 200, "Hello, Zoë Fröhlich 🦊")
}

func TestUsersWithoutNameOrAddressAreGreetedAndForwarded(t *testing.T) {
	w := newWorld(t, setup{})
	for _, user := range []string{"linus", "eve"} {
		b := w.signedIn(t, user)
		h := w.upstream.last(t).Header
		if h.Get("X-Forwarded-User") == "" || slices.Contains(slices.Collect(maps.Keys(h)), "X-Forwarded-Email") {
			t.Errorf("%s: the upstream got X-Forwarded-User %q and X-Forwarded-Email %q", user, h.Get("X-Forwarded-User"), h["X-Forwarded-Email"])
		}
		b.navigate("/auth/").wants(t, 200, "<h1>Hello")
	}
}

// Who goes away while we ask the provider is not an error of ours, and can begin again.
func TestAClientThatLeavesDuringTheCallback(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	callback := b.login("/x")
	asked, answer := make(chan struct{}), make(chan struct{})
	w.faults(func(f *devprovider.Faults) {
		f.TokenResponse = func(map[string]any) { close(asked); <-answer }
	})
	ctx, cancel := context.WithCancel(t.Context())
	r := must(http.NewRequestWithContext(ctx, "GET", callback, nil))
	r.Header.Set("Cookie", b.jar.line(r))
	left := make(chan error)
	go func() {
		res, err := b.transport.RoundTrip(r)
		if err == nil {
			res.Body.Close()
		}
		left <- err
	}()
	<-asked
	cancel()
	if err := <-left; err == nil {
		t.Error("there was an answer")
	}
	if e := w.log.request(t, "/auth/callback"); e["status"] != 499.0 || e["level"] != "INFO" {
		t.Errorf("the log says status %v at level %v, want 499 and INFO", e["status"], e["level"])
	}
	close(answer)
	w.faults(func(f *devprovider.Faults) { f.TokenResponse = nil })
	b.onwardFrom(b.back(callback)).wants(t, 200, "GET /x")
}
