package oidc_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"authproxy/oidc"
)

const (
	clientID     = "client-1"
	clientSecret = "s3cr3t:/+ %é"
	redirectURL  = "https://app.example.com/auth/callback"
)

// start is when the tests happen, unless they move the clock.
var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

type object = map[string]any

// A provider is a signing OpenID Provider with hooks that change what it says. It shares no code with the package.
type provider struct {
	t      testing.TB
	issuer string
	srv    *httptest.Server

	mu     sync.Mutex
	clock  time.Time
	counts map[string]int
	forms  map[string]url.Values  // last form of each endpoint
	heads  map[string]http.Header // last header of each endpoint
	codes  map[string]url.Values  // code -> authorization request

	// Hooks. Set them between requests only.
	discovery, header, claims, refreshClaims, answer, refreshAnswer, userinfo func(object)
	payload                                                                   func([]byte) []byte
	token                                                                     func(string) string
	published                                                                 []object                    // the key set
	key                                                                       any                         // signs
	instead                                                                   map[string]http.HandlerFunc // endpoint -> answers in its place
}

func newProvider(t testing.TB) *provider {
	p := &provider{t: t, clock: start, counts: map[string]int{}, forms: map[string]url.Values{}, heads: map[string]http.Header{},
		codes: map[string]url.Values{}, instead: map[string]http.HandlerFunc{}, key: rsaKey(0)}
	p.published = []object{rsaJWK("k0", rsaKey(0)), rsaJWK("k1", rsaKey(1))}
	p.srv = httptest.NewServer(p)
	t.Cleanup(p.srv.Close)
	p.issuer = p.srv.URL + "/"
	return p
}

func (p *provider) now() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clock
}

func (p *provider) sleep(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clock = p.clock.Add(d)
}

func (p *provider) count(endpoint string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[endpoint]
}

// set makes h answer for an endpoint, or with nil the provider itself.
func (p *provider) set(endpoint string, h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.instead[endpoint] = h
}

func (p *provider) form(endpoint string) url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.forms[endpoint]
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	endpoint := map[string]string{"/.well-known/openid-configuration": "discovery", "/keys": "keys", "/token": "token", "/userinfo": "userinfo",
		"/revoke": "revocation"}[r.URL.Path]
	r.ParseForm()
	p.mu.Lock()
	p.counts[endpoint]++
	p.forms[endpoint] = r.PostForm
	p.heads[endpoint] = r.Header.Clone()
	instead := p.instead[endpoint]
	p.mu.Unlock()
	if instead != nil {
		instead(w, r)
		return
	}
	w.Header().Set("Date", p.now().Format(http.TimeFormat))
	switch endpoint {
	case "discovery":
		reply(w, change(object{"issuer": p.issuer, "authorization_endpoint": p.issuer + "authorize", "token_endpoint": p.issuer + "token",
			"userinfo_endpoint": p.issuer + "userinfo", "jwks_uri": p.issuer + "keys", "revocation_endpoint": p.issuer + "revoke",
			"end_session_endpoint": p.issuer + "logout", "id_token_signing_alg_values_supported": []string{"HS256", "RS256", "none"},
			"token_endpoint_auth_methods_supported": []string{"client_secret_basic", "client_secret_post", "private_key_jwt"}}, p.discovery))
	case "keys":
		reply(w, object{"keys": p.published})
	case "token":
		if r.PostForm.Get("grant_type") == "refresh_token" {
			reply(w, change(object{"access_token": "access-2", "refresh_token": "refresh-2", "token_type": "Bearer", "expires_in": 600,
				"id_token": p.idToken("", p.refreshClaims)}, p.refreshAnswer))
			return
		}
		req, ok := p.codes[r.PostForm.Get("code")]
		sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
		if !ok || r.PostForm.Get("redirect_uri") != req.Get("redirect_uri") || req.Get("code_challenge") != b64(sum[:]) {
			fail(403, object{"error": "invalid_grant", "error_description": "Invalid authorization code " + r.PostForm.Get("code")})(w, r)
			return
		}
		delete(p.codes, r.PostForm.Get("code"))
		reply(w, change(object{"access_token": "access-1", "refresh_token": "refresh-1", "token_type": "Bearer", "expires_in": 3600,
			"id_token": p.idToken(req.Get("nonce"), p.claims)}, p.answer))
	case "userinfo":
		if r.Header.Get("Authorization") == "" {
			w.WriteHeader(401)
			return
		}
		reply(w, change(object{"sub": "auth0|ada", "groups": []string{"from-userinfo"}}, p.userinfo))
	case "revocation":
	default:
		http.NotFound(w, r)
	}
}

