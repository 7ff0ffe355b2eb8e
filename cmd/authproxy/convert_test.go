package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConvertPrintsWhatCheckAccepts(t *testing.T) {
	dir := t.TempDir()
	options := filepath.Join(dir, "oauth2-proxy.cfg")
	if err := os.WriteFile(options, []byte("oidc_issuer_url = 'https://a.test/'\nclient_id = 'app'\nredirect_url = 'https://app.test/oauth2/callback'\n"+
		"upstreams = ['http://127.0.0.1:5000/']\nemail_domains = '*'\nhtpasswd_file = \"/etc/x\\u000dforged\"\nfooter = '-'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, text, remarks := runCommand(t, "convert", "oauth2-proxy", options)
	if status != exitOK || !strings.HasPrefix(text, "# The options of ") || !strings.Contains(text, "\npublic_url: https://app.test\n") {
		t.Errorf("status %d:\n%s", status, text)
	}
	for _, want := range []string{
		"authproxy: " + options + ":6: htpasswd_file: has no equivalent: users sign in at the provider\nhint: give those users accounts there",
		"authproxy: " + options + ":7: footer: has no equivalent: the pages are those of authproxy\n",
		"hint: put it into the environment as OAUTH2_PROXY_CLIENT_SECRET\n",
	} {
		if !strings.Contains(remarks, want) {
			t.Errorf("stderr lacks %q:\n%s", want, remarks)
		}
	}
	if strings.Contains(remarks, "hint: \n") || strings.Contains(remarks, "hint: authproxy") {
		t.Errorf("stderr has an empty hint:\n%s", remarks)
	}
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OAUTH2_PROXY_CLIENT_SECRET", "x")
	t.Setenv("AUTHPROXY_SESSION_KEY", "MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY")
	if status, _, problems := runCommand(t, "check", "-config", file); status != exitOK {
		t.Errorf("check: status %d, %s", status, problems)
	}
}

func TestConvertSaysWhatItCannotRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "alpha.yaml")
	if err := os.WriteFile(file, []byte("providers:\n- id: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"oauth2-proxy", "/nonexistent"}, exitError, "no such file"},
		{[]string{"oauth2-proxy", file}, exitError, "alpha configuration"},
		{[]string{"oauth2-proxy"}, exitConfig, "hint: authproxy convert oauth2-proxy"},
		{[]string{"pomerium", file}, exitConfig, "hint: authproxy convert oauth2-proxy"},
		{[]string{"oauth2-proxy", file, file}, exitConfig, "unexpected argument"},
	} {
		if status, out, problems := runCommand(t, append([]string{"convert"}, row.args...)...); status != row.status || out != "" || !strings.Contains(problems, row.says) {
			t.Errorf("%q: status %d, %s%s", row.args, status, out, problems)
		}
	}
}
