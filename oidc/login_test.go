package oidc_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"authproxy/oidc"
)

func TestNewReportsEveryMistake(t *testing.T) {
	good := oidc.Config{Issuer: "https://acme.eu.auth0.com/", ClientID: "c", ClientSecret: "s", RedirectURL: "https://app.example.com/cb"}
	if _, err := oidc.New(good); err != nil {
		t.Fatalf("New(good) = %v", err)
	}
	small := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	for _, row := range []struct {
		name   string
		change func(c *oidc.Config)
		want   string
	}{
		{"no issuer", func(c *oidc.Config) { c.Issuer = "" }, "is not an absolute URL"},
		{"issuer without scheme", func(c *oidc.Config) { c.Issuer = "acme.eu.auth0.com" }, "is not an absolute URL"},
		{"issuer http", func(c *oidc.Config) { c.Issuer = "http://acme.eu.auth0.com/" }, "loopback hosts only"},
		{"issuer http on a host that looks like loopback", func(c *oidc.Config) { c.Issuer = "http://127.0.0.1.example.com/" }, "loopback hosts only"},
		{"issuer file", func(c *oidc.Config) { c.Issuer = "file:///etc/passwd" }, "is not an absolute URL"},
		{"issuer ftp", func(c *oidc.Config) { c.Issuer = "ftp://example.com/" }, "is not https"},
		{"issuer with a query", func(c *oidc.Config) { c.Issuer += "?a=b" }, "has a query"},
		{"issuer with a fragment", func(c *oidc.Config) { c.Issuer += "#" }, "has a fragment"},
		{"issuer with a password", func(c *oidc.Config) { c.Issuer = "https://u:hunter2@example.com/" }, "has a user name in it"},
		{"no client ID", func(c *oidc.Config) { c.ClientID = "" }, "client ID is missing"},
		{"no redirect URL", func(c *oidc.Config) { c.RedirectURL = "" }, "redirect URL is missing"},
		{"no secret", func(c *oidc.Config) { c.ClientSecret = "" }, "neither a client secret nor a private key"},
		{"post without secret", func(c *oidc.Config) { c.ClientSecret, c.ClientAuth = "", "post" }, "post needs a client secret"},
		{"private_key_jwt without key", func(c *oidc.Config) { c.ClientAuth = "private_key_jwt" }, "needs a private key"},
		{"private key on P-224", func(c *oidc.Config) { c.PrivateKey = small }, "none of RSA, ECDSA"},
		{"unknown client authentication", func(c *oidc.Config) { c.ClientAuth = "none" }, `client authentication "none"`},
		{"alg none", func(c *oidc.Config) { c.IDTokenAlg = "none" }, `ID token algorithm "none"`},
		{"alg HS256", func(c *oidc.Config) { c.IDTokenAlg = "HS256" }, `ID token algorithm "HS256"`},
		{"unknown logout", func(c *oidc.Config) { c.Logout = "v3" }, `logout "v3"`},
		{"negative leeway", func(c *oidc.Config) { c.Leeway = -1 }, "is negative"},
		{"redirect_uri as a parameter", func(c *oidc.Config) { c.Params = map[string]string{"redirect_uri": "https://evil.example/"} }, `"redirect_uri" cannot be configured`},
		{"response_mode as a parameter", func(c *oidc.Config) { c.Params = map[string]string{"response_mode": "fragment"} }, `"response_mode" cannot be configured`},
		{"max_age 0", func(c *oidc.Config) { c.Params = map[string]string{"max_age": "0"} }, `max_age "0"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			cfg := good
			row.change(&cfg)
			rp, err := oidc.New(cfg)
			if err == nil || rp != nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("New = %v, %v, want an error with %q", rp, err, row.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error has the password in it: %v", err)
			}
		})
	}
	_, err := oidc.New(oidc.Config{})
	if n := strings.Count(err.Error(), "\n") + 1; n != 4 {
		t.Errorf("New of an empty Config reports %d mistakes, want 4: %v", n, err)
	}
}

func TestStartAsksForWhatTheConfigurationAndTheRequestSay(t *testing.T) {
	p := newProvider(t)
	p.discovery = all(set("code_challenge_methods_supported", []any{"plain"}), set("authorization_endpoint", p.issuer+"authorize?tenant=1"))
	rp := p.party(func(c *oidc.Config) {
		c.Audience, c.Organization = "https://api.example.com/", "org_7"
		c.Params = map[string]string{"ext-color": "blue", "connection": "github"}
	})
	to, login, err := rp.Start(context.Background(), oidc.AuthRequest{State: "st", Connection: "google-oauth2", LoginHint: "x&client_id=evil", ScreenHint: "signup",
		Invitation: "t1", UILocales: "de en", Prompt: "login", MaxAge: 90*time.Second + 1, ACR: "mfa"})
	if err != nil {
		t.Fatal(err)
	}
	u := must(url.Parse(to))
	q := u.Query()
	sum := sha256.Sum256([]byte(login.CodeVerifier))
	want := url.Values{"tenant": {"1"}, "response_type": {"code"}, "client_id": {clientID}, "redirect_uri": {redirectURL}, "scope": {"openid profile email"}, "state": {"st"},
		"nonce": {login.Nonce}, "code_challenge": {b64(sum[:])}, "code_challenge_method": {"S256"}, "audience": {"https://api.example.com/"},
		"organization": {"org_7"}, "ext-color": {"blue"}, "connection": {"google-oauth2"}, "login_hint": {"x&client_id=evil"}, "screen_hint": {"signup"},
		"invitation": {"t1"}, "ui_locales": {"de en"}, "prompt": {"login"}, "max_age": {"90"}, "acr_values": {"mfa"}}
	if q.Encode() != want.Encode() {
		t.Errorf("authorization request\n%s\nwant\n%s", q.Encode(), want.Encode())
	}
	if u.Path != "/authorize" || strings.Contains(to, login.CodeVerifier) {
		t.Errorf("authorization URL %s", to)
	}
	wantLogin := oidc.Login{State: "st", Nonce: login.Nonce, CodeVerifier: login.CodeVerifier, Issuer: p.issuer, MaxAge: 90 * time.Second, ACR: "mfa",
		Organization: "org_7", FreshLogin: true, Invited: true, Started: start}
	if login != wantLogin {
		t.Errorf("Login = %+v, want %+v", login, wantLogin)
	}
}

func TestStartMakesFreshValuesForEachLogin(t *testing.T) {
	rp := newProvider(t).party()
	seen := map[string]bool{}
	for range 20 {
		_, login, err := rp.Start(context.Background(), oidc.AuthRequest{MaxAge: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if login.MaxAge != time.Second {
			t.Errorf("MaxAge = %s, want 1s", login.MaxAge)
		}
		for _, s := range []string{login.State, login.Nonce, login.CodeVerifier} {
			if !regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`).MatchString(s) || seen[s] { // RFC 7636 §4.1
				t.Errorf("%q is not 43 fresh characters", s)
			}
			seen[s] = true
		}
	}
}

