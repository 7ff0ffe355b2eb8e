package demoapp_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"authproxy/assertion"
	"authproxy/demoapp"
	"authproxy/identity"
	"authproxy/proxy/pages/pagestest"
)

const (
	issuer   = "https://app.example.com"
	audience = "http://127.0.0.1:9000"
)

var now = time.Date(2026, 11, 23, 21, 47, 0, 0, time.UTC)

func ada() *identity.Identity {
	return &identity.Identity{
		Issuer: "https://acme.eu.auth0.com/", Subject: "auth0|ada", Email: "ada@example.com", EmailVerified: true,
		Name: "Ada Lovelace", Username: "ada", Groups: []string{"admins", "staff"},
	}
}

func newSigner(t testing.TB) *assertion.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := assertion.NewSigner(issuer, 2*time.Minute, []*ecdsa.PrivateKey{key})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mint(t testing.TB, s *assertion.Signer, who *identity.Identity, audience string) string {
	t.Helper()
	token, _, err := s.Mint(who, nil, "sid", audience, now)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// start runs the app with the keys of s.
func start(t testing.TB, s *assertion.Signer, change ...func(*demoapp.Options)) *httptest.Server {
	t.Helper()
	opts := demoapp.Options{
		JWKS:   func(context.Context) ([]byte, error) { body, _ := s.JWKS(); return body, nil },
		Issuer: issuer, Audience: audience, LogoutPath: "/auth/logout", HomePath: "/auth/", LoginPath: "/auth/login",
		Now: func() time.Time { return now },
	}
	for _, f := range change {
		f(&opts)
	}
	srv := httptest.NewServer(demoapp.New(opts))
	t.Cleanup(srv.Close)
	return srv
}

type answer struct {
	*http.Response
	body string
}

// get sends a request with the headers, given as names and values in turn.
func get(t testing.TB, url string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res, string(body)}
}

const assertionHeader = "X-Authproxy-Assertion"

