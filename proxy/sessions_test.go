package proxy_test

import (
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"authproxy/assertion"
	"authproxy/devprovider"
	"authproxy/policy"
	"authproxy/proxy"
)

var formID = regexp.MustCompile(`name="id" value="([^"]*)"`)

func TestUsersSeeTheirSessionsAndEndThem(t *testing.T) {
	w := newWorld(t, setup{file: true})
	bob := w.signedIn(t, "bob")
	phone := w.newBrowser(t)
	phone.onward.Set("User-Agent", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Mobile/15E148 Safari/604.1")
	w.faults(func(f *devprovider.Faults) { f.SignInAs = "ada" })
	phone.follow("/").wants(t, 200)
	laptop, tablet := w.signedIn(t, "ada"), w.signedIn(t, "ada")

	r := laptop.navigate("/auth/sessions").wantsPage(t, 200, "Your sessions")
	r.wants(t, 200, "Safari on iPhone", "127.0.0.1")
	ids := formID.FindAllStringSubmatch(r.body, -1)
	if len(ids) != 2 { // not the one that it is in
		t.Fatalf("the page offers to end %d sessions: %s", len(ids), r.brief())
	}
	for _, b := range []*browser{phone, laptop, tablet, bob} {
		if strings.Contains(r.body, b.session()) {
			t.Error("the page has a cookie in it")
		}
	}
	action := html.UnescapeString(formAction.FindStringSubmatch(r.body)[1])

	bob.post("/auth/sessions", url.Values{"id": {ids[0][1]}}).wants(t, 303) // somebody else's: nothing happens
	if !alive(t, phone) || !alive(t, tablet) {
		t.Error("bob has ended a session of ada's")
	}
	laptop.post("/auth/sessions", url.Values{"id": {ids[0][1]}}, "Sec-Fetch-Site", "cross-site", "Cookie", w.cookie+"="+laptop.session()).wantsPage(t, 403, "That came from another site")
	laptop.post("/auth/sessions", nil).wants(t, 400)
	laptop.send("POST", "/auth/sessions", `{"others":"true"}`, "Content-Type", "application/json", "Sec-Fetch-Site", "same-origin").wants(t, 400)

	if to := laptop.post(action, url.Values{"id": {ids[0][1]}}).wants(t, 303).Header.Get("Location"); to != "/auth/sessions?ended=one" {
		t.Errorf("the form leads to %s", to)
	}
	laptop.navigate("/auth/sessions?ended=one").wants(t, 200, "The session has ended.")
	if alive(t, phone) == alive(t, tablet) {
		t.Error("not exactly one session has ended")
	}
	laptop.onwardFrom(laptop.post("/auth/sessions", url.Values{"others": {"true"}}).wants(t, 303)).wants(t, 200, "All other sessions have ended.")
	if r := laptop.navigate("/auth/sessions?ended=%3Cb%3E"); strings.Contains(r.body, "ended") {
		t.Errorf("the page says what a link wants it to say: %s", r.brief())
	}
	if alive(t, phone) || alive(t, tablet) || !alive(t, laptop) || !alive(t, bob) {
		t.Errorf("alive: phone %t, tablet %t, laptop %t, bob %t", alive(t, phone), alive(t, tablet), alive(t, laptop), alive(t, bob))
	}
}

func TestThePageOfSessionsIsForSignedInUsersOfAStoreThatListsThem(t *testing.T) {
	w := newWorld(t, setup{file: true})
	b := w.newBrowser(t)
	b.fetch("GET", "/auth/sessions", "").wantsJSON(t, 401, "login_required")
	if got := b.navigate("/auth/sessions").wants(t, 302).Header.Get("Location"); got != "/auth/login?return_to=%2Fauth%2Fsessions" {
		t.Errorf("a stranger is sent to %q", got)
	}
	b.follow("/auth/sessions").wantsPage(t, 200, "Your sessions")
	other := newWorld(t, setup{}) // the cookie store has no list
	other.signedIn(t, "ada").navigate("/auth/sessions").wantsPage(t, 404, "Page not found")
}

func TestTheKeysOfAssertionsArePublic(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	r := b.fetch("GET", "/auth/jwks.json", "").wants(t, 200)
	etag := r.Header.Get("ETag")
	if r.Header.Get("Cache-Control") != "public, max-age=300" || etag == "" || r.Header.Get("Content-Type") != "application/jwk-set+json" {
		t.Errorf("the headers are %v", r.Header)
	}
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(r.body), &set); err != nil || len(set.Keys) == 0 {
		t.Fatalf("the keys are %s", r.body)
	}
	for _, k := range set.Keys {
		if k["d"] != nil || k["kid"] == nil || k["alg"] != "ES256" || k["use"] != "sig" {
			t.Errorf("a key is %v", k)
		}
	}
	if r.body != string(w.proxy.PublicKeys()) {
		t.Error("PublicKeys are others")
	}
	for _, match := range []string{etag, "W/" + etag, "*"} {
		if r := b.fetch("GET", "/auth/jwks.json", "", "If-None-Match", match); r.StatusCode != http.StatusNotModified || r.body != "" {
			t.Errorf("If-None-Match %s is answered %s", match, r.Status)
		}
	}
	if r := b.fetch("HEAD", "/auth/jwks.json", ""); r.body != "" || r.Header.Get("ETag") != etag {
		t.Errorf("HEAD is answered with %q and %v", r.body, r.Header)
	}
	ada := w.signedIn(t, "ada")
	ada.navigate("/x").wants(t, 200)
	claims, err := assertion.Verify(w.upstream.last(t).Header.Get("X-Authproxy-Assertion"), []byte(r.body), w.origin, w.upstream.URL, w.clock.Now())
	if err != nil || claims["sub"] != adaSubject {
		t.Errorf("the assertion says %v, %v", claims, err)
	}
}