// FLW-01, 10, 11; RFC 9207. In every row but the first the code must not reach the provider.
func TestCallbacksAreCheckedBeforeTheCodeIsSentAnywhere(t *testing.T) {
	for _, row := range []struct {
		name     string
		promised bool
		change   func(p *provider, login *oidc.Login, response url.Values)
		want     string
	}{
		{"as it should be", false, func(*provider, *oidc.Login, url.Values) {}, "ok"},
		{"an unknown parameter", false, func(p *provider, l *oidc.Login, r url.Values) { r.Set("session_state", "x") }, "ok"},
		{"iss ours", false, func(p *provider, l *oidc.Login, r url.Values) { r.Set("iss", p.issuer) }, "ok"},
		{"iss promised and ours", true, func(p *provider, l *oidc.Login, r url.Values) { r.Set("iss", p.issuer) }, "ok"},
		{"fapi2 remove-authorization-response-iss", true, func(*provider, *oidc.Login, url.Values) {}, "invalid issuer_mismatch"},
		{"fapi2 invalid-authorization-response-iss", true, func(p *provider, l *oidc.Login, r url.Values) { r.Set("iss", "https://evil.example/") }, "invalid issuer_mismatch"},
		{"iss of another although none was promised", false, func(p *provider, l *oidc.Login, r url.Values) { r.Set("iss", "https://evil.example/") }, "invalid issuer_mismatch"},
		{"iss empty", false, func(p *provider, l *oidc.Login, r url.Values) { r.Set("iss", "") }, "invalid issuer_mismatch"},
		{"iss without its slash", false, func(p *provider, l *oidc.Login, r url.Values) { r.Set("iss", strings.TrimSuffix(p.issuer, "/")) }, "invalid issuer_mismatch"},
		{"iss twice", false, func(p *provider, l *oidc.Login, r url.Values) { r["iss"] = []string{p.issuer, p.issuer} }, "invalid duplicate_parameter"},
		{"the error response of another issuer", false, func(p *provider, l *oidc.Login, r url.Values) {
			r.Set("error", "access_denied")
			r.Set("iss", "https://evil.example/")
		}, "invalid issuer_mismatch"},
		{"fapi2 invalid-state", false, func(p *provider, l *oidc.Login, r url.Values) { r.Set("state", l.State+"x") }, "invalid state"},
		{"fapi2 invalid-missing-state", false, func(p *provider, l *oidc.Login, r url.Values) { r.Del("state") }, "invalid state"},
		{"state empty on both sides", false, func(p *provider, l *oidc.Login, r url.Values) { r.Set("state", ""); l.State = "" }, "invalid state"},
		{"state absent on both sides", false, func(p *provider, l *oidc.Login, r url.Values) { r.Del("state"); l.State = "" }, "invalid state"},
		{"state twice", false, func(p *provider, l *oidc.Login, r url.Values) { r.Add("state", "") }, "invalid duplicate_parameter"},
		{"code twice", false, func(p *provider, l *oidc.Login, r url.Values) { r.Add("code", "B") }, "invalid duplicate_parameter"},
		{"error twice", false, func(p *provider, l *oidc.Login, r url.Values) { r["error"] = []string{"a", "b"} }, "invalid duplicate_parameter"},
		{"error and code", false, func(p *provider, l *oidc.Login, r url.Values) { r.Set("error", "access_denied") }, "denied access_denied"},
		{"error empty and code", false, func(p *provider, l *oidc.Login, r url.Values) { r.Set("error", "") }, "denied "},
		{"error of an Action", false, func(p *provider, l *oidc.Login, r url.Values) { r.Del("code"); r.Set("error", "no_signups") }, "denied no_signups"},
		{"no code", false, func(p *provider, l *oidc.Login, r url.Values) { r.Del("code") }, "invalid missing_code"},
		{"code empty", false, func(p *provider, l *oidc.Login, r url.Values) { r.Set("code", "") }, "invalid missing_code"},
		{"code with a line break", false, func(p *provider, l *oidc.Login, r url.Values) { r.Set("code", "a\r\nb") }, "invalid malformed"},
		{"code of 100 KB", false, func(p *provider, l *oidc.Login, r url.Values) { r.Set("code", strings.Repeat("a", 100_000)) }, "invalid malformed"},
		{"a login with another issuer", false, func(p *provider, l *oidc.Login, r url.Values) { l.Issuer = "https://other.example/" }, "invalid issuer_mismatch"},
		{"a login without issuer", false, func(p *provider, l *oidc.Login, r url.Values) { l.Issuer = "" }, "invalid issuer_mismatch"},
		{"a login without nonce", false, func(p *provider, l *oidc.Login, r url.Values) { l.Nonce = "" }, "invalid malformed"},
		{"a login without code verifier", false, func(p *provider, l *oidc.Login, r url.Values) { l.CodeVerifier = "" }, "invalid malformed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			p.discovery = set("authorization_response_iss_parameter_supported", row.promised)
			rp := p.party()
			login, response := p.begin(rp, oidc.AuthRequest{})
			row.change(p, &login, response)
			_, err := rp.Finish(context.Background(), login, response)
			wantReason(t, "Finish", err, row.want)
			if sent := p.count("token") > 0; sent != (row.want == "ok") {
				t.Errorf("code sent: %v", sent)
			}
		})
	}
}

