package devprovider_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"authproxy/devprovider"
)

func TestLoginWithPasswordGivesCodeAndState(t *testing.T) {
	p := start(t, options())
	for _, name := range []string{"ada", "ADA@example.com"} {
		got := newBrowser(t, p).login(name)
		if len(got.Get("code")) < 40 || got.Get("state") != "st ate" || len(got) != 2 {
			t.Errorf("as %s the client gets %v, want a code and its state and nothing else", name, got)
		}
	}
}

func TestStateIsNotSentWhenNoneCame(t *testing.T) {
	p := start(t, options())
	if got := newBrowser(t, p).login("ada", "state="); got.Has("state") {
		t.Errorf("the client gets %v, want no state", got)
	}
}

func TestRedirectURIKeepsItsQuery(t *testing.T) {
	p := start(t, options())
	got := newBrowser(t, p).login("ada", "redirect_uri="+callback+"?keep=1")
	if got.Get("keep") != "1" || got.Get("code") == "" {
		t.Errorf("the client gets %v, want its own parameter kept", got)
	}
}

func TestResponseModeFragment(t *testing.T) {
	p := start(t, options())
	p.Set(func(f *devprovider.Faults) { f.SignInAs = "ada" })
	got := newBrowser(t, p).authorize("response_mode=fragment")
	if !strings.HasPrefix(got.location, callback+"#code=") {
		t.Errorf("location %q, want the answer in the fragment", got.location)
	}
}

func TestLoginPageRefuses(t *testing.T) {
	p := start(t, options())
	for _, row := range []struct {
		name   string
		fields []string
		status int
		says   string
	}{
		{"a wrong password", []string{"username=ada", "password=x"}, 400, "Wrong user name or password."},
		{"an empty password", []string{"username=ada", "password="}, 400, "Wrong user name or password."},
		{"an unknown user", []string{"username=nobody", "password=open sesame"}, 400, "Wrong user name or password."},
		{"a user of another connection, who has no password", []string{"username=grace", "password="}, 400, "Wrong user name or password."},
		{"a wrong CSRF value", []string{"username=ada", "password=open sesame", "csrf=x"}, 403, "did not come from our page"},
		{"an empty CSRF value", []string{"username=ada", "password=open sesame", "csrf="}, 403, "did not come from our page"},
		{"a login that nobody started", []string{"username=ada", "password=open sesame", "state=x"}, 400, "couldn&#39;t find your session"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBrowser(t, p)
			got := b.submit(b.authorize(), "/u/login", row.fields...)
			if got.status != row.status || !strings.Contains(got.body, row.says) {
				t.Errorf("status %d, want %d and %q; the page says:\n%s", got.status, row.status, row.says, got.body)
			}
		})
	}
}

func TestLoginGoesOnAfterWrongPassword(t *testing.T) {
	p := start(t, options())
	b := newBrowser(t, p)
	again := b.submit(b.authorize(), "/u/login", `username="ada`, "password=x")
	if !strings.Contains(again.body, `value="&#34;ada"`) || !strings.Contains(again.body, `aria-describedby="error"`) || strings.Contains(again.body, `value="x"`) {
		t.Errorf("want the name kept, the password not, and the error tied to the fields:\n%s", again.body)
	}
	if focus := regexp.MustCompile(`<input id="(\w+)"[^>]* autofocus`).FindStringSubmatch(again.body); focus == nil || focus[1] != "password" {
		t.Errorf("the focus is %q, want it on the password", focus)
	}
	if got := answer(t, b.submit(again, "/u/login", "username=ada", "password=open sesame")); got.Get("code") == "" {
		t.Errorf("the client gets %v, want a code", got)
	}
}

func TestLoginPageOfAnotherBrowserIsRefused(t *testing.T) {
	p := start(t, options())
	mine, other := newBrowser(t, p), newBrowser(t, p)
	page := mine.authorize()
	other.authorize()
	if got := other.submit(page, "/u/login", "username=ada", "password=open sesame"); got.status != 400 {
		t.Errorf("status %d, want 400: the login belongs to another browser", got.status)
	}
	if got := other.get("/authorize/resume?state=" + page.url.Query().Get("state")); got.status != 400 {
		t.Errorf("resuming it: status %d, want 400", got.status)
	}
}

