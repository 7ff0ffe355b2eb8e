package proxy_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authproxy/devprovider"
	"authproxy/oidc"
	"authproxy/policy"
	"authproxy/proxy"
)

const adaSubject = "auth0|65f0a1ada0000000000000a1"

func TestALoginLeadsToTheAppAndItsUpstreamKnowsWho(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	b.follow("/deep?x=1&y=%2F").wants(t, 200, "GET /deep?x=1&y=%2F")
	h := w.upstream.last(t).Header
	if got := h.Get("X-Forwarded-User"); got != adaSubject {
		t.Errorf("the upstream got X-Forwarded-User %q", got)
	}
	if h.Get("X-Authproxy-Assertion") == "" || h.Get("Cookie") != "" {
		t.Errorf("the upstream got an assertion %q and cookies %q", h.Get("X-Authproxy-Assertion"), h.Get("Cookie"))
	}
	if left := b.logins(); len(left) > 0 {
		t.Errorf("the login cookies %q are left", left)
	}
}

// Auth0's express SDK and others keep one transaction per browser, so that the second tab breaks the first.
func TestTabsOfOneBrowserSignInWhateverTheirOrder(t *testing.T) {
	w := newWorld(t, setup{})
	for _, order := range [][]int{{0, 1}, {1, 0}, {0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 0, 4, 1, 3}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			b := w.newBrowser(t)
			callbacks := make([]string, len(order))
			for tab := range callbacks {
				callbacks[tab] = b.login(fmt.Sprintf("/tab%d?n=%d", tab, tab))
			}
			if got := len(b.logins()); got != len(order) {
				t.Fatalf("%d tabs have %d login cookies", len(order), got)
			}
			before := w.provider.Count("authorize")
			for _, tab := range order {
				r := b.back(callbacks[tab])
				if want := fmt.Sprintf("%s/tab%d?n=%d", w.origin, tab, tab); r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != want {
					t.Fatalf("tab %d gets %s to %q, want 303 to %q", tab, r.Status, r.Header.Get("Location"), want)
				}
			}
			if asked := w.provider.Count("authorize") - before; asked > 0 || len(b.logins()) > 0 {
				t.Errorf("%d logins were repeated and the cookies %q are left", asked, b.logins())
			}
			b.navigate("/x").wants(t, 200)
		})
	}
}

func TestABrowserHasAtMostFiveLoginsAndTheOldestGoesFirst(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	callbacks := make([]string, 7)
	for i := range callbacks {
		callbacks[i] = b.login(fmt.Sprintf("/tab%d", i))
		w.clock.advance(time.Second)
	}
	if got := b.logins(); len(got) != 5 {
		t.Fatalf("the browser has %d login cookies, want 5", len(got))
	}
	for i := 6; i >= 2; i-- {
		if r := b.back(callbacks[i]); r.StatusCode != http.StatusSeeOther {
			t.Errorf("the callback of tab %d answers %s: %s", i, r.Status, r.brief())
		}
	}
	other := w.newBrowser(t) // with nothing but the login cookies of its own
	first := other.login("/pushed?out=1")
	for range 5 {
		w.clock.advance(time.Second)
		other.login("/later")
	}
	r := other.back(first)
	if len(other.logins()) > 5 {
		t.Errorf("starting again left %d login cookies", len(other.logins()))
	}
	other.onwardFrom(r).wants(t, 200, "GET /pushed?out=1") // the way back survives in the state
}

func TestLoginCookiesThatCannotBeOpenedAreTheFirstToGo(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	at, _ := url.Parse(w.origin)
	for i := range 9 {
		b.jar.keep(at, []*http.Cookie{{Name: fmt.Sprintf("authproxy-login-junk%04d", i), Value: "junk", Path: "/"}})
	}
	callback := b.login("/x")
	if got := b.logins(); len(got) != 5 {
		t.Errorf("the browser has the login cookies %q, want 5", got)
	}
	b.onwardFrom(b.back(callback)).wants(t, 200, "GET /x")
}

func TestTheBackButtonAfterALoginLeadsToTheApp(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	callback := b.login("/report?id=7")
	b.onwardFrom(b.back(callback)).wants(t, 200)
	before := b.session()
	r := b.back(callback)
	if r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != w.origin+"/report?id=7" {
		t.Errorf("the callback once more: %s to %q", r.Status, r.Header.Get("Location"))
	}
	if b.session() != before || w.provider.Count("token") != 1 {
		t.Errorf("the code was sent %d times, and the session changed: %t", w.provider.Count("token"), b.session() != before)
	}
}

