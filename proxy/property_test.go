package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"authproxy/assertion"
	"authproxy/identity"
	"authproxy/oidc"
	"authproxy/policy"
	"authproxy/proxy"
	"authproxy/session"
)

// A rig is a Proxy without a provider: sessions are made by hand, and upstreams are asked in memory or over sockets. It is
// for what is about requests and not about logins.
type rig struct {
	*proxy.Proxy
	sessions *session.Manager
	cookie   string // name of the session cookie
}

const (
	rigIssuer    = "http://127.0.0.1:1/"
	rigAssertion = "X-Authproxy-Assertion"
)

// rigRoutes are what most properties are about: a public part, one for admins, one with a prefix taken off, and the rest
// for whoever is signed in.
func rigRoutes() []proxy.Route {
	return []proxy.Route{
		{Path: "/public", Policy: &policy.Policy{Anyone: true}},
		{Path: "/admin", Policy: &policy.Policy{Entries: []policy.Entry{{Groups: []string{"admins"}}}}, Unauthenticated: "401"},
		{Path: "/api/v1", Policy: &policy.Policy{SignedIn: true}, StripPrefix: true, Unauthenticated: "401"},
		{Path: "/exact", Exact: true, Policy: &policy.Policy{Anyone: true}},
		{Path: "/", Policy: &policy.Policy{SignedIn: true}, Unauthenticated: "401"},
	}
}

// newRig returns a rig for http://app.test whose upstream is http://upstream.test. change may be nil.
func newRig(tb testing.TB, change func(*proxy.Options)) *rig {
	tb.Helper()
	key := bytes.Repeat([]byte("k"), 32)
	sealer, err := session.NewSealer([][]byte{key})
	if err != nil {
		tb.Fatal(err)
	}
	signing, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	signer, err := assertion.NewSigner("http://app.test", 2*time.Minute, []*ecdsa.PrivateKey{signing})
	if err != nil {
		tb.Fatal(err)
	}
	provider, err := oidc.New(oidc.Config{Issuer: rigIssuer, ClientID: "c", ClientSecret: "s", RedirectURL: "http://app.test/auth/callback"})
	if err != nil {
		tb.Fatal(err)
	}
	cookie := session.NewCookie("authproxy", "", false, http.SameSiteLaxMode)
	sessions := session.NewManager(session.NewCookieStore(sealer, cookie, 24*time.Hour, nil), cookie, time.Hour, 24*time.Hour)
	opts := proxy.Options{
		PublicURL: &url.URL{Scheme: "http", Host: "app.test"}, Prefix: "/auth",
		Provider: provider, Sessions: sessions, Sealer: sealer, Signer: signer,
		Routes: rigRoutes(), Default: &proxy.Upstream{URL: &url.URL{Scheme: "http", Host: "upstream.test"}},
		Identity: proxy.Identity{StripForeign: true, AssertionHeader: rigAssertion, Headers: []proxy.Header{
			{Name: "X-Forwarded-User", Source: "sub"}, {Name: "X-Forwarded-Email", Source: "email"},
			{Name: "X-Forwarded-Groups", Source: "groups"}, {Name: "X-Auth-Name", Source: "name"},
		}},
	}
	if change != nil {
		change(&opts)
	}
	p, err := proxy.New(opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { sessions.Close() })
	return &rig{p, sessions, cookie.Name}
}

// signIn begins a session and returns the Cookie header that goes with it.
func (r *rig) signIn(tb testing.TB, subject string, groups ...string) string {
	tb.Helper()
	_, c, err := r.sessions.Begin(context.Background(), &session.Session{Identity: &identity.Identity{
		Issuer: rigIssuer, Subject: subject, Email: subject + "@app.test", EmailVerified: true, Groups: groups,
	}})
	if err != nil {
		tb.Fatal(err)
	}
	return c.Name + "=" + c.Value
}