func TestPageBelievesTheVerifiedAssertionAndNothingElse(t *testing.T) {
	s := newSigner(t)
	good := mint(t, s, ada(), audience)
	header, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	mallory := ada()
	mallory.Name = "Mallory"
	_, forged, _ := strings.Cut(mint(t, newSigner(t), mallory, audience), ".")
	forged, _, _ = strings.Cut(forged, ".")

	for _, row := range []struct {
		name    string
		headers []string
		change  func(*demoapp.Options)
		h1      string
		badge   string
		claims  int // status of /api/me
		code    string
	}{
		{name: "a good assertion", headers: []string{assertionHeader, good}, h1: "Hello, Ada Lovelace", badge: "✓ verified", claims: 200},
		{name: "no assertion", h1: "Hello, visitor", badge: "anonymous", claims: 401, code: "login_required"},
		{
			name: "identity headers without an assertion", headers: []string{"X-Forwarded-User", "auth0|ada", "X-Forwarded-Groups", "admins"},
			h1: "Hello, visitor", badge: "anonymous", claims: 401, code: "login_required",
		},
		{
			name: "the claims of another", headers: []string{assertionHeader, header + "." + forged + "." + signature},
			h1: "Somebody unknown", badge: "✗ not verified", claims: 401, code: "invalid_assertion",
		},
		{
			name: "no signature", headers: []string{assertionHeader, header + "." + payload + "."},
			h1: "Somebody unknown", badge: "✗ not verified", claims: 401, code: "invalid_assertion",
		},
		{
			name: "keys of another", headers: []string{assertionHeader, mint(t, newSigner(t), ada(), audience)},
			h1: "Somebody unknown", badge: "✗ not verified", claims: 401, code: "invalid_assertion",
		},
		{
			name: "another audience", headers: []string{assertionHeader, mint(t, s, ada(), "http://127.0.0.1:9001")},
			h1: "Somebody unknown", badge: "✗ not verified", claims: 401, code: "invalid_assertion",
		},
		{
			name: "expired", headers: []string{assertionHeader, good}, change: func(o *demoapp.Options) { o.Now = func() time.Time { return now.Add(time.Hour) } },
			h1: "Somebody unknown", badge: "✗ not verified", claims: 401, code: "invalid_assertion",
		},
		{
			name: "twice", headers: []string{assertionHeader, good, assertionHeader, good},
			h1: "Somebody unknown", badge: "✗ not verified", claims: 401, code: "invalid_assertion",
		},
		{
			name: "empty", headers: []string{assertionHeader, ""},
			h1: "Somebody unknown", badge: "✗ not verified", claims: 401, code: "invalid_assertion",
		},
		{
			name: "the keys cannot be had", headers: []string{assertionHeader, good},
			change: func(o *demoapp.Options) {
				o.JWKS = func(context.Context) ([]byte, error) { return nil, errors.New("connection refused") }
			},
			h1: "Somebody unknown", badge: "✗ not verified", claims: 503, code: "keys_unavailable",
		},
		{
			name: "no keys are configured", headers: []string{assertionHeader, good}, change: func(o *demoapp.Options) { o.JWKS = nil },
			h1: "Somebody unknown", badge: "✗ not verified", claims: 503, code: "keys_unavailable",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			change := row.change
			if change == nil {
				change = func(*demoapp.Options) {}
			}
			srv := start(t, s, change)
			for _, path := range []string{"/", "/public", "/some/page?x=1"} {
				a := get(t, srv.URL+path, row.headers...)
				page := pagestest.Check(t, a.Header, a.body)
				if a.StatusCode != 200 || page.All("h1")[0].Text() != row.h1 {
					t.Errorf("%s: status %d, %q, want 200 and %q", path, a.StatusCode, page.All("h1")[0].Text(), row.h1)
				}
				if got := badges(page); len(got) == 0 || slices.ContainsFunc(got, func(b string) bool { return b != row.badge }) {
					t.Errorf("%s: badges %q, want only %q", path, got, row.badge)
				}
			}
			a := get(t, srv.URL+"/api/me", row.headers...)
			var claims map[string]any
			if err := json.Unmarshal([]byte(a.body), &claims); err != nil {
				t.Fatalf("/api/me: %v: %s", err, a.body)
			}
			sub, _ := claims["sub"].(string)
			code, _ := claims["error"].(string)
			if a.StatusCode != row.claims || (sub != "") != (row.claims == 200) || code != row.code {
				t.Errorf("/api/me: status %d, sub %q, error %q, want %d, error %q", a.StatusCode, sub, code, row.claims, row.code)
			}
			if h := a.Header; h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("/api/me: header %v", h)
			}
		})
	}
}

func badges(page *pagestest.Node) (all []string) {
	page.Each(func(n *pagestest.Node) {
		if strings.HasPrefix(n.Attrs["class"], "badge") {
			all = append(all, n.Text())
		}
	})
	return all
}

func TestAdminsOnlyAsksTheAssertionAgain(t *testing.T) {
	s := newSigner(t)
	staff, spelt, none := ada(), ada(), ada()
	staff.Groups, spelt.Groups, none.Groups = []string{"staff"}, []string{"Admins", "admins ", "admins,staff"}, nil
	for _, row := range []struct {
		name    string
		headers []string
		want    int
	}{
		{"an admin", []string{assertionHeader, mint(t, s, ada(), audience)}, 200},
		{"somebody of another group", []string{assertionHeader, mint(t, s, staff, audience)}, 403},
		{"groups that look like it", []string{assertionHeader, mint(t, s, spelt, audience)}, 403},
		{"nobody's groups", []string{assertionHeader, mint(t, s, none, audience)}, 403},
		{"the header of the groups alone", []string{"X-Forwarded-Groups", "admins"}, 403},
		{"an assertion of somebody else", []string{assertionHeader, mint(t, newSigner(t), ada(), audience)}, 403},
		{"anonymous", nil, 403},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := get(t, start(t, s).URL+"/admin", row.headers...)
			pagestest.Check(t, a.Header, a.body)
			if a.StatusCode != row.want {
				t.Errorf("status %d, want %d", a.StatusCode, row.want)
			}
		})
	}
}

