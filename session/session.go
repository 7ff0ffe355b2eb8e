// Package session remembers logins: what a session holds, how it is sealed into a cookie or a store, how long it lives and
// how it ends. It does not know providers, routes or policy.
//
// Callers use a [Manager], which gives lifetimes and the cookie; the Manager keeps sessions in a [Store]. With the cookie
// store the sealed session itself is the cookie. With a server-side store the cookie is a ticket: it names the session and
// carries the only key that opens it, so that a copy of the store signs nobody in.
//
//	m := session.NewManager(session.NewCookieStore(sealer, cookie, lifetime, nil), cookie, idle, lifetime)
//	s, setCookie, err := m.Begin(ctx, &session.Session{Identity: who})
//	s, setCookie, err := m.Find(ctx, value, true)
//
// A session that was ended is [ErrNone], like a value that was never one. Any other error means that the store could not
// answer; that is never the same as "nobody is signed in".
package session

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"authproxy/identity"
)

// ErrConflict says that a session was changed since the snapshot that a change was made from.
var ErrConflict = errors.New("the session was changed meanwhile")

// ErrNone says that a cookie value names no session that is alive: it is forged, expired, ended or of other keys.
var ErrNone = errors.New("no such session")

// A Session is what we remember of a login. It is a snapshot: once it was given to or came from a Manager nobody changes
// it, so that requests may share it; a change makes a new snapshot with the same ID.
type Session struct {
	ID       string // 128 random bits, base64url; new at every login
	Identity *identity.Identity

	ProviderSID  string    // sid of the ID token
	Nonce        string    // of the login; refreshed ID tokens may repeat it
	AccessToken  string    // only when something needs it
	AccessExpiry time.Time // zero: unknown
	RefreshToken string
	RenewAt      time.Time // when the tokens are to be renewed; zero: never

	Agent   string // User-Agent of the login, cut; kept by server-side stores only
	Address string // client address of the login; kept by server-side stores only

	Created time.Time // when the login was finished
	Used    time.Time // last use that was recorded
	Expires time.Time // absolute end; Begin lowers it to the longest life allowed

	version uint32 // counts changes
	live    *live
}

// live is what belongs to a snapshot in this process only.
type live struct {
	memo    sync.Map
	sliding atomic.Bool
}

// Memo keeps what callers derive from this snapshot, such as header values; it goes away with the snapshot.
func (s *Session) Memo() *sync.Map { return &s.live.memo }

// Change returns a new snapshot of the same session on which f was called.
func (s *Session) Change(f func(*Session)) *Session {
	c := *s
	c.live = new(live)
	c.version++
	f(&c)
	return &c
}

// newID is a fresh session ID.
func newID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails: it crashes the program instead (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}

// A Selector names the sessions that a logout ends: those that match each field that is not empty. The zero Selector
// matches none.
type Selector struct {
	All         bool   // every session; the other fields do not count then
	ID          string // one session
	Issuer      string // goes with Subject and ProviderSID
	Subject     string // all sessions of a user
	ProviderSID string // those of one session at the provider
}

// A Store keeps sessions. Every method is safe for concurrent use and does not keep what it was given. Stores do not judge
// lifetimes, but they may forget a session after its Expires.
type Store interface {
	// Create keeps a new session and returns the cookie value that names it.
	Create(ctx context.Context, s *Session) (value string, err error)

	// Load returns the session that value names, and the value that the browser should have for it, which differs after
	// Save or when a key was replaced. The error is ErrNone when there is none.
	Load(ctx context.Context, value string) (s *Session, current string, err error)

	// Save replaces what is kept of the session that value names and returns the value that the browser should have from
	// now on. The error is ErrNone when the session has ended: Save never brings one back; and ErrConflict when what is
	// kept is not what s was changed from.
	Save(ctx context.Context, value string, s *Session) (current string, err error)

	// End ends the sessions that sel selects. When it returns nil, no later Load finds them.
	End(ctx context.Context, sel Selector) error

	// Ping says whether the store can answer.
	Ping(ctx context.Context) error

	Close() error
}

// An Info is what a store can say about a session without its ticket.
type Info struct {
	ID              string
	Issuer, Subject string
	Agent, Address  string // of the login
	Created         time.Time
	Used            time.Time // to about a minute
	Expires         time.Time
}

// A Lister is a Store that knows which sessions there are.
type Lister interface {
	// List returns the sessions that sel selects, the latest login first, and at most 10 000 of them.
	List(ctx context.Context, sel Selector) ([]Info, error)
}

// A Reopener is a Store that can go on under another configuration without losing what it keeps: with other keys, another
// cookie, other lifetimes. Both stores may be used at once, until the requests that the first serves are done; closing either
// closes both.
type Reopener interface {
	Store
	Reopen(sealer *Sealer, keys [][]byte, cookie Cookie, idle, life time.Duration) (Store, error)
}

// A Cacher is a Store that keeps opened sessions in memory, 128 MiB of them unless it is told otherwise. A session that is not
// there is read, or opened, anew. Bytes are what they are estimated to take; Go's collector needs about as much again.
type Cacher interface {
	SetCache(bytes int)
}

// ErrNoList says that the store does not know which sessions there are.
var ErrNoList = errors.New("this session store keeps no list of sessions")