func TestABookmarkedCallback(t *testing.T) {
	w := newWorld(t, setup{})
	stale := w.newBrowser(t)
	callback := stale.login("/old")
	stale.back(callback)
	for _, c := range []struct{ name, query, to string }{
		{"of a login that is over", strings.TrimPrefix(callback, w.origin+"/auth/callback"), "/old"},
		{"without any parameter", "", "/"},
		{"with an empty state", "?code=abc&state=", "/"},
		{"with a state that nobody made", "?code=abc&state=" + strings.Repeat("a", 44), "/"},
		{"with a state that is too long", "?code=abc&state=a" + strings.Repeat("x", 3000), "/"},
		{"with a forged way back", "?code=abc&state=a" + strings.Repeat("x", 43) + ".L2V2aWw", "/"},
		{"with an error of a provider", "?error=access_denied&error_description=no&state=zzz", "/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := w.provider.Count("token")
			known := w.signedIn(t, "ada")
			before++
			id := known.session()
			if r := known.navigate("/auth/callback" + c.query); r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != w.origin+c.to {
				t.Errorf("signed in: %s to %q, want 303 to %q", r.Status, r.Header.Get("Location"), c.to)
			}
			if known.session() != id {
				t.Error("the session was touched")
			}
			unknown := w.newBrowser(t)
			callback := unknown.login("/auth/callback" + c.query)
			if got := w.provider.Count("token"); got != before {
				t.Errorf("the code was sent to the provider %d times", got-before)
			}
			unknown.onwardFrom(unknown.back(callback)).wants(t, 200, "GET "+c.to)
		})
	}
}

func TestABookmarkedCallbackOpenedByAScriptStartsNoLogin(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	b.fetch("GET", "/auth/callback?code=x&state=y", "").wantsJSON(t, 400, "unknown_state")
	if b.logins() != nil || w.provider.Count("authorize") != 0 {
		t.Errorf("login cookies %q", b.logins())
	}
}

func TestABrowserWithoutCookiesIsToldSoAfterTheSecondRound(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	b.jar.refuses = true
	r := b.follow("/deep?x=1").wantsPage(t, 400, "Cookies are blocked")
	if !strings.Contains(r.body, `href="/auth/login?return_to=%2Fdeep%3Fx%3D1"`) {
		t.Errorf("the page does not lead to the login for /deep?x=1: %s", r.brief())
	}
	if rounds, codes := w.provider.Count("authorize"), w.provider.Count("token"); rounds != 2 || codes != 0 {
		t.Errorf("%d rounds to the provider and %d codes redeemed, want 2 and 0", rounds, codes)
	}
	if got := w.log.find(t, "blocked cookies", func(r record) bool { return r["status"] == 400.0 }); got[0]["reason"] != "the browser returned no cookie in two rounds" {
		t.Errorf("the log says %v", got[0]["reason"])
	}
}

func TestABrowserThatLosesOnlyLoginCookiesEndsOnAPageAsWell(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	b.onward.Set("Cookie", "theme=dark") // and no other ever
	b.jar.refuses = true
	b.follow("/").wantsPage(t, 400, "Sign-in link expired")
	if rounds := w.provider.Count("authorize"); rounds != 2 {
		t.Errorf("%d rounds to the provider, want 2", rounds)
	}
}

// Login CSRF: who opens the attacker's callback must not end up signed in as the attacker (RFC 6749 §10.12).
func TestACallbackSignsNobodyInInAnotherBrowser(t *testing.T) {
	w := newWorld(t, setup{})
	attacker, victim := w.newBrowser(t), w.newBrowser(t)
	callback := attacker.login("/")
	r := victim.back(callback)
	if r.StatusCode != http.StatusFound || victim.session() != "" || w.provider.Count("token") != 0 {
		t.Errorf("the victim gets %s, session %q, %d codes redeemed", r.Status, victim.session(), w.provider.Count("token"))
	}
	bob := w.signedIn(t, "bob")
	before := bob.session()
	if r := bob.back(callback); r.StatusCode != http.StatusSeeOther || bob.session() != before {
		t.Errorf("bob gets %s, and his session changed: %t", r.Status, bob.session() != before)
	}
	w.faults(func(f *devprovider.Faults) { f.SignInAs = "ada" })
	attacker.onwardFrom(attacker.back(callback)).wants(t, 200) // the code was not burnt
}

