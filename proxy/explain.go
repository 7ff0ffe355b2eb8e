package proxy

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"authproxy/identity"
	"authproxy/policy"
)

// An Explanation says how a request would be decided, and by what.
type Explanation struct {
	Route    string // its host and path, "default" where none matches, or "authproxy" for our own endpoints
	Path     string // as it is judged
	Steps    []string
	Upstream *url.URL // where it leads when it is allowed; nil for our own endpoints
	Decision policy.Decision
}

// Explain decides as ServeHTTP does about a request with that method, for a URL, made by that user. A path is one of public_url. The error says why such a
// request is refused before it is decided.
func (p *Proxy) Explain(method, rawURL string, who *identity.Identity) (*Explanation, error) {
	if err := checkMethod(method); err != nil {
		return nil, err
	}
	if strings.HasPrefix(rawURL, "/") {
		rawURL = p.origin + rawURL
	}
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("%q is not a URL such as %s/path", rawURL, p.origin)
	}
	name, err := canonicalHost(u.Host, u.Scheme)
	if err != nil {
		return nil, err
	}
	if p.hosts[name] == nil || u.Scheme != p.opts.PublicURL.Scheme {
		return nil, fmt.Errorf("%s://%s is neither public_url nor the host of a route", u.Scheme, u.Host)
	}
	raw, _, _, err := splitTarget(rawURL)
	if err != nil {
		return nil, err
	}
	path, err := cleanPath(raw)
	if unclean := (*uncleanError)(nil); errors.As(err, &unclean) {
		return nil, fmt.Errorf("%w: a GET is redirected to %s", err, unclean.clean)
	}
	if err != nil {
		return nil, err
	}
	if _, ours := p.ownEndpoint(path); ours {
		if _, known := p.own[path[len(p.opts.Prefix):]]; !known {
			return nil, errors.New("under the prefix is no such endpoint of authproxy: 404")
		}
		return &Explanation{Route: "authproxy", Path: path, Decision: policy.Decision{Allowed: true, Reason: "an endpoint of authproxy itself"}}, nil
	}
	routes := p.hosts[name].routes
	if routes == nil {
		routes = p.hosts[name].asked
	}
	rt, err := p.match(routes, target{host: name, path: path, raw: raw}, method)
	if err != nil {
		return nil, err
	}
	if rt.upstream == nil && p.hosts[name].asked == nil {
		return nil, p.noUpstream()
	}
	e := &Explanation{Route: rt.name, Path: path, Steps: rt.policy.Explain(who, p.now())}
	if rt.upstream != nil {
		e.Upstream = rt.upstream.conf.URL
	}
	decider, d := p.decide(who, rt, routes, path, method)
	if e.Decision = d; decider != rt {
		e.Steps = append(e.Steps, "an app that ignores case, or a slash at the end, takes it for "+decider.name+":")
		e.Steps = append(e.Steps, decider.policy.Explain(who, p.now())...)
	}
	return e, nil
}
