package oidc

import (
	"context"
	"net/url"
	"strings"
	"time"
)

// LogoutURL is where to send the browser so that the session at the provider ends too, and from there to returnTo, which
// must be registered at the provider. "" means that there is no such place: the configuration says local, or the provider
// has none or was not discovered yet. providerSID is the sid of the ID token, or "". It does not use the network.
func (rp *RelyingParty) LogoutURL(_ context.Context, returnTo, providerSID string) string {
	endSession := ""
	if m := rp.meta.Load(); m != nil {
		endSession = m.EndSessionURL
	}
	q := url.Values{"client_id": {rp.cfg.ClientID}}
	if rp.cfg.Federated {
		q.Set("federated", "")
	}
	mode := rp.cfg.Logout
	switch {
	case mode == "auth0", mode == "auto" && endSession == "" && rp.cfg.Auth0:
		if returnTo != "" {
			q.Set("returnTo", returnTo)
		}
		return strings.TrimSuffix(rp.Issuer(), "/") + "/v2/logout?" + q.Encode()
	case mode == "local", endSession == "":
		return ""
	}
	if returnTo != "" { // OIDC RP-Initiated Logout §2
		q.Set("post_logout_redirect_uri", returnTo)
	}
	if providerSID != "" {
		q.Set("logout_hint", providerSID)
	}
	separator := "?"
	if strings.Contains(endSession, "?") {
		separator = "&"
	}
	return endSession + separator + q.Encode()
}

// Revoke revokes a refresh token (RFC 7009), waiting at most 2 s. It does nothing when the provider has no revocation
// endpoint.
func (rp *RelyingParty) Revoke(ctx context.Context, refreshToken string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	m, err := rp.provider(ctx)
	if err != nil {
		return err
	}
	if m.RevocationURL == "" || refreshToken == "" {
		return nil
	}
	_, err = rp.post(ctx, m, "revocation", m.RevocationURL, url.Values{"token": {refreshToken}, "token_type_hint": {"refresh_token"}})
	return err
}

// A LogoutToken is a verified logout token. At least one of Subject and SessionID is set: with a SessionID only that session
// ends, with a Subject alone all of the user's.
type LogoutToken struct {
	Issuer, Subject, SessionID string

	ID                string    // jti: the caller remembers it until Expires plus leeway, and ignores it the second time
	IssuedAt, Expires time.Time // sessions begun after IssuedAt are not meant
}

const (
	logoutEvent       = "http://schemas.openid.net/event/backchannel-logout"
	maxLogoutTokenAge = 2 * time.Minute
	maxLogoutTokenTTL = 5 * time.Minute
)

// VerifyLogoutToken checks a logout token as OIDC Back-Channel Logout §2.6 asks, except that it is used once, which is the
// caller's. Anybody can send us one, so everything that needs no keys is checked first, and the keys are fetched rarely.
func (rp *RelyingParty) VerifyLogoutToken(ctx context.Context, token string) (*LogoutToken, error) {
	t, err := rp.parseJWT(token)
	if err != nil {
		return nil, err
	}
	if err := rp.checkAlg(t); err != nil {
		return nil, err
	}
	if t.typ != "" && t.typ != "jwt" && t.typ != "logout+jwt" { // Auth0 sends JWT
		return nil, invalid("token_type", "typ %q is not that of a logout token", clean(t.typ, 40))
	}
	out, err := readLogout(t.claims, clock{now: rp.now(), leeway: rp.cfg.Leeway})
	if err != nil {
		return nil, err
	}
	if !rp.isIssuer(out.Issuer) {
		return nil, invalid("issuer_mismatch", "iss is %q, want %q", clean(out.Issuer, 200), rp.Issuer())
	}
	if err := rp.checkParties(t.claims, out.Issuer); err != nil { // the audience, before discovery
		return nil, err
	}
	m, err := rp.provider(ctx)
	if err != nil {
		return nil, err
	}
	if err := rp.checkParties(t.claims, m.IssuerURL); err != nil {
		return nil, err
	}
	if err := rp.verifySignature(ctx, m, t); err != nil {
		return nil, err
	}
	return out, nil
}

// readLogout checks the claims of a logout token but iss and aud (OIDC Back-Channel Logout §2.4). Unknown claims are ignored.
func readLogout(c claims, k clock) (*LogoutToken, error) {
	if _, present := c["nonce"]; present { // so that an ID token is none
		return nil, invalid("token_type", "a logout token has no nonce")
	}
	events, err := parseObject(c["events"])
	if err != nil {
		return nil, invalid("token_type", "events is missing or not an object")
	}
	if _, err := parseObject(events[logoutEvent]); err != nil {
		return nil, invalid("token_type", "events has no member %s that is an object", logoutEvent)
	}
	if err := k.checkExpiry(c); err != nil {
		return nil, err
	}
	exp, _, err := c.time("exp")
	if err != nil {
		return nil, err
	}
	iat, err := k.issuedAt(c)
	if err != nil {
		return nil, err
	}
	if k.now.Sub(iat) > maxLogoutTokenAge+k.leeway {
		return nil, invalid("issued_at", "the logout token was issued at %s, more than %s ago", stamp(iat), maxLogoutTokenAge)
	}
	if exp.Sub(iat) > maxLogoutTokenTTL {
		return nil, invalid("expired", "the logout token is good for %s, want at most %s", exp.Sub(iat), maxLogoutTokenTTL)
	}
	out := &LogoutToken{IssuedAt: iat, Expires: exp}
	if out.ID, err = c.text("jti"); err != nil {
		return nil, err
	}
	if out.ID == "" || len(out.ID) > maxSubject {
		return nil, invalid("malformed", "jti is not a string of 1 to %d bytes", maxSubject)
	}
	if out.SessionID, err = c.sessionID(); err != nil {
		return nil, err
	}
	if _, present := c["sub"]; present {
		if out.Subject, err = c.subject(); err != nil {
			return nil, err
		}
	}
	if out.Subject == "" && out.SessionID == "" {
		return nil, invalid("subject", "the logout token has neither sub nor sid")
	}
	out.Issuer, _ = jsonString(c["iss"])
	return out, nil
}
