package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"authproxy/identity"
	"authproxy/oidc"
	"authproxy/proxy/pages"
	"authproxy/session"
)

// A grant is a verified bearer token: who it speaks for, and nothing about what that user may do. Requests with the same
// token share it.
type grant struct {
	identity *identity.Identity
	id       string           // for assertions: opaque, and the same as long as the token is
	expires  time.Time        // exp
	session  *session.Session // what we know of the session that it dies with; nil: none, it is an access token
	memo     sync.Map
}

// bearerToken reads a bearer token from Authorization, the one place where it may be (RFC 6750 §2.1; not in a form or the
// query, §2.2, §2.3): one header line, the scheme in any case, one space, and b64token. found says that a bearer token was
// meant; it is "" when it is malformed. Other schemes are not ours.
func bearerToken(h http.Header) (token string, found bool) {
	const scheme = "Bearer"
	lines := h["Authorization"]
	for _, line := range lines {
		if len(line) >= len(scheme) && strings.EqualFold(line[:len(scheme)], scheme) && (len(line) == len(scheme) || !tokenChar(line[len(scheme)])) {
			found = true
		}
	}
	if !found || len(lines) > 1 {
		return "", found
	}
	token, ok := strings.CutPrefix(lines[0][len(scheme):], " ")
	if !ok || !isB64token(token) {
		return "", true
	}
	return token, true
}

// tokenChar says whether c can be part of the name of a scheme (RFC 9110 §5.6.2).
func tokenChar(c byte) bool { return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 }

