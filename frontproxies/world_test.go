package frontproxies_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"authproxy/devprovider"
	"authproxy/identity"
	"authproxy/session"
)

// patience is how long anything may take before a test gives up. It is long because machines that run tests are busy.
const patience = 60 * time.Second

const (
	secret     = "the-secret-of-the-front-proxy"
	sessionKey = "0123456789abcdefghijklmnopqrstuv"
	bodyMarker = "body-of-the-client"
)

// binary is the program under test, built by TestMain.
var binary string

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "authproxy-frontproxies-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "authproxy")
	args := []string{"build", "-o", binary}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-race" && s.Value == "true" { // then its packages are built already, with it
				args = append(args, "-race")
			}
		}
	}
	build := exec.Command("go", append(args, "authproxy/cmd/authproxy")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s\nbuilding authproxy: %v\n", out, err)
		return 1
	}
	flag.Set("test.parallel", "16") // front proxies wait for what does not come, all at the same time
	return m.Run()
}

// A front is a front proxy: start runs it, as print-config wrote it, until the test ends.
type front struct {
	name, title string
	prints      string // its name to print-config, where that is another
	needs       string // the program, "" where the test itself speaks as that front proxy does
	trust       bool   // it cannot send a secret
	start       func(t *testing.T, w *world, printed string)
}

// A world is a front proxy that asks authproxy, between browsers and an app.
type world struct {
	front    front
	dir      string
	port     string // of the front proxy
	url      string // of the front proxy, which is public_url
	gate     *gate
	app      *app
	provider *devprovider.Server
	cookies  map[string]string // Cookie of whoever has signed in
}

