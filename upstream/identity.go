package upstream

import (
	"context"
	"time"
)

// An Identity is what a verified assertion says about a user. Who gets one must not change it.
type Identity struct {
	Subject  string // sub: names the user for good, together with Provider; the one to store
	Provider string // idp: the provider's issuer

	Email         string // "" when the provider gave none
	EmailVerified bool   // the provider says that the address is the user's
	Name          string
	Username      string // can change, and come to mean another user
	Groups        []string
	AuthTime      time.Time // when the user last proved who they are; zero when the provider did not say

	Session string    // sid: the same for all requests of a session
	ID      string    // jti: of this assertion, which may come with several requests
	Expires time.Time // of this assertion

	// Claims are all claims of the assertion as encoding/json decodes them, those of identity.claims included.
	Claims map[string]any
}

// identityOf takes from claims what has the type that it should have.
func identityOf(claims map[string]any) *Identity {
	text := func(name string) string { s, _ := claims[name].(string); return s }
	at := func(name string) (t time.Time) {
		if seconds, ok := claims[name].(float64); ok {
			t = time.Unix(int64(seconds), 0)
		}
		return t
	}
	who := &Identity{
		Subject: text("sub"), Provider: text("idp"), Email: text("email"), EmailVerified: claims["email_verified"] == true, Name: text("name"),
		Username: text("username"), AuthTime: at("auth_time"), Session: text("sid"), ID: text("jti"), Expires: at("exp"), Claims: claims,
	}
	groups, _ := claims["groups"].([]any)
	for _, g := range groups {
		if s, ok := g.(string); ok {
			who.Groups = append(who.Groups, s)
		}
	}
	return who
}

type contextKey struct{}

// NewContext returns a context in which [FromContext] finds who. Apart from [Verifier.Require], tests of an app's handlers
// need it.
func NewContext(ctx context.Context, who *Identity) context.Context {
	return context.WithValue(ctx, contextKey{}, who)
}

// FromContext returns who sent the request with that context. It returns false in handlers that [Verifier.Require] does not
// wrap: then nobody is known, and nothing is allowed that needs a user.
func FromContext(ctx context.Context) (who *Identity, ok bool) {
	who, _ = ctx.Value(contextKey{}).(*Identity)
	return who, who != nil
}
