package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"authproxy/policy"
	"authproxy/proxy"
)

// whatwgOrigin is the origin that a browser on a page of http://app.test goes to for ref: what the URL standard's parser
// (url.spec.whatwg.org, basic URL parser) does with schemes, slashes and hosts, and "null" where that is no http origin.
func whatwgOrigin(ref string) string {
	const base = "http://app.test"
	ref = strings.Trim(ref, "\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\v\f\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f ")
	ref = strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(ref)
	slash := func(s string) bool { return s != "" && (s[0] == '/' || s[0] == '\\') }

	scheme, rest, absolute := "http", ref, false
	if i := strings.IndexFunc(ref, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '-' || c == '.')
	}); i > 0 && ref[i] == ':' && !strings.ContainsRune("0123456789+-.", rune(ref[0])) {
		scheme, rest, absolute = strings.ToLower(ref[:i]), ref[i+1:], true
	}
	switch {
	case scheme != "http" && scheme != "https" && scheme != "ws" && scheme != "wss" && scheme != "ftp":
		return "null" // opaque, or a file
	case absolute && scheme == "http" && !strings.HasPrefix(rest, "//"): // "special relative or authority"
		if !slash(rest) || !slash(rest[1:]) {
			return base
		}
	case !absolute && (!slash(rest) || !slash(rest[1:])):
		return base
	}
	rest = strings.TrimLeft(rest, `/\`)
	if end := strings.IndexAny(rest, `/\?#`); end >= 0 {
		rest = rest[:end]
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = rest[at+1:]
	}
	host := strings.ToLower(once(rest))
	host = strings.NewReplacer("。", ".", "．", ".", "｡", ".").Replace(host)
	switch scheme {
	case "http", "ws":
		host = strings.TrimSuffix(strings.TrimSuffix(host, ":80"), ":")
	case "https", "wss":
		host = strings.TrimSuffix(strings.TrimSuffix(host, ":443"), ":")
	}
	return scheme + "://" + host
}

// The resolver is what the redirect properties stand on, so it is tested itself.
func TestTheURLResolverOfTheseTestsReadsLikeABrowser(t *testing.T) {
	for ref, want := range map[string]string{
		"": "http://app.test", "/x": "http://app.test", "x": "http://app.test", "?x": "http://app.test", "//evil.test/x": "http://evil.test", `/\evil.test`: "http://evil.test",
		`\\evil.test`: "http://evil.test", "/\t/evil.test": "http://evil.test", "  //evil.test": "http://evil.test", "http:evil.test": "http://app.test", "http:/evil.test": "http://app.test",
		"https:evil.test": "https://evil.test", "https:/evil.test": "https://evil.test", "http://app.test@evil.test/": "http://evil.test", `http://evil.test\@app.test`: "http://evil.test",
		"http:////evil.test": "http://evil.test", "JaVa\tScript:alert(1)": "null", "data:x": "null", "HTTP://APP.TEST:80/": "http://app.test", "//evil。test": "http://evil.test", "///evil.test": "http://evil.test",
	} {
		if got := whatwgOrigin(ref); got != want {
			t.Errorf("%q leads to %s, want %s", ref, got, want)
		}
	}
}

// redirectRig serves app.test and wiki.app.test, which share the session.
func redirectRig(tb testing.TB) *rig {
	return newRig(tb, func(o *proxy.Options) {
		o.Routes = append([]proxy.Route{{Host: "wiki.app.test", Path: "/", Policy: &policy.Policy{SignedIn: true}}}, o.Routes...)
	})
}

var ownOrigins = []string{"http://app.test", "http://wiki.app.test"}

