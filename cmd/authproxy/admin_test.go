package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"authproxy/config"
)

func sessionsOf(t *testing.T, w *world, query string) []listedSession {
	t.Helper()
	var list []listedSession
	a := w.admin("GET", "/sessions"+query).want(t, http.StatusOK)
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || list == nil {
		t.Fatalf("GET /sessions%s = %s, want a JSON list", query, a.body)
	}
	return list
}

const ada, bob = "auth0|65f0a1ada0000000000000a1", "auth0|65f0a1b0b0000000000000b0"

func ofSubject(s string) string { return "?" + url.Values{"subject": {s}}.Encode() }

func TestSessionsAreListedAndEnded(t *testing.T) {
	w := start(t, settings{})
	one, two, other := w.signIn("ada"), w.signIn("ada"), w.signIn("bob")
	alive := func(wantOne, wantTwo, wantOther bool) {
		t.Helper()
		if a, b, c := one.signedIn(), two.signedIn(), other.signedIn(); a != wantOne || b != wantTwo || c != wantOther {
			t.Errorf("signed in: ada %t and %t, bob %t; want %t, %t, %t", a, b, c, wantOne, wantTwo, wantOther)
		}
	}

	if n := len(sessionsOf(t, w, "")); n != 3 {
		t.Errorf("%d sessions, want 3", n)
	}
	if n := len(sessionsOf(t, w, ofSubject("nobody"))); n != 0 {
		t.Errorf("nobody has %d sessions", n)
	}
	list := sessionsOf(t, w, ofSubject(ada))
	if len(list) != 2 {
		t.Fatalf("ada has %d sessions, want 2", len(list))
	}
	latest := list[0]
	if latest.ID == "" || latest.Subject != ada || latest.Issuer != w.provider.Issuer() || latest.Address != "127.0.0.1" || !strings.HasPrefix(latest.Agent, "Go-http-client") ||
		latest.Used.Before(latest.Created) || !latest.Expires.After(latest.Used) {
		t.Errorf("ada's latest session is %+v", latest)
	}
	w.admin("GET", "/sessions/"+latest.ID).want(t, http.StatusOK, `"id":"`+latest.ID+`"`)

	w.admin("DELETE", "/sessions/"+latest.ID).want(t, http.StatusNoContent)
	alive(true, false, true)
	w.admin("DELETE", "/sessions/"+latest.ID).want(t, http.StatusNotFound)
	w.admin("GET", "/sessions/"+latest.ID).want(t, http.StatusNotFound)
	w.admin("DELETE", "/sessions"+ofSubject(ada)).want(t, http.StatusNoContent)
	alive(false, false, true)
	w.admin("DELETE", "/sessions?all=true").want(t, http.StatusNoContent)
	alive(false, false, false)
	if n := len(sessionsOf(t, w, "")); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

func TestTheListOfSessionsOpensNone(t *testing.T) {
	w := start(t, settings{})
	v := w.signIn("ada")
	body := w.admin("GET", "/sessions").want(t, http.StatusOK, ada).body
	for _, c := range v.cookies() {
		if strings.Contains(body, c) {
			t.Errorf("the list has the cookie value %q", c)
		}
	}
	for _, s := range sessionsOf(t, w, "") {
		req, err := http.NewRequest("GET", w.url+"/auth/me", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.AddCookie(&http.Cookie{Name: "authproxy", Value: s.ID})
		resp, err := new(http.Client).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("with a listed ID as cookie: status %d", resp.StatusCode)
		}
	}
}

func TestWhatIsNotUnderstoodEndsNothing(t *testing.T) {
	w := start(t, settings{})
	v := w.signIn("ada")
	id := sessionsOf(t, w, "")[0].ID
	for request, status := range map[string]int{
		"DELETE /sessions":                            400,
		"DELETE /sessions?":                           400,
		"DELETE /sessions?all=false":                  400,
		"DELETE /sessions?all=TRUE":                   400,
		"DELETE /sessions?all=true&subject=x":         400,
		"DELETE /sessions?all=true&all=true":          400,
		"DELETE /sessions?subject=":                   400,
		"DELETE /sessions?subject=auth0|ada&issuer=x": 400,
		"DELETE /sessions?id=" + id:                   400,
		"DELETE /sessions?all=true;":                  400,
		"DELETE /sessions?subject=%zz":                400,
		"DELETE /sessions/" + id + "?all=true":        400,
		"DELETE /sessions/":                           404,
		"DELETE /sessions/" + id + "/x":               404,
		"POST /sessions?all=true":                     405,
		"PUT /sessions/" + id:                         405,
		"OPTIONS /sessions?all=true":                  405,
		"GET /sessions?subject=a&subject=b":           400,
		"GET /sessions?all=true&subject=auth0|ada":    400,
	} {
		t.Run(request, func(t *testing.T) {
			method, path, _ := strings.Cut(request, " ")
			w.admin(method, strings.ReplaceAll(path, "|", "%7C")).want(t, status)
			if !v.signedIn() {
				t.Fatal("the session has ended")
			}
		})
	}
}

func TestTheCookieStoreEndsWhatItCannotList(t *testing.T) {
	w := start(t, settings{store: "cookie"})
	v, other := w.signIn("ada"), w.signIn("bob")
	w.admin("GET", "/sessions").want(t, http.StatusNotImplemented, "keeps no list")
	w.admin("GET", "/sessions/x").want(t, http.StatusNotImplemented)
	w.admin("DELETE", "/sessions/x").want(t, http.StatusNoContent) // nobody can know
	if !v.signedIn() || !other.signedIn() {
		t.Error("a session ended that nobody named")
	}
	w.admin("DELETE", "/sessions"+ofSubject(ada)).want(t, http.StatusNoContent)
	if v.signedIn() || !other.signedIn() {
		t.Errorf("ada is signed in: %t, bob: %t, want false, true", v.signedIn(), other.signedIn())
	}
	w.admin("DELETE", "/sessions?all=true").want(t, http.StatusNoContent)
	if other.signedIn() {
		t.Error("bob is signed in after all sessions were ended")
	}
}

// Until discovery has said how the provider spells its issuer, the configured spelling may differ by a slash.
func TestASubjectIsSoughtUnderBothSpellingsOfTheIssuer(t *testing.T) {
	w := start(t, settings{})
	got := map[string]bool{}
	for _, sel := range w.server.ofSubject(ada) {
		if sel.All || sel.Subject != ada {
			t.Errorf("selector %+v", sel)
		}
		got[sel.Issuer] = true
	}
	if issuer := w.provider.Issuer(); len(got) != 2 || !got[issuer] || !got[strings.TrimSuffix(issuer, "/")] {
		t.Errorf("issuers %v, want %s with and without the slash", got, issuer)
	}
}

func TestTheTokenGuardsSessionsAndNothingElse(t *testing.T) {
	const token = "a-token-for-the-admin"
	w := start(t, settings{token: token})
	v := w.signIn("ada")
	for name, headers := range map[string][]string{
		"none":               nil,
		"wrong":              {"Authorization", "Bearer wrong"},
		"empty":              {"Authorization", "Bearer "},
		"a part":             {"Authorization", "Bearer " + token[:len(token)-1]},
		"more":               {"Authorization", "Bearer " + token + "x"},
		"with a space":       {"Authorization", "Bearer  " + token},
		"another scheme":     {"Authorization", "Basic " + token},
		"no scheme":          {"Authorization", token},
		"twice":              {"Authorization", "Bearer " + token, "Authorization", "Bearer " + token},
		"in another header":  {"X-Token", token},
		"right, from a page": {"Authorization", "Bearer " + token, "Origin", "https://evil.example"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, request := range []string{"GET /sessions", "DELETE /sessions?all=true", "DELETE /sessions/x"} {
				method, path, _ := strings.Cut(request, " ")
				a := w.admin(method, path, headers...)
				if a.status != http.StatusUnauthorized && a.status != http.StatusForbidden {
					t.Errorf("%s: status %d", request, a.status)
				}
				if strings.Contains(a.body, ada) || strings.Contains(a.body, token) {
					t.Errorf("%s: body %s", request, a.body)
				}
			}
		})
	}
	if !v.signedIn() {
		t.Error("the session has ended")
	}
	w.admin("GET", "/sessions", "Authorization", "bearer "+token).want(t, http.StatusOK, ada)
	if got := w.admin("GET", "/sessions").header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer") {
		t.Errorf("WWW-Authenticate %q", got)
	}
	for _, path := range []string{"/healthz", "/readyz", "/jwks.json"} {
		w.admin("GET", path).want(t, http.StatusOK)
	}
}

