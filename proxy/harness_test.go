package proxy_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authproxy/assertion"
	"authproxy/devprovider"
	"authproxy/oidc"
	"authproxy/policy"
	"authproxy/proxy"
	"authproxy/session"
)

// A world is a development provider, an app and a Proxy between them, all listening on loopback. Browsers find the Proxy under
// every name that ends in .test, and public_url is http://app.test. Everything goes by one clock that stands still.
//
// When a test ends, the world looks through its log for every secret that it knows of.
type world struct {
	t        testing.TB
	clock    *clock
	provider *devprovider.Server
	upstream *app
	proxy    *proxy.Proxy
	sessions *session.Manager
	store    session.Store
	log      *logbook
	origin   string // of public_url
	cookie   string // name of the session cookie

	handler  atomic.Pointer[http.Handler] // what the listener serves: the Proxy, unless a test puts something around it
	setup    setup
	opts     proxy.Options
	file     string // of the file store
	addr     string
	roots    *x509.CertPool
	browsers []*browser
	canaries []string // what must not be in the log
}

// A setup says how a world differs from the usual one.
type setup struct {
	https    bool // public_url is https://app.test
	file     bool // the store is a file
	sameSite http.SameSite
	domain   string // of the session cookie
	idle     time.Duration
	life     time.Duration
	users    []devprovider.User // beside the demo users
	tenant   func(*devprovider.Options)
	client   func(*devprovider.Client)
	rp       func(*oidc.Config)
	options  func(*proxy.Options)
}

const (
	clientID     = "client"
	clientSecret = "canary-client-secret-7f2c"
	sessionKey   = "canary-session-key-0123456789abcdef"
	apiAudience  = "https://api.test"
)

// usualRoutes are those of a world whose setup names no others. What they leave is for whoever is signed in.
func usualRoutes() []proxy.Route {
	return []proxy.Route{
		{Path: "/public", Policy: &policy.Policy{Anyone: true}},
		{Path: "/admin", Policy: &policy.Policy{Entries: []policy.Entry{{Groups: []string{"admins"}}}}},
		{Path: "/fresh", Policy: &policy.Policy{SignedIn: true, MaxAuthAge: 5 * time.Minute, Leeway: time.Minute}},
		{Path: "/strong", Policy: &policy.Policy{SignedIn: true, ACR: "gold"}},
		{Path: "/api", Policy: &policy.Policy{SignedIn: true}, Unauthenticated: "401"},
		{Path: "/gate", Policy: &policy.Policy{SignedIn: true}, Unauthenticated: "login"},
	}
}

// newWorld returns a world in which every login is ada's.
func newWorld(t testing.TB, s setup) *world {
	t.Helper()
	w := &world{t: t, clock: newClock(), log: newLogbook(), origin: "http://app.test"}
	if s.https {
		w.origin = "https://app.test"
	}
	w.upstream = newApp(t)

	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { (*w.handler.Load()).ServeHTTP(rw, r) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.DisableGeneralOptionsHandler = true
	server.Config.Protocols = new(http.Protocols) // as cmd/authproxy
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetHTTP2(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 100, WriteByteTimeout: time.Minute}
	w.addr = server.Listener.Addr().String()

	client := devprovider.Client{ID: clientID, Secret: clientSecret, Callbacks: []string{w.origin + "/auth/callback"},
		LogoutURLs: []string{w.origin + "/auth/", w.origin + "/"}, BackchannelURL: w.origin + "/auth/backchannel-logout"}
	if s.client != nil {
		s.client(&client)
	}
	tenant := devprovider.Options{Clients: []devprovider.Client{client}, Users: append(devprovider.DemoUsers(), s.users...), Now: w.clock.Now, NoLogoutConsent: true,
		APIs:       []devprovider.API{{Identifier: apiAudience, TokenLifetime: time.Hour, Offline: true}},
		HTTPClient: &http.Client{Transport: w.transport(), Timeout: 5 * time.Second}}
	if s.tenant != nil {
		s.tenant(&tenant)
	}
	var err error
	if w.provider, err = devprovider.Start(tenant); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.provider.Close)
	w.provider.Set(func(f *devprovider.Faults) { f.SignInAs = "ada" })

	w.setup, w.file = s, filepath.Join(t.TempDir(), "sessions.db")
	w.canaries = []string{clientSecret, sessionKey}
	w.build()
	if s.https {
		server.StartTLS()
		w.roots = x509.NewCertPool()
		w.roots.AddCert(server.Certificate())
	} else {
		server.Start()
	}
	t.Cleanup(func() {
		w.upstream.release()
		server.CloseClientConnections()
		server.Close()
		w.sessions.Close()
		w.checkLog()
		w.checkDecisions()
		if text := w.log.text(); t.Failed() {
			t.Logf("the log ends with:\n%s", text[max(0, len(text)-4000):])
		}
	})
	return w
}

