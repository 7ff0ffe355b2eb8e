package assertion

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxToken = 64 << 10  // bytes; more than header limits let through
	maxJWKS  = 256 << 10 // bytes
	leeway   = 30        // seconds of clock difference that Verify tolerates
)

// Verify checks an assertion as an upstream should, and returns its claims as encoding/json decodes them. jwks is the key
// set that [Signer.JWKS] publishes, got from a place that the caller trusts; issuer and audience are required.
//
// It checks that the token is ours in form and type and signed with ES256 by a key of the set, that iss is issuer and that
// aud is or contains audience, that there is a sub, and that now lies between iat and exp with 30 seconds of leeway. It does
// not remember jti: a token may be presented again while it lives, and we do send one more than once.
func Verify(token string, jwks []byte, issuer, audience string, now time.Time) (map[string]any, error) {
	switch {
	case issuer == "":
		return nil, errors.New("assertion: no issuer to expect")
	case audience == "":
		return nil, errors.New("assertion: no audience to expect")
	case len(jwks) > maxJWKS:
		return nil, fmt.Errorf("assertion: a key set of %d bytes, want %d at most", len(jwks), maxJWKS)
	}
	if err := checkForm(token); err != nil {
		return nil, err
	}
	// RFC 8725 §3.1: the one algorithm is ours to choose, not the token's.
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, fmt.Errorf("assertion: %w", err)
	}
	header := jws.Signatures[0].Protected
	if typ := header.ExtraHeaders[jose.HeaderType]; typ != Type {
		return nil, fmt.Errorf("assertion: the typ is %q, want %q", typ, Type)
	}
	if len(header.ExtraHeaders) > 1 || header.JSONWebKey != nil {
		return nil, errors.New("assertion: the header has more than alg, kid and typ")
	}
	key, err := findKey(jwks, header.KeyID)
	if err != nil {
		return nil, err
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return nil, errors.New("assertion: the signature does not verify")
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		return nil, fmt.Errorf("assertion: claims: %w", err)
	}
	if err := checkClaims(claims, issuer, audience, now); err != nil {
		return nil, err
	}
	return claims, nil
}

// checkForm refuses what is not three parts of canonical base64url. Decoders differ in what else they let through (line
// ends, padding, stray bits), and go-jose verifies the decoded parts: a token must not have a second spelling.
func checkForm(token string) error {
	if len(token) > maxToken {
		return fmt.Errorf("assertion: a token of %d bytes, want %d at most", len(token), maxToken)
	}
	if strings.Count(token, ".") != 2 || strings.ContainsAny(token, "\r\n") {
		return errors.New("assertion: the token is not a compact JWS")
	}
	for part := range strings.SplitSeq(token, ".") {
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part); err != nil || part == "" {
			return errors.New("assertion: the token is not a compact JWS")
		}
	}
	return nil
}

// findKey returns the one key of the set with that ID.
func findKey(jwks []byte, kid string) (*ecdsa.PublicKey, error) {
	if kid == "" {
		return nil, errors.New("assertion: the token names no key")
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(jwks, &set); err != nil {
		return nil, fmt.Errorf("assertion: key set: %w", err)
	}
	found := set.Key(kid)
	if len(found) != 1 {
		return nil, fmt.Errorf("assertion: the key set has %d keys %q, want one", len(found), kid)
	}
	k := found[0]
	pub, ok := k.Key.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() || k.Use != "" && k.Use != "sig" || k.Algorithm != "" && k.Algorithm != string(jose.ES256) {
		return nil, fmt.Errorf("assertion: the key %q is not a public key for ES256", kid)
	}
	return pub, nil
}

func checkClaims(claims map[string]any, issuer, audience string, now time.Time) error {
	if iss, _ := claims["iss"].(string); iss != issuer {
		return fmt.Errorf("assertion: iss is %q, want %q", iss, issuer)
	}
	switch aud := claims["aud"].(type) {
	case string:
		if aud != audience {
			return fmt.Errorf("assertion: aud is %q, want %q", aud, audience)
		}
	case []any:
		if !slices.Contains(aud, any(audience)) {
			return fmt.Errorf("assertion: aud is %q, want %q among them", aud, audience)
		}
	default:
		return errors.New("assertion: no aud")
	}
	if sub, _ := claims["sub"].(string); sub == "" {
		return errors.New("assertion: no sub")
	}
	iat, ok1 := claims["iat"].(float64)
	exp, ok2 := claims["exp"].(float64)
	if !ok1 || !ok2 {
		return errors.New("assertion: iat or exp is missing")
	}
	t := float64(now.Unix())
	switch { // RFC 7519 §4.1.4: on or after exp the token is over
	case t >= exp+leeway:
		return fmt.Errorf("assertion: expired %.0f s ago", t-exp)
	case t < iat-leeway:
		return fmt.Errorf("assertion: issued %.0f s in the future", iat-t)
	case exp <= iat:
		return errors.New("assertion: exp is not after iat")
	}
	return nil
}
