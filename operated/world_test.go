package operated_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authproxy/devprovider"
)

// A world is a development provider, an app, and the authproxy processes between them, which share public_url, keys and
// session store as replicas do. Clients reach each process by its own address.
type world struct {
	t        testing.TB
	provider *devprovider.Server
	app      *app
	public   *url.URL
	dir      string
	key      string
	set      settings
	roots    *x509.CertPool // that clients trust; nil: those of the system
	signIns  sync.Mutex     // the provider signs in one user at a time
}

// settings are what a test says about its world. The texts are keys of the configuration, in YAML's flow style.
type settings struct {
	https    bool
	provider string // further keys of provider
	session  string // further keys of session, the store among them; "" is the file store
	token    string // admin.token
	more     string // further keys, one per line
}

const (
	clientID = "client"
	secret   = "a client secret"
	audience = "https://api.test"
)

func newWorld(t testing.TB, set settings) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), key: sessionKey(), set: set, app: startApp(t, "app")}
	w.public = &url.URL{Scheme: "http", Host: "localhost:" + freePort(t)}
	if set.https {
		w.public.Scheme = "https"
	}
	var err error
	w.provider, err = devprovider.Start(devprovider.Options{
		Users:   []devprovider.User{user("ada", "a", "both"), user("ben", "b", "both"), user("cat", "a", "b", "both")},
		APIs:    []devprovider.API{{Identifier: audience, Offline: true}},
		Clients: []devprovider.Client{{ID: clientID, Secret: secret, Callbacks: []string{w.public.String() + "/auth/callback"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.provider.Close)
	return w
}

func user(name string, groups ...string) devprovider.User {
	return devprovider.User{Username: name, Subject: "auth0|" + name, Groups: groups, Claims: map[string]any{"name": name, "nickname": name}}
}

func sessionKey() string {
	key := make([]byte, 32)
	rand.Read(key)
	return base64.RawURLEncoding.EncodeToString(key)
}

// A replica is an authproxy process, which keeps its addresses when it is started again.
type replica struct {
	w           *world
	file        string
	addr, admin string
	*process
}

// replica starts a process and waits until it is ready.
func (w *world) replica() *replica {
	w.t.Helper()
	r := &replica{w: w, addr: "127.0.0.1:" + freePort(w.t), admin: "127.0.0.1:" + freePort(w.t)}
	r.file = filepath.Join(w.t.TempDir(), "config.yaml")
	write(w.t, r.file, w.config(r))
	r.start()
	return r
}

// config is the configuration of a replica.
func (w *world) config(r *replica) string {
	store := w.set.session
	if store == "" {
		store = fmt.Sprintf("store: file, file: {path: %q}", filepath.Join(w.dir, "sessions.db"))
	}
	text := fmt.Sprintf(`public_url: %s
listen: %s
admin: {listen: %q, token: %q}
log: {level: warn, format: json}
provider: {issuer: %q, client_id: %s, client_secret: %s, logout: local, %s}
session: {keys: [%s], %s}
limits: {login_per_minute: 100000}
`, w.public, r.addr, r.admin, w.set.token, w.provider.Issuer(), clientID, secret, w.set.provider, w.key, store)
	if !strings.Contains(w.set.more, "upstream:") {
		text += "upstream: " + w.app.URL + "\n"
	}
	return text + w.set.more + "\n"
}

func (r *replica) start() {
	r.w.t.Helper()
	r.process = start(r.w.t, program, "serve", "-config", r.file)
	eventually(r.w.t, "authproxy is ready", func() bool {
		if !r.running() {
			r.w.t.Fatalf("authproxy ended: %v", r.err)
		}
		return r.ready() == http.StatusOK
	})
}

// ready is the status of /readyz, 0 without an answer.
func (r *replica) ready() int { return r.ask("GET", "/readyz").status }

// ask asks the admin listener, with admin.token.
func (r *replica) ask(method, path string) answer {
	req, err := http.NewRequest(method, "http://"+r.admin+path, nil)
	if err != nil {
		r.w.t.Fatal(err)
	}
	if r.w.set.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.w.set.token)
	}
	return roundTrip(operators, req)
}

// operators do not keep connections: they find a listener that has been started again.
var operators = &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: patience}

