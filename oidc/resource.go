package oidc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"authproxy/identity"
)

// An AccessToken is a verified access token.
type AccessToken struct {
	Identity identity.Identity // AuthTime and ACR only when the token says them
	Expires  time.Time         // exp; it is accepted for the leeway longer
}

// A Resource checks the access tokens that API clients present: JWTs of one issuer or several, for one audience, as RFC 9068 §4
// asks, and in the older form without typ at+jwt that Auth0 gives out by default. Make one with [NewResource]; it is safe
// for concurrent use.
//
// It does not check which client a token was issued to, and whether it was revoked: it is good until it expires. Tokens
// that are bound to a key of the client (cnf) are refused, because nobody here asks for proof of the key.
type Resource struct {
	audience string
	issuers  []issuer
}

// An issuer is one whose access tokens are accepted, with its keys by algorithm: one set for each that is accepted.
type issuer struct {
	rp   *RelyingParty
	keys []*keySet
}

// NewResource returns a Resource for tokens that have audience in their aud and were issued by one of issuers, which are
// compared exactly; none means the provider of rp. Of the provider only its ID token algorithm is accepted, and if the
// configuration names an organization only tokens for that one. Of other issuers RS256 and ES256 are accepted; they are
// read with the claim names, leeway and kept claims of rp, but without its CAs. No network is used.
func NewResource(rp *RelyingParty, audience string, issuers []string) (*Resource, error) {
	if audience == "" {
		return nil, errors.New("oidc: access tokens need an audience: without one those for any API would do")
	}
	r := &Resource{audience: audience}
	if len(issuers) == 0 {
		issuers = []string{rp.cfg.Issuer}
	}
	var wrong []error
	for _, name := range issuers {
		switch {
		case r.issuer(name) != nil:
		case rp.isIssuer(name):
			r.issuers = append(r.issuers, issuer{rp, []*keySet{rp.keys}})
		default:
			other, err := newIssuer(rp, name)
			if err != nil {
				wrong = append(wrong, fmt.Errorf("oidc: access tokens: %w", err))
				continue
			}
			r.issuers = append(r.issuers, other)
		}
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return r, nil
}

// newIssuer returns an issuer beside the provider of rp: one that we are no client of.
func newIssuer(rp *RelyingParty, name string) (issuer, error) {
	u, err := parseIssuer(name)
	if err != nil {
		return issuer{}, err
	}
	cfg := Config{Issuer: name, Leeway: rp.cfg.Leeway, Claims: rp.cfg.Claims, KeepClaims: rp.cfg.KeepClaims, Observe: rp.cfg.Observe}
	other := &RelyingParty{cfg: cfg, issuer: u, log: rp.log, now: rp.now, keysOnly: true}
	other.documents, other.plain = newClients(nil)
	i := issuer{rp: other}
	for _, alg := range []string{"RS256", "ES256"} {
		i.keys = append(i.keys, &keySet{alg: alg, now: rp.now, get: other.fetchKeys})
	}
	other.keys = i.keys[0]
	return i, nil
}

// issuer is the one of that name, or nil. A slash that discovery may forgive is forgiven; verify compares once more.
func (r *Resource) issuer(name string) *issuer {
	for i := range r.issuers {
		if r.issuers[i].rp.isIssuer(name) {
			return &r.issuers[i]
		}
	}
	return nil
}

// Audience is what the aud of tokens must contain.
func (r *Resource) Audience() string { return r.audience }

// Run keeps what is known of the issuers up to date, as [RelyingParty.Run] does, except of the provider, which has a Run of
// its own. It returns when ctx ends.
func (r *Resource) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for _, i := range r.issuers {
		if i.rp.keysOnly {
			running.Go(func() { i.rp.Run(ctx) })
		}
	}
}

// Verify checks an access token. The error is *Invalid when it is none that we accept, with the Reason opaque when it is not
// a JWT at all, and *Unavailable or *Misconfigured when that could not be found out. Anybody can send us tokens, so everything
// that needs no keys is checked first, and the keys are fetched rarely.
func (r *Resource) Verify(ctx context.Context, token string) (*AccessToken, error) {
	if strings.Count(token, ".") != 2 { // Auth0 gives tokens of five parts to clients that ask for no audience
		return nil, invalid("opaque", "the access token is not a JWT")
	}
	t, err := r.issuers[0].rp.parseJWT(token) // the names of claims are the same for all
	if err != nil {
		return nil, err
	}
	name, _ := jsonString(t.claims["iss"])
	i := r.issuer(name)
	if i == nil {
		return nil, invalid("issuer_mismatch", "iss is %q, which is none of the accepted issuers", clean(name, 200))
	}
	return i.verify(ctx, t, r.audience)
}

