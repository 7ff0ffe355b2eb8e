package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Cookie says how the session cookie looks. Host-only cookies over https are called __Host-NAME, those with a Domain
// __Secure-NAME (RFC 6265bis §4.1.3), and over http, which is for loopback only, NAME.
type Cookie struct {
	Name     string // complete, with its prefix
	Domain   string // "": this host only
	Secure   bool
	SameSite http.SameSite
}

// NewCookie returns the cookie for a base name.
func NewCookie(base, domain string, secure bool, sameSite http.SameSite) Cookie {
	name := base
	switch {
	case secure && domain == "":
		name = "__Host-" + base
	case secure:
		name = "__Secure-" + base
	}
	return Cookie{name, domain, secure, sameSite}
}

// With is the cookie with that value, kept by browsers for life, in seconds rounded up: what has ended is ours to judge.
func (c Cookie) With(value string, life time.Duration) *http.Cookie {
	return &http.Cookie{Name: c.Name, Value: value, Path: "/", Domain: c.Domain, MaxAge: max(1, int((life+time.Second-1)/time.Second)),
		Secure: c.Secure, HttpOnly: true, SameSite: c.SameSite}
}

// Expired deletes the cookie. Browsers want the attributes that it was set with.
func (c Cookie) Expired() *http.Cookie {
	e := c.With("", 0)
	e.MaxAge = -1
	return e
}

// with is the cookie of a session: browsers keep it to the session's absolute end, the idle time is ours to judge.
func (c Cookie) with(value string, s *Session, now time.Time) *http.Cookie {
	return c.With(value, s.Expires.Sub(now))
}

// maxCookie is what browsers keep: 4096 bytes of a cookie with its attributes (RFC 6265 §6.1).
const maxCookie = 4096

// TooLargeError says that a session does not fit into a cookie.
type TooLargeError struct {
	Bytes int    // of the cookie with its attributes
	Costs []Cost // what the session consists of, the dearest first
}

func (e *TooLargeError) Error() string {
	var dear []string
	for _, c := range e.Costs[:min(3, len(e.Costs))] {
		dear = append(dear, fmt.Sprintf("%s (%d bytes)", c.Name, c.Bytes))
	}
	return fmt.Sprintf("the session cookie would have %d bytes and browsers keep %d; the dearest parts are %s; let the provider send less, or set session.store to file or redis",
		e.Bytes, maxCookie, strings.Join(dear, ", "))
}

// A Manager begins, finds and ends sessions, and keeps their lifetimes. It is safe for concurrent use.
type Manager struct {
	Idle   time.Duration    // a session unused for so long has ended
	Life   time.Duration    // and so has one that was begun so long ago
	Now    func() time.Time // nil means time.Now
	Failed func(error)      // called when something done beside a request failed; nil means nobody wants to know

	// Observe is called after each request to the store; nil means nobody wants to know. op is create, load, save, end, list,
	// count or ping. It must be quick and safe for concurrent use.
	Observe func(op string, took time.Duration, err error)

	store      Store
	inCookie   bool // the session itself is the cookie
	cookie     Cookie
	background sync.WaitGroup
}

// NewManager returns a Manager that keeps its sessions in store.
func NewManager(store Store, cookie Cookie, idle, life time.Duration) *Manager {
	_, inCookie := store.(*CookieStore)
	return &Manager{Idle: idle, Life: life, store: store, inCookie: inCookie, cookie: cookie}
}

// Cookie is the session cookie's name and attributes.
func (m *Manager) Cookie() Cookie { return m.cookie }

// now is cut to milliseconds, as sessions are stored.
func (m *Manager) now() time.Time {
	if m.Now != nil {
		return m.Now().Truncate(time.Millisecond)
	}
	return time.Now().Truncate(time.Millisecond)
}

// Begin starts a session with a new ID for the user and tokens in s, and returns the cookie to set. A s.Expires that is not
// zero can shorten its life. The error is a [TooLargeError] when the cookie would not fit into a browser.
func (m *Manager) Begin(ctx context.Context, s *Session) (*Session, *http.Cookie, error) {
	if s.Identity == nil || s.Identity.IsAnonymous() {
		return nil, nil, errors.New("session: nobody cannot have a session")
	}
	now := m.now()
	s = s.Change(func(s *Session) {
		s.ID = newID()
		s.Created, s.Used = now, now
		if end := now.Add(m.Life); s.Expires.IsZero() || s.Expires.After(end) {
			s.Expires = end
		}
	})
	if !s.Expires.After(now) {
		return nil, nil, errors.New("session: it would have ended before it began: the provider's session_expiry has passed")
	}
	began := time.Now()
	value, err := m.store.Create(ctx, s)
	m.observe("create", began, err)
	if err != nil {
		return nil, nil, err
	}
	return s, m.cookie.with(value, s, now), nil
}

// slideEvery is how long a use may go unrecorded: a minute, or less when the idle time is short.
func (m *Manager) slideEvery() time.Duration { return min(time.Minute, m.Idle/4) }

