package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"authproxy/config"
	"authproxy/devprovider"
)

// A world is a proxy with its admin listener between a development provider and an upstream that answers 200.
type world struct {
	t        *testing.T
	provider *devprovider.Server
	server   *server
	url      string // of the proxy
	file     string // its configuration
	serving  sync.WaitGroup
}

// settle waits until the proxy is done with what it has answered: a client may have the answer before that.
func (w *world) settle() { w.serving.Wait() }

// settings are what a test has to say about its world.
type settings struct {
	store   string // "" means file
	token   string // admin.token
	unix    bool   // the admin listener is a unix socket
	more    string // further keys of the configuration
	watch   observers
	prepare func(*server) // before it serves
}

func start(t *testing.T, set settings) *world {
	t.Helper()
	dir := t.TempDir()
	public, admin := listenOn(t, "tcp", "127.0.0.1:0"), net.Listener(nil)
	adminAt := "unix:" + filepath.Join(dir, "admin")
	if set.unix {
		admin = listenOn(t, "unix", filepath.Join(dir, "admin"))
	} else {
		admin = listenOn(t, "tcp", "127.0.0.1:0")
		adminAt = admin.Addr().String()
	}
	if set.store == "" {
		set.store = "file"
	}
	_, port, _ := net.SplitHostPort(public.Addr().String())
	w := &world{t: t, url: "http://localhost:" + port, file: filepath.Join(dir, "config.yaml")}
	provider, err := devprovider.Start(devprovider.Options{Users: devprovider.DemoUsers(), Clients: []devprovider.Client{{ID: "client", Secret: "a secret",
		Callbacks: []string{w.url + "/auth/callback"}, BackchannelURL: w.url + "/auth/backchannel-logout"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(provider.Close)
	w.provider = provider
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the app") }))
	t.Cleanup(upstream.Close)
	text := fmt.Sprintf(`
public_url: %s
admin: {listen: %q, token: %q}
provider: {issuer: %q, client_id: client, client_secret: a secret, scopes: [openid, profile, email, offline_access]}
session: {keys: [MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY], store: %s, file: {path: %q}}
upstream: %s
%s`, w.url, adminAt, set.token, provider.Issuer(), set.store, filepath.Join(dir, "sessions.db"), upstream.URL, set.more)
	if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(w.file, nil)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	a, err := buildObserved(cfg, log, openConfiguredStore, set.watch, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.sessions.Close() })
	w.server = &server{log: log}
	w.server.current.Store(a)
	w.server.ready.Store(true)
	if set.prepare != nil {
		set.prepare(w.server)
	}
	served := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.serving.Add(1)
		defer w.serving.Done()
		a.proxy.ServeHTTP(rw, r)
	})
	for l, h := range map[net.Listener]http.Handler{public: served, admin: w.server.adminHandler()} {
		s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
		s.Start()
		t.Cleanup(s.Close)
	}
	return w
}

func listenOn(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A visitor is a browser that follows redirects.
type visitor struct {
	w    *world
	http *http.Client
}

func (w *world) visitor() *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &visitor{w, &http.Client{Jar: jar}}
}

// signIn returns a browser in which that user of the provider has signed in.
func (w *world) signIn(user string) *visitor {
	w.t.Helper()
	w.provider.Set(func(f *devprovider.Faults) { f.SignInAs = user })
	v := w.visitor()
	if status := v.open("/"); status != http.StatusOK {
		w.t.Fatalf("signing in as %s: status %d", user, status)
	}
	return v
}

// open is a navigation to a path of the proxy. It returns the status in the end.
func (v *visitor) open(path string) int {
	return v.get(path, "text/html")
}

// signedIn says whether the session is alive.
func (v *visitor) signedIn() bool {
	v.w.t.Helper()
	status := v.get("/auth/me", "application/json")
	if status != http.StatusOK && status != http.StatusUnauthorized {
		v.w.t.Fatalf("GET /auth/me: status %d", status)
	}
	return status == http.StatusOK
}

func (v *visitor) get(path, accept string) int {
	v.w.t.Helper()
	req, err := http.NewRequest("GET", v.w.url+path, nil)
	if err != nil {
		v.w.t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := v.http.Do(req)
	if err != nil {
		v.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// cookies are the values of the browser's cookies for the proxy.
func (v *visitor) cookies() (values []string) {
	req, _ := http.NewRequest("GET", v.w.url, nil)
	for _, c := range v.http.Jar.Cookies(req.URL) {
		values = append(values, c.Value)
	}
	return values
}

// An adminAnswer is what the admin listener said.
type adminAnswer struct {
	status int
	header http.Header
	body   string
}

// admin asks the admin listener, with headers given as name and value in turn. Host is one of them.
func (w *world) admin(method, path string, headers ...string) adminAnswer {
	w.t.Helper()
	at := w.server.now().cfg.Admin.Listen
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, at.Network, at.Address)
	}}}
	req, err := http.NewRequest(method, "http://127.0.0.1"+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return adminAnswer{resp.StatusCode, resp.Header, string(body)}
}

// want fails the test unless the answer has that status and each text in it.
func (a adminAnswer) want(t *testing.T, status int, texts ...string) adminAnswer {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d; body %s", a.status, status, a.body)
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			t.Errorf("the body lacks %q: %s", text, a.body)
		}
	}
	return a
}
