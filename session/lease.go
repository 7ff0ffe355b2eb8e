package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"github.com/redis/rueidis"
)

// A Leaser is a Store that several processes share, and that lets one of them at a time do something.
type Leaser interface {
	// Lease gives the caller the lease of that name, until it calls release or ttl is over, and says whether it did: while
	// another holds it, nobody else gets it.
	Lease(ctx context.Context, name string, ttl time.Duration) (release func(), ok bool, err error)
}

// Exclusive gives the caller the lease of a session, so that of all processes that share the store only one renews its
// tokens, and returns the session's latest snapshot, which no cache can hide: what was renewed meanwhile is in it. ok is
// false while another process holds the lease. With a store of this process alone the lease is always to be had.
func (m *Manager) Exclusive(ctx context.Context, value string, s *Session, ttl time.Duration) (latest *Session, release func(), ok bool, err error) {
	l, shared := m.store.(Leaser)
	if !shared {
		latest, _, err = m.Find(ctx, value, false)
		return latest, func() {}, err == nil, err
	}
	release, ok, err = l.Lease(ctx, s.ID, ttl)
	if err != nil || !ok {
		return nil, nil, false, err
	}
	// A change that changes nothing is refused unless it is made from what the store holds.
	if latest, err = m.Update(ctx, value, func(*Session) {}); err != nil {
		release()
		return nil, nil, false, err
	}
	return latest, release, true, nil
}

var (
	// Both may arrive twice without harm.
	takeLease = rueidis.NewLuaScript(`if redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) or redis.call('get', KEYS[1]) == ARGV[1] then return 1 end return 0`)
	endLease  = rueidis.NewLuaScript(`if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0`)
)

// Lease implements [Leaser].
func (r *RedisStore) Lease(ctx context.Context, name string, ttl time.Duration) (release func(), ok bool, err error) {
	hash := sha256.Sum256([]byte(name))
	key, holder := r.opts.Prefix+"l:"+base64.RawURLEncoding.EncodeToString(hash[:16]), rand.Text()
	within, cancel := bounded(ctx)
	defer cancel()
	c := r.link.client.Load()
	if c == nil {
		return nil, false, errors.New("session store: no connection to Redis yet")
	}
	got, err := takeLease.Exec(within, *c, []string{key}, []string{holder, millis(ttl)}).AsInt64()
	if err != nil || got != 1 {
		return nil, false, err
	}
	return func() {
		ctx, cancel := bounded(context.WithoutCancel(ctx))
		defer cancel()
		endLease.Exec(ctx, *c, []string{key}, []string{holder}) // otherwise it ends by itself
	}, true, nil
}
