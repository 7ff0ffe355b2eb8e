package proxy_test

import (
	"bufio"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"authproxy/devprovider"
	"authproxy/policy"
	"authproxy/proxy"
)

// asking is a setup in which front proxies on this machine may ask.
func asking(s setup) setup {
	before := s.options
	s.options = func(o *proxy.Options) {
		o.ForwardAuth = new(proxy.ForwardAuth)
		if before != nil {
			before(o)
		}
	}
	return s
}

// A frontProxy is how one asks: by which path, and with which headers.
type frontProxy struct {
	name string
	ask  func(method, host, target string) (askMethod, path string, headers []string)
}

func describes(dialect string) frontProxy {
	return frontProxy{dialect, func(method, host, target string) (string, string, []string) {
		return "GET", "/auth/verify/" + dialect, []string{"X-Forwarded-Method", method, "X-Forwarded-Proto", "http", "X-Forwarded-Host", host, "X-Forwarded-Uri", target}
	}}
}

var frontProxies = []frontProxy{
	{"nginx", func(method, host, target string) (string, string, []string) {
		return "GET", "/auth/verify/nginx", []string{"X-Original-URL", "http://" + host + target, "X-Original-Method", method}
	}},
	describes("traefik"), describes("caddy"), describes("haproxy"),
	{"envoy", func(method, host, target string) (string, string, []string) {
		return method, "/auth/verify/envoy" + target, []string{"X-Forwarded-Proto", "http"}
	}},
}

// asks is what the front proxy is told about a navigation of the browser.
func (b *browser) asks(f frontProxy, method, target string, headers ...string) *reply {
	b.t.Helper()
	m, path, described := f.ask(method, "app.test", target)
	return b.send(m, path, "", slices.Concat([]string{"Accept", acceptPages, "Sec-Fetch-Mode", "navigate"}, described, headers)...)
}

// status of an answer that needs a login.
func (f frontProxy) login() int {
	if f.name == "nginx" {
		return http.StatusUnauthorized
	}
	return http.StatusFound
}

// P3: whoever asks, the decision about a request is the same.
func FuzzFrontProxiesAreToldWhatWeWouldDo(f *testing.F) {
	for _, target := range []string{"/", "/public/x", "/publicx", "/admin", "/admin/x?a=/public/", "/%61dmin/", "/ADMIN", "/report", "/public/../admin", "/public//x",
		"/public/..%2fadmin", "/public/%2e%2e/admin", "/public/..;/admin", "/admin;x=1", "/public;/x", "/x%00", "/caf%C3%A9", "/%ff", "/x#y", "/x?a=%zz&b;c", "/.%2e/admin", "/public/%252e%252e/admin",
		"/auth/login", "/auth/", "/authx", "/public/\\..\\admin", "/％61dmin", "/‥/admin", "//admin", "/x y", "/public/.", "?", "*"} {
		for _, method := range []string{"GET", "POST", "HEAD"} {
			f.Add(method, "app.test", target, uint8(1))
		}
	}
	f.Add("get", "app.test", "/report", uint8(0))
	f.Add("!EAD", "app.test", "/", uint8(0))
	f.Add("GET", "APP.test:80", "/admin", uint8(2))
	f.Add("GET", "evil.test", "/public/", uint8(0))
	f.Add("CONNECT", "app.test", "/", uint8(2))
	r := newRig(f, func(o *proxy.Options) { o.ForwardAuth = new(proxy.ForwardAuth) })
	r.UseTransport(&wire{})
	cookies := []string{"", r.signIn(f, "bob"), r.signIn(f, "ada", "admins"), "authproxy=AAAA", "authproxy=a; " + r.signIn(f, "ada", "admins")}
	f.Fuzz(func(t *testing.T, method, host, target string, who uint8) {
		for _, s := range []string{method, host, target} {
			if strings.ContainsAny(s, "\r\n") || strings.Trim(s, " \t") != s {
				return // no header can say that
			}
		}
		cookie := cookies[int(who)%len(cookies)]
		head := "Accept: application/json\r\nCookie: x=1; " + cookie + "\r\n\r\n"
		came, err := parse(method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + head)
		var proxied int
		if err == nil && strings.HasPrefix(target, "/") {
			proxied = r.status(came)
		} else {
			proxied = http.StatusBadRequest // net/http's server says so
		}
		// Our own endpoints are no app's, and what is redirected is not decided yet.
		if strings.HasPrefix(target, "/auth") || proxied/100 == 3 {
			return
		}
		for _, front := range frontProxies {
			if front.name == "envoy" && !strings.HasPrefix(target, "/") {
				continue // nothing to put behind its endpoint
			}
			m, path, described := front.ask(method, host, target)
			raw := m + " " + path + " HTTP/1.1\r\nHost: " + host + "\r\n"
			for i := 0; i < len(described); i += 2 {
				raw += described[i] + ": " + described[i+1] + "\r\n"
			}
			asked, err := parse(raw + head)
			if err != nil {
				continue
			}
			got := r.status(asked)
			if (got == 200) != (proxied == 200) || (got == 401) != (proxied == 401) || got/100 != 2 && got/100 != 4 {
				t.Errorf("%s %q of %q as %d: proxied %d, %s is told %d", method, target, host, who, proxied, front.name, got)
			}
		}
	})
}