// Who signs in can do nothing about what we ask for; who followed a link with an invitation can.
func TestErrorsOfTheAuthorizationEndpointThatWeCauseAreToldFromDenials(t *testing.T) {
	const audience = "https://api.example.com/"
	for _, row := range []struct {
		name              string
		code, description string
		req               oidc.AuthRequest
		audience          string
		want, hint        string
	}{
		{"an unknown scope", "invalid_scope", "", oidc.AuthRequest{}, "", "misconfigured authorization", "check provider.scopes, audience, organization"},
		{"a client that may not do this", "unauthorized_client", "", oidc.AuthRequest{}, "", "misconfigured authorization", "check provider"},
		{"a response type that is off", "unsupported_response_type", "", oidc.AuthRequest{}, "", "misconfigured authorization", "check provider"},
		{"an organization is required", "invalid_request", "parameter organization is required for this client", oidc.AuthRequest{}, "", "misconfigured authorization", "check provider"},
		{"a connection that is off", "invalid_request", "the connection is not enabled", oidc.AuthRequest{Connection: "github"}, "", "misconfigured authorization", "check provider"},
		{"an invitation that is over", "invalid_request", "invitation not found or already used", oidc.AuthRequest{Organization: "org_1", Invitation: "t"}, "", "denied invalid_request", ""},
		{"an organization of a link", "invalid_request", "parameter organization is not allowed for this client", oidc.AuthRequest{Organization: "org_1"}, "", "denied invalid_request", ""},
		{"the back button", "invalid_request", "You may have pressed the back button, refreshed during login, opened too many login dialogs", oidc.AuthRequest{}, "", "invalid back_button", ""},
		{"an audience that is no API", "access_denied", "Service not found: " + audience, oidc.AuthRequest{}, audience, "misconfigured authorization", "provider.audience is no API of this tenant"},
		{"an Action that says the same", "access_denied", "Service not found: coffee", oidc.AuthRequest{}, "", "denied access_denied", ""},
		{"an Action", "access_denied", "Only staff may come in", oidc.AuthRequest{}, audience, "denied access_denied", ""},
		{"a login that must be interactive", "login_required", "Login required", oidc.AuthRequest{}, "", "denied login_required", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			rp := p.party(func(c *oidc.Config) { c.Audience = row.audience })
			login, response := p.begin(rp, row.req)
			response.Del("code")
			response.Set("error", row.code)
			response.Set("error_description", row.description)
			_, err := rp.Finish(context.Background(), login, response)
			wantReason(t, "Finish", err, row.want)
			if text := fmt.Sprint(err); !strings.Contains(text, row.code) || !strings.Contains(text, row.description) || !strings.Contains(text, row.hint) {
				t.Errorf("the error is %s, want the provider's words and %q in it", text, row.hint)
			}
		})
	}
}

