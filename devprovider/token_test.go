package devprovider_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"authproxy/devprovider"
)

func TestIDTokenClaims(t *testing.T) {
	o, c := options(), newClock()
	o.Now = c.Now
	p := start(t, o)
	body := tokens(t, p, "ada")
	header, claims := open(t, body["id_token"])
	now := float64(c.Now().Unix())
	want := map[string]any{
		"iss": p.Issuer(), "aud": "client", "sub": "auth0|65f0a1ada0000000000000a1", "iat": now, "exp": now + 36000, "nonce": "n0nce", "sid": p.LastSID(),
		"name": "Ada Lovelace", "given_name": "Ada", "family_name": "Lovelace", "nickname": "ada", "updated_at": "2026-01-15T09:30:00.000Z",
		"email": "ada@example.com", "email_verified": true, "department": "research",
		"groups": []any{"admins", "staff"}, "https://demo.example/roles": []any{"owner"},
	}
	if !reflect.DeepEqual(claims, want) {
		t.Errorf("claims %v, want %v", claims, want)
	}
	if kid, _ := header["kid"].(string); header["alg"] != "RS256" || header["typ"] != "JWT" || len(kid) != 21 {
		t.Errorf("header %v, want RS256, JWT and a kid of 21 characters", header)
	}
	delete(body, "id_token")
	delete(body, "access_token")
	delete(body, "refresh_token")
	if want := map[string]any{"token_type": "Bearer", "expires_in": 86400.0}; !reflect.DeepEqual(body, want) {
		t.Errorf("the rest of the answer is %v, want %v: no scope when it is what was asked for", body, want)
	}
}

func TestClaimsNeedTheirScope(t *testing.T) {
	o := options()
	o.OnlyNamespaced = true
	p := start(t, o)
	_, claims := open(t, tokens(t, p, "ada", "scope=openid email nickname")["id_token"])
	for name, want := range map[string]any{"email": "ada@example.com", "nickname": "ada", "name": nil, "updated_at": nil, "department": nil, "groups": nil,
		"https://demo.example/roles": []any{"owner"}} {
		if !reflect.DeepEqual(claims[name], want) {
			t.Errorf("%s = %v, want %v", name, claims[name], want)
		}
	}
	if body := tokens(t, p, "ada", "scope=profile"); body["id_token"] != nil {
		t.Error("an ID token without the scope openid")
	}
}

func TestSecondFactorIsBelieved(t *testing.T) {
	p := start(t, options())
	const mfa = "http://schemas.openid.net/pape/policies/2007/06/multi-factor"
	_, claims := open(t, tokens(t, p, "ada", "acr_values=x "+mfa)["id_token"])
	if claims["acr"] != mfa || !reflect.DeepEqual(claims["amr"], []any{"mfa"}) {
		t.Errorf("acr %v, amr %v", claims["acr"], claims["amr"])
	}
}

func TestUsersWithOddClaims(t *testing.T) {
	p := start(t, options())
	claims := func(user string) map[string]any {
		_, claims := open(t, tokens(t, p, user)["id_token"])
		return claims
	}
	if c := claims("case"); c["email"] != "case@example.com" || c["Email"] != "ceo@example.com" || c["EMAIL_VERIFIED"] != true || c["email_verified"] != false {
		t.Errorf("case: %v", c)
	}
	if c := claims("zoë"); c["sub"] != "auth0|zoe frohlich" {
		t.Errorf("zoë: %v", c)
	}
	if groups, _ := claims("big")["groups"].([]any); len(groups) != 300 {
		t.Errorf("big has %d groups", len(groups))
	}
}

func TestCodeWorksOnceAndReplayEndsTheGrant(t *testing.T) {
	p := start(t, options())
	code := newBrowser(t, p).login("ada").Get("code")
	_, body := redeem(t, p, code)
	if status, again := redeem(t, p, code); status != 403 || again["error"] != "invalid_grant" || again["error_description"] != "Invalid authorization code" {
		t.Errorf("the second time: %d %v", status, again)
	}
	if status, _ := userinfo(t, p, body["access_token"]); status != 401 {
		t.Errorf("userinfo with the access token of a replayed code: %d, want 401", status)
	}
	if status, got := token(t, p, "grant_type=refresh_token", "refresh_token="+body["refresh_token"].(string)); status != 403 {
		t.Errorf("refreshing after a replay: %d %v, want 403", status, got)
	}
}

