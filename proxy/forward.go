package proxy

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"authproxy/identity"
	"authproxy/proxy/pages"
)

// forward sends the request to the route's upstream, with what it shall know about the visitor.
func (p *Proxy) forward(x *exchange, rt *route, who visitor) error {
	websocket, err := p.upgrade(x, who)
	if err != nil {
		return err
	}
	ident, err := p.identityFor(rt, who)
	if err != nil {
		return err
	}
	if !websocket {
		delete(x.r.Header, "Upgrade") // httputil.ReverseProxy would pass it on
	}
	r := x.r
	var body *upload
	if r.ContentLength != 0 {
		body = &upload{body: r.Body, control: http.NewResponseController(x.w)}
		r = new(*r) // net/http wants to find its own body in its own request
		r.Body = body
		defer body.leave()
	}
	var (
		failed error
		sent   time.Time
		answer *http.Response
	)
	rp := httputil.ReverseProxy{
		Transport:  rt.upstream.transport,
		BufferPool: buffers,
		ErrorLog:   silent,
		// Rewrite runs after the headers that Connection names are gone, so no client can take away what is set here.
		Rewrite: func(pr *httputil.ProxyRequest) {
			failed = p.rewrite(x, rt, ident, pr.Out)
			sent = time.Now()
			x.ours = sent.Sub(x.begun)
		},
		ModifyResponse: func(res *http.Response) error {
			x.upstream = time.Since(sent)
			if res.StatusCode == http.StatusSwitchingProtocols && !websocket {
				return errors.New("the upstream switches protocols unasked")
			}
			answer = res
			p.answer(x, who, res.Header)
			p.hygiene.trailers(res.Trailer) // those that are announced
			body.answering(r, res.Header)
			p.streams.watch(x, who, res)
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
			x.upstream = time.Since(sent)
			body.answering(r, x.w.Header())
			if failed == nil {
				failed = p.upstreamFailure(x, body, err)
			}
		},
	}
	if websocket {
		rp.Transport = rt.upstream.upgrades
	}
	rp.Transport = refuseUnsigned{rp.Transport, &failed}
	rp.ServeHTTP(x.w, r)
	if answer != nil && len(answer.Trailer) > 0 { // all are known at the end of the body, and sent after this
		p.hygiene.trailers(x.w.Header())
	}
	return failed
}

var silent = log.New(io.Discard, "", 0)

// refuseUnsigned sends nothing when preparing the request has failed.
type refuseUnsigned struct {
	http.RoundTripper
	failed *error
}

func (t refuseUnsigned) RoundTrip(r *http.Request) (*http.Response, error) {
	if *t.failed != nil {
		return nil, *t.failed
	}
	return t.RoundTripper.RoundTrip(r)
}

// rewrite makes the upstream's request: the path as it was judged, none of the headers that are ours to send but our own,
// and in the end the signature.
func (p *Proxy) rewrite(x *exchange, rt *route, ident *outgoing, out *http.Request) error {
	u, t := rt.upstream, x.target
	path, raw := t.path, t.raw
	if rt.strip > 0 {
		path, raw = withoutSegments(path, rt.strip), withoutSegments(raw, rt.strip)
	}
	// The query stays as it came: parsing it and encoding it again would lose what Go does not understand.
	out.URL = &url.URL{Scheme: u.scheme, Host: u.host, Path: path, RawPath: raw, RawQuery: t.query, ForceQuery: t.bare}
	out.Host = u.host
	if u.conf.PreserveHost {
		out.Host = x.host
	}
	h := out.Header
	p.hygiene.request(h)
	out.Trailer = nil // a trailer would be a header that nobody looked at
	if x.chain != "" {
		h["X-Forwarded-For"] = []string{x.chain}
	} else {
		h["X-Forwarded-For"] = nil // net/http/httputil would add one otherwise
	}
	h["X-Forwarded-Host"] = []string{x.host}
	h["X-Forwarded-Proto"] = []string{x.proto}
	h["X-Request-Id"] = []string{x.id}
	if p.opts.Identity.AccessToken || ident != nil && ident.spent {
		delete(h, "Authorization")
	}
	if ident != nil {
		ident.set(h)
	}
	if m := p.opts.Identity.Messages; m != nil && ident != nil {
		return m.Sign(out, out.Host, ident.names, p.now())
	}
	return nil
}

