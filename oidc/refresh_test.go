package oidc_test

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"testing"
	"time"

	"authproxy/oidc"
)

// loginForRefresh signs Ada in with everything that a refresh may leave out.
func loginForRefresh(t *testing.T, p *provider, rp *oidc.RelyingParty) *oidc.Tokens {
	t.Helper()
	p.claims = all(set("acr", "mfa"), set("auth_time", start.Add(-time.Minute).Unix()), set("session_expiry", start.Add(8*time.Hour).Unix()), set("org_id", "org_7"))
	tokens, err := p.login(rp, oidc.AuthRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// oidcc-client-test-refresh-token.
func TestRefreshKeepsWhatTheProviderLeavesOut(t *testing.T) {
	p := newProvider(t)
	rp := p.party(func(c *oidc.Config) { c.KeepClaims = []string{"level"} })
	before := loginForRefresh(t, p, rp)
	asBefore := *before
	p.sleep(time.Hour)
	minimal := all(set("sid", nil), set("email", "ada@new.example"), set("groups", []any{"staff"}), set("level", 2))

	for _, row := range []struct {
		name   string
		claims func(object)
		answer func(object)
		change func(want *oidc.Tokens)
	}{
		{"without sid, acr, auth_time, session_expiry", minimal, nil, func(want *oidc.Tokens) {
			want.Identity.Email, want.Identity.Groups, want.Identity.Claims, want.Identity.Organization = "ada@new.example", []string{"staff"}, map[string]any{"level": 2.0}, ""
		}},
		{"without a refresh token", nil, set("refresh_token", nil), func(want *oidc.Tokens) { want.RefreshToken, want.Identity.Organization = "refresh-1", "" }},
		{"without an ID token", nil, set("id_token", nil), func(want *oidc.Tokens) { want.IDToken = before.IDToken }},
		{"with fewer scopes", nil, all(set("id_token", nil), set("scope", "openid")), func(want *oidc.Tokens) { want.IDToken, want.Identity.Scopes = before.IDToken, []string{"openid"} }},
		{"with the nonce of the login", func(c object) { c["nonce"] = before.Nonce }, nil, func(want *oidc.Tokens) { want.Identity.Organization = "" }},
		{"with another acr", all(set("acr", "pwd"), set("org_id", "org_7")), nil, func(want *oidc.Tokens) { want.Identity.ACR = "pwd" }},
		{"with an auth_time that looks newer", all(set("auth_time", start.Add(30*time.Minute).Unix()), set("org_id", "org_7")), nil, func(*oidc.Tokens) {}},
		{"with an earlier auth_time", all(set("auth_time", start.Add(-time.Hour).Unix()), set("org_id", "org_7")), nil, func(want *oidc.Tokens) { want.Identity.AuthTime = start.Add(-time.Hour).Local() }},
		{"with another session_expiry", all(set("session_expiry", start.Add(2*time.Hour).Unix()), set("org_id", "org_7")), nil, func(want *oidc.Tokens) { want.SessionExpiry = start.Add(2 * time.Hour).Local() }},
	} {
		t.Run(row.name, func(t *testing.T) {
			p.refreshClaims, p.refreshAnswer = row.claims, row.answer
			got, err := rp.Refresh(context.Background(), "refresh-1", before)
			if err != nil {
				t.Fatal(err)
			}
			want := *before
			want.AccessToken, want.RefreshToken, want.IDToken, want.AccessExpiry = "access-2", "refresh-2", got.IDToken, start.Add(time.Hour+10*time.Minute)
			row.change(&want)
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("Refresh =\n%+v, want\n%+v", *got, want)
			}
			if !reflect.DeepEqual(*before, asBefore) {
				t.Error("Refresh changed the tokens of before")
			}
			f := p.form("token")
			if f.Get("refresh_token") != "refresh-1" || f.Has("redirect_uri") || f.Has("scope") {
				t.Errorf("form = %v", f)
			}
		})
	}
}

// fapi2-security-profile-final-client-refresh-token-test; oidcc-client-test-refresh-token-invalid-issuer, -invalid-sub.
func TestRefreshedIDTokensMustBeOfTheSameLogin(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(p *provider)
		want   string
	}{
		{"oidcc refresh-token-invalid-issuer", func(p *provider) { p.refreshClaims = set("iss", p.issuer+"1") }, "invalid token_issuer"},
		{"oidcc refresh-token-invalid-sub", func(p *provider) { p.refreshClaims = set("sub", "auth0|bob") }, "invalid subject"},
		{"no sub", func(p *provider) { p.refreshClaims = set("sub", nil) }, "invalid subject"},
		{"aud of another", func(p *provider) { p.refreshClaims = set("aud", "other") }, "invalid audience"},
		{"another nonce", func(p *provider) { p.refreshClaims = set("nonce", "n") }, "invalid nonce"},
		{"nonce empty", func(p *provider) { p.refreshClaims = set("nonce", "") }, "invalid nonce"},
		{"nonce a list", func(p *provider) { p.refreshClaims = set("nonce", []any{"n"}) }, "invalid nonce"},
		{"a nonce empty like that of before", func(p *provider) { p.refreshClaims = set("nonce", "") }, "invalid nonce"},
		{"expired", func(p *provider) { p.refreshClaims = set("exp", start.Unix()) }, "invalid expired"},
		{"no iat", func(p *provider) { p.refreshClaims = set("iat", nil) }, "invalid issued_at"},
		{"iat in the future", func(p *provider) { p.refreshClaims = set("iat", start.Add(2*time.Hour).Unix()) }, "invalid issued_at"},
		{"another organization", func(p *provider) { p.refreshClaims = set("org_id", "org_8") }, "invalid organization"},
		{"session_expiry passed", func(p *provider) { p.refreshClaims = set("session_expiry", start.Unix()) }, "invalid expired"},
		{"at_hash of the first access token", func(p *provider) { p.refreshClaims = set("at_hash", "MTIzNDU2Nzg5MDEyMzQ1Ng") }, "invalid at_hash"},
		{"another key", func(p *provider) { p.key = rsaKey(2) }, "invalid signature"},
		{"typ of a logout token", func(p *provider) { p.header = set("typ", "logout+jwt") }, "invalid token_type"},
		{"HS256", func(p *provider) { p.header, p.key = set("alg", "HS256"), []byte(clientSecret) }, "misconfigured alg_hs256"},
		{"userinfo of another", func(p *provider) { p.userinfo = set("sub", "auth0|bob") }, "invalid userinfo"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			rp := p.party(func(c *oidc.Config) { c.Userinfo = true })
			before := loginForRefresh(t, p, rp)
			p.sleep(time.Hour)
			row.change(p)
			if row.name == "a nonce empty like that of before" {
				before.Nonce = ""
			}
			got, err := rp.Refresh(context.Background(), "refresh-1", before)
			wantReason(t, "Refresh", err, row.want)
			if got != nil || errors.Is(err, oidc.ErrInvalidGrant) {
				t.Errorf("Refresh = %v, %v", got, err)
			}
		})
	}
}

