package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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

// withRedis is a cookie store that keeps its endings in Redis.
func withRedis(t testing.TB, opts session.RedisOptions, now func() time.Time, keys ...[]byte) *session.CookieStore {
	t.Helper()
	if opts.Prefix == "" {
		opts.Prefix = "authproxy:"
	}
	c, err := session.OpenCookieStoreWithRedis(opts, sealer(t, keys...), keys, cookie, 24*time.Hour, now)
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

func cookieReplica(t testing.TB, opts session.RedisOptions) *session.Manager {
	t.Helper()
	return managed(withRedis(t, opts, nil, keys[0]), nil)
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
	t.Run("redis", func(t *testing.T) {
		clock, server := storetest.NewClock(), startRedis(t)
		do(t, clock, func(keys ...[]byte) *session.CookieStore {
			return withRedis(t, session.RedisOptions{URL: server.url()}, clock.Now, keys...)
		})
	})
}

func TestCookieStoreWithFile(t *testing.T) {
	clock, path := storetest.NewClock(), filepath.Join(t.TempDir(), "s.db")
	storetest.Run(t, clock, cookie, func(t *testing.T) session.Store { return withFile(t, path, nil, clock.Now, keys[0]) })
}

func TestCookieStoreWithRedis(t *testing.T) {
	clock, server := storetest.NewClock(), startRedis(t)
	storetest.Run(t, clock, cookie, func(t *testing.T) session.Store {
		return withRedis(t, session.RedisOptions{URL: server.url()}, clock.Now, keys[0])
	})
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

// CKE-16: who reads the file or Redis does not learn whose sessions were ended.
func TestEndingsRevealNobody(t *testing.T) {
	server, dir := startRedis(t), t.TempDir()
	stores := map[string]*session.CookieStore{
		"file":  withFile(t, filepath.Join(dir, "s.db"), nil, nil, keys[0]),
		"redis": withRedis(t, session.RedisOptions{URL: server.url()}, nil, keys[0]),
	}
	for _, store := range stores {
		eventually(t, 10*time.Second, "the store answers", func() bool { return store.Ping(t.Context()) == nil })
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
	redis := server.cli("--scan") + server.cli("--raw", "XRANGE", "authproxy:endings", "-", "+")
	if n := strings.Count(redis, "label"); n != 4 {
		t.Errorf("the list in Redis has %d entries, want 4:\n%s", n, redis)
	}
	for _, secret := range []string{"ada", "op.test", "session-id-1", "provider-sid-1"} {
		if bytes.Contains(file, []byte(secret)) || strings.Contains(redis, secret) {
			t.Errorf("the file or Redis holds %q", secret)
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

// Who begins a session that counts as ended would be sent to the login without end.
func TestALoginWithAClockThatIsBehindIsAnError(t *testing.T) {
	server, clock := startRedis(t), storetest.NewClock()
	ahead := managed(withRedis(t, session.RedisOptions{URL: server.url()}, clock.Now, keys[0]), clock.Now)
	if err := ahead.End(t.Context(), session.Selector{Issuer: "https://op.test/", Subject: "ada"}); err != nil {
		t.Fatal(err)
	}
	late := func() time.Time { return clock.Now().Add(-time.Minute) }
	behind := managed(withRedis(t, session.RedisOptions{URL: server.url()}, late, keys[0]), late)
	if _, _, err := behind.Begin(t.Context(), storetest.User("ada", "sid-1")); word(err) != "failed" || !strings.Contains(err.Error(), "clock") {
		t.Errorf("Begin = %v, want an error that speaks of the clock", err)
	}
}

// Where the clocks differ, a session may have begun after its end. It has ended all the same.
func TestASessionOfAClockThatIsAheadIsEnded(t *testing.T) {
	server, clock := startRedis(t), storetest.NewClock()
	soon := func() time.Time { return clock.Now().Add(time.Minute) }
	ahead := managed(withRedis(t, session.RedisOptions{URL: server.url()}, soon, keys[0]), soon)
	m := managed(withRedis(t, session.RedisOptions{URL: server.url()}, clock.Now, keys[0]), clock.Now)
	value, s := begin(t, ahead, storetest.User("ada", "sid-1"))
	if err := m.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
		t.Fatal(err)
	}
	if got := state(m, value); got != "ended" {
		t.Error(got)
	}
	eventually(t, 10*time.Second, "the other replica obeys", func() bool { return state(ahead, value) == "ended" })
}

// A logout may be the first to find that Redis has lost the list: it is not the only ending then.
func TestALogoutThatBeginsANewListEndsWhatWasBefore(t *testing.T) {
	server, clock := startRedis(t), storetest.NewClock()
	open := func() *session.Manager {
		return managed(withRedis(t, session.RedisOptions{URL: server.url()}, clock.Now, keys[0]), clock.Now)
	}
	m := open()
	gone, ada := begin(t, m, storetest.User("ada", "sid-1"))
	_, bob := begin(t, m, storetest.User("bob", "sid-2"))
	if err := m.End(t.Context(), session.Selector{ID: ada.ID}); err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Second)
	server.cli("FLUSHALL")
	if err := m.End(t.Context(), session.Selector{ID: bob.ID}); err != nil {
		t.Fatal(err)
	}
	if got := state(open(), gone); got != "ended" {
		t.Errorf("at a replica that started then, the session that was ended before is %s", got)
	}
}

// Two replicas with one Redis obey each other.
func TestALogoutAtOneReplicaIsObeyedByTheOther(t *testing.T) {
	server := startRedis(t)
	a, b := cookieReplica(t, session.RedisOptions{URL: server.url()}), cookieReplica(t, session.RedisOptions{URL: server.url()})
	var took []time.Duration
	for range 300 {
		value, s := begin(t, a, storetest.User("ada", "sid-1"))
		snapshot, _, err := b.Find(t.Context(), value, true)
		if err != nil {
			t.Fatalf("at the other replica the session is %s", word(err))
		}
		refused := make(chan time.Time)
		go func() {
			for state(b, value) == "alive" {
				time.Sleep(20 * time.Microsecond) // a spinning reader would delay what it waits for
			}
			refused <- time.Now()
		}()
		start := time.Now()
		if err := a.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
			t.Fatal(err)
		}
		if got := state(a, value); got != "ended" {
			t.Fatalf("at the replica that ended it the session is %s", got)
		}
		took = append(took, (<-refused).Sub(start))
		if _, err := b.Update(t.Context(), value, func(s *session.Session) { s.RefreshToken = "late" }); !errors.Is(err, session.ErrNone) {
			t.Errorf("a late update at the other replica: %v, want ErrNone", err)
		}
		if alive, err := b.Alive(t.Context(), snapshot); alive || err != nil {
			t.Errorf("at the other replica Alive = %v, %v, want false", alive, err)
		}
	}
	slices.Sort(took)
	t.Logf("from the start of End at one replica until the other refuses: p50 %v, p99 %v", took[150], took[297])
	if took[297] > 2*time.Second {
		t.Errorf("p99 is %v, want milliseconds", took[297])
	}
}

// Attacks P8: a value that was renewed while its session ended elsewhere is no more than the one before.
func TestALateRenewalAtAnotherReplicaRevivesNothing(t *testing.T) {
	server := startRedis(t)
	a, b := cookieReplica(t, session.RedisOptions{URL: server.url()}), cookieReplica(t, session.RedisOptions{URL: server.url()})
	for range 50 {
		value, s := begin(t, a, storetest.User("ada", "sid-1"))
		renewed := make(chan []string)
		go func() {
			values := []string{value}
			for {
				_, err := b.Update(context.Background(), values[len(values)-1], func(s *session.Session) { s.RefreshToken += "x" })
				if err != nil {
					if !errors.Is(err, session.ErrNone) {
						t.Error(err)
					}
					renewed <- values
					return
				}
				if _, c, err := b.Find(context.Background(), values[len(values)-1], true); err == nil && c != nil {
					values = append(values, c.Value)
				}
			}
		}()
		if err := a.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
			t.Fatal(err)
		}
		for _, v := range <-renewed {
			if got := state(a, v) + state(b, v); got != "endedended" {
				t.Errorf("a renewed value is %s", got)
			}
		}
	}
}

// An authenticated request costs no round trip, also where sessions are many and endings were read before.
func TestAnEndingIsReadOnce(t *testing.T) {
	server := startRedis(t)
	a, b := cookieReplica(t, session.RedisOptions{URL: server.url()}), cookieReplica(t, session.RedisOptions{URL: server.url()})
	var values []string
	for range 100 {
		value, _ := begin(t, b, storetest.User("ada", "sid-1"))
		values = append(values, value)
	}
	if err := a.End(t.Context(), session.Selector{ID: "another"}); err != nil {
		t.Fatal(err)
	}
	before := server.calls("xrange")
	for range 20 {
		for _, v := range values {
			if got := state(b, v); got != "alive" {
				t.Fatal(got)
			}
		}
	}
	if n := server.calls("xrange") - before; n > 2 { // one more when the report came late
		t.Errorf("2000 lookups after an ending sent %d commands", n)
	}
	before = server.calls("xrange")
	for i := range values[0] {
		if got := state(b, values[0][:i]+"A"+values[0][i+1:]); got == "failed" || got == "alive" && values[0][i] != 'A' {
			t.Fatalf("a made-up value is %s", got)
		}
	}
	if n := server.calls("xrange") - before; n > 0 {
		t.Errorf("made-up values sent %d commands", n)
	}
}

// A store failure is never "anonymous". And what Redis forgot it does not bring back.
func TestRedisWithTheEndingsKilledAndRestarted(t *testing.T) {
	server := startRedis(t)
	var log logged
	m := cookieReplica(t, session.RedisOptions{URL: server.url(), Log: log.logger()})
	value, s := begin(t, m, storetest.User("ada", "sid-1"))
	gone, bob := begin(t, m, storetest.User("bob", "sid-2"))
	if err := m.End(t.Context(), session.Selector{ID: bob.ID}); err != nil {
		t.Fatal(err)
	}
	if got := state(m, value) + state(m, gone); got != "aliveended" {
		t.Fatal(got)
	}
	server.kill()
	eventually(t, 10*time.Second, "lookups fail without Redis", func() bool { return state(m, value) == "failed" })
	for name, call := range map[string]func() error{
		"Find":   func() error { _, _, err := m.Find(t.Context(), value, true); return err },
		"Update": func() error { _, err := m.Update(t.Context(), value, func(*session.Session) {}); return err },
		"Alive":  func() error { _, err := m.Alive(t.Context(), s); return err },
		"End":    func() error { return m.End(t.Context(), session.Selector{ID: s.ID}) },
		"Ping":   func() error { return m.Ping(t.Context()) },
	} {
		if err := call(); word(err) != "failed" {
			t.Errorf("%s without Redis: %v, want an error that is not ErrNone", name, err)
		}
	}
	if got := state(m, "garbage"); got != "ended" {
		t.Errorf("without Redis a made-up value is %s", got)
	}
	server.start() // it keeps nothing on disk
	eventually(t, 10*time.Second, "Redis is found again", func() bool { return m.Ping(t.Context()) == nil })
	later := cookieReplica(t, session.RedisOptions{URL: server.url()})
	for _, m := range []*session.Manager{m, later} {
		if got := state(m, value) + state(m, gone); got != "endedended" {
			t.Errorf("with a list that Redis lost, sessions are %s", got)
		}
		if again, _ := begin(t, m, storetest.User("ada", "sid-1")); state(m, again) != "alive" {
			t.Error("a login after that is ended too")
		}
	}
	if n := log.count("a new list of ended sessions was begun"); n != 2 {
		t.Errorf("new lists were reported %d times, want for the first one and for the lost one: %s", n, log.buf.String())
	}
}

// A replica that is cut off believes a session for max_staleness at most.
func TestFrozenRedisWithTheEndingsIsNotBelievedForLong(t *testing.T) {
	const staleness = 500 * time.Millisecond
	server := startRedis(t)
	m := cookieReplica(t, session.RedisOptions{URL: server.url(), MaxStaleness: staleness})
	value, s := begin(t, m, storetest.User("ada", "sid-1"))
	if got := state(m, value); got != "alive" {
		t.Fatal(got)
	}
	server.freeze()
	frozen := time.Now()
	var believed time.Duration // when the last lookup that succeeded began
	for failures := 0; failures < 3; {
		start := time.Now()
		switch got := state(m, value); got {
		case "alive":
			believed, failures = start.Sub(frozen), 0
		case "ended":
			t.Fatal("a session is ended because Redis does not answer")
		default:
			failures++
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Fatalf("a lookup took %v", took)
		}
	}
	t.Logf("last believed %v after Redis froze", believed)
	if believed > staleness+250*time.Millisecond { // what was sent before may be read late
		t.Errorf("the session was believed until %v after Redis froze, want %v at most", believed, staleness)
	}
	if err := m.End(t.Context(), session.Selector{ID: s.ID}); err == nil {
		t.Error("End succeeded although Redis does not answer")
	}
	if err := m.Ping(t.Context()); err == nil {
		t.Error("Ping succeeded although Redis does not answer")
	}
	server.thaw()
	eventually(t, 10*time.Second, "Redis is back", func() bool { return m.Ping(t.Context()) == nil })
	if err := m.End(t.Context(), session.Selector{ID: s.ID}); err != nil || state(m, value) != "ended" {
		t.Errorf("then End = %v, and the session is %s", err, state(m, value))
	}
}

func TestRedisWithTheEndingsMayStartLater(t *testing.T) {
	server := newRedis(t)
	m := cookieReplica(t, session.RedisOptions{URL: server.url()})
	value, _ := begin(t, m, storetest.User("ada", "sid-1"))
	if got := state(m, value); got != "failed" {
		t.Errorf("before the list was read a session is %s", got)
	}
	server.start()
	eventually(t, 10*time.Second, "Redis is found", func() bool { return m.Ping(t.Context()) == nil })
	value, _ = begin(t, m, storetest.User("ada", "sid-1"))
	if got := state(m, value); got != "alive" {
		t.Error(got)
	}
}

// A long list is read in parts, and whole.
func TestALongListOfEndingsIsRead(t *testing.T) {
	server := startRedis(t)
	a := cookieReplica(t, session.RedisOptions{URL: server.url()})
	first, s := begin(t, a, storetest.User("ada", "sid-1"))
	last, bob := begin(t, a, storetest.User("bob", "sid-2"))
	alive, _ := begin(t, a, storetest.User("eve", "sid-3"))
	if err := a.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
		t.Fatal(err)
	}
	const more = 20_000
	server.cli("EVAL", fmt.Sprintf(`local e = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][2]
		for i = 1, %d do redis.call('XADD', KEYS[1], '*', 'label', string.sub(e[2], 1, 4) .. string.format('%%016d', i), 'at', e[4], 'floor', e[6]) end`, more), "1", "authproxy:endings")
	if err := a.End(t.Context(), session.Selector{ID: bob.ID}); err != nil {
		t.Fatal(err)
	}
	store := withRedis(t, session.RedisOptions{URL: server.url()}, nil, keys[0])
	b := managed(store, nil)
	for _, m := range []*session.Manager{a, b} {
		eventually(t, 20*time.Second, "all is read", func() bool { return m.Ping(t.Context()) == nil })
		if got := state(m, first) + state(m, last) + state(m, alive); got != "endedendedalive" {
			t.Errorf("the session ended first, the one ended last and another are %s", got)
		}
	}
	if n := store.Endings(); n != more+2 {
		t.Errorf("%d endings were read, want %d", n, more+2)
	}
}

// What Redis lost, because a master took over that lacked it or because it was restarted from an older copy, it is told again.
func TestReplicasTellRedisWhatItLost(t *testing.T) {
	server := startRedis(t)
	a := cookieReplica(t, session.RedisOptions{URL: server.url()})
	var values []string
	for i := range 4 {
		value, _ := begin(t, a, storetest.User(fmt.Sprint("user-", i), "sid"))
		values = append(values, value)
	}
	var copied string
	for i := range 3 {
		if i == 1 {
			copied = server.cli("XREVRANGE", "authproxy:endings", "+", "-", "COUNT", "1")
		}
		if err := a.End(t.Context(), session.Selector{Issuer: "https://op.test/", Subject: fmt.Sprint("user-", i)}); err != nil {
			t.Fatal(err)
		}
		if got := state(a, values[i]); got != "ended" {
			t.Fatal(got)
		}
	}
	kept := strings.Split(copied, `"`)[1]
	server.cli("EVAL", `for _, e in ipairs(redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+')) do redis.call('XDEL', KEYS[1], e[1]) end`, "1", "authproxy:endings", kept)
	eventually(t, 10*time.Second, "the list is complete again", func() bool {
		if got := state(a, values[1]); got != "ended" {
			t.Fatalf("at the replica that knows, a session is %s", got)
		}
		return strings.Contains(server.cli("XLEN", "authproxy:endings"), "4")
	})
	b := cookieReplica(t, session.RedisOptions{URL: server.url()})
	for i, want := range []string{"ended", "ended", "ended", "alive"} {
		if got := state(b, values[i]); got != want {
			t.Errorf("at a replica that started then, session %d is %s, want %s", i, got, want)
		}
	}
}

// Managed services may refuse CLIENT TRACKING: then the list is asked for again after max_staleness.
func TestRedisThatDoesNotReportEndings(t *testing.T) {
	server := startRedis(t)
	server.cli("ACL", "SETUSER", "default", "-client|tracking")
	opts := session.RedisOptions{URL: server.url(), MaxStaleness: 300 * time.Millisecond}
	a, b := cookieReplica(t, opts), cookieReplica(t, opts)
	value, s := begin(t, a, storetest.User("ada", "sid-1"))
	before := server.calls("xrange")
	for range 200 {
		if got := state(b, value); got != "alive" {
			t.Fatal(got)
		}
	}
	if n := server.calls("xrange") - before; n > 10 {
		t.Errorf("200 lookups sent %d commands", n)
	}
	if err := a.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
		t.Fatal(err)
	}
	if got := state(a, value); got != "ended" {
		t.Errorf("at the replica that ended it the session is %s", got)
	}
	eventually(t, 10*time.Second, "the other replica refuses it", func() bool { return state(b, value) == "ended" })
}

