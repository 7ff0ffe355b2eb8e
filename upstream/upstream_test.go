package upstream_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authproxy/assertion"
	"authproxy/identity"
	"authproxy/upstream"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
)

const (
	issuer   = "https://app.test"
	audience = "http://127.0.0.1:5000"
	header   = "X-Authproxy-Assertion"
	ttl      = 2 * time.Minute
)

var ada = &identity.Identity{
	Issuer: "https://acme.eu.auth0.com/", Subject: "auth0|ada", Email: "ada@corp.test", EmailVerified: true, Name: "Ada", Username: "ada",
	Groups: []string{"staff", "admins, all"}, AuthTime: time.Unix(1700000000, 0), Claims: map[string]any{"department": "research"},
}

// A proxy is what apps know of one: what it signs, and its keys over HTTP.
type proxy struct {
	url     string
	signer  atomic.Pointer[assertion.Signer]
	broken  atomic.Bool
	fetches atomic.Int32
	asked   chan struct{}                 // gets a value for each fetch
	answer  atomic.Pointer[chan struct{}] // fetches wait for its end, when there is one
	clock   atomic.Int64                  // nanoseconds
}

func newProxy(t testing.TB) *proxy {
	t.Helper()
	p := &proxy{asked: make(chan struct{}, 100)}
	p.clock.Store(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).UnixNano())
	p.signer.Store(newSigner(t, issuer, key(t, 1)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.fetches.Add(1)
		p.asked <- struct{}{}
		if slow := p.answer.Load(); slow != nil {
			<-*slow
		}
		if p.broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		jwks, _ := p.signer.Load().JWKS()
		w.Write(jwks)
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func (p *proxy) now() time.Time          { return time.Unix(0, p.clock.Load()) }
func (p *proxy) advance(d time.Duration) { p.clock.Add(int64(d)) }

func (p *proxy) mint(t testing.TB) string { return mint(t, p.signer.Load(), audience, p.now()) }

func (p *proxy) verifier(t testing.TB) *upstream.Verifier {
	t.Helper()
	v, err := upstream.NewVerifier(p.url, issuer, audience)
	if err != nil {
		t.Fatal(err)
	}
	v.Now = p.now
	return v
}

func key(t testing.TB, n byte) *ecdsa.PrivateKey {
	t.Helper()
	k, err := assertion.DeriveKey(bytes.Repeat([]byte{n}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newSigner(t testing.TB, issuer string, keys ...*ecdsa.PrivateKey) *assertion.Signer {
	t.Helper()
	s, err := assertion.NewSigner(issuer, ttl, keys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mint(t testing.TB, s *assertion.Signer, audience string, at time.Time) string {
	t.Helper()
	token, _, err := s.Mint(ada, []string{"department"}, "session-1", audience, at)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// sign signs claims about eve as the proxy never would.
func sign(t testing.TB, alg jose.SignatureAlgorithm, key any, kid, typ string, at time.Time) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, new(jose.SignerOptions).WithType(jose.ContentType(typ)))
	if err != nil {
		t.Fatal(err)
	}
	payload := fmt.Sprintf(`{"iss":%q,"aud":%q,"sub":"eve","iat":%d,"exp":%d}`, issuer, audience, at.Unix(), at.Unix()+120)
	jws, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func keyID(t testing.TB, k *ecdsa.PrivateKey) string {
	t.Helper()
	kid, err := assertion.KeyID(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return kid
}

// greet is an app. It must not be reached without a user.
var greet = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	who, ok := upstream.FromContext(r.Context())
	if !ok {
		panic("nobody is known")
	}
	fmt.Fprintf(w, "Hello, %s!", who.Subject)
})

// get asks a handler for a page, with these values of the header.
func get(t testing.TB, h http.Handler, values ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "http://app.test/", nil)
	for _, v := range values {
		r.Header.Add(header, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// want asks for a page and fails the test unless the status is that.
func want(t testing.TB, h http.Handler, status int, what string, values ...string) {
	t.Helper()
	w := get(t, h, values...)
	if greeted := strings.HasPrefix(w.Body.String(), "Hello, auth0|ada!"); w.Code != status || greeted != (status == http.StatusOK) {
		t.Errorf("%s: the answer is %d %q, want %d", what, w.Code, w.Body, status)
	}
}

func TestAnIdentityIsWhatTheAssertionSays(t *testing.T) {
	p := newProxy(t)
	iat := float64(p.now().Unix())
	var got *upstream.Identity
	h := p.verifier(t).Require(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got, _ = upstream.FromContext(r.Context()) }))
	if w := get(t, h, p.mint(t)); w.Code != http.StatusOK || got == nil || got.ID == "" || got.ID != got.Claims["jti"] {
		t.Fatalf("status %d, identity %+v", w.Code, got)
	}
	got.ID = ""
	delete(got.Claims, "jti")
	if diff := cmp.Diff(&upstream.Identity{
		Subject: "auth0|ada", Provider: "https://acme.eu.auth0.com/", Email: "ada@corp.test", EmailVerified: true, Name: "Ada", Username: "ada",
		Groups: []string{"staff", "admins, all"}, AuthTime: time.Unix(1700000000, 0), Session: "session-1", Expires: p.now().Add(ttl),
		Claims: map[string]any{
			"iss": issuer, "aud": audience, "sub": "auth0|ada", "idp": "https://acme.eu.auth0.com/", "iat": iat, "exp": iat + 120, "sid": "session-1", "email": "ada@corp.test",
			"email_verified": true, "name": "Ada", "username": "ada", "groups": []any{"staff", "admins, all"}, "auth_time": 1700000000.0, "department": "research",
		},
	}, got); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
}

func TestAClaimOfAnotherTypeIsAbsent(t *testing.T) {
	p := newProxy(t)
	who := &identity.Identity{Subject: "bob"}
	token, _, err := p.signer.Load().Mint(who, nil, "", audience, p.now())
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.verifier(t).Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if got.Subject != "bob" || got.Email != "" || got.EmailVerified || got.Groups != nil || !got.AuthTime.IsZero() || got.Session != "" {
		t.Errorf("identity %+v, want nothing but a subject", got)
	}
}

func TestRequirePassesTheRequestOnAsItCame(t *testing.T) {
	p := newProxy(t)
	token := p.mint(t)
	var got http.Header
	h := p.verifier(t).Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusTeapot)
		w.Write(body)
	}))
	r := httptest.NewRequest("POST", "http://app.test/x?y", strings.NewReader("the body"))
	r.Header = http.Header{header: {token}, "X-Forwarded-User": {"auth0|ada"}, "Cookie": {"a=b"}}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusTeapot || w.Body.String() != "the body" || w.Header().Get("Cache-Control") != "" {
		t.Errorf("the answer is %d %q %v, want the handler's", w.Code, w.Body, w.Header())
	}
	if diff := cmp.Diff(http.Header{header: {token}, "X-Forwarded-User": {"auth0|ada"}, "Cookie": {"a=b"}}, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestRequireRefusesEverythingElse(t *testing.T) {
	p := newProxy(t)
	ours, kid := key(t, 1), keyID(t, key(t, 1))
	ed := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	if err := p.signer.Load().Publish(jose.JSONWebKey{Key: ed.Public(), KeyID: "ed", Algorithm: "EdDSA", Use: "sig"}); err != nil {
		t.Fatal(err)
	}
	v := p.verifier(t)
	h := v.Require(greet)
	good := p.mint(t)
	part := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	point, err := ours.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	want(t, h, http.StatusOK, "a good one", good)
	for name, values := range map[string][]string{
		"missing":                             nil,
		"empty":                               {""},
		"no token":                            {"ada"},
		"doubled":                             {good, good},
		"a good one after another":            {"x", good},
		"two in one line":                     {good + ", " + good},
		"Bearer":                              {"Bearer " + good},
		"forged by another key":               {sign(t, jose.ES256, key(t, 2), kid, assertion.Type, p.now())},
		"another key of the set":              {sign(t, jose.ES256, ours, "ed", assertion.Type, p.now())},
		"a key that is not there":             {mint(t, newSigner(t, issuer, key(t, 2)), audience, p.now())},
		"changed claims":                      {part[0] + "." + b64([]byte(strings.Replace(payload(t, part[1]), "ada", "eve", 1))) + "." + part[2]},
		"no signature":                        {part[0] + "." + part[1] + "."},
		"alg none":                            {b64([]byte(`{"alg":"none","kid":"`+kid+`","typ":"`+assertion.Type+`"}`)) + "." + part[1] + "."},
		"HS256 with the public key as secret": {sign(t, jose.HS256, point, kid, assertion.Type, p.now())},
		"EdDSA with a key of the set":         {sign(t, jose.EdDSA, ed, "ed", assertion.Type, p.now())},
		"expired":                             {mint(t, p.signer.Load(), audience, p.now().Add(-ttl-30*time.Second))},
		"from the future":                     {mint(t, p.signer.Load(), audience, p.now().Add(31*time.Second))},
		"got for another audience":            {mint(t, p.signer.Load(), "http://127.0.0.1:6000", p.now())},
		"another issuer":                      {mint(t, newSigner(t, "https://other.test", ours), audience, p.now())},
		"an ID token's type":                  {sign(t, jose.ES256, ours, kid, "JWT", p.now())},
	} {
		w := get(t, h, values...)
		if w.Code != http.StatusUnauthorized || strings.Contains(w.Body.String(), "Hello") || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: the answer is %d %q %v, want 401", name, w.Code, w.Body, w.Header())
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Header[header] = values
		if who, err := v.Identify(r); who != nil || err == nil || errors.Is(err, upstream.ErrNone) != (values == nil) || errors.Is(err, upstream.ErrKeys) {
			t.Errorf("%s: Identify = %v, %v", name, who, err)
		}
	}
	if n := p.fetches.Load(); n != 2 {
		t.Errorf("the keys were fetched %d times, want once, and once because of a key that is not there", n)
	}
	want(t, h, http.StatusOK, "a good one afterwards", good)
	// What is refused above is refused for what its name says: by hand, the rest of it is good.
	if who, err := v.Verify(t.Context(), sign(t, jose.ES256, ours, kid, assertion.Type, p.now())); err != nil || who.Subject != "eve" {
		t.Errorf("Verify of one made by hand = %v, %v", who, err)
	}
}

func payload(t testing.TB, part string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAnAssertionIsGoodForItsTimeAndTheLeeway(t *testing.T) {
	for name, leeway := range map[string]time.Duration{"the usual leeway": 0, "a leeway of its own": 5 * time.Second} {
		p := newProxy(t)
		v := p.verifier(t)
		v.Leeway = leeway
		if leeway == 0 {
			leeway = 30 * time.Second
		}
		h := v.Require(greet)
		token := p.mint(t)
		p.advance(ttl + leeway - time.Second)
		want(t, h, http.StatusOK, name+": at the last second", token)
		p.advance(time.Second)
		want(t, h, http.StatusUnauthorized, name+": after it", token)
	}
}

func TestTheHeaderMayHaveAnotherName(t *testing.T) {
	p := newProxy(t)
	v := p.verifier(t)
	v.Header = "X-Who"
	h := v.Require(greet)
	want(t, h, http.StatusUnauthorized, "in the usual header", p.mint(t))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Who", p.mint(t))
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusOK {
		t.Errorf("in its header: status %d", w.Code)
	}
}

func TestNewVerifierRefuses(t *testing.T) {
	for name, args := range map[string][3]string{
		"no keys":           {"", issuer, audience},
		"a file":            {"/jwks.json", issuer, audience},
		"another scheme":    {"ftp://app.test/jwks.json", issuer, audience},
		"a user in the URL": {"https://user:hunter2@app.test/jwks.json", issuer, audience},
		"no issuer":         {"https://app.test/jwks.json", "", audience},
		"no audience":       {"https://app.test/jwks.json", issuer, ""},
	} {
		if v, err := upstream.NewVerifier(args[0], args[1], args[2]); err == nil || v != nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: NewVerifier = %v, %v, want an error", name, v, err)
		}
	}
}

func TestOutsideOfRequireNobodyIsKnown(t *testing.T) {
	if who, ok := upstream.FromContext(t.Context()); who != nil || ok {
		t.Errorf("FromContext = %v, %v", who, ok)
	}
	if who, ok := upstream.FromContext(upstream.NewContext(t.Context(), nil)); who != nil || ok {
		t.Errorf("FromContext after NewContext of nil = %v, %v", who, ok)
	}
	eve := &upstream.Identity{Subject: "eve"}
	if who, ok := upstream.FromContext(upstream.NewContext(t.Context(), eve)); who != eve || !ok {
		t.Errorf("FromContext = %v, %v, want what NewContext got", who, ok)
	}
}

func TestKeysAreFetchedOnceForAllWhoWait(t *testing.T) {
	p := newProxy(t)
	slow := make(chan struct{})
	p.answer.Store(&slow)
	h := p.verifier(t).Require(greet)
	token := p.mint(t)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { want(t, h, http.StatusOK, "one of many", token) })
	}
	<-p.asked
	close(slow)
	all.Wait()
	want(t, h, http.StatusOK, "one more", token)
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times, want once", n)
	}
}

func TestWhoWaitsForSlowKeysLeavesWithItsOwnContext(t *testing.T) {
	p := newProxy(t)
	slow := make(chan struct{})
	p.answer.Store(&slow)
	v := p.verifier(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := v.Verify(ctx, p.mint(t))
		done <- err
	}()
	<-p.asked
	cancel()
	if err := <-done; !errors.Is(err, upstream.ErrKeys) || !errors.Is(err, context.Canceled) {
		t.Errorf("Verify: %v, want ErrKeys and the context's error", err)
	}
	close(slow)
	if _, err := v.Verify(t.Context(), p.mint(t)); err != nil {
		t.Errorf("Verify of the next: %v", err)
	}
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times, want once", n)
	}
}