func TestResumeBeforePasswordShowsLoginPage(t *testing.T) {
	p := start(t, options())
	b := newBrowser(t, p)
	got := b.get("/authorize/resume?state=" + b.authorize().url.Query().Get("state"))
	if got.status != 200 || got.url.Path != "/u/login" {
		t.Errorf("status %d at %s, want the login page", got.status, got.url)
	}
}

func TestRepeatedLoginPageGoesToInitiateLoginURI(t *testing.T) {
	o := options()
	o.Clients[0].InitiateLoginURI = "http://127.0.0.1:9/login?from=provider"
	p := start(t, o)
	b := newBrowser(t, p)
	page := b.authorize("organization=org_demo")
	if got := answer(t, b.submit(page, "/u/login", "username=ada", "password=open sesame")); !got.Has("code") {
		t.Fatalf("the client gets %v", got)
	}
	got := b.submit(page, "/u/login", "username=ada", "password=open sesame")
	want := "http://127.0.0.1:9/login?from=provider&iss=" + strings.NewReplacer(":", "%3A", "/", "%2F").Replace(p.Issuer()) + "&organization=org_demo"
	if got.location != want {
		t.Errorf("location %q, want %q", got.location, want)
	}
}

func TestExpiredLoginPage(t *testing.T) {
	o, c := options(), newClock()
	o.Now = c.Now
	p := start(t, o)
	b := newBrowser(t, p)
	page := b.authorize()
	c.Advance(time.Hour)
	if got := b.submit(page, "/u/login", "username=ada", "password=open sesame"); got.status != 400 || !strings.Contains(got.body, "back button") {
		t.Errorf("status %d, want the page about the back button", got.status)
	}
}

func TestBrowserHasTenLoginsAtMost(t *testing.T) {
	p := start(t, options())
	b := newBrowser(t, p)
	first := b.authorize()
	second := b.authorize()
	for range 9 {
		b.authorize()
	}
	if got := b.submit(first, "/u/login", "username=ada", "password=open sesame"); got.status != 400 {
		t.Errorf("the oldest of 11 logins: status %d, want 400", got.status)
	}
	if got := answer(t, b.submit(second, "/u/login", "username=ada", "password=open sesame")); got.Get("code") == "" {
		t.Errorf("the second oldest: the client gets %v, want a code", got)
	}
}

func TestDenyKeepsTheSession(t *testing.T) {
	p := start(t, options())
	b := newBrowser(t, p)
	b.login("ada")
	got := answer(t, b.submit(b.authorize("prompt=login"), "/u/login", "action=deny"))
	if got.Get("error") != "access_denied" || got.Get("error_description") != "User did not authorize the request" || got.Get("state") != "st ate" {
		t.Errorf("the client gets %v, want access_denied", got)
	}
	if got := answer(t, b.authorize("prompt=none")); got.Get("code") == "" {
		t.Errorf("afterwards the client gets %v, want a code: the session stays", got)
	}
}

func TestSecondLoginShowsNoPageAndHasTheSameSID(t *testing.T) {
	o := options()
	o.Clients = append(o.Clients, devprovider.Client{ID: "other", Secret: "x"})
	p := start(t, o)
	b := newBrowser(t, p)
	b.login("ada")
	first := p.LastSID()
	if got := answer(t, b.authorize("client_id=other", "screen_hint=signup")); got.Get("code") == "" {
		t.Errorf("the client gets %v, want a code: with a session, the screen hint alone does nothing", got)
	}
	if p.LastSID() != first || len(first) != 32 {
		t.Errorf("sid %q after %q, want the same of 32 characters", p.LastSID(), first)
	}
	b.login("ada", "prompt=login")
	if p.LastSID() != first {
		t.Errorf("sid %q after the same user logged in again, want still %q", p.LastSID(), first)
	}
	b.login("bob", "prompt=login")
	if p.LastSID() == first {
		t.Error("another user got the same sid")
	}
}

