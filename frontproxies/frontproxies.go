// Package frontproxies writes the configuration of those proxies that ask us, at PREFIX/verify/, whether a request may pass:
// each lets nothing past our decision, and nothing that a client sent in place of our word.
//
// Its tests run the configurations, in the real programs where Debian has them, and write down what passed in
// docs/front-proxies.md.
package frontproxies

import (
	"embed"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"authproxy/config"
	"authproxy/proxy"
)

//go:embed templates authproxy.lua
var files embed.FS

// lua is what Print calls the action of HAProxy, which its configuration loads.
const lua = "haproxy-lua"

// Names are what Print can write, in the order in which they are presented.
func Names() []string {
	return []string{"nginx", "ingress-nginx", "traefik", "caddy", "haproxy", lua, "envoy", "gateway-api"}
}

// Print writes the configuration of a front proxy, one of Names, for a configuration of ours with forward_auth. There is no
// secret in it: where shared_secret has to go it says so.
func Print(w io.Writer, name string, cfg *config.Config) error {
	if cfg.ForwardAuth == nil {
		return fmt.Errorf("front proxy %q: the configuration has no forward_auth", name)
	}
	if !slices.Contains(Names(), name) {
		return fmt.Errorf("%q is no front proxy that we know", name)
	}
	if name == lua {
		text, err := files.ReadFile("authproxy.lua")
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	t, err := template.New(name).Funcs(functions).ParseFS(files, "templates/*.tmpl")
	if err != nil {
		return err
	}
	return t.ExecuteTemplate(w, name+".tmpl", describe(cfg))
}

// A view is what templates see of a configuration.
type view struct {
	File      string
	PublicURL string // origin
	Scheme    string // of public_url, and so of every site
	TLS       bool   // the front proxy ends TLS
	Port      string // that it listens on
	Prefix    string // "" or "/auth"
	Own       []string
	LoginURL  string

	Authproxy address
	GRPC      address
	ByGRPC    bool
	Secret    bool
	Untold    bool // we do not believe the front proxy about client addresses

	Sites    []site
	Identity []string // what our answer says about the user: set for the app, or removed
	Foreign  []string // other products' words for it, by which no client may reach the app; a trailing * stands for any ending
	Odd      []string // characters of header names that some app reads as "-"
	Client   []string // what only the front proxy may say about the client's request, in the same way
	Asked    []string // what we judge a request by, for front proxies that send only what is named
	Early    []string // of Identity and Known, as many as Envoy Gateway removes before it asks
	Late     []string // of Known, as many as a Gateway removes after it has asked
	Known    []string // of Foreign and Client, the names that are in use, for front proxies that know no patterns
}

// A site is a host that we decide about, or that of public_url, where then only our own endpoints are.
type site struct {
	N       int
	Host    string // with the port, as clients send it
	Name    string // without
	App     address
	Known   bool // App is from the configuration
	OnlyOur bool
}

// An address is where somebody listens, as seen by the front proxy.
type address struct {
	Unix     string // path of the socket; then nothing else is set
	HostPort string
	TLS      bool
	Name     string // that the certificate is for
}

func (a address) Port() string { _, port, _ := net.SplitHostPort(a.HostPort); return port }
func (a address) Host() string { host, _, _ := net.SplitHostPort(a.HostPort); return host }

// URL is the address as an origin; the host of a Unix socket is a word that is never looked up.
func (a address) URL() string {
	switch {
	case a.Unix != "":
		return "http://authproxy"
	case a.TLS:
		return "https://" + a.HostPort
	}
	return "http://" + a.HostPort
}

var functions = template.FuncMap{
	"lower":   strings.ToLower,
	"join":    strings.Join,
	"without": without,
	"snake":   func(name string) string { return strings.ReplaceAll(strings.ToLower(name), "-", "_") },
	"regexp": func(patterns []string) string {
		var all []string
		for _, p := range patterns {
			q := regexp.QuoteMeta(strings.ToLower(p))
			all = append(all, strings.ReplaceAll(q, `\*`, ".*"))
		}
		return strings.Join(all, "|")
	},
}

func without(names []string, these ...string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(these, n) })
}

