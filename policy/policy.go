// Package policy decides who may use a route. It is pure: [Policy.Decide] depends on the policy, the identity and the time
// that it is given, and on nothing else.
//
// What is not allowed is denied: the zero Policy allows nobody, an entry that asks for nothing holds for nobody, and values
// are equal only when they are the same bytes. E-mail addresses alone are compared without regard to the case of ASCII letters.
// Which route a request is for, and that the identity is verified, is the caller's business.
package policy

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"authproxy/identity"
)

// A Policy says who may use a route: anyone, whoever is signed in, or those for whom one of the entries holds. The zero value
// allows nobody. Set the fields before first use and do not change or copy a Policy afterwards; then it is safe for
// concurrent use.
type Policy struct {
	Anyone   bool    // also when nobody is signed in; nothing else is asked then
	SignedIn bool    // every user
	Entries  []Entry // users for whom at least one entry holds

	MaxAuthAge time.Duration // how long ago the user may have logged in; zero means any time. A time not known is too long ago
	Leeway     time.Duration // clock difference tolerated with MaxAuthAge
	ACR        string        // authentication context that the login must have had; "" means any

	once    sync.Once
	entries []entry
}

// An Entry holds when each of its keys holds, and a key holds when one of its values is the user's. A key without values is
// not there; an entry without keys never holds. Values are compared exactly, an empty one is never equal to anything.
type Entry struct {
	Groups        []string
	Emails        []string // needs a verified address
	EmailDomains  []string // needs a verified address; that very domain, not its subdomains
	Subjects      []string // whichever issuer they are of
	Permissions   []string
	Scopes        []string
	Organizations []string
	Claims        []Claim // each must hold

	UnverifiedEmail bool // addresses need not be verified
}

// A Claim holds when the claim or field of that name is one of the values: a text, the JSON text of a bool, the JSON text
// without exponent of a number, or a list with one of the values as a text in it. Numbers from 2⁵³ on never hold, nor does
// anything else, nor a Claim without values. The field email needs a verified address, as Emails does.
type Claim struct {
	Name   string
	Values []string
}

// A Decision says whether the user may use the route.
type Decision struct {
	Allowed bool
	Remedy  Remedy // what would change a denial
	Reason  string // a few stable words for the log, without anything that the user or the provider wrote
}

// A Remedy is what a user can do about a denial.
type Remedy int

const (
	None          Remedy = iota // nothing, as the same user
	Login                       // sign in
	FreshLogin                  // sign in again: the login is too old
	StrongerLogin               // sign in again, with the ACR of the policy
)

func (r Remedy) String() string {
	switch r {
	case None:
		return "none"
	case Login:
		return "login"
	case FreshLogin:
		return "fresh login"
	case StrongerLogin:
		return "stronger login"
	}
	return fmt.Sprintf("Remedy(%d)", int(r))
}

// Decide says whether who may use the route at the time now. A nil who is a bug and denied.
func (p *Policy) Decide(who *identity.Identity, now time.Time) Decision {
	switch {
	case who == nil:
		return Decision{Reason: "no identity"}
	case p.Anyone:
		return Decision{Allowed: true, Reason: "anyone"}
	case who.IsAnonymous():
		return Decision{Remedy: Login, Reason: "not signed in"}
	}
	reason, ok := p.admits(who)
	switch {
	case !ok:
		return Decision{Reason: reason}
	// How and when the user logged in matters only for who may come in at all: no login helps the others.
	case who.AuthTime.IsZero() && p.MaxAuthAge != 0:
		return Decision{Remedy: FreshLogin, Reason: "login of unknown age"}
	case !p.recent(who, now):
		return Decision{Remedy: FreshLogin, Reason: "login older than " + p.MaxAuthAge.String()}
	case p.ACR != "" && who.ACR != p.ACR:
		return Decision{Remedy: StrongerLogin, Reason: "login without acr " + p.ACR}
	}
	return Decision{Allowed: true, Reason: reason}
}

// admits decides about a user without regard to the login.
func (p *Policy) admits(who *identity.Identity) (reason string, ok bool) {
	if p.SignedIn {
		return "signed in", true
	}
	for i := range p.compiled() {
		if reason, ok := p.entries[i].holds(who); ok {
			return reason, true
		}
	}
	return "no entry of allow holds", false
}

// recent reports whether the login, at a known time, is not older than MaxAuthAge. One in the future is not recent: it would
// stay so for too long.
func (p *Policy) recent(who *identity.Identity, now time.Time) bool {
	if p.MaxAuthAge == 0 {
		return true
	}
	age := now.Sub(who.AuthTime)
	return age >= -p.Leeway && age-p.Leeway <= p.MaxAuthAge
}

// compiled returns the entries in the form in which they are judged.
func (p *Policy) compiled() []entry {
	p.once.Do(func() {
		p.entries = make([]entry, len(p.Entries))
		for i, e := range p.Entries {
			p.entries[i] = compile(i, e)
		}
	})
	return p.entries
}

// Explain says in lines of text what Decide looks at and finds, key by key, and in the last line what it decides. Unlike a
// Reason it quotes the identity: it is for an operator's eyes.
func (p *Policy) Explain(who *identity.Identity, now time.Time) []string {
	d := p.Decide(who, now)
	var lines []string
	if who != nil && !p.Anyone && !who.IsAnonymous() {
		if !p.SignedIn {
			for _, e := range p.compiled() {
				lines = append(lines, e.explain(who)...)
			}
		}
		if p.MaxAuthAge != 0 {
			found, ok := "no auth_time", false
			if !who.AuthTime.IsZero() {
				found, ok = now.Sub(who.AuthTime).Round(time.Second).String(), p.recent(who, now)
			}
			lines = append(lines, line("max_auth_age", fmt.Sprintf("%s (leeway %s)", p.MaxAuthAge, p.Leeway), found, ok))
		}
		if p.ACR != "" {
			lines = append(lines, line("acr", quote([]string{p.ACR}), quote(nonEmpty(who.ACR)), who.ACR == p.ACR))
		}
	}
	verdict := "denied: "
	if d.Allowed {
		verdict = "allowed: "
	}
	last := verdict + d.Reason
	if d.Remedy != None {
		last += " (remedy: " + d.Remedy.String() + ")"
	}
	return append(lines, last)
}

func line(key, want, found string, ok bool) string {
	answer := "no"
	if ok {
		answer = "yes"
	}
	return fmt.Sprintf("%s: want %s; found %s: %s", key, want, found, answer)
}

// quote lists texts for Explain, ten of them at most.
func quote(texts []string) string {
	const most = 10
	if len(texts) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, s := range texts[:min(len(texts), most)] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", s)
	}
	if more := len(texts) - most; more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String()
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