func TestSessionEnds(t *testing.T) {
	for _, row := range []struct {
		name  string
		steps int
		step  time.Duration
		alive bool
	}{
		{"it lives as long as it is used within three days", 9, 3*24*time.Hour - time.Second, true},
		{"it ends after three idle days", 1, 3 * 24 * time.Hour, false},
		{"it ends after 30 days although it is used", 30, 24 * time.Hour, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			o, c := options(), newClock()
			o.Now = c.Now
			p := start(t, o)
			b := newBrowser(t, p)
			b.http.Jar = everlasting{}
			b.login("ada")
			var got url.Values
			for range row.steps {
				c.Advance(row.step)
				got = answer(t, b.authorize("prompt=none"))
			}
			if got.Has("code") != row.alive {
				t.Errorf("the client gets %v, want a code: %t", got, row.alive)
			}
		})
	}
}

// everlasting is a cookie jar for one host that expires nothing but what is deleted, so that the provider's own clock counts.
type everlasting map[string]string

func (e everlasting) SetCookies(_ *url.URL, cookies []*http.Cookie) {
	for _, c := range cookies {
		if e[c.Name] = c.Value; c.MaxAge < 0 {
			delete(e, c.Name)
		}
	}
}

func (e everlasting) Cookies(*url.URL) (out []*http.Cookie) {
	for name, value := range e {
		out = append(out, &http.Cookie{Name: name, Value: value})
	}
	return out
}

func TestSessionCookieChangesAtLogin(t *testing.T) {
	p := start(t, options())
	b := newBrowser(t, p)
	b.login("ada")
	issuer, _ := url.Parse(p.Issuer())
	value := func() string {
		for _, c := range b.http.Jar.Cookies(issuer) {
			if c.Name == "auth0" {
				return c.Value
			}
		}
		return ""
	}
	before := value()
	b.login("ada", "prompt=login")
	if after := value(); before == "" || before == after {
		t.Errorf("the session cookie is %q before and %q after a login, want it renewed", before, after)
	}
	old := newBrowser(t, p)
	old.http.Jar.SetCookies(issuer, []*http.Cookie{{Name: "auth0", Value: before}})
	if got := answer(t, old.authorize("prompt=none")); got.Get("error") != "login_required" {
		t.Errorf("with the cookie of before the client gets %v, want login_required", got)
	}
}

func TestPromptAndScreenHint(t *testing.T) {
	p := start(t, options())
	for _, row := range []struct {
		name    string
		session bool
		params  []string
		shows   string // path of the page; "" is a redirect to the client
	}{
		{"nothing", false, nil, "/u/login"},
		{"nothing with a session", true, nil, ""},
		{"signup", false, []string{"screen_hint=signup"}, "/u/signup"},
		{"signup with a session", true, []string{"screen_hint=signup"}, ""},
		{"login and signup", false, []string{"prompt=login", "screen_hint=signup"}, "/u/signup"},
		{"login and signup with a session", true, []string{"prompt=login", "screen_hint=signup"}, "/u/signup"},
		{"login with a session", true, []string{"prompt=login"}, "/u/login"},
		{"select_account with a session", true, []string{"prompt=select_account"}, "/u/login"},
		{"consent with a session", true, []string{"prompt=consent"}, ""},
		{"none with a session", true, []string{"prompt=none"}, ""},
		{"none", false, []string{"prompt=none"}, ""},
		{"a connection", false, []string{"connection=google-oauth2"}, "/u/social"},
		{"the connection of the session", true, []string{"connection=Username-Password-Authentication"}, ""},
		{"another connection than the session's", true, []string{"connection=github"}, "/u/social"},
		{"max_age 0 with a session", true, []string{"max_age=0"}, "/u/login"},
		{"max_age 1000 with a session", true, []string{"max_age=1000"}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBrowser(t, p)
			if row.session {
				b.login("ada")
			}
			got := b.authorize(row.params...)
			shown := got.url.Path
			if got.location != "" {
				shown = ""
			}
			if shown != row.shows {
				t.Errorf("the browser is at %q, want %q", shown, row.shows)
			}
		})
	}
}

