package proxy

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"authproxy/identity"
	"authproxy/oidc"
	"authproxy/proxy/pages"
	"authproxy/session"
)

// An endpoint is one of our own.
type endpoint func(*exchange) error

// endpoints are those under the prefix.
func (p *Proxy) endpoints() map[string]endpoint {
	own := map[string]endpoint{
		"/login":              methods(p.login, "GET"),
		"/signup":             methods(p.signup, "GET"),
		"/callback":           methods(p.callback, "GET"),
		"/logout":             methods(p.logout, "GET", "POST"),
		"/me":                 methods(p.me, "GET", "HEAD"),
		"/backchannel-logout": methods(p.backchannelLogout, "POST"),
		"/jwks.json":          methods(p.jwks, "GET", "HEAD"),
	}
	if p.opts.Prefix != "" { // at the root the page would take the app's own
		own["/"] = methods(p.homePage, "GET", "HEAD")
		own[""] = func(*exchange) error {
			return &redirect{http.StatusPermanentRedirect, p.opts.Prefix + "/", "the bare prefix"}
		}
	}
	return own
}

// ownEndpoint says whether a path is ours, and what serves it. Under a prefix everything is; at the root only the endpoints.
func (p *Proxy) ownEndpoint(path string) (endpoint, bool) {
	if p.opts.Prefix != "" && !below(path, p.opts.Prefix) {
		return nil, false
	}
	serve, ok := p.own[path[len(p.opts.Prefix):]]
	if !ok {
		if p.opts.Prefix == "" {
			return nil, false
		}
		serve = func(*exchange) error { return p.notFound() }
	}
	return func(x *exchange) error {
		x.decision = decisionOwn
		return serve(x)
	}, true
}

// methods lets only these methods through.
func methods(serve endpoint, allowed ...string) endpoint {
	return func(x *exchange) error {
		if !slices.Contains(allowed, x.r.Method) {
			return &failure{page: pages.MethodNotAllowed(""), code: "method_not_allowed", header: [2]string{"Allow", strings.Join(allowed, ", ")}}
		}
		return serve(x)
	}
}

// homePage says who is signed in and what can be done.
func (p *Proxy) homePage(x *exchange) error {
	who, err := p.authenticate(x)
	if err != nil {
		return err
	}
	x.who = who.Identity
	page := pages.Home{Host: p.opts.PublicURL.Host, LoginURL: p.opts.Prefix + "/login", SignupURL: p.opts.Prefix + "/signup", AppURL: "/"}
	if who.session == nil {
		page.Connections = p.signInPage("/").Connections
	} else {
		page.LogoutURL = p.logoutURL(who.session)
		page.User = &pages.User{
			DisplayName: who.DisplayName(), Email: who.Email, EmailVerified: who.EmailVerified, Username: who.Username, Subject: who.Subject,
			Issuer: who.Issuer, Groups: who.Groups, SignedInAt: who.session.Created, ExpiresAt: who.session.Expires,
		}
		for _, name := range slices.Sorted(maps.Keys(who.Claims)) {
			text, err := json.Marshal(who.Claims[name])
			if err != nil {
				return err
			}
			page.User.Claims = append(page.User.Claims, pages.Field{Name: name, Value: string(text)})
		}
	}
	p.page(x, http.StatusOK, page)
	return nil
}

// me tells the app's own pages who is signed in.
func (p *Proxy) me(x *exchange) error {
	who, err := p.authenticate(x)
	if err != nil {
		return err
	}
	if who.session == nil {
		return &failure{page: pages.LoginNeeded(p.opts.Prefix + "/login"), code: "login_required", reason: "not signed in",
			header:  [2]string{"WWW-Authenticate", `Bearer realm="` + p.opts.PublicURL.Host + `"`},
			details: map[string]string{"login_url": p.origin + p.opts.Prefix + "/login"}}
	}
	x.who = who.Identity
	me := map[string]any{"issuer": who.Issuer, "subject": who.Subject, "groups": notNil(who.Groups), "claims": who.Claims, "expires_at": who.session.Expires.UTC().Format(time.RFC3339)}
	if who.Claims == nil {
		me["claims"] = map[string]any{}
	}
	for name, field := range map[string]string{"email": "email", "email_verified": "email_verified", "name": "name", "username": "username"} {
		me[name] = who.Value(field)
	}
	p.json(x, http.StatusOK, me)
	return nil
}

