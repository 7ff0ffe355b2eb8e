package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"authproxy/config"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=" // 32 bytes

const secret = "canary-of-the-client-secret"

// base is a complete configuration, one entry for each top-level key.
var base = []struct{ key, value string }{
	{"public_url", " https://app.example.com"},
	{"provider", "\n  domain: acme.eu.auth0.com\n  client_id: AbCdEf\n  client_secret: " + secret},
	{"session", "\n  keys: [\"" + key + "\"]"},
	{"upstream", " http://127.0.0.1:5000"},
}

// complete adds to text what it lacks of base: whole sections behind it, and below provider and session the keys.
func complete(text string) string {
	text = strings.Trim(text, "\n") + "\n"
	for _, b := range base {
		begin := regexp.MustCompile(`(?m)^` + b.key + `:(.*)$`).FindStringSubmatchIndex(text)
		if begin == nil {
			text += b.key + ":" + b.value + "\n"
			continue
		}
		if begin[2] != begin[3] || !strings.HasPrefix(b.value, "\n") {
			continue
		}
		end := len(text)
		if next := regexp.MustCompile(`(?m)^[a-z]`).FindStringIndex(text[begin[1]:]); next != nil {
			end = begin[1] + next[0]
		}
		section := text[begin[1]:end]
		for line := range strings.SplitSeq(b.value[1:], "\n") {
			name, _, _ := strings.Cut(line, ":")
			if name == "  domain" && strings.Contains(section, "\n  issuer:") || strings.Contains(section, "\n"+name+":") {
				continue
			}
			text = text[:end] + line + "\n" + text[end:]
		}
	}
	return text
}

// ignoreLines compares configurations by what they say.
var ignoreLines = cmp.Options{cmpopts.IgnoreUnexported(config.Config{}), cmpopts.IgnoreFields(config.Config{}, "Files")}

func env(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

// parse reads a text that must be right.
func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("config.yaml", []byte(complete(text)), env())
	if err != nil {
		t.Fatalf("Parse: %v\n%s", err, complete(text))
	}
	return c
}

// wrong reads a text that must be wrong, and checks the form of each mistake.
func wrong(t *testing.T, text string) config.Mistakes {
	t.Helper()
	c, err := config.Parse("config.yaml", []byte(text), env("SECRET", "canary-from-the-environment"))
	var all config.Mistakes
	if !errors.As(err, &all) || len(all) == 0 || c != nil {
		t.Fatalf("Parse = %v, %v, want mistakes alone\n%s", c, err, text)
	}
	checkForm(t, "config.yaml", all)
	if !slices.IsSortedFunc(all, func(a, b config.Mistake) int { return a.Line - b.Line }) {
		t.Errorf("the mistakes are not sorted by line: %v", err)
	}
	for _, canary := range []string{key, "canary"} {
		if strings.Contains(err.Error(), canary) {
			t.Errorf("the mistakes show a secret: %v", err)
		}
	}
	return all
}

var form = regexp.MustCompile(`\Aauthproxy: [^\n]+:[1-9][0-9]*: [^: \n]+: [^\n]+\nhint: [^\n]{5,}\z`)

func checkForm(t *testing.T, file string, all config.Mistakes) {
	t.Helper()
	for _, m := range all {
		if m.File != file || m.Line < 1 || m.Key == "" || m.Problem == "" || m.Hint == "" || !form.MatchString(m.String()) {
			t.Errorf("mistake %+v is not complete:\n%s", m, m)
		}
	}
}

func TestTheSmallestConfigurationGetsTheDefaults(t *testing.T) {
	c, err := config.Parse("dir/config.yaml", []byte(`public_url: https://app.example.com
provider:
  domain: acme.eu.auth0.com
  client_id: AbCdEf
  client_secret: ${AUTH0_CLIENT_SECRET}
session:
  keys: ["${AUTHPROXY_SESSION_KEY}"]
upstream: http://127.0.0.1:5000
`), env("AUTH0_CLIENT_SECRET", "s", "AUTHPROXY_SESSION_KEY", key))
	if err != nil {
		t.Fatal(err)
	}
	k, _ := base64.StdEncoding.DecodeString(key)
	want := &config.Config{
		File:      "dir/config.yaml",
		PublicURL: &url.URL{Scheme: "https", Host: "app.example.com"},
		Listen:    config.Addr{Network: "tcp", Address: ":8080"},
		Prefix:    "/auth",
		Admin:     config.Admin{Listen: config.Addr{Network: "tcp", Address: "127.0.0.1:9090"}},
		Log:       config.Log{Level: slog.LevelInfo, Format: "auto"},
		Provider: config.Provider{Issuer: "https://acme.eu.auth0.com/", Domain: "acme.eu.auth0.com", ClientID: "AbCdEf", ClientSecret: "s", ClientAuth: "auto",
			Scopes: []string{"openid", "profile", "email"}, IDTokenAlg: "RS256", Leeway: time.Minute, Logout: "auto",
			Claims: config.Claims{Groups: "groups", Email: "email", Name: "name", Username: "preferred_username"}},
		Session: config.Session{Keys: [][]byte{k}, Store: "cookie", IdleTimeout: 24 * time.Hour, MaxLifetime: 168 * time.Hour, Refresh: true, Cache: 128 << 20,
			Cookie: config.Cookie{Name: "authproxy", SameSite: "lax"}, FilePath: "/var/lib/authproxy/sessions.db",
			Redis: config.Redis{URL: "redis://127.0.0.1:6379/0", Prefix: "authproxy:", MaxStaleness: time.Second}},
		Upstream: &config.Upstream{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:5000"}, Timeout: time.Minute, PreserveHost: true},
		Identity: config.Identity{Headers: []config.Header{{Name: "X-Forwarded-Email", Source: "email"}, {Name: "X-Forwarded-Groups", Source: "groups"},
			{Name: "X-Forwarded-Preferred-Username", Source: "username"}, {Name: "X-Forwarded-User", Source: "sub"}},
			StripForeign: true, Assertion: config.Assertion{Header: "X-Authproxy-Assertion", TTL: 2 * time.Minute}},
		Shutdown: config.Shutdown{Delay: 500 * time.Millisecond, Grace: 30 * time.Second},
		Limits:   config.Limits{Header: 65536, HeaderTimeout: 10 * time.Second, LoginPerMinute: 60},
	}
	if d := cmp.Diff(want, c, ignoreLines); d != "" {
		t.Errorf("Parse (-want +got):\n%s", d)
	}
}

func TestEveryKindOfValueIsRead(t *testing.T) {
	c := parse(t, `
public_url: https://App.Example.com:443/
listen: unix:/run/a.sock
prefix: /
admin: {listen: ""}
trusted_proxies: [10.0.0.0/8, "::1", 192.0.2.7]
log: {level: debug, format: json}
provider:
  params: {prompt: login, ext-a: "5$$"}
  connections: [github]
  leeway: 0s
session:
  idle_timeout: 1h30m
  cookie: {name: sso, domain: Example.com, same_site: none}
  file: {path: s.db}
upstream: {url: "h2c://app:9000/", timeout: 1500ms, preserve_host: false}
routes:
  - path: /a
    exact: true
    host: Grafana.example.com
    methods: [GET, PROPFIND]
    allow:
      - {emails: [Ada@Example.com], email_domains: [Example.COM], unverified_email: true}
      - {claims: {department: [finance, "7"], acr: [x]}}
    upstream: unix:/run/app.sock
    strip_prefix: true
    max_auth_age: 5m
    unauthenticated: 401
    timeout: 2h
  - {path: "/b ä", allow: anyone}
identity:
  headers: {x-user: sub, X_Dept: department}
  claims: [department]
  message_signature: {algorithm: hmac-sha256, key: 0123456789abcdef0123456789abcdef}
bearer: {audience: api}
app_token: {}
forward_auth: {trust: [unix, 10.0.0.0/8], domains: [App2.example.com], grpc_listen: ":9191"}
limits: {header: 1MiB}
`)
	type part struct {
		PublicURL      string
		Listen, Admin  config.Addr
		Prefix         string
		TrustedProxies []string
		Log            config.Log
		Params         map[string]string
		Leeway         time.Duration
		Idle           time.Duration
		Cookie         config.Cookie
		File           string
		Upstream       config.Upstream
		Routes         []config.Route
		Headers        []config.Header
		Bearer         config.Bearer
		AppToken       config.AppToken
		ForwardAuth    config.ForwardAuth
		Header         int
	}
	var proxies []string
	for _, p := range c.TrustedProxies {
		proxies = append(proxies, p.String())
	}
	got := part{c.PublicURL.String(), c.Listen, c.Admin.Listen, c.Prefix, proxies, c.Log, c.Provider.Params, c.Provider.Leeway, c.Session.IdleTimeout, c.Session.Cookie,
		c.Session.FilePath, *c.Upstream, c.Routes, c.Identity.Headers, *c.Bearer, *c.AppToken, *c.ForwardAuth, c.Limits.Header}
	want := part{"https://app.example.com", config.Addr{Network: "unix", Address: "/run/a.sock"}, config.Addr{}, "", []string{"10.0.0.0/8", "::1/128", "192.0.2.7/32"},
		config.Log{Level: slog.LevelDebug, Format: "json"}, map[string]string{"prompt": "login", "ext-a": "5$"}, 0, 90 * time.Minute,
		config.Cookie{Name: "sso", Domain: "example.com", SameSite: "none"}, "s.db",
		config.Upstream{URL: &url.URL{Scheme: "h2c", Host: "app:9000"}, Timeout: 1500 * time.Millisecond},
		[]config.Route{
			{Line: 21, Path: "/a", Exact: true, Host: "grafana.example.com", Methods: []string{"GET", "PROPFIND"},
				Allow: []config.Allow{
					{Emails: []string{"ada@example.com"}, EmailDomains: []string{"example.com"}, UnverifiedEmail: true},
					{Claims: []config.ClaimValues{{Name: "acr", Values: []string{"x"}}, {Name: "department", Values: []string{"finance", "7"}}}},
				},
				Upstream:    &config.Upstream{URL: &url.URL{Scheme: "unix", Path: "/run/app.sock", OmitHost: true}, Timeout: time.Minute, PreserveHost: true},
				StripPrefix: true, MaxAuthAge: 5 * time.Minute, Unauthenticated: "401", Timeout: 2 * time.Hour},
			{Line: 33, Path: "/b ä", Anyone: true},
		},
		[]config.Header{{Name: "X-User", Source: "sub"}, {Name: "X_dept", Source: "department"}}, config.Bearer{Audience: "api"}, config.AppToken{TTL: 10 * time.Minute},
		config.ForwardAuth{Trust: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, TrustUnix: true, Domains: []string{"app2.example.com"},
			GRPCListen: config.Addr{Network: "tcp", Address: ":9191"}}, 1 << 20}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("Parse (-want +got):\n%s", d)
	}
}

