package proxy_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authproxy/devprovider"
	"authproxy/oidc"
	"authproxy/proxy"
	"authproxy/session"
)

// stores are the setups of the stores that are there.
var stores = map[string]setup{"cookie store": {}, "file store": {file: true}}

// notify posts a logout token as the provider does.
func notify(t *testing.T, w *world, token string) *reply {
	t.Helper()
	return w.newBrowser(t).send("POST", "/auth/backchannel-logout", url.Values{"logout_token": {token}}.Encode(), "Content-Type", "application/x-www-form-urlencoded")
}

// alive says whether the browser is still signed in.
func alive(t *testing.T, b *browser) bool {
	t.Helper()
	switch r := b.fetch("GET", "/api/x", ""); r.StatusCode {
	case 200:
		return true
	case 401:
		return false
	default:
		t.Fatalf("%s answers %s", r.at, r.Status)
		return false
	}
}

func TestALogoutTokenEndsTheSessionsThatItNames(t *testing.T) {
	for name, s := range stores {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, s)
			laptop := w.signedIn(t, "ada")
			sid := w.provider.LastSID()
			phone := w.signedIn(t, "ada")
			bob := w.signedIn(t, "bob")
			check := func(what string, wantLaptop, wantPhone bool) {
				t.Helper()
				if l, p, b := alive(t, laptop), alive(t, phone), alive(t, bob); l != wantLaptop || p != wantPhone || !b {
					t.Errorf("after %s: laptop %t, phone %t, bob %t, want %t, %t, true", what, l, p, b, wantLaptop, wantPhone)
				}
			}
			send := func(what, username, sid string) {
				t.Helper()
				r := notify(t, w, w.provider.LogoutToken(clientID, username, sid, nil)).wants(t, 200) // 204 fails the conformance suite
				if r.body != "" || r.Header.Get("Cache-Control") != "no-store" || len(lines(r)) > 0 {
					t.Errorf("%s is answered %q with Cache-Control %q and cookies %q", what, r.body, r.Header.Get("Cache-Control"), lines(r))
				}
			}
			send("an unknown sid", "", "nobody")
			check("an unknown sid", true, true)
			send("the sid of another user", "bob", sid) // both must match
			check("the sid of another user", true, true)
			send("a sid", "", sid)
			check("a sid", false, true)
			send("sub and sid", "ada", w.provider.LastSID()+"x")
			check("sub and another sid", false, true)
			send("a sub", "ada", "")
			check("a sub", false, false)
			w.clock.advance(time.Second)
			if !alive(t, w.signedIn(t, "ada")) {
				t.Error("ada cannot sign in again")
			}
		})
	}
}

func TestALogoutAtTheProviderReachesUs(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.signedIn(t, "ada")
	d := w.provider.EndSession(w.provider.LastSID())
	if len(d) != 1 || d[0].Status != 200 || d[0].Err != nil {
		t.Fatalf("the provider's notice came to %+v", d)
	}
	if alive(t, b) {
		t.Error("the session lives on")
	}
	if e := w.log.request(t, "/auth/backchannel-logout"); e["reason"] != "back-channel logout" || e["subject"] != adaSubject {
		t.Errorf("the log says %v", e)
	}
}

// Somebody who recorded a notice must not be able to end what was begun since.
func TestAReplayedLogoutTokenDoesNothing(t *testing.T) {
	for name, s := range stores {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, s)
			old := w.signedIn(t, "ada")
			token := w.provider.LogoutToken(clientID, "ada", "", nil)
			notify(t, w, token).wants(t, 200)
			if alive(t, old) {
				t.Fatal("the session lives on")
			}
			w.clock.advance(time.Second)
			b := w.signedIn(t, "ada")
			statuses := make([]int, 8)
			var running sync.WaitGroup
			for i := range statuses {
				running.Go(func() {
					r := must(http.NewRequest("POST", w.origin+"/auth/backchannel-logout", strings.NewReader(url.Values{"logout_token": {token}}.Encode())))
					r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
					if res, err := b.transport.RoundTrip(r); err == nil {
						statuses[i] = res.StatusCode
						res.Body.Close()
					}
				})
			}
			running.Wait()
			if slices.ContainsFunc(statuses, func(s int) bool { return s != 200 }) {
				t.Errorf("the replays are answered %v", statuses)
			}
			if !alive(t, b) {
				t.Error("the replay ended a session that was begun since")
			}
			w.clock.advance(4 * time.Minute) // beyond exp and leeway nothing needs to be remembered
			notify(t, w, token).wantsJSON(t, 400, "invalid_request")
			if !alive(t, b) {
				t.Error("the expired replay ended a session that was begun since")
			}
		})
	}
}

