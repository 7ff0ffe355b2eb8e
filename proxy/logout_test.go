package proxy_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"authproxy/devprovider"
	"authproxy/oidc"
	"authproxy/proxy"
)

// gone fails the test when a session cookie still opens anything.
func gone(t *testing.T, w *world, value string) {
	t.Helper()
	b := w.newBrowser(t)
	b.onward.Set("Cookie", w.cookie+"="+value)
	b.fetch("GET", "/api/x", "").wantsJSON(t, 401, "login_required")
}

func TestALogoutEndsOurSessionAndThenTheProviders(t *testing.T) {
	for _, c := range []struct {
		name   string
		rp     func(*oidc.Config)
		faults func(*devprovider.Faults)
		to     string // the provider's endpoint, "" is none
		query  map[string]string
	}{
		{"auth0", func(c *oidc.Config) { c.Logout = "auth0" }, nil, "v2/logout", map[string]string{"client_id": clientID, "returnTo": "http://app.test/auth/"}},
		{"auth0 and the provider behind it", func(c *oidc.Config) { c.Logout, c.Federated = "auth0", true }, nil, "v2/logout",
			map[string]string{"client_id": clientID, "returnTo": "http://app.test/auth/", "federated": ""}},
		{"oidc", func(c *oidc.Config) { c.Logout = "oidc" }, nil, "oidc/logout",
			map[string]string{"client_id": clientID, "post_logout_redirect_uri": "http://app.test/auth/", "logout_hint": "SID"}},
		{"auto with an endpoint", nil, nil, "oidc/logout", map[string]string{"client_id": clientID, "post_logout_redirect_uri": "http://app.test/auth/", "logout_hint": "SID"}},
		{"auto on an old tenant", nil, func(f *devprovider.Faults) { f.NoEndSession = true }, "v2/logout", map[string]string{"client_id": clientID, "returnTo": "http://app.test/auth/"}},
		{"auto at a provider without any", func(c *oidc.Config) { c.Auth0, c.ClientAuth = false, "post" }, func(f *devprovider.Faults) { f.NoEndSession = true }, "", nil},
		{"local", func(c *oidc.Config) { c.Logout = "local" }, nil, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, setup{rp: c.rp})
			if c.faults != nil {
				w.faults(c.faults)
			}
			b := w.signedIn(t, "ada")
			value, sid := b.session(), w.provider.LastSID()
			b.login("/auth/login") // one is under way in another tab
			r := b.post("/auth/logout", nil)
			if r.StatusCode != http.StatusSeeOther || r.Header.Get("Cache-Control") != "no-store" {
				t.Fatalf("the logout answers %s with Cache-Control %q", r.Status, r.Header.Get("Cache-Control"))
			}
			to := r.to(t)
			want, asked := "http://app.test/auth/", url.Values{}
			if c.to != "" {
				want = w.provider.Issuer() + c.to
			}
			for k, v := range c.query {
				asked.Set(k, strings.Replace(v, "SID", sid, 1))
			}
			if got := to.Scheme + "://" + to.Host + to.Path; got != want || to.Query().Encode() != asked.Encode() {
				t.Errorf("the logout leads to %s with %q, want %s with %q", got, to.Query().Encode(), want, asked.Encode())
			}
			if b.session() != "" || b.logins() != nil {
				t.Errorf("the browser has the session %q and the login cookies %q", b.session(), b.logins())
			}
			gone(t, w, value)
			w.faults(func(f *devprovider.Faults) { f.SignInAs = "" })
			b.onwardFrom(r).wantsPage(t, 200, "Sign in").wants(t, 200, "You are signed out.")
			if again := b.navigate("/auth/"); strings.Contains(again.body, "You are signed out.") {
				t.Error("the page still says so when it is opened the next time")
			}
			next := b.navigate(b.navigate("/x").to(t).String())
			if signedInThere := next.StatusCode == 302 && strings.HasPrefix(next.Header.Get("Location"), w.origin); signedInThere != (c.to == "") {
				t.Errorf("after the logout the provider knows the user: %t", signedInThere)
			}
		})
	}
}

