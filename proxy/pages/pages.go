// Package pages is the HTML that people see of the proxy: its home, the sign-in page, the question before a sign-out, and
// errors.
//
// Every page is complete in one answer: no script, no font, no image and no style sheet is loaded from anywhere, and the
// Content-Security-Policy allows nothing but the one style element, and on two pages one script, by their hashes. A script is
// the same for everybody: what it works with stands in attributes. Whatever comes from a provider or a user is
// escaped for where it stands, cut to a length that cannot fill the screen, and cleaned of characters that reorder text.
// URLs are the caller's: pass only those that the proxy made or checked. As a last line a URL with another scheme than
// http, https or mailto is not linked.
//
//	pages.Write(w, r, http.StatusOK, pages.Home{Host: host, LoginURL: "/auth/login"})
//	e := pages.Denied(description, "/auth/login?prompt=login", "/auth/")
//	e.Host, e.RequestID = host, id
//	pages.Write(w, r, e.Status, e)
//
// Pages say Referrer-Policy: no-referrer, so a browser sends "Origin: null" with their forms, to our own origin too. Whoever
// receives them tells them from those of another site by Sec-Fetch-Site.
package pages

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A Page is one of the structs of this package.
type Page interface {
	frame() frame
}

// frame is what surrounds the content of a page.
type frame struct {
	Title  string // of the tab, without the host
	Host   string // "" shows none
	Layout string // class of the body: narrow, medium or wide
	Go     string // path to go to at once; "" stays
	Script string // file of the page's script; "" is none

	// content is the template of what stands in main, executed with data.
	content *template.Template
	data    any
}

// Home is the page at the top of the proxy's own endpoints. URLs that are "" are left out.
type Home struct {
	Host        string // the app's, e.g. app.example.com
	LoginURL    string
	SignupURL   string
	LogoutURL   string // gets a POST
	AppURL      string
	SessionsURL string       // the page of the user's sessions
	Connections []Connection // signed out: one button each
	User        *User        // nil: signed out
	Notice      string       // e.g. "You are signed out."
}

// A Connection is a way to sign in that the provider offers.
type Connection struct {
	Name string // as configured, e.g. google-oauth2
	URL  string
}

// A User is what the signed-in home page tells users about themselves. Empty fields and zero times are left out.
type User struct {
	DisplayName   string
	Email         string
	EmailVerified bool
	Username      string
	Subject       string
	Issuer        string
	Groups        []string
	Claims        []Field
	SignedInAt    time.Time
	ExpiresAt     time.Time
}

// A Field is a claim as text.
type Field struct{ Name, Value string }

// SignIn is the page that stands before the provider when the configuration asks for it. URLs that are "" are left out.
type SignIn struct {
	Host        string
	LoginURL    string
	SignupURL   string
	Connections []Connection
}

// ConfirmLogout asks before a sign-out that another site may have started.
type ConfirmLogout struct {
	Host      string
	Action    string // gets a POST
	ReturnTo  string // becomes the field return_to; "" for none
	CancelURL string
}

// Sessions lists the sessions of one user. Its buttons post to Action: id=ID ends one that is not the current one, others=true
// ends all but the current one.
type Sessions struct {
	Host     string
	Action   string
	HomeURL  string
	Sessions []Session
	Notice   string
}

// A Session is a line of [Sessions]. Zero times are left out.
type Session struct {
	ID         string // handed back by the form; never the cookie's value
	Current    bool   // the one this browser is in
	Device     string // what it was begun with; "" is left out
	Address    string // where it was begun; "" is left out
	SignedInAt time.Time
	UsedAt     time.Time
	ExpiresAt  time.Time
}

// Bounce is a page that goes on to a path of this site by itself. A browser that came from another site then asks from ours,
// and sends cookies that are SameSite=Strict.
type Bounce struct {
	Host string
	URL  string // a path; anything else is only linked
}

