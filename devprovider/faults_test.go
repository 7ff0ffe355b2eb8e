package devprovider_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"authproxy/devprovider"
)

func TestSignInAsSkipsThePages(t *testing.T) {
	p := start(t, options())
	p.Set(func(f *devprovider.Faults) { f.SignInAs = "grace" })
	b := newBrowser(t, p)
	if got := answer(t, b.authorize("prompt=none")); got.Get("error") != "login_required" {
		t.Errorf("prompt=none without a session: the client gets %v, want login_required", got)
	}
	if got := answer(t, b.authorize()); got.Get("code") == "" {
		t.Errorf("the client gets %v, want a code", got)
	}
	sid := p.LastSID()
	answer(t, b.authorize("prompt=login", "max_age=0"))
	if p.LastSID() != sid {
		t.Error("the same user got another sid")
	}
	p.Set(func(f *devprovider.Faults) { f.SignInAs = "bob" })
	answer(t, b.authorize())
	if p.LastSID() == sid {
		t.Error("another user got the same sid")
	}
	p.Set(func(f *devprovider.Faults) { f.SignInAs = "nobody" })
	if got := b.authorize(); got.status != 500 {
		t.Errorf("as nobody: status %d, want 500", got.status)
	}
	if p.Count("page") != 0 {
		t.Errorf("%d pages were shown, want none", p.Count("page"))
	}
}

func TestFaultsOfEveryEndpoint(t *testing.T) {
	p := start(t, options())
	get := func() (*http.Response, string, error) {
		res, err := http.Get(p.Issuer() + ".well-known/jwks.json")
		if err != nil {
			return nil, "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return res, string(body), err
	}
	set := func(f devprovider.Faults) { p.Set(func(old *devprovider.Faults) { *old = f }) }

	set(devprovider.Faults{Down: true})
	if _, _, err := get(); err == nil {
		t.Error("Down: there is an answer")
	}
	set(devprovider.Faults{Fail: map[string]int{"jwks": 500}})
	if res, body, _ := get(); res.StatusCode != 500 || !strings.HasPrefix(body, "<!doctype html>") {
		t.Errorf("Fail: %d %s", res.StatusCode, body)
	}
	set(devprovider.Faults{Raw: map[string]string{"jwks": "<html>"}})
	if res, body, _ := get(); res.StatusCode != 200 || body != "<html>" || res.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("Raw: %d %s", res.StatusCode, body)
	}
	set(devprovider.Faults{Intercept: func(endpoint string, w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, endpoint+" "+strconv.Itoa(p.Count("jwks"))) // a hook may call the provider
		return endpoint == "jwks"
	}})
	if res, body, _ := get(); res.StatusCode != http.StatusTeapot || body != "jwks 4" {
		t.Errorf("Intercept: %d %s", res.StatusCode, body)
	}
	set(devprovider.Faults{Slow: map[string]time.Duration{"jwks": 20 * time.Millisecond}})
	if begin := time.Now(); true {
		if get(); time.Since(begin) < 20*time.Millisecond {
			t.Errorf("Slow: answered after %v", time.Since(begin))
		}
	}
	set(devprovider.Faults{Clock: -time.Hour})
	res, _, _ := get()
	if date, err := http.ParseTime(res.Header.Get("Date")); err != nil || time.Since(date) < 59*time.Minute {
		t.Errorf("Clock: Date %q", res.Header.Get("Date"))
	}
	set(devprovider.Faults{})
	if res, body, _ := get(); res.StatusCode != 200 || !json.Valid([]byte(body)) {
		t.Errorf("healed: %d %s", res.StatusCode, body)
	}
}

// fetch gets a JSON document of the provider.
func fetch(t *testing.T, p *devprovider.Server, path string) map[string]any {
	t.Helper()
	res, err := http.Get(p.URL() + path)
	if err != nil {
		t.Fatal(err)
	}
	_, body := decode(t, res)
	return body
}

