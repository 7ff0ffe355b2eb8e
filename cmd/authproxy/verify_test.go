package main

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authproxy/assertion"
	"authproxy/identity"
)

func TestVerifyFromTheCommandLine(t *testing.T) {
	tokens := make(chan string, 1)
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { tokens <- r.Header.Get("X-Authproxy-Assertion") }))
	defer upstream.Close()
	w := start(t, settings{more: "routes: [{path: /app, allow: signed_in, upstream: " + upstream.URL + "}]"})
	if status := w.signIn("ada").open("/app"); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	token := <-tokens
	keysAt := w.url + "/auth/jwks.json"
	jwks := w.admin("GET", "/jwks.json").want(t, http.StatusOK).body
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, []byte(jwks), 0o600); err != nil {
		t.Fatal(err)
	}
	mistaken := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(mistaken, []byte("uptream: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := newKeys(t, "another session key, 32 bytes long", w.url)
	head, signature := token[:strings.LastIndexByte(token, '.')+1], token[strings.LastIndexByte(token, '.')+1:]
	flipped := map[bool]string{true: "B", false: "A"}[signature[0] == 'A'] + signature[1:]
	const checked, noAudience, noIssuer = "", "the audience was not checked", "the issuer was not checked"
	for _, tt := range []struct {
		name   string
		args   []string
		stdin  string
		status int
		says   string // on stderr, besides a hint; "" for nothing
	}{
		{"keys from a URL", []string{"-jwks", keysAt, "-audience", upstream.URL, "-issuer", w.url, token}, "", exitOK, checked},
		{"keys from a file", []string{"-jwks", file, "-audience", upstream.URL, "-issuer", w.url, token}, "", exitOK, checked},
		{"keys of the configuration", []string{"-config", w.file, "-audience", upstream.URL, token}, "", exitOK, checked},
		{"token on stdin", []string{"-config", w.file, "-audience", upstream.URL, "-"}, "  " + token + "\r\n", exitOK, checked},
		{"any audience", []string{"-config", w.file, token}, "", exitOK, noAudience},
		{"any issuer", []string{"-jwks", file, "-audience", upstream.URL, token}, "", exitOK, noIssuer},
		{"any at all", []string{"-jwks", file, token}, "", exitOK, noAudience},

		{"another audience", []string{"-config", w.file, "-audience", upstream.URL + "/", token}, "", exitError, "aud is"},
		{"another issuer", []string{"-jwks", file, "-issuer", w.url + "/", token}, "", exitError, "iss is"},
		{"another issuer than the configuration has", []string{"-config", w.file, "-issuer", "https://app.test", token}, "", exitError, "iss is"},
		{"a changed signature", []string{"-config", w.file, head + flipped}, "", exitError, "the signature does not verify"},
		{"the keys of another proxy", []string{"-jwks", other.file, token}, "", exitError, "the key set has 0 keys"},
		{"an assertion that is over", []string{"-jwks", other.file, other.mint(t, time.Now().Add(-3*time.Minute))}, "", exitError, "expired"},
		{"an assertion from the future", []string{"-jwks", other.file, other.mint(t, time.Now().Add(3*time.Minute))}, "", exitError, "in the future"},
		{"no token", []string{"-config", w.file, "nonsense"}, "", exitError, "not a compact JWS"},
		{"the header with its name", []string{"-config", w.file, "X-Authproxy-Assertion: " + token}, "", exitError, "not a compact JWS"},
		{"nothing on stdin", []string{"-config", w.file, "-"}, "\n", exitError, "not a compact JWS"},
		{"too much on stdin", []string{"-config", w.file, "-"}, strings.Repeat("a", maxInput+1), exitError, "more than"},
		{"a file that is not there", []string{"-jwks", file + "x", token}, "", exitError, "no such file"},
		{"a file with something else", []string{"-jwks", w.file, token}, "", exitError, "key set"},
		{"a URL with something else", []string{"-jwks", w.url + "/auth/missing", token}, "", exitError, "status 404"},
		{"a URL where nobody is", []string{"-jwks", "http://127.0.0.1:1/jwks.json", token}, "", exitError, "refused"},

		{"no arguments", nil, "", exitConfig, "there is no token"},
		{"two tokens", []string{"-jwks", file, token, "x"}, "", exitConfig, "unexpected argument"},
		{"an empty audience", []string{"-jwks", file, "-audience", "", token}, "", exitConfig, "-audience has no value"},
		{"an empty issuer", []string{"-jwks", file, "-issuer=", token}, "", exitConfig, "-issuer has no value"},
		{"empty keys", []string{"-jwks", "", token}, "", exitConfig, "-jwks has no value"},
		{"keys and a configuration", []string{"-jwks", file, "-config", w.file, token}, "", exitConfig, "exclude each other"},
		{"a flag that there is not", []string{"-key", file, token}, "", exitConfig, "-key"},
		{"a configuration with a mistake", []string{"-config", mistaken, token}, "", exitConfig, "uptream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, problems bytes.Buffer
			status := run(&environment{ctx: t.Context(), stdin: strings.NewReader(tt.stdin), stdout: &out, stderr: &problems}, append([]string{"verify"}, tt.args...))
			if status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			if says := problems.String(); !strings.Contains(says, tt.says) || (says == "") != (tt.says == "") || strings.Contains(says, signature) {
				t.Errorf("stderr %q, want %q in it and no token", says, tt.says)
			} else if says != "" && !strings.Contains(says, "\nhint: ") {
				t.Errorf("stderr %q, want a hint", says)
			}
			var claims struct{ Iss, Aud, Sub, Email string }
			switch err := json.Unmarshal(out.Bytes(), &claims); {
			case status != exitOK && out.Len() > 0:
				t.Errorf("stdout %q, want nothing", out.String())
			case status != exitOK:
			case err != nil || claims.Iss != w.url || claims.Aud != upstream.URL || claims.Sub != ada || claims.Email != "ada@example.com":
				t.Errorf("stdout %s, want ada's claims; %v", out.String(), err)
			}
		})
	}
}