// withoutSegments takes the first n segments off a clean path.
func withoutSegments(path string, n int) string {
	for ; n > 0; n-- {
		slash := strings.IndexByte(path[1:], '/')
		if slash < 0 {
			return "/"
		}
		path = path[1+slash:]
	}
	return path
}

// answer takes from the upstream's response what only we may say, and adds what we have to say.
func (p *Proxy) answer(x *exchange, who visitor, h http.Header) {
	p.hygiene.answer(h)
	if !who.IsAnonymous() && h["Cache-Control"] == nil && h["Expires"] == nil && h["Pragma"] == nil {
		h["Cache-Control"] = []string{"private"}
	}
	if len(x.cookies) == 0 {
		return
	}
	// A cache that stored this answer would hand our cookie to others (CVE-2025-48947).
	if !keptFromCaches(h["Cache-Control"]) {
		h["Cache-Control"] = []string{"private, no-store"}
		delete(h, "Expires")
	}
	delete(h, "Surrogate-Control")
	delete(h, "Cdn-Cache-Control")
	for _, c := range x.cookies {
		h.Add("Set-Cookie", c.String())
	}
	x.cookies = nil
}

// keptFromCaches says whether a Cache-Control keeps shared caches away from the whole answer: private="X" is about a header only
// (RFC 9111 §5.2.2.7).
func keptFromCaches(lines []string) bool {
	for _, line := range lines {
		for directive := range strings.SplitSeq(line, ",") {
			if d := strings.ToLower(strings.TrimSpace(directive)); d == "private" || d == "no-store" {
				return true
			}
		}
	}
	return false
}

// upgrade says whether the request is a WebSocket handshake that may pass. A page of another site may not make one with the
// user's cookie (RFC 6455 §10.2). Other upgrades are not passed on: the request goes as an ordinary one.
func (p *Proxy) upgrade(x *exchange, who visitor) (websocket bool, err error) {
	r := x.r
	if r.Header["Upgrade"] == nil {
		return false, nil
	}
	if len(r.Header["Upgrade"]) != 1 || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || r.Method != http.MethodGet || r.ProtoMajor != 1 {
		return false, nil
	}
	if r.ContentLength != 0 {
		return false, p.badRequest(errors.New("a WebSocket handshake with a body"))
	}
	if !p.mayConnect(r.Header, p.hosts[x.target.host], who) {
		return false, p.wrongOrigin(x)
	}
	return true, nil
}

// mayConnect says whether a WebSocket handshake comes from a page of the same host or of public_url, or from no page at all.
func (p *Proxy) mayConnect(header http.Header, h *host, who visitor) bool {
	switch origins := header["Origin"]; len(origins) {
	case 0:
		return who.session == nil // no browser, and no cookie that a browser could have lent
	case 1:
		return origins[0] == p.origin || origins[0] == h.origin
	}
	return false
}

func (p *Proxy) wrongOrigin(x *exchange) error {
	x.decision = decisionDeny
	return &failure{page: pages.CrossSite(p.home()), code: "wrong_origin", reason: "a WebSocket of another origin"}
}

// upstreamFailure is the answer when the upstream gave none.
func (p *Proxy) upstreamFailure(x *exchange, body *upload, err error) error {
	if x.r.Context().Err() != nil {
		return errClientGone
	}
	if body != nil && body.broken.Load() {
		return p.badRequest(errors.New("the body of the request ended early, paused for too long, or is malformed"))
	}
	err = fmt.Errorf("upstream %s: %w", x.route.upstream.conf.URL, err)
	if _, plain := errors.AsType[tls.RecordHeaderError](err); plain {
		err = fmt.Errorf("%w; hint: does it speak http?", err)
	}
	f := &failure{page: pages.BadGateway(""), code: "bad_gateway", reason: "the upstream did not answer", cause: err}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		f = &failure{page: pages.GatewayTimeout(""), code: "gateway_timeout", reason: "the upstream did not answer in time", cause: err}
	}
	return f
}