func TestAuthTime(t *testing.T) {
	o, c := options(), newClock()
	o.Now = c.Now
	p := start(t, o)
	b := newBrowser(t, p)
	b.login("ada")
	loggedIn := c.Now()
	if got := b.authorize("max_age=0"); got.url.Path != "/u/login" {
		t.Errorf("max_age=0 in the same instant: the browser is at %s, want the login page", got.url)
	}
	c.Advance(time.Minute)
	claims := func(code string) map[string]any {
		t.Helper()
		_, body := redeem(t, p, code)
		_, claims := open(t, body["id_token"])
		return claims
	}
	if got := claims(answer(t, b.authorize()).Get("code")); got["auth_time"] != nil {
		t.Errorf("auth_time = %v although nobody asked", got["auth_time"])
	}
	if got := claims(answer(t, b.authorize("max_age=60")).Get("code")); got["auth_time"] != float64(loggedIn.Unix()) {
		t.Errorf("auth_time = %v, want %d, when the user logged in", got["auth_time"], loggedIn.Unix())
	}
	if got := b.authorize("max_age=59"); got.url.Path != "/u/login" {
		t.Errorf("max_age=59 after 60 s: the browser is at %s, want the login page", got.url)
	}
	if got := claims(b.login("ada", "prompt=login").Get("code")); got["auth_time"] != float64(c.Now().Unix()) {
		t.Errorf("auth_time = %v after prompt=login, want now", got["auth_time"])
	}
}

func TestAuthorizeSaysItselfWhatIsWrongWithClientOrCallback(t *testing.T) {
	p := start(t, options())
	for name, query := range map[string]url.Values{
		"unknown client":               authRequest("client_id=x"),
		"no client":                    authRequest("client_id="),
		"two clients":                  {"client_id": {"client", "client"}, "redirect_uri": {callback}},
		"unknown callback":             authRequest("redirect_uri=http://evil.example/"),
		"no callback":                  authRequest("redirect_uri="),
		"callback with a slash more":   authRequest("redirect_uri=" + callback + "/"),
		"callback with a query more":   authRequest("redirect_uri=" + callback + "?x=1"),
		"callback in upper case":       authRequest("redirect_uri=" + strings.ToUpper(callback)),
		"callback with fragment":       authRequest("redirect_uri=" + callback + "#x"),
		"another one as second":        {"client_id": {"client"}, "redirect_uri": {callback, "http://evil.example/"}},
		"callback that is a mere path": authRequest("redirect_uri=/callback"),
	} {
		t.Run(name, func(t *testing.T) {
			got := newBrowser(t, p).get("/authorize?" + query.Encode())
			if got.status != 403 || got.location != "" {
				t.Errorf("status %d with location %q, want 403 without a redirect", got.status, got.location)
			}
		})
	}
}

func TestClientWithoutCallbacksAcceptsWebURLsOnly(t *testing.T) {
	o := options()
	o.Clients[0].Callbacks = nil
	p := start(t, o)
	p.Set(func(f *devprovider.Faults) { f.SignInAs = "ada" })
	if got := newBrowser(t, p).authorize("redirect_uri=https://app.example.com/cb"); !strings.HasPrefix(got.location, "https://app.example.com/cb?code=") {
		t.Errorf("location %q, want the callback", got.location)
	}
	for _, to := range []string{"javascript:alert(1)", "data:text/html,x", "//evil.example/", "http:///x", "https://a:b@c/"} {
		if got := newBrowser(t, p).authorize("redirect_uri=" + to); got.status != 403 {
			t.Errorf("%s: status %d, want 403", to, got.status)
		}
	}
}

