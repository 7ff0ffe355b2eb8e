package oidc_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"authproxy/identity"
	"authproxy/oidc"

	"github.com/google/go-cmp/cmp"
)

const api = "https://api.example.com/"

// accessToken is an access token of the user Ada for the API, in Auth0's older form.
func (p *provider) accessToken(hook func(object)) string {
	now := p.now().Unix()
	return p.sign(change(object{"iss": p.issuer, "sub": "auth0|ada", "aud": []string{api, p.issuer + "userinfo"}, "azp": "client-2", "iat": now, "exp": now + 3600,
		"scope": "openid read:items", "permissions": []string{"read:items", "write:items"}}, hook))
}

func resource(t testing.TB, rp *oidc.RelyingParty, issuers ...string) *oidc.Resource {
	t.Helper()
	r, err := oidc.NewResource(rp, api, issuers)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAccessTokenSaysWhoAndWhatIsGranted(t *testing.T) {
	p := newProvider(t)
	rp := p.party(func(c *oidc.Config) {
		c.Claims = oidc.ClaimNames{Groups: "https://example.com/roles"}
		c.KeepClaims = []string{"department"}
	})
	got, err := resource(t, rp).Verify(t.Context(), p.accessToken(func(c object) {
		c["https://example.com/roles"], c["email"], c["email_verified"], c["name"] = []string{"admins"}, "ada@example.com", true, "Ada Lovelace"
		c["org_id"], c["department"] = "org_1", "finance"
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := &oidc.AccessToken{Expires: start.Add(time.Hour), Identity: identity.Identity{
		Issuer: p.issuer, Subject: "auth0|ada", Email: "ada@example.com", EmailVerified: true, Name: "Ada Lovelace", Groups: []string{"admins"}, Organization: "org_1",
		Permissions: []string{"read:items", "write:items"}, Scopes: []string{"openid", "read:items"}, Claims: map[string]any{"department": "finance"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the token is read differently (-want +got):\n%s", diff)
	}
}

func TestAccessTokenMayComeInManyForms(t *testing.T) {
	p := newProvider(t)
	r := resource(t, p.party())
	for _, row := range []struct {
		name   string
		claims func(object)
		typ    any
		scopes []string
	}{
		{"of Auth0", nil, "JWT", []string{"openid", "read:items"}},
		{"without typ", nil, nil, []string{"openid", "read:items"}},
		{"of RFC 9068", all(set("azp", nil), set("client_id", "client-2"), set("jti", "1")), "at+jwt", []string{"openid", "read:items"}},
		{"of RFC 9068, with the long typ", nil, "application/at+jwt", []string{"openid", "read:items"}},
		{"of RFC 9068, for an API named like the client", set("aud", []string{clientID, api}), "at+jwt", []string{"openid", "read:items"}},
		{"scp as a list", all(set("scope", nil), set("scp", []string{"a", "b"})), "JWT", []string{"a", "b"}},
		{"scp as a text", all(set("scope", nil), set("scp", "a b")), "JWT", []string{"a", "b"}},
		{"scope before scp", set("scp", []string{"more"}), "JWT", []string{"openid", "read:items"}},
		{"no scope", set("scope", nil), "JWT", nil},
		{"scope of another type", set("scope", 1), "JWT", nil},
		{"one audience as a text", set("aud", api), "JWT", []string{"openid", "read:items"}},
		{"of a client without a person", all(set("sub", "client-2@clients"), set("gty", "client-credentials")), "JWT", []string{"openid", "read:items"}},
		{"expired within the leeway", set("exp", start.Add(-59*time.Second).Unix()), "JWT", []string{"openid", "read:items"}},
		{"of a clock ahead within the leeway", all(set("iat", start.Add(59*time.Second).Unix()), set("nbf", start.Add(59*time.Second).Unix())), "JWT", []string{"openid", "read:items"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			p.header = set("typ", row.typ)
			got, err := r.Verify(t.Context(), p.accessToken(row.claims))
			if err != nil {
				t.Fatalf("Verify: %v", err)
			}
			if !slices.Equal(got.Identity.Scopes, row.scopes) {
				t.Errorf("scopes %q, want %q", got.Identity.Scopes, row.scopes)
			}
		})
	}
}

// TOK-01 to TOK-26, for access tokens.
func TestAccessTokenMustBeOne(t *testing.T) {
	p := newProvider(t)
	r := resource(t, p.party())
	p.published = append(p.published, ecJWK("ec", ecKey()))
	if _, err := r.Verify(t.Context(), p.accessToken(nil)); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		claims func(object)
		header func(object)
		key    any
		want   string
	}{
		{"iss of another", set("iss", "https://evil.example/"), nil, nil, "issuer_mismatch"},
		{"iss without its slash", set("iss", strings.TrimSuffix(p.issuer, "/")), nil, nil, "issuer_mismatch"},
		{"no iss", set("iss", nil), nil, nil, "issuer_mismatch"},
		{"iss as a list", set("iss", []string{p.issuer}), nil, nil, "issuer_mismatch"},
		{"aud of another API", set("aud", "https://other.example.com/"), nil, nil, "audience"},
		{"aud without its slash", set("aud", strings.TrimSuffix(api, "/")), nil, nil, "audience"},
		{"aud with more behind", set("aud", api+"x"), nil, nil, "audience"},
		{"aud in other letters", set("aud", strings.ToUpper(api)), nil, nil, "audience"},
		{"aud for userinfo only", set("aud", p.issuer+"userinfo"), nil, nil, "audience"},
		{"no aud", set("aud", nil), nil, nil, "audience"},
		{"empty aud", set("aud", []string{}), nil, nil, "audience"},
		{"aud as an object", set("aud", object{"0": api}), nil, nil, "audience"},
		{"aud as a list in a list", set("aud", []any{[]any{api}}), nil, nil, "audience"},
		{"expired", set("exp", start.Add(-time.Minute).Unix()), nil, nil, "expired"},
		{"no exp", set("exp", nil), nil, nil, "expired"},
		{"exp as a text", set("exp", "9999999999"), nil, nil, "malformed"},
		{"not yet", set("nbf", start.Add(61*time.Second).Unix()), nil, nil, "not_before"},
		{"of the future", set("iat", start.Add(61*time.Second).Unix()), nil, nil, "issued_at"},
		{"no iat", set("iat", nil), nil, nil, "issued_at"},
		{"no sub", set("sub", nil), nil, nil, "subject"},
		{"empty sub", set("sub", ""), nil, nil, "subject"},
		{"sub as a number", set("sub", 1), nil, nil, "subject"},
		{"sub with a line end", set("sub", "a\nb"), nil, nil, "subject"},
		{"sub of another alphabet", set("sub", "аda"), nil, nil, "subject"},
		{"sub that is too long", set("sub", strings.Repeat("a", 256)), nil, nil, "subject"},
		{"a claim in other letters", set("Sub", "eve"), nil, nil, "malformed"},

		{"an ID token: nonce", set("nonce", "n"), nil, nil, "token_type"},
		{"an ID token: empty nonce", set("nonce", ""), nil, nil, "token_type"},
		{"an ID token: at_hash", set("at_hash", "x"), nil, nil, "token_type"},
		{"a logout token: events", set("events", object{"http://schemas.openid.net/event/backchannel-logout": object{}}), nil, nil, "token_type"},
		{"a logout token: typ", nil, set("typ", "logout+jwt"), nil, "token_type"},
		{"our assertion: typ", nil, set("typ", "authproxy-assertion+jwt"), nil, "token_type"},
		{"our app token: typ", nil, set("typ", "authproxy-app+jwt"), nil, "token_type"},
		{"a client assertion: typ", nil, set("typ", "client-authentication+jwt"), nil, "token_type"},
		{"bound to a key of the client", set("cnf", object{"jkt": "x"}), nil, nil, "token_type"},
		{"typ as a number", nil, set("typ", 1), nil, "malformed"},

		{"alg none", nil, set("alg", "none"), nil, "algorithm"},
		{"alg nOnE", nil, set("alg", "nOnE"), nil, "algorithm"},
		{"no alg", nil, set("alg", nil), nil, "algorithm"},
		{"alg as a list", nil, set("alg", []string{"RS256"}), nil, "algorithm"},
		{"HS256 with the public key", nil, set("alg", "HS256"), rsaKey(0).N.Bytes(), "algorithm"},
		{"HS256 with the client secret", nil, set("alg", "HS256"), []byte(clientSecret), "algorithm"},
		{"another algorithm, with a published key", nil, all(set("alg", "ES256"), set("kid", "ec")), ecKey(), "algorithm"},
		{"PS256 with the right key", nil, set("alg", "PS256"), rsaKey(0), "algorithm"},
		{"an unpublished key", nil, nil, rsaKey(2), "signature"},
		{"its own key in the header", nil, set("jwk", rsaJWK("k0", rsaKey(2))), rsaKey(2), "signature"},
		{"the key of another kid", nil, set("kid", "k1"), nil, "signature"},
		{"a kid that is a path", nil, set("kid", "../../dev/null"), nil, "signature"},
		{"a kid that is too long", nil, set("kid", strings.Repeat("k", 257)), nil, "malformed"},
		{"crit", nil, all(set("crit", []string{"x"}), set("x", 1)), nil, "malformed"},
		{"b64 false", nil, set("b64", false), nil, "malformed"},
		{"zip", nil, set("zip", "DEF"), nil, "malformed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p.header = row.header
			if p.key = row.key; row.key == nil {
				p.key = rsaKey(0)
			}
			if got, err := r.Verify(t.Context(), p.accessToken(row.claims)); reason(err) != "invalid "+row.want || got != nil {
				t.Errorf("Verify = %v, %s (%v), want invalid %s", got, reason(err), err, row.want)
			}
		})
	}
	p.header, p.key = nil, rsaKey(0)
	good := p.accessToken(nil)
	for _, row := range []struct{ name, token, want string }{
		{"nothing", "", "opaque"},
		{"a word", "v1.opaque-token", "opaque"},
		{"an encrypted token", "eyJhbGciOiJkaXIifQ..x.y.z", "opaque"},
		{"dots", strings.Repeat(".", 1<<20), "opaque"},
		{"a signature that is cut", good[:len(good)-6], "signature"},
		{"a signature that is gone", good[:strings.LastIndexByte(good, '.')+1], "signature"},
		{"a line end", good + "\n", "malformed"},
		{"padding", good + "=", "malformed"},
		{"too much", good[:10] + strings.Repeat("a", 1<<16) + good[10:], "malformed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := r.Verify(t.Context(), row.token)
			wantReason(t, "Verify", err, "invalid "+row.want)
		})
	}
	if n := p.count("keys"); n > 2 {
		t.Errorf("%d fetches of the keys, want at most 2", n)
	}
}

// A renewed ID token has no nonce, and where the API is called like the client its audience fits.
func TestIDTokensOfTheClientAreNoAccessTokens(t *testing.T) {
	p := newProvider(t)
	r, err := oidc.NewResource(p.party(), clientID, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Verify(t.Context(), p.idToken("", nil))
	wantReason(t, "Verify of an ID token", err, "invalid token_type")
	p.header = set("typ", "at+jwt")
	if _, err = r.Verify(t.Context(), p.idToken("", nil)); err != nil {
		t.Errorf("Verify of an access token for the client itself: %v", err)
	}
}

// A tenant's members must not come in to another tenant's proxy by the API that both use.
func TestAccessTokensAreForTheConfiguredOrganization(t *testing.T) {
	p := newProvider(t)
	r := resource(t, p.party(func(c *oidc.Config) { c.Organization = "org_1" }))
	for name, want := range map[string]string{"org_1": "ok", "org_2": "invalid organization", "": "invalid organization"} {
		_, err := r.Verify(t.Context(), p.accessToken(set("org_id", name)))
		wantReason(t, "Verify for "+name, err, want)
	}
}

func TestEachIssuerHasItsOwnKeys(t *testing.T) {
	p, second, third := newProvider(t), newProvider(t), newProvider(t)
	second.published, second.key = []object{rsaJWK("k0", rsaKey(1))}, rsaKey(1)
	second.discovery = all(set("authorization_endpoint", nil), set("token_endpoint", nil)) // we are no client of it
	r := resource(t, p.party(), p.issuer, second.issuer, second.issuer)
	for _, from := range []*provider{p, second} {
		got, err := r.Verify(t.Context(), from.accessToken(nil))
		if err != nil {
			t.Fatal(err)
		}
		if got.Identity.Issuer != from.issuer {
			t.Errorf("issuer %q, want %q", got.Identity.Issuer, from.issuer)
		}
	}
	_, err := r.Verify(t.Context(), second.accessToken(set("iss", p.issuer)))
	wantReason(t, "a token in the name of another issuer", err, "invalid signature")
	_, err = r.Verify(t.Context(), p.accessToken(set("iss", second.issuer)))
	wantReason(t, "the same the other way round", err, "invalid signature")
	_, err = r.Verify(t.Context(), third.accessToken(nil))
	wantReason(t, "a third issuer", err, "invalid issuer_mismatch")
	if n := third.count("discovery") + third.count("keys"); n != 0 {
		t.Errorf("%d requests to an issuer that nobody configured", n)
	}

	second.published = append(second.published, ecJWK("ec", ecKey()))
	second.key, second.header = ecKey(), all(set("alg", "ES256"), set("kid", "ec"))
	if _, err := r.Verify(t.Context(), second.accessToken(nil)); err != nil {
		t.Errorf("ES256 of a further issuer: %v", err)
	}
	only := resource(t, p.party(), second.issuer)
	_, err = only.Verify(t.Context(), p.accessToken(nil))
	wantReason(t, "the provider, which is not among the issuers", err, "invalid issuer_mismatch")
}

func TestNewResourceRefusesWhatCannotBe(t *testing.T) {
	rp := newProvider(t).party()
	if _, err := oidc.NewResource(rp, "", nil); err == nil {
		t.Error("no audience is accepted")
	}
	for _, issuer := range []string{"http://other.example.com/", "https://", "https://a.example/?x", "https://user@a.example/", "ftp://a.example/", "https://a.example/#x"} {
		if _, err := oidc.NewResource(rp, api, []string{issuer}); err == nil {
			t.Errorf("the issuer %q is accepted", issuer)
		}
	}
}

// An issuer that does not answer says nothing about a token.
func TestAnIssuerThatIsDownIsNotABadToken(t *testing.T) {
	p := newProvider(t)
	rp := p.party()
	r := resource(t, rp)
	token := p.accessToken(nil)
	p.instead["discovery"] = fail(503, nil)
	_, err := r.Verify(t.Context(), token)
	wantReason(t, "Verify without discovery", err, "unavailable discovery")
	delete(p.instead, "discovery")
	p.instead["keys"] = fail(500, nil)
	p.sleep(2 * time.Second)
	_, err = r.Verify(t.Context(), token)
	wantReason(t, "Verify without keys", err, "unavailable keys")
	delete(p.instead, "keys")
	p.sleep(2 * time.Second)
	if _, err = r.Verify(t.Context(), token); err != nil {
		t.Errorf("Verify when it is back: %v", err)
	}
	p.discovery = set("issuer", "https://evil.example/")
	other := resource(t, newProvider(t).party(), p.issuer)
	_, err = other.Verify(t.Context(), token)
	wantReason(t, "Verify with the discovery document of another", err, "misconfigured issuer_mismatch")
}

// Anybody can make up key IDs (TOK-14).
func TestMadeUpKeysOfAccessTokensCostOneFetchInHalfAMinute(t *testing.T) {
	p := newProvider(t)
	r := resource(t, p.party())
	if _, err := r.Verify(t.Context(), p.accessToken(nil)); err != nil {
		t.Fatal(err)
	}
	before := p.count("keys")
	p.key = rsaKey(2)
	for i := range 200 {
		p.header = set("kid", strings.Repeat("k", 1+i))
		_, err := r.Verify(t.Context(), p.accessToken(nil))
		wantReason(t, "Verify", err, "invalid signature")
	}
	if n := p.count("keys") - before; n != 1 {
		t.Errorf("%d fetches for 200 tokens, want 1", n)
	}
}

func TestRunDiscoversTheOtherIssuersOnly(t *testing.T) {
	p, second := newProvider(t), newProvider(t)
	r := resource(t, p.party(), p.issuer, second.issuer, second.issuer)
	fetched := make(chan struct{})
	second.instead["keys"] = func(w http.ResponseWriter, _ *http.Request) {
		reply(w, object{"keys": second.published})
		close(fetched)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	select {
	case <-fetched:
	case <-time.After(10 * time.Second):
		t.Error("the keys of the other issuer were not fetched")
	}
	cancel()
	<-done
	if n := p.count("discovery"); n != 0 {
		t.Errorf("%d discoveries of the provider, which has a Run of its own", n)
	}
	if n := second.count("discovery"); n != 1 {
		t.Errorf("%d discoveries of the other issuer, want 1", n)
	}
}

// --- what the access token of a user says about permissions

func TestALoginBringsThePermissionsOfItsAccessToken(t *testing.T) {
	grants := func(p *provider, hook func(object)) func(object) {
		return func(answer object) { answer["access_token"] = p.accessToken(hook) }
	}
	for _, row := range []struct {
		name        string
		answer      func(p *provider) func(object)
		permissions []string
		scopes      []string
	}{
		{"for our API", func(p *provider) func(object) { return grants(p, nil) }, []string{"read:items", "write:items"}, []string{"openid", "read:items"}},
		{"without scope", func(p *provider) func(object) { return grants(p, set("scope", nil)) }, []string{"read:items", "write:items"}, []string{"openid", "profile", "email"}},
		{"without permissions", func(p *provider) func(object) { return grants(p, set("permissions", nil)) }, nil, []string{"openid", "read:items"}},
		{"opaque", func(p *provider) func(object) { return set("access_token", "opaque") }, nil, []string{"openid", "profile", "email"}},
		{"for another API", func(p *provider) func(object) { return grants(p, set("aud", "https://other.example.com/")) }, nil, []string{"openid", "profile", "email"}},
		{"of another user", func(p *provider) func(object) { return grants(p, set("sub", "auth0|bob")) }, nil, []string{"openid", "profile", "email"}},
		{"expired", func(p *provider) func(object) { return grants(p, set("exp", start.Add(-time.Hour).Unix())) }, nil, []string{"openid", "profile", "email"}},
		{"of another key", func(p *provider) func(object) {
			return func(answer object) {
				p.key = rsaKey(2)
				answer["access_token"] = p.accessToken(nil)
				p.key = rsaKey(0)
			}
		}, nil, []string{"openid", "profile", "email"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			p.answer = row.answer(p)
			tokens, err := p.login(p.party(func(c *oidc.Config) { c.Audience = api }), oidc.AuthRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if who := tokens.Identity; !slices.Equal(who.Permissions, row.permissions) || !slices.Equal(who.Scopes, row.scopes) || who.Subject != "auth0|ada" {
				t.Errorf("permissions %q, scopes %q of %s, want %q, %q", who.Permissions, who.Scopes, who.Subject, row.permissions, row.scopes)
			}
		})
	}
	t.Run("nothing without an audience", func(t *testing.T) {
		p := newProvider(t)
		p.answer = grants(p, nil)
		tokens, err := p.login(p.party(), oidc.AuthRequest{})
		if err != nil || tokens.Identity.Permissions != nil {
			t.Errorf("permissions %q, %v, want none", tokens.Identity.Permissions, err)
		}
	})
}

func TestThatNobodyHasPermissionsIsLoggedOnce(t *testing.T) {
	p := newProvider(t)
	var book *logBuffer
	rp := p.party(func(c *oidc.Config) { c.Audience = api; book = logged(c) })
	for range 3 {
		if _, err := p.login(rp, oidc.AuthRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(book.String(), "says nothing about permissions"); n != 1 {
		t.Errorf("it is said %d times, want once:\n%s", n, book)
	}
}

func TestARenewalRenewsPermissions(t *testing.T) {
	for _, row := range []struct {
		name  string
		setup func(p *provider)
		want  []string
	}{
		{"they are what the new token says", func(p *provider) {
			p.refreshAnswer = func(a object) { a["access_token"] = p.accessToken(set("permissions", []string{"less"})) }
		}, []string{"less"}},
		{"without a new ID token as well", func(p *provider) {
			p.refreshAnswer = func(a object) {
				delete(a, "id_token")
				a["access_token"] = p.accessToken(set("permissions", []string{"less"}))
			}
		}, []string{"less"}},
		{"they are gone when the new token is unreadable", func(p *provider) { p.refreshAnswer = set("access_token", "opaque") }, nil},
		{"they stay while the keys cannot be had", func(p *provider) {
			p.refreshAnswer = func(a object) { a["access_token"] = p.accessToken(nil) }
			p.published, p.key, p.header = nil, rsaKey(2), set("kid", "new")
			p.instead["keys"] = fail(503, nil)
		}, []string{"before"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			rp := p.party(func(c *oidc.Config) { c.Audience = api })
			before, err := p.login(rp, oidc.AuthRequest{})
			if err != nil {
				t.Fatal(err)
			}
			before.Identity.Permissions = []string{"before"}
			row.setup(p)
			after, err := rp.Refresh(t.Context(), "refresh-1", before)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(after.Identity.Permissions, row.want) {
				t.Errorf("permissions %q, want %q", after.Identity.Permissions, row.want)
			}
		})
	}
}

// What Verify refuses it says nothing about, and what it says it took from a token with a good signature.
func FuzzResource(f *testing.F) {
	p := newProvider(f)
	r := resource(f, p.party())
	good := p.accessToken(nil)
	if _, err := r.Verify(f.Context(), good); err != nil {
		f.Fatal(err)
	}
	header, payload, _ := strings.Cut(good, ".")
	for _, s := range []string{good, header, payload, "", "..", "a.b.c", good + ".", strings.ToUpper(good), good[:len(good)-1] + "A", url.QueryEscape(good) + "=",
		jws(object{"alg": "none"}, []byte(`{}`), nil), jws(object{"alg": "RS256", "kid": "k0"}, []byte(`{"iss":"`+p.issuer+`"}`), rsaKey(2))} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		got, err := r.Verify(t.Context(), token)
		if token == good {
			return
		}
		var invalid *oidc.Invalid
		if got != nil || !errors.As(err, &invalid) {
			t.Errorf("Verify(%q) = %v, %v, want an *Invalid", token, got, err)
		}
	})
}

func BenchmarkResource(b *testing.B) {
	p := newProvider(b)
	r, token := resource(b, p.party()), p.accessToken(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
