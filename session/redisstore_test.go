package session_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authproxy/identity"
	"authproxy/session"
	"authproxy/session/storetest"
)

func TestRedisStore(t *testing.T) {
	server, clock := startRedis(t), storetest.NewClock()
	storetest.Run(t, clock, cookie, func(t *testing.T) session.Store {
		return redisStore(t, session.RedisOptions{URL: server.url()}, clock.Now, keys[0])
	})
}

// Two replicas with one Redis behave as one.
func TestTwoReplicasAreOne(t *testing.T) {
	server := startRedis(t)
	a, b := replica(t, session.RedisOptions{URL: server.url()}), replica(t, session.RedisOptions{URL: server.url()})
	value, s := begin(t, a, storetest.User("ada", "sid-1"))

	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			m := []*session.Manager{a, b}[i%2]
			if _, err := m.Update(t.Context(), value, func(s *session.Session) { s.AccessToken += "x" }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, m := range []*session.Manager{a, b} {
		eventually(t, time.Second, "each replica knows every change", func() bool {
			s, _, err := m.Find(t.Context(), value, true)
			return err == nil && len(s.AccessToken) == 40
		})
	}

	if err := b.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
		t.Fatal(err)
	}
	if got := state(b, value); got != "ended" {
		t.Errorf("on the replica that ended it the session is %s", got)
	}
	eventually(t, time.Second, "a logout on one replica ends the session on the other", func() bool { return state(a, value) == "ended" })
	if _, err := a.Update(t.Context(), value, func(s *session.Session) { s.RefreshToken = "late" }); !errors.Is(err, session.ErrNone) {
		t.Errorf("a late update on the other replica: %v, want ErrNone", err)
	}
}

// A change that was made from an older snapshot than what is kept is refused, wherever the newer one was made.
func TestRedisSaveOfAnOldSnapshotConflicts(t *testing.T) {
	server := startRedis(t)
	a := redisStore(t, session.RedisOptions{URL: server.url()}, nil, keys[0])
	defer a.Close()
	b := redisStore(t, session.RedisOptions{URL: server.url()}, nil, keys[0])
	defer b.Close()
	m := session.NewManager(a, cookie, time.Hour, 24*time.Hour)
	value, _ := begin(t, m, storetest.User("ada", "sid-1"))
	old, _, err := b.Load(t.Context(), value)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Update(t.Context(), value, func(s *session.Session) { s.RefreshToken = "rotated" }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Save(t.Context(), value, old.Change(func(s *session.Session) { s.RefreshToken = "lost" })); !errors.Is(err, session.ErrConflict) {
		t.Errorf("Save = %v, want ErrConflict", err)
	}
	if s, _, err := b.Load(t.Context(), value); err != nil || s.RefreshToken != "rotated" {
		t.Errorf("after the conflict Load = %v, want the rotated token", err)
	}
}

// Attacks P8: a change that was under way when its session ended does not bring it back.
func TestRedisSaveDoesNotReviveASession(t *testing.T) {
	server := startRedis(t)
	r := redisStore(t, session.RedisOptions{URL: server.url()}, nil, keys[0])
	defer r.Close()
	m := session.NewManager(r, cookie, time.Hour, 24*time.Hour)
	value, s := begin(t, m, storetest.User("ada", "sid-1"))
	snapshot, _, err := r.Load(t.Context(), value)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Save(t.Context(), value, snapshot.Change(func(s *session.Session) { s.RefreshToken = "late" })); !errors.Is(err, session.ErrNone) {
		t.Errorf("Save = %v, want ErrNone", err)
	}
	if got := state(m, value); got != "ended" {
		t.Errorf("after a late change the session is %s", got)
	}
	if all, err := m.List(t.Context(), session.Selector{All: true}); err != nil || len(all) != 0 {
		t.Errorf("%d sessions in the list, %v, want none", len(all), err)
	}
}

// Attacks P8: a login that is sent once more when its connection breaks leaves a copy of itself under way. It must not arrive
// after the logout.
func TestALateCopyOfALoginDoesNotReviveTheSession(t *testing.T) {
	server := startRedis(t)
	line := newCutter(t, server.addr())
	m := replica(t, session.RedisOptions{URL: "redis://" + line.addr})
	line.hold.Store(new("\r\nPX\r\n"))
	_, c, err := m.Begin(t.Context(), storetest.User("ada", "sid-1"))
	late := line.held.Load()
	if late == nil {
		t.Fatal("no login was held up")
	}
	value := ""
	if err == nil { // it was sent once more
		value = c.Value
		if err := m.End(t.Context(), session.Selector{Subject: "ada", Issuer: "https://op.test/"}); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := net.Dial("tcp", server.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(*late)
	eventually(t, 2*time.Second, "the copy arrives", func() bool {
		return strings.Contains(server.cli("--scan", "--pattern", "authproxy:s:*"), "authproxy:s:")
	})
	if value != "" && state(replica(t, session.RedisOptions{URL: server.url()}), value) != "ended" {
		t.Error("the session is back after its logout")
	}
}

// A change whose acknowledgement was lost is found to be made when it is sent again, and is not made twice.
func TestALostAnswerIsNoConflict(t *testing.T) {
	server := startRedis(t)
	line := newCutter(t, server.addr())
	m := replica(t, session.RedisOptions{URL: "redis://" + line.addr})
	value, _ := begin(t, m, storetest.User("ada", "sid-1"))
	line.cut.Store(new("$5\r\nsaved"))
	s, err := m.Update(t.Context(), value, func(s *session.Session) { s.AccessToken += "x" })
	if err != nil || s.AccessToken != "x" {
		t.Errorf("Update = %v, want the change", err)
	}
	if line.cut.Load() != nil {
		t.Fatal("no answer was lost")
	}
	if s, _, err := m.Find(t.Context(), value, true); err != nil || s.AccessToken != "x" {
		t.Errorf("after that Find = %v, want the change once", err)
	}
}

// The replica that wrote sees what it wrote at once, whatever it is being asked for meanwhile.
func TestRedisReplicaReadsItsOwnWrites(t *testing.T) {
	server := startRedis(t)
	m := replica(t, session.RedisOptions{URL: server.url()})
	for range 20 {
		value, s := begin(t, m, storetest.User("ada", "sid-1"))
		done := make(chan bool)
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
						state(m, value)
						time.Sleep(50 * time.Microsecond) // a spinning reader leaves no CPU to Redis
					}
				}
			})
		}
		for i := range 20 {
			want := fmt.Sprint("token-", i)
			if _, err := m.Update(t.Context(), value, func(s *session.Session) { s.AccessToken = want }); err != nil {
				t.Fatal(err)
			}
			if got, _, err := m.Find(t.Context(), value, true); err != nil || got.AccessToken != want {
				t.Fatalf("after an update Find = %q, %v, want %q", got.AccessToken, err, want)
			}
		}
		if err := m.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
			t.Fatal(err)
		}
		if got := state(m, value); got != "ended" {
			t.Fatalf("after End the session is %s", got)
		}
		close(done)
		readers.Wait()
	}
}