// The state alone names a cookie; the value in it must be this login's.
func TestALoginCookieOfAnotherLoginIsNotBelieved(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	one, other := b.login("/one"), b.login("/other")
	names := b.logins()
	first, second := b.jar.get(names[0]), b.jar.get(names[1])
	first.Value, second.Value = second.Value, first.Value
	for _, callback := range []string{one, other} {
		if r := b.back(callback); r.StatusCode != http.StatusFound {
			t.Errorf("a callback with the cookie of another login: %s to %s", r.Status, r.Header.Get("Location"))
		}
	}
	if b.session() != "" || w.provider.Count("token") != 0 {
		t.Errorf("session %q, %d codes redeemed", b.session(), w.provider.Count("token"))
	}
}

// The cookie is named by the beginning of the state; all of it must agree.
func TestAStateThatBeginsLikeAnotherIsNotThatOne(t *testing.T) {
	w := newWorld(t, setup{})
	for name, change := range map[string]func(string) string{
		"another ending": func(s string) string {
			return s[:40] + strings.Map(func(r rune) rune { return r ^ 1 }, s[40:44]) + s[44:]
		},
		"another try":     func(s string) string { return "b" + s[1:] },
		"no way back":     func(s string) string { return s[:44] },
		"more at the end": func(s string) string { return s + "x" },
	} {
		b := w.newBrowser(t)
		u := must(url.Parse(b.login("/x")))
		q := u.Query()
		q.Set("state", change(q.Get("state")))
		u.RawQuery = q.Encode()
		want := 302 // it begins again
		if name == "another try" {
			want = 400 // a second one does not
		}
		b.back(u.String()).wants(t, want)
		if b.session() != "" || w.provider.Count("token") != 0 {
			t.Errorf("%s: session %q, %d codes redeemed", name, b.session(), w.provider.Count("token"))
		}
	}
}

func TestALoginThatTookLongerThanAnHourBeginsAgainByItself(t *testing.T) {
	w := newWorld(t, setup{})
	for _, c := range []struct {
		name  string
		after time.Duration
		again int
	}{{"59 minutes", 59 * time.Minute, 0}, {"61 minutes", 61 * time.Minute, 1}} {
		t.Run(c.name, func(t *testing.T) {
			b := w.newBrowser(t)
			to := b.navigate("/deep?q=1").to(t)
			for i := range b.jar.kept { // as a browser whose clock is behind
				b.jar.kept[i].expires = time.Time{}
			}
			w.clock.advance(c.after)
			before := w.provider.Count("authorize")
			b.follow(to.String()).wants(t, 200, "GET /deep?q=1")
			if again := w.provider.Count("authorize") - before - 1; again != c.again {
				t.Errorf("the login was begun again %d times, want %d", again, c.again)
			}
		})
	}
}

func TestALoginWorksOnceEvenWhenItsCookieIsSentTwice(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	callback := b.login("/x")
	const tries = 8
	statuses := make([]int, tries)
	locations := make([]string, tries)
	line := b.jar.line(&http.Request{Method: "GET", URL: must(url.Parse(callback)), Header: http.Header{}})
	var running sync.WaitGroup
	for i := range tries {
		running.Go(func() {
			r, _ := http.NewRequest("GET", callback, nil)
			r.Header = http.Header{"Cookie": {line}, "Sec-Fetch-Mode": {"navigate"}, "Accept": {acceptPages}}
			res, err := b.transport.RoundTrip(r)
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			statuses[i], locations[i] = res.StatusCode, res.Header.Get("Location")
		})
	}
	running.Wait()
	signedIn := 0
	for i, s := range statuses {
		if s == http.StatusSeeOther && locations[i] == w.origin+"/x" {
			signedIn++
		}
	}
	if signedIn != 1 || w.provider.Count("token") != 1 {
		t.Errorf("of %d callbacks with one code %d signed in and %d redeemed it: %v", tries, signedIn, w.provider.Count("token"), statuses)
	}
}

func TestALoginBegunBeforeARestartIsFinishedAfterIt(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	callback := b.login("/deep?a=b&c=d#not-sent")
	w.restart()
	b.onwardFrom(b.back(callback)).wants(t, 200, "GET /deep?a=b&c=d")
	w.restart()
	b.navigate("/").wants(t, 200)
}

