package config_test

import (
	"errors"
	"net/url"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"authproxy/config"

	"github.com/google/go-cmp/cmp"
)

// Whatever the text, there is a Config that keeps its promises, or mistakes that someone can act on.
func FuzzParse(f *testing.F) {
	example, err := os.ReadFile(exampleFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	f.Add(uncommented(string(example)))
	f.Add(complete(""))
	f.Add(complete("routes:\n  - {path: /a, methods: [GET], allow: [{claims: {acr: [x]}}], upstream: {url: \"h2c://x\"}}\n  - {path: /, exact: true, allow: anyone}"))
	f.Add(complete("prefix: ${file:/x}\n? [a]\n: b\n<<: *x\nlisten: &a !!str b"))
	f.Add("a: [\n\t}:\n")
	for _, part := range []string{"session:\n  cookie: {domain: example.com}", "identity:\n  headers: {X-A: acr}\n  claims: [a]", "forward_auth: {trust: [unix], domains: [a.example.com]}",
		"provider:\n  issuer: http://[::1]:8080\n  params: {a: b}", "prefix: ${A}", "limits: {header: 9KiB, header_timeout: 1m1s}", "app_token: {ttl: 9s}"} {
		f.Add(complete(part))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "/dev") { // reading may wait for ever
			return
		}
		c, err := config.Parse("f", []byte(text), exampleEnv)
		var all config.Mistakes
		if err != nil {
			if !errors.As(err, &all) || len(all) == 0 || c != nil {
				t.Fatalf("Parse = %v, %v", c, err)
			}
			checkForm(t, "f", all)
			return
		}
		checkForm(t, "f", c.Warnings)
		p, s := c.Provider, c.Session
		for promise, kept := range map[string]bool{
			"public_url is an origin":     c.PublicURL.Host != "" && *c.PublicURL == url.URL{Scheme: c.PublicURL.Scheme, Host: strings.ToLower(c.PublicURL.Host)},
			"the prefix is clean":         c.Prefix == "" || path.Clean(c.Prefix) == c.Prefix && c.Prefix[0] == '/' && c.Prefix != "/",
			"there is a provider":         p.Issuer != "" && p.ClientID != "" && (p.ClientSecret == "") != (p.PrivateKey == nil),
			"the algorithm is asymmetric": p.IDTokenAlg != "none" && !strings.HasPrefix(p.IDTokenAlg, "HS"),
			"the leeway is small":         p.Leeway >= 0 && p.Leeway <= 5*time.Minute,
			"sessions end":                s.IdleTimeout > 0 && s.IdleTimeout <= s.MaxLifetime,
			"there is a session key":      len(s.Keys) > 0 && len(s.Keys[0]) >= 32,
			"there is something to do":    c.Upstream != nil || len(c.Routes) > 0 || c.ForwardAuth != nil,
			"assertions are short":        c.Identity.Assertion.TTL >= 2*time.Second && c.Identity.Assertion.TTL <= time.Hour,
			"bearer tokens are for us":    c.Bearer == nil || c.Bearer.Audience != "",
			"shared keys are long":        (c.Identity.MessageSignature.Algorithm == "hmac-sha256") == (len(c.Identity.MessageSignature.Key) >= 32),
			"secrets are none or long":    c.ForwardAuth == nil || c.ForwardAuth.SharedSecret == "" || len(c.ForwardAuth.SharedSecret) >= 16,
		} {
			if !kept {
				t.Errorf("%s: not so in %+v", promise, c)
			}
		}
		for i, r := range c.Routes {
			ways := 0
			for _, way := range []bool{r.Anyone, r.SignedIn, len(r.Allow) > 0} {
				if way {
					ways++
				}
			}
			if ways != 1 || r.Line < 1 || r.Path == "" || r.Path[0] != '/' || path.Clean(r.Path) != r.Path || strings.ToLower(r.Host) != r.Host {
				t.Errorf("routes[%d] = %+v", i, r)
			}
			for _, a := range r.Allow {
				a.UnverifiedEmail = false
				if cmp.Equal(a, config.Allow{}) {
					t.Errorf("routes[%d] has an entry that holds for everybody", i)
				}
			}
		}
	})
}

// What is not a reference stays as it is, and what a reference stands for is not expanded again.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "$", "$$", "${A}", "${", "a${A", "${A}${A}", "$A", "${file:x}", "$${A}", "${A:-b}", "é${A}"} {
		f.Add(s, "${A}$")
	}
	f.Fuzz(func(t *testing.T, s, value string) {
		if got, problem := config.Expand("f", strings.ReplaceAll(s, "$", "$$"), env()); got != s || problem != "" {
			t.Errorf("%q escaped becomes %q, %s", s, got, problem)
		}
		before, after := strings.ReplaceAll(s, "$", "$$"), strings.ReplaceAll(value, "$", "$$")
		if got, problem := config.Expand("f", before+"${A}"+after, env("A", value)); got != s+value+value || problem != "" {
			t.Errorf("%q with A=%q becomes %q, %s", before+"${A}"+after, value, got, problem)
		}
		if strings.Contains(s, "file:") {
			return
		}
		got, problem := config.Expand("f", s, env("A", "canary"))
		if problem != "" && (got != "" || strings.Contains(problem, "canary") && !strings.Contains(s, "canary")) {
			t.Errorf("%q becomes %q, %s", s, got, problem)
		}
		if !strings.Contains(s, "$") && got != s {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}