// Handoff puts a token for the app's own pages into the browser's localStorage, as authproxy_token, and goes on.
type Handoff struct {
	Host  string
	Token string
	URL   string // where to go on
}

// Forget removes that token from the browser's localStorage, and nothing else, and goes on.
type Forget struct {
	Host string
	URL  string // where to go on
}

// An Error is a page about something that did not work. The functions that return one have the wording; callers add Host
// and RequestID.
type Error struct {
	Status    int
	Title     string
	Message   string // what happened
	Advice    string // what the user can do
	Quote     string // words of the provider, shown as a quotation
	Actions   []Action
	Host      string // the app's; "" shows none
	RequestID string // "" shows none
}

// An Action is a link or, with Post, a button that posts.
type Action struct {
	Label   string
	URL     string
	Primary bool
	Post    bool
}

// Content is a page of another package in the look of ours.
type Content struct {
	Title, Host string
	Template    *template.Template // fills the main element
	Data        any
}

func (p Home) frame() frame {
	f := frame{Title: "Sign in", Host: p.Host, Layout: "narrow", content: content("home.html"), data: p}
	if p.User != nil {
		f.Title, f.Layout = "Your account", "medium"
	}
	return f
}

func (p SignIn) frame() frame {
	return frame{Title: "Sign in", Host: p.Host, Layout: "narrow", content: content("signin.html"), data: p}
}

func (p ConfirmLogout) frame() frame {
	return frame{Title: "Sign out?", Host: p.Host, Layout: "narrow", content: content("logout.html"), data: p}
}

func (p Sessions) frame() frame {
	return frame{Title: "Your sessions", Host: p.Host, Layout: "medium", content: content("sessions.html"), data: p}
}

func (p Bounce) frame() frame {
	f := frame{Title: "One moment", Host: p.Host, Layout: "narrow", content: content("bounce.html"), data: p}
	if isPath(p.URL) {
		f.Go = p.URL
	}
	return f
}

func (p Handoff) frame() frame {
	return frame{Title: "One moment", Host: p.Host, Layout: "narrow", Script: "handoff.js", content: content("handoff.html"), data: p}
}

func (p Forget) frame() frame {
	return frame{Title: "One moment", Host: p.Host, Layout: "narrow", Script: "forget.js", content: content("forget.html"), data: p}
}

// isPath says whether browsers can only take s for a path of this site. They drop tabs and line ends anywhere in a URL, and
// take \ for /.
func isPath(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '\\' {
			return false
		}
	}
	return strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "//")
}

func (p Error) frame() frame {
	return frame{Title: p.Title, Host: p.Host, Layout: "narrow", content: content("error.html"), data: p}
}

func (p Content) frame() frame {
	return frame{Title: p.Title, Host: p.Host, Layout: "wide", content: p.Template, data: p.Data}
}

// Others says whether there is a session to end beside the current one.
func (p Sessions) Others() bool {
	for _, s := range p.Sessions {
		if !s.Current {
			return true
		}
	}
	return false
}

//go:embed html
var files embed.FS

var (
	style     = mustRead("html/style.css")
	templates = template.Must(template.New("").Funcs(template.FuncMap{
		"text":   func(s string) string { return Text(s, maxText) },
		"long":   func(s string) string { return Text(s, maxLongText) },
		"label":  label,
		"first":  func(all []string) []string { return all[:min(len(all), maxGroups)] },
		"rest":   func(all []string) []string { return all[min(len(all), maxGroups):] },
		"date":   func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") },
		"stamp":  func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"style":  func() template.CSS { return template.CSS(style) },
		"script": func(name string) template.JS { return template.JS(scripts[name]) },
	}).ParseFS(files, "html/*.html"))

	scripts  = map[string]string{"handoff.js": mustRead("html/handoff.js"), "forget.js": mustRead("html/forget.js")}
	policies = contentSecurityPolicies()
)

func content(name string) *template.Template { return templates.Lookup(name) }

