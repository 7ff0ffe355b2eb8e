package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sessionKey is a fresh session key.
func sessionKey() string {
	key := make([]byte, 32)
	rand.Read(key)
	return base64.RawURLEncoding.EncodeToString(key)
}

// A deployment is authproxy between an oidc-provider and an app.
type deployment struct {
	url      string // of authproxy
	issuer   string
	provider *process
	proxy    *process
	app      *app
}

// An event is a line that provider.mjs writes.
type event struct {
	Event        string
	Issuer       string
	Type         string
	RefreshToken bool
	Error        string
}

// events are what the provider has said so far.
func (d *deployment) events(name string) (all []event) {
	for line := range strings.Lines(d.provider.stdout.String()) {
		var e event
		if strings.HasSuffix(line, "\n") && json.Unmarshal([]byte(line), &e) == nil && e.Event == name {
			all = append(all, e)
		}
	}
	return all
}

// options are what tests change in a deployment.
type options struct {
	secret          string // of authproxy; "" is the right one
	accessTokenLife int    // seconds
	session         string // more of the section session
}

// deploy starts the three.
func deploy(t *testing.T, o options) *deployment {
	t.Helper()
	port := freePort(t)
	d := &deployment{url: fmt.Sprintf("http://localhost:%d", port), app: startApp(t)}
	secret := rand.Text() + rand.Text()
	relyingParty, err := json.Marshal(map[string]any{
		"clientID": "e2e", "clientSecret": secret, "callback": d.url + "/auth/callback", "home": d.url + "/auth/",
		"backchannel": d.url + "/auth/backchannel-logout", "accessTokenLife": max(o.accessTokenLife, 1),
	})
	if err != nil {
		t.Fatal(err)
	}
	d.provider = start(t, node(t, string(relyingParty)))
	d.provider.has(t, `"ready"`)
	d.issuer = d.events("ready")[0].Issuer
	if o.secret != "" {
		secret = o.secret
	}
	d.proxy = serve(t, d.url, fmt.Sprintf(`
public_url: %s
listen: 127.0.0.1:%d
admin: {listen: ""}
provider: {issuer: %q, client_id: e2e, client_secret: %s, scopes: [openid, profile, email, offline_access], logout: oidc}
session: {keys: [%s]%s}
upstream: %s
`, d.url, port, d.issuer, secret, sessionKey(), o.session, d.app.URL))
	return d
}

// node is the command that runs provider.mjs, with the Node.js that npm has installed beside it or else the system's.
func node(t *testing.T, arg string) *exec.Cmd {
	t.Helper()
	if _, err := os.Stat("node_modules/oidc-provider/package.json"); err != nil {
		t.Fatal("oidc-provider is not installed: run npm ci in the directory e2e, or test.sh, which does")
	}
	path := ""
	if beside, _ := filepath.Glob("node_modules/node-linux-*/bin/node"); len(beside) > 0 {
		path = beside[0]
	} else if found, err := exec.LookPath("node"); err == nil {
		path = found
	} else {
		t.Fatal("there is no node: install Node.js 22 or later")
	}
	cmd := exec.Command(path, "provider.mjs", arg)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close() })
	return cmd
}

// A person has a browser without a window: it keeps cookies, follows redirects and sends forms.
type person struct {
	t      *testing.T
	client *http.Client
}

func newPerson(t *testing.T) *person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &person{t, &http.Client{Jar: jar, Timeout: patience, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > 20 {
			return errors.New("more than 20 redirects")
		}
		return nil
	}}}
}

// A page is what an answer leads to.
type page struct {
	url    *url.URL
	status int
	body   string
}

