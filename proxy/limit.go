package proxy

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A limiter bounds how many logins a client address starts. It remembers as many addresses as it has room for, and forgets
// the one that was seen least recently.
type limiter struct {
	perMinute int

	mu    sync.Mutex
	at    map[netip.Prefix]*list.Element // of *limited
	order *list.List                     // least recent first
}

type limited struct {
	key   netip.Prefix
	limit *rate.Limiter
}

// maxAddresses bounds a limiter's memory, at about 300 bytes each.
const maxAddresses = 50_000

// newLimiter allows perMinute logins a minute, and as many at once; 0 allows any number.
func newLimiter(perMinute int) *limiter {
	return &limiter{perMinute: perMinute, at: map[netip.Prefix]*list.Element{}, order: list.New()}
}

// take counts a login from that address. It returns 0 when it may start, and otherwise how long to wait. Clients without an
// address, behind a unix socket, are left to whoever listens in front.
func (l *limiter) take(client netip.Addr, now time.Time) time.Duration {
	if l.perMinute <= 0 || !client.IsValid() {
		return 0
	}
	key := addressKey(client)
	l.mu.Lock()
	defer l.mu.Unlock()
	el := l.at[key]
	if el == nil {
		if l.order.Len() >= maxAddresses {
			oldest := l.order.Front()
			delete(l.at, oldest.Value.(*limited).key)
			l.order.Remove(oldest)
		}
		el = l.order.PushBack(&limited{key, rate.NewLimiter(rate.Limit(float64(l.perMinute)/60), l.perMinute)})
		l.at[key] = el
	}
	l.order.MoveToBack(el)
	limit := el.Value.(*limited).limit
	if limit.AllowN(now, 1) {
		return 0
	}
	return time.Minute / time.Duration(l.perMinute)
}

// A onceSet remembers what was used, so that it is used once. When it is full it forgets what was used first.
type onceSet struct {
	limit int

	mu    sync.Mutex
	used  map[[32]byte]*list.Element // of *usedUntil
	order *list.List
}

type usedUntil struct {
	key   [32]byte
	until time.Time
}

func newOnceSet(limit int) *onceSet {
	return &onceSet{limit: limit, used: map[[32]byte]*list.Element{}, order: list.New()}
}

// forget lets key be used again.
func (s *onceSet) forget(key [32]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el := s.used[key]; el != nil {
		delete(s.used, key)
		s.order.Remove(el)
	}
}

// add reports whether key was not used within life before now, and notes that it is.
func (s *onceSet) add(key [32]byte, now time.Time, life time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for el := s.order.Front(); el != nil && (el.Value.(*usedUntil).until.Before(now) || s.order.Len() >= s.limit); el = s.order.Front() {
		delete(s.used, el.Value.(*usedUntil).key)
		s.order.Remove(el)
	}
	if s.used[key] != nil {
		return false
	}
	s.used[key] = s.order.PushBack(&usedUntil{key, now.Add(life)})
	return true
}
