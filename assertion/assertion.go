// Package assertion makes the signed statements by which upstreams know who is calling: the assertion, a JWT about the
// user, and the HTTP message signature (RFC 9421) over a whole request. It publishes the keys to verify them with, and
// verifies both as an upstream does.
//
// It does not know how the user logged in, and whether the user may make the request. Whoever calls [Signer.Mint] has
// decided that, and chooses the audience; an upstream that gets an assertion for another audience must refuse it.
//
// The usual way: one [Signer] for each configuration, an assertion per session and audience that is kept until half of
// its life is over, and [MessageSigner.Sign] as the last change to each request.
package assertion

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"authproxy/identity"

	"github.com/go-jose/go-jose/v4"
)

// Type is the typ header of an assertion. A type of our own keeps other JWTs, such as ID tokens and the tokens for an
// app's pages, from being taken for assertions (RFC 8725 §3.11).
const Type = "authproxy-assertion+jwt"

// registered are the claims that Mint alone gives a meaning to. No further claim can stand in for one of them, not even
// where Mint leaves it out: the provider's sid, say, is not ours.
var registered = []string{
	"iss", "aud", "sub", "idp", "iat", "nbf", "exp", "jti", "sid",
	"email", "email_verified", "name", "username", "groups", "auth_time",
}

// A Signer mints assertions and publishes the keys to verify them with. Make one with [NewSigner]; it is safe for
// concurrent use.
type Signer struct {
	issuer string
	life   int64 // seconds
	signer jose.Signer

	mu        sync.Mutex // for writing to keys and published
	keys      []jose.JSONWebKey
	published atomic.Pointer[publication]
}

// NewSigner returns a Signer whose assertions have the given iss and live for ttl, rounded down to whole seconds; a
// second is the least. The keys are on P-256: the first signs, all are published, one that comes twice once.
func NewSigner(issuer string, ttl time.Duration, keys []*ecdsa.PrivateKey) (*Signer, error) {
	switch {
	case issuer == "":
		return nil, errors.New("assertion: no issuer")
	case ttl < time.Second:
		return nil, fmt.Errorf("assertion: a life of %s, want a second at least", ttl)
	case len(keys) == 0:
		return nil, errors.New("assertion: no signing key")
	}
	s := &Signer{issuer: issuer, life: int64(ttl / time.Second)}
	public := make([]jose.JSONWebKey, len(keys))
	for i, k := range keys {
		if k == nil || k.Curve != elliptic.P256() {
			return nil, fmt.Errorf("assertion: signing key %d is not on the curve P-256", i)
		}
		id, err := KeyID(&k.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("assertion: signing key %d: %w", i, err)
		}
		public[i] = jose.JSONWebKey{Key: &k.PublicKey, KeyID: id, Algorithm: string(jose.ES256), Use: "sig"}
	}
	var err error
	s.signer, err = jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: keys[0], KeyID: public[0].KeyID}},
		new(jose.SignerOptions).WithType(Type))
	if err != nil {
		return nil, fmt.Errorf("assertion: %w", err)
	}
	if err := s.Publish(public...); err != nil {
		return nil, err
	}
	return s, nil
}

// Mint signs an assertion about who, for audience, beginning now. The token is good until expires, give or take the
// leeway of the verifier. The claims are, besides iss, aud, iat, exp and a random jti: sub, idp (the provider's issuer), sid,
// email, email_verified, name, username, groups, auth_time and those of the further claims named in claims. What who does
// not have is left out, except groups, which is always an array; so is an empty sid.
//
// Nobody gets no assertion: an anonymous who is an error, as is an empty audience. Mint does not bound the size of the
// token, which grows with the groups.
func (s *Signer) Mint(who *identity.Identity, claims []string, sid, audience string, now time.Time) (token string, expires time.Time, err error) {
	switch {
	case who == nil || who.IsAnonymous():
		return "", time.Time{}, errors.New("assertion: nobody is signed in")
	case audience == "":
		return "", time.Time{}, errors.New("assertion: no audience")
	}
	iat := now.Unix()
	exp := iat + s.life
	c := map[string]any{
		"iss": s.issuer, "aud": audience, "sub": who.Subject, "iat": iat, "exp": exp, "jti": rand.Text(), "groups": who.Groups,
	}
	if who.Groups == nil {
		c["groups"] = []string{}
	}
	put := func(name string, v any) {
		if v != nil && v != "" {
			c[name] = v
		}
	}
	put("idp", who.Issuer)
	put("sid", sid)
	for _, name := range []string{"email", "email_verified", "name", "username", "auth_time"} {
		put(name, who.Value(name))
	}
	for _, name := range claims {
		if !slices.Contains(registered, name) {
			put(name, who.Value(name))
		}
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("assertion: claims: %w", err)
	}
	jws, err := s.signer.Sign(payload)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("assertion: signing: %w", err)
	}
	token, err = jws.CompactSerialize()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("assertion: %w", err)
	}
	return token, time.Unix(exp, 0), nil
}