// idToken is an ID token of the user Ada.
func (p *provider) idToken(nonce string, hook func(object)) string {
	now := p.now().Unix()
	c := object{"iss": p.issuer, "aud": clientID, "sub": "auth0|ada", "iat": now, "exp": now + 36000, "sid": "sid-1", "email": "ada@example.com",
		"email_verified": true, "name": "Ada Lovelace", "nickname": "ada", "groups": []any{"admins", "staff"}}
	if nonce != "" {
		c["nonce"] = nonce
	}
	return p.sign(change(c, hook))
}

// sign signs claims and applies the hooks for header, payload and token.
func (p *provider) sign(claims object) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		p.t.Error(err)
	}
	if p.payload != nil {
		payload = p.payload(payload)
	}
	raw := jws(change(object{"alg": "RS256", "typ": "JWT", "kid": "k0"}, p.header), payload, p.key)
	if p.token != nil {
		raw = p.token(raw)
	}
	return raw
}

// party makes a relying party for p.
func (p *provider) party(change ...func(*oidc.Config)) *oidc.RelyingParty {
	p.t.Helper()
	cfg := oidc.Config{Issuer: p.issuer, ClientID: clientID, ClientSecret: clientSecret, RedirectURL: redirectURL,
		Scopes: []string{"openid", "profile", "email"}, Leeway: time.Minute, Now: p.now}
	for _, c := range change {
		c(&cfg)
	}
	rp, err := oidc.New(cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	return rp
}

// begin starts a login and lets the user sign in at the provider: it returns what comes to the callback.
func (p *provider) begin(rp *oidc.RelyingParty, req oidc.AuthRequest) (oidc.Login, url.Values) {
	p.t.Helper()
	to, login, err := rp.Start(context.Background(), req)
	if err != nil {
		p.t.Fatalf("Start: %v", err)
	}
	u, err := url.Parse(to)
	if err != nil {
		p.t.Fatal(err)
	}
	code := "code-" + rand.Text()
	p.codes[code] = u.Query()
	return login, url.Values{"code": {code}, "state": {login.State}}
}

// login2 is login with a Start that may fail.
func (p *provider) login2(rp *oidc.RelyingParty) (*oidc.Tokens, error) {
	if _, _, err := rp.Start(context.Background(), oidc.AuthRequest{}); err != nil {
		return nil, err
	}
	return p.login(rp, oidc.AuthRequest{})
}

// login signs Ada in.
func (p *provider) login(rp *oidc.RelyingParty, req oidc.AuthRequest) (*oidc.Tokens, error) {
	p.t.Helper()
	login, response := p.begin(rp, req)
	return rp.Finish(context.Background(), login, response)
}

// --- errors

// reason is the kind and label of an error: "ok", "denied access_denied", "invalid nonce", ...
func reason(err error) string {
	switch e := err.(type) {
	case nil:
		return "ok"
	case *oidc.Denied:
		return "denied " + e.Code
	case *oidc.Invalid:
		return "invalid " + e.Reason
	case *oidc.Misconfigured:
		return "misconfigured " + e.Reason
	case *oidc.Unavailable:
		return "unavailable " + e.Op
	}
	return fmt.Sprintf("%T", err)
}

func wantReason(t *testing.T, what string, err error, want string) {
	t.Helper()
	if got := reason(err); got != want {
		t.Errorf("%s = %s (%v), want %s", what, got, err, want)
	}
}

func mustBeGrant(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, oidc.ErrInvalidGrant) {
		t.Errorf("error %v does not wrap ErrInvalidGrant", err)
	}
}