// metric is the value of a sample, such as authproxy_reloads_total{result="done"}; -1 when there is none.
func (r *replica) metric(name string) float64 {
	r.w.t.Helper()
	body := r.ask("GET", "/metrics").body
	match := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(body)
	value := -1.0
	if match != nil {
		fmt.Sscan(match[1], &value)
	}
	return value
}

// An answer is what came of a request. Without one, err says why.
type answer struct {
	status int
	header http.Header
	body   string
	began  time.Time
	took   time.Duration
	err    error
}

func (a answer) String() string {
	if a.err != nil {
		return fmt.Sprintf("after %v: %v", a.took, a.err)
	}
	return fmt.Sprintf("after %v: %d %v %.300q", a.took, a.status, a.header, a.body)
}

func roundTrip(t http.RoundTripper, r *http.Request) answer {
	a := answer{began: time.Now()}
	res, err := t.RoundTrip(r)
	if err != nil {
		a.err, a.took = err, time.Since(a.began)
		return a
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	a.status, a.header, a.body, a.err, a.took = res.StatusCode, res.Header, string(body), err, time.Since(a.began)
	return a
}

// settled is the answer of ask when the store has answered: on a machine that is too busy for the store's time limits it is
// asked again.
func settled(ask func() answer) (a answer) {
	for began := time.Now(); time.Since(began) < patience; {
		if a = ask(); a.status != http.StatusServiceUnavailable {
			break
		}
	}
	return a
}

// A client keeps its connections to one address, which stands for public_url.
type client struct {
	*http.Transport
	w *world
}

func (w *world) client(addr string) *client {
	c := &client{&http.Transport{MaxIdleConnsPerHost: 200, TLSClientConfig: &tls.Config{RootCAs: w.roots}, DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
		if to == w.public.Host {
			to = addr
		}
		return new(net.Dialer).DialContext(ctx, network, to)
	}}, w}
	w.t.Cleanup(c.CloseIdleConnections)
	return c
}

// request is one of a program, with somebody's cookie.
func (w *world) request(ctx context.Context, method, path, cookie string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, method, w.public.String()+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Cookie", cookie)
	return r
}

func (c *client) get(path, cookie string) answer {
	return roundTrip(c.Transport, c.w.request(context.Background(), "GET", path, cookie))
}

// logout signs out as a page of ours does.
func (c *client) logout(cookie string) answer {
	r := c.w.request(context.Background(), "POST", "/auth/logout", cookie)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return roundTrip(c.Transport, r)
}

