package config

import (
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

const (
	second = time.Second
	minute = time.Minute
	hour   = time.Hour
	day    = 24 * time.Hour
	year   = 365 * day
)

// Fields are the names of what is known about every user, usable in identity.headers and in a route's claims beside the
// claims of identity.claims.
func Fields() []string {
	return []string{"iss", "sub", "email", "email_verified", "name", "username", "groups", "org_id", "permissions", "scopes", "acr", "auth_time"}
}

// defaults is the configuration of an empty file, were nothing required.
func defaults() *Config {
	return &Config{
		Listen: Addr{"tcp", ":8080"},
		Prefix: "/auth",
		Admin:  Admin{Listen: Addr{"tcp", "127.0.0.1:9090"}},
		Log:    Log{Format: "auto"},
		Provider: Provider{
			ClientAuth: "auto",
			Scopes:     []string{"openid", "profile", "email"},
			IDTokenAlg: "RS256",
			Leeway:     minute,
			Claims:     Claims{Groups: "groups", Email: "email", Name: "name", Username: "preferred_username"},
			Logout:     "auto",
		},
		Session: Session{
			Store:       "cookie",
			IdleTimeout: 24 * hour,
			MaxLifetime: 7 * day,
			Refresh:     true,
			Cache:       128 << 20,
			Cookie:      Cookie{Name: "authproxy", SameSite: "lax"},
			FilePath:    "/var/lib/authproxy/sessions.db",
			Redis:       Redis{URL: "redis://127.0.0.1:6379/0", Prefix: "authproxy:", MaxStaleness: second},
		},
		Identity: Identity{
			Headers: []Header{ // sorted by name
				{"X-Forwarded-Email", "email"},
				{"X-Forwarded-Groups", "groups"},
				{"X-Forwarded-Preferred-Username", "username"},
				{"X-Forwarded-User", "sub"},
			},
			StripForeign: true,
			Assertion:    Assertion{Header: "X-Authproxy-Assertion", TTL: 2 * minute},
		},
		Shutdown: Shutdown{Delay: 500 * time.Millisecond, Grace: 30 * second},
		Limits:   Limits{Header: 64 << 10, HeaderTimeout: 10 * second, LoginPerMinute: 60},
	}
}

// schema is every key that there is, and where its value goes in c.
func (l *loader) schema(c *Config) []key {
	p, s, id := &c.Provider, &c.Session, &c.Identity
	return []key{
		required("public_url", "write the URL that users type, such as public_url: https://app.example.com", value(&c.PublicURL, publicURL)),
		optional("listen", value(&c.Listen, listenAddr)),
		optional("prefix", value(&c.Prefix, prefix)),
		section("tls",
			optional("cert_file", valueOrNone(&c.TLS.CertFile, l.filePath)),
			optional("key_file", valueOrNone(&c.TLS.KeyFile, l.filePath)),
		),
		section("admin",
			optional("listen", valueOrNone(&c.Admin.Listen, listenAddr)),
			optional("token", secret(valueOrNone(&c.Admin.Token, minBytes(16)))),
		),
		optional("trusted_proxies", list(&c.TrustedProxies, network)),
		section("log",
			optional("level", value(&c.Log.Level, logLevel)),
			optional("format", value(&c.Log.Format, oneOf("auto", "text", "json"))),
		),
		section("provider",
			optional("domain", valueOrNone(&p.Domain, hostAndPort)),
			optional("issuer", valueOrNone(&p.Issuer, issuer)),
			required("client_id", "write the client ID that the provider gave to this application", value(&p.ClientID, nonEmpty)),
			optional("client_secret", secret(valueOrNone(&p.ClientSecret, nonEmpty))),
			optional("private_key_file", valueOrNone(&p.PrivateKey, l.privateKey)),
			optional("client_auth", value(&p.ClientAuth, oneOf("auto", "post", "basic", "private_key_jwt"))),
			optional("audience", valueOrNone(&p.Audience, nonEmpty)),
			optional("scopes", list(&p.Scopes, scope)),
			optional("params", params(&p.Params)),
			optional("connections", list(&p.Connections, nonEmpty)),
			optional("organization", valueOrNone(&p.Organization, nonEmpty)),
			optional("id_token_alg", value(&p.IDTokenAlg, oneOf("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"))),
			optional("leeway", value(&p.Leeway, duration(0, 5*minute))),
			section("claims",
				optional("groups", value(&p.Claims.Groups, nonEmpty)),
				optional("email", value(&p.Claims.Email, nonEmpty)),
				optional("name", value(&p.Claims.Name, nonEmpty)),
				optional("username", value(&p.Claims.Username, nonEmpty)),
			),
			optional("logout", value(&p.Logout, oneOf("auto", "auth0", "oidc", "local"))),
			optional("federated_logout", boolean(&p.Federated)),
			optional("userinfo", boolean(&p.Userinfo)),
			optional("ca_file", valueOrNone(&p.CAs, l.roots)),
		),
		section("session",
			required("keys", `write keys: ["${AUTHPROXY_SESSION_KEY}"] with a key that authproxy keygen printed`, secret(someOf(&s.Keys, sessionKey))),
			optional("store", value(&s.Store, oneOf("cookie", "file", "redis"))),
			optional("idle_timeout", value(&s.IdleTimeout, duration(second, year))),
			optional("max_lifetime", value(&s.MaxLifetime, duration(second, year))),
			optional("refresh", boolean(&s.Refresh)),
			optional("cache", value(&s.Cache, size(1<<10, 64<<20))),
			section("cookie",
				optional("name", value(&s.Cookie.Name, cookieName)),
				optional("domain", valueOrNone(&s.Cookie.Domain, cookieDomain)),
				optional("same_site", value(&s.Cookie.SameSite, oneOf("lax", "strict", "none"))),
			),
			section("file",
				optional("path", value(&s.FilePath, l.filePath)),
			),
			section("redis",
				optional("url", secret(value(&s.Redis.URL, redisURL))),
				optional("prefix", value(&s.Redis.Prefix, anyText)),
				optional("max_staleness", value(&s.Redis.MaxStaleness, duration(100*time.Millisecond, minute))),
			),
		),
		l.upstream(&c.Upstream),
		mappings("routes", &c.Routes, l.route),
		optional("sign_in_page", boolean(&c.SignInPage)),
		section("identity",
			optional("headers", headers(&id.Headers)),
			optional("claims", list(&id.Claims, nonEmpty)),
			optional("only_groups", list(&id.OnlyGroups, nonEmpty)),
			optional("strip_foreign", boolean(&id.StripForeign)),
			section("assertion",
				optional("header", valueOrNone(&id.Assertion.Header, headerName)),
				optional("ttl", value(&id.Assertion.TTL, duration(2*second, hour))),
				optional("audience", valueOrNone(&id.Assertion.Audience, nonEmpty)),
			),
			section("message_signature",
				optional("algorithm", valueOrNone(&id.MessageSignature.Algorithm, oneOf("hmac-sha256", "ed25519", "ecdsa-p256-sha256"))),
				optional("key", secret(valueOrNone(&id.MessageSignature.Key, sharedKey))),
			),
			optional("signing_keys", list(&id.SigningKeys, l.signingKey)),
			optional("access_token", boolean(&id.AccessToken)),
		),
		feature("bearer", &c.Bearer, Bearer{}, func(b *Bearer) []key {
			return []key{
				optional("issuers", list(&b.Issuers, issuer)),
				optional("audience", valueOrNone(&b.Audience, nonEmpty)),
			}
		}),
		feature("app_token", &c.AppToken, AppToken{TTL: 10 * minute}, func(a *AppToken) []key {
			return []key{
				optional("ttl", value(&a.TTL, duration(2*second, day))),
				optional("handoff", boolean(&a.Handoff)),
				optional("key", secret(valueOrNone(&a.Key, sharedKey))),
			}
		}),
		feature("forward_auth", &c.ForwardAuth, ForwardAuth{}, func(f *ForwardAuth) []key {
			return []key{
				optional("trust", trust(f)),
				optional("shared_secret", secret(valueOrNone(&f.SharedSecret, minBytes(16)))),
				optional("domains", list(&f.Domains, hostName)),
				optional("grpc_listen", valueOrNone(&f.GRPCListen, listenAddr)),
			}
		}),
		section("shutdown",
			optional("delay", value(&c.Shutdown.Delay, duration(0, 5*minute))),
			optional("grace", value(&c.Shutdown.Grace, duration(0, hour))),
		),
		section("limits",
			optional("header", value(&c.Limits.Header, size(8, 1024))),
			optional("header_timeout", value(&c.Limits.HeaderTimeout, duration(second, 5*minute))),
			optional("login_per_minute", value(&c.Limits.LoginPerMinute, integer(1, 1_000_000))),
		),
	}
}

// route is the keys of a route.
func (l *loader) route(r *Route) []key {
	return []key{
		required("path", "write the path that the route is for, such as path: /admin, or path: / for all", value(&r.Path, routePath)),
		optional("exact", boolean(&r.Exact)),
		optional("host", valueOrNone(&r.Host, hostName)),
		optional("methods", someOf(&r.Methods, method)),
		{name: "allow", need: "say who may use it: allow: anyone, allow: signed_in, or a list such as [{groups: [admins]}]",
			decode: allow(r), below: allowKeys(new(Allow)), many: true},
		l.upstream(&r.Upstream),
		optional("strip_prefix", boolean(&r.StripPrefix)),
		optional("audience", valueOrNone(&r.Audience, nonEmpty)),
		optional("max_auth_age", value(&r.MaxAuthAge, duration(second, year))),
		optional("acr", valueOrNone(&r.ACR, nonEmpty)),
		optional("unauthenticated", value(&r.Unauthenticated, oneOf("login", "401"))),
		optional("timeout", value(&r.Timeout, duration(time.Millisecond, day))),
	}
}

// allow decodes who may use the route r.
func allow(r *Route) decoder {
	return func(l *loader, at string, n *yaml.Node) {
		const hint = "write anyone, signed_in, or a list such as [{groups: [admins]}, {emails: [ada@example.com]}]"
		switch {
		case n.Kind == yaml.ScalarNode:
			var word string
			value(&word, func(text string) (string, *fault) {
				f := &fault{problem: "is neither anyone nor signed_in nor a list", hint: hint, better: near(text, []string{"anyone", "signed_in"})}
				if text == "anyone" || text == "signed_in" {
					f = nil
				}
				return text, f
			})(l, at, n)
			r.Anyone, r.SignedIn = word == "anyone", word == "signed_in"
		case n.Kind != yaml.SequenceNode:
			l.mistakeIn(n.Line, at, "is "+kind(n)+", expected a word or a list", hint)
		case len(n.Content) == 0:
			l.mistakeIn(n.Line, at, "is an empty list, which would let nobody in", hint)
		default:
			r.Allow = make([]Allow, len(n.Content))
			l.each(at, n, func(i int, at string, n *yaml.Node) {
				if n.Kind == yaml.ScalarNode {
					l.word(at, n)
				} else {
					l.mapping(at, n, allowKeys(&r.Allow[i]))
				}
			})
		}
	}
}

// word reports a word in an allow list.
func (l *loader) word(at string, n *yaml.Node) {
	l.note(at, n)
	f := &fault{problem: "is a single value, expected a mapping", hint: "write an entry such as {groups: [admins]}", better: "{groups: [" + n.Value + "]} if it is a group"}
	if n.Value == "anyone" || n.Value == "signed_in" {
		f = &fault{problem: "stands alone, not in a list", hint: "write allow: " + n.Value}
	}
	l.fault(at, n, f)
}

// allowKeys is the keys of an entry of an allow list.
func allowKeys(a *Allow) []key {
	return []key{
		optional("groups", someOf(&a.Groups, nonEmpty)),
		optional("emails", someOf(&a.Emails, email)),
		optional("email_domains", someOf(&a.EmailDomains, emailDomain)),
		optional("subjects", someOf(&a.Subjects, nonEmpty)),
		optional("permissions", someOf(&a.Permissions, nonEmpty)),
		optional("scopes", someOf(&a.Scopes, scope)),
		optional("claims", claimValues(&a.Claims)),
		optional("organizations", someOf(&a.Organizations, nonEmpty)),
		optional("unverified_email", boolean(&a.UnverifiedEmail)),
	}
}

// upstream is the key of an upstream, a URL or a mapping.
func (l *loader) upstream(to **Upstream) key {
	begin := Upstream{Timeout: minute, PreserveHost: true}
	f := feature("upstream", to, begin, func(u *Upstream) []key {
		return []key{
			required("url", "write where the app is, such as url: http://127.0.0.1:5000", value(&u.URL, upstreamURL)),
			optional("ca_file", valueOrNone(&u.CAs, l.roots)),
			optional("timeout", value(&u.Timeout, duration(time.Millisecond, day))),
			optional("preserve_host", boolean(&u.PreserveHost)),
			optional("insecure_skip_verify", boolean(&u.InsecureSkipVerify)),
		}
	})
	f.switches = false // null is none, as everywhere
	mapping := f.decode
	f.decode = func(l *loader, at string, n *yaml.Node) {
		if n.Kind == yaml.MappingNode {
			mapping(l, at, n)
			return
		}
		u := begin
		if valueOrNone(&u.URL, upstreamURL)(l, at, n); u.URL != nil {
			*to = &u
		}
	}
	return f
}

// reservedParam says what to do instead of setting a parameter that is ours, "" when it is not. Such a parameter would
// override a check of ours or move the request elsewhere.
func reservedParam(name string) (hint string) {
	switch name {
	case "audience", "organization":
		return "write provider." + name + " instead"
	case "scope":
		return "write provider.scopes instead"
	case "max_age":
		return "write max_auth_age on the routes that need a fresh login"
	case "client_id", "client_secret", "client_assertion", "client_assertion_type", "redirect_uri", "response_type", "response_mode",
		"state", "nonce", "code_challenge", "code_challenge_method", "request", "request_uri":
		return "remove it: each login sets what it needs"
	}
	return ""
}

// params decodes further authorization parameters.
func params(to *map[string]string) decoder {
	return func(l *loader, at string, n *yaml.Node) {
		all := map[string]string{}
		l.entries(at, n, func(name, at string, n *yaml.Node) {
			var text string
			if hint := reservedParam(name); hint != "" {
				l.mistake(at, "is a parameter that we set ourselves", hint)
			} else if l.present(at, n) {
				value(&text, nonEmpty)(l, at, n)
			}
			all[name] = text
		})
		if len(all) > 0 {
			*to = all
		}
	}
}

// headers decodes the headers that are made from fields and claims, in place of the default ones.
func headers(to *[]Header) decoder {
	return func(l *loader, at string, n *yaml.Node) {
		var all []Header
		spelled := map[string]string{} // by folded name
		l.entries(at, n, func(name, at string, n *yaml.Node) {
			canonical, f := headerName(name)
			other := spelled[fold(name)]
			spelled[fold(name)] = name
			var source string
			switch {
			case f != nil:
				l.mistake(at, "the name "+f.problem, f.hint)
			case other != "":
				l.mistake(at, "is the same header as "+other+" for servers that do not tell - from _", "keep one of the two")
			case l.present(at, n):
				value(&source, nonEmpty)(l, at, n)
				l.lines[headerKey(canonical)], l.texts[headerKey(canonical)] = l.line(at), l.texts[at]
				all = append(all, Header{canonical, source})
			}
		})
		slices.SortFunc(all, func(a, b Header) int { return strings.Compare(a.Name, b.Name) })
		*to = all
	}
}

// headerKey is the path of a header's key, by its canonical name.
func headerKey(name string) string {
	return joinKey("identity.headers", textproto.CanonicalMIMEHeaderKey(name))
}

// claimValues decodes which values claims may have.
func claimValues(to *[]ClaimValues) decoder {
	return func(l *loader, at string, n *yaml.Node) {
		if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
			l.mistakeIn(n.Line, at, "is an empty mapping", "write a claim with its values, such as {department: [finance]}, or remove the key")
		}
		var all []ClaimValues
		l.entries(at, n, func(name, at string, n *yaml.Node) {
			one := ClaimValues{Name: name}
			if name == "" {
				l.mistake(at, "is no name of a claim", "write the name of a claim")
			} else if l.present(at, n) {
				someOf(&one.Values, nonEmpty)(l, at, n)
			}
			all = append(all, one)
		})
		slices.SortFunc(all, func(a, b ClaimValues) int { return strings.Compare(a.Name, b.Name) })
		*to = all
	}
}

// trust decodes who may ask for decisions.
func trust(f *ForwardAuth) decoder {
	return func(l *loader, at string, n *yaml.Node) {
		l.each(at, n, func(_ int, at string, n *yaml.Node) {
			var p netip.Prefix
			value(&p, func(text string) (netip.Prefix, *fault) {
				if text == "unix" {
					return netip.Prefix{}, nil
				}
				p, fault := network(text)
				if fault != nil {
					fault.hint += `, or "unix" for a Unix socket`
				}
				return p, fault
			})(l, at, n)
			switch {
			case p.IsValid():
				f.Trust = append(f.Trust, p)
			case l.sound(at):
				f.TrustUnix = true
			}
		})
	}
}

// sharedKey accepts the bytes of a text as a key for HMAC-SHA-256 (RFC 7518 §3.2: at least as long as the hash).
func sharedKey(text string) ([]byte, *fault) {
	_, f := minBytes(32)(text)
	return []byte(text), f
}