func TestTokenEndpointRefuses(t *testing.T) {
	o, c := options(), newClock()
	o.Now = c.Now
	o.Clients = append(o.Clients, devprovider.Client{ID: "other", Secret: "x"})
	p := start(t, o)
	b := newBrowser(t, p)
	b.login("ada")
	for _, row := range []struct {
		name    string
		changes []string
		status  int
		err     string
		text    string
	}{
		{"a wrong secret", []string{"client_secret=x"}, 401, "access_denied", "Unauthorized"},
		{"no secret", []string{"client_secret="}, 401, "access_denied", "Unauthorized"},
		{"an unknown client", []string{"client_id=x"}, 401, "access_denied", "Unauthorized"},
		{"another client's code", []string{"client_id=other", "client_secret=x"}, 403, "invalid_grant", "Invalid authorization code"},
		{"an unknown code", []string{"code=x"}, 403, "invalid_grant", "Invalid authorization code"},
		{"no code", []string{"code="}, 403, "invalid_grant", "Invalid authorization code"},
		{"another redirect URI", []string{"redirect_uri=" + callback + "?keep=1"}, 403, "invalid_grant", "Invalid authorization code"},
		{"no redirect URI", []string{"redirect_uri="}, 403, "invalid_grant", "Invalid authorization code"},
		{"a wrong code verifier", []string{"code_verifier=x"}, 403, "invalid_grant", "Failed to verify code verifier"},
		{"no code verifier", []string{"code_verifier="}, 403, "invalid_grant", "Failed to verify code verifier"},
		{"no grant type", []string{"grant_type="}, 400, "invalid_request", "Missing required parameter: grant_type"},
		{"another grant type", []string{"grant_type=password"}, 403, "unauthorized_client", "Grant type 'password' not allowed for the client."},
		{"an unknown refresh token", []string{"grant_type=refresh_token", "refresh_token=x"}, 403, "invalid_grant", "Unknown or invalid refresh token."},
	} {
		t.Run(row.name, func(t *testing.T) {
			code := answer(t, b.authorize()).Get("code")
			if status, body := redeem(t, p, code, row.changes...); status != row.status || body["error"] != row.err || body["error_description"] != row.text {
				t.Errorf("%d %v, want %d %s: %s", status, body, row.status, row.err, row.text)
			}
		})
	}
	t.Run("a code that is ten minutes old", func(t *testing.T) {
		code := answer(t, b.authorize()).Get("code")
		c.Advance(10 * time.Minute)
		if status, body := redeem(t, p, code); status != 403 {
			t.Errorf("%d %v, want 403", status, body)
		}
	})
	t.Run("a code verifier without a challenge", func(t *testing.T) {
		code := answer(t, b.authorize("code_challenge=", "code_challenge_method=")).Get("code")
		if status, body := redeem(t, p, code); status != 403 {
			t.Errorf("%d %v, want 403: the challenge was taken away", status, body)
		}
	})
	t.Run("a parameter twice", func(t *testing.T) {
		res, err := http.PostForm(p.Issuer()+"oauth/token", url.Values{"grant_type": {"authorization_code", "refresh_token"}})
		if err != nil {
			t.Fatal(err)
		}
		if status, body := decode(t, res); status != 400 || body["error"] != "invalid_request" {
			t.Errorf("%d %v", status, body)
		}
	})
	t.Run("a method other than POST", func(t *testing.T) {
		if got := b.get("/oauth/token"); got.status != 405 || got.header.Get("Allow") != "POST" {
			t.Errorf("status %d, Allow %q", got.status, got.header.Get("Allow"))
		}
	})
	t.Run("a body that is too large", func(t *testing.T) {
		res, err := http.Post(p.Issuer()+"oauth/token", "application/x-www-form-urlencoded", strings.NewReader("a="+strings.Repeat("x", 65<<10)))
		if err != nil {
			t.Fatal(err)
		}
		if status, _ := decode(t, res); status != 400 {
			t.Errorf("%d, want 400", status)
		}
	})
}

