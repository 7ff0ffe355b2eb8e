package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// validate checks the rules between keys, and fills in the defaults that depend on other keys. Where a value is wrong by
// itself the rules about it are left out.
func (l *loader) validate(c *Config) {
	l.listeners(c)
	l.provider(&c.Provider)
	l.session(c)
	l.identity(&c.Identity)
	l.bearer(c)
	l.forwardAuth(c)
	l.hosts(c)
	l.routes(c)
}

// listeners checks addresses, certificates and whom we believe at them.
func (l *loader) listeners(c *Config) {
	switch t := c.TLS; {
	case t.CertFile == "" && t.KeyFile == "", !l.sound("tls.cert_file", "tls.key_file"):
	case t.CertFile == "":
		l.mistake("tls.cert_file", "is missing beside tls.key_file", "name the PEM file with the certificate and its chain, or remove tls")
	case t.KeyFile == "":
		l.mistake("tls.key_file", "is missing beside tls.cert_file", "name the PEM file with the certificate's private key, or remove tls")
	default:
		leaf := l.certificate(t)
		if l.sound("public_url") && leaf != nil {
			l.goodFor(leaf, c.PublicURL.Hostname())
		}
		if l.sound("public_url") && c.PublicURL.Scheme != "https" {
			l.mistake("public_url", "is http, but tls makes us serve https", "write https://"+c.PublicURL.Host+", or remove tls")
		}
	}
	type place struct {
		key  string
		addr Addr
	}
	places := []place{{"listen", c.Listen}, {"admin.listen", c.Admin.Listen}}
	if c.ForwardAuth != nil {
		places = append(places, place{"forward_auth.grpc_listen", c.ForwardAuth.GRPCListen})
	}
	for i, b := range places {
		for _, a := range places[:i] {
			if l.sound(a.key, b.key) && clash(a.addr, b.addr) {
				here, there := b, a
				if !l.given(b.key) {
					here, there = a, b
				}
				problem := fmt.Sprintf("%s is an address already in use: %s is %s", l.shown(here.key), there.key, there.addr)
				if !l.given(there.key) {
					problem += " by default"
				}
				l.mistake(here.key, problem, "choose another port or path for one of the two")
			}
		}
	}
	if l.sound("admin", "session.store") && reachable(c.Admin.Listen) && c.Admin.Token == "" && c.Session.Store != "cookie" {
		l.warn("admin.listen", "is reachable from other machines, so that /sessions answers nobody without admin.token",
			"set admin.token, or listen on 127.0.0.1")
	}
	l.ownMachine(c)
	for i, p := range c.TrustedProxies {
		if p.IsValid() && p.Bits() == 0 {
			l.warn(element("trusted_proxies", i), "believes the X-Forwarded headers of everybody", "write the networks of your own proxies")
		}
	}
}

// ownMachine warns when a browser on this machine, which public_url is for, would find somebody else than us there.
func (l *loader) ownMachine(c *Config) {
	if !l.sound("public_url", "listen", "tls") || !isLoopback(c.PublicURL.Hostname()) || c.Listen.Network != "tcp" {
		return
	}
	_, port, _ := net.SplitHostPort(c.Listen.Address)
	n, _ := strconv.ParseUint(port, 10, 16)
	switch {
	case c.PublicURL.Scheme == "https" && c.TLS.CertFile == "":
		l.warn("public_url", "is https on this machine, and there is no tls: what answers there must end TLS and lead here", "write http://"+c.PublicURL.Host+", or set tls")
	case n != 0 && portOf(c.PublicURL) != strconv.FormatUint(n, 10):
		l.warn("public_url", fmt.Sprintf("names port %s of this machine, and listen is %s: what answers there must lead here", portOf(c.PublicURL), c.Listen),
			"write the port of listen into public_url, or listen on that of public_url")
	}
}

