package oidc

import (
	"strings"

	"authproxy/identity"
)

// IdentityOf reads who a user is from claims in JSON, as a login with them does, and permissions and scope as from an access
// token. Nothing is verified: it is for explaining decisions.
func (rp *RelyingParty) IdentityOf(claims []byte) (*identity.Identity, error) {
	c, err := parseClaims(claims, rp.wanted())
	if err != nil {
		return nil, err
	}
	who, err := rp.identity(c, c)
	if err != nil {
		return nil, err
	}
	if who.Issuer == "" {
		who.Issuer = rp.Issuer()
	}
	who.Permissions = c.list("permissions")
	scope, _ := jsonString(c["scope"])
	who.Scopes = strings.Fields(scope)
	return who, nil
}
