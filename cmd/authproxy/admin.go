package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"authproxy/config"
	"authproxy/session"
)

// adminHandler is the listener for operators. Nothing on it is a secret but the sessions, which have
// their own guard.
func (s *server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.readiness)
	if s.meters != nil {
		mux.Handle("GET /metrics", s.meters.handler())
	}
	mux.HandleFunc("GET /jwks.json", func(w http.ResponseWriter, r *http.Request) { s.now().proxy.JWKS().ServeHTTP(w, r) })
	mux.HandleFunc("/sessions", s.guarded(s.adminSessions))
	mux.HandleFunc("/sessions/{id}", s.guarded(s.adminSession))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

// readiness says whether requests should come here. That the provider is down is no reason to send them elsewhere.
func (s *server) readiness(w http.ResponseWriter, r *http.Request) {
	if !s.ready.Load() {
		say(w, http.StatusServiceUnavailable, "stopping")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	if err := s.now().sessions.Ping(ctx); err != nil {
		say(w, http.StatusServiceUnavailable, "the session store cannot be reached")
		return
	}
	say(w, http.StatusOK, "ok")
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	io.WriteString(w, text+"\n")
}

// A refusal is an error with the status and code to answer with. Its text goes to the operator.
type refusal struct {
	status     int
	code, text string
}

func (r *refusal) Error() string { return r.text }

// guarded answers only to operators, with JSON. See mayAdminister.
func (s *server) guarded(serve func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := any(nil), mayAdminister(s.now().cfg.Admin, r)
		if err == nil {
			v, err = serve(r)
		}
		status := http.StatusOK
		var refused *refusal
		switch {
		case errors.As(err, &refused):
			status, v = refused.status, map[string]string{"error": refused.code, "message": refused.text}
		case err != nil:
			s.log.Warn("session store", "error", err.Error())
			status, v = http.StatusServiceUnavailable, map[string]string{"error": "session_store_unavailable", "message": "the session store cannot be reached"}
		case v == nil:
			w.WriteHeader(http.StatusNoContent)
			return
		}
		switch status {
		case http.StatusUnauthorized:
			w.Header().Set("WWW-Authenticate", `Bearer realm="authproxy admin"`)
		case http.StatusMethodNotAllowed:
			w.Header().Set("Allow", "GET, HEAD, DELETE")
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(v) // to a client that may have gone
	}
}

// mayAdminister lets only operators through: who knows admin.token, or, where there is none, who is on this machine. A web
// page that the operator looks at is on this machine too, so what comes from one is refused: with an Origin, or with the name
// of a host that somebody made resolve to this machine (DNS rebinding).
func mayAdminister(admin config.Admin, r *http.Request) error {
	if len(r.Header["Origin"]) > 0 || r.Header.Get("Sec-Fetch-Site") != "" {
		return &refusal{http.StatusForbidden, "forbidden", "this is not for web pages"}
	}
	if admin.Token != "" {
		if !hasToken(r, admin.Token) {
			return &refusal{http.StatusUnauthorized, "unauthorized", "this needs admin.token as a bearer token"}
		}
		return nil
	}
	if _, unix := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr); unix && admin.Listen.Network == "unix" {
		return nil
	}
	listens, _, err := net.SplitHostPort(admin.Listen.Address)
	peer, perr := netip.ParseAddrPort(r.RemoteAddr)
	switch {
	case admin.Listen.Network != "tcp" || err != nil || !isLoopback(listens):
		return &refusal{http.StatusForbidden, "forbidden", "without admin.token this answers only where admin.listen is a loopback address or a unix socket"}
	case perr != nil || !peer.Addr().Unmap().IsLoopback():
		return &refusal{http.StatusForbidden, "forbidden", "without admin.token this answers only to this machine"}
	case len(r.Header["X-Forwarded-For"]) > 0 || len(r.Header["Forwarded"]) > 0:
		return &refusal{http.StatusForbidden, "forbidden", "without admin.token this does not answer to a proxy, which may speak for anybody"}
	case !isOwnName(r.Host, listens):
		return &refusal{http.StatusForbidden, "forbidden", "the Host is none of this machine's names"}
	}
	return nil
}

// hasToken says whether the request carries the token (RFC 6750 §2.1). The time it takes tells nothing about the token.
func hasToken(r *http.Request, token string) bool {
	values := r.Header["Authorization"]
	if token == "" || len(values) != 1 {
		return false
	}
	scheme, given, _ := strings.Cut(values[0], " ")
	want, have := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(given))
	return strings.EqualFold(scheme, "Bearer") && given != "" && subtle.ConstantTimeCompare(want[:], have[:]) == 1
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// isOwnName says whether a Host is an address, localhost or the name in admin.listen, all of which no foreign page can have.
func isOwnName(host, listens string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost" || host == strings.ToLower(listens)
}