func TestAnEmptyTokenMatchesNothing(t *testing.T) {
	for _, given := range []string{"", "Bearer", "Bearer ", "Bearer x"} {
		r := httptest.NewRequest("GET", "/sessions", nil)
		r.Header.Set("Authorization", given)
		if hasToken(r, "") {
			t.Errorf("Authorization %q matches the empty token", given)
		}
	}
}

func TestWithoutATokenOnlyThisMachineAdministers(t *testing.T) {
	const loopback = "127.0.0.1:9090"
	for name, test := range map[string]struct {
		listen       string
		peer, host   string
		unix         bool
		header, text string
		want         bool
	}{
		"this machine":                          {listen: loopback, peer: "127.0.0.1:5", host: loopback, want: true},
		"this machine, IPv6":                    {listen: "[::1]:9090", peer: "[::1]:5", host: "[::1]:9090", want: true},
		"this machine, mapped":                  {listen: loopback, peer: "[::ffff:127.0.0.1]:5", host: loopback, want: true},
		"by name":                               {listen: "localhost:9090", peer: "127.0.0.1:5", host: "LOCALHOST", want: true},
		"no Host":                               {listen: loopback, peer: "127.0.0.1:5", host: ""},
		"another machine":                       {listen: loopback, peer: "10.0.0.7:5", host: loopback},
		"a peer that cannot be read":            {listen: loopback, peer: "", host: loopback},
		"listening everywhere":                  {listen: ":9090", peer: "127.0.0.1:5", host: loopback},
		"listening on 0.0.0.0":                  {listen: "0.0.0.0:9090", peer: "127.0.0.1:5", host: loopback},
		"listening on a network":                {listen: "10.0.0.1:9090", peer: "127.0.0.1:5", host: loopback},
		"a name that resolves here (rebinding)": {listen: loopback, peer: "127.0.0.1:5", host: "evil.example:9090"},
		"a name like ours":                      {listen: loopback, peer: "127.0.0.1:5", host: "localhost.evil.example"},
		"a page":                                {listen: loopback, peer: "127.0.0.1:5", host: loopback, header: "Origin", text: "http://127.0.0.1:9090"},
		"a page of no origin":                   {listen: loopback, peer: "127.0.0.1:5", host: loopback, header: "Origin", text: "null"},
		"an image of a page":                    {listen: loopback, peer: "127.0.0.1:5", host: loopback, header: "Sec-Fetch-Site", text: "cross-site"},
		"somebody by way of a proxy":            {listen: loopback, peer: "127.0.0.1:5", host: loopback, header: "X-Forwarded-For", text: "10.0.0.7"},
		"somebody, by another header":           {listen: loopback, peer: "127.0.0.1:5", host: loopback, header: "Forwarded", text: "for=10.0.0.7"},
		"a unix socket":                         {listen: "unix:/run/admin", peer: "@", host: "whatever", unix: true, want: true},
		"a unix socket, from a page":            {listen: "unix:/run/admin", peer: "@", host: "localhost", unix: true, header: "Origin", text: "null"},
		"a unix socket that is none":            {listen: "unix:/run/admin", peer: "127.0.0.1:5", host: loopback},
	} {
		t.Run(name, func(t *testing.T) {
			admin := config.Admin{Listen: config.Addr{Network: "tcp", Address: test.listen}}
			if path, ok := strings.CutPrefix(test.listen, "unix:"); ok {
				admin.Listen = config.Addr{Network: "unix", Address: path}
			}
			r := httptest.NewRequest("GET", "/sessions", nil)
			r.RemoteAddr, r.Host = test.peer, test.host
			if test.header != "" {
				r.Header.Set(test.header, test.text)
			}
			var local net.Addr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9090}
			if test.unix {
				local = &net.UnixAddr{Name: "/run/admin", Net: "unix"}
			}
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
			if err := mayAdminister(admin, r); (err == nil) != test.want {
				t.Errorf("mayAdminister = %v, want it to let through: %t", err, test.want)
			}
		})
	}
}