// mistakes are rows of the form: text, path of the key, and what its text says (problem and hint).
func TestMistakesAreNamed(t *testing.T) {
	for _, row := range []struct{ name, yaml, key, says string }{
		// The form of the file.
		{"unknown key with a near one", "uptream: http://127.0.0.1:1", "uptream", "write upstream"},
		{"unknown key below", "provider:\n  clientid: x", "provider.clientid", "write client_id"},
		{"unknown key that belongs elsewhere", "same_site: lax", "same_site", "write it as session.cookie.same_site"},
		{"unknown key of a route that belongs elsewhere", "routes:\n  - {path: /a, allow: anyone, same_site: x}", "routes[0].same_site", "session.cookie.same_site"},
		{"unknown key far from all", "zzzzzzzz: x", "zzzzzzzz", "public_url, listen"},
		{"unknown key of a route", "routes:\n  - {path: /a, alow: anyone, allow: anyone}", "routes[0].alow", "write allow"},
		{"unknown key of an allow entry", "routes:\n  - {path: /a, allow: [{group: [x]}]}", "routes[0].allow[0].group", "write groups"},
		{"unknown key with a colon and a space", "\"a: b\": x", "a__b", ""},
		{"duplicate key", "prefix: /a\nsign_in_page: true\nprefix: /b", "prefix", "after line 1"},
		{"duplicate key below", "provider:\n  client_id: a\n  client_id: b", "provider.client_id", "second time"},
		{"duplicate key of a map", "provider:\n  params: {a: b, a: c}", "provider.params.a", "second time"},
		{"duplicate header", "identity:\n  headers: {X-A: sub, X-A: email}", "identity.headers.X-A", "second time"},
		{"key that is no text", "1: x", "1", "plain text key"},
		{"merge key", "<<: {listen: x}", "<<", "plain text key"},
		{"anchor", "prefix: &a /x", "prefix", "anchor"},
		{"alias", "prefix: &a /x\nlisten: *a", "listen", "anchor or alias"},
		{"alias in a list", "log: &a {}\ntrusted_proxies: [*a]", "trusted_proxies[0]", "alias"},
		{"tag", "prefix: !!str /x", "prefix", "tag"},
		{"own tag", "provider:\n  client_secret: !canary x", "provider.client_secret", "tag"},
		{"mapping where a value belongs", "prefix: {a: b}", "prefix", "is a mapping"},
		{"value where a mapping belongs", "log: debug", "log", "expected a mapping"},
		{"value where a list belongs", "provider:\n  scopes: openid", "provider.scopes", "expected a list"},
		{"list where a value belongs", "prefix: [/a]", "prefix", "is a list"},
		{"boolean where text belongs", "prefix: true", "prefix", "in quotes"},
		{"text where a boolean belongs", "sign_in_page: yes", "sign_in_page", "true or false"},
		{"empty element", "provider:\n  connections: [a, ]\n  scopes: [openid, null]", "provider.scopes[1]", "no value"},
		{"empty text in a list", "provider:\n  connections: [\"\"]", "provider.connections[0]", "is empty"},
		{"line break in a value", "provider:\n  client_id: \"a\\nb\"", "provider.client_id", "line break"},
		{"two documents", "prefix: /a\n---\nprefix: /b", "(file)", "second YAML document"},

		// References.
		{"unset variable", "prefix: ${NOT_SET}", "prefix", "NOT_SET"},
		{"unset variable in a list", "provider:\n  connections: [\"${NOT_SET}\"]", "provider.connections[0]", "NOT_SET"},
		{"unset variable in a map", "provider:\n  params: {a: \"${NOT_SET}\"}", "provider.params.a", "NOT_SET"},
		{"missing file", "provider:\n  client_secret: ${file:/nonexistent/secret}", "provider.client_secret", "/nonexistent/secret"},
		{"unterminated reference", "prefix: /${A", "prefix", "does not end"},
		{"a default in a reference", "prefix: ${A:-b}", "prefix", "not a reference"},
		{"a nested reference", "prefix: ${file:${A}}", "prefix", "nested"},
		{"a reference in a wrong value is shown as it stands", "prefix: ${SECRET}", "prefix", "write /${SECRET}" + "|${SECRET}"},

		{"a secret by $NAME", "provider:\n  client_secret: $CANARY_canary", "provider.client_secret", "write ${NAME}, or $$NAME"},
		{"a session key by $NAME", "session:\n  keys: [$AUTHPROXY_SESSION_KEY]", "session.keys[0]", "taken literally"},
		{"a parameter by $NAME", "provider:\n  params: {a: $A}", "provider.params.a", "taken literally"},
		{"an upstream by $NAME", "upstream: $APP", "upstream", `"$APP" is $NAME`},

		// Units and numbers.
		{"duration without unit", "session:\n  idle_timeout: 30", "session.idle_timeout", "30s"},
		{"duration that is none", "session:\n  max_lifetime: a fortnight", "session.max_lifetime", "unit"},
		{"negative duration", "session:\n  idle_timeout: -5m", "session.idle_timeout", "unit"},
		{"duration with a fraction", "session:\n  idle_timeout: 1.5h", "session.idle_timeout", "1h30m"},
		{"absurd duration", "session:\n  max_lifetime: 999999999d999999999d", "session.max_lifetime", "between 1s and 365d"},
		{"a cache without unit", "session:\n  cache: 100", "session.cache", "64KiB"},
		{"a cache of nothing", "session:\n  cache: 0MiB", "session.cache", "between"},
		{"zero duration", "session:\n  idle_timeout: 0s", "session.idle_timeout", "between"},
		{"leeway without end", "provider:\n  leeway: 1h", "provider.leeway", "between 0s and 5m"},
		{"size without unit", "limits: {header: 64}", "limits.header", "64KiB"},
		{"absurd size", "limits: {header: 999999999MiB}", "limits.header", "between"},
		{"no logins", "limits: {login_per_minute: 0}", "limits.login_per_minute", "from 1"},
		{"assertion ttl without unit", "identity:\n  assertion: {ttl: 120}", "identity.assertion.ttl", "unit"},
		{"assertion ttl of a day", "identity:\n  assertion: {ttl: 24h}", "identity.assertion.ttl", "between 2s and 1h"},
		{"max_staleness without unit", "session:\n  redis: {max_staleness: 1}", "session.redis.max_staleness", "unit"},

		// Where we are.
		{"http elsewhere than loopback", "public_url: http://app.example.com", "public_url", "write https://app.example.com"},
		{"http on a name that begins with localhost", "public_url: http://localhost.example.com", "public_url", "http"},
		{"http on a private address", "public_url: http://10.0.0.1", "public_url", "http"},
		{"public_url without scheme", "public_url: app.example.com", "public_url", "write https://app.example.com"},
		{"no public_url", "public_url: \"\"", "public_url", "empty"},
		{"public_url with a path", "public_url: https://app.example.com/x", "public_url", "write https://app.example.com"},
		{"public_url with a query", "public_url: https://app.example.com?x", "public_url", "query"},
		{"public_url with a password", "public_url: https://ada:canary@app.example.com", "public_url", "user name"},
		{"public_url in another script", "public_url: https://bücher.example", "public_url", "xn--"},
		{"public_url with a wrong port", "public_url: https://app.example.com:99999", "public_url", "port"},
		{"public_url with another scheme", "public_url: ftp://app.example.com", "public_url", "scheme"},
		{"listen without colon", "listen: 8080", "listen", `":8080"`},
		{"listen on a relative socket", "listen: unix:run/x", "listen", "unix:/path"},
		{"listen on a path too long for a socket", "listen: unix:/" + strings.Repeat("a", 107), "listen", "107"},
		{"two listeners on one address", "listen: 127.0.0.1:9090", "listen", "already in use: admin.listen is 127.0.0.1:9090 by default"},
		{"two listeners that are in the file", "listen: 127.0.0.1:1\nadmin: {listen: \"127.0.0.1:1\"}", "admin.listen", "already in use: listen is 127.0.0.1:1"},
		{"all addresses and the admin listener", "listen: \":9090\"", "listen", "admin.listen is 127.0.0.1:9090 by default"},
		{"the admin listener on all addresses", "admin: {listen: \"0.0.0.0:8080\"}", "admin.listen", "listen is :8080 by default"},
		{"the same address by name", "listen: localhost:9090", "listen", "admin.listen is 127.0.0.1:9090"},
		{"the same address in another form", "listen: 127.0.0.1:7\nadmin: {listen: \"[::ffff:127.0.0.1]:007\"}", "admin.listen", "listen is 127.0.0.1:7"},
		{"prefix without slash", "prefix: auth", "prefix", "write /auth"},
		{"prefix with a slash at the end", "prefix: /auth/", "prefix", "write /auth"},
		{"prefix with an escape", "prefix: /a%20b", "prefix", "plain path"},
		{"tls without a key", "tls: {cert_file: /nonexistent/a.crt}", "tls.key_file", "private key"},
		{"tls without a certificate", "tls: {key_file: /nonexistent/a.crt}", "tls.cert_file", "certificate"},
		{"tls with files that are not there", "tls: {cert_file: /nonexistent/a.crt, key_file: /nonexistent/a.key}", "tls.cert_file", "cannot be read"},
		{"trusted_proxies that is no CIDR", "trusted_proxies: [10.1/16]", "trusted_proxies[0]", "CIDR"},
		{"trusted_proxies with bits beyond", "trusted_proxies: [10.1.2.3/8]", "trusted_proxies[0]", "10.0.0.0/8, or 10.1.2.3"},
		{"a short admin token", "admin: {token: canary}", "admin.token", "16"},
		{"log level unknown", "log: {level: chatty}", "log.level", "debug"},
		{"log format unknown", "log: {format: xml}", "log.format", "json"},

		// The provider.
		{"domain and issuer", "provider:\n  domain: a.auth0.com\n  issuer: https://a.auth0.com/", "provider.issuer", "domain"},
		{"neither domain nor issuer", "provider:\n  domain: \"\"", "provider", "issuer"},
		{"a domain with a scheme", "provider:\n  domain: https://a.auth0.com/", "provider.domain", "write a.auth0.com"},
		{"a domain with a path", "provider:\n  domain: a.auth0.com/", "provider.domain", "write a.auth0.com"},
		{"a domain with a wrong port", "provider:\n  domain: a.auth0.com:x", "provider.domain", "port"},
		{"an http issuer", "provider:\n  issuer: http://idp.example.com", "provider.issuer", "write https://idp.example.com"},
		{"an issuer with a query", "provider:\n  issuer: https://idp.example.com/?x", "provider.issuer", "query"},
		{"a discovery document as issuer", "provider:\n  issuer: https://idp.example.com/a/.well-known/openid-configuration", "provider.issuer", "write https://idp.example.com/a/"},
		{"no client_id", "provider:\n  client_id: \"\"", "provider.client_id", "empty"},
		{"no client_secret", "provider:\n  client_secret: \"\"", "provider.client_secret", "is empty"},
		{"client_auth unknown", "provider:\n  client_auth: magic", "provider.client_auth", "private_key_jwt"},
		{"private_key_jwt without a key", "provider:\n  client_auth: private_key_jwt", "provider.private_key_file", "private_key"},
		{"basic without a secret", "provider:\n  client_auth: basic\n  client_secret: \"\"", "provider.client_secret", "basic"},
		{"a key that is not there", "provider:\n  private_key_file: /nonexistent/k", "provider.private_key_file", "cannot be read"},
		{"no openid", "provider:\n  scopes: [profile]", "provider.scopes", "openid"},
		{"all scopes in one", "provider:\n  scopes: [openid profile]", "provider.scopes[0]", "each scope"},
		{"a parameter of ours", "provider:\n  params: {redirect_uri: x}", "provider.params.redirect_uri", "remove"},
		{"a parameter with a key", "provider:\n  params: {audience: x}", "provider.params.audience", "provider.audience"},
		{"max_age as a parameter", "provider:\n  params: {max_age: \"5\"}", "provider.params.max_age", "max_auth_age"},
		{"a parameter without a value", "provider:\n  params: {a: }", "provider.params.a", "no value"},
		{"id_token_alg none", "provider:\n  id_token_alg: none", "provider.id_token_alg", "RS256"},
		{"id_token_alg HS256", "provider:\n  id_token_alg: HS256", "provider.id_token_alg", "RS256"},
		{"an empty claim name", "provider:\n  claims: {groups: \"\"}", "provider.claims.groups", "empty"},
		{"logout unknown", "provider:\n  logout: maybe", "provider.logout", "oidc"},
		{"a ca_file that is not there", "provider:\n  ca_file: /nonexistent/ca.pem", "provider.ca_file", "cannot be read"},

		// Sessions.
		{"no session keys", "session:\n  keys: []", "session.keys", "at least one"},
		{"a short session key", "session:\n  keys: [\"c2hvcnQ=\"]", "session.keys[0]", "32"},
		{"a session key that is not base64", "session:\n  keys: [\"canary is not base64 at all, is it?!\"]", "session.keys[0]", "base64"},
		{"a session key of zeros", "session:\n  keys: [\"" + strings.Repeat("A", 43) + "\"]", "session.keys[0]", "random"},
		{"the same session key in two forms", "session:\n  keys: [\"" + key + "\", \"" + strings.TrimRight(key, "=") + "\"]", "session.keys[1]", "once more"},
		{"store unknown", "session:\n  store: memcached", "session.store", "redis"},
		{"idle longer than all", "session:\n  idle_timeout: 8d", "session.idle_timeout", "max_lifetime"},
		{"same_site unknown", "session:\n  cookie: {same_site: sometimes}", "session.cookie.same_site", "lax"},
		{"same_site none over http", "public_url: http://localhost\nsession:\n  cookie: {same_site: none}", "session.cookie.same_site", "https"},
		{"cookie.domain of another site", "session:\n  cookie: {domain: other.example}", "session.cookie.domain", "write example.com"},
		{"cookie.domain that only ends alike", "session:\n  cookie: {domain: ample.com}", "session.cookie.domain", "above"},
		{"cookie.domain below the host", "session:\n  cookie: {domain: x.app.example.com}", "session.cookie.domain", "above"},
		{"cookie.domain com", "session:\n  cookie: {domain: com}", "session.cookie.domain", "single label"},
		{"cookie.domain shared", "public_url: https://a.duckdns.org\nsession:\n  cookie: {domain: duckdns.org}", "session.cookie.domain", "shared"},
		{"cookie.domain an address", "public_url: https://192.0.2.1\nsession:\n  cookie: {domain: 192.0.2.1}", "session.cookie.domain", "address"},
		{"cookie.domain with a dot in front", "session:\n  cookie: {domain: .example.com}", "session.cookie.domain", "write example.com"},
		{"cookie name with our prefix", "session:\n  cookie: {name: __Host-a}", "session.cookie.name", "write a"},
		{"cookie name with a semicolon", "session:\n  cookie: {name: a;b}", "session.cookie.name", "letters"},
		{"endings in two places", "session:\n  file: {path: s.db}\n  redis: {url: \"redis://x:canary@h\"}", "session.redis", "choose one"},
		{"endings in two places, one by default", "session:\n  file: {path: /var/lib/authproxy/sessions.db}\n  redis: {prefix: \"app:\"}", "session.redis", "choose one"},
		{"redis url with another scheme", "session:\n  redis: {url: \"http://canary@x\"}", "session.redis.url", "redis://"},
		{"redis url without a host", "session:\n  redis: {url: \"redis://:canary@/0\"}", "session.redis.url", "HOST"},
		{"redis url with a word as database", "session:\n  redis: {url: \"redis://x/canary\"}", "session.redis.url", "database"},

		// Upstreams.
		{"upstream without scheme", "upstream: grafana:3000", "upstream", "write http://grafana:3000"},
		{"upstream with another scheme", "upstream: ftp://x", "upstream", "h2c"},
		{"upstream with a password", "upstream: http://ada:canary@x", "upstream", "user name"},
		{"upstream with a query", "upstream: http://x/?a", "upstream", "query"},
		{"upstream with a path", "upstream: http://x:1/app", "upstream", "write http://x:1"},
		{"upstream with a relative socket", "upstream: unix:x", "upstream", "unix:/path"},
		{"upstream without url", "upstream: {timeout: 5s}", "upstream.url", "missing"},
		{"upstream timeout", "upstream: {url: \"http://x\", timeout: 5}", "upstream.timeout", "5s"},
		{"nothing to proxy", "upstream: \"\"", "upstream", "nothing to proxy"},

		// Routes.
		{"route without path", "routes:\n  - {allow: anyone}", "routes[0].path", "missing"},
		{"route without allow", "routes:\n  - {path: /a}", "routes[0].allow", "missing"},
		{"route with allow null", "routes:\n  - {path: /a, allow: }", "routes[0].allow", "missing"},
		{"route that is a word", "routes: [x]", "routes[0]", "expected a mapping"},
		{"second route without allow", "routes:\n  - {path: /a, allow: anyone}\n  - {path: /b}", "routes[1].allow", "missing"},
		{"a route after an empty one", "routes:\n  -\n  - {path: b, allow: anyone}", "routes[1].path", "begin"},
		{"allow of an unknown word", "routes:\n  - {path: /a, allow: everybody}", "routes[0].allow", "anyone"},
		{"allow of a near word", "routes:\n  - {path: /a, allow: signedin}", "routes[0].allow", "write signed_in"},
		{"allow of nobody", "routes:\n  - {path: /a, allow: []}", "routes[0].allow", "nobody"},
		{"allow of true", "routes:\n  - {path: /a, allow: true}", "routes[0].allow", "true or false"},
		{"allow with a mapping", "routes:\n  - {path: /a, allow: {groups: [x]}}", "routes[0].allow", "list"},
		{"allow with a word in a list", "routes:\n  - {path: /a, allow: [signed_in]}", "routes[0].allow[0]", "write allow: signed_in"},
		{"allow with a group in a list", "routes:\n  - {path: /a, allow: [admins]}", "routes[0].allow[0]", "write {groups: [admins]}"},
		{"allow with a list in a list", "routes:\n  - {path: /a, allow: [[admins]]}", "routes[0].allow[0]", "expected a mapping"},
		{"a group without its list", "routes:\n  - {path: /a, allow: [{groups: admins}]}", "routes[0].allow[0].groups", "write [admins]"},
		{"trusted_proxies without its list", "trusted_proxies: 10.0.0.0/8, 192.0.2.1", "trusted_proxies", "write [10.0.0.0/8, 192.0.2.1]"},
		{"keys without their list", "session:\n  keys: canary", "session.keys", "write a list"},
		{"a list by reference", "provider:\n  connections: ${SECRET}", "provider.connections", "write a list"},
		{"localhost without scheme", "public_url: localhost:8080", "public_url", "write http://localhost:8080"},
		{"a loopback address without scheme", "public_url: 127.0.0.1:8080", "public_url", "write http://127.0.0.1:8080"},
		{"a socket as a URL", "upstream: unix:///run/app.sock", "upstream", "write unix:/run/app.sock"},
		{"to listen on a socket as a URL", "listen: unix:///run/a.sock", "listen", "write unix:/run/a.sock"},
		{"a key of other programs", "cookie_secret: canary", "cookie_secret", "write it as session.keys"},
		{"allow with an empty entry", "routes:\n  - {path: /a, allow: [{}]}", "routes[0].allow[0]", "no key"},
		{"allow with no groups", "routes:\n  - {path: /a, allow: [{groups: []}]}", "routes[0].allow[0].groups", "empty list"},
		{"allow with groups null", "routes:\n  - {path: /a, allow: [{groups: }]}", "routes[0].allow[0]", "no key"},
		{"allow with an empty group", "routes:\n  - {path: /a, allow: [{groups: [\"\"]}]}", "routes[0].allow[0].groups[0]", "is empty"},
		{"allow with no claims", "routes:\n  - {path: /a, allow: [{claims: {}}]}", "routes[0].allow[0].claims", "empty mapping"},
		{"allow with a claim without values", "routes:\n  - {path: /a, allow: [{claims: {acr: []}}]}", "routes[0].allow[0].claims.acr", "empty list"},
		{"allow with a claim that nobody keeps", "routes:\n  - {path: /a, allow: [{claims: {department: [x]}}]}", "routes[0].allow[0].claims.department", "identity.claims"},
		{"unverified_email alone", "routes:\n  - {path: /a, allow: [{unverified_email: true}]}", "routes[0].allow[0]", "no key"},
		{"unverified_email without e-mail", "routes:\n  - {path: /a, allow: [{groups: [x], unverified_email: true}]}", "routes[0].allow[0].unverified_email", "email_domains"},
		{"an e-mail address without @", "routes:\n  - {path: /a, allow: [{emails: [example.com]}]}", "routes[0].allow[0].emails[0]", "email_domains"},
		{"an e-mail domain with @", "routes:\n  - {path: /a, allow: [{email_domains: [\"@example.com\"]}]}", "routes[0].allow[0].email_domains[0]", "write example.com"},
		{"an e-mail domain with a wildcard", "routes:\n  - {path: /a, allow: [{email_domains: [\"*.example.com\"]}]}", "routes[0].allow[0].email_domains[0]", "wildcard"},
		{"path without a slash", "routes:\n  - {path: a, allow: anyone}", "routes[0].path", "write /a"},
		{"path with a star", "routes:\n  - {path: /a/*, allow: anyone}", "routes[0].path", "write /a"},
		{"path with a pattern", "routes:\n  - {path: \"^/a.*\", allow: anyone}", "routes[0].path", "begin"},
		{"path with a parameter", "routes:\n  - {path: \"/a/{id}\", allow: anyone}", "routes[0].path", "below it"},
		{"path with a slash at the end", "routes:\n  - {path: /a/, allow: anyone}", "routes[0].path", "write /a"},
		{"path with dot segments", "routes:\n  - {path: /a/../b, allow: anyone}", "routes[0].path", "write /b"},
		{"path with an escape", "routes:\n  - {path: /a%2fb, allow: anyone}", "routes[0].path", "decoded"},
		{"method in small letters", "routes:\n  - {path: /a, methods: [get], allow: anyone}", "routes[0].methods[0]", "write GET"},
		{"no methods", "routes:\n  - {path: /a, methods: [], allow: anyone}", "routes[0].methods", "empty list"},
		{"route upstream without scheme", "routes:\n  - {path: /a, allow: anyone, upstream: \"grafana:3000\"}", "routes[0].upstream", "write http://grafana:3000"},
		{"route without any upstream", "upstream: \"\"\nroutes:\n  - {path: /a, allow: anyone}", "routes[0].upstream", "missing"},
		{"nothing to strip", "routes:\n  - {path: /, allow: anyone, strip_prefix: true}", "routes[0].strip_prefix", "nothing"},
		{"unauthenticated unknown", "routes:\n  - {path: /a, allow: signed_in, unauthenticated: maybe}", "routes[0].unauthenticated", "401"},
		{"max_auth_age without unit", "routes:\n  - {path: /a, allow: signed_in, max_auth_age: 300}", "routes[0].max_auth_age", "300s"},
		{"step-up for anyone", "routes:\n  - {path: /a, allow: anyone, max_auth_age: 5m}", "routes[0].max_auth_age", "anyone"},
		{"a route host without cookie.domain", "routes:\n  - {host: h.example.com, path: /b, allow: anyone}", "session.cookie.domain", "routes[0].host"},
		{"a route host outside cookie.domain", "session:\n  cookie: {domain: example.com}\nroutes:\n  - {host: h.example.org, path: /b, allow: anyone}", "routes[0].host", "cookie.domain"},
		{"a route host with a port", "routes:\n  - {host: \"h.example.com:80\", path: /b, allow: anyone}", "routes[0].host", "host name"},

		// What upstreams and others get.
		{"a header that frames the message", "identity:\n  headers: {Content-Length: sub}", "identity.headers.Content-Length", "another name"},
		{"a header that we set", "identity:\n  headers: {X-Forwarded_For: sub}", "identity.headers.X-Forwarded_For", "another name"},
		{"a header with a space", "identity:\n  headers: {\"X A\": sub}", "identity.headers.X_A", "header name"},
		{"two headers that fold together", "identity:\n  headers: {X-A: sub, x_a: email}", "identity.headers.x_a", "same header as X-A"},
		{"a header of an unknown claim", "identity:\n  headers: {X-A: grops}", "identity.headers.X-A", "write groups"},
		{"a header of an unknown claim by reference", "identity:\n  headers: {X-A: \"${SECRET}\"}", "identity.headers.X-A", "${SECRET}"},
		{"a header without a source", "identity:\n  headers: {X-A: }", "identity.headers.X-A", "no value"},
		{"the assertion in an identity header", "identity:\n  assertion: {header: x_forwarded_user}", "identity.assertion.header", "another name"},
		{"the assertion in Authorization", "identity:\n  assertion: {header: Authorization}", "identity.assertion.header", "another name"},
		{"a claim of the assertion's own", "identity:\n  claims: [aud]", "identity.claims[0]", "already"},
		{"a claim twice", "identity:\n  claims: [a, a]", "identity.claims[1]", "second time"},
		{"message_signature of an unknown algorithm", "identity:\n  message_signature: {algorithm: rsa-v1_5-sha256}", "identity.message_signature.algorithm", "hmac-sha256"},
		{"hmac without a key", "identity:\n  message_signature: {algorithm: hmac-sha256}", "identity.message_signature.key", "32"},
		{"hmac with a short key", "identity:\n  message_signature: {algorithm: hmac-sha256, key: canary}", "identity.message_signature.key", "32"},
		{"a key without hmac", "identity:\n  message_signature: {algorithm: ed25519, key: 0123456789abcdef0123456789abcdef}", "identity.message_signature.key", "hmac"},
		{"signing_keys that are not there", "identity:\n  signing_keys: [/nonexistent/key.pem]", "identity.signing_keys[0]", "cannot be read"},
		{"bearer without any audience", "bearer: {}", "bearer.audience", "audience"},
		{"bearer with an http issuer", "bearer: {audience: a, issuers: [\"http://x.example\"]}", "bearer.issuers[0]", "https"},
		{"bearer that only has its name", "provider:\n  audience: api\nbearer:", "bearer", "write bearer: {} to switch it on, or remove it"},
		{"app_token that only has its name", "app_token: # ttl: 10m", "app_token", "write app_token: {}"},
		{"forward_auth that only has its name", "forward_auth: ~", "forward_auth", "write forward_auth: {}"},
		{"a method with two letters swapped", "routes:\n  - {path: /a, allow: anyone, methods: [GET, POTS]}", "routes[0].methods[1]", "\"POTS\" is not a method"},
		{"the same with its hint", "routes:\n  - {path: /a, allow: anyone, methods: [POTS]}", "routes[0].methods[0]", "write POST"},
		{"a method with a letter too many", "routes:\n  - {path: /a, allow: anyone, methods: [DELETES]}", "routes[0].methods[0]", "write DELETE"},
		{"a short app_token key", "app_token: {key: canary}", "app_token.key", "32"},
		{"forward_auth.trust that is no CIDR", "forward_auth: {trust: [everyone]}", "forward_auth.trust[0]", "unix"},
		{"a short shared_secret", "forward_auth: {shared_secret: canary}", "forward_auth.shared_secret", "16"},
		{"a strict cookie with forward_auth", "session:\n  cookie: {same_site: strict}\nforward_auth: {}", "session.cookie.same_site", "lax"},
		{"a domain that the cookie does not reach", "forward_auth: {domains: [b.example.com]}", "session.cookie.domain", "forward_auth.domains[0]"},
	} {
		t.Run(row.name, func(t *testing.T) {
			all := wrong(t, complete(row.yaml))
			i := slices.IndexFunc(all, func(m config.Mistake) bool { return m.Key == row.key })
			if i < 0 {
				t.Fatalf("no mistake at %s:\n%v", row.key, all)
			}
			says := strings.Split(row.says, "|")
			if text := all[i].Problem + "\n" + all[i].Hint; !slices.ContainsFunc(says, func(s string) bool { return strings.Contains(text, s) }) {
				t.Errorf("the mistake does not say %q:\n%v", row.says, all[i])
			}
		})
	}
}