// clash reports whether there is no listening on both a and b.
func clash(a, b Addr) bool {
	if a.Network != b.Network || a.Network != "tcp" {
		return a == b && a.Network != ""
	}
	hostA, portA, errA := net.SplitHostPort(a.Address)
	hostB, portB, errB := net.SplitHostPort(b.Address)
	m, _ := strconv.ParseUint(portA, 10, 16)
	n, _ := strconv.ParseUint(portB, 10, 16)
	if errA != nil || errB != nil || m != n || n == 0 {
		return false
	}
	hostA, hostB = lower(hostA), lower(hostB)
	return hostA == hostB || numeric(hostA).IsValid() && numeric(hostA) == numeric(hostB) || takes(hostA, hostB) || takes(hostB, hostA)
}

// takes reports whether listening on host leaves nothing to other, another address of this machine with the same port. Go
// takes 0.0.0.0 for IPv4 alone.
func takes(host, other string) bool {
	switch ip := numeric(host); {
	case host == "", ip == netip.IPv6Unspecified():
		return true
	case ip == netip.IPv4Unspecified():
		return !numeric(other).Is6()
	}
	return host == "localhost" && isLoopback(other)
}

// certificate checks that the files of t are there and belong together. It returns the certificate.
func (l *loader) certificate(t TLS) *x509.Certificate {
	cert, f := l.contents(t.CertFile)
	if f != nil {
		l.mistake("tls.cert_file", f.problem, f.hint)
	}
	key, f := l.contents(t.KeyFile)
	if f != nil {
		l.mistake("tls.key_file", f.problem, f.hint)
	}
	if !l.sound("tls") {
		return nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err == nil {
		return pair.Leaf
	}
	k, encrypted := parsePrivateKey(key)
	const both = "name PEM files: the certificate with its chain, and the unencrypted key that belongs to it"
	switch {
	case holds(key, "CERTIFICATE") && !holds(cert, "CERTIFICATE"):
		l.mistake("tls.cert_file", "the files are in each other's place", "swap cert_file and key_file")
	case !holds(cert, "CERTIFICATE"):
		l.mistake("tls.cert_file", "holds no certificate", both)
	case encrypted:
		l.mistake("tls.key_file", "holds an encrypted key, and nobody is there to type its password", "decrypt it, with openssl pkey for instance, and keep it from others")
	case k == nil:
		l.mistake("tls.key_file", "holds no private key", both)
	default:
		l.mistake("tls.key_file", "holds the key of another certificate, or the certificate cannot be read", both)
	}
	return nil
}

// holds reports whether there is a PEM block of that type in b.
func holds(b []byte, kind string) bool {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == kind {
			return true
		}
	}
	return false
}

// goodFor warns when browsers would not accept the certificate for host.
func (l *loader) goodFor(leaf *x509.Certificate, host string) {
	now := time.Now()
	switch {
	case now.After(leaf.NotAfter):
		l.warn("tls.cert_file", "expired on "+leaf.NotAfter.UTC().Format(time.DateOnly), "renew the certificate; the files are read again when they change")
	case now.Before(leaf.NotBefore):
		l.warn("tls.cert_file", "is not valid before "+leaf.NotBefore.UTC().Format(time.DateOnly), "check the clock of this machine")
	}
	if leaf.VerifyHostname(host) != nil {
		l.warn("tls.cert_file", fmt.Sprintf("is not for %q, the host of public_url", cut(host, 100)), "name a certificate that has this name in it")
	}
}

// reachable reports whether other machines may be able to connect to a.
func reachable(a Addr) bool {
	if a.Network != "tcp" {
		return false
	}
	host, _, err := net.SplitHostPort(a.Address)
	return err != nil || !isLoopback(lower(host))
}

