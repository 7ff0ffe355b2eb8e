package proxy

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"authproxy/oidc"
	"authproxy/policy"
	"authproxy/proxy/pages"
)

// challenge asks for a login, or for a fresh or stronger one: by way of the provider where a person looks, and with 401
// everywhere else.
func (p *Proxy) challenge(x *exchange, rt *route, who visitor, d policy.Decision) error {
	person := navigation(x.r)
	switch rt.unauthenticated {
	case "login":
		person = true
	case "401":
		person = false
	}
	if who.grant != nil { // a login would give a session, not a better token
		person = false
	}
	if !person {
		return p.loginRequired(x, rt, d)
	}
	if x.asked != nil {
		return p.sendToLogin(x, d)
	}
	switch {
	case x.twice: // a login would not help, and lead back here
		return p.cookieTwice(x)
	case p.bounces(x):
		return p.bounce(x)
	}
	returnTo := p.returnToHere(x)
	if p.opts.SignInPage && d.Remedy == policy.Login {
		p.page(x, http.StatusUnauthorized, p.signInPage(returnTo))
		return nil
	}
	var req oidc.AuthRequest
	if d.Remedy != policy.Login {
		rt.asksFor(&req)
	}
	return p.startLogin(x, req, returnTo)
}

// asksFor asks the provider for the login that the route wants.
func (rt *route) asksFor(req *oidc.AuthRequest) {
	if age := max(rt.policy.MaxAuthAge, time.Second); rt.policy.MaxAuthAge > 0 && (req.MaxAge == 0 || age < req.MaxAge) {
		req.MaxAge = age
	}
	req.ACR = cmp.Or(rt.policy.ACR, req.ACR)
}

// sendToLogin is what the client of a front proxy gets: it starts the login with us, because no cookie of this answer may reach
// it. Which login the page needs is found out again there.
func (p *Proxy) sendToLogin(x *exchange, d policy.Decision) error {
	at := "/login?"
	if p.opts.SignInPage && d.Remedy == policy.Login && p.opts.Prefix != "" { // at the root / is the app's
		at = "/?"
	}
	return &redirect{http.StatusFound, p.origin + p.opts.Prefix + at + url.Values{"return_to": {p.returnToHere(x)}}.Encode(), d.Reason}
}

// loginRequired is the answer to programs (RFC 6750 §3; RFC 9470 §3 where the user is signed in, but not well enough).
func (p *Proxy) loginRequired(x *exchange, rt *route, d policy.Decision) error {
	loginURL := p.origin + p.opts.Prefix + "/login"
	authenticate := `Bearer realm="` + p.opts.PublicURL.Host + `"`
	f := &failure{page: pages.LoginNeeded(loginURL), code: "login_required", reason: d.Reason, json: !navigation(x.r)}
	switch d.Remedy {
	case policy.FreshLogin:
		f.code = "insufficient_user_authentication"
		authenticate += `, error="insufficient_user_authentication", max_age="` + strconv.Itoa(int(rt.policy.MaxAuthAge/time.Second)) + `"`
	case policy.StrongerLogin:
		f.code = "insufficient_user_authentication"
		authenticate += fmt.Sprintf(`, error="insufficient_user_authentication", acr_values=%q`, rt.policy.ACR)
	}
	f.header = [2]string{"WWW-Authenticate", authenticate}
	f.details = map[string]string{"login_url": loginURL}
	return f
}

// forbidden is for who is signed in and may not: final, never a redirect.
func (p *Proxy) forbidden(x *exchange, who visitor) error {
	if who.grant != nil {
		return p.insufficientScope()
	}
	ours := p.opts.Prefix
	if x.asked != nil { // the page will be shown on the app's host
		ours = p.origin + ours
	}
	another := ours + "/login?" + url.Values{"prompt": {"login"}, "return_to": {p.returnToHere(x)}}.Encode()
	return &failure{page: pages.Forbidden(who.DisplayName(), who.Email, another, ours+"/"), code: "forbidden"}
}

// cookieTwice deletes both variants of a session cookie that came twice and stops there: redirecting would loop as long as
// the second one stays.
func (p *Proxy) cookieTwice(x *exchange) error {
	c := p.opts.Sessions.Cookie()
	x.setCookie(c.Expired())
	if c.Domain != "" { // the other may be host-only
		c.Domain = ""
		x.setCookie(c.Expired())
	}
	return &failure{page: pages.CookieTwice(p.returnToHere(x)), code: "session_cookie_twice", reason: "two session cookies of the same name"}
}

// bounces says whether the browser may have held a SameSite=Strict cookie back because the navigation began elsewhere.
func (p *Proxy) bounces(x *exchange) bool {
	return p.opts.Sessions.Cookie().SameSite == http.SameSiteStrictMode && x.r.Header.Get("Sec-Fetch-Site") == "cross-site" &&
		len(cookieValues(x.r.Header, p.cookies.session)) == 0
}

// bounce navigates to the same place from a page of ours, so that a Strict cookie comes along.
func (p *Proxy) bounce(x *exchange) error {
	x.reason = "asking again from our own site, for a SameSite=Strict cookie"
	p.page(x, http.StatusOK, pages.Bounce{Host: p.opts.PublicURL.Host, URL: x.target.uri()})
	return nil
}

// returnToHere is where a login that this request starts leads back to: a path, or a URL when the host is not that of
// public_url.
func (p *Proxy) returnToHere(x *exchange) string {
	origin := ""
	if h := p.hosts[x.target.host]; h != nil && !h.public {
		origin = h.origin
	}
	fits := func(to string) bool {
		n := len(origin) + len(to)
		if x.asked != nil { // it goes into a header, of which front proxies take maxPass bytes
			n = max(n, len(url.QueryEscape(origin+to))/2)
		}
		return n <= maxReturnTo
	}
	for _, to := range []string{x.target.uri(), x.target.raw} {
		if fits(to) {
			return origin + to
		}
	}
	return origin + "/"
}

// signInPage is the page that stands before the provider.
func (p *Proxy) signInPage(returnTo string) pages.SignIn {
	page := pages.SignIn{Host: p.opts.PublicURL.Host, LoginURL: p.loginURL(returnTo, ""), SignupURL: p.opts.Prefix + "/signup"}
	if returnTo != "/" {
		page.SignupURL += "?" + url.Values{"return_to": {returnTo}}.Encode()
	}
	for _, c := range p.opts.Connections {
		page.Connections = append(page.Connections, pages.Connection{Name: c, URL: p.loginURL(returnTo, c)})
	}
	return page
}

// loginURL is our login endpoint for a place and, unless it is "", a connection.
func (p *Proxy) loginURL(returnTo, connection string) string {
	q := url.Values{}
	if returnTo != "" && returnTo != "/" {
		q.Set("return_to", returnTo)
	}
	if connection != "" {
		q.Set("connection", connection)
	}
	if len(q) == 0 {
		return p.opts.Prefix + "/login"
	}
	return p.opts.Prefix + "/login?" + q.Encode()
}
