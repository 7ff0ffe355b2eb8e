package session_test

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"authproxy/identity"
	"authproxy/session"
	"authproxy/session/storetest"
)

// What another credential knows of a session tells whether it is alive.
func TestAliveKnowsASessionWithoutItsValue(t *testing.T) {
	clock, server := storetest.NewClock(), startRedis(t)
	stores := map[string]func(t *testing.T) session.Store{
		"cookie store": func(t *testing.T) session.Store {
			return session.NewCookieStore(sealer(t, keys[0]), cookie, 24*time.Hour, clock.Now)
		},
		"cookie store with a file": func(t *testing.T) session.Store {
			return withFile(t, filepath.Join(t.TempDir(), "endings.db"), nil, clock.Now, keys[0])
		},
		"cookie store with redis": func(t *testing.T) session.Store {
			return withRedis(t, session.RedisOptions{URL: server.url(), Prefix: rand.Text() + ":"}, clock.Now, keys[0])
		},
		"file store": func(t *testing.T) session.Store {
			return fileStore(t, filepath.Join(t.TempDir(), "sessions.db"), clock.Now, keys[0])
		},
		"redis store": func(t *testing.T) session.Store {
			return redisStore(t, session.RedisOptions{URL: server.url()}, clock.Now, keys[0])
		},
	}
	for _, row := range []struct {
		name string
		do   func(t *testing.T, m *session.Manager, s *session.Session)
		want bool
	}{
		{"nothing has happened", func(*testing.T, *session.Manager, *session.Session) {}, true},
		{"it was ended", end(func(s *session.Session) session.Selector { return session.Selector{ID: s.ID} }), false},
		{"all of the user were", end(func(s *session.Session) session.Selector {
			return session.Selector{Issuer: s.Identity.Issuer, Subject: "ada"}
		}), false},
		{"that of the provider was", end(func(s *session.Session) session.Selector {
			return session.Selector{Issuer: s.Identity.Issuer, ProviderSID: "sid-1"}
		}), false},
		{"every session was", end(func(*session.Session) session.Selector { return session.Selector{All: true} }), false},
		{"those of another user were", end(func(s *session.Session) session.Selector {
			return session.Selector{Issuer: s.Identity.Issuer, Subject: "bob"}
		}), true},
		{"the longest life is over", func(t *testing.T, m *session.Manager, s *session.Session) { clock.Advance(24 * time.Hour) }, false},
		{"the longest life is shorter now", func(t *testing.T, m *session.Manager, s *session.Session) {
			m.Life = time.Minute
			clock.Advance(time.Minute)
		}, false},
		{"it expires earlier", func(t *testing.T, m *session.Manager, s *session.Session) {
			s.Expires = clock.Now().Add(time.Minute)
			clock.Advance(time.Minute)
		}, false},
		{"it is another user's", func(t *testing.T, m *session.Manager, s *session.Session) {
			s.Identity = &identity.Identity{Issuer: s.Identity.Issuer, Subject: "bob"}
			if err := m.End(t.Context(), session.Selector{Issuer: s.Identity.Issuer, Subject: "bob"}); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		for store, open := range stores {
			t.Run(row.name+", "+store, func(t *testing.T) {
				m := session.NewManager(open(t), cookie, time.Hour, 24*time.Hour)
				m.Now = clock.Now
				defer m.Close()
				begun, _, err := m.Begin(t.Context(), storetest.User("ada", "sid-1"))
				if err != nil {
					t.Fatal(err)
				}
				known := &session.Session{ID: begun.ID, Identity: &identity.Identity{Issuer: begun.Identity.Issuer, Subject: "ada"}, ProviderSID: "sid-1",
					Created: begun.Created, Expires: begun.Expires}
				row.do(t, m, known)
				if got, err := m.Alive(t.Context(), known); got != row.want || err != nil {
					t.Errorf("Alive = %v, %v, want %v", got, err, row.want)
				}
			})
		}
	}
}

func end(sel func(*session.Session) session.Selector) func(*testing.T, *session.Manager, *session.Session) {
	return func(t *testing.T, m *session.Manager, s *session.Session) {
		if err := m.End(t.Context(), sel(s)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAliveIsAnErrorWhenTheStoreCannotSay(t *testing.T) {
	m := session.NewManager(mute{}, cookie, time.Hour, 24*time.Hour)
	s := storetest.User("ada", "")
	s.Created, s.Expires = time.Now(), time.Now().Add(time.Hour)
	if alive, err := m.Alive(t.Context(), s); alive || !errors.Is(err, session.ErrNoList) {
		t.Errorf("Alive = %v, %v, want an error", alive, err)
	}
	f := fileStore(t, filepath.Join(t.TempDir(), "sessions.db"), nil, keys[0])
	f.Close()
	if alive, err := session.NewManager(f, cookie, time.Hour, 24*time.Hour).Alive(context.Background(), s); alive || err == nil {
		t.Errorf("Alive of a closed store = %v, %v, want an error", alive, err)
	}
}

// mute is a store that neither lists nor probes.
type mute struct{ session.Store }
