package proxy_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"authproxy/identity"
	"authproxy/policy"
	"authproxy/proxy"
)

// A reader is how some program behind us finds the path in a request target. Each is written without the code it judges.
type reader struct {
	name string
	read func(path string) string // from the path of the target as it is on the wire
}

// once decodes every valid escape once and leaves the rest alone, as lenient programs do.
func once(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			var c byte
			if n, err := fmt.Sscanf(s[i+1:i+3], "%02x", &c); n == 1 && err == nil && strings.Trim(s[i+1:i+3], "0123456789abcdefABCDEF") == "" {
				b.WriteByte(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func fixpoint(s string) string {
	for range 1 + len(s)/2 {
		next := once(s)
		if next == s {
			break
		}
		s = next
	}
	return s
}

func withoutParams(s string) string {
	segments := strings.Split(s, "/")
	for i := range segments {
		segments[i], _, _ = strings.Cut(segments[i], ";")
	}
	return strings.Join(segments, "/")
}

// compatibility is what NFKC makes of the characters that have a meaning in paths.
var compatibility = strings.NewReplacer("．", ".", "․", ".", "﹒", ".", "‥", "..", "…", "...", "／", "/", "＼", `\`, "﹨", `\`, "；", ";", "﹔", ";", "％", "%", "﹪", "%")

func backslashes(s string) string { return strings.ReplaceAll(s, `\`, "/") }

// readers are the ways in which paths are misread in the wild.
var readers = []reader{
	{"decoding once", func(s string) string { return path.Clean(once(s)) }},
	{"decoding twice", func(s string) string { return path.Clean(once(once(s))) }},
	{"decoding until nothing changes", func(s string) string { return path.Clean(fixpoint(s)) }},
	{"cleaning before decoding", func(s string) string { return once(path.Clean(s)) }},
	{"backslashes as slashes", func(s string) string { return path.Clean(backslashes(once(s))) }},
	{"decoding twice, backslashes as slashes", func(s string) string { return path.Clean(backslashes(once(once(s)))) }},
	{"leaving out parameters, then decoding", func(s string) string { return path.Clean(once(withoutParams(s))) }},
	{"decoding, then leaving out parameters", func(s string) string { return path.Clean(withoutParams(once(s))) }},
	{"decoding twice, then leaving out parameters", func(s string) string { return path.Clean(withoutParams(once(once(s)))) }},
	{"leaving out parameters after cleaning", func(s string) string { return path.Clean(withoutParams(path.Clean(once(s)))) }},
	{"NFKC", func(s string) string { return path.Clean(backslashes(compatibility.Replace(once(s)))) }},
	{"NFKC, then leaving out parameters", func(s string) string {
		return path.Clean(withoutParams(backslashes(compatibility.Replace(once(s)))))
	}},
	{"decoding twice, NFKC, then leaving out parameters", func(s string) string {
		return path.Clean(withoutParams(backslashes(compatibility.Replace(once(once(s))))))
	}},
	{"a C program, to which NUL is the end", func(s string) string { s, _, _ = strings.Cut(once(s), "\x00"); return path.Clean(s) }},
	{"leaving out control characters", func(s string) string {
		return path.Clean(strings.Map(func(c rune) rune {
			if c < ' ' || c == 0x7f {
				return -1
			}
			return c
		}, once(s)))
	}},
}

// routeOf is the route of a rig that a path belongs to, found without the code it judges.
func routeOf(p string) string {
	segments := strings.Split(strings.Trim(p, "/"), "/")
	switch {
	case segments[0] == "auth":
		return "authproxy"
	case segments[0] == "public", segments[0] == "admin":
		return "/" + segments[0]
	case len(segments) >= 2 && segments[0] == "api" && segments[1] == "v1":
		return "/api/v1"
	case p == "/exact":
		return "/exact"
	}
	return "/"
}

// P2 of the corpus: what is judged is computed from what the upstream gets, and no program that reads the path in another
// way comes to a path of another route.
func FuzzTheUpstreamReadsThePathThatWasJudged(f *testing.F) {
	for _, target := range targets {
		f.Add(target.target)
	}
	for _, s := range []string{"/", "/public/a%20b?x=%2F", "/api/v1", "/api/v1/", "/api/v1/a;b/c", "/ä?ö", `/a|b"<>^{}`, "/public/%25x/%", "/a%3Bb|", "/exact/", "/exact?", "http://app.test/public/x?y", "/public/a%3fb%23c",
		"/public/%EF%BC%8E%EF%BC%8E/admin", "/public/x%EF%BC%8F..", "/admin%253bx", "/%2561dmin", "/public/..%253b/admin", "/%25%36%31dmin", "/%e2%80%a5/admin", "/admin%ef%bc%9bx"} {
		f.Add(s)
	}
	up := &wire{}
	r := newRig(f, nil)
	r.UseTransport(up)
	cookie := r.signIn(f, "alice", "admins")
	f.Fuzz(func(t *testing.T, target string) { checkTarget(t, r, up, cookie, target) })
}

// checkTarget is property P2 for one target. It says whether the upstream was reached.
func checkTarget(t *testing.T, r *rig, up *wire, cookie, target string) bool {
	req, err := parse("GET " + target + " HTTP/1.1\r\nHost: app.test\r\nCookie: " + cookie + "\r\n\r\n")
	if err != nil {
		return false // the server answers 400 itself
	}
	rec := httptest.NewRecorder()
	r.ServeHTTP(rec, req)
	all := up.take()
	judged, refused := r.Read(req)
	if len(all) == 0 {
		switch {
		case rec.Code == http.StatusPermanentRedirect:
			location := rec.Header().Get("Location")
			if o := whatwgOrigin(location); o != "http://app.test" {
				t.Errorf("redirected to %q, which is of %s", location, o)
			}
			again := httptest.NewRequest("GET", "http://app.test"+strings.TrimPrefix(location, "http://app.test"), nil)
			if _, err := r.Read(again); proxy.IsRefusal(err, http.StatusPermanentRedirect) {
				t.Errorf("redirected to %q, which is redirected again", location)
			}
		case rec.Code >= 200 && rec.Code < 400 && routeOf(once(target)) != "authproxy" && routeOf(judged.Path) != "authproxy":
			t.Errorf("status %d without the upstream", rec.Code)
		}
		return false
	}
	if len(all) != 1 || refused != nil {
		t.Fatalf("%d requests at the upstream, refused with %v", len(all), refused)
	}
	raw, query, _ := strings.Cut(all[0].target, "?")
	_, wantQuery, _ := strings.Cut(target, "?")
	if query != wantQuery {
		t.Errorf("query %q, want %q", query, wantQuery)
	}
	route := routeOf(judged.Path)
	if judged.Route != route {
		t.Errorf("judged by %s, want %s", judged.Route, route)
	}
	full := raw
	if route == "/api/v1" {
		full = strings.TrimSuffix("/api/v1"+raw, "/") // the prefix that was taken off
		if strings.HasSuffix(judged.Path, "/") {
			full += "/"
		}
	}
	if got := once(full); got != judged.Path || !utf8.ValidString(got) {
		t.Errorf("judged %q, but the upstream got %q", judged.Path, raw)
	}
	if strings.Count(full, "/") != strings.Count(judged.Path, "/") || !strings.HasPrefix(raw, "/") || strings.HasPrefix(raw, "//") {
		t.Errorf("judged %q, whose segments are not those of %q", judged.Path, raw)
	}
	for _, reader := range readers {
		if p := reader.read(full); routeOf(p) != route && !(route == "/exact" || p == "/exact") {
			t.Errorf("judged by %s, but %s reads %q as %q, which is of %s", route, reader.name, raw, p, routeOf(p))
		}
	}
	return true
}

// targets are request targets of the corpus, all asked for by a user who may not see /admin.
var targets = []struct{ id, target string }{
	{"PTH-01", "/admin/s?x=/public/y"}, {"PTH-01", "/admin/s?/status"}, {"PTH-01", "/admin/s?a=1?b=/public/"},
	{"PTH-02", "/admin/s#/public/y"}, {"PTH-02", "/admin/s%23/public/y"}, {"PTH-02", "/public/%23/../../admin/s"},
	{"PTH-04", "/public/%2e%2e/admin/s"}, {"PTH-04", "/public/.%2e/admin/s"}, {"PTH-04", "/public/%2E./admin/s"}, {"PTH-04", "/%70ublic/..%2Fadmin"},
	{"PTH-05", "/public/..%2fadmin/s"}, {"PTH-05", "/public%2f..%2fadmin/s"}, {"PTH-05", "/public/x%2f..%2f..%2fadmin/s"}, {"PTH-05", "/admin%2fs"},
	{"PTH-07", "/api/v1//admin"}, {"PTH-07", "/api/v1/public/../../../admin"},
	{"PTH-08", "//admin/s"}, {"PTH-08", "///admin/s"}, {"PTH-08", "/%2fadmin/s"}, {"PTH-08", "/x/..//admin/s"},
	{"PTH-10", "/public/..;/admin/s"}, {"PTH-10", "/public;/../admin/s"}, {"PTH-10", "/admin;x=1/s"}, {"PTH-10", "/public/..;a=b/admin/s"}, {"PTH-10", "/;/admin/s"}, {"PTH-10", "/public/%2e%2e;/admin/s"},
	{"PTH-11", "/admin%00/public/"}, {"PTH-11", "/public/%00../admin"},
	{"PTH-13", `/public\..\admin\s`}, {"PTH-13", "/public/..%5cadmin/s"}, {"PTH-13", "/public%5c..%5cadmin"}, {"PTH-13", "/%5cadmin/s"},
	{"PTH-20", "/admin/s/x.css"}, {"PTH-20", "/admin/public"}, {"PTH-20", "/admin;.css"}, {"PTH-20", "/admin/s%0a.css"}, {"PTH-20", "/admin/s%3f.css"},
	{"PTH-22", "/public/%ef%bc%8e%ef%bc%8e/admin"}, {"PTH-22", "/public/%c0%ae%c0%ae/admin"}, {"PTH-22", "/public/%ff"}, {"PTH-22", "/public/%e2%80%a5/admin"},
	{"PTH-23", "http://evil.test/public/x"}, {"PTH-23", "http://app.test@evil.test/"}, {"PTH-23", "http://app.test/admin/s"}, {"PTH-23", "https://evil.test/public"},
	{"PTH-26", "/%61dmin/s"}, {"PTH-26", "/%2561dmin/s"},
	{"PTH-28", "/public%3f/../admin/s"}, {"PTH-28", "/admin/s%3f/public/"}, {"PTH-28", "/public/%3f..%2fadmin"},
	{"PTH-31", "/admin/%zz"}, {"PTH-31", "/%"}, {"PTH-31", "/%2"}, {"PTH-31", "/public/%u002e%u002e/admin"},
	{"RED-10", "http:evil.test"}, {"RED-10", "evil://x"},
	{"RED-11", "//evil.test/.."}, {"RED-11", "//evil.test/%2e%2e/"}, {"RED-11", "/%5cevil.test/.."}, {"RED-11", "//evil.test//"},
	{"HLT-05", "/public/../../admin/s"}, {"HLT-07", "/.well-known/acme-challenge/../../admin/s"}, {"HLT-07", "/.well-known/%2e%2e/admin"}, {"HLT-07", "/robots.txt/..%2fadmin"},
}

// None of them reaches the upstream, for a user who may not see /admin: refused, forbidden, or sent to a clean path that is.
func TestPathsThatHideTheProtectedPartAreRefusedOrJudgedAsWhatTheyMean(t *testing.T) {
	up := &wire{}
	r := newRig(t, nil)
	r.UseTransport(up)
	bob := r.signIn(t, "bob", "staff")
	for _, row := range targets {
		t.Run(row.id+" "+row.target, func(t *testing.T) {
			for _, method := range []string{"GET", "POST"} {
				req, err := parse(method + " " + row.target + " HTTP/1.1\r\nHost: app.test\r\nCookie: " + bob + "\r\nContent-Length: 0\r\n\r\n")
				if err != nil {
					return
				}
				rec := httptest.NewRecorder()
				r.ServeHTTP(rec, req)
				clean := method == "GET" && rec.Code == http.StatusPermanentRedirect
				if rec.Code != 400 && rec.Code != 403 && !clean {
					t.Errorf("%s: status %d, want 400, 403 or a redirect to the clean path", method, rec.Code)
				}
				if clean && whatwgOrigin(rec.Header().Get("Location")) != "http://app.test" {
					t.Errorf("redirected to %q", rec.Header().Get("Location"))
				}
				for _, s := range up.take() {
					t.Errorf("%s: the upstream got %q", method, s.target)
				}
			}
		})
	}
}

// The same targets with another reading in mind: whoever may see everything gets one that no upstream misreads.
func TestPathsThatPassMeanTheSameToEveryUpstream(t *testing.T) {
	up := &wire{}
	r := newRig(t, nil)
	r.UseTransport(up)
	cookie := r.signIn(t, "alice", "admins")
	passed := 0
	for _, row := range targets {
		t.Run(row.id+" "+row.target, func(t *testing.T) {
			if checkTarget(t, r, up, cookie, row.target) {
				passed++
			}
		})
	}
	if passed == 0 {
		t.Error("no target reached the upstream: nothing was compared")
	}
}

// Some spellings are refused wherever they lead, and whoever asks.
func TestPathsThatNobodyWritesAreRefused(t *testing.T) {
	up := &wire{}
	r := newRig(t, nil)
	r.UseTransport(up)
	for _, target := range []string{"/public/.;/x", "/public/a/..;/x", "/public/..;v=1", "/public/%2e;x", "/public/%2fx", "/public/%5Cx", "/public/%00", "/public/%1f", "/public/%7F", "/public/%252e", "/public/%25252e", "/public/%252fx", "/public/%255cx", "/public/%2500",
		"/public/%%32e", "/public/%25%32e", "/public/%2525252525", "/public/%ff", "/public/\xc0\xae", "/public/%zz", "/public#x", "/public?#", `/public\x`, "/auth;x/login", "/%2561uth/login", "/auth%253b/login"} {
		req, err := parse("GET " + target + " HTTP/1.1\r\nHost: app.test\r\n\r\n")
		if err != nil {
			continue
		}
		rec := httptest.NewRecorder()
		r.ServeHTTP(rec, req)
		if seen := up.take(); rec.Code != 400 || len(seen) != 0 {
			t.Errorf("%q: status %d and %d requests at the upstream, want 400", target, rec.Code, len(seen))
		}
	}
}

// A redirect to the clean path takes the query along, and what remains of the path keeps its spelling.
func TestUncleanPathsAreRedirectedWithTheirQuery(t *testing.T) {
	r := newRig(t, nil)
	for target, want := range map[string]string{"/public//a%20b?x=%2F&y": "/public/a%20b?x=%2F&y", "/public/../b/?": "/b/?", "/a/./%2e%2E/%C3%A4": "/%C3%A4", "/..": "/", "//": "/", "/a/..": "/", "/a/b/..": "/a/", "/a/b/.": "/a/b/"} {
		req, err := parse("GET " + target + " HTTP/1.1\r\nHost: app.test\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		rec := httptest.NewRecorder()
		r.ServeHTTP(rec, req)
		if got := rec.Header().Get("Location"); rec.Code != http.StatusPermanentRedirect || got != want {
			t.Errorf("%q: %d to %q, want %q", target, rec.Code, got, want)
		}
	}
}

// What is left of a path without its prefix keeps its spelling too.
func TestTheRestOfAStrippedPathKeepsItsSpelling(t *testing.T) {
	up := &wire{}
	r := newRig(t, nil)
	r.UseTransport(up)
	cookie := r.signIn(t, "alice")
	for target, want := range map[string]string{"/api/v1": "/", "/api/v1/": "/", "/api/v1/a%2Cb/%7e?x": "/a%2Cb/%7e?x", "/%61pi/v1/x": "/x", "/api/v1/api/v1": "/api/v1", "/api/v1?": "/?"} {
		req, err := parse("GET " + target + " HTTP/1.1\r\nHost: app.test\r\nCookie: " + cookie + "\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		r.ServeHTTP(httptest.NewRecorder(), req)
		if seen := up.take(); len(seen) != 1 || seen[0].target != want {
			t.Errorf("%q: the upstream got %d requests, want one for %q", target, len(seen), want)
		}
	}
}

// What is plain passes as it came.
func TestOrdinaryPathsReachTheUpstreamAsTheyCame(t *testing.T) {
	up := &wire{}
	r := newRig(t, nil)
	r.UseTransport(up)
	cookie := r.signIn(t, "alice", "admins")
	for _, target := range []string{"/", "/a", "/a/", "/a%20b?x=%2F&y=a;b", "/100%25", "/a%3Fb%23c", "/~a.b-c_d+e", "/.well-known/x", "/a...b/..c/d..", "/%C3%A4", "/a;v=1/b", "/a:b@c!$&'()*,=", "/a?", "/a??", "/AC%EF%BC%8FDC", "/x%252561", "/public/file%2561",
		"/api/v1../admin/s", "/api/v1%2e%2e/admin/s", "/apiadmin/s"} { // PTH-07: names that only look like it
		if !checkTarget(t, r, up, cookie, target) {
			t.Errorf("%q did not pass", target)
			continue
		}
		req, _ := parse("GET " + target + " HTTP/1.1\r\nHost: app.test\r\nCookie: " + cookie + "\r\n\r\n")
		r.ServeHTTP(httptest.NewRecorder(), req)
		if s := up.take(); len(s) != 1 || s[0].target != target {
			t.Errorf("%q arrived as %q", target, s[0].target)
		}
	}
}

// PTH-32: long and deep paths cost no more than their length.
func TestPTH32LongAndDeepPathsAreAnsweredInTheTimeOfTheirLength(t *testing.T) {
	r := newRig(t, nil)
	for name, raw := range map[string]string{
		"dots":                   "/" + strings.Repeat("../", 20_000),
		"encoded dots":           "/" + strings.Repeat("%2e%2e%2f", 7_000),
		"an encoded percent":     "/%" + strings.Repeat("25", 30_000),
		"many encoded percents":  "/" + strings.Repeat("%25", 20_000),
		"nested encoded letters": "/" + strings.Repeat("%252561", 9_000),
		"parameters":             "/" + strings.Repeat(";/", 30_000),
		"slashes":                strings.Repeat("/", 60_000),
		"segments":               "/" + strings.Repeat("a/", 30_000),
		"full-width slashes":     "/" + strings.Repeat("／", 20_000),
	} {
		t.Run("PTH-32 "+name, func(t *testing.T) {
			req := httptest.NewRequest("GET", "http://app.test/", nil)
			req.RequestURI = raw
			best := time.Hour
			for range 3 { // the machine may be busy
				start := time.Now()
				r.Read(req)
				best = min(best, time.Since(start))
			}
			if best > time.Second { // 50 ms where nothing else runs
				t.Errorf("%d bytes took %v, want 50 ms at most", len(raw), best)
			}
		})
	}
}

// A path of one route cannot be spelled so that it counts as one above it.
func TestBelowComparesWholeSegments(t *testing.T) {
	for _, row := range []struct {
		path, root string
		want       bool
	}{
		{"/admin", "/admin", true}, {"/admin/", "/admin", true}, {"/admin/x", "/admin", true}, {"/administrator", "/admin", false},
		{"/admin.", "/admin", false}, {"/Admin", "/admin", false}, {"/", "/", true}, {"/x", "/", true}, {"/x", "", true}, {"/a/bc", "/a/b", false}, {"/a", "/a/b", false},
	} {
		if got := proxy.Below(row.path, row.root); got != row.want {
			t.Errorf("Below(%q, %q) = %v, want %v", row.path, row.root, got, row.want)
		}
	}
}

// Cleaning is done once: a clean path is clean.
func FuzzCleanPath(f *testing.F) {
	for _, row := range targets {
		f.Add(row.target)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if !strings.HasPrefix(raw, "/") || strings.ContainsAny(raw, "?# ") {
			return
		}
		p, err := proxy.CleanPath(raw)
		var unclean *proxy.UncleanError
		switch {
		case err == nil && p != once(raw):
			t.Errorf("CleanPath(%q) = %q, want %q", raw, p, once(raw))
		case err == nil && path.Clean(p) != strings.TrimSuffix(p, "/") && p != "/":
			t.Errorf("CleanPath(%q) = %q, which is not clean", raw, p)
		case err != nil && p != "":
			t.Errorf("CleanPath(%q) = %q and %v", raw, p, err)
		case errors.As(err, &unclean):
			again, err := proxy.CleanPath(unclean.Clean())
			if err != nil {
				t.Errorf("%q is cleaned to %q, which is refused: %v", raw, unclean.Clean(), err)
			}
			if want := path.Clean(once(raw)); strings.TrimSuffix(again, "/") != strings.TrimSuffix(want, "/") {
				t.Errorf("%q is cleaned to %q, want %q", raw, again, want)
			}
		}
	})
}

// FWD-10, FWD-14: hosts.
func TestHostsAreThoseOfTheConfigurationOrRefused(t *testing.T) {
	up := &wire{}
	r := newRig(t, func(o *proxy.Options) {
		o.Routes = append([]proxy.Route{{Host: "admin.app.test", Path: "/", Policy: &policy.Policy{Anyone: true}}}, o.Routes...)
	})
	r.UseTransport(up)
	for _, row := range []struct{ id, host, route string }{
		{"FWD-10", "app.test", "/public"}, {"FWD-10", "APP.test", "/public"}, {"FWD-10", "app.test:80", "/public"}, {"FWD-10", "Admin.App.Test", "admin.app.test/"},
		{"FWD-10", "app.test.", ""}, {"FWD-10", "app.test:443", ""}, {"FWD-10", "app.test:", ""}, {"FWD-10", "app.test:080", ""}, {"FWD-10", "admin。app.test", ""},
		{"FWD-10", "app.test%00", ""}, {"FWD-10", "admin%2eapp.test", ""}, {"FWD-10", "ａdmin.app.test", ""},
		{"FWD-14", "evil.test", ""}, {"FWD-14", "app.test@evil.test", ""}, {"FWD-14", "evil.test#app.test", ""}, {"FWD-14", "app.test,evil.test", ""},
		{"FWD-14", "..", ""}, {"FWD-14", "192.0.2.1", ""}, {"FWD-14", "[::1]", ""}, {"FWD-26", "", ""}, {"FWD-14", "app.test/..", ""}, {"FWD-14", "app.test\\", ""},
	} {
		t.Run(row.id+" "+row.host, func(t *testing.T) {
			for _, accept := range []string{"text/html", "application/json"} {
				req := httptest.NewRequest("GET", "/public/x", nil)
				req.Host = row.host
				req.Header.Set("Accept", accept)
				rec := httptest.NewRecorder()
				r.ServeHTTP(rec, req)
				seen := up.take()
				if row.route != "" {
					if got, err := r.Read(req); len(seen) != 1 || got.Route != row.route {
						t.Errorf("%d requests at the upstream, judged by %q (%v), want %q", len(seen), got.Route, err, row.route)
					}
					continue
				}
				location := rec.Header().Get("Location")
				if len(seen) != 0 || rec.Code != 400 && rec.Code != 421 && rec.Code != 308 {
					t.Errorf("status %d and %d requests at the upstream, want 400, 421 or a redirect", rec.Code, len(seen))
				}
				if rec.Code == 308 && (accept != "text/html" || location != "http://app.test/public/x") {
					t.Errorf("redirected to %q", location)
				}
			}
		})
	}
}

// A host has one form, with the default port or without it.
func FuzzCanonicalHost(f *testing.F) {
	for _, host := range []string{"app.test", "APP.test:443", "[::1]:443", "[::1]", "a:80:443", "::1:443", ":443", "app.test:", "app.test:443:443", "ü"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		got, err := proxy.CanonicalHost(host, "https")
		if err != nil {
			if got != "" || host != "" && strings.Trim(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]") == "" {
				t.Errorf("%q: %q, %v", host, got, err)
			}
			return
		}
		want := strings.ToLower(host)
		if name, port, err := net.SplitHostPort(want); err == nil && port == "443" {
			if want = name; strings.Contains(name, ":") {
				want = "[" + name + "]"
			}
		}
		if got != want && !strings.ContainsAny(host, "[]") { // with brackets at odd places it is no host that we serve
			t.Errorf("%q is canonically %q, want %q", host, got, want)
		}
	})
}

// PTH-23 over HTTP/2, where nothing makes the authority of a target in absolute-form that of the request.
func TestPTH23TheTargetNamesTheHostThatIsJudged(t *testing.T) {
	r := newRig(t, nil)
	for target, want := range map[string]int{"http://app.test/public/x": 0, "http://evil.test/public/x": 400, "http://app.test:81/public/x": 400, "https://app.test:443/public": 400, "http://admin@app.test/public": 400} {
		req, err := http.NewRequest("GET", target, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.RequestURI, req.Host, req.Proto, req.ProtoMajor = target, "app.test", "HTTP/2.0", 2
		_, err = r.Read(req)
		if want == 0 && err != nil || want != 0 && !proxy.IsRefusal(err, want) {
			t.Errorf("%s: %v, want status %d", target, err, want)
		}
	}
}

// Express, ASP.NET and others serve /Admin as /admin, and /root/ as /root: what protects the one protects the other.
func TestAPathThatAppsTakeForAnotherNeedsBothPermissions(t *testing.T) {
	w := newWorld(t, setup{options: func(o *proxy.Options) {
		admins := &policy.Policy{Entries: []policy.Entry{{Groups: []string{"admins"}}}}
		o.Routes = append(o.Routes, proxy.Route{Path: "/root", Exact: true, Policy: admins}, proxy.Route{Path: "/Upper", Policy: admins})
	}})
	bob, ada := w.signedIn(t, "bob"), w.signedIn(t, "ada")
	for path, want := range map[string]int{"/Admin/s": 403, "/ADMIN": 403, "/%41dmin/s": 403, "/root/": 403, "/ROOT/": 403, "/upper/x": 403, "/Upper/x": 403,
		"/ADMIN;x": 403, "/Admin%3Bx": 403, "/ADMIN;x=1/y": 403,
		"/X/y": 200, "/roots/": 200, "/x/": 200, "/Adminx": 200, "/root/below": 200} {
		bob.send("GET", path, "").wants(t, want)
		ada.send("GET", path, "").wants(t, 200)
	}
	// A public path in another spelling is public nowhere.
	w.newBrowser(t).send("GET", "/PUBLIC/x", "").wants(t, 401)
	w.newBrowser(t).send("GET", "/public/X", "").wants(t, 200)
	e, err := w.proxy.Explain("GET", "/Admin/s", &identity.Identity{Issuer: "i", Subject: "bob"})
	if err != nil || e.Decision.Allowed || !strings.Contains(strings.Join(e.Steps, "\n"), "ignores case") {
		t.Errorf("Explain = %+v, %v", e, err)
	}
}