// What says that a logout worked is no business of the app's, and nobody is told so who has signed in again.
func TestThatALogoutWorkedIsSaidOnceAndToNobodyElse(t *testing.T) {
	w := newWorld(t, setup{sameSite: http.SameSiteStrictMode})
	b := w.signedIn(t, "ada")
	r := b.post("/auth/logout", nil)
	out := strings.Join(lines(r), "\n")
	if !strings.Contains(out, "authproxy-out=1; Path=/; Max-Age=60; HttpOnly; SameSite=Lax") {
		t.Errorf("the logout sets %s", out)
	}
	b.navigate("/public").wants(t, 200)
	if got := w.upstream.last(t).Header.Get("Cookie"); strings.Contains(got, "authproxy") {
		t.Errorf("the app gets the cookies %q", got)
	}
	b.follow("/x").wants(t, 200)
	if page := b.navigate("/auth/"); strings.Contains(page.body, "signed out") {
		t.Errorf("somebody is signed in: %s", page.brief())
	}
	b.navigate("/auth/logout?return_to=/public", "Sec-Fetch-Site", "none").wants(t, 303)
	if page := b.navigate("/auth/"); strings.Contains(page.body, "signed out") {
		t.Errorf("a logout that led elsewhere is told of later: %s", page.brief())
	}
}

