package proxy_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authproxy/devprovider"
	"authproxy/oidc"
	"authproxy/proxy"
)

// requestKeys are those of the contract that every event has. upstream_ms and error are there when there is something to say.
var requestKeys = []string{"time", "level", "msg", "request_id", "method", "host", "path", "route", "decision", "reason", "subject", "status", "bytes", "duration_ms", "client_ip"}

func TestEachRequestIsOneEvent(t *testing.T) {
	var mu sync.Mutex
	var observed []proxy.Event
	w := newWorld(t, setup{options: func(o *proxy.Options) {
		o.Observe = func(e proxy.Event) { mu.Lock(); defer mu.Unlock(); observed = append(observed, e) }
	}})
	ada, bob, stranger := w.signedIn(t, "ada"), w.signedIn(t, "bob"), w.newBrowser(t)
	w.upstream.answer(func(rw http.ResponseWriter, _ *http.Request) { rw.Write([]byte("hello")) })
	for i, c := range []struct {
		name string
		ask  func(path string) *reply
		path string
		want record // in the path, %s is the one that was asked for
	}{
		{"allowed", func(p string) *reply { return ada.fetch("GET", p, "") }, "/x", record{"route": "default", "decision": "allow", "reason": "signed in", "subject": adaSubject, "status": 200.0, "bytes": 5.0}},
		{"anyone", func(p string) *reply { return stranger.fetch("POST", p, "x") }, "/public", record{"route": "/public", "decision": "allow", "reason": "anyone", "subject": "", "status": 200.0, "method": "POST"}},
		{"denied", func(p string) *reply { return bob.fetch("GET", p, "") }, "/admin", record{"route": "/admin", "decision": "deny", "reason": "no entry of allow holds", "status": 403.0}},
		{"login needed", func(p string) *reply { return stranger.fetch("GET", p, "") }, "/api", record{"route": "/api", "decision": "login", "reason": "not signed in", "subject": "", "status": 401.0}},
		{"sent to the login", func(p string) *reply { return stranger.navigate(p) }, "/x", record{"route": "default", "decision": "login", "reason": "not signed in", "status": 302.0}},
		{"our own", func(p string) *reply { return ada.fetch("GET", p, "") }, "/auth/nothing", record{"route": "", "decision": "own", "status": 404.0}},
		{"unclean", func(p string) *reply { return ada.fetch("GET", p, "") }, "/x//", record{"route": "", "decision": "deny", "reason": "unclean path", "status": 308.0}},
		{"ambiguous", func(p string) *reply { return ada.fetch("GET", p+"%2f", "") }, "/x", record{"route": "", "decision": "deny", "status": 400.0, "path": "%s/"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			mu.Lock()
			before := len(observed)
			mu.Unlock()
			path := fmt.Sprintf("%s/%d", c.path, i)
			r := c.ask(path)
			logged := path
			if p, ok := c.want["path"].(string); ok {
				logged = strings.Replace(p, "%s", path, 1)
				delete(c.want, "path")
			}
			all := w.log.find(t, path, func(r record) bool { return r["msg"] == "request" && r["path"] == logged })
			if len(all) != 1 {
				t.Fatalf("%d events", len(all))
			}
			e := all[0]
			for k, v := range c.want {
				if e[k] != v {
					t.Errorf("%s is %v, want %v", k, e[k], v)
				}
			}
			keys := slices.Sorted(maps.Keys(e))
			keys = slices.DeleteFunc(keys, func(k string) bool { return k == "upstream_ms" || k == "error" })
			want := slices.Sorted(slices.Values(requestKeys))
			if !slices.Equal(keys, want) {
				t.Errorf("the keys are %q, want %q", keys, want)
			}
			if e["client_ip"] != "127.0.0.1" || e["host"] != "app.test" || e["status"] != float64(r.StatusCode) {
				t.Errorf("the event says %v", e)
			}
			if _, asked := e["upstream_ms"]; asked != (e["decision"] == "allow") {
				t.Errorf("upstream_ms is there: %t", asked)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(observed) != before+1 || observed[before].Status != r.StatusCode || observed[before].Route != e["route"] || observed[before].Decision != e["decision"] {
				t.Errorf("observed are %+v", observed[before:])
			}
		})
	}
}

func TestTheStepsOfALoginAreObserved(t *testing.T) {
	steps := make(chan string, 100)
	w := newWorld(t, setup{options: func(o *proxy.Options) {
		o.Observe = func(e proxy.Event) {
			if e.Login != "" || e.BackchannelLogout != "" {
				steps <- strings.Trim(e.Login+" "+e.LoginFailure+e.BackchannelLogout, " ")
			}
		}
	}})
	check := func(what string, want ...string) {
		t.Helper()
		for _, step := range want {
			select {
			case got := <-steps:
				if got != step {
					t.Errorf("%s is observed as %q, want %q", what, got, step)
				}
			case <-time.After(patience):
				t.Fatalf("%s is not observed as %q", what, step)
			}
		}
	}
	w.signedIn(t, "ada")
	check("a login", "started", "completed")
	w.newBrowser(t).fetch("GET", "/auth/callback?state=x", "")
	check("a stranger's callback", "failed unknown_state")
	w.faults(func(f *devprovider.Faults) { f.Deny = "access_denied" })
	w.newBrowser(t).follow("/x")
	check("a denied login", "started", "failed login_denied")
	w.faults(func(f *devprovider.Faults) {
		f.Deny = ""
		f.IDToken = func(t *devprovider.Token) { t.Claims["nonce"] = "x" }
	})
	w.newBrowser(t).follow("/x")
	check("a wrong nonce", "started", "failed nonce")
	token := w.provider.LogoutToken(clientID, "ada", "", nil)
	notify(t, w, token)
	check("a logout token", "obeyed")
	notify(t, w, token)
	check("its replay", "replayed")
	notify(t, w, "x")
	check("junk", "refused")
	if len(steps) > 0 {
		t.Errorf("%d more steps are observed", len(steps))
	}
}

func TestAPanicIsOneEventAndHarmsNobodyElse(t *testing.T) {
	var broken atomic.Bool
	w := newWorld(t, setup{})
	b := w.signedIn(t, "ada")
	w.reload(func(o *proxy.Options) {
		now := o.Now
		o.Now = func() time.Time {
			if broken.Load() {
				panic("the clock fell off the wall")
			}
			return now()
		}
	})
	held, reached := make(chan struct{}), make(chan struct{})
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
		if r.RequestURI == "/slow" {
			close(reached)
			<-held
		}
		rw.Write([]byte("whole"))
	})
	slow := make(chan string)
	go func() {
		r := w.newRequest("GET", "/slow")
		r.Header.Set("Cookie", w.cookie+"="+b.session())
		res, err := b.transport.RoundTrip(r)
		if err != nil {
			slow <- err.Error()
			return
		}
		slow <- read(res)
	}()
	within(t, "the slow request", reached)
	broken.Store(true)
	b.navigate("/boom").wantsPage(t, 500, "Something went wrong").wants(t, 500, `href="/boom">Try again</a>`)
	broken.Store(false)
	close(held)
	if got := <-slow; got != "whole" {
		t.Errorf("the other request got %q", got)
	}
	b.navigate("/x").wants(t, 200)
	e := w.log.find(t, "the panic", func(r record) bool { return strings.Contains(fmt.Sprint(r["error"]), "fell off the wall") })
	if len(e) != 1 || e[0]["msg"] != "request" || e[0]["path"] != "/boom" || e[0]["status"] != 500.0 || e[0]["level"] != "ERROR" || !strings.Contains(fmt.Sprint(e[0]["error"]), "goroutine") {
		t.Errorf("the log says %v", e)
	}
}

