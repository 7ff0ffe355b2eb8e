package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authproxy/config"
	"authproxy/identity"
	"authproxy/session"
)

// cookieConfig loads a configuration whose sessions are kept in cookies, with further keys of session; DIR is dir.
func cookieConfig(t *testing.T, dir, more string) *config.Config {
	t.Helper()
	file := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf("public_url: http://localhost:8080\nprovider: {issuer: 'http://127.0.0.1:1/', client_id: c, client_secret: s3cret}\nupstream: http://127.0.0.1:5000\n"+
		"session: {keys: [MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY], store: cookie, %s}\n", strings.ReplaceAll(more, "DIR", dir))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestOperatorsKnowWhereEndingsAreRemembered(t *testing.T) {
	for _, row := range []struct {
		session, says string
		warns         bool
	}{
		{"refresh: true", "cookie store (endings in memory)", true},
		{"file: {path: DIR/e.db}", "cookie store (endings in DIR/e.db)", false},
		{"redis: {url: 'redis://127.0.0.1:1'}", "cookie store (endings in Redis)", false},
	} {
		dir := t.TempDir()
		a, err := build(cookieConfig(t, dir, row.session), slog.New(slog.DiscardHandler), closedStore)
		if err != nil {
			t.Fatal(err)
		}
		warns := false
		for _, w := range a.warnings() {
			warns = warns || w.Key == "session.store"
		}
		if warns != row.warns {
			t.Errorf("%s: a warning %v, want %v", row.session, warns, row.warns)
		}
		var summary bytes.Buffer
		if a.summary(&summary); !strings.Contains(strings.ReplaceAll(summary.String(), dir, "DIR"), row.says) {
			t.Errorf("%s: check does not say %q:\n%s", row.session, row.says, summary.String())
		}
	}
}

func TestCheckFindsAWrongURLOfTheRedisForEndings(t *testing.T) {
	cfg := cookieConfig(t, t.TempDir(), "redis: {url: 'redis://h?ca_file=/nowhere/ca.pem'}")
	for name, open := range map[string]openStore{"check": closedStore, "serve": openConfiguredStore} {
		var mistakes config.Mistakes
		if _, err := build(cfg, slog.New(slog.DiscardHandler), open); !errors.As(err, &mistakes) || mistakes[0].Key != "session.redis.url" {
			t.Errorf("%s: %v, want a mistake at session.redis.url", name, err)
		}
	}
}

func TestALogoutHoldsAfterARestartWithTheCookieStore(t *testing.T) {
	dir := t.TempDir()
	var values []string
	for round := range 2 {
		a, err := build(cookieConfig(t, dir, "file: {path: DIR/e.db}"), slog.New(slog.DiscardHandler), openConfiguredStore)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []error{session.ErrNone, nil}[:len(values)] {
			if err := a.sessions.Check(t.Context(), values[i]); err != want {
				t.Errorf("after the restart session %d: %v, want %v", i, err, want)
			}
		}
		for i := range 2 {
			s, c, err := a.sessions.Begin(t.Context(), &session.Session{Identity: &identity.Identity{Issuer: "http://127.0.0.1:1/", Subject: "ada"}})
			if err != nil {
				t.Fatal(err)
			}
			if round == 0 {
				values = append(values, c.Value)
			}
			if i == 0 {
				err = a.sessions.End(t.Context(), session.Selector{ID: s.ID})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := a.sessions.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAReloadKeepsWhatWasEnded(t *testing.T) {
	s, write, log := reloading(t)
	const keys = "MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY"
	var ended, alive string
	for round, text := range []string{
		"session: {keys: [" + keys + "], store: cookie, file: {path: DIR/e.db}}",
		"session: {keys: [" + keys + "], store: cookie, file: {path: DIR/e.db}, idle_timeout: 1h}",
		"session: {keys: [" + strings.ToUpper(keys) + ", " + keys + "], store: cookie, file: {path: DIR/e.db}}",
	} {
		write(text)
		if !s.reload(t.Context()) {
			t.Fatalf("reload %d:\n%s", round, log)
		}
		m := s.now().sessions
		if round == 0 {
			login := func() (string, string) {
				t.Helper()
				s, c, err := m.Begin(t.Context(), &session.Session{Identity: &identity.Identity{Issuer: "i", Subject: "ada"}})
				if err != nil {
					t.Fatal(err)
				}
				return c.Value, s.ID
			}
			var id string
			ended, id = login()
			alive, _ = login()
			if err := m.End(t.Context(), session.Selector{ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		if got, other := m.Check(t.Context(), ended), m.Check(t.Context(), alive); got != session.ErrNone || other != nil {
			t.Errorf("after reload %d the ended session: %v, another: %v", round, got, other)
		}
	}
}
