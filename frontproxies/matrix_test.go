package frontproxies_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write the matrix into docs/front-proxies.md")

const document = "../docs/front-proxies.md"

var fronts = []front{
	{name: "nginx", title: "nginx", needs: "nginx", start: startNginx},
	{name: "ingress-nginx", title: "ingress-nginx", needs: "nginx", start: startIngressNginx},
	{name: "traefik", title: "Traefik", start: startTraefik},
	{name: "old traefik", prints: "traefik", title: "Traefik before 3.7.13", start: startOldTraefik},
	{name: "caddy", title: "Caddy", needs: "caddy", start: startCaddy},
	{name: "haproxy", title: "HAProxy", needs: "haproxy", start: startHAProxy},
	{name: "envoy", title: "Envoy", start: startEnvoy},
	{name: "gateway-api", title: "Gateway API", trust: true, start: startGateway},
}

// An outcome is what a request came to.
type outcome struct {
	status  int // 0: the connection ended
	login   bool
	reached bool
	told    string   // who the app was told that the user is, in any spelling; "" is nobody
	forged  []string // headers in which the app found what only the client says
	path    string   // that the app was asked for, where it is not the one that was sent
	note    string
}

func (o outcome) String() string {
	var s string
	switch {
	case o.reached && o.told == "":
		s = "app: nobody"
	case o.reached:
		s = "app: " + o.told
	case o.login:
		s = "login"
	case o.status == 0:
		s = "no answer"
	default:
		s = fmt.Sprint(o.status)
	}
	if o.path != "" {
		s += " at `" + o.path + "`"
	}
	for _, f := range o.forged {
		s += " **" + f + "**"
	}
	return s + o.note
}

// A row is a request of a client: what it sends, and what must be true of what that comes to, whichever front proxy there is.
type row struct {
	name    string
	as      string // whose cookie
	method  string // "" is GET
	target  string // "" is /page
	headers []string
	body    string
	must    func(o outcome) bool
	means   string // what must says
	gate    string // how the gate treats what authproxy is asked
}

var (
	navigation = []string{"Accept: text/html,*/*;q=0.8", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}
	program    = []string{"Accept: application/json", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"}
)

func closed(o outcome) bool { return !o.reached }
func told(who string) func(outcome) bool {
	return func(o outcome) bool { return o.reached && o.told == who && len(o.forged) == 0 }
}

// toldIfAtAll: a request that is refused harms nobody.
func toldIfAtAll(who string) func(outcome) bool {
	return func(o outcome) bool { return !o.reached || told(who)(o) }
}
func isLogin(o outcome) bool { return o.login && !o.reached }
func is(s ...int) func(outcome) bool {
	return func(o outcome) bool { return !o.reached && slices.Contains(s, o.status) }
}

// failed: a Gateway may say 403.
func failed(o outcome) bool { return is(403, 500, 502, 503, 504)(o) }

// spelled are identity headers in a spelling, all of which say that the user is somebody else.
func spelled(spell func(string) string) (lines []string) {
	for _, name := range []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Authproxy-Assertion"} {
		lines = append(lines, spell(name)+": mallory")
	}
	return lines
}

func with(old, new string) func(string) string {
	return func(name string) string { return strings.ReplaceAll(name, old, new) }
}

const foreignLines = "Remote-User X-Remote-User X-Webauth-User X-Auth-Request-User X-Auth-Request-Email X-Authenticated-User X-Vouch-User X-Authentik-Username " +
	"X-Pomerium-Claim-Email X-Goog-Authenticated-User-Email Cf-Access-Authenticated-User-Email X-Amzn-Oidc-Identity X-Ms-Client-Principal-Name Tailscale-User-Login Oidc-Claim-Sub Ssl-Client-Cert X-Ssl-Client-Cn"

func says(names, value string) (lines []string) {
	for name := range strings.FieldsSeq(names) {
		lines = append(lines, name+": "+value)
	}
	return lines
}

