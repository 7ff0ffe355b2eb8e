package session

import (
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"authproxy/identity"
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

// Endings is the bounded list of endings.
type Endings struct{ *endings }

func NewEndings(limit int) Endings                        { return Endings{newEndings(limit)} }
func (e Endings) Add(sel Selector, now, forget time.Time) { e.add(sel, now, forget) }
func (e Endings) Ended(s *Session) bool                   { return e.ended(s) }
func (e Endings) Len() int                                { return e.order.Len() }
func Made(id string, created time.Time) *Session {
	return &Session{ID: id, Created: created, Identity: &identity.Identity{Issuer: "i", Subject: "s"}}
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
	for i := range c.shards {
		holds += c.shards[i].cost
		if len(c.shards[i].entries)*cost != c.shards[i].cost {
			return limit + 1, limit
		}
	}
	return holds, limit
}

// Forget drops what is opened of a value.
func (r *RedisStore) Forget(value string) { r.opened.remove(value) }

// Unpack takes apart what Redis holds.
var Unpack = unpack
