package devprovider_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"authproxy/devprovider"
)

// signedIn reports whether the browser still has a session at the provider.
func (b *browser) signedIn() bool {
	b.t.Helper()
	return answer(b.t, b.authorize("prompt=none")).Has("code")
}

func TestLogoutV2(t *testing.T) {
	o := options()
	o.LogoutURLs = []string{"https://tenant.example/out"}
	o.Clients = append(o.Clients, devprovider.Client{ID: "open", Secret: "x"})
	p := start(t, o)
	for _, row := range []struct {
		name, query string
		status      int
		location    string
	}{
		{"neither parameter", "", 200, ""},
		{"a client only", "client_id=client", 302, "http://127.0.0.1:9/"},
		{"an allowed URL", "client_id=client&returnTo=http://127.0.0.1:9/bye?x=1", 302, "http://127.0.0.1:9/bye?x=1"},
		{"another query and a fragment", "client_id=client&returnTo=http://127.0.0.1:9/bye?y=2%23z", 302, "http://127.0.0.1:9/bye?y=2#z"},
		{"the host in upper case", "client_id=open&returnTo=http://LOCALHOST:9/x", 302, "http://LOCALHOST:9/x"},
		{"another path", "client_id=client&returnTo=http://127.0.0.1:9/bye/", 400, ""},
		{"the path in upper case", "client_id=client&returnTo=http://127.0.0.1:9/BYE", 400, ""},
		{"no slash at the end", "client_id=client&returnTo=http://127.0.0.1:9", 400, ""},
		{"another host", "client_id=client&returnTo=http://evil.example/", 400, ""},
		{"user information", "client_id=client&returnTo=http://x@127.0.0.1:9/", 400, ""},
		{"no URL of the web", "client_id=open&returnTo=javascript:alert(1)", 400, ""},
		{"an unknown client", "client_id=x&returnTo=http://127.0.0.1:9/", 400, ""},
		{"a URL of a client without the client", "returnTo=http://127.0.0.1:9/", 400, ""},
		{"a URL of the tenant", "returnTo=https://tenant.example/out", 302, "https://tenant.example/out"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBrowser(t, p)
			b.login("ada")
			got := b.get("/v2/logout?" + row.query)
			if got.status != row.status || got.location != row.location {
				t.Errorf("status %d to %q, want %d to %q", got.status, got.location, row.status, row.location)
			}
			if alive := b.signedIn(); alive != (row.status == 400) {
				t.Errorf("the session lives: %t", alive)
			}
		})
	}
}

func TestLogoutOIDC(t *testing.T) {
	o := options()
	o.Clients = append(o.Clients, devprovider.Client{ID: "other", Secret: "x"})
	p := start(t, o)
	other := newBrowser(t, p)
	_, body := redeem(t, p, other.login("ada").Get("code"))
	foreign, _ := body["id_token"].(string) // of another browser's session
	const to = "&post_logout_redirect_uri=http://127.0.0.1:9/"
	for _, row := range []struct {
		name, query string // HINT and SID stand for those of this session
		status      int
		location    string
	}{
		{"an ID token as hint", "id_token_hint=HINT" + to, 302, "http://127.0.0.1:9/"},
		{"with its client and a state", "id_token_hint=HINT&client_id=client&state=a+b" + to, 302, "http://127.0.0.1:9/?state=a%20b"},
		{"a sid as hint", "logout_hint=SID&client_id=client" + to, 302, "http://127.0.0.1:9/"},
		{"an allowed URL with its query", "id_token_hint=HINT&state=s&post_logout_redirect_uri=http://127.0.0.1:9/bye?x=1", 302, "http://127.0.0.1:9/bye?x=1&state=s"},
		{"no hint: a question", "client_id=client" + to, 200, ""},
		{"the hint of another session: a question", "id_token_hint=" + foreign + to, 200, ""},
		{"a hint of nothing: a question", "logout_hint=x&client_id=client" + to, 200, ""},
		{"another query", "id_token_hint=HINT&post_logout_redirect_uri=http://127.0.0.1:9/bye?x=2", 400, ""},
		{"another URL", "id_token_hint=HINT&post_logout_redirect_uri=http://evil.example/", 400, ""},
		{"a URL without a client", "logout_hint=SID" + to, 400, ""},
		{"an unknown client", "client_id=x" + to, 400, ""},
		{"a hint for another client", "id_token_hint=HINT&client_id=other" + to, 400, ""},
		{"a hint that contradicts the other", "id_token_hint=HINT&logout_hint=x" + to, 400, ""},
		{"a hint that is no token", "id_token_hint=x" + to, 400, ""},
		{"a hint signed by somebody else", "id_token_hint=FORGED" + to, 400, ""},
		{"a parameter twice", "id_token_hint=HINT&id_token_hint=HINT", 400, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBrowser(t, p)
			_, body := redeem(t, p, b.login("ada").Get("code"))
			hint, _ := body["id_token"].(string)
			header, claims := open(t, hint)
			forged := (&devprovider.Token{Header: header, Claims: claims, Key: devprovider.UnpublishedKey()}).Sign()
			got := b.get("/oidc/logout?" + strings.NewReplacer("HINT", hint, "FORGED", forged, "SID", p.LastSID()).Replace(row.query))
			if got.status != row.status || got.location != row.location {
				t.Errorf("status %d to %q, want %d to %q", got.status, got.location, row.status, row.location)
			}
			if alive := b.signedIn(); alive != (row.status != 302) {
				t.Errorf("the session lives: %t", alive)
			}
		})
	}
}

