package proxy

import (
	"errors"
	"time"

	"authproxy/oidc"
	"authproxy/session"
)

// An Event is what metrics are made of: one request, at its end. Its texts come from the configuration or from small fixed
// sets, never from a client, a user or the provider.
type Event struct {
	Route    string        // its host and path, or "default"; "" for our own endpoints and what was refused before a route was found
	Decision string        // allow, deny, login or own, as in the log
	Status   int           // of the answer; 499 when the client left before there was one
	Ours     time.Duration // until the upstream was asked, or, where it was not, until the end
	Upstream time.Duration // from then until the header of its answer was there; 0: it was not asked
	Panicked bool

	Login             string // LoginStarted, LoginCompleted or LoginFailed; "" when the request was no step of a login
	LoginFailure      string // why a login failed: the code of the answer, or what was wrong with the provider's
	BackchannelLogout string // obeyed, replayed, refused or failed; "" when the request was none
}

// What became of a login in a request.
const (
	LoginStarted   = "started"   // the browser was sent to the provider
	LoginCompleted = "completed" // it came back and has a session
	LoginFailed    = "failed"    // either went wrong
)

// What became of a back-channel logout, in an Event and nowhere else.
const (
	logoutObeyed   = "obeyed"
	logoutReplayed = "replayed"
	logoutRefused  = "refused"
	logoutFailed   = "failed"
)

// observe tells what became of x.
func (p *Proxy) observe(x *exchange, status int) {
	if p.opts.Observe == nil {
		return
	}
	e := Event{Decision: x.decision, Status: status, Ours: x.ours, Upstream: x.upstream, Panicked: x.panicked, Login: x.login, BackchannelLogout: x.logout}
	if e.Decision == "" {
		e.Decision = decisionDeny
	}
	if x.route != nil {
		e.Route = x.route.name
	}
	if x.upstream == 0 {
		e.Ours = time.Since(x.begun)
	}
	if x.login == LoginFailed {
		e.LoginFailure = x.failure
	}
	p.opts.Observe(e)
}

// failed notes for the event how the exchange went wrong. Of a login that is worth more than the code of its answer: what
// made the provider's word unbelievable.
func (x *exchange) failed(f *failure) {
	x.failure = f.code
	var invalid *oidc.Invalid
	if errors.As(f.cause, &invalid) {
		x.failure = invalid.Reason
	}
}

// renewalResult is what became of a renewal: renewed; unavailable, when the provider did not answer; ended, when it took the
// session with it; or failed.
func renewalResult(err error) string {
	var unavailable *oidc.Unavailable
	switch {
	case err == nil:
		return "renewed"
	case errors.Is(err, oidc.ErrInvalidGrant), errors.Is(err, session.ErrNone), anotherUser(err):
		return "ended"
	case errors.As(err, &unavailable):
		return "unavailable"
	}
	return "failed"
}
