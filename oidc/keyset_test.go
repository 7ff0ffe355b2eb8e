package oidc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"authproxy/oidc"
)

// oidcc-client-test-signing-key-rotation, -signing-key-rotation-just-before-signing; TOK-31.
func TestNewKeysAreFetchedAtOnceAndRemovedOnesWithinTenMinutes(t *testing.T) {
	p := newProvider(t)
	rp := p.party()
	login := func(what, want string) {
		t.Helper()
		_, err := p.login(rp, oidc.AuthRequest{})
		wantReason(t, what, err, want)
	}
	login("first login", "ok")
	p.key, p.header, p.published = rsaKey(2), set("kid", "k2"), []object{rsaJWK("k2", rsaKey(2))}
	login("keys replaced just before signing", "ok")
	if n := p.count("keys"); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
	p.key, p.header = rsaKey(0), set("kid", "k0")
	login("a key that was removed", "invalid signature")

	p.published = []object{rsaJWK("k0", rsaKey(0))}
	login("another rotation within 30 s", "invalid signature")
	p.sleep(30 * time.Second)
	login("30 s later", "ok")

	p.published = []object{rsaJWK("k1", rsaKey(1))}
	p.sleep(9 * time.Minute)
	login("a key revoked less than 10 minutes ago", "ok")
	p.sleep(time.Minute)
	login("a key revoked, and 10 minutes later", "invalid signature")

	p.published = []object{}
	p.key, p.header = rsaKey(1), set("kid", "k1")
	login("all keys revoked a moment ago", "ok")
	p.sleep(10 * time.Minute)
	login("all keys revoked", "invalid signature")
}

// The same kid for another key, as providers do whose keys live in memory.
func TestAKeyReplacedUnderItsKidIsFetched(t *testing.T) {
	p := newProvider(t)
	rp := p.party()
	if _, err := p.login(rp, oidc.AuthRequest{}); err != nil {
		t.Fatal(err)
	}
	p.key, p.published = rsaKey(2), []object{rsaJWK("k0", rsaKey(2))}
	_, err := p.login(rp, oidc.AuthRequest{})
	wantReason(t, "login", err, "ok")
}

