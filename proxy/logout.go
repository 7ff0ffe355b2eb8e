package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"authproxy/identity"
	"authproxy/oidc"
	"authproxy/proxy/pages"
	"authproxy/session"
)

// logout ends our session first, then sends the browser to the provider's logout. What another site may have asked for gets
// a page with a button instead.
func (p *Proxy) logout(x *exchange) error {
	q, err := onceQuery(x.target.query, "return_to", "confirm")
	if err != nil {
		return p.badRequest(err)
	}
	to := q["return_to"]
	if x.r.Method == http.MethodPost {
		if !p.sameOrigin(x.r) && !p.confirmed(x, q["confirm"]) {
			return &failure{page: pages.CrossSite(p.home()), code: "cross_site", reason: "another site posted to /logout"}
		}
		form, err := readForm(x, 8<<10)
		if err != nil {
			return p.badRequest(err)
		}
		if to == "" {
			to = form.Get("return_to")
		}
	} else if !p.ownNavigation(x.r) {
		return p.askBeforeLogout(x, to)
	}
	back := p.home()
	if to != "" {
		back = p.returnTo(to)
	}
	atHome, ended := p.opts.Prefix != "" && back == p.home(), false
	back = p.absolute(back)

	x.setCookie(p.opts.Sessions.Cookie().Expired())
	for _, c := range x.r.Cookies() {
		if strings.HasPrefix(c.Name, p.cookies.login) && len(x.cookies) <= maxExpired {
			x.setCookie(p.expiredLoginCookie(c.Name))
		}
	}
	providerSID := ""
	for _, value := range cookieValues(x.r.Header, p.cookies.session) {
		s, _, err := p.opts.Sessions.Find(x.r.Context(), value, false)
		if err == nil {
			x.who, providerSID = s.Identity, s.ProviderSID
			err = p.opts.Sessions.End(x.r.Context(), session.Selector{ID: s.ID})
			if err == nil {
				ended = true
				p.streams.ended()
				p.renewals.revoke(s)
			}
		}
		if err != nil && !errors.Is(err, session.ErrNone) { // this browser forgets the session, but nobody is told that all is well
			return &failure{page: pages.SignedOutLocally(p.opts.Prefix+"/login", p.home()), code: "session_store_unavailable", cause: err, retry: 5 * time.Second}
		}
	}
	if ended && atHome {
		x.setCookie(p.outCookie("1", time.Minute))
	}
	if at := p.opts.Provider.LogoutURL(x.r.Context(), back, providerSID); at != "" {
		back = at
	}
	return p.signedOut(x, back)
}

// outCookie lets our home page say that the logout worked, once. The way there leads over the provider, which takes the URL to
// come back to as it is registered, without a word more.
func (p *Proxy) outCookie(value string, life time.Duration) *http.Cookie {
	c := p.opts.Sessions.Cookie()
	c.Name = p.cookies.out
	if c.SameSite == http.SameSiteStrictMode { // it comes from the provider's site
		c.SameSite = http.SameSiteLaxMode
	}
	if value == "" {
		return c.Expired()
	}
	return c.With(value, life)
}

// askBeforeLogout shows the button.
func (p *Proxy) askBeforeLogout(x *exchange, returnTo string) error {
	who, err := p.authenticate(x)
	if err != nil {
		return err
	}
	page := pages.ConfirmLogout{Host: p.opts.PublicURL.Host, Action: p.opts.Prefix + "/logout", ReturnTo: returnTo, CancelURL: "/"}
	if who.session != nil {
		page.Action = p.formURL("/logout", who.session)
	}
	p.page(x, http.StatusOK, page)
	return nil
}

const purposeConfirm = "confirm"

// formURL is where forms of our pages post to. Our pages send no Referer, so browsers that know no Fetch Metadata say
// "Origin: null" in their name; what is sealed here shows that the form was ours all the same.
func (p *Proxy) formURL(endpoint string, s *session.Session) string {
	sealed, err := p.opts.Sealer.Seal(purposeConfirm, p.cookies.session, []byte(s.ID))
	if err != nil { // then those browsers are refused
		return p.opts.Prefix + endpoint
	}
	return p.opts.Prefix + endpoint + "?" + url.Values{"confirm": {sealed}}.Encode()
}

// confirmed says whether a form is one that we made for the session that the browser is in, where the browser cannot tell.
func (p *Proxy) confirmed(x *exchange, sealed string) bool {
	if x.r.Header.Get("Sec-Fetch-Site") != "" || x.r.Header.Get("Origin") != "null" {
		return false
	}
	id, _, ok := p.opts.Sealer.Open(purposeConfirm, p.cookies.session, sealed)
	if !ok || len(id) == 0 {
		return false
	}
	who, err := p.authenticate(x)
	return err == nil && who.session != nil && who.session.ID == string(id)
}