// build wires the Proxy as cmd/authproxy does, and lets it serve.
func (w *world) build() {
	w.t.Helper()
	s := w.setup
	check := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	logger := slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	key := []byte(sessionKey)
	public, err := url.Parse(w.origin)
	check(err)
	conf := oidc.Config{Issuer: w.provider.Issuer(), Auth0: true, ClientID: clientID, ClientSecret: clientSecret, RedirectURL: w.origin + "/auth/callback",
		Scopes: []string{"openid", "profile", "email"}, Leeway: time.Minute, Now: w.clock.Now, Log: logger}
	if s.rp != nil {
		s.rp(&conf)
	}
	rp, err := oidc.New(conf)
	check(err)
	sealer, err := session.NewSealer([][]byte{key})
	check(err)
	signing, err := assertion.DeriveKey(key)
	check(err)
	signer, err := assertion.NewSigner(w.origin, 2*time.Minute, []*ecdsa.PrivateKey{signing})
	check(err)
	if s.idle == 0 {
		s.idle = 24 * time.Hour
	}
	if s.life == 0 {
		s.life = 7 * 24 * time.Hour
	}
	if s.sameSite == 0 {
		s.sameSite = http.SameSiteLaxMode
	}
	cookie := session.NewCookie("authproxy", s.domain, s.https, s.sameSite)
	w.cookie = cookie.Name
	w.store = session.NewCookieStore(sealer, cookie, s.life, w.clock.Now)
	if s.file {
		w.store, err = session.OpenFileStore(w.file, sealer, [][]byte{key}, cookie, s.idle, w.clock.Now)
		check(err)
	}
	w.sessions = session.NewManager(w.store, cookie, s.idle, s.life)
	w.sessions.Now = w.clock.Now
	w.opts = proxy.Options{
		PublicURL: public, Prefix: "/auth", Provider: rp, Sessions: w.sessions, Sealer: sealer, Signer: signer,
		Routes: usualRoutes(), Default: w.upstream.at("http"), StoreTokens: true, Now: w.clock.Now, Log: logger,
		Identity: proxy.Identity{StripForeign: true, AssertionHeader: "X-Authproxy-Assertion", Headers: []proxy.Header{
			{Name: "X-Forwarded-User", Source: "sub"}, {Name: "X-Forwarded-Email", Source: "email"},
			{Name: "X-Forwarded-Preferred-Username", Source: "username"}, {Name: "X-Forwarded-Groups", Source: "groups"},
		}},
	}
	if s.options != nil {
		s.options(&w.opts)
	}
	w.proxy, err = proxy.New(w.opts)
	check(err)
	h := http.Handler(w.proxy)
	w.handler.Store(&h)
}

// restart replaces everything but the provider, the upstream and what is on disk, as a restart of the program does.
func (w *world) restart() {
	w.t.Helper()
	w.sessions.Close()
	w.build()
}

// run lets the Proxy do its background work until the test ends.
func (w *world) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.proxy.Run(ctx) })
	w.t.Cleanup(func() { cancel(); running.Wait() })
}

// faults changes how the provider misbehaves.
func (w *world) faults(f func(*devprovider.Faults)) { w.provider.Set(f) }

// checkDecisions fails the test when the app got a request that was not decided to be allowed, whatever the client was told.
func (w *world) checkDecisions() {
	w.t.Helper()
	decisions := map[string]string{}
	for line := range strings.Lines(w.log.text()) {
		var r struct{ Msg, Decision, Request_ID string }
		if json.Unmarshal([]byte(line), &r) == nil && r.Msg == "request" {
			decisions[r.Request_ID] = r.Decision
		}
	}
	for _, a := range w.upstream.requests() {
		if d, logged := decisions[a.Header.Get("X-Request-Id")]; logged && d != "allow" {
			w.t.Errorf("the app got %s %s, which was decided with %q", a.Method, a.Target, d)
		}
	}
}

