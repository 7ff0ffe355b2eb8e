package session

import (
	"context"
	"crypto/rand"
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
	tagger  tagger
	endings *endings
}

// NewCookieStore returns a store for that cookie. No session lives longer than life. A nil now means time.Now.
func NewCookieStore(sealer *Sealer, cookie Cookie, life time.Duration, now func() time.Time) *CookieStore {
	if now == nil {
		now = time.Now
	}
	key := make([]byte, 32)
	rand.Read(key)                     // never fails (crypto/rand)
	t, err := newTagger([][]byte{key}) // labels are for this process alone
	if err != nil {
		panic(err) // there is a key
	}
	e := newEndings(maxEndings)
	return &CookieStore{sealer, cookie, life, now, newOpened(&e.gen), t, e}
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
		if err != nil || c.endings.ended(s, c.tagger) {
			return nil, "", ErrNone
		}
		h = c.opened.add(value, s, gen)
	}
	st := h.state.Load()
	if h.checked.Load() != gen {
		if c.endings.ended(st.session, c.tagger) {
			c.opened.forget(value, st.session)
			return nil, "", ErrNone
		}
		h.checked.Store(gen)
	}
	return st.session, st.current, nil
}

// Save implements [Store]. Older values lead to the new session as long as the cache remembers them, so that requests that
// are under way, or a browser that missed an answer, come along. A session that is ended meanwhile stays so under the new
// value: when it was begun does not change.
func (c *CookieStore) Save(_ context.Context, value string, s *Session) (string, error) {
	if c.endings.ended(s, c.tagger) {
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
	n := ending{at: c.now().UnixMilli()}
	if sel.All {
		n.floor = n.at
	} else if l, ok := c.tagger.label(sel); ok {
		n.label = l
	} else {
		return nil
	}
	c.endings.add(n, c.oldest())
	return nil
}

// oldest is from when on endings are needed: sessions begun before have expired, also where clocks differ.
func (c *CookieStore) oldest() int64 { return c.now().Add(-c.life - indexLeeway).UnixMilli() }

// Reopen implements [Reopener]: which sessions were ended is remembered on.
func (c *CookieStore) Reopen(sealer *Sealer, _ [][]byte, cookie Cookie, _, life time.Duration) (Store, error) {
	opened := c.opened // what was renewed and has not reached the browser yet is known here only
	if sealer.id != c.sealer.id || cookie != c.cookie {
		opened = newOpened(c.opened.gen)
	}
	return &CookieStore{sealer, cookie, life, c.now, opened, c.tagger, c.endings}, nil
}

// Ping implements [Store]; there is nothing to reach.
func (c *CookieStore) Ping(context.Context) error { return nil }

// Close implements [Store].
func (c *CookieStore) Close() error { return nil }