func TestAuthorizeRedirectsWithErrors(t *testing.T) {
	o := options()
	o.Clients = append(o.Clients, devprovider.Client{ID: "required", Secret: "x", OrganizationUsage: "require"}, devprovider.Client{ID: "denied", Secret: "x", OrganizationUsage: "deny"})
	p := start(t, o)
	for _, row := range []struct {
		name, description string
		err               string
		params            []string
	}{
		{"response type", "", "unsupported_response_type", []string{"response_type=token"}},
		{"no response type", "", "unsupported_response_type", []string{"response_type="}},
		{"response mode", "response_mode is not supported", "invalid_request", []string{"response_mode=form_post"}},
		{"challenge method", "code_challenge_method must be S256 or plain", "invalid_request", []string{"code_challenge_method=S512"}},
		{"no challenge", "code_challenge is missing", "invalid_request", []string{"code_challenge="}},
		{"prompt", "prompt is not valid", "invalid_request", []string{"prompt=now"}},
		{"prompt none with another", "prompt is not valid", "invalid_request", []string{"prompt=none login"}},
		{"no session", "Login required", "login_required", []string{"prompt=none"}},
		{"max_age no number", "max_age must be a number of seconds", "invalid_request", []string{"max_age=-1"}},
		{"max_age too large", "max_age must be a number of seconds", "invalid_request", []string{"max_age=99999999999999999999"}},
		{"audience", "Service not found: https://x", "access_denied", []string{"audience=https://x"}},
		{"connection", "the connection was not found", "invalid_request", []string{"connection=x"}},
		{"organization unknown", "parameter organization is invalid", "invalid_request", []string{"organization=org_x"}},
		{"organization required", "parameter organization is required for this client", "invalid_request", []string{"client_id=required"}},
		{"organization not allowed", "parameter organization is not allowed for this client", "invalid_request", []string{"client_id=denied", "organization=org_demo"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := answer(t, newBrowser(t, p).authorize(row.params...))
			if got.Get("error") != row.err || row.description != "" && got.Get("error_description") != row.description || got.Get("state") != "st ate" || got.Has("code") {
				t.Errorf("the client gets %v, want %s, %s", got, row.err, row.description)
			}
		})
	}
	t.Run("duplicate parameter", func(t *testing.T) {
		q := authRequest()
		q.Add("nonce", "another")
		if got := answer(t, newBrowser(t, p).get("/authorize?"+q.Encode())); got.Get("error") != "invalid_request" {
			t.Errorf("the client gets %v, want invalid_request", got)
		}
	})
	t.Run("spaces are %20", func(t *testing.T) {
		if got := newBrowser(t, p).authorize("prompt=none"); !strings.Contains(got.location, "error_description=Login%20required") {
			t.Errorf("location %q", got.location)
		}
	})
}

func TestAuthorizeTakesFormsAndAnswersThemWithSeeOther(t *testing.T) {
	p := start(t, options())
	p.Set(func(f *devprovider.Faults) { f.SignInAs = "ada" })
	b := newBrowser(t, p)
	got := b.do(b.http.PostForm(p.Issuer()+"authorize", authRequest()))
	if got.status != 303 || answer(t, got).Get("code") == "" {
		t.Errorf("status %d to %q, want 303 with a code", got.status, got.location)
	}
}

func TestBlockedUserGetsNoCode(t *testing.T) {
	p := start(t, options())
	if got := newBrowser(t, p).login("mallory"); got.Get("error") != "unauthorized" || got.Get("error_description") != "user is blocked" {
		t.Errorf("the client gets %v, want unauthorized", got)
	}
	b := newBrowser(t, p)
	b.login("ada")
	ada := devprovider.DemoUsers()[0]
	ada.Blocked = true
	if err := p.SetUser(ada); err != nil {
		t.Fatal(err)
	}
	if got := answer(t, b.authorize()); got.Get("error") != "unauthorized" {
		t.Errorf("with a session the client gets %v, want unauthorized", got)
	}
}

func TestOrganization(t *testing.T) {
	o := options()
	o.OrganizationNames = true
	p := start(t, o)
	_, claims := open(t, tokens(t, p, "ada", "organization=demo")["id_token"]) // by name
	if claims["org_id"] != "org_demo" || claims["org_name"] != "demo" {
		t.Errorf("org_id %v, org_name %v; want org_demo, demo", claims["org_id"], claims["org_name"])
	}
	if got := newBrowser(t, p).login("bob", "organization=org_demo"); got.Get("error") != "access_denied" || !strings.Contains(got.Get("error_description"), "is not part of the org_demo organization") {
		t.Errorf("of somebody who is no member the client gets %v, want access_denied", got)
	}
}

