package assertion

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// A KeyFinder returns the public key with an ID, an *ecdsa.PublicKey on P-256 or an ed25519.PublicKey.
type KeyFinder = func(keyID string) (crypto.PublicKey, error)

// A KeySet is the key set that [Signer.JWKS] publishes, as those who verify see it. It does not change.
type KeySet struct{ set jose.JSONWebKeySet }

// ParseKeySet reads a key set (RFC 7517 §5), got from a place that the caller trusts. One without keys is an error.
func ParseKeySet(jwks []byte) (*KeySet, error) {
	if len(jwks) > maxJWKS {
		return nil, fmt.Errorf("assertion: a key set of %d bytes, want %d at most", len(jwks), maxJWKS)
	}
	s := new(KeySet)
	if err := json.Unmarshal(jwks, &s.set); err != nil {
		return nil, fmt.Errorf("assertion: key set: %w", err)
	}
	if len(s.set.Keys) == 0 {
		return nil, errors.New("assertion: a key set without keys")
	}
	return s, nil
}

// Find is a [KeyFinder]. Two keys of one ID are none; so is one for anything but the signatures that we make. What is not
// found is a *[Refusal] at [CheckKey].
func (s *KeySet) Find(keyID string) (crypto.PublicKey, error) {
	found := s.set.Key(keyID)
	if len(found) != 1 {
		return nil, refuse(CheckKey, "the key set has %d keys %q, want one", len(found), keyID)
	}
	k, alg := found[0], jose.ES256
	switch public := k.Key.(type) {
	case *ecdsa.PublicKey:
		if public.Curve != elliptic.P256() {
			return nil, refuse(CheckKey, "the key %q is not on the curve P-256", keyID)
		}
	case ed25519.PublicKey:
		alg = jose.EdDSA
	default:
		return nil, refuse(CheckKey, "the key %q is not a public key that we use", keyID)
	}
	// RFC 7517 §4.2, RFC 8725 §3.1: one key, one use, one algorithm.
	if k.Use != "" && k.Use != "sig" || k.Algorithm != "" && k.Algorithm != string(alg) {
		return nil, refuse(CheckKey, "the key %q is for something else: use %q, alg %q", keyID, k.Use, k.Algorithm)
	}
	return k.Key, nil
}
