package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
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
// false while another process holds the lease. With a store that is no Leaser (file, and cookie) it is always to be had.
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

// A Rememberer is a Store that several processes share, and that remembers for all of them what was used.
type Rememberer interface {
	// Remember notes for ttl that name was used, and says whether it is the first to do so.
	Remember(ctx context.Context, name string, ttl time.Duration) (first bool, err error)

	// Remembers says whether name was used.
	Remembers(ctx context.Context, name string) (bool, error)
}

// Once says whether name is used for the first time by any of the processes that share the store, and notes for ttl that it
// is. With a store that is no Rememberer (file, and cookie) that is always so: what this process has used its caller knows.
func (m *Manager) Once(ctx context.Context, name string, ttl time.Duration) (first bool, err error) {
	if r, shared := m.store.(Rememberer); shared {
		return r.Remember(ctx, name, ttl)
	}
	return true, nil
}

// Used says whether Once was asked for name by another process that shares the store.
func (m *Manager) Used(ctx context.Context, name string) (bool, error) {
	if r, shared := m.store.(Rememberer); shared {
		return r.Remembers(ctx, name)
	}
	return false, nil
}

const (
	// Both may arrive twice without harm.
	takeScript = `if redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) or redis.call('get', KEYS[1]) == ARGV[1] then return 1 end return 0`
	endScript  = `if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0`
)

// take sets a key for ttl unless it is there.
func (r *RedisStore) take(ctx context.Context, key, holder string, ttl time.Duration) (bool, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	answers, err := r.link.do(ctx, func(b rueidis.Builder) []rueidis.Completed {
		return []rueidis.Completed{b.Eval().Script(takeScript).Numkeys(1).Key(key).Arg(holder, millis(ttl)).Build()}
	})
	if err != nil {
		return false, err
	}
	taken, err := answers[0].AsInt64()
	return taken == 1, err
}

// named is the key of what is no session, under a hash: names come from outside.
func (r *RedisStore) named(kind, name string) string {
	hash := sha256.Sum256([]byte(name))
	return r.opts.Prefix + kind + base64.RawURLEncoding.EncodeToString(hash[:16])
}

// Lease implements [Leaser].
func (r *RedisStore) Lease(ctx context.Context, name string, ttl time.Duration) (release func(), ok bool, err error) {
	key, holder := r.named("l:", name), rand.Text()
	if ok, err = r.take(ctx, key, holder, ttl); !ok {
		return nil, false, err
	}
	return func() {
		ctx, cancel := bounded(context.WithoutCancel(ctx))
		defer cancel()
		r.link.do(ctx, func(b rueidis.Builder) []rueidis.Completed { // otherwise it ends by itself
			return []rueidis.Completed{b.Eval().Script(endScript).Numkeys(1).Key(key).Arg(holder).Build()}
		})
	}, true, nil
}

// Remember implements [Rememberer].
func (r *RedisStore) Remember(ctx context.Context, name string, ttl time.Duration) (bool, error) {
	return r.take(ctx, r.named("o:", name), rand.Text(), ttl)
}

// Remembers implements [Rememberer].
func (r *RedisStore) Remembers(ctx context.Context, name string) (bool, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	answers, err := r.link.do(ctx, func(b rueidis.Builder) []rueidis.Completed {
		return []rueidis.Completed{b.Exists().Key(r.named("o:", name)).Build()}
	})
	if err != nil {
		return false, err
	}
	n, err := answers[0].AsInt64()
	return n > 0, err
}