// Issue 3: p50 and p99 of "ended on A until refused on B".
func TestLogoutReachesOtherReplicasAtOnce(t *testing.T) {
	server := startRedis(t)
	a, b := replica(t, session.RedisOptions{URL: server.url()}), replica(t, session.RedisOptions{URL: server.url()})
	var took []time.Duration
	for range 300 {
		value, s := begin(t, a, storetest.User("ada", "sid-1"))
		if got := state(b, value); got != "alive" {
			t.Fatalf("on the other replica the session is %s", got)
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
		took = append(took, (<-refused).Sub(start))
	}
	slices.Sort(took)
	t.Logf("from the start of End on one replica until the other refuses: p50 %v, p99 %v", took[150], took[297])
	if took[297] > 200*time.Millisecond {
		t.Errorf("p99 is %v, want far less than 200ms", took[297])
	}
}

// Issue 3: an authenticated request costs no round trip, and made-up values never reach Redis.
func TestRedisIsAskedOncePerSession(t *testing.T) {
	server := startRedis(t)
	m := replica(t, session.RedisOptions{URL: server.url()})
	value, _ := begin(t, m, storetest.User("ada", "sid-1"))
	before := server.calls("get")
	for range 1000 {
		if got := state(m, value); got != "alive" {
			t.Fatal(got)
		}
	}
	if n := server.calls("get") - before; n > 2 { // one more when the report of the login came late
		t.Errorf("1000 lookups sent %d commands", n)
	}
	before = server.calls("get")
	for i := range value {
		if got := state(m, value[:i]+"A"+value[i+1:]); got == "failed" || got == "alive" && value[i] != 'A' {
			t.Fatalf("a made-up value is %s", got)
		}
	}
	if n := server.calls("get") - before; n > 0 {
		t.Errorf("made-up values sent %d commands", n)
	}
}

// Credentials that hang on a session ask for it with each request: that costs no round trip either.
func TestRedisAnswersForASessionWithoutItsValue(t *testing.T) {
	server := startRedis(t)
	a, b := replica(t, session.RedisOptions{URL: server.url()}), replica(t, session.RedisOptions{URL: server.url()})
	_, s := begin(t, a, storetest.User("ada", "sid-1"))
	alive := func(m *session.Manager) bool {
		t.Helper()
		ok, err := m.Alive(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	before := server.calls("get") + server.calls("hkeys")
	for range 1000 {
		if !alive(b) {
			t.Fatal("the session is ended")
		}
	}
	if n := server.calls("get") + server.calls("hkeys") - before; n > 3 {
		t.Errorf("1000 questions sent %d commands", n)
	}
	if !alive(a) {
		t.Error("the session is ended on the first replica")
	}
	if err := a.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
		t.Fatal(err)
	}
	if alive(a) {
		t.Error("on the replica that ended it the session is alive")
	}
	eventually(t, time.Second, "the other replica knows that it ended", func() bool { return !alive(b) })
	server.kill()
	eventually(t, 2*time.Second, "without Redis there is an error", func() bool {
		_, err := b.Alive(t.Context(), s)
		return err != nil
	})
}

func TestRedisKnowsThatAnIdleSessionHasEnded(t *testing.T) {
	server, clock := startRedis(t), storetest.NewClock()
	m := session.NewManager(redisStore(t, session.RedisOptions{URL: server.url()}, clock.Now, keys[0]), cookie, time.Hour, 24*time.Hour)
	m.Now = clock.Now
	defer m.Close()
	_, s := begin(t, m, storetest.User("ada", "sid-1"))
	for _, row := range []struct {
		pass time.Duration
		want bool
	}{{59 * time.Minute, true}, {time.Minute, false}} {
		clock.Advance(row.pass)
		if got, err := m.Alive(t.Context(), s); err != nil || got != row.want {
			t.Errorf("%v later Alive = %v, %v, want %v", row.pass, got, err, row.want)
		}
	}
}

// Attacks P7: what is used at one replica is used at all.
func TestRedisRemembersWhatWasUsed(t *testing.T) {
	server := startRedis(t)
	a, b := replica(t, session.RedisOptions{URL: server.url()}), replica(t, session.RedisOptions{URL: server.url()})
	var first atomic.Int32
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			ok, err := []*session.Manager{a, b}[i%2].Once(t.Context(), "x", time.Hour)
			if err != nil {
				t.Error(err)
			} else if ok {
				first.Add(1)
			}
		})
	}
	wg.Wait()
	if n := first.Load(); n != 1 {
		t.Errorf("of 40 uses %d were the first", n)
	}
	for name, want := range map[string]bool{"x": true, "y": false} {
		if used, err := b.Used(t.Context(), name); err != nil || used != want {
			t.Errorf("Used(%q) = %v, %v, want %v", name, used, err, want)
		}
	}
	if keys := server.cli("--scan", "--pattern", "authproxy:o:*"); strings.Count(keys, "\n") != 1 || strings.Contains(server.cli("PTTL", strings.Trim(strings.TrimSpace(keys), `"`)), "-") {
		t.Errorf("what is remembered, for how long: %s", keys)
	}
	if ok, err := a.Once(t.Context(), "short", time.Millisecond); err != nil || !ok {
		t.Errorf("Once = %v, %v", ok, err)
	}
	eventually(t, 2*time.Second, "what was used is forgotten in time", func() bool {
		used, err := b.Used(t.Context(), "short")
		return err == nil && !used
	})
	server.kill()
	if ok, err := a.Once(t.Context(), "z", time.Hour); err == nil || ok {
		t.Errorf("Once without Redis = %v, %v, want an error", ok, err)
	}
	if _, err := a.Used(t.Context(), "x"); err == nil {
		t.Error("Used without Redis is no error")
	}
}