func TestOneWrongValueIsOneMistake(t *testing.T) {
	for _, text := range []string{
		"public_url: x y", "provider:\n  domain: a/b", "provider:\n  client_secret: ${NOT_SET}", "provider:\n  scopes: [1 2]", "session:\n  keys: [short]",
		"session:\n  cookie: {domain: com}\nroutes:\n  - {host: a.example.com, path: /, allow: anyone}", "upstream: x", "identity:\n  claims: [\"\"]\n  headers: {X-A: b}",
		"routes:\n  - {path: a, allow: anyone}\n  - {path: /a, allow: anyone}", "bearer: {audience: [a]}", "forward_auth: {trust: [x]}", "tls: {cert_file: \"${A}\", key_file: /k}",
	} {
		if all := wrong(t, complete(text)); len(all) != 1 {
			t.Errorf("%q has %d mistakes, want 1:\n%v", text, len(all), all)
		}
	}
}

// A secret that is there and empty was forgotten by somebody else than the author of the file.
func TestASecretByReferenceIsNotEmpty(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ yaml, key, want string }{
		{"provider:\n  client_secret: ${NOTHING}", "provider.client_secret", "the environment variable NOTHING is empty"},
		{"provider:\n  client_secret: ${file:" + file + "}", "provider.client_secret", fmt.Sprintf("the file %q is empty", file)},
		{"provider:\n  client_secret: ${NOTHING}${NOTHING}", "provider.client_secret", "what the references stand for is empty"},
		{"session:\n  keys: [\"${NOTHING}\"]", "session.keys[0]", "the environment variable NOTHING is empty"},
		{"admin: {token: \"${NOTHING}\"}", "admin.token", "the environment variable NOTHING is empty"},
	} {
		_, err := config.Parse("config.yaml", []byte(complete(row.yaml)), env("NOTHING", ""))
		var all config.Mistakes
		if !errors.As(err, &all) || len(all) != 1 || all[0].Key != row.key || all[0].Problem != row.want {
			t.Errorf("%s: %v\nwant one mistake at %s: %s", row.yaml, err, row.key, row.want)
		}
	}
	c, err := config.Parse("config.yaml", []byte(complete("provider:\n  audience: ${NOTHING}")), env("NOTHING", ""))
	if err != nil || c.Provider.Audience != "" {
		t.Errorf("a value that is no secret: %v", err)
	}
}