// The code of another login fails on the code verifier, and at a provider that ignores it on the nonce.
func TestACodeOfAnotherLoginIsRefused(t *testing.T) {
	p := newProvider(t)
	rp := p.party()
	_, theirs := p.begin(rp, oidc.AuthRequest{})
	login, ours := p.begin(rp, oidc.AuthRequest{})
	ours.Set("code", theirs.Get("code"))
	_, err := rp.Finish(context.Background(), login, ours)
	wantReason(t, "Finish", err, "invalid invalid_grant")
	mustBeGrant(t, err)

	p.instead["token"] = func(w http.ResponseWriter, r *http.Request) { // a provider that ignores PKCE
		reply(w, object{"access_token": "a", "token_type": "Bearer", "id_token": p.idToken("nonce of the other login", nil)})
	}
	_, err = p.login(rp, oidc.AuthRequest{})
	wantReason(t, "Finish", err, "invalid nonce")
}

func TestADeniedLoginSaysWhyInWordsThatAreSafeToShow(t *testing.T) {
	p := newProvider(t)
	rp := p.party()
	login, response := p.begin(rp, oidc.AuthRequest{})
	response.Set("error", "access_denied"+strings.Repeat("x", 100)+"\x00")
	response.Set("error_description", "user\r\nis blocked\x1b[31m \u202e"+login.State+response.Get("code")+strings.Repeat("é", 300))
	_, err := rp.Finish(context.Background(), login, response)
	var denied *oidc.Denied
	if !errors.As(err, &denied) {
		t.Fatalf("Finish = %v", err)
	}
	if !strings.HasPrefix(denied.Description, "user is blocked [31m [removed][removed]éé") || len([]rune(denied.Description)) != 200 || len(denied.Code) != 64 {
		t.Errorf("Denied = %+v", denied)
	}
	for _, secret := range []string{login.State, login.Nonce, login.CodeVerifier, response.Get("code")} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error %q has a secret in it", err)
		}
	}
}

