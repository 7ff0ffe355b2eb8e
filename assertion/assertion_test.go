package assertion_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authproxy/assertion"
	"authproxy/identity"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
)

const (
	issuer   = "https://app.test"
	audience = "http://127.0.0.1:5000"
	ttl      = 2 * time.Minute
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 999, time.UTC)

// secret is a session key; n makes different ones.
func secret(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }

func derivedKey(t testing.TB, n byte) *ecdsa.PrivateKey {
	t.Helper()
	k, err := assertion.DeriveKey(secret(n))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newSigner(t testing.TB, keys ...*ecdsa.PrivateKey) *assertion.Signer {
	t.Helper()
	if keys == nil {
		keys = []*ecdsa.PrivateKey{derivedKey(t, 1)}
	}
	s, err := assertion.NewSigner(issuer, ttl, keys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ada() *identity.Identity {
	return &identity.Identity{
		Issuer: "https://acme.eu.auth0.com/", Subject: "auth0|ada", Email: "ada@corp.test", EmailVerified: true, Name: "Ada <L>", Username: "ada",
		Groups: []string{"staff", "admins, all"}, Organization: "org_1", ACR: "urn:mfa", AuthTime: time.Unix(1700000000, 0),
		Claims: map[string]any{"department": "research", "https://corp.test/roles": []any{"owner"}, "level": 3.0, "null": nil, "empty": ""},
	}
}

func mint(t testing.TB, s *assertion.Signer, who *identity.Identity, claims ...string) string {
	t.Helper()
	token, _, err := s.Mint(who, claims, "sid-1", audience, now)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// open returns what is in a token, without verifying it.
func open(t testing.TB, token string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	for i, v := range []*map[string]any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			t.Fatalf("part %d of %q: %v", i, token, err)
		}
	}
	return header, claims
}

func TestMintSaysWhatIsKnownAboutTheUser(t *testing.T) {
	iat, exp := float64(now.Unix()), float64(now.Unix()+120)
	unverified := &identity.Identity{Issuer: "https://i.test", Subject: "bob", Email: "bob@corp.test"}
	forger := &identity.Identity{Issuer: "https://i.test", Subject: "eve", Claims: map[string]any{}}
	names := []string{"iss", "aud", "sub", "idp", "iat", "nbf", "exp", "jti", "sid", "email", "email_verified", "name", "username", "groups", "auth_time"}
	for _, name := range names {
		forger.Claims[name] = "forged"
	}
	for _, tt := range []struct {
		name   string
		who    *identity.Identity
		claims []string
		sid    string
		want   map[string]any
	}{
		{"everything", ada(), []string{"department", "https://corp.test/roles", "level", "null", "empty", "nope", "acr", "org_id"}, "sid-1", map[string]any{
			"iss": issuer, "aud": audience, "sub": "auth0|ada", "idp": "https://acme.eu.auth0.com/", "iat": iat, "exp": exp, "sid": "sid-1",
			"email": "ada@corp.test", "email_verified": true, "name": "Ada <L>", "username": "ada", "groups": []any{"staff", "admins, all"}, "auth_time": 1700000000.0,
			"department": "research", "https://corp.test/roles": []any{"owner"}, "level": 3.0, "acr": "urn:mfa", "org_id": "org_1",
		}},
		{"further claims are left out when they are not named", ada(), nil, "sid-1", map[string]any{
			"iss": issuer, "aud": audience, "sub": "auth0|ada", "idp": "https://acme.eu.auth0.com/", "iat": iat, "exp": exp, "sid": "sid-1",
			"email": "ada@corp.test", "email_verified": true, "name": "Ada <L>", "username": "ada", "groups": []any{"staff", "admins, all"}, "auth_time": 1700000000.0,
		}},
		{"hardly anything", &identity.Identity{Subject: "sms|1"}, []string{"department"}, "", map[string]any{
			"iss": issuer, "aud": audience, "sub": "sms|1", "iat": iat, "exp": exp, "groups": []any{},
		}},
		{"an address that is not verified", unverified, nil, "", map[string]any{
			"iss": issuer, "aud": audience, "sub": "bob", "idp": "https://i.test", "iat": iat, "exp": exp, "groups": []any{}, "email": "bob@corp.test", "email_verified": false,
		}},
		{"further claims stand in for none of ours, not even for absent ones", forger, names, "", map[string]any{
			"iss": issuer, "aud": audience, "sub": "eve", "idp": "https://i.test", "iat": iat, "exp": exp, "groups": []any{},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSigner(t)
			token, expires, err := s.Mint(tt.who, tt.claims, tt.sid, audience, now)
			if err != nil {
				t.Fatal(err)
			}
			header, claims := open(t, token)
			kid, err := assertion.KeyID(&derivedKey(t, 1).PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]any{"alg": "ES256", "kid": kid, "typ": "authproxy-assertion+jwt"}, header); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			if jti, _ := claims["jti"].(string); len(jti) < 22 { // 128 bits in base64url
				t.Errorf("jti %v, want at least 128 bits", claims["jti"])
			}
			delete(claims, "jti")
			if diff := cmp.Diff(tt.want, claims); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			if expires.Unix() != int64(exp) {
				t.Errorf("expires = %v, want the token's exp", expires)
			}
			jwks, _ := s.JWKS()
			if _, err := assertion.Verify(token, jwks, issuer, audience, now); err != nil {
				t.Errorf("Verify: %v", err)
			}
		})
	}
}

func TestMintNeverRepeatsAJTI(t *testing.T) {
	s := newSigner(t)
	_, one := open(t, mint(t, s, ada()))
	_, two := open(t, mint(t, s, ada()))
	if one["jti"] == two["jti"] {
		t.Errorf("two assertions with the jti %v", one["jti"])
	}
}

func TestMintRefuses(t *testing.T) {
	s := newSigner(t)
	for name, mint := range map[string]func() (string, time.Time, error){
		"nil":         func() (string, time.Time, error) { return s.Mint(nil, nil, "s", audience, now) },
		"anonymous":   func() (string, time.Time, error) { return s.Mint(identity.Anonymous, nil, "s", audience, now) },
		"no audience": func() (string, time.Time, error) { return s.Mint(ada(), nil, "s", "", now) },
		"what JSON lacks": func() (string, time.Time, error) {
			return s.Mint(&identity.Identity{Subject: "x", Claims: map[string]any{"f": func() {}}}, []string{"f"}, "s", audience, now)
		},
	} {
		if token, _, err := mint(); err == nil || token != "" {
			t.Errorf("%s: Mint = %q, %v, want an error", name, token, err)
		}
	}
}

func TestAnAssertionNeverOutlivesItsTTL(t *testing.T) {
	for _, life := range []time.Duration{time.Second, 1500 * time.Millisecond, 4 * time.Second, time.Hour} {
		s, err := assertion.NewSigner(issuer, life, []*ecdsa.PrivateKey{derivedKey(t, 1)})
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []time.Time{now, now.Add(600 * time.Millisecond), now.Add(999 * time.Millisecond)} {
			token, expires, err := s.Mint(ada(), nil, "s", audience, at)
			if err != nil {
				t.Fatal(err)
			}
			_, c := open(t, token)
			if got := c["exp"].(float64) - c["iat"].(float64); got > life.Seconds() || got < 1 || expires.Sub(at) > life {
				t.Errorf("ttl %s at %s: exp-iat = %v s, expires %s later", life, at, got, expires.Sub(at))
			}
		}
	}
}

func TestNewSignerRefuses(t *testing.T) {
	key := derivedKey(t, 1)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		issuer string
		ttl    time.Duration
		keys   []*ecdsa.PrivateKey
	}{
		{"no issuer", "", ttl, []*ecdsa.PrivateKey{key}},
		{"no life", issuer, 0, []*ecdsa.PrivateKey{key}},
		{"less than a second", issuer, time.Second - 1, []*ecdsa.PrivateKey{key}},
		{"no keys", issuer, ttl, nil},
		{"a nil key", issuer, ttl, []*ecdsa.PrivateKey{key, nil}},
		{"an empty key", issuer, ttl, []*ecdsa.PrivateKey{{}}},
		{"another curve", issuer, ttl, []*ecdsa.PrivateKey{key, p384}},
	} {
		if s, err := assertion.NewSigner(tt.issuer, tt.ttl, tt.keys); err == nil || s != nil {
			t.Errorf("%s: NewSigner = %v, %v, want an error", tt.name, s, err)
		}
	}
}

