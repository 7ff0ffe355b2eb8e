package assertion

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The signature algorithms (RFC 9421 §3.3).
const (
	HMACSHA256      = "hmac-sha256"       // key []byte, at least 32 bytes
	Ed25519         = "ed25519"           // key ed25519.PrivateKey or ed25519.PublicKey
	ECDSAP256SHA256 = "ecdsa-p256-sha256" // key *ecdsa.PrivateKey or *ecdsa.PublicKey, on P-256
)

// Label is the label of our message signatures in Signature-Input and Signature, and their tag.
const Label = "authproxy"

// messageLife is how many seconds a message signature is good for.
const messageLife = 60

// derived are the components that every message signature of ours covers, in this order.
var derived = []component{{name: "@method"}, {name: "@authority"}, {name: "@path"}, {name: "@query"}}

// A MessageSigner signs requests (RFC 9421), so that an upstream can tell that a request came through us as it is. Make one
// with [NewMessageSigner]; it is safe for concurrent use.
//
// The body is not covered, and neither is any header that Sign is not told of.
type MessageSigner struct {
	algorithm string
	keyID     string
	sign      func(base []byte) ([]byte, error)
}

// NewMessageSigner returns a MessageSigner for one of the algorithms [HMACSHA256], [Ed25519] and [ECDSAP256SHA256], with a
// key of that algorithm. keyID tells upstreams which key it is: up to 256 printable ASCII characters, no quote or backslash.
func NewMessageSigner(algorithm string, keyID string, key any) (*MessageSigner, error) {
	if keyID == "" || len(keyID) > 256 || !plain(keyID) {
		return nil, fmt.Errorf("assertion: %q is no key ID: want up to 256 printable ASCII characters, no quote or backslash", keyID)
	}
	m := &MessageSigner{algorithm: algorithm, keyID: keyID}
	switch algorithm {
	case HMACSHA256:
		k, ok := key.([]byte)
		if !ok || len(k) < minSecret {
			return nil, fmt.Errorf("assertion: %s needs a shared key of %d bytes at least", algorithm, minSecret)
		}
		k = slices.Clone(k)
		m.sign = func(base []byte) ([]byte, error) { return hmacSHA256(k, base), nil }
	case Ed25519:
		k, ok := key.(ed25519.PrivateKey)
		if !ok || len(k) != ed25519.PrivateKeySize {
			return nil, fmt.Errorf("assertion: %s needs an Ed25519 private key, not %T", algorithm, key)
		}
		m.sign = func(base []byte) ([]byte, error) { return ed25519.Sign(k, base), nil }
	case ECDSAP256SHA256:
		k, ok := key.(*ecdsa.PrivateKey)
		if !ok || k == nil || k.Curve != elliptic.P256() {
			return nil, fmt.Errorf("assertion: %s needs an ECDSA private key on P-256, not %T", algorithm, key)
		}
		m.sign = func(base []byte) ([]byte, error) { return signP256(k, base) }
	default:
		return nil, fmt.Errorf("assertion: unknown algorithm %q for message signatures", algorithm)
	}
	return m, nil
}

// plain reports whether s is its own content as a string of RFC 9651 §3.3.3.
func plain(s string) bool {
	_, rest, err := cutString(`"` + s + `"`)
	return err == nil && rest == ""
}

// signP256 is RFC 9421 §3.3.5: r and s of 32 bytes each, one after the other.
func signP256(key *ecdsa.PrivateKey, base []byte) ([]byte, error) {
	sum := sha256.Sum256(base)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return nil, err
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return sig, nil
}

func hmacSHA256(key, base []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(base)
	return h.Sum(nil)
}

// Sign sets Signature-Input and Signature of req, in place of any that are there. Nothing that is signed may change afterwards:
// method, authority (what will be sent as Host), path, query, and those of the named headers that req has.
// The signature begins at now and is good for 60 seconds.
//
// After an error req has neither header and must not be sent. A control character in a signed value is an error.
func (m *MessageSigner) Sign(req *http.Request, authority string, headers []string, now time.Time) error {
	req.Header.Del("Signature-Input")
	req.Header.Del("Signature")
	if authority == "" {
		return errors.New("assertion: no authority to sign")
	}
	if req.URL.Opaque != "" {
		return errors.New("assertion: the request's URL is opaque") // it would be sent in place of the path
	}
	components := slices.Grow(slices.Clone(derived), len(headers))
	for _, name := range headers {
		c := component{name: strings.ToLower(name)}
		switch {
		case !isFieldName(c.name):
			return fmt.Errorf("assertion: %q is no header name", name)
		case len(req.Header.Values(name)) > 0 && !slices.Contains(components, c): // RFC 9421 §2: each component once
			components = append(components, c)
		}
	}
	params := m.params(components, now.Unix())
	base, err := signatureBase(components, params, componentsOf(req, req.URL.Scheme, authority))
	if err != nil {
		return err
	}
	sig, err := m.sign(base)
	if err != nil {
		return fmt.Errorf("assertion: signing: %w", err)
	}
	req.Header.Set("Signature-Input", Label+"="+params)
	req.Header.Set("Signature", Label+"=:"+base64.StdEncoding.EncodeToString(sig)+":")
	return nil
}

// params is the value of @signature-params (RFC 9421 §2.3), with a fresh nonce.
func (m *MessageSigner) params(components []component, created int64) string {
	b := make([]byte, 0, 512)
	for i, c := range components {
		b = append(b, ` "`...)
		if i == 0 {
			b[0] = '('
		}
		b = append(b, c.name...)
		b = append(b, '"')
	}
	b = append(b, ");created="...)
	b = strconv.AppendInt(b, created, 10)
	b = append(b, ";expires="...)
	b = strconv.AppendInt(b, created+messageLife, 10)
	for _, p := range [][2]string{{"nonce", rand.Text()}, {"keyid", m.keyID}, {"alg", m.algorithm}, {"tag", Label}} {
		b = append(b, ';')
		b = append(b, p[0]...)
		b = append(b, `="`...)
		b = append(b, p[1]...)
		b = append(b, '"')
	}
	return string(b)
}

// isFieldName reports whether name is a header name in lower case (RFC 9110 §5.1).
func isFieldName(name string) bool {
	const token = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
	return name != "" && strings.Trim(name, token) == ""
}