// parse reads the head and body of a request as net/http's server does, but for the checks that need a connection.
func parse(raw string) (*http.Request, error) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		return nil, err
	}
	for name, values := range r.Header {
		for _, v := range values { // as server.go does
			if name == "" || strings.ContainsFunc(v, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
				return nil, fmt.Errorf("a header that the server refuses: %q", name)
			}
		}
	}
	r.RemoteAddr = "192.0.2.7:4711"
	return r, nil
}

// A wire is an upstream in memory that keeps each request as it goes over the wire.
type wire struct {
	mu     sync.Mutex
	seen   []*sent
	answer func(*http.Request) (*http.Response, error) // nil: 200
}

// sent is a request as an upstream received it: its target and its header and trailer fields, in order and in their spelling.
type sent struct {
	method, target string
	fields         [][2]string
	raw            string
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		return nil, err
	}
	s, err := parseSent(b.String())
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.seen = append(w.seen, s)
	w.mu.Unlock()
	if w.answer != nil {
		return w.answer(r)
	}
	return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

func (w *wire) take() []*sent {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

// parseSent reads a message as strictly as RFC 9112 is written, without net/http.
func parseSent(raw string) (*sent, error) {
	head, body, ok := strings.Cut(raw, "\r\n\r\n")
	if !ok {
		return nil, fmt.Errorf("no end of the head in %q", raw)
	}
	lines := strings.Split(head, "\r\n")
	first := strings.Split(lines[0], " ")
	if len(first) != 3 || first[2] != "HTTP/1.1" {
		return nil, fmt.Errorf("request line %q", lines[0])
	}
	s := &sent{method: first[0], target: first[1], raw: raw}
	chunked := false
	field := func(line string) error {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") || strings.ContainsAny(value, "\r\n\x00") {
			return fmt.Errorf("field line %q", line)
		}
		value = strings.Trim(value, " \t")
		chunked = chunked || strings.EqualFold(name, "Transfer-Encoding")
		s.fields = append(s.fields, [2]string{name, value})
		return nil
	}
	for _, line := range lines[1:] {
		if err := field(line); err != nil {
			return nil, err
		}
	}
	if !chunked {
		return s, nil
	}
	for {
		size, rest, ok := strings.Cut(body, "\r\n")
		var n int
		if _, err := fmt.Sscanf(size, "%x", &n); err != nil || !ok || n+2 > len(rest) && n > 0 {
			return nil, fmt.Errorf("chunk %q", body)
		}
		if n == 0 {
			body = rest
			break
		}
		body = rest[n+2:]
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(body, "\r\n"), "\r\n") {
		if line == "" {
			break
		}
		if err := field(line); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// values are those of every field whose name means the same as name to a program that folds.
func (s *sent) values(name string) (all []string) {
	for _, f := range s.fields {
		if folded(f[0]) == folded(name) {
			all = append(all, f[1])
		}
	}
	return all
}

// folded is how CGI, WSGI and their kin tell names apart, written down once more.
func folded(name string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			return unicode.ToLower(c)
		}
		return '-'
	}, name)
}

// reservedNames are what the contract (5.1) lets only the proxy send, for a rig.
func reservedNames(foldedName string) bool {
	for _, prefix := range []string{"x-forwarded-", "x-authproxy-", "x-original-", "x-auth-request-", "tailscale-", "cf-access-", "x-amzn-oidc-", "x-vouch-", "x-authentik-"} {
		if strings.HasPrefix(foldedName, prefix) {
			return true
		}
	}
	return slices.Contains([]string{"forwarded", "x-real-ip", "x-rewrite-url", "x-http-method-override", "x-http-method", "x-method-override", "proxy",
		"x-request-id", "x-auth-name", "remote-user", "x-webauth-user", "x-auth-user", "x-remote-user"}, foldedName)
}

