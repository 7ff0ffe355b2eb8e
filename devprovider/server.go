package devprovider

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A Server is a Provider that listens. Close it after use.
type Server struct {
	*Provider
	server *http.Server
	done   chan struct{}
}

// Start serves a Provider over http: at o.Issuer, or with an empty one on a free port of 127.0.0.1.
func Start(o Options) (*Server, error) {
	address := "127.0.0.1:0"
	if o.Issuer != "" {
		u, err := url.Parse(o.Issuer)
		if err != nil {
			return nil, fmt.Errorf("issuer: %w", err)
		}
		if u.Scheme != "http" || !isLoopback(u.Hostname()) {
			return nil, fmt.Errorf("issuer %q: Start serves http on loopback addresses only", o.Issuer)
		}
		address = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "80"))
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	if o.Issuer == "" {
		o.Issuer = "http://" + l.Addr().String() + "/"
	}
	p, err := New(o)
	if err != nil {
		l.Close()
		return nil, err
	}
	s := &Server{Provider: p, done: make(chan struct{}), server: &http.Server{
		Handler:           p,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    maxBody,
		ErrorLog:          log.New(io.Discard, "", 0), // what people provoke on purpose
	}}
	go func() {
		defer close(s.done)
		s.server.Serve(l)
	}()
	return s, nil
}

// URL is the issuer without its trailing slash.
func (s *Server) URL() string { return strings.TrimSuffix(s.Issuer(), "/") }

// Close stops listening, gives requests in progress a second, and waits for the logout tokens that are on their way.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.server.Shutdown(ctx) != nil {
		s.server.Close()
	}
	<-s.done
	s.Wait()
}
