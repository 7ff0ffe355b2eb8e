package oidc_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"authproxy/oidc"
)

const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// logoutToken is a logout token as Auth0 sends it.
func (p *provider) logoutToken(hook func(object)) string {
	now := p.now().Unix()
	return p.sign(change(object{"iss": p.issuer, "aud": clientID, "iat": now, "exp": now + 120, "jti": "j1", "sub": "auth0|ada", "sid": "sid-1",
		"events": object{logoutEvent: object{}}, "trace_id": "t"}, hook))
}

// OIDC Back-Channel Logout §2.4, §2.6; LGO-01, 02. The names of rows from the conformance suite are those of its modules.
func TestLogoutTokensAreCheckedStrictly(t *testing.T) {
	ago := func(d time.Duration) int64 { return start.Add(-d).Unix() }
	claim := func(name string, v any) func(p *provider) string {
		return func(p *provider) string { return p.logoutToken(set(name, v)) }
	}
	header := func(hook func(object), key any) func(p *provider) string {
		return func(p *provider) string {
			p.header, p.key = hook, key
			return p.logoutToken(nil)
		}
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(&rsaKey(0).PublicKey))})
	for _, row := range []struct {
		name  string
		token func(p *provider) string
		want  string
	}{
		{"as Auth0 sends it", claim("x", "y"), "ok"},
		{"typ logout+jwt", header(set("typ", "logout+jwt"), rsaKey(0)), "ok"},
		{"no typ", header(set("typ", nil), rsaKey(0)), "ok"},
		{"sub alone", claim("sid", nil), "ok"},
		{"sid alone", claim("sub", nil), "ok"},
		{"event with members", claim("events", object{logoutEvent: object{"x": 1}, "other": 1}), "ok"},
		{"iat within the leeway", claim("iat", ago(-59*time.Second)), "ok"},
		{"iat three minutes ago", func(p *provider) string {
			return p.logoutToken(all(set("iat", ago(3*time.Minute)), set("exp", ago(-2*time.Minute))))
		}, "ok"},

		{"oidcc rp-backchannel -alg-none", header(set("alg", "none"), nil), "invalid algorithm"},
		{"oidcc rp-backchannel -wrong-alg", header(all(set("alg", "ES256"), set("kid", "ec")), ecKey()), "invalid algorithm"},
		{"HS256 with the public key", header(set("alg", "HS256"), public), "invalid algorithm"},
		{"HS256 with the client secret", header(set("alg", "HS256"), []byte(clientSecret)), "invalid algorithm"},
		{"another key", header(nil, rsaKey(2)), "invalid signature"},
		{"unknown kid", header(set("kid", "unknown"), rsaKey(2)), "invalid signature"},
		{"its own key in the header", header(set("jwk", rsaJWK("k0", rsaKey(2))), rsaKey(2)), "invalid signature"},
		{"typ of an access token", header(set("typ", "at+jwt"), rsaKey(0)), "invalid token_type"},
		{"crit", header(set("crit", []any{"x"}), rsaKey(0)), "invalid malformed"},
		{"oidcc rp-backchannel -no-event", claim("events", nil), "invalid token_type"},
		{"oidcc rp-backchannel -wrong-event", claim("events", object{logoutEvent + "/foobar": object{}}), "invalid token_type"},
		{"events a list", claim("events", []any{logoutEvent}), "invalid token_type"},
		{"events a string", claim("events", logoutEvent), "invalid token_type"},
		{"events null", claim("events", json.RawMessage("null")), "invalid token_type"},
		{"event null", claim("events", object{logoutEvent: nil}), "invalid token_type"},
		{"event a string", claim("events", object{logoutEvent: "x"}), "invalid token_type"},
		{"event twice", claim("events", json.RawMessage(`{"`+logoutEvent+`":{},"`+logoutEvent+`":{}}`)), "invalid token_type"},
		{"oidcc rp-backchannel -with-nonce", claim("nonce", "n"), "invalid token_type"},
		{"nonce null", claim("nonce", json.RawMessage("null")), "invalid token_type"},
		{"oidcc rp-backchannel -wrong-aud", claim("aud", clientID+"INVALID"), "invalid audience"},
		{"no aud", claim("aud", nil), "invalid audience"},
		{"aud with another", claim("aud", []any{clientID, "other"}), "invalid audience"},
		{"oidcc rp-backchannel -wrong-iss", func(p *provider) string { return p.logoutToken(set("iss", p.issuer+"INVALID")) }, "invalid issuer_mismatch"},
		{"iss without its slash", func(p *provider) string { return p.logoutToken(set("iss", strings.TrimSuffix(p.issuer, "/"))) }, "invalid token_issuer"},
		{"no iss", claim("iss", nil), "invalid issuer_mismatch"},
		{"no jti", claim("jti", nil), "invalid malformed"},
		{"jti empty", claim("jti", ""), "invalid malformed"},
		{"jti a number", claim("jti", 1), "invalid malformed"},
		{"jti of 1 KB", claim("jti", strings.Repeat("j", 1024)), "invalid malformed"},
		{"no iat", claim("iat", nil), "invalid issued_at"},
		{"iat in the future", claim("iat", ago(-61*time.Second)), "invalid issued_at"},
		{"iat four minutes ago", claim("iat", ago(4*time.Minute)), "invalid issued_at"},
		{"no exp", claim("exp", nil), "invalid expired"},
		{"exp passed", claim("exp", ago(time.Minute)), "invalid expired"},
		{"exp in a year", claim("exp", ago(-365*24*time.Hour)), "invalid expired"},
		{"exp a string", claim("exp", "9999999999"), "invalid malformed"},
		{"neither sub nor sid", func(p *provider) string { return p.logoutToken(all(set("sub", nil), set("sid", nil))) }, "invalid subject"},
		{"sub empty and a sid", claim("sub", ""), "invalid subject"},
		{"sub a list", claim("sub", []any{"x"}), "invalid subject"},
		{"sid a list", claim("sid", []any{"x"}), "invalid malformed"},
		{"sid empty and a sub", claim("sid", ""), "invalid malformed"},
		{"Events beside events", claim("Events", object{}), "invalid malformed"},
		{"an ID token", func(p *provider) string { return p.idToken("n", nil) }, "invalid token_type"},
		{"an ID token without nonce", func(p *provider) string { return p.idToken("", nil) }, "invalid token_type"},
		{"empty", func(*provider) string { return "" }, "invalid malformed"},
		{"garbage", func(*provider) string { return "garbage" }, "invalid malformed"},
		{"a megabyte of dots", func(*provider) string { return strings.Repeat(".", 1<<20) }, "invalid malformed"},
		{"a JWE", func(*provider) string { return "eyJhbGciOiJQQkVTMi1IUzI1NitBMTI4S1cifQ.a.b.c.d" }, "invalid malformed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			rp := p.party()
			token := row.token(p)
			got, err := rp.VerifyLogoutToken(context.Background(), token)
			wantReason(t, "VerifyLogoutToken", err, row.want)
			if (got != nil) != (err == nil) {
				t.Errorf("VerifyLogoutToken = %+v, %v", got, err)
			}
			if fetched := p.count("keys") > 0; fetched != (row.want == "ok" || row.want == "invalid signature") {
				t.Errorf("keys fetched: %v", fetched)
			}
		})
	}
}