// checkLog fails the test when the log has a secret in it.
func (w *world) checkLog() {
	w.t.Helper()
	secrets := slices.Clone(w.canaries)
	for _, c := range w.provider.Calls("token") {
		for _, name := range []string{"code", "code_verifier", "refresh_token", "client_secret"} {
			secrets = append(secrets, c.Form[name]...)
		}
	}
	for _, c := range w.provider.Calls("authorize") {
		secrets = append(secrets, c.Query.Get("state"), c.Query.Get("nonce"))
	}
	for _, b := range w.browsers {
		secrets = append(secrets, b.jar.all...)
	}
	text := w.log.text()
	for _, s := range secrets {
		if len(s) >= 8 && strings.Contains(text, s) {
			at := strings.Index(text, s)
			w.t.Errorf("the log has a secret in it: %q", text[max(0, at-200):min(len(text), at+len(s)+50)])
		}
	}
}

// transport reaches the Proxy under every name that ends in .test.
func (w *world) transport() *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if host, _, err := net.SplitHostPort(addr); err == nil && strings.HasSuffix(host, ".test") {
				addr = w.addr
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
		DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			d := tls.Dialer{Config: &tls.Config{RootCAs: w.roots, ServerName: "example.com"}} // the name in httptest's certificate
			return d.DialContext(ctx, network, w.addr)
		},
		DisableCompression: true,
	}
}

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// dial opens a connection to the Proxy for a test that writes its own bytes.
func (w *world) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// A clock stands still until it is told to move.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.at.Store(time.Now().Truncate(time.Second).UnixNano())
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

// An app is the upstream: it remembers what it was asked and answers as it is told, at first with the request's target.
type app struct {
	*httptest.Server
	released chan struct{} // closed when the test is over, for handlers that wait

	mu     sync.Mutex
	handle http.HandlerFunc
	asked  []*asked
}

// asked is a request as the upstream saw it.
type asked struct {
	Method, Target, Host string
	Header               http.Header
	Proto                string
}

func newApp(t testing.TB) *app {
	a := &app{released: make(chan struct{})}
	a.Server = httptest.NewUnstartedServer(a)
	a.Config.ErrorLog = log.New(io.Discard, "", 0)
	a.Config.Protocols = new(http.Protocols)
	a.Config.Protocols.SetHTTP1(true)
	a.Config.Protocols.SetUnencryptedHTTP2(true)
	a.Start()
	t.Cleanup(func() { a.release(); a.CloseClientConnections(); a.Close() })
	return a
}

// release lets waiting handlers go.
func (a *app) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.released:
	default:
		close(a.released)
	}
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.asked = append(a.asked, &asked{r.Method, r.RequestURI, r.Host, r.Header.Clone(), r.Proto})
	handle := a.handle
	a.mu.Unlock()
	if handle != nil {
		handle(w, r)
		return
	}
	fmt.Fprintf(w, "%s %s", r.Method, r.RequestURI)
}

// answer sets what the upstream does from now on.
func (a *app) answer(h http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handle = h
}

func (a *app) requests() []*asked {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.asked)
}

// last is the latest request; it fails the test when there was none.
func (a *app) last(t testing.TB) *asked {
	t.Helper()
	all := a.requests()
	if len(all) == 0 {
		t.Fatal("the upstream was not asked")
	}
	return all[len(all)-1]
}

// at is the upstream for a Proxy, by a scheme of its URL.
func (a *app) at(scheme string) *proxy.Upstream {
	return &proxy.Upstream{URL: &url.URL{Scheme: scheme, Host: a.Listener.Addr().String()}, Timeout: 5 * time.Second, PreserveHost: true}
}

// A logbook keeps what is logged, in JSON.
type logbook struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	records []record
	changed chan struct{} // closed at the next record
}

type record map[string]any

func newLogbook() *logbook { return &logbook{changed: make(chan struct{})} }

func (l *logbook) Write(b []byte) (int, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(b)
	l.records = append(l.records, r)
	close(l.changed)
	l.changed = make(chan struct{})
	return len(b), nil
}

func (l *logbook) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// find returns the records that match, waiting until there is one: the event of a request is written after its answer.
func (l *logbook) find(t testing.TB, what string, match func(record) bool) []record {
	t.Helper()
	timeout := time.After(patience)
	for {
		l.mu.Lock()
		var found []record
		for _, r := range l.records {
			if match(r) {
				found = append(found, r)
			}
		}
		changed := l.changed
		l.mu.Unlock()
		if len(found) > 0 {
			return found
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("the log has no record of %s:\n%s", what, l.text())
		}
	}
}