func TestPlainAndMissingCodeChallenge(t *testing.T) {
	p := start(t, options())
	b := newBrowser(t, p)
	b.login("ada")
	code := answer(t, b.authorize("code_challenge="+verifier, "code_challenge_method=")).Get("code")
	if status, body := redeem(t, p, code); status != 200 {
		t.Errorf("plain: %d %v", status, body)
	}
	code = answer(t, b.authorize("code_challenge=", "code_challenge_method=")).Get("code")
	if status, body := redeem(t, p, code, "code_verifier="); status != 200 {
		t.Errorf("without PKCE: %d %v", status, body)
	}
}

func TestTokenRequestInJSON(t *testing.T) {
	p := start(t, options())
	code := newBrowser(t, p).login("ada").Get("code")
	for _, row := range []struct {
		body   string
		status int
	}{
		{`{"grant_type":1}`, 400},
		{`{"grant_type":"authorization_code","code":"` + code + `","redirect_uri":"` + callback + `","code_verifier":"` + verifier + `","client_id":"client","client_secret":"s3cret %&+ é"}`, 200},
	} {
		res, err := http.Post(p.Issuer()+"oauth/token", "application/json; charset=utf-8", strings.NewReader(row.body))
		if err != nil {
			t.Fatal(err)
		}
		if status, got := decode(t, res); status != row.status || res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v, want %d; headers %v", row.body, status, got, row.status, res.Header)
		}
	}
}

