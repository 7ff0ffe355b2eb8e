package policy_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"authproxy/identity"
	"authproxy/policy"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func ada() *identity.Identity {
	return &identity.Identity{
		Issuer: "https://issuer.test/", Subject: "auth0|ada", Email: "Ada@Corp.test", EmailVerified: true,
		Groups: []string{"staff", "admins"}, Organization: "org_1", Permissions: []string{"read:items"}, Scopes: []string{"openid", "email"},
		ACR: "urn:mfa", AuthTime: now.Add(-time.Minute),
		Claims: map[string]any{"department": "finance", "level": 3.0, "half": 0.5, "big": 9007199254740992.0, "active": true, "none": nil,
			"teams": []any{"red", "blue", 7.0, nil, []any{"green"}}, "object": map[string]any{"red": true}, "empty": "", "zero": 0.0},
	}
}

func TestDecideOnRoutesOfEachKind(t *testing.T) {
	admins := []policy.Entry{{Groups: []string{"admins"}}}
	for _, tt := range []struct {
		name   string
		policy *policy.Policy
		who    *identity.Identity
		want   policy.Decision
	}{
		{"the zero policy allows nobody", &policy.Policy{}, ada(), policy.Decision{Reason: "no entry of allow holds"}},
		{"the zero policy, nobody signed in", &policy.Policy{}, identity.Anonymous, policy.Decision{Remedy: policy.Login, Reason: "not signed in"}},
		{"anyone is a user", &policy.Policy{Anyone: true}, ada(), policy.Decision{Allowed: true, Reason: "anyone"}},
		{"anyone is nobody in particular", &policy.Policy{Anyone: true}, identity.Anonymous, policy.Decision{Allowed: true, Reason: "anyone"}},
		{"a nil identity is not even anyone", &policy.Policy{Anyone: true, SignedIn: true}, nil, policy.Decision{Reason: "no identity"}},
		{"signed in", &policy.Policy{SignedIn: true}, ada(), policy.Decision{Allowed: true, Reason: "signed in"}},
		{"signed in, nobody", &policy.Policy{SignedIn: true}, identity.Anonymous, policy.Decision{Remedy: policy.Login, Reason: "not signed in"}},
		{"an entry holds", &policy.Policy{Entries: admins}, ada(), policy.Decision{Allowed: true, Reason: "groups: admins"}},
		{"no entry holds", &policy.Policy{Entries: []policy.Entry{{Groups: []string{"root"}}}}, ada(), policy.Decision{Reason: "no entry of allow holds"}},
		{"an entry, nobody", &policy.Policy{Entries: admins}, identity.Anonymous, policy.Decision{Remedy: policy.Login, Reason: "not signed in"}},
		{"nobody with the groups of somebody", &policy.Policy{Entries: admins}, &identity.Identity{Groups: []string{"admins"}}, policy.Decision{Remedy: policy.Login, Reason: "not signed in"}},
		{"the second entry holds, with two keys", &policy.Policy{Entries: []policy.Entry{{Groups: []string{"root"}}, {Groups: []string{"staff"}, Emails: []string{"ada@corp.test"}}}}, ada(),
			policy.Decision{Allowed: true, Reason: "allow[1]: groups, emails"}},
		{"addresses and subjects stay out of the reason", &policy.Policy{Entries: []policy.Entry{{Emails: []string{"ada@corp.test"}}}}, ada(), policy.Decision{Allowed: true, Reason: "emails"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.policy.Decide(tt.who, now)); diff != "" {
				t.Errorf("Decide (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEachKeyOfAnEntry(t *testing.T) {
	claim := func(name string, values ...string) policy.Entry {
		return policy.Entry{Claims: []policy.Claim{{Name: name, Values: values}}}
	}
	for _, tt := range []struct {
		name  string
		entry policy.Entry
		want  bool
	}{
		{"no key never holds", policy.Entry{}, false},
		{"unverified_email alone is no key", policy.Entry{UnverifiedEmail: true}, false},
		{"a group of several", policy.Entry{Groups: []string{"root", "admins"}}, true},
		{"another group", policy.Entry{Groups: []string{"root"}}, false},
		{"a group in another case", policy.Entry{Groups: []string{"Admins"}}, false},
		{"a group with a space", policy.Entry{Groups: []string{"admins "}}, false},
		{"a part of a group", policy.Entry{Groups: []string{"admin"}}, false},
		{"two groups in one text", policy.Entry{Groups: []string{"staff,admins"}}, false},
		{"the empty group", policy.Entry{Groups: []string{""}}, false},
		{"the empty group and another", policy.Entry{Groups: []string{"", "staff"}}, true},
		{"the address in any case", policy.Entry{Emails: []string{"aDA@corp.TEST"}}, true},
		{"another address", policy.Entry{Emails: []string{"bob@corp.test"}}, false},
		{"the domain in any case", policy.Entry{EmailDomains: []string{"CORP.test"}}, true},
		{"the empty domain", policy.Entry{EmailDomains: []string{""}}, false},
		{"the subject", policy.Entry{Subjects: []string{"auth0|ada"}}, true},
		{"the subject in another case", policy.Entry{Subjects: []string{"auth0|Ada"}}, false},
		{"a permission", policy.Entry{Permissions: []string{"read:items"}}, true},
		{"another permission", policy.Entry{Permissions: []string{"read:item"}}, false},
		{"a scope", policy.Entry{Scopes: []string{"email"}}, true},
		{"a scope of the permissions", policy.Entry{Scopes: []string{"read:items"}}, false},
		{"the organization", policy.Entry{Organizations: []string{"org_2", "org_1"}}, true},
		{"another organization", policy.Entry{Organizations: []string{"org_2"}}, false},
		{"a claim", claim("department", "audit", "finance"), true},
		{"a claim with another value", claim("department", "Finance"), false},
		{"a claim without values", claim("department"), false},
		{"a claim that is not there", claim("nope", "x", "", "null", "<nil>"), false},
		{"a claim that is null", claim("none", "null", "<nil>", ""), false},
		{"a claim that is empty", claim("empty", ""), false},
		{"a number", claim("level", "3"), true},
		{"a number, otherwise written", claim("level", "3.0"), false},
		{"a number with a fraction", claim("half", "0.5"), true},
		{"zero", claim("zero", "0"), true},
		{"a number that stands for several", claim("big", "9007199254740992", "9007199254740993"), false},
		{"true", claim("active", "true"), true},
		{"true is not 1", claim("active", "1"), false},
		{"an element of a list", claim("teams", "blue"), true},
		{"an element that is not a text", claim("teams", "7", "null", "<nil>"), false},
		{"an element of a list in a list", claim("teams", "green"), false},
		{"a list as one text", claim("teams", "red,blue", `["red","blue"]`, "[red blue]"), false},
		{"a key of an object", claim("object", "red", "true", "map[red:true]"), false},
		{"a field by its name as a claim", claim("acr", "urn:mfa"), true},
		{"groups as a claim", claim("groups", "admins"), true},
		{"email_verified as a claim", claim("email_verified", "true"), true},
		{"auth_time as a claim", claim("auth_time", fmt.Sprint(now.Add(-time.Minute).Unix())), true},
		{"two claims", policy.Entry{Claims: []policy.Claim{{"department", []string{"finance"}}, {"level", []string{"3"}}}}, true},
		{"two claims, one of which does not hold", policy.Entry{Claims: []policy.Claim{{"department", []string{"finance"}}, {"level", []string{"4"}}}}, false},
		{"two keys", policy.Entry{Groups: []string{"admins"}, Organizations: []string{"org_1"}}, true},
		{"two keys, the first does not hold", policy.Entry{Groups: []string{"root"}, Organizations: []string{"org_1"}}, false},
		{"two keys, the last does not hold", policy.Entry{Groups: []string{"admins"}, Organizations: []string{"org_2"}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &policy.Policy{Entries: []policy.Entry{tt.entry}}
			if d := p.Decide(ada(), now); d.Allowed != tt.want {
				t.Errorf("Decide = %+v, want allowed %v", d, tt.want)
			}
			// Someone of whom only the subject is known satisfies nothing but that.
			if d := p.Decide(&identity.Identity{Subject: "eve"}, now); d.Allowed {
				t.Errorf("Decide(a user without claims) = %+v, want denied", d)
			}
		})
	}
}

// Attacks AZ-01, AZ-02, AZ-04, AZ-14 and AZ-16.
func TestAddressesThatOnlyLookLikeTheAllowedOnes(t *testing.T) {
	domain := &policy.Policy{Entries: []policy.Entry{{EmailDomains: []string{"corp.test", "desk.test", "@corp.test", "corp.test@evil.test"}}}}
	address := &policy.Policy{Entries: []policy.Entry{{Emails: []string{"kate@desk.test", "a@corp.test"}}}}
	for _, email := range []string{
		"", "@", "a@", "@corp.test", "corp.test", "a",
		"a@corp.test@evil.test", "a@evil.test@corp.test", `"a@corp.test"@evil.test`, `"a@evil.test"@corp.test`, "a@@corp.test", "a@corp.test@",
		"a@corp.test,b@evil.test", "b@evil.test,a@corp.test", "a@corp.test b@evil.test", "a@corp.test;b@evil.test", "b@evil.test;a@corp.test",
		"a@evilcorp.test", "a@evil-corp.test", "a@corp.test.evil.test", "a@sub.corp.test", "a@corp.test.", "a@.corp.test", "a@orp.test", "a@corp.tes", "a@test",
		"\u212aate@desk.test", "kate@de\u017fk.test", "kate@des\u212a.test", "\u0130@c\u0131rp.test", "\uff41@corp.test", "a\uff20corp.test", "a@corp\uff0etest",
		"a\r\nb@corp.test", "\"a\r\nb\"@corp.test", "a@corp.test\r\n", "\x00a@corp.test", "a@corp.test\x00", "a@\x00corp.test", "a\x7f@corp.test",
		"a(evil)@corp.test", "a@corp.test(evil)", "<a@corp.test>", "A B <a@corp.test>", "a%40evil.test@corp.test", "a%evil.test@corp.test", "evil.test!a@corp.test", `a\@corp.test`,
		" a@corp.test", "a@corp.test ", "a @corp.test", "a@ corp.test", "a:b@corp.test", "[a]@corp.test",
		strings.Repeat("a", 65) + "@corp.test", strings.Repeat("a", 10<<10) + "@corp.test",
		"a@c\u043erp.test", "a@xn--crp-tma.test", "a@" + strings.Repeat("a", 300),
	} {
		who := &identity.Identity{Subject: "mallory", Email: email, EmailVerified: true}
		if d := domain.Decide(who, now); d.Allowed {
			t.Errorf("domain of %.60q: %+v, want denied", email, d)
		}
		if d := address.Decide(who, now); d.Allowed {
			t.Errorf("address %.60q: %+v, want denied", email, d)
		}
	}
	for _, email := range []string{"a@corp.test", "A@CORP.TEST", "o'brien+x=y.z@corp.test", strings.Repeat("a", 64) + "@desk.test"} {
		if d := domain.Decide(&identity.Identity{Subject: "a", Email: email, EmailVerified: true}, now); !d.Allowed {
			t.Errorf("domain of %q: %+v, want allowed", email, d)
		}
	}
}

func TestAddressesMustBeVerified(t *testing.T) {
	for _, tt := range []struct {
		name                 string
		entry                policy.Entry
		verified, unverified bool // what is decided on such an address
	}{
		{"emails", policy.Entry{Emails: []string{"ada@corp.test"}}, true, false},
		{"email_domains", policy.Entry{EmailDomains: []string{"corp.test"}}, true, false},
		{"email as a claim", policy.Entry{Claims: []policy.Claim{{"email", []string{"Ada@Corp.test"}}}}, true, false},
		{"emails, unverified", policy.Entry{Emails: []string{"ada@corp.test"}, UnverifiedEmail: true}, true, true},
		{"email_domains, unverified", policy.Entry{EmailDomains: []string{"corp.test"}, UnverifiedEmail: true}, true, true},
		{"other keys do not care", policy.Entry{Groups: []string{"staff"}}, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// The second entry must not lend its permission to the first.
			p := &policy.Policy{Entries: []policy.Entry{tt.entry, {Subjects: []string{"nobody"}, UnverifiedEmail: true}}}
			who := ada()
			if got := p.Decide(who, now).Allowed; got != tt.verified {
				t.Errorf("verified: allowed %v, want %v", got, tt.verified)
			}
			who.EmailVerified = false
			if got := p.Decide(who, now).Allowed; got != tt.unverified {
				t.Errorf("unverified: allowed %v, want %v", got, tt.unverified)
			}
		})
	}
}

func TestTheLoginMustBeFreshAndStrong(t *testing.T) {
	fresh := policy.Decision{Remedy: policy.FreshLogin, Reason: "login older than 5m0s"}
	unknown := policy.Decision{Remedy: policy.FreshLogin, Reason: "login of unknown age"}
	stronger := policy.Decision{Remedy: policy.StrongerLogin, Reason: "login without acr urn:mfa"}
	allowed := policy.Decision{Allowed: true, Reason: "signed in"}
	const leeway = 10 * time.Second
	for _, tt := range []struct {
		name string
		at   time.Time
		acr  string
		want policy.Decision
	}{
		{"just now", now, "urn:mfa", allowed},
		{"as old as may be", now.Add(-5*time.Minute - leeway), "urn:mfa", allowed},
		{"a nanosecond older", now.Add(-5*time.Minute - leeway - 1), "urn:mfa", fresh},
		{"not known when", time.Time{}, "urn:mfa", unknown},
		{"in the future by the leeway", now.Add(leeway), "urn:mfa", allowed},
		{"in the future by more", now.Add(leeway + 1), "urn:mfa", fresh},
		{"ages ago", time.Unix(-1<<40, 0), "urn:mfa", fresh},
		{"in ages", time.Unix(1<<40, 0), "urn:mfa", fresh},
		{"without acr", now, "", stronger},
		{"with another acr", now, "urn:mfa2", stronger},
		{"with the acr in another case", now, "URN:mfa", stronger},
		{"neither fresh nor strong", now.Add(-time.Hour), "", fresh},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := policy.Policy{SignedIn: true, MaxAuthAge: 5 * time.Minute, Leeway: leeway, ACR: "urn:mfa"}
			who := &identity.Identity{Subject: "ada", AuthTime: tt.at, ACR: tt.acr}
			if diff := cmp.Diff(tt.want, p.Decide(who, now)); diff != "" {
				t.Errorf("Decide (-want +got):\n%s", diff)
			}
			entries := policy.Policy{Entries: []policy.Entry{{Subjects: []string{"ada"}}}, MaxAuthAge: p.MaxAuthAge, Leeway: leeway, ACR: "urn:mfa"}
			if d := entries.Decide(who, now); d.Allowed != tt.want.Allowed || d.Remedy != tt.want.Remedy {
				t.Errorf("Decide with an entry = %+v, want %+v", d, tt.want)
			}
			entries = policy.Policy{Entries: []policy.Entry{{Subjects: []string{"bob"}}}, MaxAuthAge: p.MaxAuthAge, Leeway: leeway, ACR: "urn:mfa"}
			if d := entries.Decide(who, now); d.Allowed || d.Remedy != policy.None {
				t.Errorf("Decide for another user = %+v, want denied without remedy: no login helps", d)
			}
			anyone := policy.Policy{Anyone: true, MaxAuthAge: p.MaxAuthAge, ACR: "urn:mfa"}
			if d := anyone.Decide(who, now); !d.Allowed {
				t.Errorf("Decide for anyone = %+v, want allowed", d)
			}
			if d := p.Decide(identity.Anonymous, now); d.Allowed || d.Remedy != policy.Login {
				t.Errorf("Decide(anonymous) = %+v, want denied with a login as remedy", d)
			}
		})
	}
}

// randomEntry returns an entry over so few values that keys hold about every other time.
func randomEntry(r *rand.Rand) policy.Entry {
	pick := func(values ...string) []string {
		return values[r.IntN(len(values)):][:1:1]
	}
	var e policy.Entry
	for _, f := range []struct {
		key    *[]string
		values []string
	}{
		{&e.Groups, pick("admins", "root")},
		{&e.Emails, pick("ada@corp.test", "bob@corp.test")},
		{&e.EmailDomains, pick("corp.test", "evil.test")},
		{&e.Subjects, pick("auth0|ada", "auth0|bob")},
		{&e.Permissions, pick("read:items", "write:items")},
		{&e.Scopes, pick("openid", "admin")},
		{&e.Organizations, pick("org_1", "org_2")},
	} {
		if r.IntN(3) == 0 {
			*f.key = f.values
		}
	}
	for _, name := range []string{"department", "teams"} {
		if r.IntN(3) == 0 {
			e.Claims = append(e.Claims, policy.Claim{Name: name, Values: pick("finance", "blue", "none")})
		}
	}
	e.UnverifiedEmail = r.IntN(2) == 0
	return e
}

// split returns an entry for each key of e.
func split(e policy.Entry) (entries []policy.Entry) {
	v := reflect.ValueOf(e)
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() != reflect.Slice || f.Len() == 0 {
			continue
		}
		for j := range f.Len() {
			if v.Type().Field(i).Name != "Claims" && j > 0 {
				break
			}
			one := policy.Entry{UnverifiedEmail: e.UnverifiedEmail}
			part := f
			if v.Type().Field(i).Name == "Claims" {
				part = f.Slice(j, j+1)
			}
			reflect.ValueOf(&one).Elem().Field(i).Set(part)
			entries = append(entries, one)
		}
	}
	return entries
}