// provider checks who the provider is and how we prove to it who we are.
func (l *loader) provider(p *Provider) {
	if l.sound("provider.domain", "provider.issuer") {
		switch {
		case p.Domain == "" && p.Issuer == "":
			l.mistake("provider", "has neither domain nor issuer", "write domain: acme.eu.auth0.com for Auth0, or issuer: https://... for any other OpenID Provider")
		case p.Domain != "" && p.Issuer != "":
			l.mistake("provider.issuer", "is there beside provider.domain, and both name the provider", "keep domain for Auth0, or issuer for any other OpenID Provider")
		case p.Domain != "":
			p.Issuer = "https://" + p.Domain + "/"
		case strings.HasSuffix(p.Issuer, ".auth0.com"):
			l.warn("provider.issuer", "lacks the slash at the end that Auth0's issuers have", "write domain instead of issuer, or add the slash")
		}
	}
	if l.sound("provider.client_auth", "provider.client_secret", "provider.private_key_file") {
		l.clientAuth(p)
	}
	if l.sound("provider.params") && slices.Contains(strings.Fields(p.Params["prompt"]), "none") {
		l.warn("provider.params.prompt", "lets nobody sign in who is not signed in at the provider already", "remove it, so that the provider can ask")
	}
	if l.sound("provider.scopes") && !slices.Contains(p.Scopes, "openid") { // OIDC Core §3.1.2.1
		l.mistake("provider.scopes", "lacks openid, without which there is no ID token", "add openid to the list")
	}
}

// clientAuth checks that there is exactly the credential that client_auth uses.
func (l *loader) clientAuth(p *Provider) {
	secret, key := p.ClientSecret != "", p.PrivateKey != nil
	absent := "is missing"
	if l.given("provider.client_secret") {
		absent = "is empty"
	}
	switch {
	case secret && key:
		l.mistake("provider.private_key_file", "is there beside provider.client_secret, and only one of them can be used", "remove the one that the provider does not expect")
	case p.ClientAuth == "private_key_jwt" && !key:
		l.mistake("provider.private_key_file", "is missing, and client_auth is private_key_jwt", "name the PEM file of the private key whose public key the provider knows")
	case (p.ClientAuth == "post" || p.ClientAuth == "basic") && !secret:
		l.mistake("provider.client_secret", absent+", and client_auth is "+p.ClientAuth, "write client_secret: ${NAME} or ${file:/path}")
	case !secret && !key:
		l.mistake("provider.client_secret", absent, "write client_secret: ${NAME} or ${file:/path}, or private_key_file for private_key_jwt")
	}
}

// session checks keys, lifetimes and the cookie.
func (l *loader) session(c *Config) {
	s := &c.Session
	if l.sound("session.keys") {
		for i, k := range s.Keys {
			if slices.ContainsFunc(s.Keys[:i], func(other []byte) bool { return bytes.Equal(k, other) }) {
				l.mistake(element("session.keys", i), "the value is an earlier key once more", "remove it")
			}
		}
	}
	if l.sound("session.idle_timeout", "session.max_lifetime") && s.IdleTimeout > s.MaxLifetime {
		if l.given("session.idle_timeout") {
			l.mistake("session.idle_timeout", l.shown("session.idle_timeout")+" is longer than max_lifetime, which is "+durationText(s.MaxLifetime),
				"shorten idle_timeout, or write a longer max_lifetime")
		}
		s.IdleTimeout = s.MaxLifetime
	}
	l.endings(s, c.Provider.Scopes)
	if !l.sound("public_url", "session.cookie") {
		return
	}
	host := c.PublicURL.Hostname()
	if d := s.Cookie.Domain; d != "" && !under(host, d) {
		l.mistake("session.cookie.domain", fmt.Sprintf("%s is neither the host of public_url, %q, nor above it", l.shown("session.cookie.domain"), host), "write "+parentDomain(host)+", or remove cookie.domain")
	} else if d != "" && isIP(host) {
		l.mistake("session.cookie.domain", "is there although public_url has an address instead of a host name", "remove cookie.domain")
	}
	if s.Cookie.SameSite == "none" && c.PublicURL.Scheme != "https" {
		l.mistake("session.cookie.same_site", "is none, which browsers accept over https only", "write lax, or use an https public_url")
	}
}

