package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"authproxy/oidc"
	"authproxy/session"
)

// renewals renews the tokens of sessions in the background, before they expire: one renewal per session at a time, whatever
// its requests do.
type renewals struct {
	p       *Proxy
	flights *singleflight.Group // shared over reloads: a refresh token is used once
	running *tasks
	under   sync.Map // IDs of sessions that a goroutine renews while no request waits
	pauses  *pauses
}

const (
	renewalPatience = 15 * time.Second // longest that a renewal takes
	renewalPause    = 10 * time.Second // between tries that the provider did not answer
	renewalLease    = 40 * time.Second // outlives every renewal: another replica must not begin before this one is done
	renewalPoll     = 50 * time.Millisecond
)

func newRenewals(p *Proxy) *renewals {
	return &renewals{p: p, flights: new(singleflight.Group), running: new(tasks), pauses: &pauses{until: map[string]time.Time{}}}
}

func (r *renewals) wait() { r.running.wait() }

// tasks counts what is under way. Unlike a sync.WaitGroup it may be added to while somebody waits: requests of a Proxy that
// was taken over from go on.
type tasks struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when n becomes zero; nil while nobody waits
}

func (t *tasks) add(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n += n; t.n == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// run does f in a goroutine that counts.
func (t *tasks) run(f func()) {
	t.add(1)
	go func() {
		defer t.add(-1)
		f()
	}()
}

// wait returns once nothing was under way.
func (t *tasks) wait() {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	<-idle
}

// renewAt is when tokens that expire at the given time are due: a minute before, or earlier in a short life.
func renewAt(now, expiry time.Time) time.Time {
	if expiry.IsZero() {
		return time.Time{}
	}
	return expiry.Add(-min(time.Minute, expiry.Sub(now)/5))
}

// pauses says which sessions are not to be renewed for a moment, because the provider did not answer.
type pauses struct {
	mu    sync.Mutex
	until map[string]time.Time // by session ID
}

// maxPauses bounds how many are remembered. One that is forgotten is a try too early.
const maxPauses = 10_000

func (p *pauses) add(id string, until, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.until) >= maxPauses {
		for other, u := range p.until {
			if !now.Before(u) || len(p.until) >= maxPauses {
				delete(p.until, other)
			}
		}
	}
	p.until[id] = until
}

func (p *pauses) now(id string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Before(p.until[id])
}

// fresh sees to it that the visitor's tokens are renewed when they are due. The request does not wait for that, unless the
// upstream is to get an access token that has expired.
func (r *renewals) fresh(x *exchange, who visitor) (visitor, error) {
	s := who.session
	now := r.p.now()
	if s.RefreshToken == "" || !r.p.opts.StoreTokens || s.RenewAt.IsZero() || now.Before(s.RenewAt) {
		return who, nil
	}
	if r.pauses.now(s.ID, now) {
		return who, nil
	}
	if x.asked != nil && !r.p.opts.Sessions.Lists() { // the cookie that holds the new tokens would not reach the browser
		return who, nil
	}
	renew := func() {
		r.flights.Do(s.ID, func() (any, error) {
			ctx, cancel := context.WithTimeout(context.Background(), renewalPatience) // no client's leaving ends it
			defer cancel()
			return nil, r.renew(ctx, who.value, s)
		})
	}
	if !r.p.opts.Identity.AccessToken || now.Before(s.AccessExpiry) {
		if _, under := r.under.LoadOrStore(s.ID, true); !under { // one goroutine for each session, however many requests
			r.running.run(func() {
				defer r.under.Delete(s.ID)
				renew()
			})
		}
		return who, nil
	}
	finished := make(chan struct{})
	r.running.run(func() {
		defer close(finished)
		renew()
	})
	select {
	case <-finished:
	case <-x.r.Context().Done():
		return visitor{}, errClientGone
	}
	next, cookie, err := r.p.opts.Sessions.Find(x.r.Context(), who.value, true)
	switch {
	case errors.Is(err, session.ErrNone):
		return anonymous, nil
	case err != nil:
		return visitor{}, r.p.storeFailure(err)
	}
	if cookie != nil {
		x.setCookie(cookie)
	}
	return visitor{Identity: next.Identity, session: next, value: who.value}, nil
}