// status is what a request from this machine is answered with.
func (r *rig) status(req *http.Request) int {
	req.RemoteAddr = "127.0.0.1:1"
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w.Code
}

func TestAFrontProxyIsToldWhoTheUserIs(t *testing.T) {
	w := newWorld(t, asking(setup{}))
	names := []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups", "X-Authproxy-Assertion"}
	for _, f := range frontProxies {
		t.Run(f.name, func(t *testing.T) {
			a := w.signedIn(t, "ada").asks(f, "GET", "/admin/x", "X-Forwarded-User", "root", "X-Forwarded-Groups", "root").wants(t, 200)
			if got := a.Header["X-Forwarded-User"]; !slices.Equal(got, []string{adaSubject}) || a.Header.Get("X-Authproxy-Assertion") == "" {
				t.Errorf("the user is %q, with assertion %q", got, a.Header.Get("X-Authproxy-Assertion"))
			}
			nobody := w.newBrowser(t).asks(f, "GET", "/public/x", "X-Forwarded-User", "root").wants(t, 200)
			for _, name := range names {
				if got := nobody.Header[name]; !slices.Equal(got, []string{""}) {
					t.Errorf("%s of nobody is %q, want it once and empty: it overwrites what the client sent", name, got)
				}
			}
			for _, r := range []*reply{a, nobody} {
				if r.Header.Get("Set-Cookie") != "" || r.Header.Get("Cache-Control") != "no-store" || r.body != "" {
					t.Errorf("an answer with Set-Cookie %q, Cache-Control %q and body %q", r.Header.Get("Set-Cookie"), r.Header.Get("Cache-Control"), r.body)
				}
			}
			if at := w.upstream.last(t).Target; at != "/" { // signing in asked for that
				t.Errorf("the app was asked for %s", at)
			}
		})
	}
}

// What a front proxy passes on although an app may take it for our word it has to be told to remove, or not to pass.
func TestOurNamesInOtherSpellingsDoNotPassAFrontProxy(t *testing.T) {
	w := newWorld(t, asking(setup{}))
	b := w.signedIn(t, "ada")
	for _, f := range frontProxies {
		for _, name := range []string{"X_Forwarded_User", "x.forwarded.user", "X-Forwarded_User", "X_Authproxy~Assertion", "Remote_User", "x.auth.request.user"} {
			if f.name != "envoy" {
				b.asks(f, "GET", "/x", name, "root").wants(t, 403)
				continue
			}
			a := b.asks(f, "GET", "/x", name, "root").wants(t, 200)
			if got := a.Header.Get("X-Envoy-Auth-Headers-To-Remove"); got != strings.ToLower(name) {
				t.Errorf("envoy is told to remove %q, want %s", got, name)
			}
		}
		b.asks(f, "GET", "/x", "X-FORWARDED-USER", "root", "X_Forwarded", "1").wants(t, 200)
	}
}