func TestALogoutTokenWithADefectIsRefused(t *testing.T) {
	const event = "http://schemas.openid.net/event/backchannel-logout"
	w := newWorld(t, setup{})
	b := w.signedIn(t, "ada")
	claim := func(name string, value any) func(*devprovider.Token) {
		return func(t *devprovider.Token) { t.Claims[name] = value }
	}
	without := func(name string) func(*devprovider.Token) {
		return func(t *devprovider.Token) { delete(t.Claims, name) }
	}
	now := w.clock.Now().Unix()
	for name, change := range map[string]func(*devprovider.Token){
		"alg none":                    func(t *devprovider.Token) { t.Header["alg"], t.Key = "none", nil },
		"HS256":                       func(t *devprovider.Token) { t.Header["alg"], t.Key = "HS256", []byte(clientSecret) },
		"PS256":                       func(t *devprovider.Token) { t.Header["alg"] = "PS256" },
		"an unpublished key":          func(t *devprovider.Token) { t.Key = devprovider.UnpublishedKey() },
		"the type of an access token": func(t *devprovider.Token) { t.Header["typ"] = "at+jwt" },
		"another issuer":              claim("iss", "https://evil.test/"),
		"our issuer but for a letter": claim("iss", w.provider.Issuer()+"x"),
		"no issuer":                   without("iss"),
		"another audience":            claim("aud", "other"),
		"a second audience":           claim("aud", []string{clientID, "other"}),
		"no audience":                 without("aud"),
		"no iat":                      without("iat"),
		"iat to come":                 claim("iat", now+120),
		"iat long ago":                claim("iat", now-600),
		"no exp":                      without("exp"),
		"expired":                     claim("exp", now-120),
		"good for a year":             claim("exp", now+365*24*3600),
		"no jti":                      without("jti"),
		"jti that is a number":        claim("jti", 7),
		"no events":                   without("events"),
		"events that is a list":       claim("events", []string{event}),
		"another event":               claim("events", map[string]any{event + "/foobar": map[string]any{}}),
		"an event that is null":       claim("events", map[string]any{event: nil}),
		"an event that is a text":     claim("events", map[string]any{event: "x"}),
		"a nonce":                     claim("nonce", "x"),
		"a nonce that is null":        claim("nonce", nil),
		"neither sub nor sid":         func(t *devprovider.Token) { delete(t.Claims, "sub"); delete(t.Claims, "sid") },
		"sub that is a number":        claim("sub", 7),
		"sid that is a number":        claim("sid", 7),
		"an empty sub":                claim("sub", ""),
		"Sub beside sub":              claim("Sub", "auth0|other"),
		"no JSON":                     func(t *devprovider.Token) { t.Payload = []byte("hello") },
		"sub twice": func(t *devprovider.Token) {
			t.Payload = []byte(strings.Replace(string(t.JSON()), "{", `{"sub":"x",`, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := notify(t, w, w.provider.LogoutToken(clientID, "ada", w.provider.LastSID(), change))
			r.wantsJSON(t, 400, "invalid_request")
			if !alive(t, b) {
				t.Fatal("the session has ended")
			}
		})
	}
	good := w.provider.LogoutToken(clientID, "ada", "", nil)
	form := "application/x-www-form-urlencoded"
	for name, c := range map[string]struct{ kind, body string }{
		"an ID token":          {form, "logout_token=" + idTokenOf(w)},
		"nothing":              {form, ""},
		"an empty token":       {form, "logout_token="},
		"two tokens":           {form, "logout_token=" + good + "&logout_token=" + good},
		"another parameter":    {form, "token=" + good},
		"JSON":                 {"application/json", `{"logout_token":"` + good + `"}`},
		"no kind at all":       {"", "logout_token=" + good},
		"more than 64 KiB":     {form, "logout_token=" + good + "&x=" + strings.Repeat("x", 64<<10)},
		"a token of 64 KiB":    {form, "logout_token=" + strings.Repeat("a", 60<<10) + ".b.c"},
		"a token in the query": {form, ""},
		"a broken escape":      {form, "logout_token=%zz"},
	} {
		t.Run(name, func(t *testing.T) {
			ref := "/auth/backchannel-logout"
			if name == "a token in the query" {
				ref += "?logout_token=" + good
			}
			r := b.send("POST", ref, c.body, "Content-Type", c.kind)
			r.wantsJSON(t, 400, "invalid_request")
			if !alive(t, b) {
				t.Fatal("the session has ended")
			}
		})
	}
	b.send("POST", "/auth/backchannel-logout", "unknown=1&logout_token="+good, "Content-Type", form+"; charset=utf-8").wants(t, 200)
	if alive(t, b) {
		t.Error("the session lives on after a good token")
	}
}

// idTokenOf is an ID token that the provider gave us.
func idTokenOf(w *world) string {
	var token string
	w.faults(func(f *devprovider.Faults) { f.SignedID = func(s string) string { token = s; return s } })
	w.signedIn(w.t, "ada")
	w.faults(func(f *devprovider.Faults) { f.SignedID = nil })
	return token
}

// A notice that cannot be checked is not refused for good: the provider may try again.
func TestALogoutTokenThatCannotBeCheckedIsAnsweredTryLater(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.signedIn(t, "ada")
	w.restart() // knows neither the provider nor its keys
	token := w.provider.LogoutToken(clientID, "ada", "", nil)
	for name, fault := range map[string]func(*devprovider.Faults){
		"down": func(f *devprovider.Faults) { f.Down = true },
		"keys": func(f *devprovider.Faults) { f.Fail = map[string]int{"jwks": 500} },
	} {
		w.clock.advance(time.Second)
		w.faults(fault)
		r := notify(t, w, token)
		r.wantsJSON(t, 503, "provider_unavailable")
		if r.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", name)
		}
		w.faults(func(f *devprovider.Faults) { *f = devprovider.Faults{SignInAs: "ada"} })
	}
	if !alive(t, b) {
		t.Error("the session has ended")
	}
	w.clock.advance(time.Second)
	notify(t, w, token).wants(t, 200)
	if alive(t, b) {
		t.Error("the session lives on")
	}
}

