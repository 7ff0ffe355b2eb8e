// Package demoapp is the sample upstream of the demo: it shows what an app behind the proxy receives, and what such an app
// should do with it.
//
// What it believes about a user comes from the verified assertion alone. The identity headers are displayed, not
// believed: whoever reaches an app around the proxy can send any header. It is for trying things out; it shows a visitor
// everything that came with the request except cookies and credentials.
package demoapp

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"authproxy/assertion"
	"authproxy/proxy/pages"
)

// Options say what the app may rely on. They are not changed after [New].
type Options struct {
	// JWKS returns the proxy's public keys, from a place that the app trusts. It is called for each request with an
	// assertion and should remember its answer. With nil no assertion can be verified.
	JWKS func(ctx context.Context) ([]byte, error)

	Issuer   string // iss of assertions: the origin of the proxy's public URL
	Audience string // aud of assertions for this app

	LogoutPath string           // the proxy's; it gets a POST; "" means no button
	HomePath   string           // the proxy's home page; "" means no link
	LoginPath  string           // the proxy's, which takes return_to; "" means no link
	Now        func() time.Time // nil means time.Now
}

// The header that carries the assertion, and the group that the page for administrators asks for.
const (
	assertionHeader = "X-Authproxy-Assertion"
	adminGroup      = "admins"
)

const maxValue = 4000 // characters of a header that are shown

//go:embed page.html
var files embed.FS

var page = template.Must(template.ParseFS(files, "page.html"))

// New returns the app. It answers
//
//   - /admin with 403 unless the assertion says that the user is in the group admins,
//   - /api/me with the verified claims as JSON, or 401, or 503 while the keys cannot be had,
//   - any other path, whatever the method, with a page about the visitor and the request.
func New(opts Options) http.Handler {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	a := &app{opts}
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", a.show("Sample app", "This is an app behind the proxy. It shows what it knows about you, and what came with your request."))
	mux.HandleFunc("/public", a.show("Public page", "The policy lets anyone in here, signed in or not."))
	mux.HandleFunc("/admin", a.admin)
	mux.HandleFunc("/api/me", a.me)
	mux.HandleFunc("/", a.show("Sample app", "This app has no page of that name, but the proxy let the request through."))
	return mux
}

type app struct{ Options }

// A visitor is who sent a request, as far as the app can tell.
type visitor struct {
	Claims  map[string]any // of a verified assertion, else nil
	Problem error          // why there are no claims although an assertion came

	Header, Payload string // what the assertion says, verified or not, as indented JSON
}

// errKeys says that an assertion could not be judged, as opposed to judged wrong.
var errKeys = errors.New("the keys of the proxy cannot be had")

// visitor verifies the assertion of a request. Without one the visitor is anonymous: neither Claims nor Problem.
func (a *app) visitor(r *http.Request) (v visitor) {
	values := r.Header.Values(assertionHeader)
	switch {
	case len(values) == 0:
		return v
	case len(values) > 1:
		v.Problem = fmt.Errorf("%d assertions came, want one", len(values))
		return v
	}
	header, rest, _ := strings.Cut(values[0], ".")
	payload, _, _ := strings.Cut(rest, ".")
	v.Header, v.Payload = indented(header), indented(payload)

	jwks, err := a.keys(r.Context())
	if err != nil {
		v.Problem = fmt.Errorf("%w: %w", errKeys, err)
		return v
	}
	v.Claims, v.Problem = assertion.Verify(values[0], jwks, a.Issuer, a.Audience, a.Now())
	if v.Problem != nil {
		v.Claims = nil
	}
	return v
}

func (a *app) keys(ctx context.Context) ([]byte, error) {
	if a.JWKS == nil {
		return nil, errors.New("no key set is configured")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return a.JWKS(ctx)
}

// indented is a part of a JWT as people read it, or "" when it is no JSON.
func indented(part string) string {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return ""
	}
	var b bytes.Buffer
	if json.Indent(&b, text, "", "  ") != nil {
		return ""
	}
	return strings.Map(func(c rune) rune {
		if unicode.Is(unicode.Bidi_Control, c) { // would show the text in another order than it has
			return -1
		}
		return c
	}, b.String())
}

// Name is how to call a verified visitor, and "" otherwise.
func (v visitor) Name() string {
	for _, claim := range []string{"name", "username", "email", "sub"} {
		if s, _ := v.Claims[claim].(string); s != "" {
			return pages.Text(s, 200)
		}
	}
	return ""
}

// Reason says why an assertion that came is not believed.
func (v visitor) Reason() string {
	return pages.Text(strings.TrimPrefix(v.Problem.Error(), "assertion: "), 300)
}

