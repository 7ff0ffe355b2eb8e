package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

// routes checks what routes say, and that each of them can match.
func (l *loader) routes(c *Config) {
	if len(c.Routes) == 0 && c.Upstream == nil && c.ForwardAuth == nil && l.sound("upstream", "routes", "forward_auth") {
		l.mistake("upstream", "is missing, and there are no routes: nothing to proxy", "write where the app is, such as upstream: http://127.0.0.1:5000")
	}
	l.upstreamOf("upstream", c.Upstream, c)
	for i := range c.Routes {
		at, r := element("routes", i), &c.Routes[i]
		r.Line = l.line(at)
		l.upstreamOf(at+".upstream", r.Upstream, c)
		if r.Upstream == nil && c.Upstream == nil && c.ForwardAuth == nil && l.sound(at, "upstream", "forward_auth") {
			l.mistake(at+".upstream", "is missing, and there is none for all routes", "write where the route leads, such as upstream: http://127.0.0.1:5000, here or at the top")
		}
		if r.StripPrefix && r.Path == "/" {
			l.mistake(at+".strip_prefix", "has nothing to strip from the path /", "remove strip_prefix")
		}
		if by := l.openedBy(c, r); by != "" {
			l.warn(at+".strip_prefix", fmt.Sprintf("leads to the same upstream as %s: %s/x is judged by this route and reaches the upstream's /x", by, strings.TrimSuffix(r.Path, "/")),
				"make sure that this route asks for no less, or give it an upstream of its own")
		}
		l.admitted(at, r, &c.Identity)
		l.attainable(at, r, c)
		l.methods(at, r.Methods)
	}
	l.unreachable(c)
}

// openedBy names what else leads to the upstream of a route that strips its prefix, and so can be reached by it; "" when nothing
// does.
func (l *loader) openedBy(c *Config, r *Route) string {
	of := func(r *Route) string {
		u := r.Upstream
		if u == nil {
			u = c.Upstream
		}
		if u == nil || u.URL == nil {
			return ""
		}
		return u.URL.String()
	}
	if !r.StripPrefix || of(r) == "" {
		return ""
	}
	for i := range c.Routes {
		if other := &c.Routes[i]; other != r && !other.StripPrefix && of(other) == of(r) {
			return element("routes", i)
		}
	}
	if c.Upstream != nil && c.Upstream.URL != nil && c.Upstream.URL.String() == of(r) {
		return "upstream"
	}
	return ""
}

// upstreamOf checks that the upstream of the key at is not ourselves: a request would come back to us until something runs
// out. Names are not looked up, so that another name of this machine goes unnoticed. A certificate that is not looked at
// is made known.
func (l *loader) upstreamOf(at string, u *Upstream, c *Config) {
	if u == nil {
		return
	}
	if u.InsecureSkipVerify {
		l.warn(at+".insecure_skip_verify", "lets anybody on the way to the upstream read and change requests", "name the upstream's CA in ca_file instead")
	}
	if l.given(at + ".url") {
		at += ".url"
	}
	if u.URL == nil || !l.sound(at) {
		return
	}
	own := ""
	switch {
	case l.sound("listen") && leadsTo(u.URL, c.Listen):
		own = "listen"
	case l.sound("admin.listen") && leadsTo(u.URL, c.Admin.Listen):
		own = "admin.listen"
	case l.sound("public_url") && u.URL.Scheme != "unix" && u.URL.Hostname() == c.PublicURL.Hostname() && portOf(u.URL) == portOf(c.PublicURL):
		own = "public_url"
	default:
		return
	}
	l.mistake(at, l.shown(at)+" is our own address, that of "+own, "write the app's own address, which is another port or host, such as http://127.0.0.1:5000")
}

// leadsTo reports whether connections to u arrive at a, as far as addresses tell: every way to write this machine leads to
// a listener on all addresses, and localhost to one on either loopback address.
func leadsTo(u *url.URL, a Addr) bool {
	if u.Scheme == "unix" || a.Network != "tcp" {
		return u.Scheme == a.Network && u.Path == a.Address
	}
	host, port, err := net.SplitHostPort(a.Address)
	if n, _ := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != portOf(u) {
		return false
	}
	host = lower(host)
	from, to := numeric(u.Hostname()), numeric(host)
	switch {
	case from.IsUnspecified(), to.IsUnspecified(), host == "":
		return isThisMachine(u.Hostname()) && (host == "" || isThisMachine(host))
	case u.Hostname() == "localhost", host == "localhost":
		return isLoopback(u.Hostname()) && isLoopback(host)
	}
	return u.Hostname() == host || from.IsValid() && from == to
}

