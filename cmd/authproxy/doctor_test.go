package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"authproxy/devprovider"
)

// examined is what doctor says about a world's configuration after edits, pairs of old and new text. Without one the file of its
// sessions is another than the world's, which is in use.
func examined(t *testing.T, w *world, edits ...string) (status int, out string) {
	t.Helper()
	text, err := os.ReadFile(w.file)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(strings.NewReplacer(append(edits, "sessions.db", "unused.db")...).Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, problems := runCommand(t, "doctor", "-config", file)
	if problems != "" {
		t.Errorf("stderr: %s", problems)
	}
	for _, secret := range []string{"a secret", "another secret", "MDEyMzQ1"} {
		if strings.Contains(out, secret) {
			t.Errorf("it prints %q:\n%s", secret, out)
		}
	}
	return status, out
}

var hostPort = regexp.MustCompile(`(127\.0\.0\.1|localhost):\d+`)

func TestDoctorFindsNothingWrong(t *testing.T) {
	w := start(t, settings{store: "cookie"})
	status, out := examined(t, w, ", file: {path", "} # {path")
	const want = `ok    provider   http://HOST/ answers and is the issuer
ok    keys       2 keys for RS256
ok    clock      the provider's clock is that of this machine, to 1s
ok    client     the provider takes the client's credentials
ok    callback   the provider sends users back to http://HOST/auth/callback
ok    sessions   in cookies: there is nothing to reach
ok    upstream   http://HOST answers (GET /: 200)
ok    forgery    http://HOST is reached from this machine only, and did not visibly believe forged identity headers
`
	if got := hostPort.ReplaceAllString(out, "HOST"); got != want || status != exitOK {
		t.Errorf("status %d:\n%swant\n%s", status, got, want)
	}
	if n := w.provider.Count("token"); n != 1 {
		t.Errorf("%d requests for tokens, want the one with a code that is none", n)
	}
}

func TestDoctorFindsWhatIsWrong(t *testing.T) {
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "Hello "+r.Header.Get("X-Forwarded-User"))
	}))
	t.Cleanup(echo.Close) // after the parallel tests
	trusting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Remote-User") == "" {
			http.Redirect(w, r, "/login", http.StatusFound)
		}
	}))
	t.Cleanup(trusting.Close)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "who are you?", http.StatusUnauthorized) }))
	t.Cleanup(refusing.Close)
	const nowhere = "127.0.0.1:1"
	upstream := regexp.MustCompile(`(?m)^upstream: .*$`)
	for _, row := range []struct {
		name   string
		faults func(*devprovider.Faults)
		edits  []string
		app    string // instead of the world's
		status int
		says   []string // beginnings of lines, and hints
	}{
		{name: "the provider is down", faults: func(f *devprovider.Faults) { f.Down = true }, status: exitError,
			says: []string{"fail  provider   discovery: ", "hint: check provider.domain or provider.issuer", "warn  keys       not checked", "ok    sessions"}},
		{name: "the provider is another", faults: func(f *devprovider.Faults) {
			f.Discovery = func(document map[string]any) { document["issuer"] = "https://other.test/" }
		}, status: exitError,
			says: []string{"fail  provider   the discovery document is of issuer \"https://other.test/\"", "hint: set provider.issuer"}},
		{name: "the issuer is something else", edits: []string{"issuer: \"http://127.0.0.1", "issuer: \"http://localhost"}, status: exitError,
			says: []string{"fail  provider   discovery: the provider is unavailable: GET http://localhost:", "status 421\n", "hint: is provider.issuer (or provider.domain) exactly"}},
		{name: "no keys", faults: func(f *devprovider.Faults) { f.Fail = map[string]int{"jwks": 500} }, status: exitError,
			says: []string{"ok    provider", "fail  keys       keys: the provider is unavailable: status 500", "ok    client", "ok    callback"}},
		{name: "no fit keys", edits: []string{"provider: {", "provider: {id_token_alg: EdDSA, "}, status: exitError,
			says: []string{"warn  provider   the provider does not offer to sign ID tokens with provider.id_token_alg", "fail  keys       the provider publishes none for EdDSA"}},
		{name: "a clock ahead", faults: func(f *devprovider.Faults) { f.Clock = 10*time.Minute + 30*time.Second }, status: exitError,
			says: []string{"fail  clock      the provider's clock is ahead of this machine's by 10m", "hint: let NTP"}},
		{name: "a clock that is slow", faults: func(f *devprovider.Faults) { f.Clock = -45 * time.Second }, status: exitOK,
			says: []string{"warn  clock      the provider's clock is behind this machine's by 4"}},
		{name: "a wrong secret", edits: []string{"client_secret: a secret", "client_secret: another secret"}, status: exitError,
			says: []string{"fail  client     token: the provider answered 401 access_denied", "hint: check client_secret", "ok    callback"}},
		{name: "a token endpoint with something else to complain of", faults: func(f *devprovider.Faults) { f.TokenError = devprovider.Error{Status: 400, Code: "invalid_request"} },
			says: []string{"warn  client     cannot be told: token_refused: token: the provider answered 400 invalid_request", "hint: sign in once to be sure"}},
		{name: "a callback that is not registered", edits: []string{"public_url:", "prefix: /elsewhere\npublic_url:"}, status: exitError,
			says: []string{"fail  callback   authorize: the provider shows an error page (status 4", "instead of sending browsers back to http://localhost:", "/elsewhere/callback", "hint: check provider.client_id"}},
		{name: "an unknown client", edits: []string{"client_id: client", "client_id: nobody"}, status: exitError,
			says: []string{"fail  client", "fail  callback"}},
		{name: "a login page that shows itself anyway", faults: func(f *devprovider.Faults) { f.Raw = map[string]string{"authorize": "<form>"} },
			says: []string{"warn  callback   cannot be told: elsewhere: authorize: the provider shows a page (status 200)"}},
		{name: "a refused scope", faults: func(f *devprovider.Faults) { f.Deny = "invalid_scope" }, status: exitError,
			says: []string{"fail  callback   authorization response: error \"invalid_scope\"", "hint: check provider.scopes"}},
		{name: "Redis is down", edits: []string{"store: file,", "store: redis, redis: {url: 'redis://" + nowhere + "'}} #"}, status: exitError,
			says: []string{"fail  sessions   no connection to Redis yet: ", "hint: see that Redis runs"}},
		{name: "no directory for sessions", edits: []string{"sessions.db", "missing/sessions.db"}, status: exitError,
			says: []string{"fail  sessions   ", "cannot be made: its directory is not there", "hint: make the directory"}},
		{name: "a file that is none of ours", edits: []string{"sessions.db", "config.yaml"}, status: exitError,
			says: []string{"fail  sessions   ", "is not a session database of authproxy", "hint: name another file"}},
		{name: "the app is down", app: "http://" + nowhere, status: exitError, says: []string{"fail  upstream   http://127.0.0.1:1 does not answer: ", "hint: start the app"}},
		{name: "an app that shows whoever it is told", app: echo.URL, says: []string{"warn  forgery    http://127.0.0.1:", "believes identity headers without the assertion", "hint: only this machine reaches it"}},
		{name: "an app that lets in whoever it is told", app: trusting.URL, says: []string{"ok    upstream   http://127.0.0.1:", "(GET /: 302)", "warn  forgery    http://127.0.0.1:", "believes identity headers"}},
		{name: "an app that refuses nobody and everybody", app: refusing.URL, says: []string{"(GET /: 401)", "ok    forgery    http://127.0.0.1:"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, settings{})
			if row.faults != nil {
				w.provider.Set(row.faults)
			}
			if row.app != "" {
				text, err := os.ReadFile(w.file)
				if err != nil {
					t.Fatal(err)
				}
				row.edits = []string{upstream.FindString(string(text)), "upstream: " + row.app}
			}
			status, out := examined(t, w, row.edits...)
			if status != row.status || (status == exitError) != strings.Contains(out, "fail  ") {
				t.Errorf("status %d, want %d:\n%s", status, row.status, out)
			}
			for _, says := range row.says {
				if !strings.Contains(out, says) {
					t.Errorf("it does not say %q:\n%s", says, out)
				}
			}
		})
	}
}