func TestEndingsWithFewPermissions(t *testing.T) {
	server := startRedis(t)
	server.cli("ACL", "SETUSER", "proxy", "on", ">secret", "~authproxy:*", "-@all", "+@connection", "+eval", "+xadd", "+xdel", "+xlen", "+xrange", "+xrevrange")
	server.cli("ACL", "SETUSER", "default", "off")
	var log logged
	m := cookieReplica(t, session.RedisOptions{URL: "redis://proxy:secret@" + server.addr() + "/0", Log: log.logger()})
	value, s := begin(t, m, storetest.User("ada", "sid-1"))
	if err := m.End(t.Context(), session.Selector{ID: s.ID}); err != nil || state(m, value) != "ended" {
		t.Errorf("End = %v, and the session is %s", err, state(m, value))
	}
	if n := log.count("WARN"); n != 1 { // the new list
		t.Errorf("a user with few permissions gave %d warnings: %s", n, log.buf.String())
	}
}

// A Redis that is full does not take a logout, and says so; whoever is signed in stays so.
func TestAFullRedisEndsNothing(t *testing.T) {
	server := startRedis(t)
	m := cookieReplica(t, session.RedisOptions{URL: server.url()})
	value, s := begin(t, m, storetest.User("ada", "sid-1"))
	server.cli("CONFIG", "SET", "maxmemory", "1")
	if err := m.End(t.Context(), session.Selector{ID: s.ID}); word(err) != "failed" {
		t.Errorf("End = %v, want an error", err)
	}
	if got := state(m, value); got != "alive" {
		t.Errorf("the session is %s", got)
	}
	server.cli("CONFIG", "SET", "maxmemory", "0")
	if err := m.End(t.Context(), session.Selector{ID: s.ID}); err != nil || state(m, value) != "ended" {
		t.Errorf("then End = %v, and the session is %s", err, state(m, value))
	}
}

