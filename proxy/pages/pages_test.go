package pages_test

import (
	"errors"
	"flag"
	"fmt"
	"html/template"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"authproxy/proxy/pages"
	"authproxy/proxy/pages/pagestest"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

var now = time.Date(2026, 11, 23, 21, 47, 0, 0, time.UTC)

func write(method string, status int, page pages.Page) *http.Response {
	w := httptest.NewRecorder()
	pages.Write(w, httptest.NewRequest(method, "/auth/", nil), status, page)
	return w.Result()
}

func body(t testing.TB, page pages.Page) string {
	t.Helper()
	w := httptest.NewRecorder()
	pages.Write(w, httptest.NewRequest("GET", "/auth/", nil), http.StatusOK, page)
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func names(prefix string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("%s-%03d", prefix, i))
	}
	return all
}

// situations are the errors that have words of their own.
func situations() map[string]pages.Error {
	const again, home, other = "/auth/login?return_to=%2Fx", "/auth/", "/auth/login?prompt=login"
	return map[string]pages.Error{
		"link expired":       pages.LinkExpired(again),
		"denied":             pages.Denied("Please verify your email before logging in.", other, home),
		"cookies blocked":    pages.CookiesBlocked("app.example.com", again),
		"unavailable":        pages.Unavailable(again),
		"misconfigured":      pages.Misconfigured(home),
		"forbidden":          pages.Forbidden("Bob Kahn", "bob@example.com", other, home),
		"login needed":       pages.LoginNeeded(again),
		"step-up failed":     pages.StepUpFailed(again, home),
		"session too large":  pages.SessionTooLarge(home),
		"store unavailable":  pages.StoreUnavailable("/x"),
		"too many logins":    pages.TooManyLogins(again),
		"login failed":       pages.LoginFailed(again, home),
		"cookie twice":       pages.CookieTwice("/x"),
		"signed out locally": pages.SignedOutLocally(again, home),
		"not found":          pages.NotFound(home),
		"bad request":        pages.BadRequest(home),
		"method not allowed": pages.MethodNotAllowed(home),
		"cross-site":         pages.CrossSite(home),
		"wrong host":         pages.WrongHost("https://app.example.com/"),
		"bad gateway":        pages.BadGateway("/x"),
		"gateway timeout":    pages.GatewayTimeout("/x"),
		"internal":           pages.Internal("/x", home),
	}
}

