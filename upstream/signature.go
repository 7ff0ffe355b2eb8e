package upstream

import (
	"crypto"
	"net/http"
	"slices"
	"time"

	"authproxy/assertion"
)

// A Signature says which message signature (RFC 9421) requests must have: what the proxy's configuration has under
// identity.message_signature. It shows that a request came through the proxy as it is, but for its body. Nothing may have
// changed the request before, such as [http.StripPrefix].
type Signature struct {
	Algorithm string // required: [assertion.HMACSHA256], [assertion.Ed25519] or [assertion.ECDSAP256SHA256]
	Key       []byte // the shared key of hmac-sha256; the other algorithms use the proxy's published keys
	Authority string // what the proxy sends as Host; "" means the request's Host
	// Headers are those that the app believes, besides the assertion: they must be signed when they are there. nil means
	// those that the proxy sends by default: X-Forwarded-User, -Email, -Preferred-Username and -Groups.
	Headers []string

	// Nonce, if it is not nil, gets the nonce of each good signature and the time until which it has to be remembered. Its
	// error, for a nonce that was there before, refuses the request. Without it a request may be repeated for a minute and
	// twice the leeway.
	Nonce func(nonce string, until time.Time) error
}

var usualHeaders = []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups"}

func (s *Signature) verify(v *Verifier, r *http.Request) error {
	headers := s.Headers
	if headers == nil {
		headers = usualHeaders
	}
	var key any = s.Key
	if s.Algorithm != assertion.HMACSHA256 {
		key = func(keyID string) (crypto.PublicKey, error) { return v.keys.find(r.Context(), keyID) }
	}
	return assertion.VerifyMessage(r, key, assertion.MessageOptions{
		Algorithm: s.Algorithm, Authority: s.Authority, Headers: append(slices.Clone(headers), v.header()), Now: v.now(), Leeway: v.leeway(), Nonce: s.Nonce,
	})
}
