package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"time"

	"authproxy/config"
	"authproxy/session"
)

// watchEvery is how often the files of the configuration are looked at. Looking finds what notifications miss: the symbolic
// links that Kubernetes swaps, network file systems, files that are replaced while nobody watches.
const watchEvery = 2 * time.Second

// watchFiles reloads the configuration on a signal and when one of its files has changed, until ctx ends.
func (s *server) watchFiles(ctx context.Context, hangup <-chan os.Signal) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	seen := versions(s.now().cfg.Files)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
		case <-tick.C:
			if versions(s.now().cfg.Files) == seen {
				continue
			}
		}
		seen = versions(s.now().cfg.Files) // before they are read: a change meanwhile is another one
		if s.reload(ctx) {
			seen = versions(s.now().cfg.Files)
		}
	}
}

// versions changes when one of the files does.
func versions(files []string) string {
	var b strings.Builder
	for _, f := range files {
		b.WriteString(fileVersion(f))
	}
	return b.String()
}

// reload makes a complete new assembly and swaps it in: requests under way keep the old one, and none sees half of each. A
// configuration with mistakes changes nothing.
func (s *server) reload(ctx context.Context) bool {
	old := s.now()
	next, err := s.rebuild(old)
	if err != nil {
		s.watch.reloaded(false)
		var mistakes config.Mistakes
		if errors.As(err, &mistakes) {
			for _, m := range mistakes {
				s.log.Error("reload: "+m.Problem, "file", m.File, "line", m.Line, "key", m.Key, "hint", m.Hint)
			}
		} else {
			s.log.Error("reload", "error", err.Error())
		}
		s.log.Error("the new configuration is not used; the old one stays")
		return false
	}
	for key, changed := range map[string]bool{
		"listen": old.cfg.Listen != next.cfg.Listen, "admin.listen": old.cfg.Admin.Listen != next.cfg.Admin.Listen,
		"limits.header": old.cfg.Limits.Header != next.cfg.Limits.Header, "limits.header_timeout": old.cfg.Limits.HeaderTimeout != next.cfg.Limits.HeaderTimeout,
		"log.format": old.cfg.Log.Format != next.cfg.Log.Format, "tls": (old.cfg.TLS.CertFile == "") != (next.cfg.TLS.CertFile == ""),
	} {
		if changed {
			s.log.Warn("a changed key takes effect at the next start", "key", key)
		}
	}
	s.start(ctx, next)
	s.watch.reloaded(true)
	s.log.Info("configuration reloaded", "file", next.cfg.File)
	return true
}

// rebuild reads the configuration file again and builds what it describes, going on with the session store where that is
// the same.
func (s *server) rebuild(old *assembly) (*assembly, error) {
	cfg, err := config.Load(old.cfg.File, nil)
	if err != nil {
		return nil, err
	}
	open := func(cfg *config.Config, log *slog.Logger, sealer *session.Sealer, cookie session.Cookie) (session.Store, error) {
		if r, ok := old.store.(session.Reopener); ok && sameStore(old.cfg, cfg) {
			return r.Reopen(sealer, cfg.Session.Keys, cookie, cfg.Session.IdleTimeout, cfg.Session.MaxLifetime)
		}
		return openConfiguredStore(cfg, log, sealer, cookie)
	}
	return buildObserved(cfg, s.log, open, s.watch, old)
}

// sameStore says whether two configurations keep their sessions in the same place.
func sameStore(a, b *config.Config) bool {
	return a.Session.Store == b.Session.Store &&
		(a.Session.Store != "file" || a.Session.FilePath == b.Session.FilePath) &&
		(a.Session.Store != "redis" || reflect.DeepEqual(a.Session.Redis, b.Session.Redis))
}
