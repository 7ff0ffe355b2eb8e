package oidc

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/url"
	"slices"
	"time"
)

// Refresh renews tokens (RFC 6749 §6, OIDC Core §12.2). before carries Identity, Nonce, SessionID and SessionExpiry of the
// login and is not changed. Issuer and subject must stay the same. What the provider leaves out is kept from before: the
// refresh token, sid, acr, auth_time, session_expiry, and without an ID token the identity.
//
// The error wraps [ErrInvalidGrant] when the user must sign in again. Any other error says nothing about the session.
//
// Because a refresh token may be good for one use only, Refresh does not stop when ctx ends; it takes at most 15 s. And when
// the refresh itself succeeds but the keys or userinfo are unavailable, the new tokens are returned with the identity of
// before.
func (rp *RelyingParty) Refresh(ctx context.Context, refreshToken string, before *Tokens) (*Tokens, error) {
	m, err := rp.provider(ctx)
	if err != nil {
		return nil, err
	}
	if before.Identity.Issuer != m.IssuerURL { // a refresh token goes to whom it came from and to nobody else
		return nil, invalid("issuer_mismatch", "the session is of issuer %q, now it is %q", before.Identity.Issuer, m.IssuerURL)
	}
	if refreshToken == "" {
		return nil, &Invalid{Reason: "invalid_grant", Detail: "there is no refresh token", Err: ErrInvalidGrant}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*httpTimeout)
	defer cancel()
	resp, err := rp.requestTokens(ctx, m, "refresh", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshToken}})
	if err != nil {
		return nil, err
	}
	if resp.refreshToken == "" {
		resp.refreshToken = refreshToken
	}
	after, err := rp.refreshed(ctx, m, resp, before)
	var down *Unavailable
	if errors.As(err, &down) {
		rp.log.Warn("tokens were refreshed, the identity was not", "error", err)
		after, err = kept(resp, before), nil
	}
	if err != nil {
		return nil, err
	}
	return rp.withPermissions(ctx, after, before.Identity.Permissions), nil
}

// refreshed reads the response to a refresh.
func (rp *RelyingParty) refreshed(ctx context.Context, m *metadata, resp *tokenResponse, before *Tokens) (*Tokens, error) {
	if resp.idToken == "" {
		return kept(resp, before), nil
	}
	id, err := rp.readIDToken(m, resp)
	if err != nil {
		return nil, err
	}
	if err := rp.checkRefreshed(id.claims, before); err != nil {
		return nil, err
	}
	if err := rp.verifySignature(ctx, m, id); err != nil {
		return nil, err
	}
	all, err := rp.withUserinfo(ctx, m, id.claims, resp.accessToken)
	if err != nil {
		return nil, err
	}
	after, err := rp.tokens(id.claims, all, resp, before.Identity.Scopes)
	if err != nil {
		return nil, err
	}
	after.Nonce = before.Nonce
	if after.SessionID == "" {
		after.SessionID = before.SessionID
	}
	if after.SessionExpiry.IsZero() {
		after.SessionExpiry = before.SessionExpiry
	}
	if after.Identity.ACR == "" {
		after.Identity.ACR = before.Identity.ACR
	}
	after.Identity.AuthTime = earlier(before.Identity.AuthTime, after.Identity.AuthTime)
	return after, nil
}

// checkRefreshed checks a refreshed ID token against the login (OIDC Core §12.2). That its issuer is the login's was checked.
func (rp *RelyingParty) checkRefreshed(c claims, before *Tokens) error {
	sub, err := c.subject()
	if err != nil {
		return err
	}
	if sub != before.Identity.Subject {
		return invalid("subject", "the refreshed ID token is of another user")
	}
	if raw, present := c["nonce"]; present {
		nonce, ok := jsonString(raw)
		if !ok || before.Nonce == "" || subtle.ConstantTimeCompare([]byte(nonce), []byte(before.Nonce)) != 1 {
			return invalid("nonce", "the nonce of the refreshed ID token is not the one of the login")
		}
	}
	organization, err := c.text("org_id")
	if err != nil {
		return err
	}
	if organization != "" && organization != before.Identity.Organization {
		return invalid("organization", "the refreshed ID token is for another organization")
	}
	return nil
}

// kept are the new tokens with the identity of before.
func kept(resp *tokenResponse, before *Tokens) *Tokens {
	after := *before
	after.AccessToken, after.RefreshToken, after.AccessExpiry = resp.accessToken, resp.refreshToken, resp.expiry
	if resp.scopes != nil {
		after.Identity.Scopes = slices.Clone(resp.scopes)
	}
	return &after
}

// earlier is the earlier of the two times that are known: a refresh is not a login, so it cannot make one look newer.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
