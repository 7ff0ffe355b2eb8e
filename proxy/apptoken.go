package proxy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"authproxy/assertion"
	"authproxy/identity"
	"authproxy/policy"
	"authproxy/proxy/pages"
	"authproxy/session"
)

// AppToken describes the tokens of our own that the app's pages can get: JWTs about who is signed in, with a life of TTL and
// never longer than the session's. Where access tokens are credentials, so are these, until their session ends.
type AppToken struct {
	TTL     time.Duration // at least a second
	Handoff bool          // serve the page that puts a token into localStorage

	Key         []byte              // of HS256, at least 32 bytes, shared with the app; nil: ES256
	SigningKeys []*ecdsa.PrivateKey // of ES256: the first signs, all verify
}

// appTokenType keeps these tokens apart from every other JWT (RFC 8725 §3.11), first of all from assertions, which may be
// signed with the same keys.
const appTokenType = "authproxy-app+jwt"

// purposeAppToken is what the reference in an app token is sealed for.
const purposeAppToken = "app token"

// headerReference is the header of an app token in which we note, sealed, what only we need to know. RFC 7515 §4.3: it
// is ignored by whoever does not know it.
const headerReference = "ref"

// appTokens mints and verifies app tokens.
type appTokens struct {
	ttl     time.Duration
	origin  string // iss and aud
	sealer  *session.Sealer
	cookie  string // to which references are bound
	alg     jose.SignatureAlgorithm
	signing any            // key to sign with
	keys    map[string]any // to verify with, by ID; HS256 has one without
}

func newAppTokens(conf *AppToken, origin string, sealer *session.Sealer, cookie string) (*appTokens, error) {
	a := &appTokens{ttl: conf.TTL, origin: origin, sealer: sealer, cookie: cookie, keys: map[string]any{}}
	switch {
	case conf.TTL < time.Second:
		return nil, fmt.Errorf("proxy: app tokens with a life of %s, want a second at least", conf.TTL)
	case conf.Key != nil && len(conf.Key) < 32: // RFC 7518 §3.2
		return nil, fmt.Errorf("proxy: an app token key of %d bytes, want 32 at least", len(conf.Key))
	case conf.Key != nil:
		a.alg, a.signing, a.keys[""] = jose.HS256, conf.Key, conf.Key
		return a, nil
	case len(conf.SigningKeys) == 0:
		return nil, errors.New("proxy: app tokens need a key")
	}
	a.alg = jose.ES256
	for i, k := range conf.SigningKeys {
		id, err := assertion.KeyID(k.Public())
		if err != nil {
			return nil, err
		}
		if i == 0 {
			a.signing = jose.JSONWebKey{Key: k, KeyID: id}
		}
		a.keys[id] = k.Public()
	}
	return a, nil
}

// appClaims are the claims of an app token: who is signed in, as /me says it, and what policies ask for.
type appClaims struct {
	Issuer        string         `json:"iss"`
	Audience      string         `json:"aud"`
	Subject       string         `json:"sub"`
	Provider      string         `json:"idp"`
	SessionID     string         `json:"sid"`
	ID            string         `json:"jti"`
	IssuedAt      int64          `json:"iat"`
	Expires       int64          `json:"exp"`
	Name          string         `json:"name,omitempty"`
	Username      string         `json:"username,omitempty"`
	Email         string         `json:"email,omitempty"`
	EmailVerified *bool          `json:"email_verified,omitempty"`
	Groups        []string       `json:"groups,omitempty"`
	Organization  string         `json:"org_id,omitempty"`
	Permissions   []string       `json:"permissions,omitempty"`
	Scope         string         `json:"scope,omitempty"`
	ACR           string         `json:"acr,omitempty"`
	AuthTime      int64          `json:"auth_time,omitempty"`
	Claims        map[string]any `json:"claims,omitempty"` // the further ones, in an object of their own: none can pass for one of those above
}