// samples are pages as people see them, one for each golden file.
func samples() map[string]pages.Page {
	connections := []pages.Connection{
		{Name: "google-oauth2", URL: "/auth/login?connection=google-oauth2"},
		{Name: "acme-employees", URL: "/auth/login?connection=acme-employees&return_to=%2Fx"},
	}
	all := map[string]pages.Page{
		"home signed out": pages.Home{
			Host: "app.example.com", LoginURL: "/auth/login", SignupURL: "/auth/signup", Connections: connections, Notice: "You are signed out.",
		},
		"home signed in": pages.Home{
			Host: "app.example.com", LogoutURL: "/auth/logout", AppURL: "/", SessionsURL: "/auth/sessions",
			User: &pages.User{
				DisplayName: "Ada Lovelace", Email: "ada@example.com", EmailVerified: true, Username: "ada", Subject: "auth0|ada",
				Issuer: "https://acme.eu.auth0.com/", Groups: names("team", 22), Claims: []pages.Field{{Name: "department", Value: "finance"}},
				SignedInAt: now, ExpiresAt: now.Add(7 * 24 * time.Hour),
			},
		},
		"home of somebody unknown": pages.Home{LogoutURL: "/auth/logout", User: &pages.User{Subject: "sms|eve 1"}},
		"sign in":                  pages.SignIn{Host: "app.example.com", LoginURL: "/auth/login?return_to=%2Fx%3Fy%3D1", SignupURL: "/auth/signup", Connections: connections},
		"sign in by one way":       pages.SignIn{LoginURL: "/auth/login"},
		"confirm logout":           pages.ConfirmLogout{Host: "app.example.com", Action: "/auth/logout", ReturnTo: "/bye?x=1&y=2", CancelURL: "/"},
		"sessions": pages.Sessions{
			Host: "app.example.com", Action: "/auth/sessions", HomeURL: "/auth/", Notice: "One session has ended.",
			Sessions: []pages.Session{{ID: "one", Current: true, SignedInAt: now, UsedAt: now, ExpiresAt: now}, {ID: "two", Device: "Firefox on Linux", Address: "192.0.2.7", SignedInAt: now}},
		},
		"bounce":  pages.Bounce{Host: "app.example.com", URL: "/reports?from=2026-01-01&to=%C3%A4%20;'x'"},
		"handoff": pages.Handoff{Host: "app.example.com", Token: "eyJhbGciOiJFUzI1NiJ9.e30.AA", URL: "/app?x=1&y=2"},
		"forget":  pages.Forget{Host: "app.example.com", URL: "https://acme.eu.auth0.com/v2/logout?client_id=x&returnTo=https%3A%2F%2Fapp.example.com%2F"},
		"error with a button that posts": pages.Error{
			Status: 403, Title: "Access denied", Message: "No.", RequestID: "01JD7Z4Q9KX2N8", Host: "app.example.com",
			Actions: []pages.Action{{Label: "Sign out", URL: "/auth/logout?return_to=%2F", Primary: true, Post: true}, {Label: "Home", URL: "/auth/"}},
		},
		"content of another package": pages.Content{
			Title: "Sample", Host: "app.example.com", Template: template.Must(template.New("").Parse(`<h1>{{.}}</h1>`)), Data: "<Sample>",
		},
	}
	for name, e := range situations() {
		e.RequestID = "01JD7Z4Q9KX2N8"
		all["error "+name] = e
	}
	return all
}

var styleRE = regexp.MustCompile(`(?s)<style>.*</style>`)

func TestPagesAreTheGoldenFiles(t *testing.T) {
	for name, page := range samples() {
		t.Run(name, func(t *testing.T) {
			file := "testdata/" + strings.ReplaceAll(name, " ", "-") + ".html"
			got := styleRE.ReplaceAllString(body(t, page), "<style></style>") // it has a file of its own
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("differs from %s (-want +got), write it with -update:\n%s", file, diff)
			}
		})
	}
}

func TestEveryPageIsSafeAndReadable(t *testing.T) {
	for name, page := range samples() {
		t.Run(name, func(t *testing.T) {
			res := write("GET", 418, page)
			text := body(t, page)
			pagestest.Check(t, res.Header, text)
			if res.StatusCode != 418 {
				t.Errorf("status %d, want the one asked for, 418", res.StatusCode)
			}
			if got := res.Header.Get("Content-Length"); got != strconv.Itoa(len(text)) {
				t.Errorf("Content-Length = %s, want %d", got, len(text))
			}
		})
	}
}

func TestHeadGetsTheHeadersOfGetAndNoBody(t *testing.T) {
	w := httptest.NewRecorder()
	pages.Write(w, httptest.NewRequest("HEAD", "/auth/", nil), 404, pages.NotFound("/auth/"))
	if w.Body.Len() != 0 {
		t.Errorf("a body of %d bytes", w.Body.Len())
	}
	if diff := cmp.Diff(write("GET", 404, pages.NotFound("/auth/")).Header, w.Result().Header); diff != "" || w.Code != 404 {
		t.Errorf("status %d, want 404; header (-GET +HEAD):\n%s", w.Code, diff)
	}
}