// The refusals of the token endpoint, its outages, and answers that make no sense. TOK-29, FLW-28.
func TestTokenEndpointAnswers(t *testing.T) {
	rfc := func(code, description string) object { return object{"error": code, "error_description": description} }
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"500", fail(500, nil), "unavailable token"},
		{"503 with an OAuth error", fail(503, rfc("invalid_grant", "")), "unavailable token"},
		{"429", fail(429, rfc("too_many_requests", "")), "unavailable token"},
		{"connection cut", cut, "unavailable token"},
		{"half an answer", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte(`{"access_token"`))
		}, "unavailable token"},
		{"403 invalid_grant", fail(403, rfc("invalid_grant", "Invalid authorization code")), "invalid invalid_grant"},
		{"400 invalid_grant", fail(400, rfc("invalid_grant", "")), "invalid invalid_grant"},
		{"401 access_denied of Auth0", fail(401, rfc("access_denied", "Unauthorized")), "misconfigured client_auth"},
		{"401 invalid_client", fail(401, rfc("invalid_client", "")), "misconfigured client_auth"},
		{"403 access_denied", fail(403, rfc("access_denied", "")), "misconfigured client_auth"},
		{"401 without words", fail(401, nil), "misconfigured client_auth"},
		{"unauthorized_client", fail(403, rfc("unauthorized_client", "Grant type not allowed")), "misconfigured unauthorized_client"},
		{"invalid_request", fail(400, rfc("invalid_request", "redirect_uri")), "invalid token_refused"},
		{"404", fail(404, nil), "invalid token_refused"},
		{"204", fail(204, nil), "invalid malformed"},
		{"201", fail(201, object{"access_token": "a"}), "invalid malformed"},
		{"an HTML page", raw("<html>welcome</html>"), "invalid malformed"},
		{"a list", raw("[]"), "invalid malformed"},
		{"an access token twice", raw(`{"access_token":"a","access_token":"b","token_type":"Bearer"}`), "invalid malformed"},
		{"2 MiB", raw(`{"access_token":"` + strings.Repeat("a", 2<<20) + `"}`), "invalid malformed"},
		{"no ID token", raw(`{"access_token":"a","token_type":"Bearer"}`), "invalid id_token_missing"},
		{"ID token null", raw(`{"access_token":"a","token_type":"Bearer","id_token":null}`), "invalid id_token_missing"},
		{"ID token a list", raw(`{"access_token":"a","token_type":"Bearer","id_token":["x"]}`), "invalid malformed"},
		{"ID_TOKEN in another case", raw(`{"access_token":"a","token_type":"Bearer","ID_TOKEN":"x"}`), "invalid id_token_missing"},
		{"no access token", raw(`{"token_type":"Bearer"}`), "invalid malformed"},
		{"an access token with a line break", raw(`{"access_token":"a\r\nX: y","token_type":"Bearer"}`), "invalid malformed"},
		{"no token_type", raw(`{"access_token":"a"}`), "invalid token_type"},
		{"token_type mac", raw(`{"access_token":"a","token_type":"mac"}`), "invalid token_type"},
		{"token_type DPoP", raw(`{"access_token":"a","token_type":"DPoP"}`), "invalid token_type"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			p.instead["token"] = row.answer
			rp := p.party()
			login, response := p.begin(rp, oidc.AuthRequest{})
			_, err := rp.Finish(context.Background(), login, response)
			wantReason(t, "Finish", err, row.want)
			if n := p.count("token"); n != 1 {
				t.Errorf("%d token requests, want 1", n)
			}
		})
	}
}