func TestALogoutTokenNamesWhatEnds(t *testing.T) {
	p := newProvider(t)
	got, err := p.party().VerifyLogoutToken(context.Background(), p.logoutToken(nil))
	want := oidc.LogoutToken{Issuer: p.issuer, Subject: "auth0|ada", SessionID: "sid-1", ID: "j1", IssuedAt: start.Local(), Expires: start.Add(2 * time.Minute).Local()}
	if err != nil || *got != want {
		t.Errorf("VerifyLogoutToken = %+v, %v, want %+v", got, err, want)
	}
}

// Whoever posts garbage to us does not make us call the provider.
func TestGarbageIsRefusedWithoutTheProvider(t *testing.T) {
	p := newProvider(t)
	rp := p.party()
	for _, token := range []string{"", "a.b.c", p.logoutToken(set("aud", "other")), p.logoutToken(set("exp", 1)), p.logoutToken(set("iss", "https://evil.example/"))} {
		if _, err := rp.VerifyLogoutToken(context.Background(), token); err == nil {
			t.Errorf("%.20q was accepted", token)
		}
	}
	if n := p.count("discovery") + p.count("keys"); n != 0 {
		t.Errorf("%d requests, want 0", n)
	}
	p.instead["discovery"] = fail(500, nil)
	_, err := rp.VerifyLogoutToken(context.Background(), p.logoutToken(nil))
	wantReason(t, "a good token while the provider is down", err, "unavailable discovery")
}

