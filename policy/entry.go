package policy

import (
	"fmt"
	"strconv"
	"strings"

	"authproxy/identity"
)

// An entry is an Entry made ready: each look-up is one in a map.
type entry struct {
	name   string // "allow[1]", as in the configuration
	keys   []key
	reason string // when there are several keys; the reason of the one key otherwise
}

// A key is one condition of an entry.
type key struct {
	name       string            // "groups", or "claims.department"
	field      string            // the claim or field that is looked at
	values     []string          // as they are written, for Explain
	want       map[string]string // value, in the form in which it is compared, to reason
	unverified bool              // addresses need not be verified
}

func compile(i int, e Entry) entry {
	c := entry{name: fmt.Sprintf("allow[%d]", i)}
	add := func(name, field string, values []string, reason func(string) string) {
		k := key{name: name, field: field, values: values, want: make(map[string]string, len(values)), unverified: e.UnverifiedEmail}
		for _, v := range values {
			if v == "" {
				continue
			}
			r := reason(v)
			if name == "emails" || name == "email_domains" {
				v = asciiLower(v)
			}
			k.want[v] = r
		}
		c.keys = append(c.keys, k)
	}
	for _, k := range []struct {
		name, field string
		values      []string
		personal    bool // a value names one person, and stays out of the log
	}{
		{"groups", "groups", e.Groups, false},
		{"emails", "email", e.Emails, true},
		{"email_domains", "email", e.EmailDomains, false},
		{"subjects", "sub", e.Subjects, true},
		{"permissions", "permissions", e.Permissions, false},
		{"scopes", "scopes", e.Scopes, false},
		{"organizations", "org_id", e.Organizations, false},
	} {
		if len(k.values) > 0 {
			add(k.name, k.field, k.values, func(v string) string {
				if k.personal {
					return k.name
				}
				return k.name + ": " + v
			})
		}
	}
	for _, cl := range e.Claims {
		name := "claims." + cl.Name
		add(name, cl.Name, cl.Values, func(string) string { return name })
	}
	if len(c.keys) > 1 {
		names := make([]string, len(c.keys))
		for i, k := range c.keys {
			names[i] = k.name
		}
		c.reason = c.name + ": " + strings.Join(names, ", ")
	}
	return c
}

// holds reports whether every key holds, of one key at least, and why.
func (e *entry) holds(who *identity.Identity) (reason string, ok bool) {
	for i := range e.keys {
		if reason, ok = e.keys[i].holds(who); !ok {
			return "", false
		}
	}
	if len(e.keys) > 1 {
		reason = e.reason
	}
	return reason, ok
}

// holds reports whether one of the wanted values is the user's, and why.
func (k *key) holds(who *identity.Identity) (reason string, ok bool) {
	switch k.name {
	case "groups":
		return k.any(who.Groups)
	case "permissions":
		return k.any(who.Permissions)
	case "scopes":
		return k.any(who.Scopes)
	case "subjects":
		reason, ok = k.want[who.Subject]
		return reason, ok
	case "organizations":
		reason, ok = k.want[who.Organization]
		return reason, ok
	}
	if k.field == "email" && !who.EmailVerified && !k.unverified {
		return "", false
	}
	switch k.name {
	case "emails":
		return k.folded(who.Email)
	case "email_domains":
		domain, ok := domainOf(who.Email)
		if !ok {
			return "", false
		}
		return k.folded(domain)
	}
	return k.claim(who.Value(k.field))
}

func (k *key) any(found []string) (reason string, ok bool) {
	for _, s := range found {
		if reason, ok = k.want[s]; ok {
			return reason, true
		}
	}
	return "", false
}

// maxEmail is the longest address in bytes (RFC 5321 §4.5.3.1.3, without the angle brackets).
const maxEmail = 254

// folded looks s up with its ASCII letters in lower case. Unicode knows more letters that fold to ASCII ones (the Kelvin sign,
// the long s): they stay what they are, so an address with them is never one without.
func (k *key) folded(s string) (reason string, ok bool) {
	var buf [maxEmail]byte
	if len(s) > len(buf) {
		return "", false
	}
	for i := range len(s) {
		buf[i] = lower(s[i])
	}
	reason, ok = k.want[string(buf[:len(s)])]
	return reason, ok
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = lower(c)
	}
	return string(b)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// domainOf returns what follows the only @ of an address. ok is false for what mail systems could read in two ways: anything
// but a local part of RFC 5322 §3.2.3's dot-atom characters, 64 at most (RFC 5321 §4.5.3.1.1), and a domain. Of those characters
// % and ! are refused too, by which mail was once routed on to another domain, and local parts outside ASCII (RFC 6531).
func domainOf(address string) (domain string, ok bool) {
	local, domain, ok := strings.Cut(address, "@")
	if !ok || local == "" || len(local) > 64 || domain == "" || strings.Contains(domain, "@") {
		return "", false
	}
	for i := range len(local) {
		c := local[i]
		alphanumeric := 'a' <= lower(c) && lower(c) <= 'z' || '0' <= c && c <= '9'
		if !alphanumeric && strings.IndexByte("#$&'*+-./=?^_`{|}~", c) < 0 {
			return "", false
		}
	}
	return domain, true
}

// claim looks up a value as encoding/json decodes it, or as a field has it.
func (k *key) claim(found any) (reason string, ok bool) {
	switch v := found.(type) {
	case string:
		reason, ok = k.want[v]
		return reason, ok
	case []string:
		return k.any(v)
	case []any:
		for _, e := range v {
			if s, isText := e.(string); isText {
				if reason, ok = k.want[s]; ok {
					return reason, true
				}
			}
		}
		return "", false
	}
	var buf [32]byte
	text, ok := jsonText(buf[:0], found)
	if !ok {
		return "", false
	}
	reason, ok = k.want[string(text)]
	return reason, ok
}

// jsonText appends the JSON text of a bool or a number; numbers without exponent.
func jsonText(b []byte, v any) (text []byte, ok bool) {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(b, v), true
	case int64:
		return strconv.AppendInt(b, v, 10), true
	case float64:
		// From 2⁵³ on one float64 stands for several numbers, and one of them is not the other.
		const exact = 1 << 53
		if v > -exact && v < exact {
			return strconv.AppendFloat(b, v, 'f', -1, 64), true
		}
	}
	return nil, false
}

// explain says for each key what is wanted and what was found.
func (e *entry) explain(who *identity.Identity) []string {
	if len(e.keys) == 0 {
		return []string{e.name + ": asks for nothing and never holds"}
	}
	lines := make([]string, len(e.keys))
	for i := range e.keys {
		k := &e.keys[i]
		_, ok := k.holds(who)
		want, found := quote(k.values), k.found(who)
		if len(k.values) > 1 {
			want = "one of " + want
		}
		lines[i] = line(e.name+"."+k.name, want, found, ok)
	}
	return lines
}

// found is what the user has of what a key looks at.
func (k *key) found(who *identity.Identity) string {
	var texts []string
	switch v := who.Value(k.field).(type) {
	case nil:
	case []string:
		texts = v
	case string:
		texts = []string{v}
	case []any:
		for _, e := range v {
			texts = append(texts, fmt.Sprint(e))
		}
	default:
		if text, ok := jsonText(nil, v); ok {
			texts = []string{string(text)}
		} else {
			texts = []string{fmt.Sprint(v)}
		}
	}
	s := quote(texts)
	if k.field == "email" && who.Email != "" && !who.EmailVerified {
		s += " (not verified)"
	}
	return s
}