// sameOrigin says whether a request with effects comes from a page of ours, by Fetch Metadata, or by Origin where a browser
// does not send it. Who sends neither is no browser, and holds a cookie of its own accord.
func (p *Proxy) sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "same-site":
		return p.ownOrigin(r.Header.Get("Origin"))
	case "":
		origins := r.Header["Origin"]
		return len(origins) == 0 || len(origins) == 1 && p.ownOrigin(origins[0])
	}
	return false
}

// ownOrigin says whether a browser's Origin is one of the hosts that we serve.
func (p *Proxy) ownOrigin(origin string) bool {
	for _, h := range p.hosts {
		if origin == h.origin {
			return true
		}
	}
	return false
}

// ownNavigation says whether a GET with effects was asked for by a page of ours or by the user. Without Fetch Metadata we
// cannot know.
func (p *Proxy) ownNavigation(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Dest") {
	case "", "document", "empty":
	default: // an image that somebody has put into a page of the app
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return !prefetch(r.Header)
	case "same-site": // perhaps another host that we serve
		u, err := url.Parse(r.Header.Get("Referer"))
		return err == nil && p.ownOrigin(u.Scheme+"://"+u.Host) && !prefetch(r.Header)
	}
	return false
}

// readForm reads an urlencoded body of at most limit bytes.
func readForm(x *exchange, limit int64) (url.Values, error) {
	r := x.r
	x.hurry()
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); r.ContentLength != 0 && (err != nil || kind != "application/x-www-form-urlencoded") {
		return nil, errors.New("the body is not application/x-www-form-urlencoded")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("the body has more than %d bytes", limit)
	}
	return url.ParseQuery(string(body))
}

// backchannelLogout ends the sessions that the provider names (OpenID Connect Back-Channel Logout 1.0 §2.5, §2.8). It is
// called by the provider itself: no cookie and no origin counts, only the signature.
func (p *Proxy) backchannelLogout(x *exchange) error {
	x.logout = logoutFailed // until it is obeyed
	refuse := func(cause error) error {
		x.logout = logoutRefused
		return &failure{page: pages.BadRequest(""), code: "invalid_request", reason: "logout token refused", cause: cause}
	}
	form, err := readForm(x, 64<<10)
	if err != nil {
		return refuse(err)
	}
	if len(form["logout_token"]) != 1 {
		return refuse(errors.New("the form has no logout_token, or several"))
	}
	token, err := p.opts.Provider.VerifyLogoutToken(x.r.Context(), form.Get("logout_token"))
	var unavailable *oidc.Unavailable
	switch {
	case errors.As(err, &unavailable):
		return p.loginFailure(x, err, "/")
	case err != nil:
		return refuse(err)
	}
	x.who = &identity.Identity{Issuer: token.Issuer, Subject: token.Subject}
	x.reason = "back-channel logout"
	first, err := p.obeyOnce(x.r.Context(), token)
	switch {
	case err != nil:
		return p.storeFailure(err)
	case !first:
		x.reason, x.logout = "back-channel logout, replayed", logoutReplayed
	default:
		p.streams.ended()
		x.logout = logoutObeyed
	}
	return p.empty(x)
}

// obeyOnce ends the sessions that a logout token names, unless that was done, here or at another replica: a replay must not
// end what was begun since. What fails was not done: the provider may try again.
func (p *Proxy) obeyOnce(ctx context.Context, token *oidc.LogoutToken) (first bool, err error) {
	id := token.Issuer + "\x00" + token.ID
	here, name, life := sha256.Sum256([]byte(id)), "logout:"+id, max(token.Expires.Sub(p.now()), 0)+10*time.Minute
	if !p.loggedOut.add(here, p.now(), life) {
		return false, nil
	}
	used, err := p.opts.Sessions.Used(ctx, name)
	if err == nil && !used {
		err = p.opts.Sessions.End(ctx, session.Selector{Issuer: token.Issuer, Subject: token.Subject, ProviderSID: token.SessionID})
	}
	if err == nil && !used { // not before: if it failed nobody would end them
		_, err = p.opts.Sessions.Once(ctx, name, life)
	}
	if err != nil {
		p.loggedOut.forget(here)
	}
	return !used, err
}

// empty answers 200 with nothing.
func (p *Proxy) empty(x *exchange) error {
	x.w.Header().Set("Cache-Control", "no-store")
	x.w.WriteHeader(http.StatusOK)
	return nil
}
