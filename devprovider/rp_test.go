package devprovider_test

import (
	"context"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"authproxy/devprovider"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// A relying party that nobody here wrote gets along with the provider, from discovery to logout.
func TestForeignRelyingParty(t *testing.T) {
	for _, row := range []struct {
		method string
		style  oauth2.AuthStyle
	}{{"post", oauth2.AuthStyleInParams}, {"basic", oauth2.AuthStyleInHeader}, {"", oauth2.AuthStyleAutoDetect}} {
		t.Run("client authentication "+row.method, func(t *testing.T) {
			var logouts []string
			rp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/backchannel" {
					logouts = append(logouts, r.PostFormValue("logout_token"))
				}
			}))
			defer rp.Close()
			o := options()
			o.Clients[0].AuthMethod, o.Clients[0].Callbacks, o.Clients[0].BackchannelURL = row.method, []string{rp.URL + "/callback"}, rp.URL+"/backchannel"
			p := start(t, o)
			p.Set(func(f *devprovider.Faults) { f.SignInAs = "zoë" })

			ctx := t.Context()
			provider, err := oidc.NewProvider(ctx, p.Issuer())
			if err != nil {
				t.Fatal(err)
			}
			endpoint := provider.Endpoint()
			endpoint.AuthStyle = row.style
			config := oauth2.Config{ClientID: "client", ClientSecret: o.Clients[0].Secret, Endpoint: endpoint, RedirectURL: rp.URL + "/callback",
				Scopes: []string{"openid", "profile", "email", "offline_access"}}
			secret := oauth2.GenerateVerifier()
			tok := login(t, config, secret)

			raw, _ := tok.Extra("id_token").(string)
			id, err := provider.Verifier(&oidc.Config{ClientID: "client"}).Verify(ctx, raw)
			if err != nil {
				t.Fatal(err)
			}
			var claims struct {
				Name, SID string
				Groups    []string
			}
			if err := id.Claims(&claims); err != nil {
				t.Fatal(err)
			}
			if id.Subject != "auth0|zoe frohlich" || id.Nonce != "a nonce" || claims.Name != "Zoë Fröhlich 🦊" || len(claims.Groups) != 2 || claims.SID != p.LastSID() {
				t.Errorf("ID token %+v with claims %+v", id, claims)
			}
			info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(tok))
			if err != nil || info.Subject != id.Subject || info.Email != "zoe@example.com" {
				t.Errorf("UserInfo = %+v, %v", info, err)
			}

			tok.Expiry = time.Now().Add(-time.Minute)
			again, err := config.TokenSource(ctx, tok).Token()
			if err != nil {
				t.Fatal(err)
			}
			p.RotateKeys()
			p.RotateKeys() // the key set must be fetched anew
			raw, _ = again.Extra("id_token").(string)
			if _, err := provider.Verifier(&oidc.Config{ClientID: "client"}).Verify(ctx, raw); err != nil {
				t.Errorf("the refreshed ID token, known key: %v", err)
			}
			tok = login(t, config, secret)
			raw, _ = tok.Extra("id_token").(string)
			if _, err := provider.Verifier(&oidc.Config{ClientID: "client"}).Verify(ctx, raw); err != nil {
				t.Errorf("an ID token of a new key: %v", err)
			}

			p.EndSession(claims.SID)
			if len(logouts) != 1 {
				t.Fatalf("%d logout tokens arrived, want 1", len(logouts))
			}
			logout, err := provider.Verifier(&oidc.Config{ClientID: "client"}).VerifyLogout(ctx, logouts[0])
			if err != nil || logout.SessionID != claims.SID || logout.Subject != id.Subject {
				t.Errorf("VerifyLogout = %+v, %v", logout, err)
			}
		})
	}
}

// login sends a browser around and redeems the code.
func login(t *testing.T, config oauth2.Config, verifier string) *oauth2.Token {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	res, err := browser.Get(config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier), oidc.Nonce("a nonce")))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	q := res.Request.URL.Query()
	if q.Get("state") != "state" {
		t.Fatalf("the browser is at %s", res.Request.URL)
	}
	tok, err := config.Exchange(context.Background(), q.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// Each of these tokens is one that a relying party must refuse; that it is refused for the right reason shows that the fault is the one meant.
func TestForeignRelyingPartySeesTheFaults(t *testing.T) {
	claim := func(name string, value any) func(*devprovider.Token) {
		return func(t *devprovider.Token) {
			if t.Claims[name] = value; value == nil {
				delete(t.Claims, name)
			}
		}
	}
	p := start(t, options())
	ctx := t.Context()
	provider, err := oidc.NewProvider(ctx, p.Issuer())
	if err != nil {
		t.Fatal(err)
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: "client", SupportedSigningAlgs: []string{"RS256"}})
	config := oauth2.Config{ClientID: "client", ClientSecret: options().Clients[0].Secret, Endpoint: provider.Endpoint(), RedirectURL: "http://127.0.0.1:9/callback", Scopes: []string{"openid"}}
	config.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	for _, row := range []struct {
		name   string
		change func(*devprovider.Token)
		says   string // "" is accepted
	}{
		{"in good health", func(*devprovider.Token) {}, ""},
		{"another issuer", claim("iss", "https://evil.example/"), "issued by a different provider"},
		{"another audience", claim("aud", "other"), `expected audience "client"`},
		{"no audience", claim("aud", nil), `expected audience "client"`},
		{"expired", claim("exp", 1000), "token is expired"},
		{"no expiry", claim("exp", nil), "token is expired"},
		{"no algorithm", func(t *devprovider.Token) { t.Header["alg"], t.Key = "none", nil }, "unexpected signature algorithm"},
		{"HMAC with the client secret", func(t *devprovider.Token) { t.Header["alg"], t.Key = "HS256", []byte("s3cret %&+ é") }, "unexpected signature algorithm"},
		{"PS256", func(t *devprovider.Token) { t.Header["alg"] = "PS256" }, "unexpected signature algorithm"},
		{"a foreign key under a known kid", func(t *devprovider.Token) { t.Key = devprovider.UnpublishedKey() }, "failed to verify"},
		{"an unknown kid", func(t *devprovider.Token) { t.Header["kid"] = "x" }, "failed to verify"},
		{"no kid", func(t *devprovider.Token) { delete(t.Header, "kid") }, ""},
		{"no JSON", func(t *devprovider.Token) { t.Payload = []byte("x") }, "failed to unmarshal"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p.Set(func(f *devprovider.Faults) {
				*f = devprovider.Faults{SignInAs: "ada", IDToken: row.change, IgnorePKCE: true}
			})
			got := answer(t, newBrowser(t, p).authorize())
			tok, err := config.Exchange(ctx, got.Get("code"))
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := tok.Extra("id_token").(string)
			_, err = verifier.Verify(ctx, raw)
			if (err == nil) != (row.says == "") || err != nil && !strings.Contains(err.Error(), row.says) {
				t.Errorf("Verify: %v, want %q", err, row.says)
			}
		})
	}
}
