// Package exampletest shows the apps of examples what they will meet: users who come through the proxy, and everything that
// is no good assertion.
package exampletest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"authproxy/assertion"
	"authproxy/devprovider"
	"authproxy/identity"
)

const (
	issuer   = "https://app.example.com"
	audience = "http://127.0.0.1:5000"
	header   = "X-Authproxy-Assertion"
	patience = time.Minute // for what takes a moment, and go build, on a machine that has nothing else to do
)

// An App starts an app on a free port of 127.0.0.1, with these variables in its environment beside those of the test, and
// returns its URL. AUTHPROXY_ISSUER, AUTHPROXY_AUDIENCE and AUTHPROXY_JWKS say what the app may believe; PORT is 0.
//
// The app greets with "Hello, NAME!" and "Your groups: A, B" in two lines of plain text, answers 401 to whom it does not
// know, and 503 while it cannot know anybody.
type App func(t *testing.T, env []string) (url string)

// Run tests an app.
func Run(t *testing.T, start App) {
	t.Run("it greets whom the assertion is about", start.greets)
	t.Run("it refuses everything else", start.refuses)
	t.Run("it fails closed without keys", start.failsClosed)
	t.Run("it knows who comes through the proxy", start.behindTheProxy)
}

func (start App) at(t *testing.T, issuer, jwks string) string {
	t.Helper()
	return start(t, []string{"PORT=0", "AUTHPROXY_ISSUER=" + issuer, "AUTHPROXY_AUDIENCE=" + audience, "AUTHPROXY_JWKS=" + jwks})
}

// Process runs a command until the test ends. It waits until a line that the command writes has text in it, and returns what
// comes after that, to the next blank, parenthesis or quote.
func Process(t *testing.T, cmd *exec.Cmd, text string) string {
	t.Helper()
	said, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = theirs, theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what it starts ends with it
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		said.Close()
		t.Fatal(err)
	}
	name := filepath.Base(cmd.Path)
	found, over := make(chan string, 1), make(chan struct{})
	var all strings.Builder // to be read after over
	go func() {
		defer close(over)
		for lines := bufio.NewReader(said); ; {
			line, err := lines.ReadString('\n')
			all.WriteString(line)
			if _, rest, ok := strings.Cut(line, text); ok {
				select {
				case found <- rest[:strings.IndexAny(rest+" ", " )\"\r\n")]:
				default: // only the first
				}
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		said.SetReadDeadline(time.Now().Add(time.Second)) // in case somebody else holds the pipe
		<-over
		said.Close()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, all.String())
		}
	})
	select {
	case at := <-found:
		return at
	case <-over:
		t.Fatalf("%s ended before it said %q", name, text)
	case <-time.After(patience):
		t.Fatalf("%s did not say %q", name, text)
	}
	panic("unreachable")
}

// A proxy is what apps know of one: a signer, and a key set that is fetched over HTTP.
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
		w.Header().Set("Content-Type", "application/json")
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

var ada = &identity.Identity{
	Issuer: "https://acme.eu.auth0.com/", Subject: "auth0|ada", Email: "ada@example.com", EmailVerified: true, Name: "Ada Lovelace 🦊", Groups: []string{"admins", "staff"},
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

// get asks an app for a page, with these values of the header.
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
	return read(t, res)
}

func read(t *testing.T, res *http.Response) (status int, body string) {
	t.Helper()
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func (start App) greets(t *testing.T) {
	p := newProxy(t)
	app := start.at(t, issuer, p.url)
	for range 3 {
		status, body := get(t, app, mint(t, p.Signer, audience, time.Now()))
		if want := "Hello, Ada Lovelace 🦊!\nYour groups: admins, staff\n"; status != http.StatusOK || body != want {
			t.Fatalf("the answer is %d %q, want 200 %q", status, body, want)
		}
	}
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("the app fetched the keys %d times, want once", n)
	}
	// What is refused below differs from this in one thing each.
	if status, body := get(t, app, p.sign(t, assertion.Type, p.kid, claims(nil))); status != http.StatusOK || !strings.Contains(body, "Hello, Ada!\nYour groups: none\n") {
		t.Errorf("the answer to a hand-made assertion is %d %q, want 200 and a greeting", status, body)
	}
}