func TestRefreshTellsARefusedTokenFromAnOutage(t *testing.T) {
	rfc := func(code string) object {
		return object{"error": code, "error_description": "Unknown or invalid refresh token."}
	}
	for _, row := range []struct {
		name    string
		instead http.HandlerFunc
		want    string
		grant   bool
	}{
		{"403 invalid_grant", fail(403, rfc("invalid_grant")), "invalid invalid_grant", true},
		{"mfa_required", fail(403, rfc("mfa_required")), "invalid login_required", true},
		{"401 mfa_required", fail(401, rfc("mfa_required")), "invalid login_required", true},
		{"interaction_required", fail(400, rfc("interaction_required")), "invalid login_required", true},
		{"an Action denies", fail(403, rfc("access_denied")), "invalid login_required", true},
		{"refused client credentials", fail(401, rfc("access_denied")), "misconfigured client_auth", false},
		{"invalid_client", fail(401, rfc("invalid_client")), "misconfigured client_auth", false},
		{"429", fail(429, nil), "unavailable refresh", false},
		{"502", fail(502, nil), "unavailable refresh", false},
		{"cut", cut, "unavailable refresh", false},
		{"an HTML page", raw("<html>"), "invalid malformed", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			rp := p.party()
			before := loginForRefresh(t, p, rp)
			p.instead["token"] = row.instead
			_, err := rp.Refresh(context.Background(), "refresh-1", before)
			wantReason(t, "Refresh", err, row.want)
			if errors.Is(err, oidc.ErrInvalidGrant) != row.grant {
				t.Errorf("error %v wraps ErrInvalidGrant: %v, want %v", err, !row.grant, row.grant)
			}
			if n := p.count("token"); n != 2 {
				t.Errorf("%d token requests, want 2", n)
			}
		})
	}
}

func TestARefreshTokenIsNotSentToAnotherIssuer(t *testing.T) {
	p := newProvider(t)
	rp := p.party()
	before := loginForRefresh(t, p, rp)
	before.Identity.Issuer = "https://former.example/"
	_, err := rp.Refresh(context.Background(), "refresh-1", before)
	wantReason(t, "Refresh", err, "invalid issuer_mismatch")
	_, err = rp.Refresh(context.Background(), "", loginForRefresh(t, p, rp))
	wantReason(t, "Refresh without a token", err, "invalid invalid_grant")
	mustBeGrant(t, err)
	if n := p.count("token"); n != 2 {
		t.Errorf("%d token requests, want those of the 2 logins", n)
	}
}

// The old refresh token is spent, so the new one must not be lost.
func TestRefreshKeepsTheNewTokensThroughAnOutageOfTheRest(t *testing.T) {
	for _, endpoint := range []string{"keys", "userinfo"} {
		p := newProvider(t)
		rp := p.party(func(c *oidc.Config) { c.Userinfo = true })
		before := loginForRefresh(t, p, rp)
		p.instead[endpoint] = fail(500, nil)
		p.key, p.header = rsaKey(0), nil
		if endpoint == "keys" {
			p.key, p.header = rsaKey(2), set("kid", "k2")
		}
		p.refreshClaims = set("groups", []any{"root"})
		got, err := rp.Refresh(context.Background(), "refresh-1", before)
		if err != nil {
			t.Errorf("%s: %v", endpoint, err)
			continue
		}
		if got.RefreshToken != "refresh-2" || got.AccessToken != "access-2" || got.IDToken != before.IDToken || !reflect.DeepEqual(got.Identity, before.Identity) {
			t.Errorf("%s: Refresh = %+v", endpoint, got)
		}

		p.refreshClaims = set("sub", "auth0|bob")
		_, err = rp.Refresh(context.Background(), "refresh-1", before)
		wantReason(t, endpoint+" down and another user", err, "invalid subject")
	}
}

func TestRefreshDoesNotStopWhenItsCallerLeaves(t *testing.T) {
	p := newProvider(t)
	rp := p.party()
	before := loginForRefresh(t, p, rp)
	ctx, cancel := context.WithCancel(context.Background())
	p.instead["token"] = func(w http.ResponseWriter, r *http.Request) {
		cancel()
		reply(w, object{"access_token": "access-2", "refresh_token": "refresh-2", "token_type": "Bearer"})
	}
	got, err := rp.Refresh(ctx, "refresh-1", before)
	if err != nil || got.RefreshToken != "refresh-2" {
		t.Errorf("Refresh = %+v, %v", got, err)
	}
}