// metadata are the headers by which front proxies describe a request, as a client sends them.
func metadata(spell func(string) string) (lines []string) {
	for name, value := range map[string]string{
		"X-Original-URL": "{URL}/public/x", "X-Original-Method": "GET", "X-Original-URI": "/public/x", "X-Rewrite-URL": "/public/x", "X-Forwarded-Method": "GET",
		"X-Forwarded-Proto": "http", "X-Forwarded-Host": "{HOST}", "X-Forwarded-Uri": "/public/x", "X-Forwarded-Path": "/public/x", "X-Envoy-Original-Path": "/public/x",
		"X-Auth-Request-Redirect": "/public/x", "X-Forwarded-Prefix": "/public",
	} {
		lines = append(lines, spell(name)+": "+value)
	}
	slices.Sort(lines)
	return lines
}

func same(name string) string { return name }

var webSocket = []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-Fetch-Mode: websocket"}

// groups are the rows, in the order in which they are written down.
var groups = []struct {
	title string
	rows  []row
}{
	{"Who may pass", []row{
		{name: "a page, not signed in", headers: navigation, must: isLogin, means: "a login"},
		{name: "a page by HEAD, not signed in", method: "HEAD", headers: navigation, must: isLogin, means: "a login"},
		{name: "a program, not signed in", headers: program, must: is(401), means: "401"},
		{name: "a form's POST, not signed in", method: "POST", headers: append([]string{"Content-Length: 18", "Content-Type: text/plain"}, navigation...), body: bodyMarker, must: is(401), means: "401"},
		{name: "a WebSocket, not signed in", headers: append([]string{"Origin: {URL}"}, webSocket...), must: is(401), means: "401"},
		{name: "a page for anyone, not signed in", target: "/public/x", headers: navigation, must: told(""), means: "nobody at the app"},
		{name: "a page", as: "ada", headers: navigation, must: told("ada"), means: "ada at the app"},
		{name: "a page for her group", as: "ada", target: "/admin/x", headers: navigation, must: told("ada"), means: "ada at the app"},
		{name: "a page for another group", as: "bob", target: "/admin/x", headers: navigation, must: is(403), means: "403"},
		{name: "a POST", as: "ada", method: "POST", headers: append([]string{"Content-Length: 18"}, program...), body: bodyMarker, must: told("ada"), means: "ada at the app"},
		{name: "a chunked POST", as: "ada", method: "POST", headers: append([]string{"Transfer-Encoding: chunked"}, program...), body: "12\r\n" + bodyMarker + "\r\n0\r\n\r\n", must: told("ada"), means: "ada at the app"},
		{name: "a WebSocket", as: "ada", headers: append([]string{"Origin: {URL}"}, webSocket...), must: told("ada"), means: "ada at the app"},
		{name: "a WebSocket of another site", as: "ada", headers: append([]string{"Origin: https://evil.example"}, webSocket...), must: is(403), means: "403"},
		{name: "a session that has expired", as: "expired", headers: navigation, must: isLogin, means: "a login"},
		{name: "a session that was signed out", as: "gone", headers: navigation, must: isLogin, means: "a login"},
		{name: "two session cookies", as: "twice", headers: navigation, must: isLogin, means: "a login"},
	}},
	{"What a client says about itself", []row{
		{name: "our identity headers", as: "bob", headers: spelled(same), must: told("bob"), means: "bob at the app"},
		{name: "the same, not signed in", target: "/public/x", headers: spelled(same), must: told(""), means: "nobody at the app"},
		{name: "in lower case", as: "bob", headers: spelled(strings.ToLower), must: told("bob"), means: "bob at the app"},
		{name: "twice", as: "bob", headers: append(spelled(same), spelled(strings.ToUpper)...), must: told("bob"), means: "bob at the app"},
		{name: "`X_Forwarded_User`", as: "bob", headers: spelled(with("-", "_")), must: toldIfAtAll("bob"), means: "bob or a refusal"},
		{name: "`X-Forwarded_User`", as: "bob", headers: spelled(func(n string) string { i := strings.LastIndex(n, "-"); return n[:i] + "_" + n[i+1:] }), must: toldIfAtAll("bob"), means: "bob or a refusal"},
		{name: "`X.Forwarded.User`", as: "bob", headers: spelled(with("-", ".")), must: toldIfAtAll("bob"), means: "bob or a refusal"},
		{name: "`X~Forwarded!User`", as: "bob", headers: spelled(func(n string) string { return strings.Replace(strings.Replace(n, "-", "~", 1), "-", "!", 1) }), must: toldIfAtAll("bob"), means: "bob or a refusal"},
		{name: "`X.Forwarded.User`, not signed in", target: "/public/x", headers: spelled(with("-", ".")), must: toldIfAtAll(""), means: "nobody or a refusal"},
		{name: "`Connection: X-Forwarded-User`", as: "bob", headers: []string{"Connection: close, X-Forwarded-User, X-Authproxy-Assertion"}, must: told("bob"), means: "bob at the app"},
		{name: "`X-Authproxy-Secret`", headers: append([]string{"X-Authproxy-Secret: " + secret}, navigation...), must: isLogin, means: "a login"},
		{name: "headers of other products", as: "bob", headers: says(foreignLines, "mallory"), must: told("bob"), means: "bob at the app"},
		{name: "the same with underscores", as: "bob", headers: says(strings.ReplaceAll(foreignLines, "-", "_"), "mallory"), must: toldIfAtAll("bob"), means: "bob or a refusal"},
		{name: "the same with dots", as: "bob", headers: says(strings.ReplaceAll(foreignLines, "-", "."), "mallory"), must: toldIfAtAll("bob"), means: "bob or a refusal"},
		{name: "one that is in no list: `X-Authentik-Meta-Foo`", as: "bob", headers: []string{"X-Authentik-Meta-Foo: mallory"}, must: told("bob"), means: "bob at the app"},
		{name: "`X-Forwarded-For`, `X-Real-IP`, `Forwarded`", as: "bob", headers: []string{"X-Forwarded-For: mallory", "X-Real-IP: mallory", "Forwarded: for=mallory", "X-Client-IP: mallory", "True-Client-IP: mallory"}, must: told("bob"), means: "bob at the app"},
	}},
	{"What a client says about its request", []row{
		{name: "metadata of a public page, not signed in", target: "/admin", headers: append(metadata(same), navigation...), must: isLogin, means: "a login"},
		{name: "metadata of a public page", as: "bob", target: "/admin", headers: metadata(same), must: is(403), means: "403"},
		{name: "with underscores", as: "bob", target: "/admin", headers: metadata(with("-", "_")), must: is(403), means: "403"},
		{name: "with dots", as: "bob", target: "/admin", headers: metadata(with("-", ".")), must: is(403), means: "403"},
		{name: "metadata twice", as: "bob", target: "/admin", headers: append(metadata(same), metadata(same)...), must: is(403), means: "403"},
		{name: "`X-HTTP-Method-Override: DELETE`", as: "bob", headers: says("X-HTTP-Method-Override X-Method-Override", "mallory"), must: told("bob"), means: "bob at the app"},
		{name: "asks authproxy itself", as: "bob", target: "/auth/verify/{FRONT}", headers: append(metadata(same), program...), must: is(404, 403, 418, 302, 421), means: "a refusal"},
		{name: "asks by a detour", as: "bob", target: "/auth/login/../verify/{FRONT}", headers: append(metadata(same), program...), must: is(404, 403, 418, 302, 308, 400), means: "a refusal"},
		{name: "asks with an escape", as: "bob", target: "/auth/%76erify/{FRONT}", headers: append(metadata(same), program...), must: is(404, 403, 418, 302, 400), means: "a refusal"},
		{name: "another host", as: "bob", headers: []string{"Host: evil.example"}, must: closed, means: "a refusal"},
		{name: "another host in the target", as: "bob", target: "http://evil.example/page", must: closed, means: "a refusal"},
		{name: "another `Host` beside the target", as: "bob", target: "{URL}/admin", headers: []string{"Host: evil.example"}, must: closed, means: "a refusal"},
		{name: "the whole URL as the target", as: "bob", target: "{URL}/page", must: toldIfAtAll("bob"), means: "bob or a refusal"},
		{name: "HTTP/1.0 without `Host`", as: "bob", headers: []string{"Version: 1.0"}, must: toldIfAtAll("bob"), means: "bob or a refusal"},
	}},
	{"Paths that two programs read in two ways", []row{
		ambiguous("/public/../admin"), ambiguous("/public/..%2fadmin"), ambiguous("/public/%2e%2e/admin"), ambiguous("/public/.%2e/admin"), ambiguous("//admin"), ambiguous("/public//../admin"),
		ambiguous("/public/./../admin"), ambiguous("/public/..;/admin"), ambiguous("/public/..;x=1/admin"), ambiguous(`/public/..\admin`), ambiguous("/public/..%5cadmin"), ambiguous("/%61dmin"),
		ambiguous("/public/%252e%252e/admin"), ambiguous("/public%2f..%2fadmin"), ambiguous("/admin;/x"), ambiguous("/admin/../admin"), ambiguous("/public/x%00/../../admin"), ambiguous("/public/../../admin"),
		ambiguous("/auth/../admin"), ambiguous("/auth/..%2fadmin"), ambiguous("/auth/login/%2e%2e/%2e%2e/admin"), ambiguous("/auth//../admin"),
		{name: "`/admin/../public/x`, not signed in", target: "/admin/../public/x", headers: navigation, must: toldIfAtAll(""), means: "nobody or a refusal"},
		{name: "`/public/x?y=/../admin`, not signed in", target: "/public/x?y=/../admin", headers: navigation, must: told(""), means: "nobody at the app"},
	}},
	{"Sizes", []row{
		{name: "6 KB of other cookies", as: "ada", headers: []string{"Cookie: other=" + strings.Repeat("x", 6000)}, must: toldIfAtAll("ada"), means: "ada or a refusal"},
		{name: "20 KB of other cookies", as: "ada", headers: []string{"Cookie: other=" + strings.Repeat("x", 20000)}, must: toldIfAtAll("ada"), means: "ada or a refusal"},
		{name: "an identity of 3 KB", as: "large", must: told("large"), means: "large at the app"},
		{name: "an identity of more than 4 KB", as: "huge", must: is(403), means: "403"},
	}},
	{"When authproxy does not answer", []row{
		{name: "it answers 503, page for anyone", target: "/public/x", gate: "failing", must: failed, means: "a refusal"},
		{name: "it answers 503, signed in", as: "ada", gate: "failing", must: failed, means: "a refusal"},
		{name: "it is slow, signed in", as: "ada", gate: "stalled", must: failed, means: "a refusal"},
		{name: "it is down, page for anyone", target: "/public/x", gate: "down", must: failed, means: "a refusal"},
		{name: "it is down, signed in", as: "ada", gate: "down", must: failed, means: "a refusal"},
		{name: "it is down, WebSocket", as: "ada", headers: append([]string{"Origin: {URL}"}, webSocket...), gate: "down", must: failed, means: "a refusal"},
	}},
}