// Whatever is wrong with what they are asked about, front proxies are told no, and never something that they take for a yes or
// for a page.
func TestRefusalsOfAFrontProxyAreOnlyOfTwoKinds(t *testing.T) {
	w := newWorld(t, asking(setup{}))
	b := w.signedIn(t, "ada")
	for _, f := range frontProxies {
		for _, target := range []string{"/public/..%2fadmin", "/x%00", "/auth/login", "/auth/me", "/auth/nothing"} {
			b.asks(f, "GET", target).wants(t, 403)
		}
		b.asks(f, "TRACE", "/x").wants(t, 403)
		m, path, described := f.ask("GET", "other.test", "/public/x")
		if f.name != "envoy" {
			b.send(m, path, "", described...).wants(t, 403)
		}
		// A cookie that came twice would lead back here after any login.
		twice := w.newBrowser(t).asks(f, "GET", "/x", "Cookie", w.cookie+"=a; "+w.cookie+"=b").wants(t, f.login())
		if to := twice.Header.Get("Location"); !strings.HasPrefix(to, w.origin+"/auth/login?") {
			t.Errorf("%s: leads to %q", f.name, to)
		}
	}
	w.newBrowser(t).navigate("/auth/login?return_to=/x", "Cookie", w.cookie+"=a; "+w.cookie+"=b").wantsPage(t, 400, "Your session is ambiguous")
}

func TestALoginForAFrontProxyEndsWhereItBegan(t *testing.T) {
	for _, signInPage := range []bool{false, true} {
		w := newWorld(t, asking(setup{options: func(o *proxy.Options) { o.SignInPage = signInPage }}))
		for _, f := range frontProxies {
			b := w.newBrowser(t)
			a := b.asks(f, "GET", "/deep/page?x=1&return_to=//evil.test&y=%26").wants(t, f.login())
			to, err := url.Parse(a.Header.Get("Location"))
			if err != nil || to.Host != "app.test" {
				t.Fatalf("%s: leads to %q", f.name, a.Header.Get("Location"))
			}
			r := b.follow(to.String())
			if signInPage {
				m := regexp.MustCompile(`href="(/auth/login\?[^"]*)"`).FindStringSubmatch(r.body)
				if m == nil {
					t.Fatalf("no link to sign in: %s", r.brief())
				}
				r = b.follow(html.UnescapeString(m[1]))
			}
			if want := w.origin + "/deep/page?x=1&return_to=//evil.test&y=%26"; r.at != want {
				t.Errorf("%s: the login ends at %s, want %s", f.name, r.at, want)
			}
			b.asks(f, "GET", "/deep/page").wants(t, 200)
		}
	}
}

// The front proxy's client is sent to our login without any word of which login the page needs: we know.
func TestAStepUpForAFrontProxyAsksTheProviderForIt(t *testing.T) {
	w := newWorld(t, asking(setup{}))
	b := w.signedIn(t, "ada")
	w.clock.advance(time.Hour)
	a := b.asks(frontProxies[1], "GET", "/fresh/x").wants(t, 302)
	q := b.navigate(a.Header.Get("Location")).to(t).Query()
	if q.Get("max_age") != "300" {
		t.Errorf("the provider is asked %v, want max_age=300", q)
	}
	a = b.asks(frontProxies[1], "GET", "/strong/x").wants(t, 302)
	q = b.navigate(a.Header.Get("Location")).to(t).Query()
	if q.Get("acr_values") != "gold" || q.Get("max_age") != "" {
		t.Errorf("the provider is asked %v, want acr_values=gold", q)
	}
}

func TestAnIdentityThatNoFrontProxyTakesIsRefused(t *testing.T) {
	var groups []string
	for i := range 120 {
		groups = append(groups, fmt.Sprintf("a group with a long name %d", i))
	}
	w := newWorld(t, asking(setup{file: true, users: []devprovider.User{{Username: "huge", Subject: "auth0|huge", Claims: map[string]any{"groups": groups}}}}))
	b := w.signedIn(t, "huge")
	b.asks(frontProxies[0], "GET", "/x", "Sec-Fetch-Mode", "cors").wantsJSON(t, 403, "identity_too_large")
	e := w.log.find(t, "the refusal", func(r record) bool { return r["reason"] == "identity_too_large" })[0]
	if text := fmt.Sprint(e["error"]); !strings.Contains(text, "what costs most is groups") || !strings.Contains(text, "identity.only_groups") {
		t.Errorf("the log says %q, want what is too large, and what to do", text)
	}
}

