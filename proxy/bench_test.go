package proxy_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"authproxy/policy"
	"authproxy/proxy"
)

// browserRequest is what a browser sends for a page's script: 15 headers, and cookies beside the session's.
func browserRequest(tb testing.TB, target, session string) *http.Request {
	tb.Helper()
	r, err := parse("GET " + target + " HTTP/1.1\r\nHost: app.test\r\n" + strings.Join([]string{
		"Accept: application/json, text/plain, */*", "Accept-Encoding: gzip, deflate, br, zstd", "Accept-Language: en-GB,en;q=0.9,de;q=0.8", "Cache-Control: no-cache",
		"Connection: keep-alive", "Cookie: theme=dark; " + session + "; _ga=GA1.1.1234567890.1234567890; lang=en", "Pragma: no-cache", "Referer: http://app.test/items",
		`Sec-Ch-Ua: "Chromium";v="140", "Not=A?Brand";v="24"`, "Sec-Ch-Ua-Mobile: ?0", `Sec-Ch-Ua-Platform: "Linux"`, "Sec-Fetch-Dest: empty", "Sec-Fetch-Mode: cors", "Sec-Fetch-Site: same-origin",
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
	}, "\r\n") + "\r\n\r\n")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // as a server's
	tb.Cleanup(cancel)
	return r.WithContext(ctx)
}

// instant is an upstream that answers at once.
type instant struct{}

var instantHeader = http.Header{"Content-Type": {"application/json"}, "Content-Length": {"2"}, "Date": {"Mon, 02 Jan 2006 15:04:05 GMT"}}

func (instant) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: instantHeader.Clone(), ContentLength: 2, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
}

// pool lends buffers, as ours does.
type pool struct{ sync.Pool }

func (p *pool) Get() []byte {
	if b, ok := p.Pool.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 32<<10)
}

func (p *pool) Put(b []byte) { p.Pool.Put(&b) }

// sink is a ResponseWriter that costs nothing.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }

func benchRig(b *testing.B, change func(*proxy.Options)) (*rig, *http.Request) {
	r := newRig(b, func(o *proxy.Options) {
		o.Log = slog.New(slog.NewJSONHandler(io.Discard, nil))
		if change != nil {
			change(o)
		}
	})
	r.UseTransport(instant{})
	return r, browserRequest(b, "/items/17?page=2", r.signIn(b, "auth0|65f0a1ada0000000000000a1", "admins", "staff"))
}

// Each step of the request path by itself.
func BenchmarkStep(b *testing.B) {
	r, req := benchRig(b, nil)
	s := r.Begin(req)
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	must(s.Locate())
	must(s.Match())
	must(s.Authenticate())
	if !s.Decide() {
		b.Fatal("denied")
	}
	must(s.Identity(http.Header{}))

	step := func(name string, f func()) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
	step("locate", func() { s.Locate() })
	for _, target := range []string{"/items/17", "/items/a%20b/%C3%A4", "/items;v=1/100%25"} {
		step("path "+target, func() { proxy.CleanPath(target) })
	}
	for _, target := range []string{"/items/a%20b/%C3%A4", "/items;v=1/x", "/items/100%25"} {
		s := r.Begin(browserRequest(b, target, ""))
		must(s.Locate())
		step("match "+target, func() { s.Match() })
	}
	step("cookie found", func() { proxy.CookieValues(req.Header, "authproxy") })
	step("cookies stripped", func() {
		h := http.Header{"Cookie": req.Header["Cookie"]}
		proxy.Strip("authproxy", h)
	})
	step("header filter", func() {
		h := req.Header.Clone()
		r.CleanRequest(h)
	})
	step("header clone, for comparison", func() { req.Header.Clone() })
	step("authenticate", func() { s.Authenticate() })
	step("decide", func() { s.Decide() })
	h := make(http.Header, 16)
	step("identity headers", func() { s.Identity(h) })
	step("log", func() { s.Log() })
	step("return_to", func() { r.ReturnTo("/items/17?page=2&q=a%20b#top") })
}

// The route is found among many; the last one matches.
func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r, req := benchRig(b, func(o *proxy.Options) {
				o.Routes = nil
				for i := range n - 1 {
					o.Routes = append(o.Routes, proxy.Route{Path: fmt.Sprintf("/items%d", i), Policy: &policy.Policy{SignedIn: true}})
				}
				o.Routes = append(o.Routes, proxy.Route{Path: "/items", Policy: &policy.Policy{SignedIn: true}})
			})
			s := r.Begin(req)
			if err := s.Locate(); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Match(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The whole request path, beside an httputil.ReverseProxy that does nothing but forward: the difference is what we cost.
func BenchmarkServeHTTP(b *testing.B) {
	r, req := benchRig(b, nil)
	quiet, quietReq := benchRig(b, func(o *proxy.Options) { o.Log = nil })
	transport := new(http.Transport)
	transport.RegisterProtocol("http", instant{})
	bare := &httputil.ReverseProxy{Transport: transport, BufferPool: new(pool), Rewrite: func(pr *httputil.ProxyRequest) {
		pr.SetURL(&url.URL{Scheme: "http", Host: "upstream.test"})
		pr.SetXForwarded()
	}}
	var base float64
	for _, c := range []struct {
		name string
		h    http.Handler
		req  *http.Request
		want int
	}{
		{"bare", bare, browserRequest(b, "/items/17?page=2", "x=y"), 200},
		{"signed in", r, req, 200},
		{"signed in, without a log", quiet, quietReq, 200},
		{"public", r, browserRequest(b, "/public/x", "x=y"), 200},
		{"anonymous", r, browserRequest(b, "/items", "x=y"), 401},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			w := &sink{header: make(http.Header, 16)}
			for b.Loop() {
				clear(w.header)
				c.h.ServeHTTP(w, c.req)
			}
			if w.status != c.want {
				b.Fatalf("status %d, want %d", w.status, c.want)
			}
			per := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
			if c.name == "bare" {
				base = per
			} else if base > 0 {
				b.ReportMetric(per/base, "x-bare")
			}
		})
	}
}

// The same for one user's many requests at once.
func BenchmarkServeHTTPParallel(b *testing.B) {
	r, req := benchRig(b, nil)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		req, w := req.Clone(req.Context()), httptest.NewRecorder()
		for pb.Next() {
			clear(w.Header())
			w.Body.Reset()
			r.ServeHTTP(w, req)
		}
	})
}