// ambiguous is a target that must not lead bob to what is for admins.
func ambiguous(target string) row {
	return row{name: "`" + target + "`", as: "bob", target: target, headers: navigation, means: "no /admin at the app", must: func(o outcome) bool {
		return !o.reached || o.told == "bob" && !strings.Contains(strings.ToLower(o.path), "admin")
	}}
}

// holes are what is otherwise than it must be, by row and front proxy, and why, in words that the document has too.
var holes = map[string]map[string]string{
	"a program, not signed in":                       {"ingress-nginx": toLogin},
	"a form's POST, not signed in":                   {"ingress-nginx": toLogin},
	"a WebSocket, not signed in":                     {"ingress-nginx": toLogin},
	"`X.Forwarded.User`":                             {"gateway-api": unseen},
	"`X~Forwarded!User`":                             {"gateway-api": unseen},
	"`X.Forwarded.User`, not signed in":              {"gateway-api": unseen},
	"the same with dots":                             {"gateway-api": unseen},
	"one that is in no list: `X-Authentik-Meta-Foo`": {"nginx": unlisted, "ingress-nginx": unlisted, "traefik": unlisted, "old traefik": unlisted, "gateway-api": unlisted},
	"`X-Forwarded-For`, `X-Real-IP`, `Forwarded`":    {"ingress-nginx": original},
}

