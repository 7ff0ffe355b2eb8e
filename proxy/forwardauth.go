package proxy

import (
	"cmp"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"authproxy/proxy/pages"
)

// ForwardAuth says which front proxies may ask us whether a request may pass, and about which hosts.
type ForwardAuth struct {
	Trust        []netip.Prefix // peers that may ask; loopback always may
	TrustUnix    bool           // whoever reaches a Unix socket may ask
	SharedSecret string         // or who sends this in X-Authproxy-Secret; "": nobody may for that
	Domains      []string       // host names that we decide about; empty: that of PublicURL
}

// A dialect is how one kind of front proxy asks. Each reads its own metadata and no other's: what it does not overwrite, the
// client may have sent.
type dialect struct {
	name string
	read func(r *http.Request) (asked, error)

	// A login is needed: with 401 and Location, because the front proxy takes all but 2xx, 401 and 403 for a failure of ours.
	unauthorized bool

	removes bool // the front proxy removes request headers that we name
}

// asked is what a front proxy says about its client's request.
type asked struct {
	method, host string
	target       string // path and query as they came
	change       routeChange
}

// A routeChange is what the front proxy's operator wants to be otherwise than the route has it; "" is as it is.
type routeChange struct{ audience, unauthenticated string }

var dialects = []dialect{
	{name: "nginx", read: readOriginal, unauthorized: true},
	{name: "traefik", read: readForwardedRequest},
	{name: "caddy", read: readForwardedRequest},
	{name: "haproxy", read: readForwardedRequest},
	{name: "envoy", removes: true}, // reads the path that follows its endpoint
}

// dialect says in which dialect a front proxy asks by a request with that target. The host that it asks us by is none of ours:
// it is the address at which it reaches us.
func (p *Proxy) dialect(uri string) (*dialect, bool) {
	if p.opts.ForwardAuth == nil {
		return nil, false
	}
	rest, ok := strings.CutPrefix(uri, p.opts.Prefix+"/verify/")
	if !ok {
		return nil, false
	}
	for i := range dialects {
		d := dialects[i]
		after, ok := strings.CutPrefix(rest, d.name)
		switch {
		case !ok:
		case d.read == nil && strings.HasPrefix(after, "/"):
			d.read = func(r *http.Request) (asked, error) { return readItself(r, after) }
			return &d, true
		case d.read != nil && (after == "" || after[0] == '?'): // the query says nothing
			return &d, true
		}
	}
	return nil, false
}

// only is the value of a header that came in exactly one line, and not empty.
func only(h http.Header, name string) (string, error) {
	if v := h[name]; len(v) == 1 && v[0] != "" {
		return v[0], nil
	}
	return "", fmt.Errorf("the front proxy sent %s %d times, or empty, want it once", name, len(h[name]))
}

// readOriginal reads X-Original-URL and X-Original-Method, by the convention of nginx configurations.
func readOriginal(r *http.Request) (a asked, err error) {
	whole, err := only(r.Header, "X-Original-Url")
	if err != nil {
		return a, err
	}
	if a.method, err = only(r.Header, "X-Original-Method"); err != nil {
		return a, err
	}
	scheme, rest, ok := strings.Cut(whole, "://")
	slash := strings.IndexByte(rest, '/')
	if !ok || slash < 0 || !isWeb(scheme) {
		return a, errors.New("X-Original-URL is no http or https URL with a path")
	}
	a.host, a.target = rest[:slash], rest[slash:]
	return a, nil
}

// readForwardedRequest reads X-Forwarded-Method, -Proto, -Host and -Uri.
func readForwardedRequest(r *http.Request) (a asked, err error) {
	var proto string
	for name, value := range map[string]*string{"X-Forwarded-Method": &a.method, "X-Forwarded-Proto": &proto, "X-Forwarded-Host": &a.host, "X-Forwarded-Uri": &a.target} {
		if *value, err = only(r.Header, name); err != nil {
			return a, err
		}
	}
	if !isWeb(proto) {
		return a, errors.New("X-Forwarded-Proto is neither http nor https")
	}
	return a, nil
}

// readItself reads the request that asks: Envoy's HTTP service sends the client's method, host, and path behind a prefix.
func readItself(r *http.Request, target string) (asked, error) {
	proto, err := only(r.Header, "X-Forwarded-Proto")
	if err == nil && !isWeb(proto) {
		err = errors.New("X-Forwarded-Proto is neither http nor https")
	}
	return asked{method: r.Method, host: r.Host, target: target}, err
}

// isWeb: WebSockets too are asked for by http and https.
func isWeb(scheme string) bool { return scheme == "http" || scheme == "https" }

// verify answers a front proxy. The answer is 200 when its client's request may pass, and never otherwise.
func (p *Proxy) verify(x *exchange, d *dialect) error {
	x.asked = d
	if x.r.ContentLength != 0 && x.r.ProtoMajor == 1 { // some front proxies announce the client's body and do not send it
		x.w.Header().Set("Connection", "close")
	}
	x.hurry()
	if !p.mayAsk(x.r) {
		return p.mayNotAsk()
	}
	a, err := d.read(x.r)
	if err != nil {
		return p.badRequest(err)
	}
	return p.decideFor(x, a)
}