func TestLogoutHintMayBeExpiredAndOfARotatedKey(t *testing.T) {
	o, c := options(), newClock()
	o.Now = c.Now
	p := start(t, o)
	b := newBrowser(t, p)
	_, body := redeem(t, p, b.login("ada").Get("code"))
	c.Advance(20 * time.Hour)
	p.RotateKeys()
	if got := b.get("/oidc/logout?id_token_hint=" + body["id_token"].(string)); got.status != 200 || !strings.Contains(got.body, "You are logged out") {
		t.Errorf("status %d, want to be logged out:\n%s", got.status, got.body)
	}
}

func TestLogoutQuestion(t *testing.T) {
	p := start(t, options())
	b, other := newBrowser(t, p), newBrowser(t, p)
	b.login("ada")
	other.login("bob")
	page := b.get("/oidc/logout?client_id=client&post_logout_redirect_uri=http://127.0.0.1:9/")
	csrf := strings.Split(strings.Split(page.body, `name="csrf" value="`)[1], `"`)[0]
	if got := other.submit(page, "/u/logout", "csrf="+csrf); got.status != 403 || !other.signedIn() {
		t.Errorf("the answer of another browser: status %d, want 403 and no logout", got.status)
	}
	if got := b.submit(page, "/u/logout", "csrf=x"); got.status != 403 || !b.signedIn() {
		t.Errorf("a forged answer: status %d, want 403 and no logout", got.status)
	}
	if got := b.submit(page, "/u/logout", "csrf="+csrf); got.status != 303 || got.location != "http://127.0.0.1:9/" || b.signedIn() {
		t.Errorf("status %d to %q, want to be logged out", got.status, got.location)
	}
}

func TestLogoutDoesNotAskWithoutSessionOrWhenToldSo(t *testing.T) {
	o := options()
	o.NoLogoutConsent = true
	p := start(t, o)
	b := newBrowser(t, p)
	b.login("ada")
	if got := b.do(b.http.PostForm(p.Issuer()+"oidc/logout", url.Values{"client_id": {"client"}, "post_logout_redirect_uri": {"http://127.0.0.1:9/"}})); got.status != 303 || b.signedIn() {
		t.Errorf("status %d, want 303 and to be logged out", got.status)
	}
	p = start(t, options())
	if got := newBrowser(t, p).get("/oidc/logout?client_id=client&post_logout_redirect_uri=http://127.0.0.1:9/"); got.status != 302 {
		t.Errorf("without a session: status %d, want 302", got.status)
	}
}