func TestPageShowsTheRequestAndHidesCredentials(t *testing.T) {
	s := newSigner(t)
	token := mint(t, s, ada(), audience)
	a := get(t, start(t, s).URL+"/some/page?x=1&y=2",
		assertionHeader, token, "X-Forwarded-Email", "ada@example.com", "X-Custom", "first", "X-Custom", "second",
		"Cookie", "theme=canary-cookie; other=canary-other", "Authorization", "Bearer canary-token", "Proxy-Authorization", "canary-raw")
	page := pagestest.Check(t, a.Header, a.body)
	text := page.Text()
	for _, want := range []string{"GET /some/page?x=1&y=2", "X-Custom first", "X-Custom second", "theme=…; other=…", "Bearer …", token, `"sub": "auth0|ada"`, `"alg": "ES256"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(a.body, "canary") {
		t.Errorf("the page shows a credential: %s", text)
	}
	var marked []string
	for _, tr := range page.All("tr") {
		if tr.Attrs["class"] == "marked" {
			marked = append(marked, tr.All("th")[0].Text())
			if len(tr.All("p")) != 1 {
				t.Errorf("%s is not explained", marked[len(marked)-1])
			}
		}
	}
	if want := []string{assertionHeader, "X-Forwarded-Email"}; !slices.Equal(marked, want) {
		t.Errorf("highlighted headers %v, want %v", marked, want)
	}
}

func TestPageLeadsToTheProxy(t *testing.T) {
	s := newSigner(t)
	targets := func(a answer) (links, forms []string) {
		page := pagestest.Check(t, a.Header, a.body)
		for _, n := range page.All("a") {
			links = append(links, n.Attrs["href"])
		}
		for _, n := range page.All("form") {
			forms = append(forms, n.Attrs["action"])
		}
		return links, forms
	}
	links, forms := targets(get(t, start(t, s).URL, assertionHeader, mint(t, s, ada(), audience)))
	if want := []string{"/", "/public", "/admin", "/api/me", "/auth/"}; !slices.Equal(links, want) || !slices.Equal(forms, []string{"/auth/logout"}) {
		t.Errorf("signed in: links %v, forms %v, want %v and the sign-out", links, forms, want)
	}
	links, forms = targets(get(t, start(t, s).URL+"/public"))
	if want := []string{"/", "/public", "/admin", "/api/me", "/auth/", "/auth/login?return_to=%2fpublic"}; !slices.Equal(links, want) || len(forms) != 0 {
		t.Errorf("signed out: links %v, forms %v, want %v and none", links, forms, want)
	}
}

func TestNothingOfTheRequestBecomesMarkup(t *testing.T) {
	s := newSigner(t)
	srv := start(t, s)
	page := func(text string) *pagestest.Node {
		who := ada()
		who.Name, who.Groups = text, []string{text}
		a := get(t, srv.URL+"/public?q="+strings.ReplaceAll(text, " ", "+"), assertionHeader, mint(t, s, who, audience), "X-Custom", text, "Cookie", text, "Authorization", text)
		return pagestest.Check(t, a.Header, a.body)
	}
	want := page("harmless").Skeleton()
	for _, text := range []string{
		`<script>alert(1)</script>`, `"'><img src=x onerror=alert(1)>`, `</pre><script>`, `javascript:alert(1)`, `{{7*7}}`, `{{.}}`,
		`" onmouseover="alert(1)`, `%s%n`, "\xc0\xbcscript\xc0\xbe", "<!--", "]]>",
	} {
		if got := page(text); got.Skeleton() != want {
			t.Errorf("%q changed the elements of the page", text)
		}
	}
}

func TestAnyMethodGetsThePage(t *testing.T) {
	srv := start(t, newSigner(t))
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		req, err := http.NewRequest(method, srv.URL+"/form", strings.NewReader("a=b"))
		if err != nil {
			t.Fatal(err)
		}
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || !strings.Contains(string(body), method+" /form") {
			t.Errorf("%s: status %d without %q", method, res.StatusCode, method+" /form")
		}
	}
}