func TestTheLineIsTheMistakesOwn(t *testing.T) {
	all := wrong(t, `public_url: https://app.example.com
provider:
  domain: acme.eu.auth0.com
  client_secret:
    ${NOT_SET}
  leeway: soon
session:
  keys:
    - `+key+`
    - short
upstream: http://127.0.0.1:5000
routes:
  - {path: /a, allow: anyone}
  - path: /b
    allow:
      - groups: [a]
      - {}
    timeout: never
  - path: /a/x
    allow: anyone
`)
	var got []string
	for _, m := range all {
		got = append(got, strings.TrimPrefix(strings.SplitN(m.String(), ": ", 4)[1], "config.yaml:")+" "+m.Key)
	}
	want := []string{"2 provider.client_id", "5 provider.client_secret", "6 provider.leeway", "10 session.keys[1]", "17 routes[1].allow[1]", "18 routes[1].timeout", "19 routes[2]"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("lines and keys (-want +got):\n%s", d)
	}
}

func TestAConfigKnowsTheLinesOfItsKeys(t *testing.T) {
	c := parse(t, `prefix: /a
provider:
  client_secret:
    x
  scopes:
    - openid
    - email
  domain: acme.eu.auth0.com
  client_id: AbCdEf
routes:
  - {path: /b, allow: anyone}
  - path: /c
    allow: anyone
    upstream:
      url: http://127.0.0.1:1
identity:
  headers: {x-user: sub}`)
	for key, want := range map[string]int{"prefix": 1, "provider": 2, "provider.client_secret": 4, "provider.scopes[1]": 7, "routes[0].path": 11, "routes[1]": 12,
		"routes[1].upstream.url": 15, "routes[1].upstream.ca_file": 14, "routes[0].upstream": 11, "routes[7]": 10, "identity.headers.X-User": 17, "tls.cert_file": 1, "": 1} {
		if got := c.Line(key); got != want {
			t.Errorf("Line(%q) = %d, want %d", key, got, want)
		}
	}
	if got := new(config.Config).Line("routes[0].path"); got != 1 {
		t.Errorf("Line of a Config without a file = %d, want 1", got)
	}
}