// Find returns the session that a cookie's value names. A cookie that is not nil is to be set with the answer: it replaces
// the value. Where no cookie can be set (mayCookie is false), uses are recorded only by stores that need none. The error is
// [ErrNone] when there is no such session, and another when the store could not answer.
func (m *Manager) Find(ctx context.Context, value string, mayCookie bool) (*Session, *http.Cookie, error) {
	s, current, err := m.load(ctx, value)
	if err != nil {
		return nil, nil, err
	}
	now := m.now()
	if m.over(s, now) {
		return nil, nil, ErrNone
	}
	// A ticket that is given out under another key than before goes with a row that today's keys find, so that logouts do.
	resealed := mayCookie && !m.inCookie && current != value && now.Sub(s.Used) >= min(time.Second, m.slideEvery())
	if (resealed || now.Sub(s.Used) >= m.slideEvery()) && (mayCookie || !m.inCookie) && s.live.sliding.CompareAndSwap(false, true) {
		if !m.inCookie {
			m.background.Go(func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
				defer cancel()
				m.slide(ctx, value, s, now)
			})
		} else if next, changed := m.slide(ctx, value, s, now); next != nil {
			s, current = next, changed
		}
	}
	if !mayCookie || current == value {
		return s, nil, nil
	}
	return s, m.cookie.with(current, s, now), nil
}

// Check says whether value still names a session, without counting as a use of it. The error is ErrNone when it does not.
func (m *Manager) Check(ctx context.Context, value string) error {
	s, _, err := m.load(ctx, value)
	if err == nil && m.over(s, m.now()) {
		return ErrNone
	}
	return err
}

// Expired says whether the time of a session is over that was known once, whatever became of it in the store since: the time
// of a session is never extended beyond what it had at its beginning. The idle time is not judged.
func (m *Manager) Expired(s *Session) bool {
	now := m.now()
	return !now.Before(s.Expires) || now.Sub(s.Created) >= m.Life
}

// slide records that s was used now. It returns nil when that did not work out: then another request tries again.
func (m *Manager) slide(ctx context.Context, value string, s *Session, now time.Time) (*Session, string) {
	next := s.Change(func(s *Session) { s.Used = now })
	current, err := m.save(ctx, value, next)
	if err == nil {
		return next, current
	}
	if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNone) {
		s.live.sliding.Store(false)
		if m.Failed != nil {
			m.Failed(fmt.Errorf("recording the use of a session: %w", err))
		}
	}
	return nil, ""
}

// over says whether the session's time is over. The lifetimes of today's configuration count, so that shortening them
// takes effect at once.
func (m *Manager) over(s *Session, now time.Time) bool {
	return !now.Before(s.Expires) || now.Sub(s.Created) >= m.Life || now.Sub(s.Used) >= m.Idle
}

// Update changes the session that value names by f, which may be called more than once, and returns the new snapshot. It
// never loses a change that was made meanwhile, and never brings a session back that has ended: then the error is ErrNone.
// If that gives it a new cookie value, a later Find hands out the cookie.
func (m *Manager) Update(ctx context.Context, value string, f func(*Session)) (*Session, error) {
	for {
		s, current, err := m.load(ctx, value)
		if err != nil {
			return nil, err
		}
		if m.over(s, m.now()) {
			return nil, ErrNone
		}
		next := s.Change(f)
		if _, err = m.save(ctx, current, next); err == nil {
			return next, nil
		}
		if !errors.Is(err, ErrConflict) {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// End ends the sessions that sel selects. When it returns nil they are over everywhere this store reaches.
func (m *Manager) End(ctx context.Context, sel Selector) error {
	began := time.Now()
	err := m.store.End(ctx, sel)
	m.observe("end", began, err)
	return err
}

// Lists says whether the store knows which sessions there are.
func (m *Manager) Lists() bool { _, ok := m.store.(Lister); return ok }

// List returns the sessions that sel selects, without those whose time is over. The error is ErrNoList when the store keeps
// no list.
func (m *Manager) List(ctx context.Context, sel Selector) ([]Info, error) {
	l, ok := m.store.(Lister)
	if !ok {
		return nil, ErrNoList
	}
	began := time.Now()
	all, err := l.List(ctx, sel)
	m.observe("list", began, err)
	now := m.now()
	return slices.DeleteFunc(all, func(i Info) bool {
		return m.over(&Session{Created: i.Created, Used: i.Used, Expires: i.Expires}, now)
	}), err
}

// Count returns how many sessions there are, to about a minute. The error is ErrNoList when the store does not count them.
func (m *Manager) Count(ctx context.Context) (int64, error) {
	c, ok := m.store.(Counter)
	if !ok {
		return 0, ErrNoList
	}
	began := time.Now()
	n, err := c.Count(ctx)
	m.observe("count", began, err)
	return n, err
}

// Ping says whether the store can answer.
func (m *Manager) Ping(ctx context.Context) error {
	began := time.Now()
	err := m.store.Ping(ctx)
	m.observe("ping", began, err)
	return err
}

func (m *Manager) load(ctx context.Context, value string) (*Session, string, error) {
	began := time.Now()
	s, current, err := m.store.Load(ctx, value)
	m.observe("load", began, err)
	return s, current, err
}

func (m *Manager) save(ctx context.Context, value string, s *Session) (string, error) {
	began := time.Now()
	current, err := m.store.Save(ctx, value, s)
	m.observe("save", began, err)
	return current, err
}

func (m *Manager) observe(op string, began time.Time, err error) {
	if m.Observe != nil {
		m.Observe(op, time.Since(began), err)
	}
}

// Wait waits for what Find does in the background.
func (m *Manager) Wait() { m.background.Wait() }

// Close waits for the background work and closes the store.
func (m *Manager) Close() error {
	m.Wait()
	return m.store.Close()
}