func TestAPageThatCannotBeMadeIsA500AndNotHalfAPage(t *testing.T) {
	broken := template.Must(template.New("").Funcs(template.FuncMap{
		"fail": func() (string, error) { return "", errors.New("a cause that is nobody's business") },
	}).Parse(`<h1>First half</h1>{{fail}}`))
	w := httptest.NewRecorder()
	pages.Write(w, httptest.NewRequest("GET", "/", nil), 200, pages.Content{Title: "Broken", Template: broken})
	if w.Code != 500 || strings.Contains(w.Body.String(), "First half") || strings.Contains(w.Body.String(), "cause") {
		t.Errorf("status %d, body %q, want a bare 500", w.Code, w.Body)
	}
	for name, want := range map[string]string{"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Length": ""} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

// payloads try to become markup, a script, or a template.
var payloads = []string{
	`<script>alert(1)</script>`,
	`"'><img src=x onerror=alert(1)>`,
	`" onmouseover="alert(1)" x="`,
	`' onmouseover='alert(1)' x='`,
	"` onmouseover=`alert(1)`",
	`</pre><script>`,
	`</script><script>`,
	`</title></style></textarea><script>alert(1)</script>`,
	`<!--`, `-->`, `]]>`, `<![CDATA[`, `<?php`,
	`javascript:alert(1)`,
	"java\tscript:alert(1)",
	` javascript:alert(1)`,
	`data:text/html,<script>alert(1)</script>`,
	`vbscript:x`,
	`{{7*7}}`, `{{.}}`, `{{template "layout.html"}}`,
	`%s%n%!x`, `${7*7}`,
	"a\u2028b\u2029c",
	`+ADw-script+AD4-alert(1)+ADw-/script+AD4-`,
	"\xc0\xbcscript\xc0\xbealert(1)",
	"&lt;script&gt;", "&#60;script&#62;",
	strings.Repeat("<b>", 5000),
	strings.Repeat("a", 100_000),
}

// filled is a page of the same type in which every text is s and every list has n elements.
func filled(page pages.Page, s string, n int, flags bool) pages.Page {
	v := reflect.New(reflect.TypeOf(page)).Elem()
	fill(v, s, n, flags)
	return v.Interface().(pages.Page)
}

func fill(v reflect.Value, s string, n int, flags bool) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(now))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		v.SetBool(flags)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), s, n, flags)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(v.Index(i), s, n, flags)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), s, n, flags)
		}
	}
}

// kinds are the pages whose text comes from elsewhere.
var kinds = map[string]pages.Page{
	"home": pages.Home{}, "sign in": pages.SignIn{}, "confirm logout": pages.ConfirmLogout{}, "sessions": pages.Sessions{}, "bounce": pages.Bounce{}, "error": pages.Error{},
	"handoff": pages.Handoff{}, "forget": pages.Forget{},
}

// quiet are those that show none of it: it stands in URLs and attributes.
var quiet = []string{"confirm logout", "bounce", "handoff", "forget"}

func TestNothingFromOutsideBecomesMarkup(t *testing.T) {
	for name, kind := range kinds {
		for _, flags := range []bool{false, true} {
			want, err := pagestest.Parse(body(t, filled(kind, "harmless", 22, flags)))
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range payloads {
				t.Run(fmt.Sprintf("%s/%v/%.30q", name, flags, p), func(t *testing.T) {
					page := filled(kind, p, 22, flags)
					text := body(t, page)
					got := pagestest.Check(t, write("GET", 200, page).Header, text)
					if got.Skeleton() != want.Skeleton() {
						t.Errorf("the input changed the elements of the page:\n%.2000s", text)
					}
					if !slices.Contains(quiet, name) && !strings.Contains(got.Text(), pages.Text(p, 200)) {
						t.Errorf("the page does not show %q as it is: %.2000s", pages.Text(p, 200), got.Text())
					}
					if len(text) > 100_000 && len(p) < 1000 {
						t.Errorf("a page of %d bytes", len(text))
					}
				})
			}
		}
	}
}