func TestFaultsChangeDocuments(t *testing.T) {
	p := start(t, options())
	const path = "/.well-known/openid-configuration"
	before := fetch(t, p, path)
	if before["issuer"] != p.Issuer() || before["end_session_endpoint"] != p.Issuer()+"oidc/logout" || before["authorization_response_iss_parameter_supported"] != nil ||
		before["backchannel_logout_supported"] != nil || !reflect.DeepEqual(before["id_token_signing_alg_values_supported"], []any{"HS256", "RS256", "PS256"}) {
		t.Errorf("discovery says %v", before)
	}
	if alias := fetch(t, p, "/.well-known/oauth-authorization-server"); !reflect.DeepEqual(alias, before) {
		t.Errorf("the other path says %v", alias)
	}
	p.Set(func(f *devprovider.Faults) {
		f.NoEndSession, f.PromiseIss = true, true
		f.Discovery = func(d map[string]any) { d["issuer"] = "https://evil.example/" }
		f.JWKS = func(keys []map[string]any) []map[string]any {
			delete(keys[0], "kid")
			return append(keys[:1], devprovider.JWK(&devprovider.UnpublishedKey().PublicKey, "extra"))
		}
	})
	after := fetch(t, p, path)
	if after["issuer"] != "https://evil.example/" || after["end_session_endpoint"] != nil || after["authorization_response_iss_parameter_supported"] != true {
		t.Errorf("discovery says %v", after)
	}
	keys := fetch(t, p, "/.well-known/jwks.json")["keys"].([]any)
	if first, second := keys[0].(map[string]any), keys[1].(map[string]any); first["kid"] != nil || second["kid"] != "extra" || second["x5c"] != nil || first["x5c"] == nil {
		t.Errorf("keys %v", keys)
	}
	p.Set(func(f *devprovider.Faults) { f.JWKS = nil })
	if keys := fetch(t, p, "/.well-known/jwks.json")["keys"].([]any); keys[0].(map[string]any)["kid"] == nil {
		t.Error("the hook has changed the provider's own keys")
	}
	if err := p.SetClient(devprovider.Client{ID: "bcl", Secret: "x", BackchannelURL: "http://127.0.0.1:9/"}); err != nil {
		t.Fatal(err)
	}
	if d := fetch(t, p, path); d["backchannel_logout_supported"] != true || d["backchannel_logout_session_supported"] != true {
		t.Errorf("with a back-channel client discovery says %v", d)
	}
}

func TestFaultsChangeAnswersToTheClient(t *testing.T) {
	p := start(t, options())
	p.Set(func(f *devprovider.Faults) { f.SignInAs, f.PromiseIss = "ada", true })
	b := newBrowser(t, p)
	if got := answer(t, b.authorize()); got.Get("iss") != p.Issuer() {
		t.Errorf("PromiseIss: the client gets %v", got)
	}
	if got := answer(t, b.authorize("response_type=x")); got.Get("iss") != p.Issuer() {
		t.Errorf("PromiseIss, in an error: the client gets %v", got)
	}
	p.Set(func(f *devprovider.Faults) {
		f.Callback = func(v url.Values) { v["state"] = []string{"one", "two"}; v.Del("iss") }
	})
	if got := answer(t, b.authorize()); len(got["state"]) != 2 || got.Has("iss") {
		t.Errorf("Callback: the client gets %v", got)
	}
	p.Set(func(f *devprovider.Faults) {
		*f = devprovider.Faults{Deny: "no_signups", DenyDescription: "<b>not now</b>"}
	})
	if got := answer(t, b.authorize()); got.Get("error") != "no_signups" || got.Get("error_description") != "<b>not now</b>" {
		t.Errorf("Deny: the client gets %v", got)
	}
}

