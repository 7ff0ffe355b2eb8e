package upstream_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"authproxy/assertion"
	"authproxy/upstream"

	"github.com/go-jose/go-jose/v4"
)

// signed is a request as the proxy sends it, with a message signature; change is done to it before or after it is signed.
func signed(t *testing.T, p *proxy, m *assertion.MessageSigner, before, after func(*http.Request)) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "http://app.test/a?b=c", nil)
	r.Header.Set(header, p.mint(t))
	r.Header.Set("X-Forwarded-User", "auth0|ada")
	if before != nil {
		before(r)
	}
	if err := m.Sign(r, "app.test", []string{header, "X-Forwarded-User", "X-Forwarded-Groups"}, p.now()); err != nil {
		t.Fatal(err)
	}
	if after != nil {
		after(r)
	}
	return r
}

func messageSigner(t *testing.T, algorithm, keyID string, key any) *assertion.MessageSigner {
	t.Helper()
	m, err := assertion.NewMessageSigner(algorithm, keyID, key)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSignaturesAreVerifiedWithTheSharedOrThePublishedKey(t *testing.T) {
	p := newProxy(t)
	secret := bytes.Repeat([]byte{7}, 32)
	ed := ed25519.NewKeyFromSeed(secret)
	if err := p.signer.Load().Publish(jose.JSONWebKey{Key: ed.Public(), KeyID: "ed", Algorithm: "EdDSA", Use: "sig"}); err != nil {
		t.Fatal(err)
	}
	ec, kid := key(t, 1), keyID(t, key(t, 1))
	other := bytes.Repeat([]byte{8}, 32)
	for name, tt := range map[string]struct {
		want   upstream.Signature
		signer *assertion.MessageSigner
		status int
	}{
		"hmac-sha256":                      {upstream.Signature{Algorithm: assertion.HMACSHA256, Key: secret}, messageSigner(t, assertion.HMACSHA256, "shared", secret), 200},
		"hmac-sha256 of another key":       {upstream.Signature{Algorithm: assertion.HMACSHA256, Key: secret}, messageSigner(t, assertion.HMACSHA256, "shared", other), 401},
		"hmac-sha256 without a key":        {upstream.Signature{Algorithm: assertion.HMACSHA256}, messageSigner(t, assertion.HMACSHA256, "shared", secret), 401},
		"ed25519":                          {upstream.Signature{Algorithm: assertion.Ed25519}, messageSigner(t, assertion.Ed25519, "ed", ed), 200},
		"ed25519 of another key":           {upstream.Signature{Algorithm: assertion.Ed25519}, messageSigner(t, assertion.Ed25519, "ed", ed25519.NewKeyFromSeed(other)), 401},
		"ed25519 of a key that is not":     {upstream.Signature{Algorithm: assertion.Ed25519}, messageSigner(t, assertion.Ed25519, "no", ed), 401},
		"ecdsa-p256-sha256":                {upstream.Signature{Algorithm: assertion.ECDSAP256SHA256}, messageSigner(t, assertion.ECDSAP256SHA256, kid, ec), 200},
		"ecdsa-p256-sha256 by another key": {upstream.Signature{Algorithm: assertion.ECDSAP256SHA256}, messageSigner(t, assertion.ECDSAP256SHA256, kid, key(t, 2)), 401},
		"another algorithm than expected":  {upstream.Signature{Algorithm: assertion.Ed25519}, messageSigner(t, assertion.ECDSAP256SHA256, kid, ec), 401},
		"the published key as a secret":    {upstream.Signature{Algorithm: assertion.Ed25519}, messageSigner(t, assertion.HMACSHA256, "ed", []byte(ed.Public().(ed25519.PublicKey))), 401},
		"no algorithm":                     {upstream.Signature{}, messageSigner(t, assertion.Ed25519, "ed", ed), 401},
	} {
		t.Run(name, func(t *testing.T) {
			v := p.verifier(t)
			v.Signature = &tt.want
			w := httptest.NewRecorder()
			v.Require(greet).ServeHTTP(w, signed(t, p, tt.signer, nil, nil))
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
		})
	}
}

func TestASignatureCoversWhatTheAppBelieves(t *testing.T) {
	p := newProxy(t)
	secret := bytes.Repeat([]byte{7}, 32)
	m := messageSigner(t, assertion.HMACSHA256, "shared", secret)
	for name, tt := range map[string]struct {
		want          upstream.Signature
		before, after func(*http.Request)
		status        int
	}{
		"as it was signed":        {status: 200},
		"no signature":            {after: func(r *http.Request) { r.Header.Del("Signature") }, status: 401},
		"no assertion":            {before: func(r *http.Request) { r.Header.Del(header) }, status: 401},
		"another path":            {after: func(r *http.Request) { r.URL.Path = "/admin" }, status: 401},
		"another method":          {after: func(r *http.Request) { r.Method = "DELETE" }, status: 401},
		"another host":            {after: func(r *http.Request) { r.Host = "evil.test" }, status: 401},
		"another host, expected":  {want: upstream.Signature{Authority: "app.test"}, after: func(r *http.Request) { r.Host = "127.0.0.1:5000" }, status: 200},
		"another assertion":       {after: func(r *http.Request) { r.Header.Set(header, p.mint(t)) }, status: 401},
		"an assertion put in":     {before: func(r *http.Request) { r.Header.Del(header) }, after: func(r *http.Request) { r.Header.Set(header, p.mint(t)) }, status: 401},
		"another user":            {after: func(r *http.Request) { r.Header.Set("X-Forwarded-User", "auth0|eve") }, status: 401},
		"groups put in":           {after: func(r *http.Request) { r.Header.Set("X-Forwarded-Groups", "admins") }, status: 401},
		"an address put in":       {after: func(r *http.Request) { r.Header.Set("X-Forwarded-Email", "eve@corp.test") }, status: 401},
		"a header nobody reads":   {after: func(r *http.Request) { r.Header.Set("X-Role", "admin") }, status: 200},
		"the same, that is read":  {want: upstream.Signature{Headers: []string{"X-Role"}}, after: func(r *http.Request) { r.Header.Set("X-Role", "admin") }, status: 401},
		"a minute later":          {after: func(*http.Request) { p.advance(time.Minute) }, status: 200},
		"after the usual leeway":  {after: func(*http.Request) { p.advance(time.Minute + 31*time.Second) }, status: 401},
		"signed in times to come": {after: func(*http.Request) { p.advance(-25 * time.Second) }, status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			v := p.verifier(t)
			tt.want.Algorithm, tt.want.Key = assertion.HMACSHA256, secret
			v.Signature = &tt.want
			w := httptest.NewRecorder()
			v.Require(greet).ServeHTTP(w, signed(t, p, m, tt.before, tt.after))
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
		})
	}
}