const (
	toLogin  = "sends everybody who is not signed in to the login"
	unseen   = "By HTTP a Gateway shows authproxy only the headers that the route names"
	unlisted = "no patterns"
	original = "`X-Original-Forwarded-For`"
)

// TestNothingPassesAFrontProxy runs each front proxy as print-config configures it, between clients that try and an app.
func TestNothingPassesAFrontProxy(t *testing.T) {
	var (
		mu      sync.Mutex
		results = map[string]map[string]string{} // row, front proxy
		lacking []string
	)
	t.Run("fronts", func(t *testing.T) {
		for _, f := range fronts {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				if _, err := exec.LookPath(f.needs); f.needs != "" && err != nil {
					mu.Lock()
					lacking = append(lacking, f.name)
					mu.Unlock()
					t.Skipf("%s is not installed", f.needs)
				}
				w := newWorld(t, f)
				for _, name := range []string{"ada", "bob", "large", "huge", "gone"} {
					user := name
					if name == "gone" {
						user = "ada"
					}
					w.signIn(t, name, user)
				}
				w.signOut(t, "gone")
				w.expire(t, "expired")
				w.cookies["twice"] = w.cookies["ada"] + "; " + w.cookies["bob"]
				gate := ""
				for _, g := range groups {
					for _, r := range g.rows {
						if r.gate != gate {
							gate = r.gate
							w.gate.set(gate)
							if gate == "down" {
								w.gate.listener.Close()
								w.gate.set("")
							}
						}
						o := w.try(t, r)
						why, known := holes[r.name][f.name]
						switch ok := r.must(o); {
						case !ok && !known:
							t.Errorf("%s, %s: comes to %q, want %s", f.name, r.name, o, r.means)
						case ok && known:
							t.Errorf("%s, %s: comes to %q: it is no hole (%s)", f.name, r.name, o, why)
						}
						cell := o.String()
						if known {
							cell += " (hole)"
						}
						mu.Lock()
						if results[r.name] == nil {
							results[r.name] = map[string]string{}
						}
						results[r.name][f.name] = cell
						mu.Unlock()
					}
				}
				if w.gate.sawBody() {
					t.Errorf("%s sends authproxy the body of the client's request", f.name)
				}
			})
		}
	})
	if t.Failed() && !*update {
		return
	}
	t.Run("document", func(t *testing.T) { compare(t, results, lacking) })
}