func TestBackchannelLogoutReachesTheClientsOfTheSession(t *testing.T) {
	rp, other, idle := newBackchannel(t), newBackchannel(t), newBackchannel(t)
	o, c := options(), newClock()
	o.Now = c.Now
	o.Clients[0].BackchannelURL = rp.url
	o.Clients = append(o.Clients, devprovider.Client{ID: "other", Secret: "x", BackchannelURL: other.url},
		devprovider.Client{ID: "idle", Secret: "x", BackchannelURL: idle.url}, devprovider.Client{ID: "deaf", Secret: "x"})
	p := start(t, o)
	b := newBrowser(t, p)
	b.login("ada")
	sid := p.LastSID()
	b.authorize("client_id=other")
	b.authorize("client_id=deaf")
	newBrowser(t, p).login("ada") // another session of the same user

	b.get("/v2/logout")
	p.Wait()
	if len(rp.received()) != 1 || len(other.received()) != 1 || len(idle.received()) != 0 {
		t.Fatalf("%d, %d and %d logout tokens arrived; want 1, 1 and 0", len(rp.received()), len(other.received()), len(idle.received()))
	}
	header, claims := open(t, rp.received()[0])
	now := float64(c.Now().Unix())
	if jti, _ := claims["jti"].(string); header["typ"] != "JWT" || header["alg"] != "RS256" || jti == "" {
		t.Errorf("header %v, jti %v", header, claims["jti"])
	}
	delete(claims, "jti")
	delete(claims, "trace_id")
	want := map[string]any{"iss": p.Issuer(), "aud": "client", "sub": "auth0|65f0a1ada0000000000000a1", "sid": sid, "iat": now, "exp": now + 120,
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}
	if !reflect.DeepEqual(claims, want) {
		t.Errorf("claims %v, want %v", claims, want)
	}
	if d := p.Deliveries(); len(d) != 2 || d[0].ClientID != "client" || d[0].Status != 200 || d[0].Err != nil || d[0].Token != rp.received()[0] {
		t.Errorf("deliveries %+v", d)
	}
}

func TestEndSession(t *testing.T) {
	rp := newBackchannel(t)
	o := options()
	o.Clients[0].BackchannelURL = rp.url
	p := start(t, o)
	b := newBrowser(t, p)
	b.login("ada")
	if d := p.EndSession("unknown"); d != nil {
		t.Errorf("EndSession(unknown) = %+v, want nothing", d)
	}
	if d := p.EndSession(p.LastSID()); len(d) != 1 || d[0].Status != 200 || len(rp.received()) != 1 {
		t.Errorf("EndSession = %+v with %d tokens arrived, want one", d, len(rp.received()))
	}
	if b.signedIn() {
		t.Error("the session lives on")
	}
	p.Set(func(f *devprovider.Faults) { f.NoBackchannel = true })
	b.login("ada")
	if d := p.EndSession(p.LastSID()); d != nil || len(rp.received()) != 1 {
		t.Errorf("with NoBackchannel EndSession = %+v", d)
	}
}

func TestLogoutTokenThatCannotBeDelivered(t *testing.T) {
	hits := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits++
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer s.Close()
	o := options()
	o.Clients[0].BackchannelURL = s.URL
	o.Clients = append(o.Clients, devprovider.Client{ID: "gone", Secret: "x", BackchannelURL: "http://127.0.0.1:1/"}, devprovider.Client{ID: "deaf", Secret: "x"})
	p := start(t, o)
	if d := p.SendLogout("client", "token"); d.Status != 307 || d.Err != nil || hits != 1 {
		t.Errorf("redirected: %+v after %d requests, want 307 after one", d, hits)
	}
	for _, id := range []string{"gone", "deaf", "unknown"} {
		if d := p.SendLogout(id, "token"); d.Status != 0 || d.Err == nil {
			t.Errorf("%s: %+v, want an error", id, d)
		}
	}
}

func TestLogoutTokenCanBeAnything(t *testing.T) {
	p := start(t, options())
	_, claims := open(t, p.LogoutToken("client", "", "", func(tok *devprovider.Token) { tok.Claims["nonce"] = "x"; delete(tok.Claims, "events") }))
	for name, there := range map[string]bool{"sub": false, "sid": false, "events": false, "nonce": true, "jti": true} {
		if (claims[name] != nil) != there {
			t.Errorf("%s = %v, want it: %t", name, claims[name], there)
		}
	}
}
