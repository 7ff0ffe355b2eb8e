package oidc

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"authproxy/identity"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"
)

// Tokens are what a login or a refresh brought, verified.
type Tokens struct {
	Identity identity.Identity

	Nonce, SessionID string // nonce and sid of the login's ID token

	AccessToken, RefreshToken, IDToken string // AccessToken is opaque to us, but for its permissions when it is for Config.Audience

	AccessExpiry  time.Time // zero: the provider did not say
	SessionExpiry time.Time // session_expiry claim: the session must end then; zero: none
}

// A tokenResponse is a successful answer of the token endpoint (RFC 6749 §5.1).
type tokenResponse struct {
	accessToken, refreshToken, idToken string

	scopes []string  // nil: not said, which means as asked
	expiry time.Time // zero: not said
	clock  clock
}

// requestTokens sends one request to the token endpoint. It is never repeated: codes and refresh tokens are used once.
// op is token or refresh. (x/oauth2 would drop duplicate members, put the whole body of an error into its text, and cannot
// do private_key_jwt.)
func (rp *RelyingParty) requestTokens(ctx context.Context, m *metadata, op string, form url.Values) (*tokenResponse, error) {
	a, err := rp.post(ctx, m, op, m.TokenURL, form)
	if err != nil {
		return nil, err
	}
	o, err := parseObject(a.body)
	if err != nil {
		return nil, invalid("malformed", "the token response: %v", err)
	}
	resp := &tokenResponse{clock: clock{rp.now(), rp.cfg.Leeway, a.date}}
	var kind, scope string
	for name, to := range map[string]*string{"access_token": &resp.accessToken, "refresh_token": &resp.refreshToken,
		"id_token": &resp.idToken, "token_type": &kind, "scope": &scope} {
		if raw, ok := o[name]; ok && string(raw) != "null" {
			if *to, ok = jsonString(raw); !ok {
				return nil, invalid("malformed", "%s in the token response is not a string", name)
			}
		}
	}
	if !strings.EqualFold(kind, "Bearer") { // RFC 6749 §7.1: a client must not use a token of a type it does not know
		return nil, invalid("token_type", "token_type %q, want Bearer", clean(kind, 40))
	}
	if resp.accessToken == "" || !isVisible(resp.accessToken) || !isVisible(resp.refreshToken) {
		return nil, invalid("malformed", "the access token is missing, or it or the refresh token has characters that a token has not")
	}
	if scope != "" {
		resp.scopes = strings.Fields(scope)
	}
	resp.expiry = expiry(o["expires_in"], resp.clock.now)
	return resp, nil
}

// expiry reads expires_in: seconds, as a number or, from some providers, as text. Anything but a positive number counts as
// absent, and more than a year as a year.
func expiry(raw json.RawMessage, now time.Time) time.Time {
	const year = 365 * 24 * 60 * 60
	seconds, _ := strconv.ParseFloat(strings.Trim(string(raw), `"`), 64) // +Inf when it is out of range
	if !(seconds > 0) {
		return time.Time{}
	}
	return now.Add(time.Duration(min(seconds, year)) * time.Second)
}

