package session

import "sync/atomic"

// cacheBytes bounds the opened sessions that a store keeps in memory, unless SetCache says otherwise.
const cacheBytes = 128 << 20

// opened finds the opened session of a cookie value, so that a session is opened once and not once per request. Values
// are whole ones that have been authenticated: who does not have the value does not find the session. All values of a
// session lead to its latest snapshot.
type opened struct {
	gen     *atomic.Uint64 // grows with every ending: then what is in here must be asked for again before it is believed
	byValue *cache[*head]
	byID    *cache[*head]
}

// A head is the latest snapshot of a session.
type head struct {
	state   atomic.Pointer[state]
	checked atomic.Uint64 // generation at which the session was known to be alive
}

type state struct {
	session *Session
	current string // the value that the browser should have
}

// newOpened returns an empty one. Stores that share their sessions share gen.
func newOpened(gen *atomic.Uint64) *opened {
	return &opened{gen: gen, byValue: newCache[*head](cacheBytes / 2), byID: newCache[*head](cacheBytes / 2)}
}

func (o *opened) bound(bytes int) {
	o.byValue.bound(bytes / 2)
	o.byID.bound(bytes / 2)
}

// cost estimates the memory of an opened session: what was decoded, the headers derived from it and an assertion are
// about four times the value, and not below 2 KiB.
func cost(value string) int { return 2048 + 4*len(value) }

// add remembers that value was opened as s, known to be alive at generation gen, and returns the session's head, which may
// know a later snapshot.
func (o *opened) add(value string, s *Session, gen uint64) *head {
	h := new(head)
	h.state.Store(&state{s, value})
	h.checked.Store(gen)
	h = o.byID.put(s.ID, h, cost(value))
	for {
		st := h.state.Load()
		if st.session.version >= s.version || h.state.CompareAndSwap(st, &state{s, value}) {
			return o.byValue.put(value, h, cost(value))
		}
	}
}

// replace makes s, under the value current, the latest snapshot of the session of value. It returns false when s was not
// made from the latest one.
func (o *opened) replace(value string, s *Session, current string) bool {
	h, ok := o.byValue.get(value)
	if !ok {
		if h, ok = o.byID.get(s.ID); !ok {
			return true // forgotten, so that nobody changed it since
		}
	}
	st := h.state.Load()
	if st.session.version+1 != s.version || !h.state.CompareAndSwap(st, &state{s, current}) {
		return false
	}
	o.byValue.put(current, h, cost(current))
	return true
}

// forget drops what is known of value.
func (o *opened) forget(value string, s *Session) {
	o.byValue.remove(value)
	o.byID.remove(s.ID)
}

// advance makes s the latest snapshot known of the session of value, unless a later one is known already, and returns the
// value that the browser should have.
func (o *opened) advance(value string, s *Session) (current string) {
	h, ok := o.byValue.get(value)
	if !ok {
		return value
	}
	for {
		st := h.state.Load()
		if st.session.version >= s.version || h.state.CompareAndSwap(st, &state{s, st.current}) {
			return st.current
		}
	}
}