func TestSignUpMakesUserAndSignsIn(t *testing.T) {
	p := start(t, options())
	b := newBrowser(t, p)
	page := b.authorize("prompt=login", "screen_hint=signup", "login_hint=neu@example.com", "organization=org_demo", "invitation=ticket")
	if !strings.Contains(page.body, `value="neu@example.com"`) {
		t.Errorf("the page does not say the login hint:\n%s", page.body)
	}
	got := answer(t, b.submit(page, "/u/signup", "email=neu@example.com", "name=", "password=long enough"))
	_, body := redeem(t, p, got.Get("code"))
	_, claims := open(t, body["id_token"])
	if sub, _ := claims["sub"].(string); !strings.HasPrefix(sub, "auth0|") || claims["email"] != "neu@example.com" || claims["email_verified"] != false || claims["name"] != "neu@example.com" || claims["org_id"] != "org_demo" {
		t.Errorf("claims %v, want those of a fresh user who was invited", claims)
	}
	if got := answer(t, newBrowser(t, p).submitLogin("neu@example.com", "long enough")); got.Get("code") == "" {
		t.Errorf("logging in later the client gets %v, want a code", got)
	}
}

func (b *browser) submitLogin(name, password string) page {
	return b.submit(b.authorize(), "/u/login", "username="+name, "password="+password)
}

func TestSignUpRefuses(t *testing.T) {
	p := start(t, options())
	for _, row := range []struct{ name, email, user, password, says string }{
		{"no address", "x", "", "long enough", "not an e-mail address"},
		{"an address with a name", "X <x@example.com>", "", "long enough", "not an e-mail address"},
		{"a long address", strings.Repeat("x", 250) + "@example.com", "", "long enough", "not an e-mail address"},
		{"a short password", "x@example.com", "", "short", "at least 8 characters"},
		{"a long password", "x@example.com", "", strings.Repeat("x", 73), "at most 72 bytes"},
		{"a long name", "x@example.com", strings.Repeat("ä", 101), "long enough", "too long"},
		{"an address that is taken", "ADA@example.com", "", "long enough", "already a user"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBrowser(t, p)
			got := b.submit(b.authorize("screen_hint=signup"), "/u/signup", "email="+row.email, "name="+row.user, "password="+row.password)
			if got.status != 400 || !strings.Contains(got.body, row.says) || !strings.Contains(got.body, `aria-describedby="error"`) || strings.Contains(got.body, row.password) {
				t.Errorf("status %d, want 400 and %q:\n%s", got.status, row.says, got.body)
			}
		})
	}
}

