package oidc

import (
	"encoding/json"
	"net/http"
)

// SetTransport replaces the transport of all requests to the provider.
func (rp *RelyingParty) SetTransport(t http.RoundTripper) {
	rp.documents.Transport, rp.plain.Transport = t, t
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

// IsAddress is isAddress.
func IsAddress(s string) bool { return isAddress(s) }