func TestAnEntryHoldsWhenAndOnlyWhenEachOfItsKeysDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	who := ada()
	outcomes := map[bool]int{}
	for range 5000 {
		e := randomEntry(r)
		who.EmailVerified = r.IntN(2) == 0
		keys := split(e)
		want := len(keys) > 0
		for _, one := range keys {
			p := policy.Policy{Entries: []policy.Entry{one}}
			want = p.Decide(who, now).Allowed && want
		}
		p := policy.Policy{Entries: []policy.Entry{e}}
		if d := p.Decide(who, now); d.Allowed != want {
			t.Fatalf("Decide with %+v = %+v, want allowed %v", e, d, want)
		}
		outcomes[want]++
	}
	if outcomes[true] < 100 || outcomes[false] < 100 {
		t.Errorf("outcomes %v: one kind hardly occurs", outcomes)
	}
}

func TestAllowHoldsWhenAndOnlyWhenOneOfItsEntriesDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	outcomes := map[bool]int{}
	for range 2000 {
		all := policy.Policy{Entries: []policy.Entry{randomEntry(r), randomEntry(r), randomEntry(r)}}
		want := slices.ContainsFunc(all.Entries, func(e policy.Entry) bool {
			one := policy.Policy{Entries: []policy.Entry{e}}
			return one.Decide(ada(), now).Allowed
		})
		if d := all.Decide(ada(), now); d.Allowed != want {
			t.Fatalf("Decide with %+v = %+v, want allowed %v", all.Entries, d, want)
		}
		outcomes[want]++
	}
	if outcomes[true] < 100 || outcomes[false] < 100 {
		t.Errorf("outcomes %v: one kind hardly occurs", outcomes)
	}
}