// 1000 unknown key IDs, at most one fetch in 30 s.
func TestAThousandUnknownKidsMakeOneFetch(t *testing.T) {
	p := newProvider(t)
	rp := p.party()
	if _, err := p.login(rp, oidc.AuthRequest{}); err != nil {
		t.Fatal(err)
	}
	before := p.count("keys")
	_, rest, _ := strings.Cut(p.logoutToken(nil), ".")
	var tokens []string
	for i := range 1000 {
		tokens = append(tokens, b64(must(json.Marshal(object{"alg": "RS256", "kid": fmt.Sprint("unknown-", i)})))+"."+rest)
	}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := n; i < len(tokens); i += 8 {
				if _, err := rp.VerifyLogoutToken(context.Background(), tokens[i]); reason(err) != "invalid signature" {
					t.Errorf("token %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	if n := p.count("keys") - before; n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
	p.sleep(30 * time.Second)
	rp.VerifyLogoutToken(context.Background(), tokens[7])
	if n := p.count("keys") - before; n != 2 {
		t.Errorf("%d fetches after 30 s more, want 2", n)
	}
}

// JWKS 500, then recovery.
func TestLastGoodKeysAreKeptWhileFetchesFail(t *testing.T) {
	p := newProvider(t)
	rp := p.party()
	p.instead["keys"] = fail(500, nil)
	login := func(what, want string) {
		t.Helper()
		_, err := p.login(rp, oidc.AuthRequest{})
		wantReason(t, what, err, want)
	}
	login("no keys ever", "unavailable keys")
	login("no keys, within the same second", "unavailable keys")
	if n := p.count("keys"); n != 1 {
		t.Errorf("%d fetches within a second, want 1", n)
	}
	delete(p.instead, "keys")
	p.sleep(time.Second)
	login("keys are there again", "ok")

	for name, answer := range map[string]http.HandlerFunc{"500": fail(500, nil), "HTML": raw("<html>"), "keys null": raw(`{"keys":null}`), "no keys": raw(`{}`),
		"keys an object": raw(`{"keys":{}}`), "2 MiB": raw(`{"keys":[],"x":"` + strings.Repeat("a", 2<<20) + `"}`), "404": fail(404, nil)} {
		p.instead["keys"] = answer
		p.sleep(11 * time.Minute)
		before := p.count("keys")
		login(name+": last good keys", "ok")
		p.sleep(29 * time.Second)
		login(name+": last good keys again", "ok")
		if n := p.count("keys") - before; n != 1 {
			t.Errorf("%s: %d fetches within 30 s, want 1", name, n)
		}
		p.key, p.header = rsaKey(2), set("kid", "k2")
		login(name+": a key that may be new", "unavailable keys")
		login(name+": a key that may be new, again", "unavailable keys")
		p.key, p.header = rsaKey(2), set("kid", "k0")
		login(name+": a forgery under a known kid", "invalid signature")
		p.key, p.header = rsaKey(0), nil
	}
}

// TOK-19, 20: which published keys count. The token is signed with rsaKey(0), kid k0.
func TestPublishedKeysThatMustNotVerifyAreIgnored(t *testing.T) {
	good := rsaJWK("k0", rsaKey(0))
	other := rsaJWK("k1", rsaKey(1))
	many := func(n int, k object) (out []object) {
		for range n {
			out = append(out, k)
		}
		return out
	}
	for _, row := range []struct {
		name string
		keys []object
		want string
	}{
		{"use enc", []object{with(good, "use", "enc"), other}, "invalid signature"},
		{"use absent", []object{with(good, "use", nil)}, "ok"},
		{"use a number", []object{with(good, "use", 1), other}, "invalid signature"},
		{"alg of another", []object{with(good, "alg", "PS256"), other}, "invalid signature"},
		{"alg absent", []object{with(good, "alg", nil)}, "ok"},
		{"key_ops without verify", []object{with(good, "key_ops", []string{"encrypt"}), other}, "invalid signature"},
		{"key_ops empty", []object{with(good, "key_ops", []string{}), other}, "invalid signature"},
		{"key_ops with verify", []object{with(good, "key_ops", []string{"verify"})}, "ok"},
		{"kty oct", []object{{"kty": "oct", "kid": "k0", "k": "c2VjcmV0"}, other}, "invalid signature"},
		{"kty missing", []object{with(good, "kty", nil), other}, "invalid signature"},
		{"n twice", nil, "invalid signature"},
		{"n missing", []object{with(good, "n", nil), other}, "invalid signature"},
		{"n with padding", []object{with(good, "n", good["n"].(string)+"="), other}, "invalid signature"},
		{"e = 1", []object{with(good, "e", "AQ"), other}, "invalid signature"},
		{"e even", []object{with(good, "e", "AQAC"), other}, "invalid signature"},
		{"e of 33 bits", []object{with(good, "e", "AQAAAAE"), other}, "invalid signature"},
		{"a certificate that is none", []object{with(good, "x5c", []any{"AAAA"}, "x5t", "A")}, "ok"},
		{"malformed ones beside the good one", []object{{"kty": "RSA", "kid": "k0", "n": 1}, {"kid": "k0"}, {}, good}, "ok"},
		{"a hundredth key", append(many(99, other), good), "ok"},
		{"a hundred and first key", append(many(100, other), good), "invalid signature"},
		{"more keys with one kid than are tried", append(many(20, rsaJWK("k0", rsaKey(1))), good), "invalid signature"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			p.published = row.keys
			if row.keys == nil {
				n := good["n"].(string)
				p.instead["keys"] = raw(fmt.Sprintf(`{"keys":[{"kty":"RSA","kid":"k0","n":%q,"e":"AQAB","n":%q}]}`, n, n))
			}
			_, err := p.login(p.party(), oidc.AuthRequest{})
			wantReason(t, "login", err, row.want)
		})
	}
}

// TOK-19, 20: crypto/rsa and crypto/ecdsa would refuse some of these when verifying, but they are out before that.
func TestKeysThatAreWeakOrBrokenAreLeftOut(t *testing.T) {
	modulus := func(bits uint) string {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		return b64(n.SetBit(n, 0, 1).Bytes())
	}
	rsa, ec, ed := rsaJWK("k", rsaKey(0)), ecJWK("k", ecKey()), edJWK("k", edKey())
	for _, row := range []struct {
		name, alg string
		key       any
		fit       bool
	}{
		{"RSA", "RS256", rsa, true},
		{"RSA of 2047 bits", "RS256", with(rsa, "n", modulus(2047)), false},
		{"RSA of 2048 bits", "RS256", with(rsa, "n", modulus(2048)), true},
		{"RSA of 8192 bits", "RS256", with(rsa, "n", modulus(8192)), true},
		{"RSA of 8193 bits", "RS256", with(rsa, "n", modulus(8193)), false},
		{"RSA with e = 0", "RS256", with(rsa, "e", ""), false},
		{"RSA with e = 1", "RS256", with(rsa, "e", "AQ"), false},
		{"RSA with e = 2", "RS256", with(rsa, "e", "Ag"), false},
		{"RSA with e = 3", "RS256", with(rsa, "e", "Aw"), true},
		{"RSA with an even e", "RS256", with(rsa, "e", "AQAC"), false},
		{"RSA with e of 32 bits", "RS256", with(rsa, "e", "gAAAAQ"), false},
		{"RSA for PS256", "PS256", with(rsa, "alg", nil), true},
		{"RSA marked RS256 for PS256", "PS256", rsa, false},
		{"P-256", "ES256", ec, true},
		{"P-256 for ES384", "ES384", ec, false},
		{"P-256 for RS256", "RS256", ec, false},
		{"a point that is not on the curve", "ES256", with(ec, "y", ec["x"]), false},
		{"the point 0, 0", "ES256", with(ec, "x", b64(make([]byte, 32)), "y", b64(make([]byte, 32))), false},
		{"a coordinate that is too short", "ES256", with(ec, "y", ec["y"].(string)[:40]), false},
		{"a coordinate with a zero in front", "ES256", with(ec, "x", "AA"+ec["x"].(string)), false},
		{"no y", "ES256", with(ec, "y", nil), false},
		{"Ed25519", "EdDSA", ed, true},
		{"Ed25519 that is too short", "EdDSA", with(ed, "x", "AAAA"), false},
		{"X25519", "EdDSA", with(ed, "crv", "X25519"), false},
		{"a number", "RS256", 7, false},
		{"null", "RS256", nil, false},
	} {
		n, err := oidc.FitKeys(must(json.Marshal(object{"keys": []any{row.key}})), row.alg)
		if err != nil || n == 1 != row.fit {
			t.Errorf("%s: %d keys, %v, want fit: %v", row.name, n, err, row.fit)
		}
	}
}

func TestConcurrentLoginsShareOneFetchAndLeaveWithTheirContexts(t *testing.T) {
	p := newProvider(t)
	rp := p.party()
	if _, _, err := rp.Start(context.Background(), oidc.AuthRequest{}); err != nil {
		t.Fatal(err)
	}
	arrived, release := make(chan bool, 100), make(chan bool)
	p.instead["keys"] = func(w http.ResponseWriter, r *http.Request) {
		arrived <- true
		<-release
		reply(w, object{"keys": p.published})
	}
	token := p.logoutToken(nil)
	var wg sync.WaitGroup
	verify := func() {
		if _, err := rp.VerifyLogoutToken(context.Background(), token); err != nil {
			t.Error(err)
		}
	}
	wg.Go(verify)
	<-arrived
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := rp.VerifyLogoutToken(ctx, token); !errors.Is(err, context.Canceled) {
		t.Errorf("a waiter whose context ended got %v", err)
	}
	for range 20 {
		wg.Go(verify)
	}
	close(release)
	wg.Wait()
	if n := p.count("keys"); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}

func TestKeysAreFetchedFromANewJWKSURI(t *testing.T) {
	p := newProvider(t)
	rp := p.party()
	if _, err := p.login(rp, oidc.AuthRequest{}); err != nil {
		t.Fatal(err)
	}
	p.discovery = set("jwks_uri", p.issuer+"keys?v=2")
	if err := rp.Discover(context.Background()); err != nil {
		t.Fatal(err)
	}
	p.published = []object{rsaJWK("k1", rsaKey(1))}
	_, err := p.login(rp, oidc.AuthRequest{})
	wantReason(t, "login with a key of the former place only", err, "invalid signature")
}

func TestTheJWKSURIOfTheDiscoveryDocumentIsUsed(t *testing.T) {
	p := newProvider(t)
	p.discovery = set("jwks_uri", p.issuer+"jwks-7f3a")
	_, err := p.login(p.party(), oidc.AuthRequest{})
	wantReason(t, "login", err, "unavailable keys")
	if p.count("keys") != 0 || p.count("") != 1 {
		t.Errorf("%d requests to the usual place, %d to the advertised one", p.count("keys"), p.count(""))
	}
}
