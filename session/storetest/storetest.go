// Package storetest is the contract of session stores as tests: every store passes [Run].
package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"authproxy/identity"
	"authproxy/session"
)

// A Clock is the time of a test.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock starts at a fixed time.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)} }

// Now is the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves it on.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// User is a login of that subject.
func User(subject, providerSID string) *session.Session {
	return &session.Session{
		Identity: &identity.Identity{Issuer: "https://op.test/", Subject: subject, Email: subject + "@example.com", EmailVerified: true, Name: "Ada Lovelace",
			Groups: []string{"admins", "staff"}, AuthTime: time.Unix(1764000000, 0), Claims: map[string]any{"https://example.com/roles": []any{"owner"}}},
		ProviderSID: providerSID, RefreshToken: "refresh-" + subject, Nonce: "nonce",
	}
}

// Run tests the stores that newStore makes: each call returns the same store opened anew, so that what must outlive the
// process can be seen to. The cookie is the one the store was made for.
func Run(t *testing.T, clock *Clock, cookie session.Cookie, newStore func(t *testing.T) session.Store) {
	ctx := t.Context()
	manager := func(t *testing.T) *session.Manager {
		store := newStore(t)
		m := session.NewManager(store, cookie, time.Hour, 24*time.Hour)
		m.Now = clock.Now
		m.Failed = func(err error) { t.Errorf("in the background: %v", err) }
		return m
	}
	begin := func(t *testing.T, m *session.Manager, subject, sid string) (string, *session.Session) {
		t.Helper()
		s, c, err := m.Begin(ctx, User(subject, sid))
		if err != nil {
			t.Fatal(err)
		}
		return c.Value, s
	}
	alive := func(t *testing.T, m *session.Manager, value string) bool {
		t.Helper()
		_, _, err := m.Find(ctx, value, true)
		if err != nil && !errors.Is(err, session.ErrNone) {
			t.Fatalf("Find: %v", err)
		}
		return err == nil
	}

	t.Run("what was kept comes back, also after a restart", func(t *testing.T) {
		m := manager(t)
		value, s := begin(t, m, "ada", "sid-1")
		for range 2 {
			got, set, err := m.Find(ctx, value, true)
			if err != nil || set != nil {
				t.Fatalf("Find = %v, %v", set, err)
			}
			if diff := cmp.Diff(s, got, cmpopts.IgnoreUnexported(session.Session{}), cmpopts.EquateApproxTime(0)); diff != "" {
				t.Errorf("the session came back changed (-want +got):\n%s", diff)
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			m = manager(t)
		}
		m.Close()
	})
	t.Run("every login has its own id and value", func(t *testing.T) {
		m := manager(t)
		defer m.Close()
		v1, s1 := begin(t, m, "ada", "sid-1")
		v2, s2 := begin(t, m, "ada", "sid-1")
		if v1 == v2 || s1.ID == s2.ID || len(s1.ID) < 22 {
			t.Errorf("ids %q and %q", s1.ID, s2.ID)
		}
	})
	t.Run("every other value is no session", func(t *testing.T) {
		m := manager(t)
		defer m.Close()
		value, _ := begin(t, m, "ada", "sid-1")
		bad := []string{"", "x", value[1:], value[:len(value)-1], value[:len(value)/2], value + "A", value + value, value + "="}
		for i := range value {
			c := byte('A')
			if value[i] == c {
				c = 'B'
			}
			bad = append(bad, value[:i]+string(c)+value[i+1:])
		}
		for _, v := range bad {
			if alive(t, m, v) {
				t.Errorf("%q is believed", v)
			}
		}
	})
	t.Run("it ends when it is idle, and when its life is over, and not before", func(t *testing.T) {
		m := manager(t)
		defer m.Close()
		used, _ := begin(t, m, "ada", "sid-1")
		idle, _ := begin(t, m, "ada", "sid-1")
		for range 23 {
			clock.Advance(59 * time.Minute)
			_, set, err := m.Find(ctx, used, true)
			m.Wait()
			if err != nil {
				t.Fatalf("used every 59 minutes: %v", err)
			}
			if set != nil {
				used = set.Value
			}
		}
		if alive(t, m, idle) {
			t.Error("a session idle for a day is alive")
		}
		clock.Advance(55 * time.Minute)
		if !alive(t, m, used) {
			t.Error("a session in use ended before its life was over")
		}
		clock.Advance(30 * time.Minute)
		if alive(t, m, used) {
			t.Error("use extended the session beyond its life")
		}
	})
	t.Run("what was found before the ending is not saved after it", func(t *testing.T) {
		store := newStore(t)
		m := session.NewManager(store, cookie, time.Hour, 24*time.Hour)
		m.Now = clock.Now
		defer m.Close()
		value, s := begin(t, m, "ada", "sid-1")
		if err := m.End(ctx, session.Selector{ID: s.ID}); err != nil {
			t.Fatal(err)
		}
		current, err := store.Save(ctx, value, s.Change(func(s *session.Session) { s.RefreshToken = "late" }))
		if !errors.Is(err, session.ErrNone) || current != "" {
			t.Errorf("Save = %q, %v, want ErrNone", current, err)
		}
		if alive(t, m, value) {
			t.Error("the session is back")
		}
	})
	t.Run("uses are recorded at most once a minute", func(t *testing.T) {
		m := manager(t)
		defer m.Close()
		value, _ := begin(t, m, "ada", "sid-1")
		clock.Advance(50 * time.Second)
		if _, set, _ := m.Find(ctx, value, true); set != nil {
			t.Error("a cookie was set after 50 seconds")
		}
	})
	t.Run("an ended session does not come back", func(t *testing.T) {
		for _, row := range []struct {
			name string
			sel  func(s *session.Session) session.Selector
			want string // of ada's first, ada's second, bob's
		}{
			{"by id", func(s *session.Session) session.Selector { return session.Selector{ID: s.ID} }, "ended alive alive"},
			{"by sid", func(s *session.Session) session.Selector {
				return session.Selector{Issuer: "https://op.test/", ProviderSID: "sid-1"}
			}, "ended alive alive"},
			{"by subject", func(s *session.Session) session.Selector {
				return session.Selector{Issuer: "https://op.test/", Subject: "ada"}
			}, "ended ended alive"},
			{"by sid and subject", func(s *session.Session) session.Selector {
				return session.Selector{Issuer: "https://op.test/", Subject: "ada", ProviderSID: "sid-1"}
			}, "ended alive alive"},
			{"by the sid of one and the subject of another", func(s *session.Session) session.Selector {
				return session.Selector{Issuer: "https://op.test/", Subject: "bob", ProviderSID: "sid-1"}
			}, "alive alive alive"},
			{"of another issuer", func(s *session.Session) session.Selector {
				return session.Selector{Issuer: "https://other.test/", Subject: "ada"}
			}, "alive alive alive"},
			{"by nothing", func(s *session.Session) session.Selector { return session.Selector{} }, "alive alive alive"},
		} {
			t.Run(row.name, func(t *testing.T) {
				m := manager(t)
				defer m.Close()
				v1, s := begin(t, m, "ada", "sid-1")
				v2, _ := begin(t, m, "ada", "sid-2")
				v3, _ := begin(t, m, "bob", "sid-3")
				if err := m.End(ctx, row.sel(s)); err != nil {
					t.Fatal(err)
				}
				word := map[bool]string{true: "alive", false: "ended"}
				got := fmt.Sprintf("%s %s %s", word[alive(t, m, v1)], word[alive(t, m, v2)], word[alive(t, m, v3)])
				if got != row.want {
					t.Errorf("sessions are %s, want %s", got, row.want)
				}
				if _, err := m.Update(ctx, v1, func(s *session.Session) { s.RefreshToken = "late" }); (err != nil) != !alive(t, m, v1) {
					t.Errorf("a late update: %v", err)
				}
				if got := fmt.Sprintf("%s %s %s", word[alive(t, m, v1)], word[alive(t, m, v2)], word[alive(t, m, v3)]); got != row.want {
					t.Errorf("after a late update sessions are %s, want %s", got, row.want)
				}
				clock.Advance(time.Second)
				if v, _ := begin(t, m, "ada", "sid-1"); !alive(t, m, v) {
					t.Error("a login after the logout is ended too")
				}
			})
		}
	})
	t.Run("concurrent updates are not lost, through whichever value they come", func(t *testing.T) {
		m := manager(t)
		defer m.Close()
		value, _ := begin(t, m, "ada", "sid-1")
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := m.Update(ctx, value, func(s *session.Session) { s.AccessToken += "x" }); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		s, set, err := m.Find(ctx, value, true)
		if err != nil || len(s.AccessToken) != 20 {
			t.Fatalf("after 20 updates the session has %q, %v", s.AccessToken, err)
		}
		if set != nil {
			if s, _, err = m.Find(ctx, set.Value, true); err != nil || len(s.AccessToken) != 20 {
				t.Errorf("through its new cookie it has %q, %v", s.AccessToken, err)
			}
		}
	})
	t.Run("recording a use does not undo an update", func(t *testing.T) {
		m := manager(t)
		defer m.Close()
		value, _ := begin(t, m, "ada", "sid-1")
		clock.Advance(2 * time.Minute)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { m.Find(ctx, value, true) })
		}
		if _, err := m.Update(ctx, value, func(s *session.Session) { s.RefreshToken = "rotated" }); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if s, _, err := m.Find(ctx, value, true); err != nil || s.RefreshToken != "rotated" {
			t.Errorf("Find = %v, want the rotated token", err)
		}
	})
	t.Run("a nobody gets no session", func(t *testing.T) {
		m := manager(t)
		defer m.Close()
		for _, who := range []*identity.Identity{nil, identity.Anonymous} {
			if _, _, err := m.Begin(ctx, &session.Session{Identity: who}); err == nil {
				t.Error("Begin made a session for nobody")
			}
		}
	})
	t.Run("the provider can shorten it", func(t *testing.T) {
		m := manager(t)
		defer m.Close()
		login := User("ada", "sid-1")
		login.Expires = clock.Now().Add(10 * time.Minute)
		_, c, err := m.Begin(ctx, login)
		if err != nil {
			t.Fatal(err)
		}
		clock.Advance(11 * time.Minute)
		if alive(t, m, c.Value) {
			t.Error("alive after the provider's session_expiry")
		}
		login.Expires = clock.Now().Add(-time.Second)
		if _, _, err := m.Begin(ctx, login); err == nil {
			t.Error("a session began after its end")
		}
	})
	t.Run("it lists sessions, if it lists at all", func(t *testing.T) {
		m := manager(t)
		defer m.Close()
		if err := m.End(ctx, session.Selector{All: true}); err != nil {
			t.Fatal(err)
		}
		clock.Advance(time.Second)
		login := User("ada", "sid-1")
		login.Agent, login.Address = "Firefox", "192.0.2.1"
		first, c, err := m.Begin(ctx, login)
		if err != nil {
			t.Fatal(err)
		}
		clock.Advance(time.Second)
		_, second := begin(t, m, "ada", "sid-2")
		begin(t, m, "bob", "sid-3")
		list := func(sel session.Selector) []session.Info {
			t.Helper()
			all, err := m.List(ctx, sel)
			if err != nil {
				t.Fatal(err)
			}
			return all
		}
		if _, err := m.List(ctx, session.Selector{All: true}); errors.Is(err, session.ErrNoList) {
			return // a store that keeps nothing
		}
		ada := session.Selector{Issuer: "https://op.test/", Subject: "ada"}
		if all := list(ada); len(all) != 2 || all[0].ID != second.ID || all[1].ID != first.ID || all[1].Agent != "Firefox" || all[1].Address != "192.0.2.1" || all[1].Subject != "ada" || !all[1].Created.Equal(first.Created) {
			t.Errorf("ada's sessions: %+v", all)
		}
		if n := len(list(session.Selector{All: true})); n != 3 {
			t.Errorf("%d sessions in all, want 3", n)
		}
		if n := len(list(session.Selector{})); n != 0 {
			t.Errorf("%d sessions of nobody, want 0", n)
		}
		clock.Advance(2 * time.Minute)
		if _, _, err := m.Find(ctx, c.Value, true); err != nil {
			t.Fatal(err)
		}
		m.Wait()
		if all := list(session.Selector{ID: first.ID}); len(all) != 1 || !all[0].Used.Equal(clock.Now()) || all[0].Agent != "Firefox" {
			t.Errorf("the use of a session is not in the list: %+v", all)
		}
		// Of another user's session only the owner's selector finds it.
		if err := m.End(ctx, session.Selector{ID: first.ID, Issuer: "https://op.test/", Subject: "bob"}); err != nil || !alive(t, m, c.Value) {
			t.Errorf("bob ended a session of ada: %v", err)
		}
		if err := m.End(ctx, session.Selector{All: true}); err != nil || len(list(session.Selector{All: true})) != 0 {
			t.Errorf("after ending all there are sessions: %v", err)
		}
	})
	t.Run("it can answer", func(t *testing.T) {
		m := manager(t)
		defer m.Close()
		if err := m.Ping(ctx); err != nil {
			t.Error(err)
		}
	})
}
