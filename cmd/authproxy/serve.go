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
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"authproxy/config"
	"authproxy/session"
)

func serveCommand(e *environment, args []string) int {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP) // before anything takes time: it would end us
	defer signal.Stop(hangup)
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
	level := new(slog.LevelVar)
	level.Set(cfg.Log.Level)
	logger := newLogger(logs, e.stderr, cfg.Log, level)
	log.SetFlags(0)
	log.SetOutput(debugLog{logger}) // net/http writes there what odd upstreams send
	s := &server{log: logger, level: level, hangup: hangup, meters: newMeters()}
	s.watch = s.meters.observers()
	a, err := buildObserved(cfg, logger, openConfiguredStore, s.watch, nil)
	var (
		here     *notHere
		mistakes config.Mistakes
	)
	switch {
	case errors.As(err, &here):
		return e.fail(err)
	case errors.As(err, &mistakes):
		e.mistakes(err)
		return exitConfig
	case err != nil:
		return e.fail(err)
	}
	for _, w := range a.warnings() {
		logger.Warn(w.Problem, "file", w.File, "line", w.Line, "key", w.Key, "hint", w.Hint)
	}
	if err := serve(e, s, a, nil); err != nil {
		logs.Flush()
		return e.fail(err)
	}
	return exitOK
}

// warnings are what an operator should know at the start.
func (a *assembly) warnings() []config.Mistake {
	all := a.cfg.Warnings
	add := func(key, problem, hint string) {
		all = append(all, config.Mistake{File: a.cfg.File, Line: a.cfg.Line(key), Key: key, Problem: problem, Hint: hint})
	}
	if a.cfg.Session.Store == "cookie" && a.cfg.Session.Endings == "" {
		add("session.store", "with the cookie store, which sessions were ended early is remembered in memory only: a restart forgets it, and other replicas do not know",
			"if a logout must hold for copies of a cookie, write session.redis with its url, or for one process session.file with its path, and not both: it is then remembered there")
	}
	return all
}

// A server is what listens: for the assembly of the latest configuration.
type server struct {
	log    *slog.Logger
	level  *slog.LevelVar   // of log; nil when it cannot be changed
	hangup <-chan os.Signal // says that the configuration is to be read again; nil: it is no file that may change
	watch  observers
	meters *meters // fed by watch; nil: nobody counts

	stores  map[storeKey]session.Reopener // all that were opened: requests of an older configuration may still use theirs
	refused string                        // why the last reload failed; "" when it did not
	begun   *config.Config                // the first one, of which some things stay as they are until the next start

	current  atomic.Pointer[assembly]
	cert     atomic.Pointer[certificate] // nil without TLS
	public   *http.Server
	admin    *http.Server // nil when it is off
	grpc     *http.Server // of Envoy's service; nil when it is off
	ready    atomic.Bool
	inflight context.CancelFunc // ends what outlives a graceful shutdown: streams

	running sync.WaitGroup     // background work of all assemblies
	retire  context.CancelFunc // ends that of the current one
}

// now is the assembly of the latest configuration.
func (s *server) now() *assembly { return s.current.Load() }

// start makes a the current assembly. The one before goes on with the requests that it has begun.
func (s *server) start(ctx context.Context, a *assembly) {
	former := s.retire
	if s.begun == nil {
		s.begun = a.cfg
	}
	if s.stores == nil {
		s.stores = map[storeKey]session.Reopener{}
	}
	if r, ok := a.store.(session.Reopener); ok { // all are; of those that share what they keep, closing one closes all
		s.stores[storeOf(a.cfg)] = r
	}
	ctx, s.retire = context.WithCancel(ctx)
	s.running.Go(func() { a.proxy.Run(ctx) })
	if s.level != nil {
		s.level.Set(a.cfg.Log.Level)
	}
	if a.cfg.TLS.CertFile != "" {
		if old := s.cert.Load(); old == nil || old.certFile != a.cfg.TLS.CertFile || old.keyFile != a.cfg.TLS.KeyFile {
			s.cert.Store(&certificate{certFile: a.cfg.TLS.CertFile, keyFile: a.cfg.TLS.KeyFile, log: s.log})
		}
	}
	s.current.Store(a)
	if s.meters != nil {
		s.meters.sessions.Store(a.sessions)
	}
	if former != nil {
		former()
	}
}