func TestLogoutURL(t *testing.T) {
	const back = "https://app.example.com/auth/?a=b c"
	v2 := func(q url.Values) string { return "v2/logout?" + q.Encode() }
	for _, row := range []struct {
		name       string
		cfg        func(c *oidc.Config)
		discovery  func(object)
		undetected bool
		back, sid  string
		want       string // after the issuer; "-" for none
	}{
		{"auto takes end_session_endpoint", func(*oidc.Config) {}, nil, false, back, "sid-1",
			"logout?" + url.Values{"client_id": {clientID}, "post_logout_redirect_uri": {back}, "logout_hint": {"sid-1"}}.Encode()},
		{"auto with nothing to say", func(*oidc.Config) {}, nil, false, "", "", "logout?client_id=client-1"},
		{"auto of Auth0 without end_session_endpoint", func(c *oidc.Config) { c.Auth0 = true }, set("end_session_endpoint", nil), false, back, "sid-1",
			v2(url.Values{"client_id": {clientID}, "returnTo": {back}})},
		{"auto of Auth0 before discovery", func(c *oidc.Config) { c.Auth0 = true }, nil, true, back, "", v2(url.Values{"client_id": {clientID}, "returnTo": {back}})},
		{"auto of another without end_session_endpoint", func(*oidc.Config) {}, set("end_session_endpoint", nil), false, back, "sid-1", "-"},
		{"auto of another before discovery", func(*oidc.Config) {}, nil, true, back, "sid-1", "-"},
		{"auth0", func(c *oidc.Config) { c.Logout = "auth0" }, nil, false, "", "", v2(url.Values{"client_id": {clientID}})},
		{"auth0, federated", func(c *oidc.Config) { c.Logout, c.Federated = "auth0", true }, nil, false, back, "",
			v2(url.Values{"client_id": {clientID}, "returnTo": {back}, "federated": {""}})},
		{"oidc, federated", func(c *oidc.Config) { c.Logout, c.Federated = "oidc", true }, nil, false, "", "", "logout?client_id=client-1&federated="},
		{"oidc before discovery", func(c *oidc.Config) { c.Logout = "oidc" }, nil, true, back, "", "-"},
		{"oidc without end_session_endpoint", func(c *oidc.Config) { c.Logout, c.Auth0 = "oidc", true }, set("end_session_endpoint", nil), false, back, "", "-"},
		{"local", func(c *oidc.Config) { c.Logout, c.Auth0 = "local", true }, nil, false, back, "sid-1", "-"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			p.discovery = row.discovery
			rp := p.party(row.cfg)
			if !row.undetected {
				if _, _, err := rp.Start(context.Background(), oidc.AuthRequest{}); err != nil {
					t.Fatal(err)
				}
			}
			before := p.count("discovery")
			want := p.issuer + row.want
			if row.want == "-" {
				want = ""
			}
			if got := rp.LogoutURL(context.Background(), row.back, row.sid); got != want {
				t.Errorf("LogoutURL = %q, want %q", got, want)
			}
			if p.count("discovery") != before {
				t.Error("LogoutURL used the network")
			}
		})
	}
	t.Run("end_session_endpoint with a query", func(t *testing.T) {
		p := newProvider(t)
		p.discovery = set("end_session_endpoint", p.issuer+"logout?p=policy")
		rp := p.party()
		if _, _, err := rp.Start(context.Background(), oidc.AuthRequest{}); err != nil {
			t.Fatal(err)
		}
		if got, want := rp.LogoutURL(context.Background(), "", ""), p.issuer+"logout?p=policy&client_id=client-1"; got != want {
			t.Errorf("LogoutURL = %q, want %q", got, want)
		}
	})
}

func TestRevoke(t *testing.T) {
	p := newProvider(t)
	rp := p.party(func(c *oidc.Config) { c.ClientAuth = "post" })
	if err := rp.Revoke(context.Background(), "refresh-1"); err != nil {
		t.Fatal(err)
	}
	f := p.form("revocation")
	if f.Get("token") != "refresh-1" || f.Get("token_type_hint") != "refresh_token" || f.Get("client_id") != clientID || f.Get("client_secret") != clientSecret {
		t.Errorf("form = %v", f)
	}
	if err := rp.Revoke(context.Background(), ""); err != nil || p.count("revocation") != 1 {
		t.Errorf("Revoke of nothing = %v, %d requests", err, p.count("revocation"))
	}
	for want, answer := range map[string]http.HandlerFunc{
		"unavailable revocation":    fail(503, nil),
		"misconfigured client_auth": fail(401, object{"error": "invalid_client"}),
		"invalid token_refused":     fail(400, object{"error": "unsupported_token_type"}),
	} {
		p.instead["revocation"] = answer
		wantReason(t, "Revoke", rp.Revoke(context.Background(), "refresh-1"), want)
	}
	p = newProvider(t)
	p.discovery = set("revocation_endpoint", nil)
	if err := p.party().Revoke(context.Background(), "refresh-1"); err != nil {
		t.Errorf("Revoke without an endpoint = %v", err)
	}
}

func TestRevokeWaitsAtMostTwoSeconds(t *testing.T) {
	p := newProvider(t)
	synctest.Test(t, func(t *testing.T) {
		rp := p.party(func(c *oidc.Config) { c.Now = time.Now })
		rp.SetTransport(direct{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/revoke" {
				p.ServeHTTP(w, r)
				return
			}
			<-r.Context().Done()
			w.WriteHeader(500)
		})})
		began := time.Now()
		wantReason(t, "Revoke", rp.Revoke(t.Context(), "refresh-1"), "unavailable revocation")
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("Revoke took %s, want 2s", took)
		}
	})
}

// BenchmarkVerifyLogoutToken is the cost of one token with all checks and keys at hand; that of an ID token is the same.
func BenchmarkVerifyLogoutToken(b *testing.B) {
	p := newProvider(b)
	rp := p.party()
	token := p.logoutToken(nil)
	for b.Loop() {
		if _, err := rp.VerifyLogoutToken(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
