package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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

func TestAReloadCannotKeepSomethingElseInAFileInUse(t *testing.T) {
	s, write, log := reloading(t)
	write("session: {keys: [MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY], store: cookie, file: {path: DIR/a.db}}")
	if s.reload(t.Context()) {
		t.Fatal("it is taken")
	}
	if said := log.String(); !strings.Contains(said, "where this process keeps the sessions, until it ends") || !strings.Contains(said, "session.file.path") || strings.Contains(said, "another process") {
		t.Errorf("the log says:\n%s", said)
	}
}

func TestWhatTakesARestartIsWarnedOfUntilItIsUndone(t *testing.T) {
	s, write, log := reloading(t)
	const session = "session: {keys: [MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY], store: file, file: {path: DIR/a.db}}\n"
	for _, step := range []struct {
		more string
		want int // warnings so far
	}{{"listen: ':8081'", 1}, {"listen: ':8081'\nprefix: /a", 1}, {"listen: ':8080'", 1}, {"listen: ':8082'\nlog: {format: json}", 3}, {"", 3}} {
		write(session + step.more)
		if !s.reload(t.Context()) {
			t.Fatalf("%s is not taken:\n%s", step.more, log)
		}
		if n := strings.Count(log.String(), "takes effect at the next start"); n != step.want {
			t.Errorf("after %q there are %d warnings, want %d:\n%s", step.more, n, step.want, log)
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

// What is written while a configuration is being taken over is another change.
func TestAChangeDuringAReloadIsNotMissed(t *testing.T) {
	t.Parallel()
	s, write, log := reloading(t)
	use := func(name string) {
		t.Helper()
		write(fmt.Sprintf("session: {keys: [MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY], store: file, file: {path: DIR/%s.db}}", name))
	}
	taken := make(chan string, 10)
	s.watch.reload = func(bool) {
		name := filepath.Base(s.now().cfg.Session.FilePath)
		if name == "b.db" {
			use("c")
		}
		taken <- name
	}
	ctx, cancel := context.WithCancel(context.Background())
	hangup := make(chan os.Signal, 1)
	s.hangup = hangup
	s.running.Go(func() { s.watchFiles(ctx) })
	t.Cleanup(cancel)
	use("b")
	hangup <- syscall.SIGHUP
	for _, want := range []string{"b.db", "c.db"} {
		select {
		case got := <-taken:
			if got != want {
				t.Errorf("%s is taken over, want %s", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s is not taken over:\n%s", want, log)
		}
	}
}

// Some deployments give every file the same time.
func TestACertificateOfTheSameSizeAndTimeIsNoticed(t *testing.T) {
	dir, former := t.TempDir(), time.Unix(1, 0)
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) {
		t.Helper()
		if err := errors.Join(os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600), os.Chtimes(name, former, former)); err != nil {
			t.Fatal(err)
		}
	}
	c := &certificate{certFile: certFile, keyFile: keyFile, log: slog.New(slog.DiscardHandler)}
	write(keyFile, "PRIVATE KEY", private)
	size := 0
	for serial := range int64(2) {
		for { // signatures are of one size or another
			template := &x509.Certificate{SerialNumber: big.NewInt(serial + 1), NotAfter: time.Now().Add(time.Hour)}
			der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
			if err != nil {
				t.Fatal(err)
			}
			if size == 0 || size == len(der) {
				size = len(der)
				write(certFile, "CERTIFICATE", der)
				break
			}
		}
		c.looked = time.Time{}
		pair, err := c.get(nil)
		if err != nil || pair.Leaf.SerialNumber.Int64() != serial+1 {
			t.Fatalf("certificate %d is not in use: %v, %v", serial+1, pair, err)
		}
	}
}
