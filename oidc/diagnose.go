package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// A Diagnosis is what can be found out about a provider without a user. Where Discovery is not nil the rest is unknown.
type Diagnosis struct {
	Discovery error

	Keys    int // fit for the accepted algorithm
	KeysErr error

	Ahead    time.Duration // the provider's clock before ours, to about a second, by the Date header of its token endpoint
	HasClock bool

	// Client is nil when the token endpoint refused a code that is none, and not the credentials that came with it: most
	// providers look at those first. It is *Misconfigured when it refused them; anything else tells nothing of them.
	Client error

	// Callback is nil when the authorization endpoint sends browsers on to the redirect URL, *Misconfigured when it does not
	// or when it refuses what is asked for, and anything else tells nothing of it.
	Callback error
}

// Diagnose asks the provider, for a few seconds at most. It begins no login that could be finished.
func (rp *RelyingParty) Diagnose(ctx context.Context) (d Diagnosis) {
	m, err := rp.renew(ctx)
	if err != nil {
		return Diagnosis{Discovery: err}
	}
	if body, err := rp.fetchKeys(ctx, m.JWKSURL); err != nil {
		d.KeysErr = err
	} else {
		var fit []key
		fit, d.KeysErr = parseKeys(body, rp.cfg.IDTokenAlg)
		d.Keys = len(fit)
	}
	var date time.Time
	date, d.Client = rp.presentClient(ctx, m)
	if d.HasClock = !date.IsZero(); d.HasClock {
		d.Ahead = date.Sub(rp.now())
	}
	d.Callback = rp.knockAtAuthorize(ctx)
	return d
}

// presentClient shows the credentials to the token endpoint with a code that is none. It returns the provider's time as well, or zero.
func (rp *RelyingParty) presentClient(ctx context.Context, m *metadata) (date time.Time, err error) {
	form := url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {oauth2.GenerateVerifier()},
		"redirect_uri":  {rp.cfg.RedirectURL},
		"code_verifier": {oauth2.GenerateVerifier()},
	}
	a, method, err := rp.send(ctx, m, "token", m.TokenURL, form)
	switch {
	case err != nil:
		return time.Time{}, err
	case a.status < 400:
		return a.date, invalid("malformed", "token: the provider answered %d to a code that is none", a.status)
	}
	if err = rp.refusal("token", method, a, form); errors.Is(err, ErrInvalidGrant) {
		err = nil
	}
	return a.date, err
}

// needsUser are the errors of an authorization request with prompt=none to which nobody is signed in (OIDC Core §3.1.2.6).
var needsUser = []string{"login_required", "interaction_required", "consent_required", "account_selection_required"}

// knockAtAuthorize begins a login with prompt=none, as a browser without cookies, and looks where it is sent.
func (rp *RelyingParty) knockAtAuthorize(ctx context.Context) error {
	to, login, err := rp.Start(ctx, AuthRequest{})
	if err != nil {
		return err
	}
	at, err := url.Parse(to)
	if err != nil {
		return unavailable("authorize", err)
	}
	q := at.Query()
	q.Set("prompt", "none") // whatever params ask of users
	at.RawQuery = q.Encode()
	for range 5 { // providers go a few steps among their own pages
		resp, err := rp.visit(ctx, at)
		if err != nil {
			return err
		}
		next, err := at.Parse(resp.Header.Get("Location"))
		if err != nil || resp.StatusCode/100 != 3 || next.String() == at.String() {
			return rp.judgePage(resp.StatusCode)
		}
		if back, _, _ := strings.Cut(next.String(), "?"); back == rp.cfg.RedirectURL {
			err := rp.blame(&Denied{clean(next.Query().Get("error"), maxErrorCode), clean(next.Query().Get("error_description"), maxDescription)}, &login)
			if denied, ok := errors.AsType[*Denied](err); ok && slices.Contains(needsUser, denied.Code) {
				return nil
			}
			return err
		}
		if next.Host != at.Host {
			return invalid("elsewhere", "authorize: the provider sends browsers to %s first", clean(next.Host, 200))
		}
		at = next
	}
	return invalid("elsewhere", "authorize: the provider sends browsers from one of its pages to the next")
}

func (rp *RelyingParty) visit(ctx context.Context, at *url.URL) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, unavailable("authorize", err)
	}
	req.Header.Set("Accept", "text/html")
	req.Header.Set("User-Agent", "authproxy")
	resp, err := rp.plain.Do(req)
	if err != nil {
		return nil, unavailable("authorize", errors.Unwrap(err)) // without the URL
	}
	resp.Body.Close()
	if resp.StatusCode >= 500 {
		return nil, unavailable("authorize", fmt.Errorf("status %d", resp.StatusCode))
	}
	return resp, nil
}

// judgePage says what a page means to which the provider sends browsers instead of back to us.
func (rp *RelyingParty) judgePage(status int) error {
	if status < 400 {
		return invalid("elsewhere", "authorize: the provider shows a page (status %d) although it was told to show none", status)
	}
	return &Misconfigured{Reason: "callback", Detail: fmt.Sprintf("authorize: the provider shows an error page (status %d) instead of sending browsers back to %s", status, rp.cfg.RedirectURL),
		Hint: "check provider.client_id, and that this very URL is registered there as a callback (Auth0: Allowed Callback URLs; Keycloak: Valid redirect URIs)"}
}
