package session

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// maxEndings bounds the list of endings.
const maxEndings = 100_000

// An ending says that sessions were ended: those of the label that were begun until at, and all that were begun until floor.
// Times are Unix milliseconds, as those of sessions are. An ending without a label has a floor only.
type ending struct {
	label     label
	at, floor int64
}

// endings remembers which sessions were ended before their time, for stores that cannot delete them. It is bounded, and what
// it drops raises its floor. So a flood of logouts can make people sign in again, but nothing brings an ended session back.
type endings struct {
	gen   atomic.Uint64 // grows with every ending
	limit int

	mu    sync.RWMutex
	at    map[label]*list.Element // of ending
	order *list.List              // oldest first
	floor int64
}

func newEndings(limit int) *endings {
	return &endings{limit: limit, at: map[label]*list.Element{}, order: list.New()}
}

// add remembers n. Endings from before oldest may be dropped: all sessions begun until then have expired.
func (e *endings) add(n ending, oldest int64) {
	e.mu.Lock()
	e.floor = max(e.floor, n.floor)
	if n.label != (label{}) {
		if old, ok := e.at[n.label]; ok {
			n.at = max(n.at, old.Value.(ending).at)
			e.order.Remove(old)
		}
		for front := e.order.Front(); front != nil; front = e.order.Front() {
			first := front.Value.(ending)
			if e.order.Len() < e.limit && first.at >= oldest {
				break
			}
			e.floor = max(e.floor, first.at)
			e.order.Remove(front)
			delete(e.at, first.label)
		}
		e.at[n.label] = e.order.PushBack(n)
	}
	e.mu.Unlock()
	e.gen.Add(1)
}

// ended says whether s was ended.
func (e *endings) ended(s *Session, t tagger) bool {
	var labels []sessionLabel
	if !e.empty() {
		labels = t.labels(s)
	}
	created := s.Created.UnixMilli()
	e.mu.RLock()
	defer e.mu.RUnlock()
	if created <= e.floor {
		return true
	}
	for _, l := range labels {
		// An ID is of one session, whatever the clock said when it began.
		if el, ok := e.at[l.label]; ok && (l.ofID || created <= el.Value.(ending).at) {
			return true
		}
	}
	return false
}

// empty says that there are no endings with labels.
func (e *endings) empty() bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return len(e.at) == 0
}
