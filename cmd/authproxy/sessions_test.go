package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runCommand runs the program with arguments.
func runCommand(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, problems bytes.Buffer
	status = run(&environment{ctx: t.Context(), stdin: strings.NewReader(""), stdout: &out, stderr: &problems}, args)
	return status, out.String(), problems.String()
}

func TestSessionsFromTheCommandLine(t *testing.T) {
	for name, set := range map[string]settings{"TCP": {}, "TCP with a token": {token: "a-token-for-the-admin"}, "a unix socket": {unix: true}} {
		t.Run(name, func(t *testing.T) {
			w := start(t, set)
			one, two, other := w.signIn("ada"), w.signIn("ada"), w.signIn("bob")
			sessions := func(args ...string) string {
				t.Helper()
				status, out, problems := runCommand(t, append([]string{"sessions", args[0], "-config", w.file}, args[1:]...)...)
				if status != exitOK || problems != "" {
					t.Fatalf("sessions %q: status %d, stderr %s", args, status, problems)
				}
				return out
			}
			lines := func(text string) int { return strings.Count(text, "\n") }

			all := sessions("list")
			if lines(all) != 4 || !strings.HasPrefix(all, "ID ") || !strings.Contains(all, ada) || !strings.Contains(all, bob) || !strings.Contains(all, "127.0.0.1") {
				t.Errorf("list:\n%s", all)
			}
			if out := sessions("list", "-all"); out != all {
				t.Errorf("list -all:\n%s\nwant\n%s", out, all)
			}
			of := sessions("list", "-subject", ada)
			if lines(of) != 3 || strings.Contains(of, bob) {
				t.Errorf("list -subject:\n%s", of)
			}
			id, _, _ := strings.Cut(strings.Split(of, "\n")[1], " ")
			if out := sessions("list", "-id", id); lines(out) != 2 || !strings.Contains(out, id) {
				t.Errorf("list -id:\n%s", out)
			}
			if out := sessions("revoke", "-subject", "nobody"); out != "there was no such session\n" {
				t.Errorf("revoke -subject nobody: %q", out)
			}
			sessions("revoke", "-id", id)
			if !one.signedIn() || two.signedIn() {
				t.Error("revoke -id of the latest session did not end that one and no other")
			}
			if out := sessions("revoke", "-subject", ada); out != "revoked 1 session\n" {
				t.Errorf("revoke -subject: %q", out)
			}
			if one.signedIn() || !other.signedIn() {
				t.Error("revoke -subject did not end hers and no others")
			}
			sessions("revoke", "-all")
			if other.signedIn() {
				t.Error("revoke -all left a session")
			}
			if out := sessions("list"); out != "no sessions\n" {
				t.Errorf("list of none: %q", out)
			}
		})
	}
}

func TestRevokingSaysWhatItRevokes(t *testing.T) {
	w := start(t, settings{})
	v := w.signIn("ada")
	for _, args := range [][]string{
		{"sessions"}, {"sessions", "end"}, {"sessions", "-all"}, {"sessions", "revoke"}, {"sessions", "revoke", "-subject", ""}, {"sessions", "revoke", "-id", ""},
		{"sessions", "revoke", "-all=false"}, {"sessions", "revoke", "-all", "-subject", "x"}, {"sessions", "revoke", "-id", "x", "-subject", "x"},
		{"sessions", "revoke", "-all", "x"}, {"sessions", "list", "-subject", ""}, {"sessions", "revoke", "-user", "x"},
	} {
		status, out, problems := runCommand(t, append(args[:len(args):len(args)], "-config", w.file)...)
		if status != exitConfig || out != "" || !strings.Contains(problems, "hint: ") {
			t.Errorf("%q: status %d, stdout %q, stderr %q", args, status, out, problems)
		}
	}
	if !v.signedIn() {
		t.Error("the session has ended")
	}
}