// endings finds out where the cookie store keeps which sessions were ended: in the one of file and redis that is written. A
// file that writes out the defaults of both chooses neither.
func (l *loader) endings(s *Session, scopes []string) {
	if s.Store != "cookie" || !l.sound("session.store", "session.file", "session.redis") {
		return
	}
	file := l.written["session.file.path"]
	redis := l.written["session.redis.url"] || l.written["session.redis.prefix"] || l.written["session.redis.max_staleness"]
	switch d := defaults().Session; {
	case file && redis && s.FilePath == d.FilePath && s.Redis == d.Redis:
	case file && redis:
		l.mistake("session.redis", "is there beside session.file, and the cookie store keeps in one of them which sessions were ended",
			"choose one: keep redis for several replicas, or file for one process; or write store: file or store: redis")
	case file:
		s.Endings = "file"
	case redis:
		s.Endings = "redis"
		if s.Refresh && slices.Contains(scopes, "offline_access") {
			l.warn("session.redis", "does not keep replicas from renewing the same tokens with the cookie store, and a provider that rotates refresh tokens then ends the session everywhere",
				"write store: redis for several replicas, or refresh: false")
		}
	}
}

// under reports whether host is domain or one of the names below it.
func under(host, domain string) bool {
	return host == domain || strings.HasSuffix(host, "."+domain)
}

// parentDomain is what a cookie of host could be for.
func parentDomain(host string) string {
	if _, above, found := strings.Cut(host, "."); found && strings.Contains(above, ".") && !isIP(host) {
		return above
	}
	return host
}

// assertionClaims are in every assertion already.
var assertionClaims = strings.Fields("iss aud sub idp iat exp nbf jti sid email email_verified name username groups auth_time")

// identity checks what upstreams get to know.
func (l *loader) identity(id *Identity) {
	if l.sound("identity.claims") {
		for i, name := range id.Claims {
			at := element("identity.claims", i)
			if slices.Contains(assertionClaims, name) {
				l.mistake(at, l.shown(at)+" is in the assertion already", "remove it: its name can be used in headers and policy as it is")
			} else if slices.Contains(id.Claims[:i], name) {
				l.mistake(at, l.shown(at)+" is here for the second time", "remove it")
			}
		}
		for _, h := range id.Headers {
			if at := headerKey(h.Name); l.sound(at) {
				l.known(at, h.Source, l.shown(at), id)
			}
		}
	}
	if l.sound("identity.headers", "identity.assertion.header") {
		for _, h := range id.Headers {
			if fold(h.Name) == fold(id.Assertion.Header) {
				l.mistake("identity.assertion.header", l.shown("identity.assertion.header")+" is one of identity.headers too", "choose another name for one of the two")
			}
		}
	}
	if ttl := id.Assertion.TTL; l.sound("identity.assertion.ttl") && ttl > 5*minute {
		l.warn("identity.assertion.ttl", durationText(ttl)+" is long: so long an assertion that leaks can be used", "write 5m or less; upstreams get a fresh one in time")
	}
	if l.sound("identity.message_signature") {
		switch m := id.MessageSignature; {
		case m.Algorithm == "hmac-sha256" && m.Key == nil:
			l.mistake("identity.message_signature.key", "is missing, and the algorithm is hmac-sha256", "write a secret of at least 32 bytes that the upstream knows too, as ${NAME} or ${file:/path}")
		case m.Algorithm != "hmac-sha256" && m.Key != nil:
			l.mistake("identity.message_signature.key", "is there, and is used with the algorithm hmac-sha256 only", "remove the key, or write algorithm: hmac-sha256")
		}
	}
	if l.sound("identity.signing_keys") {
		for i, k := range id.SigningKeys {
			for j, other := range id.SigningKeys[:i] {
				if k.Equal(other) {
					l.mistake(element("identity.signing_keys", i), "holds the same key as "+element("identity.signing_keys", j), "remove it")
				}
			}
		}
	}
}