func TestWhatALinkToTheLoginMaySay(t *testing.T) {
	w := newWorld(t, setup{options: func(o *proxy.Options) { o.Connections = []string{"github", "google-oauth2"} }, rp: func(c *oidc.Config) {
		c.Params = map[string]string{"ext-brand": "blue"}
	}})
	fixed := map[string]string{"response_type": "code", "client_id": clientID, "redirect_uri": w.origin + "/auth/callback", "scope": "openid profile email",
		"code_challenge_method": "S256", "ext-brand": "blue"}
	drawn := []string{"state", "nonce", "code_challenge"}
	for _, c := range []struct {
		name, query string
		want        map[string]string
	}{
		{"nothing", "", nil},
		{"a connection of the configuration", "connection=github", map[string]string{"connection": "github"}},
		{"another connection", "connection=evil-idp", nil},
		{"a connection in another case", "connection=GitHub", nil},
		{"a login hint", "login_hint=ada%40example.com", map[string]string{"login_hint": "ada@example.com"}},
		{"the sign-up page", "screen_hint=signup", map[string]string{"screen_hint": "signup"}},
		{"another screen", "screen_hint=reset", nil},
		{"a fresh login", "prompt=login", map[string]string{"prompt": "login"}},
		{"another account", "prompt=select_account", map[string]string{"prompt": "select_account"}},
		{"a silent login", "prompt=none", nil},
		{"consent", "prompt=consent", nil},
		{"an invitation", "invitation=TICKET&organization=org_demo&organization_name=Demo", map[string]string{"invitation": "TICKET", "organization": "org_demo"}},
		{"languages", "ui_locales=de+en", map[string]string{"ui_locales": "de en"}},
		{"a login that the provider starts", "iss=" + url.QueryEscape(w.provider.Issuer()) + "&target_link_uri=" + url.QueryEscape(w.origin+"/x"), nil},
		{"parameters of the protocol", "redirect_uri=https://evil.test/&scope=all&response_type=token&client_id=other&state=mine&nonce=mine&audience=x&code_challenge=x&code_challenge_method=plain" +
			"&response_mode=fragment&request_uri=x&request=x&max_age=0&acr_values=x&ext-brand=red&ext-x=1", nil},
		{"a parameter inside of another", "login_hint=" + url.QueryEscape("a&prompt=none&redirect_uri=https://evil.test"), map[string]string{"login_hint": "a&prompt=none&redirect_uri=https://evil.test"}},
		{"parameters that we do not know, twice", "utm=1&utm=2&scope=a&scope=b", nil},
		{"a broken escape in what we ignore", "utm=%zz&login_hint=a", map[string]string{"login_hint": "a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := w.newBrowser(t).navigate("/auth/login?" + c.query).to(t).Query()
			want := url.Values{}
			for _, m := range []map[string]string{fixed, c.want} {
				for k, v := range m {
					want.Set(k, v)
				}
			}
			for _, name := range drawn {
				if len(q.Get(name)) < 43 {
					t.Errorf("%s is %q, want at least 256 random bits", name, q.Get(name))
				}
				q.Del(name)
			}
			if got := q.Encode(); got != want.Encode() {
				t.Errorf("the provider is asked\n%s, want\n%s", got, want.Encode())
			}
		})
	}
	for _, c := range []struct{ name, query string }{
		{"return_to twice", "return_to=/a&return_to=/b"},
		{"a login hint twice", "login_hint=a&login_hint=b"},
		{"the same twice, spelled otherwise", "prompt=login&%70rompt=login"},
		{"a login hint that is too long", "login_hint=" + strings.Repeat("a", 600)},
		{"a broken escape", "login_hint=%zz"},
		{"the issuer of somebody else", "iss=https%3A%2F%2Fevil.test%2F"},
		{"our issuer but for the slash", "iss=" + url.QueryEscape(strings.TrimSuffix(w.provider.Issuer(), "/"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := w.newBrowser(t)
			b.navigate("/auth/login?"+c.query).wantsPage(t, 400, "We could not read that request")
			if b.logins() != nil {
				t.Errorf("a login was started: %q", b.logins())
			}
		})
	}
}

func TestSignupAsksForTheSignUpPageEvenIfSomebodyIsSignedInThere(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	q := b.navigate("/auth/signup?return_to=%2Fwelcome").to(t).Query()
	if q.Get("prompt") != "login" || q.Get("screen_hint") != "signup" { // screen_hint alone does nothing when there is a session
		t.Errorf("the provider is asked prompt %q and screen_hint %q", q.Get("prompt"), q.Get("screen_hint"))
	}
	b.follow("/auth/signup?return_to=%2Fwelcome").wants(t, 200, "GET /welcome")
}

func TestALoginLeadsBackToWhereItBegan(t *testing.T) {
	w := newWorld(t, setup{})
	long := "/long?q=" + strings.Repeat("x", 1400)
	for _, c := range []struct{ name, start, want string }{
		{"a path", "/a/b", "/a/b"},
		{"a query with escapes", "/a?x=%26&y=%C3%A4&z", "/a?x=%26&y=%C3%A4&z"},
		{"a bare question mark", "/a?", "/a?"},
		{"an escaped path", "/caf%C3%A9/%20x", "/caf%C3%A9/%20x"},
		{"a long query", long, long},
		{"a query that is too long for a cookie", "/long?q=" + strings.Repeat("x", 2000), "/long"},
		{"a path that is too long for a cookie", "/" + strings.Repeat("x", 2000), "/"},
		{"return_to", "/auth/login?return_to=%2Fa%3Fx%3D1", "/a?x=1"},
		{"return_to as our own URL", "/auth/login?return_to=http%3A%2F%2Fapp.test%2Fa%3Fx%3D1", "/a?x=1"},
		{"return_to of another site", "/auth/login?return_to=https%3A%2F%2Fevil.test%2F", "/"},
		{"return_to with two slashes", "/auth/login?return_to=%2F%2Fevil.test%2F", "/"},
		{"return_to the logout", "/auth/login?return_to=%2Fauth%2Flogout", "/"},
		{"return_to another login", "/auth/login?return_to=%2Fauth%2Flogin", "/"},
		{"target_link_uri", "/auth/login?target_link_uri=http%3A%2F%2Fapp.test%2Ft", "/t"},
		{"target_link_uri of another site", "/auth/login?target_link_uri=http%3A%2F%2Fevil.test%2Ft", "/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := w.newBrowser(t)
			r := b.back(b.login(c.start))
			if r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != w.origin+c.want {
				t.Errorf("the login ends with %s to %.100q, want 303 to %.100q", r.Status, r.Header.Get("Location"), w.origin+c.want)
			}
		})
	}
}

