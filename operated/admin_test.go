package operated_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// Metrics and readiness tell the truth about a store that is down, and admin.token guards the sessions.
func TestTheAdminListenerTellsTheTruth(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	w := newWorld(t, settings{token: "a token for operators", session: fmt.Sprintf("store: redis, redis: {url: %q}", redis.url()),
		more: "routes:\n  - {path: /open, allow: anyone}"})
	r := w.replica()
	c := w.client(r.addr)
	cookies := []string{w.signIn("ada", r.addr), w.signIn("ben", r.addr)}

	// A store that is down: not ready, but alive, and counted.
	const failures, refused = `authproxy_store_errors_total{operation="load"}`, `authproxy_requests_total{decision="deny",route="default",status="5xx"}`
	if a := r.ask("GET", "/readyz"); a.status != http.StatusOK || strings.TrimSpace(a.body) != "ok" {
		t.Errorf("/readyz says %s", a)
	}
	if n := r.metric(failures); n != 0 {
		t.Errorf("%s is %v before anything failed", failures, n)
	}
	redis.kill()
	eventually(t, "it is not ready", func() bool { return r.ready() == http.StatusServiceUnavailable })
	eventually(t, "a session is refused", func() bool { return c.get("/", cookies[0]).status == http.StatusServiceUnavailable })
	if a := r.ask("GET", "/readyz"); !strings.Contains(a.body, "session store") || strings.Contains(a.body, redis.port) {
		t.Errorf("/readyz says %s", a)
	}
	if a := r.ask("GET", "/healthz"); a.status != http.StatusOK {
		t.Errorf("/healthz says %s", a)
	}
	if a := c.get("/open", ""); a.status != http.StatusOK {
		t.Errorf("what needs no session is answered %s", a)
	}
	eventually(t, "failures and refusals are counted", func() bool { return r.metric(failures) > 0 && r.metric(refused) > 0 })
	if out, err := exec.Command(program, "sessions", "list", "-config", r.file).CombinedOutput(); err == nil || !strings.Contains(string(out), "session store") {
		t.Errorf("authproxy sessions list says %v: %s", err, out)
	}
	redis.start()
	eventually(t, "it is ready", func() bool { return r.ready() == http.StatusOK })

	// The provider being down is no reason to send requests elsewhere.
	w.provider.Close()
	if a := r.ask("GET", "/readyz"); a.status != http.StatusOK {
		t.Errorf("without the provider /readyz says %s", a)
	}

	// Sessions need the token, everything else does not.
	for _, request := range []string{"GET /sessions", "DELETE /sessions?all=true", "DELETE /sessions?subject=auth0|ada"} {
		method, path, _ := strings.Cut(request, " ")
		for name, header := range map[string]string{"no token": "", "another token": "Bearer another token for it", "a part of it": "Bearer a token", "another scheme": "Basic a token for operators"} {
			req, err := http.NewRequest(method, "http://"+r.admin+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", header)
			if a := roundTrip(operators, req); a.status != http.StatusUnauthorized || strings.Contains(a.body, "auth0|") {
				t.Errorf("%s with %s is answered %s", request, name, a)
			}
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/jwks.json"} {
		req, err := http.NewRequest("GET", "http://"+r.admin+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a := roundTrip(operators, req); a.status != http.StatusOK {
			t.Errorf("%s without the token is answered %s", path, a)
		}
	}
	sessions := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(program, append([]string{"sessions", args[0], "-config", r.file}, args[1:]...)...).CombinedOutput()
		if err != nil {
			t.Errorf("authproxy sessions %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	if out := sessions("list"); !strings.Contains(out, "auth0|ada") || !strings.Contains(out, "auth0|ben") {
		t.Errorf("authproxy sessions list says:\n%s", out)
	}
	sessions("revoke", "-subject", "auth0|ada")
	eventually(t, "her session has ended", func() bool { return !w.alive(c, cookies[0]) })
	if !w.alive(c, cookies[1]) {
		t.Error("another user's session has ended")
	}
}
