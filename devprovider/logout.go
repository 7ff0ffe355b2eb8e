package devprovider

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// backchannelEvent is what a logout token says has happened (Back-Channel Logout 1.0 §2.4).
const backchannelEvent = "http://schemas.openid.net/event/backchannel-logout"

// A consent is a question put to a user: whether to log out. Its key is unguessable and only in the form.
type consent struct {
	session string // the cookie of the browser that was asked
	to      string
}

// logoutV2 is Auth0's own logout endpoint. It never asks. Query and fragment of returnTo do not matter in the comparison.
func (p *Provider) logoutV2(x *exchange) {
	q := x.r.URL.Query()
	to, allowed := q.Get("returnTo"), p.opts.LogoutURLs
	if id := q.Get("client_id"); id != "" {
		client, found := p.client(id)
		if !found {
			x.fail(http.StatusBadRequest, "Unknown client", "There is no client with the client_id of this request.")
			return
		}
		allowed = client.LogoutURLs
		if to == "" && len(allowed) > 0 {
			to = allowed[0]
		}
		if len(allowed) == 0 { // those of a client, not of the tenant, may be left open
			allowed = []string{to}
		}
	}
	if to != "" && !slices.ContainsFunc(allowed, func(s string) bool { return sameButQuery(s, to) }) {
		x.fail(http.StatusBadRequest, "Invalid returnTo", "The URL of the parameter returnTo is not in the list of allowed logout URLs.")
		return
	}
	cookie, _ := p.session(x)
	p.logOut(x, cookie, to)
}

// sameButQuery compares two web URLs without query and fragment. The case of the host does not matter, that of the path does.
func sameButQuery(a, b string) bool {
	cut := func(s string) (string, bool) {
		u, err := url.Parse(s)
		if err != nil {
			return "", false
		}
		base, _, _ := strings.Cut(s, "#")
		return u.Scheme + "://" + strings.ToLower(u.Host) + u.EscapedPath(), isWebURL(base)
	}
	x, ok := cut(a)
	y, also := cut(b)
	return ok && also && x == y
}

// logoutOIDC is the end session endpoint (RP-Initiated Logout 1.0). It asks unless a hint names the session of this browser.
func (p *Provider) logoutOIDC(x *exchange) {
	q := x.r.Form
	clientID, hint, sid, to := q.Get("client_id"), q.Get("id_token_hint"), q.Get("logout_hint"), q.Get("post_logout_redirect_uri")
	bad := func(text string) { x.fail(http.StatusBadRequest, "Cannot log out", text) }
	if name := duplicated(q); name != "" {
		bad("The parameter " + name + " is there more than once.")
		return
	}
	if hint != "" {
		claims, ok := p.ownIDToken(hint)
		audience, _ := claims["aud"].(string)
		hinted, _ := claims["sid"].(string)
		switch {
		case !ok:
			bad("The parameter id_token_hint is not an ID token of this provider.")
			return
		case clientID != "" && clientID != audience:
			bad("The parameters client_id and id_token_hint name different clients.")
			return
		case sid != "" && hinted != "" && sid != hinted:
			bad("The parameters logout_hint and id_token_hint name different sessions.")
			return
		}
		clientID = audience
		if sid == "" {
			sid = hinted
		}
	}
	if to != "" {
		client, found := p.client(clientID)
		switch {
		case clientID == "":
			bad("The parameter post_logout_redirect_uri needs a client_id or id_token_hint beside it.")
			return
		case !found:
			bad("There is no client with the client_id of this request.")
			return
		case !isWebURL(to) || len(client.LogoutURLs) > 0 && !slices.Contains(client.LogoutURLs, to):
			bad("The URL of the parameter post_logout_redirect_uri is not in the list of allowed logout URLs.")
			return
		}
		if state := q.Get("state"); state != "" {
			to = withQuery(to, "?", url.Values{"state": {state}})
		}
	}
	cookie, s := p.session(x)
	if s != nil && !equal(sid, s.sid) && !p.opts.NoLogoutConsent {
		id := random(24)
		p.mu.Lock()
		p.consents.put(id, &consent{cookie, to}, x.now, x.now.Add(transactionLife))
		p.mu.Unlock()
		x.page(http.StatusOK, "consent", view{Title: "Log out?", CSRF: id, Name: s.username})
		return
	}
	p.logOut(x, cookie, to)
}

// ownIDToken returns the claims of an ID token that this provider signed, however long ago (RP-Initiated Logout 1.0 §4).
func (p *Provider) ownIDToken(jwt string) (map[string]any, bool) {
	header, claims, input, sig, err := openJWT(jwt)
	if err != nil || header["alg"] != "RS256" || claims["iss"] != p.opts.Issuer {
		return nil, false
	}
	p.mu.Lock()
	signed := min(p.key+1, ring) // keys that have
	p.mu.Unlock()
	for i := range signed {
		if key := keyAt(i); key.kid == header["kid"] {
			return claims, verified("RS256", &key.private.PublicKey, input, sig)
		}
	}
	return nil, false
}

