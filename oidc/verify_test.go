package oidc_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"authproxy/oidc"
)

// The names of rows that come from the OpenID Foundation's conformance suite are those of its modules.
func TestLoginAcceptsOnlyIDTokensThatMeetOIDCCore3137(t *testing.T) {
	ago := func(d time.Duration) int64 { return start.Add(-d).Unix() }
	payload := func(f func(string) string) func(p *provider) {
		return func(p *provider) { p.payload = func(b []byte) []byte { return []byte(f(string(b))) } }
	}
	claim := func(name string, v any) func(p *provider) { return func(p *provider) { p.claims = set(name, v) } }
	header := func(name string, v any) func(p *provider) { return func(p *provider) { p.header = set(name, v) } }
	signed := func(alg string, key any) func(p *provider) {
		return func(p *provider) { p.header, p.key = set("alg", alg), key }
	}
	token := func(f func(h, c, s string) string) func(p *provider) {
		return func(p *provider) {
			p.token = func(raw string) string {
				part := strings.Split(raw, ".")
				return f(part[0], part[1], part[2])
			}
		}
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(&rsaKey(0).PublicKey))})

	for _, row := range []struct {
		name string
		do   func(p *provider)
		want string
	}{
		{"oidcc-client-test", func(*provider) {}, "ok"},
		{"oidcc-client-test-idtoken-sig-rs256", signed("RS256", rsaKey(0)), "ok"},
		{"oidcc-client-test-invalid-iss", func(p *provider) { claim("iss", p.issuer+"1")(p) }, "invalid token_issuer"},
		{"fapi2 invalid-missing-iss", claim("iss", nil), "invalid token_issuer"},
		{"iss without its slash", func(p *provider) { claim("iss", strings.TrimSuffix(p.issuer, "/"))(p) }, "invalid token_issuer"},
		{"iss in a list", func(p *provider) { claim("iss", []any{p.issuer})(p) }, "invalid token_issuer"},

		{"oidcc-client-test-missing-sub", claim("sub", nil), "invalid subject"},
		{"sub empty", claim("sub", ""), "invalid subject"},
		{"sub a number", claim("sub", 7), "invalid subject"},
		{"sub a list", claim("sub", []any{"auth0|ada"}), "invalid subject"},
		{"sub of 255 characters", claim("sub", strings.Repeat("a", 255)), "ok"},
		{"sub of 256 characters", claim("sub", strings.Repeat("a", 256)), "invalid subject"},
		{"sub with a line break", claim("sub", "a\nb"), "invalid subject"},
		{"sub with a homograph", claim("sub", "auth0|аda"), "invalid subject"},
		{"sub with a leading space", claim("sub", " ada"), "invalid subject"},
		{"sub with a pipe and a space inside", claim("sub", "sms|eve 1"), "ok"},

		{"oidcc-client-test-invalid-aud", claim("aud", clientID+"1"), "invalid audience"},
		{"oidcc-client-test-missing-aud", claim("aud", nil), "invalid audience"},
		{"fapi2 valid-aud-as-array", claim("aud", []any{clientID}), "ok"},
		{"fapi2 invalid-secondary-aud", claim("aud", []any{clientID, "other"}), "invalid audience"},
		{"another audience although azp is ours", func(p *provider) {
			p.claims = all(set("aud", []any{clientID, "other"}), set("azp", clientID))
		}, "invalid audience"},
		{"aud twice ours without azp", claim("aud", []any{clientID, clientID}), "invalid audience"},
		{"aud twice ours with azp", func(p *provider) {
			p.claims = all(set("aud", []any{clientID, clientID}), set("azp", clientID))
		}, "ok"},
		{"aud an empty list", claim("aud", []any{}), "invalid audience"},
		{"aud empty", claim("aud", ""), "invalid audience"},
		{"aud with a space behind", claim("aud", clientID+" "), "invalid audience"},
		{"aud in another case", claim("aud", strings.ToUpper(clientID)), "invalid audience"},
		{"aud a prefix", claim("aud", clientID[:3]), "invalid audience"},
		{"aud a number", claim("aud", 1), "invalid audience"},
		{"aud an object", claim("aud", object{"0": clientID}), "invalid audience"},
		{"aud a list in a list", claim("aud", []any{[]any{clientID}}), "invalid audience"},
		{"azp of another", claim("azp", "other"), "invalid audience"},
		{"azp ours", claim("azp", clientID), "ok"},
		{"azp a list", claim("azp", []any{clientID}), "invalid audience"},

		{"oidcc-client-test-nonce-invalid", func(p *provider) {
			p.claims = func(c object) { c["nonce"] = c["nonce"].(string) + "1" }
		}, "invalid nonce"},
		{"fapi2 invalid-missing-nonce", claim("nonce", nil), "invalid nonce"},
		{"nonce empty", claim("nonce", ""), "invalid nonce"},
		{"nonce a prefix", func(p *provider) {
			p.claims = func(c object) { c["nonce"] = c["nonce"].(string)[:10] }
		}, "invalid nonce"},
		{"nonce in a list", func(p *provider) { p.claims = func(c object) { c["nonce"] = []any{c["nonce"]} } }, "invalid nonce"},

		{"fapi2 invalid-expired-exp", claim("exp", ago(6*time.Minute)), "invalid expired"},
		{"fapi2 invalid-missing-exp", claim("exp", nil), "invalid expired"},
		{"exp within the leeway", claim("exp", ago(59*time.Second)), "ok"},
		{"exp at the end of the leeway", claim("exp", ago(60*time.Second)), "invalid expired"},
		{"exp a string", claim("exp", "9999999999"), "invalid malformed"},
		{"exp null", payload(func(s string) string { return strings.Replace(s, `"exp":`, `"exp":null,"x":`, 1) }), "invalid malformed"},
		{"exp beyond all years", claim("exp", 1e300), "invalid malformed"},
		{"exp with a fraction", claim("exp", float64(start.Unix())+60.5), "ok"},

		{"oidcc-client-test-missing-iat", claim("iat", nil), "invalid issued_at"},
		{"iat within the leeway", claim("iat", ago(-60*time.Second)), "ok"},
		{"iat in the future", claim("iat", ago(-61*time.Second)), "invalid issued_at"},
		{"iat eleven minutes ago", claim("iat", ago(11*time.Minute)), "ok"},
		{"iat twelve minutes ago", claim("iat", ago(12*time.Minute)), "invalid issued_at"},
		{"fapi1 iat-is-week-in-past", claim("iat", ago(7*24*time.Hour)), "invalid issued_at"},
		{"iat a string", claim("iat", fmt.Sprint(start.Unix())), "invalid malformed"},
		{"nbf within the leeway", claim("nbf", ago(-60*time.Second)), "ok"},
		{"nbf in two minutes", claim("nbf", ago(-120*time.Second)), "invalid not_before"},
		{"nbf a string", claim("nbf", "0"), "invalid malformed"},
		{"auth_time in the future", claim("auth_time", ago(-2*time.Minute)), "invalid auth_time"},
		{"auth_time a string", claim("auth_time", fmt.Sprint(start.Unix())), "invalid malformed"},

		{"oidcc-client-test-invalid-athash", claim("at_hash", "MTIzNDU2Nzg5MDEyMzQ1Ng"), "invalid at_hash"},
		{"at_hash right", func(p *provider) {
			sum := sha256.Sum256([]byte("access-1"))
			claim("at_hash", b64(sum[:16]))(p)
		}, "ok"},
		{"at_hash a number", claim("at_hash", 1), "invalid at_hash"},
		{"fapi1 missing-athash", claim("at_hash", nil), "ok"},

		{"oidcc-client-test-idtoken-sig-none", signed("none", nil), "invalid algorithm"},
		{"alg None", signed("None", nil), "invalid algorithm"},
		{"alg nOnE with a signature left on", header("alg", "nOnE"), "invalid algorithm"},
		{"alg empty", header("alg", ""), "invalid algorithm"},
		{"fapi2 invalid-null-alg", header("alg", nil), "invalid algorithm"},
		{"alg a list", header("alg", []any{"RS256"}), "invalid algorithm"},
		{"fapi2 invalid-alternate-alg", signed("PS256", rsaKey(0)), "misconfigured algorithm"},
		{"RS512", signed("RS512", rsaKey(0)), "misconfigured algorithm"},
		{"ES256 with a published key", func(p *provider) {
			p.header, p.key = all(set("alg", "ES256"), set("kid", "ec")), ecKey()
			p.published = append(p.published, ecJWK("ec", ecKey()))
		}, "misconfigured algorithm"},
		{"HS256 with the public key as PEM", signed("HS256", public), "misconfigured alg_hs256"},
		{"HS256 with the client secret", signed("HS256", []byte(clientSecret)), "misconfigured alg_hs256"},
		{"oidcc-client-test-invalid-sig-rs256", token(func(h, c, s string) string {
			sig := must(base64.RawURLEncoding.DecodeString(s))
			sig[20] ^= 1
			return h + "." + c + "." + b64(sig)
		}), "invalid signature"},
		{"signature cut off", token(func(h, c, s string) string { return h + "." + c + "." }), "invalid signature"},
		{"signature truncated", token(func(h, c, s string) string {
			return h + "." + c + "." + b64(must(base64.RawURLEncoding.DecodeString(s))[:200])
		}), "invalid signature"},
		{"signature with bytes behind it", token(func(h, c, s string) string { return h + "." + c + "." + s + "AAAA" }), "invalid signature"},
		{"a line break in the token", token(func(h, c, s string) string { return h + "." + c + "." + s[:4] + "\n" + s[4:] }), "invalid malformed"},
		{"a space before the token", token(func(h, c, s string) string { return " " + h + "." + c + "." + s }), "invalid malformed"},
		{"padding", token(func(h, c, s string) string { return h + "." + c + "." + s + "==" }), "invalid malformed"},
		{"four parts", token(func(h, c, s string) string { return h + "." + c + "." + s + ".x" }), "invalid malformed"},
		{"two parts", token(func(h, c, s string) string { return h + "." + c }), "invalid malformed"},
		{"garbage", token(func(h, c, s string) string { return "a.b.c" }), "invalid malformed"},
		{"only dots", token(func(h, c, s string) string { return strings.Repeat(".", 60000) }), "invalid malformed"},
		{"the JSON serialization", token(func(h, c, s string) string {
			return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, h, c, s)
		}), "invalid malformed"},
		{"longer than 64 KiB", claim("name", strings.Repeat("a", 64<<10)), "invalid malformed"},
		{"40 KB of claims", claim("name", strings.Repeat("a", 40<<10)), "ok"},
		{"one claim changed after signing", token(func(h, c, s string) string {
			b := must(base64.RawURLEncoding.DecodeString(c))
			return h + "." + b64(bytes.Replace(b, []byte("auth0|ada"), []byte("auth0|bob"), 1)) + "." + s
		}), "invalid signature"},
		{"another key under the same kid", func(p *provider) { p.key = rsaKey(2) }, "invalid signature"},
		{"a published key under another kid", func(p *provider) { p.key = rsaKey(1) }, "invalid signature"},
		{"the next key", func(p *provider) { p.key, p.header = rsaKey(1), set("kid", "k1") }, "ok"},

		{"kid unknown", func(p *provider) { p.key, p.header = rsaKey(2), set("kid", "unknown") }, "invalid signature"},
		{"kid a path", func(p *provider) { p.key, p.header = rsaKey(2), set("kid", "../../dev/null") }, "invalid signature"},
		{"kid SQL", func(p *provider) { p.key, p.header = rsaKey(2), set("kid", "' OR 1=1 --") }, "invalid signature"},
		{"kid with a NUL", func(p *provider) { p.key, p.header = rsaKey(2), set("kid", "k0\x00") }, "invalid signature"},
		{"kid of 10 KB", header("kid", strings.Repeat("k", 10<<10)), "invalid malformed"},
		{"kid a number", header("kid", 0), "invalid malformed"},
		{"oidcc-client-test-kid-absent-single-jwks", func(p *provider) { header("kid", nil)(p); p.published = p.published[:1] }, "ok"},
		{"oidcc-client-test-kid-absent-multiple-jwks", func(p *provider) {
			header("kid", nil)(p)
			p.published = nil
			for i := range 3 {
				p.published = append(p.published, object{"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}, object{"kty": "OKP", "crv": "X448", "x": "AA"},
					with(ecJWK("", ecKey()), "kid", nil), with(rsaJWK("", rsaKey(2-i)), "kid", nil, "alg", nil, "use", nil))
			}
		}, "ok"},
		{"kid absent and no key fits", func(p *provider) { p.header, p.key = set("kid", nil), rsaKey(2) }, "invalid signature"},
		{"keys without kid", func(p *provider) { p.published = []object{with(rsaJWK("", rsaKey(0)), "kid", nil)} }, "ok"},
		{"two keys with the same kid", func(p *provider) { p.published = []object{rsaJWK("k0", rsaKey(2)), rsaJWK("k0", rsaKey(0))} }, "ok"},

		{"its own key in jwk", func(p *provider) {
			p.key, p.header = rsaKey(2), all(set("jwk", rsaJWK("k0", rsaKey(2))))
		}, "invalid signature"},
		{"crit that nobody knows", func(p *provider) { p.header = all(set("crit", []any{"x"}), set("x", 1)) }, "invalid malformed"},
		{"crit empty", header("crit", []any{}), "invalid malformed"},
		{"crit b64", func(p *provider) { p.header = all(set("crit", []any{"b64"}), set("b64", true)) }, "invalid malformed"},
		{"b64 false without crit", header("b64", false), "invalid malformed"},
		{"zip", header("zip", "DEF"), "invalid malformed"},
		{"typ absent", header("typ", nil), "ok"},
		{"typ in lower case", header("typ", "jwt"), "ok"},
		{"typ with its media type", header("typ", "application/JWT"), "ok"},
		{"typ of an access token", header("typ", "at+jwt"), "invalid token_type"},
		{"typ of an access token with its media type", header("typ", "application/at+JWT"), "invalid token_type"},
		{"typ of a logout token", header("typ", "logout+jwt"), "invalid token_type"},
		{"typ a number", header("typ", 1), "invalid malformed"},
		{"events of a logout token", claim("events", object{logoutEvent: object{}}), "invalid token_type"},

		{"sub twice", payload(func(s string) string { return strings.Replace(s, "{", `{"sub":"auth0|evil",`, 1) }), "invalid malformed"},
		{"sub twice, once escaped", payload(func(s string) string { return strings.Replace(s, "{", `{"\u0073ub":"auth0|evil",`, 1) }), "invalid malformed"},
		{"an unknown claim twice", payload(func(s string) string { return strings.Replace(s, "{", `{"x":1,"x":2,`, 1) }), "invalid malformed"},
		{"Sub beside sub", claim("Sub", "auth0|evil"), "invalid malformed"},
		{"EMAIL_VERIFIED beside email_verified", claim("EMAIL_VERIFIED", true), "invalid malformed"},
		{"sub with a long s", claim("ſub", "auth0|evil"), "invalid malformed"},
		{"Department, which is nobody's", claim("Department", "x"), "ok"},
		{"not UTF-8", payload(func(s string) string { return strings.Replace(s, "Ada", "A\xff", 1) }), "invalid malformed"},
		{"two JSON values", payload(func(s string) string { return s + "{}" }), "invalid malformed"},
		{"a JSON list", payload(func(s string) string { return "[" + s + "]" }), "invalid malformed"},
		{"15 000 deep", payload(func(s string) string {
			return strings.Replace(s, "{", `{"x":`+strings.Repeat("[", 15000)+strings.Repeat("]", 15000)+",", 1)
		}), "invalid malformed"},
		{"no payload", payload(func(s string) string { return "" }), "invalid malformed"},
		{"distributed claims", func(p *provider) {
			p.claims = all(set("_claim_names", object{"groups": "src1"}), set("_claim_sources", object{"src1": object{"endpoint": p.issuer + "trap"}}))
		}, "ok"},
		{"unknown claims", claim("https://example.com/x", object{"a": []any{1}}), "ok"},
		{"sid a list", claim("sid", []any{"x"}), "invalid malformed"},
		{"sid empty", claim("sid", ""), "invalid malformed"},
		{"session_expiry passed", claim("session_expiry", ago(time.Second)), "invalid expired"},
		{"session_expiry in milliseconds", claim("session_expiry", start.UnixMilli()), "invalid malformed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			row.do(p)
			tokens, err := p.login(p.party(), oidc.AuthRequest{})
			wantReason(t, "Finish", err, row.want)
			if err != nil && tokens != nil {
				t.Error("Finish returned tokens and an error")
			}
			if n := p.count(""); n != 0 {
				t.Errorf("%d requests to places that discovery does not name", n)
			}
			if n := p.count("token"); n != 1 {
				t.Errorf("%d token requests, want 1", n)
			}
		})
	}
}