// A change of the configuration keeps the connection, and both stores obey each other.
func TestRedisStoreReopens(t *testing.T) {
	server := startRedis(t)
	old := redisStore(t, session.RedisOptions{URL: server.url()}, nil, keys[0])
	before := session.NewManager(old, cookie, time.Hour, 24*time.Hour)
	value, s := begin(t, before, storetest.User("ada", "sid-1"))
	clients := server.cli("CLIENT", "LIST")
	reopened, err := old.Reopen(sealer(t, keys[1], keys[0]), [][]byte{keys[1], keys[0]}, cookie, time.Minute, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	after := session.NewManager(reopened, cookie, time.Minute, time.Hour)
	_, renewed, err := after.Find(t.Context(), value, true)
	if err != nil || renewed == nil {
		t.Fatalf("through the new store: %v, %v, want the session and a cookie of the new key", renewed, err)
	}
	if now := server.cli("CLIENT", "LIST"); strings.Count(now, "name=authproxy") != strings.Count(clients, "name=authproxy") {
		t.Errorf("there are other connections than before:\n%s", now)
	}
	if got := state(before, value); got != "alive" {
		t.Errorf("through the old store the session is %s", got)
	}
	if err := after.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
		t.Fatal(err)
	}
	if got := state(before, value); got != "ended" {
		t.Errorf("through the old store the ended session is %s", got)
	}
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	if got := state(after, value); got != "failed" {
		t.Errorf("after Close the session is %s", got)
	}
	if err := after.Close(); err != nil {
		t.Errorf("closing the other too: %v", err)
	}
}

// A store failure is never "anonymous".
func TestRedisKilledAndRestarted(t *testing.T) {
	server := startRedis(t)
	m := replica(t, session.RedisOptions{URL: server.url()})
	value, s := begin(t, m, storetest.User("ada", "sid-1"))
	if got := state(m, value); got != "alive" {
		t.Fatal(got)
	}
	server.kill()
	eventually(t, 2*time.Second, "lookups fail without Redis", func() bool { return state(m, value) == "failed" })
	for name, call := range map[string]func() error{
		"Find":   func() error { _, _, err := m.Find(t.Context(), value, true); return err },
		"Begin":  func() error { _, _, err := m.Begin(t.Context(), storetest.User("ada", "sid-1")); return err },
		"Update": func() error { _, err := m.Update(t.Context(), value, func(*session.Session) {}); return err },
		"End":    func() error { return m.End(t.Context(), session.Selector{ID: s.ID}) },
		"List":   func() error { _, err := m.List(t.Context(), session.Selector{ID: s.ID}); return err },
		"Ping":   func() error { return m.Ping(t.Context()) },
	} {
		start := time.Now()
		if err := call(); word(err) != "failed" {
			t.Errorf("%s without Redis: %v, want an error that is not ErrNone", name, err)
		}
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("%s without Redis took %v", name, took)
		}
	}
	server.start()
	eventually(t, 2*time.Second, "logins work again", func() bool {
		_, _, err := m.Begin(t.Context(), storetest.User("ada", "sid-1"))
		return err == nil
	})
	if got := state(m, value); got != "ended" { // this Redis keeps nothing on disk
		t.Errorf("a session that Redis lost is %s", got)
	}
}

