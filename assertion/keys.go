package assertion

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"

	"github.com/go-jose/go-jose/v4"
)

// What the derived keys are for. The keys of every installation hang on these texts: a changed text is a changed key.
const (
	labelP256    = "authproxy assertion signing key P-256 v1"
	labelEd25519 = "authproxy message signature key Ed25519 v1"
)

// minSecret is the least length in bytes of a secret that keys are derived from or that signs messages.
const minSecret = 32

// DeriveKey returns the P-256 key that belongs to secret, a session key of at least 32 bytes. The same secret gives the
// same key, in later versions too; the key tells nothing about the secret.
func DeriveKey(secret []byte) (*ecdsa.PrivateKey, error) {
	// FIPS 186-5 A.2.1: at least 64 bits more than the order has, so that the scalar is uniform but for 2⁻⁶⁴; here 128.
	raw, err := derive(secret, labelP256, 48)
	if err != nil {
		return nil, err
	}
	nMinus1 := new(big.Int).Sub(elliptic.P256().Params().N, big.NewInt(1))
	d := new(big.Int).SetBytes(raw)
	d.Mod(d, nMinus1).Add(d, big.NewInt(1))
	return ecdsa.ParseRawPrivateKey(elliptic.P256(), d.FillBytes(make([]byte, 32)))
}

// DeriveEd25519 returns the Ed25519 key that belongs to secret, as [DeriveKey] does; neither key tells about the other.
func DeriveEd25519(secret []byte) (ed25519.PrivateKey, error) {
	seed, err := derive(secret, labelEd25519, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func derive(secret []byte, label string, n int) ([]byte, error) {
	if len(secret) < minSecret {
		return nil, fmt.Errorf("assertion: a secret of %d bytes, want %d at least", len(secret), minSecret)
	}
	return hkdf.Key(sha256.New, secret, nil, label, n)
}

// KeyID is the name of a public key, ECDSA or Ed25519, in tokens and key sets: its SHA-256 thumbprint (RFC 7638), base64url.
func KeyID(pub crypto.PublicKey) (string, error) {
	switch pub.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return "", fmt.Errorf("assertion: %T is not a public key that we use", pub)
	}
	sum, err := (&jose.JSONWebKey{Key: pub}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("assertion: thumbprint: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// A publication is what JWKS answers.
type publication struct {
	body []byte
	etag string
}

// Publish adds keys to what [Signer.JWKS] answers, such as the one of a [MessageSigner]. Of a key pair the public half is
// published; a symmetric key, one without a KeyID and another key under a KeyID already published are errors, and then
// none of the keys is added. A key already published is left as it is.
func (s *Signer) Publish(extra ...jose.JSONWebKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := s.keys[:len(s.keys):len(s.keys)]
next:
	for _, k := range extra {
		k = k.Public()
		if !k.Valid() || !k.IsPublic() {
			return errors.New("assertion: a key to publish is not a key pair's")
		}
		if k.KeyID == "" {
			return errors.New("assertion: a key to publish has no key ID")
		}
		for _, old := range keys {
			if old.KeyID != k.KeyID {
				continue
			}
			if pub, ok := old.Key.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(k.Key) {
				return fmt.Errorf("assertion: two keys with the key ID %q", k.KeyID)
			}
			continue next
		}
		keys = append(keys, k)
	}
	body, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		return fmt.Errorf("assertion: key set: %w", err)
	}
	sum := sha256.Sum256(body)
	s.keys = keys
	s.published.Store(&publication{body, `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`})
	return nil
}

// JWKS is the set of published keys (RFC 7517 §5) and a strong entity tag for it, quotes included. It holds public keys
// only. The body is shared: do not change it.
func (s *Signer) JWKS() (body []byte, etag string) {
	set := s.published.Load()
	return set.body, set.etag
}