func TestAnAssertionIsUsedForHalfItsLifeAndIsForItsUpstreamOnly(t *testing.T) {
	w := newWorld(t, setup{options: func(o *proxy.Options) {
		up := *o.Default
		o.Routes = append(o.Routes, proxy.Route{Path: "/other", Policy: &policy.Policy{SignedIn: true}, Upstream: &up, Audience: "https://other.test"})
		o.Identity.OnlyGroups = []string{"staff"}
	}})
	b := w.signedIn(t, "ada")
	ask := func(path string) (string, map[string]any) {
		b.navigate(path).wants(t, 200)
		audience := w.upstream.URL
		if path == "/other" {
			audience = "https://other.test"
		}
		token := w.upstream.last(t).Header.Get("X-Authproxy-Assertion")
		claims, err := assertion.Verify(token, w.proxy.PublicKeys(), w.origin, audience, w.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		return token, claims
	}
	first, claims := ask("/x")
	if groups, ok := claims["groups"].([]any); !ok || len(groups) != 1 || groups[0] != "staff" { // policy sees all of them, the upstream these
		t.Errorf("the groups are %v", claims["groups"])
	}
	b.navigate("/admin").wants(t, 200)
	w.clock.advance(59 * time.Second)
	if again, _ := ask("/x"); again != first {
		t.Error("another assertion within half its life")
	}
	w.clock.advance(2 * time.Second)
	second, later := ask("/x")
	if second == first || later["sid"] != claims["sid"] || later["jti"] == claims["jti"] {
		t.Errorf("after half its life: the same %t, sid %v and %v", second == first, claims["sid"], later["sid"])
	}
	other, _ := ask("/other")
	if other == second {
		t.Error("two upstreams get one assertion")
	}
	b.navigate("/x", "X-Authproxy-Assertion", other, "Authorization", "Bearer "+other).wants(t, 200)
	if got := w.upstream.last(t).Header["X-Authproxy-Assertion"]; len(got) != 1 || got[0] != second {
		t.Error("a client's assertion came through")
	}
	w.newBrowser(t).fetch("GET", "/api/x", "", "X-Authproxy-Assertion", other, "Authorization", "Bearer "+other).wants(t, 401) // no credential
}