// Nobody in particular may send any request to a page for everybody: the proxy signs those of signed-in users only.
func TestWithoutAnAssertionNoSignatureIsAskedFor(t *testing.T) {
	v := newProxy(t).verifier(t)
	v.Signature = &upstream.Signature{Algorithm: assertion.Ed25519}
	if _, err := v.Identify(httptest.NewRequest("GET", "/", nil)); !errors.Is(err, upstream.ErrNone) {
		t.Errorf("Identify: %v, want ErrNone", err)
	}
}

func TestANonceThatWasThereBeforeRefusesARequest(t *testing.T) {
	p := newProxy(t)
	secret := bytes.Repeat([]byte{7}, 32)
	m := messageSigner(t, assertion.HMACSHA256, "shared", secret)
	seen := map[string]time.Time{}
	v := p.verifier(t)
	v.Signature = &upstream.Signature{Algorithm: assertion.HMACSHA256, Key: secret, Nonce: func(nonce string, until time.Time) error {
		if _, ok := seen[nonce]; ok {
			return errors.New("the request was there before")
		}
		seen[nonce] = until
		return nil
	}}
	h := v.Require(greet)
	r := signed(t, p, m, nil, nil)
	forged := signed(t, p, m, nil, func(r *http.Request) { r.Header.Set("X-Forwarded-User", "auth0|eve") })
	for i, tt := range []struct {
		r      *http.Request
		status int
	}{{r, 200}, {r, 401}, {forged, 401}, {signed(t, p, m, nil, nil), 200}} {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, tt.r.Clone(t.Context())); w.Code != tt.status {
			t.Errorf("request %d: status %d, want %d", i, w.Code, tt.status)
		}
	}
	if len(seen) != 2 {
		t.Errorf("%d nonces were to be remembered, want those of the 2 good requests", len(seen))
	}
	for _, until := range seen {
		if want := p.now().Add(time.Minute + 30*time.Second); !until.Equal(want) {
			t.Errorf("to be remembered until %v, want %v", until, want)
		}
	}
}