// A panic within an answer must not look like a whole one.
func TestAPanicWithinAnAnswerBreaksIt(t *testing.T) {
	w := newWorld(t, setup{})
	panics := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.proxy.ServeHTTP(panicsLater{rw}, r)
	}))
	w.handler.Store(&panics)
	res, err := w.newBrowser(t).transport.RoundTrip(w.newRequest("GET", "/public/x"))
	if err == nil {
		defer res.Body.Close()
		if body := read(res); !strings.HasPrefix(body, "reading: ") {
			t.Errorf("the client got %s with %q", res.Status, body)
		}
	}
	if e := w.log.request(t, "/public/x"); !strings.Contains(fmt.Sprint(e["error"]), "panic: no more paper") {
		t.Errorf("the log says %v", e)
	}
}

// panicsLater panics after the header.
type panicsLater struct{ http.ResponseWriter }

func (w panicsLater) Unwrap() http.ResponseWriter     { return w.ResponseWriter }
func (w panicsLater) Write(b []byte) (n int, _ error) { panic("no more paper") }

// Every secret that we are given is looked for in the log, at its most talkative, after things went well and badly.
func TestNoSecretIsLogged(t *testing.T) {
	const canary = "canary-%s-9d81e2"
	secret := func(name string) string { return fmt.Sprintf(canary, name) }
	w := newWorld(t, tokens(setup{rp: func(c *oidc.Config) { c.Userinfo = true }}, true))
	for _, name := range []string{"query", "cookie", "authorization", "header", "body", "answer", "password", "error", "token", "description"} {
		w.canaries = append(w.canaries, secret(name))
	}
	issued := make(chan string, 1000)
	w.faults(func(f *devprovider.Faults) {
		f.TokenResponse = func(answer map[string]any) {
			for _, name := range []string{"access_token", "refresh_token", "id_token"} {
				if s, ok := answer[name].(string); ok {
					issued <- s
				}
			}
		}
	})
	b := w.signedIn(t, "ada")
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Set-Cookie", "theirs="+secret("answer"))
		fmt.Fprint(rw, secret("answer"))
	})
	b.onward = http.Header{"Authorization": {"Bearer " + secret("authorization")}, "Cookie": {"app=" + secret("cookie")}, "X-Api-Key": {secret("header")}}
	for _, path := range []string{"/x", "/admin", "/public", "/auth/", "/auth/me", "/auth/login", "/auth/callback", "/auth/logout", "/auth/nothing", "/x//y"} {
		b.navigate(path + "?token=" + secret("query"))
		b.fetch("POST", path+"?token="+secret("query"), "password="+secret("body"), "Content-Type", "application/x-www-form-urlencoded")
	}
	b = w.signedIn(t, "ada")
	w.clock.advance(61 * time.Minute)
	b.navigate("/x")
	w.proxyWait()
	for _, fault := range []func(*devprovider.Faults){
		func(f *devprovider.Faults) {
			f.TokenError = devprovider.Error{Status: 401, Code: "access_denied", Description: "wrong secret " + clientSecret}
		},
		func(f *devprovider.Faults) {
			f.Raw = map[string]string{"token": `{"access_token":"` + secret("token") + `","token_type":"x"}`}
		},
		func(f *devprovider.Faults) { f.Raw = map[string]string{"token": secret("token")} },
		func(f *devprovider.Faults) { f.Fail = map[string]int{"token": 500} },
		func(f *devprovider.Faults) { f.Down = true },
		func(f *devprovider.Faults) {
			f.IDToken = func(t *devprovider.Token) { t.Claims["nonce"] = secret("token") }
		},
	} {
		other := w.newBrowser(t)
		callback := other.login("/x")
		w.faults(fault)
		other.back(callback)
		w.clock.advance(61 * time.Minute)
		b.navigate("/x")
		w.proxyWait()
		w.faults(func(f *devprovider.Faults) { *f = devprovider.Faults{SignInAs: "ada"} })
	}
	notify(t, w, secret("token")+"."+secret("token")+".x")
	notify(t, w, idTokenOf(w))
	w.upstream.Close()
	b.navigate("/x?token=" + secret("query"))
	if len(issued) == 0 || !strings.Contains(w.log.text(), `"msg":"request"`) {
		t.Error("no token was issued, or nothing was logged")
	}
	for len(issued) > 0 {
		w.canaries = append(w.canaries, <-issued)
	}
} // the harness looks for the canaries

func TestWhatAClientChoosesIsCutInTheLog(t *testing.T) {
	w := newWorld(t, setup{})
	long := strings.Repeat("x", 5000)
	w.newBrowser(t).fetch("GET", "/"+long, "")
	e := w.log.find(t, "the request", func(r record) bool { return r["msg"] == "request" })[0]
	if n := len(fmt.Sprint(e["path"])); n != 2048 {
		t.Errorf("the path has %d bytes in the log", n)
	}
	c := w.dial(t)
	fmt.Fprintf(c, "GET /%%0a%%0d%%22level%%22 HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
	if got, _ := io.ReadAll(c); !strings.HasPrefix(string(got), "HTTP/1.1 400") {
		t.Errorf("a line break in the path is answered %q", got)
	}
	w.log.find(t, "the request with a line break", func(r record) bool { return r["status"] == 400.0 }) // read as JSON: one line, one event
}