func TestKeysThatAreSlowAtStartAre503InTheEnd(t *testing.T) {
	p := newProxy(t)
	slow := make(chan struct{})
	p.answer.Store(&slow)
	defer close(slow)
	v := p.verifier(t)
	v.Client = &http.Client{Timeout: 50 * time.Millisecond}
	want(t, v.Require(greet), http.StatusServiceUnavailable, "without keys", p.mint(t))
}

func TestKeysThatAreDownAtStartAre503UntilTheyCome(t *testing.T) {
	p := newProxy(t)
	p.broken.Store(true)
	v := p.verifier(t)
	var log bytes.Buffer
	v.Log = slog.New(slog.NewTextHandler(&log, nil))
	h := v.Require(greet)
	token := p.mint(t)
	for range 3 {
		if w := get(t, h, token); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("the answer is %d %v, want 503 and Retry-After", w.Code, w.Header())
		}
	}
	want(t, h, http.StatusUnauthorized, "what needs no keys to be refused", "ada")
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times within a second, want once", n)
	}
	if said := log.String(); !strings.Contains(said, "status 503") || !strings.Contains(said, "request refused") || strings.Contains(said, token) {
		t.Errorf("the log says %s", said)
	}
	p.broken.Store(false)
	p.advance(time.Second)
	want(t, h, http.StatusOK, "with keys", token)
}