func describe(cfg *config.Config) view {
	f := cfg.ForwardAuth
	v := view{
		File: filepath.Base(cfg.File), PublicURL: cfg.PublicURL.Scheme + "://" + cfg.PublicURL.Host, Scheme: cfg.PublicURL.Scheme, TLS: cfg.PublicURL.Scheme == "https",
		Prefix: cfg.Prefix, Own: cfg.OwnPaths(), Secret: f.SharedSecret != "", Untold: len(cfg.TrustedProxies) == 0,
		Authproxy: reach(cfg.Listen), GRPC: reach(f.GRPCListen), ByGRPC: f.GRPCListen.Network != "",
	}
	v.LoginURL = v.PublicURL + v.Prefix + "/login"
	if v.Port = cfg.PublicURL.Port(); v.Port == "" {
		v.Port = map[bool]string{false: "80", true: "443"}[v.TLS]
	}
	if cfg.TLS.CertFile != "" {
		v.Authproxy.TLS, v.Authproxy.Name = true, cfg.PublicURL.Hostname()
	}
	for _, name := range f.Domains {
		v.Sites = append(v.Sites, siteOf(cfg, name))
	}
	switch public := cfg.PublicURL.Hostname(); {
	case len(f.Domains) == 0:
		v.Sites = append(v.Sites, siteOf(cfg, public))
	case !slices.Contains(f.Domains, public):
		v.Sites = append(v.Sites, site{Host: cfg.PublicURL.Host, Name: public, OnlyOur: true})
	}
	for i := range v.Sites {
		v.Sites[i].N = i + 1
	}

	for _, h := range cfg.Identity.Headers {
		v.Identity = append(v.Identity, h.Name)
	}
	if h := cfg.Identity.Assertion.Header; h != "" {
		v.Identity = append(v.Identity, h)
	}
	if cfg.Identity.AccessToken {
		v.Identity = append(v.Identity, "Authorization")
	}
	v.Odd = strings.Split("_.!#$%&'*+^`|~", "")
	v.Client = proxy.ClientHeaders()
	if cfg.Identity.StripForeign {
		v.Foreign = proxy.ForeignHeaders()
	}
	for _, name := range known {
		if matches(slices.Concat(v.Client, v.Foreign), name) && !slices.ContainsFunc(v.Identity, func(i string) bool { return strings.EqualFold(i, name) }) {
			v.Known = append(v.Known, name)
		}
	}
	// A Gateway removes 16 after the question, and Envoy Gateway 64 before: there is room for what is most in use.
	client := func(n string) bool { return !matches(v.Foreign, n) }
	first := strings.Fields("X-Forwarded-For Forwarded X-Forwarded-Host X-Real-Ip")
	v.Early = slices.Concat(without(v.Identity, "Authorization"), first, slices.DeleteFunc(slices.Clone(v.Known), client))
	v.Early = v.Early[:min(len(v.Early), 64)]
	for _, n := range v.Known {
		if client(n) && len(v.Late) < 16 && !slices.Contains(first, n) && n != "X-Forwarded-Proto" {
			v.Late = append(v.Late, n)
		}
	}
	v.Asked = []string{"Cookie", "Accept", "Origin", "Upgrade", "Purpose", "Sec-Purpose", "X-Moz", "X-Purpose", "X-Requested-With",
		"Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Fetch-Site", "Sec-Websocket-Key", "X-Forwarded-Proto", "X-Forwarded-For"}
	return v
}

// siteOf is the site of a host, with the app that the configuration knows of.
func siteOf(cfg *config.Config, name string) site {
	s := site{Host: name, Name: name, App: address{HostPort: "127.0.0.1:3000"}}
	if port := cfg.PublicURL.Port(); port != "" { // all are where public_url is
		s.Host += ":" + port
	}
	up := cfg.Upstream
	for _, r := range cfg.Routes {
		if r.Host == name && r.Path == "/" && r.Upstream != nil {
			up = r.Upstream
			break
		}
	}
	if up != nil {
		s.App, s.Known = upstream(up.URL), true
	}
	return s
}

// upstream is the address of an app.
func upstream(u *url.URL) address {
	if u.Scheme == "unix" {
		return address{Unix: u.Path}
	}
	a := address{HostPort: u.Host, TLS: u.Scheme == "https", Name: u.Hostname()}
	if u.Port() == "" {
		a.HostPort = net.JoinHostPort(u.Hostname(), map[bool]string{false: "80", true: "443"}[a.TLS])
	}
	return a
}