// A listedSession is a session in the answer to GET /sessions. None of it opens the session.
type listedSession struct {
	ID      string    `json:"id"`
	Subject string    `json:"subject"`
	Issuer  string    `json:"issuer"`
	Created time.Time `json:"created"`
	Used    time.Time `json:"used"`
	Expires time.Time `json:"expires"`
	Agent   string    `json:"agent"`
	Address string    `json:"address"`
}

// adminSessions lists the sessions of a subject, or all, and ends those of a subject or all. A query that it does not
// understand selects nothing.
func (s *server) adminSessions(r *http.Request) (any, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badSelection("the query cannot be read")
	}
	for name, values := range query {
		if name != "subject" && name != "all" || len(values) != 1 || values[0] == "" {
			return nil, badSelection("the query takes one subject, or all=true")
		}
	}
	subject, all := query.Get("subject"), query.Get("all")
	if all != "" && (all != "true" || subject != "") {
		return nil, badSelection("the query takes one subject, or all=true")
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if subject == "" {
			return s.list(r.Context(), session.Selector{All: true})
		}
		return s.list(r.Context(), s.ofSubject(subject)...)
	case http.MethodDelete:
		switch {
		case all != "":
			return nil, s.end(r, "all", session.Selector{All: true})
		case subject != "":
			return nil, s.end(r, "subject "+subject, s.ofSubject(subject)...)
		}
		return nil, badSelection("name what to end: /sessions/ID, ?subject=S or ?all=true")
	}
	return nil, errMethod
}

// adminSession tells of one session, or ends it.
func (s *server) adminSession(r *http.Request) (any, error) {
	sel := session.Selector{ID: r.PathValue("id")}
	if r.URL.RawQuery != "" {
		return nil, badSelection("a session is named by its ID alone")
	}
	known, err := s.list(r.Context(), sel)
	if err != nil && !(r.Method == http.MethodDelete && errors.Is(err, errNoList)) {
		return nil, err
	}
	gone := &refusal{http.StatusNotFound, "not_found", "there is no such session"}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if len(known) == 0 {
			return nil, gone
		}
		return known[0], nil
	case http.MethodDelete:
		// It is ended even if it is not listed: a session whose description cannot be read must end as well.
		if ended := s.end(r, "id "+sel.ID, sel); ended != nil {
			return nil, ended
		}
		if err == nil && len(known) == 0 {
			return nil, gone
		}
		return nil, nil
	}
	return nil, errMethod
}

var (
	errMethod = &refusal{http.StatusMethodNotAllowed, "method_not_allowed", "sessions are listed with GET and ended with DELETE"}
	errNoList = &refusal{http.StatusNotImplemented, "no_list", "this session store keeps no list of sessions, because each browser keeps its own; sessions can be ended all the same"}
)

func badSelection(text string) error { return &refusal{http.StatusBadRequest, "bad_request", text} }

// ofSubject selects the sessions of a user of the provider. Its issuer may be spelled with or without the last slash, until
// discovery has said which; sessions under either end.
func (s *server) ofSubject(subject string) []session.Selector {
	issuer := strings.TrimSuffix(s.now().provider.Issuer(), "/")
	return []session.Selector{{Issuer: issuer, Subject: subject}, {Issuer: issuer + "/", Subject: subject}}
}

// list returns what the store knows of the selected sessions, never nil.
func (s *server) list(ctx context.Context, selected ...session.Selector) ([]listedSession, error) {
	listed := []listedSession{}
	for _, sel := range selected {
		found, err := s.now().sessions.List(ctx, sel)
		if errors.Is(err, session.ErrNoList) {
			return nil, errNoList
		}
		if err != nil {
			return nil, err
		}
		for _, i := range found {
			listed = append(listed, listedSession{i.ID, i.Subject, i.Issuer, i.Created.UTC(), i.Used.UTC(), i.Expires.UTC(), i.Agent, i.Address})
		}
	}
	return listed, nil
}

// end ends the selected sessions and says in the log who asked for it.
func (s *server) end(r *http.Request, what string, selected ...session.Selector) error {
	for _, sel := range selected {
		if err := s.now().sessions.End(r.Context(), sel); err != nil {
			return fmt.Errorf("ending sessions: %w", err)
		}
	}
	s.log.Info("sessions ended by an operator", "selected", what, "client", r.RemoteAddr)
	return nil
}
