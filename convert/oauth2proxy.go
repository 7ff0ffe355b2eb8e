package convert

import (
	"cmp"
	"maps"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// nobody stands where somebody has to write what convert cannot know.
const nobody = "REPLACE-ME@example.invalid"

// config is the whole configuration.
func (c *conversion) config() (o object) {
	c.unconverted()
	public := c.publicURL()
	o.add("public_url", public)
	tls := c.has("https_address") && c.has("tls_cert_file")
	o.add("listen", c.listen(tls))
	o.add("prefix", c.prefix())
	cert, key := c.text("tls_cert_file"), c.text("tls_key_file")
	if tls {
		o.add("tls", object{{"cert_file", cert}, {"key_file", key}})
	} else if cert != "" {
		c.remark("tls_cert_file", "counts with https_address only, which is not there", "")
	}
	if at := c.text("metrics_address"); at != "" {
		o.add("admin", object{{"listen", address(at)}})
	}
	o.add("trusted_proxies", c.trustedProxies())
	o.add("provider", c.provider())
	o.add("session", c.session(strings.HasPrefix(public, "https:")))
	allow := c.allow()
	apps := c.apps()
	if apps.all != nil {
		o.add("upstream", apps.all)
	}
	o.add("routes", c.routes(apps, allow))
	o.add("sign_in_page", !c.truth("skip_provider_button", false))
	o.add("identity", c.identity())
	o.add("bearer", c.bearer())
	if c.truth("set_xauthrequest", false) || apps.none {
		at := "set_xauthrequest"
		if !c.has(at) {
			at = "upstreams"
		}
		c.remark(at, "is for a front proxy that asks for decisions: forward_auth is on", "run authproxy print-config for it: endpoints and headers have other names")
		o.add("forward_auth", object{{"domains", []string{}}})
	}
	return o
}

// silent are options that change nothing here, or are always as they may have been.
var silent = strings.Fields(`cookie_httponly cookie_path cookie_name cookie_csrf_per_request cookie_csrf_per_request_limit cookie_csrf_expire cookie_csrf_samesite
	force_code_challenge_method insecure_oidc_skip_nonce proxy_websockets flush_interval approval_prompt encode_state skip_claims_from_profile_url gcp_healthchecks
	ping_user_agent silence_ping_logging standard_logging standard_logging_format request_logging request_logging_format auth_logging auth_logging_format
	logging_filename logging_max_size logging_max_age logging_max_backups logging_local_time logging_compress exclude_logging_paths errors_to_info_log
	request_id_header show_debug_on_error force_json_errors session_cookie_minimal backend_logout_url redis_connection_idle_timeout`)

// without are options that have no equivalent: the problem, and what to do.
var without = map[string][2]string{
	"cookie_secret":                          {"is not taken over: users sign in once more", "export AUTHPROXY_SESSION_KEY=$(authproxy keygen)"},
	"cookie_secret_file":                     {"is not taken over: users sign in once more", "export AUTHPROXY_SESSION_KEY=$(authproxy keygen)"},
	"ping_path":                              {"has no equivalent here: health checks are /healthz and /readyz of the admin listener", "set admin.listen to where they come from"},
	"ready_path":                             {"has no equivalent here: health checks are /healthz and /readyz of the admin listener", "set admin.listen to where they come from"},
	"htpasswd_file":                          {"has no equivalent: users sign in at the provider", "give those users accounts there, or programs access tokens (bearer)"},
	"htpasswd_user_groups":                   {"has no equivalent, as htpasswd_file", ""},
	"display_htpasswd_form":                  {"has no equivalent, as htpasswd_file", ""},
	"trusted_ips":                            {"has no equivalent: an address lets nobody in", "open what may be open to all with a route that allows anyone"},
	"custom_templates_dir":                   {"has no equivalent: the pages are those of authproxy", ""},
	"custom_sign_in_logo":                    {"has no equivalent: the pages are those of authproxy", ""},
	"banner":                                 {"has no equivalent: the pages are those of authproxy", ""},
	"footer":                                 {"has no equivalent: the pages are those of authproxy", ""},
	"basic_auth_password":                    {"has no equivalent: the app gets no made-up password", "verify the assertion in the app (docs/apps.md)"},
	"pass_basic_auth":                        {"has no equivalent: the app gets no made-up password", "verify the assertion in the app (docs/apps.md)"},
	"set_basic_auth":                         {"has no equivalent: the app gets no made-up password", "verify the assertion in the app (docs/apps.md)"},
	"pass_authorization_header":              {"has no equivalent: ID tokens are not sent to apps", "verify X-Authproxy-Assertion in the app, or send the access token (identity.access_token)"},
	"set_authorization_header":               {"has no equivalent: ID tokens are not sent to apps", "verify X-Authproxy-Assertion in the app, or send the access token (identity.access_token)"},
	"whitelist_domains":                      {"has no equivalent: return_to leads to hosts of the configuration only", "name other hosts as hosts of routes, or in forward_auth.domains"},
	"force_https":                            {"has no equivalent", "let what ends HTTPS in front redirect"},
	"skip_oidc_discovery":                    {"has no equivalent: there is always discovery", ""},
	"login_url":                              {"has no equivalent: endpoints come from discovery", ""},
	"redeem_url":                             {"has no equivalent: endpoints come from discovery", ""},
	"profile_url":                            {"has no equivalent: endpoints come from discovery", "write provider.userinfo: true where claims are missing from the ID token"},
	"validate_url":                           {"has no equivalent: endpoints come from discovery", ""},
	"oidc_jwks_url":                          {"has no equivalent: endpoints come from discovery", ""},
	"oidc_extra_audiences":                   {"has no equivalent: ID tokens are for the client alone", ""},
	"oidc_audience_claims":                   {"has no equivalent: the audience is in aud", ""},
	"insecure_oidc_skip_issuer_verification": {"has no equivalent: the issuer is always verified", ""},
	"ssl_insecure_skip_verify":               {"has no equivalent for the provider", "name its CA in provider.ca_file"},
	"user_id_claim":                          {"has no equivalent: users are known by sub", "identity.headers chooses what X-Forwarded-User says"},
	"real_client_ip_header":                  {"has no equivalent: it is X-Forwarded-For", ""},
	"resource":                               {"has no equivalent", "write provider.audience, or provider.params"},
	"google_admin_email":                     {"has no equivalent: groups come from a claim", ""},
	"google_service_account_json":            {"has no equivalent: groups come from a claim", ""},
	"signature_key":                          {"has no equivalent", "identity.message_signature signs forwarded requests"},
	"jwt_key":                                {"has no equivalent", "provider.private_key_file"},
	"jwt_key_file":                           {"has no equivalent", "provider.private_key_file"},
	"disable_keep_alives":                    {"has no equivalent", ""},
	"tls_cipher_suites":                      {"has no equivalent: they are Go's", ""},
	"tls_min_version":                        {"has no equivalent: TLS 1.2", ""},
}

// unconverted says what becomes of the options that nothing is made of.
func (c *conversion) unconverted() {
	for _, name := range silent {
		c.seen[name] = true
	}
	for name, why := range without {
		if c.has(name) {
			c.remark(name, why[0], why[1])
		}
	}
	if c.text("code_challenge_method") == "plain" {
		c.remark("code_challenge_method", "is S256 here", "")
	}
}

// prefix is as it was, so that the callback stays.
func (c *conversion) prefix() string {
	return "/" + strings.Trim(cmp.Or(c.text("proxy_prefix"), "/oauth2"), "/")
}

// publicURL is the origin of redirect_url.
func (c *conversion) publicURL() string {
	const unknown = "https://REPLACE-ME.example.com"
	u, err := url.Parse(c.text("redirect_url"))
	if err != nil || u.Host == "" {
		c.remark("redirect_url", "is missing, and what users type cannot be told from the rest", "write it as public_url")
		return unknown
	}
	if want := c.prefix() + "/callback"; u.Path != want {
		c.remark("redirect_url", "has another path than the callback here, "+want, "register the URL that authproxy check prints")
	}
	if u.Scheme != "https" && !loopback(u.Hostname()) {
		c.remark("redirect_url", "is not https, which is for loopback hosts only", "see that users reach it by https")
		u.Scheme = "https"
	}
	return u.Scheme + "://" + u.Host
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// listen is where authproxy listens.
func (c *conversion) listen(tls bool) string {
	plain := c.text("http_address")
	if tls {
		if plain != "" {
			c.remark("http_address", "has no equivalent beside https_address: there is one listener", "")
		}
		return address(c.text("https_address"))
	}
	return address(cmp.Or(plain, "127.0.0.1:4180"))
}

// address is an address without a scheme.
func address(at string) string {
	if p, ok := strings.CutPrefix(at, "unix://"); ok {
		return "unix:" + p
	}
	_, rest, found := strings.Cut(at, "://")
	if !found {
		rest = at
	}
	return rest
}

func (c *conversion) trustedProxies() []string {
	nets := c.list("trusted_proxy_ips")
	if c.truth("reverse_proxy", false) && len(nets) == 0 {
		c.remark("reverse_proxy", "believed X-Forwarded-* of everybody; here nobody is believed by default", "name the addresses of the proxy in front in trusted_proxies")
	}
	for i, n := range nets {
		if ip, err := netip.ParseAddr(n); err == nil {
			nets[i] = netip.PrefixFrom(ip, ip.BitLen()).String()
		}
	}
	return nets
}

// issuers of providers that need no oidc_issuer_url.
var issuers = map[string]string{"google": "https://accounts.google.com", "gitlab": "https://gitlab.com"}

func (c *conversion) provider() (o object) {
	kind := cmp.Or(c.text("provider"), "google")
	issuer := cmp.Or(c.text("oidc_issuer_url"), issuers[kind])
	if tenant := c.text("azure_tenant"); issuer == "" && tenant != "" && tenant != "common" {
		issuer = "https://login.microsoftonline.com/" + tenant + "/v2.0"
	}
	if u, err := url.Parse(issuer); err == nil && strings.HasSuffix(u.Hostname(), ".auth0.com") {
		o.add("domain", u.Host)
	} else if issuer != "" {
		o.add("issuer", issuer)
	} else {
		c.remark("provider", "is "+kind+", of which no issuer is known: it may be no OpenID Provider, or oidc_issuer_url is missing", "write the issuer of one, such as Auth0 or Keycloak in front of it, as provider.issuer")
		o.add("issuer", "https://REPLACE-ME.example.com/")
	}
	o.add("client_id", cmp.Or(c.text("client_id"), "REPLACE-ME"))
	if file := c.text("client_secret_file"); file != "" {
		o.add("client_secret", literal("${file:"+strings.ReplaceAll(file, "$", "$$")+"}"))
	} else {
		o.add("client_secret", literal("${OAUTH2_PROXY_CLIENT_SECRET}"))
		c.remark("client_secret", "is not repeated", "put it into the environment as OAUTH2_PROXY_CLIENT_SECRET")
	}
	c.seen["client_secret"] = true
	scopes := strings.Fields(c.text("scope"))
	if len(scopes) > 0 && !slices.Contains(scopes, "openid") {
		scopes = append([]string{"openid"}, scopes...)
	}
	o.add("scopes", scopes)
	var params object
	params.add("prompt", c.text("prompt"))
	params.add("acr_values", c.text("acr_values"))
	o.add("params", params)
	var claims object
	if g := c.text("oidc_groups_claim"); g != "groups" {
		claims.add("groups", g)
	}
	if e := c.text("oidc_email_claim"); e != "email" {
		claims.add("email", e)
	}
	o.add("claims", claims)
	if ca := c.list("provider_ca_files"); len(ca) > 0 {
		o.add("ca_file", ca[0])
		if len(ca) > 1 {
			c.remark("provider_ca_files", "are several, and ca_file is one", "put them into one file")
		}
	}
	return o
}

func (c *conversion) session(secure bool) (o object) {
	o.add("keys", []literal{"${AUTHPROXY_SESSION_KEY}"})
	switch kind := c.text("session_store_type"); kind {
	case "", "cookie":
	case "redis":
		o.add("store", "redis")
		o.add("redis", object{{"url", c.redis()}})
	default:
		c.remark("session_store_type", kind+" is unknown here", "choose cookie, file or redis")
	}
	for _, name := range []string{"redis_connection_url", "redis_password", "redis_username", "redis_use_sentinel", "redis_sentinel_master_name", "redis_sentinel_connection_urls",
		"redis_sentinel_password", "redis_use_cluster", "redis_cluster_connection_urls", "redis_ca_path"} {
		c.seen[name] = true // they count for redis only
	}
	if c.has("redis_insecure_skip_tls_verify") {
		c.remark("redis_insecure_skip_tls_verify", "has no equivalent", "name the CA in the URL: ?ca_file=/path")
	}
	if life := c.duration("cookie_expire"); life != "" {
		o.add("idle_timeout", life)
		o.add("max_lifetime", life)
	}
	if c.has("cookie_refresh") && !slices.Contains(strings.Fields(c.text("scope")), "offline_access") {
		c.remark("cookie_refresh", "needs no value here: tokens are renewed before they expire, when there is a refresh token", "most providers give one for the scope offline_access")
	}
	var cookie object
	if domains := c.list("cookie_domains"); len(domains) > 0 {
		cookie.add("domain", strings.TrimPrefix(domains[0], "."))
		if len(domains) > 1 {
			c.remark("cookie_domains", "are several, and a session has one cookie", "choose the one that all hosts are under")
		}
	}
	if s := c.text("cookie_samesite"); s != "lax" {
		cookie.add("same_site", s)
	}
	o.add("cookie", cookie)
	if !c.truth("cookie_secure", true) && secure {
		c.remark("cookie_secure", "has no equivalent: over https cookies are always Secure", "")
	}
	return o
}

// redis is the URL of Redis.
func (c *conversion) redis() any {
	hosts, query := c.list("redis_connection_url"), url.Values{}
	switch {
	case c.truth("redis_use_sentinel", false):
		hosts = c.list("redis_sentinel_connection_urls")
		query.Set("master_set", c.text("redis_sentinel_master_name"))
	case c.truth("redis_use_cluster", false):
		hosts = c.list("redis_cluster_connection_urls")
	}
	if ca := c.text("redis_ca_path"); ca != "" {
		query.Set("ca_file", ca)
	}
	scheme, database, secret := "redis", "", c.has("redis_password") || c.has("redis_username") || c.has("redis_sentinel_password")
	var at []string
	for _, h := range hosts {
		u, err := url.Parse(h)
		if err != nil {
			secret = true
			continue
		}
		scheme, database = cmp.Or(u.Scheme, scheme), cmp.Or(strings.Trim(u.Path, "/"), database)
		at, secret = append(at, u.Host), secret || u.User != nil || u.RawQuery != ""
	}
	if secret || len(at) == 0 {
		c.remark("redis_connection_url", "may hold a password, and is not repeated", "put redis://USER:PASSWORD@HOST:6379/0 into the environment as AUTHPROXY_REDIS_URL; several hosts are a cluster, with ?master_set=NAME Sentinels")
		return literal("${AUTHPROXY_REDIS_URL}")
	}
	to := scheme + "://" + strings.Join(at, ",") + "/" + database
	if len(query) > 0 {
		to += "?" + query.Encode()
	}
	return to
}

// allow is what a route asks of users.
func (c *conversion) allow() any {
	domains, anyDomain := []string(nil), false
	for _, d := range c.list("email_domains") {
		switch {
		case d == "*":
			anyDomain = true
		case strings.HasPrefix(d, ".") || strings.HasPrefix(d, "*."):
			c.remark("email_domains", "has "+d+", and domains stand for themselves here", "write each domain")
		default:
			domains = append(domains, strings.ToLower(d))
		}
	}
	var emails []string
	if c.has("authenticated_emails_file") {
		emails = []string{nobody}
		c.remark("authenticated_emails_file", "is not read", "write its addresses in place of "+nobody)
	}
	if !anyDomain && len(domains) == 0 && len(emails) == 0 {
		emails = []string{nobody}
		c.remark("email_domains", "is missing, and nobody is let in", `write who may come in place of `+nobody+`, or allow: signed_in`)
	}
	restrictions := []string{"allowed_groups", "google_group", "google_groups", "keycloak_group", "keycloak_groups", "gitlab_group", "gitlab_groups", "gitlab_projects",
		"github_org", "github_team", "github_users", "github_repo", "bitbucket_team", "bitbucket_repository"}
	for _, name := range slices.Sorted(maps.Keys(c.options)) {
		if strings.HasPrefix(name, "allowed_") && name != "allowed_groups" { // those that come with another version too
			restrictions = append(restrictions, name)
		}
	}
	var groups []string
	for _, name := range restrictions {
		if !c.has(name) {
			continue
		}
		groups = append(groups, c.list(name)...)
		if name != "allowed_groups" {
			c.remark(name, "is taken as groups: who has none of that name in the claim provider.claims.groups is not let in", "see that the provider sends them, and under which names (docs/providers.md)")
		}
	}
	unverified := c.truth("insecure_oidc_allow_unverified_email", false)
	if anyDomain && unverified && len(groups) == 0 {
		return "signed_in"
	}
	if anyDomain && !unverified {
		c.remark("email_domains", "let nobody in whose e-mail address the provider calls unverified; here it has to call it verified", "where it says nothing about that, remove the claim email_verified from allow")
	}
	var entries []object
	entry := func(name string, values []string) {
		var e object
		switch {
		case name == "" && !unverified:
			e.add("claims", object{{"email_verified", []string{"true"}}})
		case name == "":
		case len(values) == 0:
			return
		default:
			e.add(name, values)
			if unverified {
				e.add("unverified_email", true)
			}
		}
		e.add("groups", groups)
		entries = append(entries, e)
	}
	if anyDomain {
		entry("", nil)
	} else {
		entry("email_domains", domains)
		entry("emails", emails)
	}
	return entries
}

// An app is where a path leads.
type app struct {
	path  string // "/" is all that has no other
	exact bool
	to    any // text, or object
}

type apps struct {
	all   any   // where paths lead that have none of their own; nil: nowhere
	paths []app // of others, the longest first
	none  bool  // there are none, and somebody else asks
}

// at is what serves a path: nil is apps.all.
func (a apps) at(p string) any {
	for _, one := range a.paths {
		if p == one.path || !one.exact && below(p, one.path) {
			return one.to
		}
	}
	return nil
}

func below(p, tree string) bool { return tree == "/" || strings.HasPrefix(p, tree+"/") }

func (c *conversion) apps() (all apps) {
	for _, text := range c.list("upstreams") {
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Scheme == "file" || u.Fragment != "":
			c.remark("upstreams", "has "+text+", which has no equivalent", "serve files with a web server, and name that")
			continue
		case u.Scheme == "static":
			all.none = true
			continue
		case u.Scheme == "unix":
			all.all = c.upstream("unix:" + u.Path)
			continue
		case u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			c.remark("upstreams", "has "+text+", which is no URL", "write the app's URL")
			continue
		}
		to := c.upstream(u.Scheme + "://" + u.Host)
		switch clean := path.Clean("/" + u.Path); {
		case clean == "/":
			all.all = to
		default:
			all.paths = append(all.paths, app{clean, !strings.HasSuffix(u.Path, "/"), to})
		}
	}
	all.none = all.none && all.all == nil && len(all.paths) == 0
	if all.all == nil && len(all.paths) == 0 && !all.none {
		c.remark("upstreams", "is missing: there is no app", "write where it is as upstream")
		all.all = "http://127.0.0.1:1" // where nobody listens
	}
	slices.SortStableFunc(all.paths, func(a, b app) int { return len(b.path) - len(a.path) })
	return all
}

// upstream is the value of our key of that name.
func (c *conversion) upstream(to string) any {
	var more object
	if d := c.duration("upstream_timeout"); d != "" {
		more.add("timeout", d)
	}
	if !c.truth("pass_host_header", true) {
		more.add("preserve_host", false)
	}
	if c.truth("ssl_upstream_insecure_skip_verify", false) && strings.HasPrefix(to, "https:") {
		more.add("insecure_skip_verify", true)
	}
	if len(more) == 0 {
		return to
	}
	return append(object{{"url", to}}, more...)
}

// routes are the exceptions, then what has an app of its own, then the rest.
func (c *conversion) routes(all apps, allow any) (routes []object) {
	var taken []exception // by routes for all methods
	route := func(e exception, allow, to any, more ...member) {
		if slices.ContainsFunc(taken, func(t exception) bool {
			return t.path == e.path && (e.exact || !t.exact) || !t.exact && below(e.path, t.path)
		}) {
			return // it could never match
		}
		if to == nil && all.all == nil && !all.none {
			return // it leads nowhere
		}
		if len(e.methods) == 0 {
			taken = append(taken, e)
		}
		r := object{{"path", e.path}}
		if e.exact {
			r.add("exact", true)
		}
		r.add("methods", e.methods)
		r.add("allow", allow)
		r = append(r, more...)
		if to != nil {
			r.add("upstream", to)
		}
		routes = append(routes, r)
	}
	except := func(e exception, allow any, more ...member) { // also where apps have paths below that
		for _, a := range all.paths {
			if !e.exact && a.path != e.path && below(a.path, e.path) {
				route(exception{a.path, a.exact, e.methods}, allow, a.to, more...)
			}
		}
		route(e, allow, all.at(e.path), more...)
	}
	for _, name := range []string{"skip_auth_routes", "skip_auth_regex"} {
		for _, text := range c.list(name) {
			for _, e := range c.exceptions(name, text) {
				except(e, "anyone")
			}
		}
	}
	if c.truth("skip_auth_preflight", false) {
		except(exception{"/", false, []string{"OPTIONS"}}, "anyone")
	}
	for _, text := range c.list("api_routes") {
		for _, e := range c.exceptions("api_routes", text) {
			except(e, allow, member{"unauthenticated", "401"})
		}
	}
	for _, a := range all.paths {
		route(exception{a.path, a.exact, nil}, allow, a.to)
	}
	if allow != any("signed_in") {
		route(exception{"/", false, nil}, allow, nil)
	}
	return routes
}

// An exception is a part of the paths, and of the methods where there are any.
type exception struct {
	path    string
	exact   bool
	methods []string
}

var (
	choice = regexp.MustCompile(`^([^()]*)\((?:\?:)?([^()]*)\)([^()]*)$`)
	plain  = regexp.MustCompile(`^(?:/(?:[A-Za-z0-9_~.-]|\\[./_-])*)*$`)
)

// exceptions reads what oauth2-proxy takes for a route: METHOD=REGEXP, or a regular expression alone. What means a path, or a path and all
// below it, becomes one. It is taken by whole segments, which is narrower; only the path itself comes with what is below it.
func (c *conversion) exceptions(name, text string) (all []exception) {
	expression, methods := text, []string(nil)
	if method, rest, found := strings.Cut(text, "="); found && name == "skip_auth_routes" {
		if method, expression = strings.ToUpper(method), rest; strings.HasSuffix(method, "!") {
			expression = "" // all paths but these
		}
		if method != "" {
			methods = strings.Split(method, ",")
		}
	}
	each := []string{expression}
	if m := choice.FindStringSubmatch(expression); m != nil {
		each = nil
		for one := range strings.SplitSeq(m[2], "|") {
			each = append(each, m[1]+one+m[3])
		}
	}
	for _, one := range each {
		rest, anchored := strings.CutPrefix(one, "^")
		rest, end := strings.CutSuffix(rest, "$")
		rest, open := strings.CutSuffix(rest, ".*")
		literal := strings.ReplaceAll(rest, `\`, "")
		if literal != "/" {
			literal = strings.TrimSuffix(literal, "/")
		}
		// What a path is cleaned to may be above what the expression means: the dots of ^/../ stand for any characters.
		if !anchored || !plain.MatchString(rest) || literal == "" || path.Clean(literal) != literal {
			c.remark(name, "has "+text+", which is no path, or a path and all below it: it is left out", "write routes for what it means")
			return nil
		}
		all = append(all, exception{literal, end && !open, methods})
	}
	return all
}

func (c *conversion) identity() (o object) {
	if !c.truth("pass_user_headers", true) && !c.truth("set_xauthrequest", false) {
		o = append(o, member{"headers", object(nil)})
	} else if c.truth("prefer_email_to_user", false) {
		o.add("headers", object{{"X-Forwarded-User", "email"}, {"X-Forwarded-Email", "email"}, {"X-Forwarded-Preferred-Username", "username"}, {"X-Forwarded-Groups", "groups"}})
	}
	if c.truth("pass_access_token", false) {
		c.remark("pass_access_token", "sends the access token as Authorization: Bearer here, not as X-Forwarded-Access-Token", "change the app, or remove identity.access_token")
		o.add("access_token", true)
	}
	return o
}

// bearer is for API clients that come with a token.
func (c *conversion) bearer() (o object) {
	if !c.truth("skip_jwt_bearer_tokens", false) {
		if c.has("extra_jwt_issuers") {
			c.remark("extra_jwt_issuers", "counts with skip_jwt_bearer_tokens only, which is not there", "")
		}
		return nil
	}
	var trusted, audiences []string
	for _, text := range c.list("extra_jwt_issuers") {
		issuer, audience, _ := strings.Cut(text, "=")
		trusted = append(trusted, issuer)
		if !slices.Contains(audiences, audience) {
			audiences = append(audiences, audience)
		}
	}
	if len(audiences) != 1 {
		c.remark("skip_jwt_bearer_tokens", "let in ID tokens for the client; here it is access tokens, for one audience", "write bearer: {audience: ...} with the API's identifier, and issuers where they are not the provider")
		return nil
	}
	o.add("issuers", trusted)
	o.add("audience", audiences[0])
	return o
}