// reach is where a listener is reached from the same machine.
func reach(a config.Addr) address {
	if a.Network == "unix" {
		return address{Unix: a.Address}
	}
	host, port, _ := net.SplitHostPort(a.Address)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return address{HostPort: net.JoinHostPort(host, port)}
}

// known are the headers in use that the patterns of proxy.ForeignHeaders and proxy.ClientHeaders stand for: of each kind first
// those by which apps decide most often, because some front proxies take only so many.
var known = strings.Fields(`
Remote-User Remote-Email Remote-Name Remote-Groups X-Remote-User X-Remote-Group X-Remote-Groups X-Remote-Email X-Webauth-User X-Webauth-Email X-Webauth-Role
X-Userinfo X-Grafana-Id X-Auth-Request-User X-Auth-Request-Email X-Auth-Request-Groups X-Auth-Request-Preferred-Username X-Auth-Request-Access-Token
X-Auth-User X-Auth-Username X-Auth-Email X-Auth-Groups X-Auth-Roles X-Authenticated-User X-Authenticated-Userid X-Authenticated-Email X-Vouch-User
X-Authentik-Username X-Authentik-Email X-Authentik-Groups X-Authentik-Uid X-Authentik-Jwt X-Pomerium-Jwt-Assertion X-Pomerium-Claim-Email X-Pomerium-Claim-Groups
X-Goog-Authenticated-User-Id X-Goog-Authenticated-User-Email X-Goog-Iap-Jwt-Assertion Cf-Access-Authenticated-User-Email Cf-Access-Jwt-Assertion
X-Amzn-Oidc-Identity X-Amzn-Oidc-Data X-Ms-Client-Principal X-Ms-Client-Principal-Id X-Ms-Client-Principal-Name Tailscale-User-Login Oidc-Claim-Sub Oidc-Claim-Email
Ssl-Client-Cert Ssl-Client-Verify Ssl-Client-Subject-Dn Ssl-Client-S-Dn X-Ssl-Client-Cn X-Client-Cert Client-Cert
X-Remote-Name X-Webauth-Name X-Webauth-Groups X-Auth-Name X-Authenticated-Groups X-Authenticated-Scope X-Vouch-Token X-Vouch-Idp-Claims-Email X-Vouch-Idp-Claims-Groups
X-Authentik-Name X-Authentik-Entitlements X-Pomerium-Claim-User X-Pomerium-Claim-Name X-Amzn-Oidc-Accesstoken X-Ms-Client-Principal-Idp
X-Ms-Token-Aad-Id-Token X-Ms-Token-Aad-Access-Token Tailscale-User-Name Tailscale-User-Profile-Pic Oidc-Claim-Preferred-Username Oidc-Claim-Groups
Ssl-Client-Issuer-Dn X-Ssl-Client-Cert X-Ssl-Client-Verify X-Ssl-Client-S-Dn X-Client-Cert-Dn X-Tls-Client-Cert Client-Cert-Chain
Forwarded X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Forwarded-Port X-Forwarded-Prefix X-Forwarded-Scheme X-Forwarded-Ssl
X-Original-Url X-Rewrite-Url X-Original-Uri X-Http-Method-Override X-Http-Method X-Method-Override X-Forwarded-Server X-Client-Ip True-Client-Ip
X-Forwarded-Uri X-Host X-Scheme X-Forwarded X-Forwarded-Path X-Forwarded-Method X-Forwarded-By X-Forwarded-User X-Forwarded-Email X-Forwarded-Groups
X-Forwarded-Preferred-Username X-Forwarded-Access-Token X-Forwarded-Tls-Client-Cert X-Forwarded-Client-Cert
X-Real-Ip X-Cluster-Client-Ip Client-Ip Proxy-Client-Ip Cf-Connecting-Ip Fastly-Client-Ip
X-Url-Scheme Front-End-Https X-Sendfile-Type X-Accel-Mapping X-Middleware-Subrequest
X-Original-Method X-Original-Host X-Original-For X-Original-Proto X-Original-Forwarded-For X-Envoy-Original-Path Proxy
`)

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		prefix, open := strings.CutSuffix(strings.ToLower(p), "*")
		name := strings.ToLower(name)
		return name == prefix || open && strings.HasPrefix(name, prefix)
	})
}