// The derived keys belong to every installation that has no signing_keys: a change here makes upstreams refuse assertions
// until they fetch the keys again, and breaks those that pinned one.
func TestDerivedKeysAreTheSameForEver(t *testing.T) {
	ec, err := assertion.DeriveKey(secret(1))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := ec.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(raw), "fc8ad2ee4123486e09d074ad0093baecd37a1625a5a3e320587fc1a57d5031cf"; got != want {
		t.Errorf("DeriveKey = %s, want %s", got, want)
	}
	ed, err := assertion.DeriveEd25519(secret(1))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(ed.Seed()), "6ff7ba63be7e81628ee2d76d087581d4793571369c491863ef4645a92eb48015"; got != want {
		t.Errorf("DeriveEd25519 = %s, want %s", got, want)
	}
	if bytes.Equal(raw, ed.Seed()) {
		t.Error("both keys are the same number")
	}
}

func TestDerivedKeysDifferAndNeedASecret(t *testing.T) {
	seen := map[string]bool{}
	for n := range byte(50) {
		raw, err := derivedKey(t, n).Bytes()
		if err != nil {
			t.Fatal(err)
		}
		ed, err := assertion.DeriveEd25519(secret(n))
		if err != nil {
			t.Fatal(err)
		}
		seen[string(raw)], seen[string(ed)] = true, true
	}
	if len(seen) != 100 {
		t.Errorf("%d different keys of 50 secrets, want 100", len(seen))
	}
	for _, s := range [][]byte{nil, {}, secret(1)[:31]} {
		if k, err := assertion.DeriveKey(s); err == nil || k != nil {
			t.Errorf("DeriveKey of %d bytes succeeds", len(s))
		}
		if k, err := assertion.DeriveEd25519(s); err == nil || k != nil {
			t.Errorf("DeriveEd25519 of %d bytes succeeds", len(s))
		}
	}
}

