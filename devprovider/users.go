package devprovider

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strings"
)

// DemoUsers are users with the properties that matter to a relying party. Those of the database have a new random password in each call.
//
//	ada      groups admins and staff, verified e-mail address, member of the organization org_demo
//	bob      group staff, e-mail address not verified
//	grace    comes from Google
//	linus    comes from GitHub and has no e-mail address
//	zoë      has a name that is not ASCII, and a subject with a space
//	big      has 300 groups, some 6 KB
//	case     has the custom claims Email and SUB, which are not email and sub
//	mallory  is blocked
//	eve      came by SMS: no e-mail address, no name, no password
func DemoUsers() []User {
	const updated = "2026-01-15T09:30:00.000Z" // Auth0 sends a text, not a number
	profile := func(name, nickname string, more map[string]any) map[string]any {
		claims := map[string]any{"name": name, "nickname": nickname, "updated_at": updated}
		for k, v := range more {
			claims[k] = v
		}
		return claims
	}
	email := func(address string, verified bool, more ...any) map[string]any {
		claims := map[string]any{"email": address, "email_verified": verified}
		for i := 0; i < len(more); i += 2 {
			claims[more[i].(string)] = more[i+1]
		}
		return claims
	}
	users := []User{
		{
			Username: "ada", Subject: "auth0|65f0a1ada0000000000000a1", Note: "admins, staff",
			Claims: profile("Ada Lovelace", "ada", email("ada@example.com", true, "given_name", "Ada", "family_name", "Lovelace", "department", "research")),
			Groups: []string{"admins", "staff"}, Roles: []string{"owner"}, Permissions: []string{"read:items", "write:items"}, Organizations: []string{"org_demo"},
		},
		{
			Username: "bob", Subject: "auth0|65f0a1b0b0000000000000b0", Note: "staff; e-mail not verified",
			Claims: profile("Bob Kahn", "bob", email("bob@example.com", false, "department", "finance")),
			Groups: []string{"staff"}, Permissions: []string{"read:items"},
		},
		{
			Username: "zoë", Subject: "auth0|zoe frohlich", Note: "a name beyond ASCII",
			Claims: profile("Zoë Fröhlich 🦊", "zoë", email("zoe@example.com", true)), Groups: []string{"staff", "Ärzte, Praxis"},
		},
		{
			Username: "big", Subject: "auth0|65f0a1b16000000000000b16", Note: "300 groups",
			Claims: profile("Big Token", "big", email("big@example.com", true)), Groups: manyGroups(),
		},
		{
			Username: "case", Subject: "auth0|65f0a1ca5e00000000000ca5", Note: "claims in odd case",
			Claims: profile("Case Variant", "case", email("case@example.com", false, "Email", "ceo@example.com", "EMAIL_VERIFIED", true, "Sub", "auth0|someone-else")),
		},
		{
			Username: "mallory", Subject: "auth0|65f0a1ma110000000000ba11", Note: "blocked", Blocked: true,
			Claims: profile("Mallory", "mallory", email("mallory@example.com", true)),
		},
		{
			Username: "grace", Subject: "google-oauth2|103547991597142817347", Connection: Google,
			Claims: profile("Grace Hopper", "grace", email("grace@example.com", true, "given_name", "Grace", "family_name", "Hopper")), Groups: []string{"staff"},
		},
		{
			Username: "linus", Subject: "github|1024025", Connection: GitHub,
			Claims: profile("Linus", "linus", nil),
		},
		{Username: "eve", Subject: "sms|eve 1", Connection: "sms"},
	}
	for i, u := range users {
		if u.Connection == "" {
			users[i].Password = password()
		}
	}
	return users
}

// password is 40 random bits, easy to type.
func password() string {
	s := strings.ToLower(rand.Text())
	return s[:4] + "-" + s[4:8]
}

// manyGroups are names that do not compress.
func manyGroups() []string {
	groups := make([]string, 300)
	for i := range groups {
		groups[i] = fmt.Sprintf("g-%.8x", sha256.Sum256(fmt.Append(nil, i)))
	}
	return groups
}