// checkReturnTo is property P5 for one return_to, and for every redirect that it comes to.
func checkReturnTo(t *testing.T, r *rig, ref string) {
	t.Helper()
	to := r.ReturnTo(ref)
	for _, location := range []string{to, r.Absolute(to)} {
		if o := whatwgOrigin(location); !slices.Contains(ownOrigins, o) {
			t.Errorf("return_to %q becomes %q, which leads to %s", ref, location, o)
		}
		if strings.ContainsFunc(location, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '\\' }) {
			t.Errorf("return_to %q becomes %q, which not every program reads alike", ref, location)
		}
		if u, err := url.Parse(location); err != nil || u.User != nil || u.Opaque != "" || u.Host != "" && !slices.Contains(ownOrigins, u.Scheme+"://"+u.Host) {
			t.Errorf("return_to %q becomes %q, which net/url reads as %v, %v", ref, location, u, err)
		}
	}
	if again := r.ReturnTo(to); again != to {
		t.Errorf("return_to %q becomes %q and then %q", ref, to, again)
	}
	if len(to) > proxy.MaxReturnTo {
		t.Errorf("return_to of %d bytes becomes one of %d", len(ref), len(to))
	}
	for _, target := range []string{"/auth/logout?return_to=" + url.QueryEscape(ref), "/auth/logout?return_to=" + ref} {
		req, err := parse("GET " + target + " HTTP/1.1\r\nHost: app.test\r\nSec-Fetch-Site: same-origin\r\n\r\n")
		if err != nil {
			continue
		}
		rec := httptest.NewRecorder()
		r.ServeHTTP(rec, req)
		location := rec.Header().Get("Location")
		if location != "" && !slices.Contains(ownOrigins, whatwgOrigin(location)) {
			t.Errorf("signing out with return_to %q redirects to %q", ref, location)
		}
	}
}

// P5 of the corpus: whatever the return_to, a browser stays on our hosts.
func FuzzReturnTo(f *testing.F) {
	for _, row := range redirects {
		f.Add(row.ref)
	}
	for _, s := range []string{"/x?y=1#z", "http://app.test/x", "http://wiki.app.test:80?x", "http://wiki.app.test#/x", "HTTP://APP.TEST", "http://app.test:80/a//b", "/a?//evil.test", "/a#//evil.test", "/auth/sessions", "/%61uth/logout"} {
		f.Add(s)
	}
	r := redirectRig(f)
	f.Fuzz(func(t *testing.T, ref string) { checkReturnTo(t, r, ref) })
}

// redirects are inputs of the corpus, of which none may lead away.
var redirects = []struct{ id, ref string }{
	{"RED-01", `/\evil.test`}, {"RED-01", "/%5cevil.test"}, {"RED-01", `\/evil.test`}, {"RED-01", `\\evil.test`}, {"RED-01", `https:\\evil.test`}, {"RED-01", `/\/evil.test`},
	{"RED-02", "/%09/evil.test"}, {"RED-02", "/\t/evil.test"}, {"RED-02", "/\v/evil.test"}, {"RED-02", "/\n/evil.test"}, {"RED-02", "/\r/evil.test"}, {"RED-02", "/ /evil.test"}, {"RED-02", " //evil.test"}, {"RED-02", "\x00//evil.test"},
	{"RED-04", `/./\evil.test`}, {"RED-04", `/./../../\evil.test`}, {"RED-04", "/.//evil.test"}, {"RED-04", "/x/..//evil.test"}, {"RED-04", "/%2e%2e//evil.test"},
	{"RED-05", "http://evilapp.test/"}, {"RED-05", "http://app.test.evil.test"}, {"RED-05", "http://evil-app.test"}, {"RED-05", "http://app.testevil.test"}, {"RED-05", "http://app.test.evil"}, {"RED-05", "http://x.app.test/"},
	{"RED-07", "http://app.test@evil.test"}, {"RED-07", "http://app.test:x@evil.test"}, {"RED-07", "http://app.test%40evil.test"}, {"RED-07", "http://evil.test#@app.test"}, {"RED-07", `http://evil.test\@app.test`}, {"RED-07", "http://evil.test?@app.test"}, {"RED-07", "http://user@app.test/x"},
	{"RED-08", "javascript:alert(1)"}, {"RED-08", "JaVa\tScript:alert(1)"}, {"RED-08", "data:text/html,x"}, {"RED-08", "vbscript:x"}, {"RED-08", "http:evil.test"}, {"RED-08", "https:evil.test"}, {"RED-08", "http:/evil.test"}, {"RED-08", "blob:http://app.test/x"}, {"RED-08", "intent://x"}, {"RED-08", "app.test://x"},
	{"RED-14", "%2f%2fevil.test"}, {"RED-14", "%252f%252fevil.test"}, {"RED-14", "/%2fevil.test"}, {"RED-14", "https%3a%2f%2fevil.test"}, {"RED-14", "/%255cevil.test"},
	{"RED-19", "http://app。test.evil.test"}, {"RED-19", "http://ａpp.test"}, {"RED-19", "//〱evil.test"}, {"RED-19", "http://evil.test／.app.test"}, {"RED-19", "http://ⓔvil.test"}, {"RED-19", "http://app.test\u200b.evil.test"},
	{"RED-20", "http://[app.test]/"}, {"RED-20", "http://[::1%25.app.test]/"}, {"RED-20", "http://[::1].app.test/"}, {"RED-20", "http://[v1.x]/"},
	{"RED-22", "/auth/../auth/logout"}, {"RED-22", "/x/..%2fauth/logout"}, {"RED-22", "/auth/logout"}, {"RED-22", "/%61uth/login"}, {"RED-22", "http://app.test/auth/callback?code=x"},
	{"RED-23", "/" + strings.Repeat("x", 16<<10)}, {"FWD-22", "//evil.test"}, {"RED-10", "evil://x"}, {"RED-08", "https://app.test/x"}, {"RED-08", "ftp://app.test/x"}, {"RED-01", `/x?\evil.test`}, {"RED-01", `/x#\evil.test`},
	{"RED-20", "/x#%"},
}

