// Package deploy_test holds the manifests, the chart and the Compose file of deploy/ against the types of Kubernetes, Helm's
// and Compose's own code, and the program that they run.
package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"
)

// program is where authproxy was built.
var program = sync.OnceValues(func() (string, error) {
	file := filepath.Join(scratch, "authproxy")
	cmd := exec.Command("go", "build", "-o", file, "./cmd/authproxy")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return file, nil
})

// scratch is removed at the end.
var scratch string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "authproxy-deploy-test")
	if err != nil {
		panic(err)
	}
	scratch = dir
	status := m.Run()
	os.RemoveAll(scratch)
	os.Exit(status)
}

var secretFile = regexp.MustCompile(`\$\{file:/run/secrets/([^}]+)\}`)

// checkConfig lets "authproxy check" judge a configuration whose secrets are in files below /run/secrets, and names them.
// Warnings are mistakes here, but for the one about the cookie store, which is in README.md.
func checkConfig(t *testing.T, config string) (secrets []string) {
	t.Helper()
	authproxy, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, m := range secretFile.FindAllStringSubmatch(config, -1) {
		secrets = append(secrets, m[1])
		key, err := exec.Command(authproxy, "keygen").Output()
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, m[1]), string(key))
	}
	if rest := secretFile.ReplaceAllString(config, ""); strings.Contains(rest, "${") {
		t.Errorf("the configuration refers to more than files in /run/secrets:\n%s", rest)
	}
	for _, key := range []string{"client_secret:", "keys:", "shared_secret:", "token:"} {
		for line := range strings.Lines(config) {
			if strings.Contains(line, key) && !secretFile.MatchString(line) {
				t.Errorf("a secret is in the configuration itself: %s", line)
			}
		}
	}
	writeFile(t, filepath.Join(dir, "config.yaml"), strings.ReplaceAll(config, "/run/secrets", dir))
	cmd := exec.Command(authproxy, "check", "-config", filepath.Join(dir, "config.yaml"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("authproxy check: %v\n%s", err, &stderr)
	}
	for line := range strings.Lines(stderr.String()) {
		if strings.HasPrefix(line, "warning:") && !strings.Contains(line, "session.store") {
			t.Errorf("authproxy check: %s", line)
		}
	}
	slices.Sort(secrets)
	return slices.Compact(secrets)
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// identityHeaders are the headers that say who the user is where the configuration does not say otherwise, in lower case.
func identityHeaders(t *testing.T) (names []string) {
	t.Helper()
	text, err := os.ReadFile("../../config.yaml.example")
	if err != nil {
		t.Fatal(err)
	}
	var example struct {
		Identity struct {
			Headers   map[string]string `json:"headers"`
			Assertion struct {
				Header string `json:"header"`
			} `json:"assertion"`
		} `json:"identity"`
	}
	if err := yaml.Unmarshal(text, &example); err != nil {
		t.Fatal(err)
	}
	for name := range example.Identity.Headers {
		names = append(names, strings.ToLower(name))
	}
	names = append(names, strings.ToLower(example.Identity.Assertion.Header))
	slices.Sort(names)
	if len(names) < 2 {
		t.Fatalf("config.yaml.example has the identity headers %q, want more", names)
	}
	return names
}

// checkHeaders checks that a front proxy takes over all identity headers from us.
func checkHeaders(t *testing.T, taken []string) {
	t.Helper()
	var got []string
	for _, name := range taken {
		got = append(got, strings.ToLower(strings.TrimSpace(name)))
	}
	slices.Sort(got)
	if want := identityHeaders(t); !slices.Equal(got, want) {
		t.Errorf("the front proxy takes over %q, want %q", got, want)
	}
}
