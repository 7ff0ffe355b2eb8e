package oidc_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"authproxy/oidc"
)

func partyForFuzzing(f *testing.F) *oidc.RelyingParty {
	rp, err := oidc.New(oidc.Config{Issuer: "https://acme.eu.auth0.com/", ClientID: clientID, ClientSecret: "s", RedirectURL: redirectURL})
	if err != nil {
		f.Fatal(err)
	}
	return rp
}

// What is accepted as claims has no two names that encoding/json could take for one another among those we rely on, and
// says the same after it was written and read again.
func FuzzClaims(f *testing.F) {
	rp := partyForFuzzing(f)
	for _, s := range []string{`{}`, `{"sub":"a"}`, `{"sub":"a","sub":"b"}`, `{"sub":"a","Sub":"b"}`, `{"\u0073ub":"a"}`, `{"a":{"a":1,"a":2}}`, `{"exp":1e3}`, `[1]`, `{"a":1}{}`,
		"{\"a\":\"\xff\"}", `{"ſub":1,"sub":2}`, ` {"a" : [ ] } `, `{"a":"\ud800","a":"\ud801"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		claims, err := rp.ParseJWT(b64([]byte(`{"alg":"RS256"}`)) + "." + b64(payload) + ".AA")
		if err != nil {
			if claims != nil {
				t.Error("claims beside an error")
			}
			return
		}
		if !json.Valid(payload) {
			t.Fatalf("%q is not JSON", payload)
		}
		for _, name := range []string{"iss", "sub", "aud", "exp", "nonce", "email", "email_verified", "sid"} {
			for other := range claims {
				if other != name && strings.EqualFold(other, name) {
					t.Errorf("%q was accepted although it looks like %q", other, name)
				}
			}
		}
		again, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		reread, err := oidc.ParseObject(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if a, b := values(t, claims), values(t, reread); !reflect.DeepEqual(a, b) {
			t.Errorf("%v became %v", a, b)
		}
		var plain map[string]any // the exact parser and encoding/json agree, because there are no duplicates
		if err := json.Unmarshal(payload, &plain); err != nil || len(plain) != len(claims) {
			t.Errorf("encoding/json sees %d members (%v), we see %d", len(plain), err, len(claims))
		}
	})
}

func values(t *testing.T, o map[string]json.RawMessage) map[string]any {
	out := map[string]any{}
	for name, raw := range o {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		out[name] = v
	}
	return out
}

// A token has one spelling: what is accepted is three parts of base64url, and no other string decodes to the same parts.
func FuzzJWT(f *testing.F) {
	rp := partyForFuzzing(f)
	good := b64([]byte(`{"alg":"RS256","kid":"k"}`)) + "." + b64([]byte(`{"sub":"a"}`)) + ".AA"
	for _, s := range []string{good, good + "=", good + "\n", good + ".x", "a.b.c", "..", b64([]byte(`{"alg":"none","crit":["b64"],"b64":false}`)) + "." + b64([]byte(`{}`)) + ".",
		strings.Replace(good, ".AA", ".AB", 1), b64([]byte(`{"alg":["RS256"]}`)) + ".e30.", b64([]byte(`{"alg":"RS256","alg":"none"}`)) + ".e30."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := rp.ParseJWT(token); err != nil {
			var invalid *oidc.Invalid
			if !errors.As(err, &invalid) {
				t.Errorf("error %T, want *Invalid", err)
			}
			return
		}
		part := strings.Split(token, ".")
		if len(part) != 3 {
			t.Fatalf("%q has %d parts", token, len(part))
		}
		for _, p := range part {
			if b, err := base64.RawURLEncoding.DecodeString(p); err != nil || b64(b) != p {
				t.Errorf("%q is not how %q is spelled", p, b)
			}
		}
		var header struct {
			Alg  string
			Crit any
		}
		if b, _ := base64.RawURLEncoding.DecodeString(part[0]); json.Unmarshal(b, &header) != nil || header.Crit != nil {
			t.Errorf("header %+v", header)
		}
	})
}

// A code comes out of a callback only when the state is the login's, everything is there once, there is no error, and the
// issuer is ours; and no text of an error repeats state or code.
func FuzzCallback(f *testing.F) {
	login := oidc.Login{State: "state-4711", Nonce: "n", CodeVerifier: "verifier-4711", Issuer: "https://acme.eu.auth0.com/", Started: start}
	for _, s := range []string{"code=c&state=state-4711", "code=c&code=d&state=state-4711", "state=state-4711&error=x&error_description=state-4711", "code=c", "code=c&state=",
		"code=c&state=state-4711&iss=https%3A%2F%2Facme.eu.auth0.com%2F", "code=c&state=state-4711&iss=", "state=state-4711&iss=is+state-4711", "%63ode=c&state=state-4711", "code=%0a&state=state-4711"} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, query string, promised bool) {
		response, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		code, err := oidc.CheckResponse(&login, response, promised)
		if err != nil {
			if code != "" {
				t.Errorf("code %q beside error %v", code, err)
			}
			if strings.Contains(err.Error(), login.State) || strings.Contains(err.Error(), login.CodeVerifier) {
				t.Errorf("the error %q has a secret in it", err)
			}
			var denied *oidc.Denied
			if errors.As(err, &denied) && (len([]rune(denied.Code)) > 64 || len([]rune(denied.Description)) > 200 || strings.ContainsAny(denied.Description, "\r\n\t\x00")) {
				t.Errorf("%+v is not fit to show", denied)
			}
			return
		}
		iss, hasIss := response["iss"]
		if len(response["code"]) != 1 || response.Get("code") != code || code == "" || !reflect.DeepEqual(response["state"], []string{login.State}) ||
			response.Has("error") || hasIss && iss[0] != login.Issuer || promised && !hasIss {
			t.Errorf("%q was accepted", query)
		}
	})
}
