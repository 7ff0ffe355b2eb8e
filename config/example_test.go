package config_test

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"authproxy/config"

	"github.com/google/go-cmp/cmp"
)

const exampleFile = "../config.yaml.example"

var exampleEnv = env("AUTH0_CLIENT_SECRET", secret, "AUTHPROXY_SESSION_KEY", key)

func readExample(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTheExampleShowsTheDefaults(t *testing.T) {
	got, err := config.Load(exampleFile, exampleEnv)
	if err != nil {
		t.Fatal(err)
	}
	got.File = "config.yaml"
	if d := cmp.Diff(parse(t, ""), got, ignoreLines); d != "" {
		t.Errorf("the example is not the smallest configuration with the defaults (-smallest +example):\n%s", d)
	}
}

// uncommented is the example with the YAML behind a # at the margin, each section in the place of its default.
func uncommented(text string) string {
	_, text, _ = strings.Cut(text, "\n\n") // the first comment holds the smallest configuration
	text = regexp.MustCompile(`(?m)^#([a-z]|  )`).ReplaceAllString(text, "$1")
	for _, key := range []string{"upstream", "routes"} {
		text = regexp.MustCompile(`(?m)^`+key+`: .*\n`).ReplaceAllString(text, "")
	}
	return text
}

func TestTheExampleIsRightWithEverythingSwitchedOn(t *testing.T) {
	c, err := config.Parse(exampleFile, []byte(uncommented(readExample(t))), exampleEnv)
	if err != nil {
		t.Fatal(err)
	}
	if c.Bearer == nil || c.AppToken == nil || c.ForwardAuth == nil || len(c.Routes) != 3 || c.Upstream.URL.Scheme != "https" {
		t.Errorf("not everything is switched on: %+v", c)
	}
}

func TestTheExampleHasEveryKeyWithASentence(t *testing.T) {
	lines := strings.Split(uncommented(readExample(t)), "\n")
	seen := map[string]bool{}
	var open []string // the keys above the line, one for each level of indentation
	for i, line := range lines {
		m := regexp.MustCompile(`^( *)(- )?(?:([a-z0-9_]+):|(\{))`).FindStringSubmatch(line)
		if m == nil {
			continue
		}
		depth := len(m[1]) / 2
		if m[2] != "" {
			open = append(open[:depth:depth], "[]")
			depth++
		}
		open = append(open[:depth:depth], m[3])
		path := strings.ReplaceAll(strings.Join(open, "."), ".[]", "[]")
		if above := lines[max(0, i-1)]; !seen[path] && !strings.HasPrefix(strings.TrimSpace(above), "# ") && m[2] == "" && !strings.Contains(path, "headers.") {
			t.Errorf("%s has no sentence above it", path)
		}
		seen[path] = true
	}
	for _, k := range config.Keys() {
		if strings.HasPrefix(k, "routes[].upstream.") {
			k = strings.TrimPrefix(k, "routes[].")
		}
		if !seen[k] {
			t.Errorf("config.yaml.example lacks %s", k)
		}
	}
}

func TestTheExampleBeginsWithTheSmallestConfiguration(t *testing.T) {
	comment, _, _ := strings.Cut(readExample(t), "\n\n")
	text := ""
	for line := range strings.SplitSeq(comment, "\n") {
		if yaml, ok := strings.CutPrefix(line, "#   "); ok {
			text += yaml + "\n"
		}
	}
	if _, err := config.Parse("x", []byte(text), exampleEnv); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	for i := range strings.Count(text, "\n") {
		lines := strings.SplitAfter(text, "\n")
		var all config.Mistakes
		if _, err := config.Parse("x", []byte(strings.Join(append(lines[:i:i], lines[i+1:]...), "")), exampleEnv); !errors.As(err, &all) {
			t.Errorf("it is not the smallest: it works without %q", lines[i])
		}
	}
}
