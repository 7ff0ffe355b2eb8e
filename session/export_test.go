package session

import (
	"fmt"
	"math"

	"go.etcd.io/bbolt"
)

// Encode and Decode are the codec.
var (
	Encode = func(s *Session) ([]byte, error) {
		s = s.Change(func(s *Session) {
			if s.ID == "" {
				s.ID = newID()
			}
		})
		return encode(s)
	}
	Decode = decode
)

// Endings is how many endings are remembered.
func (c *CookieStore) Endings() int {
	c.endings.mu.RLock()
	defer c.endings.mu.RUnlock()
	return c.endings.order.Len()
}

// Bound bounds how many there may be.
func (c *CookieStore) Bound(limit int) { c.endings.limit = limit }

// Heard makes what is opened doubtful, as an ending does.
func (c *CookieStore) Heard() { c.endings.gen.Add(1) }

// FoundOver makes the second half of a sweep believe that all sessions, and one more, were over when they were searched for.
func (f *FileStore) FoundOver() error {
	rows, err := f.over(math.MaxInt64)
	if err != nil {
		return err
	}
	return f.removeOver(append(rows, []byte("gone")), f.now().UnixMilli())
}

// Rows counts the sessions in the file, and fails on an index that does not fit.
func (f *FileStore) Rows() (n int) {
	f.db.View(func(tx *bbolt.Tx) error {
		n = tx.Bucket(bucketSessions).Stats().KeyN
		if i := tx.Bucket(bucketIndex).Stats().KeyN; i != 3*n {
			n = -i
		}
		return nil
	})
	return n
}

// CacheCost fills a cache with n entries of that cost and returns what it holds and its limit.
func CacheCost(n, cost int) (holds, limit int) {
	limit = 64 * 10 * cost
	c := newCache[int](limit)
	for i := range n {
		c.put(fmt.Sprint(i), i, cost)
	}
	holds = held(c)
	for i := range c.shards {
		if len(c.shards[i].entries)*cost != c.shards[i].cost {
			return limit + 1, limit
		}
	}
	return holds, limit
}

// CacheHolds is what the opened sessions of a store are estimated to take.
func CacheHolds(s Store) (bytes int) {
	switch s := s.(type) {
	case *CookieStore:
		return held(s.opened.byValue) + held(s.opened.byID)
	case *FileStore:
		return held(s.opened.byValue) + held(s.opened.byID)
	case *RedisStore:
		return held(s.opened) + held(s.probed)
	}
	return -1
}

func held[V any](c *cache[V]) (cost int) {
	for i := range c.shards {
		cost += c.shards[i].cost
	}
	return cost
}

// Forget drops what is opened of a value.
func (r *RedisStore) Forget(value string) { r.opened.remove(value) }

// Unpack takes apart what Redis holds.
var Unpack = unpack