// isB64token says whether s is a b64token (RFC 6750 §2.1).
func isB64token(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && strings.IndexByte("-._~+/", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// authenticateBearer finds out who a bearer token speaks for; "" is a malformed one. That a token is good says nothing about
// a route: the policy is asked for each request.
func (p *Proxy) authenticateBearer(x *exchange, token string) (visitor, error) {
	if token == "" {
		return p.refuseToken(x, "malformed", nil)
	}
	ctx, key, now := x.r.Context(), sha256.Sum256([]byte(token)), p.now()
	g := p.grants.get(key, now)
	if g == nil {
		var err error
		if g, err = p.verifyBearer(ctx, token, key); err != nil {
			return p.badToken(x, err)
		}
		p.grants.put(key, g, len(token), now)
	}
	if g.session != nil {
		alive, err := p.opts.Sessions.Alive(ctx, g.session)
		if err != nil {
			return visitor{}, p.storeFailure(err)
		}
		if !alive || !sameIssuer(g.identity.Issuer, p.opts.Provider.Issuer()) {
			return p.refuseToken(x, "ended", nil)
		}
	}
	return visitor{Identity: g.identity, grant: g, value: token}, nil
}

// verifyBearer verifies a token of ours or of an issuer.
func (p *Proxy) verifyBearer(ctx context.Context, token string, key [32]byte) (*grant, error) {
	if p.appTokens != nil && isAppToken(token) {
		return p.appTokens.verify(token, p.now())
	}
	t, err := p.opts.Bearer.Verify(ctx, token)
	if err != nil {
		return nil, err
	}
	return &grant{identity: &t.Identity, id: base64.RawURLEncoding.EncodeToString(key[:16]), expires: t.Expires}, nil
}

// badToken is the answer to a token that does not verify, or of which that cannot be found out.
func (p *Proxy) badToken(x *exchange, err error) (visitor, error) {
	var invalid *oidc.Invalid
	if errors.As(err, &invalid) {
		return p.refuseToken(x, invalid.Reason, err)
	}
	var ours appTokenError
	if errors.As(err, &ours) {
		return p.refuseToken(x, string(ours), err)
	}
	// The issuer is down, or is not what the configuration says: nobody knows whose token it is.
	retry := 5 * time.Second
	var unavailable *oidc.Unavailable
	if errors.As(err, &unavailable) {
		retry = max(unavailable.RetryAfter, time.Second)
	}
	return visitor{}, &failure{page: pages.Unavailable(""), code: "provider_unavailable", cause: fmt.Errorf("access token: %w", err), retry: retry, json: true}
}

// refuseToken answers 401 as RFC 6750 §3.1 says. Where anyone is allowed the token changes nothing: it may be the app's own.
func (p *Proxy) refuseToken(x *exchange, why string, cause error) (visitor, error) {
	if x.route != nil && x.route.policy.Anyone {
		return anonymous, nil
	}
	description, more := "the access token is not accepted here", ""
	switch why {
	case "malformed":
		description = "the access token is malformed"
	case "expired":
		description = "the access token has expired"
	case "ended":
		description = "the session of the token has ended"
	case "audience":
		description, more = "the access token is for another audience", ": request one for "+p.opts.Bearer.Audience()
	case "opaque":
		description, more = "the access token is opaque", ": request one for the audience "+p.opts.Bearer.Audience()
	}
	return visitor{}, &failure{
		page: pages.Error{Status: http.StatusUnauthorized, Message: description + more}, code: "invalid_token", reason: "bearer token refused: " + why, cause: cause,
		header: p.bearerChallenge("invalid_token", description), json: true,
	}
}

// twoCredentials is the answer to a request with a session cookie and a bearer token: which one counts, and whether a page
// of another site made a browser send the cookie, is not for us to guess.
func (p *Proxy) twoCredentials() error {
	const description = "a session cookie and a bearer token came together"
	return &failure{
		page: pages.Error{Status: http.StatusBadRequest, Message: description + ": send one of them, from a browser with credentials: omit"}, code: "invalid_request",
		reason: description, header: p.bearerChallenge("invalid_request", description), json: true,
	}
}

// insufficientScope is for a token whose user may not use the route (RFC 6750 §3.1).
func (p *Proxy) insufficientScope() error {
	const description = "the access token does not allow this"
	return &failure{
		page: pages.Error{Status: http.StatusForbidden, Message: description}, code: "insufficient_scope",
		header: p.bearerChallenge("insufficient_scope", description), json: true,
	}
}

// bearerChallenge is the WWW-Authenticate header of an error (RFC 6750 §3). The texts are ours and need no escapes.
func (p *Proxy) bearerChallenge(code, description string) [2]string {
	return [2]string{"WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s", error="%s", error_description="%s"`, p.opts.PublicURL.Host, code, description)}
}

// Grants are remembered in bounded memory. A token is verified again after a while, so that a key that its issuer takes back
// counts for nothing soon after.
const (
	grantFresh = 5 * time.Minute
	grantBytes = 64 << 20
)

// grants finds the grants of tokens that were verified, by the hash of the exact token: the tokens themselves are not kept.
// Which go when it is full is arbitrary: a miss costs a signature.
type grants struct {
	mu      sync.RWMutex
	entries map[[32]byte]granted
	cost    int
}

type granted struct {
	grant *grant
	until time.Time
	cost  int
}

func newGrants() *grants { return &grants{entries: map[[32]byte]granted{}} }

// get returns the grant of a token, or nil when it has to be verified.
func (gs *grants) get(key [32]byte, now time.Time) *grant {
	gs.mu.RLock()
	defer gs.mu.RUnlock()
	if e, ok := gs.entries[key]; ok && now.Before(e.until) {
		return e.grant
	}
	return nil
}

// put remembers the grant of a token of that length. What it costs in memory, with headers and assertions for a few routes,
// is estimated.
func (gs *grants) put(key [32]byte, g *grant, length int, now time.Time) {
	e := granted{g, now.Add(grantFresh), 4096 + 4*length}
	if g.expires.Before(e.until) {
		e.until = g.expires
	}
	gs.mu.Lock()
	defer gs.mu.Unlock()
	gs.cost -= gs.entries[key].cost
	delete(gs.entries, key)
	for k, old := range gs.entries {
		if gs.cost+e.cost <= grantBytes {
			break
		}
		gs.cost -= old.cost
		delete(gs.entries, k)
	}
	gs.entries[key] = e
	gs.cost += e.cost
}