// verify checks an access token of i.
func (i *issuer) verify(ctx context.Context, t *jwt, audience string) (*AccessToken, error) {
	at := slices.IndexFunc(i.keys, func(s *keySet) bool { return s.alg == t.alg })
	if at < 0 { // RFC 8725 §3.1
		return nil, invalid("algorithm", "the access token is signed with %q, which is not accepted of its issuer", clean(t.alg, 40))
	}
	c, k := t.claims, clock{now: i.rp.now(), leeway: i.rp.cfg.Leeway}
	audiences, err := c.audience()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(audiences, audience) { // RFC 9068 §4: for us, among others perhaps
		return nil, invalid("audience", "aud is %q, want %q among them", clean(strings.Join(audiences, " "), 200), audience)
	}
	if err := i.checkKind(t, audiences); err != nil {
		return nil, err
	}
	if err := k.checkExpiry(c); err != nil {
		return nil, err
	}
	if _, err := k.issuedAt(c); err != nil {
		return nil, err
	}
	if err := checkOrganization(c, i.rp.cfg.Organization); err != nil {
		return nil, err
	}
	who, err := i.rp.identity(c, c)
	if err != nil {
		return nil, err
	}
	who.Permissions = c.list("permissions")
	who.Scopes = c.scopes()
	exp, _, err := c.time("exp")
	if err != nil {
		return nil, err
	}

	m, err := i.rp.provider(ctx)
	if err != nil {
		return nil, err
	}
	if who.Issuer != m.IssuerURL {
		return nil, invalid("issuer_mismatch", "iss is %q, want %q", clean(who.Issuer, 200), m.IssuerURL)
	}
	keys := &tokenKeys{set: i.keys[at], url: m.JWKSURL}
	_, err = keys.VerifySignature(ctx, t.raw)
	var down *Unavailable
	switch {
	case errors.As(err, &down):
		return nil, down
	case err != nil:
		return nil, &Invalid{Reason: "signature", Detail: err.Error(), Err: err}
	}
	return &AccessToken{Identity: *who, Expires: exp}, nil
}

// checkKind refuses what is no access token although the issuer signed it (RFC 8725 §3.11): ID tokens, logout tokens, and
// whatever says that it is something else. Without typ at+jwt an access token is known by what it has not.
func (i *issuer) checkKind(t *jwt, audiences []string) error {
	if t.typ != "" && t.typ != "jwt" && t.typ != "at+jwt" {
		return invalid("token_type", "typ %q is not that of an access token", clean(t.typ, 40))
	}
	for _, name := range []string{"nonce", "at_hash", "c_hash", "events"} {
		if _, present := t.claims[name]; present {
			return invalid("token_type", "an access token has no %s; it is an ID token or a logout token", name)
		}
	}
	if _, present := t.claims["cnf"]; present { // RFC 9449 §7.2, RFC 8705 §3
		return invalid("token_type", "the access token is bound to a key of the client, which is not supported")
	}
	// A renewed ID token has neither nonce nor at_hash.
	if t.typ != "at+jwt" && !slices.ContainsFunc(audiences, func(a string) bool { return a != i.rp.cfg.ClientID }) {
		return invalid("token_type", "aud is the client ID alone, as in an ID token")
	}
	return nil
}

// scopes are those of an access token: scope, separated by spaces (RFC 9068 §2.2.3), or scp, a list or the like.
func (c claims) scopes() []string {
	if s, ok := jsonString(c["scope"]); ok {
		return strings.Fields(s)
	}
	if s, ok := jsonString(c["scp"]); ok {
		return strings.Fields(s)
	}
	return c.list("scp")
}

// withPermissions adds to the user of t what the access token says that the user may do at our API. It is about what was
// granted, not about who the user is: nothing else is taken from it, and nothing from a token about somebody else. When it
// does not verify, there are no permissions; when that cannot be found out, they stay as they were.
func (rp *RelyingParty) withPermissions(ctx context.Context, t *Tokens, before []string) *Tokens {
	if rp.cfg.Audience == "" {
		return t
	}
	r := Resource{rp.cfg.Audience, []issuer{{rp, []*keySet{rp.keys}}}}
	at, err := r.Verify(ctx, t.AccessToken)
	if err == nil && at.Identity.Subject != t.Identity.Subject {
		err = invalid("subject", "sub is not that of the ID token")
	}
	var down *Unavailable
	switch {
	case errors.As(err, &down):
		t.Identity.Permissions = before
	case err != nil:
		t.Identity.Permissions = nil
		rp.withoutPermissions.Do(func() {
			rp.log.Warn("the access token of a user who signed in says nothing about permissions, so that there are none", "audience", rp.cfg.Audience, "error", err)
		})
	default:
		t.Identity.Permissions = at.Identity.Permissions
		if len(at.Identity.Scopes) > 0 {
			t.Identity.Scopes = at.Identity.Scopes
		}
	}
	return t
}