func TestADollarThatCannotBeAReferenceStays(t *testing.T) {
	for in, want := range map[string]string{"$$NAME": "$NAME", "$1": "$1", "$": "$", "a$NAME": "a$NAME", "$NAME-b": "$NAME-b", "$ NAME": "$ NAME"} {
		if c := parse(t, "provider:\n  client_secret: \""+in+"\""); c.Provider.ClientSecret != want {
			t.Errorf("client_secret %q = %q, want %q", in, c.Provider.ClientSecret, want)
		}
	}
}

func TestAMisspeltKeyIsOneMistake(t *testing.T) {
	whole := complete("")
	for _, row := range []struct{ right, wrong, key string }{
		{"public_url:", "publicurl:", "publicurl"},
		{"provider:", "provder:", "provder"},
		{"provider:", "\"provi.der\":", "provi.der"},
		{"session:", "sesion:", "sesion"},
		{"upstream:", "uptream:", "uptream"},
		{"domain:", "domian:", "provider.domian"},
		{"client_id:", "clientid:", "provider.clientid"},
		{"client_secret:", "clientSecret:", "provider.clientSecret"},
		{"keys:", "key:", "session.key"},
		{"session:\n  keys:", "keys:", "keys"},
		{"upstream: http://127.0.0.1:5000", "upstream: {ulr: \"http://127.0.0.1:5000\"}", "upstream.ulr"},
		{"upstream: http://127.0.0.1:5000", "\"upstream.url\": http://127.0.0.1:5000", "upstream.url"},
		{"upstream:", "uptream: http://127.0.0.1:5000\nroutes: [{path: /a, allow: anyone}]\n#", "uptream"},
		{"upstream:", "routes: [{pth: /a, alow: anyone}]\nupstream:", "routes[0].pth"},
		{"provider:", "bearer: {}\nprovder:\n  audience: api", "provder"},
		{"upstream:", "bearer: {audince: api}\nupstream:", "bearer.audince"},
		{"session:", "routes: [{host: h.example.com, path: /b, allow: anyone}]\nsession:\n  cookie: {domian: example.com}", "session.cookie.domian"},
	} {
		all := wrong(t, strings.Replace(whole, row.right, row.wrong, 1))
		all = slices.DeleteFunc(all, func(m config.Mistake) bool { return m.Key == "routes[0].alow" })
		if len(all) != 1 || all[0].Key != row.key || !strings.Contains(all[0].Hint, "write ") {
			t.Errorf("%s for %s: %v\nwant one mistake, at %s", row.wrong, row.right, all, row.key)
		}
	}
}

func TestAMisspeltKeyHidesNothingElse(t *testing.T) {
	var got []string
	for _, m := range wrong(t, "publicurl: x\nprovider:\n  domian: a.auth0.com\n  leeway: soon\nprovder: {client_id: x}\nsesion: {}\nroutes: [{pth: /a}]\n") {
		got = append(got, m.Key)
	}
	want := []string{"publicurl", "provider.client_id", "provider.client_secret", "provider.domian", "provider.leeway", "provder", "sesion", "routes[0].pth", "routes[0].allow"}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("keys (-want +got):\n%s", d)
	}
}

func TestWhatIsMissingAltogetherIsNamed(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "null\n", "provider:\nsession:\n"} {
		var got []string
		for _, m := range wrong(t, text) {
			got = append(got, m.Key)
		}
		slices.Sort(got)
		want := []string{"provider", "provider.client_id", "provider.client_secret", "public_url", "session.keys", "upstream"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: keys (-want +got):\n%s", text, d)
		}
	}
}

func TestATextThatIsNotYAMLHasALine(t *testing.T) {
	for text, line := range map[string]int{
		"public_url: [\n\t}:\n": 2, "a: b\n c: d\n": 2, "a: 'b\n": 2, "a: *canary\n": 1, "a: {b: ${C}}\n": 1, "\x00": 1, "a: \xff\n": 1, "[]": 1, "x": 1, "a: b\n---\n{": 3,
	} {
		all := wrong(t, text)
		if len(all) != 1 {
			t.Errorf("%q has %d mistakes, want 1: %v", text, len(all), all)
		}
		if got := all[0].Line; got < line-1 || got > line+1 { // the parser names the line where it gave up
			t.Errorf("%q: line %d, want about %d", text, got, line)
		}
	}
}

func TestQuotesThatNobodyClosesAreFound(t *testing.T) {
	for text, line := range map[string]int{
		"prefix: /a\nprovider:\n  client_id: x\n  client_secret: \"canary\nsession:\n  keys: [\"k\"]\nupstream: http://x\n": 4,
		"prefix: '/a\nlisten: x\n":                                     1,
		"prefix: /a\nsession:\n  keys: [\"canary, \"canary\"]\n":       3,
		"# don't\nprefix: \"a\\\"b\" # \"\nlisten: ['x, y]\nlog: {}\n": 3,
	} {
		all := wrong(t, text)
		if len(all) != 1 || all[0].Line != line || all[0].Hint != "close the quotes that this line opens" {
			t.Errorf("%q: %v, want line %d", text, all, line)
		}
	}
	if all := wrong(t, "a: don't\n b: c\n"); strings.Contains(all[0].Hint, "quotes that") {
		t.Errorf("an apostrophe: %v", all)
	}
}

func TestTheHintToQuoteReferencesIsGivenWhereItHelps(t *testing.T) {
	for text, want := range map[string]bool{
		"a: {b: ${C}}\n":                           true,
		"a: [${B}, c]\n":                           true,
		"- {a: 'b', c: ${D}}\n":                    true,
		"a:\n  b: [\"c # d\", ${E}]\n":             true,
		"a: [\"it's\", ${B}] # c\nd: e\n":          true,
		"a: ${B}\n c: d\n":                         false,
		"a: [\"${B}\"\nc: d\n":                     false,
		"a: ['${B}'\nc: d\n":                       false,
		"a: [\"${B}]\n":                            false,
		"a: [b # ${C}\nd: e\n":                     false,
		"a: b [c\n  d: ${E}\n":                     false,
		"a: {b: ${C: d}\ne: f\ng: h\n":             true,
		"a: \"${B}\"\nc: [d\ne: f\n":               false,
		"public_url: ${URL}\nlisten: a: b\nc: d\n": false,
	} {
		all := wrong(t, text)
		if got := strings.Contains(all[0].Hint, `"${NAME}"`); got != want || all[0].Key != "(file)" {
			t.Errorf("%q: %v\nhint about references %t, want %t", text, all, got, want)
		}
	}
}

func TestAFileIsBounded(t *testing.T) {
	all := wrong(t, "# "+strings.Repeat("x", 1<<20))
	if !strings.Contains(all[0].Problem, "1 MiB") {
		t.Errorf("Parse of a large file: %v", all)
	}
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "large"), make([]byte, 1<<20), 0o600)
	if _, err := config.Load(filepath.Join(dir, "large"), env()); err == nil || !strings.Contains(err.Error(), ":1: (file): ") {
		t.Errorf("Load of zeros = %v", err)
	}
	if all := wrong(t, complete("prefix: ${file:"+filepath.Join(dir, "large")+"}")); !strings.Contains(all[0].Problem, "larger") {
		t.Errorf("a reference to a large file: %v", all)
	}
}

func TestAFileThatCannotBeReadIsAMistake(t *testing.T) {
	for _, file := range []string{"/nonexistent/config.yaml", t.TempDir()} {
		_, err := config.Load(file, env())
		var all config.Mistakes
		if !errors.As(err, &all) || len(all) != 1 {
			t.Fatalf("Load(%s) = %v, want one mistake", file, err)
		}
		checkForm(t, file, all)
		if lacks := strings.HasPrefix(file, "/nonexistent"); strings.Contains(all[0].Hint, "authproxy demo") != lacks {
			t.Errorf("%s: the hint is %q", file, all[0].Hint)
		}
	}
}

