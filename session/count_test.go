package session_test

import (
	"path/filepath"
	"testing"
	"time"

	"authproxy/session"
	"authproxy/session/storetest"
)

func TestTheFileStoreCountsItsSessions(t *testing.T) {
	ctx, clock, keys := t.Context(), storetest.NewClock(), [][]byte{make([]byte, 32)}
	sealer, err := session.NewSealer(keys)
	if err != nil {
		t.Fatal(err)
	}
	cookie := session.NewCookie("authproxy", "", false, 0)
	path := filepath.Join(t.TempDir(), "sessions.db")
	open := func() (*session.FileStore, *session.Manager) {
		t.Helper()
		f, err := session.OpenFileStore(path, sealer, keys, cookie, time.Hour, clock.Now)
		if err != nil {
			t.Fatal(err)
		}
		m := session.NewManager(f, cookie, time.Hour, 24*time.Hour)
		m.Now = clock.Now
		return f, m
	}
	_, m := open()
	want := func(after string, n int64) {
		t.Helper()
		if got, err := m.Count(ctx); err != nil || got != n {
			t.Errorf("after %s: Count = %d, %v, want %d", after, got, err, n)
		}
	}
	begin := func(subject string) (value, id string) {
		t.Helper()
		s, c, err := m.Begin(ctx, storetest.User(subject, "sid"))
		if err != nil {
			t.Fatal(err)
		}
		return c.Value, s.ID
	}
	end := func(sel session.Selector) {
		t.Helper()
		if err := m.End(ctx, sel); err != nil {
			t.Fatal(err)
		}
	}
	want("nothing", 0)
	value, id := begin("ada")
	begin("ada")
	begin("bob")
	begin("eve")
	want("four logins", 4)
	if _, err := m.Update(ctx, value, func(s *session.Session) { s.AccessToken = "another" }); err != nil {
		t.Fatal(err)
	}
	want("a change", 4)
	end(session.Selector{ID: id})
	end(session.Selector{ID: id})
	want("the end of one, twice", 3)
	if _, err := m.Update(ctx, value, func(*session.Session) {}); err == nil {
		t.Error("an ended session was changed")
	}
	want("a change that came too late", 3)
	end(session.Selector{Issuer: "https://op.test/", Subject: "bob"})
	want("the end of a user's", 2)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	store, again := open()
	m = again
	want("a restart", 2)
	clock.Advance(2 * time.Hour)
	begin("ada")
	if err := store.Sweep(); err != nil {
		t.Fatal(err)
	}
	want("sweeping two that were idle", 1)
	end(session.Selector{All: true})
	want("the end of all", 0)
	m.Close()
}

func TestTheCookieStoreCountsNothing(t *testing.T) {
	keys := [][]byte{make([]byte, 32)}
	sealer, err := session.NewSealer(keys)
	if err != nil {
		t.Fatal(err)
	}
	cookie := session.NewCookie("authproxy", "", false, 0)
	m := session.NewManager(session.NewCookieStore(sealer, cookie, time.Hour, nil), cookie, time.Hour, time.Hour)
	if n, err := m.Count(t.Context()); err != session.ErrNoList {
		t.Errorf("Count = %d, %v, want ErrNoList", n, err)
	}
}

func TestTheManagerTellsOfEachRequestToTheStore(t *testing.T) {
	ctx, clock, keys := t.Context(), storetest.NewClock(), [][]byte{make([]byte, 32)}
	sealer, err := session.NewSealer(keys)
	if err != nil {
		t.Fatal(err)
	}
	cookie := session.NewCookie("authproxy", "", false, 0)
	store, err := session.OpenFileStore(filepath.Join(t.TempDir(), "sessions.db"), sealer, keys, cookie, time.Hour, clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	m := session.NewManager(store, cookie, time.Hour, 24*time.Hour)
	m.Now = clock.Now
	heard := map[string]int{}
	var failed []string
	m.Observe = func(op string, took time.Duration, err error) {
		heard[op]++
		if err != nil {
			failed = append(failed, op)
		}
		if took < 0 {
			t.Errorf("%s took %s", op, took)
		}
	}
	_, c, err := m.Begin(ctx, storetest.User("ada", "sid"))
	if err != nil {
		t.Fatal(err)
	}
	m.Find(ctx, c.Value, true)
	m.Update(ctx, c.Value, func(*session.Session) {})
	m.List(ctx, session.Selector{All: true})
	m.Count(ctx)
	m.Ping(ctx)
	m.End(ctx, session.Selector{All: true})
	m.Find(ctx, c.Value, true)
	for _, op := range []string{"create", "load", "save", "list", "count", "ping", "end"} {
		if heard[op] == 0 {
			t.Errorf("%s was not told", op)
		}
	}
	if heard["load"] != 3 || len(failed) != 1 || failed[0] != "load" {
		t.Errorf("%d loads, failed %v; want 3, and the one after the end", heard["load"], failed)
	}
	m.Close()
}