// A replica that is cut off believes a session for max_staleness at most.
func TestFrozenRedisIsNotBelievedForLong(t *testing.T) {
	for _, staleness := range []time.Duration{250 * time.Millisecond, time.Second} {
		t.Run(staleness.String(), func(t *testing.T) {
			server := startRedis(t)
			m := replica(t, session.RedisOptions{URL: server.url(), MaxStaleness: staleness})
			value, _ := begin(t, m, storetest.User("ada", "sid-1"))
			for range 100 { // the cache is warm and the connection in use
				if got := state(m, value); got != "alive" {
					t.Fatal(got)
				}
			}
			frozen := time.Now()
			server.freeze()
			var believed time.Duration // when the last lookup that succeeded began
			var longest time.Duration
			for failures := 0; failures < 5; {
				start := time.Now()
				switch got := state(m, value); got {
				case "alive":
					believed = start.Sub(frozen)
					failures = 0
				case "ended":
					t.Fatal("a session is ended because Redis does not answer")
				default:
					failures++
				}
				longest = max(longest, time.Since(start))
				if believed > 5*time.Second {
					t.Fatal("the session is believed without end")
				}
			}
			t.Logf("last believed %v after Redis froze; the longest call took %v", believed, longest)
			if believed > staleness+20*time.Millisecond {
				t.Errorf("the session was believed until %v after Redis froze, want %v at most", believed, staleness)
			}
			if longest > 900*time.Millisecond {
				t.Errorf("a call took %v, want less than a second", longest)
			}
			var crowd sync.WaitGroup
			var slowest atomic.Int64
			for range 3000 { // more than what fits into the connection's queue
				crowd.Go(func() {
					start := time.Now()
					m.End(t.Context(), session.Selector{ID: rand.Text()})
					for took := int64(time.Since(start)); ; {
						if old := slowest.Load(); old >= took || slowest.CompareAndSwap(old, took) {
							return
						}
					}
				})
			}
			crowd.Wait()
			if took := time.Duration(slowest.Load()); took > 3*time.Second { // a second, on a machine that has nothing else to do
				t.Errorf("of many calls at once one took %v, want about a second at most", took)
			}
			server.thaw()
			eventually(t, 2*time.Second, "the session is back with Redis", func() bool { return state(m, value) == "alive" })
		})
	}
}

func TestRedisMayStartLater(t *testing.T) {
	server := newRedis(t)
	var log logged
	m := replica(t, session.RedisOptions{URL: server.url(), Log: log.logger()})
	start := time.Now()
	for range 100 {
		if _, _, err := m.Begin(t.Context(), storetest.User("ada", "sid-1")); word(err) != "failed" {
			t.Fatalf("Begin without Redis = %v", err)
		}
	}
	if took := time.Since(start) / 100; took > 50*time.Millisecond {
		t.Errorf("a call without Redis takes %v", took)
	}
	server.start()
	eventually(t, 2*time.Second, "Redis is found", func() bool { return m.Ping(t.Context()) == nil })
	value, _ := begin(t, m, storetest.User("ada", "sid-1"))
	if got := state(m, value); got != "alive" {
		t.Error(got)
	}
	if n := log.count("no connection to Redis yet"); n != 1 {
		t.Errorf("the missing connection was logged %d times, want once", n)
	}
}

// Connections that break under load lose no change that was reported as made, and make none twice.
func TestBrokenConnectionsLoseNoUpdate(t *testing.T) {
	server := startRedis(t)
	m := replica(t, session.RedisOptions{URL: server.url()})
	value, _ := begin(t, m, storetest.User("ada", "sid-1"))
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
	made, unknown := 0, 0
	for range 300 {
		_, err := m.Update(t.Context(), value, func(s *session.Session) { s.AccessToken += "x" })
		switch word(err) {
		case "alive":
			made++
		case "ended":
			t.Fatal("the session ended")
		default:
			unknown++
		}
	}
	close(done)
	killer.Wait()
	eventually(t, 2*time.Second, "the session can be read", func() bool { return state(m, value) == "alive" })
	s, _, err := m.Find(t.Context(), value, true)
	if err != nil || len(s.AccessToken) < made || len(s.AccessToken) > made+unknown {
		t.Errorf("%d changes are kept of %d that were made and %d with an unknown outcome; %v", len(s.AccessToken), made, unknown, err)
	}
	t.Logf("%d made, %d unknown", made, unknown)
}

func TestSentinelFailover(t *testing.T) {
	master := startRedis(t)
	second := startRedis(t, "--replicaof", "127.0.0.1 "+master.port)
	sentinel := startSentinel(t, master)
	m := replica(t, session.RedisOptions{URL: "redis://" + sentinel.addr() + "/0?master_set=mymaster"})
	eventually(t, 5*time.Second, "the master is found", func() bool { return m.Ping(t.Context()) == nil })
	var values []string
	for range 50 {
		v, _ := begin(t, m, storetest.User("ada", "sid-1"))
		values = append(values, v)
	}
	_, gone := begin(t, m, storetest.User("bob", "sid-2"))
	if err := m.End(t.Context(), session.Selector{ID: gone.ID}); err != nil {
		t.Fatal(err)
	}
	before := master.calls("get")
	for range 1000 {
		state(m, values[0])
	}
	if n := master.calls("get") - before; n > 5 {
		t.Errorf("1000 lookups sent %d commands", n)
	}
	master.replicated()
	eventually(t, 2*time.Second, "everything is replicated", func() bool { return master.cli("DBSIZE") == second.cli("DBSIZE") })
	master.kill()
	for _, v := range values[:5] {
		if got := state(m, v); got == "ended" {
			t.Fatal("a session ended because the master died")
		}
	}
	killed := time.Now()
	eventually(t, 15*time.Second, "the second server is the master", func() bool { return strings.Contains(second.cli("ROLE"), "master") })
	promoted := time.Now()
	eventually(t, 2*time.Second, "logins work on the new master", func() bool {
		_, _, err := m.Begin(t.Context(), storetest.User("ada", "sid-1"))
		if errors.Is(err, session.ErrNone) {
			t.Fatal(err)
		}
		return err == nil
	})
	t.Logf("promoted %v after the crash, in use %v later", promoted.Sub(killed), time.Since(promoted))
	for _, v := range values {
		if got := state(m, v); got != "alive" {
			t.Fatalf("after the failover a session is %s", got)
		}
	}
	if err := m.End(t.Context(), session.Selector{Issuer: "https://op.test/", Subject: "ada"}); err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		if got := state(m, v); got != "ended" {
			t.Fatalf("after the logout a session is %s", got)
		}
	}
}

