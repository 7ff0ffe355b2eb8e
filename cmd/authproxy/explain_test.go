package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExplainSaysWhereARequestLeads(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(`public_url: https://app.example.com
provider: {issuer: 'https://issuer.example.com', client_id: c, client_secret: s3cret}
session: {keys: [MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY]}
upstream: http://127.0.0.1:5000
routes:
  - {path: /socket, allow: anyone, upstream: unix:/run/app.sock}
  - {path: /admin, allow: [{groups: [admins]}]}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		args     []string
		status   int
		out, err string
	}{
		"a route of its own":      {[]string{"https://app.example.com/socket"}, exitOK, "upstream  unix:/run/app.sock\n", ""},
		"a path":                  {[]string{"-claims", `{"sub":"x"}`, "/elsewhere"}, exitOK, "upstream  http://127.0.0.1:5000\n", ""},
		"nobody":                  {[]string{"/admin"}, exitLogin, "login     ", ""},
		"somebody else":           {[]string{"-claims", `{"sub":"x"}`, "/admin"}, exitDenied, "denied    no entry of allow holds\n", ""},
		"an endpoint of ours":     {[]string{"/auth/login"}, exitOK, "allowed   an endpoint of authproxy itself\n", ""},
		"a URL without scheme":    {[]string{"app.example.com/admin"}, exitConfig, "", `explain: "app.example.com/admin" begins neither with http:// or https:// nor with /`},
		"no URL":                  {nil, exitConfig, "", "explain: there is no URL"},
		"claims that are gone":    {[]string{"-claims", "@" + filepath.Join(dir, "none"), "/admin"}, exitConfig, "", "none: no such file or directory\nhint: name a readable file"},
		"claims that are no JSON": {[]string{"-claims", "x", "/admin"}, exitConfig, "", "hint: give the claims of an ID token as a JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			status := run(&environment{t.Context(), nil, strings.NewReader(""), &out, &errs}, append([]string{"explain", "-config", file}, row.args...))
			if status != row.status || !strings.Contains(out.String(), row.out) || !strings.Contains(errs.String(), row.err) || (row.err == "") != (errs.Len() == 0) {
				t.Errorf("status %d\n%s%swant %d, %q, %q", status, out.String(), errs.String(), row.status, row.out, row.err)
			}
			if row.status != exitOK && strings.Contains(out.String(), "upstream") {
				t.Errorf("it leads somewhere without being allowed:\n%s", out.String())
			}
		})
	}
}
