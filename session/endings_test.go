package session_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"authproxy/session"
	"authproxy/session/storetest"
)

// managed is a store with its manager. A nil now means time.Now.
func managed(store session.Store, now func() time.Time) *session.Manager {
	m := session.NewManager(store, cookie, time.Hour, 24*time.Hour)
	m.Now = now
	return m
}

// DOS-13: a flood of logouts is bounded, and it never brings an ended session back.
func TestEndingsAreBoundedAndFailClosed(t *testing.T) {
	clock := storetest.NewClock()
	store := session.NewCookieStore(sealer(t, keys[0]), cookie, 24*time.Hour, clock.Now)
	store.Bound(3)
	m := managed(store, clock.Now)
	var ended []string
	for range 7 {
		value, s := begin(t, m, storetest.User("ada", "sid-1"))
		clock.Advance(time.Second)
		if err := m.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
			t.Fatal(err)
		}
		ended = append(ended, value)
	}
	clock.Advance(time.Second)
	late, _ := begin(t, m, storetest.User("ada", "sid-1"))
	for i, value := range ended {
		if got := state(m, value); got != "ended" {
			t.Errorf("the session that was ended as number %d is %s", i, got)
		}
	}
	if n := store.Endings(); n > 3 {
		t.Errorf("%d endings are kept, want 3 at most", n)
	}
	if got := state(m, late); got != "alive" {
		t.Errorf("a session begun after the flood is %s", got)
	}
}

// Who looks while an ending is replaced by the floor finds one or the other.
func TestAnEndingIsNotMissedWhileItIsDropped(t *testing.T) {
	clock := storetest.NewClock()
	store := session.NewCookieStore(sealer(t, keys[0]), cookie, 24*time.Hour, clock.Now)
	store.Bound(50)
	m := managed(store, clock.Now)
	for range 30 {
		_, s := begin(t, m, storetest.User("ada", "sid-1"))
		if err := m.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
			t.Fatal(err)
		}
		var flood sync.WaitGroup
		flood.Go(func() {
			for i := range 60 {
				m.End(context.Background(), session.Selector{ID: fmt.Sprint(s.ID, i)})
			}
		})
		for range 20 {
			if alive, err := m.Alive(t.Context(), s); alive || err != nil {
				t.Errorf("Alive = %v, %v, want false", alive, err)
			}
		}
		flood.Wait()
		clock.Advance(time.Second)
	}
}