// What a token names for fetching is never fetched: CVE-2018-0114 and its kin.
func TestLoginNeverFetchesKeysThatATokenNames(t *testing.T) {
	var trapped atomic.Int32
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		trapped.Add(1)
		reply(w, object{"keys": []object{rsaJWK("k0", rsaKey(2))}})
	}))
	defer evil.Close()
	for _, name := range []string{"jku", "x5u", "kid", "x5c", "x5t#S256"} {
		p := newProvider(t)
		p.key, p.header = rsaKey(2), set(name, evil.URL)
		if name == "x5c" {
			p.header = set(name, []any{evil.URL})
		}
		if _, err := p.login(p.party(), oidc.AuthRequest{}); err == nil {
			t.Errorf("a token whose %s names a key of another was accepted", name)
		}
	}
	if n := trapped.Load(); n != 0 {
		t.Errorf("%d requests to the place named in the token", n)
	}
}

func TestLoginAcceptsEachConfiguredAlgorithm(t *testing.T) {
	for _, row := range []struct {
		alg  string
		key  any
		jwk  object
		want string
	}{
		{"RS512", rsaKey(0), with(rsaJWK("k0", rsaKey(0)), "alg", "RS512"), "ok"},
		{"PS256", rsaKey(0), with(rsaJWK("k0", rsaKey(0)), "alg", "PS256"), "ok"},
		{"ES256", ecKey(), ecJWK("k0", ecKey()), "ok"},
		{"EdDSA", edKey(), edJWK("k0", edKey()), "ok"},
		{"RS256", rsaKey(0), with(rsaJWK("k0", rsaKey(0)), "alg", "PS256"), "invalid signature"},
		{"ES256", ecKey(), with(ecJWK("k0", ecKey()), "crv", "P-384"), "invalid signature"},
	} {
		t.Run(row.alg+" "+row.want, func(t *testing.T) {
			p := newProvider(t)
			p.header, p.key, p.published = set("alg", row.alg), row.key, []object{row.jwk}
			_, err := p.login(p.party(func(c *oidc.Config) { c.IDTokenAlg = row.alg }), oidc.AuthRequest{})
			wantReason(t, "Finish", err, row.want)
		})
	}
}

