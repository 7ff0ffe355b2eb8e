// Package oidc is the relying party: it signs users in with one OpenID Provider by the authorization code flow.
//
// It promises that what it returns was checked as OpenID Connect Core §3.1.3.7, RFC 9700 and RFC 8725 ask: discovery, the
// authorization request, the code exchange, the ID token, refresh, and back-channel logout tokens. It knows nothing of
// cookies, sessions or routes, so its caller
//   - keeps a [Login] sealed in the browser that started it, and gives it up in every outcome of the callback,
//   - finds the Login by the state of the callback (Finish compares it again),
//   - keeps refresh tokens away from the browser and lets only one Refresh of a session run at a time,
//   - remembers the IDs of logout tokens, so that one is used once.
//
// The usual way:
//
//	rp, err := oidc.New(cfg)                       // no network
//	go rp.Run(ctx)                                 // discovery, and again every ten minutes
//	url, login, err := rp.Start(ctx, oidc.AuthRequest{State: state})
//	tokens, err := rp.Finish(ctx, login, r.URL.Query())
//
// A [Resource] checks access tokens that others present to us, by the same discovery and keys.
//
// Errors are *[Unavailable], *[Denied], *[Invalid] or *[Misconfigured]. Their texts hold no code, token, secret, state or code
// verifier.
package oidc

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config says who the provider is and how to talk to it. Issuer, ClientID, RedirectURL and one of ClientSecret and
// PrivateKey are required.
type Config struct {
	Issuer       string // https, or http on a loopback host; compared exactly, see [RelyingParty.Issuer]
	ClientID     string
	ClientSecret string
	PrivateKey   crypto.Signer // RSA, ECDSA or Ed25519, for private_key_jwt
	ClientAuth   string        // "auto", "post", "basic" or "private_key_jwt"; "" means auto
	Auth0        bool          // configured as an Auth0 domain: auto client authentication is post, auto logout falls back to /v2/logout
	RedirectURL  string        // byte-equal in both legs
	Scopes       []string      // openid is added when it is missing
	Audience     string        // "" asks for none
	Params       map[string]string
	Organization string        // its ID (org_...) or name: every login must be for it; "" means any or none
	IDTokenAlg   string        // the one accepted algorithm, asymmetric; "" means RS256. What the provider advertises does not matter
	Leeway       time.Duration // clock difference tolerated; zero means none
	Claims       ClaimNames
	KeepClaims   []string // further claims that end up in Identity.Claims
	Logout       string   // "auto", "auth0" (/v2/logout), "oidc" (end_session_endpoint) or "local"; "" means auto
	Federated    bool     // ask the provider to sign the user out of the provider behind it as well
	Userinfo     bool     // also ask the userinfo endpoint, at login and at refresh
	CAs          *x509.CertPool
	Now          func() time.Time // nil means time.Now
	Log          *slog.Logger     // nil discards

	// Observe is called after each request to the provider; nil means nobody wants to know. op is discovery, keys, token,
	// refresh, userinfo or revocation. It must be quick and safe for concurrent use.
	Observe func(op string, took time.Duration, err error)
}

// ClaimNames says which claim each field of an identity comes from. A name is one whole claim name, dots and slashes
// included. "" means groups, email, name and preferred_username (for which nickname stands in).
//
// With another claim than email, an address counts as verified only when it is the one in the claim email as well, because
// email_verified speaks of that one (OIDC Core §5.1).
type ClaimNames struct{ Groups, Email, Name, Username string }

// A RelyingParty signs users in with one provider. It is safe for concurrent use. Make one with [New].
type RelyingParty struct {
	cfg       Config
	issuer    *url.URL      // as configured
	maxAge    time.Duration // of Params
	log       *slog.Logger
	now       func() time.Time
	keys      *keySet
	keysOnly  bool         // only tokens of the provider are verified; see NewResource
	documents *http.Client // discovery and keys: redirects within the origin
	plain     *http.Client // everything that carries a secret: no redirects

	withoutPermissions sync.Once // says in the log that nobody has any

	meta atomic.Pointer[metadata] // the last good one; nil until discovery succeeds

	mu        sync.Mutex
	running   *discovery // the discovery under way, or nil
	failed    time.Time  // when discovery last failed
	failure   error      // and how; nil after a success
	announced string     // the last failure that was logged
}

// reserved are the authorization parameters that are ours alone, so that no configuration can weaken a login.
var reserved = []string{"response_type", "response_mode", "client_id", "client_secret", "redirect_uri", "scope", "state", "nonce",
	"code_challenge", "code_challenge_method", "request", "request_uri", "audience", "organization"}