func newWorld(t *testing.T, f front) *world {
	t.Helper()
	w := &world{front: f, dir: t.TempDir(), app: newApp(t), cookies: map[string]string{}}
	w.port = freePort(t)
	w.url = "http://localhost:" + w.port
	groups := func(n int) (names []string) {
		for i := range n {
			names = append(names, fmt.Sprintf("%c%c-team-%03d", 'a'+i%26, 'a'+i*7%26, i))
		}
		return names
	}
	user := func(name string, groups ...string) devprovider.User {
		return devprovider.User{Username: name, Subject: name, Claims: map[string]any{"email": name + "@example.com", "email_verified": true}, Groups: groups}
	}
	var err error
	w.provider, err = devprovider.Start(devprovider.Options{
		Users:   []devprovider.User{user("ada", "admins"), user("bob", "staff"), user("large", groups(80)...), user("huge", groups(160)...)},
		Clients: []devprovider.Client{{ID: "client", Secret: "a secret", Callbacks: []string{w.url + "/auth/callback"}, LogoutURLs: []string{w.url + "/auth/"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.provider.Close)

	// authproxy listens on a socket, and the gate where the front proxy thinks that it does.
	socket := filepath.Join(w.dir, "s")
	w.gate = newGate(t, socket)
	config := func(name, more string) string {
		who := "shared_secret: " + secret
		if f.trust {
			who = "trust: [unix]"
		}
		file := filepath.Join(w.dir, name)
		text := fmt.Sprintf(`
public_url: %s
admin: {listen: ""}
provider: {issuer: %q, client_id: client, client_secret: a secret}
session: {keys: [%s]}
limits: {login_per_minute: 1000000}
routes:
  - {path: /public, allow: anyone}
  - {path: /admin, allow: [{groups: [admins]}]}
forward_auth: {%s}
%s`, w.url, w.provider.Issuer(), base64.RawURLEncoding.EncodeToString([]byte(sessionKey)), who, more)
		write(t, file, text)
		return file
	}
	serve := w.process(t, nil, binary, "serve", "-config", config("served.yaml", "listen: unix:"+socket+"\n"))
	waitFor(t, "authproxy", serve, func() bool { c, err := net.Dial("unix", socket); return err == nil && c.Close() == nil })
	printing := config("config.yaml", "listen: "+w.gate.listener.Addr().String()+"\nupstream: "+w.app.server.URL+"\n")
	printed, err := exec.Command(binary, "print-config", cmp.Or(f.prints, f.name), "-config", printing).Output()
	if err != nil {
		t.Fatalf("print-config %s: %v", f.name, err)
	}
	f.start(t, w, string(printed))
	return w
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// freePort is a TCP port that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// A process is a program that runs until the test ends.
type process struct {
	exited chan struct{}
	mu     sync.Mutex
	output bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(b)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

func (w *world) process(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{exited: make(chan struct{})}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = w.dir, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = p, p
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // nginx and HAProxy have workers
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { cmd.Wait(); close(p.exited) }()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-p.exited
		if t.Failed() {
			said := p.said()
			t.Logf("%s said: %s", filepath.Base(name), said[max(0, len(said)-3000):])
		}
	})
	return p
}

// waitFor waits until a process is ready.
func waitFor(t *testing.T, what string, p *process, ready func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(20 * time.Millisecond); !ready(); {
		select {
		case <-tick.C:
		case <-p.exited:
			t.Fatalf("%s ended: %s", what, p.said())
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not there after %v: %s", what, patience, p.said())
		}
	}
}

// listening says whether somebody takes connections at the front proxy's port.
func (w *world) listening() bool {
	c, err := net.Dial("tcp", "127.0.0.1:"+w.port)
	return err == nil && c.Close() == nil
}

// A gate stands between the front proxy and authproxy.
type gate struct {
	listener net.Listener
	socket   string

	mu    sync.Mutex
	mode  string // "", stalled, failing
	conns map[net.Conn]bool
	asked bytes.Buffer // what came through
}

func newGate(t *testing.T, socket string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: l, socket: socket, conns: map[net.Conn]bool{}}
	t.Cleanup(func() { l.Close(); g.set("") })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go g.serve(c)
		}
	}()
	return g
}

// set changes how the gate treats connections, and ends those that there are.
func (g *gate) set(mode string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mode = mode
	for c := range g.conns {
		c.Close()
	}
	clear(g.conns)
}

func (g *gate) serve(c net.Conn) {
	defer c.Close()
	g.mu.Lock()
	mode := g.mode
	g.conns[c] = true
	g.mu.Unlock()
	switch mode {
	case "stalled":
		io.Copy(io.Discard, c)
		return
	case "failing":
		if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.Copy(io.Discard, r.Body)
			io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nX-Forwarded-User: ada\r\nConnection: close\r\n\r\n")
		}
		return
	}
	a, err := net.Dial("unix", g.socket)
	if err != nil {
		return
	}
	defer a.Close()
	go func() { io.Copy(a, io.TeeReader(c, g)); a.(*net.UnixConn).CloseWrite() }()
	io.Copy(c, a)
}

// Write notes what the front proxy sends.
func (g *gate) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked.Write(b)
}

func (g *gate) sawBody() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return bytes.Contains(g.asked.Bytes(), []byte(bodyMarker))
}

// An app remembers the request of each row, by the header X-Row.
type app struct {
	server *httptest.Server
	mu     sync.Mutex
	came   map[string]*http.Request
	bodies map[string]string
}