// notify posts a logout token as the provider does.
func (c *client) notify(token string) answer {
	form := url.Values{"logout_token": {token}}.Encode()
	r, err := http.NewRequest("POST", c.w.public.String()+"/auth/backchannel-logout", strings.NewReader(form))
	if err != nil {
		c.w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return roundTrip(c.Transport, r)
}

// signIn signs a user in by way of the addresses in turn, and returns the Cookie header of the session.
func (w *world) signIn(name string, addrs ...string) string {
	w.t.Helper()
	cookie := ""
	a := settled(func() (a answer) { cookie, a = w.trySignIn(name, addrs...); return a })
	if cookie == "" {
		w.t.Fatalf("signing in %s ends %s", name, a)
	}
	return cookie
}

// trySignIn is signIn that may fail; then the cookie is "".
func (w *world) trySignIn(name string, addrs ...string) (cookie string, last answer) {
	w.t.Helper()
	w.signIns.Lock()
	defer w.signIns.Unlock()
	w.provider.Set(func(f *devprovider.Faults) { f.SignInAs = name })
	return w.walk(addrs...)
}

// walk goes through a login as a browser does.
func (w *world) walk(addrs ...string) (cookie string, last answer) {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	at := w.public.String() + "/auth/login"
	for i := range 4 { // to the provider, to the callback, to the app
		r, err := http.NewRequest("GET", at, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		r.Header.Set("Accept", "text/html")
		for _, c := range jar.Cookies(r.URL) {
			r.AddCookie(c)
		}
		c := w.client(addrs[i%len(addrs)])
		c.DisableKeepAlives = true
		last = roundTrip(c.Transport, r)
		if last.err != nil {
			return "", last
		}
		jar.SetCookies(r.URL, (&http.Response{Header: last.header}).Cookies())
		to, err := r.URL.Parse(last.header.Get("Location"))
		if err != nil || last.status/100 != 3 {
			break
		}
		at = to.String()
	}
	if last.status/100 != 2 && last.status != http.StatusForbidden {
		return "", last
	}
	for _, c := range jar.Cookies(w.public) {
		if strings.HasSuffix(c.Name, "authproxy") {
			return c.Name + "=" + c.Value, last
		}
	}
	return "", last
}

// alive says whether the cookie is that of a session, as a replica sees it.
func (w *world) alive(c *client, cookie string) bool {
	w.t.Helper()
	switch a := settled(func() answer { return c.get("/auth/me", cookie) }); a.status {
	case http.StatusOK:
		return true
	case http.StatusUnauthorized:
		return false
	default:
		w.t.Fatalf("GET /auth/me: %s", a)
		return false
	}
}

// An app is an upstream that says what it receives, as JSON. At /slow it takes its time; /events, /chunks and /socket are
// streams that begin with "hello" and end with the connection. With /late after any path it answers when the test says so.
type app struct {
	*httptest.Server
	name   string
	slow   atomic.Int32 // requests under way at /slow
	late   atomic.Int32 // requests that came for an answer after begin
	begin  func()
	begun  chan struct{} // closed by begin
	finish chan struct{} // closed when the test is over
}

// seen is what the app received.
type seen struct {
	App, Path, User, Groups, Token string
	Names                          []string // of the headers that begin with X-Seen-
}

// slowly is how long /slow takes.
const slowly = 1500 * time.Millisecond

func startApp(t testing.TB, name string) *app {
	a := &app{name: name, begun: make(chan struct{}), finish: make(chan struct{})}
	a.begin = sync.OnceFunc(func() { close(a.begun) })
	a.Server = httptest.NewServer(a)
	t.Cleanup(func() { a.begin(); close(a.finish); a.CloseClientConnections(); a.Close() })
	return a
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	path, late := strings.CutSuffix(r.URL.Path, "/late")
	if late {
		a.late.Add(1)
		<-a.begun
	}
	switch path {
	case "/slow":
		a.slow.Add(1)
		defer a.slow.Add(-1)
		for range 10 {
			io.WriteString(w, "slow ")
			control.Flush()
			time.Sleep(slowly / 10)
		}
		io.WriteString(w, "end")
		return
	case "/events", "/chunks":
		w.Header().Set("Content-Type", map[string]string{"/events": "text/event-stream", "/chunks": "application/octet-stream"}[path])
		io.WriteString(w, "hello")
		control.Flush()
		select {
		case <-r.Context().Done():
		case <-a.finish:
		}
		return
	case "/socket":
		c, _, err := control.Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x05hello")
		io.Copy(io.Discard, c)
		return
	}
	s := seen{App: a.name, Path: r.URL.Path, User: strings.TrimPrefix(r.Header.Get("X-Forwarded-User"), "auth0|"), Groups: r.Header.Get("X-Forwarded-Groups"),
		Token: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Seen-") {
			s.Names = append(s.Names, strings.TrimPrefix(name, "X-Seen-"))
		}
	}
	json.NewEncoder(w).Encode(s)
}

// reached is what the app received of a request, of which this is the answer.
func (a answer) reached() (s seen, ok bool) {
	return s, a.err == nil && a.status == http.StatusOK && json.Unmarshal([]byte(a.body), &s) == nil
}

// signOutElsewhere ends all other sessions of a user, at the page of sessions.
func (c *client) signOutElsewhere(cookie string) answer {
	r, err := http.NewRequest("POST", c.w.public.String()+"/auth/sessions", strings.NewReader("others=true"))
	if err != nil {
		c.w.t.Fatal(err)
	}
	r.Header = http.Header{"Cookie": {cookie}, "Sec-Fetch-Site": {"same-origin"}, "Content-Type": {"application/x-www-form-urlencoded"}}
	return roundTrip(c.Transport, r)
}