func TestALogoutTokenIsRememberedOverAReload(t *testing.T) {
	w := newWorld(t, setup{})
	w.signedIn(t, "ada")
	token := w.provider.LogoutToken(clientID, "ada", "", nil)
	notify(t, w, token).wants(t, 200)
	w.clock.advance(time.Second)
	b := w.signedIn(t, "ada")
	w.reload(nil)
	notify(t, w, token).wants(t, 200)
	if !alive(t, b) {
		t.Error("the replay ended a session that was begun since")
	}
}

func TestALoginIsUsedOnceOverAReload(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	callback := b.login("/x")
	line := b.jar.line(&http.Request{Method: "GET", URL: must(url.Parse(callback)), Header: http.Header{}})
	b.back(callback).wants(t, 303)
	w.reload(nil)
	thief := w.newBrowser(t)
	thief.onward.Set("Cookie", line)
	thief.back(callback).wants(t, 302) // begins again
	if n := w.provider.Count("token"); n != 1 || thief.session() != "" {
		t.Errorf("the code was sent %d times, session %q", n, thief.session())
	}
}

// Many notices that nobody signed must not make us ask the provider for its keys without end.
func TestAFloodOfForgedLogoutTokensAsksForTheKeysOnce(t *testing.T) {
	w := newWorld(t, setup{})
	w.signedIn(t, "ada")
	before := w.provider.Count("jwks")
	for i := range 100 {
		notify(t, w, w.provider.LogoutToken(clientID, "ada", "", func(t *devprovider.Token) {
			t.Header["kid"], t.Key = fmt.Sprint("kid", i), devprovider.UnpublishedKey()
		})).wants(t, 400)
	}
	if n := w.provider.Count("jwks") - before; n > 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

func TestALogoutTokenIsTakenWithoutRegardToOriginAndCookies(t *testing.T) {
	w := newWorld(t, setup{rp: func(c *oidc.Config) { c.Logout = "local" }, options: func(o *proxy.Options) { o.LoginsPerMinute = 1 }})
	b := w.signedIn(t, "ada")
	other := w.newBrowser(t)
	other.send("POST", "/auth/backchannel-logout", url.Values{"logout_token": {w.provider.LogoutToken(clientID, "ada", "", nil)}}.Encode(),
		"Content-Type", "application/x-www-form-urlencoded", "Origin", "https://login.example", "Sec-Fetch-Site", "cross-site", "Cookie", w.cookie+"=a; "+w.cookie+"=b").wants(t, 200)
	if alive(t, b) {
		t.Error("the session lives on")
	}
}

// What failed here was not used up: the provider sends it again, and then it counts.
func TestALogoutTokenThatAStoreFailureKeptUsFromObeyingIsObeyedLater(t *testing.T) {
	w := newWorld(t, setup{file: true})
	b := w.signedIn(t, "ada")
	token := w.provider.LogoutToken(clientID, "ada", "", nil)
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	notify(t, w, token).wantsJSON(t, 503, "session_store_unavailable")
	store := must(session.OpenFileStore(w.file, w.opts.Sealer, [][]byte{[]byte(sessionKey)}, w.sessions.Cookie(), w.sessions.Idle, w.clock.Now))
	sessions := session.NewManager(store, w.sessions.Cookie(), w.sessions.Idle, w.sessions.Life)
	sessions.Now = w.clock.Now
	t.Cleanup(func() { sessions.Close() })
	w.reload(func(o *proxy.Options) { o.Sessions = sessions })
	if !alive(t, b) {
		t.Fatal("the session has ended already")
	}
	notify(t, w, token).wants(t, 200)
	if alive(t, b) {
		t.Error("the session lives on")
	}
}