func TestRedisCluster(t *testing.T) {
	var addrs []string
	var nodes []*redisServer
	for range 3 {
		n := newRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", freePort(t))
		n.start()
		addrs = append(addrs, n.addr())
		nodes = append(nodes, n)
	}
	gets := func() (n int) {
		for _, node := range nodes {
			n += node.calls("get")
		}
		return n
	}
	nodes[0].cli(append([]string{"--cluster", "create", "--cluster-yes"}, addrs...)...)
	url := "redis://" + strings.Join(addrs[:2], ",")
	a, b := replica(t, session.RedisOptions{URL: url}), replica(t, session.RedisOptions{URL: url})
	for _, m := range []*session.Manager{a, b} {
		eventually(t, 10*time.Second, "the cluster is up", func() bool {
			return m.Ping(t.Context()) == nil && !slices.ContainsFunc(nodes, func(n *redisServer) bool { return !strings.Contains(n.cli("CLUSTER", "INFO"), "cluster_state:ok") })
		})
	}
	var values []string
	for i := range 60 {
		v, _ := begin(t, a, storetest.User("ada", fmt.Sprint("sid-", i)))
		values = append(values, v)
	}
	before := gets()
	for range 20 {
		for _, v := range values {
			if got := state(b, v); got != "alive" {
				t.Fatalf("a session is %s", got)
			}
		}
	}
	if n := gets() - before; n > 2*len(values) {
		t.Errorf("20 lookups of %d sessions sent %d commands", len(values), n)
	}
	if all, err := b.List(t.Context(), session.Selector{All: true}); err != nil || len(all) != 60 {
		t.Errorf("%d sessions in the list, %v, want 60", len(all), err)
	}
	if _, err := b.Update(t.Context(), values[0], func(s *session.Session) { s.AccessToken = "new" }); err != nil {
		t.Error(err)
	}
	eventually(t, time.Second, "a change is seen on the other replica", func() bool {
		s, _, err := a.Find(t.Context(), values[0], true)
		return err == nil && s.AccessToken == "new"
	})
	if err := a.End(t.Context(), session.Selector{Issuer: "https://op.test/", ProviderSID: "sid-7"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Second, "its logout too", func() bool { return state(b, values[7]) == "ended" })
	if got := state(b, values[8]); got != "alive" {
		t.Errorf("another session is %s", got)
	}
	if err := b.End(t.Context(), session.Selector{All: true}); err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		if got := state(b, v); got != "ended" {
			t.Fatalf("after ending all a session is %s", got)
		}
	}
}

func TestRedisOverTLS(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600)
	os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
	port := freePort(t)
	startRedis(t, "--tls-port", port, "--tls-cert-file", certFile, "--tls-key-file", keyFile, "--tls-auth-clients", "no")

	m := replica(t, session.RedisOptions{URL: "rediss://127.0.0.1:" + port + "/0?ca_file=" + certFile})
	value, _ := begin(t, m, storetest.User("ada", "sid-1"))
	if got := state(m, value); got != "alive" {
		t.Error(got)
	}
	if err := replica(t, session.RedisOptions{URL: "rediss://127.0.0.1:" + port}).Ping(t.Context()); err == nil {
		t.Error("a certificate of an unknown authority is accepted")
	}
}

func TestRedisOverAUnixSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	startRedis(t, "--unixsocket", socket)
	m := replica(t, session.RedisOptions{URL: "unix://" + socket + "?db=1"})
	value, _ := begin(t, m, storetest.User("ada", "sid-1"))
	if got := state(m, value); got != "alive" {
		t.Error(got)
	}
}

func TestRedisCredentials(t *testing.T) {
	server := startRedis(t)
	server.cli("ACL", "SETUSER", "proxy", "on", ">p@ss/wörd", "~authproxy:*", "-@all",
		"+@connection", "+get", "+set", "+del", "+exists", "+eval", "+hset", "+hkeys", "+hgetall", "+hdel", "+pttl", "+pexpire")
	server.cli("ACL", "SETUSER", "default", "off")
	var log logged
	m := replica(t, session.RedisOptions{URL: "redis://proxy:p%40ss%2Fw%C3%B6rd@" + server.addr() + "/0", Log: log.logger()})
	value, s := begin(t, m, storetest.User("ada", "sid-1"))
	if got := state(m, value); got != "alive" {
		t.Error(got)
	}
	if err := m.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
		t.Error(err)
	}
	if n := log.count("WARN"); n != 0 {
		t.Errorf("a user with few permissions gave %d warnings: %s", n, log.buf.String())
	}
	wrong := replica(t, session.RedisOptions{URL: "redis://proxy:canary@" + server.addr(), Log: log.logger()})
	if err := wrong.Ping(t.Context()); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("with a wrong password: %v", err)
	}
	if log.count("canary") != 0 {
		t.Error("the password is in the log")
	}
}