func TestFaultsChangeTokens(t *testing.T) {
	p := start(t, options())
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		fault  devprovider.Faults
		header map[string]any // what must be there
		claims map[string]any // what must be there; nil for what must not
		size   int            // of the signature
	}{
		{name: "a claim", fault: devprovider.Faults{IDToken: func(t *devprovider.Token) { t.Claims["nonce"] = "x"; delete(t.Claims, "sub") }}, claims: map[string]any{"nonce": "x", "sub": nil}, size: 256},
		{name: "the payload as bytes", fault: devprovider.Faults{IDToken: func(t *devprovider.Token) {
			t.Payload = []byte(strings.Replace(string(t.JSON()), `{`, `{"sub":"first",`, 1))
		}}, claims: map[string]any{"sub": "auth0|65f0a1ada0000000000000a1"}, size: 256},
		{name: "no signature", fault: devprovider.Faults{IDToken: func(t *devprovider.Token) { t.Header["alg"], t.Key = "none", nil }}, header: map[string]any{"alg": "none"}},
		{name: "HMAC", fault: devprovider.Faults{IDToken: func(t *devprovider.Token) { t.Header["alg"], t.Key = "HS512", []byte("x") }}, size: 64},
		{name: "ECDSA", fault: devprovider.Faults{IDToken: func(t *devprovider.Token) { t.Header["alg"], t.Key = "ES256", ec }}, size: 64},
		{name: "EdDSA", fault: devprovider.Faults{IDToken: func(t *devprovider.Token) { t.Header["alg"], t.Key = "EdDSA", ed }}, size: 64},
		{name: "an algorithm that the key cannot do", fault: devprovider.Faults{IDToken: func(t *devprovider.Token) { t.Header["alg"] = "ES256" }}, header: map[string]any{"alg": "ES256"}, size: 256},
		{name: "the signed token", fault: devprovider.Faults{SignedID: func(s string) string { return s + "AAAA" }}, size: 259},
		{name: "the clock", fault: devprovider.Faults{Clock: -24 * time.Hour}, claims: map[string]any{"iat": nil}, size: 256},
	} {
		t.Run(row.name, func(t *testing.T) {
			fault := row.fault
			fault.SignInAs = "ada"
			if row.name == "the clock" {
				fault.IDToken = func(tok *devprovider.Token) {
					if iat := tok.Claims["iat"].(int64); time.Since(time.Unix(iat, 0)) > 23*time.Hour {
						delete(tok.Claims, "iat")
					}
				}
			}
			p.Set(func(f *devprovider.Faults) { *f = fault })
			_, body := redeem(t, p, answer(t, newBrowser(t, p).authorize()).Get("code"))
			header, claims := open(t, body["id_token"])
			for name, want := range row.header {
				if header[name] != want {
					t.Errorf("%s = %v, want %v", name, header[name], want)
				}
			}
			for name, want := range row.claims {
				if claims[name] != want {
					t.Errorf("%s = %v, want %v", name, claims[name], want)
				}
			}
			signature := strings.Split(body["id_token"].(string), ".")[2]
			if got := len(signature) * 3 / 4; got != row.size {
				t.Errorf("the signature has %d bytes, want %d", got, row.size)
			}
		})
	}
}

func TestFaultsOfTheTokenEndpoint(t *testing.T) {
	p := start(t, options())
	p.Set(func(f *devprovider.Faults) { f.SignInAs = "ada" })
	code := func() string { t.Helper(); return answer(t, newBrowser(t, p).authorize()).Get("code") }
	set := func(f devprovider.Faults) { f.SignInAs = "ada"; p.Set(func(old *devprovider.Faults) { *old = f }) }

	set(devprovider.Faults{TokenError: devprovider.Error{Status: 429, Code: "too_many_requests"}})
	res, err := http.PostForm(p.Issuer()+"oauth/token", url.Values{})
	if err != nil {
		t.Fatal(err)
	}
	if status, body := decode(t, res); status != 429 || body["error"] != "too_many_requests" || res.Header.Get("X-RateLimit-Reset") == "" {
		t.Errorf("TokenError: %d %v", status, body)
	}
	set(devprovider.Faults{IgnorePKCE: true, AccessLife: time.Second, TokenResponse: func(m map[string]any) { m["token_type"] = "bEARER" }})
	status, body := redeem(t, p, code(), "code_verifier=")
	if status != 200 || body["expires_in"] != 1.0 || body["token_type"] != "bEARER" {
		t.Errorf("IgnorePKCE, AccessLife, TokenResponse: %d %v", status, body)
	}
	rt := body["refresh_token"]
	set(devprovider.Faults{RefreshError: devprovider.Error{Code: "mfa_required", Description: "Multifactor authentication required"}})
	if status, body := refresh(t, p, rt); status != 403 || body["error"] != "mfa_required" {
		t.Errorf("RefreshError: %d %v", status, body)
	}
	if status, _ := redeem(t, p, code()); status != 200 {
		t.Errorf("RefreshError, redeeming a code: %d, want 200", status)
	}
	set(devprovider.Faults{
		IDToken:         func(t *devprovider.Token) { t.Claims["by"] = "IDToken" },
		RefreshedID:     func(t *devprovider.Token) { t.Claims["by"] = "RefreshedID" },
		RefreshResponse: func(m map[string]any) { m["surprise"] = true },
	})
	_, body = refresh(t, p, rt)
	if _, claims := open(t, body["id_token"]); claims["by"] != "RefreshedID" || body["surprise"] != true {
		t.Errorf("RefreshedID, RefreshResponse: %v", body)
	}
	if _, first := redeem(t, p, code()); first["surprise"] != nil {
		t.Error("RefreshResponse changes the answer to a code")
	} else if _, claims := open(t, first["id_token"]); claims["by"] != "IDToken" {
		t.Errorf("by = %v at login, want IDToken", claims["by"])
	}
	set(devprovider.Faults{NoRefresh: true})
	if _, first := redeem(t, p, code()); first["refresh_token"] != nil {
		t.Error("NoRefresh: there is a refresh token")
	}
	for range 2 {
		if status, again := refresh(t, p, body["refresh_token"]); status != 200 || again["refresh_token"] != nil {
			t.Errorf("NoRefresh: %d %v, want 200 without a new one, and the old one good for more", status, again)
		}
	}
	set(devprovider.Faults{AccessToken: func(t *devprovider.Token) { t.Claims["aud"] = "x" }, UserInfo: func(m map[string]any) { m["sub"] = "x" }})
	_, body = redeem(t, p, answer(t, newBrowser(t, p).authorize("audience="+api)).Get("code"))
	if _, claims := open(t, body["access_token"]); claims["aud"] != "x" {
		t.Errorf("AccessToken: aud %v", claims["aud"])
	}
	if _, claims := userinfo(t, p, body["access_token"]); claims["sub"] != "x" {
		t.Errorf("UserInfo: sub %v", claims["sub"])
	}
	set(devprovider.Faults{Delay: 20 * time.Millisecond})
	if begin := time.Now(); true {
		if redeem(t, p, "x"); time.Since(begin) < 20*time.Millisecond {
			t.Errorf("Delay: answered after %v", time.Since(begin))
		}
	}
}