func TestUsersAreLimited(t *testing.T) {
	o := options()
	p := start(t, o)
	for i := range 1000 - len(o.Users) {
		name := fmt.Sprintf("user-%d", i)
		if err := p.SetUser(devprovider.User{Username: name, Subject: name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.SetUser(devprovider.User{Username: "one", Subject: "too many"}); err == nil {
		t.Error("SetUser accepts the user number 1001")
	}
	b := newBrowser(t, p)
	if got := b.submit(b.authorize("screen_hint=signup"), "/u/signup", "email=x@example.com", "password=long enough"); got.status != 400 || !strings.Contains(got.body, "too many users") {
		t.Errorf("signing up: status %d, want 400", got.status)
	}
}

func TestStandInsForGoogleAndGitHub(t *testing.T) {
	p := start(t, options())
	for _, row := range []struct{ name, brand, connection, user, subject string }{
		{"Google", "Google", "google-oauth2", "grace", "google-oauth2|103547991597142817347"},
		{"GitHub, without an e-mail address", "GitHub", "github", "linus", "github|1024025"},
		{"any other connection that users have", "sms", "sms", "eve", "sms|eve 1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBrowser(t, p)
			page := b.authorize()
			page = b.get("/u/social?connection=" + row.connection + "&state=" + page.url.Query().Get("state"))
			if !strings.Contains(page.body, row.brand+" <span>stand-in</span>") {
				t.Errorf("the page does not say that it stands in for %s:\n%s", row.brand, page.body)
			}
			_, body := redeem(t, p, answer(t, b.submit(page, "/u/social", "connection="+row.connection, "username="+row.user)).Get("code"))
			if _, claims := open(t, body["id_token"]); claims["sub"] != row.subject || (claims["email"] != nil) != (row.user == "grace") {
				t.Errorf("claims %v, want the subject %s", claims, row.subject)
			}
		})
	}
	b := newBrowser(t, p)
	page := b.authorize("connection=github")
	for name, fields := range map[string][]string{
		"a user of another connection":          {"connection=github", "username=grace"},
		"a user of the database":                {"connection=Username-Password-Authentication", "username=ada"},
		"another connection than was asked for": {"connection=google-oauth2", "username=grace"},
	} {
		if got := b.submit(page, "/u/social", fields...); got.location != "" || got.url.Path != "/u/social" && got.url.Path != "/u/login" {
			t.Errorf("%s: status %d to %q, want no login", name, got.status, got.location)
		}
	}
	if got := b.submit(page, "/u/login", "username=ada", "password=open sesame"); got.url.Path != "/u/social" {
		t.Errorf("a password where only GitHub will do: the browser is at %s, want the stand-in", got.url)
	}
	if got := answer(t, b.submit(page, "/u/social", "action=deny")); got.Get("error") != "access_denied" {
		t.Errorf("cancelled: the client gets %v, want access_denied", got)
	}
}

func TestDatabaseUserCannotBeChosenInStandIn(t *testing.T) {
	p := start(t, options())
	b := newBrowser(t, p)
	page := b.authorize()
	got := b.submit(page, "/u/social", "connection=Username-Password-Authentication", "username=ada")
	if got.status != 400 || got.location != "" {
		t.Errorf("status %d to %q, want 400: no password was asked for", got.status, got.location)
	}
}

func TestDemoUsersAreListedOnlyOnRequest(t *testing.T) {
	o := options()
	o.Users[0].Password = "visible secret"
	o.Users[1].Password, o.Users[1].Note = "hidden secret", ""
	if got := newBrowser(t, start(t, o)).authorize(); strings.Contains(got.body, "visible secret") {
		t.Error("the login page says a password although ShowUsers is off")
	}
	o.ShowUsers = true
	b := newBrowser(t, start(t, o))
	page := b.authorize()
	if !strings.Contains(page.body, "<code>visible secret</code>") || strings.Contains(page.body, "hidden secret") {
		t.Errorf("want the login page to list the users that have a note:\n%s", page.body)
	}
	if got := b.get("/u/login?user=ada&state=" + page.url.Query().Get("state")); !strings.Contains(got.body, `type="password" value="visible secret"`) {
		t.Errorf("choosing a user does not fill in the form:\n%s", got.body)
	}
}

func TestPagesAreProtected(t *testing.T) {
	p := start(t, options())
	b := newBrowser(t, p)
	pages := map[string]page{"login": b.authorize(), "signup": b.authorize("screen_hint=signup"), "social": b.authorize("connection=github"),
		"error": b.get("/authorize"), "logged out": b.get("/v2/logout")}
	for name, page := range pages {
		for header, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action *; base-uri 'none'; frame-ancestors 'none'",
			"X-Content-Type-Options":  "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "Content-Type": "text/html; charset=utf-8",
		} {
			if got := page.header.Get(header); got != want {
				t.Errorf("%s: %s: %q, want %q", name, header, got, want)
			}
		}
		if !strings.Contains(page.body, "Development provider") || strings.Contains(page.body, "<script") || strings.Contains(page.body, "style=") || strings.Count(page.body, "autofocus") > 1 {
			t.Errorf("%s: want the banner, no script, no style attribute and one focus at most:\n%s", name, page.body)
		}
	}
	if !strings.Contains(pages["login"].body, "Demo &lt;app&gt;") {
		t.Error("the client's name is not escaped")
	}
	if got := b.get("/u/style.css"); got.status != 200 || !strings.HasPrefix(got.header.Get("Content-Type"), "text/css") {
		t.Errorf("style sheet: status %d, type %s", got.status, got.header.Get("Content-Type"))
	}
}
