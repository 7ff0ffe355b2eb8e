package proxy

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"

	"authproxy/identity"
)

// What the tests of parsers and filters reach inside.
var (
	CleanPath     = cleanPath
	Below         = below
	Fold          = fold
	CookieValues  = cookieValues
	HeaderValue   = headerValue
	OnceQuery     = onceQuery
	CanonicalHost = canonicalHost
	MaxReturnTo   = maxReturnTo
)

type (
	AmbiguousError = ambiguousError
	UncleanError   = uncleanError
)

// Clean is the clean path that an unclean one is equivalent to, with its query.
func (e *uncleanError) Clean() string { return e.clean }

func (p *Proxy) ReturnTo(ref string) string { return p.returnTo(ref) }
func (p *Proxy) Absolute(to string) string  { return p.absolute(to) }

// Strip removes the cookies of a proxy whose session cookie has that name.
func Strip(session string, h http.Header) { newCookieNames(session).strip(h) }

// SetsOurs says whether a Set-Cookie line is one that only a proxy with that session cookie may send.
func SetsOurs(session, line string) bool { return newCookieNames(session).setBy(line) }

// CleanRequest and CleanAnswer filter headers on their way to an upstream and to a client.
func (p *Proxy) CleanRequest(h http.Header) { p.hygiene.request(h) }
func (p *Proxy) CleanAnswer(h http.Header)  { p.hygiene.answer(h) }

// A Reading is what the request path makes of a request before it decides.
type Reading struct {
	Host, Path, Raw, Query string
	Proto, Chain, Client   string
	Route                  string // "" for our own endpoints
}

// Read gives the request its one reading, or says why there is none.
func (p *Proxy) Read(r *http.Request) (Reading, error) {
	x := p.begin(httptest.NewRecorder(), r)
	t, err := p.locate(x)
	rd := Reading{Host: t.host, Path: t.path, Raw: t.raw, Query: t.query, Proto: x.proto, Chain: x.chain}
	if x.client.IsValid() {
		rd.Client = x.client.String()
	}
	if err != nil {
		return rd, err
	}
	if _, own := p.ownEndpoint(t.path); own {
		return rd, nil
	}
	rt, err := p.match(p.hosts[t.host].routes, t, r.Method)
	if rt != nil {
		rd.Route = rt.name
	}
	return rd, err
}

// IsRefusal says whether an error of Read is an answer with that status.
func IsRefusal(err error, status int) bool {
	switch e := err.(type) {
	case *failure:
		return e.page.Status == status
	case *redirect:
		return e.status == status
	}
	return false
}

// UseTransport makes every upstream that is asked over http one that rt speaks for.
func (p *Proxy) UseTransport(rt http.RoundTripper) {
	seen := map[*http.Transport]bool{nil: true}
	for _, h := range p.hosts {
		for _, r := range h.routes {
			if r.upstream == nil {
				continue
			}
			for _, t := range []*http.Transport{r.upstream.transport, r.upstream.upgrades} {
				if !seen[t] {
					seen[t] = true
					t.RegisterProtocol("http", rt)
				}
			}
		}
	}
}

// The steps of the request path, one by one, for the benchmarks. A Step is a request that went through the steps before.
type Step struct {
	p   *Proxy
	x   *exchange
	rt  *route
	who visitor
	out *outgoing
}

func (p *Proxy) Begin(r *http.Request) *Step {
	return &Step{p: p, x: p.begin(httptest.NewRecorder(), r)}
}

func (s *Step) Locate() (err error) {
	s.x.cookies = nil
	s.x.target, err = s.p.locate(s.x)
	return err
}

func (s *Step) Match() (err error) {
	s.rt, err = s.p.match(s.p.hosts[s.x.target.host].routes, s.x.target, s.x.r.Method)
	s.x.route = s.rt
	return err
}

func (s *Step) Authenticate() (err error) {
	s.who, err = s.p.authenticate(s.x)
	return err
}

func (s *Step) Decide() bool {
	d := s.rt.policy.Decide(s.who.Identity, s.p.now())
	s.x.decide(s.who, d)
	return d.Allowed
}

func (s *Step) Identity(h http.Header) (err error) {
	s.out, err = s.p.identityFor(s.rt, s.who)
	if err == nil {
		s.out.set(h)
	}
	return err
}

func (s *Step) Log() { s.p.logRequest(s.x, false) }

func (s *Step) Who() *identity.Identity { return s.who.Identity }

// Bearer tokens.

// BearerToken is bearerToken.
func BearerToken(h http.Header) (token string, found bool) { return bearerToken(h) }

// CheckStreams does what Run does every half second.
func (p *Proxy) CheckStreams(ctx context.Context) { p.streams.check(ctx) }

// GrantsCost remembers n tokens of that length and returns what the entries cost together, what is counted, and the limit.
func GrantsCost(n, length int) (entries, counted, limit int) {
	gs, now := newGrants(), time.Now()
	for i := range n {
		key := [32]byte{byte(i), byte(i >> 8), byte(i >> 16)}
		for range 2 { // the second replaces the first
			gs.put(key, &grant{expires: now.Add(time.Hour)}, length, now)
		}
		if gs.get(key, now) == nil {
			return 0, 0, -1
		}
	}
	for _, e := range gs.entries {
		entries += e.cost
	}
	return entries, gs.cost, grantBytes
}

// GrantKnown says whether a token that expires at the given time and was verified at now is known without verifying it again at then.
func GrantKnown(expires, now, then time.Time) bool {
	gs := newGrants()
	gs.put([32]byte{1}, &grant{expires: expires}, 1000, now)
	return gs.get([32]byte{1}, then) != nil
}

// OwnPaths are the endpoints below the prefix.
func (p *Proxy) OwnPaths() []string { return slices.Sorted(maps.Keys(p.own)) }