// versions are those of the real front proxies.
func versions(t *testing.T) string {
	t.Helper()
	var all []string
	for _, of := range [][]string{{"nginx", "-v"}, {"haproxy", "-v"}, {"caddy", "version"}} {
		said, err := exec.Command(of[0], of[1:]...).CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, of[0]+" "+regexp.MustCompile(`\d+\.\d+\.\d+`).FindString(string(said)))
	}
	return "With " + strings.Join(all, ", ") + ".\n"
}

// try makes the request of a row.
func (w *world) try(t *testing.T, r row) outcome {
	t.Helper()
	method, target := r.method, r.target
	if method == "" {
		method = "GET"
	}
	if target == "" {
		target = "/page"
	}
	dialect := w.front.name
	switch dialect {
	case "old traefik":
		dialect = "traefik"
	case "ingress-nginx":
		dialect = "nginx"
	case "gateway-api":
		dialect = "envoy"
	}
	target = strings.NewReplacer("{FRONT}", dialect, "{URL}", w.url).Replace(target)
	headers := slices.Clone(r.headers)
	if r.as != "" {
		cookie := "Cookie: " + w.cookies[r.as]
		for i, line := range headers { // in one line, as browsers do
			if more, ok := strings.CutPrefix(line, "Cookie: "); ok {
				cookie += "; " + more
				headers = slices.Delete(headers, i, i+1)
				break
			}
		}
		headers = append(headers, cookie)
	}
	var o outcome
	a, err := w.tryExchange(r.name, method, target, headers, r.body)
	switch {
	case err == nil:
		o.status = a.StatusCode
		to, _ := url.Parse(a.Header.Get("Location"))
		o.login = a.StatusCode == http.StatusFound && strings.HasPrefix(to.String(), w.url+"/auth/login?")
		if back := to.Query().Get("return_to"); o.login && back != target && back != w.url+target {
			o.note = " back to " + back
		}
		if a.StatusCode == http.StatusUnauthorized && !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Bearer") {
			o.note = " without WWW-Authenticate"
		}
		for name := range a.Header {
			if r.gate == "" && strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "X-Authproxy-") {
				t.Errorf("%s, %s: the client is told %s", w.front.name, r.name, name)
			}
		}
	case !errors.Is(err, errEnded):
		t.Errorf("%s, %s: %v", w.front.name, r.name, err)
	}
	came, body := w.app.request(r.name)
	if came == nil {
		return o
	}
	o.reached = true
	if body != "" && body != bodyMarker || strings.Contains(r.body, bodyMarker) && body == "" {
		t.Errorf("%s, %s: the app gets the body %q", w.front.name, r.name, body)
	}
	users := map[string]bool{}
	for name, values := range came.Header {
		for _, value := range values {
			if value == "" {
				continue
			}
			if fold(name) == "x-forwarded-user" {
				users[value] = true
			}
			if strings.Contains(value, "mallory") {
				o.forged = append(o.forged, name)
			}
			if strings.Contains(value, secret) {
				o.forged = append(o.forged, name+" (the secret)")
			}
		}
	}
	slices.Sort(o.forged)
	if n := len(o.forged); n > 3 {
		o.forged = append(o.forged[:2:2], fmt.Sprintf("and %d more", n-2))
	}
	o.told = strings.Join(slices.Sorted(maps.Keys(users)), "+")
	if o.told != "" && came.Header.Get("X-Authproxy-Assertion") == "" {
		o.note += " without assertion"
	}
	sent, _, _ := strings.Cut(strings.TrimPrefix(target, w.url), "?")
	if at, _, _ := strings.Cut(strings.TrimPrefix(came.RequestURI, w.url), "?"); at != sent || strings.Contains(sent, "admin") && r.as == "bob" {
		o.path = at
	}
	return o
}