func TestSessionsSaysWhyItCannot(t *testing.T) {
	change := func(w *world, from, to string) {
		t.Helper()
		text, err := os.ReadFile(w.file)
		if err != nil || !strings.Contains(string(text), from) {
			t.Fatalf("%q is not in the configuration: %v", from, err)
		}
		if err := os.WriteFile(w.file, []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		set    settings
		change func(w *world)
		args   []string
		want   []string
	}{
		"the program is not running": {change: func(w *world) {
			l := listenOn(t, "tcp", "127.0.0.1:0")
			l.Close()
			change(w, w.server.now().cfg.Admin.Listen.Address, l.Addr().String())
		}, want: []string{"does not answer", "hint: is authproxy running"}},
		"its socket is not there": {set: settings{unix: true}, change: func(w *world) {
			change(w, w.server.now().cfg.Admin.Listen.Address, filepath.Join(t.TempDir(), "none"))
		}, want: []string{"does not answer", "hint: is authproxy running"}},
		"the admin listener is off": {change: func(w *world) { change(w, `"`+w.server.now().cfg.Admin.Listen.Address+`"`, `""`) },
			want: []string{"is off", "hint: set admin.listen"}},
		"another token": {set: settings{token: "a-token-for-the-admin"}, change: func(w *world) { change(w, "a-token-for-the-admin", "another-token-for-it") },
			want: []string{"admin.token", "hint: the proxy runs with another admin.token"}},
		"the cookie store": {set: settings{store: "cookie"}, want: []string{"keeps no list", "hint: session.store: file or redis"}},
		"no such session":  {args: []string{"revoke", "-id", "x"}, want: []string{"no such session", "hint: authproxy sessions list"}},
		"the store is down": {change: func(w *world) { w.server.now().sessions.Close() },
			want: []string{"the session store cannot be reached", "hint: its log says why"}},
		"somebody else answers there": {change: func(w *world) {
			s := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(s.Close)
			change(w, w.server.now().cfg.Admin.Listen.Address, s.Listener.Addr().String())
		}, want: []string{"is not an authproxy", "hint: "}},
		"somebody else sends us elsewhere": {set: settings{token: "a-token-for-the-admin"}, change: func(w *world) {
			thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				t.Errorf("the token went on: %v", r.Header["Authorization"])
			}))
			t.Cleanup(thief.Close)
			s := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
			t.Cleanup(s.Close)
			change(w, w.server.now().cfg.Admin.Listen.Address, s.Listener.Addr().String())
		}, want: []string{"is not an authproxy"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, test.set)
			if test.change != nil {
				test.change(w)
			}
			args := test.args
			if args == nil {
				args = []string{"list"}
			}
			status, out, problems := runCommand(t, append(append([]string{"sessions"}, args...), "-config", w.file)...)
			if status != exitError || out != "" {
				t.Errorf("status %d, want %d; stdout %q", status, exitError, out)
			}
			for _, text := range test.want {
				if !strings.Contains(problems, text) {
					t.Errorf("stderr lacks %q: %s", text, problems)
				}
			}
			if test.set.token != "" && strings.Contains(problems, "another-token-for-it") {
				t.Errorf("stderr has the token: %s", problems)
			}
		})
	}
}

func TestAnUnspecifiedAddressIsDialledHere(t *testing.T) {
	for listens, want := range map[string]string{
		":9090": "localhost:9090", "0.0.0.0:9090": "localhost:9090", "[::]:9090": "localhost:9090",
		"127.0.0.1:9090": "127.0.0.1:9090", "10.0.0.1:9090": "10.0.0.1:9090", "admin.example:9090": "admin.example:9090",
	} {
		if got := reachable(listens); got != want {
			t.Errorf("reachable(%q) = %q, want %q", listens, got, want)
		}
	}
}

// A User-Agent is whatever a client sends, and operators look at it in a terminal.
func TestTheTableObeysNoUserAgent(t *testing.T) {
	var out bytes.Buffer
	err := printSessions(&out, []byte(`[{"id":"x","subject":"a\tb","agent":"\u001b[2J\u009b31m\u202e\nevil"}]`), false)
	if err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.ContainsAny(text, "\x1b\u009b\u202e\t") || strings.Count(text, "\n") != 2 || !strings.Contains(text, "evil") {
		t.Errorf("table %q", text)
	}
}
