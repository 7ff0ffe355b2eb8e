package assertion

import (
	"crypto/ecdsa"
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
	maxToken = 64 << 10         // bytes; more than header limits let through
	maxJWKS  = 256 << 10        // bytes
	leeway   = 30 * time.Second // clock difference that Verify tolerates
)

// Verify checks an assertion as an upstream should, and returns its claims as encoding/json decodes them. jwks is the key
// set that [Signer.JWKS] publishes, got from a place that the caller trusts; issuer and audience are required.
//
// It checks that the token is ours in form and type and signed with ES256 by a key of the set, that iss is issuer and that
// aud is or contains audience, that there is a sub, and that now lies between iat and exp with 30 seconds of leeway. It does
// not remember jti: a token may be presented again while it lives, and we do send one more than once.
func Verify(token string, jwks []byte, issuer, audience string, now time.Time) (map[string]any, error) {
	keys, err := ParseKeySet(jwks)
	if err != nil {
		return nil, err
	}
	return VerifyWith(token, keys.Find, Expected{Issuer: issuer, Audience: audience, Now: now, Leeway: leeway})
}

// Expected is what [VerifyWith] asks of an assertion. Issuer, Audience and Now are required, but for what the last two
// fields do without.
type Expected struct {
	Issuer   string
	Audience string
	Now      time.Time
	Leeway   time.Duration // clock difference tolerated in iat and exp; zero means none

	InsecureAnyIssuer   bool // with an empty Issuer: any iss will do. For tools that show assertions
	InsecureAnyAudience bool // with an empty Audience: any aud will do. An app that does so believes what other apps got
}

// VerifyWith is [Verify] with a choice of where keys come from and of what is expected. It asks for a key after all that can
// be checked without one, and at most once. An error of find is returned as it is.
func VerifyWith(token string, find KeyFinder, want Expected) (map[string]any, error) {
	switch {
	case want.Issuer == "" && !want.InsecureAnyIssuer:
		return nil, errors.New("assertion: no issuer to expect")
	case want.Audience == "" && !want.InsecureAnyAudience:
		return nil, errors.New("assertion: no audience to expect")
	}
	if err := checkForm(token); err != nil {
		return nil, err
	}
	// RFC 8725 §3.1: the one algorithm is ours to choose, not the token's.
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if other := (*jose.ErrUnexpectedSignatureAlgorithm)(nil); errors.As(err, &other) {
		return nil, refuse(CheckType, "the alg is %q, want ES256", other.Got)
	}
	if err != nil {
		return nil, refuse(CheckForm, "%w", err)
	}
	header := jws.Signatures[0].Protected
	if typ := header.ExtraHeaders[jose.HeaderType]; typ != Type {
		return nil, refuse(CheckType, "the typ is %q, want %q", typ, Type)
	}
	if len(header.ExtraHeaders) > 1 || header.JSONWebKey != nil {
		return nil, refuse(CheckType, "the header has more than alg, kid and typ")
	}
	var claims map[string]any
	if err := json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &claims); err != nil {
		return nil, refuse(CheckForm, "claims: %w", err)
	}
	if err := want.check(claims); err != nil {
		return nil, err
	}
	if header.KeyID == "" {
		return nil, refuse(CheckKey, "the token names no key")
	}
	key, err := find(header.KeyID)
	if err != nil {
		return nil, err
	}
	if _, ok := key.(*ecdsa.PublicKey); !ok {
		return nil, refuse(CheckKey, "the key %q is not a public key for ES256", header.KeyID)
	}
	if _, err := jws.Verify(key); err != nil {
		return nil, refuse(CheckSignature, "the signature does not verify")
	}
	return claims, nil
}

// A Check is a thing that a token can fail at.
type Check string

// The checks, in their order.
const (
	CheckForm      Check = "form" // not a compact JWS with an object in it
	CheckType      Check = "type" // a JWT of another kind: alg, typ or another part of the header
	CheckIssuer    Check = "iss"
	CheckAudience  Check = "aud"
	CheckSubject   Check = "sub"
	CheckTime      Check = "time" // not between iat and exp
	CheckKey       Check = "key"  // not of the key set, or for something else
	CheckSignature Check = "signature"
)

// A Refusal is the error for a token that fails at a check.
type Refusal struct {
	Check Check
	err   error
}

func (r *Refusal) Error() string { return "assertion: " + r.err.Error() }
func (r *Refusal) Unwrap() error { return r.err }

func refuse(c Check, format string, args ...any) error {
	return &Refusal{c, fmt.Errorf(format, args...)}
}

// checkForm refuses what is not three parts of canonical base64url. Decoders differ in what else they let through (line
// ends, padding, stray bits), and go-jose verifies the decoded parts: a token must not have a second spelling.
func checkForm(token string) error {
	if len(token) > maxToken {
		return refuse(CheckForm, "a token of %d bytes, want %d at most", len(token), maxToken)
	}
	if strings.Count(token, ".") != 2 || strings.ContainsAny(token, "\r\n") {
		return refuse(CheckForm, "the token is not a compact JWS")
	}
	for part := range strings.SplitSeq(token, ".") {
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part); err != nil || part == "" {
			return refuse(CheckForm, "the token is not a compact JWS")
		}
	}
	return nil
}

// check checks the claims.
func (want *Expected) check(claims map[string]any) error {
	switch iss, _ := claims["iss"].(string); {
	case iss == "":
		return refuse(CheckIssuer, "no iss")
	case want.Issuer != "" && iss != want.Issuer:
		return refuse(CheckIssuer, "iss is %q, want %q", iss, want.Issuer)
	}
	switch aud := claims["aud"].(type) {
	case string:
		if aud == "" || want.Audience != "" && aud != want.Audience {
			return refuse(CheckAudience, "aud is %q, want %q", aud, want.Audience)
		}
	case []any:
		if len(aud) == 0 || want.Audience != "" && !slices.Contains(aud, any(want.Audience)) {
			return refuse(CheckAudience, "aud is %q, want %q among them", aud, want.Audience)
		}
	default:
		return refuse(CheckAudience, "no aud")
	}
	if sub, _ := claims["sub"].(string); sub == "" {
		return refuse(CheckSubject, "no sub")
	}
	iat, ok1 := claims["iat"].(float64)
	exp, ok2 := claims["exp"].(float64)
	if !ok1 || !ok2 {
		return refuse(CheckTime, "iat or exp is missing")
	}
	t, leeway := float64(want.Now.Unix()), want.Leeway.Seconds()
	switch { // RFC 7519 §4.1.4: on or after exp the token is over
	case t >= exp+leeway:
		return refuse(CheckTime, "expired %.0f s ago", t-exp)
	case t < iat-leeway:
		return refuse(CheckTime, "issued %.0f s in the future", iat-t)
	case exp <= iat:
		return refuse(CheckTime, "exp is not after iat")
	}
	return nil
}