// fold is how the most careless of apps reads the name of a header.
func fold(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			return c
		}
		return '-'
	}, strings.ToLower(name))
}

const (
	begin = "<!-- The matrix is written by: go test ./frontproxies -update -->\n"
	end   = "<!-- The end of the matrix. -->\n"
)

// compare compares the matrix in the document with the results.
func compare(t *testing.T, results map[string]map[string]string, lacking []string) {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	was, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the matrix", document)
	}
	for name, of := range holes {
		for front, why := range of {
			if !strings.Contains(before+after, why) {
				t.Errorf("%s does not explain the hole %q of %s: %s", document, name, front, why)
			}
		}
	}
	if len(lacking) > 0 {
		t.Skipf("%v did not run", lacking)
	}
	var b strings.Builder
	b.WriteString("\n" + versions(t))
	for _, g := range groups {
		fmt.Fprintf(&b, "\n### %s\n\n|  |", g.title)
		for _, f := range fronts {
			fmt.Fprintf(&b, " %s |", f.title)
		}
		b.WriteString("\n|---|" + strings.Repeat("---|", len(fronts)) + "\n")
		for _, r := range g.rows {
			fmt.Fprintf(&b, "| %s |", r.name)
			for _, f := range fronts {
				fmt.Fprintf(&b, " %s |", results[r.name][f.name])
			}
			b.WriteString("\n")
		}
	}
	b.WriteString("\n")
	now := b.String()
	switch {
	case *update:
		if err := os.WriteFile(document, []byte(before+begin+now+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	case !strings.Contains(was, versions(t)):
		t.Skipf("the matrix is one of other versions; this is one %s", versions(t))
	case now != was:
		t.Errorf("the matrix in %s is another; if it is right now, write it with -update: %s", document, difference(was, now))
	}
}

func difference(was, now string) string {
	old := map[string]bool{}
	for line := range strings.Lines(was) {
		old[line] = true
	}
	var b strings.Builder
	for line := range strings.Lines(now) {
		if !old[line] {
			b.WriteString("\n" + strings.TrimSpace(line))
		}
	}
	return b.String()
}