func FuzzNothingFromOutsideBecomesMarkup(f *testing.F) {
	for _, p := range payloads {
		f.Add(p)
	}
	want := map[string]string{}
	for name, kind := range kinds {
		page, err := pagestest.Parse(body(f, filled(kind, "harmless", 2, true)))
		if err != nil {
			f.Fatal(err)
		}
		want[name] = page.Skeleton()
	}
	f.Fuzz(func(t *testing.T, s string) {
		// Text drops what pagestest cannot read, but URLs and form values pass through: leave those inputs out. An empty
		// text leaves out elements.
		if pages.Text(s, 10) == "" || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0xfffe || c == 0xffff }) {
			return
		}
		for name, kind := range kinds {
			page, err := pagestest.Parse(body(t, filled(kind, s, 2, true)))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := strings.Replace(page.Skeleton(), "<meta http-equiv content></>", "", 1); got != want[name] { // that of a bounce to a path
				t.Errorf("%s: %q changed the elements of the page", name, s)
			}
		}
	})
}

func TestHomeGreetsWhoeverIsSignedIn(t *testing.T) {
	for _, row := range []struct{ name, want string }{
		{"Ada Lovelace", "<h1>Hello, Ada Lovelace</h1>"},
		{"Jürgen Müller-Öz", "<h1>Hello, Jürgen Müller-Öz</h1>"},
		{"  Ada\n\tLovelace ", "<h1>Hello, Ada Lovelace</h1>"},
		{"Bobby \u202eelbat pord", "<h1>Hello, Bobby elbat pord</h1>"},
		{"there", "<h1>Hello, there</h1>"},
		{"", "<h1>Hello</h1>"},
	} {
		page := body(t, pages.Home{LogoutURL: "/auth/logout", User: &pages.User{DisplayName: row.name}})
		if !strings.Contains(page, row.want) {
			t.Errorf("DisplayName %q: no %s in\n%s", row.name, row.want, page)
		}
	}
}

func TestHomeFoldsLongListsOfGroups(t *testing.T) {
	for _, row := range []struct {
		groups, shown int
		summary       string
	}{{0, 0, ""}, {1, 1, ""}, {20, 20, ""}, {21, 20, "and 1 more"}, {300, 20, "and 280 more"}} {
		page, err := pagestest.Parse(body(t, pages.Home{User: &pages.User{DisplayName: "Ada", Groups: names("g", row.groups)}}))
		if err != nil {
			t.Fatal(err)
		}
		folded, summary := 0, ""
		for _, d := range page.All("details") {
			folded, summary = len(d.All("li")), d.All("summary")[0].Text()
		}
		if total := len(page.All("li")); total != row.groups || total-folded != row.shown || summary != row.summary {
			t.Errorf("%d groups: %d in the page, %d of them folded under %q; want %d shown and %q", row.groups, total, folded, summary, row.shown, row.summary)
		}
	}
}

func TestSigningOutIsAFormThatPosts(t *testing.T) {
	for name, page := range map[string]pages.Page{
		"home":           pages.Home{LogoutURL: "/auth/logout", User: &pages.User{}},
		"confirm logout": pages.ConfirmLogout{Action: "/auth/logout"},
	} {
		root, err := pagestest.Parse(body(t, page))
		if err != nil {
			t.Fatal(err)
		}
		forms := root.All("form")
		if len(forms) != 1 || forms[0].Attrs["action"] != "/auth/logout" || forms[0].Attrs["method"] != "post" || len(forms[0].All("input")) != 0 {
			t.Errorf("%s: want one form that posts to /auth/logout without fields", name)
		}
	}
	root, err := pagestest.Parse(body(t, pages.ConfirmLogout{Action: "/auth/logout", ReturnTo: `/bye?a="1"&b=2`}))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"type": "hidden", "name": "return_to", "value": `/bye?a="1"&b=2`}
	if in := root.All("input"); len(in) != 1 || !maps.Equal(in[0].Attrs, want) {
		t.Errorf("fields %v, want %v", in, want)
	}
}

