package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"authproxy/identity"
)

// What Explain says about a request is what happens to it.
func FuzzExplainSaysWhatServeHTTPDoes(f *testing.F) {
	for _, row := range targets {
		f.Add("GET", row.target, "bob")
	}
	for _, target := range []string{"/", "/public/x", "/admin/x", "/api/v1/x?y", "/exact", "/exact/", "/auth/", "/auth/x", "/x;y", "/admin;y"} {
		for _, subject := range []string{"", "alice", "bob"} {
			f.Add("POST", target, subject)
		}
	}
	r := newRig(f, nil)
	up := &wire{}
	r.UseTransport(up)
	cookies := map[string]string{"alice": r.signIn(f, "alice", "admins"), "bob": r.signIn(f, "bob", "staff")}
	who := map[string]*identity.Identity{
		"":      identity.Anonymous,
		"alice": {Issuer: rigIssuer, Subject: "alice", Groups: []string{"admins"}},
		"bob":   {Issuer: rigIssuer, Subject: "bob", Groups: []string{"staff"}},
	}
	f.Fuzz(func(t *testing.T, method, target, subject string) {
		ident := who[subject]
		if ident == nil || !strings.HasPrefix(target, "/") || method == "CONNECT" || method == "TRACE" {
			return
		}
		head := method + " " + target + " HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n"
		if subject != "" {
			head += "Cookie: " + cookies[subject] + "\r\n"
		}
		req, err := parse(head + "\r\n")
		if err != nil || req.RequestURI != target || req.Method != method {
			return
		}
		rec := httptest.NewRecorder()
		r.ServeHTTP(rec, req)
		passed := len(up.take()) > 0
		said, err := r.Explain(method, "http://app.test"+target, ident)
		switch {
		case err != nil:
			if passed || rec.Code != 400 && rec.Code != http.StatusPermanentRedirect && rec.Code != 404 {
				t.Errorf("%s %s: status %d, but Explain says: %v", method, target, rec.Code, err)
			}
		case said.Route == "authproxy":
			if passed {
				t.Errorf("%s %s: passed, but Explain says that it is ours", method, target)
			}
		case said.Decision.Allowed != passed || !passed && rec.Code != 401 && rec.Code != 403:
			t.Errorf("%s %s as %q: status %d, passed %v, but Explain says %+v", method, target, subject, rec.Code, passed, said.Decision)
		default:
			if read, _ := r.Read(req); read.Route != said.Route || read.Path != said.Path {
				t.Errorf("%s %s is %+v, but Explain says %s, %s", method, target, read, said.Route, said.Path)
			}
		}
	})
}

func TestExplainRefusesWhatIsNoURLOfOurs(t *testing.T) {
	r := redirectRig(t)
	for _, ref := range []string{"", "app.test/x", "http://evil.test/", "https://app.test/", "http://u@app.test/", "http://app.test:81/", "http://app.test/%2f", "http://app.test/a/../b", "http://app.test/#x", "ftp://app.test/", "http://app.test/\x00"} {
		if e, err := r.Explain("GET", ref, identity.Anonymous); err == nil {
			t.Errorf("%q: %+v, want an error", ref, e)
		}
	}
	for ref, route := range map[string]string{"http://app.test": "/", "http://APP.test:80/admin": "/admin", "http://wiki.app.test/admin": "wiki.app.test/", "http://app.test/auth/login": "authproxy", "http://app.test/public?x#": ""} {
		e, err := r.Explain("GET", ref, identity.Anonymous)
		if route == "" {
			if err == nil {
				t.Errorf("%q: %+v, want an error", ref, e)
			}
			continue
		}
		if err != nil || e.Route != route {
			t.Errorf("%q: %+v, %v, want route %s", ref, e, err, route)
		}
	}
}