// logoutPage takes the answer to the question whether to log out.
func (p *Provider) logoutPage(x *exchange) {
	id := x.r.PostForm.Get("csrf")
	cookie, _ := p.session(x)
	p.mu.Lock()
	c, found := p.consents.get(id, x.now)
	if found = found && equal(cookie, c.session); found {
		p.consents.delete(id)
	}
	p.mu.Unlock()
	if !found {
		x.fail(http.StatusForbidden, "Start again", "This page is too old or belongs to another browser.")
		return
	}
	p.logOut(x, cookie, c.to)
}

// logOut ends the browser's session and goes on to a URL, or to a page when that is "".
func (p *Provider) logOut(x *exchange, cookie, to string) {
	p.setCookie(x, sessionCookie, "", -time.Second)
	if s := p.end(func(key string, _ *session) bool { return key == cookie }); s != nil {
		p.mu.Lock()
		p.sending++
		p.mu.Unlock()
		go func() { // the browser does not wait, as at Auth0; Wait does
			p.deliver(s)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.sending--
			p.idle.Broadcast()
		}()
	}
	switch {
	case to == "":
		x.page(http.StatusOK, "message", view{Title: "You are logged out", Text: "Your session at this provider has ended."})
	case x.r.Method == http.MethodPost:
		x.redirect(http.StatusSeeOther, to)
	default:
		x.redirect(http.StatusFound, to)
	}
}

// end removes the session that is meant and returns it, or nil.
func (p *Provider) end(meant func(cookie string, s *session) bool) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	for cookie, s := range p.sessions.all {
		if meant(cookie, s) {
			p.sessions.delete(cookie)
			return s
		}
	}
	return nil
}

// EndSession ends a browser's session as an administrator would, sends logout tokens to the clients that took part in it, and
// returns what came of them. Refresh tokens live on, as at Auth0. For an unknown sid it does nothing.
func (p *Provider) EndSession(sid string) []Delivery {
	s := p.end(func(_ string, s *session) bool { return s.sid == sid })
	if s == nil {
		return nil
	}
	return p.deliver(s)
}

// LastSID is the sid of the last login that gave a code.
func (p *Provider) LastSID() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastSID
}

// A Delivery is what came of sending a logout token.
type Delivery struct {
	ClientID string
	Token    string // may be sent again with SendLogout
	Status   int    // of the answer; 0 when there was none
	Err      error  // why there was none
}

// Deliveries are the last 1000 attempts to send a logout token, oldest first.
func (p *Provider) Deliveries() []Delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.deliveries)
}

// Wait waits for the logout tokens that are on their way.
func (p *Provider) Wait() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.sending > 0 {
		p.idle.Wait()
	}
}

// deliver sends a logout token of a session that ended to each client that took part in it and wants one.
func (p *Provider) deliver(s *session) []Delivery {
	f := p.snapshot()
	if f.NoBackchannel {
		return nil
	}
	p.mu.Lock()
	clients := slices.DeleteFunc(slices.Clone(p.clients), func(c Client) bool { return c.BackchannelURL == "" || !s.clients[c.ID] })
	p.mu.Unlock()
	var out []Delivery
	for _, c := range clients {
		out = append(out, p.SendLogout(c.ID, p.LogoutToken(c.ID, s.username, s.sid, f.LogoutToken)))
	}
	return out
}

// LogoutToken is a logout token as Auth0 sends it (typ JWT, two minutes); change may be nil, or change it before it is signed.
// Without a username it has no sub, without a sid no sid. It panics when the user is unknown.
func (p *Provider) LogoutToken(clientID, username, sid string, change func(*Token)) string {
	now := p.now()
	t := p.newToken(map[string]any{"iss": p.opts.Issuer, "aud": clientID, "iat": now.Unix(), "exp": now.Add(logoutTokenLife).Unix(),
		"jti": random(16), "events": map[string]any{backchannelEvent: map[string]any{}}, "trace_id": random(8)})
	if username != "" {
		u, known := p.user(username)
		if !known {
			panic("devprovider: LogoutToken for an unknown user: " + username)
		}
		t.Claims["sub"] = u.Subject
	}
	if sid != "" {
		t.Claims["sid"] = sid
	}
	if change != nil {
		change(t)
	}
	return t.Sign()
}

// SendLogout posts a logout token, which may be anything, to a client's BackchannelURL. There is no second attempt.
func (p *Provider) SendLogout(clientID, token string) Delivery {
	d := Delivery{ClientID: clientID, Token: token}
	client, _ := p.client(clientID)
	d.Status, d.Err = p.post(client.BackchannelURL, token)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.deliveries) >= maxRecords {
		p.deliveries = slices.Delete(p.deliveries, 0, 1)
	}
	p.deliveries = append(p.deliveries, d)
	return d
}

func (p *Provider) post(to, token string) (status int, err error) {
	if to == "" {
		return 0, fmt.Errorf("the client has no back-channel URL")
	}
	body := strings.NewReader(url.Values{"logout_token": {token}}.Encode())
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, to, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := p.opts.HTTPClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxBody))
	return res.StatusCode, err
}
