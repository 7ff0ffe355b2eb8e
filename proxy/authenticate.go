package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"authproxy/identity"
	"authproxy/proxy/pages"
	"authproxy/session"
)

// A visitor is who makes a request. Its zero value is nobody at all, and no policy allows that; requests without usable
// credentials come from anonymous.
type visitor struct {
	*identity.Identity
	session *session.Session // nil: anonymous, or with a bearer token
	grant   *grant           // nil: without a bearer token
	value   string           // of the session cookie or the bearer token
}

var anonymous = visitor{Identity: identity.Anonymous}

// memo keeps what is derived from this visitor's credentials.
func (v visitor) memo() *sync.Map {
	switch {
	case v.grant != nil:
		return &v.grant.memo
	case v.session != nil:
		return v.session.Memo()
	}
	return nil
}

// sid is the sid of assertions: opaque, and the same as long as the credentials are.
func (v visitor) sid() string {
	if v.grant != nil {
		return v.grant.id
	}
	return v.session.ID
}

// accessToken is the visitor's access token, or "" when we have none. A token of our own is not one.
func (v visitor) accessToken() string {
	switch {
	case v.grant == nil:
		return v.session.AccessToken
	case v.grant.session == nil:
		return v.value
	}
	return ""
}

// alive says whether the credentials of a visitor are still good: session.ErrNone when they are not, another error when that
// could not be found out.
func (p *Proxy) alive(ctx context.Context, who visitor) error {
	switch g := who.grant; {
	case g == nil:
		return p.opts.Sessions.Check(ctx, who.value)
	case g.session != nil:
		if alive, err := p.opts.Sessions.Alive(ctx, g.session); alive || err != nil {
			return err
		}
	case p.now().Before(g.expires):
		return nil
	}
	return session.ErrNone
}

// expired says whether the time of a visitor's credentials is over, which needs no store.
func (p *Proxy) expired(who visitor) bool {
	switch g := who.grant; {
	case g == nil:
		return p.opts.Sessions.Expired(who.session)
	case g.session != nil:
		return p.opts.Sessions.Expired(g.session)
	default:
		return !p.now().Before(g.expires)
	}
}

// authenticate finds out who makes the request. Its error means that the session store or an issuer failed, or that the
// request has a bearer token that is not good, never that nobody is there.
func (p *Proxy) authenticate(x *exchange) (visitor, error) {
	values := cookieValues(x.r.Header, p.cookies.session)
	if p.opts.Bearer != nil {
		if token, found := bearerToken(x.r.Header); found && len(values) > 0 {
			return visitor{}, p.twoCredentials()
		} else if found {
			return p.authenticateBearer(x, token)
		}
	}
	switch len(values) {
	case 0:
		return anonymous, nil
	case 1:
	default: // somebody planted one beside ours, and we cannot know which
		x.twice = true
		return anonymous, nil
	}
	s, cookie, err := p.opts.Sessions.Find(x.r.Context(), values[0], x.asked == nil) // no front proxy is sure to pass a cookie on
	switch {
	case errors.Is(err, session.ErrNone):
		return anonymous, nil
	case err != nil:
		return visitor{}, p.storeFailure(err)
	case !sameIssuer(s.Identity.Issuer, p.opts.Provider.Issuer()): // a session of a provider that we trusted once
		return anonymous, nil
	}
	if cookie != nil {
		x.setCookie(cookie)
	}
	who := visitor{Identity: s.Identity, session: s, value: values[0]}
	return p.renewals.fresh(x, who)
}

// sameIssuer compares issuers but for the slash that discovery forgives.
func sameIssuer(a, b string) bool { return strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/") }

// storeFailure is the answer when the session store cannot answer: neither "anonymous" nor the end of a session.
func (p *Proxy) storeFailure(err error) error {
	if x := (*failure)(nil); errors.As(err, &x) {
		return err
	}
	return &failure{page: pages.StoreUnavailable(""), code: "session_store_unavailable", cause: fmt.Errorf("session store: %w", err), retry: 5 * time.Second}
}