// isThisMachine reports whether host is a name or address that every machine has for itself.
func isThisMachine(host string) bool { return isLoopback(host) || numeric(host).IsUnspecified() }

// numeric is the address that host is, or none when it is a name.
func numeric(host string) netip.Addr {
	addr, _ := netip.ParseAddr(host)
	return addr.Unmap()
}

// portOf is the port that connections to u are made to.
func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// admitted checks that what the route asks of users can decide anything.
func (l *loader) admitted(at string, r *Route, id *Identity) {
	if r.Anyone {
		for _, name := range []string{"max_auth_age", "acr", "unauthenticated"} {
			if l.given(at + "." + name) {
				l.mistake(at+"."+name, "is never asked for: the route allows anyone", "remove it, or write allow: signed_in")
			}
		}
	}
	for i, a := range r.Allow {
		at := element(at+".allow", i)
		if !l.sound(at) {
			continue
		}
		mails := len(a.Emails) + len(a.EmailDomains)
		switch {
		case mails+len(a.Groups)+len(a.Subjects)+len(a.Permissions)+len(a.Scopes)+len(a.Organizations)+len(a.Claims) == 0:
			l.mistake(at, "holds no key that decides", "write at least one of groups, emails, email_domains, subjects, permissions, scopes, claims, organizations; allow: signed_in for every user")
		case a.UnverifiedEmail && mails == 0:
			l.mistake(at+".unverified_email", "is there without emails or email_domains", "remove it")
		}
		for _, claim := range a.Claims {
			if l.sound("identity.claims") {
				l.known(joinKey(at+".claims", claim.Name), claim.Name, fmt.Sprintf("%q", cut(claim.Name, 60)), id)
			}
		}
	}
}

// attainable warns of entries that ask for what no token brings: permissions come with access tokens for an API alone, and
// scopes when they are asked for.
func (l *loader) attainable(at string, r *Route, c *Config) {
	if c.Bearer != nil || !l.sound("bearer", "provider.audience", "provider.scopes") {
		return
	}
	for i, a := range r.Allow {
		at := element(at+".allow", i)
		if len(a.Permissions) > 0 && c.Provider.Audience == "" {
			l.warn(at+".permissions", "nobody has any: they are in access tokens for an API, and there is neither provider.audience nor bearer",
				"write the API identifier into provider.audience, or accept access tokens with bearer")
		}
		if len(a.Scopes) > 0 && !slices.ContainsFunc(a.Scopes, func(s string) bool { return slices.Contains(c.Provider.Scopes, s) }) {
			l.warn(at+".scopes", "users have none of them, unless the provider grants what nobody asks for: they are not in provider.scopes, and there is no bearer",
				"add them to provider.scopes, or accept access tokens with bearer")
		}
	}
}

// registeredMethods are those of the IANA registry, and some that are in wide use without being there.
var registeredMethods = strings.Fields(`GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH QUERY
	ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE
	ORDERPATCH PRI PROPFIND PROPPATCH REBIND REPORT SEARCH UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL
	BAN PURGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE`)

// methods checks that the methods of a route exist: with one that does not, the route protects nothing.
func (l *loader) methods(at string, methods []string) {
	for i, m := range methods {
		at := element(at+".methods", i)
		if m == "" || !l.sound(at) || slices.Contains(registeredMethods, m) {
			continue
		}
		if i := slices.IndexFunc(registeredMethods, func(r string) bool { return distance(m, r) == 1 }); i >= 0 {
			l.mistake(at, l.shown(at)+" is not a method", "write "+registeredMethods[i])
		} else {
			l.warn(at, l.shown(at)+" is not a usual method: the route is for no other", "check its spelling")
		}
	}
}

