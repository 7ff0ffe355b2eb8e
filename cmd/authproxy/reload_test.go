package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authproxy/config"
)

// reloading is a server without listeners whose configuration file can be written anew. What it logs is on the screen.
func reloading(t *testing.T) (s *server, write func(more string), log *screen) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	write = func(more string) {
		t.Helper()
		text := fmt.Sprintf("public_url: http://localhost:8080\nprovider: {issuer: 'http://127.0.0.1:1/', client_id: c, client_secret: s3cret}\nupstream: http://127.0.0.1:5000\n%s\n",
			strings.ReplaceAll(more, "DIR", dir))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("session: {keys: [MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY], store: file, file: {path: DIR/a.db}}")
	cfg, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	log = &screen{until: "never", seen: make(chan struct{})}
	logger := slog.New(slog.NewTextHandler(log, nil))
	a, err := build(cfg, logger, openConfiguredStore)
	if err != nil {
		t.Fatal(err)
	}
	s = &server{log: logger}
	ctx, cancel := context.WithCancel(context.Background())
	s.start(ctx, a)
	t.Cleanup(func() {
		cancel()
		s.running.Wait()
		for _, store := range s.stores {
			store.Close()
		}
	})
	return s, write, log
}

func TestAReloadMayGoBackToAFormerSessionStore(t *testing.T) {
	s, write, log := reloading(t)
	for _, name := range []string{"b", "a", "a", "b"} {
		write(fmt.Sprintf("session: {keys: [MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY], store: file, file: {path: DIR/%s.db}}", name))
		if !s.reload(t.Context()) {
			t.Fatalf("going to store %s:\n%s", name, log)
		}
		if err := s.now().sessions.Ping(t.Context()); err != nil {
			t.Errorf("store %s: %v", name, err)
		}
	}
}

func TestAConfigurationThatIsNotTakenIsReportedOnce(t *testing.T) {
	s, write, log := reloading(t)
	before := s.now()
	write("session: {keys: [\"${file:DIR/key}\"]}")
	for range 3 {
		if s.reload(t.Context()) || s.now() != before {
			t.Fatal("a configuration with a mistake is in use")
		}
	}
	if n := strings.Count(log.String(), "is not used"); n != 1 || !strings.Contains(log.String(), "session.keys") {
		t.Errorf("three tries of the same made %d reports:\n%s", n, log)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(before.cfg.File), "key"), []byte("MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !s.reload(t.Context()) || s.now() == before {
		t.Errorf("what was missing has come, and the configuration is still not taken:\n%s", log)
	}
}