// request returns the latest event of a request for that path, waiting until there is one: it is for paths that a test asks
// for once.
func (l *logbook) request(t testing.TB, path string) record {
	t.Helper()
	all := l.find(t, "a request for "+path, func(r record) bool { return r["msg"] == "request" && r["path"] == path })
	return all[len(all)-1]
}

// A browser keeps cookies and sends what browsers send, and follows redirects only when told to.
type browser struct {
	w         *world
	t         testing.TB
	jar       *jar
	transport http.RoundTripper
	onward    http.Header // sent with every request
}

// newBrowser returns a browser without cookies.
func (w *world) newBrowser(t testing.TB) *browser {
	tr := w.transport()
	t.Cleanup(tr.CloseIdleConnections)
	b := &browser{w: w, t: t, jar: &jar{t: t, now: w.clock.Now}, transport: tr, onward: http.Header{}}
	w.browsers = append(w.browsers, b)
	return b
}

// signedIn returns a browser in which that user has signed in.
func (w *world) signedIn(t testing.TB, username string) *browser {
	t.Helper()
	b := w.newBrowser(t)
	w.faults(func(f *devprovider.Faults) { f.SignInAs = username })
	if r := b.follow("/"); r.StatusCode != http.StatusOK || b.session() == "" {
		t.Fatalf("signing in %s ends with %s at %s: %s", username, r.Status, r.at, r.brief())
	}
	return b
}

// A reply is an answer, read to its end.
type reply struct {
	*http.Response
	body string
	at   string // the URL that answered
}

// brief is what there is to read in the body.
func (r *reply) brief() string {
	if _, main, ok := strings.Cut(r.body, "<main>"); ok {
		main, _, _ = strings.Cut(main, "</main>")
		return main
	}
	return r.body[:min(len(r.body), 2000)]
}

// to is where a redirect leads, as a URL.
func (r *reply) to(t testing.TB) *url.URL {
	t.Helper()
	u, err := r.Location()
	if err != nil {
		t.Fatalf("%s answers %s without a redirect: %s", r.at, r.Status, r.brief())
	}
	return u
}

// wants fails the test unless the reply has that status and each text in its body.
func (r *reply) wants(t testing.TB, status int, texts ...string) *reply {
	t.Helper()
	if r.StatusCode != status {
		t.Fatalf("%s answers %s, want %d: %s", r.at, r.Status, status, r.brief())
	}
	for _, text := range texts {
		if !strings.Contains(r.body, text) {
			t.Errorf("%s answers without %q: %s", r.at, text, r.brief())
		}
	}
	return r
}

// wantsJSON fails the test unless the reply is our JSON for that error.
func (r *reply) wantsJSON(t testing.TB, status int, code string) map[string]string {
	t.Helper()
	r.wants(t, status)
	var body map[string]string
	if err := json.Unmarshal([]byte(r.body), &body); err != nil {
		t.Fatalf("%s answers no JSON: %v: %s", r.at, err, r.brief())
	}
	if body["error"] != code || body["message"] == "" || body["request_id"] == "" || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s answers %v with Cache-Control %q, want error %q, a message, a request_id and no-store", r.at, body, r.Header.Get("Cache-Control"), code)
	}
	return body
}

// wantsPage fails the test unless the reply is a page of ours with that heading.
func (r *reply) wantsPage(t testing.TB, status int, title string) *reply {
	t.Helper()
	r.wants(t, status, "<h1>"+html.EscapeString(title)+"</h1>")
	for name, want := range map[string]string{"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("the page %q has %s %q, want %q", title, name, got, want)
		}
	}
	if csp := r.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
		t.Errorf("the page %q has Content-Security-Policy %q", title, csp)
	}
	return r
}

// resolve makes a URL of a path of public_url.
func (b *browser) resolve(ref string) string {
	if strings.HasPrefix(ref, "/") {
		return b.w.origin + ref
	}
	return ref
}

