package proxy

import (
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
	session *session.Session // nil: anonymous
	value   string           // of the session cookie
}

var anonymous = visitor{Identity: identity.Anonymous}

// memo keeps what is derived from this visitor's credentials.
func (v visitor) memo() *sync.Map {
	if v.session == nil {
		return nil
	}
	return v.session.Memo()
}

// authenticate finds out who makes the request. Its error means that the session store failed, never that nobody is there.
func (p *Proxy) authenticate(x *exchange) (visitor, error) {
	values := cookieValues(x.r.Header, p.cookies.session)
	switch len(values) {
	case 0:
		return anonymous, nil
	case 1:
	default: // somebody planted one beside ours, and we cannot know which
		x.twice = true
		return anonymous, nil
	}
	s, cookie, err := p.opts.Sessions.Find(x.r.Context(), values[0], true)
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
