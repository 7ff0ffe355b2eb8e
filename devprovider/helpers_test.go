package devprovider_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"authproxy/devprovider"
)

const (
	callback = "http://127.0.0.1:9/callback" // nobody listens there: browsers stop before it
	api      = "https://api.example.com"
	verifier = "a-code-verifier-of-at-least-forty-three-characters"
)

// A clock is one that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *clock) Advance(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.now = c.now.Add(d) }

func newClock() *clock { return &clock{now: time.Now().Truncate(time.Second)} }

// options are those of most tests: a client that may authenticate in two ways, all demo users with the password "open sesame".
func options() devprovider.Options {
	users := devprovider.DemoUsers()
	for i := range users {
		if users[i].Password != "" {
			users[i].Password = "open sesame"
		}
	}
	return devprovider.Options{
		Clients: []devprovider.Client{{
			ID: "client", Name: "Demo <app>", Secret: "s3cret %&+ é", Callbacks: []string{callback, callback + "?keep=1"},
			LogoutURLs: []string{"http://127.0.0.1:9/", "http://127.0.0.1:9/bye?x=1"},
		}},
		Users: users,
		APIs: []devprovider.API{
			{Identifier: api, Scopes: []string{"read:items", "write:items"}, Offline: true, TokenLifetime: time.Hour},
			{Identifier: "https://rfc9068.example.com", Dialect: "rfc9068"},
		},
		Organizations: []devprovider.Organization{{ID: "org_demo", Name: "Demo"}, {ID: "org_other", Name: "other"}},
	}
}

func start(t *testing.T, o devprovider.Options) *devprovider.Server {
	t.Helper()
	s, err := devprovider.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// A browser keeps cookies and follows redirects, but not away from the provider.
type browser struct {
	t    *testing.T
	p    *devprovider.Server
	http *http.Client
}

func newBrowser(t *testing.T, p *devprovider.Server) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, p, &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if !strings.HasPrefix(r.URL.String(), p.Issuer()) {
			return http.ErrUseLastResponse
		}
		return nil
	}}}
}

// A page is an answer that the browser stopped at.
type page struct {
	status   int
	url      *url.URL // where it is
	location string   // where it goes on to
	body     string
	header   http.Header
}

func (b *browser) do(res *http.Response, err error) page {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return page{res.StatusCode, res.Request.URL, res.Header.Get("Location"), string(body), res.Header}
}

// get opens a path of the provider.
func (b *browser) get(path string) page {
	b.t.Helper()
	return b.do(b.http.Get(b.p.URL() + path))
}

// authorize starts a login: the usual parameters with changes, each "name=value", "name=" for none.
func (b *browser) authorize(changes ...string) page {
	b.t.Helper()
	return b.get("/authorize?" + authRequest(changes...).Encode())
}

func authRequest(changes ...string) url.Values {
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"response_type": {"code"}, "client_id": {"client"}, "redirect_uri": {callback}, "scope": {"openid profile email offline_access"}, "state": {"st ate"},
		"nonce": {"n0nce"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	for _, c := range changes {
		name, value, _ := strings.Cut(c, "=")
		if q.Del(name); value != "" {
			q.Set(name, value)
		}
	}
	return q
}

var inputs = regexp.MustCompile(`<input type="hidden" name="(\w+)" value="([^"]*)">`)

// submit posts a page's form with fields, each "name=value".
func (b *browser) submit(from page, path string, fields ...string) page {
	b.t.Helper()
	form := url.Values{}
	for _, m := range inputs.FindAllStringSubmatch(from.body, -1) {
		form.Set(m[1], m[2])
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		form.Set(name, value)
	}
	return b.do(b.http.PostForm(b.p.URL()+path, form))
}

// login signs ada in and returns the answer that the client gets.
func (b *browser) login(user string, changes ...string) url.Values {
	b.t.Helper()
	return answer(b.t, b.submit(b.authorize(changes...), "/u/login", "username="+user, "password=open sesame"))
}

// answer are the parameters that a redirect takes to the client.
func answer(t *testing.T, p page) url.Values {
	t.Helper()
	u, err := url.Parse(p.location)
	if err != nil || !strings.HasPrefix(p.location, callback) {
		t.Fatalf("status %d with location %q, want a redirect to the client; the page says:\n%s", p.status, p.location, p.body)
	}
	return u.Query()
}

// token asks the token endpoint as the client and returns status and answer.
func token(t *testing.T, p *devprovider.Server, fields ...string) (int, map[string]any) {
	t.Helper()
	form := url.Values{"client_id": {"client"}, "client_secret": {"s3cret %&+ é"}}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		if form.Del(name); value != "" {
			form.Set(name, value)
		}
	}
	res, err := http.PostForm(p.Issuer()+"oauth/token", form)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, res)
}

func decode(t *testing.T, res *http.Response) (int, map[string]any) {
	t.Helper()
	defer res.Body.Close()
	var body map[string]any
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		t.Fatalf("status %d: %v", res.StatusCode, err)
	}
	return res.StatusCode, body
}

// redeem exchanges a code.
func redeem(t *testing.T, p *devprovider.Server, code string, changes ...string) (int, map[string]any) {
	t.Helper()
	fields := []string{"grant_type=authorization_code", "code=" + code, "redirect_uri=" + callback, "code_verifier=" + verifier}
	return token(t, p, append(fields, changes...)...)
}

// tokens signs a user in with a browser of its own and exchanges the code.
func tokens(t *testing.T, p *devprovider.Server, user string, changes ...string) map[string]any {
	t.Helper()
	status, body := redeem(t, p, newBrowser(t, p).login(user, changes...).Get("code"))
	if status != 200 {
		t.Fatalf("the token endpoint answers %d %v", status, body)
	}
	return body
}

// open returns header and claims of a JWT without verifying it.
func open(t *testing.T, jwt any) (header, claims map[string]any) {
	t.Helper()
	s, _ := jwt.(string)
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no JWT", s)
	}
	for i, v := range []any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

// userinfo asks the userinfo endpoint.
func userinfo(t *testing.T, p *devprovider.Server, accessToken any) (int, map[string]any) {
	t.Helper()
	r, err := http.NewRequest("GET", p.Issuer()+"userinfo", nil)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := accessToken.(string)
	r.Header.Set("Authorization", "Bearer "+s)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, res)
}

// A backchannel is a client at the back channel: it collects the logout tokens.
type backchannel struct {
	mu     sync.Mutex
	tokens []string
	url    string
}

func newBackchannel(t *testing.T) *backchannel {
	b := new(backchannel)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.tokens = append(b.tokens, r.PostFormValue("logout_token"))
	}))
	t.Cleanup(s.Close)
	b.url = s.URL
	return b
}

func (b *backchannel) received() []string { b.mu.Lock(); defer b.mu.Unlock(); return b.tokens }