// outgoing is what an upstream gets to know about a visitor: derived once from a session and a route.
type outgoing struct {
	headers   []field
	names     []string // of the headers that a signature covers
	bearer    []string // Authorization, or nil
	spent     bool     // the client's Authorization was a credential for us, and is for nobody else
	header    string   // the name of the assertion's header; "" is off
	assertion atomic.Pointer[minted]
}

type field struct {
	name  string
	value []string
}

type minted struct {
	value []string
	until time.Time // when to mint the next one
}

// identityFor is what the route's upstream gets to know about the visitor; nil when nobody is signed in.
func (p *Proxy) identityFor(rt *route, who visitor) (*outgoing, error) {
	memo := who.memo()
	if memo == nil {
		return nil, nil
	}
	var o *outgoing
	if known, ok := memo.Load(rt); ok {
		o = known.(*outgoing)
	} else {
		known, _ := memo.LoadOrStore(rt, p.describe(who))
		o = known.(*outgoing)
	}
	if o.header == "" {
		return o, nil
	}
	now := p.now()
	if m := o.assertion.Load(); m != nil && now.Before(m.until) {
		return o, nil
	}
	token, expires, err := p.opts.Signer.Mint(p.forUpstream(who.Identity), p.opts.Identity.Claims, who.sid(), rt.audience, now)
	if err != nil {
		return nil, err
	}
	o.assertion.Store(&minted{[]string{token}, now.Add(expires.Sub(now) / 2)})
	return o, nil
}

// forUpstream is the identity with the groups that upstreams may see.
func (p *Proxy) forUpstream(who *identity.Identity) *identity.Identity {
	if len(p.opts.Identity.OnlyGroups) == 0 {
		return who
	}
	c := *who
	c.Groups = slices.DeleteFunc(slices.Clone(who.Groups), func(g string) bool { return !slices.Contains(p.opts.Identity.OnlyGroups, g) })
	return &c
}

func (p *Proxy) describe(who visitor) *outgoing {
	o := &outgoing{header: p.opts.Identity.AssertionHeader, spent: who.grant != nil}
	shown := p.forUpstream(who.Identity)
	for _, h := range p.opts.Identity.Headers {
		if text := headerValue(shown.Value(h.Source)); text != "" {
			o.headers = append(o.headers, field{h.Name, []string{text}})
			o.names = append(o.names, h.Name)
		}
	}
	if o.header != "" {
		o.names = append(o.names, o.header)
	}
	if token := who.accessToken(); p.opts.Identity.AccessToken && token != "" {
		o.bearer = []string{"Bearer " + token}
	}
	return o
}

// set writes the identity into the headers of the upstream's request.
func (o *outgoing) set(h http.Header) {
	for _, f := range o.headers {
		h[f.name] = f.value
	}
	if o.header != "" {
		h[o.header] = o.assertion.Load().value
	}
	if o.bearer != nil {
		h["Authorization"] = o.bearer
	}
}

// headerValue is a field or claim as a header's value: lists are joined with commas, and what is not
// printable ASCII, and "%" itself, is percent-encoded as UTF-8. It is "" for what is absent.
func headerValue(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return encodeValue(v, false)
	case []string:
		parts := make([]string, len(v))
		for i, s := range v {
			parts[i] = encodeValue(s, true)
		}
		return strings.Join(parts, ",")
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			s, ok := e.(string)
			if !ok {
				s = jsonText(e)
			}
			parts[i] = encodeValue(s, true)
		}
		return strings.Join(parts, ",")
	default:
		return encodeValue(jsonText(v), false)
	}
}

func jsonText(v any) string {
	text, err := json.Marshal(v)
	if err != nil { // not for what was decoded from JSON
		return ""
	}
	return string(text)
}

// encodeValue percent-encodes what a header cannot carry; within a list also the comma. Spaces at either end would be lost
// on the way (RFC 9110 §5.5), so they are encoded too.
func encodeValue(s string, inList bool) string {
	const hex = "0123456789ABCDEF"
	plain := true
	for i := range len(s) {
		if encodes(s, i, inList) {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; encodes(s, i, inList) {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func encodes(s string, i int, inList bool) bool {
	c := s[i]
	return c < ' ' || c > '~' || c == '%' || c == ',' && inList || c == ' ' && (i == 0 || i == len(s)-1)
}
