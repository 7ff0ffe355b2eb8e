package proxy

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"authproxy/oidc"
	"authproxy/proxy/pages"
	"authproxy/session"
)

// callback finishes a login: the state must belong to this browser, then the provider's answer is verified, and only then is
// there a session (RFC 6749 §4.1.2, §10.12).
func (p *Proxy) callback(x *exchange) error {
	if x.target.host != p.opts.PublicURL.Host { // the redirect URI names that host and no other
		return p.notFound()
	}
	x.login = LoginFailed // until it is completed
	query, err := url.ParseQuery(x.target.query)
	a, ok := attempt{}, false
	if states := query["state"]; len(states) == 1 { // whatever else is wrong, this login is over
		var unknown error
		if a, ok, unknown = p.takeAttempt(x, states[0]); unknown != nil {
			return p.storeFailure(unknown)
		}
	}
	if err != nil {
		return p.badCallback("malformed", err)
	}
	for name, values := range query {
		if len(values) > 1 { // RFC 6749 §3.1
			return p.badCallback("duplicate_parameter", errors.New("a parameter of the callback came twice: "+cut(name)))
		}
	}
	if !ok {
		return p.unknownState(x, query.Get("state"))
	}
	tokens, err := p.opts.Provider.Finish(x.r.Context(), a.Login, query)
	if err != nil {
		return p.loginFailure(x, err, a.ReturnTo)
	}
	s, cookie, err := p.opts.Sessions.Begin(x.r.Context(), p.newSession(x, tokens))
	if err != nil {
		return p.sessionFailure(err, a.ReturnTo)
	}
	p.endFormer(x, s)
	x.who = s.Identity
	x.setCookie(cookie)
	x.login = LoginCompleted
	return &redirect{http.StatusSeeOther, p.absolute(a.ReturnTo), "signed in"}
}

const maxAgent = 200 // bytes of a User-Agent

// newSession is what we keep of a login: no token that nothing needs.
func (p *Proxy) newSession(x *exchange, t *oidc.Tokens) *session.Session {
	who := t.Identity
	s := &session.Session{Identity: &who, ProviderSID: t.SessionID, Expires: t.SessionExpiry}
	if p.opts.Sessions.Lists() { // for the user to recognise it
		s.Agent = x.r.UserAgent()[:min(len(x.r.UserAgent()), maxAgent)]
		if x.client.IsValid() {
			s.Address = x.client.String()
		}
	}
	if p.opts.StoreTokens && t.RefreshToken != "" {
		s.RefreshToken, s.Nonce, s.AccessExpiry = t.RefreshToken, t.Nonce, t.AccessExpiry
		s.RenewAt = renewAt(p.now(), t.AccessExpiry)
	}
	if p.opts.Identity.AccessToken {
		s.AccessToken, s.AccessExpiry = t.AccessToken, t.AccessExpiry
	}
	return s
}

// endFormer ends the session that the browser had before, so that a login leaves one. That it fails hurts nobody: the
// browser has the new cookie.
func (p *Proxy) endFormer(x *exchange, now *session.Session) {
	values := cookieValues(x.r.Header, p.cookies.session)
	if len(values) != 1 {
		return
	}
	if former, _, err := p.opts.Sessions.Find(x.r.Context(), values[0], false); err == nil && former.ID != now.ID {
		if err := p.opts.Sessions.End(x.r.Context(), session.Selector{ID: former.ID}); err != nil {
			x.err = err
		}
	}
}

// unknownState is for a callback that belongs to no login of this browser: an old bookmark, a reload, a lost cookie, or
// another site that wants us to sign somebody in. Nothing it says is used. Who is signed in goes on; others are sent through
// the login once more, which the provider's own session makes invisible.
func (p *Proxy) unknownState(x *exchange, s string) error {
	to := p.returnToOf(s)
	who, err := p.authenticate(x)
	if err != nil {
		return err
	}
	if who.session != nil {
		x.who, x.login = who.Identity, ""
		return &redirect{http.StatusSeeOther, p.absolute(to), "a callback of no login, signed in already"}
	}
	if !navigation(x.r) {
		return p.badCallback("unknown_state", nil)
	}
	if !strings.HasPrefix(s, secondTry) {
		x.reason = "a callback of no login: started again"
		return p.startLoginAs(x, secondTry, oidc.AuthRequest{}, to)
	}
	again := p.loginURL(to, "")
	if len(x.r.Header["Cookie"]) == 0 {
		return &failure{page: pages.CookiesBlocked(p.opts.PublicURL.Host, again), code: "cookies_blocked", reason: "the browser returned no cookie in two rounds"}
	}
	return &failure{page: pages.LinkExpired(again), code: "unknown_state", reason: "a callback of no login, twice"}
}

func (p *Proxy) badCallback(code string, cause error) error {
	return &failure{page: pages.LinkExpired(p.opts.Prefix + "/login"), code: code, cause: cause}
}

// loginFailure is the answer when a login cannot begin or does not succeed. The cause is for the log: what the provider says
// is shown only where it speaks to the user.
func (p *Proxy) loginFailure(x *exchange, err error, returnTo string) error {
	again, another := p.loginURL(returnTo, ""), p.opts.Prefix+"/login?"+url.Values{"prompt": {"login"}, "return_to": {returnTo}}.Encode()
	var (
		unavailable   *oidc.Unavailable
		denied        *oidc.Denied
		misconfigured *oidc.Misconfigured
		invalid       *oidc.Invalid
	)
	switch {
	case x.r.Context().Err() != nil && errors.Is(err, x.r.Context().Err()):
		return errClientGone
	case errors.As(err, &unavailable):
		return &failure{page: pages.Unavailable(again), code: "provider_unavailable", cause: err, retry: max(unavailable.RetryAfter, time.Second)}
	case errors.As(err, &denied):
		switch denied.Code {
		case "server_error", "temporarily_unavailable":
			return &failure{page: pages.Unavailable(again), code: "provider_unavailable", cause: err, retry: 10 * time.Second}
		}
		return &failure{page: pages.Denied(denied.Description, another, p.home()), code: "login_denied", cause: err}
	case errors.As(err, &misconfigured):
		return &failure{page: pages.Misconfigured(p.home()), code: "provider_misconfigured", cause: err}
	case errors.As(err, &invalid):
		switch invalid.Reason {
		case "auth_time", "acr":
			return &failure{page: pages.StepUpFailed(again, p.home()), code: "step_up_failed", reason: invalid.Reason, cause: err}
		case "invalid_grant", "missing_code", "state", "issuer_mismatch", "duplicate_parameter", "back_button":
			return &failure{page: pages.LinkExpired(again), code: "login_invalid", reason: invalid.Reason, cause: err}
		}
		return &failure{page: pages.LoginFailed(again, p.home()), code: "login_invalid", reason: invalid.Reason, cause: err}
	}
	return err
}

// sessionFailure is the answer when a verified login cannot be remembered.
func (p *Proxy) sessionFailure(err error, returnTo string) error {
	var large *session.TooLargeError
	if errors.As(err, &large) {
		return &failure{page: pages.SessionTooLarge(p.home()), code: "session_too_large", cause: err}
	}
	err = p.storeFailure(err)
	if f, ok := errors.AsType[*failure](err); ok {
		f.page = pages.StoreUnavailable(p.loginURL(returnTo, ""))
	}
	return err
}