func TestExplainSaysWhatWasWantedAndFound(t *testing.T) {
	many := make([]string, 25)
	for i := range many {
		many[i] = fmt.Sprintf("g%d", i)
	}
	unverified := ada()
	unverified.EmailVerified = false
	entries := []policy.Entry{
		{Groups: []string{"root", "admins"}, EmailDomains: []string{"corp.test"}},
		{Claims: []policy.Claim{{"department", []string{"audit"}}, {"level", []string{"4"}}, {"object", []string{"red"}}}},
		{},
		{Groups: many},
	}
	for _, tt := range []struct {
		name   string
		policy *policy.Policy
		who    *identity.Identity
		want   []string
	}{
		{"entries and the login", &policy.Policy{Entries: entries, MaxAuthAge: 5 * time.Minute, Leeway: time.Minute, ACR: "urn:phr"}, unverified, []string{
			`allow[0].groups: want one of "root", "admins"; found "staff", "admins": yes`,
			`allow[0].email_domains: want "corp.test"; found "Ada@Corp.test" (not verified): no`,
			`allow[1].claims.department: want "audit"; found "finance": no`,
			`allow[1].claims.level: want "4"; found "3": no`,
			`allow[1].claims.object: want "red"; found "map[red:true]": no`,
			`allow[2]: asks for nothing and never holds`,
			`allow[3].groups: want one of "g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8", "g9" and 15 more; found "staff", "admins": no`,
			`max_auth_age: want 5m0s (leeway 1m0s); found 1m0s: yes`,
			`acr: want "urn:phr"; found "urn:mfa": no`,
			`denied: no entry of allow holds`,
		}},
		{"signed in", &policy.Policy{SignedIn: true, MaxAuthAge: time.Hour}, &identity.Identity{Subject: "x"}, []string{
			`max_auth_age: want 1h0m0s (leeway 0s); found no auth_time: no`,
			`denied: login of unknown age (remedy: fresh login)`,
		}},
		{"a user without anything", &policy.Policy{Entries: []policy.Entry{{Claims: []policy.Claim{{"teams", nil}}}}, ACR: "urn:mfa"}, &identity.Identity{Subject: "x"}, []string{
			`allow[0].claims.teams: want none; found none: no`,
			`acr: want "urn:mfa"; found none: no`,
			`denied: no entry of allow holds`,
		}},
		{"a list", &policy.Policy{Entries: []policy.Entry{{Claims: []policy.Claim{{"teams", []string{"blue"}}}}}, ACR: "x"}, ada(), []string{
			`allow[0].claims.teams: want "blue"; found "red", "blue", "7", "<nil>", "[green]": yes`,
			`acr: want "x"; found "urn:mfa": no`,
			`denied: login without acr x (remedy: stronger login)`,
		}},
		{"nobody", &policy.Policy{Entries: entries}, identity.Anonymous, []string{"denied: not signed in (remedy: login)"}},
		{"anyone", &policy.Policy{Anyone: true}, identity.Anonymous, []string{"allowed: anyone"}},
		{"nil", &policy.Policy{SignedIn: true}, nil, []string{"denied: no identity"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.policy.Explain(tt.who, now)); diff != "" {
				t.Errorf("Explain (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecideAllocatesNothingWhenItAllows(t *testing.T) {
	who := ada()
	who.Claims["department"] = strings.Repeat("long ", 20)
	for name, e := range entriesThatHold(who) {
		p := &policy.Policy{Entries: []policy.Entry{{Groups: []string{"root"}}, e}, MaxAuthAge: time.Hour, ACR: "urn:mfa"}
		if d := p.Decide(who, now); !d.Allowed {
			t.Errorf("%s: %+v, want allowed", name, d)
		}
		if n := testing.AllocsPerRun(100, func() { p.Decide(who, now) }); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}

func entriesThatHold(who *identity.Identity) map[string]policy.Entry {
	return map[string]policy.Entry{
		"groups":        {Groups: []string{"admins"}},
		"emails":        {Emails: []string{"ada@corp.test"}},
		"email_domains": {EmailDomains: []string{"corp.test"}},
		"subjects":      {Subjects: []string{"auth0|ada"}},
		"claims": {Claims: []policy.Claim{{"department", []string{who.Claims["department"].(string)}}, {"level", []string{"3"}}, {"active", []string{"true"}},
			{"teams", []string{"blue"}}}},
	}
}

// A user of a wanted domain is someone for whom the domain, and a wanted address in it, mean the same: what passes as a
// domain is one @ and plain ASCII around it.
func FuzzEmailDomain(f *testing.F) {
	for _, s := range []string{"a@corp.test", "A@CORP.TEST", "a@evil.test@corp.test", "\u212a@corp.test", "a b@corp.test", "@corp.test", ""} {
		f.Add(s)
	}
	domain := &policy.Policy{Entries: []policy.Entry{{EmailDomains: []string{"corp.test"}}}}
	f.Fuzz(func(t *testing.T, email string) {
		if !domain.Decide(&identity.Identity{Subject: "x", Email: email, EmailVerified: true}, now).Allowed {
			return
		}
		local, ok := strings.CutSuffix(strings.ToLower(email), "@corp.test")
		if !ok || local == "" || strings.ContainsAny(local, "@ \t,;:\"<>()[]\\%!") || strings.IndexFunc(email, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
			t.Errorf("%q passes as an address of corp.test", email)
		}
		address := &policy.Policy{Entries: []policy.Entry{{Emails: []string{email}}}}
		if !address.Decide(&identity.Identity{Subject: "x", Email: strings.ToLower(email), EmailVerified: true}, now).Allowed {
			t.Errorf("%q is of the domain, but not itself", email)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	who := ada()
	for name, e := range entriesThatHold(who) {
		b.Run(name, func(b *testing.B) {
			p := &policy.Policy{Entries: []policy.Entry{{Groups: []string{"root"}}, e}}
			b.ReportAllocs()
			for b.Loop() {
				p.Decide(who, now)
			}
		})
	}
	b.Run("the last of 5000 groups", func(b *testing.B) { // attack HDR-32
		who := &identity.Identity{Subject: "x"}
		for i := range 5000 {
			who.Groups = append(who.Groups, fmt.Sprintf("group-%d", i))
		}
		p := &policy.Policy{Entries: []policy.Entry{{Groups: []string{"group-4999"}}}}
		b.ReportAllocs()
		for b.Loop() {
			p.Decide(who, now)
		}
	})
}