func TestSomethingElseInThePlaceOfTheListIsAFailure(t *testing.T) {
	server := startRedis(t)
	for _, command := range [][]string{{"SET", "authproxy:endings", "x"}, {"XADD", "authproxy:endings", "*", "a", "b"}, {"XADD", "authproxy:endings", "*", "label", "short", "at", "1", "floor", "1"}} {
		server.cli(command...)
		m := cookieReplica(t, session.RedisOptions{URL: server.url()})
		value, s := begin(t, m, storetest.User("ada", "sid-1"))
		if got := state(m, value); got != "failed" {
			t.Errorf("after %q a session is %s", command, got)
		}
		if command[0] == "SET" {
			if err := m.End(t.Context(), session.Selector{ID: s.ID}); err == nil {
				t.Errorf("after %q End succeeded", command)
			}
		}
		server.cli("DEL", "authproxy:endings")
	}
}

func TestEndingsAfterASentinelFailover(t *testing.T) {
	master := startRedis(t)
	second := startRedis(t, "--replicaof", "127.0.0.1 "+master.port)
	sentinel := startSentinel(t, master)
	opts := session.RedisOptions{URL: "redis://" + sentinel.addr() + "/0?master_set=mymaster"}
	a, b := cookieReplica(t, opts), cookieReplica(t, opts)
	eventually(t, 10*time.Second, "the master is found", func() bool { return a.Ping(t.Context()) == nil && b.Ping(t.Context()) == nil })
	gone, s := begin(t, a, storetest.User("ada", "sid-1"))
	value, bob := begin(t, a, storetest.User("bob", "sid-2"))
	if err := a.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
		t.Fatal(err)
	}
	master.replicated()
	master.kill()
	for range 5 {
		if got := state(b, gone) + state(b, value); strings.Contains(strings.TrimPrefix(got, "ended"), "ended") || strings.HasPrefix(got, "alive") {
			t.Fatalf("because the master died an ended session and another are %s", got)
		}
	}
	eventually(t, 20*time.Second, "the second server is the master", func() bool {
		role, err := second.command("ROLE") // it closes connections when it changes its role
		return err == nil && strings.Contains(role, "master")
	})
	eventually(t, 10*time.Second, "it is in use", func() bool { return a.Ping(t.Context()) == nil && b.Ping(t.Context()) == nil })
	for _, m := range []*session.Manager{a, b, cookieReplica(t, opts)} {
		if got := state(m, gone) + state(m, value); got != "endedalive" {
			t.Errorf("after the failover an ended session and another are %s", got)
		}
	}
	if err := b.End(t.Context(), session.Selector{ID: bob.ID}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "a logout after the failover is obeyed", func() bool { return state(a, value) == "ended" })
}