func TestEachLoginBeginsASessionAndEndsTheOneBefore(t *testing.T) {
	for _, file := range []bool{false, true} {
		t.Run(fmt.Sprintf("file store %t", file), func(t *testing.T) {
			w := newWorld(t, setup{file: file})
			b := w.signedIn(t, "ada")
			former := b.session()
			assertion := w.upstream.last(t).Header.Get("X-Authproxy-Assertion")
			b.onwardFrom(b.navigate("/auth/login")).wants(t, 200)
			if b.session() == former {
				t.Error("the session cookie is the same after another login")
			}
			if now := w.upstream.last(t).Header.Get("X-Authproxy-Assertion"); now == assertion {
				t.Error("the assertion is that of the former session")
			}
			old := w.newBrowser(t)
			old.onward.Set("Cookie", w.cookie+"="+former)
			old.fetch("GET", "/api/x", "").wantsJSON(t, 401, "login_required")
			b.fetch("GET", "/api/x", "").wants(t, 200)
		})
	}
}

func TestASessionCookieThatWasPlantedBeforeALoginIsNotAdopted(t *testing.T) {
	w := newWorld(t, setup{})
	at := must(url.Parse(w.origin))
	attacker := w.signedIn(t, "bob")
	for _, planted := range []string{"", "x", strings.Repeat("A", 3000), attacker.session()} {
		b := w.newBrowser(t)
		b.jar.keep(at, []*http.Cookie{{Name: w.cookie, Value: planted, Path: "/"}})
		w.faults(func(f *devprovider.Faults) { f.SignInAs = "ada" })
		b.onwardFrom(b.back(b.login("/auth/login"))).wants(t, 200)
		if got := w.upstream.last(t).Header.Get("X-Forwarded-User"); got != adaSubject || b.session() == planted {
			t.Errorf("after planting %.20q the user is %q, and the cookie is the planted one: %t", planted, got, b.session() == planted)
		}
	}
}

