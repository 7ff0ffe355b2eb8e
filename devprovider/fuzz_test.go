package devprovider_test

import (
	"encoding/base64"
	"net/url"
	"testing"

	"authproxy/devprovider"
)

// What the client is told arrives as it was, at the same host and path, beside its own parameters.
func FuzzAnswerArrives(f *testing.F) {
	f.Add("http://127.0.0.1:9/cb", "state")
	f.Add("https://app.example.com/cb?a=b&c", "+ %&=#\x00é")
	f.Add("https://app.example.com?", "")
	f.Fuzz(func(t *testing.T, to, state string) {
		if !devprovider.IsWebURL(to) {
			return
		}
		before, err := url.Parse(to)
		if err != nil {
			t.Fatalf("IsWebURL(%q), which is no URL: %v", to, err)
		}
		after, err := url.Parse(devprovider.WithQuery(to, "?", url.Values{"our-state": {state}}))
		if err != nil {
			t.Fatal(err)
		}
		query := after.Query()
		if before.Query().Has("our-state") {
			return
		}
		if got := query.Get("our-state"); got != state {
			t.Errorf("state %q arrives as %q", state, got)
		}
		query.Del("our-state")
		if after.Host != before.Host || after.EscapedPath() != before.EscapedPath() || query.Encode() != before.Query().Encode() {
			t.Errorf("%q becomes %q", before, after)
		}
		fragment, err := url.Parse(devprovider.WithQuery(to, "#", url.Values{"our-state": {state}}))
		if err != nil {
			t.Fatal(err)
		}
		if values, err := url.ParseQuery(fragment.EscapedFragment()); err != nil || values.Get("our-state") != state || fragment.Host != before.Host {
			t.Errorf("state %q arrives as %q in the fragment of %q: %v", state, values, fragment, err)
		}
	})
}

// What is accepted as a JWT is made of exactly the parts that come out.
func FuzzOpenJWT(f *testing.F) {
	f.Add((&devprovider.Token{Header: map[string]any{"alg": "HS256"}, Claims: map[string]any{"sub": "a"}, Key: []byte("k")}).Sign())
	f.Add("e30.e30.")
	f.Add("bnVsbA.e30.AA")
	f.Fuzz(func(t *testing.T, token string) {
		_, _, input, sig, err := devprovider.OpenJWT(token)
		if again := input + "." + base64.RawURLEncoding.EncodeToString(sig); err == nil && again != token {
			t.Errorf("%q comes apart as %q", token, again)
		}
	})
}
