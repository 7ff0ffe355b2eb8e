package proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// maxReturnTo bounds a return_to in bytes: it must fit, sealed, into a login cookie.
const maxReturnTo = 1500

// returnTo is the place that a return_to names: a path of public_url, or a URL of another host that shares the session. It
// is "/" for everything else. The result is made from what was parsed, and a browser that resolves it against public_url
// stays with us.
func (p *Proxy) returnTo(ref string) string {
	if len(ref) == 0 || len(ref) > maxReturnTo {
		return "/"
	}
	for i := range len(ref) {
		if c := ref[i]; c <= ' ' || c == '\\' || c >= 0x7f {
			return "/"
		}
	}
	origin := ""
	if !strings.HasPrefix(ref, "/") {
		u, err := url.Parse(ref)
		if err != nil || u.User != nil || u.Opaque != "" {
			return "/"
		}
		name, err := canonicalHost(u.Host, u.Scheme)
		if err != nil {
			return "/"
		}
		h := p.hosts[name]
		if h == nil || u.Scheme != p.opts.PublicURL.Scheme {
			return "/"
		}
		_, rest, _ := strings.Cut(ref, "://")
		slash := strings.IndexAny(rest, "/?#")
		switch {
		case slash < 0:
			ref = "/"
		case rest[slash] == '/':
			ref = rest[slash:]
		default:
			ref = "/" + rest[slash:]
		}
		if !h.public {
			origin = h.origin
		}
	}
	rest, fragment, _ := strings.Cut(ref, "#")
	raw, query, hasQuery := strings.Cut(rest, "?")
	path, err := cleanPath(raw)
	if err != nil {
		return "/"
	}
	if _, ours := p.ownEndpoint(path); ours && path != p.opts.Prefix+"/" && path != p.opts.Prefix+"/sessions" && path != p.opts.Prefix+"/handoff" {
		return "/" // a login that leads to a logout, or to itself
	}
	to := origin + raw
	if hasQuery {
		to += "?" + query
	}
	if fragment != "" {
		to += "#" + fragment
	}
	if _, err := url.Parse(to); err != nil { // a fragment with half an escape
		return "/"
	}
	return to
}

// routesTo are the routes that will judge a navigation to what returnTo gave; none when that is an endpoint of ours.
func (p *Proxy) routesTo(to string) []*route {
	u, err := url.Parse(p.absolute(to))
	if err != nil {
		return nil
	}
	h := p.hosts[u.Host]
	path, err := cleanPath(u.EscapedPath())
	if _, ours := p.ownEndpoint(path); ours || h == nil || err != nil {
		return nil
	}
	routes := h.routes
	if routes == nil {
		routes = h.asked
	}
	rt := find(routes, path, http.MethodGet)
	return append(p.lenient(routes, rt, path, http.MethodGet), rt)
}

// absolute makes a URL of what returnTo gave.
func (p *Proxy) absolute(to string) string {
	if strings.HasPrefix(to, "/") {
		return p.origin + to
	}
	return to
}