// Managed services may refuse CLIENT TRACKING: then sessions are asked for again after max_staleness.
func TestRedisThatReportsNoChanges(t *testing.T) {
	server := startRedis(t)
	server.cli("ACL", "SETUSER", "default", "-client|tracking")
	var log logged
	opts := session.RedisOptions{URL: server.url(), MaxStaleness: 300 * time.Millisecond, Log: log.logger()}
	a, b := replica(t, opts), replica(t, opts)
	value, s := begin(t, a, storetest.User("ada", "sid-1"))
	before := server.calls("get")
	for range 200 {
		if got := state(b, value); got != "alive" {
			t.Fatal(got)
		}
	}
	if n := server.calls("get") - before; n > 10 {
		t.Errorf("200 lookups sent %d commands", n)
	}
	state(a, value)
	if _, err := a.Update(t.Context(), value, func(s *session.Session) { s.RefreshToken = "renewed" }); err != nil {
		t.Fatal(err)
	}
	if got, _, err := a.Find(t.Context(), value, true); err != nil || got.RefreshToken != "renewed" {
		t.Errorf("the replica that changed it finds the refresh token %q, %v", got.RefreshToken, err)
	}
	if err := a.End(t.Context(), session.Selector{ID: s.ID}); err != nil {
		t.Fatal(err)
	}
	ended := time.Now()
	if got := state(a, value); got != "ended" {
		t.Errorf("on the replica that ended it the session is %s", got)
	}
	eventually(t, 10*time.Second, "the other replica refuses it", func() bool { return state(b, value) == "ended" })
	if took := time.Since(ended); took > opts.MaxStaleness+time.Second { // and a second for a machine that is busy
		t.Errorf("that took %v, want %v at most", took, opts.MaxStaleness)
	}
	eventually(t, 10*time.Second, "one warning of each replica", func() bool {
		return log.count("CLIENT TRACKING") >= 2 && log.count("level=WARN") == 2
	})
}

// A login writes the index before the session: a logout in between finds nothing to end, and the next one must still find it.
func TestALogoutDuringALoginLeavesTheIndex(t *testing.T) {
	server := startRedis(t)
	m := replica(t, session.RedisOptions{URL: server.url()})
	begin(t, m, storetest.User("ada", "sid-1"))
	_, key, found := strings.Cut(strings.TrimSpace(server.cli("KEYS", "*s:*")), `"`)
	if key = strings.TrimSuffix(key, `"`); !found || strings.Contains(key, "\n") {
		t.Fatalf("want the key of one session, got %q", key)
	}
	everywhere := session.Selector{Issuer: "https://op.test/", Subject: "ada"}
	server.cli("RENAME", key, "not-yet")
	if err := m.End(t.Context(), everywhere); err != nil {
		t.Fatal(err)
	}
	server.cli("RENAME", "not-yet", key)
	if all, err := m.List(t.Context(), everywhere); err != nil || len(all) != 1 {
		t.Fatalf("%d sessions are found, %v, want the one that was written late", len(all), err)
	}
	if err := m.End(t.Context(), everywhere); err != nil {
		t.Fatal(err)
	}
	if all, err := m.List(t.Context(), everywhere); err != nil || len(all) != 0 {
		t.Errorf("%d sessions are left, %v", len(all), err)
	}
}

// What is not in memory any more is found all the same.
func TestTheMemoryForOpenedSessionsIsBounded(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) session.Store{
		"cookie": func(t *testing.T) session.Store {
			return session.NewCookieStore(sealer(t, keys[0]), cookie, 24*time.Hour, nil)
		},
		"file": func(t *testing.T) session.Store {
			return fileStore(t, filepath.Join(t.TempDir(), "s.db"), time.Now, keys[0])
		},
		"redis": func(t *testing.T) session.Store {
			return redisStore(t, session.RedisOptions{URL: startRedis(t).url()}, nil, keys[0])
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := open(t)
			m := session.NewManager(store, cookie, time.Hour, 24*time.Hour)
			defer m.Close()
			eventually(t, 5*time.Second, "the store answers", func() bool { return m.Ping(t.Context()) == nil })
			var values []string
			use := func(n int) {
				for range n {
					v, _ := begin(t, m, storetest.User("ada", "sid-1"))
					if got := state(m, v); got != "alive" {
						t.Fatal(got)
					}
					values = append(values, v)
				}
			}
			const limit = 1 << 20
			if use(500); session.CacheHolds(store) < 3*limit/2 {
				t.Fatalf("500 sessions take %d bytes, which are not counted", session.CacheHolds(store))
			}
			store.(session.Cacher).SetCache(limit)
			if use(300); session.CacheHolds(store) > limit {
				t.Errorf("%d bytes are held, want %d at most", session.CacheHolds(store), limit)
			}
			for _, v := range values[:20] {
				if got := state(m, v); got != "alive" {
					t.Fatal(got)
				}
			}
		})
	}
}

func TestOperatorsAreWarnedOfEviction(t *testing.T) {
	server := startRedis(t, "--maxmemory-policy", "allkeys-lru")
	var log logged
	replica(t, session.RedisOptions{URL: server.url(), Log: log.logger()})
	eventually(t, 2*time.Second, "a warning", func() bool { return log.count("noeviction") == 1 })
}

// A Redis that is full refuses logins; whoever is signed in stays so, and can sign out.
func TestFullRedis(t *testing.T) {
	server := startRedis(t)
	m := replica(t, session.RedisOptions{URL: server.url()})
	value, s := begin(t, m, storetest.User("ada", "sid-1"))
	server.cli("CONFIG", "SET", "maxmemory", "1")
	if _, _, err := m.Begin(t.Context(), storetest.User("bob", "sid-2")); word(err) != "failed" {
		t.Errorf("Begin = %v, want an error", err)
	}
	if _, err := m.Update(t.Context(), value, func(*session.Session) {}); word(err) != "failed" {
		t.Errorf("Update = %v, want an error that is not ErrNone", err)
	}
	if got := state(m, value); got != "alive" {
		t.Errorf("the session is %s", got)
	}
	if err := m.End(t.Context(), session.Selector{ID: s.ID}); err != nil || state(m, value) != "ended" {
		t.Errorf("End = %v, and the session is %s", err, state(m, value))
	}
}

