package convert_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"authproxy/config"
	"authproxy/convert"
)

const usual = `provider = "oidc"
oidc_issuer_url = "https://sso.example.com/realms/acme"
client_id = "app"
client_secret = "canary-secret"
cookie_secret = "canary-cookie-secret"
redirect_url = "https://app.example.com/oauth2/callback"
`

// convertText converts options, and looks at every result for secrets and at the lines of remarks.
func convertText(t *testing.T, options string) (text string, remarks []string) {
	t.Helper()
	r, err := convert.OAuth2Proxy([]byte(options))
	if err != nil {
		t.Fatalf("%v\n%s", err, options)
	}
	for _, one := range r.Remarks {
		if line := strings.Split(options, "\n"); one.Line != 0 && !strings.Contains(strings.ToLower(line[one.Line-1]), one.Option) {
			t.Errorf("the remark on %s is at line %d: %s", one.Option, one.Line, line[one.Line-1])
		}
		remarks = append(remarks, one.Option+": "+one.Problem)
	}
	if all := string(r.Config) + fmt.Sprint(r.Remarks); strings.Contains(all, "canary") {
		t.Errorf("a secret is repeated: %s", all)
	}
	return string(r.Config), remarks
}

func parsed(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("config.yaml", []byte(text), func(name string) (string, bool) {
		switch name {
		case "AUTHPROXY_SESSION_KEY":
			return "MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY", true
		case "AUTHPROXY_REDIS_URL":
			return "redis://:secret@r:6379/0", true
		case "OAUTH2_PROXY_CLIENT_SECRET":
			return "x", true
		}
		return "", false
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

func TestAWholeConfiguration(t *testing.T) {
	text, remarks := convertText(t, usual+`http_address = "0.0.0.0:4180"
upstreams = ["http://127.0.0.1:5000/", "https://api.test:6000/api/", "http://127.0.0.1:7000/exact"]
email_domains = ["example.com", "Example.ORG"]
allowed_groups = ["a$b", "c"]
skip_auth_routes = ["GET,HEAD=^/public/", "^/(health|api/ready)$"]
api_routes = ["^/api/"]
skip_auth_preflight = true
skip_provider_button = true
scope = "openid email offline_access"
prompt = "select_account"
oidc_groups_claim = "https://example.com/roles"
provider_ca_files = ["ca.pem"]
cookie_expire = "24h30m"
cookie_refresh = "1h"
cookie_domains = [".example.com"]
cookie_samesite = "none"
reverse_proxy = true
trusted_proxy_ips = ["10.0.0.0/8", "192.0.2.1"]
metrics_address = "http://127.0.0.1:9100"
pass_host_header = false
upstream_timeout = "30s"
session_store_type = "redis"
redis_connection_url = "redis://cache:6379/2"
whitelist_domains = [".example.com"]
frobnicate = 3
`)
	const want = `public_url: https://app.example.com
listen: 0.0.0.0:4180
prefix: /oauth2
admin:
  listen: 127.0.0.1:9100
trusted_proxies: [10.0.0.0/8, 192.0.2.1/32]
provider:
  issuer: https://sso.example.com/realms/acme
  client_id: app
  client_secret: ${OAUTH2_PROXY_CLIENT_SECRET}
  scopes: [openid, email, offline_access]
  params:
    prompt: select_account
  claims:
    groups: https://example.com/roles
  ca_file: ca.pem
session:
  keys: ['${AUTHPROXY_SESSION_KEY}']
  store: redis
  redis:
    url: redis://cache:6379/2
  idle_timeout: 24h30m
  max_lifetime: 24h30m
  cookie:
    domain: example.com
    same_site: none
upstream:
  url: http://127.0.0.1:5000
  timeout: 30s
  preserve_host: false
routes:
  - {path: /public, methods: [GET, HEAD], allow: anyone}
  - {path: /health, exact: true, allow: anyone}
  - {path: /api/ready, exact: true, allow: anyone, upstream: {url: 'https://api.test:6000', timeout: 30s, preserve_host: false}}
  - {path: /exact, exact: true, methods: [OPTIONS], allow: anyone, upstream: {url: 'http://127.0.0.1:7000', timeout: 30s, preserve_host: false}}
  - {path: /api, methods: [OPTIONS], allow: anyone, upstream: {url: 'https://api.test:6000', timeout: 30s, preserve_host: false}}
  - {path: /, methods: [OPTIONS], allow: anyone}
  - {path: /api, allow: [{email_domains: [example.com, example.org], groups: [a$$b, c]}], unauthenticated: "401", upstream: {url: 'https://api.test:6000', timeout: 30s, preserve_host: false}}
  - {path: /exact, exact: true, allow: [{email_domains: [example.com, example.org], groups: [a$$b, c]}], upstream: {url: 'http://127.0.0.1:7000', timeout: 30s, preserve_host: false}}
  - {path: /, allow: [{email_domains: [example.com, example.org], groups: [a$$b, c]}]}
sign_in_page: false
`
	if text != want {
		t.Errorf("it prints\n%swant\n%s", text, want)
	}
	wantRemarks := []string{
		"client_secret: is not repeated",
		"cookie_secret: is not taken over: users sign in once more",
		"whitelist_domains: has no equivalent: return_to leads to hosts of the configuration only",
		"frobnicate: is no option of oauth2-proxy that is known here",
	}
	if !slices.Equal(remarks, wantRemarks) {
		t.Errorf("the remarks are\n%s", strings.Join(remarks, "\n"))
	}
	c := parsed(t, strings.ReplaceAll(text, "  ca_file: ca.pem\n", "")) // that file is not here
	if c.Routes[6].Allow[0].Groups[0] != "a$b" {
		t.Errorf("the group is %q", c.Routes[6].Allow[0].Groups[0])
	}
}

// Every row is a configuration, with these texts in it and these remarks.
func TestOptions(t *testing.T) {
	const app, all = "upstreams = \"http://127.0.0.1:5000\"\n", "email_domains = \"*\"\n"
	for _, row := range []struct {
		name, options string
		has           []string // in the configuration
		remarks       []string // beginnings of some
	}{
		{"everybody", app + all, []string{"{path: /, allow: [{claims: {email_verified: [\"true\"]}}]}"}, []string{"email_domains: let nobody in whose e-mail address the provider calls unverified"}},
		{"everybody, verified or not", app + all + "insecure_oidc_allow_unverified_email = true", []string{"upstream: http://127.0.0.1:5000\nsign_in_page: true\n"}, nil},
		{"everybody, as a list", app + `email_domains = ["*"]`, []string{"{path: /, allow: [{claims: {email_verified: [\"true\"]}}]}"}, nil},
		{"everybody in a group", app + all + `allowed_groups = "staff"`, []string{"{path: /, allow: [{claims: {email_verified: [\"true\"]}, groups: [staff]}]}"}, nil},
		{"nobody was named", app, []string{"{path: /, allow: [{emails: [REPLACE-ME@example.invalid]}]}"}, []string{"email_domains: is missing, and nobody is let in"}},
		{"addresses in a file", app + `authenticated_emails_file = "/etc/emails"`, []string{"{path: /, allow: [{emails: [REPLACE-ME@example.invalid]}]}"}, []string{"authenticated_emails_file: is not read"}},
		{"addresses in a file, or a domain", app + "authenticated_emails_file = '/etc/emails'\nemail_domains = ['a.test']\nallowed_groups = ['g']",
			[]string{"[{email_domains: [a.test], groups: [g]}, {emails: [REPLACE-ME@example.invalid], groups: [g]}]"}, nil},
		{"domains below one", app + `email_domains = [".example.com"]`, []string{"{path: /, allow: [{emails: [REPLACE-ME@example.invalid]}]}"}, []string{"email_domains: has .example.com, and domains stand"}},
		{"addresses that nobody verified", app + "email_domains = ['a.test']\ninsecure_oidc_allow_unverified_email = 'true'", []string{"{email_domains: [a.test], unverified_email: true}"}, nil},
		{"roles", app + all + `allowed_roles = ["admin"]`, []string{"groups: [admin]}"}, []string{"allowed_roles: is taken as groups"}},
		{"a restriction of tomorrow", app + all + `allowed_planets = ["mars"]`, []string{"groups: [mars]}"}, []string{"allowed_planets: is taken as groups"}},
		{"a team at GitHub", app + all + `github_team = "core"`, []string{"groups: [core]}"}, []string{"github_team: is taken as groups"}},
		{"HTTPS", app + all + "https_address = ':8443'\ntls_cert_file = 'c.pem'\ntls_key_file = 'k.pem'\nhttp_address = ':80'", nil, []string{"http_address: has no equivalent beside"}},
		{"a socket", app + all + `http_address = "unix:///run/x.sock"`, []string{"listen: unix:/run/x.sock"}, nil},
		{"an app at a socket", all + `upstreams = ["unix:///run/app.sock"]`, []string{"upstream: unix:/run/app.sock"}, nil},
		{"a decision server", all + "upstreams = ['static://202']\nset_xauthrequest = true", []string{"forward_auth:\n"}, []string{"set_xauthrequest: is for a front proxy"}},
		{"only a static answer", all + "upstreams = ['static://202']", []string{"forward_auth:\n"}, []string{"upstreams: is for a front proxy"}},
		{"apps below paths only", "email_domains = 'a.test'\nskip_auth_routes = '^/'\nupstreams = ['http://127.0.0.1:1/x/', 'http://127.0.0.1:2/y/']",
			[]string{"routes:\n  - {path: /x, allow: anyone, upstream: 'http://127.0.0.1:1'}\n  - {path: /y, allow: anyone, upstream: 'http://127.0.0.1:2'}\nsign_in_page"}, nil},
		{"apps below paths only, for users", "email_domains = 'a.test'\nupstreams = ['http://127.0.0.1:1/x/']", []string{"routes:\n  - {path: /x, allow: [{email_domains: [a.test]}], upstream: 'http://127.0.0.1:1'}\nsign_in_page"}, nil},
		{"files beside an app", all + `upstreams = ["file:///var/www/#/static/", "http://127.0.0.1:1/"]`, nil, []string{"upstreams: has file:///var/www/#/static/, which has no equivalent"}},
		{"no app", all, nil, []string{"upstreams: is missing"}},
		{"another prefix", app + all + `proxy_prefix = "/_auth"`, []string{"prefix: /_auth\n"}, []string{"redirect_url: has another path than the callback here, /_auth/callback"}},
		{"a secret in a file", app + all + `client_secret_file = "/etc/hostname"`, []string{"client_secret: ${file:/etc/hostname}"}, nil},
		{"Redis with a password", app + all + "session_store_type = 'redis'\nredis_connection_url = 'redis://:canary@r:6379'", []string{"url: ${AUTHPROXY_REDIS_URL}"}, []string{"redis_connection_url: may hold"}},
		{"Sentinels", app + all + "session_store_type = 'redis'\nredis_use_sentinel = true\nredis_sentinel_master_name = 'm'\nredis_sentinel_connection_urls = ['redis://a:1', 'redis://b:2']",
			[]string{"url: redis://a:1,b:2/?master_set=m"}, nil},
		{"a cluster", app + all + "session_store_type = 'redis'\nredis_use_cluster = true\nredis_cluster_connection_urls = ['rediss://a:1', 'rediss://b:2']", []string{"url: rediss://a:1,b:2/\n"}, nil},
		{"whom everybody believes", app + all + "reverse_proxy = true", nil, []string{"reverse_proxy: believed X-Forwarded-* of everybody"}},
		{"tokens of other issuers", app + all + "skip_jwt_bearer_tokens = true\nextra_jwt_issuers = ['https://a.test/=api']", []string{"issuers: ['https://a.test/']", "audience: api"}, nil},
		{"tokens of the provider", app + all + "skip_jwt_bearer_tokens = true", nil, []string{"skip_jwt_bearer_tokens: let in ID tokens"}},
		{"the access token", app + all + "pass_access_token = true", []string{"access_token: true"}, []string{"pass_access_token: sends"}},
		{"no headers", app + all + "pass_user_headers = false", []string{"identity:\n  headers: {}\n"}, nil},
		{"all is open", app + all + `skip_auth_regex = ["^/"]`, []string{"- {path: /, allow: anyone}\n"}, nil},
		{"whatever is not below a path", app + all + `skip_auth_routes = ["GET!=^/private"]`, nil, []string{"skip_auth_routes: has GET!=^/private, which is no path"}},
		{"a list in one text", app + all + `skip_auth_routes = "^/a$,^/b$"`, []string{"{path: /a, exact: true", "{path: /b, exact: true"}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			text, remarks := convertText(t, usual+row.options)
			if row.name != "HTTPS" { // whose files are not here
				parsed(t, text)
			}
			for _, has := range row.has {
				if !strings.Contains(text, has) {
					t.Errorf("it lacks %q:\n%s", has, text)
				}
			}
			for _, begins := range row.remarks {
				if !slices.ContainsFunc(remarks, func(r string) bool { return strings.HasPrefix(r, begins) }) {
					t.Errorf("no remark says %q: %q", begins, remarks)
				}
			}
			if slices.ContainsFunc(remarks, func(r string) bool { return strings.Contains(r, "no option of oauth2-proxy") }) {
				t.Errorf("an option is unknown: %q", remarks)
			}
		})
	}
}

func TestProviders(t *testing.T) {
	for options, want := range map[string]string{
		`oidc_issuer_url = "https://acme.eu.auth0.com/"`: "domain: acme.eu.auth0.com",
		`provider = "google"`:                            "issuer: https://accounts.google.com",
		``:                                               "issuer: https://accounts.google.com",
		`provider = "gitlab"`:                            "issuer: https://gitlab.com",
		"provider = 'entra-id'\nazure_tenant = 'T'":                       "issuer: https://login.microsoftonline.com/T/v2.0",
		`provider = "github"`:                                             "issuer: https://REPLACE-ME.example.com/",
		"provider = 'keycloak-oidc'\noidc_issuer_url = 'https://k/realm'": "issuer: https://k/realm",
	} {
		text, _ := convertText(t, "client_id = 'x'\nemail_domains = '*'\nupstreams = 'http://127.0.0.1:1'\n"+options)
		if parsed(t, text); !strings.Contains(text, want) {
			t.Errorf("%s: it lacks %q:\n%s", options, want, text)
		}
	}
}

func TestTheEnvironmentIsRead(t *testing.T) {
	text, remarks := convertText(t, `# for the container
export OAUTH2_PROXY_PROVIDER="oidc"
OAUTH2_PROXY_OIDC_ISSUER_URL=https://a.test/
OAUTH2_PROXY_CLIENT_ID='app'
OAUTH2_PROXY_CLIENT_SECRET=canary
OAUTH2_PROXY_REDIRECT_URL=http://localhost:4180/oauth2/callback
OAUTH2_PROXY_EMAIL_DOMAINS=a.test,b.test
OAUTH2_PROXY_UPSTREAMS=http://127.0.0.1:5000
OAUTH2_PROXY_SKIP_PROVIDER_BUTTON=true
PATH=/bin
`)
	parsed(t, text)
	for _, has := range []string{"public_url: http://localhost:4180", "issuer: https://a.test/", "client_id: app", "email_domains: [a.test, b.test]", "sign_in_page: false"} {
		if !strings.Contains(text, has) {
			t.Errorf("it lacks %q:\n%s", has, text)
		}
	}
	if want := []string{"client_secret: is not repeated"}; !slices.Equal(remarks, want) {
		t.Errorf("the remarks are %q", remarks)
	}
}

func TestWhatIsNoConfigurationIsRefused(t *testing.T) {
	for text, says := range map[string]string{
		"":                                     "no options",
		"provider: oidc\nclient_id: x\n":       "no file of options in TOML",
		"upstreamConfig:\n  upstreams: []\n":   "alpha configuration",
		"providers:\n- id: x\n":                "alpha configuration",
		"client_id = \"a\"\nclient_id = \"b\"": "no file of options in TOML",
	} {
		if _, err := convert.OAuth2Proxy([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want an error that says %q", text, err, says)
		}
	}
}

// What is open without a login here was open there: the path of a directory without its slash is all that is added.
func TestExceptionsAreNoWiderThanTheyWere(t *testing.T) {
	paths := []string{"/", "/a", "/a/", "/a/b", "/ab", "/a.b", "/axb", "/x/a", "/a/b/c", "/b", "/c", "/c/d", "/a-b", "/A", "/a/xx/b", "/xx", "/a/x", "/x"}
	converts := 0
	for _, expression := range []string{"^/", "^/$", "^/.*", "^/a", "^/a$", "^/a/", "^/a/$", "^/a/.*", "^/a/.*$", "^/a.*$", `^/a\.b$`, "^/a.b$", "^/(a|c)/", "^/(?:a|c)$", "^/(a|c/d)", `^/a\-b`,
		"/a", "a", "^a", "^/a+", "^/a?", "^/[a]", "^/a|^/b", "^/(a|b", "^(/a|/b)$", "^/a*", "^/a/b|c", "^(/a)(/b)", "^/a{1}", "^$", "", ".*", "^.*", `^/\w`, "^/(a|b)?$", "(?i)^/a", "^/a b",
		"^/a/../b", "^/..", "^/../", "^/a/..", "^/a/./b", "^/a/.", "^//a", "^/a//", "^/(a|)", "^/(..|a)/", `^/\.\.`, `^/a/\.\./`} {
		text, _ := convertText(t, usual+"insecure_oidc_allow_unverified_email = true\nemail_domains = '*'\nupstreams = 'http://127.0.0.1:1'\nskip_auth_regex = ['"+expression+"']\n")
		c := parsed(t, text)
		was, err := regexp.Compile(expression)
		if err != nil && len(c.Routes) > 0 {
			t.Errorf("%q is no regular expression, and became %v", expression, c.Routes)
		}
		converts += len(c.Routes)
		for _, p := range paths {
			for _, r := range c.Routes {
				open := p == r.Path || !r.Exact && strings.HasPrefix(p, strings.TrimSuffix(r.Path, "/")+"/")
				if open && !was.MatchString(p) && !was.MatchString(p+"/") {
					t.Errorf("%s was not open by %q, and is by %+v", p, expression, r)
				}
			}
		}
	}
	if converts < 16 {
		t.Errorf("only %d became routes", converts)
	}
}