func TestMistakesArePrintedTwoLinesEach(t *testing.T) {
	all := config.Mistakes{{"a.yaml", 41, "routes[2].upstream", `"grafana:3000" has no scheme`, "write http://grafana:3000"}, {"a.yaml", 50, "x", "p\nq", "h"}}
	want := "authproxy: a.yaml:41: routes[2].upstream: \"grafana:3000\" has no scheme\nhint: write http://grafana:3000\nauthproxy: a.yaml:50: x: p q\nhint: h"
	if got := all.Error(); got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	var out strings.Builder
	if err := all.Print(&out); err != nil || out.String() != want+"\n" {
		t.Errorf("Print: %v, %q, want %q", err, out.String(), want+"\n")
	}
}

func TestAliasesCannotMakeASmallFileLarge(t *testing.T) {
	text := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for _, c := range "bcdefghijklmnop" {
		text += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+string(c-1)+",", 9) + "]\n"
	}
	wrong(t, complete(text+"trusted_proxies: *p\n"))
}

func TestRoutesThatCanNeverMatchAreMistakes(t *testing.T) {
	for _, row := range []struct{ name, routes, key, says string }{
		{"below another", "{path: /a, allow: anyone}\n{path: /a/b, allow: signed_in}", "routes[1]", "routes[0] (line 5) matches"},
		{"far below another", "{path: /a, allow: anyone}\n{path: /x, allow: anyone}\n{path: /a/b/c/d, allow: signed_in}", "routes[2]", "above routes[0]"},
		{"the same twice", "{path: /a, allow: anyone}\n{path: /a, allow: signed_in}", "routes[1]", "routes[0]"},
		{"the same exact path twice", "{path: /a, exact: true, allow: anyone}\n{path: /a, exact: true, allow: signed_in}", "routes[1]", "routes[0]"},
		{"an exact one after its tree", "{path: /a, allow: anyone}\n{path: /a, exact: true, allow: signed_in}", "routes[1]", "routes[0]"},
		{"everything before something", "{path: /, allow: signed_in}\n{host: h.example.com, path: /b, allow: anyone}", "routes[1]", "routes[0]"},
		{"a host of its own twice", "{host: h.example.com, path: /, allow: signed_in}\n{host: H.example.com, path: /b, allow: anyone}", "routes[1]", "routes[0]"},
		{"our host, then no host, and there is no other", "{host: app.example.com, path: /a, allow: anyone}\n{path: /a, allow: signed_in}", "routes[1]", "routes[0]"},
		{"each host before no host", "{host: app.example.com, path: /a, allow: anyone}\n{host: h.example.com, path: /a, allow: anyone}\n{path: /a, allow: signed_in}", "routes[2]", "routes[0] (line 5) and routes[1] (line 6) match"},
		{"a method of several", "{path: /a, methods: [GET, POST], allow: anyone}\n{path: /a/b, methods: [POST], allow: signed_in}", "routes[1]", "routes[0]"},
		{"methods of two together", "{path: /a, methods: [GET], allow: anyone}\n{path: /a, methods: [POST], allow: anyone}\n{path: /a/b, methods: [POST, GET], allow: signed_in}", "routes[2]", "routes[0] (line 5) and routes[1] (line 6)"},
		{"methods and a tree together", "{path: /a, methods: [GET], allow: anyone}\n{path: /, allow: anyone}\n{path: /a, methods: [POST, GET], allow: signed_in}", "routes[2]", "routes[0] (line 5) and routes[1] (line 6)"},
		{"our own endpoints", "{path: /auth/login, allow: anyone}", "routes[0]", "our own endpoints"},
		{"our own prefix", "{path: /auth, allow: anyone}", "routes[0]", "our own endpoints"},
	} {
		t.Run(row.name, func(t *testing.T) {
			all := wrong(t, complete("session:\n  cookie: {domain: example.com}\n  keys: ["+key+"]\nroutes:\n  - "+strings.ReplaceAll(row.routes, "\n", "\n  - ")))
			if len(all) != 1 || all[0].Key != row.key || !strings.Contains(all[0].Problem+all[0].Hint, row.says) {
				t.Errorf("got %v\nwant one mistake at %s that says %q", all, row.key, row.says)
			}
		})
	}
	if all := wrong(t, complete("prefix: /\nroutes:\n  - {path: /callback, allow: anyone}")); all[0].Key != "routes[0]" {
		t.Errorf("a route at our callback: %v", all)
	}
	if all := wrong(t, complete("prefix: /\napp_token: {}\nforward_auth: {}\nroutes:\n  - {path: /token, allow: anyone}\n  - {path: /verify/nginx, allow: anyone}")); len(all) != 2 || all[0].Key != "routes[0]" || all[1].Key != "routes[1]" {
		t.Errorf("routes at endpoints that are configured: %v", all)
	}
	parse(t, "prefix: /\nroutes:\n  - {path: /token, allow: anyone}\n  - {path: /verify/nginx, allow: anyone}") // the app's own
}

func TestRoutesThatCanMatchAreNotMistakes(t *testing.T) {
	for name, routes := range map[string]string{
		"other methods before":             "{path: /a, methods: [GET], allow: anyone}\n{path: /a, allow: signed_in}",
		"only some of the methods before":  "{path: /a, methods: [GET], allow: anyone}\n{path: /a, methods: [GET, POST], allow: signed_in}",
		"another host before":              "{path: /a, host: h.example.com, allow: anyone}\n{path: /a, allow: signed_in}",
		"our host before, and another":     "{path: /a, host: app.example.com, allow: anyone}\n{path: /b, host: h.example.com, allow: anyone}\n{path: /a, allow: signed_in}",
		"methods on different hosts":       "{path: /a, host: h.example.com, methods: [GET], allow: anyone}\n{path: /a, host: app.example.com, methods: [POST], allow: anyone}\n{path: /a, methods: [GET, POST], allow: signed_in}",
		"only the exact path before":       "{path: /a, exact: true, allow: anyone}\n{path: /a, allow: signed_in}",
		"a longer word":                    "{path: /a, allow: anyone}\n{path: /ab, allow: signed_in}",
		"from special to general":          "{path: /a/b, allow: anyone}\n{path: /a, allow: signed_in}\n{path: /, allow: anyone}",
		"another case":                     "{path: /a, allow: anyone}\n{path: /A, allow: signed_in}",
		"a word that begins as our prefix": "{path: /authority, allow: anyone}",
		"above our prefix":                 "{path: /, allow: anyone}",
	} {
		t.Run(name, func(t *testing.T) {
			parse(t, "session:\n  cookie: {domain: example.com}\n  keys: ["+key+"]\nroutes:\n  - "+strings.ReplaceAll(routes, "\n", "\n  - "))
		})
	}
}

func TestAnUpstreamThatIsOurselvesIsAMistake(t *testing.T) {
	for _, row := range []struct{ yaml, upstream string }{
		{"", "https://app.example.com"},
		{"", "https://APP.example.com:443"},
		{"", "http://app.example.com:443"},
		{"public_url: http://localhost", "http://localhost:80"},
		{"public_url: https://app.example.com:8443", "https://app.example.com:8443"},
		{"", "http://127.0.0.1:8080"},
		{"", "http://127.8.9.1:8080"},
		{"", "http://localhost:8080"},
		{"", "http://LOCALHOST:8080"},
		{"", "http://[::1]:8080"},
		{"", "http://[::ffff:127.0.0.1]:8080"},
		{"", "h2c://0.0.0.0:8080"},
		{"", "http://[::]:8080"},
		{"listen: \":80\"", "http://127.0.0.1"},
		{"listen: \":08080\"", "http://127.0.0.1:8080"},
		{"listen: 0.0.0.0:7000", "http://localhost:7000"},
		{"listen: \"[::]:7000\"", "http://127.0.0.1:7000"},
		{"listen: 127.0.0.1:7000", "http://127.0.0.1:7000"},
		{"listen: 127.0.0.1:7000", "http://localhost:7000"},
		{"listen: 127.0.0.1:7000", "http://0.0.0.0:7000"},
		{"listen: localhost:7000", "http://[::1]:7000"},
		{"listen: \"[0:0::1]:7000\"", "http://[::1]:7000"},
		{"listen: Host.example.com:7000", "http://host.example.com:7000"},
		{"listen: 192.0.2.1:7000", "http://192.0.2.1:7000"},
		{"listen: unix:/run/a.sock", "unix:/run/a.sock"},
		{"", "http://127.0.0.1:9090"},
		{"admin: {listen: \":7000\"}", "https://localhost:7000"},
	} {
		for _, form := range []struct{ key, yaml string }{
			{"upstream", "upstream: \"%s\""},
			{"upstream.url", "upstream: {url: \"%s\"}"},
			{"routes[0].upstream", "routes:\n  - {path: /a, allow: anyone, upstream: \"%s\"}"},
			{"routes[0].upstream.url", "routes:\n  - {path: /a, allow: anyone, upstream: {url: \"%s\"}}"},
		} {
			all := wrong(t, complete(row.yaml+"\n"+fmt.Sprintf(form.yaml, row.upstream)))
			if len(all) != 1 || all[0].Key != form.key || !strings.Contains(all[0].Problem, "our own address") {
				t.Errorf("%s with %q: %v\nwant one mistake at %s", row.upstream, row.yaml, all, form.key)
			}
		}
	}
}

func TestAnUpstreamBesideUsIsNotOurselves(t *testing.T) {
	for _, row := range []struct{ yaml, upstream string }{
		{"", "http://app:8080"},
		{"", "http://192.0.2.1:8080"},
		{"", "http://app.example.com:5000"},
		{"", "https://localhost.example.com:8080"},
		{"public_url: http://localhost:8080", "http://localhost:5000"},
		{"listen: 127.0.0.1:7000", "http://127.0.0.2:7000"},
		{"listen: 127.0.0.1:7000", "http://localhost:8080"},
		{"listen: 192.0.2.1:7000", "http://127.0.0.1:7000"},
		{"listen: 127.0.0.1:0", "http://127.0.0.1:5000"},
		{"listen: unix:/run/a.sock", "unix:/run/b.sock"},
		{"listen: unix:/run/a.sock", "http://127.0.0.1:8080"},
		{"admin: {listen: \"\"}", "http://127.0.0.1:9090"},
	} {
		parse(t, row.yaml+"\nupstream: \""+row.upstream+"\"")
	}
}

