package devprovider

import (
	"container/list"
	"time"
)

// A shelf is a map that holds at most max values, each until it expires. The one put there first makes room.
// It is not safe for concurrent use.
type shelf[V any] struct {
	max   int
	items map[string]*list.Element
	order *list.List // of *item[V], oldest first
}

type item[V any] struct {
	key     string
	value   V
	expires time.Time
}

func newShelf[V any](max int) shelf[V] {
	return shelf[V]{max, map[string]*list.Element{}, list.New()}
}

// put adds or replaces a value, which becomes the newest.
func (s *shelf[V]) put(key string, v V, now, expires time.Time) {
	s.delete(key)
	for front := s.order.Front(); front != nil; front = s.order.Front() {
		i := front.Value.(*item[V])
		if s.order.Len() < s.max && now.Before(i.expires) {
			break
		}
		s.delete(i.key)
	}
	s.items[key] = s.order.PushBack(&item[V]{key, v, expires})
}

// get returns a value that has not expired.
func (s *shelf[V]) get(key string, now time.Time) (v V, ok bool) {
	e, ok := s.items[key]
	if !ok {
		return v, false
	}
	i := e.Value.(*item[V])
	if !now.Before(i.expires) {
		s.delete(key)
		return v, false
	}
	return i.value, true
}

func (s *shelf[V]) delete(key string) {
	if e, ok := s.items[key]; ok {
		s.order.Remove(e)
		delete(s.items, key)
	}
}

// all yields what is there, oldest first, expired or not. The loop may delete the value that it is at.
func (s *shelf[V]) all(yield func(string, V) bool) {
	for e := s.order.Front(); e != nil; {
		next := e.Next()
		if i := e.Value.(*item[V]); !yield(i.key, i.value) {
			return
		}
		e = next
	}
}
