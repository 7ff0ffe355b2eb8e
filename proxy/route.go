package proxy

import (
	"fmt"
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
	origin          string // of the host, as browsers send it
}

// buildRoutes fills in p.hosts.
func (p *Proxy) buildRoutes() error {
	public := p.opts.PublicURL.Host
	hostOf := func(name string) *host {
		h := p.hosts[name]
		if h == nil {
			h = &host{public: name == public, origin: p.opts.PublicURL.Scheme + "://" + name}
			p.hosts[name] = h
		}
		return h
	}
	hostOf(public)
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
		name := r.Host
		if name == "" {
			name = public
		}
		h := hostOf(name)
		u, err := build(r.Upstream)
		if err != nil {
			return fmt.Errorf("route %s: %w", r.Path, err)
		}
		if u != nil && r.Timeout > 0 {
			u = u.withTimeout(r.Timeout)
		}
		rt := &route{name: r.Host + r.Path, path: r.Path, exact: r.Exact, methods: r.Methods, policy: r.Policy, upstream: u,
			audience: p.audience(r.Audience, u), unauthenticated: r.Unauthenticated, origin: h.origin}
		if r.StripPrefix {
			rt.strip = strings.Count(strings.TrimSuffix(r.Path, "/"), "/")
		}
		h.routes = append(h.routes, rt)
	}
	u, err := build(nil)
	if err != nil {
		return err
	}
	for _, h := range p.hosts { // where no route matches: signed-in users, if there is an upstream
		h.routes = append(h.routes, &route{name: "default", path: "/", policy: &policy.Policy{SignedIn: true}, upstream: u, audience: p.audience("", u), origin: h.origin})
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

// find returns the first route of the host that matches. The last one always does.
func (h *host) find(path, method string) *route {
	for _, rt := range h.routes {
		if (path == rt.path || !rt.exact && below(path, rt.path)) && (len(rt.methods) == 0 || slices.Contains(rt.methods, method)) {
			return rt
		}
	}
	return nil
}

// match finds the one route that judges the request. A path that some upstream would read as one of another route, because
// it leaves out the ";" parameters of segments, is refused.
func (p *Proxy) match(t target, method string) (*route, error) {
	h := p.hosts[t.host]
	rt := h.find(t.path, method)
	if plain := withoutParameters(t.path); plain != t.path {
		if _, ours := p.ownEndpoint(plain); ours || h.find(plain, method) != rt {
			return rt, p.badRequest(ambiguous("the path matches another route without its ; parameters"))
		}
	}
	if rt.upstream == nil {
		return rt, &failure{page: pages.NotFound(p.home()), code: "not_found", reason: "no route and no upstream"}
	}
	return rt, nil
}
