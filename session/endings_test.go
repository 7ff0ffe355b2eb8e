package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"authproxy/session"
	"authproxy/session/storetest"
)

// withFile is a cookie store that keeps its endings in a file.
func withFile(t testing.TB, path string, log *slog.Logger, now func() time.Time, keys ...[]byte) *session.CookieStore {
	t.Helper()
	c, err := session.OpenCookieStoreWithFile(path, log, sealer(t, keys...), keys, cookie, 24*time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// managed is a store with its manager. A nil now means time.Now.
func managed(store session.Store, now func() time.Time) *session.Manager {
	m := session.NewManager(store, cookie, time.Hour, 24*time.Hour)
	m.Now = now
	return m
}

// shared makes stores that share their endings: with every call another replica, or the same after a restart.
func shared(t *testing.T, do func(t *testing.T, clock *storetest.Clock, open func(keys ...[]byte) *session.CookieStore)) {
	t.Run("file", func(t *testing.T) {
		clock, path := storetest.NewClock(), filepath.Join(t.TempDir(), "s.db")
		var last *session.CookieStore
		do(t, clock, func(keys ...[]byte) *session.CookieStore {
			if last != nil {
				last.Close()
			}
			last = withFile(t, path, nil, clock.Now, keys...)
			return last
		})
	})
}

func TestCookieStoreWithFile(t *testing.T) {
	clock, path := storetest.NewClock(), filepath.Join(t.TempDir(), "new", "s.db")
	storetest.Run(t, clock, cookie, func(t *testing.T) session.Store { return withFile(t, path, nil, clock.Now, keys[0]) })
}

// Attacks P8: what was ended stays so after a restart and at another replica, and what was not is alive there.
func TestEndingsOutliveTheProcess(t *testing.T) {
	shared(t, func(t *testing.T, clock *storetest.Clock, open func(keys ...[]byte) *session.CookieStore) {
		m := managed(open(keys[0]), clock.Now)
		byID, s := begin(t, m, storetest.User("ada", "sid-1"))
		bySubject, _ := begin(t, m, storetest.User("bob", "sid-2"))
		bySID, _ := begin(t, m, storetest.User("eve", "sid-3"))
		other, _ := begin(t, m, storetest.User("ada", "sid-4"))
		for _, sel := range []session.Selector{{ID: s.ID}, {Issuer: "https://op.test/", Subject: "bob"}, {Issuer: "https://op.test/", ProviderSID: "sid-3"}} {
			if err := m.End(t.Context(), sel); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			m = managed(open(keys[0]), clock.Now)
			if got := state(m, byID) + state(m, bySubject) + state(m, bySID) + state(m, other); got != "endedendedendedalive" {
				t.Errorf("sessions ended by ID, by subject, by sid, and not ended: %s", got)
			}
			if _, err := m.Update(t.Context(), byID, func(s *session.Session) { s.RefreshToken = "late" }); !errors.Is(err, session.ErrNone) {
				t.Errorf("a late update: %v, want ErrNone", err)
			}
			clock.Advance(time.Second)
			if again, _ := begin(t, m, storetest.User("bob", "sid-2")); state(m, again) != "alive" {
				t.Error("a login after the logout is ended too")
			}
		}
		if err := m.End(t.Context(), session.Selector{All: true}); err != nil {
			t.Fatal(err)
		}
		m = managed(open(keys[0]), clock.Now)
		if got := state(m, other); got != "ended" {
			t.Errorf("after ending all sessions and a restart one is %s", got)
		}
	})
}

// What End has acknowledged survives a crash: the file as it is at that moment has it.
func TestEndingsSurviveACrash(t *testing.T) {
	clock, dir := storetest.NewClock(), t.TempDir()
	m := managed(withFile(t, filepath.Join(dir, "s.db"), nil, clock.Now, keys[0]), clock.Now)
	value, s := begin(t, m, storetest.User("ada", "sid-1"))
	alive, _ := begin(t, m, storetest.User("ada", "sid-1"))
	if err := m.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
		t.Fatal(err)
	}
	disk, err := os.ReadFile(filepath.Join(dir, "s.db"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "after.db"), disk, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	after := managed(withFile(t, filepath.Join(dir, "after.db"), nil, clock.Now, keys[0]), clock.Now)
	if got := state(after, value) + state(after, alive); got != "endedalive" {
		t.Errorf("after a crash the ended session and another are %s", got)
	}
}

// DOS-13: a flood of logouts is bounded, and it never brings an ended session back, here, after a restart or elsewhere.
func TestEndingsAreBoundedAndFailClosed(t *testing.T) {
	flood := func(t *testing.T, clock *storetest.Clock, store *session.CookieStore, reopen func() *session.CookieStore) {
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
		for where, store := range []*session.CookieStore{reopen(), store} { // first elsewhere or after a restart, then here
			m := managed(store, clock.Now)
			for i, value := range ended {
				if got := state(m, value); got != "ended" {
					t.Errorf("at store %d the session that was ended as number %d is %s", where, i, got)
				}
			}
			if n := store.Endings(); n > 3 {
				t.Errorf("store %d keeps %d endings, want 3 at most", where, n)
			}
			if got := state(m, late); got != "alive" {
				t.Errorf("at store %d a session begun after the flood is %s", where, got)
			}
		}
	}
	t.Run("memory", func(t *testing.T) {
		clock := storetest.NewClock()
		store := session.NewCookieStore(sealer(t, keys[0]), cookie, 24*time.Hour, clock.Now)
		flood(t, clock, store, func() *session.CookieStore { return store })
	})
	shared(t, func(t *testing.T, clock *storetest.Clock, open func(keys ...[]byte) *session.CookieStore) {
		flood(t, clock, open(keys[0]), func() *session.CookieStore { return open(keys[0]) })
	})
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

// A clock that is set back makes later endings seem earlier: what they push out stays ended all the same.
func TestEndingsOutliveAClockThatIsSetBack(t *testing.T) {
	shared(t, func(t *testing.T, clock *storetest.Clock, open func(keys ...[]byte) *session.CookieStore) {
		store := open(keys[0])
		store.Bound(2)
		m := managed(store, clock.Now)
		clock.Advance(time.Hour)
		value, s := begin(t, m, storetest.User("ada", "sid-1"))
		for i, sel := range []session.Selector{{ID: s.ID}, {ID: "1"}, {ID: "2"}, {ID: "3"}, {ID: "4"}, {ID: "5"}} {
			if err := m.End(t.Context(), sel); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				clock.Advance(-time.Hour)
			}
		}
		if got := state(managed(open(keys[0]), clock.Now), value); got != "ended" {
			t.Errorf("elsewhere or after a restart the session is %s", got)
		}
		if got := state(m, value); got != "ended" {
			t.Errorf("where it was ended the session is %s", got)
		}
	})
}

// What is dropped because the sessions have expired is not needed: but even with other lifetimes nothing comes back.
func TestEndingsExpire(t *testing.T) {
	shared(t, func(t *testing.T, clock *storetest.Clock, open func(keys ...[]byte) *session.CookieStore) {
		store := open(keys[0])
		m := managed(store, clock.Now)
		m.Idle, m.Life = 48*time.Hour, 48*time.Hour // longer than the store was told
		value, s := begin(t, m, storetest.User("ada", "sid-1"))
		if err := m.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
			t.Fatal(err)
		}
		clock.Advance(24*time.Hour + 2*time.Hour)
		for range 2 {
			if err := m.End(t.Context(), session.Selector{ID: "another"}); err != nil {
				t.Fatal(err)
			}
			if n := store.Endings(); n != 1 {
				t.Errorf("%d endings are kept, want the one that is needed", n)
			}
			if got := state(m, value); got != "ended" {
				t.Errorf("the session is %s", got)
			}
			store = open(keys[0])
			m = managed(store, clock.Now)
			m.Idle, m.Life = 48*time.Hour, 48*time.Hour
			if got := state(m, value); got != "ended" {
				t.Errorf("after a restart the session is %s", got)
			}
		}
	})
}

// Other session keys know what was ended under the older ones; when one is taken away too early, what it ended may be
// anybody's session.
func TestKeysRotateWithoutLosingEndings(t *testing.T) {
	shared(t, func(t *testing.T, clock *storetest.Clock, open func(keys ...[]byte) *session.CookieStore) {
		m := managed(open(keys[0]), clock.Now)
		var values []string
		for _, subject := range []string{"ada", "bob", "eve"} {
			value, _ := begin(t, m, storetest.User(subject, "sid-"+subject))
			values = append(values, value)
		}
		end := func(subject string) {
			t.Helper()
			if err := m.End(t.Context(), session.Selector{Issuer: "https://op.test/", Subject: subject}); err != nil {
				t.Fatal(err)
			}
		}
		states := func(want string) {
			t.Helper()
			var got []string
			for _, v := range values {
				got = append(got, state(m, v))
			}
			if strings.Join(got, " ") != want {
				t.Errorf("ada, bob and eve are %v, want %s", got, want)
			}
		}
		end("ada")
		m = managed(open(keys[1], keys[0]), clock.Now)
		states("ended alive alive")
		clock.Advance(2 * time.Minute)
		for i := range values[1:] {
			_, renewed, err := m.Find(t.Context(), values[1+i], true)
			if err != nil || renewed == nil {
				t.Fatalf("with the new key first: %v, %v, want the session and a cookie of the new key", renewed, err)
			}
			values[1+i] = renewed.Value
		}
		end("bob")
		m = managed(open(keys[0], keys[1]), clock.Now) // a replica that has not followed yet
		states("ended ended alive")
		m = managed(open(keys[1]), clock.Now)
		states("ended ended ended")
		if value, _ := begin(t, m, storetest.User("ada", "sid-ada")); state(m, value) != "alive" {
			t.Error("a login after that is ended too")
		}
		clock.Advance(26 * time.Hour) // nobody lives longer
		end("nobody")
		value, _ := begin(t, m, storetest.User("eve", "sid-eve"))
		if got := state(m, value); got != "alive" {
			t.Errorf("without the old key a session is %s", got)
		}
	})
}

func TestASessionKeyThatIsMissingIsReported(t *testing.T) {
	clock, path := storetest.NewClock(), filepath.Join(t.TempDir(), "s.db")
	var log logged
	for _, row := range []struct {
		keys  [][]byte
		other int
	}{{keys[:1], 0}, {keys[:2], 0}, {keys[1:2], 1}} {
		store := withFile(t, path, log.logger(), clock.Now, row.keys...)
		if n := log.count("is not in session.keys"); n != row.other {
			t.Errorf("with %d keys %d reports of a missing one, want %d: %s", len(row.keys), n, row.other, log.buf.String())
		}
		if err := store.End(t.Context(), session.Selector{ID: "x"}); err != nil {
			t.Fatal(err)
		}
		store.Close()
	}
	if n := log.count("a new list of ended sessions was begun"); n != 1 {
		t.Errorf("the new list was reported %d times, want once", n)
	}
}

// CKE-16: who reads the file does not learn whose sessions were ended.
func TestEndingsRevealNobody(t *testing.T) {
	dir := t.TempDir()
	stores := map[string]*session.CookieStore{
		"file": withFile(t, filepath.Join(dir, "s.db"), nil, nil, keys[0]),
	}
	for _, store := range stores {
		for _, sel := range []session.Selector{{ID: "session-id-1"}, {Issuer: "https://op.test/", Subject: "auth0|ada"}, {Issuer: "https://op.test/", ProviderSID: "provider-sid-1"}} {
			if err := store.End(t.Context(), sel); err != nil {
				t.Fatal(err)
			}
		}
	}
	file, err := os.ReadFile(filepath.Join(dir, "s.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"ada", "op.test", "session-id-1", "provider-sid-1"} {
		if bytes.Contains(file, []byte(secret)) {
			t.Errorf("the file holds %q", secret)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "s.db")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", st.Mode(), err)
	}
}

func TestAFileOfEndingsIsForOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	withFile(t, path, nil, nil, keys[0])
	_, err := session.OpenCookieStoreWithFile(path, nil, sealer(t, keys[0]), keys[:1], cookie, time.Hour, nil)
	if err == nil || !strings.Contains(err.Error(), "another process") || !strings.Contains(err.Error(), "redis") {
		t.Errorf("opening it twice: %v, want an error that says why and what to do", err)
	}
}

// A logout that is not written down has not happened.
func TestAFileThatFailsEndsNothing(t *testing.T) {
	store := withFile(t, filepath.Join(t.TempDir(), "s.db"), nil, nil, keys[0])
	m := managed(store, nil)
	value, s := begin(t, m, storetest.User("ada", "sid-1"))
	if err := m.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	store.Close()
	if err := m.End(t.Context(), session.Selector{ID: s.ID}); err == nil {
		t.Error("End with the file closed succeeded")
	}
	if got := state(m, value); got != "alive" {
		t.Errorf("after a logout that failed the session is %s, so that nobody can try again", got)
	}
	if err := m.Ping(t.Context()); err == nil {
		t.Error("Ping with the file closed succeeded")
	}
}

// A change of the configuration keeps what is known, and both stores obey each other.
func TestEndingsAreKeptWhenTheStoreReopens(t *testing.T) {
	shared(t, func(t *testing.T, clock *storetest.Clock, open func(keys ...[]byte) *session.CookieStore) {
		old := open(keys[0])
		before := managed(old, clock.Now)
		ada, s := begin(t, before, storetest.User("ada", "sid-1"))
		bob, _ := begin(t, before, storetest.User("bob", "sid-2"))
		eve, _ := begin(t, before, storetest.User("eve", "sid-3"))
		if err := before.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
			t.Fatal(err)
		}
		next, err := old.Reopen(sealer(t, keys[1], keys[0]), [][]byte{keys[1], keys[0]}, cookie, time.Hour, 12*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		after := managed(next, clock.Now)
		if got := state(after, ada) + state(after, bob) + state(after, eve); got != "endedalivealive" {
			t.Errorf("through the new store ada, bob and eve are %s", got)
		}
		if err := after.End(t.Context(), session.Selector{Issuer: "https://op.test/", Subject: "bob"}); err != nil {
			t.Fatal(err)
		}
		if got := state(after, bob); got != "ended" {
			t.Errorf("through the new store bob is %s", got)
		}
		if got := state(before, bob); got != "ended" {
			t.Errorf("through the old store, which lacks the new key, bob is %s", got)
		}
		if err := before.Close(); err != nil {
			t.Fatal(err)
		}
		if err := after.Ping(t.Context()); err == nil {
			t.Error("after Close the store says that it can answer")
		}
		if err := after.Close(); err != nil {
			t.Errorf("closing the other too: %v", err)
		}
	})
}

func BenchmarkFindWithEndings(b *testing.B) {
	for _, row := range []struct {
		name string
		open func() *session.CookieStore
	}{
		{"memory", func() *session.CookieStore {
			return session.NewCookieStore(sealer(b, keys[0]), cookie, 24*time.Hour, nil)
		}},
		{"file", func() *session.CookieStore {
			return withFile(b, filepath.Join(b.TempDir(), "s.db"), nil, nil, keys[0])
		}},
	} {
		store := row.open()
		m := managed(store, nil)
		value, _ := begin(b, m, storetest.User("ada", "sid-1"))
		if err := m.End(b.Context(), session.Selector{ID: "another"}); err != nil {
			b.Fatal(err)
		}
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := m.Find(b.Context(), value, false); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(row.name+", after an ending", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				store.Heard()
				if _, _, err := m.Find(b.Context(), value, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
