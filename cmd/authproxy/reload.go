package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"authproxy/config"
	"authproxy/session"
)

// watchEvery is how often the files of the configuration are looked at. Looking finds what notifications miss: the symbolic
// links that Kubernetes swaps, network file systems, files that are replaced while nobody watches.
const watchEvery = 2 * time.Second

// retryEvery is how often a configuration that was not taken is tried again: what it lacked may have come.
const retryEvery = 10 * time.Second

// watchFiles reloads the configuration on a signal, and when one of its files has changed, until ctx ends. A file that was
// changed is read when two looks in a row find the same: somebody may be writing it.
func (s *server) watchFiles(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	used := s.now().cfg.Files // what the last try has read
	last := used              // what the last look found
	failed := time.Time{}     // when the last try failed; zero: it did not
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.hangup:
			s.refused = "" // a signal is always answered in the log
		case <-tick.C:
			found := look(s.now().cfg.Files)
			settled := slices.Equal(found, last)
			last = found
			if !settled || slices.Equal(found, used) && (failed.IsZero() || time.Since(failed) < retryEvery) {
				continue
			}
		}
		used = look(s.now().cfg.Files) // before they are read: a change meanwhile is another one
		if s.reload(ctx) {
			used = s.now().cfg.Files
			failed = time.Time{}
		} else {
			failed = time.Now()
		}
		last = used
	}
}

// look reads the files again.
func look(files []config.File) (found []config.File) {
	for _, f := range files {
		found = append(found, f.Now())
	}
	return found
}

// reload makes a complete new assembly and swaps it in: requests under way keep the old one, and none sees half of each. A
// configuration with mistakes changes nothing.
func (s *server) reload(ctx context.Context) bool {
	old := s.now()
	next, err := s.rebuild(old)
	if err != nil && err.Error() == s.refused {
		return false // said before, and tried again only in case
	}
	if err != nil {
		s.refused = err.Error()
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
	s.refused = ""
	begun, was, is := fixed(s.begun), fixed(old.cfg), fixed(next.cfg)
	for _, key := range slices.Sorted(maps.Keys(is)) {
		if is[key] != was[key] && is[key] != begun[key] {
			s.log.Warn("a changed key takes effect at the next start", "key", key)
		}
	}
	s.start(ctx, next)
	s.watch.reloaded(true)
	s.log.Info("configuration reloaded", "file", next.cfg.File)
	return true
}

// fixed are the values that stay as they are until the next start, by their keys. Whether there is TLS is one, the certificate
// is none.
func fixed(c *config.Config) map[string]any {
	return map[string]any{"listen": c.Listen, "admin.listen": c.Admin.Listen, "limits.header": c.Limits.Header, "limits.header_timeout": c.Limits.HeaderTimeout,
		"log.format": c.Log.Format, "tls": c.TLS.CertFile != "", "forward_auth.grpc_listen": grpcListen(c)}
}

func grpcListen(c *config.Config) config.Addr {
	if c.ForwardAuth == nil {
		return config.Addr{}
	}
	return c.ForwardAuth.GRPCListen
}

// rebuild reads the configuration file again and builds what it describes, going on with the session store where that is
// the same.
func (s *server) rebuild(old *assembly) (*assembly, error) {
	cfg, err := config.Load(old.cfg.File, nil)
	if err != nil {
		return nil, err
	}
	var opened session.Store // anew, for this configuration
	open := func(cfg *config.Config, log *slog.Logger, sealer *session.Sealer, cookie session.Cookie) (store session.Store, err error) {
		if r, ok := s.stores[storeOf(cfg)]; ok {
			return r.Reopen(sealer, cfg.Session.Keys, cookie, cfg.Session.IdleTimeout, cfg.Session.MaxLifetime)
		}
		if err := s.keepsOtherwise(cfg); err != nil {
			return nil, err
		}
		opened, err = openConfiguredStore(cfg, log, sealer, cookie)
		return opened, err
	}
	next, err := buildObserved(cfg, s.log, open, s.watch, old)
	if err != nil && opened != nil {
		opened.Close()
	}
	return next, err
}

// keepsOtherwise is the error of a configuration that keeps in a file what this process does not keep in that file: it would
// wait for itself.
func (s *server) keepsOtherwise(cfg *config.Config) error {
	const key = "session.file.path"
	next := storeOf(cfg)
	for k := range s.stores {
		if k.path != "" && k.path == next.path {
			return &notHere{config.Mistakes{{File: cfg.File, Line: cfg.Line(key), Key: key,
				Problem: fmt.Sprintf("%q is where this process keeps %s, until it ends", k.path, map[string]string{"file": "the sessions", "cookie": "the endings of sessions in cookies"}[k.kind]),
				Hint:    "name another file, or start authproxy again instead of reloading"}}, session.ErrFileInUse}
		}
	}
	return nil
}

// A storeKey says where sessions, or their endings, are kept: configurations with the same one go on with the same store.
type storeKey struct {
	kind, endings, path, url, prefix string
	staleness                        time.Duration
}

func storeOf(cfg *config.Config) storeKey {
	k := storeKey{kind: cfg.Session.Store, endings: cfg.Session.Endings}
	switch cmp.Or(k.endings, k.kind) {
	case "file":
		k.path = cfg.Session.FilePath
	case "redis":
		k.url, k.prefix, k.staleness = cfg.Session.Redis.URL, cfg.Session.Redis.Prefix, cfg.Session.Redis.MaxStaleness
	}
	return k
}
