package proxy

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"authproxy/proxy/pages"
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
		"/sessions":           methods(p.sessionsPage, "GET", "POST"),
	}
	if p.opts.AppToken != nil {
		own["/token"] = methods(p.token, "POST")
		if p.opts.AppToken.Handoff {
			own["/handoff"] = methods(p.handoff, "GET")
		}
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
	to := "/"
	if q, err := onceQuery(x.target.query, "return_to"); err == nil {
		to = p.returnTo(q["return_to"])
	}
	signIn := p.signInPage(to)
	page := pages.Home{Host: p.opts.PublicURL.Host, LoginURL: signIn.LoginURL, SignupURL: signIn.SignupURL, AppURL: to}
	out := len(cookieValues(x.r.Header, p.cookies.out)) > 0
	if out {
		x.setCookie(p.outCookie("", 0))
	}
	if who.session == nil {
		page.Connections = signIn.Connections
		if out {
			page.Notice = "You are signed out."
		}
	} else {
		page.LogoutURL = p.formURL("/logout", who.session)
		if p.opts.Sessions.Lists() {
			page.SessionsURL = p.opts.Prefix + "/sessions"
		}
		page.User = &pages.User{
			DisplayName: who.DisplayName(), Email: who.Email, EmailVerified: who.EmailVerified, Username: who.Username, Subject: who.Subject,
			Issuer: who.Issuer, Groups: who.Groups, SignedInAt: who.session.Created, ExpiresAt: who.session.Expires,
		}
		for _, name := range slices.Sorted(maps.Keys(who.Claims)) {
			text, ok := who.Claims[name].(string)
			if !ok {
				text = jsonText(who.Claims[name])
			}
			page.User.Claims = append(page.User.Claims, pages.Field{Name: name, Value: text})
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
		return p.notSignedIn()
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

// notSignedIn is the answer of those endpoints of ours that are for signed-in users.
func (p *Proxy) notSignedIn() error {
	return &failure{page: pages.LoginNeeded(p.opts.Prefix + "/login"), code: "login_required", reason: "not signed in",
		header:  [2]string{"WWW-Authenticate", `Bearer realm="` + p.opts.PublicURL.Host + `"`},
		details: map[string]string{"login_url": p.origin + p.opts.Prefix + "/login"}}
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