// checkFolds is property P1 for one request that an upstream got.
func checkFolds(t *testing.T, s *sent, own map[string]string) {
	t.Helper()
	count := map[string]int{}
	for _, f := range s.fields {
		name := folded(f[0])
		want, ours := own[name]
		if !ours {
			if reservedNames(name) {
				t.Errorf("the upstream got %s: %s", f[0], f[1])
			}
			continue
		}
		if count[name]++; count[name] > 1 {
			t.Errorf("the upstream got %s %d times", f[0], count[name])
		}
		if want != "" && f[1] != want {
			t.Errorf("the upstream got %s: %q, want %q", f[0], f[1], want)
		}
	}
	for name := range own {
		if count[name] == 0 {
			t.Errorf("the upstream got no %s", name)
		}
	}
	for _, line := range s.values("Cookie") {
		for pair := range strings.SplitSeq(line, ";") {
			if name, _, _ := strings.Cut(strings.TrimSpace(pair), "="); name == "authproxy" || strings.HasPrefix(name, "authproxy-login-") {
				t.Errorf("the upstream got our cookie in %q", line)
			}
		}
	}
}

// ownFor are the folded names that a rig's proxy sends itself, with their values; "" is one that cannot be foreseen.
func ownFor(subject string, groups ...string) map[string]string {
	own := map[string]string{"x-forwarded-for": "", "x-forwarded-host": "app.test", "x-forwarded-proto": "http", "x-request-id": ""}
	if subject == "" {
		return own
	}
	own["x-forwarded-user"], own["x-forwarded-email"], own["x-authproxy-assertion"] = subject, subject+"@app.test", ""
	if len(groups) > 0 {
		own["x-forwarded-groups"] = strings.Join(groups, ",")
	}
	return own
}

