// Package identity holds what we know about a user, as a value: who it is, which provider says so, and what it said.
//
// It knows nothing of HTTP, tokens or storage. Whoever makes an Identity has verified what is in it; whoever reads one
// may rely on that and must not change it, because one Identity is shared by all requests of its session.
// A request without usable credentials has the identity [Anonymous]; a nil *Identity is a bug, never "allowed".
package identity

import (
	"slices"
	"time"
)

// An Identity is what a provider told us about a user. The zero value is anonymous.
type Identity struct {
	Issuer  string // iss of the provider, exactly as configured
	Subject string // sub: unique and stable only together with Issuer (OIDC Core §2)

	Email         string // "" when the provider gave none
	EmailVerified bool   // only when email_verified was the JSON value true
	Name          string
	Username      string
	Groups        []string
	Organization  string   // org_id
	Permissions   []string // of an access token
	Scopes        []string // granted scopes

	ACR      string
	AuthTime time.Time // auth_time: when the user last proved who they are; zero when the provider did not say

	// Claims are the further claims that the configuration keeps, by their exact names, as encoding/json decodes them
	// (string, float64, bool, nil, []any, map[string]any).
	Claims map[string]any
}

// Anonymous is the identity of requests without usable credentials. It is never written to.
var Anonymous = new(Identity)

// IsAnonymous reports whether nobody is signed in.
func (i *Identity) IsAnonymous() bool { return i.Subject == "" }

// fields are the names under which [Identity.Value] knows more than the further claims.
var fields = []string{"iss", "sub", "email", "email_verified", "name", "username", "groups", "org_id", "permissions", "scopes", "acr", "auth_time"}

// IsField reports whether name is a field that every Identity has, as opposed to a further claim.
func IsField(name string) bool { return slices.Contains(fields, name) }

// Fields are the names for which IsField is true.
func Fields() []string { return slices.Clone(fields) }

// Value is the field or further claim of that name: a string, bool, int64 (Unix seconds), []string, or what Claims holds.
// It is nil when the identity has none: an empty text, an empty list and a zero time count as absent.
func (i *Identity) Value(name string) any {
	switch name {
	case "iss":
		return text(i.Issuer)
	case "sub":
		return text(i.Subject)
	case "email":
		return text(i.Email)
	case "email_verified":
		if i.Email == "" {
			return nil
		}
		return i.EmailVerified
	case "name":
		return text(i.Name)
	case "username":
		return text(i.Username)
	case "groups":
		return list(i.Groups)
	case "org_id":
		return text(i.Organization)
	case "permissions":
		return list(i.Permissions)
	case "scopes":
		return list(i.Scopes)
	case "acr":
		return text(i.ACR)
	case "auth_time":
		if i.AuthTime.IsZero() {
			return nil
		}
		return i.AuthTime.Unix()
	}
	return i.Claims[name]
}

func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func list(l []string) any {
	if len(l) == 0 {
		return nil
	}
	return l
}

// DisplayName is how to greet the user: name, username, e-mail address, or "there".
func (i *Identity) DisplayName() string {
	for _, s := range []string{i.Name, i.Username, i.Email} {
		if s != "" {
			return s
		}
	}
	return "there"
}