// renew renews the tokens of one session. The provider's word about the user is taken over; if it is about another user, or
// the provider takes the refresh token back, the session ends. When the provider does not answer, the session goes on.
func (r *renewals) renew(ctx context.Context, value string, asked *session.Session) error {
	sessions := r.p.opts.Sessions
	s, release, err := r.alone(ctx, value, asked)
	if err != nil || s.RefreshToken != asked.RefreshToken { // or it has been renewed meanwhile
		if err == nil {
			release()
		}
		return err
	}
	defer release()
	tokens, err := r.p.opts.Provider.Refresh(ctx, s.RefreshToken, &oidc.Tokens{Identity: *s.Identity, Nonce: s.Nonce, SessionID: s.ProviderSID, SessionExpiry: s.Expires})
	switch {
	case err == nil:
		return r.report(s, r.keep(value, tokens))
	case errors.Is(err, oidc.ErrInvalidGrant):
		if s, _, again := sessions.Find(ctx, value, false); again != nil || s.RefreshToken != asked.RefreshToken {
			return again
		}
	case anotherUser(err):
	default:
		r.pauses.add(s.ID, r.p.now().Add(renewalPause), r.p.now())
		return r.report(s, err)
	}
	if ended := sessions.End(ctx, session.Selector{ID: s.ID}); ended != nil {
		err = errors.Join(err, ended)
	}
	return r.report(s, fmt.Errorf("the session ends: %w", err))
}

// anotherUser says whether the provider answered a renewal with tokens about somebody else.
func anotherUser(err error) bool {
	var invalid *oidc.Invalid
	return errors.As(err, &invalid) && (invalid.Reason == "subject" || invalid.Reason == "token_issuer")
}

// keep writes renewed tokens into the session. The provider has taken back the old ones, so that a store which fails at this
// moment is asked again for a while.
func (r *renewals) keep(value string, tokens *oidc.Tokens) error {
	ctx, cancel := context.WithTimeout(context.Background(), renewalPatience)
	defer cancel()
	tick := time.NewTicker(renewalPoll)
	defer tick.Stop()
	for {
		_, err := r.p.opts.Sessions.Update(ctx, value, func(next *session.Session) { r.p.renewed(next, tokens) })
		var large *session.TooLargeError
		if err == nil || errors.Is(err, session.ErrNone) || errors.As(err, &large) || ctx.Err() != nil {
			return err
		}
		<-tick.C
	}
}

// alone waits until no other replica renews the session, and returns it as it is then. It does not wait for one that has
// crashed when the session has ended, or was renewed.
func (r *renewals) alone(ctx context.Context, value string, asked *session.Session) (*session.Session, func(), error) {
	tick := time.NewTicker(renewalPoll)
	defer tick.Stop()
	for {
		s, release, ok, err := r.p.opts.Sessions.Exclusive(ctx, value, asked, renewalLease)
		if err != nil || ok {
			return s, release, err
		}
		s, _, err = r.p.opts.Sessions.Find(ctx, value, false)
		if err != nil || s.RefreshToken != asked.RefreshToken {
			return s, func() {}, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// renewed takes over what a renewal brought.
func (p *Proxy) renewed(s *session.Session, t *oidc.Tokens) {
	who := t.Identity
	s.Identity = &who
	s.RefreshToken = t.RefreshToken
	s.AccessExpiry = t.AccessExpiry
	s.RenewAt = renewAt(p.now(), t.AccessExpiry)
	if p.opts.Identity.AccessToken {
		s.AccessToken = t.AccessToken
	}
	if !t.SessionExpiry.IsZero() && t.SessionExpiry.Before(s.Expires) {
		s.Expires = t.SessionExpiry
	}
}

// report logs and counts what no request is there for.
func (r *renewals) report(s *session.Session, err error) error {
	if r.p.opts.ObserveRenewal != nil {
		r.p.opts.ObserveRenewal(renewalResult(err))
	}
	if err != nil {
		r.p.log.Warn("tokens were not renewed", keySubject, s.Identity.Subject, keyError, err.Error())
	}
	return err
}

// revoke takes the refresh token of an ended session back at the provider, in the background: a logout does not wait.
func (r *renewals) revoke(s *session.Session) {
	if s.RefreshToken == "" {
		return
	}
	r.running.run(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := r.p.opts.Provider.Revoke(ctx, s.RefreshToken); err != nil {
			r.p.log.Warn("a refresh token was not revoked", keySubject, s.Identity.Subject, keyError, err.Error())
		}
	})
}
