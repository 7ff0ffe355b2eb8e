package proxy

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

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
	audience        string
	unauthenticated string
}

// buildRoutes fills in p.hosts. A route without a host is one of every host, so that it protects a path wherever the path can
// be asked for.
func (p *Proxy) buildRoutes() error {
	public := p.opts.PublicURL
	name := func(r Route) string {
		switch {
		case r.Host == "":
			return ""
		case public.Port() != "": // other hosts are served on the same port
			return net.JoinHostPort(r.Host, public.Port())
		}
		return r.Host
	}
	p.hosts[public.Host] = &host{public: true, origin: p.origin}
	for _, r := range p.opts.Routes {
		if n := name(r); n != "" && p.hosts[n] == nil {
			p.hosts[n] = &host{origin: public.Scheme + "://" + n}
		}
	}
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
			audience: p.audience(r.Audience, u), unauthenticated: r.Unauthenticated}
		if r.StripPrefix {
			rt.strip = strings.Count(strings.TrimSuffix(r.Path, "/"), "/")
		}
		for n, h := range p.hosts {
			if r.Host == "" || n == name(r) {
				h.routes = append(h.routes, rt)
			}
		}
	}
	u, err := build(nil)
	if err != nil {
		return err
	}
	// Where no route matches: signed-in users, if there is an upstream.
	rest := &route{name: "default", path: "/", policy: &policy.Policy{SignedIn: true}, upstream: u, audience: p.audience("", u)}
	for _, h := range p.hosts {
		h.routes = append(h.routes, rest)
	}
	return nil
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

// find returns the first route of the host that matches. The last one always does.
func (h *host) find(path, method string) *route {
	for _, rt := range h.routes {
		if (path == rt.path || !rt.exact && below(path, rt.path)) && rt.serves(method) {
			return rt
		}
	}
	return nil
}

// match finds the one route that judges the request. A path that some upstream would read as one of another route is refused.
func (p *Proxy) match(t target, method string) (*route, error) {
	h := p.hosts[t.host]
	rt := h.find(t.path, method)
	for _, other := range readings(t.path) {
		if _, ours := p.ownEndpoint(other); ours || h.find(other, method) != rt {
			return rt, p.badRequest(ambiguous("the path matches another route without its ; parameters, decoded again or normalised"))
		}
	}
	if rt.upstream == nil {
		return rt, &failure{page: pages.NotFound(p.home()), code: "not_found", reason: "no route and no upstream"}
	}
	return rt, nil
}