// CVE-2022-21449 and its kin.
func TestLoginRefusesDegenerateECDSASignatures(t *testing.T) {
	sig := make([]byte, 64)
	order := ecKey().Params().N
	for name, s := range map[string][]byte{
		"r = s = 0":    sig,
		"r = s = n":    append(order.FillBytes(make([]byte, 32)), order.FillBytes(make([]byte, 32))...),
		"DER":          {0x30, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01},
		"half":         sig[:32],
		"96 bytes":     make([]byte, 96),
		"no bytes":     {},
		"r = s = 1":    append(append(make([]byte, 31), 1), append(make([]byte, 31), 1)...),
		"one too many": make([]byte, 65),
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			p.header, p.key, p.published = set("alg", "ES256"), ecKey(), []object{ecJWK("k0", ecKey())}
			p.token = func(raw string) string { return raw[:strings.LastIndex(raw, ".")+1] + b64(s) }
			_, err := p.login(p.party(func(c *oidc.Config) { c.IDTokenAlg = "ES256" }), oidc.AuthRequest{})
			wantReason(t, "Finish", err, "invalid signature")
		})
	}
}

func TestLoginChecksWhatItAskedFor(t *testing.T) {
	at := func(d time.Duration) func(object) { return set("auth_time", start.Add(d).Unix()) }
	for _, row := range []struct {
		name   string
		req    oidc.AuthRequest
		cfg    func(*oidc.Config)
		claims func(object)
		want   string
	}{
		{"max_age and a fresh login", oidc.AuthRequest{MaxAge: 5 * time.Minute}, nil, at(-4 * time.Minute), "ok"},
		{"max_age and a login within the leeway", oidc.AuthRequest{MaxAge: 5 * time.Minute}, nil, at(-6 * time.Minute), "ok"},
		{"max_age and an old login", oidc.AuthRequest{MaxAge: 5 * time.Minute}, nil, at(-361 * time.Second), "invalid auth_time"},
		{"max_age without auth_time", oidc.AuthRequest{MaxAge: 5 * time.Minute}, nil, nil, "invalid auth_time"},
		{"configured max_age without auth_time", oidc.AuthRequest{}, func(c *oidc.Config) { c.Params = map[string]string{"max_age": "300"} }, nil, "invalid auth_time"},
		{"a request cannot widen a configured max_age", oidc.AuthRequest{MaxAge: time.Hour}, func(c *oidc.Config) { c.Params = map[string]string{"max_age": "300"} }, at(-10 * time.Minute), "invalid auth_time"},
		{"prompt=login and a login since", oidc.AuthRequest{Prompt: "login"}, nil, at(0), "ok"},
		{"prompt=login and a login before", oidc.AuthRequest{Prompt: "login"}, nil, at(-61 * time.Second), "invalid auth_time"},
		{"prompt=login without auth_time", oidc.AuthRequest{Prompt: "login"}, nil, nil, "ok"},
		{"configured prompt=login and a login before", oidc.AuthRequest{Prompt: "select_account"}, func(c *oidc.Config) { c.Params = map[string]string{"prompt": "login"} }, at(-time.Hour), "invalid auth_time"},
		{"no prompt and a login long before", oidc.AuthRequest{}, nil, at(-time.Hour), "ok"},
		{"acr as asked", oidc.AuthRequest{ACR: "mfa"}, nil, set("acr", "mfa"), "ok"},
		{"acr one of those asked", oidc.AuthRequest{ACR: "gold silver"}, nil, set("acr", "silver"), "ok"},
		{"acr lower", oidc.AuthRequest{ACR: "mfa"}, nil, set("acr", "pwd"), "invalid acr"},
		{"acr absent", oidc.AuthRequest{ACR: "mfa"}, nil, nil, "invalid acr"},
		{"acr a list", oidc.AuthRequest{ACR: "mfa"}, nil, set("acr", []any{"mfa"}), "invalid malformed"},
		{"organization by ID", oidc.AuthRequest{Organization: "org_7"}, nil, set("org_id", "org_7"), "ok"},
		{"organization ID in another case", oidc.AuthRequest{Organization: "org_a"}, nil, set("org_id", "org_A"), "invalid organization"},
		{"organization by name in another case", oidc.AuthRequest{Organization: "Acme"}, nil, all(set("org_id", "org_7"), set("org_name", "acme")), "ok"},
		{"organization ID in org_name", oidc.AuthRequest{Organization: "org_7"}, nil, all(set("org_id", "org_8"), set("org_name", "org_7")), "invalid organization"},
		{"organization of another", oidc.AuthRequest{Organization: "org_7"}, nil, set("org_id", "org_8"), "invalid organization"},
		{"organization absent", oidc.AuthRequest{Organization: "org_7"}, nil, nil, "invalid organization"},
		{"organization a list", oidc.AuthRequest{Organization: "org_7"}, nil, set("org_id", []any{"org_7"}), "invalid malformed"},
		{"configured organization", oidc.AuthRequest{}, func(c *oidc.Config) { c.Organization = "org_7" }, set("org_id", "org_7"), "ok"},
		{"configured organization absent", oidc.AuthRequest{}, func(c *oidc.Config) { c.Organization = "org_7" }, nil, "invalid organization"},
		{"a request cannot take another than the configured one", oidc.AuthRequest{Organization: "org_8"}, func(c *oidc.Config) { c.Organization = "org_7" }, set("org_id", "org_8"), "invalid organization"},
		{"an invitation names by ID what is configured by name", oidc.AuthRequest{Organization: "org_7"}, func(c *oidc.Config) { c.Organization = "acme" }, all(set("org_id", "org_7"), set("org_name", "acme")), "ok"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			p.claims = row.claims
			rp := p.party(func(c *oidc.Config) {
				if row.cfg != nil {
					row.cfg(c)
				}
			})
			_, err := p.login(rp, row.req)
			wantReason(t, "Finish", err, row.want)
		})
	}
}