func TestWhatIsRiskyIsAWarning(t *testing.T) {
	for _, row := range []struct{ yaml, key string }{
		{"trusted_proxies: [0.0.0.0/0]", "trusted_proxies[0]"},
		{"trusted_proxies: [10.0.0.0/8, \"::/0\"]", "trusted_proxies[1]"},
		{"admin: {listen: \":9090\"}\nsession:\n  store: file", "admin.listen"},
		{"upstream: {url: \"https://x\", insecure_skip_verify: true}", "upstream.insecure_skip_verify"},
		{"routes:\n  - {path: /a, allow: anyone, upstream: {url: \"https://x\", insecure_skip_verify: true}}", "routes[0].upstream.insecure_skip_verify"},
		{"identity:\n  assertion: {ttl: 6m}", "identity.assertion.ttl"},
		{"provider:\n  issuer: https://acme.auth0.com", "provider.issuer"},
		{"routes:\n  - {path: /api, allow: anyone, strip_prefix: true}", "routes[0].strip_prefix"},
		{"routes:\n  - {path: /api, allow: anyone, strip_prefix: true, upstream: \"http://a\"}\n  - {path: /b, allow: signed_in, upstream: \"http://a\"}", "routes[0].strip_prefix"},
		{"provider:\n  params: {prompt: none}", "provider.params.prompt"},
		{"provider:\n  client_secret: abc #def", "provider.client_secret"},
		{"public_url: http://localhost:3000", "public_url"},
		{"public_url: http://127.0.0.1", "public_url"},
		{"public_url: https://localhost", "public_url"},
		{"forward_auth: {}", "forward_auth"},
		{"listen: 127.0.0.1:1\nforward_auth: {grpc_listen: \":9191\"}", "forward_auth.grpc_listen"},
		{"forward_auth: {trust: [0.0.0.0/0]}", "forward_auth.trust"},
		{"listen: unix:/run/s\nforward_auth: {}", "forward_auth"},
		{"routes:\n  - {path: /a, allow: [{groups: [a]}, {permissions: [\"read:items\"]}]}", "routes[0].allow[1].permissions"},
		{"routes:\n  - {path: /a, allow: [{scopes: [\"read:items\"]}]}", "routes[0].allow[0].scopes"},
		{"provider:\n  audience: api\nroutes:\n  - {path: /a, allow: [{scopes: [\"read:items\"]}]}", "routes[0].allow[0].scopes"},
		{"routes:\n  - {path: /a, allow: anyone, methods: [GET, FETCH]}", "routes[0].methods[1]"},
	} {
		c := parse(t, row.yaml)
		if len(c.Warnings) != 1 || c.Warnings[0].Key != row.key {
			t.Errorf("%q: warnings %v, want one at %s", row.yaml, c.Warnings, row.key)
		}
		checkForm(t, "config.yaml", c.Warnings)
	}
	for _, quiet := range []string{"", "routes:\n  - {path: /api, allow: anyone, strip_prefix: true, upstream: \"http://a\"}", "listen: 127.0.0.1:1\nforward_auth: {grpc_listen: \"127.0.0.1:2\"}", "provider:\n  client_secret: abc # of staging", "provider:\n  client_secret: abc#def", "provider:\n  client_secret: \"abc\" #def", "public_url: http://localhost:8080", "public_url: http://localhost:8080\nlisten: 127.0.0.1:08080", "public_url: http://localhost:3000\nlisten: unix:/run/s",
		"public_url: http://localhost:3000\nlisten: 127.0.0.1:0", "admin: {listen: \":9090\"}", "admin: {listen: \":9090\", token: 0123456789abcdef}\nsession:\n  store: file", "listen: 127.0.0.1:1\nforward_auth: {}",
		"forward_auth: {shared_secret: 0123456789abcdef}", "listen: unix:/run/s\nforward_auth: {trust: [unix]}",
		"routes:\n  - {path: /a, allow: anyone, methods: [PURGE, PROPFIND, M-SEARCH]}",
		"provider:\n  audience: api\nroutes:\n  - {path: /a, allow: [{permissions: [\"read:items\"]}]}",
		"bearer: {audience: api}\nroutes:\n  - {path: /a, allow: [{permissions: [\"read:items\"]}, {scopes: [\"read:items\"]}]}",
		"provider:\n  scopes: [openid, \"read:items\"]\nroutes:\n  - {path: /a, allow: [{scopes: [\"read:items\", x]}]}"} {
		if c := parse(t, quiet); len(c.Warnings) != 0 {
			t.Errorf("%q: warnings %v, want none", quiet, c.Warnings)
		}
	}
}

func TestPublicURLIsHTTPSOrThisMachine(t *testing.T) {
	for in, want := range map[string]string{"https://app.example.com": "https://app.example.com", "https://APP.example.com:443": "https://app.example.com",
		"https://app:8443": "https://app:8443", "http://localhost:8080/": "http://localhost:8080", "http://localhost:80": "http://localhost", "http://127.0.0.2": "http://127.0.0.2",
		"http://[::1]:8080": "http://[::1]:8080", "https://[2001:db8::1]": "https://[2001:db8::1]", "https://192.0.2.1": "https://192.0.2.1", "https://xn--bcher-kva.example": "https://xn--bcher-kva.example"} {
		if c := parse(t, "public_url: \""+in+"\""); c.PublicURL.String() != want {
			t.Errorf("public_url %q = %q, want %q", in, c.PublicURL, want)
		}
	}
}

func TestSessionKeysMayBeAnyBase64(t *testing.T) {
	k := make([]byte, 40)
	rand.Read(k)
	k[0], k[1] = 0xff, 0xef // / and + in the standard alphabet
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if c := parse(t, "session:\n  keys: [\""+e.EncodeToString(k)+"\"]"); string(c.Session.Keys[0]) != string(k) {
			t.Errorf("the key of %q is another one", e.EncodeToString(k))
		}
	}
}

func TestASessionKeyThatSomebodyTypedIsAMistake(t *testing.T) {
	encode := base64.StdEncoding.EncodeToString
	for _, row := range []struct{ key, says string }{
		{"change-me-change-me-change-me-change-me-change", "change-me"},
		{"dev-only-key-CHANGE_ME-0123456789abcdefghijklm", "change-me"},
		{"ThisIsNotVerySecretButItIsLongEnoughForThisKey", "secret"},
		{"Password0123456789abcdefghijklmnopqrstuvwxyzAB", "not random"},
		{"0123456789abcdefghijklmnopqrstuvwxyzABexampleQ", "not random"},
		{encode([]byte("my password is long, and I am proud of it")), "not random"},
		{"my-own-key1my-own-key1my-own-key1my-own-key1my", "repeats"},
		{"0123456789abcdefghijkl0123456789abcdefghijkl", "repeats"},
		{encode([]byte("0123456789abcdef0123456789abcdef")), "repeats"},
		{encode([]byte("0123456789abc0123456789abc0123456789")), "repeats"},
		{strings.Repeat("A", 44), "random"},
	} {
		all := wrong(t, complete("session:\n  keys: ["+row.key+"]"))
		if len(all) != 1 || all[0].Key != "session.keys[0]" || !strings.Contains(all[0].Problem, row.says) || strings.Contains(all.Error(), row.key) {
			t.Errorf("%s: %v\nwant one mistake that says %q without the key", row.key, all, row.says)
		}
	}
}

func TestASessionKeyMayHaveSomeOrder(t *testing.T) {
	for _, k := range []string{key, base64.StdEncoding.EncodeToString([]byte("0123456789abcdefghijklmnopqrstuv")), base64.StdEncoding.EncodeToString([]byte("0123456789abcdefg0123456789abcdef"))} {
		parse(t, "session:\n  keys: ["+k+"]")
	}
}

func TestRedisURLsMayHaveSeveralHosts(t *testing.T) {
	for _, u := range []string{"redis://127.0.0.1:6379/0", "rediss://user:p%40ss@redis.example.com", "redis://:p@a:1,b:2,c/3", "redis://a,b?master_set=m", "redis://[::1]:6379/1"} {
		if c := parse(t, "session:\n  redis: {url: \""+u+"\"}"); c.Session.Redis.URL != u {
			t.Errorf("url %q became %q", u, c.Session.Redis.URL)
		}
	}
}

// Which sessions were ended is remembered in the file or in Redis if one is configured, else in memory.
func TestTheCookieStoreKeepsEndingsInWhatIsWritten(t *testing.T) {
	const defaultFile, defaultRedis = "  file: {path: /var/lib/authproxy/sessions.db}\n", "  redis: {url: \"redis://127.0.0.1:6379/0\", prefix: \"authproxy:\", max_staleness: 1s}\n"
	for _, row := range []struct{ name, session, want string }{
		{"nothing", "", ""},
		{"a file", "  file: {path: s.db}\n", "file"},
		{"the default file", defaultFile, "file"},
		{"a Redis", "  redis: {url: \"redis://h\"}\n", "redis"},
		{"the default Redis", "  redis: {url: \"redis://127.0.0.1:6379/0\"}\n", "redis"},
		{"a prefix", "  redis: {prefix: \"app:\"}\n", "redis"},
		{"a staleness", "  store: cookie\n  redis: {max_staleness: 2s}\n", "redis"},
		{"nulls and empty mappings", "  file:\n  redis: {url: }\n", ""},
		{"empty mappings", "  file: {}\n  redis: {}\n", ""},
		{"a file and no Redis", "  file: {path: s.db}\n  redis: {url: ~}\n", "file"},
		{"all defaults, as the example has them", defaultFile + defaultRedis, ""},
		{"the file store", "  store: file\n  file: {path: s.db}\n  redis: {url: \"redis://h\"}\n", ""},
		{"the Redis store", "  store: redis\n  file: {path: s.db}\n  redis: {url: \"redis://h\"}\n", ""},
	} {
		if got := parse(t, "session:\n  refresh: true\n"+row.session).Session.Endings; got != row.want {
			t.Errorf("with %s endings are kept in %q, want %q", row.name, got, row.want)
		}
	}
}