func (p *person) do(method, to string, form url.Values) (page, error) {
	r, err := http.NewRequest(method, to, strings.NewReader(form.Encode()))
	if err != nil {
		return page{}, err
	}
	r.Header.Set("Accept", "text/html")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := p.client.Do(r)
	if err != nil {
		return page{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return page{res.Request.URL, res.StatusCode, string(body)}, err
}

// get opens a URL.
func (p *person) get(to string) page {
	p.t.Helper()
	at, err := p.do("GET", to, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return at
}

var (
	formAction = regexp.MustCompile(`<form[^>]* action="([^"]*)"`)
	hidden     = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)
)

// submit sends the first form of a page, with its hidden fields and these.
func (p *person) submit(from page, fields url.Values) page {
	p.t.Helper()
	action := formAction.FindStringSubmatch(from.body)
	if action == nil {
		p.t.Fatalf("no form at %s (%d):\n%s", from.url, from.status, from.body)
	}
	to, err := from.url.Parse(html.UnescapeString(action[1]))
	if err != nil {
		p.t.Fatal(err)
	}
	values := url.Values{}
	for _, f := range hidden.FindAllStringSubmatch(from.body, -1) {
		values.Set(html.UnescapeString(f[1]), html.UnescapeString(f[2]))
	}
	for name, v := range fields {
		values[name] = v
	}
	at, err := p.do("POST", to.String(), values)
	if err != nil {
		p.t.Fatal(err)
	}
	return at
}

// signIn opens a page of the app and goes through the provider's pages: who are you, and do you agree.
func (p *person) signIn(d *deployment, path, name string) page {
	p.t.Helper()
	at := p.get(d.url + path)
	at = p.submit(at, url.Values{"login": {name}, "password": {"any"}})
	return p.submit(at, nil)
}

// signedIn says whether the proxy knows who this is.
func (p *person) signedIn(d *deployment) bool {
	p.t.Helper()
	switch me := p.get(d.url + "/auth/me"); me.status {
	case http.StatusOK:
		return true
	case http.StatusUnauthorized:
		return false
	default:
		p.t.Fatalf("/auth/me answered %d: %s", me.status, me.body)
		return false
	}
}

func TestAForeignProviderSignsInAndTheIdentityArrivesAtTheApp(t *testing.T) {
	d := deploy(t, options{accessTokenLife: 300})
	ada := newPerson(t)
	if at := ada.signIn(d, "/reports?year=2026", "ada"); at.url.String() != d.url+"/reports?year=2026" || at.status != http.StatusOK {
		t.Fatalf("the login ended at %s with %d, want /reports?year=2026 with 200:\n%s", at.url, at.status, at.body)
	}
	r := d.app.last(t)
	for name, want := range map[string]string{
		"X-Forwarded-User": "ada", "X-Forwarded-Email": "ada@example.com", "X-Forwarded-Preferred-Username": "ada", "X-Forwarded-Groups": "staff,testers",
	} {
		if got := r.Header[name]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	claims := verify(t, newPerson(t).get(d.url+"/auth/jwks.json").body, r.Header.Get("X-Authproxy-Assertion"))
	for name, want := range map[string]any{"iss": d.url, "aud": d.app.URL, "sub": "ada", "idp": d.issuer, "email": "ada@example.com", "name": "ada of the tests"} {
		if claims[name] != want {
			t.Errorf("%s of the assertion = %v, want %v", name, claims[name], want)
		}
	}
	if grants := d.events("grant"); len(grants) != 1 || grants[0].Type != "authorization_code" || !grants[0].RefreshToken {
		t.Errorf("the provider granted %+v, want one code with a refresh token", grants)
	}
}

// verify checks an assertion as an app in another language would: with the published key and the standard library.
func verify(t *testing.T, jwks, token string) (claims map[string]any) {
	t.Helper()
	bytesOf := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		return b
	}
	part := strings.Split(token, ".")
	if len(part) != 3 {
		t.Fatalf("the assertion has %d parts, want 3", len(part))
	}
	var header struct{ Alg, Kid, Typ string }
	var set struct {
		Keys []struct{ Kid, Crv, X, Y string }
	}
	if err := errors.Join(json.Unmarshal(bytesOf(part[0]), &header), json.Unmarshal(bytesOf(part[1]), &claims), json.Unmarshal([]byte(jwks), &set)); err != nil {
		t.Fatal(err)
	}
	if header.Alg != "ES256" || header.Typ != "authproxy-assertion+jwt" {
		t.Errorf("header = %+v, want ES256 and authproxy-assertion+jwt", header)
	}
	for _, k := range set.Keys {
		if k.Kid != header.Kid || k.Crv != "P-256" {
			continue
		}
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, bytesOf(k.X), bytesOf(k.Y)))
		if err != nil {
			t.Fatal(err)
		}
		digest, signature := sha256.Sum256([]byte(part[0]+"."+part[1])), bytesOf(part[2])
		if len(signature) != 64 || !ecdsa.Verify(public, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
			t.Error("the signature of the assertion does not hold")
		}
		return claims
	}
	t.Fatalf("no key %q is published: %s", header.Kid, jwks)
	return nil
}