// A reference is what we need to know of an app token and do not tell: how to ask for its session, and which claims we put
// into it. So whoever else can sign with the key cannot make tokens that we believe.
type reference struct {
	Claims      []byte `json:"h"` // SHA-256 of the payload
	ProviderSID string `json:"d,omitempty"`
	Created     int64  `json:"c"` // of the session, milliseconds
	Expires     int64  `json:"x"`
}

// mint signs a token for the user of s that expires at the given time.
func (a *appTokens) mint(s *session.Session, now, expires time.Time) (string, error) {
	who := s.Identity
	c := appClaims{
		Issuer: a.origin, Audience: a.origin, Subject: who.Subject, Provider: who.Issuer, SessionID: s.ID, ID: rand.Text(), IssuedAt: now.Unix(), Expires: expires.Unix(),
		Name: who.Name, Username: who.Username, Email: who.Email, Groups: who.Groups, Organization: who.Organization,
		Permissions: who.Permissions, Scope: strings.Join(who.Scopes, " "), ACR: who.ACR, Claims: who.Claims,
	}
	if who.Email != "" {
		c.EmailVerified = &who.EmailVerified
	}
	if !who.AuthTime.IsZero() {
		c.AuthTime = who.AuthTime.Unix()
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(payload)
	text, err := json.Marshal(reference{sum[:], s.ProviderSID, s.Created.UnixMilli(), s.Expires.UnixMilli()})
	if err != nil {
		return "", err
	}
	ref, err := a.sealer.Seal(purposeAppToken, a.cookie, text)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: a.alg, Key: a.signing}, new(jose.SignerOptions).WithType(appTokenType).WithHeader(headerReference, ref))
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// isAppToken says whether a token says that it is one of ours. It may lie.
func isAppToken(token string) bool {
	first, _, _ := strings.Cut(token, ".")
	header, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil {
		return false
	}
	var h struct {
		Type string `json:"typ"`
	}
	return json.Unmarshal(header, &h) == nil && h.Type == appTokenType
}

// appTokenError says why a token is none that we issued, or no longer good.
type appTokenError string

func (e appTokenError) Error() string { return "app token: " + string(e) }

// verify checks everything about an app token but that its session is alive, which is asked on each use.
func (a *appTokens) verify(token string, now time.Time) (*grant, error) {
	refuse := func(why appTokenError) (*grant, error) { return nil, why }
	for part := range strings.SplitSeq(token, ".") { // one token, one spelling
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
			return refuse("not base64url")
		}
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{a.alg}) // RFC 8725 §3.1
	if err != nil {
		return refuse("another algorithm, or malformed")
	}
	header := jws.Signatures[0].Protected
	if header.ExtraHeaders[jose.HeaderType] != appTokenType {
		return refuse("another typ")
	}
	key, known := a.keys[header.KeyID]
	if !known {
		return refuse("an unknown key")
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return refuse("the signature does not verify")
	}
	ref, ok := a.open(header.ExtraHeaders[headerReference])
	if sum := sha256.Sum256(payload); !ok || !bytes.Equal(ref.Claims, sum[:]) {
		return refuse("signed with our key, and not made by us")
	}
	var c appClaims
	if err := json.Unmarshal(payload, &c); err != nil {
		return refuse("the claims are not JSON")
	}
	expires := time.Unix(c.Expires, 0)
	switch {
	case c.Issuer != a.origin || c.Audience != a.origin:
		return refuse("made for another origin")
	case c.Subject == "" || c.SessionID == "":
		return refuse("about nobody")
	case !now.Before(expires): // RFC 7519 §4.1.4. The clock is ours, so there is no leeway
		return refuse("expired")
	}
	who := &identity.Identity{
		Issuer: c.Provider, Subject: c.Subject, Name: c.Name, Username: c.Username, Email: c.Email, Groups: c.Groups, Organization: c.Organization,
		Permissions: c.Permissions, Scopes: strings.Fields(c.Scope), ACR: c.ACR, Claims: c.Claims,
	}
	who.EmailVerified = c.EmailVerified != nil && *c.EmailVerified
	if c.AuthTime != 0 {
		who.AuthTime = time.Unix(c.AuthTime, 0)
	}
	return &grant{identity: who, id: c.SessionID, expires: expires, session: &session.Session{
		ID: c.SessionID, Identity: who, ProviderSID: ref.ProviderSID, Created: time.UnixMilli(ref.Created), Expires: time.UnixMilli(ref.Expires),
	}}, nil
}