func TestAWebPageGetsNothing(t *testing.T) {
	w := start(t, settings{})
	w.signIn("ada")
	for _, headers := range [][]string{{"Origin", "https://evil.example"}, {"Host", "evil.example"}, {"Sec-Fetch-Site", "same-origin"}} {
		for _, method := range []string{"GET", "DELETE", "OPTIONS"} {
			a := w.admin(method, "/sessions?all=true", headers...).want(t, http.StatusForbidden)
			for name := range a.header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s with %s: the answer has %s", method, headers, name)
				}
			}
		}
	}
	if n := len(sessionsOf(t, w, "")); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

func TestAdminAnswersAreNotStored(t *testing.T) {
	w := start(t, settings{})
	for _, path := range []string{"/healthz", "/readyz", "/sessions", "/sessions/x", "/nothing"} {
		a := w.admin("GET", path)
		if got := a.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("GET %s: Cache-Control %q", path, got)
		}
	}
	if got := w.admin("GET", "/jwks.json").header.Get("Cache-Control"); got != "public, max-age=300" {
		t.Errorf("GET /jwks.json: Cache-Control %q", got)
	}
}

func TestReadinessIsTruthful(t *testing.T) {
	w := start(t, settings{})
	w.admin("GET", "/readyz").want(t, http.StatusOK)
	w.server.ready.Store(false)
	w.admin("GET", "/readyz").want(t, http.StatusServiceUnavailable, "stopping")
	w.server.ready.Store(true)
	w.server.now().sessions.Close()
	w.admin("GET", "/readyz").want(t, http.StatusServiceUnavailable, "store")
	w.admin("GET", "/healthz").want(t, http.StatusOK)
	w.admin("GET", "/sessions").want(t, http.StatusServiceUnavailable, "session_store_unavailable")
	w.admin("DELETE", "/sessions?all=true").want(t, http.StatusServiceUnavailable)
}