func TestBounceGoesToPathsOnly(t *testing.T) {
	for url, want := range map[string]string{
		"/x?a=1&b=2;c,d":          "0; url=/x?a=1&b=2;c,d",
		"/":                       "0; url=/",
		`/x"><script>`:            `0; url=/x"><script>`,
		"":                        "",
		"x":                       "",
		"//evil.example/":         "",
		`/\evil.example/`:         "",
		"https://evil.example/":   "",
		"javascript:alert(1)":     "",
		"data:text/html,<script>": "",
		"/\t/evil.example/":       "",
		"/\n/evil.example/":       "",
		"/\u2028/evil.example/":   "",
		" /x":                     "",
		"'/x":                     "",
	} {
		root, err := pagestest.Parse(body(t, pages.Bounce{URL: url}))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, m := range root.All("meta") {
			if m.Attrs["http-equiv"] != "" {
				got = m.Attrs["content"]
			}
		}
		if got != want {
			t.Errorf("Bounce to %q: refresh %q, want %q", url, got, want)
		}
	}
}

func TestSessionsOffersToEndOnlyOthers(t *testing.T) {
	list := []pages.Session{{ID: "here", Current: true}, {ID: "there"}, {ID: "elsewhere"}}
	for n, want := range map[int][]string{0: nil, 1: nil, 2: {"id=there", "others=true"}, 3: {"id=there", "id=elsewhere", "others=true"}} {
		root, err := pagestest.Parse(body(t, pages.Sessions{Action: "/auth/sessions", Sessions: list[:n]}))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, in := range root.All("input") {
			got = append(got, in.Attrs["name"]+"="+in.Attrs["value"])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d sessions: fields %v, want %v", n, got, want)
		}
	}
}

func TestConnectionsHaveReadableButtons(t *testing.T) {
	for name, want := range map[string]string{
		"google-oauth2":  "Continue with Google",
		"github":         "Continue with GitHub",
		"email":          "Continue with an e-mail code",
		"acme-employees": "Continue with Acme Employees",
		"my_LDAP":        "Continue with My LDAP",
		"école":          "Continue with École",
		"Google-OAuth2":  "Continue with Google OAuth2", // names are compared exactly
	} {
		root, err := pagestest.Parse(body(t, pages.SignIn{Connections: []pages.Connection{{Name: name, URL: "/auth/login?connection=" + name}}}))
		if err != nil {
			t.Fatal(err)
		}
		if a := root.All("a"); len(a) != 1 || a[0].Text() != want {
			t.Errorf("the button of %q says %q, want %q", name, a[0].Text(), want)
		}
	}
}

func TestErrorsSayWhatHappenedAndOfferAWayOut(t *testing.T) {
	want := map[string]int{
		"link expired": 400, "denied": 403, "cookies blocked": 400, "unavailable": 503, "misconfigured": 500, "forbidden": 403, "login needed": 401,
		"step-up failed": 403, "session too large": 500, "store unavailable": 503, "too many logins": 429, "signed out locally": 503, "login failed": 403, "cookie twice": 400,
		"not found": 404, "bad request": 400, "method not allowed": 405, "cross-site": 403, "wrong host": 421, "bad gateway": 502,
		"gateway timeout": 504, "internal": 500,
	}
	all := situations()
	if len(all) != len(want) {
		t.Fatalf("%d situations, want %d", len(all), len(want))
	}
	titles := map[string]string{}
	for name, e := range all {
		if e.Status != want[name] {
			t.Errorf("%s: status %d, want %d", name, e.Status, want[name])
		}
		if e.Title == "" || !strings.HasSuffix(e.Message, ".") || len(e.Actions) == 0 {
			t.Errorf("%s: title %q, message %q, %d actions", name, e.Title, e.Message, len(e.Actions))
		}
		if e.RequestID != "" {
			t.Errorf("%s: request ID %q, want it left to the caller", name, e.RequestID)
		}
		if other, ok := titles[e.Title]; ok {
			t.Errorf("%s and %s have the same title", name, other)
		}
		titles[e.Title] = name
	}
}

