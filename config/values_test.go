package config_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"authproxy/config"
)

func TestReferencesAreReplacedOnce(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a": "one\n", "b": "two\r\n", "c": "three\n\n", "d": "${A}", "e": "\r", "empty": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for in, want := range map[string]string{
		"plain":           "plain",
		"${A}":            "you and ${HOME}",
		"<${A}${EMPTY}>":  "<you and ${HOME}>",
		"5$$ for ${WHO}":  "5$ for me",
		"$${WHO}":         "${WHO}",
		"$$$${WHO}":       "$${WHO}",
		"$$${WHO}":        "$me",
		"$WHO costs 5$":   "$WHO costs 5$",
		"${file:a}":       "one",
		"${file:b}":       "two",
		"${file:c}":       "three\n",
		"${file:d}":       "${A}",
		"${file:e}":       "\r",
		"<${file:empty}>": "<>",
	} {
		got, problem := config.Expand(filepath.Join(dir, "config.yaml"), in, env("A", "you and ${HOME}", "WHO", "me", "EMPTY", ""))
		if got != want || problem != "" {
			t.Errorf("Expand(%q) = %q, %q, want %q", in, got, problem, want)
		}
	}
	for _, in := range []string{"${", "a${A", "${}", "${A B}", "${1}", "${A:-b}", "${file:}", "${file:none}", "${file:${A}}", "${UNSET}", "${file:.}"} {
		if got, problem := config.Expand(filepath.Join(dir, "config.yaml"), in, env("A", "a")); got != "" || problem == "" {
			t.Errorf("Expand(%q) = %q, want a problem", in, got)
		}
	}
}

func TestSuggestions(t *testing.T) {
	known := []string{"client_id", "client_secret", "groups", "emails", "email_domains", "allow", "path"}
	for in, want := range map[string]string{"clientid": "client_id", "clientId": "client_id", "client-id": "client_id", "group": "groups", "gruops": "groups", "alow": "allow",
		"email_domain": "email_domains", "pth": "path", "zebra": "", "": "", "x": ""} {
		if got := config.Near(in, known); got != want {
			t.Errorf("Near(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestDurationsAreWrittenAsTheyAreRead(t *testing.T) {
	for want, d := range map[string]time.Duration{"0s": 0, "500ms": 500 * time.Millisecond, "1s500ms": 1500 * time.Millisecond, "1h30m": 90 * time.Minute, "7d": 168 * time.Hour, "365d": 8760 * time.Hour} {
		if got := config.DurationText(d); got != want {
			t.Errorf("DurationText(%v) = %q, want %q", d, got, want)
		}
	}
	for _, text := range []string{"90s", "15m", "24h", "7d", "1h30m", "1500ms"} {
		if c := parse(t, "session:\n  max_lifetime: "+text); c.Session.MaxLifetime <= 0 {
			t.Errorf("%s = %v", text, c.Session.MaxLifetime)
		}
	}
}

func TestFieldsAreNotToBeChanged(t *testing.T) {
	config.Fields()[0] = "changed"
	if config.Fields()[0] != "iss" {
		t.Error("a caller can change the fields")
	}
}
