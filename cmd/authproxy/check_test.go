package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckSaysWhatAConfigurationComesTo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(`public_url: http://localhost:8080
provider: {domain: acme.eu.auth0.com, client_id: c, client_secret: s3cret}
session: {keys: [MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY], store: file, idle_timeout: 90m}
upstream: http://127.0.0.1:5000
routes:
  - {path: /static, allow: anyone}
  - {path: /admin, allow: [{groups: [admins, staff]}], upstream: unix:/run/app.sock}
  - {path: /reports, methods: [GET], allow: [{email_domains: [example.com]}, {claims: {department: [finance, audit]}, emails: [ada@example.org], unverified_email: true}]}
  - {path: /transfer, exact: true, allow: signed_in}
identity: {claims: [department]}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	status := run(&environment{t.Context(), nil, strings.NewReader(""), &out, &errs}, []string{"check", "-config", file})
	if status != exitOK || errs.Len() > 0 {
		t.Errorf("status %d, %s", status, errs.String())
	}
	for _, line := range []string{
		"sessions           file store, idle 90m, at most 7d",
		"routes[0]          /static: anyone, without signing in",
		"routes[1]          /admin: signed-in users with groups admins or staff, to unix:/run/app.sock",
		"routes[2]          /reports GET: signed-in users with email_domains example.com, or emails ada@example.org and claims department=finance or department=audit (verified or not)",
		"routes[3]          /transfer (exactly): signed-in users",
		"Back-Channel Logout URI  http://localhost:8080/auth/backchannel-logout (Auth0 takes public https addresses only; leave it empty while you develop)",
	} {
		if !strings.Contains(out.String(), "  "+line+"\n") {
			t.Errorf("there is no line %s in\n%s", line, out.String())
		}
	}
}

func TestTheVersionIsAFlagAsWell(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"-version"}, {"--version"}} {
		var out, errs bytes.Buffer
		status := run(&environment{t.Context(), nil, strings.NewReader(""), &out, &errs}, args)
		if status != exitOK || !strings.HasPrefix(out.String(), "authproxy ") || !strings.Contains(out.String(), ", commit ") {
			t.Errorf("%q: status %d\n%s%s", args, status, out.String(), errs.String())
		}
	}
}

func TestEachCommandSaysWhatItTakes(t *testing.T) {
	for _, c := range commands() {
		var out, errs bytes.Buffer
		status := run(&environment{t.Context(), nil, strings.NewReader(""), &out, &errs}, []string{c.name, "-help"})
		if want := "authproxy " + strings.TrimSpace(c.name+" "+c.args) + ": " + c.does + "\n"; status != exitOK || !strings.HasPrefix(out.String(), want) {
			t.Errorf("%s -help: status %d\n%s%swant %s", c.name, status, out.String(), errs.String(), want)
		}
	}
}
