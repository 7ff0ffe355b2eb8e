// Package proxy is the HTTP surface: it matches a route, authenticates, decides, and forwards with the identity or asks for a
// login; and it serves the endpoints of the login itself.
//
// The request path is [Proxy.serve]: what happens to a request can be read there from top to bottom. Everything under the
// prefix is ours and never reaches an upstream; everything else is judged by exactly one route. Handlers return errors, and
// one function, [Proxy.fail], turns them into answers.
//
// A Proxy is immutable: another configuration is another Proxy.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"authproxy/assertion"
	"authproxy/identity"
	"authproxy/oidc"
	"authproxy/policy"
	"authproxy/proxy/pages"
	"authproxy/session"
)

// Options are what a Proxy is made of. Fields without a comment about their zero value are required.
type Options struct {
	PublicURL *url.URL // scheme and canonical host; what users type
	Prefix    string   // of our own endpoints, "/auth"; "" puts them at the root

	Provider *oidc.RelyingParty
	Sessions *session.Manager
	Sealer   *session.Sealer // seals the login cookies
	Signer   *assertion.Signer

	Routes      []Route   // the first match wins
	Default     *Upstream // of signed-in users where no route matches; nil: 404
	Identity    Identity
	SignInPage  bool     // anonymous navigations see a page first
	Connections []string // ways to sign in that /login passes on
	StoreTokens bool     // keep refresh tokens and renew what they renew

	ForwardAuth *ForwardAuth // front proxies may ask for decisions; nil: none may

	Bearer   *oidc.Resource // verifies access tokens in Authorization; nil: those are no credentials
	AppToken *AppToken      // tokens for the app's own pages; nil: none. They are credentials where access tokens are

	TrustedProxies  []netip.Prefix   // whose X-Forwarded-For, -Proto and -Host are believed
	LoginsPerMinute int              // per client address; 0 is no limit
	Now             func() time.Time // nil means time.Now
	Log             *slog.Logger     // nil discards

	// Observe is called once at the end of each request, ObserveRenewal after each try to renew a session's tokens, with
	// renewed, unavailable, ended or failed. They must be quick and safe for concurrent use; nil: nobody wants to know.
	Observe        func(Event)
	ObserveRenewal func(result string)

	// Former is the Proxy that this one takes over from: which logins and logout tokens were used, which streams are open
	// and which renewals are under way is carried on. Nil begins anew. Former goes on serving what it has begun.
	Former *Proxy
}

// A Route says who may use a part of the paths, and where they lead.
type Route struct {
	Host            string // without a port; "": every host that we serve
	Path            string // clean, decoded
	Exact           bool   // only Path itself, not what is below it
	Methods         []string
	Policy          *policy.Policy
	Upstream        *Upstream // nil: the default
	StripPrefix     bool
	Audience        string // of assertions; "": that of the upstream
	Unauthenticated string // "login" or "401"; "": by kind of request
	Timeout         time.Duration
}

// Identity says what upstreams get to know.
type Identity struct {
	Headers         []Header
	Claims          []string // further claims in the assertion
	OnlyGroups      []string // empty: all
	StripForeign    bool
	AssertionHeader string // "": no assertion
	Audience        string // of assertions; "": the origin of the upstream
	AccessToken     bool
	Messages        *assertion.MessageSigner // nil: requests are not signed
}

// A Header is a request header made from a field or claim of the identity.
type Header struct{ Name, Source string }

// A Proxy is an http.Handler. It is safe for concurrent use.
type Proxy struct {
	opts    Options
	now     func() time.Time
	log     *slog.Logger
	origin  string           // of PublicURL
	hosts   map[string]*host // by canonical name
	folds   bool             // a route has upper-case letters in its path
	own     map[string]endpoint
	cookies cookieNames
	hygiene *hygiene
	passes  []string // the headers of an answer to a front proxy that lets a request pass
	changes sync.Map // routes that front proxies want otherwise

	changeCount atomic.Int64 // of changes, about
	limiter     *limiter
	consumed    *onceSet // states of finished logins
	loggedOut   *onceSet // logout tokens that were obeyed
	renewals    *renewals
	streams     *streams
	grants      *grants
	appTokens   *appTokens // nil: off
}

// A host is a name that requests may be for. The last one of its routes always matches.
type host struct {
	public bool // that of PublicURL
	origin string
	routes []*route // of requests that come to us; nil: we serve no such host
	asked  []*route // of requests that front proxies ask about; nil: we decide about no such host
}