// TOK-32: the remedy for a wrong clock is in the error.
func TestLoginSaysHowFarTheClocksAreApart(t *testing.T) {
	for _, row := range []struct {
		ours time.Duration
		want string
	}{
		{-312 * time.Second, "this server's clock is 312 s behind the provider's"},
		{12 * time.Hour, "this server's clock is 43200 s ahead of the provider's"},
	} {
		p := newProvider(t)
		rp := p.party(func(c *oidc.Config) { c.Now = func() time.Time { return p.now().Add(row.ours) } })
		_, err := p.login(rp, oidc.AuthRequest{})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("Finish with a clock %s off = %v, want %q in it", row.ours, err, row.want)
		}
	}
}

func TestClaimsBecomeAnIdentity(t *testing.T) {
	p := newProvider(t)
	p.claims = all(set("https://example.com/roles", []any{"owner", 7, "", nil, "editor"}), set("a.b", "dotted"), set("a", object{"b": "nested"}),
		set("department", "research"), set("org_id", "org_7"), set("acr", "mfa"), set("auth_time", start.Add(-time.Minute).Unix()), set("level", 3), set("nothing", nil))
	rp := p.party(func(c *oidc.Config) {
		c.Claims = oidc.ClaimNames{Groups: "https://example.com/roles", Name: "a.b", Username: "department"}
		c.KeepClaims = []string{"level", "a", "missing", "nothing"}
	})
	p.answer = set("scope", "openid email")
	p.discovery = nil
	got, err := p.login(rp, oidc.AuthRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got.SessionID != "sid-1" || got.Nonce == "" || got.AccessToken != "access-1" || got.RefreshToken != "refresh-1" || !got.AccessExpiry.Equal(start.Add(time.Hour)) || !got.SessionExpiry.IsZero() {
		t.Errorf("Tokens = %+v", got)
	}
	who := got.Identity
	want := `{Issuer:` + p.issuer + ` Subject:auth0|ada Email:ada@example.com EmailVerified:true Name:dotted Username:research Groups:[owner editor] Organization:org_7 ` +
		`Permissions:[] Scopes:[openid email] ACR:mfa AuthTime:` + who.AuthTime.String() + ` Claims:map[a:map[b:nested] level:3]}`
	if s := fmt.Sprintf("%+v", who); s != want {
		t.Errorf("Identity = %s\nwant       %s", s, want)
	}
	if !who.AuthTime.Equal(start.Add(-time.Minute)) {
		t.Errorf("AuthTime = %s", who.AuthTime)
	}
}

func TestProfileClaimsOfOddTypesCountAsAbsent(t *testing.T) {
	for _, row := range []struct {
		name, claim string
		value       any
		want        string // e-mail, verified, name, username, groups
	}{
		{"nothing odd", "x", nil, "ada@example.com true Ada Lovelace ada [admins staff]"},
		{"email a list", "email", []any{"ada@example.com"}, " false Ada Lovelace ada [admins staff]"},
		{"email without @", "email", "ada", " false Ada Lovelace ada [admins staff]"},
		{"email with two @", "email", "ada@evil@example.com", " false Ada Lovelace ada [admins staff]"},
		{"email without a local part", "email", "@example.com", " false Ada Lovelace ada [admins staff]"},
		{"email_verified a string", "email_verified", "true", "ada@example.com false Ada Lovelace ada [admins staff]"},
		{"email_verified 1", "email_verified", 1, "ada@example.com false Ada Lovelace ada [admins staff]"},
		{"name a number", "name", 1, "ada@example.com true  ada [admins staff]"},
		{"preferred_username", "preferred_username", "lovelace", "ada@example.com true Ada Lovelace lovelace [admins staff]"},
		{"groups one string", "groups", "admins", "ada@example.com true Ada Lovelace ada [admins]"},
		{"groups an object", "groups", object{"admins": true}, "ada@example.com true Ada Lovelace ada []"},
		{"groups nested", "groups", []any{[]any{"admins"}, object{"name": "admins"}, "staff"}, "ada@example.com true Ada Lovelace ada [staff]"},
		{"groups a number", "groups", 7, "ada@example.com true Ada Lovelace ada []"},
		{"groups empty", "groups", "", "ada@example.com true Ada Lovelace ada []"},
		{"Groups in another case is another claim", "Groups", []any{"root"}, "ada@example.com true Ada Lovelace ada [admins staff]"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			p.claims = set(row.claim, row.value)
			got, err := p.login(p.party(), oidc.AuthRequest{})
			if err != nil {
				t.Fatal(err)
			}
			i := got.Identity
			if s := fmt.Sprint(i.Email, " ", i.EmailVerified, " ", i.Name, " ", i.Username, " ", i.Groups); s != row.want {
				t.Errorf("identity = %s, want %s", s, row.want)
			}
		})
	}
}