// decideFor judges the request that a trusted front proxy asks about, and answers.
func (p *Proxy) decideFor(x *exchange, a asked) error {
	t, err := p.locateAsked(x, a)
	if err != nil {
		return err
	}
	h := p.hosts[t.host]
	rt, err := p.match(h.asked, t, x.r.Method)
	x.route = rt
	if err != nil {
		return err
	}
	if rt, err = p.changed(rt, a.change); err != nil {
		return err
	}
	who, allowed, err := p.judge(x, rt, h.asked)
	if !allowed {
		return err
	}
	if asksForWebSocket(x.r.Header) && !p.mayConnect(x.r.Header, h, who) {
		return p.wrongOrigin(x)
	}
	return p.pass(x, rt, who)
}

// maxChanges bounds the routes as front proxies want them otherwise: operators write down a few.
const maxChanges = 1000

// changed is the route with a change.
func (p *Proxy) changed(rt *route, c routeChange) (*route, error) {
	if c == (routeChange{}) {
		return rt, nil
	}
	type key struct {
		rt *route
		c  routeChange
	}
	if known, ok := p.changes.Load(key{rt, c}); ok {
		return known.(*route), nil
	}
	if p.changeCount.Add(1) > maxChanges {
		return nil, p.badRequest(errors.New("context_extensions: there are too many different values"))
	}
	next := new(*rt)
	next.audience = cmp.Or(c.audience, rt.audience)
	next.unauthenticated = cmp.Or(c.unauthenticated, rt.unauthenticated)
	known, _ := p.changes.LoadOrStore(key{rt, c}, next)
	return known.(*route), nil
}

// mayAsk says whether the peer may ask for decisions: by its address, or because it knows the secret.
func (p *Proxy) mayAsk(r *http.Request) bool {
	f := p.opts.ForwardAuth
	if sent := r.Header["X-Authproxy-Secret"]; len(sent) == 1 && sameSecret(sent[0], f.SharedSecret) {
		return true
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil { // a Unix socket's peer has no address
		return f.TrustUnix
	}
	a := peer.Addr().Unmap().WithZone("")
	return a.IsLoopback() || contains(f.Trust, a)
}

// sameSecret compares in constant time. An empty secret is none.
func sameSecret(sent, secret string) bool {
	return secret != "" && subtle.ConstantTimeCompare([]byte(sent), []byte(secret)) == 1
}

func (p *Proxy) mayNotAsk() error {
	return &failure{page: pages.NotAllowedToAsk(), code: "not_trusted", reason: "not a front proxy in forward_auth.trust, and without the secret"}
}

// locateAsked is locate for a request that a front proxy describes. From here on x.r is that request.
func (p *Proxy) locateAsked(x *exchange, a asked) (target, error) {
	peer, err := netip.ParseAddrPort(x.r.RemoteAddr)
	if err == nil {
		x.client = peer.Addr().Unmap().WithZone("")
	}
	if lines := x.r.Header["X-Forwarded-For"]; len(lines) > 0 { // for the log: the last one is the front proxy's own word
		last := lines[len(lines)-1]
		if c, err := netip.ParseAddr(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])); err == nil {
			x.client = c.Unmap().WithZone("")
		}
	}
	path, _, _ := strings.Cut(a.target, "?")
	x.r = (&http.Request{Method: a.method, RequestURI: a.target, URL: &url.URL{Path: path}, Host: a.host, Header: x.r.Header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: x.r.RemoteAddr, Body: http.NoBody}).WithContext(x.r.Context())
	if err := checkAskedMethod(a.method); err != nil {
		return target{}, p.badRequest(err)
	}
	if x.host, err = canonicalHost(a.host, p.opts.PublicURL.Scheme); err != nil {
		return target{}, p.badRequest(err)
	}
	if !strings.HasPrefix(a.target, "/") {
		return target{}, p.badRequest(errors.New("what the front proxy asks about is not a path"))
	}
	t, err := p.readTarget(x.r, x.host)
	x.target = t
	if ambiguous := (*ambiguousError)(nil); errors.As(err, &ambiguous) {
		return t, p.badRequest(err)
	}
	h := p.hosts[t.host]
	if h == nil || h.asked == nil {
		return t, &failure{page: pages.WrongHost(p.origin + "/"), code: "wrong_host", reason: "not a host of forward_auth.domains"}
	}
	if unclean := (*uncleanError)(nil); errors.As(err, &unclean) {
		if x.r.Method == http.MethodGet || x.r.Method == http.MethodHead {
			return t, &redirect{http.StatusPermanentRedirect, h.origin + unclean.clean, "unclean path"}
		}
		return t, p.badRequest(err)
	}
	if _, ours := p.ownEndpoint(t.path); ours { // the app must not get them, and whoever asks for them has to come to us
		return t, &failure{page: pages.NotFound(p.origin + p.home()), code: "not_found", reason: "an endpoint of our own: the front proxy has to send it to us without asking"}
	}
	return t, err
}