// known checks that the claim or field of that name, shown as what, is kept for the users of a session.
func (l *loader) known(at, name, what string, id *Identity) {
	if slices.Contains(Fields(), name) || slices.Contains(id.Claims, name) {
		return
	}
	hint := "add the claim to identity.claims, or name one of " + strings.Join(Fields(), ", ")
	if meant := near(name, slices.Concat(Fields(), id.Claims)); meant != "" {
		hint = "write " + meant + ", or add the claim to identity.claims"
	}
	l.mistake(at, what+" is neither a field nor in identity.claims, so that nobody has it", hint)
}

// bearer checks that access tokens must be for us (RFC 9068 §4).
func (l *loader) bearer(c *Config) {
	if c.Bearer == nil || !l.sound("bearer", "provider.audience") || c.Bearer.Audience != "" {
		return
	}
	if c.Bearer.Audience = c.Provider.Audience; c.Bearer.Audience == "" {
		l.mistake("bearer.audience", "is missing, and so is provider.audience: access tokens for any API would do", "write the API identifier that tokens must be for")
	}
}

// forwardAuth checks who may ask for decisions.
func (l *loader) forwardAuth(c *Config) {
	f := c.ForwardAuth
	if f == nil {
		return
	}
	for _, p := range f.Trust {
		if p.Bits() == 0 {
			l.warn("forward_auth.trust", fmt.Sprintf("%s lets everybody ask for decisions", p), "write the networks of your front proxies")
		}
	}
	if c.Session.Cookie.SameSite == "strict" && l.sound("session.cookie.same_site") {
		l.mistake("session.cookie.same_site", "strict does not go with forward_auth: browsers hold the cookie back when the provider sends them on, and a front proxy cannot ask them again", "write lax")
	}
	if !l.sound("listen", "forward_auth") || len(f.Trust) > 0 || f.SharedSecret != "" {
		return
	}
	who := "name the networks of your front proxies in trust, or set shared_secret; or listen on 127.0.0.1"
	switch {
	case reachable(f.GRPCListen):
		l.warn("forward_auth.grpc_listen", "is reachable from other machines, and only this one may ask", who)
	case reachable(c.Listen):
		l.warn("forward_auth", "only front proxies on this machine may ask, although listen is reachable from others", who)
	case c.Listen.Network == "unix" && !f.TrustUnix:
		l.warn("forward_auth", "nobody may ask: listen is a Unix socket, which is not trusted by itself", "write trust: [unix], or set shared_secret")
	}
}

// hosts checks that the session cookie reaches every host that we serve.
func (l *loader) hosts(c *Config) {
	if !l.sound("public_url", "session.cookie.domain") {
		return
	}
	own, domain := c.PublicURL.Hostname(), c.Session.Cookie.Domain
	check := func(at, host string) {
		switch {
		case host == "" || host == own || !l.sound(at):
		case domain == "":
			l.mistakeIn(l.line(at), "session.cookie.domain", fmt.Sprintf("is missing, and %s is %s: without it users are not signed in there", at, l.shown(at)), "write a domain above it and above "+own+", such as "+parentDomain(own))
		case !under(host, domain):
			l.mistake(at, fmt.Sprintf("%s is not below session.cookie.domain, %q: users cannot be signed in there", l.shown(at), domain), "choose a host below "+domain+", or another cookie.domain")
		}
	}
	for i, r := range c.Routes {
		check(element("routes", i)+".host", r.Host)
	}
	if f := c.ForwardAuth; f != nil {
		for i, host := range f.Domains {
			check(element("forward_auth.domains", i), host)
		}
	}
}