func TestKeyIDIsTheThumbprint(t *testing.T) {
	// RFC 8037 A.3, and the recipe of RFC 7638 §3 for the curve.
	ed, err := base64.RawURLEncoding.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	if id, err := assertion.KeyID(ed25519.PublicKey(ed)); err != nil || id != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Errorf("KeyID(Ed25519) = %q, %v", id, err)
	}
	pub := &derivedKey(t, 1).PublicKey
	raw, err := pub.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, b64(raw[1:33]), b64(raw[33:])))
	if id, err := assertion.KeyID(pub); err != nil || id != b64(sum[:]) {
		t.Errorf("KeyID(P-256) = %q, %v, want %q", id, err, b64(sum[:]))
	}
	for _, k := range []any{nil, []byte("secret"), derivedKey(t, 1), "key"} {
		if id, err := assertion.KeyID(k); err == nil {
			t.Errorf("KeyID(%T) = %q, want an error", k, id)
		}
	}
}

func TestJWKSHasThePublicKeysOnly(t *testing.T) {
	one, two := derivedKey(t, 1), derivedKey(t, 2)
	s := newSigner(t, one, two, one)
	before, etagBefore := s.JWKS()
	ed, err := assertion.DeriveEd25519(secret(1))
	if err != nil {
		t.Fatal(err)
	}
	edID, err := assertion.KeyID(ed.Public())
	if err != nil {
		t.Fatal(err)
	}
	// A key pair given by mistake is published without its private half.
	for range 2 {
		if err := s.Publish(jose.JSONWebKey{Key: ed, KeyID: edID, Algorithm: "EdDSA", Use: "sig"}); err != nil {
			t.Fatal(err)
		}
	}
	body, etag := s.JWKS()
	if bytes.Equal(before, body) || etag == etagBefore {
		t.Error("Publish changes neither body nor entity tag")
	}
	if again, etagAgain := newSigner(t, one, two).JWKS(); !bytes.Equal(again, before) || etagAgain != etagBefore {
		t.Error("the same keys give another body or entity tag")
	}
	if len(etag) < 3 || etag[0] != '"' || etag[len(etag)-1] != '"' {
		t.Errorf("entity tag %s, want a quoted one", etag)
	}
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(body, &set); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, k := range set.Keys {
		kinds = append(kinds, fmt.Sprintln(k["kty"], k["crv"], k["use"], k["alg"], slices.Sorted(maps.Keys(k))))
	}
	ec := "EC P-256 sig ES256 [alg crv kid kty use x y]\n"
	if diff := cmp.Diff([]string{ec, ec, "OKP Ed25519 sig EdDSA [alg crv kid kty use x]\n"}, kinds); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	for i, k := range []*ecdsa.PrivateKey{one, two} {
		if id, _ := assertion.KeyID(&k.PublicKey); set.Keys[i]["kid"] != id {
			t.Errorf("key %d is %q, want %q", i, set.Keys[i]["kid"], id)
		}
	}
}