// New returns a Proxy that is ready to serve.
func New(opts Options) (*Proxy, error) {
	if opts.PublicURL == nil || opts.Provider == nil || opts.Sessions == nil || opts.Sealer == nil || opts.Signer == nil {
		return nil, errors.New("proxy: a required option is missing")
	}
	p := &Proxy{
		opts: opts, now: opts.Now, log: opts.Log,
		origin:   opts.PublicURL.Scheme + "://" + opts.PublicURL.Host,
		hosts:    map[string]*host{},
		cookies:  newCookieNames(opts.Sessions.Cookie().Name),
		limiter:  newLimiter(opts.LoginsPerMinute),
		consumed: newOnceSet(10_000), loggedOut: newOnceSet(10_000),
	}
	if p.now == nil {
		p.now = time.Now
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.renewals = newRenewals(p)
	p.streams = newStreams(p)
	p.grants = newGrants()
	if opts.AppToken != nil {
		var err error
		if p.appTokens, err = newAppTokens(opts.AppToken, p.origin, opts.Sealer, p.cookies.session); err != nil {
			return nil, err
		}
	}
	var mapped []string
	for _, h := range opts.Identity.Headers {
		mapped = append(mapped, h.Name)
	}
	if opts.Identity.AssertionHeader != "" {
		mapped = append(mapped, opts.Identity.AssertionHeader)
	}
	if f := opts.Former; f != nil {
		p.consumed, p.loggedOut = f.consumed, f.loggedOut
		p.renewals.flights, p.renewals.pauses = f.renewals.flights, f.renewals.pauses
		p.streams = f.streams
		if f.opts.LoginsPerMinute == opts.LoginsPerMinute {
			p.limiter = f.limiter
		}
	}
	p.hygiene = newHygiene(mapped, opts.Identity.Messages != nil, opts.Identity.StripForeign, p.cookies)
	p.passes = passNames(opts.Identity)
	p.own = p.endpoints()
	if err := p.buildRoutes(); err != nil {
		return nil, err
	}
	p.opts.Former = nil // let it go when it is done
	p.streams.p.Store(p)
	return p, nil
}

// Run does the background work of p and returns when ctx has ended and the work under way is done.
func (p *Proxy) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { p.streams.run(ctx) })
	if p.opts.Bearer != nil {
		running.Go(func() { p.opts.Bearer.Run(ctx) })
	}
	p.opts.Provider.Run(ctx)
	running.Wait()
	p.renewals.wait()
}

// ServeHTTP implements http.Handler. Around the request path stand only the request log and the recovery from panics.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := p.begin(w, r)
	defer p.end(x)
	if err := p.serve(x); err != nil {
		p.fail(x, err)
	}
}

// serve is the request path.
func (p *Proxy) serve(x *exchange) error {
	if d, ok := p.dialect(x.r.RequestURI); ok {
		return p.verify(x, d) // a front proxy asks about a request: the same judgement, and no forwarding
	}
	t, err := p.locate(x)
	if err != nil {
		return err // no single reading, another host, an unclean path
	}
	if handle, ok := p.ownEndpoint(t.path); ok {
		return handle(x)
	}
	rt, err := p.match(p.hosts[t.host].routes, t, x.r.Method)
	x.route = rt
	if err != nil {
		return err
	}
	if rt.upstream == nil {
		return p.noUpstream()
	}
	who, allowed, err := p.judge(x, rt, p.hosts[t.host].routes)
	if !allowed {
		return err // a store failed, it is forbidden, or a login is needed and a page may have said so already
	}
	return p.forward(x, rt, who)
}

// judge decides who makes the request and whether the route is for them. Whoever asks, this is the one judgement there is. The
// error says how to answer when it is not allowed; it is nil when that was answered already.
func (p *Proxy) judge(x *exchange, rt *route, routes []*route) (who visitor, allowed bool, err error) {
	who, err = p.authenticate(x)
	if err != nil {
		return who, false, err // a store failed; that is never "anonymous"
	}
	rt, d := p.decide(who.Identity, rt, routes, x.target.path, x.r.Method)
	x.decide(who, d)
	switch {
	case d.Allowed:
		return who, true, nil
	case d.Remedy != policy.None:
		return who, false, p.challenge(x, rt, who, d) // to the login for browsers, 401 for programs
	default:
		return who, false, p.forbidden(x, who)
	}
}

// decide is the decision of the route's policy, and of those that lenient apps would take the path for. It returns the route
// that decided.
func (p *Proxy) decide(who *identity.Identity, rt *route, routes []*route, path, method string) (*route, policy.Decision) {
	d := rt.policy.Decide(who, p.now())
	for _, also := range p.lenient(routes, rt, path, method) {
		if !d.Allowed {
			break
		}
		rt, d = also, also.policy.Decide(who, p.now())
	}
	return rt, d
}

// locate gives the request its one reading: host and path, or an answer instead.
func (p *Proxy) locate(x *exchange) (target, error) {
	if x.r.Method == http.MethodConnect || x.r.Method == http.MethodTrace || x.r.RequestURI == "*" {
		return target{}, &failure{page: pages.MethodNotAllowed(""), code: "method_not_allowed", header: [2]string{"Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}}
	}
	if err := checkMethod(x.r.Method); err != nil {
		return target{}, p.badRequest(err)
	}
	if err := p.readForwarded(x); err != nil {
		return target{}, p.badRequest(err)
	}
	t, err := p.readTarget(x.r, x.host)
	x.target = t
	if ambiguous := (*ambiguousError)(nil); errors.As(err, &ambiguous) {
		return t, p.badRequest(err)
	}
	if h := p.hosts[t.host]; h == nil || h.routes == nil {
		if !strings.HasPrefix(x.r.RequestURI, "/") {
			return t, p.badRequest(errors.New("the request target is a URL of another host"))
		}
		if navigation(x.r) {
			return t, &redirect{http.StatusPermanentRedirect, p.origin + t.uri(), "another host"}
		}
		return t, &failure{page: pages.WrongHost(p.origin + "/"), code: "wrong_host", reason: "another host"}
	}
	if unclean := (*uncleanError)(nil); errors.As(err, &unclean) {
		if x.r.Method == http.MethodGet || x.r.Method == http.MethodHead {
			return t, &redirect{http.StatusPermanentRedirect, unclean.clean, "unclean path"}
		}
		return t, p.badRequest(err)
	}
	return t, err
}