// serve listens until a signal says stop, then drains. It calls ready, unless that is nil, when it
// serves.
func serve(e *environment, s *server, a *assembly, ready func()) error {
	requests, cancelRequests := context.WithCancel(context.Background())
	s.inflight = cancelRequests
	defer cancelRequests()
	background, cancelBackground := context.WithCancel(context.Background())
	defer func() {
		cancelBackground()
		s.running.Wait()
		s.now().sessions.Wait()
		for _, store := range s.stores {
			store.Close()
		}
	}()
	s.start(background, a)

	public, err := listenFor(a.cfg, "listen", a.cfg.Listen)
	if err != nil {
		return err
	}
	defer public.Close()
	s.public = newHTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.now().proxy.ServeHTTP(w, r) }), a.cfg.Limits, s.log)
	s.public.BaseContext = func(net.Listener) context.Context { return requests }
	failed := make(chan error, 3)
	if a.cfg.Admin.Listen.Network != "" {
		l, err := listenFor(a.cfg, "admin.listen", a.cfg.Admin.Listen)
		if err != nil {
			return err
		}
		s.admin = newHTTPServer(s.adminHandler(), a.cfg.Limits, s.log)
		go func() { failed <- s.admin.Serve(l) }()
		defer s.admin.Close()
	}
	if a.cfg.TLS.CertFile != "" {
		certificate := func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return s.cert.Load().get(hello) }
		if _, err := certificate(nil); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		s.public.TLSConfig = &tls.Config{GetCertificate: certificate, MinVersion: tls.VersionTLS12}
		s.public.Handler = onlyHTTPS(s.public.Handler)
		go func() { failed <- s.public.ServeTLS(public, "", "") }()
	} else {
		go func() { failed <- s.public.Serve(public) }()
	}
	if f := a.cfg.ForwardAuth; f != nil && f.GRPCListen.Network != "" {
		l, err := listenFor(a.cfg, "forward_auth.grpc_listen", f.GRPCListen)
		if err != nil {
			return err
		}
		s.grpc = newHTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.now().proxy.ExtAuthz().ServeHTTP(w, r) }), a.cfg.Limits, s.log)
		s.grpc.BaseContext = s.public.BaseContext
		go func() { failed <- s.grpc.Serve(l) }()
		defer s.grpc.Close()
	}
	s.running.Go(func() { tuneGC(background) })
	if s.hangup != nil {
		s.running.Go(func() { s.watchFiles(background) })
	}

	s.ready.Store(true)
	s.log.Info("serving", "public_url", publicURL(a.cfg), "listen", a.cfg.Listen.String(), "admin", a.cfg.Admin.Listen.String(), "issuer", a.cfg.Provider.Issuer, "session_store", a.cfg.Session.Store)
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
		case <-time.After(s.now().cfg.Shutdown.Delay):
		case <-again:
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.now().cfg.Shutdown.Grace)
	defer cancel()
	drained := make(chan error, 1)
	go func() {
		var both sync.WaitGroup
		var public, grpc error
		both.Go(func() { public = s.public.Shutdown(ctx) })
		if s.grpc != nil {
			both.Go(func() { grpc = s.grpc.Shutdown(ctx) })
		}
		both.Wait()
		drained <- errors.Join(public, grpc)
	}()
	s.now().proxy.CloseStreams()
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
		// A client that does not read its connection at all is noticed by WriteByteTimeout: a stream's deadline waits behind it.
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: 100, WriteByteTimeout: time.Minute},
		ErrorLog: log.New(debugLog{logger}, "", 0),
	}
}

// onlyHTTPS refuses HTTP/2 requests that say :scheme http on a connection with TLS: net/http would have them look as if they
// came without.
func onlyHTTPS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			http.Error(w, "the scheme is not that of the connection", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// debugLog takes what net/http says about broken connections and handshakes: clients cause it at will.
type debugLog struct{ log *slog.Logger }

func (d debugLog) Write(b []byte) (int, error) {
	d.log.Debug("connection", "error", string(b))
	return len(b), nil
}

// notHere is a sound configuration that cannot run here and now, by no fault of the file.
type notHere struct {
	config.Mistakes
	cause error
}

func (e *notHere) Unwrap() []error { return []error{e.Mistakes, e.cause} }

// listenFor listens on the address of a key.
func listenFor(cfg *config.Config, key string, at config.Addr) (net.Listener, error) {
	l, err := listen(at)
	if err == nil {
		return l, nil
	}
	m := config.Mistake{File: cfg.File, Line: cfg.Line(key), Key: key, Problem: cannotListen(at, err), Hint: "choose another port"}
	if at.Network == "unix" {
		m.Hint = "choose another path"
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		m.Hint = "stop it, or " + m.Hint
	case errors.Is(err, syscall.EACCES) && at.Network == "tcp":
		m.Hint = "choose a port from 1024 on, or let the service have CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		m.Hint = "write an address of this machine, or a port alone for all of them"
	}
	return nil, &notHere{config.Mistakes{m}, err}
}

// cannotListen says in words of ours why there is no listening on an address.
func cannotListen(at config.Addr, err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return at.String() + ": address already in use by another program"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return at.String() + " is no address of this machine"
	case errors.Is(err, syscall.EACCES):
		return at.String() + " is not for this user to listen on"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // without the address once more
	}
	return at.String() + " cannot be listened on: " + err.Error()
}

// listen opens a TCP or unix socket. A unix socket that a former process left behind is replaced.
func listen(a config.Addr) (net.Listener, error) {
	if a.Network == "unix" {
		if c, err := net.DialTimeout("unix", a.Address, time.Second); err == nil {
			c.Close()
			return nil, syscall.EADDRINUSE
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
	looked  time.Time      // when the files were last looked at
	read    [2]config.File // what was found when they were read
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
	found := [2]config.File{config.File{Name: c.certFile}.Now(), config.File{Name: c.keyFile}.Now()}
	if c.current != nil && found == c.read {
		return c.current, nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		if c.current == nil {
			return nil, err
		}
		c.log.Error("the new certificate cannot be used; the old one stays", "error", err.Error())
		c.read = found
		return c.current, nil
	}
	c.current, c.read = &pair, found
	return c.current, nil
}