// P1 of the corpus: whatever a client sends in whichever spelling, no name that folds to a reserved one reaches an upstream
// but what the proxy wrote, and that once.
func FuzzNoNameFoldsToAReservedOne(f *testing.F) {
	for _, fields := range []string{
		"X-Forwarded-User: canary\nX_Forwarded_User: canary\nx.forwarded.user: canary\nX-FORWARDED-GROUPS: canary",
		"Connection: close, X-Forwarded-User, x-authproxy-assertion,X-Request-Id\nX-Authproxy-Assertion: canary",
		"Connection:\tx-Forwarded-user ,\nconnection: X-FORWARDED-EMAIL",
		"Transfer-Encoding: chunked\nTrailer: X-Forwarded-User",
		"Upgrade: websocket\nConnection: Upgrade, X-Forwarded-User\nOrigin: http://app.test\nX!Forwarded~User: canary",
		"Upgrade: websocket, h2c\nConnection: Upgrade\nProxy: canary\nX-Http-Method_Override: canary",
		"Forwarded: for=canary\nX-Forwarded: canary\nX-Real.Ip: canary\nX-Original-URL: canary\nX-Rewrite-Url: canary",
		"X-Auth'Name: canary\nX`Auth|Name: canary\nRemote_User: canary\nTailscale-User-Login: canary",
		"X-Request-Id: canary\nX_Request.Id: canary\nTE: trailers\nConnection: TE",
		"Cookie: a=1; authproxy=canary; b=2\nCookie: authproxy-login-x=canary",
		"X-Forwarded-User:\n canary\nX-Foo: a\n\tX-Forwarded-User: b",
	} {
		f.Add(fields, "x", "X_Forwarded_User: canary")
	}
	alice := []string{"dev", "a b"}
	r := newRig(f, nil)
	up := &wire{}
	r.UseTransport(up)
	cookie := r.signIn(f, "alice", alice...)
	failing := newRig(f, nil)
	failing.UseTransport(&wire{answer: func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }})
	failingCookie := failing.signIn(f, "alice", alice...)
	f.Fuzz(func(t *testing.T, fields, body, trailer string) {
		fields = strings.ReplaceAll(strings.Trim(fields, "\n"), "\n", "\r\n")
		for _, cut := range []string{"\r\n\r\n", "Host:", "host:"} {
			if strings.Contains(fields, cut) {
				return
			}
		}
		chunk := ""
		if len(body) > 0 {
			chunk = fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
		}
		for _, way := range []struct{ name, line, cookie string }{
			{"public", "GET /public/x", ""},
			{"preflight", "OPTIONS /public/x", ""},
			{"public, signed in", "POST /public/x", cookie},
			{"protected", "POST /x", cookie},
			{"protected, stripped", "PUT /api/v1/x", cookie},
			{"anonymous", "POST /x", ""},
			{"forbidden", "GET /admin/x", cookie},
		} {
			head := way.line + " HTTP/1.1\r\nHost: app.test\r\n" + fields + "\r\n"
			if way.cookie != "" {
				head += "Cookie: " + way.cookie + "\r\n"
			}
			req, err := parse(head + "\r\n" + chunk + "0\r\n" + trailer + "\r\n\r\n")
			if err != nil {
				return
			}
			mine := len(proxy.CookieValues(req.Header, r.cookie))
			rec := httptest.NewRecorder()
			r.ServeHTTP(rec, req)
			all := up.take()
			if len(all) > 1 {
				t.Fatalf("%s: %d requests at the upstream", way.name, len(all))
			}
			if len(all) == 1 {
				own := ownFor("")
				if way.cookie != "" && mine == 1 {
					own = ownFor("alice", alice...)
				}
				if (way.name == "anonymous" || way.name == "forbidden") && mine < 2 {
					t.Errorf("%s: passed", way.name)
				}
				checkFolds(t, all[0], own)
			}
			if strings.Contains(rec.Body.String(), "canary") || strings.Contains(fmt.Sprint(rec.Header()), "canary") {
				t.Errorf("%s: the answer echoes: %v %s", way.name, rec.Header(), rec.Body)
			}
		}
		req, err := parse("GET /x HTTP/1.1\r\nHost: app.test\r\n" + fields + "\r\nCookie: " + failingCookie + "\r\n\r\n")
		if err != nil {
			return
		}
		rec := httptest.NewRecorder()
		failing.ServeHTTP(rec, req)
		if rec.Code < 400 {
			t.Errorf("without an upstream: status %d", rec.Code)
		}
	})
}