func TestLastGoodKeysStayInUse(t *testing.T) {
	p := newProxy(t)
	v := p.verifier(t)
	h := v.Require(greet)
	want(t, h, http.StatusOK, "at first", p.mint(t))
	p.broken.Store(true)
	p.advance(5 * time.Minute)
	for deadline := time.Now().Add(20 * time.Second); p.fetches.Load() < 4; p.advance(10 * time.Second) {
		want(t, h, http.StatusOK, "while the proxy is down", p.mint(t))
		if time.Now().After(deadline) {
			t.Fatalf("the keys were asked for %d times only", p.fetches.Load())
		}
		time.Sleep(time.Millisecond) // the fetch is beside the request
	}
	// A key that is not there may be a new one: nothing can be said about it.
	want(t, h, http.StatusServiceUnavailable, "a key that is not there", mint(t, newSigner(t, issuer, key(t, 2)), audience, p.now()))
}

func TestOldKeysAreRenewedBesideTheRequests(t *testing.T) {
	p := newProxy(t)
	h := p.verifier(t).Require(greet)
	want(t, h, http.StatusOK, "at first", p.mint(t))
	<-p.asked
	slow := make(chan struct{})
	p.answer.Store(&slow)
	p.advance(5 * time.Minute)
	for range 3 {
		want(t, h, http.StatusOK, "while the keys are slow", p.mint(t))
	}
	<-p.asked
	close(slow)
	if n := p.fetches.Load(); n != 2 {
		t.Errorf("the keys were fetched %d times, want twice", n)
	}
}