// New checks cfg and returns a RelyingParty without using the network. All mistakes are reported at once.
func New(cfg Config) (*RelyingParty, error) {
	rp := &RelyingParty{cfg: cfg, log: cfg.Log, now: cfg.Now}
	names := &rp.cfg.Claims
	names.Groups = cmp.Or(names.Groups, "groups")
	names.Email = cmp.Or(names.Email, "email")
	names.Name = cmp.Or(names.Name, "name")
	names.Username = cmp.Or(names.Username, "preferred_username")
	rp.cfg.IDTokenAlg = cmp.Or(cfg.IDTokenAlg, "RS256")
	rp.cfg.ClientAuth = cmp.Or(cfg.ClientAuth, "auto")
	rp.cfg.Logout = cmp.Or(cfg.Logout, "auto")
	var wrong []error
	mistake := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf("oidc: "+format, args...)) }

	var err error
	if rp.issuer, err = parseIssuer(cfg.Issuer); err != nil {
		mistake("%w", err)
	}
	if cfg.ClientID == "" {
		mistake("the client ID is missing")
	}
	if cfg.RedirectURL == "" {
		mistake("the redirect URL is missing")
	}
	switch auth := rp.cfg.ClientAuth; {
	case !slices.Contains([]string{"auto", "post", "basic", "private_key_jwt"}, auth):
		mistake("client authentication %q, want auto, post, basic or private_key_jwt", auth)
	case auth == "private_key_jwt" && cfg.PrivateKey == nil:
		mistake("client authentication private_key_jwt needs a private key")
	case (auth == "post" || auth == "basic") && cfg.ClientSecret == "":
		mistake("client authentication %s needs a client secret", auth)
	case cfg.PrivateKey == nil && cfg.ClientSecret == "":
		mistake("neither a client secret nor a private key is given")
	}
	if cfg.PrivateKey != nil {
		if _, err := assertionAlg(cfg.PrivateKey); err != nil {
			mistake("%w", err)
		}
	}
	if _, ok := keyKinds[rp.cfg.IDTokenAlg]; !ok {
		mistake("ID token algorithm %q is not one of %s", cfg.IDTokenAlg, strings.Join(slices.Sorted(maps.Keys(keyKinds)), ", "))
	}
	if !slices.Contains([]string{"auto", "auth0", "oidc", "local"}, rp.cfg.Logout) {
		mistake("logout %q, want auto, auth0, oidc or local", cfg.Logout)
	}
	if cfg.Leeway < 0 {
		mistake("leeway %s is negative", cfg.Leeway)
	}
	if !slices.Contains(cfg.Scopes, "openid") {
		rp.cfg.Scopes = append([]string{"openid"}, cfg.Scopes...) // OIDC Core §3.1.2.1: without it there is no ID token
	}
	rp.cfg.Params = maps.Clone(cfg.Params)
	for _, name := range slices.Sorted(maps.Keys(cfg.Params)) {
		if slices.Contains(reserved, name) {
			mistake("authorization parameter %q cannot be configured as an extra one", name)
		}
	}
	if s, ok := cfg.Params["max_age"]; ok {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 1<<30 {
			mistake("authorization parameter max_age %q, want whole seconds, at least 1", s)
		}
		rp.maxAge = time.Duration(n) * time.Second
		delete(rp.cfg.Params, "max_age") // so that auth_time is checked
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}

	if rp.now == nil {
		rp.now = time.Now
	}
	if rp.log == nil {
		rp.log = slog.New(slog.DiscardHandler)
	}
	rp.documents, rp.plain = newClients(cfg.CAs)
	rp.keys = &keySet{alg: rp.cfg.IDTokenAlg, now: rp.now, get: rp.fetchKeys}
	return rp, nil
}

func parseIssuer(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("issuer %q is not a URL", raw)
	}
	if err := checkEndpoint(raw, u); err != nil {
		return nil, fmt.Errorf("issuer %w", err)
	}
	if u.RawQuery != "" || u.ForceQuery { // OIDC Discovery §3
		return nil, fmt.Errorf("issuer %q has a query", raw)
	}
	return u, nil
}

// Run keeps what is known of the provider up to date: it tries discovery until it succeeds, waiting 0.25 s and then twice
// as long each time up to 30 s, and again every ten minutes. It returns when ctx ends.
func (rp *RelyingParty) Run(ctx context.Context) {
	const first, longest, renew = 250 * time.Millisecond, 30 * time.Second, 10 * time.Minute
	retry := first
	for {
		wait := renew
		m, err := rp.renew(ctx)
		if err == nil {
			retry = first
			rp.keys.current(ctx, m.JWKSURL) // so that the first login need not wait; a failure shows when they are used
		} else {
			wait = retry
			retry = min(2*retry, longest)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// Issuer is the provider's issuer: as the provider spells it once discovery has succeeded, until then as configured. The
// two may differ by one trailing slash, and only when the issuer has no path.
func (rp *RelyingParty) Issuer() string {
	if m := rp.meta.Load(); m != nil {
		return m.IssuerURL
	}
	return rp.cfg.Issuer
}

// Discovered reports whether discovery has succeeded at least once.
func (rp *RelyingParty) Discovered() bool { return rp.meta.Load() != nil }
