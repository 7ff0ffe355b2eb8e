package devprovider

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384 and SHA-512
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"
)

// A Token is a JWT before it is signed; hooks may change every part of it.
type Token struct {
	Header map[string]any
	Claims map[string]any

	// Payload is what is signed instead of Claims unless it is nil, for JSON that no map can be: duplicate names, or no JSON at all.
	Payload []byte

	// Key signs: *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey, or []byte for an HMAC; nil leaves the signature empty.
	// The algorithm is the header's alg as far as the key can do it; otherwise the key signs in its own way, with SHA-256.
	Key any
}

// JSON is the payload as it will be signed.
func (t *Token) JSON() []byte {
	if t.Payload != nil {
		return t.Payload
	}
	return mustJSON(t.Claims)
}

// Sign returns the token in compact form (RFC 7515 §3.1). It panics when Key is of another type than those it can be.
func (t *Token) Sign() string {
	input := b64(mustJSON(t.Header)) + "." + b64(t.JSON())
	alg, _ := t.Header["alg"].(string)
	return input + "." + b64(signature(alg, t.Key, input))
}

func hashOf(alg string) crypto.Hash {
	switch {
	case strings.HasSuffix(alg, "384"):
		return crypto.SHA384
	case strings.HasSuffix(alg, "512"):
		return crypto.SHA512
	}
	return crypto.SHA256
}

func signature(alg string, key any, input string) []byte {
	h := hashOf(alg)
	d := h.New()
	d.Write([]byte(input))
	sum := d.Sum(nil)
	var sig []byte
	var err error
	switch k := key.(type) {
	case nil:
	case []byte:
		mac := hmac.New(h.New, k)
		mac.Write([]byte(input))
		sig = mac.Sum(nil)
	case *rsa.PrivateKey:
		if strings.HasPrefix(alg, "PS") {
			sig, err = rsa.SignPSS(rand.Reader, k, h, sum, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			sig, err = rsa.SignPKCS1v15(nil, k, h, sum)
		}
	case *ecdsa.PrivateKey:
		var r, s *big.Int
		if r, s, err = ecdsa.Sign(rand.Reader, k, sum); err == nil {
			size := (k.Curve.Params().BitSize + 7) / 8 // RFC 7518 §3.4: two numbers of fixed length
			sig = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
		}
	case ed25519.PrivateKey:
		sig = ed25519.Sign(k, []byte(input))
	default:
		err = errors.New("not a key")
	}
	if err != nil {
		panic(fmt.Sprintf("devprovider: signing with a %T: %v", key, err))
	}
	return sig
}

// verified reports whether sig is a signature of input with alg by the owner of key. Only asymmetric algorithms can be.
func verified(alg string, key crypto.PublicKey, input string, sig []byte) bool {
	h := hashOf(alg)
	d := h.New()
	d.Write([]byte(input))
	sum := d.Sum(nil)
	switch k := key.(type) {
	case *rsa.PublicKey:
		switch alg {
		case "RS256", "RS384", "RS512":
			return rsa.VerifyPKCS1v15(k, h, sum, sig) == nil
		case "PS256", "PS384", "PS512":
			return rsa.VerifyPSS(k, h, sum, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
	case *ecdsa.PublicKey:
		size := (k.Curve.Params().BitSize + 7) / 8
		if alg != fmt.Sprintf("ES%d", k.Curve.Params().BitSize) || len(sig) != 2*size {
			return false
		}
		return ecdsa.Verify(k, sum, new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:]))
	}
	return false
}

// openJWT takes a compact JWT apart without verifying it: input and sig are for that.
func openJWT(token string) (header, claims map[string]any, input string, sig []byte, err error) {
	parts := strings.Split(token, ".")
	if strings.ContainsAny(token, "\r\n") { // the decoder would skip them
		return nil, nil, "", nil, errors.New("a JWT has no line breaks")
	}
	if len(parts) != 3 {
		return nil, nil, "", nil, fmt.Errorf("a JWT has %d parts, want 3", len(parts))
	}
	for i, v := range []*map[string]any{&header, &claims} {
		b, err := base64.RawURLEncoding.Strict().DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			return nil, nil, "", nil, fmt.Errorf("part %d of a JWT: %w", i+1, err)
		}
	}
	sig, err = base64.RawURLEncoding.Strict().DecodeString(parts[2])
	return header, claims, parts[0] + "." + parts[1], sig, err
}

// A signingKey is one of the provider's keys with what is published of it.
type signingKey struct {
	private *rsa.PrivateKey
	kid     string
	jwk     map[string]any
}

// ring is the number of keys that take turns in signing; one more is never published.
const ring = 4

// Making RSA keys takes time that every test would wait for, so the Providers of a process share theirs. Each is made when it is first needed.
var keys = func() (k [ring + 1]func() *signingKey) {
	for i := range k {
		k[i] = sync.OnceValue(newSigningKey)
	}
	return k
}()

func keyAt(i int) *signingKey { return keys[i%ring]() }

// UnpublishedKey is a key that no Provider ever publishes, for tokens that must not be believed.
func UnpublishedKey() *rsa.PrivateKey { return keys[ring]().private }

func newSigningKey() *signingKey {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	kid := random(16)[:21] // as long as those of Auth0
	jwk := JWK(&private.PublicKey, kid)
	// Auth0's keys come with a self-signed certificate, which nobody should need.
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(10, 0, 0)}
	if der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private); err == nil {
		sum := sha1.Sum(der) // RFC 7517 §4.8 wants SHA-1
		jwk["x5c"], jwk["x5t"] = []string{base64.StdEncoding.EncodeToString(der)}, b64(sum[:])
	}
	return &signingKey{private, kid, jwk}
}

// JWK describes a public key (RSA or ECDSA) as Auth0 publishes its own: use sig and alg RS256 or ES256 and so on. An empty kid is left out.
func JWK(key crypto.PublicKey, kid string) map[string]any {
	jwk := map[string]any{"use": "sig"}
	switch k := key.(type) {
	case *rsa.PublicKey:
		jwk["kty"], jwk["alg"], jwk["n"], jwk["e"] = "RSA", "RS256", b64(k.N.Bytes()), b64(big.NewInt(int64(k.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			panic(fmt.Sprintf("devprovider: publishing a key: %v", err))
		}
		half := (len(point) - 1) / 2 // behind the byte 4 come x and y
		p := k.Curve.Params()
		jwk["kty"], jwk["alg"], jwk["crv"] = "EC", fmt.Sprintf("ES%d", p.BitSize), p.Name
		jwk["x"], jwk["y"] = b64(point[1:1+half]), b64(point[1+half:])
	default:
		panic(fmt.Sprintf("devprovider: publishing a %T", key))
	}
	if kid != "" {
		jwk["kid"] = kid
	}
	return jwk
}

// signingKey is the key that signs now.
func (p *Provider) signingKey() *signingKey {
	p.mu.Lock()
	i := p.key
	p.mu.Unlock()
	return keyAt(i)
}

// RotateKeys makes the next key sign, which was already published, publishes another next one, and stops publishing the one that
// signed before. After two rotations in a row the signing key is one that nobody can have seen; after four the first is back.
func (p *Provider) RotateKeys() {
	p.mu.Lock()
	p.key++
	next := p.key + 1
	p.mu.Unlock()
	keyAt(next)
}

// random returns n random bytes as base64url.
func random(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b64(b)
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// digest is for comparing secrets of any length in constant time.
func digest(s string) [sha256.Size]byte { return sha256.Sum256([]byte(s)) }

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("devprovider: a hook left something that is no JSON: %v", err))
	}
	return b
}