func TestRotatedKeysAreFetchedAtOnce(t *testing.T) {
	p := newProxy(t)
	h := p.verifier(t).Require(greet)
	before := p.mint(t)
	want(t, h, http.StatusOK, "before", before)
	p.signer.Store(newSigner(t, issuer, key(t, 2), key(t, 1)))
	want(t, h, http.StatusOK, "after", p.mint(t))
	want(t, h, http.StatusOK, "one from before", before)
	if n := p.fetches.Load(); n != 2 {
		t.Errorf("the keys were fetched %d times, want twice", n)
	}
	p.signer.Store(newSigner(t, issuer, key(t, 3)))
	want(t, h, http.StatusUnauthorized, "a second change within 10 seconds", p.mint(t))
	p.advance(10 * time.Second)
	want(t, h, http.StatusOK, "10 seconds later", p.mint(t))
	want(t, h, http.StatusUnauthorized, "a key that was taken back", before)
}

func TestKeysThatAreTakenBackAreForgotten(t *testing.T) {
	p := newProxy(t)
	h := p.verifier(t).Require(greet)
	old := p.signer.Load()
	want(t, h, http.StatusOK, "before", mint(t, old, audience, p.now()))
	p.signer.Store(newSigner(t, issuer, key(t, 2)))
	p.advance(5 * time.Minute)
	// The first one begins a fetch and does not wait for it; a new key does.
	get(t, h, mint(t, old, audience, p.now()))
	want(t, h, http.StatusOK, "a new key", p.mint(t))
	want(t, h, http.StatusUnauthorized, "the old key", mint(t, old, audience, p.now()))
}