// send sends a form with client authentication to one of the provider's endpoints, and says how it authenticated.
func (rp *RelyingParty) send(ctx context.Context, m *metadata, op, to string, form url.Values) (a *answer, method string, err error) {
	header, method, err := rp.authenticate(m, form)
	if err != nil {
		return nil, "", err
	}
	req, err := http.NewRequest(http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, "", unavailable(op, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if header != "" {
		req.Header.Set("Authorization", header)
	}
	a, err = rp.do(ctx, op, rp.plain, req)
	return a, method, err
}

// post is send that returns the answer if it is 200.
func (rp *RelyingParty) post(ctx context.Context, m *metadata, op, to string, form url.Values) (*answer, error) {
	a, method, err := rp.send(ctx, m, op, to, form)
	if err != nil {
		return nil, err
	}
	if a.status == http.StatusOK {
		return a, nil
	}
	if a.status < 400 {
		return nil, invalid("malformed", "%s: status %d, want 200", op, a.status)
	}
	return nil, rp.refusal(op, method, a, form)
}

// refusal turns an error answer (RFC 6749 §5.2) into an error. The codes and statuses are also those that Auth0 uses.
func (rp *RelyingParty) refusal(op, method string, a *answer, form url.Values) error {
	code, description := "", ""
	if o, err := parseObject(a.body); err == nil {
		secrets := []string{rp.cfg.ClientSecret, form.Get("code"), form.Get("refresh_token"), form.Get("token"), form.Get("code_verifier"), form.Get("client_assertion")}
		code, _ = jsonString(o["error"])
		description, _ = jsonString(o["error_description"])
		code, description = clean(code, maxErrorCode, secrets...), clean(description, maxDescription, secrets...)
	}
	detail := fmt.Sprintf("%s: the provider answered %d %s", op, a.status, code)
	if description != "" {
		detail += ": " + description
	}
	switch {
	case code == "invalid_grant":
		return &Invalid{Reason: "invalid_grant", Detail: detail, Err: ErrInvalidGrant}
	case op == "refresh" && slices.Contains([]string{"mfa_required", "login_required", "interaction_required", "consent_required"}, code),
		op == "refresh" && code == "access_denied" && a.status == http.StatusForbidden: // an Auth0 Action said no to this user
		return &Invalid{Reason: "login_required", Detail: detail, Err: ErrInvalidGrant}
	case code == "unauthorized_client", code == "unsupported_grant_type":
		return &Misconfigured{Reason: "unauthorized_client", Detail: detail,
			Hint: "allow this application the grant types Authorization Code and Refresh Token at the provider"}
	case code == "invalid_client", code == "access_denied", code == "" && a.status == http.StatusUnauthorized:
		return &Misconfigured{Reason: "client_auth", Detail: detail + ". It refused this proxy's client credentials", Hint: map[string]string{
			"post":            "check client_secret, and that Credentials > Authentication Method is Post (or set client_auth: basic)",
			"basic":           "check client_secret, and that Credentials > Authentication Method is Basic (or set client_auth: post)",
			"private_key_jwt": "check private_key_file, and that its public key is registered under Credentials > Authentication Method > Private Key JWT",
		}[method]}
	}
	return invalid("token_refused", "%s", detail)
}

// authenticate adds exactly one kind of client authentication to form, or returns an Authorization header, and says which.
func (rp *RelyingParty) authenticate(m *metadata, form url.Values) (header, method string, err error) {
	method, err = rp.authMethod(m)
	if err != nil {
		return "", "", err
	}
	switch method {
	case "basic": // RFC 6749 §2.3.1: both are form-encoded first
		req := http.Request{Header: http.Header{}}
		req.SetBasicAuth(url.QueryEscape(rp.cfg.ClientID), url.QueryEscape(rp.cfg.ClientSecret))
		return req.Header.Get("Authorization"), method, nil
	case "post":
		form.Set("client_id", rp.cfg.ClientID)
		form.Set("client_secret", rp.cfg.ClientSecret)
	case "private_key_jwt":
		assertion, err := rp.clientAssertion(m)
		if err != nil {
			return "", "", &Misconfigured{Reason: "client_auth", Detail: "signing the client assertion", Hint: "check private_key_file", Err: err}
		}
		form.Set("client_id", rp.cfg.ClientID)
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
	}
	return "", method, nil
}

// authMethod decides between post, basic and private_key_jwt.
func (rp *RelyingParty) authMethod(m *metadata) (string, error) {
	switch {
	case rp.cfg.ClientAuth != "auto":
		return rp.cfg.ClientAuth, nil
	case rp.cfg.PrivateKey != nil:
		return "private_key_jwt", nil
	case rp.cfg.Auth0: // its applications accept one method, and this is the default
		return "post", nil
	case m.AuthMethods == nil || slices.Contains(m.AuthMethods, "client_secret_basic"): // OIDC Discovery §3: the default
		return "basic", nil
	case slices.Contains(m.AuthMethods, "client_secret_post"):
		return "post", nil
	}
	return "", &Misconfigured{Reason: "client_auth", Detail: "the provider offers no client authentication with a secret",
		Hint: "configure a private key, or set client_auth to what the provider takes"}
}

// clientAssertion makes a JWT for private_key_jwt (OIDC Core §9, RFC 7523 §3), good for a minute.
func (rp *RelyingParty) clientAssertion(m *metadata) (string, error) {
	alg, err := assertionAlg(rp.cfg.PrivateKey)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: cryptosigner.Opaque(rp.cfg.PrivateKey)}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	audience := m.TokenURL
	if rp.cfg.Auth0 {
		audience = m.IssuerURL
	}
	now := rp.now()
	payload, err := json.Marshal(map[string]any{"iss": rp.cfg.ClientID, "sub": rp.cfg.ClientID, "aud": audience, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(time.Minute).Unix()})
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

func assertionAlg(k crypto.Signer) (jose.SignatureAlgorithm, error) {
	switch public := k.Public().(type) {
	case *rsa.PublicKey:
		if public.N.BitLen() >= 2048 {
			return jose.RS256, nil
		}
		return "", fmt.Errorf("the private key has %d bits, want at least 2048", public.N.BitLen())
	case *ecdsa.PublicKey:
		if public.Curve == elliptic.P256() {
			return jose.ES256, nil
		}
		if public.Curve == elliptic.P384() {
			return jose.ES384, nil
		}
	case ed25519.PublicKey:
		return jose.EdDSA, nil
	}
	return "", fmt.Errorf("the private key is none of RSA, ECDSA (P-256, P-384) and Ed25519")
}