// isAdmin reports whether a verified assertion names the group of administrators.
func (v visitor) isAdmin() bool {
	groups, _ := v.Claims["groups"].([]any)
	return slices.Contains(groups, any(adminGroup))
}

func (a *app) show(title, intro string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a.write(w, r, http.StatusOK, title, intro, a.visitor(r))
	}
}

// admin asks the assertion once more, although the proxy's policy has let the request through: an app that does so stays
// closed when a route is missing there.
func (a *app) admin(w http.ResponseWriter, r *http.Request) {
	v := a.visitor(r)
	if !v.isAdmin() {
		a.write(w, r, http.StatusForbidden, "Admins only", "The assertion does not say that you are in the group "+adminGroup+", so this app shows you nothing secret.", v)
		return
	}
	a.write(w, r, http.StatusOK, "Admins only", "The policy lets the group "+adminGroup+" in here, and the assertion says that you are in it.", v)
}

func (a *app) me(w http.ResponseWriter, r *http.Request) {
	v := a.visitor(r)
	switch {
	case v.Claims != nil:
		writeJSON(w, http.StatusOK, v.Claims)
	case errors.Is(v.Problem, errKeys):
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"error": "keys_unavailable", "message": "The assertion could not be verified."})
	case v.Problem != nil:
		writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "invalid_assertion", "message": "The assertion is not valid."})
	default:
		writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "login_required", "message": "No assertion came with the request."})
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // maps of what encoding/json decoded: only writing can fail
}

func (a *app) write(w http.ResponseWriter, r *http.Request, status int, title, intro string, v visitor) {
	pages.Write(w, r, status, pages.Content{
		Title:    title,
		Host:     r.Host,
		Template: page,
		Data: struct {
			Options
			Title, Intro string
			Visitor      visitor
			Method, Path string
			HostHeader   string
			Here         string
			Headers      []header
		}{a.Options, title, intro, v, pages.Text(r.Method, 200), pages.Text(r.URL.RequestURI(), maxValue), pages.Text(r.Host, 300), r.URL.Path, headers(r)},
	})
}

// A header is a line of the table.
type header struct {
	Name, Value string
	Meaning     string // "" for headers that have nothing to do with the proxy
	Marked      bool   // says who the user is
	Long        bool   // folded
}

// meanings explains the headers that the proxy sets by default.
var meanings = map[string]string{
	"X-Forwarded-User":               "The subject: names the user for good, together with the provider.",
	"X-Forwarded-Email":              "The e-mail address, verified or not; the assertion says which.",
	"X-Forwarded-Preferred-Username": "What the user likes to be called; it can change.",
	"X-Forwarded-Groups":             "The groups, joined by commas; a comma inside a name is written %2C.",
	assertionHeader:                  "The same and more in a signed statement. This is what an app should believe.",
	"Authorization":                  "Credentials for this app, such as the access token of the user.",
	"Signature":                      "The proxy's signature over this request (RFC 9421).",
	"Signature-Input":                "What that signature covers.",
	"X-Forwarded-For":                "The address of the browser, as the proxy saw it.",
	"X-Forwarded-Host":               "The host that the browser asked for.",
	"X-Forwarded-Proto":              "How the browser reached the proxy.",
	"X-Request-Id":                   "Finds this request in the log of the proxy.",
}

// identityHeaders are those by which the proxy says who the user is.
var identityHeaders = []string{assertionHeader, "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups"}

// headers lists what came with the request: who the user is first, then what else the proxy says, then the others.
func headers(r *http.Request) []header {
	var list []header
	for name, values := range r.Header {
		for _, v := range values {
			h := header{Name: pages.Text(name, 200), Value: displayed(name, v), Meaning: meanings[name], Marked: slices.Contains(identityHeaders, name)}
			h.Long = len(h.Value) > 200
			list = append(list, h)
		}
	}
	rank := func(h header) int {
		switch {
		case h.Marked:
			return 0
		case h.Meaning != "":
			return 1
		}
		return 2
	}
	slices.SortStableFunc(list, func(a, b header) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// displayed is the value of a header as the page may show it: of cookies only the names and of credentials only the kind,
// so that the page gives away nothing that signs somebody in.
func displayed(name, value string) string {
	switch name {
	case "Cookie":
		var names []string
		for c := range strings.SplitSeq(value, ";") {
			n, _, _ := strings.Cut(strings.TrimSpace(c), "=")
			names = append(names, n+"=…")
		}
		return pages.Text(strings.Join(names, "; "), maxValue)
	case "Authorization", "Proxy-Authorization":
		kind, rest, _ := strings.Cut(value, " ")
		if rest == "" { // credentials without a scheme
			return "…"
		}
		return pages.Text(kind, 20) + " …"
	}
	return pages.Text(value, maxValue)
}