func TestCookiesAreSetAsTheContractSays(t *testing.T) {
	for _, c := range []struct {
		name    string
		setup   setup
		session string // name and attributes
		login   string
	}{
		{"https", setup{https: true}, "__Host-authproxy; Path=/; Max-Age=604800; HttpOnly; Secure; SameSite=Lax", "__Host-authproxy-login-ID; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"},
		{"http on loopback", setup{}, "authproxy; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax", "authproxy-login-ID; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"},
		{"a domain", setup{https: true, domain: "app.test"}, "__Secure-authproxy; Path=/; Domain=app.test; Max-Age=604800; HttpOnly; Secure; SameSite=Lax",
			"__Secure-authproxy-login-ID; Path=/; Domain=app.test; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"},
		{"strict", setup{https: true, sameSite: http.SameSiteStrictMode}, "__Host-authproxy; Path=/; Max-Age=604800; HttpOnly; Secure; SameSite=Strict",
			"__Host-authproxy-login-ID; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"},
		{"none", setup{https: true, sameSite: http.SameSiteNoneMode}, "__Host-authproxy; Path=/; Max-Age=604800; HttpOnly; Secure; SameSite=None",
			"__Host-authproxy-login-ID; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=None"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.setup)
			b := w.newBrowser(t)
			started := b.navigate("/x")
			if got := lines(started); len(got) != 1 || !sameCookie(got[0], c.login) {
				t.Errorf("starting a login sets\n%q, want\n%q", got, c.login)
			}
			done := b.back(b.atProvider(started))
			expired := strings.Replace(c.login, "Max-Age=3600", "Max-Age=0", 1)
			if got := lines(done); len(got) != 2 || !sameCookie(got[0], expired) || !sameCookie(got[1], c.session) {
				t.Errorf("finishing it sets\n%q, want\n%q and\n%q", got, expired, c.session)
			}
			for _, r := range []*reply{started, done} {
				if r.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s sets cookies with Cache-Control %q", r.at, r.Header.Get("Cache-Control"))
				}
			}
		})
	}
}

// lines are the Set-Cookie lines of a reply.
func lines(r *reply) []string { return r.Header["Set-Cookie"] }

// sameCookie compares a Set-Cookie line but for the value, and the ID in its name, with one that has none.
func sameCookie(line, want string) bool {
	pair, attributes, _ := strings.Cut(line, "; ")
	name, _, _ := strings.Cut(pair, "=")
	wantName, wantAttributes, _ := strings.Cut(want, "; ")
	if prefix, ok := strings.CutSuffix(wantName, "ID"); ok {
		return strings.HasPrefix(name, prefix) && len(name) == len(prefix)+8 && attributes == wantAttributes
	}
	return name == wantName && attributes == wantAttributes
}

func TestLoginsPerMinuteAreBoundedByClientAddress(t *testing.T) {
	w := newWorld(t, setup{options: func(o *proxy.Options) {
		o.LoginsPerMinute = 3
		o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}})
	from := func(address string) *reply { return w.newBrowser(t).navigate("/x", "X-Forwarded-For", address) }
	for _, address := range []string{"192.0.2.1", "2001:db8::1"} {
		for range 3 {
			from(address).wants(t, 302)
		}
	}
	for _, address := range []string{"192.0.2.1", "2001:db8::ffff"} { // an IPv6 /64 is one client
		r := from(address).wantsPage(t, 429, "Too many sign-ins")
		if r.Header.Get("Retry-After") != "20" || len(lines(r)) > 0 {
			t.Errorf("%s: Retry-After %q, cookies %q", address, r.Header.Get("Retry-After"), lines(r))
		}
	}
	from("192.0.2.2").wants(t, 302)
	from("2001:db8:0:1::1").wants(t, 302)
	w.clock.advance(20 * time.Second)
	from("192.0.2.1").wants(t, 302)
	from("192.0.2.1").wants(t, 429)
	w.newBrowser(t).navigate("/auth/callback?state=x", "X-Forwarded-For", "192.0.2.1").wants(t, 429) // starts again by itself
}

