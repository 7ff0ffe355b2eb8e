package oidc_test

import (
	"fmt"
	"net/http"
	"testing"

	"authproxy/oidc"
)

// oidcc-client-test-userinfo-invalid-sub; TOK-17.
func TestUserinfoMustBeOfTheSameUser(t *testing.T) {
	for _, row := range []struct {
		name    string
		change  func(object)
		instead http.HandlerFunc
		want    string
	}{
		{"of the same user", nil, nil, "ok"},
		{"oidcc-client-test-userinfo-invalid-sub", set("sub", "auth0|adainvalid"), nil, "invalid userinfo"},
		{"sub missing", set("sub", nil), nil, "invalid userinfo"},
		{"sub a list", set("sub", []any{"auth0|ada"}), nil, "invalid userinfo"},
		{"sub in another case", set("sub", "auth0|Ada"), nil, "invalid userinfo"},
		{"Sub beside sub", set("Sub", "auth0|evil"), nil, "invalid userinfo"},
		{"sub twice", nil, raw(`{"sub":"auth0|bob","sub":"auth0|ada"}`), "invalid userinfo"},
		{"oidcc-client-test-userinfo-signed", nil, raw("eyJhbGciOiJSUzI1NiJ9.e30.AA"), "invalid userinfo"},
		{"an HTML page", nil, raw("<html>"), "invalid userinfo"},
		{"401", nil, fail(401, nil), "invalid userinfo"},
		{"403", nil, fail(403, nil), "invalid userinfo"},
		{"302", nil, fail(302, nil, "Location", "/"), "invalid userinfo"},
		{"500", nil, fail(500, nil), "unavailable userinfo"},
		{"429", nil, fail(429, nil), "unavailable userinfo"},
		{"connection cut", nil, cut, "unavailable userinfo"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			p.userinfo, p.instead["userinfo"] = row.change, row.instead
			_, err := p.login(p.party(func(c *oidc.Config) { c.Userinfo = true }), oidc.AuthRequest{})
			wantReason(t, "login", err, row.want)
		})
	}
}

// oidcc-client-test-userinfo-bearer-header.
func TestUserinfoGetsTheAccessTokenInTheHeaderOnly(t *testing.T) {
	p := newProvider(t)
	if _, err := p.login(p.party(func(c *oidc.Config) { c.Userinfo = true }), oidc.AuthRequest{}); err != nil {
		t.Fatal(err)
	}
	if got := p.heads["userinfo"].Get("Authorization"); got != "Bearer access-1" || len(p.form("userinfo")) != 0 || p.count("userinfo") != 1 {
		t.Errorf("Authorization = %q, form = %v, %d requests", got, p.form("userinfo"), p.count("userinfo"))
	}
}

func TestUserinfoIsNotAskedAboutABadIDToken(t *testing.T) {
	p := newProvider(t)
	p.key = rsaKey(2)
	_, err := p.login(p.party(func(c *oidc.Config) { c.Userinfo = true }), oidc.AuthRequest{})
	wantReason(t, "login", err, "invalid signature")
	if n := p.count("userinfo"); n != 0 {
		t.Errorf("%d userinfo requests, want 0", n)
	}
}

func TestUserinfoAddsClaimsAndReplacesNone(t *testing.T) {
	both := func(email string, verified any) func(object) {
		return all(set("email", email), set("email_verified", verified))
	}
	for _, row := range []struct {
		name         string
		id, userinfo func(object)
		want         string // e-mail, verified, name, groups, organization, acr, kept claims
	}{
		{"groups", set("groups", nil), nil, "ada@example.com true Ada Lovelace [from-userinfo]   map[]"},
		{"groups of the ID token stay", nil, nil, "ada@example.com true Ada Lovelace [admins staff]   map[]"},
		{"a kept claim", nil, set("department", "research"), "ada@example.com true Ada Lovelace [admins staff]   map[department:research]"},
		{"name of the ID token stays", nil, set("name", "Eve"), "ada@example.com true Ada Lovelace [admins staff]   map[]"},
		{"e-mail and its verification", both("", nil), nil, " false Ada Lovelace [admins staff]   map[]"},
		{"both when the ID token has neither", all(set("email", nil), set("email_verified", nil)), both("ada@home.example", true), "ada@home.example true Ada Lovelace [admins staff]   map[]"},
		{"e-mail of the ID token stays", nil, both("root@example.com", true), "ada@example.com true Ada Lovelace [admins staff]   map[]"},
		{"false of the ID token stays", set("email_verified", false), both("ada@example.com", true), "ada@example.com false Ada Lovelace [admins staff]   map[]"},
		{"verification of the same address", set("email_verified", nil), both("ada@example.com", true), "ada@example.com true Ada Lovelace [admins staff]   map[]"},
		{"verification of another address", set("email_verified", nil), both("root@example.com", true), "ada@example.com false Ada Lovelace [admins staff]   map[]"},
		{"an address for a verification without one", set("email", nil), both("root@example.com", true), " false Ada Lovelace [admins staff]   map[]"},
		{"organization, acr and amr are not taken", nil, all(set("org_id", "org_7"), set("acr", "mfa"), set("amr", []any{"mfa"}), set("auth_time", start.Unix()), set("sid", "s")), "ada@example.com true Ada Lovelace [admins staff]   map[]"},
		{"iss and aud are not looked at", nil, all(set("iss", "https://evil.example/"), set("aud", "other")), "ada@example.com true Ada Lovelace [admins staff]   map[]"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			p.claims, p.userinfo = row.id, row.userinfo
			rp := p.party(func(c *oidc.Config) { c.Userinfo, c.KeepClaims = true, []string{"department", "amr"} })
			tokens, err := p.login(rp, oidc.AuthRequest{})
			if err != nil {
				t.Fatal(err)
			}
			i := tokens.Identity
			if got := fmt.Sprint(i.Email, " ", i.EmailVerified, " ", i.Name, " ", i.Groups, " ", i.Organization, " ", i.ACR, " ", i.Claims); got != row.want {
				t.Errorf("identity = %s, want %s", got, row.want)
			}
			if i.Subject != "auth0|ada" || i.Issuer != p.issuer || !i.AuthTime.IsZero() || tokens.SessionID != "sid-1" {
				t.Errorf("identity = %+v", i)
			}
		})
	}
}