func TestReturnToThatLeadsAwayIsReplaced(t *testing.T) {
	r := redirectRig(t)
	for _, row := range redirects {
		t.Run(row.id+" "+row.ref[:min(len(row.ref), 60)], func(t *testing.T) {
			checkReturnTo(t, r, row.ref)
			if to := r.ReturnTo(row.ref); to != "/" {
				t.Errorf("return_to %q becomes %q, want /", row.ref, to)
			}
		})
	}
}

// RED-11, RED-10: redirects that the target of a request itself can cause.
func TestRedirectsToTheCleanPathOrTheRightHostStayWithUs(t *testing.T) {
	r := redirectRig(t)
	for _, row := range redirects {
		for _, host := range []string{"app.test", "evil.test"} {
			req, err := parse("GET " + row.ref + " HTTP/1.1\r\nHost: " + host + "\r\nAccept: text/html\r\n\r\n")
			if err != nil {
				continue
			}
			rec := httptest.NewRecorder()
			_, err = r.Read(req)
			if !proxy.IsRefusal(err, http.StatusPermanentRedirect) {
				continue
			}
			r.ServeHTTP(rec, req)
			if location := rec.Header().Get("Location"); !slices.Contains(ownOrigins, whatwgOrigin(location)) {
				t.Errorf("%s %s of %s redirects to %q", row.id, row.ref, host, location)
			}
		}
	}
}

// What stays with us comes back as it was, whatever it means to the app (FWD-23).
func TestReturnToOfOurHostsIsKept(t *testing.T) {
	r := redirectRig(t)
	for ref, want := range map[string]string{
		"/a?x=1&rd=https://evil.test&y=2": "/a?x=1&rd=https://evil.test&y=2", "/a#b?c": "/a#b?c", "/a?": "/a?", "/": "/", "/auth/": "/auth/", "/auth/sessions": "/auth/sessions", "/authors": "/authors",
		"http://app.test/x?y#z": "/x?y#z", "http://app.test": "/", "http://app.test?x": "/?x", "http://APP.test:80#x": "/#x", "HTTP://app.test/x": "/x",
		"http://wiki.app.test/x": "http://wiki.app.test/x", "http://wiki.app.test": "http://wiki.app.test/", "/%C3%A4/a%20b": "/%C3%A4/a%20b", "/a;b=1": "/a;b=1",
	} {
		if got := r.ReturnTo(ref); got != want {
			t.Errorf("return_to %q becomes %q, want %q", ref, got, want)
		}
	}
}

// The same through a whole login, and where it was begun by opening a page.
func TestNoLoginLeadsAway(t *testing.T) {
	w := newWorld(t, setup{})
	for _, row := range redirects {
		if len(row.ref) > 4000 || strings.ContainsRune(row.ref, 0) {
			continue
		}
		t.Run(row.id+" "+row.ref, func(t *testing.T) {
			b := w.newBrowser(t)
			for _, name := range []string{"return_to", "target_link_uri"} {
				reply := b.back(b.login("/auth/login?" + name + "=" + url.QueryEscape(row.ref)))
				if location := reply.Header.Get("Location"); location != w.origin+"/" {
					t.Errorf("%s: a login with %s redirects to %q", reply.Status, name, location)
				}
			}
			if callback := b.navigate("/auth/callback?code=x&state=" + url.QueryEscape(row.ref)).Header.Get("Location"); callback != "" && !slices.Contains(ownOrigins, whatwgOrigin(callback)) {
				t.Errorf("a callback with that state redirects to %q", callback)
			}
		})
	}
}
