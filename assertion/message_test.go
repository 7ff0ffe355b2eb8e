package assertion_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authproxy/assertion"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
)

// algorithms are all of them, with a pair of keys each.
var algorithms = sync.OnceValue(func() []algorithm {
	ec, err := assertion.DeriveKey(secret(1))
	if err != nil {
		panic(err)
	}
	ed, err := assertion.DeriveEd25519(secret(1))
	if err != nil {
		panic(err)
	}
	return []algorithm{
		{assertion.HMACSHA256, secret(1), secret(1)},
		{assertion.Ed25519, ed, ed.Public()},
		{assertion.ECDSAP256SHA256, ec, &ec.PublicKey},
	}
})

type algorithm struct {
	name            string
	private, public any
}

func (a algorithm) signer(t testing.TB) *assertion.MessageSigner {
	t.Helper()
	m, err := assertion.NewMessageSigner(a.name, "key-1", a.private)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var identityHeaders = []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Authproxy-Assertion"}

// signedRequest is a request as an upstream gets it, signed with hmac-sha256.
func signedRequest(t testing.TB, headers ...string) *http.Request {
	t.Helper()
	req := httptest.NewRequest("POST", "http://app.test/a/b?x=1&y=%20", nil)
	req.Header.Set("X-Forwarded-User", "auth0|ada")
	req.Header.Set("X-Forwarded-Groups", "staff,admins")
	if headers == nil {
		headers = identityHeaders
	}
	if err := algorithms()[0].signer(t).Sign(req, "app.test", headers, now); err != nil {
		t.Fatal(err)
	}
	return req
}

func expect() assertion.MessageOptions {
	return assertion.MessageOptions{Algorithm: assertion.HMACSHA256, KeyID: "key-1", Headers: identityHeaders, Now: now}
}

func TestSignSetsTheTwoHeaders(t *testing.T) {
	req := httptest.NewRequest("GET", "http://App.test:80", nil)
	req.Header.Set("X-Forwarded-User", "ada")
	req.Header["X-Forwarded-Groups"] = []string{" staff\t", "admins "}
	req.Header.Set("X-Other", "not signed")
	req.Header.Add("Signature", "sig1=:QQ==:")
	req.Header.Add("Signature", "authproxy=:QQ==:")
	req.Header.Add("Signature-Input", `authproxy=("@method")`)
	if err := algorithms()[0].signer(t).Sign(req, "App.test:80", []string{"x-forwarded-GROUPS", "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-User"}, now); err != nil {
		t.Fatal(err)
	}
	nonce := regexp.MustCompile(`;nonce="([A-Z2-7]{26})"`)
	input := nonce.ReplaceAllString(req.Header.Get("Signature-Input"), `;nonce="N"`)
	want := fmt.Sprintf(`authproxy=("@method" "@authority" "@path" "@query" "x-forwarded-groups" "x-forwarded-user");created=%d;expires=%d;nonce="N";keyid="key-1";alg="hmac-sha256";tag="authproxy"`,
		now.Unix(), now.Unix()+60)
	if diff := cmp.Diff(want, input); diff != "" {
		t.Errorf("Signature-Input (-want +got):\n%s", diff)
	}
	if in, sig := req.Header.Values("Signature-Input"), req.Header.Values("Signature"); len(in) != 1 || len(sig) != 1 || !strings.HasPrefix(sig[0], "authproxy=:") {
		t.Errorf("Signature-Input %q, Signature %q, want ours alone", in, sig)
	}
	base, err := assertion.SignatureBaseOf(req.Header.Get("Signature-Input"), assertion.Label, func(c assertion.Component) (string, error) {
		return map[string]string{"@method": "GET", "@authority": "app.test", "@path": "/", "@query": "?", "x-forwarded-groups": "staff, admins", "x-forwarded-user": "ada"}[c.Name()], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sig, err := assertion.ParseSignature(req.Header.Get("Signature"), assertion.Label)
	if err != nil {
		t.Fatal(err)
	}
	if err := assertion.VerifySignature(assertion.HMACSHA256, secret(1), base, sig); err != nil {
		t.Errorf("%v over:\n%s", err, base)
	}
}

// An upstream behind a real connection, for each algorithm.
func TestSignedRequestsVerifyAtTheUpstream(t *testing.T) {
	for _, alg := range algorithms() {
		t.Run(alg.name, func(t *testing.T) {
			m := alg.signer(t)
			nonces := map[string]bool{}
			upstream := func(w http.ResponseWriter, r *http.Request) {
				err := assertion.VerifyMessage(r, alg.public, assertion.MessageOptions{
					Algorithm: alg.name, KeyID: "key-1", Headers: identityHeaders, Now: now,
					Nonce: func(nonce string, until time.Time) error {
						if nonces[nonce] || !until.Equal(time.Unix(now.Unix()+60, 0)) {
							return errors.New("replayed")
						}
						nonces[nonce] = true
						return nil
					},
				})
				if err != nil {
					http.Error(w, err.Error(), http.StatusUnauthorized)
				}
			}
			plain := httptest.NewServer(http.HandlerFunc(upstream))
			defer plain.Close()
			secure := httptest.NewTLSServer(http.HandlerFunc(upstream))
			defer secure.Close()
			for _, server := range []*httptest.Server{plain, secure} {
				for _, target := range []string{"", "/", "/?", "/x?a=1&b=%20&c=ä", "/z%C3%A4/a%2Fb;c=d", "//double//slash", "/a%20b?c d", "/ä"} {
					for _, host := range []string{"", "Other.TEST", "other.test:80", "other.test:443", "[::1]:8443"} {
						for _, method := range []string{"GET", "POST", "propfind"} {
							req, err := http.NewRequest(method, server.URL, nil)
							if err != nil {
								t.Fatal(err)
							}
							u, err := url.Parse(server.URL + strings.ReplaceAll(target, "?c d", "?c%20d"))
							if err != nil {
								t.Fatal(err)
							}
							req.URL = u
							authority := u.Host
							if host != "" {
								req.Host, authority = host, host
							}
							req.Header.Set("X-Forwarded-User", "auth0|ada")
							req.Header.Add("X-Forwarded-Groups", "a")
							req.Header.Add("X-Forwarded-Groups", " b ")
							req.Header.Set("X-Forwarded-Email", "")
							if err := m.Sign(req, authority, identityHeaders, now); err != nil {
								t.Fatal(err)
							}
							resp, err := server.Client().Do(req)
							if err != nil {
								t.Fatal(err)
							}
							body, _ := io.ReadAll(resp.Body)
							resp.Body.Close()
							if resp.StatusCode != 200 {
								t.Errorf("%s %s%s, Host %q: %s", method, server.URL, target, host, body)
							}
						}
					}
				}
			}
		})
	}
}

func TestVerifyMessageRefusesWhatWasChanged(t *testing.T) {
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	replace := func(name, old, new string) func(*http.Request) {
		return func(r *http.Request) {
			if !strings.Contains(r.Header.Get(name), old) {
				t.Fatalf("%q is not in %s: %q", old, name, r.Header.Get(name))
			}
			r.Header.Set(name, strings.Replace(r.Header.Get(name), old, new, 1))
		}
	}
	created := fmt.Sprint("created=", now.Unix())
	for _, tt := range []struct {
		name   string
		change func(*http.Request)
		ok     bool
	}{
		{"nothing", func(*http.Request) {}, true},
		{"a header that is not signed", set("X-Other", "x"), true},
		{"the case of the host, and its default port", func(r *http.Request) { r.Host = "APP.test:80" }, true},
		{"white space around a value", set("X-Forwarded-User", " auth0|ada\t"), true},

		{"the method", func(r *http.Request) { r.Method = "GET" }, false},
		{"the case of the method", func(r *http.Request) { r.Method = "post" }, false},
		{"the host", func(r *http.Request) { r.Host = "evil.test" }, false},
		{"the port", func(r *http.Request) { r.Host = "app.test:81" }, false},
		{"the default port of another scheme", func(r *http.Request) { r.Host = "app.test:443" }, false},
		{"the path", func(r *http.Request) { r.URL.Path = "/a/c" }, false},
		{"the spelling of the path", func(r *http.Request) { r.URL.RawPath = "/a%2Fb" }, false},
		{"a slash at the end", func(r *http.Request) { r.URL.Path = "/a/b/" }, false},
		{"the query", func(r *http.Request) { r.URL.RawQuery = "x=1&y=+" }, false},
		{"the query taken away", func(r *http.Request) { r.URL.RawQuery = "" }, false},
		{"a signed header", set("X-Forwarded-User", "auth0|root"), false},
		{"a second value", func(r *http.Request) { r.Header.Add("X-Forwarded-Groups", "root") }, false},
		{"a signed header taken away", func(r *http.Request) { r.Header.Del("X-Forwarded-Groups") }, false},
		{"a header of the list, added", set("X-Forwarded-Email", "root@corp.test"), false},
		{"a line end in a value", set("X-Forwarded-User", "auth0|ada\n\"x-forwarded-email\": root"), false},

		{"no signature", func(r *http.Request) { r.Header.Del("Signature") }, false},
		{"no input", func(r *http.Request) { r.Header.Del("Signature-Input") }, false},
		{"neither", func(r *http.Request) { r.Header.Del("Signature"); r.Header.Del("Signature-Input") }, false},
		{"two signatures", func(r *http.Request) { r.Header.Add("Signature", "x=:QQ==:") }, false},
		{"two inputs", func(r *http.Request) { r.Header.Add("Signature-Input", `x=("@method")`) }, false},
		{"another member in one line", replace("Signature-Input", "authproxy=", `x=("@method"), authproxy=`), false},
		{"an empty signature", set("Signature", "authproxy=::"), false},
		{"another signature", set("Signature", "authproxy=:QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=:"), false},
		{"a signature cut short", set("Signature", "authproxy=:QUFB:"), false},
		{"a signature that is not base64", replace("Signature", "authproxy=:", "authproxy=:!"), false},
		{"a signature that is too long", set("Signature", "authproxy=:"+strings.Repeat("QUFB", 400)+":"), false},
		{"a component less", replace("Signature-Input", `"@query" `, ""), false},
		{"a header less", replace("Signature-Input", ` "x-forwarded-user"`, ""), false},
		{"a component twice", replace("Signature-Input", `"@query"`, `"@query" "@query"`), false},
		{"a component with a parameter", replace("Signature-Input", `"@method"`, `"@method";req="x"`), false},
		{"a component that we do not know", replace("Signature-Input", `"@method"`, `"@method" "@target-uri"`), false},
		{"created later", replace("Signature-Input", created, fmt.Sprint("created=", now.Unix()+1)), false},
		{"without created", replace("Signature-Input", ";"+created, ""), false},
		{"alg left out", replace("Signature-Input", `;alg="hmac-sha256"`, ""), false},
		{"alg of another kind", replace("Signature-Input", "hmac-sha256", "ed25519"), false},
		{"tag left out", replace("Signature-Input", `;tag="authproxy"`, ""), false},
		{"another tag", replace("Signature-Input", `tag="authproxy"`, `tag="other"`), false},
		{"another keyid", replace("Signature-Input", "key-1", "key-2"), false},
		{"another parameter", replace("Signature-Input", ";tag", `;x="y";tag`), false},
		{"a parameter twice", replace("Signature-Input", ";tag", `;tag="authproxy";tag`), false},
		{"a space after a semicolon", replace("Signature-Input", ";tag", `; tag`), false},
		{"the input too long", replace("Signature-Input", "key-1", strings.Repeat("k", 9<<10)), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := signedRequest(t)
			tt.change(req)
			if err := assertion.VerifyMessage(req, secret(1), expect()); tt.ok != (err == nil) {
				t.Errorf("VerifyMessage = %v, want accepted %v", err, tt.ok)
			}
		})
	}
}

// A signature that is good proves nothing when it leaves out what matters. These have the right key.
func TestVerifyMessageAsksForWhatMatters(t *testing.T) {
	m := algorithms()[0].signer(t)
	const all = `("@method" "@authority" "@path" "@query" "x-forwarded-user" "x-forwarded-groups")`
	params := func(created, expires int64, rest string) string {
		return fmt.Sprintf(`;created=%d;expires=%d%s`, created, expires, rest)
	}
	const rest = `;nonce="n";keyid="key-1";alg="hmac-sha256";tag="authproxy"`
	at := now.Unix()
	for _, tt := range []struct {
		name, input string
		ok          bool
	}{
		{"our form", all + params(at, at+60, rest), true},
		{"another order", `("x-forwarded-groups" "@query" "@authority" "x-forwarded-user" "@path" "@method")` + params(at, at+1, rest), true},
		{"more than asked for", strings.Replace(all, ")", ` "x-other")`, 1) + params(at, at+60, rest), true},

		{"nothing", `()` + params(at, at+60, rest), false},
		{"no method", strings.Replace(all, `"@method" `, "", 1) + params(at, at+60, rest), false},
		{"no authority", strings.Replace(all, `"@authority" `, "", 1) + params(at, at+60, rest), false},
		{"no path", strings.Replace(all, `"@path" `, "", 1) + params(at, at+60, rest), false},
		{"no query", strings.Replace(all, `"@query" `, "", 1) + params(at, at+60, rest), false},
		{"a header left out", strings.Replace(all, ` "x-forwarded-groups"`, "", 1) + params(at, at+60, rest), false},
		{"no nonce", all + params(at, at+60, strings.Replace(rest, `;nonce="n"`, "", 1)), false},
		{"an empty nonce", all + params(at, at+60, strings.Replace(rest, `"n"`, `""`, 1)), false},
		{"no created", all + fmt.Sprintf(`;expires=%d`, at+60) + rest, false},
		{"no expires", all + fmt.Sprintf(`;created=%d`, at) + rest, false},
		{"too long a life", all + params(at, at+61, rest), false},
		{"no life", all + params(at, at, rest), false},
		{"a life backwards", all + params(at, at-1, rest), false},
		{"expired", all + params(at-61, at-1, rest), false},
		{"in the future", all + params(at+1, at+61, rest), false},
		{"created beyond numbers", all + params(999999999999999, 999999999999999, rest), false},
		{"no tag", all + params(at, at+60, strings.Replace(rest, `;tag="authproxy"`, "", 1)), false},
		{"no alg", all + params(at, at+60, strings.Replace(rest, `;alg="hmac-sha256"`, "", 1)), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := signedRequest(t)
			req.Header.Set("X-Other", "x")
			field := assertion.Label + "=" + tt.input
			base, err := assertion.SignatureBaseOf(field, assertion.Label, assertion.RequestComponents(req))
			if err != nil {
				t.Fatal(err)
			}
			sig, err := m.SignBase(base)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Signature-Input", field)
			req.Header.Set("Signature", "authproxy=:"+base64.StdEncoding.EncodeToString(sig)+":")
			opts := expect()
			opts.Now = time.Unix(at, 0)
			if err := assertion.VerifyMessage(req, secret(1), opts); tt.ok != (err == nil) {
				t.Errorf("VerifyMessage = %v, want accepted %v", err, tt.ok)
			}
		})
	}
}

func TestComponentsWithParametersAreNotOurs(t *testing.T) {
	req := signedRequest(t)
	for _, c := range []string{`"@method";name="x"`, `"x-forwarded-user";key="x"`, `"@query-param";name="x"`} {
		if base, err := assertion.SignatureBaseOf("authproxy=("+c+")", assertion.Label, assertion.RequestComponents(req)); err == nil {
			t.Errorf("component %s has a base:\n%s", c, base)
		}
	}
}

// RFC 9421 §3.3.5: r and s are 32 bytes each. Another length would be another spelling of the same signature, or a panic.
func TestECDSASignaturesHave64Bytes(t *testing.T) {
	alg := algorithms()[2]
	base := []byte("base")
	sig, err := alg.signer(t).SignBase(base)
	if err != nil {
		t.Fatal(err)
	}
	if err := assertion.VerifySignature(alg.name, alg.public, base, sig); err != nil || len(sig) != 64 {
		t.Fatalf("%d bytes, %v", len(sig), err)
	}
	for _, bad := range [][]byte{nil, sig[:1], sig[:31], sig[:32], sig[:63], slices.Insert(slices.Clone(sig), 32, 0), append(slices.Clone(sig), 0)} {
		if err := assertion.VerifySignature(alg.name, alg.public, base, bad); err == nil {
			t.Errorf("a signature of %d bytes is accepted", len(bad))
		}
	}
}

func TestVerifyMessageKeepsToItsOptions(t *testing.T) {
	ed := algorithms()[1].public
	for _, tt := range []struct {
		name string
		key  any
		opts func(*assertion.MessageOptions)
		ok   bool
	}{
		{"as it should be", secret(1), func(*assertion.MessageOptions) {}, true},
		{"any key ID", secret(1), func(o *assertion.MessageOptions) { o.KeyID = "" }, true},
		{"another key ID", secret(1), func(o *assertion.MessageOptions) { o.KeyID = "key-2" }, false},
		{"another key", secret(2), func(*assertion.MessageOptions) {}, false},
		{"no key", nil, func(*assertion.MessageOptions) {}, false},
		{"a short key", secret(1)[:31], func(*assertion.MessageOptions) {}, false},
		{"the authority of the signer", secret(1), func(o *assertion.MessageOptions) { o.Authority = "App.test" }, true},
		{"another authority", secret(1), func(o *assertion.MessageOptions) { o.Authority = "evil.test" }, false},
		{"no algorithm", secret(1), func(o *assertion.MessageOptions) { o.Algorithm = "" }, false},
		{"another algorithm", secret(1), func(o *assertion.MessageOptions) { o.Algorithm = assertion.Ed25519 }, false},
		{"a key of another algorithm", ed, func(*assertion.MessageOptions) {}, false},
		{"the last moment", secret(1), func(o *assertion.MessageOptions) { o.Now = time.Unix(now.Unix()+60, 0) }, true},
		{"a moment later", secret(1), func(o *assertion.MessageOptions) { o.Now = time.Unix(now.Unix()+60, 1) }, false},
		{"the last moment with leeway", secret(1), func(o *assertion.MessageOptions) { o.Now, o.Leeway = time.Unix(now.Unix()+65, 0), 5*time.Second }, true},
		{"a moment later with leeway", secret(1), func(o *assertion.MessageOptions) { o.Now, o.Leeway = time.Unix(now.Unix()+65, 1), 5*time.Second }, false},
		{"a moment before it was signed", secret(1), func(o *assertion.MessageOptions) { o.Now = time.Unix(now.Unix(), -1) }, false},
		{"before it was signed, with leeway", secret(1), func(o *assertion.MessageOptions) { o.Now, o.Leeway = time.Unix(now.Unix()-5, 0), 5*time.Second }, true},
		{"no time", secret(1), func(o *assertion.MessageOptions) { o.Now = time.Time{} }, false},
		{"a nonce seen before", secret(1), func(o *assertion.MessageOptions) {
			o.Nonce = func(string, time.Time) error { return errors.New("seen") }
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := expect()
			tt.opts(&opts)
			if err := assertion.VerifyMessage(signedRequest(t), tt.key, opts); tt.ok != (err == nil) {
				t.Errorf("VerifyMessage = %v, want accepted %v", err, tt.ok)
			}
		})
	}
	t.Run("the nonce is of no interest when the signature is bad", func(t *testing.T) {
		opts := expect()
		opts.Nonce = func(string, time.Time) error {
			t.Error("Nonce was called")
			return nil
		}
		if err := assertion.VerifyMessage(signedRequest(t), secret(2), opts); err == nil {
			t.Error("VerifyMessage accepts another key's signature")
		}
	})
	t.Run("over TLS, port 443 is none", func(t *testing.T) {
		req := httptest.NewRequest("GET", "https://app.test/", nil)
		if err := algorithms()[0].signer(t).Sign(req, "app.test:443", nil, now); err != nil {
			t.Fatal(err)
		}
		req.TLS = &tls.ConnectionState{}
		if err := assertion.VerifyMessage(req, secret(1), expect()); err != nil {
			t.Error(err)
		}
		req.TLS, req.Host = nil, "app.test:443"
		if err := assertion.VerifyMessage(req, secret(1), expect()); err == nil {
			t.Error("without TLS, port 443 is taken for none")
		}
	})
}

// Each key verifies the signatures of its own algorithm only, whatever the options say.
// The key set is the one that is published; it names which key is for what.
func TestVerifyMessageFindsItsKeyByItsID(t *testing.T) {
	ec, ed := algorithms()[2].public.(*ecdsa.PublicKey), algorithms()[1].public.(ed25519.PublicKey)
	keys := func(list ...jose.JSONWebKey) *assertion.KeySet {
		body, err := json.Marshal(jose.JSONWebKeySet{Keys: list})
		if err != nil {
			t.Fatal(err)
		}
		set, err := assertion.ParseKeySet(body)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	for _, tt := range []struct {
		name      string
		algorithm algorithm
		keys      *assertion.KeySet
		ok        bool
	}{
		{"Ed25519", algorithms()[1], keys(jose.JSONWebKey{Key: ec, KeyID: "key-2"}, jose.JSONWebKey{Key: ed, KeyID: "key-1", Algorithm: "EdDSA", Use: "sig"}), true},
		{"ECDSA", algorithms()[2], keys(jose.JSONWebKey{Key: ec, KeyID: "key-1", Algorithm: "ES256", Use: "sig"}, jose.JSONWebKey{Key: ed, KeyID: "key-2"}), true},
		{"a key of another kind", algorithms()[2], keys(jose.JSONWebKey{Key: ed, KeyID: "key-1"}), false},
		{"a key for something else", algorithms()[1], keys(jose.JSONWebKey{Key: ed, KeyID: "key-1", Use: "enc"}), false},
		{"a key for another algorithm", algorithms()[1], keys(jose.JSONWebKey{Key: ed, KeyID: "key-1", Algorithm: "ES256"}), false},
		{"two keys of that ID", algorithms()[1], keys(jose.JSONWebKey{Key: ec, KeyID: "key-1"}, jose.JSONWebKey{Key: ed, KeyID: "key-1"}), false},
		{"no key of that ID", algorithms()[1], keys(jose.JSONWebKey{Key: ed, KeyID: "key-2"}), false},
		{"a shared key", algorithms()[0], keys(jose.JSONWebKey{Key: ed, KeyID: "key-1"}), false},
	} {
		req := httptest.NewRequest("GET", "http://app.test/", nil)
		if err := tt.algorithm.signer(t).Sign(req, "app.test", nil, now); err != nil {
			t.Fatal(err)
		}
		err := assertion.VerifyMessage(req, tt.keys.Find, assertion.MessageOptions{Algorithm: tt.algorithm.name, Now: now})
		if tt.ok != (err == nil) {
			t.Errorf("%s: VerifyMessage: %v, want accepted %v", tt.name, err, tt.ok)
		}
	}
}

func TestKeysDoNotServeAnotherAlgorithm(t *testing.T) {
	for _, signed := range algorithms() {
		base := []byte("base")
		sig, err := signed.signer(t).SignBase(base)
		if err != nil {
			t.Fatal(err)
		}
		for _, alg := range algorithms() {
			for _, key := range algorithms() {
				want := alg.name == signed.name && key.name == signed.name
				if err := assertion.VerifySignature(alg.name, key.public, base, sig); want != (err == nil) {
					t.Errorf("a signature of %s, verified as %s with a key of %s: %v", signed.name, alg.name, key.name, err)
				}
			}
		}
	}
}

func TestSignRefuses(t *testing.T) {
	m := algorithms()[0].signer(t)
	good := func() *http.Request {
		r := httptest.NewRequest("GET", "http://app.test/", nil)
		r.Header.Set("Signature", "x=:QQ==:")
		r.Header.Set("Signature-Input", `x=("@method")`)
		return r
	}
	for _, tt := range []struct {
		name      string
		authority string
		headers   []string
		change    func(*http.Request)
	}{
		{"no authority", "", nil, func(*http.Request) {}},
		{"an opaque URL", "app.test", nil, func(r *http.Request) { r.URL = &url.URL{Scheme: "http", Opaque: "//app.test/x"} }},
		{"a line end in the authority", "app.test\nx", nil, func(*http.Request) {}},
		{"a line end in the method", "app.test", nil, func(r *http.Request) { r.Method = "GET\n\"@path\": /" }},
		{"a line end in the query", "app.test", nil, func(r *http.Request) { r.URL.RawQuery = "a\nb" }},
		{"a line end in a header", "app.test", []string{"X-A"}, func(r *http.Request) { r.Header.Set("X-A", "a\r\nb") }},
		{"a NUL in a header", "app.test", []string{"X-A"}, func(r *http.Request) { r.Header.Set("X-A", "a\x00b") }},
		{"a DEL in a header", "app.test", []string{"X-A"}, func(r *http.Request) { r.Header.Set("X-A", "a\x7fb") }},
		{"a name with a quote", "app.test", []string{`X-"A`}, func(*http.Request) {}},
		{"a name with a space", "app.test", []string{"X A"}, func(*http.Request) {}},
		{"a derived component as a header", "app.test", []string{"@status"}, func(*http.Request) {}},
		{"an empty name", "app.test", []string{""}, func(*http.Request) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := good()
			tt.change(req)
			if err := m.Sign(req, tt.authority, tt.headers, now); err == nil {
				t.Errorf("Sign succeeds with Signature-Input %q", req.Header.Get("Signature-Input"))
			}
			if req.Header.Get("Signature") != "" || req.Header.Get("Signature-Input") != "" {
				t.Error("the request keeps a signature")
			}
		})
	}
}

func TestNewMessageSignerRefuses(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec := algorithms()[2]
	for _, tt := range []struct {
		name, algorithm, keyID string
		key                    any
	}{
		{"no algorithm", "", "k", secret(1)},
		{"an unknown algorithm", "rsa-v1_5-sha256", "k", secret(1)},
		{"no key ID", assertion.HMACSHA256, "", secret(1)},
		{"a quote in the key ID", assertion.HMACSHA256, `k"`, secret(1)},
		{"a backslash in the key ID", assertion.HMACSHA256, `k\`, secret(1)},
		{"a line end in the key ID", assertion.HMACSHA256, "k\n", secret(1)},
		{"a key ID outside ASCII", assertion.HMACSHA256, "kä", secret(1)},
		{"a long key ID", assertion.HMACSHA256, strings.Repeat("k", 257), secret(1)},
		{"a short shared key", assertion.HMACSHA256, "k", secret(1)[:31]},
		{"a shared key as text", assertion.HMACSHA256, "k", strings.Repeat("k", 32)},
		{"no key", assertion.HMACSHA256, "k", nil},
		{"Ed25519 by a seed", assertion.Ed25519, "k", secret(1)},
		{"Ed25519 by an empty key", assertion.Ed25519, "k", ed25519.PrivateKey{}},
		{"Ed25519 by another key", assertion.Ed25519, "k", ec.private},
		{"ECDSA by a public key", assertion.ECDSAP256SHA256, "k", ec.public},
		{"ECDSA on another curve", assertion.ECDSAP256SHA256, "k", p384},
		{"ECDSA by a nil key", assertion.ECDSAP256SHA256, "k", (*ecdsa.PrivateKey)(nil)},
	} {
		if m, err := assertion.NewMessageSigner(tt.algorithm, tt.keyID, tt.key); err == nil || m != nil {
			t.Errorf("%s: NewMessageSigner succeeds", tt.name)
		}
	}
}

func TestASharedKeyMayBeWipedAfterwards(t *testing.T) {
	key := secret(1)
	m, err := assertion.NewMessageSigner(assertion.HMACSHA256, "key-1", key)
	if err != nil {
		t.Fatal(err)
	}
	clear(key)
	sig, err := m.SignBase([]byte("base"))
	if err != nil {
		t.Fatal(err)
	}
	if err := assertion.VerifySignature(assertion.HMACSHA256, secret(1), []byte("base"), sig); err != nil {
		t.Error(err)
	}
}

func TestSignatureInputIsReadInOneSpellingOnly(t *testing.T) {
	components := func(n int) string {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf(`"x-%d"`, i)
		}
		return strings.Join(names, " ")
	}
	for _, tt := range []struct {
		field string
		ok    bool
	}{
		{`authproxy=("@method" "x-a");created=1;keyid="k"`, true},
		{`authproxy=("@query-param";name="Pet" "@query-param";name="Cat")`, true},
		{`authproxy=()`, true},
		{`authproxy=(` + components(64) + `)`, true},
		{`authproxy=(` + components(65) + `)`, false},
		{``, false},
		{`authproxy`, false},
		{`authproxy=`, false},
		{`authproxy=1`, false},
		{`authproxy="@method"`, false},
		{`authproxy=(`, false},
		{`authproxy=("@method"`, false},
		{`authproxy=("@method" `, false},
		{`authproxy=("@method)`, false},
		{`authproxy=(@method)`, false},
		{`authproxy=("a""b")`, false},
		{`authproxy=("a"  "b")`, false},
		{`authproxy=( "a")`, false},
		{`authproxy=("a" )`, false},
		{"authproxy=(\"a\"\t\"b\")", false},
		{`authproxy=("a" "a")`, false},
		{`authproxy=("a";sf)`, false},
		{`authproxy=("a\"b")`, false},
		{`authproxy=("a\\b")`, false},
		{`authproxy=("ä")`, false},
		{"authproxy=(\"a\nb\")", false},
		{` authproxy=("a")`, false},
		{`authproxy=("a") `, false},
		{`authproxy =("a")`, false},
		{`Authproxy=("a")`, false},
		{`authproxy2=("a")`, false},
		{`authproxy=("a"), b=("c")`, false},
		{`authproxy=("a");`, false},
		{`authproxy=("a");created`, false},
		{`authproxy=("a");created=`, false},
		{`authproxy=("a");created=0`, false},
		{`authproxy=("a");created=01`, false},
		{`authproxy=("a");created=-1`, false},
		{`authproxy=("a");created=1.5`, false},
		{`authproxy=("a");created=1000000000000000`, false},
		{`authproxy=("a");created="1"`, false},
		{`authproxy=("a");created=?1`, false},
		{`authproxy=("a");created=1;created=1`, false},
		{`authproxy=("a"); created=1`, false},
		{`authproxy=("a");Created=1`, false},
		{`authproxy=("a");unknown=1`, false},
		{`authproxy=("a");keyid=1`, false},
		{`authproxy=("a");keyid=token`, false},
		{`authproxy=("a");keyid="k`, false},
		{`authproxy=("a");keyid=:QQ==:`, false},
	} {
		if _, err := assertion.SerializeInput(tt.field, serialize); tt.ok != (err == nil) {
			t.Errorf("%.80q: %v, want accepted %v", tt.field, err, tt.ok)
		}
	}
}

// serialize writes a Signature-Input field as RFC 9651 §4.1 does, parameters in the order of our own.
func serialize(components []assertion.Component, created, expires int64, nonce, keyID, alg, tag string) string {
	names := make([]string, len(components))
	for i, c := range components {
		names[i] = `"` + c.Name() + `"` + c.Params()
	}
	s := "authproxy=(" + strings.Join(names, " ") + ")"
	for _, p := range []struct {
		name string
		n    int64
	}{{"created", created}, {"expires", expires}} {
		if p.n != 0 {
			s += fmt.Sprintf(";%s=%d", p.name, p.n)
		}
	}
	for _, p := range []struct{ name, s string }{{"nonce", nonce}, {"keyid", keyID}, {"alg", alg}, {"tag", tag}} {
		if p.s != "" {
			s += fmt.Sprintf(`;%s="%s"`, p.name, p.s)
		}
	}
	return s
}

// What is accepted is what it is serialized to: nothing of the text is lost, but for empty strings and the order of parameters.
func FuzzSignatureInput(f *testing.F) {
	f.Add(signedRequest(f).Header.Get("Signature-Input"))
	f.Add(`authproxy=("@query-param";name="Pet" "@method");created=1;keyid="k"`)
	f.Add(`authproxy=()`)
	f.Add(`authproxy=("a"  "b");created=01`)
	f.Add(`authproxy=("a" "b" );created=-1;created=2`)
	f.Add(`authproxy=("a\"b");tag="x`)
	f.Fuzz(func(t *testing.T, field string) {
		again, err := assertion.SerializeInput(field, serialize)
		if err != nil {
			return
		}
		if sorted(field) != sorted(again) {
			t.Errorf("%q is read as %q", field, again)
		}
		if _, err := assertion.SerializeInput(again, serialize); err != nil {
			t.Errorf("%q, written again %q: %v", field, again, err)
		}
	})
}

// sorted is a field with its parameters in order of their bytes, without the empty ones.
func sorted(field string) string {
	parts := strings.Split(field, ";")
	parts = slices.DeleteFunc(parts, func(s string) bool { return strings.HasSuffix(s, `=""`) && !strings.Contains(s, " ") })
	slices.Sort(parts)
	return strings.Join(parts, ";")
}

// A signature base can be read in one way only: whatever the values are, it has a line for each component, and reading the lines
// gives the values back.
func FuzzSignatureBase(f *testing.F) {
	f.Add("GET", "/", "a=b", "value")
	f.Add("GET", "/\n\"@query\": ?", "", "a\r\nb")
	f.Add("", "", "\x00", " \t")
	f.Fuzz(func(t *testing.T, method, path, query, header string) {
		req := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Host: "app.test", Header: http.Header{"X-A": {header, "second"}}}
		names := []string{"@method", "@authority", "@path", "@query", "x-a"}
		field := `authproxy=("` + strings.Join(names, `" "`) + `")`
		value := assertion.RequestComponents(req)
		base, err := assertion.SignatureBaseOf(field, assertion.Label, value)
		if err != nil {
			return
		}
		lines := strings.Split(string(base), "\n")
		if len(lines) != len(names)+1 {
			t.Fatalf("%d lines, want %d:\n%q", len(lines), len(names)+1, base)
		}
		for i, name := range names {
			want, err := value(assertion.NewComponent(name, ""))
			if err != nil {
				t.Fatal(err)
			}
			if lines[i] != `"`+name+`": `+want {
				t.Errorf("line %d is %q, want the value %q of %s", i, lines[i], want, name)
			}
		}
		if want := `"@signature-params": ` + strings.TrimPrefix(field, "authproxy="); lines[len(names)] != want {
			t.Errorf("last line %q, want %q", lines[len(names)], want)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	for _, alg := range algorithms() {
		b.Run(alg.name, func(b *testing.B) {
			m := alg.signer(b)
			req := signedRequest(b)
			req.Header.Set("X-Authproxy-Assertion", goldenToken)
			b.ReportAllocs()
			for b.Loop() {
				if err := m.Sign(req, "app.test", identityHeaders, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerifyMessage(b *testing.B) {
	for _, alg := range algorithms() {
		b.Run(alg.name, func(b *testing.B) {
			req := signedRequest(b)
			req.Header.Set("X-Authproxy-Assertion", goldenToken)
			if err := alg.signer(b).Sign(req, "app.test", identityHeaders, now); err != nil {
				b.Fatal(err)
			}
			opts := expect()
			opts.Algorithm = alg.name
			b.ReportAllocs()
			for b.Loop() {
				if err := assertion.VerifyMessage(req, alg.public, opts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