// Assertions for one app must be no use at another: their audience is the host that was asked about, whatever we proxy to.
func TestEachHostOfForwardAuthHasItsAudience(t *testing.T) {
	w := newWorld(t, setup{https: true, domain: "test", options: func(o *proxy.Options) {
		o.ForwardAuth = &proxy.ForwardAuth{Domains: []string{"one.test", "two.test"}}
		o.Routes = []proxy.Route{{Path: "/named", Policy: &policy.Policy{SignedIn: true}, Audience: "https://named.test"}}
	}})
	b := w.signedIn(t, "ada")
	for host, targets := range map[string]map[string]string{"one.test": {"/": "https://one.test", "/named": "https://named.test"}, "two.test": {"/": "https://two.test"}} {
		for target, want := range targets {
			_, path, described := frontProxies[1].ask("GET", host, target)
			_, claims := opened(t, b.send("GET", path, "", described...).wants(t, 200).Header.Get("X-Authproxy-Assertion"))
			if claims["aud"] != want {
				t.Errorf("the assertion for %s%s is for %v, want %s", host, target, claims["aud"], want)
			}
		}
	}
}

// A login that begins at a path which only a lenient app takes for the protected one asks for what that one wants: it would be
// asked for again otherwise, and again.
func TestAStepUpOfALenientPathEnds(t *testing.T) {
	w := newWorld(t, asking(setup{}))
	b := w.signedIn(t, "ada")
	for target, want := range map[string]string{"/Fresh/x": "max_age", "/Strong": "acr_values"} {
		w.clock.advance(time.Hour)
		a := b.asks(frontProxies[1], "GET", target).wants(t, 302)
		if q := b.navigate(a.Header.Get("Location")).to(t).Query(); q.Get(want) == "" {
			t.Errorf("for %s the provider is asked %v, want %s", target, q, want)
		}
	}
}

func TestALoginForAFrontProxyDoesNotCircleAtTheRoot(t *testing.T) {
	w := newWorld(t, asking(setup{options: func(o *proxy.Options) { o.Prefix, o.SignInPage = "", true }}))
	b := w.newBrowser(t)
	a := b.send("GET", "/verify/traefik", "", "X-Forwarded-Method", "GET", "X-Forwarded-Proto", "http", "X-Forwarded-Host", "app.test", "X-Forwarded-Uri", "/x", "Accept", acceptPages, "Sec-Fetch-Mode", "navigate").wants(t, 302)
	if to := a.Header.Get("Location"); to != w.origin+"/login?return_to=%2Fx" {
		t.Errorf("leads to %s", to)
	}
}

// Front proxies ask by GET about a HEAD, and the other way round: the answer is to what they sent.
func TestAnswersAboutAHEADAreWhole(t *testing.T) {
	w := newWorld(t, asking(setup{}))
	b := w.signedIn(t, "bob")
	_, path, described := frontProxies[1].ask("HEAD", "app.test", "/admin")
	page := b.send("GET", path, "", append(described, "Accept", acceptPages)...).wants(t, 403)
	if n := page.Header.Get("Content-Length"); n != fmt.Sprint(len(page.body)) {
		t.Errorf("Content-Length is %s and the body has %d bytes", n, len(page.body))
	}
}

// nginx announces the client's body and does not send it (FWD-25).
func TestABodyThatAFrontProxyDoesNotSendIsNotWaitedFor(t *testing.T) {
	w := newWorld(t, asking(setup{}))
	for _, target := range []string{"/public/x", "/x", "/public/..%2fx"} {
		c := w.dial(t)
		c.SetDeadline(time.Now().Add(30 * time.Second))
		began := time.Now()
		fmt.Fprintf(c, "GET /auth/verify/nginx HTTP/1.1\r\nHost: authproxy\r\nContent-Length: 5\r\nX-Original-URL: http://app.test%s\r\nX-Original-Method: POST\r\n\r\n", target)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || !res.Close || time.Since(began) > bodyPatience {
			t.Errorf("%s: %v, %v, after %s", target, res, err, time.Since(began))
		}
	}
}

// bodyPatience is how long we wait for a body that nobody wants.
const bodyPatience = 4 * time.Second