// checkAskedMethod does what net/http does with the methods of requests that come to us, and what locate does.
func checkAskedMethod(method string) error {
	switch method {
	case "":
		return errors.New("there is no method")
	case http.MethodConnect, http.MethodTrace:
		return errors.New("the method is not for apps")
	}
	return checkMethod(method)
}

// asksForWebSocket says whether a request that a front proxy asks about is a WebSocket handshake. Upgrade does not pass every
// front proxy, but the key does (RFC 6455 §4.1).
func asksForWebSocket(h http.Header) bool {
	return h["Sec-Websocket-Key"] != nil || strings.EqualFold(h.Get("Upgrade"), "websocket")
}

// maxPass bounds the header of an answer in bytes: nginx takes no more than fits its proxy_buffer_size, which is 4 KiB at
// least.
const maxPass = 4096

// removeHeader is where Envoy's HTTP service looks for the names of request headers to remove.
const removeHeader = "X-Envoy-Auth-Headers-To-Remove"

// pass answers that the request may pass, with each identity header that the route's upstream may get: empty when there is no
// value, so that the front proxy overwrites what the client sent.
func (p *Proxy) pass(x *exchange, rt *route, who visitor) error {
	ident, err := p.identityFor(rt, who)
	if err != nil {
		return err
	}
	h := http.Header{}
	for _, name := range p.passes {
		h[name] = []string{""}
	}
	if ident != nil {
		ident.set(h)
	}
	if name := p.misspelled(x.r.Header); name != "" && !x.asked.removes {
		x.decision = decisionDeny
		return p.badRequest(fmt.Errorf("the client sent %q, which apps take for a header that says who the user is, and the front proxy would pass it on", name))
	}
	if err := p.tooLarge(h, who); err != nil {
		x.decision = decisionDeny
		return err
	}
	x.passed = true
	maps.Copy(x.w.Header(), h)
	h = x.w.Header()
	if x.asked.removes {
		remove := p.forged(x.r.Header)
		if ident != nil && ident.spent && !p.opts.Identity.AccessToken { // it was a credential for us, and is for nobody else
			remove = append(remove, "authorization")
		}
		if len(remove) > 0 {
			h[removeHeader] = []string{strings.Join(remove, ",")}
		}
	}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{"0"}
	x.w.WriteHeader(http.StatusOK)
	return nil
}

// passNames are the headers of an answer that lets a request pass.
func passNames(i Identity) (names []string) {
	for _, h := range i.Headers {
		names = append(names, h.Name)
	}
	if i.AssertionHeader != "" {
		names = append(names, i.AssertionHeader)
	}
	if i.AccessToken {
		names = append(names, "Authorization")
	}
	return names
}

// tooLarge says whether an identity does not fit into the answer, and what of it costs most.
func (p *Proxy) tooLarge(h http.Header, who visitor) error {
	const others = 200 // bytes of the headers that net/http and we add, without those for Envoy, which takes more
	size := others
	for _, name := range p.passes {
		size += len(name) + len(h[name][0]) + len(": \r\n")
	}
	if size <= maxPass {
		return nil
	}
	costs := map[string]int{}
	for _, m := range p.opts.Identity.Headers {
		costs[m.Source] += len(h[m.Name][0])
	}
	if p.opts.Identity.AssertionHeader != "" {
		shown := p.forUpstream(who.Identity)
		for _, claim := range append([]string{"sub", "email", "name", "username", "groups"}, p.opts.Identity.Claims...) {
			costs[claim] += base64.RawURLEncoding.EncodedLen(len(jsonText(shown.Value(claim))))
		}
	}
	costs["the access token"] = len(h.Get("Authorization"))
	worst := slices.MaxFunc(slices.Sorted(maps.Keys(costs)), func(a, b string) int { return costs[a] - costs[b] })
	remedy := "send fewer headers and claims"
	switch worst {
	case "groups":
		remedy = "name the groups that the app needs in identity.only_groups"
	case "the access token":
		remedy = "set identity.access_token to false"
	}
	return &failure{page: pages.IdentityTooLarge(), code: "identity_too_large", reason: "identity_too_large", cause: fmt.Errorf(
		"the identity has %d bytes and front proxies take %d: what costs most is %s, with %d; %s", size, maxPass, worst, costs[worst], remedy)}
}

// forged names the headers that would look to the app like our word, in spellings that the answer does not
// overwrite.
func (p *Proxy) forged(header http.Header) (names []string) {
	for name := range header {
		if p.hygiene.identity.has(name) && !p.overwrites(name) {
			names = append(names, strings.ToLower(name))
		}
	}
	return names
}

// misspelled is a header that some apps take for one that says who the user is, in a spelling that nobody has a reason to send:
// X.Forwarded.User, Remote_User. Traefik passes them on (CVE-2026-54763 and what came after it).
func (p *Proxy) misspelled(header http.Header) string {
	for name := range header {
		odd := strings.IndexFunc(name, func(c rune) bool { return c != '-' && fold(string(c)) == "-" }) >= 0
		if odd && p.hygiene.identity.has(name) {
			return name
		}
	}
	return ""
}

func (p *Proxy) overwrites(name string) bool {
	for _, n := range p.passes {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}
