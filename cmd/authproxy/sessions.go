package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"authproxy/config"
)

// sessionsCommand lists and ends the sessions of a proxy that runs with this configuration, through its admin listener.
func sessionsCommand(e *environment, args []string) int {
	f := e.flags("sessions")
	file := configFlag(f)
	subject := f.String("subject", "", "the sessions of one user, by `SUBJECT`")
	id := f.String("id", "", "one session, by its `ID`")
	all := f.Bool("all", false, "all sessions")
	action := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		action, args = args[0], args[1:]
	}
	if status, ok := e.parse(f, args, 0); !ok {
		return status
	}
	chosen := map[string]bool{}
	f.Visit(func(f *flag.Flag) { chosen[f.Name] = true })
	delete(chosen, "config")
	wrong := ""
	switch {
	case action != "list" && action != "revoke":
		wrong = "say list or revoke"
	case len(chosen) > 1:
		wrong = "-subject, -id and -all exclude each other"
	case action == "revoke" && len(chosen) == 0:
		wrong = "say which sessions to revoke: -subject S, -id ID or -all"
	case chosen["subject"] && *subject == "", chosen["id"] && *id == "", chosen["all"] && !*all:
		wrong = "-subject and -id need a value, and -all none"
	}
	if wrong != "" {
		fmt.Fprintf(e.stderr, "authproxy: sessions: %s\nhint: authproxy sessions -help says what it takes\n", wrong)
		return exitConfig
	}
	cfg, ok := e.load(*file)
	if !ok {
		return exitConfig
	}
	path := "/sessions"
	switch {
	case *subject != "":
		path += "?" + url.Values{"subject": {*subject}}.Encode()
	case *id != "":
		path += "/" + url.PathEscape(*id)
	case action == "revoke":
		path += "?all=true"
	}
	method, known := http.MethodGet, -1
	if action == "revoke" {
		method = http.MethodDelete
		if *id == "" {
			known = countSessions(e.ctx, cfg, path)
		}
	}
	answer, err := askAdmin(e.ctx, cfg, method, path)
	if err == nil && action == "list" {
		err = printSessions(e.stdout, answer, *id != "")
	}
	if err != nil {
		return e.fail(fmt.Errorf("sessions: %w", err))
	}
	switch {
	case action != "revoke":
	case known < 0:
		fmt.Fprintln(e.stdout, "revoked")
	case known == 0:
		fmt.Fprintln(e.stdout, "there was no such session")
	case known == 1:
		fmt.Fprintln(e.stdout, "revoked 1 session")
	default:
		fmt.Fprintf(e.stdout, "revoked %d sessions\n", known)
	}
	return exitOK
}

// countSessions is how many sessions are listed there, or -1 when that cannot be known.
func countSessions(ctx context.Context, cfg *config.Config, path string) int {
	answer, err := askAdmin(ctx, cfg, http.MethodGet, path)
	var all []listedSession
	if err != nil || json.Unmarshal(answer, &all) != nil {
		return -1
	}
	return len(all)
}

// Bounds of talking to the admin listener. A list has at most 10 000 sessions of less than 2 KB.
const (
	adminPatience = time.Minute
	maxAnswer     = 32 << 20
)

// askAdmin sends one request to the admin listener of a configuration. Errors come with hints.
func askAdmin(ctx context.Context, cfg *config.Config, method, path string) ([]byte, error) {
	at := cfg.Admin.Listen
	if at.Network == "" {
		return nil, errors.New("the admin listener is off\nhint: set admin.listen in " + cfg.File + " and restart the proxy")
	}
	host := "localhost"
	if at.Network == "tcp" {
		host = reachable(at.Address)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, nil)
	if err != nil {
		return nil, err
	}
	if cfg.Admin.Token != "" {
		req.Header.Set("Authorization", "Bearer "+cfg.Admin.Token)
	}
	transport := &http.Transport{ // no HTTP_PROXY: it would get the token
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			d := net.Dialer{Timeout: 5 * time.Second}
			if at.Network == "unix" {
				return d.DialContext(ctx, "unix", at.Address)
			}
			return d.DialContext(ctx, network, address)
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: adminPatience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, fmt.Errorf("the admin listener at %s does not answer: %w\nhint: is authproxy running, with this configuration?", at, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the answer of the admin listener at %s broke off: %w", at, err)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the answer of the admin listener at %s is longer than %d bytes", at, maxAnswer)
	case resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusNoContent:
		return body, nil
	}
	var refused struct{ Error, Message string }
	if json.Unmarshal(body, &refused) != nil || refused.Error == "" {
		return nil, fmt.Errorf("what answers at %s with status %d is not an authproxy that can do this\nhint: check that admin.listen is its own address", at, resp.StatusCode)
	}
	text := printable(refused.Message)
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		text += "\nhint: the proxy runs with another admin.token than " + cfg.File + " says; restart it, or use its configuration"
	case http.StatusForbidden:
		text += "\nhint: set admin.token, or let admin.listen be a loopback address or unix:/path"
	case http.StatusNotFound:
		text += "\nhint: authproxy sessions list shows which there are"
	case http.StatusNotImplemented:
		text += "\nhint: session.store: file or redis keeps a list"
	case http.StatusServiceUnavailable:
		text += "\nhint: its log says why"
	}
	return nil, errors.New(text)
}

// reachable is the address to dial for one to listen on: an unspecified one means this machine.
func reachable(listens string) string {
	host, port, err := net.SplitHostPort(listens)
	if ip, perr := netip.ParseAddr(host); err == nil && (host == "" || perr == nil && ip.IsUnspecified()) {
		return net.JoinHostPort("localhost", port)
	}
	return listens
}

// printSessions prints a list of sessions, or one, as a table.
func printSessions(w io.Writer, answer []byte, one bool) error {
	var all []listedSession
	var err error
	if one {
		all = make([]listedSession, 1)
		err = json.Unmarshal(answer, &all[0])
	} else {
		err = json.Unmarshal(answer, &all)
	}
	if err != nil {
		return fmt.Errorf("the answer of the admin listener is no list of sessions: %w", err)
	}
	if len(all) == 0 {
		fmt.Fprintln(w, "no sessions")
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tSUBJECT\tSIGNED IN\tLAST USED\tEXPIRES\tADDRESS\tDEVICE")
	for _, s := range all {
		at := func(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(s.ID), printable(s.Subject), at(s.Created), at(s.Used), at(s.Expires), printable(s.Address), printable(s.Agent))
	}
	return table.Flush()
}

// printable is text that others chose, such as a User-Agent, without what a terminal would obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