func TestAShortLifetimeShortensTheIdleTimeout(t *testing.T) {
	if c := parse(t, "session:\n  max_lifetime: 3s"); c.Session.IdleTimeout != 3*time.Second {
		t.Errorf("idle timeout %v, want 3s", c.Session.IdleTimeout)
	}
}

func TestBearerTakesTheProvidersAudience(t *testing.T) {
	if c := parse(t, "provider:\n  audience: api\nbearer: {}"); c.Bearer.Audience != "api" {
		t.Errorf("audience %q, want api", c.Bearer.Audience)
	}
}

func TestNullIsAbsent(t *testing.T) {
	want := parse(t, "")
	if d := cmp.Diff(want, parse(t, "listen:\nlog: ~\ntls:\nroutes:\nidentity:\n  headers:\n"), ignoreLines); d != "" {
		t.Errorf("with nulls (-without +with):\n%s", d)
	}
}

func TestFilesAreReadAndChecked(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, blocks ...*pem.Block) string {
		var text []byte
		for _, b := range blocks {
			text = append(text, pem.EncodeToMemory(b)...)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	pkcs8 := func(k any) *pem.Block {
		b, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return &pem.Block{Type: "PRIVATE KEY", Bytes: b}
	}
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	other, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	sec1, _ := x509.MarshalECPrivateKey(other)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"app.example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, p256.Public(), p256)
	if err != nil {
		t.Fatal(err)
	}
	write("cert.pem", &pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, begin := range map[string]time.Time{"old.pem": time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), "new.pem": time.Now().AddDate(1, 0, 0)} {
		valid := *template
		valid.NotBefore, valid.NotAfter = begin, begin.AddDate(0, 1, 0)
		if der, err = x509.CreateCertificate(rand.Reader, &valid, &valid, p256.Public(), p256); err != nil {
			t.Fatal(err)
		}
		write(name, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	write("rfc1421.pem", &pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: []byte("x")})
	write("p256.pem", pkcs8(p256))
	write("sec1.pem", &pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 0}}, &pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})
	write("p384.pem", pkcs8(p384))
	write("rsa.pem", pkcs8(rsaKey))
	write("pkcs1.pem", &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})
	write("encrypted.pem", &pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})
	os.WriteFile(filepath.Join(dir, "secret"), []byte("from-a-file\r\n"), 0o600)
	load := func(text string) (*config.Config, error) {
		file := filepath.Join(dir, "config.yaml")
		os.WriteFile(file, []byte(complete(text)), 0o600)
		return config.Load(file, env())
	}

	c, err := load(`
tls: {cert_file: cert.pem, key_file: p256.pem}
provider:
  client_secret: ""
  private_key_file: pkcs1.pem
  organization: ${file:secret}
  ca_file: cert.pem
session:
  file: {path: s.db}
upstream: {url: "https://app", ca_file: cert.pem}
identity:
  signing_keys: [p256.pem, sec1.pem]
`)
	if err != nil {
		t.Fatal(err)
	}
	if !rsaKey.Equal(c.Provider.PrivateKey) || c.Provider.CAs == nil || c.Upstream.CAs == nil || c.Provider.Organization != "from-a-file" {
		t.Errorf("provider %+v, upstream %+v: not what the files hold", c.Provider, c.Upstream)
	}
	if k := c.Identity.SigningKeys; len(k) != 2 || !k[0].Equal(p256) || !k[1].Equal(other) {
		t.Errorf("signing keys: not those of the files")
	}
	if want := filepath.Join(dir, "s.db"); c.Session.FilePath != want || c.TLS.CertFile != filepath.Join(dir, "cert.pem") {
		t.Errorf("paths %s, %s: not in the file's directory", c.Session.FilePath, c.TLS.CertFile)
	}

	if len(c.Warnings) != 0 {
		t.Errorf("warnings %v, want none", c.Warnings)
	}
	for name, row := range map[string]struct{ yaml, says string }{
		"an old certificate":         {"tls: {cert_file: old.pem, key_file: p256.pem}", "expired on 2020-02-01"},
		"a certificate for another":  {"public_url: https://other.example.com\ntls: {cert_file: cert.pem, key_file: p256.pem}", `is not for "other.example.com"`},
		"a certificate of next year": {"tls: {cert_file: new.pem, key_file: p256.pem}", "is not valid before"},
	} {
		c, err := load(row.yaml)
		if err != nil || len(c.Warnings) != 1 || c.Warnings[0].Key != "tls.cert_file" || !strings.Contains(c.Warnings[0].Problem, row.says) {
			t.Errorf("%s: %v, %v\nwant one warning at tls.cert_file that says %q", name, err, c, row.says)
		}
	}

	for name, row := range map[string]struct{ yaml, key, says string }{
		"a key of another certificate":  {"tls: {cert_file: cert.pem, key_file: rsa.pem}", "tls.key_file", "key of another certificate"},
		"the certificate as the key":    {"tls: {cert_file: p256.pem, key_file: cert.pem}", "tls.cert_file", "swap"},
		"an encrypted key":              {"tls: {cert_file: cert.pem, key_file: encrypted.pem}", "tls.key_file", "encrypted"},
		"an old kind of encrypted key":  {"tls: {cert_file: cert.pem, key_file: rfc1421.pem}", "tls.key_file", "encrypted"},
		"a key that is none":            {"tls: {cert_file: cert.pem, key_file: secret}", "tls.key_file", "no private key"},
		"a key and no certificate":      {"tls: {cert_file: secret, key_file: p256.pem}", "tls.cert_file", "no certificate"},
		"tls and an http public_url":    {"public_url: http://localhost\ntls: {cert_file: cert.pem, key_file: p256.pem}", "public_url", "tls"},
		"a signing key on P-384":        {"identity:\n  signing_keys: [p384.pem]", "identity.signing_keys[0]", "P-256"},
		"an RSA signing key":            {"identity:\n  signing_keys: [rsa.pem]", "identity.signing_keys[0]", "P-256"},
		"a certificate as signing key":  {"identity:\n  signing_keys: [cert.pem]", "identity.signing_keys[0]", "P-256"},
		"the same signing key twice":    {"identity:\n  signing_keys: [p256.pem, p256.pem]", "identity.signing_keys[1]", "same key"},
		"an encrypted private key":      {"provider:\n  client_secret: \"\"\n  private_key_file: encrypted.pem", "provider.private_key_file", "unencrypted"},
		"a secret and a private key":    {"provider:\n  private_key_file: rsa.pem", "provider.private_key_file", "only one"},
		"a ca_file without certificate": {"provider:\n  ca_file: rsa.pem", "provider.ca_file", "no certificate"},
		"a directory as ca_file":        {"provider:\n  ca_file: .", "provider.ca_file", "cannot be read"},
	} {
		_, err := load(row.yaml)
		var all config.Mistakes
		if !errors.As(err, &all) || len(all) != 1 || all[0].Key != row.key || !strings.Contains(all[0].Problem+all[0].Hint, row.says) {
			t.Errorf("%s: %v\nwant one mistake at %s that says %q", name, err, row.key, row.says)
		}
	}
}

func TestAConfigurationKnowsTheFilesThatItWasReadFrom(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"secret": "s3cret-s3cret", "session.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "config.yaml")
	c, err := config.Parse(file, []byte(`public_url: https://app.example.com
provider: {domain: acme.eu.auth0.com, client_id: AbCdEf, client_secret: "${file:secret}"}
session: {keys: ["${file:session.key}"]}
upstream: http://127.0.0.1:5000
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range c.Files {
		names = append(names, f.Name)
	}
	want := []string{file, filepath.Join(dir, "secret"), filepath.Join(dir, "session.key")}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("Files (-want +got):\n%s", d)
	}
}

// Deployments that can be reproduced give every file the same time, and passwords are of the same length.
func TestAFileHasChangedWhenItsContentHas(t *testing.T) {
	name, long := filepath.Join(t.TempDir(), "secret"), time.Unix(1, 0)
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(name, []byte(text), 0o600), os.Chtimes(name, long, long)); err != nil {
			t.Fatal(err)
		}
	}
	absent := config.File{Name: name}.Now()
	if absent.Now() != absent {
		t.Error("a file that is not there has changed")
	}
	write("one")
	one := absent.Now()
	if one == absent {
		t.Error("that a file has come is no change")
	}
	write("two")
	if one.Now() == one {
		t.Error("other content of the same size and time is no change")
	}
	write("one")
	if one.Now() != one {
		t.Error("the same content is a change")
	}
}

// Kubernetes swaps all files of a volume at once, perhaps while they are being read.
func TestWhatIsLoadedWasThereAtTheSameTime(t *testing.T) {
	dir := t.TempDir()
	swap := func(version string) {
		t.Helper()
		data := filepath.Join(dir, version)
		text := fmt.Sprintf("public_url: https://app.example.com\nprovider: {domain: acme.eu.auth0.com, client_id: '%s-${X}', client_secret: '${file:data/secret}'}\n"+
			"session: {keys: [%s]}\nupstream: http://127.0.0.1:5000\n", version, key)
		if err := errors.Join(os.Mkdir(data, 0o700), os.WriteFile(filepath.Join(data, "config.yaml"), []byte(text), 0o600), os.WriteFile(filepath.Join(data, "secret"), []byte("secret of "+version), 0o600),
			os.Symlink(data, filepath.Join(dir, "next")), os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "data"))); err != nil {
			t.Fatal(err)
		}
	}
	swap("one")
	if err := os.Symlink("data/config.yaml", filepath.Join(dir, "config.yaml")); err != nil {
		t.Fatal(err)
	}
	swaps := []string{"two", "three"}
	c, err := config.Load(filepath.Join(dir, "config.yaml"), func(string) (string, bool) { // between the configuration and the secret
		if len(swaps) > 0 {
			swap(swaps[0])
			swaps = swaps[1:]
		}
		return "x", true
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Provider.ClientID != "three-x" || c.Provider.ClientSecret != "secret of three" {
		t.Errorf("client %q with the secret %q", c.Provider.ClientID, c.Provider.ClientSecret)
	}
	again := 0
	if _, err := config.Load(filepath.Join(dir, "config.yaml"), func(string) (string, bool) {
		again++
		swap(fmt.Sprint("again", again))
		return "x", true
	}); err != nil || again > 10 {
		t.Errorf("with files that always change: read %d times, %v", again, err)
	}
}
