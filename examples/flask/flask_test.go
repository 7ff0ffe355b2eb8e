// Package flask_test runs the example with the python3 of the system.
package flask_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"authproxy/assertion"
	"authproxy/identity"
)

const (
	python   = "/usr/bin/python3" // the one that the packages are for, whatever else is in PATH
	issuer   = "https://app.example.com"
	audience = "http://127.0.0.1:5000"
	header   = "X-Authproxy-Assertion"
)

var ada = &identity.Identity{
	Issuer: "https://acme.eu.auth0.com/", Subject: "auth0|ada", Email: "ada@example.com", EmailVerified: true, Name: "Ada Lovelace 🦊", Groups: []string{"admins", "staff"},
}

// A proxy is what the app knows of one: a signer, and a key set that is fetched over HTTP.
type proxy struct {
	*assertion.Signer
	key     *ecdsa.PrivateKey
	kid     string
	url     string
	fetches atomic.Int32
	down    atomic.Bool
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	key, err := assertion.DeriveKey([]byte("a session key of at least 32 bytes"))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{key: key, Signer: newSigner(t, issuer, key)}
	if p.kid, err = assertion.KeyID(key.Public()); err != nil {
		t.Fatal(err)
	}
	message, err := assertion.DeriveEd25519([]byte("a session key of at least 32 bytes"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(jose.JSONWebKey{Key: message.Public(), KeyID: "ed", Algorithm: "EdDSA", Use: "sig"}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.fetches.Add(1)
		if p.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, _ := p.JWKS()
		w.Write(body)
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func newSigner(t *testing.T, issuer string, key *ecdsa.PrivateKey) *assertion.Signer {
	t.Helper()
	s, err := assertion.NewSigner(issuer, 2*time.Minute, []*ecdsa.PrivateKey{key})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mint(t *testing.T, s *assertion.Signer, audience string, at time.Time) string {
	t.Helper()
	token, _, err := s.Mint(ada, nil, "session-1", audience, at)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// sign signs claims as the proxy never would.
func (p *proxy) sign(t *testing.T, typ, kid string, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: p.key, KeyID: kid}}, new(jose.SignerOptions).WithType(jose.ContentType(typ)))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// claims are those of a good assertion, but for what change does to them.
func claims(change func(map[string]any)) map[string]any {
	now := time.Now().Unix()
	c := map[string]any{"iss": issuer, "aud": audience, "sub": "auth0|ada", "iat": now, "exp": now + 60, "groups": []string{}, "name": "Ada"}
	if change != nil {
		change(c)
	}
	return c
}

func without(name string) map[string]any {
	return claims(func(c map[string]any) { delete(c, name) })
}

// startApp starts app.py and returns its URL.
func startApp(t *testing.T, p *proxy) string {
	t.Helper()
	if out, err := exec.Command(python, "-c", "import flask, jwt, cryptography").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\nthe example needs the Debian packages python3-flask, python3-jwt and python3-cryptography; ./test.sh installs them", err, out)
	}
	cmd := exec.Command(python, "app.py")
	cmd.Env = append(os.Environ(), "PORT=0", "AUTHPROXY_ISSUER="+issuer, "AUTHPROXY_AUDIENCE="+audience, "AUTHPROXY_JWKS="+p.url, "PYTHONDONTWRITEBYTECODE=1", "FLASK_DEBUG=0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	lines := bufio.NewReader(stderr)
	rest := make(chan struct{})
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-rest
		cmd.Wait()
		if t.Failed() {
			t.Logf("app.py said:\n%s", said.String())
		}
	})
	for {
		line, err := lines.ReadString('\n')
		said.WriteString(line)
		if err != nil {
			close(rest)
			t.Fatalf("app.py ended before it listened: %v", err)
		}
		if _, url, found := strings.Cut(line, "Running on "); found {
			go func() {
				io.Copy(&said, lines) // to its end
				close(rest)
			}()
			return strings.Fields(url)[0]
		}
	}
}

// get asks the app for a page, with these values of the header.
func get(t *testing.T, url string, values ...string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		r.Header.Add(header, v)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func TestAppGreetsWhomTheAssertionIsAbout(t *testing.T) {
	p := newProxy(t)
	app := startApp(t, p)
	for range 3 {
		status, body := get(t, app, mint(t, p.Signer, audience, time.Now()))
		if want := "Hello, Ada Lovelace 🦊!\nYour groups: admins, staff\n"; status != http.StatusOK || body != want {
			t.Fatalf("the answer is %d %q, want 200 %q", status, body, want)
		}
	}
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("the app fetched the keys %d times, want once", n)
	}
	// What the refusals below differ from in one thing each.
	if status, body := get(t, app, p.sign(t, assertion.Type, p.kid, claims(nil))); status != http.StatusOK || !strings.Contains(body, "Hello, Ada!") {
		t.Errorf("the answer to a hand-made assertion is %d %q, want 200 and a greeting", status, body)
	}
}

func TestAppRefusesEverythingElse(t *testing.T) {
	p := newProxy(t)
	app := startApp(t, p)
	now := time.Now()
	good := mint(t, p.Signer, audience, now)
	head, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	otherKey, err := assertion.DeriveKey([]byte("another key of at least 32 bytes..."))
	if err != nil {
		t.Fatal(err)
	}
	jwks, _ := p.JWKS()
	hs256 := func(secret []byte) string {
		signed := b64([]byte(`{"alg":"HS256","kid":"`+p.kid+`","typ":"`+assertion.Type+`"}`)) + "." + payload
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(signed))
		return signed + "." + b64(mac.Sum(nil))
	}
	point, err := p.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range map[string][]string{
		"no assertion":                        nil,
		"an empty one":                        {""},
		"no JWT":                              {"ada"},
		"a good one twice":                    {good, good},
		"a signature of another key":          {(&proxy{key: otherKey}).sign(t, assertion.Type, p.kid, claims(nil))},
		"a key that the proxy does not have":  {mint(t, newSigner(t, issuer, otherKey), audience, now)},
		"another key of the set":              {p.sign(t, assertion.Type, "ed", claims(nil))},
		"changed claims":                      {head + "." + b64([]byte(`{"sub":"auth0|eve"}`)) + "." + signature},
		"no signature":                        {head + "." + payload + "."},
		"alg none":                            {b64([]byte(`{"alg":"none","kid":"`+p.kid+`","typ":"`+assertion.Type+`"}`)) + "." + payload + "."},
		"HS256 with the key set as secret":    {hs256(jwks)},
		"HS256 with the public key as secret": {hs256(point)},
		"HS256 with an empty secret":          {hs256(nil)},
		"an expired one":                      {mint(t, p.Signer, audience, now.Add(-10*time.Minute))},
		"one from the future":                 {mint(t, p.Signer, audience, now.Add(10*time.Minute))},
		"another audience":                    {mint(t, p.Signer, "http://127.0.0.1:6000", now)},
		"another issuer":                      {mint(t, newSigner(t, "https://other.example.com", p.key), audience, now)},
		"a JWT that is no assertion":          {p.sign(t, "JWT", p.kid, claims(nil))},
		"no iss":                              {p.sign(t, assertion.Type, p.kid, without("iss"))},
		"no aud":                              {p.sign(t, assertion.Type, p.kid, without("aud"))},
		"no sub":                              {p.sign(t, assertion.Type, p.kid, without("sub"))},
		"no exp":                              {p.sign(t, assertion.Type, p.kid, without("exp"))},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := get(t, app, values...)
			if status != http.StatusUnauthorized || strings.Contains(body, "Hello") {
				t.Errorf("the answer is %d %q, want 401", status, body)
			}
		})
	}
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("the app fetched the keys %d times, want once: unknown key IDs must not cause a fetch each", n)
	}
	if status, _ := get(t, app, good); status != http.StatusOK {
		t.Errorf("afterwards the answer to a good assertion is %d, want 200", status)
	}
}

func TestAppFailsClosedWithoutKeys(t *testing.T) {
	p := newProxy(t)
	p.down.Store(true)
	app := startApp(t, p)
	if status, body := get(t, app, mint(t, p.Signer, audience, time.Now())); status != http.StatusServiceUnavailable {
		t.Errorf("the answer is %d %q, want 503", status, body)
	}
}