func TestWhoMaySignOutAndHow(t *testing.T) {
	w := newWorld(t, setup{})
	for _, c := range []struct {
		name, method string
		headers      []string
		want         string // out, ask or refuse
	}{
		{"a button of ours", "POST", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate", "Origin", "null"}, "out"},
		{"a script of ours", "POST", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors", "Origin", "http://app.test"}, "out"},
		{"a button, in a browser that says Origin only", "POST", []string{"Origin", "http://app.test"}, "out"},
		{"a program", "POST", nil, "out"},
		{"a form of another site", "POST", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Origin", "https://evil.test"}, "refuse"},
		{"a form of another site, in a browser that says Origin only", "POST", []string{"Origin", "https://evil.test"}, "refuse"},
		{"a form of a sibling", "POST", []string{"Sec-Fetch-Site", "same-site", "Origin", "http://evil.app.test"}, "refuse"},
		{"a form of a sandboxed frame", "POST", []string{"Sec-Fetch-Site", "cross-site", "Origin", "null"}, "refuse"},
		{"a form of nowhere", "POST", []string{"Origin", "null"}, "refuse"},
		{"a form with two origins", "POST", []string{"Origin", "http://app.test, http://evil.test"}, "refuse"},
		{"a link of ours", "GET", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate"}, "out"},
		{"an address that was typed", "GET", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}, "out"},
		{"a link of another site", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, "ask"},
		{"a link of a sibling", "GET", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate"}, "ask"},
		{"an image of another site", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, "ask"},
		{"an image that somebody put into a page of ours", "GET", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, "ask"},
		{"a frame of another site", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, "ask"},
		{"a prefetch of ours", "GET", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate", "Sec-Purpose", "prefetch"}, "ask"},
		{"a browser that says nothing", "GET", []string{"Accept", acceptPages}, "ask"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := w.signedIn(t, "ada")
			value := b.session()
			r, _ := http.NewRequest(c.method, w.origin+"/auth/logout", nil)
			r.Header.Set("Cookie", w.cookie+"="+value) // even where a browser would not lend it
			for i := 0; i < len(c.headers); i += 2 {
				r.Header.Set(c.headers[i], c.headers[i+1])
			}
			a := b.do(r)
			if c.want == "out" {
				a.wants(t, 303)
				gone(t, w, value)
				return
			}
			if c.want == "ask" {
				a.wantsPage(t, 200, "Sign out of app.test?")
			} else if a.StatusCode != 403 {
				t.Errorf("it answers %s", a.Status)
			}
			if len(lines(a)) > 0 {
				t.Errorf("it sets the cookies %q", lines(a))
			}
			b.navigate("/x").wants(t, 200)
		})
	}
}

var (
	formAction = regexp.MustCompile(`<form[^>]* action="([^"]*)"`)
	formReturn = regexp.MustCompile(`name="return_to" value="([^"]*)"`)
)

// Our pages send no Referer, so a browser without Fetch Metadata says "Origin: null" even in our own forms: what is sealed
// into the form tells it from another site's.
func TestTheButtonOfOurPageWorksInOldBrowsersToo(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.signedIn(t, "ada")
	value := b.session()
	page := b.navigate("/auth/logout?return_to=%2Fbye", "Sec-Fetch-Site", "cross-site").wantsPage(t, 200, "Sign out of app.test?")
	action := html.UnescapeString(formAction.FindStringSubmatch(page.body)[1])
	form := url.Values{"return_to": {html.UnescapeString(formReturn.FindStringSubmatch(page.body)[1])}}
	old := []string{"Sec-Fetch-Site", "", "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", "", "Sec-Fetch-User", ""}

	bob := w.signedIn(t, "bob")
	bob.post(action, form, old...).wants(t, 403) // ada's form is not bob's
	bob.navigate("/x").wants(t, 200)
	b.post(action+"x", form, old...).wants(t, 403)
	b.post(action, form, "Sec-Fetch-Site", "cross-site").wants(t, 403) // a browser that can tell is believed
	b.post("/auth/logout", form, old...).wants(t, 403)

	r := b.post(action, form, old...).wants(t, 303)
	if got := r.to(t).Query().Get("post_logout_redirect_uri"); got != "http://app.test/bye" {
		t.Errorf("after the logout the browser comes back to %q", got)
	}
	gone(t, w, value)
}

func TestALogoutLeadsBackToOurSiteOnly(t *testing.T) {
	w := newWorld(t, setup{rp: func(c *oidc.Config) { c.Logout = "local" }})
	for ref, want := range map[string]string{
		"": "/auth/", "/bye?x=1": "/bye?x=1", "https://evil.test/": "/", "//evil.test": "/", `/\evil.test`: "/", "/auth/login": "/", "http://app.test/bye": "/bye",
	} {
		b := w.signedIn(t, "ada")
		if got := b.post("/auth/logout", url.Values{"return_to": {ref}}).wants(t, 303).Header.Get("Location"); got != w.origin+want {
			t.Errorf("return_to %q in the form leads to %q, want %q", ref, got, w.origin+want)
		}
		if got := b.navigate("/auth/logout?return_to="+url.QueryEscape(ref)).wants(t, 303).Header.Get("Location"); got != w.origin+want {
			t.Errorf("return_to %q in the query leads to %q, want %q", ref, got, w.origin+want)
		}
	}
}

func TestALogoutWithoutASessionIsNoError(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	b.navigate("/auth/logout").wants(t, 303)
	b.post("/auth/logout", nil).wants(t, 303)
	b.onward.Set("Cookie", w.cookie+"=a; "+w.cookie+"=b") // two of them are deleted as well
	if got := lines(b.post("/auth/logout", nil).wants(t, 303)); len(got) != 1 || !strings.Contains(got[0], "Max-Age=0") {
		t.Errorf("the cookies set are %q", got)
	}
}

func TestALogoutFormThatCannotBeReadEndsNothing(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.signedIn(t, "ada")
	for name, c := range map[string]struct{ ref, kind, body string }{
		"JSON":                   {"/auth/logout", "application/json", `{"return_to":"/"}`},
		"no kind at all":         {"/auth/logout", "", "return_to=/"},
		"too long":               {"/auth/logout", "application/x-www-form-urlencoded", "a=" + strings.Repeat("x", 9<<10)},
		"broken":                 {"/auth/logout", "application/x-www-form-urlencoded", "a=%zz"},
		"return_to twice in URL": {"/auth/logout?return_to=/a&return_to=/b", "application/x-www-form-urlencoded", ""},
	} {
		r := b.send("POST", c.ref, c.body, "Content-Type", c.kind, "Sec-Fetch-Site", "same-origin")
		if r.StatusCode != 400 || b.session() == "" {
			t.Errorf("%s: %s, session kept: %t", name, r.Status, b.session() != "")
		}
	}
	b.navigate("/x").wants(t, 200)
}

func TestALogoutDoesNotNeedTheProvider(t *testing.T) {
	for name, s := range map[string]setup{"cookie": {}, "file": {file: true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, s)
			b := w.signedIn(t, "ada")
			value := b.session()
			w.faults(func(f *devprovider.Faults) { f.Down = true })
			before := w.provider.Count("")
			begun := time.Now()
			b.navigate("/auth/logout").wants(t, 303)
			if took := time.Since(begun); took > time.Second {
				t.Errorf("the user waited %s", took)
			}
			if w.provider.Count("") != before {
				t.Error("the provider was asked before the answer")
			}
			gone(t, w, value)
			w.restart() // it does not know where the provider's logout is
			if got := b.navigate("/auth/logout").wants(t, 303).Header.Get("Location"); !strings.HasPrefix(got, w.provider.Issuer()+"v2/logout?") {
				t.Errorf("the logout leads to %q", got)
			}
		})
	}
}

func TestARefreshTokenIsRevokedAtLogout(t *testing.T) {
	w := newWorld(t, offline(setup{}))
	b := w.signedIn(t, "ada")
	b.navigate("/auth/logout").wants(t, 303)
	w.proxyWait()
	if got := w.provider.Calls("revoke"); len(got) != 1 || got[0].Form.Get("token") == "" {
		t.Errorf("the provider was asked to revoke %d tokens", len(got))
	}
}

// A dead store neither signs anybody out nor makes them anonymous, and a logout is not called one.
func TestADeadStore(t *testing.T) {
	w := newWorld(t, setup{file: true})
	b := w.signedIn(t, "ada")
	stranger := w.newBrowser(t)
	callback := stranger.login("/x")
	known := w.signedIn(t, "bob") // and known to the new process
	w.restart()
	known.navigate("/x").wants(t, 200)
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	for path, again := range map[string]string{"/x": "/x", "/api/x?a=1": "/api/x?a=1", "/auth/sessions": "/auth/sessions", "/auth/": "/auth/", "/auth/callback?state=x": "/auth/login"} {
		r := b.navigate(path).wantsPage(t, 503, "Temporarily unavailable")
		if !strings.Contains(r.body, `href="`+again+`">Try again</a>`) {
			t.Errorf("%s is a dead end: %s", path, r.brief())
		}
		if r.Header.Get("Retry-After") != "5" || len(lines(r)) > 0 {
			t.Errorf("%s: Retry-After %q, cookies %q", path, r.Header.Get("Retry-After"), lines(r))
		}
	}
	b.fetch("GET", "/x", "").wantsJSON(t, 503, "session_store_unavailable")
	b.fetch("GET", "/auth/me", "").wantsJSON(t, 503, "session_store_unavailable")
	stranger.navigate("/public").wants(t, 200)
	stranger.fetch("GET", "/x", "").wants(t, 401)
	if r := stranger.back(callback).wantsPage(t, 503, "Temporarily unavailable"); !strings.Contains(r.body, `href="/auth/login?return_to=%2Fx">Try again</a>`) {
		t.Errorf("the callback is a dead end: %s", r.brief())
	}
	if stranger.session() != "" {
		t.Error("the stranger has a session cookie")
	}
	w.signedOutLocally(t, b)
	w.signedOutLocally(t, known)
	w.provider.SendLogout(clientID, w.provider.LogoutToken(clientID, "ada", "", nil))
	if d := w.provider.Deliveries(); len(d) == 0 || d[len(d)-1].Status != 503 {
		t.Errorf("the logout token was answered %v", d)
	}
}

// signedOutLocally fails the test unless a logout of b takes the cookie away and says that this is not all.
func (w *world) signedOutLocally(t *testing.T, b *browser) {
	t.Helper()
	r := b.navigate("/auth/logout").wantsPage(t, 503, "Sign-out is not complete")
	if b.session() != "" || r.Header.Get("Retry-After") == "" {
		t.Errorf("session cookie %q, Retry-After %q", b.session(), r.Header.Get("Retry-After"))
	}
}

func TestTheHomePageSaysWhoIsSignedInAndSignsOut(t *testing.T) {
	w := newWorld(t, setup{rp: func(c *oidc.Config) { c.KeepClaims = []string{"department"} }, options: func(o *proxy.Options) { o.Connections = []string{"github"} }})
	b := w.newBrowser(t)
	r := b.navigate("/auth/").wantsPage(t, 200, "Sign in")
	r.wants(t, 200, `href="/auth/login"`, `href="/auth/signup"`, `href="/auth/login?connection=github"`)
	b = w.signedIn(t, "ada")
	r = b.navigate("/auth/").wantsPage(t, 200, "Hello, Ada Lovelace")
	r.wants(t, 200, "ada@example.com", "admins", adaSubject, "department", "research", w.provider.Issuer())
	action := html.UnescapeString(formAction.FindStringSubmatch(r.body)[1])
	if strings.Contains(r.body, b.session()) {
		t.Error("the page has the session cookie in it")
	}
	b.onwardFrom(b.post(action, nil).wants(t, 303)).wantsPage(t, 200, "Sign in")
}

func TestMeSaysWhoIsSignedIn(t *testing.T) {
	w := newWorld(t, setup{rp: func(c *oidc.Config) { c.KeepClaims = []string{"department"} }})
	b := w.newBrowser(t)
	b.fetch("GET", "/auth/me", "").wantsJSON(t, 401, "login_required")
	b = w.signedIn(t, "ada")
	r := b.fetch("GET", "/auth/me", "").wants(t, 200)
	want := `{"claims":{"department":"research"},"email":"ada@example.com","email_verified":true,"expires_at":"` + w.clock.Now().Add(7*24*time.Hour).UTC().Format(time.RFC3339) +
		`","groups":["admins","staff"],"issuer":"` + w.provider.Issuer() + `","name":"Ada Lovelace","subject":"` + adaSubject + `","username":"ada"}` + "\n"
	if r.body != want || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("it answers %s with Content-Type %q and Cache-Control %q, want\n%s", r.body, r.Header.Get("Content-Type"), r.Header.Get("Cache-Control"), want)
	}
	if head := b.fetch("HEAD", "/auth/me", "").wants(t, 200); head.body != "" {
		t.Errorf("HEAD has the body %q", head.body)
	}
}
