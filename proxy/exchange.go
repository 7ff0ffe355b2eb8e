package proxy

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"authproxy/identity"
	"authproxy/policy"
)

// An exchange is one request on its way through, with what was found out about it for the answer and for the log.
type exchange struct {
	w      *recorder
	r      *http.Request
	method string // of the request that came to us
	id     string // of the request
	begun  time.Time

	host   string     // canonical; what the client asked for
	proto  string     // http or https, as the client spoke
	client netip.Addr // invalid when unknown, as on a unix socket
	chain  string     // X-Forwarded-For for the upstream

	asked    *dialect // a front proxy asks about r; nil: r came to us
	passed   bool     // and it was told that r may pass
	target   target
	route    *route // nil for our own endpoints and refusals
	who      *identity.Identity
	decision string
	reason   string
	cookies  []*http.Cookie // to set with the answer
	twice    bool           // the session cookie came twice
	ours     time.Duration  // until the upstream was asked
	upstream time.Duration  // until the upstream's header was there; 0: it was not asked
	err      error          // the cause, for the log
	failure  string         // code or reason of the failure
	panicked bool
	hurried  bool    // the time for the request's body is bounded
	stream   *stream // the answer, when it may go on for long
	login    string  // what became of a login
	logout   string  // what became of a back-channel logout
}

// The keys of the request event.
const (
	keyRequestID  = "request_id"
	keyMethod     = "method"
	keyHost       = "host"
	keyPath       = "path"
	keyRoute      = "route"
	keyDecision   = "decision"
	keyReason     = "reason"
	keySubject    = "subject"
	keyStatus     = "status"
	keyBytes      = "bytes"
	keyDuration   = "duration_ms"
	keyUpstream   = "upstream_ms"
	keyClientIP   = "client_ip"
	keyError      = "error"
	decisionAllow = "allow"
	decisionDeny  = "deny"
	decisionLogin = "login"
	decisionOwn   = "own"
	maxLogged     = 2048 // bytes of a value that a client chose
)

func (p *Proxy) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{w: &recorder{ResponseWriter: w, control: http.NewResponseController(w), streams: r.ProtoMajor > 1}, r: r, method: r.Method, id: rand.Text(), begun: time.Now(), who: identity.Anonymous}
	if r.ContentLength != 0 && !x.w.streams {
		x.w.hurry() // net/http writes 100 Continue itself, and the bound of the request before may be over
	}
	return x
}

// decide notes the policy's decision.
func (x *exchange) decide(who visitor, d policy.Decision) {
	x.who = who.Identity
	x.reason = d.Reason
	switch {
	case d.Allowed:
		x.decision = decisionAllow
	case d.Remedy != policy.None:
		x.decision = decisionLogin
	default:
		x.decision = decisionDeny
	}
}

// end recovers from a panic and writes the request event: exactly one, whatever happened.
func (p *Proxy) end(x *exchange) {
	failed := recover()
	if failed != nil && failed != http.ErrAbortHandler {
		x.err, x.panicked = fmt.Errorf("panic: %v\n%s", failed, debug.Stack()), true
		if x.w.status == 0 {
			p.fail(x, x.err)
			failed = nil
		} else {
			failed = http.ErrAbortHandler // the answer is broken off; nothing else would tell the client
		}
	}
	switch { // why httputil.ReverseProxy gave up within an answer
	case failed == nil || x.err != nil || x.r.Context().Err() != nil:
	case x.stream != nil && x.stream.closed.Load():
		x.err = errStreamEnded
	default:
		x.err = errBrokenOff
	}
	p.logRequest(x, failed != nil)
	if failed != nil {
		panic(failed)
	}
	if !x.w.taken {
		x.w.hurry() // what net/http has not sent yet
	}
}

