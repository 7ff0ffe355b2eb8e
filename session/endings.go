package session

import (
	"container/list"
	"sync"
	"time"
)

// endings remembers which sessions were ended before their time, for stores that cannot delete them. It is bounded: when
// it is full, the oldest ending is replaced by a floor, and sessions begun before the floor count as ended. So a flood of
// logouts can make people sign in again, but it never brings an ended session back.
type endings struct {
	mu    sync.RWMutex
	limit int
	at    map[Selector]*list.Element // of *ending
	order *list.List                 // oldest first
	floor time.Time
}

type ending struct {
	sel    Selector
	at     time.Time // sessions begun until then are ended
	forget time.Time // when each of them has expired anyway
}

func newEndings(limit int) *endings {
	return &endings{limit: limit, at: map[Selector]*list.Element{}, order: list.New()}
}

// add ends the sessions that match sel and were begun until now. They would have expired by forget.
func (e *endings) add(sel Selector, now, forget time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old, ok := e.at[sel]; ok {
		e.drop(old)
	}
	for front := e.order.Front(); front != nil && front.Value.(*ending).forget.Before(now); front = e.order.Front() {
		e.drop(front)
	}
	if e.order.Len() >= e.limit {
		oldest := e.order.Front()
		if at := oldest.Value.(*ending).at; at.After(e.floor) {
			e.floor = at
		}
		e.drop(oldest)
	}
	e.at[sel] = e.order.PushBack(&ending{sel, now, forget})
}

// drop is called with mu held.
func (e *endings) drop(el *list.Element) {
	delete(e.at, el.Value.(*ending).sel)
	e.order.Remove(el)
}

// ended says whether s was ended.
func (e *endings) ended(s *Session) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if !e.floor.IsZero() && !s.Created.After(e.floor) {
		return true
	}
	if len(e.at) == 0 {
		return false
	}
	iss, sub, sid := s.Identity.Issuer, s.Identity.Subject, s.ProviderSID
	for _, sel := range [...]Selector{{All: true}, {ID: s.ID}, {Issuer: iss, Subject: sub}, {Issuer: iss, ProviderSID: sid}, {Issuer: iss, Subject: sub, ProviderSID: sid}} {
		// An ID is of one session, whatever the clock said when it began.
		if el, ok := e.at[sel]; ok && sel.matches(s) && (sel.ID != "" || !s.Created.After(el.Value.(*ending).at)) {
			return true
		}
	}
	return false
}