// email_verified speaks of the claim email, so it cannot vouch for another one.
func TestAnotherAddressClaimIsNotVerifiedByEmailVerified(t *testing.T) {
	p := newProvider(t)
	rp := p.party(func(c *oidc.Config) { c.Claims.Email = "upn" })
	for upn, want := range map[string]bool{"root@example.com": false, "ada@example.com": true} {
		p.claims = set("upn", upn)
		got, err := p.login(rp, oidc.AuthRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if got.Identity.Email != upn || got.Identity.EmailVerified != want {
			t.Errorf("upn %s: identity has %s, verified %v, want verified %v", upn, got.Identity.Email, got.Identity.EmailVerified, want)
		}
	}
}

func TestEmailAddresses(t *testing.T) {
	for s, want := range map[string]bool{
		"ada@example.com": true, "a+b@example.com": true, "ä@example.com": true, "": false, "@": false, "a@": false, "@a": false, "a@b@c": false,
		"a b@example.com": false, "a,b@example.com": false, "a@example.com\n": false, "a\x00@example.com": false, "a\u200b@example.com": false,
		"a\u00a0@example.com": false, "a@example.com\u202e": false, strings.Repeat("a", 400) + "@b": false,
	} {
		if got := oidc.IsAddress(s); got != want {
			t.Errorf("isAddress(%q) = %v, want %v", s, got, want)
		}
	}
}

// What goes wrong because of a setting says which.
func TestErrorsThatASettingCausesSayWhich(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(p *provider)
		want   string
	}{
		{"the issuer in another spelling", func(p *provider) { p.claims = set("iss", "https://other.example/") }, "check the host name that it takes for its own, and provider.issuer or provider.domain"},
		{"the client ID of another", func(p *provider) { p.claims = set("aud", "other") }, "hint: check provider.client_id"},
		{"another algorithm", func(p *provider) { p.header = set("alg", "PS256") }, "hint: set provider.id_token_alg: PS256 if the provider is meant to sign so"},
		{"the discovery document is not there", func(p *provider) { p.instead["discovery"] = http.NotFound },
			"/.well-known/openid-configuration: status 404; hint: is provider.issuer (or provider.domain) exactly the provider's issuer?"},
		{"a page in its place", func(p *provider) { p.instead["discovery"] = raw("<html>") },
			"/.well-known/openid-configuration: not a JSON object; hint: is provider.issuer (or provider.domain) exactly the provider's issuer?"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			row.change(p)
			if _, err := p.login2(p.party()); err == nil || !strings.HasSuffix(err.Error(), row.want) || strings.Count(err.Error(), "hint:") != 1 {
				t.Errorf("the error is %v, want %s", err, row.want)
			}
		})
	}
}
