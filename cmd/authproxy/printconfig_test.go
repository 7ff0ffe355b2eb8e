package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authproxy/frontproxies"
)

// printed runs print-config on a configuration with these keys.
func printed(t *testing.T, more string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := `
public_url: https://app.example.com
provider: {issuer: "https://idp.example.com/", client_id: client, client_secret: canary-client}
session: {keys: [MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY]}
upstream: http://127.0.0.1:5000
` + more
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "FILE", file)
	}
	var out, errs bytes.Buffer
	status = run(&environment{t.Context(), nil, strings.NewReader(""), &out, &errs}, append([]string{"print-config"}, args...))
	return status, out.String(), errs.String()
}

func TestPrintConfigPrintsNoSecret(t *testing.T) {
	for _, name := range frontproxies.Names() {
		status, out, errs := printed(t, "forward_auth: {shared_secret: canary-of-the-front-proxy}", "-config", "FILE", name)
		if status != exitOK || errs != "" || out == "" {
			t.Errorf("%s: status %d, %d bytes, and on stderr %q", name, status, len(out), errs)
		}
		for _, secret := range []string{"canary", "MDEyMzQ1"} {
			if strings.Contains(out, secret) {
				t.Errorf("%s: %s... is printed", name, secret)
			}
		}
		for what, odd := range map[string]string{"a value that is not there": "<no value>", "a lacking word": "%!"} {
			if strings.Contains(out, odd) {
				t.Errorf("%s: prints %s", name, what)
			}
		}
		if _, after, _ := printed(t, "forward_auth: {shared_secret: canary-of-the-front-proxy}", name, "-config", "FILE"); after != out {
			t.Errorf("%s: with -config after the name it prints something else", name)
		}
	}
}

func TestPrintConfigSaysWhyItPrintsNothing(t *testing.T) {
	for _, row := range []struct{ more, args, want string }{
		{"", "-config FILE nginx", "forward_auth: is missing"},
		{"forward_auth: {}", "-config FILE", "there is no front proxy"},
		{"forward_auth: {}", "-config FILE iis", `"iis" is no front proxy that we know`},
		{"forward_auth: {}", "-config FILE nginx caddy", `unexpected argument "caddy"`},
		{"forward_auth: {trust: everybody}", "-config FILE nginx", "forward_auth.trust"},
	} {
		t.Run(row.want, func(t *testing.T) {
			status, out, errs := printed(t, row.more, strings.Fields(row.args)...)
			if status != exitConfig || out != "" || !strings.Contains(errs, row.want) || !strings.Contains(errs, "\nhint: ") {
				t.Errorf("status %d, stdout %q, stderr %q; want status 2, and on stderr %q and a hint", status, out, errs, row.want)
			}
		})
	}
}