func (start App) refuses(t *testing.T) {
	p := newProxy(t)
	app := start.at(t, issuer, p.url)
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
	refused := func(name string, values ...string) {
		t.Helper()
		status, body := get(t, app, values...)
		if status != http.StatusUnauthorized || strings.Contains(body, "Hello") {
			t.Errorf("%s: the answer is %d %q, want 401", name, status, body)
		}
	}
	refused("no assertion, and no key was needed yet")
	if status, _ := get(t, app, good); status != http.StatusOK {
		t.Errorf("the answer to a good assertion is %d, want 200", status)
	}
	for name, values := range map[string][]string{
		"no assertion":                        nil,
		"an empty one":                        {""},
		"no JWT":                              {"ada"},
		"dots":                                {".."},
		"a good one twice":                    {good, good},
		"a good one after another":            {"x", good},
		"a signature of another key":          {(&proxy{key: otherKey}).sign(t, assertion.Type, p.kid, claims(nil))},
		"a key that the proxy does not have":  {mint(t, newSigner(t, issuer, otherKey), audience, now)},
		"another key of the set":              {p.sign(t, assertion.Type, "ed", claims(nil))},
		"changed claims":                      {head + "." + b64([]byte(`{"sub":"auth0|eve"}`)) + "." + signature},
		"no signature":                        {head + "." + payload + "."},
		"a short signature":                   {head + "." + payload + "." + signature[:40]},
		"a signature of zeros":                {head + "." + payload + "." + b64(make([]byte, 64))},
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
		"no iat":                              {p.sign(t, assertion.Type, p.kid, without("iat"))},
		"no exp":                              {p.sign(t, assertion.Type, p.kid, without("exp"))},
	} {
		refused(name, values...)
	}
	// One fetch may be for the key that was not there.
	if n := p.fetches.Load(); n > 2 {
		t.Errorf("the app fetched the keys %d times: unknown key IDs must not cause a fetch each", n)
	}
	if status, _ := get(t, app, good); status != http.StatusOK {
		t.Errorf("afterwards the answer to a good assertion is %d, want 200", status)
	}
}

func (start App) failsClosed(t *testing.T) {
	p := newProxy(t)
	p.down.Store(true)
	app := start.at(t, issuer, p.url)
	if status, body := get(t, app, mint(t, p.Signer, audience, time.Now())); status != http.StatusServiceUnavailable {
		t.Errorf("the answer is %d %q, want 503", status, body)
	}
}

// behindTheProxy puts the program, as people run it, in front of the app.
func (start App) behindTheProxy(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	publicURL := fmt.Sprintf("http://localhost:%d", port)
	app := start.at(t, publicURL, publicURL+"/auth/jwks.json")

	provider, err := devprovider.Start(devprovider.Options{Users: devprovider.DemoUsers(), Clients: []devprovider.Client{
		{ID: "client", Secret: "a secret", Callbacks: []string{publicURL + "/auth/callback"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(provider.Close)
	provider.Set(func(f *devprovider.Faults) { f.SignInAs = "ada" })
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
public_url: %s
listen: 127.0.0.1:%d
admin: {listen: ""}
provider: {issuer: %q, client_id: client, client_secret: a secret}
session: {keys: [MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY]}
upstream: %s
identity: {assertion: {audience: %q}}
shutdown: {delay: 0s}
`, publicURL, port, provider.Issuer(), app, audience), 0o600); err != nil {
		t.Fatal(err)
	}
	Process(t, exec.Command("go", "run", "authproxy/cmd/authproxy", "serve", "-config", config), "serving") // go run keeps what it builds

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, Timeout: patience}
	for range 2 { // signing in, and signed in
		r, err := http.NewRequest(http.MethodGet, publicURL+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/html")
		r.Header.Set(header, "forged")
		r.Header.Set("X-Forwarded-User", "auth0|eve")
		res, err := browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if status, body := read(t, res); status != http.StatusOK || body != "Hello, Ada Lovelace!\nYour groups: admins, staff\n" {
			t.Errorf("through the proxy the answer is %d %q, want a greeting", status, body)
		}
	}
	if status, body := get(t, app+"/"); status != http.StatusUnauthorized {
		t.Errorf("around the proxy the answer is %d %q, want 401", status, body)
	}
}
