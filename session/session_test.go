package session_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authproxy/identity"
	"authproxy/session"
	"authproxy/session/storetest"
)

var keys = [][]byte{bytes.Repeat([]byte("first-key-"), 4), bytes.Repeat([]byte("other-key-"), 4)}

func sealer(t testing.TB, keys ...[]byte) *session.Sealer {
	t.Helper()
	s, err := session.NewSealer(keys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var cookie = session.NewCookie("authproxy", "", true, http.SameSiteLaxMode)

func fileStore(t *testing.T, path string, now func() time.Time, keys ...[]byte) *session.FileStore {
	t.Helper()
	f, err := session.OpenFileStore(path, sealer(t, keys...), keys, cookie, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCookieStore(t *testing.T) {
	clock := storetest.NewClock()
	storetest.Run(t, clock, cookie, func(t *testing.T) session.Store {
		return session.NewCookieStore(sealer(t, keys[0]), cookie, 24*time.Hour, clock.Now)
	})
}

func TestFileStore(t *testing.T) {
	clock, path := storetest.NewClock(), filepath.Join(t.TempDir(), "sessions.db")
	storetest.Run(t, clock, cookie, func(t *testing.T) session.Store { return fileStore(t, path, clock.Now, keys[0]) })
}

// One cookie, at most 4 KB; and a typical Auth0 login with a refresh token stays below 1.2 KB.
func TestTypicalLoginIsSmall(t *testing.T) {
	clock := storetest.NewClock()
	m := session.NewManager(session.NewCookieStore(sealer(t, keys[0]), cookie, 24*time.Hour, clock.Now), cookie, time.Hour, 24*time.Hour)
	m.Now = clock.Now
	_, c, err := m.Begin(t.Context(), &session.Session{
		Identity: &identity.Identity{Issuer: "https://acme.eu.auth0.com/", Subject: "auth0|65f1c0ffee5ca1ab1e0ddba11", Email: "ada.lovelace@example.com", EmailVerified: true,
			Name: "Ada Lovelace", Username: "ada", Groups: []string{"admins", "staff"}, Scopes: []string{"openid", "profile", "email", "offline_access"},
			AuthTime: clock.Now(), Claims: map[string]any{"https://example.com/roles": []any{"owner"}}},
		ProviderSID: "Xk2pV9w1c0GZ3sQm7yTtRbnA4uLhJ6dE", Nonce: "k1dSx0u3p2nB8vQyWf9mZaTgRj4cLhE7oPiUwXbNyVs",
		RefreshToken: "v1.MVr5yQkHk0wZp3xqkmr8vYl2sT4uNcB1aGdEfJhWoXiRzLbUyKq9tPnMsCvDjA7", AccessExpiry: clock.Now().Add(24 * time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.String()); n >= 1200 {
		t.Errorf("the cookie has %d bytes with its attributes, want less than 1200", n)
	} else {
		t.Logf("the cookie has %d bytes with its attributes", n)
	}
}

func TestASessionThatDoesNotFitNamesWhatCostsMost(t *testing.T) {
	clock := storetest.NewClock()
	m := session.NewManager(session.NewCookieStore(sealer(t, keys[0]), cookie, 24*time.Hour, clock.Now), cookie, time.Hour, 24*time.Hour)
	login := storetest.User("ada", "sid")
	for i := range 400 {
		login.Identity.Groups = append(login.Identity.Groups, fmt.Sprintf("%x", uint64(i+1)*0x9e3779b97f4a7c15))
	}
	_, _, err := m.Begin(t.Context(), login)
	var large *session.TooLargeError
	if !errors.As(err, &large) || large.Costs[0].Name != "groups" || large.Bytes <= 4096 || !strings.Contains(err.Error(), "groups") || !strings.Contains(err.Error(), "session.store") {
		t.Errorf("Begin = %v, want a TooLargeError that names groups and the remedy", err)
	}
}

func TestKeysRotateWithoutLogouts(t *testing.T) {
	clock := storetest.NewClock()
	path, endings := filepath.Join(t.TempDir(), "s.db"), filepath.Join(t.TempDir(), "e.db")
	for name, open := range map[string]func(keys ...[]byte) session.Store{
		"cookie, with a file": func(keys ...[]byte) session.Store { return withFile(t, endings, nil, clock.Now, keys...) },
		"cookie": func(keys ...[]byte) session.Store {
			return session.NewCookieStore(sealer(t, keys...), cookie, 24*time.Hour, clock.Now)
		},
		"file": func(keys ...[]byte) session.Store { return fileStore(t, path, clock.Now, keys...) },
	} {
		t.Run(name, func(t *testing.T) {
			manager := func(keys ...[]byte) *session.Manager {
				m := session.NewManager(open(keys...), cookie, time.Hour, 24*time.Hour)
				m.Now = clock.Now
				return m
			}
			m := manager(keys[0])
			_, c, err := m.Begin(t.Context(), storetest.User("ada", "sid"))
			if err != nil {
				t.Fatal(err)
			}
			m.Close()
			m = manager(keys[1], keys[0])
			if clock.Advance(2 * time.Second); strings.HasPrefix(name, "cookie") {
				clock.Advance(2 * time.Minute) // it is sealed anew with the next use that is recorded
			}
			_, renewed, err := m.Find(t.Context(), c.Value, true)
			if err != nil || renewed == nil {
				t.Fatalf("with the new key first: %v, %v, want the session and a cookie of the new key", renewed, err)
			}
			m.Close()
			m = manager(keys[1])
			defer m.Close()
			if _, _, err := m.Find(t.Context(), renewed.Value, true); err != nil {
				t.Errorf("the renewed cookie without the old key: %v", err)
			}
			if _, _, err := m.Find(t.Context(), c.Value, true); !errors.Is(err, session.ErrNone) {
				t.Errorf("the old cookie without the old key: %v, want ErrNone", err)
			}
			if err := m.End(t.Context(), session.Selector{Issuer: "https://op.test/", Subject: "ada"}); err != nil {
				t.Fatal(err)
			}
			if _, _, err := m.Find(t.Context(), renewed.Value, true); !errors.Is(err, session.ErrNone) {
				t.Errorf("after the logout: %v, want ErrNone", err)
			}
		})
	}
}

// CKE-04: a value of one purpose or name is nothing under another.
func TestSealedValuesAreBoundToPurposeAndName(t *testing.T) {
	s := sealer(t, keys...)
	value, err := s.Seal("login", "authproxy-login-1", []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	if b, current, ok := s.Open("login", "authproxy-login-1", value); !ok || !current || string(b) != "plain" {
		t.Fatalf("Open = %q, %v, %v", b, current, ok)
	}
	for _, other := range [][2]string{{"login", "authproxy-login-2"}, {"session", "authproxy-login-1"}, {"", "login:authproxy-login-1"}, {"login:authproxy", "-login-1"}} {
		if _, _, ok := s.Open(other[0], other[1], value); ok {
			t.Errorf("opened as %v", other)
		}
	}
	if _, _, ok := sealer(t, keys[1]).Open("login", "authproxy-login-1", value); ok {
		t.Error("opened with another key")
	}
	again, _ := s.Seal("login", "authproxy-login-1", []byte("plain"))
	if again == value {
		t.Error("the same plaintext is sealed to the same value twice")
	}
}

func TestNewSealerRefusesWeakKeys(t *testing.T) {
	for _, keys := range [][][]byte{nil, {}, {nil}, {make([]byte, 31)}} {
		if _, err := session.NewSealer(keys); err == nil {
			t.Errorf("NewSealer(%d keys) works", len(keys))
		}
	}
}

// CKE-16, CKE-17: who reads or writes the file gets no session out of it.
func TestTheFileHoldsOnlyCiphertext(t *testing.T) {
	clock, path := storetest.NewClock(), filepath.Join(t.TempDir(), "s.db")
	f := fileStore(t, path, clock.Now, keys[0])
	m := session.NewManager(f, cookie, time.Hour, 24*time.Hour)
	m.Now = clock.Now
	s, c, err := m.Begin(t.Context(), storetest.User("ada", "provider-sid-1"))
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	dump, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"ada", "Lovelace", "refresh-", "provider-sid-1", "op.test", "admins", s.ID, c.Value} {
		if bytes.Contains(dump, []byte(secret)) {
			t.Errorf("the file contains %q", secret)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", st.Mode(), err)
	}
}

func TestTheFileStoreIsForOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	f := fileStore(t, path, nil, keys[0])
	defer f.Close()
	_, err := session.OpenFileStore(path, sealer(t, keys[0]), keys[:1], cookie, time.Hour, nil)
	if err == nil || !strings.Contains(err.Error(), "another process") || !strings.Contains(err.Error(), "redis") {
		t.Errorf("opening it twice: %v, want an error that says why and what to do", err)
	}
}

func TestOldSessionsAreSweptFromTheFile(t *testing.T) {
	clock, path := storetest.NewClock(), filepath.Join(t.TempDir(), "s.db")
	f := fileStore(t, path, clock.Now, keys[0])
	m := session.NewManager(f, cookie, time.Hour, 24*time.Hour)
	m.Now = clock.Now
	for range 10 {
		if _, _, err := m.Begin(t.Context(), storetest.User("ada", "sid")); err != nil {
			t.Fatal(err)
		}
	}
	clock.Advance(30 * time.Minute)
	_, kept, err := m.Begin(t.Context(), storetest.User("ada", "sid"))
	if err != nil {
		t.Fatal(err)
	}
	clock.Advance(31 * time.Minute)
	if err := f.Sweep(); err != nil {
		t.Fatal(err)
	}
	if n := f.Rows(); n != 1 {
		t.Errorf("%d rows and index entries of sessions after the sweep, want 1", n)
	}
	if err := f.FoundOver(); err != nil || f.Rows() != 1 {
		t.Errorf("a session that was used after the search is gone: %d rows, %v", f.Rows(), err)
	}
	if _, _, err := m.Find(t.Context(), kept.Value, true); err != nil {
		t.Errorf("the session that is not over: %v", err)
	}
	m.Close()
}

// A store that fails is not a store without sessions.
func TestAFailingFileIsNotNobody(t *testing.T) {
	clock, path := storetest.NewClock(), filepath.Join(t.TempDir(), "s.db")
	f := fileStore(t, path, clock.Now, keys[0])
	m := session.NewManager(f, cookie, time.Hour, 24*time.Hour)
	m.Now = clock.Now
	_, first, err := m.Begin(t.Context(), storetest.User("ada", "sid"))
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	f = fileStore(t, path, clock.Now, keys[0]) // nothing opened yet
	f.Close()
	m = session.NewManager(f, cookie, time.Hour, 24*time.Hour)
	if _, _, err := m.Find(t.Context(), first.Value, true); err == nil || errors.Is(err, session.ErrNone) {
		t.Errorf("Find with the file closed = %v, want another error than ErrNone", err)
	}
	if err := m.End(t.Context(), session.Selector{ID: "x"}); err == nil {
		t.Error("End with the file closed succeeded")
	}
	if err := m.Ping(t.Context()); err == nil {
		t.Error("Ping with the file closed succeeded")
	}
}

// The cache gives a session only to who has its whole value, and stays within its bounds.
func TestTheCacheIsBounded(t *testing.T) {
	cost, limit := session.CacheCost(50_000, 1000)
	if cost > limit {
		t.Errorf("the cache holds %d, want %d at most", cost, limit)
	}
}

func FuzzOpenAndDecode(f *testing.F) {
	key := make([]byte, 32)
	rand.Read(key) // each fuzzing process has its own, so that nobody else's value is right
	m := session.NewManager(session.NewCookieStore(sealer(f, key), cookie, 24*time.Hour, nil), cookie, time.Hour, 24*time.Hour)
	_, c, err := m.Begin(f.Context(), storetest.User("ada", "sid"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.Value, []byte{1})
	f.Add("", []byte{})
	encoded, err := session.Encode(storetest.User("ada", "sid"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("x", encoded)
	f.Fuzz(func(t *testing.T, value string, b []byte) {
		if _, _, err := m.Find(t.Context(), value, false); err == nil && value != c.Value {
			t.Errorf("a made-up value is a session: %q", value)
		}
		if s, err := session.Decode(b); err == nil { // what decodes is a session of somebody and encodes again
			if s.Identity.IsAnonymous() || s.ID == "" {
				t.Errorf("decoded to a session of nobody: %+v", s)
			}
			again, err := session.Encode(s)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := session.Decode(again); err != nil {
				t.Errorf("what was encoded does not decode: %v", err)
			}
		}
	})
}

func BenchmarkFind(b *testing.B) {
	clock := storetest.NewClock()
	m := session.NewManager(session.NewCookieStore(sealer(b, keys[0]), cookie, 24*time.Hour, clock.Now), cookie, time.Hour, 24*time.Hour)
	m.Now = clock.Now
	_, c, err := m.Begin(b.Context(), storetest.User("ada", "sid"))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := m.Find(b.Context(), c.Value, true); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("miss", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			fresh := session.NewManager(session.NewCookieStore(sealer(b, keys[0]), cookie, 24*time.Hour, clock.Now), cookie, time.Hour, 24*time.Hour)
			fresh.Now = clock.Now
			if _, _, err := fresh.Find(b.Context(), c.Value, true); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("garbage", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := m.Find(b.Context(), c.Value[1:]+"A", true); err == nil {
				b.Fatal("believed")
			}
		}
	})
}