func newApp(t *testing.T) *app {
	a := &app{came: map[string]*http.Request{}, bodies: map[string]string{}}
	a.server = httptest.NewServer(a)
	t.Cleanup(a.server.Close)
	return a
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.came[r.Header.Get("X-Row")], a.bodies[r.Header.Get("X-Row")] = r, string(body)
	a.mu.Unlock()
	if r.Header.Get("Upgrade") == "" {
		io.WriteString(w, "the app")
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	io.CopyN(c, rw, 4)
}

func (a *app) request(row string) (*http.Request, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.came[row], a.bodies[row]
}

// signIn signs somebody in through the front proxy, and keeps the cookie.
func (w *world) signIn(t *testing.T, name, user string) {
	t.Helper()
	w.provider.Set(func(f *devprovider.Faults) { f.SignInAs = user })
	jar, _ := cookiejar.New(nil)
	c := &http.Client{Jar: jar, Timeout: patience}
	req, err := http.NewRequest("GET", w.url+"/page?of="+user, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	req.Header.Set("X-Row", "login of "+name)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if at := resp.Request.URL.String(); resp.StatusCode/100 == 5 || at != w.url+"/page?of="+user {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: the login of %s ends at %s with %s: %s", w.front.name, user, at, resp.Status, body)
	}
	for _, cookie := range jar.Cookies(req.URL) {
		if cookie.Name == "authproxy" {
			w.cookies[name] = cookie.Name + "=" + cookie.Value
		}
	}
	if w.cookies[name] == "" {
		t.Fatalf("%s: no cookie of %s", w.front.name, user)
	}
}

// expire makes the cookie of a session that has ended by itself.
func (w *world) expire(t *testing.T, name string) {
	t.Helper()
	sealer, err := session.NewSealer([][]byte{[]byte(sessionKey)})
	if err != nil {
		t.Fatal(err)
	}
	past := func() time.Time { return time.Now().Add(-30 * 24 * time.Hour) }
	kind := session.NewCookie("authproxy", "", false, http.SameSiteLaxMode)
	m := session.NewManager(session.NewCookieStore(sealer, kind, 7*24*time.Hour, past), kind, 24*time.Hour, 7*24*time.Hour)
	m.Now = past
	_, cookie, err := m.Begin(t.Context(), &session.Session{Identity: &identity.Identity{Issuer: w.provider.Issuer(), Subject: "ada"}})
	if err != nil {
		t.Fatal(err)
	}
	w.cookies[name] = cookie.Name + "=" + cookie.Value
}

// signOut ends the session of somebody through the front proxy, and keeps the cookie all the same.
func (w *world) signOut(t *testing.T, name string) {
	t.Helper()
	a := w.exchange(t, "logout of "+name, "POST", "/auth/logout", []string{"Cookie: " + w.cookies[name], "Origin: " + w.url, "Sec-Fetch-Site: same-origin", "Content-Length: 0"}, "")
	if a.StatusCode != http.StatusSeeOther {
		t.Fatalf("%s: signing out: %s", w.front.name, a.Status)
	}
}

// exchange sends a request as it is written here, and reads the answer. {URL} and {HOST} are those of the front proxy.
func (w *world) exchange(t *testing.T, row, method, target string, lines []string, body string) *http.Response {
	t.Helper()
	a, err := w.tryExchange(row, method, target, lines, body)
	if err != nil {
		t.Fatalf("%s: %s %s: %v", w.front.name, method, target, err)
	}
	return a
}

var errEnded = errors.New("the connection ended without an answer")

func (w *world) tryExchange(row, method, target string, lines []string, body string) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+w.port)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	version, host, connection := "HTTP/1.1", "Host: localhost:"+w.port, "Connection: close"
	var rest []string
	for _, line := range lines {
		name, _, _ := strings.Cut(line, ":")
		switch strings.ToLower(name) {
		case "host":
			host = line
		case "connection":
			connection = line
		case "version":
			version, host = "HTTP/1.0", ""
		default:
			rest = append(rest, line)
		}
	}
	head := []string{method + " " + target + " " + version}
	if host != "" {
		head = append(head, host)
	}
	head = append(head, "X-Row: "+row, connection)
	text := strings.NewReplacer("{URL}", w.url, "{HOST}", "localhost:"+w.port).Replace(strings.Join(append(head, rest...), "\r\n") + "\r\n\r\n" + body)
	if _, err := io.WriteString(c, text); err != nil {
		return nil, err
	}
	in := bufio.NewReader(c)
	a, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errEnded, err)
	}
	if a.StatusCode == http.StatusSwitchingProtocols {
		io.WriteString(c, "ping")
		got := make([]byte, 4)
		if _, err := io.ReadFull(in, got); err != nil || string(got) != "ping" {
			return nil, fmt.Errorf("the WebSocket says %q, %v", got, err)
		}
		return a, nil
	}
	text2, err := io.ReadAll(a.Body)
	a.Body = io.NopCloser(bytes.NewReader(text2))
	return a, err
}