func TestPublishRefusesWhatIsNotPublic(t *testing.T) {
	s := newSigner(t)
	before, _ := s.JWKS()
	kid, _ := assertion.KeyID(&derivedKey(t, 1).PublicKey)
	good := jose.JSONWebKey{Key: &derivedKey(t, 3).PublicKey, KeyID: "good"}
	for name, bad := range map[string]jose.JSONWebKey{
		"a shared key":                     {Key: []byte("shared secret of 32 bytes or more"), KeyID: "k"},
		"no key":                           {KeyID: "k"},
		"no key ID":                        {Key: &derivedKey(t, 2).PublicKey},
		"the key ID of another key":        {Key: &derivedKey(t, 2).PublicKey, KeyID: kid},
		"the key ID of one in the call":    {Key: &derivedKey(t, 2).PublicKey, KeyID: "good"},
		"the key ID of a key of that kind": {Key: ed25519.PublicKey(make([]byte, 32)), KeyID: kid},
	} {
		if err := s.Publish(good, bad); err == nil {
			t.Errorf("%s: Publish succeeds", name)
		} else if strings.Contains(err.Error(), "shared secret") {
			t.Errorf("%s: the error tells the key: %v", name, err)
		}
		if after, _ := s.JWKS(); !bytes.Equal(before, after) {
			t.Errorf("%s: the key set changed to %s", name, after)
		}
	}
}