func notNil(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

// jwks publishes the keys of assertions and signatures: the one answer of ours that may be stored.
func (p *Proxy) jwks(x *exchange) error {
	p.JWKS().ServeHTTP(x.w, x.r)
	return nil
}

// JWKS serves the public keys (RFC 7517), for the admin listener as well.
func (p *Proxy) JWKS() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, etag := p.opts.Signer.JWKS()
		h := w.Header()
		h.Set("Cache-Control", "public, max-age=300")
		h.Set("ETag", etag)
		h.Set("X-Content-Type-Options", "nosniff")
		if match := r.Header.Get("If-None-Match"); match == etag || match == "W/"+etag || match == "*" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", "application/jwk-set+json")
		if r.Method != http.MethodHead {
			w.Write(body)
		}
	})
}

// PublicKeys is the JWKS that assertions verify with.
func (p *Proxy) PublicKeys() []byte {
	body, _ := p.opts.Signer.JWKS()
	return body
}

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
	back = p.absolute(back)

	x.setCookie(p.opts.Sessions.Cookie().Expired())
	for _, c := range x.r.Cookies() {
		if strings.HasPrefix(c.Name, p.cookies.login) {
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
				p.renewals.revoke(s)
			}
		}
		if err != nil && !errors.Is(err, session.ErrNone) { // this browser forgets the session, but nobody is told that all is well
			return &failure{page: pages.SignedOutLocally(p.opts.Prefix+"/login", p.home()), code: "session_store_unavailable", cause: err, retry: 5 * time.Second}
		}
	}
	if at := p.opts.Provider.LogoutURL(x.r.Context(), back, providerSID); at != "" {
		back = at
	}
	return &redirect{http.StatusSeeOther, back, "signed out"}
}

// askBeforeLogout shows the button.
func (p *Proxy) askBeforeLogout(x *exchange, returnTo string) error {
	who, err := p.authenticate(x)
	if err != nil {
		return err
	}
	page := pages.ConfirmLogout{Host: p.opts.PublicURL.Host, Action: p.opts.Prefix + "/logout", ReturnTo: returnTo, CancelURL: "/"}
	if who.session != nil {
		page.Action = p.logoutURL(who.session)
	}
	p.page(x, http.StatusOK, page)
	return nil
}

const purposeConfirm = "confirm"

// logoutURL is where the sign-out buttons of our pages post to. Our pages send no Referer, so browsers that know no Fetch
// Metadata say "Origin: null" in their name; what is sealed here shows that the form was ours all the same.
func (p *Proxy) logoutURL(s *session.Session) string {
	sealed, err := p.opts.Sealer.Seal(purposeConfirm, p.cookies.session, []byte(s.ID))
	if err != nil { // then those browsers are asked once more
		return p.opts.Prefix + "/logout"
	}
	return p.opts.Prefix + "/logout?" + url.Values{"confirm": {sealed}}.Encode()
}

// confirmed says whether a form is one that we made for the session that the browser is in.
func (p *Proxy) confirmed(x *exchange, sealed string) bool {
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
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return !prefetch(r.Header)
	case "same-site": // another host that shares our session
		return p.opts.CookieDomain != "" && !prefetch(r.Header)
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
	refuse := func(cause error) error {
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
	once := sha256.Sum256([]byte(token.Issuer + "\x00" + token.ID)) // a replay must not end what was begun since
	if !p.loggedOut.add(once, p.now(), max(token.Expires.Sub(p.now()), 0)+10*time.Minute) {
		x.reason = "back-channel logout, replayed"
		return p.empty(x)
	}
	err = p.opts.Sessions.End(x.r.Context(), session.Selector{Issuer: token.Issuer, Subject: token.Subject, ProviderSID: token.SessionID})
	if err != nil {
		p.loggedOut.forget(once) // the provider may try again
		return p.storeFailure(err)
	}
	return p.empty(x)
}

// empty answers 200 with nothing.
func (p *Proxy) empty(x *exchange) error {
	x.w.Header().Set("Cache-Control", "no-store")
	x.w.WriteHeader(http.StatusOK)
	return nil
}
