package main

import (
	"net/http"
	"sync"
	"testing"

	"authproxy/devprovider"
	"authproxy/proxy"
)

// An audience hears of every request.
type audience struct {
	mu    sync.Mutex
	heard []proxy.Event
}

func (a *audience) observe(e proxy.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.heard = append(a.heard, e)
}

// last takes what was heard since it was called before, and returns the last of it that is a step of a login, or the very
// last when none is.
func (a *audience) last() (e proxy.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.heard {
		if h.Login != "" || e.Login == "" {
			e = h
		}
	}
	a.heard = nil
	return e
}

func TestObserversHearOfEachRequest(t *testing.T) {
	var a audience
	w := start(t, settings{watch: observers{request: a.observe}, more: `
routes:
  - {path: /open, allow: anyone}
  - {path: /admin, allow: [{groups: [admins]}]}
`})
	v := w.signIn("bob")
	w.settle()
	a.last()
	for _, test := range []struct {
		name    string
		request func()
		want    proxy.Event
		asked   bool // the upstream
	}{
		{"forwarded", func() { w.visitor().get("/open/x?q", "*/*") }, proxy.Event{Route: "/open", Decision: "allow", Status: 200}, true},
		{"forwarded for a user", func() { v.get("/x", "*/*") }, proxy.Event{Route: "default", Decision: "allow", Status: 200}, true},
		{"denied", func() { v.get("/admin", "*/*") }, proxy.Event{Route: "/admin", Decision: "deny", Status: 403}, false},
		{"not signed in", func() { w.visitor().get("/admin/x", "*/*") }, proxy.Event{Route: "/admin", Decision: "login", Status: 401}, false},
		{"our own", func() { v.get("/auth/me", "*/*") }, proxy.Event{Decision: "own", Status: 200}, false},
		{"our own that is not there", func() { v.get("/auth/nothing", "*/*") }, proxy.Event{Decision: "own", Status: 404}, false},
		{"refused before there was a route", func() { v.get("/a%2fb", "*/*") }, proxy.Event{Decision: "deny", Status: 400}, false},
		{"a callback of no login, signed in", func() { v.get("/auth/callback?code=x&state=y", "*/*") }, proxy.Event{Route: "default", Decision: "allow", Status: 200}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.request()
			w.settle()
			got := a.last()
			if got.Ours <= 0 || (got.Upstream > 0) != test.asked {
				t.Errorf("ours %s, the upstream's %s; want it to have been asked: %t", got.Ours, got.Upstream, test.asked)
			}
			got.Ours, got.Upstream = 0, 0
			if got != test.want {
				t.Errorf("Event %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestObserversHearWhyALoginFailed(t *testing.T) {
	for want, test := range map[string]struct {
		faults func(*devprovider.Faults)
		more   string
		open   func(v *visitor)
	}{
		"login_denied":         {faults: func(f *devprovider.Faults) { f.Deny, f.DenyDescription = "something_of_an_action", "no" }},
		"provider_unavailable": {faults: func(f *devprovider.Faults) { f.Fail = map[string]int{"token": http.StatusBadGateway} }},
		"nonce":                {faults: func(f *devprovider.Faults) { f.IDToken = func(t *devprovider.Token) { t.Claims["nonce"] = "another" } }},
		"audience":             {faults: func(f *devprovider.Faults) { f.IDToken = func(t *devprovider.Token) { t.Claims["aud"] = "another" } }},
		"signature": {faults: func(f *devprovider.Faults) {
			f.SignedID = func(token string) string { return token[:len(token)-8] + "AAAAAAAA" }
		}},
		"invalid_grant": {faults: func(f *devprovider.Faults) {
			f.TokenError = devprovider.Error{Status: 403, Code: "invalid_grant", Description: "no"}
		}},
		"provider_misconfigured": {faults: func(f *devprovider.Faults) {
			f.TokenError = devprovider.Error{Status: 401, Code: "access_denied", Description: "no"}
		}},
		"unknown_state":       {open: func(v *visitor) { v.get("/auth/callback?code=x&state=y", "application/json") }},
		"duplicate_parameter": {open: func(v *visitor) { v.get("/auth/callback?code=x&code=y&state=z", "application/json") }},
		"too_many_logins": {more: "limits: {login_per_minute: 1}", open: func(v *visitor) {
			v.open("/auth/login")
			v.open("/auth/login")
		}},
	} {
		t.Run(want, func(t *testing.T) {
			var a audience
			w := start(t, settings{watch: observers{request: a.observe}, more: test.more})
			w.provider.Set(func(f *devprovider.Faults) {
				f.SignInAs = "ada"
				if test.faults != nil {
					test.faults(f)
				}
			})
			if test.open == nil {
				test.open = func(v *visitor) { v.open("/x") }
			}
			test.open(w.visitor())
			w.settle()
			if got := a.last(); got.Login != proxy.LoginFailed || got.LoginFailure != want {
				t.Errorf("login %q, failure %q, want failed with %q", got.Login, got.LoginFailure, want)
			}
		})
	}
}
