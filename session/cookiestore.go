package session

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"
)

// A CookieStore keeps nothing: the sealed session is the cookie's value. What it must remember is which sessions were
// ended before their time: in memory, and with a log in a file or in Redis too, so that a restart does not forget it and
// other replicas obey it.
type CookieStore struct {
	sealer  *Sealer
	cookie  Cookie
	life    time.Duration
	now     func() time.Time
	say     *slog.Logger
	opened  *opened
	tagger  tagger
	endings *endings
	log     endingsLog // nil: there is none
}

// NewCookieStore returns a store for that cookie that forgets, when the program ends, which sessions were ended. No session
// lives longer than life. A nil now means time.Now.
func NewCookieStore(sealer *Sealer, cookie Cookie, life time.Duration, now func() time.Time) *CookieStore {
	key := make([]byte, 32)
	rand.Read(key)                                                          // never fails (crypto/rand)
	c, err := newCookieStore(sealer, [][]byte{key}, cookie, life, now, nil) // labels are for this process alone
	if err != nil {
		panic(err) // there is a key
	}
	return c
}

// newCookieStore returns a store without a log.
func newCookieStore(sealer *Sealer, keys [][]byte, cookie Cookie, life time.Duration, now func() time.Time, say *slog.Logger) (*CookieStore, error) {
	if now == nil {
		now = time.Now
	}
	if say == nil {
		say = slog.New(slog.DiscardHandler)
	}
	t, err := newTagger(keys)
	e := newEndings(maxEndings)
	return &CookieStore{sealer: sealer, cookie: cookie, life: life, now: now, say: say, opened: newOpened(&e.gen), tagger: t, endings: e}, err
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
	if c.endings.ended(s, c.tagger) { // it would be sent to the login again and again
		return "", errors.New("session store: a session that begins now counts as ended already: the clock of this machine is behind, or another replica's ahead")
	}
	value, err := c.seal(s)
	if err != nil {
		return "", err
	}
	c.opened.add(value, s, gen)
	return value, nil
}

// Load implements [Store].
func (c *CookieStore) Load(_ context.Context, value string) (*Session, string, error) {
	h, known := c.opened.byValue.get(value)
	var s *Session
	if !known {
		b, _, ok := c.sealer.Open(purposeSession, c.cookie.Name, value)
		if !ok {
			return nil, "", ErrNone
		}
		var err error
		if s, err = decode(b); err != nil {
			return nil, "", ErrNone
		}
	}
	if err := c.fresh(); err != nil {
		return nil, "", err
	}
	gen := c.opened.gen.Load() // before the check: an ending in between is noticed next time
	if !known {
		if c.endings.ended(s, c.tagger) {
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

// fresh returns nil when the endings in memory are all that there are.
func (c *CookieStore) fresh() error {
	if c.log == nil {
		return nil
	}
	return c.log.fresh()
}

// Save implements [Store]. Older values lead to the new session as long as the cache remembers them, so that requests that
// are under way, or a browser that missed an answer, come along. A session that is ended meanwhile stays so under the new
// value: when it was begun does not change.
func (c *CookieStore) Save(_ context.Context, value string, s *Session) (string, error) {
	if err := c.fresh(); err != nil {
		return "", err
	}
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

// End implements [Store]. With an error the session may be alive everywhere.
func (c *CookieStore) End(ctx context.Context, sel Selector) error {
	n := ending{at: c.now().UnixMilli()}
	if sel.All {
		n.floor = n.at
	} else if l, ok := c.tagger.label(sel); ok {
		n.label = l
	} else {
		return nil
	}
	if c.log != nil {
		if err := c.log.append(ctx, n, c.oldest()); err != nil {
			return err
		}
	}
	c.endings.add(n, c.oldest())
	return nil
}

// oldest is from when on endings are needed: sessions begun before have expired, also where clocks differ.
func (c *CookieStore) oldest() int64 { return c.now().Add(-c.life - indexLeeway).UnixMilli() }

// Reopen implements [Reopener]: which sessions were ended is remembered on. A log is shared, and closed when one of the stores
// is.
func (c *CookieStore) Reopen(sealer *Sealer, keys [][]byte, cookie Cookie, _, life time.Duration) (Store, error) {
	next := *c
	next.sealer, next.cookie, next.life = sealer, cookie, life
	if sealer.id != c.sealer.id || cookie != c.cookie {
		next.opened = newOpened(c.opened.gen) // otherwise what was renewed and has not reached the browser yet is known here only
	}
	if c.log != nil {
		t, err := newTagger(keys)
		if err != nil {
			return nil, err
		}
		next.tagger = t
		next.warnOfOtherKeys()
	}
	return &next, nil
}

// SetCache implements [Cacher].
func (c *CookieStore) SetCache(bytes int) { c.opened.bound(bytes) }

// warnOfOtherKeys tells the operator when sessions count as ended because a session key is missing.
func (c *CookieStore) warnOfOtherKeys() {
	c.endings.mu.RLock()
	last := c.endings.unread(c.tagger)
	c.endings.mu.RUnlock()
	if last > c.oldest() {
		c.say.Warn("session store: some sessions were ended under a session key that is not in session.keys (any more), and nobody knows whose; those begun until then count as ended",
			"until", time.UnixMilli(last))
	}
}

// Ping implements [Store]. Without a log there is nothing to reach.
func (c *CookieStore) Ping(ctx context.Context) error {
	if c.log == nil {
		return nil
	}
	return c.log.ping(ctx)
}

// Close implements [Store].
func (c *CookieStore) Close() error {
	if c.log == nil {
		return nil
	}
	return c.log.close()
}