func TestRefusedClientCredentialsSayWhatToChange(t *testing.T) {
	for auth, want := range map[string]string{"post": "(or set client_auth: basic)", "basic": "(or set client_auth: post)"} {
		p := newProvider(t)
		p.instead["token"] = fail(401, object{"error": "access_denied", "error_description": "Unauthorized"})
		_, err := p.login(p.party(func(c *oidc.Config) { c.ClientAuth = auth }), oidc.AuthRequest{})
		var m *oidc.Misconfigured
		if !errors.As(err, &m) || !strings.Contains(m.Hint, "check client_secret, and that Credentials > Authentication Method is") || !strings.Contains(m.Hint, want) {
			t.Errorf("%s: error %v, want a hint with %q", auth, err, want)
		}
	}
}

func TestErrorsHoldNothingSecret(t *testing.T) {
	p := newProvider(t)
	rp := p.party(func(c *oidc.Config) { c.ClientAuth = "post" })
	p.instead["token"] = func(w http.ResponseWriter, r *http.Request) { // a provider that repeats all it got
		fail(400, object{"error": "oops_" + r.PostForm.Get("code"), "error_description": "refused: " + r.PostForm.Get("code") + r.PostForm.Get("code_verifier") + r.PostForm.Get("client_secret")})(w, r)
	}
	login, response := p.begin(rp, oidc.AuthRequest{})
	_, err := rp.Finish(context.Background(), login, response)
	wantReason(t, "Finish", err, "invalid token_refused")
	for _, secret := range []string{login.State, login.Nonce, login.CodeVerifier, response.Get("code"), clientSecret} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error %q has a secret in it", err)
		}
	}
}

func TestRetryAfterIsBounded(t *testing.T) {
	for _, row := range []struct {
		header []string
		want   time.Duration
	}{
		{nil, 5 * time.Second},
		{[]string{"Retry-After", "17"}, 17 * time.Second},
		{[]string{"Retry-After", "0"}, time.Second},
		{[]string{"Retry-After", "4294967295"}, 5 * time.Minute},
		{[]string{"Retry-After", "99999999999999999999"}, 5 * time.Second},
		{[]string{"Retry-After", "-3"}, 5 * time.Second},
		{[]string{"Retry-After", start.Add(42 * time.Second).Format(http.TimeFormat)}, 42 * time.Second},
		{[]string{"X-RateLimit-Reset", "1795435230"}, 30 * time.Second},
		{[]string{"X-RateLimit-Reset", "-9223372036854775808"}, time.Second},
	} {
		p := newProvider(t)
		p.instead["token"] = fail(429, nil, row.header...)
		_, err := p.login(p.party(), oidc.AuthRequest{})
		var u *oidc.Unavailable
		if !errors.As(err, &u) || u.RetryAfter != row.want {
			t.Errorf("%q: %v, want RetryAfter %s", row.header, err, row.want)
		}
	}
}

