package oidc

import (
	"context"
	"encoding/json"
	"net/http"
)

// SetTransport replaces the transport of all requests to the provider.
func (rp *RelyingParty) SetTransport(t http.RoundTripper) {
	rp.documents.Transport, rp.plain.Transport = t, t
}

// Discover does what Run does every ten minutes.
func (rp *RelyingParty) Discover(ctx context.Context) error {
	_, err := rp.renew(ctx)
	return err
}

// ParseJWT returns the claims of a token as parseJWT accepts it, without verifying it.
func (rp *RelyingParty) ParseJWT(raw string) (map[string]json.RawMessage, error) {
	t, err := rp.parseJWT(raw)
	if err != nil {
		return nil, err
	}
	return t.claims, nil
}

// ParseObject is parseObject.
func ParseObject(data []byte) (map[string]json.RawMessage, error) { return parseObject(data) }

// CheckResponse is checkResponse with a provider that is the issuer of login.
func CheckResponse(login *Login, response map[string][]string, promisesIss bool) (string, error) {
	m := &metadata{PromisesIss: promisesIss}
	m.IssuerURL = login.Issuer
	return checkResponse(m, login, response)
}

// FitKeys counts the keys of a JWK set that may verify alg.
func FitKeys(set []byte, alg string) (int, error) {
	fit, err := parseKeys(set, alg)
	return len(fit), err
}

// IsAddress is isAddress.
func IsAddress(s string) bool { return isAddress(s) }