// RFC 6455 §10.2. Front proxies pass the key of the handshake on, and some of them not Upgrade.
func TestAWebSocketOfAnotherSiteIsRefusedToFrontProxies(t *testing.T) {
	w := newWorld(t, asking(setup{}))
	b := w.signedIn(t, "ada")
	for _, f := range frontProxies {
		for _, mark := range [][]string{{"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}, {"Upgrade", "websocket", "Connection", "Upgrade"}} {
			for origin, want := range map[string]int{"http://app.test": 200, "https://evil.test": 403, "null": 403, "": 403} {
				b.asks(f, "GET", "/x", append([]string{"Sec-Fetch-Mode", "websocket", "Accept", "*/*", "Origin", origin}, mark...)...).wants(t, want)
			}
		}
	}
}

func TestOnlyTrustedPeersAreAnswered(t *testing.T) {
	for _, row := range []struct {
		name, peer, secret string
		conf               proxy.ForwardAuth
		want               int
	}{
		{"loopback", "127.0.0.1:1", "", proxy.ForwardAuth{}, 200},
		{"loopback by IPv6", "[::1]:1", "", proxy.ForwardAuth{}, 200},
		{"a neighbour", "10.0.0.1:1", "", proxy.ForwardAuth{}, 403},
		{"a neighbour in trust", "10.0.0.1:1", "", proxy.ForwardAuth{Trust: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, 200},
		{"the same as IPv6", "[::ffff:10.0.0.1]:1", "", proxy.ForwardAuth{Trust: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, 200},
		{"a neighbour of those in trust", "11.0.0.1:1", "", proxy.ForwardAuth{Trust: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, 403},
		{"a Unix socket", "@", "", proxy.ForwardAuth{}, 403},
		{"a Unix socket in trust", "@", "", proxy.ForwardAuth{TrustUnix: true}, 200},
		{"a neighbour with the secret", "10.0.0.1:1", "0123456789abcdef", proxy.ForwardAuth{SharedSecret: "0123456789abcdef"}, 200},
		{"a neighbour with another secret", "10.0.0.1:1", "0123456789abcdeF", proxy.ForwardAuth{SharedSecret: "0123456789abcdef"}, 403},
		{"a neighbour with a secret where there is none", "10.0.0.1:1", "0123456789abcdef", proxy.ForwardAuth{}, 403},
		{"a neighbour that says it is loopback", "10.0.0.1:1", "", proxy.ForwardAuth{SharedSecret: "0123456789abcdef"}, 403},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t, func(o *proxy.Options) { o.ForwardAuth = &row.conf })
			req := httptest.NewRequest("GET", "/auth/verify/nginx", nil)
			req.RemoteAddr = row.peer
			req.Header.Set("X-Original-URL", "http://app.test/public/x")
			req.Header.Set("X-Original-Method", "GET")
			req.Header.Set("X-Forwarded-For", "127.0.0.1")
			if row.secret != "" {
				req.Header.Set("X-Authproxy-Secret", row.secret)
			}
			w := httptest.NewRecorder()
			r.ServeHTTP(w, req)
			if w.Code != row.want {
				t.Errorf("answered %d, want %d", w.Code, row.want)
			}
		})
	}
}

// The hosts of forward_auth.domains are decided about and not served, and each gets an assertion of its own.
func TestFrontProxiesAskAboutTheirDomainsOnly(t *testing.T) {
	w := newWorld(t, setup{https: true, domain: "test", options: func(o *proxy.Options) {
		o.Default = nil
		o.ForwardAuth = &proxy.ForwardAuth{Domains: []string{"one.test", "two.test"}}
		o.Routes = []proxy.Route{{Host: "two.test", Path: "/admin", Policy: &policy.Policy{Entries: []policy.Entry{{Groups: []string{"admins"}}}}}}
	}})
	ask := func(b *browser, host, target string) *reply {
		_, path, described := frontProxies[1].ask("GET", host, target)
		return b.send("GET", path, "", append(described, "Accept", acceptPages, "Sec-Fetch-Mode", "navigate")...)
	}
	b := w.newBrowser(t)
	a := ask(b, "two.test", "/x").wants(t, 302)
	for n := 0; n < 6 && !strings.HasPrefix(a.Header.Get("Location"), "https://two.test"); n++ {
		a = b.navigate(a.to(t).String())
	}
	if to := a.Header.Get("Location"); to != "https://two.test/x" {
		t.Fatalf("the login leads to %q", to)
	}
	ask(b, "app.test", "/x").wants(t, 403)
	ask(b, "three.test", "/x").wants(t, 403)
	bob := w.newBrowser(t)
	w.faults(func(f *devprovider.Faults) { f.SignInAs = "bob" })
	bob.follow("/auth/login")
	ask(bob, "two.test", "/admin").wants(t, 403)
	for _, host := range []string{"one.test", "two.test"} {
		_, claims := opened(t, ask(b, host, "/x").wants(t, 200).Header.Get("X-Authproxy-Assertion"))
		if claims["aud"] != "https://"+host {
			t.Errorf("the assertion for %s is for %v", host, claims["aud"])
		}
	}
	b.send("GET", "https://one.test/x", "").wants(t, 421)
}