// logRequest writes the request event and tells the observer.
func (p *Proxy) logRequest(x *exchange, aborted bool) {
	status := x.w.status
	switch {
	case x.r.Context().Err() != nil && (status == 0 || aborted):
		status = statusClientClosed
		if x.reason == "" {
			x.reason = "the client went away"
		}
	case status == 0:
		status = http.StatusOK // nothing was written: net/http sends this
	}
	p.observe(x, status)
	level := slog.LevelInfo
	switch {
	case x.err == nil || status < 400 || status == statusClientClosed:
	case status >= 500:
		level = slog.LevelError
	case x.login != "" || x.logout != "": // who could not sign in may tell an operator the request ID; a refused token is daily life
		level = slog.LevelWarn
	}
	ctx := context.Background()
	if !p.log.Enabled(ctx, level) {
		return
	}
	decision, route := x.decision, ""
	if decision == "" {
		decision = decisionDeny
	}
	if x.route != nil {
		route = x.route.name
	}
	path := x.target.path
	if path == "" {
		path = x.r.URL.Path
	}
	var buf [18]slog.Attr
	attrs := append(buf[:0],
		slog.String(keyRequestID, x.id),
		slog.String(keyMethod, cut(x.r.Method)),
		slog.String(keyHost, cut(x.host)),
		slog.String(keyPath, cut(path)),
		slog.String(keyRoute, route),
		slog.String(keyDecision, decision),
		slog.String(keyReason, x.reason),
		slog.String(keySubject, x.who.Subject),
		slog.Int(keyStatus, status),
		slog.Int64(keyBytes, x.w.bytes),
		slog.Float64(keyDuration, milliseconds(time.Since(x.begun))),
	)
	if x.upstream > 0 {
		attrs = append(attrs, slog.Float64(keyUpstream, milliseconds(x.upstream)))
	}
	ip := ""
	if x.client.IsValid() {
		ip = x.client.String()
	}
	attrs = append(attrs, slog.String(keyClientIP, ip))
	if x.err != nil {
		attrs = append(attrs, slog.String(keyError, x.err.Error()))
	}
	p.log.LogAttrs(ctx, level, "request", attrs...)
}

// statusClientClosed is what the log says when the client left before there was an answer; nobody receives it.
const statusClientClosed = 499

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func cut(s string) string { return s[:min(len(s), maxLogged)] }

// maxInterims is how many interim responses are passed on: http.Transport leaves it to us to bound them.
const maxInterims = 100

// A recorder notes what is written, and lets of interim (1xx) responses pass only what may.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64

	interims int // that passed

	control *http.ResponseController // of ResponseWriter
	streams bool                     // HTTP/2: a deadline is the stream's, and ends it also while nobody writes
	bounded time.Time                // when the time for writing was last set

	hijacked func(net.Conn) net.Conn // wraps a connection that is taken over; nil leaves it as it is
	taken    bool                    // it was
}

func (w *recorder) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		// net/http itself says 100 when the body is read; others mean nothing to clients. That there is an end to them is up to
		// the upstream's timeout.
		if status == http.StatusEarlyHints && w.interims < maxInterims {
			w.interims++
			interim(w.Header())
			w.ResponseWriter.WriteHeader(status)
		}
		return
	}
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.hurry()
	n, err := w.ResponseWriter.Write(b)
	w.rest()
	w.bytes += int64(n)
	return n, err
}

// FlushError is for http.ResponseController.
func (w *recorder) FlushError() error {
	w.hurry()
	defer w.rest()
	return w.control.Flush()
}

// writePatience is how long a client may take to read what is written at once. One that reads nothing would hold memory here and
// a worker of the upstream for ever.
const writePatience = time.Minute

// hurry bounds the writing that follows.
func (w *recorder) hurry() {
	if now := time.Now(); w.streams || now.Sub(w.bounded) > writePatience/8 { // it costs less than a write, but not nothing
		w.bounded = now
		w.control.SetWriteDeadline(now.Add(writePatience)) // where it cannot be set, there is no connection to wait for
	}
}

// rest takes the bound away from a stream on which nothing is written for now.
func (w *recorder) rest() {
	if w.streams {
		w.control.SetWriteDeadline(time.Time{})
	}
}

// Hijack implements http.Hijacker.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	w.taken = true
	if w.hijacked != nil {
		c = w.hijacked(c)
	}
	return c, rw, nil
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

var (
	errClientGone  = errors.New("the client went away")
	errBrokenOff   = errors.New("the upstream broke off its answer")
	errStreamEnded = errors.New("the answer was broken off here: its session has ended, or we stop")
)