func TestRedisKeysRotateWithoutLogouts(t *testing.T) {
	server := startRedis(t)
	manager := func(keys ...[]byte) *session.Manager {
		m := session.NewManager(redisStore(t, session.RedisOptions{URL: server.url()}, nil, keys...), cookie, time.Hour, 24*time.Hour)
		t.Cleanup(func() { m.Close() })
		return m
	}
	ada := session.Selector{Issuer: "https://op.test/", Subject: "ada"}
	value, s := begin(t, manager(keys[0]), storetest.User("ada", "sid"))
	both := manager(keys[1], keys[0])
	_, renewed, err := both.Find(t.Context(), value, true)
	if err != nil || renewed == nil {
		t.Fatalf("with the new key first: %v, %v, want the session and a cookie of the new key", renewed, err)
	}
	if all, err := both.List(t.Context(), ada); err != nil || len(all) != 1 {
		t.Errorf("before the session was written again the list has %d, %v, want 1", len(all), err)
	}
	if _, err := both.Update(t.Context(), renewed.Value, func(*session.Session) {}); err != nil {
		t.Fatal(err)
	}
	for _, sel := range []session.Selector{ada, {All: true}} {
		if all, err := both.List(t.Context(), sel); err != nil || len(all) != 1 || all[0].ID != s.ID {
			t.Errorf("after that the list has %d, %v, want 1", len(all), err)
		}
	}
	only := manager(keys[1])
	if got := state(only, value); got != "ended" {
		t.Errorf("the old cookie without the old key is %s", got)
	}
	if got := state(only, renewed.Value); got != "alive" {
		t.Errorf("the renewed cookie without the old key is %s", got)
	}
	if err := only.End(t.Context(), ada); err != nil || state(only, renewed.Value) != "ended" {
		t.Errorf("End without the old key: %v, and the session is %s", err, state(only, renewed.Value))
	}
}

// typical is a login as Auth0 makes it, with a refresh token.
func typical(n int) *session.Session {
	random := func(bytes int) string { // base64url
		b := make([]byte, bytes)
		rand.Read(b)
		return fmt.Sprintf("%x", b)[:bytes*4/3]
	}
	now := time.Now()
	return &session.Session{
		Identity: &identity.Identity{Issuer: "https://acme.eu.auth0.com/", Subject: "auth0|" + random(18), Email: fmt.Sprintf("ada.lovelace%d@example.com", n), EmailVerified: true,
			Name: "Ada Lovelace", Username: fmt.Sprint("ada", n), Groups: []string{"admins", "staff"}, Scopes: []string{"openid", "profile", "email", "offline_access"},
			AuthTime: now, Claims: map[string]any{"https://example.com/roles": []any{"owner"}}},
		ProviderSID: rand.Text() + rand.Text()[:6], Nonce: rand.Text() + rand.Text()[:17], RefreshToken: "v1." + rand.Text() + rand.Text() + rand.Text()[:9],
		AccessExpiry: now.Add(24 * time.Hour), RenewAt: now.Add(23 * time.Hour), Address: "203.0.113.77",
		Agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
	}
}