// OwnPaths are the paths of our own endpoints, below the prefix. Where the prefix is "/" nothing else is ours but what front proxies
// ask, and under any other prefix everything is.
func (c *Config) OwnPaths() []string {
	paths := []string{"/login", "/signup", "/callback", "/logout", "/me", "/backchannel-logout", "/jwks.json", "/sessions"}
	if c.AppToken != nil {
		paths = append(paths, "/token")
		if c.AppToken.Handoff {
			paths = append(paths, "/handoff")
		}
	}
	return paths
}

// isOwn reports whether requests for the path p never get to routes.
func (c *Config) isOwn(p string) bool {
	if c.Prefix == "" {
		return slices.Contains(c.OwnPaths(), p) || c.ForwardAuth != nil && strings.HasPrefix(p, "/verify/")
	}
	return within(p, c.Prefix)
}

// within reports whether the clean path p is tree or lies below it, by segments.
func within(p, tree string) bool {
	return tree == "/" || p == tree || strings.HasPrefix(p, tree+"/")
}

// unreachable reports routes that can never match: our own endpoints are there, or earlier routes match first whatever
// the host and the method. Such a route looks like a protection and is none.
func (l *loader) unreachable(c *Config) {
	hosts := everyHost(c)
	at := map[string][]int{} // indexes of the routes so far by their path
	for i := range c.Routes {
		r, key := &c.Routes[i], element("routes", i)
		if r.Path == "" || !l.sound(key+".exact", key+".host", key+".methods") {
			continue
		}
		if l.sound("prefix", "app_token", "forward_auth") && c.isOwn(r.Path) {
			l.mistake(key, "can never match: our own endpoints are there", "choose another prefix for them, or another path for the route")
			continue
		}
		if by := coveredBy(c.Routes, earlier(at, r.Path), i, hosts); by != nil {
			l.mistake(key, "can never match: "+describe(c.Routes, by)+" first", fmt.Sprintf("put it above routes[%d], or remove it", by[0]))
			continue
		}
		at[r.Path] = append(at[r.Path], i)
	}
}

// everyHost is the hosts that requests are accepted for, which a route without a host is for.
func everyHost(c *Config) []string {
	var hosts []string
	if c.PublicURL != nil {
		hosts = append(hosts, c.PublicURL.Hostname())
	}
	for _, r := range c.Routes {
		if r.Host != "" {
			hosts = append(hosts, r.Host)
		}
	}
	if c.ForwardAuth != nil {
		hosts = append(hosts, c.ForwardAuth.Domains...)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// earlier is the routes of the absolute path p and of those above it, in their order.
func earlier(at map[string][]int, p string) []int {
	all := slices.Clone(at[p])
	for p != "/" {
		p = path.Dir(p)
		all = append(all, at[p]...)
	}
	slices.Sort(all)
	return all
}

// coveredBy returns those of the candidates that match, between them, each request that routes[i] would match; nil when
// they do not. Several routes can cover hosts and methods between them. Paths they cannot: a tree of paths has no end, so
// that one route has to cover all of it.
func coveredBy(routes []Route, candidates []int, i int, hosts []string) (by []int) {
	r := &routes[i]
	candidates = slices.DeleteFunc(candidates, func(j int) bool {
		e := &routes[j]
		return e.Exact && (!r.Exact || e.Path != r.Path)
	})
	if r.Host != "" {
		hosts = []string{r.Host}
	}
	methods := r.Methods
	if len(methods) == 0 {
		methods = []string{""} // stands for a method that no route names
	}
	for _, host := range hosts {
		for _, m := range methods {
			first := slices.IndexFunc(candidates, func(j int) bool {
				e := &routes[j]
				return (e.Host == "" || e.Host == host) && (len(e.Methods) == 0 || slices.Contains(e.Methods, m) || m == "HEAD" && slices.Contains(e.Methods, "GET"))
			})
			if first < 0 {
				return nil
			}
			by = append(by, candidates[first])
		}
	}
	slices.Sort(by)
	return slices.Compact(by)
}

// describe names routes with their lines, as the subject of "matches" or "match".
func describe(routes []Route, which []int) string {
	var names []string
	for _, i := range which {
		names = append(names, fmt.Sprintf("routes[%d] (line %d)", i, routes[i].Line))
	}
	if len(names) == 1 {
		return names[0] + " matches"
	}
	return strings.Join(names, " and ") + " match"
}