func TestMadeUpKeysCauseAFetchEvery10SecondsAtMost(t *testing.T) {
	p := newProxy(t)
	h := p.verifier(t).Require(greet)
	want(t, h, http.StatusOK, "at first", p.mint(t))
	for i := range 50 {
		token := sign(t, jose.ES256, key(t, 2), fmt.Sprint("made up ", i), assertion.Type, p.now())
		want(t, h, http.StatusUnauthorized, "a made-up key", token)
		p.advance(time.Second)
	}
	if n := p.fetches.Load(); n != 1+5 {
		t.Errorf("the keys were fetched %d times in 50 seconds, want 6", n)
	}
}

func TestWhatIsRefusedAnywayCausesNoFetch(t *testing.T) {
	p := newProxy(t)
	h := p.verifier(t).Require(greet)
	for _, token := range []string{"ada", mint(t, p.signer.Load(), "http://127.0.0.1:6000", p.now()), mint(t, p.signer.Load(), audience, p.now().Add(-time.Hour))} {
		want(t, h, http.StatusUnauthorized, "no good one", token)
	}
	if n := p.fetches.Load(); n != 0 {
		t.Errorf("the keys were fetched %d times, want never", n)
	}
}

func TestKeysComeFromTheirOriginOnly(t *testing.T) {
	p := newProxy(t)
	elsewhere := httptest.NewServer(http.RedirectHandler(p.url, http.StatusFound))
	defer elsewhere.Close()
	v, err := upstream.NewVerifier(elsewhere.URL, issuer, audience)
	if err != nil {
		t.Fatal(err)
	}
	v.Now, v.Client = p.now, new(http.Client)
	want(t, v.Require(greet), http.StatusServiceUnavailable, "keys of another origin", p.mint(t))
	if n := p.fetches.Load(); n != 0 {
		t.Errorf("the other origin was asked %d times", n)
	}
}