func TestAccessTokensOutsideOfALogin(t *testing.T) {
	p := start(t, options())
	header, claims := open(t, p.AccessToken("client", "ada", api, []string{"openid", "read:items"}, func(t *devprovider.Token) { t.Header["typ"] = "x" }))
	if header["typ"] != "x" || claims["sub"] != "auth0|65f0a1ada0000000000000a1" || claims["scope"] != "openid read:items" || claims["permissions"] == nil {
		t.Errorf("header %v, claims %v", header, claims)
	}
}

func TestRotateKeys(t *testing.T) {
	p := start(t, options())
	kids := func() (out []string) {
		for _, k := range fetch(t, p, "/.well-known/jwks.json")["keys"].([]any) {
			out = append(out, k.(map[string]any)["kid"].(string))
		}
		return out
	}
	before := kids()
	p.RotateKeys()
	after := kids()
	if len(before) != 2 || len(after) != 2 || before[0] == before[1] || after[0] != before[1] || after[1] == before[0] {
		t.Errorf("keys %v, then %v; want the next to become the current and the current to go", before, after)
	}
	if header, _ := open(t, tokens(t, p, "ada")["id_token"]); header["kid"] != after[0] {
		t.Errorf("kid %v signs, want %s", header["kid"], after[0])
	}
	for _, k := range append(before, after...) {
		p.RotateKeys()
		if devprovider.UnpublishedKey().Equal(keyOf(t, p)) || k == "" {
			t.Error("the key that is never published signs")
		}
	}
}

// keyOf is the key that signs.
func keyOf(t *testing.T, p *devprovider.Server) (key *rsa.PrivateKey) {
	t.Helper()
	p.LogoutToken("client", "", "", func(tok *devprovider.Token) { key, _ = tok.Key.(*rsa.PrivateKey) })
	return key
}

func TestCallsAreCountedAndKept(t *testing.T) {
	p := start(t, options())
	code := newBrowser(t, p).login("ada").Get("code")
	redeem(t, p, code)
	last := p.Last("token")
	if last.Method != "POST" || last.Path != "/oauth/token" || last.Form.Get("code") != code || last.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		t.Errorf("Last(token) = %+v", last)
	}
	if got := p.Last("authorize").Query.Get("nonce"); got != "n0nce" {
		t.Errorf("Last(authorize) has nonce %q", got)
	}
	if p.Count("authorize") != 1 || p.Count("token") != 1 || p.Count("page") != 3 || p.Count("") != 5 || p.Count("jwks") != 0 || len(p.Calls("page")) != 0 {
		t.Errorf("authorize %d, token %d, page %d, all %d, jwks %d, pages kept %d; want 1, 1, 3, 5, 0, 0",
			p.Count("authorize"), p.Count("token"), p.Count("page"), p.Count(""), p.Count("jwks"), len(p.Calls("page")))
	}
	if got := p.Last("jwks"); got.Endpoint != "" {
		t.Errorf("Last(jwks) = %+v, want nothing", got)
	}
	for range 1005 {
		fetch(t, p, "/.well-known/jwks.json")
	}
	if p.Count("jwks") != 1005 || len(p.Calls("jwks")) != 1000 || len(p.Calls("token")) != 0 {
		t.Errorf("jwks %d, of which %d are kept; want 1005 and 1000", p.Count("jwks"), len(p.Calls("jwks")))
	}
}