func TestVerifyFollowsNoRedirectToAnotherOrigin(t *testing.T) {
	keys := newKeys(t, "a session key of at least 32 bytes", "https://app.test")
	text, err := os.ReadFile(keys.file)
	if err != nil {
		t.Fatal(err)
	}
	asked := false
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked = true
		w.Write(text)
	}))
	defer evil.Close()
	proxy := httptest.NewServer(http.RedirectHandler(evil.URL, http.StatusFound))
	defer proxy.Close()
	status, out, problems := runCommand(t, "verify", "-jwks", proxy.URL, keys.mint(t, time.Now()))
	if status != exitError || out != "" || !strings.Contains(problems, "another origin") || asked {
		t.Errorf("status %d, stdout %q, stderr %q, another origin asked: %v", status, out, problems, asked)
	}
}

// Names are what users call themselves.
func TestVerifyPrintsNothingThatATerminalObeys(t *testing.T) {
	keys := newKeys(t, "a session key of at least 32 bytes", "https://app.test")
	keys.who.Name = "<Ada> \u202e\u009b2J 🦊 \U000e0041 é"
	status, out, problems := runCommand(t, "verify", "-jwks", keys.file, keys.mint(t, time.Now()))
	if want := `"name": "<Ada> \u202e\u009b2J 🦊 \udb40\udc41 é"`; status != exitOK || !strings.Contains(out, want) {
		t.Errorf("status %d, stdout %s, stderr %s, want %s", status, out, problems, want)
	}
	var claims struct{ Name string }
	if err := json.Unmarshal([]byte(out), &claims); err != nil || claims.Name != keys.who.Name {
		t.Errorf("the name reads %q, %v, want %q", claims.Name, err, keys.who.Name)
	}
}

// keys are those of a proxy that does not run.
type keys struct {
	file   string // with the public ones
	who    *identity.Identity
	signer *assertion.Signer
}

func newKeys(t *testing.T, secret, issuer string) *keys {
	t.Helper()
	key, err := assertion.DeriveKey([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := assertion.NewSigner(issuer, 2*time.Minute, []*ecdsa.PrivateKey{key})
	if err != nil {
		t.Fatal(err)
	}
	k := &keys{filepath.Join(t.TempDir(), "jwks.json"), &identity.Identity{Subject: "auth0|ada"}, signer}
	jwks, _ := signer.JWKS()
	if err := os.WriteFile(k.file, jwks, 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *keys) mint(t *testing.T, at time.Time) string {
	t.Helper()
	token, _, err := k.signer.Mint(k.who, nil, "", "http://127.0.0.1:5000", at)
	if err != nil {
		t.Fatal(err)
	}
	return token
}