func TestASignerIsSafeForConcurrentUse(t *testing.T) {
	s := newSigner(t)
	var wg sync.WaitGroup
	for n := range byte(8) {
		wg.Go(func() {
			token, _, err := s.Mint(ada(), []string{"department"}, "s", audience, now)
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Publish(jose.JSONWebKey{Key: &derivedKey(t, 10+n).PublicKey, KeyID: fmt.Sprint(n)}); err != nil {
				t.Error(err)
			}
			jwks, _ := s.JWKS()
			if _, err := assertion.Verify(token, jwks, issuer, audience, now); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var set jose.JSONWebKeySet
	jwks, _ := s.JWKS()
	if err := json.Unmarshal(jwks, &set); err != nil || len(set.Keys) != 9 {
		t.Errorf("%d keys published, %v, want 9", len(set.Keys), err)
	}
}

// sign makes a token of anything: header and payload are taken as they are, and key says how it is signed.
func sign(t testing.TB, header, payload string, key any) string {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	sum := sha256.Sum256([]byte(input))
	var sig []byte
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		sig = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	case *rsa.PrivateKey:
		var err error
		if sig, err = rsa.SignPKCS1v15(nil, k, crypto.SHA256, sum[:]); err != nil {
			t.Fatal(err)
		}
	case []byte:
		h := hmac.New(sha256.New, k)
		h.Write([]byte(input))
		sig = h.Sum(nil)
	}
	return input + "." + b64(sig)
}

func TestVerifyRefusesWhatIsNotAnAssertionForUs(t *testing.T) {
	key, other := derivedKey(t, 1), derivedKey(t, 2)
	s := newSigner(t, key)
	jwks, _ := s.JWKS()
	kid, err := assertion.KeyID(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	header := `{"alg":"ES256","kid":"` + kid + `","typ":"authproxy-assertion+jwt"}`
	claims := func(more string) string {
		m := map[string]any{"iss": issuer, "aud": audience, "sub": "ada", "iat": now.Unix(), "exp": now.Unix() + 120}
		var over map[string]any
		if err := json.Unmarshal([]byte("{"+more+"}"), &over); err != nil {
			t.Fatal(err)
		}
		for k, v := range over {
			if m[k] = v; v == nil {
				delete(m, k)
			}
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	at := func(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }
	own := mint(t, s, ada())
	parts := strings.Split(own, ".")
	head := func(old, new string) string {
		if !strings.Contains(header, old) {
			t.Fatalf("%q is not in the header", old)
		}
		return strings.Replace(header, old, new, 1)
	}
	for _, tt := range []struct {
		name, token string
		ok          bool
	}{
		{"minted", own, true},
		{"signed by hand", sign(t, header, claims(``), key), true},
		{"aud a list with ours", sign(t, header, claims(`"aud":["x","`+audience+`"]`), key), true},
		{"expired within the leeway", sign(t, header, claims(`"iat":`+at(-150*time.Second)+`,"exp":`+at(-29*time.Second)), key), true},
		{"issued in the future within the leeway", sign(t, header, claims(`"iat":`+at(30*time.Second)), key), true},

		{"nothing", "", false},
		{"two parts", parts[0] + "." + parts[1], false},
		{"no signature", parts[0] + "." + parts[1] + ".", false},
		{"four parts", own + "." + parts[2], false},
		{"JSON serialization", `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`, false},
		{"a line end in it", own[:20] + "\n" + own[20:], false},
		{"a line end after it", own + "\r\n", false},
		{"a space before it", " " + own, false},
		{"padding", own + "==", false},
		{"the other base64", strings.NewReplacer("-", "+", "_", "/").Replace(own) + "+", false},
		{"stray bits in the signature's last character", own[:len(own)-1] + string(nextBase64(own[len(own)-1])), false},
		{"too large", sign(t, header, claims(`"x":"`+strings.Repeat("a", 64<<10)+`"`), key), false},

		{"alg none", sign(t, head("ES256", "none"), claims(``), nil), false},
		{"alg none with our signature", sign(t, head("ES256", "none"), claims(``), key), false},
		{"alg HS256 by the public key", sign(t, head("ES256", "HS256"), claims(``), pub), false},
		{"alg HS256 by the key set", sign(t, head("ES256", "HS256"), claims(``), jwks), false},
		{"alg in lower case", sign(t, head("ES256", "es256"), claims(``), key), false},
		{"alg ES384", sign(t, head("ES256", "ES384"), claims(``), key), false},
		{"no alg", sign(t, head(`"alg":"ES256",`, ``), claims(``), key), false},
		{"typ JWT", sign(t, head("authproxy-assertion+jwt", "JWT"), claims(``), key), false},
		{"typ as a media type", sign(t, head("authproxy", "application/authproxy"), claims(``), key), false},
		{"typ in another case", sign(t, head("authproxy", "Authproxy"), claims(``), key), false},
		{"no typ", sign(t, head(`,"typ":"authproxy-assertion+jwt"`, ``), claims(``), key), false},
		{"typ not a text", sign(t, head(`"authproxy-assertion+jwt"`, `["authproxy-assertion+jwt"]`), claims(``), key), false},
		{"no kid", sign(t, head(`"kid":"`+kid+`",`, ``), claims(``), key), false},
		{"an empty kid", sign(t, head(kid, ""), claims(``), key), false},
		{"an unknown kid", sign(t, head(kid, kid+"x"), claims(``), key), false},
		{"a key of its own", sign(t, head(`{`, `{"jwk":`+jwk(t, other)+`,`), claims(``), other), false},
		{"a key of its own beside ours", sign(t, head(`{`, `{"jwk":`+jwk(t, other)+`,`), claims(``), key), false},
		{"a URL of a key", sign(t, head(`{`, `{"jku":"https://evil.test/",`), claims(``), key), false},
		{"crit", sign(t, head(`{`, `{"crit":["x"],"x":1,`), claims(``), key), false},
		{"an unencoded payload", sign(t, head(`{`, `{"crit":["b64"],"b64":false,`), claims(``), key), false},
		{"another key under our kid", sign(t, header, claims(``), other), false},
		{"another payload under our signature", parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(claims(`"sub":"root"`))) + "." + parts[2], false},
		{"another header over our signature", base64.RawURLEncoding.EncodeToString([]byte(header+" ")) + "." + parts[1] + "." + parts[2], false},

		{"claims not an object", sign(t, header, `["x"]`, key), false},
		{"claims null", sign(t, header, `null`, key), false},
		{"claims not JSON", sign(t, header, `{`, key), false},
		{"another iss", sign(t, header, claims(`"iss":"https://app.test/"`), key), false},
		{"no iss", sign(t, header, claims(`"iss":null`), key), false},
		{"iss a list", sign(t, header, claims(`"iss":["`+issuer+`"]`), key), false},
		{"another aud", sign(t, header, claims(`"aud":"http://127.0.0.1:5001"`), key), false},
		{"aud a part of ours", sign(t, header, claims(`"aud":"http://127.0.0.1"`), key), false},
		{"aud a list without ours", sign(t, header, claims(`"aud":["x",["`+audience+`"],{"a":"`+audience+`"},null]`), key), false},
		{"aud an empty list", sign(t, header, claims(`"aud":[]`), key), false},
		{"aud an object", sign(t, header, claims(`"aud":{"`+audience+`":true}`), key), false},
		{"no aud", sign(t, header, claims(`"aud":null`), key), false},
		{"no sub", sign(t, header, claims(`"sub":null`), key), false},
		{"an empty sub", sign(t, header, claims(`"sub":""`), key), false},
		{"no exp", sign(t, header, claims(`"exp":null`), key), false},
		{"exp a text", sign(t, header, claims(`"exp":"`+at(time.Minute)+`"`), key), false},
		{"no iat", sign(t, header, claims(`"iat":null`), key), false},
		{"expired by more than the leeway", sign(t, header, claims(`"iat":`+at(-150*time.Second)+`,"exp":`+at(-30*time.Second)), key), false},
		{"issued in the future by more than the leeway", sign(t, header, claims(`"iat":`+at(31*time.Second)), key), false},
		{"over before it began", sign(t, header, claims(`"iat":`+at(10*time.Second)+`,"exp":`+at(10*time.Second)), key), false},
		{"exp beyond numbers", sign(t, header, strings.Replace(claims(`"exp":1`), `"exp":1`, `"exp":1e999`, 1), key), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := assertion.Verify(tt.token, jwks, issuer, audience, now)
			if tt.ok != (err == nil) || tt.ok != (got != nil) {
				t.Fatalf("Verify = %v, %v, want accepted %v", got, err, tt.ok)
			}
			if err != nil && len(parts[2]) > 0 && strings.Contains(err.Error(), parts[2]) {
				t.Errorf("the error repeats the signature: %v", err)
			}
		})
	}
}

// nextBase64 differs from c, the last character of a signature, in the bits that do not count.
func nextBase64(c byte) byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return alphabet[strings.IndexByte(alphabet, c)^1]
}

func jwk(t testing.TB, key *ecdsa.PrivateKey) string {
	t.Helper()
	b, err := json.Marshal(jose.JSONWebKey{Key: &key.PublicKey, KeyID: "own"})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestVerifyRefusesKeySetsAndExpectations(t *testing.T) {
	key, other := derivedKey(t, 1), derivedKey(t, 2)
	s := newSigner(t, key)
	jwks, _ := s.JWKS()
	token := mint(t, s, ada())
	kid, err := assertion.KeyID(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	set := func(keys ...jose.JSONWebKey) []byte {
		b, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name             string
		jwks             []byte
		issuer, audience string
		ok               bool
	}{
		{"all is well", jwks, issuer, audience, true},
		{"a key without use and alg", set(jose.JSONWebKey{Key: &key.PublicKey, KeyID: kid}), issuer, audience, true},
		{"no issuer expected", jwks, "", audience, false},
		{"no audience expected", jwks, issuer, "", false},
		{"no key set", nil, issuer, audience, false},
		{"an empty key set", []byte(`{"keys":[]}`), issuer, audience, false},
		{"a key set that is not JSON", []byte(`<html>`), issuer, audience, false},
		{"a key set that is too large", append(slices.Clone(jwks), bytes.Repeat([]byte{' '}, 256<<10)...), issuer, audience, false},
		{"another key", set(jose.JSONWebKey{Key: &other.PublicKey, KeyID: kid}), issuer, audience, false},
		{"two keys under the kid", set(jose.JSONWebKey{Key: &key.PublicKey, KeyID: kid}, jose.JSONWebKey{Key: &other.PublicKey, KeyID: kid}), issuer, audience, false},
		{"a private key", set(jose.JSONWebKey{Key: key, KeyID: kid}), issuer, audience, false},
		{"a shared key", set(jose.JSONWebKey{Key: secret(1), KeyID: kid}), issuer, audience, false},
		{"an RSA key", set(jose.JSONWebKey{Key: &rsaKey.PublicKey, KeyID: kid}), issuer, audience, false},
		{"a key for encryption", set(jose.JSONWebKey{Key: &key.PublicKey, KeyID: kid, Use: "enc"}), issuer, audience, false},
		{"a key for another algorithm", set(jose.JSONWebKey{Key: &key.PublicKey, KeyID: kid, Algorithm: "ES384"}), issuer, audience, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := assertion.Verify(token, tt.jwks, tt.issuer, tt.audience, now); tt.ok != (err == nil) || tt.ok != (got != nil) {
				t.Errorf("Verify = %v, %v, want accepted %v", got, err, tt.ok)
			}
		})
	}
}

func TestARefusalSaysAtWhichCheck(t *testing.T) {
	key := derivedKey(t, 1)
	s := newSigner(t, key)
	jwks, _ := s.JWKS()
	keys, err := assertion.ParseKeySet(jwks)
	if err != nil {
		t.Fatal(err)
	}
	kid, err := assertion.KeyID(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	header := func(alg, kid, typ string) string {
		return `{"alg":"` + alg + `","kid":"` + kid + `","typ":"` + typ + `"}`
	}
	good := fmt.Sprintf(`{"iss":%q,"aud":%q,"sub":"ada","iat":%d,"exp":%d}`, issuer, audience, now.Unix(), now.Unix()+120)
	without := func(claim string) string { return strings.Replace(good, `"`+claim+`"`, `"x"`, 1) }
	for name, tt := range map[string]struct {
		token string
		want  assertion.Check
	}{
		"no token":             {"ada", assertion.CheckForm},
		"claims not an object": {sign(t, header("ES256", kid, assertion.Type), `[]`, key), assertion.CheckForm},
		"another algorithm":    {sign(t, header("RS256", kid, assertion.Type), good, key), assertion.CheckType},
		"another type":         {sign(t, header("ES256", kid, "JWT"), good, key), assertion.CheckType},
		"no issuer":            {sign(t, header("ES256", kid, assertion.Type), without("iss"), key), assertion.CheckIssuer},
		"no audience":          {sign(t, header("ES256", kid, assertion.Type), without("aud"), key), assertion.CheckAudience},
		"no subject":           {sign(t, header("ES256", kid, assertion.Type), without("sub"), key), assertion.CheckSubject},
		"no end":               {sign(t, header("ES256", kid, assertion.Type), without("exp"), key), assertion.CheckTime},
		"another key":          {sign(t, header("ES256", "other", assertion.Type), good, key), assertion.CheckKey},
		"no key":               {sign(t, header("ES256", "", assertion.Type), good, key), assertion.CheckKey},
		"a forged signature":   {sign(t, header("ES256", kid, assertion.Type), good, derivedKey(t, 2)), assertion.CheckSignature},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			find := func(id string) (crypto.PublicKey, error) {
				asked++
				return keys.Find(id)
			}
			_, err := assertion.VerifyWith(tt.token, find, assertion.Expected{Now: now, InsecureAnyIssuer: true, InsecureAnyAudience: true})
			var refused *assertion.Refusal
			if !errors.As(err, &refused) || refused.Check != tt.want {
				t.Errorf("VerifyWith: %v, want a refusal at %q", err, tt.want)
			}
			if needed := tt.want == assertion.CheckSignature || name == "another key"; needed != (asked == 1) {
				t.Errorf("a key was asked for %d times", asked)
			}
		})
	}
}

func TestVerifyWithExpectsWhatItIsTold(t *testing.T) {
	s := newSigner(t)
	jwks, _ := s.JWKS()
	keys, err := assertion.ParseKeySet(jwks)
	if err != nil {
		t.Fatal(err)
	}
	token := mint(t, s, ada())
	errDown := errors.New("the keys cannot be had")
	down := func(string) (crypto.PublicKey, error) { return nil, errDown }
	if _, err := assertion.VerifyWith(token, down, assertion.Expected{Issuer: issuer, Audience: audience, Now: now}); err != errDown {
		t.Errorf("without keys: %v, want the error of the finder", err)
	}
	for name, tt := range map[string]struct {
		want assertion.Expected
		ok   bool
	}{
		"all":                               {assertion.Expected{Issuer: issuer, Audience: audience, Now: now}, true},
		"no time":                           {assertion.Expected{Issuer: issuer, Audience: audience}, false},
		"no issuer":                         {assertion.Expected{Audience: audience, Now: now}, false},
		"no audience":                       {assertion.Expected{Issuer: issuer, Now: now}, false},
		"any issuer":                        {assertion.Expected{Audience: audience, Now: now, InsecureAnyIssuer: true}, true},
		"any audience":                      {assertion.Expected{Issuer: issuer, Now: now, InsecureAnyAudience: true}, true},
		"any issuer, but another one":       {assertion.Expected{Issuer: "x", Audience: audience, Now: now, InsecureAnyIssuer: true}, false},
		"any audience, but another one":     {assertion.Expected{Issuer: issuer, Audience: "x", Now: now, InsecureAnyAudience: true}, false},
		"at its last second":                {assertion.Expected{Issuer: issuer, Audience: audience, Now: now.Add(ttl - time.Second)}, true},
		"at its end":                        {assertion.Expected{Issuer: issuer, Audience: audience, Now: now.Add(ttl)}, false},
		"within the leeway after its end":   {assertion.Expected{Issuer: issuer, Audience: audience, Now: now.Add(ttl + 4*time.Second), Leeway: 5 * time.Second}, true},
		"after the leeway":                  {assertion.Expected{Issuer: issuer, Audience: audience, Now: now.Add(ttl + 5*time.Second), Leeway: 5 * time.Second}, false},
		"before it began":                   {assertion.Expected{Issuer: issuer, Audience: audience, Now: now.Add(-time.Second)}, false},
		"within the leeway before it began": {assertion.Expected{Issuer: issuer, Audience: audience, Now: now.Add(-5 * time.Second), Leeway: 5 * time.Second}, true},
	} {
		if claims, err := assertion.VerifyWith(token, keys.Find, tt.want); tt.ok != (err == nil) || tt.ok != (claims != nil) {
			t.Errorf("%s: VerifyWith = %v, %v, want accepted %v", name, claims, err, tt.ok)
		}
	}
}

// Upstreams that know both keys accept assertions on both sides of a change.
func TestKeysRotate(t *testing.T) {
	old, next := derivedKey(t, 1), derivedKey(t, 2)
	before, after := newSigner(t, old, next), newSigner(t, next, old)
	for _, s := range []*assertion.Signer{before, after} {
		for _, publisher := range []*assertion.Signer{before, after} {
			jwks, _ := publisher.JWKS()
			if _, err := assertion.Verify(mint(t, s, ada()), jwks, issuer, audience, now); err != nil {
				t.Error(err)
			}
		}
	}
	jwks, _ := newSigner(t, next).JWKS()
	if _, err := assertion.Verify(mint(t, before, ada()), jwks, issuer, audience, now); err == nil {
		t.Error("an assertion of a key no longer published is accepted")
	}
}

// goldenToken is an assertion about ada, minted at now by the key derived from secret(1). The fuzzing processes share it.
const goldenToken = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImhEZU5WNGpFVFJoUl9pdXU3VjBhZ1FCVnZzYlNnNzdldVQ3WDFVdFNYOFEiLCJ0eXAiOiJhdXRocHJveHktYXNzZXJ0aW9uK2p3dCJ9." +
	"eyJhdWQiOiJodHRwOi8vMTI3LjAuMC4xOjUwMDAiLCJhdXRoX3RpbWUiOjE3MDAwMDAwMDAsImRlcGFydG1lbnQiOiJyZXNlYXJjaCIsImVtYWlsIjoiYWRhQGNvcnAudGVzdCIsImVtYWlsX3ZlcmlmaWVkIjp0cnVlLCJleHAiOjE3OTU0MzUzMjAsImdyb3VwcyI6WyJzdGFmZiIsImFkbWlucywgYWxsIl0sImlhdCI6M" +
	"Tc5NTQzNTIwMCwiaWRwIjoiaHR0cHM6Ly9hY21lLmV1LmF1dGgwLmNvbS8iLCJpc3MiOiJodHRwczovL2FwcC50ZXN0IiwianRpIjoiTzRCQTdES1FaRllPWVlJVUVLUEEyTVpKRDYiLCJuYW1lIjoiQWRhIFx1MDAzY0xcdTAwM2UiLCJzaWQiOiJzaWQtMSIsInN1YiI6ImF1dGgwfGFkYSIsInVzZXJuYW1lIjoiYWRhIn0." +
	"kZ95FoMeTGNYj30nA-b0blTdVWlH0hJmbBe_bCUS3wX5LrWRMzCLFlpPo0e0gy3pCUOM8WsEcP6gP9bRxAR_WQ"

// What is accepted is what was minted: no other header or payload, in no other spelling. (Of an ECDSA signature (r, s) there is
// always the other one, (r, -s); it says the same.)
func FuzzVerify(f *testing.F) {
	s := newSigner(f)
	jwks, _ := s.JWKS()
	own := goldenToken
	signed := own[:strings.LastIndexByte(own, '.')]
	if _, err := assertion.Verify(own, jwks, issuer, audience, now); err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add(own + "\n")
	f.Add(own[:len(own)-1] + string(nextBase64(own[len(own)-1])))
	f.Add(sign(f, `{"alg":"none"}`, `{}`, nil))
	f.Add(strings.ReplaceAll(own, ".", ".."))
	f.Fuzz(func(t *testing.T, token string) {
		claims, err := assertion.Verify(token, jwks, issuer, audience, now)
		if err != nil {
			if claims != nil {
				t.Errorf("Verify = %v with the error %v", claims, err)
			}
			return
		}
		if got := token[:strings.LastIndexByte(token, '.')]; got != signed || len(token) != len(own) {
			t.Errorf("Verify accepts %q", token)
		}
	})
}

func BenchmarkMint(b *testing.B) {
	s, who := newSigner(b), ada()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Mint(who, []string{"department"}, "s", audience, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	s := newSigner(b)
	token := mint(b, s, ada())
	jwks, _ := s.JWKS()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := assertion.Verify(token, jwks, issuer, audience, now); err != nil {
			b.Fatal(err)
		}
	}
}