// Issue 3: a million sessions cost at most 1 KB each, with what logouts find them by.
func TestRedisMemoryPerSession(t *testing.T) {
	const n = 10_000
	server := startRedis(t)
	m := replica(t, session.RedisOptions{URL: server.url()})
	before := server.usedMemory()
	var wg sync.WaitGroup
	for w := range 10 {
		wg.Go(func() {
			for i := range n / 10 {
				_, _, err := m.Begin(t.Context(), typical(w*1000+i))
				for try := 0; err != nil && try < 20; try++ { // a machine too busy for the store's time limits
					_, _, err = m.Begin(t.Context(), typical(w*1000+i))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	each := (server.usedMemory() - before) / n
	t.Logf("%d bytes for each of %d sessions", each, n)
	if each > 1024 {
		t.Errorf("a session costs %d bytes, want 1024 at most", each)
	}
	start := time.Now()
	all, err := m.List(t.Context(), session.Selector{All: true})
	if err != nil || len(all) < n {
		t.Errorf("%d sessions in the list, %v, want %d", len(all), err, n)
	}
	listed := time.Now()
	if err := m.End(t.Context(), session.Selector{All: true}); err != nil {
		t.Fatal(err)
	}
	t.Logf("listing all took %v, ending all %v", listed.Sub(start), time.Since(listed))
	if keys := server.cli("--scan", "--pattern", "authproxy:s:*"); strings.TrimSpace(keys) != "" {
		t.Errorf("after ending all there are sessions: %.200s", keys)
	}
}

// The store holds only ciphertext under a hash of the ticket.
func TestRedisHoldsOnlyCiphertext(t *testing.T) {
	server := startRedis(t)
	m := replica(t, session.RedisOptions{URL: server.url()})
	login := storetest.User("ada", "provider-sid-1")
	login.Agent, login.Address = "Firefox", "192.0.2.1"
	value, s := begin(t, m, login)
	var dump bytes.Buffer
	for key := range strings.Lines(server.cli("--scan")) {
		key = strings.Trim(strings.TrimSpace(key), `"`)
		dump.WriteString(key + "\n")
		if server.cli("TYPE", key) == "hash\n" {
			dump.WriteString(server.cli("--raw", "HGETALL", key))
		} else {
			dump.WriteString(server.cli("--raw", "GET", key))
		}
	}
	if dump.Len() < 500 {
		t.Fatalf("the dump has %d bytes", dump.Len())
	}
	for _, secret := range []string{"ada", "Lovelace", "refresh-", "provider-sid-1", "op.test", "admins", "Firefox", "192.0.2.1", s.ID, value} {
		if bytes.Contains(dump.Bytes(), []byte(secret)) {
			t.Errorf("Redis holds %q", secret)
		}
	}
	for key := range strings.Lines(server.cli("--scan")) {
		key = strings.Trim(strings.TrimSpace(key), `"`)
		if ttl := server.cli("TTL", key); strings.Contains(ttl, "-") {
			t.Errorf("%s never expires", key)
		}
	}
}

// What idle sessions leave in the index goes away while others sign in.
func TestRedisIndexIsTrimmed(t *testing.T) {
	server, clock := startRedis(t), storetest.NewClock()
	m := session.NewManager(redisStore(t, session.RedisOptions{URL: server.url()}, clock.Now, keys[0]), cookie, time.Hour, 24*time.Hour)
	m.Now = clock.Now
	defer m.Close()
	const n = 200
	for i := range n { // one user: one hash for all
		begin(t, m, storetest.User("ada", fmt.Sprint("sid-", i)))
	}
	fields := func() (n int) {
		for key := range strings.Lines(server.cli("--scan", "--pattern", "authproxy:u:*")) {
			var in int
			fmt.Sscanf(server.cli("HLEN", strings.Trim(strings.TrimSpace(key), `"`)), "(integer) %d", &in)
			n += in
		}
		return n
	}
	if got := fields(); got != n {
		t.Fatalf("%d fields for %d sessions", got, n)
	}
	clock.Advance(3 * time.Hour)
	for i := range n {
		begin(t, m, storetest.User("ada", fmt.Sprint("sid-", n+i)))
	}
	if got := fields(); got != n {
		t.Errorf("%d fields after the first %d sessions ended, want %d", got, n, n)
	}
	if all, err := m.List(t.Context(), session.Selector{Issuer: "https://op.test/", Subject: "ada"}); err != nil || len(all) != n {
		t.Errorf("%d sessions in the list, %v, want %d", len(all), err, n)
	}
}

func TestRedisURLs(t *testing.T) {
	for _, url := range []string{"redis://127.0.0.1", "redis://127.0.0.1:6379/0", "rediss://user:p%40ss@redis.example.com", "redis://:p@a:1,b:2,c/3", "redis://a,b?master_set=m",
		"redis://a?master_set=m&sentinel_password=x", "redis://[::1]:6379/1", "redis://[::1]", "unix:///run/redis.sock?db=1"} {
		if err := (session.RedisOptions{URL: url}).Check(); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"", "redis://", "redis:///0", "http://canary@x", "redis://:canary@/0", "redis://x:canary@h/word", "redis://x:canary@h:port", "redis://x:canary@h:99999", "redis://a,,b",
		"redis://x:canary@a?skip_verify=1", "redis://x:canary@a?master_set=m&master_set=n", "redis://x:%zz@canary", "redis://x:is?canary@a", "redis://x:is/canary@a:b", "redis://a?%zz", "unix://canary", "redis://a/70000", "redis://a/-1",
		"rediss://canary?ca_file=/nowhere/ca.pem", "redis://a?ca_file=" + filepath.Join(t.TempDir())} {
		if err := (session.RedisOptions{URL: url}).Check(); err == nil {
			t.Errorf("%s is accepted", url)
		} else if strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: the error repeats what may be a secret: %v", url, err)
		}
		if _, err := session.OpenRedisStore(session.RedisOptions{URL: url}, sealer(t, keys[0]), keys[:1], cookie, time.Hour, nil); err == nil {
			t.Errorf("a store with %s was opened", url)
		}
	}
}

// The URL holds a password: whatever is wrong with it, the error does not repeat it.
func FuzzRedisURL(f *testing.F) {
	for _, url := range []string{"redis://u:%s@a:1,b/0?master_set=m", "rediss://:%s@[::1]", "unix://%s/run/x?db=1", "%s"} {
		f.Add(url)
	}
	const secret = "canary5"
	f.Fuzz(func(t *testing.T, url string) {
		url = strings.Replace(url, "%s", secret, 1)
		if before, _, ok := strings.Cut(url, "ca_file"); ok {
			url = before // names files
		}
		if err := (session.RedisOptions{URL: url}).Check(); err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v", url, err)
		}
	})
}

// What Redis holds is taken apart into its parts or refused.
func FuzzUnpack(f *testing.F) {
	f.Add("")
	f.Add("\x00\x00\x00\x01\x00\x02infosealed")
	f.Add("\x00\x00\x00\x01\xff\xffinfosealed")
	f.Fuzz(func(t *testing.T, raw string) {
		info, sealed, err := session.Unpack(raw)
		if err != nil {
			if info != nil || sealed != nil {
				t.Errorf("Unpack(%q) = %q, %q with an error", raw, info, sealed)
			}
			return
		}
		if again := raw[:4] + string([]byte{byte(len(info) >> 8), byte(len(info))}) + string(info) + string(sealed); again != raw {
			t.Errorf("Unpack(%q) = %q, %q", raw, info, sealed)
		}
	})
}

func BenchmarkRedisLoad(b *testing.B) {
	server := startRedis(b)
	r := redisStore(b, session.RedisOptions{URL: server.url()}, nil, keys[0])
	defer r.Close()
	m := session.NewManager(r, cookie, time.Hour, 24*time.Hour)
	values := make([]string, 10_000)
	for i := range values {
		values[i], _ = begin(b, m, typical(i))
	}
	load := func(b *testing.B, value string) {
		if _, _, err := r.Load(context.Background(), value); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			load(b, values[0])
		}
	})
	b.Run("hit, 10000 sessions", func(b *testing.B) {
		b.ReportAllocs()
		for _, v := range values {
			load(b, v)
		}
		b.ResetTimer()
		for i := range b.N {
			load(b, values[i*7919%len(values)])
		}
	})
	b.Run("hit, parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				load(b, values[0])
			}
		})
	})
	b.Run("miss", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			b.StopTimer()
			r.Forget(values[i%len(values)])
			b.StartTimer()
			load(b, values[i%len(values)])
		}
	})
}