func TestOurEndpointsTakeNoOtherMethods(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.signedIn(t, "ada")
	for path, allowed := range map[string]string{"/auth/login": "GET", "/auth/signup": "GET", "/auth/callback": "GET", "/auth/logout": "GET, POST", "/auth/me": "GET, HEAD",
		"/auth/backchannel-logout": "POST", "/auth/jwks.json": "GET, HEAD", "/auth/": "GET, HEAD"} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"} {
			if slices.Contains(strings.Split(allowed, ", "), method) {
				continue
			}
			r := b.fetch(method, path, "")
			if r.StatusCode != 405 || r.Header.Get("Allow") != allowed {
				t.Errorf("%s %s answers %s with Allow %q, want 405 and %q", method, path, r.Status, r.Header.Get("Allow"), allowed)
			}
		}
	}
	for _, path := range []string{"/auth/nothing", "/auth/login/", "/auth/callback/x", "/auth/LOGIN", "/auth/me.json"} {
		b.fetch("GET", path, "").wantsJSON(t, 404, "not_found")
	}
	for _, r := range w.upstream.requests() {
		if strings.HasPrefix(r.Target, "/auth") {
			t.Errorf("the upstream was asked for %s", r.Target)
		}
	}
	if r := b.navigate("/auth?x=1"); r.StatusCode != http.StatusPermanentRedirect || r.Header.Get("Location") != "/auth/" {
		t.Errorf("the bare prefix answers %s to %q", r.Status, r.Header.Get("Location"))
	}
}

func TestEndpointsAtTheRootLeaveTheRestToTheApp(t *testing.T) {
	w := newWorld(t, setup{options: func(o *proxy.Options) { o.Prefix = "" }, rp: func(c *oidc.Config) { c.RedirectURL = "http://app.test/callback" },
		client: func(c *devprovider.Client) { c.Callbacks = []string{"http://app.test/callback"} }})
	b := w.newBrowser(t)
	b.follow("/login?return_to=%2Fx").wants(t, 200, "GET /x")
	b.navigate("/").wants(t, 200, "GET /")
	b.navigate("/me").wants(t, 200, adaSubject)
	b.navigate("/loginx").wants(t, 200, "GET /loginx")
	b.navigate("/login").wants(t, 302)
}

func TestAnyoneMayUseAPublicRouteAndNoLoginStarts(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	b.navigate("/public/x").wants(t, 200, "GET /public/x")
	for name := range w.upstream.last(t).Header {
		if strings.HasPrefix(name, "X-Authproxy") || name == "X-Forwarded-User" {
			t.Errorf("the upstream got %s about nobody", name)
		}
	}
	if b.logins() != nil {
		t.Errorf("login cookies %q", b.logins())
	}
}

func TestWhoMayNotGetsAPageAndNoLoop(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.signedIn(t, "bob")
	before := w.provider.Count("authorize")
	r := b.follow("/admin").wantsPage(t, 403, "No access")
	if !strings.Contains(r.body, "Bob Kahn (bob@example.com)") || !strings.Contains(r.body, `href="/auth/login?prompt=login&amp;return_to=%2Fadmin"`) {
		t.Errorf("the page does not say who bob is or how to change the account: %s", r.brief())
	}
	b.fetch("GET", "/admin", "").wantsJSON(t, 403, "forbidden")
	if w.provider.Count("authorize") != before {
		t.Error("a login was started")
	}
	w.faults(func(f *devprovider.Faults) { f.SignInAs = "ada" }) // another account
	b.follow("/auth/login?prompt=login&return_to=%2Fadmin").wants(t, 200, "GET /admin")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestRoutesWithAHostShareTheLoginByADomain(t *testing.T) {
	w := newWorld(t, setup{https: true, domain: "app.test", options: func(o *proxy.Options) {
		o.Routes = []proxy.Route{{Host: "wiki.app.test", Path: "/", Policy: &policy.Policy{SignedIn: true}}}
	}})
	b := w.newBrowser(t)
	b.follow("https://wiki.app.test/page?x=1").wants(t, 200, "GET /page?x=1")
	if got := w.upstream.last(t).Host; got != "wiki.app.test" {
		t.Errorf("the upstream was asked for host %q", got)
	}
	b.navigate("https://app.test/").wants(t, 200)
	for _, path := range []string{"/auth/callback?state=x", "/auth/callback"} { // the redirect URI names public_url's host only
		b.navigate("https://wiki.app.test"+path).wantsPage(t, 404, "Page not found")
	}
	other := w.newBrowser(t)
	r := other.navigate("https://app.test/auth/login?return_to=" + url.QueryEscape("https://wiki.app.test/back?y=2"))
	other.onwardFrom(r).wants(t, 200, "GET /back?y=2")
	if got := w.upstream.last(t).Host; got != "wiki.app.test" {
		t.Errorf("after return_to the upstream was asked for host %q", got)
	}
}
