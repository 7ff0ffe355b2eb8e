package session

import (
	"context"
	"sync/atomic"
	"time"
)

// A CookieStore keeps nothing: the sealed session is the cookie's value. What it must remember is which sessions were
// ended before their time; it does so in memory, and forgets it when the program ends.
type CookieStore struct {
	sealer  *Sealer
	cookie  Cookie
	life    time.Duration
	now     func() time.Time
	opened  *opened
	endings *endings
}

// NewCookieStore returns a store for that cookie. No session lives longer than life. A nil now means time.Now.
func NewCookieStore(sealer *Sealer, cookie Cookie, life time.Duration, now func() time.Time) *CookieStore {
	if now == nil {
		now = time.Now
	}
	return &CookieStore{sealer, cookie, life, now, newOpened(new(atomic.Uint64)), newEndings(100_000)}
}

// purposeSession and purposeTicket keep the two kinds of session cookies apart.
const (
	purposeSession = "session"
	purposeTicket  = "ticket"
)

// seal returns the cookie's value, or a TooLargeError when browsers would not keep it.
func (c *CookieStore) seal(s *Session) (string, error) {
	b, err := encode(s)
	if err != nil {
		return "", err
	}
	value, err := c.sealer.Seal(purposeSession, c.cookie.Name, b)
	if err != nil {
		return "", err
	}
	if n := len(c.cookie.with(value, s, s.Created).String()); n > maxCookie {
		return "", &TooLargeError{n, costs(s)}
	}
	return value, nil
}

// Create implements [Store]. The error is a [TooLargeError] when browsers would not keep the cookie.
func (c *CookieStore) Create(_ context.Context, s *Session) (string, error) {
	gen := c.opened.gen.Load()
	value, err := c.seal(s)
	if err != nil {
		return "", err
	}
	c.opened.add(value, s, gen)
	return value, nil
}

// Load implements [Store].
func (c *CookieStore) Load(_ context.Context, value string) (*Session, string, error) {
	gen := c.opened.gen.Load() // before the check: an ending in between is noticed next time
	h, ok := c.opened.byValue.get(value)
	if !ok {
		b, _, ok := c.sealer.Open(purposeSession, c.cookie.Name, value)
		if !ok {
			return nil, "", ErrNone
		}
		s, err := decode(b)
		if err != nil || c.endings.ended(s) {
			return nil, "", ErrNone
		}
		h = c.opened.add(value, s, gen)
	}
	st := h.state.Load()
	if h.checked.Load() != gen {
		if c.endings.ended(st.session) {
			c.opened.forget(value, st.session)
			return nil, "", ErrNone
		}
		h.checked.Store(gen)
	}
	return st.session, st.current, nil
}

// Save implements [Store]. Older values lead to the new session as long as the cache remembers them, so that requests that
// are under way, or a browser that missed an answer, come along.
func (c *CookieStore) Save(_ context.Context, value string, s *Session) (string, error) {
	if c.endings.ended(s) {
		return "", ErrNone
	}
	current, err := c.seal(s)
	if err != nil {
		return "", err
	}
	if !c.opened.replace(value, s, current) {
		return "", ErrConflict
	}
	return current, nil
}

// End implements [Store].
func (c *CookieStore) End(_ context.Context, sel Selector) error {
	now := c.now()
	c.endings.add(sel, now, now.Add(c.life))
	c.opened.gen.Add(1)
	return nil
}

// Reopen implements [Reopener]: which sessions were ended is remembered on.
func (c *CookieStore) Reopen(sealer *Sealer, _ [][]byte, cookie Cookie, _, life time.Duration) (Store, error) {
	opened := c.opened // what was renewed and has not reached the browser yet is known here only
	if sealer.id != c.sealer.id || cookie != c.cookie {
		opened = newOpened(c.opened.gen)
	}
	return &CookieStore{sealer, cookie, life, c.now, opened, c.endings}, nil
}

// Ping implements [Store]; there is nothing to reach.
func (c *CookieStore) Ping(context.Context) error { return nil }

// Close implements [Store].
func (c *CookieStore) Close() error { return nil }