func TestClientAuthentication(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := options()
	o.APIs[0].Scopes = []string{"x"}
	o.Clients = []devprovider.Client{
		{ID: "any", Secret: "a b%", PublicKey: &key.PublicKey},
		{ID: "key", PublicKey: &key.PublicKey},
		{ID: "post", Secret: "a b%", AuthMethod: "post"},
		{ID: "basic", Secret: "a b%", AuthMethod: "basic"},
		{ID: "jwt", PublicKey: &key.PublicKey, AuthMethod: "private_key_jwt"},
		{ID: "rsa", PublicKey: &devprovider.UnpublishedKey().PublicKey, AuthMethod: "private_key_jwt"},
	}
	p := start(t, o)
	assertion := func(id string, change func(*devprovider.Token)) url.Values {
		now := time.Now().Unix()
		tok := &devprovider.Token{Header: map[string]any{"alg": "ES256"}, Key: key,
			Claims: map[string]any{"iss": id, "sub": id, "aud": p.Issuer(), "jti": rand.Text(), "iat": now, "exp": now + 60}}
		if change != nil {
			change(tok)
		}
		return url.Values{"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {tok.Sign()}}
	}
	post := func(id string) url.Values { return url.Values{"client_id": {id}, "client_secret": {"a b%"}} }
	used := assertion("jwt", func(t *devprovider.Token) { t.Claims["jti"] = "used" })
	long := strings.Repeat("x", 2048)
	rsa := func(alg string) func(*devprovider.Token) {
		return func(t *devprovider.Token) { t.Header["alg"], t.Key = alg, devprovider.UnpublishedKey() }
	}
	set := func(name string, value any) func(*devprovider.Token) {
		return func(t *devprovider.Token) { t.Claims[name] = value }
	}
	for _, row := range []struct {
		name  string
		basic []string
		form  url.Values
		good  bool
	}{
		{"post", nil, post("post"), true},
		{"post of a client that may do anything", nil, post("any"), true},
		{"basic", []string{"basic", "a+b%25"}, nil, true},
		{"basic with the client ID in the body too", []string{"basic", "a+b%25"}, url.Values{"client_id": {"basic"}}, true},
		{"basic with another client ID in the body", []string{"basic", "a+b%25"}, url.Values{"client_id": {"any"}}, false},
		{"basic that is not form-encoded", []string{"basic", "a b%"}, nil, false},
		{"basic of a client that must post", []string{"post", "a+b%25"}, nil, false},
		{"post of a client that must use basic", nil, post("basic"), false},
		{"both", []string{"any", "a+b%25"}, post("any"), false},
		{"nothing", nil, url.Values{"client_id": {"any"}}, false},
		{"an empty secret of a client that has none", nil, url.Values{"client_id": {"jwt"}, "client_secret": {""}}, false},
		{"an empty secret of a client that has only a key but may do anything", nil, url.Values{"client_id": {"key"}, "client_secret": {""}}, false},
		{"an assertion", nil, used, true},
		{"an assertion again", nil, used, false},
		{"an assertion of a client that may do anything", nil, assertion("any", nil), true},
		{"an assertion for the token endpoint", nil, assertion("jwt", set("aud", p.Issuer()+"oauth/token")), true},
		{"an assertion with RS256", nil, assertion("rsa", rsa("RS256")), true},
		{"an assertion with PS384", nil, assertion("rsa", rsa("PS384")), true},
		{"an assertion with a key of nobody", nil, assertion("jwt", rsa("RS256")), false},
		{"an assertion with alg none", nil, assertion("jwt", func(t *devprovider.Token) { t.Header["alg"], t.Key = "none", nil }), false},
		{"an assertion without a signature", nil, assertion("jwt", func(t *devprovider.Token) { t.Key = nil }), false},
		{"an assertion for others", nil, assertion("jwt", set("aud", "https://other.example/")), false},
		{"an assertion for a list", nil, assertion("jwt", set("aud", []string{p.Issuer()})), false},
		{"an assertion of another issuer", nil, assertion("jwt", set("iss", "any")), false},
		{"an assertion about another client", nil, assertion("jwt", set("sub", "any")), false},
		{"an assertion that has expired", nil, assertion("jwt", set("exp", time.Now().Unix()-1)), false},
		{"an assertion that is good for an hour", nil, assertion("jwt", set("exp", time.Now().Unix()+3600)), false},
		{"an assertion without exp", nil, assertion("jwt", set("exp", nil)), false},
		{"an assertion without jti", nil, assertion("jwt", set("jti", nil)), false},
		{"an assertion that is too long", nil, assertion("jwt", set("x", long)), false},
		{"an assertion of a client without a key", nil, assertion("post", nil), false},
		{"an assertion without its type", nil, url.Values{"client_assertion": assertion("jwt", nil)["client_assertion"]}, false},
		{"garbage as assertion", nil, url.Values{"client_id": {"jwt"}, "client_assertion": {"a.b.c"}, "client_assertion_type": used["client_assertion_type"]}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			form := url.Values{"grant_type": {"client_credentials"}, "audience": {api}}
			for name, v := range row.form {
				form[name] = v
			}
			r, err := http.NewRequest("POST", p.Issuer()+"oauth/token", strings.NewReader(form.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if row.basic != nil {
				r.SetBasicAuth(row.basic[0], row.basic[1])
			}
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if status, body := decode(t, res); (status == 200) != row.good || !row.good && (status != 401 || body["error"] != "access_denied") {
				t.Errorf("%d %v, want it to work: %t", status, body, row.good)
			}
		})
	}
}

func TestAccessTokenWithoutAudienceIsOpaque(t *testing.T) {
	p := start(t, options())
	for _, audience := range []string{"audience=", "audience=" + p.Issuer() + "userinfo"} {
		body := tokens(t, p, "ada", audience)
		at, _ := body["access_token"].(string)
		if parts := strings.Split(at, "."); len(parts) != 5 || parts[1] != "" {
			t.Errorf("%s: access token %q, want five parts with an empty second", audience, at)
		}
		status, claims := userinfo(t, p, at)
		if status != 200 || claims["sub"] != "auth0|65f0a1ada0000000000000a1" || claims["email"] != "ada@example.com" || claims["iss"] != nil {
			t.Errorf("%s: userinfo %d %v", audience, status, claims)
		}
	}
}

func TestAccessTokenForAPI(t *testing.T) {
	o, c := options(), newClock()
	o.Now = c.Now
	p := start(t, o)
	body := tokens(t, p, "ada", "audience="+api, "scope=openid read:items delete:items", "organization=org_demo")
	header, claims := open(t, body["access_token"])
	now := float64(c.Now().Unix())
	want := map[string]any{"iss": p.Issuer(), "sub": "auth0|65f0a1ada0000000000000a1", "aud": []any{api, p.Issuer() + "userinfo"}, "azp": "client", "iat": now, "exp": now + 3600,
		"scope": "openid read:items", "permissions": []any{"read:items", "write:items"}, "org_id": "org_demo"}
	if !reflect.DeepEqual(claims, want) || header["typ"] != "JWT" {
		t.Errorf("header %v, claims %v; want %v", header, claims, want)
	}
	if body["scope"] != "openid read:items" || body["expires_in"] != 3600.0 {
		t.Errorf("scope %v, expires_in %v; want what was granted", body["scope"], body["expires_in"])
	}
	if status, _ := userinfo(t, p, body["access_token"]); status != 200 {
		t.Errorf("userinfo: %d", status)
	}
	c.Advance(time.Hour)
	if status, _ := userinfo(t, p, body["access_token"]); status != 401 {
		t.Errorf("userinfo after the token's life: %d, want 401", status)
	}

	header, claims = open(t, tokens(t, p, "bob", "audience=https://rfc9068.example.com", "scope=profile offline_access")["access_token"])
	if header["typ"] != "at+jwt" || claims["client_id"] != "client" || claims["azp"] != nil || claims["jti"] == nil || claims["aud"] != "https://rfc9068.example.com" || claims["scope"] != "profile" {
		t.Errorf("the dialect of RFC 9068: header %v, claims %v", header, claims)
	}
}

func TestDefaultAudience(t *testing.T) {
	o := options()
	o.DefaultAudience = api
	p := start(t, o)
	if _, claims := open(t, tokens(t, p, "ada", "scope=profile")["access_token"]); claims["aud"] != api {
		t.Errorf("aud %v, want the default", claims["aud"])
	}
}

func TestClientCredentials(t *testing.T) {
	p := start(t, options())
	status, body := token(t, p, "grant_type=client_credentials", "audience="+api)
	if status != 200 || body["refresh_token"] != nil || body["id_token"] != nil || body["scope"] != "read:items write:items" {
		t.Fatalf("%d %v", status, body)
	}
	if _, claims := open(t, body["access_token"]); claims["sub"] != "client@clients" || claims["gty"] != "client-credentials" || claims["aud"] != api {
		t.Errorf("claims %v", claims)
	}
	for _, audience := range []string{"audience=https://x", "audience="} {
		if status, body := token(t, p, "grant_type=client_credentials", audience); status != 403 {
			t.Errorf("%s: %d %v, want 403", audience, status, body)
		}
	}
	if _, body := token(t, p, "grant_type=client_credentials", "audience="+api, "scope=read:items openid"); body["scope"] != "read:items" {
		t.Errorf("scope %v, want read:items", body["scope"])
	}
}

func refresh(t *testing.T, p *devprovider.Server, rt any, fields ...string) (int, map[string]any) {
	t.Helper()
	s, _ := rt.(string)
	return token(t, p, append([]string{"grant_type=refresh_token", "refresh_token=" + s}, fields...)...)
}

func TestRefreshTokenNeedsScopeAndOfflineAPI(t *testing.T) {
	p := start(t, options())
	for _, row := range []struct {
		name    string
		changes []string
		want    bool
	}{
		{"with the scope", nil, true},
		{"without the scope", []string{"scope=openid"}, false},
		{"for an API that allows it", []string{"audience=" + api}, true},
		{"for an API that does not", []string{"audience=https://rfc9068.example.com"}, false},
	} {
		if got := tokens(t, p, "ada", row.changes...)["refresh_token"] != nil; got != row.want {
			t.Errorf("%s: there is a refresh token: %t, want %t", row.name, got, row.want)
		}
	}
}

func TestRefreshedIDTokenIsThinner(t *testing.T) {
	p := start(t, options())
	first := tokens(t, p, "ada", "max_age=100", "acr_values=http://schemas.openid.net/pape/policies/2007/06/multi-factor")
	status, body := refresh(t, p, first["refresh_token"])
	if status != 200 {
		t.Fatalf("%d %v", status, body)
	}
	_, before := open(t, first["id_token"])
	_, claims := open(t, body["id_token"])
	for _, name := range []string{"sid", "nonce", "auth_time", "acr", "amr"} {
		if before[name] == nil || claims[name] != nil {
			t.Errorf("%s is %v at login and %v after a refresh, want it only at login", name, before[name], claims[name])
		}
	}
	if claims["sub"] != before["sub"] || claims["aud"] != "client" || claims["email"] != "ada@example.com" || body["refresh_token"] == first["refresh_token"] {
		t.Errorf("claims %v, want the same user and a new refresh token", claims)
	}
}

func TestRefreshSaysTheLatest(t *testing.T) {
	p := start(t, options())
	rt := tokens(t, p, "ada")["refresh_token"]
	ada := devprovider.DemoUsers()[0]
	ada.Groups = []string{"retired"}
	if err := p.SetUser(ada); err != nil {
		t.Fatal(err)
	}
	status, body := refresh(t, p, rt)
	if status != 200 {
		t.Fatalf("%d %v", status, body)
	}
	if _, claims := open(t, body["id_token"]); !reflect.DeepEqual(claims["groups"], []any{"retired"}) {
		t.Errorf("groups %v, want the new ones", claims["groups"])
	}
	ada.Blocked = true
	if err := p.SetUser(ada); err != nil {
		t.Fatal(err)
	}
	if status, got := refresh(t, p, body["refresh_token"]); status != 403 || got["error"] != "invalid_grant" {
		t.Errorf("of a blocked user: %d %v, want 403 invalid_grant", status, got)
	}
	if status, _ := userinfo(t, p, body["access_token"]); status != 401 {
		t.Errorf("userinfo of a blocked user: %d, want 401", status)
	}
}

func TestRefreshCanNarrowTheScope(t *testing.T) {
	p := start(t, options())
	_, body := refresh(t, p, tokens(t, p, "ada")["refresh_token"], "scope=openid admin")
	if body["scope"] != "openid" {
		t.Errorf("scope %v, want openid", body["scope"])
	}
}

func TestRefreshTokenUsedAgainEndsTheFamily(t *testing.T) {
	p := start(t, options())
	first := tokens(t, p, "ada")["refresh_token"]
	_, second := refresh(t, p, first)
	if status, _ := refresh(t, p, first); status != 403 {
		t.Errorf("the first token again: %d, want 403", status)
	}
	if status, _ := refresh(t, p, second["refresh_token"]); status != 403 {
		t.Errorf("the newest token after that: %d, want 403", status)
	}
	if status, _ := userinfo(t, p, second["access_token"]); status != 401 {
		t.Errorf("userinfo after that: %d, want 401", status)
	}
	if p.ReusedRefreshTokens() != 1 || p.Refreshes() != 3 {
		t.Errorf("%d reused, %d refreshes; want 1 and 3", p.ReusedRefreshTokens(), p.Refreshes())
	}
}

func TestRefreshLeeway(t *testing.T) {
	for _, row := range []struct {
		name string
		wait time.Duration
		more bool // another rotation in between
		good bool
	}{
		{"the token before within the leeway", 9 * time.Second, false, true},
		{"the token before after the leeway", 10 * time.Second, false, false},
		{"the token before that within the leeway", 0, true, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			o, c := options(), newClock()
			o.Now, o.Clients[0].Leeway = c.Now, 10*time.Second
			p := start(t, o)
			first := tokens(t, p, "ada")["refresh_token"]
			_, second := refresh(t, p, first)
			if row.more {
				refresh(t, p, second["refresh_token"])
			}
			c.Advance(row.wait)
			status, third := refresh(t, p, first)
			if (status == 200) != row.good {
				t.Fatalf("%d %v, want it to work: %t", status, third, row.good)
			}
			if !row.good {
				return
			}
			for _, rt := range []any{second["refresh_token"], third["refresh_token"]} {
				if status, _ := refresh(t, p, rt); status != 200 {
					t.Errorf("a token of the two that came of it: %d, want 200", status)
				}
			}
		})
	}
}

func TestRefreshTokenLifetimeIsNotExtended(t *testing.T) {
	o, c := options(), newClock()
	o.Now, o.Clients[0].RefreshLifetime = c.Now, time.Hour
	p := start(t, o)
	rt := tokens(t, p, "ada")["refresh_token"]
	c.Advance(40 * time.Minute)
	status, body := refresh(t, p, rt)
	if status != 200 {
		t.Fatalf("%d %v", status, body)
	}
	c.Advance(20 * time.Minute)
	if status, _ := refresh(t, p, body["refresh_token"]); status != 403 {
		t.Errorf("an hour after the login: %d, want 403", status)
	}
}

func TestRefreshWithoutRotation(t *testing.T) {
	o := options()
	o.Clients[0].NoRotation = true
	p := start(t, o)
	rt := tokens(t, p, "ada")["refresh_token"]
	for range 3 {
		if status, body := refresh(t, p, rt); status != 200 || body["refresh_token"] != nil {
			t.Errorf("%d %v, want 200 without a new refresh token", status, body)
		}
	}
}

func TestRefreshTokenOfAnotherClient(t *testing.T) {
	o := options()
	o.Clients = append(o.Clients, devprovider.Client{ID: "other", Secret: "x"})
	p := start(t, o)
	rt := tokens(t, p, "ada")["refresh_token"]
	if status, _ := refresh(t, p, rt, "client_id=other", "client_secret=x"); status != 403 {
		t.Errorf("%d, want 403", status)
	}
	if status, _ := refresh(t, p, rt); status != 200 {
		t.Errorf("its own client afterwards: %d, want 200", status)
	}
}

func TestRevocationEndsTheGrant(t *testing.T) {
	o := options()
	o.Clients = append(o.Clients, devprovider.Client{ID: "other", Secret: "x"})
	p := start(t, o)
	rt := tokens(t, p, "ada")["refresh_token"].(string)
	revoke := func(form url.Values) int {
		res, err := http.PostForm(p.Issuer()+"oauth/revoke", form)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if status := revoke(url.Values{"token": {rt}}); status != 401 {
		t.Errorf("without authentication: %d, want 401", status)
	}
	if status := revoke(url.Values{"token": {rt}, "client_id": {"other"}, "client_secret": {"x"}}); status != 200 {
		t.Errorf("by another client: %d, want 200", status)
	}
	status, body := refresh(t, p, rt)
	if status != 200 {
		t.Fatalf("it worked for another client: %d %v", status, body)
	}
	rt = body["refresh_token"].(string)
	if status := revoke(url.Values{"token": {rt}, "client_id": {"client"}, "client_secret": {"s3cret %&+ é"}}); status != 200 {
		t.Errorf("by its client: %d, want 200", status)
	}
	if status, _ := refresh(t, p, rt); status != 403 {
		t.Errorf("refreshing after revocation: %d, want 403", status)
	}
}

func TestUserinfoRefuses(t *testing.T) {
	p := start(t, options())
	for _, at := range []any{"", "x", tokens(t, p, "ada", "scope=email")["access_token"], tokens(t, p, "ada")["id_token"]} {
		if status, body := userinfo(t, p, at); status != 401 || body["error"] != "invalid_token" {
			t.Errorf("%d %v, want 401", status, body)
		}
	}
}
