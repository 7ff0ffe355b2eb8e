package upstream

import (
	"context"
	"crypto"
	"fmt"
	"sync"
	"time"

	"authproxy/assertion"
)

const (
	fetchTimeout  = 10 * time.Second // bounds a fetch even when the client does not
	keysFresh     = 5 * time.Minute  // the max-age of the proxy's /jwks.json
	missEvery     = 10 * time.Second // between fetches because of keys that are not there
	failedEvery   = 10 * time.Second // between tries to renew keys that are still of use
	failedWithout = time.Second      // between tries while there are no keys at all
)

// keys holds the proxy's keys. No lock is held during a fetch; one fetch has many waiters, each of which leaves with its own
// context.
type keys struct {
	now func() time.Time
	get func(ctx context.Context) (*assertion.KeySet, error)

	mu      sync.Mutex
	good    *assertion.KeySet // the last good ones; nil before the first
	at      time.Time         // when they came
	running *fetch            // the fetch under way, or nil
	failed  time.Time         // when a fetch last failed
	failure error             // how; nil after a success
	missed  time.Time         // when a key that was not there last made us fetch; zero: never
}

// A fetch is one request for the keys. set and err are set when done is closed.
type fetch struct {
	done chan struct{}
	set  *assertion.KeySet
	err  error
}

// find returns the key with that ID. It waits for a fetch only when there is no such key yet: keys that have become old are
// renewed beside the request, so that a proxy that is slow or down holds up nobody whom it does not have to.
func (k *keys) find(ctx context.Context, keyID string) (crypto.PublicKey, error) {
	set, f, err := k.current()
	if err != nil {
		return nil, err
	}
	if set != nil {
		key, missing := set.Find(keyID)
		if missing == nil {
			return key, nil
		}
		if f = k.newer(set); f == nil {
			return nil, k.missing(missing)
		}
	}
	if set, err = f.wait(ctx); err != nil {
		return nil, err
	}
	return set.Find(keyID)
}

// current returns the keys that there are, or else the fetch that brings the first ones.
func (k *keys) current() (*assertion.KeySet, *fetch, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	switch {
	case k.good == nil && k.failure != nil && now.Sub(k.failed) < failedWithout:
		return nil, nil, k.failure
	case k.good == nil:
		return nil, k.start(), nil
	case now.Sub(k.at) >= keysFresh && (k.failure == nil || now.Sub(k.failed) >= failedEvery):
		k.start()
	}
	return k.good, nil, nil
}

// newer returns a fetch that brings keys newer than tried, or nil when it is too early for one.
func (k *keys) newer(tried *assertion.KeySet) *fetch {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.running != nil:
		return k.running
	case k.good != tried: // they came meanwhile
		f := &fetch{done: make(chan struct{}), set: k.good}
		close(f.done)
		return f
	case k.now().Sub(k.missed) < missEvery: // anybody can make up key IDs
		return nil
	}
	k.missed = k.now()
	return k.start()
}

// missing is what a key that is not there means: nothing, when the last fetch failed.
func (k *keys) missing(err error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failure != nil {
		return k.failure
	}
	return err
}

// start returns the fetch under way, or begins one. The caller holds mu.
func (k *keys) start() *fetch {
	if k.running != nil {
		return k.running
	}
	f := &fetch{done: make(chan struct{})}
	k.running = f
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		set, err := k.get(ctx)
		k.mu.Lock()
		defer k.mu.Unlock()
		if err == nil {
			f.set = set
			k.good, k.at, k.failure = set, k.now(), nil
		} else {
			f.err = fmt.Errorf("%w: %w", ErrKeys, err)
			k.failed, k.failure = k.now(), f.err
		}
		k.running = nil
		close(f.done)
	}()
	return f
}

func (f *fetch) wait(ctx context.Context) (*assertion.KeySet, error) {
	select {
	case <-f.done:
		return f.set, f.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrKeys, ctx.Err())
	}
}
