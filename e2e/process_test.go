package e2e_test

import (
	"bytes"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take before a test gives up. It is long because machines that run tests are busy.
const patience = 20 * time.Second

// providerPages is what the URLs of providers begin with. The app is at localhost: to a browser that is another site.
const providerPages = "http://127.0.0.1:"

// eventually waits until ok says true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(20 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s has not happened within %v", what, patience)
		}
	}
}

// freePort is a TCP port of 127.0.0.1 that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// An output collects what a process writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// A process runs until its test ends.
type process struct {
	stdout, stderr output
	done           chan struct{} // closed when it has ended
	err            error         // how; to be read after done
}

// start runs a command. At the end of the test it is interrupted and must leave with status 0; what it has written is shown
// when the test has failed.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	name := filepath.Base(cmd.Path)
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		select {
		case <-p.done:
		case <-time.After(patience):
			cmd.Process.Signal(syscall.SIGKILL)
			<-p.done
			t.Errorf("%s did not end within %v of an interrupt", name, patience)
		}
		if p.err != nil {
			t.Errorf("%s: %v", name, p.err)
		}
		if t.Failed() {
			t.Logf("%s wrote:\n%s%s", name, p.stdout.String(), p.stderr.String())
		}
	})
	return p
}

// has waits until the process has written text to stdout.
func (p *process) has(t *testing.T, text string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q on stdout", text), func() bool {
		select {
		case <-p.done:
			t.Fatalf("the process has ended: %v\n%s%s", p.err, p.stdout.String(), p.stderr.String())
		default:
		}
		return strings.Contains(p.stdout.String(), text)
	})
}

// serve runs authproxy serve with a configuration, and waits until it answers at publicURL.
func serve(t *testing.T, publicURL, config string) *process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, exec.Command(program, "serve", "-config", file))
	client := &http.Client{Timeout: time.Second}
	eventually(t, "an answer of authproxy", func() bool {
		select {
		case <-p.done:
			t.Fatalf("authproxy has ended: %v\n%s", p.err, p.stderr.String())
		default:
		}
		res, err := client.Get(publicURL + "/auth/jwks.json")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return p
}

// An app is an upstream that shows and remembers what it receives.
type app struct {
	*httptest.Server

	mu   sync.Mutex
	seen []*http.Request // their bodies are not
}

func startApp(t *testing.T) *app {
	t.Helper()
	a := new(app)
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.seen = append(a.seen, r)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!doctype html><title>App</title><link rel=icon href=data:,><h1>The app</h1><p>%s for %s", html.EscapeString(r.URL.Path), html.EscapeString(r.Header.Get("X-Forwarded-User")))
	}))
	t.Cleanup(a.Close)
	return a
}

// last is the last request that came.
func (a *app) last(t *testing.T) *http.Request {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.seen) == 0 {
		t.Fatal("no request has come to the app")
	}
	return a.seen[len(a.seen)-1]
}

// A demo is a running authproxy demo.
type demo struct {
	url       string            // what its user opens
	passwords map[string]string // of the users that it prints
}

// startDemo runs authproxy demo and reads what it says to its user.
func startDemo(t *testing.T) *demo {
	t.Helper()
	port := freePort(t)
	p := start(t, exec.Command(program, "demo", "-listen", fmt.Sprintf("127.0.0.1:%d", port)))
	p.has(t, "Ctrl-C")
	d := &demo{passwords: map[string]string{}}
	for line := range strings.Lines(p.stdout.String()) {
		switch words := strings.Fields(line); {
		case len(words) == 2 && words[0] == "Open":
			d.url = words[1]
		case len(words) > 3 && words[0] == "user" && words[2] == "password":
			d.passwords[words[1]] = words[3]
		}
	}
	if want := fmt.Sprintf("http://localhost:%d", port); d.url != want || d.passwords["ada"] == "" || d.passwords["bob"] == "" {
		t.Fatalf("the demo says to open %q, want %q, and names the users %v, want ada and bob among them:\n%s", d.url, want, d.passwords, p.stdout.String())
	}
	t.Cleanup(func() { // runs before the process is ended
		if log := p.stderr.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, `"level":"ERROR"`) {
			t.Errorf("the demo logged errors:\n%s", log)
		}
	})
	return d
}