// --- hooks

func change(o object, hook func(object)) object {
	if hook != nil {
		hook(o)
	}
	return o
}

// set returns a hook that sets a member, or removes it when v is nil.
func set(name string, v any) func(object) {
	return func(o object) {
		if v == nil {
			delete(o, name)
		} else {
			o[name] = v
		}
	}
}

func all(hooks ...func(object)) func(object) {
	return func(o object) {
		for _, h := range hooks {
			h(o)
		}
	}
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// fail answers with a status, and an object if there is one. Pairs of header fields may follow.
func fail(status int, body object, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		if body != nil {
			json.NewEncoder(w).Encode(body)
		}
	}
}

// raw answers 200 with these bytes.
func raw(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(body)) }
}

// cut closes the connection without an answer.
func cut(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// logged collects what a relying party logs.
func logged(cfg *oidc.Config) *logBuffer {
	b := new(logBuffer)
	cfg.Log = textLog(b)
	return b
}

type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

var discardLog = log.New(io.Discard, "", 0)

func certPool(c *x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c)
	return pool
}

// --- keys and signatures, with the standard library only

var rsaKeys = func() (make [3]func() *rsa.PrivateKey) {
	for i := range make {
		make[i] = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	}
	return make
}()

func rsaKey(i int) *rsa.PrivateKey { return rsaKeys[i]() }

var ecKey = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })

var edKey = sync.OnceValue(func() ed25519.PrivateKey {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	return must(k, err)
})

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func rsaJWK(kid string, k *rsa.PrivateKey) object {
	return object{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())}
}

func ecJWK(kid string, k *ecdsa.PrivateKey) object {
	point := must(k.PublicKey.Bytes())
	return object{"kty": "EC", "crv": "P-256", "kid": kid, "x": b64(point[1:33]), "y": b64(point[33:])}
}

func edJWK(kid string, k ed25519.PrivateKey) object {
	return object{"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(k.Public().(ed25519.PublicKey))}
}

// with returns a copy of o with members set, or removed when nil: name, value, name, value, ...
func with(o object, pairs ...any) object {
	out := object{}
	for k, v := range o {
		out[k] = v
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		set(pairs[i].(string), pairs[i+1])(out)
	}
	return out
}

// jws signs with key as the header's alg says: RSA, P-256, Ed25519, bytes for HMAC, nil for no signature.
func jws(header object, payload []byte, key any) string {
	input := b64(must(json.Marshal(header))) + "." + b64(payload)
	sum := sha256.Sum256([]byte(input))
	var sig []byte
	switch k := key.(type) {
	case *rsa.PrivateKey:
		switch header["alg"] {
		case "PS256":
			sig = must(rsa.SignPSS(rand.Reader, k, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: 32}))
		case "RS512":
			sum := sha512.Sum512([]byte(input))
			sig = must(rsa.SignPKCS1v15(nil, k, crypto.SHA512, sum[:]))
		default:
			sig = must(rsa.SignPKCS1v15(nil, k, crypto.SHA256, sum[:]))
		}
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
		if err != nil {
			panic(err)
		}
		sig = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	case ed25519.PrivateKey:
		sig = ed25519.Sign(k, []byte(input))
	case []byte:
		m := hmac.New(sha256.New, k)
		m.Write([]byte(input))
		sig = m.Sum(nil)
	}
	return input + "." + b64(sig)
}

// parts takes a JWT apart without verifying it.
func parts(t *testing.T, token string) (header, claims object) {
	t.Helper()
	p := strings.Split(token, ".")
	if len(p) != 3 {
		t.Fatalf("%d parts in a JWT", len(p))
	}
	for i, to := range []*object{&header, &claims} {
		if err := json.Unmarshal(must(base64.RawURLEncoding.DecodeString(p[i])), to); err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}
