package proxy_test

import (
	"fmt"
	"html"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"authproxy/devprovider"
	"authproxy/proxy"
)

// Scripts cannot follow a redirect to the provider, and each try would leave a login cookie behind.
func TestOnlyWhereAPersonLooksALoginStarts(t *testing.T) {
	w := newWorld(t, setup{})
	for _, c := range []struct {
		name, method string
		login        bool
		headers      []string
	}{
		{"a browser's navigation", "GET", true, []string{"Sec-Fetch-Mode", "navigate", "Accept", acceptPages}},
		{"a navigation that accepts anything", "GET", true, []string{"Sec-Fetch-Mode", "navigate", "Accept", "*/*"}},
		{"a navigation in a frame", "GET", true, []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}},
		{"an old browser", "GET", true, []string{"Accept", acceptPages}},
		{"HEAD of an old browser", "HEAD", true, []string{"Accept", acceptPages}},
		{"curl", "GET", false, []string{"Accept", "*/*"}},
		{"a program without Accept", "GET", false, nil},
		{"fetch", "GET", false, []string{"Sec-Fetch-Mode", "cors", "Accept", "*/*"}},
		{"fetch that asks for HTML", "GET", false, []string{"Sec-Fetch-Mode", "cors", "Accept", "text/html"}},
		{"fetch of the same origin", "GET", false, []string{"Sec-Fetch-Mode", "same-origin", "Accept", "text/html"}},
		{"an image", "GET", false, []string{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image", "Accept", "image/png,*/*"}},
		{"a script that only says its destination", "GET", false, []string{"Sec-Fetch-Dest", "empty", "Accept", acceptPages}},
		{"XMLHttpRequest of an old library", "GET", false, []string{"X-Requested-With", "XMLHttpRequest", "Accept", acceptPages}},
		{"EventSource", "GET", false, []string{"Sec-Fetch-Mode", "cors", "Accept", "text/event-stream"}},
		{"WebSocket", "GET", false, []string{"Sec-Fetch-Mode", "websocket", "Connection", "Upgrade", "Upgrade", "websocket"}},
		{"an upgrade that looks like a navigation", "GET", false, []string{"Sec-Fetch-Mode", "navigate", "Accept", acceptPages, "Connection", "Upgrade", "Upgrade", "websocket"}},
		{"a form", "POST", false, []string{"Sec-Fetch-Mode", "navigate", "Accept", acceptPages}},
		{"a preflight", "OPTIONS", false, []string{"Sec-Fetch-Mode", "cors", "Access-Control-Request-Method", "PUT"}},
		{"PUT", "PUT", false, []string{"Accept", acceptPages}},
		{"prefetch", "GET", false, []string{"Sec-Fetch-Mode", "navigate", "Accept", acceptPages, "Sec-Purpose", "prefetch"}},
		{"prerender", "GET", false, []string{"Sec-Fetch-Mode", "navigate", "Accept", acceptPages, "Sec-Purpose", "prefetch;prerender"}},
		{"prefetch of an old browser", "GET", false, []string{"Accept", acceptPages, "Purpose", "prefetch"}},
		{"prefetch of Firefox", "GET", false, []string{"Accept", acceptPages, "X-Moz", "prefetch"}},
		{"Safari's preview", "GET", false, []string{"Accept", acceptPages, "X-Purpose", "preview"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := w.newBrowser(t)
			r := b.send(c.method, "/x", "", c.headers...)
			if c.login {
				if r.wants(t, 302); !strings.HasPrefix(r.Header.Get("Location"), w.provider.Issuer()) || len(b.logins()) != 1 {
					t.Errorf("it is sent to %q with the login cookies %q", r.Header.Get("Location"), b.logins())
				}
				return
			}
			r.wants(t, 401)
			if got := r.Header.Get("WWW-Authenticate"); got != `Bearer realm="app.test"` || len(lines(r)) > 0 {
				t.Errorf("WWW-Authenticate is %q, and cookies are set: %q", got, lines(r))
			}
			if strings.Contains(r.Header.Get("Content-Type"), "html") {
				t.Errorf("a program gets a page")
			} else if body := r.wantsJSON(t, 401, "login_required"); body["login_url"] != w.origin+"/auth/login" {
				t.Errorf("login_url is %q", body["login_url"])
			}
		})
	}
	if n := len(w.upstream.requests()); n > 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

func TestAPrefetchedLinkToTheLoginStartsNone(t *testing.T) {
	w := newWorld(t, setup{})
	for _, path := range []string{"/auth/login", "/auth/signup"} {
		b := w.newBrowser(t)
		b.navigate(path, "Sec-Purpose", "prefetch").wants(t, 401)
		if b.logins() != nil {
			t.Errorf("%s set the login cookies %q", path, b.logins())
		}
		b.navigate(path).wants(t, 302)
	}
}

func TestARouteMaySayHowToAnswerWhoIsNotSignedIn(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	b.navigate("/api/x").wantsPage(t, 401, "Sign-in needed") // even to a navigation
	if b.logins() != nil {
		t.Errorf("login cookies %q", b.logins())
	}
	b.fetch("GET", "/gate/x", "").wants(t, 302)
}

func TestAFreshLoginIsAskedForOnceAndOnlyWhereTheRouteWantsIt(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.signedIn(t, "ada")
	asked := func() int { return w.provider.Count("authorize") }
	before := asked()
	b.follow("/fresh/transfer?id=1").wants(t, 200, "GET /fresh/transfer?id=1") // Auth0 says no auth_time unless it is asked for
	if got := w.provider.Last("authorize").Query.Get("max_age"); asked() != before+1 || got != "300" {
		t.Errorf("the provider was asked %d times, with max_age %q", asked()-before, got)
	}
	b.navigate("/fresh/again").wants(t, 200)
	w.clock.advance(5*time.Minute + 59*time.Second) // max_auth_age and the leeway
	b.navigate("/fresh/again").wants(t, 200)
	w.clock.advance(2 * time.Second)
	b.navigate("/other").wants(t, 200)
	r := b.fetch("POST", "/fresh/transfer", "")
	r.wantsJSON(t, 401, "insufficient_user_authentication") // RFC 9470 §3
	if got := r.Header.Get("WWW-Authenticate"); got != `Bearer realm="app.test", error="insufficient_user_authentication", max_age="300"` {
		t.Errorf("WWW-Authenticate is %q", got)
	}
	before = asked()
	b.follow("/fresh/again").wants(t, 200)
	if asked() != before+1 {
		t.Errorf("the provider was asked %d times", asked()-before)
	}
}

func TestAStrongerLoginIsAskedForByItsACR(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.signedIn(t, "ada")
	acr := "gold"
	w.faults(func(f *devprovider.Faults) {
		f.IDToken = func(t *devprovider.Token) {
			if acr != "" {
				t.Claims["acr"] = acr
			}
		}
	})
	r := b.fetch("GET", "/strong/x", "")
	r.wantsJSON(t, 401, "insufficient_user_authentication")
	if got := r.Header.Get("WWW-Authenticate"); got != `Bearer realm="app.test", error="insufficient_user_authentication", acr_values="gold"` {
		t.Errorf("WWW-Authenticate is %q", got)
	}
	b.follow("/strong/x").wants(t, 200)
	if got := w.provider.Last("authorize").Query.Get("acr_values"); got != "gold" {
		t.Errorf("the provider was asked for acr_values %q", got)
	}
}

// A provider that ignores what the route asks for must not make a loop of it.
func TestAProviderThatIgnoresAStepUpEndsOnAPage(t *testing.T) {
	for name, c := range map[string]struct {
		path  string
		token func(*devprovider.Token)
		log   string
	}{
		"no auth_time":        {"/fresh/x", func(t *devprovider.Token) { delete(t.Claims, "auth_time") }, "auth_time"},
		"an old auth_time":    {"/fresh/x", func(t *devprovider.Token) { t.Claims["auth_time"] = t.Claims["iat"].(int64) - 3600 }, "auth_time"},
		"auth_time to come":   {"/fresh/x", func(t *devprovider.Token) { t.Claims["auth_time"] = t.Claims["iat"].(int64) + 3600 }, "auth_time"},
		"no acr":              {"/strong/x", func(*devprovider.Token) {}, "acr"},
		"a weaker acr":        {"/strong/x", func(t *devprovider.Token) { t.Claims["acr"] = "silver" }, "acr"},
		"acr in another case": {"/strong/x", func(t *devprovider.Token) { t.Claims["acr"] = "Gold" }, "acr"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, setup{})
			b := w.signedIn(t, "ada")
			former := b.session()
			w.faults(func(f *devprovider.Faults) { f.IDToken = c.token })
			before := w.provider.Count("authorize")
			b.follow(c.path).wantsPage(t, 403, "Please confirm that it is you")
			if n := w.provider.Count("authorize") - before; n != 1 {
				t.Errorf("the provider was asked %d times", n)
			}
			if e := w.log.find(t, "the failed login", func(r record) bool { return r["status"] == 403.0 })[0]; e["reason"] != c.log {
				t.Errorf("the log says reason %v, want %s", e["reason"], c.log)
			}
			if b.session() != former {
				t.Error("the session was replaced")
			}
			b.navigate("/x").wants(t, 200)
		})
	}
}

// From the provider's page the browser comes back without the Strict cookie: without the bounce the login would loop.
func TestAStrictCookieIsFetchedByABounce(t *testing.T) {
	w := newWorld(t, setup{https: true, sameSite: http.SameSiteStrictMode})
	b := w.newBrowser(t)
	b.follow("/deep?x=%22&y=<>").wants(t, 200, "GET /deep?x=%22&y=")
	before := w.provider.Count("authorize")
	r := b.navigate("/linked?a=1&b=2", "Sec-Fetch-Site", "cross-site") // a link in an e-mail
	r.wantsPage(t, 200, "One moment")
	b.onwardFrom(r).wants(t, 200, "GET /linked?a=1&b=2")
	if w.provider.Count("authorize") != before {
		t.Error("a login was started although the browser has a session")
	}
	stranger := w.newBrowser(t) // the bounce is one page, then a login
	stranger.navigate("/x", "Sec-Fetch-Site", "cross-site").wants(t, 200)
	stranger.navigate("/x", "Sec-Fetch-Site", "same-origin").wants(t, 302)
	stranger.fetch("GET", "/x", "", "Sec-Fetch-Site", "cross-site").wantsJSON(t, 401, "login_required")
	stranger.navigate("/public", "Sec-Fetch-Site", "cross-site").wants(t, 200, "GET /public")
}

// A sibling domain can plant a cookie of the session's name. Which of the two is ours nobody can say, and a redirect to the
// login would loop.
func TestTwoSessionCookiesOfOneNameEndOnAPage(t *testing.T) {
	for _, c := range []struct {
		name    string
		setup   setup
		deletes int
	}{{"host only", setup{https: true}, 1}, {"with a domain", setup{https: true, domain: "app.test"}, 2}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.setup)
			b := w.signedIn(t, "ada")
			b.onward.Set("Cookie", w.cookie+"=planted")
			r := b.follow("/deep?x=1").wantsPage(t, 400, "Your session is ambiguous")
			if !strings.Contains(r.body, `href="/deep?x=1"`) {
				t.Errorf("the page does not lead back: %s", r.brief())
			}
			if got := lines(r); len(got) != c.deletes || !strings.Contains(got[0], "Max-Age=0") {
				t.Errorf("the cookies set are %q, want %d deletions", got, c.deletes)
			}
			b.fetch("GET", "/deep", "").wantsJSON(t, 401, "login_required")
			b.navigate("/auth/me").wants(t, 401)
			b.navigate("/public").wants(t, 200)
			if w.upstream.last(t).Header.Get("X-Forwarded-User") != "" {
				t.Error("one of the two was believed")
			}
			b.onward.Del("Cookie")
			b.follow("/deep?x=1").wants(t, 200)
		})
	}
}

func TestHostsThatAreNotOurs(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	other := []string{"http://other.test", "http://www.app.test", "http://app.test:8080", "http://app.test.other.test", "http://127.0.0.1.test"}
	for _, origin := range other {
		r := b.navigate(origin + "/deep/x?y=1&z=%2F")
		if r.StatusCode != http.StatusPermanentRedirect || r.Header.Get("Location") != "http://app.test/deep/x?y=1&z=%2F" || len(lines(r)) > 0 {
			t.Errorf("%s: %s to %q, cookies %q", origin, r.Status, r.Header.Get("Location"), lines(r))
		}
		b.fetch("GET", origin+"/deep", "").wantsJSON(t, 421, "wrong_host")
		b.post(origin+"/deep", url.Values{"a": {"b"}}).wantsPage(t, 421, "Wrong address")
		b.fetch("GET", origin+"/auth/me", "").wantsJSON(t, 421, "wrong_host")
		b.fetch("POST", origin+"/auth/backchannel-logout", "logout_token=x").wants(t, 421)
	}
	b.fetch("GET", "http://APP.test/public", "").wants(t, 200)
	b.fetch("GET", "http://app.test:80/public", "").wants(t, 200)
	for _, r := range w.upstream.requests() {
		if r.Target != "/public" {
			t.Errorf("the upstream was asked for %s", r.Target)
		}
	}
}

// redirect_uri and everything else that leaves us comes from public_url, whatever the request says about host and scheme.
func TestNoHeaderChangesWhatTheProviderIsTold(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		w := newWorld(t, setup{https: true, options: func(o *proxy.Options) {
			if trusted {
				o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			}
		}})
		for _, headers := range [][]string{
			{"X-Forwarded-Proto", "http"}, {"X-Forwarded-Port", "8443"}, {"Forwarded", "host=evil.test;proto=http"}, {"X-Forwarded-Host", "app.test"},
			{"X-Original-Host", "evil.test"}, {"Origin", "https://evil.test"}, {"Referer", "https://evil.test/"}, {"X-Forwarded-Prefix", "/evil"},
		} {
			b := w.newBrowser(t)
			r := b.navigate("/x", headers...).wants(t, 302)
			if got := r.to(t).Query().Get("redirect_uri"); got != "https://app.test/auth/callback" {
				t.Errorf("with %q, trusted %t: redirect_uri is %q", headers, trusted, got)
			}
			if c := lines(r); len(c) != 1 || !strings.Contains(c[0], "; Secure") || !strings.HasPrefix(c[0], "__Host-") {
				t.Errorf("with %q: cookies %q", headers, c)
			}
		}
	}
}

func TestTheSignInPageStandsBeforeTheProvider(t *testing.T) {
	w := newWorld(t, setup{file: true, options: func(o *proxy.Options) {
		o.SignInPage, o.Connections = true, []string{"google-oauth2", "acme-employees"}
	}})
	b := w.newBrowser(t)
	r := b.navigate("/deep?x=1&y=2").wantsPage(t, 401, "Sign in")
	back := url.QueryEscape("/deep?x=1&y=2")
	for _, link := range []string{"/auth/login?return_to=" + back, "/auth/signup?return_to=" + back,
		"/auth/login?connection=google-oauth2&return_to=" + back, "/auth/login?connection=acme-employees&return_to=" + back} {
		if !strings.Contains(r.body, `href="`+html.EscapeString(link)+`"`) {
			t.Errorf("the page has no link to %s: %s", link, r.brief())
		}
	}
	b.navigate("/auth/sessions").wantsPage(t, 401, "Sign in").wants(t, 401, "/auth/login?return_to=%2Fauth%2Fsessions")
	if b.logins() != nil || w.provider.Count("authorize") != 0 {
		t.Errorf("a login was started: %q", b.logins())
	}
	b.follow("/auth/login?connection=google-oauth2&return_to="+back).wants(t, 200, "GET /deep?x=1&y=2")
	if got := w.provider.Last("authorize").Query.Get("connection"); got != "google-oauth2" {
		t.Errorf("the provider was asked for connection %q", got)
	}
	w.newBrowser(t).fetch("GET", "/deep", "").wantsJSON(t, 401, "login_required")
	b.follow("/fresh/x").wants(t, 200) // a step-up has nothing to choose
}

func TestALoginThatTheProviderStartsLeadsToItsTarget(t *testing.T) { // OIDC Core §4
	w := newWorld(t, setup{tenant: func(o *devprovider.Options) {
		o.Organizations = []devprovider.Organization{{ID: "org_demo", Name: "demo"}}
	}})
	for query, want := range map[string]string{
		"iss=ISS": "/", "iss=ISS&target_link_uri=http%3A%2F%2Fapp.test%2Finbox": "/inbox", "iss=ISS&login_hint=ada&organization=org_demo&invitation=T": "/",
	} {
		query = strings.Replace(query, "ISS", url.QueryEscape(w.provider.Issuer()), 1)
		w.newBrowser(t).follow("/auth/login?"+query, "Sec-Fetch-Site", "cross-site").wants(t, 200, "GET "+want)
	}
}

// What cannot be kept by the browser must not send it round and round (pain 5 of every proxy of this kind).
func TestABrowserIsNeverRedirectedWithoutEnd(t *testing.T) {
	w := newWorld(t, setup{})
	for name, prepare := range map[string]func(*browser){
		"no cookies at all":        func(b *browser) { b.jar.refuses = true },
		"two session cookies":      func(b *browser) { b.onward.Set("Cookie", w.cookie+"=a; "+w.cookie+"=b") },
		"one planted, one its own": func(b *browser) { b.onward.Set("Cookie", w.cookie+"=a") },
		"a cookie that is junk": func(b *browser) {
			b.jar.keep(must(url.Parse(w.origin)), []*http.Cookie{{Name: w.cookie, Value: "junk", Path: "/"}})
		},
	} {
		for _, path := range []string{"/x", "/admin", "/fresh", "/strong", "/auth/login", "/auth/callback", "/gate"} {
			t.Run(fmt.Sprint(name, path), func(t *testing.T) {
				b := w.newBrowser(t)
				prepare(b)
				b.follow(path) // fails after 20 redirects
			})
		}
	}
}
