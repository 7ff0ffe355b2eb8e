package session

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// A cache maps strings to values in bounded memory. Which entries go when it is full is arbitrary: a miss costs
// microseconds. Its locks are many, so that requests do not wait for each other.
type cache[V any] struct {
	seed   maphash.Seed
	limit  atomic.Int64 // cost per shard
	shards [64]shard[V]
}

type shard[V any] struct {
	mu      sync.RWMutex
	entries map[string]cached[V]
	cost    int
}

type cached[V any] struct {
	value V
	cost  int
}

// newCache returns a cache for entries that cost limit together.
func newCache[V any](limit int) *cache[V] {
	c := &cache[V]{seed: maphash.MakeSeed()}
	c.bound(limit)
	for i := range c.shards {
		c.shards[i].entries = map[string]cached[V]{}
	}
	return c
}

// bound changes the limit. What is too much by then goes as other entries come.
func (c *cache[V]) bound(limit int) { c.limit.Store(int64(limit / len(c.shards))) }

func (c *cache[V]) shard(key string) *shard[V] {
	return &c.shards[maphash.String(c.seed, key)%uint64(len(c.shards))]
}

func (c *cache[V]) get(key string) (v V, ok bool) {
	sh := c.shard(key)
	sh.mu.RLock()
	e, ok := sh.entries[key]
	sh.mu.RUnlock()
	return e.value, ok
}

// put keeps v under key, unless there is a value already, and returns what is there now.
func (c *cache[V]) put(key string, v V, cost int) V {
	sh := c.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e, ok := sh.entries[key]; ok {
		return e.value
	}
	limit := int(c.limit.Load())
	for k, e := range sh.entries {
		if sh.cost+cost <= limit {
			break
		}
		sh.cost -= e.cost
		delete(sh.entries, k)
	}
	sh.entries[key] = cached[V]{v, cost}
	sh.cost += cost
	return v
}

func (c *cache[V]) remove(key string) {
	sh := c.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e, ok := sh.entries[key]; ok {
		sh.cost -= e.cost
		delete(sh.entries, key)
	}
}