func TestActionsThatLeadNowhereAreLeftOut(t *testing.T) {
	for name, e := range map[string]pages.Error{
		"denied": pages.Denied("", "", ""), "forbidden": pages.Forbidden("", "", "", ""), "not found": pages.NotFound(""), "bad gateway": pages.BadGateway(""),
	} {
		if len(e.Actions) != 0 {
			t.Errorf("%s: %v, want no actions", name, e.Actions)
		}
	}
}

func TestWordsOfTheProviderAreAQuotation(t *testing.T) {
	quote := func(e pages.Error) []string {
		root, err := pagestest.Parse(body(t, e))
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, q := range root.All("blockquote") {
			all = append(all, q.Text())
		}
		return all
	}
	for _, row := range []struct {
		name, description string
		want              []string
	}{
		{"a sentence", "user is blocked", []string{"user is blocked"}},
		{"nothing", "", nil},
		{"only what cannot be seen", "\x00\u202e \n", nil},
		{"a flood", strings.Repeat("x", 5000), []string{strings.Repeat("x", 200) + "…"}},
	} {
		if got := quote(pages.Denied(row.description, "", "")); !slices.Equal(got, row.want) {
			t.Errorf("%s: quotations %q, want %q", row.name, got, row.want)
		}
	}
}

func TestForbiddenSaysWhoIsSignedIn(t *testing.T) {
	for _, row := range []struct{ name, email, want string }{
		{"Bob Kahn", "bob@example.com", "signed in as Bob Kahn (bob@example.com)."},
		{"Bob Kahn", "", "signed in as Bob Kahn."},
		{"", "bob@example.com", "signed in as bob@example.com."},
		{"bob@example.com", "bob@example.com", "signed in as bob@example.com."},
		{"", "", "Your account has no access"},
	} {
		if e := pages.Forbidden(row.name, row.email, "", ""); !strings.Contains(e.Message, row.want) {
			t.Errorf("Forbidden(%q, %q) says %q, want %q in it", row.name, row.email, e.Message, row.want)
		}
	}
}

func TestTextIsOneHarmlessLine(t *testing.T) {
	for _, row := range []struct{ name, in, want string }{
		{"plain text stays", "Ada Love", "Ada Love"},
		{"markup is not its business", "<b>&amp;", "<b>&amp;"},
		{"white space is single blanks", " a \n\n b\t\u00a0\u2028c ", "a b c"},
		{"control characters go", "a\x00\x1b[31mb\x7f\u0085c", "a[31mb c"},
		{"what reorders text goes", "a\u202eb\u2066c\u200fd", "abcd"},
		{"joiners stay", "\u0646\u200c\u0627 👩\u200d💻", "\u0646\u200c\u0627 👩\u200d💻"},
		{"invalid UTF-8 is replaced", "a\xffb", "a\ufffdb"},
		{"ten characters fit", "0123456789", "0123456789"},
		{"ten characters and blanks fit", "0123456789  ", "0123456789"},
		{"eleven are cut", "0123456789a", "0123456789…"},
		{"characters are counted, not bytes", "éééééééééé", "éééééééééé"},
		{"no blank before the ellipsis", "012345678 9", "012345678…"},
		{"nothing", "", ""},
	} {
		if got := pages.Text(row.in, 10); got != row.want {
			t.Errorf("%s: Text(%q, 10) = %q, want %q", row.name, row.in, got, row.want)
		}
	}
}

func FuzzTextIsOneHarmlessLine(f *testing.F) {
	for _, p := range payloads {
		f.Add(p, 200)
	}
	f.Add("a b", 2)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit &= 1<<10 - 1
		got := pages.Text(s, limit)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > limit+1 || strings.TrimSpace(got) != got {
			t.Errorf("Text(%q, %d) = %q", s, limit, got)
		}
		for _, c := range got {
			if unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) || unicode.IsSpace(c) && c != ' ' {
				t.Errorf("Text(%q, %d) = %q with %U", s, limit, got, c)
			}
		}
		if again := pages.Text(got, limit+1); again != got {
			t.Errorf("Text is not stable: %q becomes %q", got, again)
		}
	})
}