func mustRead(name string) string {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err) // embedded: the program was built without it
	}
	return string(b)
}

// contentSecurityPolicies are those of pages by their script. They allow that, our style element and the icon in the page,
// nothing else. There is no form-action, because browsers apply it to redirects too, and signing out is redirected to the
// provider.
func contentSecurityPolicies() map[string]string {
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	rest := "style-src " + hash(style) + "; img-src data:; base-uri 'none'; frame-ancestors 'none'"
	all := map[string]string{"": "default-src 'none'; " + rest}
	for name, text := range scripts {
		all[name] = "default-src 'none'; script-src " + hash(text) + "; " + rest
	}
	return all
}

// Write answers with page. It sets every header that a page needs, and a Content-Length; to HEAD it sends no body. The
// page is made before anything is sent: if that fails the answer is a bare 500, never half a page.
func Write(w http.ResponseWriter, r *http.Request, status int, page Page) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", policies[page.frame().Script])
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	body, err := render(page)
	if err != nil {
		http.Error(w, "This page could not be shown.", http.StatusInternalServerError)
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(body) // an error means that the browser has left
	}
}

func render(page Page) ([]byte, error) {
	f := page.frame()
	var main, whole bytes.Buffer
	if err := f.content.Execute(&main, f.data); err != nil {
		return nil, err
	}
	err := templates.ExecuteTemplate(&whole, "layout.html", struct {
		frame
		Main template.HTML // made by html/template just above
	}{f, template.HTML(main.String())})
	return whole.Bytes(), err
}

const (
	maxGroups   = 20   // shown at once; the others are folded
	maxText     = 200  // characters of others' text on a line
	maxLongText = 1000 // and in a paragraph
)

// Text is s as a page may show it on a line: in valid UTF-8, without control characters and those that change the
// direction of the text around them, white space made single blanks, and cut with an ellipsis after limit characters. It
// does not escape; templates do.
func Text(s string, limit int) string {
	var b strings.Builder
	n, blank := 0, false
	for _, c := range s { // an invalid byte comes as U+FFFD
		if unicode.IsSpace(c) {
			blank = n > 0
			continue
		}
		if unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) {
			continue
		}
		if blank {
			b.WriteByte(' ')
			n++
		}
		if n >= limit {
			return strings.TrimRight(b.String(), " ") + "…"
		}
		b.WriteRune(c)
		n, blank = n+1, false
	}
	return b.String()
}

// labels are the buttons of the connections that Auth0 names; see label for others.
var labels = map[string]string{
	"Username-Password-Authentication": "Continue with a password",
	"email":                            "Continue with an e-mail code",
	"sms":                              "Continue with a text message",
	"amazon":                           "Continue with Amazon",
	"apple":                            "Continue with Apple",
	"bitbucket":                        "Continue with Bitbucket",
	"dropbox":                          "Continue with Dropbox",
	"facebook":                         "Continue with Facebook",
	"github":                           "Continue with GitHub",
	"google-apps":                      "Continue with Google Workspace",
	"google-oauth2":                    "Continue with Google",
	"linkedin":                         "Continue with LinkedIn",
	"paypal":                           "Continue with PayPal",
	"salesforce":                       "Continue with Salesforce",
	"twitter":                          "Continue with X",
	"waad":                             "Continue with Microsoft Entra ID",
	"windowslive":                      "Continue with Microsoft",
	"yahoo":                            "Continue with Yahoo",
}

// label is what the button of a connection says: for acme-employees "Continue with Acme Employees".
func label(name string) string {
	if l, ok := labels[name]; ok {
		return l
	}
	words := strings.FieldsFunc(name, func(c rune) bool { return c == '-' || c == '_' || unicode.IsSpace(c) })
	for i, w := range words {
		first := []rune(w)
		first[0] = unicode.ToUpper(first[0])
		words[i] = string(first)
	}
	return Text("Continue with "+strings.Join(words, " "), maxText)
}