func TestDoctorFindsAnAppThatOthersReach(t *testing.T) {
	reached := false
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			reached = true // this machine has an address that others know
		}
	}
	app := &httptest.Server{Listener: listenOn(t, "tcp", ":0"), Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("Remote-User"))
	})}}
	app.Start()
	defer app.Close()
	_, port, _ := net.SplitHostPort(app.Listener.Addr().String())
	w := start(t, settings{more: "routes: [{path: /api, allow: signed_in, upstream: 'http://127.0.0.1:" + port + "'}]"})
	status, out := examined(t, w)
	if got := strings.Contains(out, "fail  forgery    http://127.0.0.1:"+port+" believes identity headers without the assertion, and is reached at ") && status == exitError; got != reached {
		t.Errorf("others reach the app: %v; status %d:\n%s", reached, status, out)
	}
	if !strings.Contains(out, "(GET /api: 200)") || strings.Count(out, "upstream") != 2 {
		t.Errorf("it does not look at both apps:\n%s", out)
	}
}

func TestDoctorMakesNoFile(t *testing.T) {
	w := start(t, settings{})
	status, out := examined(t, w, "sessions.db", "other.db")
	if status != exitOK || !strings.Contains(out, "other.db will be made at the start") {
		t.Errorf("status %d:\n%s", status, out)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(w.file), "other.db")); err == nil {
		t.Error("the file was made")
	}
	if status, out := examined(t, w, "sessions.db", "sessions.db"); status != exitOK || !strings.Contains(out, "sessions.db is in use by another process: authproxy, if it runs") {
		t.Errorf("status %d:\n%s", status, out)
	}
}

func TestDoctorWantsASoundConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("uptream: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out, problems := runCommand(t, "doctor", "-config", file); status != exitConfig || out != "" || !strings.Contains(problems, "write upstream") {
		t.Errorf("status %d, %s%s", status, out, problems)
	}
}