// WCAG 2.2 SC 1.4.3 and 1.4.11.
func TestColoursHaveEnoughContrast(t *testing.T) {
	css, err := os.ReadFile("html/style.css")
	if err != nil {
		t.Fatal(err)
	}
	roots := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(css), -1)
	if len(roots) != 2 {
		t.Fatalf("%d sets of colours, want light and dark", len(roots))
	}
	for i, mode := range []string{"light", "dark"} {
		colour := map[string]string{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`).FindAllStringSubmatch(roots[i][1], -1) {
			colour[m[1]] = m[2]
		}
		for _, row := range []struct {
			front, back string
			want        float64
		}{
			{"ink", "card", 7}, {"ink", "ground", 7}, {"ink", "sunk", 7}, {"ink", "tint", 7},
			{"soft", "card", 4.5}, {"soft", "ground", 4.5}, {"soft", "sunk", 4.5}, {"soft", "tint", 4.5},
			{"accent", "card", 4.5}, {"accent", "tint", 4.5}, {"accent-strong", "card", 4.5}, {"accent-strong", "tint", 4.5},
			{"on-accent", "accent", 4.5}, {"on-accent", "accent-strong", 4.5}, {"bad", "bad-tint", 4.5},
			{"edge", "card", 3}, {"edge", "sunk", 3},
		} {
			if got := contrast(t, colour[row.front], colour[row.back]); got < row.want {
				t.Errorf("%s: %s on %s has a contrast of %.2f, want %v", mode, row.front, row.back, got, row.want)
			}
		}
	}
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	x, y := luminance(t, a), luminance(t, b)
	return (max(x, y) + .05) / (min(x, y) + .05)
}

func luminance(t *testing.T, colour string) (l float64) {
	t.Helper()
	rgb, err := strconv.ParseUint(strings.TrimPrefix(colour, "#"), 16, 32)
	if err != nil {
		t.Fatalf("colour %q: %v", colour, err)
	}
	for i, weight := range []float64{.0722, .7152, .2126} {
		c := float64(rgb>>(8*i)&0xff) / 255
		if c <= .04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+.055)/1.055, 2.4)
		}
		l += weight * c
	}
	return l
}

func BenchmarkWrite(b *testing.B) {
	r := httptest.NewRequest("GET", "/auth/", nil)
	for _, name := range []string{"error denied", "home signed in"} {
		page := samples()[name]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pages.Write(httptest.NewRecorder(), r, 200, page)
			}
		})
	}
}

// The scripts are part of the pages' promise: what a value is cannot change what they do, because they hold none.
func TestScriptsAreTheSameForEverybody(t *testing.T) {
	for name, kind := range map[string]pages.Page{"handoff": pages.Handoff{}, "forget": pages.Forget{}} {
		t.Run(name, func(t *testing.T) {
			script := func(s string) string {
				page, err := pagestest.Parse(body(t, filled(kind, s, 1, true)))
				if err != nil {
					t.Fatal(err)
				}
				return page.All("script")[0].Text()
			}
			want := script("harmless")
			for _, p := range payloads {
				if got := script(p); got != want {
					t.Errorf("with %.30q the script is\n%s\nwant\n%s", p, got, want)
				}
			}
		})
	}
}

func TestTheHandoffPageCarriesTokenAndDestinationAsTheyAre(t *testing.T) {
	const token, to = "eyJhbGciOiJFUzI1NiJ9.e30.A_-A", "/app?x=</script>&y=%22#z"
	page, err := pagestest.Parse(body(t, pages.Handoff{Token: token, URL: to}))
	if err != nil {
		t.Fatal(err)
	}
	link := page.All("a")[0]
	if link.Attrs["data-token"] != token {
		t.Errorf("data-token = %q, want %q", link.Attrs["data-token"], token)
	}
	if want := "/app?x=%3c/script%3e&y=%22#z"; link.Attrs["href"] != want {
		t.Errorf("href = %q, want %q", link.Attrs["href"], want)
	}
}
