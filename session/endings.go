package session

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// maxEndings bounds the list of endings, in memory and wherever else it is kept.
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
	keys  map[keyName]int64       // when something was last ended under a label of that key
	floor int64
}

func newEndings(limit int) *endings {
	return &endings{limit: limit, at: map[label]*list.Element{}, order: list.New(), keys: map[keyName]int64{}}
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
		e.keys[n.label.key()] = max(e.keys[n.label.key()], n.at)
	}
	e.mu.Unlock()
	e.gen.Add(1)
}

// since returns the endings of sessions that were begun after floor.
func (e *endings) since(floor int64) (all []ending) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.floor > floor {
		all = append(all, ending{at: e.floor, floor: e.floor})
	}
	for el := e.order.Front(); el != nil; el = el.Next() {
		if n := el.Value.(ending); n.at > floor {
			all = append(all, n)
		}
	}
	return all
}

// ended says whether s was ended. Under a label of a key that t lacks it may be anybody's session that was.
func (e *endings) ended(s *Session, t tagger) bool {
	var labels []sessionLabel
	if !e.empty() {
		labels = t.labels(s)
	}
	created := s.Created.UnixMilli()
	e.mu.RLock()
	defer e.mu.RUnlock()
	if created <= max(e.floor, e.unread(t)) {
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

// unread is when something was last ended under a label of a key that t lacks. It is called with mu held.
func (e *endings) unread(t tagger) (last int64) {
	for key, at := range e.keys {
		if !t.has(key) {
			last = max(last, at)
		}
	}
	return last
}

// An endingsLog keeps endings where they outlive this process, and may have those of others.
type endingsLog interface {
	// append returns nil when n is kept for good. Endings from before oldest may be dropped.
	append(ctx context.Context, n ending, oldest int64) error

	// fresh returns nil when the endings in memory are those of the log.
	fresh() error

	ping(ctx context.Context) error
	close() error
}

// An endingsLog is bounded as endings are, and each of its entries has the floor of the time when it was written: the last one
// has that of the log. Of a log that is not there nobody knows what was in it: it begins with an entry that ends all sessions
// begun before.
func firstEnding(now time.Time) ending {
	return ending{at: now.UnixMilli(), floor: now.UnixMilli() - 1}
}

const newLog = "session store: a new list of ended sessions was begun, because there was none; whoever signed in before must sign in again"
