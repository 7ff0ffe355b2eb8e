package oidc

import (
	"context"
	"crypto/subtle"
	"maps"
	"net/http"
	"slices"
)

// withUserinfo returns the verified claims of an ID token and, when the configuration asks for it, what the userinfo
// endpoint adds to them. It never replaces a claim of the ID token, which is signed.
func (rp *RelyingParty) withUserinfo(ctx context.Context, m *metadata, id claims, accessToken string) (claims, error) {
	if !rp.cfg.Userinfo {
		return id, nil
	}
	req, err := http.NewRequest(http.MethodGet, m.UserInfoURL, nil)
	if err != nil {
		return nil, unavailable("userinfo", err)
	}
	req.Header.Set("Authorization", "Bearer "+accessToken) // RFC 6750 §2.1: the header, never the query or a form
	a, err := rp.do(ctx, "userinfo", rp.plain, req)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, invalid("userinfo", "status %d", a.status)
	}
	c, err := parseClaims(a.body, rp.wanted())
	if err != nil {
		return nil, invalid("userinfo", "the answer: %v", err)
	}
	sub, ok := jsonString(c["sub"])
	want, _ := jsonString(id["sub"])
	if !ok || want == "" || subtle.ConstantTimeCompare([]byte(sub), []byte(want)) != 1 { // OIDC Core §5.3.2
		return nil, invalid("userinfo", "sub is not that of the ID token")
	}
	return merge(id, c), nil
}

// merge adds claims of userinfo to those of the ID token. What identifies the user or the login comes from the ID token
// only. email and email_verified belong together: they are taken when the ID token has neither, or email_verified alone
// when both name the same address and the ID token does not say.
func merge(id, userinfo claims) claims {
	all := maps.Clone(id)
	_, email := id["email"]
	_, verified := id["email_verified"]
	ours, _ := jsonString(id["email"])
	theirs, _ := jsonString(userinfo["email"])
	for name, value := range userinfo {
		_, present := id[name]
		switch {
		case present:
		case name == "email" && verified:
		case name == "email_verified" && email && (ours == "" || ours != theirs):
		case name != "email" && name != "email_verified" && slices.Contains(precise, name):
		default:
			all[name] = value
		}
	}
	return all
}