// send makes a request with headers in pairs of name and value; an empty value takes the header away.
func (b *browser) send(method, ref, body string, headers ...string) *reply {
	b.t.Helper()
	r, err := http.NewRequest(method, b.resolve(ref), strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for name, values := range b.onward {
		r.Header[name] = values
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
		} else {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	return b.do(r)
}

// do sends r with the cookies that belong to it, and keeps those that come back.
func (b *browser) do(r *http.Request) *reply {
	b.t.Helper()
	res := b.open(r)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatalf("%s %s: reading the answer: %v", r.Method, r.URL, err)
	}
	return &reply{res, string(body), r.URL.String()}
}

// open is do for an answer that the test reads itself.
func (b *browser) open(r *http.Request) *http.Response {
	b.t.Helper()
	if line := b.jar.line(r); line != "" {
		r.Header.Add("Cookie", line)
	}
	res, err := b.transport.RoundTrip(r)
	if err != nil {
		b.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	b.jar.keep(r.URL, res.Cookies())
	return res
}

const acceptPages = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

// navigate asks for a page, as if the user had typed its address, and follows no redirect.
func (b *browser) navigate(ref string, headers ...string) *reply {
	b.t.Helper()
	return b.send(http.MethodGet, ref, "", append([]string{"Accept", acceptPages, "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document",
		"Sec-Fetch-Site", "none", "Sec-Fetch-User", "?1", "Upgrade-Insecure-Requests", "1"}, headers...)...)
}

var refresh = regexp.MustCompile(`<meta http-equiv="refresh" content="0; url=([^"]*)"`)

// follow navigates and goes where it is sent, by redirects and by pages that send on, until there is something to look at.
func (b *browser) follow(ref string, headers ...string) *reply {
	b.t.Helper()
	return b.onwardFrom(b.navigate(ref, headers...))
}

// onwardFrom is follow from a reply on.
func (b *browser) onwardFrom(r *reply) *reply {
	b.t.Helper()
	site := "none"
	for range 20 {
		at, err := url.Parse(r.at)
		if err != nil {
			b.t.Fatal(err)
		}
		var next *url.URL
		if r.StatusCode >= 300 && r.StatusCode < 400 {
			next = r.to(b.t)
		} else if m := refresh.FindStringSubmatch(r.body); m != nil {
			if next, err = at.Parse(html.UnescapeString(m[1])); err != nil {
				b.t.Fatal(err)
			}
			site = "same-origin"
		} else {
			return r
		}
		if !sameSite(at, next) { // as if the user had pressed a button there
			site = "cross-site"
		}
		r = b.navigate(next.String(), "Sec-Fetch-Site", site)
	}
	b.t.Fatalf("20 redirects without an end, the last to %s", r.at)
	return nil
}

// login goes as far as the provider's answer and returns the callback's URL, not yet visited.
func (b *browser) login(ref string, headers ...string) string {
	b.t.Helper()
	return b.atProvider(b.navigate(ref, headers...))
}

// atProvider takes a redirect to the provider and returns where the provider sends the browser.
func (b *browser) atProvider(r *reply) string {
	b.t.Helper()
	to := r.to(b.t)
	if !strings.HasPrefix(to.String(), b.w.provider.Issuer()+"authorize?") {
		b.t.Fatalf("%s leads to %s, want the provider", r.at, to)
	}
	return b.navigate(to.String(), "Sec-Fetch-Site", "cross-site").to(b.t).String()
}

// back visits a callback, as the provider's redirect does.
func (b *browser) back(callback string) *reply {
	b.t.Helper()
	return b.navigate(callback, "Sec-Fetch-Site", "cross-site")
}

// fetch makes a request from a script of our own pages.
func (b *browser) fetch(method, ref, body string, headers ...string) *reply {
	b.t.Helper()
	all := []string{"Accept", "*/*", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty", "Sec-Fetch-Site", "same-origin"}
	if method != http.MethodGet && method != http.MethodHead {
		all = append(all, "Origin", b.w.origin)
	}
	return b.send(method, ref, body, append(all, headers...)...)
}

// post submits a form of one of our own pages.
func (b *browser) post(ref string, form url.Values, headers ...string) *reply {
	b.t.Helper()
	return b.send(http.MethodPost, ref, form.Encode(), append([]string{"Accept", acceptPages, "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document",
		"Sec-Fetch-Site", "same-origin", "Sec-Fetch-User", "?1", "Origin", "null", "Content-Type", "application/x-www-form-urlencoded"}, headers...)...)
}

// session is the value of the session cookie, "" when there is none.
func (b *browser) session() string {
	c := b.jar.get(b.w.cookie)
	if c == nil {
		return ""
	}
	return c.Value
}

// logins are the names of the login cookies, in the order in which they were set.
func (b *browser) logins() (names []string) {
	for _, c := range b.jar.kept {
		if strings.HasPrefix(c.Name, b.w.cookie+"-login-") {
			names = append(names, c.Name)
		}
	}
	return names
}

// A jar is where a browser keeps cookies, by the rules of RFC 6265bis as far as they matter here.
type jar struct {
	t       testing.TB
	now     func() time.Time
	refuses bool // the user has blocked cookies
	kept    []kept
	all     []string // every value that was ever kept
}

type kept struct {
	*http.Cookie
	host    string
	expires time.Time // zero: with the browser
}

// keep takes the cookies of an answer.
func (j *jar) keep(from *url.URL, cookies []*http.Cookie) {
	j.t.Helper()
	if j.refuses {
		return
	}
	for _, c := range cookies {
		k := kept{Cookie: c, host: from.Hostname()}
		if c.Domain != "" {
			if k.host = strings.TrimPrefix(c.Domain, "."); !strings.HasSuffix("."+from.Hostname(), "."+k.host) {
				j.t.Errorf("%s sets a cookie for %s", from.Host, c.Domain)
				continue
			}
		}
		secure := from.Scheme == "https"
		switch {
		case len(c.String()) > 4096:
			j.t.Errorf("%s sets a cookie of %d bytes, which browsers drop", from.Host, len(c.String()))
			continue
		case c.Secure && !secure,
			strings.HasPrefix(c.Name, "__Host-") && (!c.Secure || c.Path != "/" || c.Domain != ""),
			strings.HasPrefix(c.Name, "__Secure-") && !c.Secure:
			j.t.Errorf("%s sets the cookie %s, which browsers drop", from.Host, c.Name)
			continue
		}
		same := func(o kept) bool { return o.Name == c.Name && o.host == k.host && (o.Domain == "") == (c.Domain == "") }
		if c.MaxAge < 0 {
			j.kept = slices.DeleteFunc(j.kept, same)
			continue
		}
		if c.MaxAge > 0 {
			k.expires = j.now().Add(time.Duration(c.MaxAge) * time.Second)
		}
		j.all = append(j.all, c.Value)
		if i := slices.IndexFunc(j.kept, same); i >= 0 {
			j.kept[i] = k
		} else {
			j.kept = append(j.kept, k)
		}
	}
}

// line is the Cookie header for r.
func (j *jar) line(r *http.Request) string {
	var pairs []string
	for _, k := range j.kept {
		host := r.URL.Hostname()
		if host != k.host && (k.Domain == "" || !strings.HasSuffix(host, "."+k.host)) || k.Secure && r.URL.Scheme != "https" ||
			k.Path != "" && !strings.HasPrefix(r.URL.Path, k.Path) || !k.expires.IsZero() && !j.now().Before(k.expires) {
			continue
		}
		if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
			topLevel := r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" && r.Method == http.MethodGet
			if k.SameSite == http.SameSiteStrictMode || k.SameSite == http.SameSiteLaxMode && !topLevel {
				continue
			}
		}
		pairs = append(pairs, k.Name+"="+k.Value)
	}
	return strings.Join(pairs, "; ")
}

func (j *jar) get(name string) *http.Cookie {
	for _, k := range j.kept {
		if k.Name == name {
			return k.Cookie
		}
	}
	return nil
}

// sameSite says whether two URLs are of one site: in a world, the names under .test by their last two labels.
func sameSite(a, b *url.URL) bool {
	site := func(u *url.URL) string {
		labels := strings.Split(u.Hostname(), ".")
		if labels[len(labels)-1] == "test" {
			return strings.Join(labels[max(0, len(labels)-2):], ".")
		}
		return u.Hostname()
	}
	return a.Scheme == b.Scheme && site(a) == site(b)
}

// proxyWait waits for what the Proxy does beside its requests.
func (w *world) proxyWait() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w.proxy.Run(ctx)
}

// offline adds refresh tokens to a setup: access tokens are for an API and good for an hour.
func offline(s setup) setup {
	rp := s.rp
	s.rp = func(c *oidc.Config) {
		c.Scopes, c.Audience = append(c.Scopes, "offline_access"), apiAudience
		if rp != nil {
			rp(c)
		}
	}
	return s
}

// reload replaces the Proxy by one that takes over from it, as a new configuration does. change may be nil.
func (w *world) reload(change func(*proxy.Options)) {
	w.t.Helper()
	opts := w.opts
	opts.Former = w.proxy
	if change != nil {
		change(&opts)
	}
	next, err := proxy.New(opts)
	if err != nil {
		w.t.Fatal(err)
	}
	w.proxy = next
	h := http.Handler(next)
	w.handler.Store(&h)
}

// newRequest is a request of a program for a path of public_url.
func (w *world) newRequest(method, path string) *http.Request {
	w.t.Helper()
	r, err := http.NewRequest(method, w.origin+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// read is the body of an answer, to its end.
func read(res *http.Response) string {
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return "reading: " + err.Error()
	}
	return string(b)
}