// The provider rotates refresh tokens, and takes everything back when one is used twice: renewals that are not one at a time
// would end the session.
func TestTokensAreRenewedInTheBackgroundAgainAndAgain(t *testing.T) {
	d := deploy(t, options{accessTokenLife: 2})
	ada := newPerson(t)
	ada.signIn(d, "/", "ada")
	eventually(t, "the third renewal", func() bool {
		failures := make(chan error, 4)
		for range cap(failures) {
			go func() {
				at, err := ada.do("GET", d.url+"/", nil)
				if err == nil && at.status != http.StatusOK {
					err = fmt.Errorf("%d: %s", at.status, at.body)
				}
				failures <- err
			}()
		}
		for range cap(failures) {
			if err := <-failures; err != nil {
				t.Fatalf("the app while tokens were renewed: %v", err)
			}
		}
		renewals := slices.DeleteFunc(d.events("grant"), func(e event) bool { return e.Type != "refresh_token" })
		return len(renewals) >= 3
	})
	if !ada.signedIn(d) {
		t.Error("the session has ended")
	}
	if r := d.app.last(t); r.Header.Get("X-Forwarded-Groups") != "staff,testers" {
		t.Errorf("X-Forwarded-Groups = %q after renewals, want them as before", r.Header.Get("X-Forwarded-Groups"))
	}
	if refused := d.events("grant refused"); len(refused) > 0 {
		t.Errorf("the provider refused %+v", refused)
	}
}

func TestSigningOutSignsOutAtTheProviderAndComesBack(t *testing.T) {
	d := deploy(t, options{accessTokenLife: 300})
	ada := newPerson(t)
	ada.signIn(d, "/", "ada")
	// The page with the button that browsers get who do not say where a request comes from.
	at := ada.submit(ada.get(d.url+"/auth/logout"), nil)
	if !strings.HasPrefix(at.url.String(), d.issuer+"/session/end?") {
		t.Fatalf("signing out leads to %s, want the provider's end_session_endpoint:\n%s", at.url, at.body)
	}
	if ada.signedIn(d) {
		t.Error("the session is still there while the provider asks")
	}
	if at = ada.submit(at, url.Values{"logout": {"yes"}}); at.url.String() != d.url+"/auth/" || at.status != http.StatusOK {
		t.Errorf("signing out ended at %s with %d, want %s/auth/ with 200", at.url, at.status, d.url)
	}
	if at := ada.get(d.url + "/"); !strings.Contains(at.body, `name="login"`) {
		t.Errorf("after signing out the provider does not ask who it is, but leads to %s:\n%s", at.url, at.body)
	}
	eventually(t, "taking back the refresh token", func() bool { return len(d.events("revoked")) > 0 })
}

func TestABackChannelLogoutEndsTheSession(t *testing.T) {
	for _, store := range []string{"cookie", "file"} {
		t.Run(store, func(t *testing.T) {
			session := ", store: cookie"
			if store == "file" {
				session = fmt.Sprintf(", store: file, file: {path: %q}", filepath.Join(t.TempDir(), "sessions.db"))
			}
			d := deploy(t, options{accessTokenLife: 300, session: session})
			ada, bob := newPerson(t), newPerson(t)
			ada.signIn(d, "/", "ada")
			bob.signIn(d, "/", "bob")
			// At the provider, as if it were by another application.
			ada.submit(ada.get(d.issuer+"/session/end"), url.Values{"logout": {"yes"}})
			eventually(t, "a logout token", func() bool {
				if failed := d.events("back-channel logout failed"); len(failed) > 0 {
					t.Fatalf("the provider's logout token was refused: %+v", failed)
				}
				return len(d.events("back-channel logout")) > 0
			})
			if ada.signedIn(d) {
				t.Error("the session lives on after a back-channel logout")
			}
			if !bob.signedIn(d) {
				t.Error("the session of somebody else has ended")
			}
		})
	}
}

func TestAWrongClientSecretGivesThePageAboutTheConfiguration(t *testing.T) {
	const wrong = "not-the-secret-that-the-provider-has"
	d := deploy(t, options{accessTokenLife: 300, secret: wrong})
	at := newPerson(t).signIn(d, "/", "ada")
	if at.status != http.StatusInternalServerError || !strings.Contains(at.body, "<h1>Configuration problem</h1>") {
		t.Errorf("the login ended with %d, want 500 and the page Configuration problem:\n%s", at.status, at.body)
	}
	eventually(t, "the reason in the log", func() bool { return strings.Contains(d.proxy.stderr.String(), "client_secret") })
	if strings.Contains(at.body+d.proxy.stderr.String(), wrong) {
		t.Error("the secret is on the page or in the log")
	}
}
