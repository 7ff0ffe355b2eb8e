package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// A screen takes what a command prints, and says when it has printed a text.
type screen struct {
	mu    sync.Mutex
	text  bytes.Buffer
	until string
	seen  chan struct{}
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := strings.Contains(s.text.String(), s.until)
	s.text.Write(b)
	if !had && strings.Contains(s.text.String(), s.until) {
		close(s.seen)
	}
	return len(b), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func TestTheDemoSaysWhichAddressItTakes(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:0":      `"0" is not a port`,
		"127.0.0.1:":       `"" is not a port`,
		"127.0.0.1:http":   `"http" is not a port`,
		"0.0.0.0:4180":     `"0.0.0.0" is not a loopback address`,
		"127.0.0.1":        "missing port",
		"[::1]:0":          `"0" is not a port`,
		"app.example:4180": `"app.example" is not a loopback address`,
	} {
		var out, errs bytes.Buffer
		status := run(&environment{t.Context(), nil, strings.NewReader(""), &out, &errs}, []string{"demo", "-listen", address})
		if got := errs.String(); status != exitConfig || !strings.HasPrefix(got, "authproxy: demo: -listen: ") || !strings.Contains(got, want) ||
			!strings.Contains(got, "\nhint: name an address such as 127.0.0.1:4180\n") {
			t.Errorf("-listen %s: status %d\n%s\nwant %s with a hint", address, status, got, want)
		}
	}
}

func TestTheDemoSaysThatItsPortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var out, errs bytes.Buffer
	status := run(&environment{t.Context(), nil, strings.NewReader(""), &out, &errs}, []string{"demo", "-listen", l.Addr().String()})
	want := "authproxy: demo: -listen: " + l.Addr().String() + ": address already in use by another program\nhint: authproxy demo -listen 127.0.0.1:4181\n"
	if status != exitError || errs.String() != want {
		t.Errorf("status %d, %q, want %d, %q", status, errs.String(), exitError, want)
	}
}

func TestTheDemoListensOnIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("this machine has no IPv6: %v", err) // test.sh counts it
	}
	address := l.Addr().String()
	l.Close()
	out, stop, ended := &screen{until: "Ctrl-C", seen: make(chan struct{})}, make(chan os.Signal, 1), make(chan int, 1)
	go func() {
		ended <- run(&environment{t.Context(), stop, strings.NewReader(""), out, out}, []string{"demo", "-listen", address})
	}()
	select {
	case <-out.seen:
		stop <- os.Interrupt
	case status := <-ended:
		t.Fatalf("the demo ended with status %d:\n%s", status, out.String())
	}
	if status := <-ended; status != exitOK || !strings.Contains(out.String(), "http://"+address) {
		t.Errorf("status %d:\n%s", status, out.String())
	}
}

// The first README command, as a new user goes through it: open the URL, sign in as ada, see the app, sign out.
func TestTheDemoSignsInAndOut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	out, ctx := &screen{until: "Ctrl-C", seen: make(chan struct{})}, t.Context()
	stop := make(chan os.Signal, 1)
	ended := make(chan int, 1)
	go func() {
		ended <- run(&environment{ctx, stop, strings.NewReader(""), out, out}, []string{"demo", "-listen", address})
	}()
	select {
	case <-out.seen:
	case status := <-ended:
		t.Fatalf("the demo ended with status %d:\n%s", status, out.String())
	}
	find := func(pattern, in string) string {
		t.Helper()
		m := regexp.MustCompile(pattern).FindStringSubmatch(in)
		if m == nil {
			t.Fatalf("no %s in:\n%s", pattern, in)
		}
		return m[1]
	}
	password := find(`user ada +password (\S+)`, out.String())
	home := find(`(http://localhost:\d+)`, out.String())

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	var dialer net.Dialer
	browser := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, strings.Replace(to, "localhost", "127.0.0.1", 1))
	}}}
	open := func(method, to string, form url.Values) (page string, at *url.URL) {
		t.Helper()
		req, err := http.NewRequest(method, to, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/html")
		req.Header.Set("Sec-Fetch-Mode", "navigate")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		if method == http.MethodPost {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		resp, err := browser.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %d, %v:\n%s\n%s", method, to, resp.StatusCode, err, body, out.String())
		}
		return string(body), resp.Request.URL
	}
	login, at := open(http.MethodGet, home+"/reports?x=1", nil)
	app, at := open(http.MethodPost, at.String(), url.Values{"csrf": {find(`name="csrf"[^>]* value="([^"]+)"`, login)}, "state": {at.Query().Get("state")},
		"username": {"ada"}, "password": {password}})
	if at.String() != home+"/reports?x=1" || !strings.Contains(app, "Ada Lovelace") || !strings.Contains(app, "verified") {
		t.Errorf("signed in, the browser is at %s:\n%s", at, app)
	}
	if page, _ := open(http.MethodGet, home+"/auth/", nil); !strings.Contains(page, "Hello, Ada Lovelace") {
		t.Errorf("the proxy's home page:\n%s", page)
	}
	page, at := open(http.MethodPost, home+"/auth/logout", url.Values{})
	if at.String() != home+"/auth/" || strings.Contains(page, "Ada Lovelace") || !strings.Contains(page, "/auth/login") {
		t.Errorf("signed out, the browser is at %s:\n%s", at, page)
	}
	stop <- os.Interrupt
	if status := <-ended; status != exitOK {
		t.Errorf("after Ctrl-C the status is %d:\n%s", status, out.String())
	}
}