// TOK-29; fapi2 token-type-case-insensitivity, token-endpoint-response-without-expires_in, no-scope-in-token-endpoint-response.
func TestTokenResponseShapes(t *testing.T) {
	year := start.Add(365 * 24 * time.Hour)
	for _, row := range []struct {
		name   string
		answer func(object)
		expiry time.Time
		scopes string
	}{
		{"as usual", set("scope", "openid email"), start.Add(time.Hour), "openid email"},
		{"no scope", nil, start.Add(time.Hour), "openid profile email"},
		{"token_type bEARER", set("token_type", "bEARER"), start.Add(time.Hour), "openid profile email"},
		{"no expires_in", set("expires_in", nil), time.Time{}, "openid profile email"},
		{"expires_in as text", set("expires_in", "60"), start.Add(time.Minute), "openid profile email"},
		{"expires_in negative", set("expires_in", -1), time.Time{}, "openid profile email"},
		{"expires_in 0", set("expires_in", 0), time.Time{}, "openid profile email"},
		{"expires_in a word", set("expires_in", "soon"), time.Time{}, "openid profile email"},
		{"expires_in NaN", set("expires_in", "NaN"), time.Time{}, "openid profile email"},
		{"expires_in 1e300", set("expires_in", 1e300), year, "openid profile email"},
		{"expires_in beyond numbers", set("expires_in", json.RawMessage("1e999")), year, "openid profile email"},
		{"expires_in 10 years", set("expires_in", 10*365*86400), year, "openid profile email"},
		{"no refresh token", set("refresh_token", nil), start.Add(time.Hour), "openid profile email"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			p.answer = row.answer
			got, err := p.login(p.party(), oidc.AuthRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if !got.AccessExpiry.Equal(row.expiry) || strings.Join(got.Identity.Scopes, " ") != row.scopes {
				t.Errorf("AccessExpiry = %s, Scopes = %q, want %s, %q", got.AccessExpiry, got.Identity.Scopes, row.expiry, row.scopes)
			}
		})
	}
}

// FLW-20; oidcc-client-test-client-secret-basic.
func TestEachClientAuthenticationIsTheOnlyOneInItsRequest(t *testing.T) {
	offer := func(methods ...any) func(object) { return set("token_endpoint_auth_methods_supported", methods) }
	for _, row := range []struct {
		name      string
		cfg       func(c *oidc.Config)
		discovery func(object)
		want      string
	}{
		{"post", func(c *oidc.Config) { c.ClientAuth = "post" }, nil, "post"},
		{"basic", func(c *oidc.Config) { c.ClientAuth = "basic" }, nil, "basic"},
		{"auto for Auth0", func(c *oidc.Config) { c.Auth0 = true }, nil, "post"},
		{"auto when both are offered", func(c *oidc.Config) { c.ClientAuth = "auto" }, nil, "basic"},
		{"auto when post is offered", func(*oidc.Config) {}, offer("client_secret_post"), "post"},
		{"auto when nothing is said", func(*oidc.Config) {}, set("token_endpoint_auth_methods_supported", nil), "basic"},
		{"auto with a key", func(c *oidc.Config) { c.PrivateKey = rsaKey(2) }, nil, "RS256"},
		{"private_key_jwt with a secret beside it", func(c *oidc.Config) { c.ClientAuth, c.PrivateKey = "private_key_jwt", rsaKey(2) }, nil, "RS256"},
		{"private_key_jwt for Auth0", func(c *oidc.Config) { c.Auth0, c.PrivateKey, c.ClientSecret = true, rsaKey(2), "" }, nil, "RS256"},
		{"private_key_jwt with P-256", func(c *oidc.Config) { c.PrivateKey = ecKey() }, nil, "ES256"},
		{"private_key_jwt with Ed25519", func(c *oidc.Config) { c.PrivateKey = edKey() }, nil, "EdDSA"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			p.discovery = row.discovery
			cfg := oidc.Config{}
			rp := p.party(row.cfg, func(c *oidc.Config) { cfg = *c })
			if _, err := p.login(rp, oidc.AuthRequest{}); err != nil {
				t.Fatal(err)
			}
			f, header := p.form("token"), p.heads["token"].Get("Authorization")
			id, secret, basic := (&http.Request{Header: p.heads["token"]}).BasicAuth()
			switch row.want {
			case "post":
				if basic || f.Get("client_id") != clientID || f.Get("client_secret") != clientSecret || f.Has("client_assertion") {
					t.Errorf("form %v, Authorization %q", f, header)
				}
			case "basic":
				if must(url.QueryUnescape(id)) != clientID || must(url.QueryUnescape(secret)) != clientSecret || strings.ContainsAny(secret, ": é") || f.Has("client_id") || f.Has("client_secret") {
					t.Errorf("form %v, Authorization %q %q", f, id, secret)
				}
			default:
				if basic || f.Has("client_secret") || f.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
					t.Errorf("form %v, Authorization %q", f, header)
				}
				h, c := parts(t, f.Get("client_assertion"))
				audience := p.issuer + "token"
				if cfg.Auth0 {
					audience = p.issuer
				}
				if h["alg"] != row.want || c["iss"] != clientID || c["sub"] != clientID || c["aud"] != audience || c["jti"] == "" || c["exp"] != float64(start.Unix()+60) {
					t.Errorf("client assertion %v %v, want aud %q", h, c, audience)
				}
				if k, ok := cfg.PrivateKey.(*rsa.PrivateKey); ok {
					input, sig, _ := cutLast(f.Get("client_assertion"))
					sum := sha256.Sum256([]byte(input))
					if err := rsa.VerifyPKCS1v15(&k.PublicKey, crypto.SHA256, sum[:], must(base64.RawURLEncoding.DecodeString(sig))); err != nil {
						t.Errorf("client assertion: %v", err)
					}
				}
			}
		})
	}
	t.Run("a provider that takes no secret", func(t *testing.T) {
		p := newProvider(t)
		p.discovery = offer("private_key_jwt")
		_, err := p.login(p.party(), oidc.AuthRequest{})
		wantReason(t, "Finish", err, "misconfigured client_auth")
	})
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndex(s, ".")
	return s[:i], s[i+1:], i >= 0
}

