package devprovider

import (
	"maps"
	"slices"
)

// standardScopes are those of OpenID Connect as Auth0 lists them.
var standardScopes = []string{"openid", "profile", "offline_access", "name", "given_name", "family_name", "nickname", "email", "email_verified",
	"picture", "created_at", "identities", "phone", "address"}

// discovery answers with what Auth0 says of itself, as far as it is true here. The algorithms include HS256 and PS256, and the response
// types those of the implicit flow, so a relying party must not take what it finds first.
func (p *Provider) discovery(x *exchange) {
	iss := p.opts.Issuer
	d := map[string]any{
		"issuer":                                           iss,
		"authorization_endpoint":                           iss + "authorize",
		"token_endpoint":                                   iss + "oauth/token",
		"userinfo_endpoint":                                iss + "userinfo",
		"jwks_uri":                                         iss + ".well-known/jwks.json",
		"revocation_endpoint":                              iss + "oauth/revoke",
		"end_session_endpoint":                             iss + "oidc/logout",
		"scopes_supported":                                 slices.Clone(standardScopes),
		"claims_supported":                                 []string{"aud", "auth_time", "created_at", "email", "email_verified", "exp", "family_name", "given_name", "iat", "identities", "iss", "name", "nickname", "phone_number", "picture", "sub"},
		"response_types_supported":                         []string{"code", "token", "id_token", "code token", "code id_token", "token id_token", "code token id_token"},
		"response_modes_supported":                         []string{"query", "fragment"},
		"code_challenge_methods_supported":                 []string{"S256", "plain"},
		"subject_types_supported":                          []string{"public"},
		"id_token_signing_alg_values_supported":            []string{"HS256", "RS256", "PS256"},
		"token_endpoint_auth_methods_supported":            []string{"client_secret_basic", "client_secret_post", "private_key_jwt"},
		"token_endpoint_auth_signing_alg_values_supported": []string{"RS256", "RS384", "PS256", "PS384", "ES256", "ES384"},
		"request_parameter_supported":                      false,
		"request_uri_parameter_supported":                  false,
	}
	p.mu.Lock()
	backchannel := slices.ContainsFunc(p.clients, func(c Client) bool { return c.BackchannelURL != "" })
	p.mu.Unlock()
	if backchannel {
		d["backchannel_logout_supported"], d["backchannel_logout_session_supported"] = true, true
	}
	if x.f.NoEndSession {
		delete(d, "end_session_endpoint")
	}
	if x.f.PromiseIss {
		d["authorization_response_iss_parameter_supported"] = true
	}
	if x.f.Discovery != nil {
		x.f.Discovery(d)
	}
	x.w.Header().Set("Cache-Control", "public, max-age=15")
	x.json(200, d)
}

// jwks publishes the key that signs and the one that will sign next.
func (p *Provider) jwks(x *exchange) {
	p.mu.Lock()
	i := p.key
	p.mu.Unlock()
	keys := []map[string]any{maps.Clone(keyAt(i).jwk), maps.Clone(keyAt(i + 1).jwk)}
	if x.f.JWKS != nil {
		keys = x.f.JWKS(keys)
	}
	x.w.Header().Set("Cache-Control", "public, max-age=15")
	x.json(200, map[string]any{"keys": keys})
}