func TestEndingsInARedisCluster(t *testing.T) {
	var addrs []string
	var nodes []*redisServer
	for range 3 {
		n := newRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", freePort(t))
		n.start()
		addrs = append(addrs, n.addr())
		nodes = append(nodes, n)
	}
	nodes[0].cli(append([]string{"--cluster", "create", "--cluster-yes"}, addrs...)...)
	opts := session.RedisOptions{URL: "redis://" + strings.Join(addrs[:2], ",")}
	a, b := cookieReplica(t, opts), cookieReplica(t, opts)
	for _, m := range []*session.Manager{a, b} {
		eventually(t, 10*time.Second, "the cluster is up", func() bool { return m.Ping(t.Context()) == nil })
	}
	value, s := begin(t, a, storetest.User("ada", "sid-1"))
	if got := state(b, value); got != "alive" {
		t.Fatal(got)
	}
	calls := func() (n int) {
		for _, node := range nodes {
			n += node.calls("xrange")
		}
		return n
	}
	before := calls()
	for range 500 {
		state(b, value)
	}
	if n := calls() - before; n > 3 {
		t.Errorf("500 lookups sent %d commands", n)
	}
	if err := a.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "a logout is obeyed by the other replica", func() bool { return state(b, value) == "ended" })
}

// Connections that break under load lose no logout that was reported as made.
func TestBrokenConnectionsLoseNoEnding(t *testing.T) {
	server := startRedis(t)
	a, b := cookieReplica(t, session.RedisOptions{URL: server.url()}), cookieReplica(t, session.RedisOptions{URL: server.url()})
	done := make(chan bool)
	var killer sync.WaitGroup
	killer.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
			}
		}
	})
	var ended []string
	for range 200 {
		value, s := begin(t, a, storetest.User("ada", "sid-1"))
		if err := a.End(t.Context(), session.Selector{ID: s.ID}); err == nil {
			ended = append(ended, value)
			if got := state(a, value); got == "alive" {
				t.Fatal("after a logout the session is alive")
			}
		}
	}
	close(done)
	killer.Wait()
	eventually(t, 10*time.Second, "Redis is found again", func() bool { return a.Ping(t.Context()) == nil && b.Ping(t.Context()) == nil })
	for _, value := range ended {
		if got := state(b, value); got != "ended" {
			t.Fatalf("at the other replica an ended session is %s", got)
		}
	}
	t.Logf("%d of 200 logouts were made", len(ended))
}

func BenchmarkFindWithEndings(b *testing.B) {
	server := startRedis(b)
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
		{"redis", func() *session.CookieStore {
			return withRedis(b, session.RedisOptions{URL: server.url()}, nil, keys[0])
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
