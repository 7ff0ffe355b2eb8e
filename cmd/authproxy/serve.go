package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"authproxy/config"
)

func serveCommand(e *environment, args []string) int {
	f := e.flags("serve")
	file := configFlag(f)
	if status, ok := e.parse(f, args, 0); !ok {
		return status
	}
	cfg, ok := e.load(*file)
	if !ok {
		return exitConfig
	}
	logs := newLogWriter(e.stderr)
	defer logs.Close()
	logger := newLogger(logs, e.stderr, cfg.Log)
	a, err := build(cfg, logger, openConfiguredStore)
	var mistakes config.Mistakes
	switch {
	case errors.As(err, &mistakes):
		e.mistakes(err)
		return exitConfig
	case err != nil:
		return e.fail(err)
	}
	for _, w := range a.warnings() {
		logger.Warn(w.Problem, "file", w.File, "line", w.Line, "key", w.Key, "hint", w.Hint)
	}
	if err := serve(e, a, logger, nil); err != nil {
		logs.Flush()
		return e.fail(err)
	}
	return exitOK
}

// warnings are what an operator should know at the start.
func (a *assembly) warnings() []config.Mistake {
	all := a.cfg.Warnings
	add := func(key, problem, hint string) {
		all = append(all, config.Mistake{File: a.cfg.File, Line: 1, Key: key, Problem: problem, Hint: hint})
	}
	if a.cfg.Session.Store == "cookie" {
		add("session.store", "with the cookie store, which sessions were ended early is remembered in memory only: a restart forgets it, and other replicas do not know",
			"use session.store: file if a logout must hold for copies of a cookie after a restart")
	}
	if a.cfg.ForwardAuth != nil {
		add("forward_auth", "is not supported by this version and has no effect: nobody gets in by it", "remove it for now")
	}
	return all
}

// A server is an assembly with its listeners.
type server struct {
	*assembly
	log      *slog.Logger
	public   *http.Server
	admin    *http.Server // nil when it is off
	ready    atomic.Bool
	inflight context.CancelFunc // ends what outlives a graceful shutdown: streams
}

// serve listens until a signal says stop, then drains (contract section 9). It calls ready, unless that is nil, when it
// serves.
func serve(e *environment, a *assembly, logger *slog.Logger, ready func()) error {
	requests, cancelRequests := context.WithCancel(context.Background())
	s := &server{assembly: a, log: logger, inflight: cancelRequests}
	defer cancelRequests()
	defer a.sessions.Close()

	s.public = newHTTPServer(a.proxy, a.cfg.Limits, logger)
	s.public.BaseContext = func(net.Listener) context.Context { return requests }
	public, err := listen(a.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	failed := make(chan error, 2)
	var serving sync.WaitGroup
	if a.cfg.Admin.Listen.Network != "" {
		l, err := listen(a.cfg.Admin.Listen)
		if err != nil {
			public.Close()
			return fmt.Errorf("admin.listen: %w", err)
		}
		s.admin = newHTTPServer(s.adminHandler(), a.cfg.Limits, logger)
		serving.Go(func() { failed <- s.admin.Serve(l) })
		defer serving.Wait()
		defer s.admin.Close()
	}
	if a.cfg.TLS.CertFile != "" {
		certificate := &certificate{certFile: a.cfg.TLS.CertFile, keyFile: a.cfg.TLS.KeyFile, log: logger}
		if _, err := certificate.get(nil); err != nil {
			public.Close()
			return fmt.Errorf("tls: %w", err)
		}
		s.public.TLSConfig = &tls.Config{GetCertificate: certificate.get, MinVersion: tls.VersionTLS12}
		go func() { failed <- s.public.ServeTLS(public, "", "") }()
	} else {
		go func() { failed <- s.public.Serve(public) }()
	}
	background, cancelBackground := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { a.proxy.Run(background) })
	defer running.Wait()
	defer cancelBackground()

	s.ready.Store(true)
	logger.Info("serving", "public_url", publicURL(a.cfg), "listen", a.cfg.Listen.String(), "admin", a.cfg.Admin.Listen.String(), "issuer", a.cfg.Provider.Issuer, "session_store", a.cfg.Session.Store)
	if ready != nil {
		ready()
	}

	var sig os.Signal
	select {
	case err := <-failed:
		s.public.Close()
		return err
	case <-e.ctx.Done():
	case sig = <-e.stop:
	}
	s.drain(sig, e.stop)
	return nil
}

// drain says that we are leaving, serves what still comes for a moment so that a balancer can turn away, then closes the
// listener and waits for the requests under way. A second signal ends the waiting.
func (s *server) drain(sig os.Signal, again <-chan os.Signal) {
	s.ready.Store(false)
	s.log.Info("stopping")
	if sig == syscall.SIGTERM {
		select {
		case <-time.After(s.cfg.Shutdown.Delay):
		case <-again:
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Shutdown.Grace)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- s.public.Shutdown(ctx) }()
	s.proxy.CloseStreams()
	select {
	case err := <-drained:
		if err != nil {
			s.log.Warn("requests were still under way after shutdown.grace and are cut off")
		}
	case <-again:
	}
	s.inflight()
	s.public.Close()
	s.log.Info("stopped")
}

// newHTTPServer bounds what a client can make us hold: the head of a request in size and time, and idle connections.
// Bodies and answers have no bound here, because streams may last.
func newHTTPServer(h http.Handler, limits config.Limits, logger *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true) // with prior knowledge, for gRPC behind a front proxy
	return &http.Server{
		Handler: h, ReadHeaderTimeout: limits.HeaderTimeout, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: limits.Header,
		Protocols: protocols, DisableGeneralOptionsHandler: true,
		ErrorLog: log.New(debugLog{logger}, "", 0),
	}
}

// debugLog takes what net/http says about broken connections and handshakes: clients cause it at will.
type debugLog struct{ log *slog.Logger }

func (d debugLog) Write(b []byte) (int, error) {
	d.log.Debug("connection", "error", string(b))
	return len(b), nil
}

// listen opens a TCP or unix socket. A unix socket that a former process left behind is replaced.
func listen(a config.Addr) (net.Listener, error) {
	if a.Network == "unix" {
		if c, err := net.DialTimeout("unix", a.Address, time.Second); err == nil {
			c.Close()
			return nil, fmt.Errorf("%s: another process listens there", a)
		}
		if st, err := os.Stat(a.Address); err == nil && st.Mode()&fs.ModeSocket != 0 {
			os.Remove(a.Address)
		}
	}
	return net.Listen(a.Network, a.Address)
}

// A certificate is read from its files again when they change, so that renewing it needs nobody.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	looked  time.Time // when the files were last looked at
	version string    // of the files that were read
	current *tls.Certificate
}

// get is for tls.Config.GetCertificate. A pair that does not fit together leaves the old one in place.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && time.Since(c.looked) < time.Second {
		return c.current, nil
	}
	c.looked = time.Now()
	version := fileVersion(c.certFile) + fileVersion(c.keyFile)
	if c.current != nil && version == c.version {
		return c.current, nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		if c.current == nil {
			return nil, err
		}
		if version != c.version {
			c.log.Error("the new certificate cannot be used; the old one stays", "error", err.Error())
			c.version = version
		}
		return c.current, nil
	}
	c.current, c.version = &pair, version
	return c.current, nil
}

// fileVersion changes when a file is written or replaced.
func fileVersion(name string) string {
	st, err := os.Stat(name)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %d;", st.Size(), st.ModTime().UnixNano())
}