func (a *appTokens) open(sealed any) (ref reference, ok bool) {
	text, isText := sealed.(string)
	if !isText {
		return reference{}, false
	}
	plain, _, ok := a.sealer.Open(purposeAppToken, a.cookie, text)
	return ref, ok && json.Unmarshal(plain, &ref) == nil
}

// appToken mints a token for the visitor, who is signed in with a session. It is "" when the session is about to end.
func (p *Proxy) appToken(who visitor) (token string, life time.Duration, err error) {
	s, now := who.session, p.now()
	expires := now.Add(p.appTokens.ttl)
	for _, end := range []time.Time{s.Expires, s.Created.Add(p.opts.Sessions.Life), now.Add(p.opts.Sessions.Idle)} {
		if end.Before(expires) {
			expires = end
		}
	}
	if life = expires.Truncate(time.Second).Sub(now.Truncate(time.Second)); life < time.Second {
		return "", 0, nil
	}
	token, err = p.appTokens.mint(s, now, expires)
	return token, life, err
}

// token gives the app's own pages a token (RFC 6749 §5.1). Other sites can neither read the answer, for there is no CORS
// header, nor make us give one.
func (p *Proxy) token(x *exchange) error {
	if !p.sameOrigin(x.r) {
		return &failure{page: pages.CrossSite(p.home()), code: "cross_site", reason: "another site posted to /token"}
	}
	who, err := p.authenticate(x)
	if err != nil {
		return err
	}
	if who.session == nil {
		return p.notSignedIn()
	}
	x.who = who.Identity
	token, life, err := p.appToken(who)
	if err != nil {
		return err
	}
	if token == "" {
		return p.notSignedIn()
	}
	p.json(x, http.StatusOK, map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": int64(life / time.Second)})
	return nil
}

// handoff puts a token into the browser's localStorage for the origin that was asked, and goes on to return_to. Who is not
// signed in is sent through the login and comes back. Nothing but a navigation gets the page, so that no element of a page
// can load it.
func (p *Proxy) handoff(x *exchange) error {
	q, err := onceQuery(x.target.query, "return_to")
	if err != nil {
		return p.badRequest(err)
	}
	who, err := p.authenticate(x)
	if err != nil {
		return err
	}
	if who.session == nil {
		return p.challenge(x, &route{}, anonymous, policy.Decision{Remedy: policy.Login, Reason: "not signed in"})
	}
	x.who = who.Identity
	if !navigation(x.r) {
		return p.badRequest(errors.New("the hand-over page is for navigations"))
	}
	token, _, err := p.appToken(who)
	if err != nil {
		return err
	}
	to := p.returnTo(q["return_to"])
	if token == "" {
		return &redirect{http.StatusSeeOther, to, "the session is about to end"}
	}
	x.reason = "token handed over"
	p.page(x, http.StatusOK, pages.Handoff{Host: p.opts.PublicURL.Host, Token: token, URL: to})
	return nil
}

// signedOut is where a logout goes on to when the browser may hold a token: by way of a page that removes it, which no
// header could do without everything else that the app has stored (Clear-Site-Data). The token is worth nothing by then.
func (p *Proxy) signedOut(x *exchange, to string) error {
	if p.opts.AppToken == nil || !p.opts.AppToken.Handoff || !wantsPage(x.r) {
		return &redirect{http.StatusSeeOther, to, "signed out"}
	}
	x.reason = "signed out"
	p.page(x, http.StatusOK, pages.Forget{Host: p.opts.PublicURL.Host, URL: to})
	return nil
}