// golden is an assertion about ada, minted when the clock begins by the key that proxies begin with. The fuzzing processes share
// it: no two assertions are the same.
const golden = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImhEZU5WNGpFVFJoUl9pdXU3VjBhZ1FCVnZzYlNnNzdldVQ3WDFVdFNYOFEiLCJ0eXAiOiJhdXRocHJveHktYXNzZXJ0aW9uK2p3dCJ9." +
	"eyJhdWQiOiJodHRwOi8vMTI3LjAuMC4xOjUwMDAiLCJhdXRoX3RpbWUiOjE3MDAwMDAwMDAsImRlcGFydG1lbnQiOiJyZXNlYXJjaCIsImVtYWlsIjoiYWRhQGNvcnAudGVzdCIsImVtYWlsX3ZlcmlmaWVkIjp0cnVlLCJleHAiOjE3OTU0MzUzMjAsImdyb3VwcyI6WyJzdGFmZiIsImFkbWlucywgYWxsIl0sImlhdCI6M" +
	"Tc5NTQzNTIwMCwiaWRwIjoiaHR0cHM6Ly9hY21lLmV1LmF1dGgwLmNvbS8iLCJpc3MiOiJodHRwczovL2FwcC50ZXN0IiwianRpIjoiTzRCQTdES1FaRllPWVlJVUVLUEEyTVpKRDYiLCJuYW1lIjoiQWRhIFx1MDAzY0xcdTAwM2UiLCJzaWQiOiJzaWQtMSIsInN1YiI6ImF1dGgwfGFkYSIsInVzZXJuYW1lIjoiYWRhIn0." +
	"kZ95FoMeTGNYj30nA-b0blTdVWlH0hJmbBe_bCUS3wX5LrWRMzCLFlpPo0e0gy3pCUOM8WsEcP6gP9bRxAR_WQ"

// Whatever comes, in one line or two: only the one assertion, once, lets somebody in.
func FuzzRequire(f *testing.F) {
	p := newProxy(f)
	good := golden
	h := p.verifier(f).Require(greet)
	f.Add(good, false, "")
	f.Add(good, true, good)
	f.Add(good+",", true, "")
	f.Add(strings.ReplaceAll(good, ".", ".."), false, "")
	f.Add(sign(f, jose.ES256, key(f, 2), keyID(f, key(f, 1)), assertion.Type, p.now()), false, "")
	signed := good[:strings.LastIndexByte(good, '.')]
	f.Fuzz(func(t *testing.T, one string, doubled bool, two string) {
		values := []string{one}
		if doubled {
			values = append(values, two)
		}
		w := get(t, h, values...)
		// Of an ECDSA signature there are two.
		ours := !doubled && len(one) == len(good) && strings.HasPrefix(one, signed+".")
		if w.Code == http.StatusOK && !ours || w.Code != http.StatusOK && w.Code != http.StatusUnauthorized || one == good && !doubled && w.Code != http.StatusOK {
			t.Errorf("the answer to %q is %d %q", values, w.Code, w.Body)
		}
	})
}