// SRF-02: codes, tokens and secrets follow no redirect, not even on the same host.
func TestRequestsWithSecretsFollowNoRedirect(t *testing.T) {
	var trapped atomic.Int32
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { trapped.Add(1) }))
	defer trap.Close()
	for _, endpoint := range []string{"token", "userinfo", "revocation"} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			for _, to := range []string{trap.URL, "/elsewhere"} {
				p := newProvider(t)
				p.instead[endpoint] = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, status) }
				rp := p.party(func(c *oidc.Config) { c.Userinfo = true })
				_, err := p.login(rp, oidc.AuthRequest{})
				if endpoint == "revocation" {
					err = rp.Revoke(context.Background(), "refresh-1")
				}
				if err == nil || p.count("") != 0 {
					t.Errorf("%s answers %d: error %v, %d requests elsewhere", endpoint, status, err, p.count(""))
				}
			}
		}
	}
	if n := trapped.Load(); n != 0 {
		t.Errorf("%d requests reached another host", n)
	}
}

func TestFinishLeavesWithItsContext(t *testing.T) {
	p := newProvider(t)
	rp := p.party()
	login, response := p.begin(rp, oidc.AuthRequest{})
	ctx, cancel := context.WithCancel(context.Background())
	p.instead["token"] = func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}
	_, err := rp.Finish(ctx, login, response)
	wantReason(t, "Finish", err, "unavailable token")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v is not context.Canceled", err)
	}
}

func TestObserveHearsOfEachRequest(t *testing.T) {
	p := newProvider(t)
	var heard []string
	rp := p.party(func(c *oidc.Config) {
		c.Userinfo = true
		c.Observe = func(op string, took time.Duration, err error) { heard = append(heard, op) }
	})
	if _, err := p.login(rp, oidc.AuthRequest{}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(heard, " "); got != "discovery token keys userinfo" {
		t.Errorf("observed %s", got)
	}
}
