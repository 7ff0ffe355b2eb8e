package proxy

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"authproxy/policy"
	"authproxy/proxy/pages"
)

// A route is a Route made ready.
type route struct {
	name            string // for the log
	path            string
	exact           bool
	methods         []string
	policy          *policy.Policy
	upstream        *upstream // nil: there is none
	strip           int       // segments to take off the path
	audience        string    // of assertions
	wanted          string    // the same, as the configuration has it for this route
	unauthenticated string
	folded          string // path without regard to case
}

// buildRoutes fills in p.hosts. A route without a host is one of every host, so that it protects a path wherever the path can
// be asked for.
func (p *Proxy) buildRoutes() error {
	var all []*route
	hostOf := map[*route]string{} // "": every host
	upstreams := map[*Upstream]*upstream{}
	build := func(u *Upstream) (*upstream, error) {
		if u == nil {
			u = p.opts.Default
		}
		if u == nil {
			return nil, nil
		}
		if upstreams[u] == nil {
			built, err := newUpstream(u)
			if err != nil {
				return nil, err
			}
			upstreams[u] = built
		}
		return upstreams[u], nil
	}
	for _, r := range p.opts.Routes {
		u, err := build(r.Upstream)
		if err != nil {
			return fmt.Errorf("route %s: %w", r.Path, err)
		}
		if u != nil && r.Timeout > 0 {
			u = u.withTimeout(r.Timeout)
		}
		rt := &route{name: r.Host + r.Path, path: r.Path, exact: r.Exact, methods: r.Methods, policy: r.Policy, upstream: u,
			audience: p.audience(r.Audience, u), wanted: r.Audience, unauthenticated: r.Unauthenticated, folded: strings.ToLower(r.Path)}
		p.folds = p.folds || rt.folded != r.Path
		if r.StripPrefix {
			rt.strip = strings.Count(strings.TrimSuffix(r.Path, "/"), "/")
		}
		all, hostOf[rt] = append(all, rt), p.hostName(r.Host)
	}
	u, err := build(nil)
	if err != nil {
		return err
	}
	// Where no route matches: signed-in users, if there is an upstream.
	all = append(all, &route{name: "default", path: "/", folded: "/", policy: &policy.Policy{SignedIn: true}, upstream: u, audience: p.audience("", u)})

	of := func(name string) []*route {
		return slices.DeleteFunc(slices.Clone(all), func(rt *route) bool { return hostOf[rt] != "" && hostOf[rt] != name })
	}
	at := func(name string) *host {
		if p.hosts[name] == nil {
			p.hosts[name] = &host{public: name == p.opts.PublicURL.Host, origin: p.opts.PublicURL.Scheme + "://" + name}
		}
		return p.hosts[name]
	}
	at(p.opts.PublicURL.Host).routes = of(p.opts.PublicURL.Host)
	for _, name := range hostOf {
		if name != "" {
			at(name).routes = of(name)
		}
	}
	if f := p.opts.ForwardAuth; f != nil {
		names := []string{p.opts.PublicURL.Host}
		if len(f.Domains) > 0 {
			names = nil
			for _, domain := range f.Domains {
				names = append(names, p.hostName(domain))
			}
		}
		for _, name := range names {
			h := at(name)
			h.asked = of(name)
			for i, rt := range h.asked {
				rt = new(*rt)
				if rt.audience = cmp.Or(rt.wanted, p.opts.Identity.Audience); rt.audience == "" { // the front proxy knows the app, and we only what it is called
					rt.audience = h.origin
				}
				h.asked[i] = rt
			}
		}
	}
	return nil
}

// hostName is how requests name a configured host: all hosts are served on the port of PublicURL. "" stays "".
func (p *Proxy) hostName(host string) string {
	if port := p.opts.PublicURL.Port(); port != "" && host != "" {
		return net.JoinHostPort(host, port)
	}
	return host
}

// audience is the aud of assertions: the route's, the configured one, or the upstream's origin.
func (p *Proxy) audience(ofRoute string, u *upstream) string {
	switch {
	case ofRoute != "":
		return ofRoute
	case p.opts.Identity.Audience != "":
		return p.opts.Identity.Audience
	case u != nil:
		return u.origin
	}
	return ""
}

// serves says whether the route is one for the method. HEAD is a GET whose body nobody sees (RFC 9110 §9.3.2), and apps answer
// it as one: what decides about GET decides about HEAD.
func (rt *route) serves(method string) bool {
	return len(rt.methods) == 0 || slices.Contains(rt.methods, method) || method == http.MethodHead && slices.Contains(rt.methods, http.MethodGet)
}

// find returns the first of a host's routes that matches. The last one always does.
func find(routes []*route, path, method string) *route {
	for _, rt := range routes {
		if (path == rt.path || !rt.exact && below(path, rt.path)) && rt.serves(method) {
			return rt
		}
	}
	return nil
}

// match finds the one of a host's routes that judges the request. A path that some upstream would read as one of another route
// is refused.
func (p *Proxy) match(routes []*route, t target, method string) (*route, error) {
	rt := find(routes, t.path, method)
	for _, other := range readings(t.path) {
		if _, ours := p.ownEndpoint(other); ours || find(routes, other, method) != rt {
			return rt, p.badRequest(ambiguous("the path matches another route without its ; parameters, decoded again or normalised"))
		}
	}
	return rt, nil
}

// lenient are the other routes that an app which ignores the case of paths and a slash at their end takes the request for. Express
// and ASP.NET are such apps. What those routes ask for is asked for as well.
func (p *Proxy) lenient(routes []*route, rt *route, path, method string) (others []*route) {
	plain := !p.folds && (len(path) == 1 || path[len(path)-1] != '/') &&
		strings.IndexFunc(path, func(c rune) bool { return 'A' <= c && c <= 'Z' || c >= utf8.RuneSelf || c == ';' || c == '%' }) < 0
	if plain {
		return nil
	}
	for _, reading := range append(readings(path), path) {
		folded := strings.ToLower(reading)
		if len(folded) > 1 {
			folded = strings.TrimSuffix(folded, "/")
		}
		first := slices.IndexFunc(routes, func(other *route) bool {
			return (folded == other.folded || !other.exact && below(folded, other.folded)) && other.serves(method)
		})
		if other := routes[first]; other != rt && !slices.Contains(others, other) { // there is one: the last route is for all
			others = append(others, other)
		}
	}
	return others
}

// noUpstream is the answer where a route leads nowhere.
func (p *Proxy) noUpstream() error {
	return &failure{page: pages.NotFound(p.home()), code: "not_found", reason: "no route and no upstream"}
}