// P6 of the corpus: many users at once, with upstreams that take their time, clients that leave, and cookies that are
// renewed: every upstream request, every answer and every cookie is of the user who asked.
func TestP6NobodyGetsWhatIsAnothers(t *testing.T) {
	const users, each = 24, 30
	var clock atomic.Int64
	clock.Store(time.Now().UnixNano())
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, marker := r.Header.Get("X-Forwarded-User"), r.Header.Get("X-Marker")
		var claims struct{ Sub string }
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(r.Header.Get(rigAssertion)+"..", ".")[1])
		if err != nil || json.Unmarshal(payload, &claims) != nil || claims.Sub != marker {
			t.Errorf("of %s came an assertion of %q", marker, payload)
		}
		if user != marker || r.URL.Path != "/of/"+marker || r.Header.Get("X-Forwarded-Groups") != "group-"+marker {
			t.Errorf("of %s came %s, user %q", marker, r.URL.Path, user)
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Of", user)
		io.WriteString(w, user+" ")
		w.(http.Flusher).Flush()
		for range mathrand.N(200) {
			runtime.Gosched()
		}
		w.Write(body)
	}))
	defer up.Close()
	r := newRig(t, func(o *proxy.Options) {
		o.Default = &proxy.Upstream{URL: &url.URL{Scheme: "http", Host: up.Listener.Addr().String()}}
		now := func() time.Time { return time.Unix(0, clock.Load()) }
		o.Now, o.Sessions.Now = now, now
	})
	server := httptest.NewServer(r)
	defer server.Close()
	var answered, left atomic.Int64
	var running sync.WaitGroup
	for u := range users {
		name := fmt.Sprintf("user%d", u)
		cookie := r.signIn(t, name, "group-"+name)
		running.Go(func() {
			for n := range each {
				if u == 0 && n%10 == 9 {
					clock.Add(int64(61 * time.Second)) // cookies are renewed, and assertions made anew
				}
				running.Go(func() {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					body := strings.Repeat(name+".", 1+mathrand.N(500))
					req, err := http.NewRequestWithContext(ctx, "POST", server.URL+"/of/"+name, strings.NewReader(body))
					if err != nil {
						t.Error(err)
						return
					}
					req.Host = "app.test"
					req.Header.Set("Cookie", cookie)
					req.Header.Set("X-Marker", name)
					if mathrand.N(4) == 0 { // the client leaves at some time
						go func() {
							for range mathrand.N(500) {
								runtime.Gosched()
							}
							cancel()
						}()
					}
					res, err := server.Client().Do(req)
					if err != nil {
						left.Add(1)
						return
					}
					defer res.Body.Close()
					if res.StatusCode != 200 || res.Header.Get("X-Of") != name {
						t.Errorf("%s got %d of %q", name, res.StatusCode, res.Header.Get("X-Of"))
					}
					for _, c := range res.Cookies() {
						s, _, err := r.sessions.Find(context.Background(), c.Value, false)
						if err != nil || s.Identity.Subject != name {
							t.Errorf("%s got a cookie of %v, %v", name, s, err)
						}
						answered.Add(1 << 32)
					}
					got, err := io.ReadAll(res.Body)
					switch {
					case err != nil:
						left.Add(1)
					case string(got) != name+" "+body:
						t.Errorf("%s got %.60q", name, got)
					default:
						answered.Add(1)
					}
				})
			}
		})
	}
	running.Wait()
	if n := answered.Load(); n&(1<<32-1) < users || n>>32 == 0 {
		t.Errorf("%d answers, %d cookies and %d clients that left: too little was compared", n&(1<<32-1), n>>32, left.Load())
	}
}

// CKE-01: a cookie that is not the very one that we made is nobody's.
func TestCKE01EveryChangeOfTheSessionCookieSignsNobodyIn(t *testing.T) {
	r := newRig(t, nil)
	up := &wire{}
	r.UseTransport(up)
	cookie := r.signIn(t, "alice")
	status := func(cookie string) int {
		req := httptest.NewRequest("GET", "/x", nil)
		req.Host = "app.test"
		req.Header.Set("Cookie", cookie)
		rec := httptest.NewRecorder()
		r.ServeHTTP(rec, req)
		return rec.Code
	}
	if got := status(cookie); got != 200 {
		t.Fatalf("status %d with the cookie itself", got)
	}
	start := len(r.cookie) + 1
	for i := start; i < len(cookie); i++ {
		if got := status(cookie[:i]); got != 401 {
			t.Errorf("status %d with the first %d bytes", got, i-start)
		}
		for bit := range 8 {
			changed := []byte(cookie)
			changed[i] ^= 1 << bit
			if strings.ContainsAny(string(changed[i:i+1]), "\r\n\x00; \t") {
				continue
			}
			if got := status(string(changed)); got != 401 {
				t.Errorf("status %d with bit %d of byte %d changed", got, bit, i-start)
			}
		}
	}
	for _, other := range []string{cookie + "A", cookie + "=", `"` + cookie[start:] + `"`, r.cookie + `="` + cookie[start:] + `"`, strings.ToUpper(r.cookie) + cookie[start-1:], r.cookie + "-login-abcdefgh" + cookie[start-1:], cookie + "; " + cookie, r.cookie + "=x; " + cookie} {
		if got := status(other); got != 401 {
			t.Errorf("status %d with %.40q", got, other)
		}
	}
	up.take()
}
