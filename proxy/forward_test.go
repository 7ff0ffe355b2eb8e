package proxy_test

import (
	"bufio"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authproxy/assertion"
	"authproxy/policy"
	"authproxy/proxy"
)

// open is a setup in which everything is for anyone, so that a test can be about forwarding alone.
func open(change func(*proxy.Options)) setup {
	return setup{options: func(o *proxy.Options) {
		o.Routes = append(o.Routes, proxy.Route{Path: "/", Policy: &policy.Policy{Anyone: true}})
		if change != nil {
			change(o)
		}
	}}
}

// send makes a request that the harness has no words for.
func (w *world) send(t testing.TB, r *http.Request) *http.Response {
	t.Helper()
	tr := w.transport()
	t.Cleanup(tr.CloseIdleConnections)
	res, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

// raw sends bytes and reads one answer to a request with that method.
func (w *world) raw(t testing.TB, method, bytes string) (*http.Response, *bufio.Reader) {
	t.Helper()
	c := w.dial(t)
	if _, err := io.WriteString(c, bytes); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%.60q is answered with no response: %v", bytes, err)
	}
	return res, br
}

// within waits for what must happen.
func within(t testing.TB, what string, happened <-chan struct{}) {
	t.Helper()
	select {
	case <-happened:
	case <-time.After(patience):
		t.Fatalf("%s did not happen", what)
	}
}

func TestARequestReachesTheUpstreamAsItCame(t *testing.T) {
	w := newWorld(t, open(nil))
	var body string
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) { body = read(&http.Response{Body: r.Body}) })
	for _, c := range []struct{ method, target, body string }{
		{"GET", "/a%20b/c;d=1?q=%zz&x=1;y=2&&z", ""}, {"POST", "/caf%C3%A9?", "hello"}, {"PUT", "/x?%00", "x"}, {"PATCH", "/x?a=%2F..%2F", ""}, {"DELETE", "/x", "body"}, {"OPTIONS", "/x", ""}, {"PROPFIND", "/x", ""},
	} {
		res, _ := w.raw(t, c.method, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: app.test\r\nContent-Length: %d\r\nX-Mine: a\r\nX-Mine: b\r\nTe: trailers\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\n%s", c.method, c.target, len(c.body), c.body))
		if res.StatusCode != 200 {
			t.Fatalf("%s %s answers %s", c.method, c.target, res.Status)
		}
		got := w.upstream.last(t)
		if got.Method != c.method || got.Target != c.target || body != c.body || got.Host != "app.test" {
			t.Errorf("%s %s %q came as %s %s %q for %s", c.method, c.target, c.body, got.Method, got.Target, body, got.Host)
		}
		if !slices.Equal(got.Header["X-Mine"], []string{"a", "b"}) || got.Header.Get("X-Hop") != "" {
			t.Errorf("%s %s: the headers came as %v", c.method, c.target, got.Header)
		}
	}
}

func TestTheUpstreamIsToldWhereTheRequestCameFrom(t *testing.T) {
	claims := []string{"X-Forwarded-For", "192.0.2.9", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "app.test", "Forwarded", "for=1.2.3.4", "X-Real-Ip", "1.2.3.4", "X-Request-Id", "mine"}
	for _, c := range []struct {
		name    string
		trusted bool
		want    map[string]string
		client  string
	}{
		{"a stranger", false, map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "app.test"}, "127.0.0.1"},
		{"a trusted proxy", true, map[string]string{"X-Forwarded-For": "192.0.2.9, 127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "app.test"}, "192.0.2.9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, open(func(o *proxy.Options) {
				if c.trusted {
					o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
				}
			}))
			host := "http://app.test"
			if c.trusted {
				host = "http://other.test" // X-Forwarded-Host names ours
			}
			w.newBrowser(t).fetch("GET", host+"/from", "", claims...).wants(t, 200)
			h := w.upstream.last(t).Header
			for name, want := range c.want {
				if got := h[name]; len(got) != 1 || got[0] != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if h.Get("Forwarded") != "" || h.Get("X-Real-Ip") != "" {
				t.Errorf("the claims of the client came through: %v", h)
			}
			e := w.log.request(t, "/from")
			if h.Get("X-Request-Id") != e["request_id"] || h.Get("X-Request-Id") == "mine" || e["client_ip"] != c.client || e["host"] != "app.test" {
				t.Errorf("X-Request-Id is %q; the log says %v", h.Get("X-Request-Id"), e)
			}
		})
	}
}

func TestATrustedProxyThatContradictsItselfIsRefused(t *testing.T) {
	for _, trusted := range []bool{true, false} {
		w := newWorld(t, open(func(o *proxy.Options) {
			if trusted {
				o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			}
		}))
		for _, h := range []http.Header{
			{"X-Forwarded-Proto": {"http", "https"}}, {"X-Forwarded-Proto": {"http,https"}}, {"X-Forwarded-Proto": {"ftp"}}, {"X-Forwarded-Proto": {"HTTPS"}},
			{"X-Forwarded-Host": {"app.test", "evil.test"}}, {"X-Forwarded-Host": {"app.test, evil.test"}}, {"X-Forwarded-Host": {"app.test/evil"}}, {"X-Forwarded-Host": {"a@app.test"}},
		} {
			r := w.newRequest("GET", "/x")
			r.Header = h
			want := 200
			if trusted {
				want = 400
			}
			if res := w.send(t, r); res.StatusCode != want {
				t.Errorf("%v, trusted %t: %s, want %d", h, trusted, res.Status, want)
			}
		}
		if asked := w.upstream.requests(); trusted && len(asked) > 0 {
			t.Errorf("the upstream was asked %d times", len(asked))
		}
	}
}

func TestWhatNoProxyForwards(t *testing.T) {
	w := newWorld(t, open(nil))
	for _, line := range []string{"CONNECT app.test:80", "CONNECT evil.test:443", "TRACE /x", "OPTIONS *", "GET http://evil.test/x", "GET *"} {
		res, _ := w.raw(t, "GET", line+" HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
		body := read(res)
		if res.StatusCode != 405 && res.StatusCode != 400 && res.StatusCode != 421 || len(w.upstream.requests()) > 0 {
			t.Errorf("%s answers %s and the upstream was asked %d times", line, res.Status, len(w.upstream.requests()))
		}
		if strings.HasPrefix(line, "TRACE") && strings.Contains(body, "TRACE") {
			t.Error("TRACE is echoed")
		}
		if res.StatusCode == 405 && res.Header.Get("Allow") == "" {
			t.Errorf("%s is answered 405 without Allow", line)
		}
	}
}

func TestAnswersWithoutABody(t *testing.T) {
	w := newWorld(t, open(nil))
	for _, c := range []struct {
		method         string
		status, length int
	}{{"HEAD", 200, 12345}, {"GET", 204, 0}, {"GET", 304, 0}, {"HEAD", 404, 7}} {
		w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("ETag", `"x"`)
			if c.length > 0 {
				rw.Header().Set("Content-Length", fmt.Sprint(c.length))
			}
			rw.WriteHeader(c.status)
		})
		res := w.send(t, w.newRequest(c.method, "/x"))
		if body := read(res); res.StatusCode != c.status || body != "" || res.Header.Get("ETag") != `"x"` || c.length > 0 && res.ContentLength != int64(c.length) {
			t.Errorf("%s answered %d: %s, length %d, body %q", c.method, c.status, res.Status, res.ContentLength, body)
		}
	}
	w.upstream.answer(func(rw http.ResponseWriter, _ *http.Request) { rw.Write([]byte("x")) })
	r := w.newRequest("GET", "/x")
	if res := w.send(t, r); res.Header.Get("Server") != "" || res.Header.Get("Via") != "" || res.Header.Get("X-Powered-By") != "" {
		t.Errorf("the answer has headers about us: %v", res.Header)
	}
}

func TestAnUploadIsPassedOnWhileItComes(t *testing.T) {
	w := newWorld(t, open(nil))
	got := make(chan string)
	w.upstream.answer(func(_ http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				got <- string(buf[:n])
			}
			if err != nil {
				return
			}
		}
	})
	body, feed := io.Pipe()
	r := w.newRequest("POST", "/x")
	r.Body, r.ContentLength = body, -1
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.send(t, r)
	}()
	for i := range 3 {
		part := fmt.Sprintf("part %d", i)
		if _, err := io.WriteString(feed, part); err != nil {
			t.Fatal(err)
		}
		if s := <-got; s != part { // before the next is written
			t.Fatalf("the upstream got %q, want %q", s, part)
		}
	}
	feed.Close()
	within(t, "the answer", done)
}

func TestAnAnswerIsPassedOnWhileItComes(t *testing.T) {
	for _, kind := range []string{"text/event-stream", "text/event-stream; charset=utf-8", "application/json", ""} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, open(nil))
			more := make(chan struct{})
			w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", kind)
				for i := range 3 {
					fmt.Fprintf(rw, "data: %d\n\n", i)
					http.NewResponseController(rw).Flush()
					<-more
				}
			})
			br := bufio.NewReader(w.send(t, w.newRequest("GET", "/x")).Body)
			for i := range 3 {
				line, err := br.ReadString('\n')
				if err != nil || line != fmt.Sprintf("data: %d\n", i) {
					t.Fatalf("line %d is %q, %v", i, line, err)
				}
				br.ReadString('\n')
				more <- struct{}{} // the next is written only now
			}
		})
	}
}

// Who does not read makes the other side wait: nothing piles up here. Kernels buffer some megabytes on the way.
func TestBodiesAreNotBuffered(t *testing.T) {
	const much, most = 256 << 20, 64 << 20
	block := make([]byte, 256<<10)
	t.Run("an answer that nobody reads", func(t *testing.T) {
		w := newWorld(t, open(nil))
		written := make(chan int)
		w.upstream.answer(func(rw http.ResponseWriter, _ *http.Request) {
			n := 0
			for n < much {
				http.NewResponseController(rw).SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
				m, err := rw.Write(block)
				n += m
				if err != nil {
					break
				}
			}
			written <- n
		})
		w.send(t, w.newRequest("GET", "/x"))
		if n := <-written; n > most {
			t.Errorf("%d MiB were taken of an answer that nobody reads", n>>20)
		}
	})
	t.Run("an upload that the app does not read", func(t *testing.T) {
		w := newWorld(t, open(nil))
		w.upstream.answer(func(http.ResponseWriter, *http.Request) { <-w.upstream.released })
		c := w.dial(t)
		fmt.Fprintf(c, "POST /x HTTP/1.1\r\nHost: app.test\r\nContent-Length: %d\r\n\r\n", much)
		n := 0
		for n < much {
			c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			m, err := c.Write(block)
			n += m
			if err != nil {
				break
			}
		}
		if n > most {
			t.Errorf("%d MiB were taken of an upload that nobody reads", n>>20)
		}
	})
}

func TestLargeBodiesArriveWhole(t *testing.T) {
	w := newWorld(t, open(nil))
	const size = 24 << 20
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			t.Error(err)
		}
		rw.Header().Set("X-Got", fmt.Sprint(n))
		io.CopyN(rw, zeros{}, size)
	})
	r := w.newRequest("POST", "/x")
	r.Body, r.ContentLength = io.NopCloser(io.LimitReader(zeros{}, size)), size
	res := w.send(t, r)
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil || n != size || res.Header.Get("X-Got") != fmt.Sprint(size) {
		t.Errorf("the upstream got %s bytes and the client %d, %v", res.Header.Get("X-Got"), n, err)
	}
}

// An upstream may answer, and stream, before it has the whole request: uploads with progress do, and so does gRPC-Web.
func TestAnswersMayBeginBeforeTheRequestHasEnded(t *testing.T) {
	w := newWorld(t, open(nil))
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(rw)
		control.EnableFullDuplex()
		control.Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintf(rw, "%s\n", strings.ToUpper(lines.Text()))
			control.Flush()
		}
	})
	c := w.dial(t)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	body := "one\ntwo\nthree\n"
	fmt.Fprintf(c, "POST /x HTTP/1.1\r\nHost: app.test\r\nContent-Length: %d\r\n\r\n", len(body))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no answer while the request goes on: %v", err)
	}
	answer := bufio.NewReader(res.Body)
	for line := range strings.Lines(body) {
		io.WriteString(c, line)
		if got, err := answer.ReadString('\n'); got != strings.ToUpper(line) || err != nil {
			t.Fatalf("the answer to %q is %q, %v", line, got, err)
		}
	}
	if rest, err := io.ReadAll(answer); len(rest) > 0 || err != nil {
		t.Errorf("the answer ends with %q, %v", rest, err)
	}
}

// The client may be in no hurry to send what nobody wants.
func TestAnUpstreamMayRefuseABodyWithoutReadingIt(t *testing.T) {
	w := newWorld(t, open(nil))
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
		http.Error(rw, "too large", http.StatusRequestEntityTooLarge)
	})
	c := w.dial(t)
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "POST /x HTTP/1.1\r\nHost: app.test\r\nContent-Length: %d\r\n\r\nbegin", 1<<20)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusRequestEntityTooLarge || string(body) != "too large\n" || err != nil || !res.Close {
		t.Errorf("answered %s, %q, %v, Connection: close is %v", res.Status, body, err, res.Close)
	}
}

func TestABodyThatCannotBeReadIsTheClientsFault(t *testing.T) {
	w := newWorld(t, open(nil))
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	c := w.dial(t)
	io.WriteString(c, "POST /x HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusBadRequest || !res.Close {
		t.Errorf("answered %s, Connection: close is %v", res.Status, res.Close)
	}
}

// zeros is as many zeros as are asked for.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestTrailersOfTheAnswerArriveAndThoseOfTheRequestDoNot(t *testing.T) {
	w := newWorld(t, open(nil))
	var trailer http.Header
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		trailer = r.Trailer
		rw.Header().Set("Trailer", "X-Sum, X-Authproxy-Assertion")
		rw.Write([]byte("body"))
		rw.Header().Set("X-Sum", "42")
		rw.Header().Set("X-Authproxy-Assertion", "forged")
		rw.Header().Set(http.TrailerPrefix+"X-Late", "43")
		rw.Header().Set(http.TrailerPrefix+"Set-Cookie", "authproxy=forged")
	})
	r := w.newRequest("POST", "/x")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader("hello")), -1
	r.Trailer = http.Header{"X-Forwarded-User": {"admin"}, "X-Mine": {"1"}}
	res := w.send(t, r)
	if body := read(res); body != "body" {
		t.Fatalf("the body is %q", body)
	}
	if res.Trailer.Get("X-Sum") != "42" || res.Trailer.Get("X-Late") != "43" || res.Trailer.Get("X-Authproxy-Assertion") != "" || res.Trailer.Get("Set-Cookie") != "" {
		t.Errorf("the trailers of the answer came as %v", res.Trailer)
	}
	if len(trailer) > 0 {
		t.Errorf("the trailers of the request came as %v", trailer)
	}
}

func TestABodyIsAskedForWhenSomebodyReadsIt(t *testing.T) { // RFC 9110 §10.1.1
	w := newWorld(t, setup{})
	for _, c := range []struct {
		name, path string
		reads      bool
		status     int
		hundred    bool
	}{
		{"the app reads it", "/public/x", true, 200, true},
		{"the app does not", "/public/x", false, 413, false},
		{"nobody is signed in", "/x", true, 401, false},
		{"our own endpoint does not exist", "/auth/x", true, 404, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
				if c.reads {
					fmt.Fprint(rw, read(&http.Response{Body: r.Body}))
				} else {
					rw.WriteHeader(413)
				}
			})
			conn := w.dial(t)
			fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", c.path)
			br := bufio.NewReader(conn)
			res := must(http.ReadResponse(br, &http.Request{Method: "PUT"}))
			if got := res.StatusCode == 100; got != c.hundred {
				t.Fatalf("the body was asked for: %t (%s)", got, res.Status)
			}
			if c.hundred {
				io.WriteString(conn, "hello")
				res = must(http.ReadResponse(br, &http.Request{Method: "PUT"}))
				if body := read(res); body != "hello" {
					t.Errorf("the app got %q", body)
				}
			}
			if res.StatusCode != c.status {
				t.Errorf("the answer is %s, want %d", res.Status, c.status)
			}
		})
	}
}

func TestOfInterimAnswersOnlyHintsPass(t *testing.T) {
	w := newWorld(t, open(nil))
	w.upstream.answer(func(rw http.ResponseWriter, _ *http.Request) {
		h := rw.Header()
		rw.WriteHeader(102)
		h.Set("Link", "</style.css>; rel=preload")
		h.Set("Set-Cookie", "authproxy=forged")
		h.Set("X-Authproxy-Assertion", "forged")
		rw.WriteHeader(103)
		h.Set("Link", "</more.css>; rel=preload")
		rw.WriteHeader(103)
		rw.WriteHeader(150)
		h.Del("Link")
		h.Set("X-Final", "1")
		rw.Write([]byte("final"))
	})
	var seen []string
	r := w.newRequest("GET", "/x")
	r = r.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		seen = append(seen, fmt.Sprint(code, " ", h))
		return nil
	}}))
	res := w.send(t, r)
	want := []string{"103 map[Link:[</style.css>; rel=preload]]", "103 map[Link:[</more.css>; rel=preload]]"}
	if !slices.Equal(seen, want) {
		t.Errorf("the interim answers are %q, want %q", seen, want)
	}
	if res.StatusCode != 200 || read(res) != "final" || res.Header.Get("X-Final") != "1" || res.Header.Get("Link") != "" || res.Header.Get("Set-Cookie") != "" {
		t.Errorf("the answer is %s with %v", res.Status, res.Header)
	}
}

// socketApp is an upstream that a test writes by hand: each connection is handed to talk, with the request already read.
func socketApp(t testing.TB, talk func(net.Conn, *http.Request)) *proxy.Upstream {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	var talking sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	talking.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			talking.Go(func() {
				defer c.Close()
				if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					talk(c, r)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		talking.Wait()
	})
	return &proxy.Upstream{URL: &url.URL{Scheme: "http", Host: l.Addr().String()}, PreserveHost: true}
}

func TestAFloodOfInterimAnswersEnds(t *testing.T) {
	stopped := make(chan struct{})
	hint := "HTTP/1.1 103 Early Hints\r\nLink: </" + strings.Repeat("x", 1000) + ">\r\n\r\n"
	up := socketApp(t, func(c net.Conn, _ *http.Request) {
		defer close(stopped)
		for {
			if _, err := io.WriteString(c, hint); err != nil {
				return
			}
		}
	})
	up.Timeout = 200 * time.Millisecond
	w := newWorld(t, open(func(o *proxy.Options) { o.Routes[len(o.Routes)-1].Upstream = up }))
	r := w.newRequest("GET", "/x")
	hints := 0
	r = r.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { hints++; return nil }}))
	res := w.send(t, r)
	if res.StatusCode != 504 || hints != 100 {
		t.Errorf("after %d hints the answer is %s", hints, res.Status)
	}
	within(t, "the end of the upstream's connection", stopped)
}

func TestAnUpstreamThatFailsIsSaidToBeSo(t *testing.T) {
	gone := must(net.Listen("tcp", "127.0.0.1:0"))
	gone.Close()
	at := func(u *url.URL) *proxy.Upstream { return &proxy.Upstream{URL: u, Timeout: patience} }
	say := func(bytes string) *proxy.Upstream {
		return socketApp(t, func(c net.Conn, _ *http.Request) { io.WriteString(c, bytes) })
	}
	silent := socketApp(t, func(c net.Conn, _ *http.Request) { io.Copy(io.Discard, c) })
	silent.Timeout = 100 * time.Millisecond
	stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger.StartTLS()
	t.Cleanup(stranger.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	for _, c := range []struct {
		name   string
		up     *proxy.Upstream
		status int
		code   string
		title  string
	}{
		{"nobody listens", at(&url.URL{Scheme: "http", Host: gone.Addr().String()}), 502, "bad_gateway", "The app does not answer"},
		{"there is no socket", at(&url.URL{Scheme: "unix", Path: filepath.Join(t.TempDir(), "none.sock")}), 502, "bad_gateway", "The app does not answer"},
		{"it hangs up", say(""), 502, "bad_gateway", "The app does not answer"},
		{"it does not speak HTTP", say("SSH-2.0-OpenSSH_9.9\r\n"), 502, "bad_gateway", "The app does not answer"},
		{"its header is endless", say("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2<<20)), 502, "bad_gateway", "The app does not answer"},
		{"its certificate is of nobody we know", at(must(url.Parse(stranger.URL))), 502, "bad_gateway", "The app does not answer"},
		{"it speaks no TLS", at(&url.URL{Scheme: "https", Host: say("HTTP/1.1 200 OK\r\n\r\n").URL.Host}), 502, "bad_gateway", "The app does not answer"},
		{"it speaks http", at(&url.URL{Scheme: "https", Host: strings.TrimPrefix(plain.URL, "http://")}), 502, "bad_gateway", "The app does not answer"},
		{"it does not speak HTTP/2", at(&url.URL{Scheme: "h2c", Host: say("HTTP/1.1 200 OK\r\n\r\n").URL.Host}), 502, "bad_gateway", "The app does not answer"},
		{"it switches protocols unasked", say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), 502, "bad_gateway", "The app does not answer"},
		{"it takes too long", silent, 504, "gateway_timeout", "The app takes too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, setup{options: func(o *proxy.Options) {
				o.Routes = []proxy.Route{{Path: "/broken", Policy: &policy.Policy{Anyone: true}, Upstream: c.up}}
			}})
			b := w.signedIn(t, "ada")
			r := b.navigate("/broken/page%20x?a=1&b").wantsPage(t, c.status, c.title)
			if !strings.Contains(r.body, `href="/broken/page%20x?a=1&amp;b">Try again</a>`) {
				t.Errorf("the page is a dead end: %s", r.brief())
			}
			if strings.Contains(r.body, c.up.URL.Host) && c.up.URL.Host != "" {
				t.Error("the page names the upstream")
			}
			b.fetch("GET", "/broken/json", "").wantsJSON(t, c.status, c.code)
			b.fetch("POST", "/broken/post", "hello").wantsJSON(t, c.status, c.code)
			e := w.log.request(t, "/broken/json")
			if e["error"] == nil || e["level"] != "ERROR" || e["subject"] != adaSubject || e["decision"] != "allow" {
				t.Errorf("the log says %v", e)
			}
			if text := fmt.Sprint(e["error"]); !strings.HasPrefix(text, "upstream "+c.up.URL.String()+": ") || strings.Contains(text, "does it speak http?") != (c.name == "it speaks http") {
				t.Errorf("the log says %s, want the upstream and a hint if there is one", text)
			}
			b.navigate("/x").wants(t, 200)
		})
	}
}

func TestARouteHasItsOwnPatience(t *testing.T) {
	w := newWorld(t, open(func(o *proxy.Options) {
		o.Routes = []proxy.Route{{Path: "/quick", Policy: &policy.Policy{Anyone: true}, Timeout: 50 * time.Millisecond}, {Path: "/", Policy: &policy.Policy{Anyone: true}}}
	}))
	held := make(chan struct{})
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.RequestURI, "/quick/body") { // the header is there in time
			http.NewResponseController(rw).Flush()
		}
		<-held
		rw.Write([]byte("done"))
	})
	b := w.newBrowser(t)
	b.fetch("GET", "/quick/x", "").wantsJSON(t, 504, "gateway_timeout")
	answers := make(chan string, 2)
	for _, path := range []string{"/slow", "/quick/body"} {
		res := make(chan *http.Response, 1)
		go func() { res <- w.send(t, w.newRequest("GET", path)) }()
		go func() { answers <- read(<-res) }()
	}
	b.fetch("GET", "/quick/y", "").wantsJSON(t, 504, "gateway_timeout") // meanwhile its 50 ms are over
	close(held)
	for range 2 {
		if got := <-answers; got != "done" {
			t.Errorf("an answer is %q", got)
		}
	}
}

// A request with effects is never sent twice: the app may have done what it asks before it broke off.
func TestARequestIsNotRepeated(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	up := socketApp(t, func(_ net.Conn, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked[r.Method]++
	})
	w := newWorld(t, open(func(o *proxy.Options) { o.Routes[len(o.Routes)-1].Upstream = up }))
	for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
		w.newBrowser(t).fetch(method, "/x", "").wants(t, 502)
	}
	mu.Lock()
	defer mu.Unlock()
	for method, n := range asked {
		if n != 1 {
			t.Errorf("%s reached the upstream %d times", method, n)
		}
	}
}

func TestKindsOfUpstreams(t *testing.T) {
	say := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, r.Proto, " ", r.Host, " ", r.TLS != nil) })
	secure := httptest.NewUnstartedServer(say)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	socket := filepath.Join(t.TempDir(), "app.sock")
	listener := must(net.Listen("unix", socket))
	unix := &http.Server{Handler: say}
	go unix.Serve(listener)
	t.Cleanup(func() { unix.Close() })
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	plain := newApp(t)
	plain.answer(say)
	for _, c := range []struct {
		name string
		up   *proxy.Upstream
		want string
	}{
		{"http", &proxy.Upstream{URL: must(url.Parse(plain.URL)), PreserveHost: true}, "HTTP/1.1 app.test false"},
		{"http, its own host", &proxy.Upstream{URL: must(url.Parse(plain.URL))}, "HTTP/1.1 " + plain.Listener.Addr().String() + " false"},
		{"h2c", plain.at("h2c"), "HTTP/2.0 app.test false"},
		{"https with its CA", &proxy.Upstream{URL: must(url.Parse(secure.URL)), CAs: roots, PreserveHost: true}, "HTTP/2.0 app.test true"},
		{"https unchecked", &proxy.Upstream{URL: must(url.Parse(secure.URL)), InsecureSkipVerify: true}, "HTTP/2.0 " + secure.Listener.Addr().String() + " true"},
		{"unix", &proxy.Upstream{URL: &url.URL{Scheme: "unix", Path: socket}, PreserveHost: true}, "HTTP/1.1 app.test false"},
		{"unix, its own host", &proxy.Upstream{URL: &url.URL{Scheme: "unix", Path: socket}}, "HTTP/1.1 localhost false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, open(func(o *proxy.Options) { o.Routes[len(o.Routes)-1].Upstream = c.up }))
			if got := w.newBrowser(t).fetch("POST", "/x", "hello").wants(t, 200).body; got != c.want {
				t.Errorf("the upstream saw %q, want %q", got, c.want)
			}
		})
	}
	w := newWorld(t, setup{})
	opts := w.opts
	opts.Default = &proxy.Upstream{URL: &url.URL{Scheme: "ftp", Host: "x"}}
	if _, err := proxy.New(opts); err == nil || !strings.Contains(err.Error(), "none of http, https, h2c and unix") {
		t.Errorf("New with an ftp upstream: %v", err)
	}
	if _, err := proxy.New(proxy.Options{}); err == nil {
		t.Error("New without options gives no error")
	}
}

// gRPC: both directions at once over HTTP/2, and trailers.
func TestStreamsInBothDirectionsOverHTTP2(t *testing.T) {
	w := newWorld(t, open(func(o *proxy.Options) {
		o.Default.URL.Scheme = "h2c"
		o.Routes[len(o.Routes)-1].Upstream = o.Default
	}))
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Trailer", "Grpc-Status")
		http.NewResponseController(rw).Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			fmt.Fprintf(rw, "<%s>", buf[:n])
			http.NewResponseController(rw).Flush()
			if err != nil {
				break
			}
		}
		rw.Header().Set("Grpc-Status", "0")
	})
	tr := w.transport()
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	body, feed := io.Pipe()
	r := w.newRequest("POST", "/pkg.Service/Method")
	r.Body, r.ContentLength = body, -1
	r.Header.Set("Te", "trailers")
	res, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	buf := make([]byte, 100)
	for _, part := range []string{"one", "two"} {
		if _, err := io.WriteString(feed, part); err != nil {
			t.Fatal(err)
		}
		n, err := io.ReadFull(res.Body, buf[:len(part)+2])
		if err != nil || string(buf[:n]) != "<"+part+">" {
			t.Fatalf("the answer to %q is %q, %v", part, buf[:n], err)
		}
	}
	feed.Close()
	if rest := read(res); rest != "<>" || res.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("the answer ends with %q and the trailers %v", rest, res.Trailer)
	}
	if got := w.upstream.last(t); got.Proto != "HTTP/2.0" || got.Header.Get("Te") != "trailers" {
		t.Errorf("the upstream was asked by %s with Te %q", got.Proto, got.Header.Get("Te"))
	}
}

func TestAClientThatLeavesTakesItsRequestAlong(t *testing.T) {
	w := newWorld(t, open(nil))
	for _, c := range []struct {
		name, path string
		begin      bool // the upstream answers before the client leaves
	}{{"before the answer", "/before", false}, {"within the answer", "/within", true}} {
		t.Run(c.name, func(t *testing.T) {
			reached, cancelled := make(chan struct{}), make(chan struct{})
			w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
				defer close(cancelled)
				if c.begin {
					rw.Write([]byte("begun"))
					http.NewResponseController(rw).Flush()
				}
				close(reached)
				select {
				case <-r.Context().Done():
				case <-w.upstream.released:
				}
			})
			conn := w.dial(t)
			fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: app.test\r\n\r\n", c.path)
			within(t, "the upstream's request", reached)
			if c.begin {
				if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != 200 {
					t.Fatalf("the answer begins with %v, %v", res, err)
				}
			}
			conn.Close()
			within(t, "the end of the upstream's request", cancelled)
			if e := w.log.request(t, c.path); e["status"] != 499.0 || e["level"] != "INFO" {
				t.Errorf("the log says status %v at level %v", e["status"], e["level"])
			}
		})
	}
}

// A client must not take half an answer for a whole one, and the log says what happened.
func TestAnUpstreamThatBreaksOffBreaksTheAnswer(t *testing.T) {
	for name, bytes := range map[string]string{
		"with a length": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
		"in chunks":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			up := socketApp(t, func(c net.Conn, _ *http.Request) { io.WriteString(c, bytes) })
			w := newWorld(t, open(func(o *proxy.Options) { o.Routes[len(o.Routes)-1].Upstream = up }))
			res, err := w.newBrowser(t).transport.RoundTrip(w.newRequest("GET", "/half"))
			if err == nil { // the header may have gone out already
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if err == nil {
				t.Error("the client got what looks like a whole answer")
			}
			e := w.log.request(t, "/half")
			if text := fmt.Sprint(e["error"]); !strings.Contains(text, "broke off") || e["status"] != 200.0 || e["bytes"] != 4.0 {
				t.Errorf("the log says %v", e)
			}
		})
	}
}

// A stranger's upload is neither read nor waited for.
func TestTheBodyOfAStrangerIsNotRead(t *testing.T) {
	w := newWorld(t, setup{})
	begun := time.Now()
	for _, path := range []string{"/x", "/api/x", "/auth/me", "/auth/nothing", "/auth/logout"} {
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: app.test\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 1000000000\r\n\r\n", path)
		res, br := w.raw(t, "POST", head+"some of it")
		if res.StatusCode < 400 || !res.Close {
			t.Errorf("%s answers %s and keeps the connection: %t", path, res.Status, !res.Close)
		}
		io.Copy(io.Discard, res.Body)
		if _, err := br.ReadByte(); err == nil {
			t.Errorf("%s: the connection goes on", path)
		}
	}
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("the answers took %s", took)
	}
	if n := len(w.upstream.requests()); n > 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

func TestASlowBodyOfAStrangerIsNotWaitedForLong(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a real deadline")
	}
	t.Parallel()
	w := newWorld(t, setup{})
	for _, path := range []string{"/x", "/auth/backchannel-logout"} { // one that ignores the body, and one that reads it
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			res, _ := w.raw(t, "POST", "POST "+path+" HTTP/1.1\r\nHost: app.test\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\nlogout_")
			if took := time.Since(begun); res.StatusCode < 400 || took > 8*time.Second {
				t.Errorf("it answers %s after %s", res.Status, took)
			}
		})
	}
}

func TestAnswersToSignedInUsersArePrivate(t *testing.T) {
	w := newWorld(t, setup{})
	b, stranger := w.signedIn(t, "ada"), w.newBrowser(t)
	for _, c := range []struct {
		name string
		set  http.Header
		want string // Cache-Control of the signed-in user's answer
	}{
		{"nothing", nil, "private"},
		{"Cache-Control", http.Header{"Cache-Control": {"public, max-age=60"}}, "public, max-age=60"},
		{"Expires", http.Header{"Expires": {"0"}}, ""},
		{"Pragma", http.Header{"Pragma": {"no-cache"}}, "no-cache"}, // which net/http reads as that
	} {
		w.upstream.answer(func(rw http.ResponseWriter, _ *http.Request) {
			for name, values := range c.set {
				rw.Header()[name] = values
			}
		})
		if got := b.navigate("/public/x").Header.Get("Cache-Control"); got != c.want {
			t.Errorf("%s: Cache-Control is %q, want %q", c.name, got, c.want)
		}
		if got := stranger.navigate("/public/x").Header.Get("Cache-Control"); strings.Contains(got, "private") {
			t.Errorf("%s: a stranger's Cache-Control is %q", c.name, got)
		}
	}
}

// A cache that stored an answer with our cookie would hand it to others (CVE-2025-48947).
func TestAnAnswerThatRenewsTheCookieIsNotStored(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.signedIn(t, "ada")
	for _, upstream := range []string{"", "public, max-age=600", "s-maxage=5", "private, max-age=5", "no-store"} {
		w.clock.advance(2 * time.Minute)
		w.upstream.answer(func(rw http.ResponseWriter, _ *http.Request) {
			h := rw.Header()
			if upstream != "" {
				h.Set("Cache-Control", upstream)
			}
			h.Set("Surrogate-Control", "max-age=600")
			h.Set("CDN-Cache-Control", "max-age=600")
			h.Set("Set-Cookie", "theirs=1")
		})
		before := b.session()
		r := b.navigate("/x").wants(t, 200)
		if b.session() == before || !slices.Contains(lines(r), "theirs=1") {
			t.Fatalf("the cookie was not renewed, or the app's is missing: %d lines", len(lines(r)))
		}
		got := r.Header.Get("Cache-Control")
		if !strings.Contains(got, "private") && !strings.Contains(got, "no-store") || r.Header.Get("Surrogate-Control")+r.Header.Get("CDN-Cache-Control") != "" {
			t.Errorf("with %q from the app, Cache-Control is %q and the rest %v", upstream, got, r.Header)
		}
	}
}

func TestASessionEndsWhenItIsIdleOrOld(t *testing.T) {
	for name, s := range stores {
		t.Run(name, func(t *testing.T) {
			s := s
			s.idle, s.life = time.Hour, 5*time.Hour
			w := newWorld(t, s)
			b, idle := w.signedIn(t, "ada"), w.signedIn(t, "ada")
			for range 5 {
				w.clock.advance(59 * time.Minute)
				if !alive(t, b) {
					t.Fatal("a session that is used has ended")
				}
				w.sessions.Wait()
			}
			if alive(t, idle) {
				t.Error("a session that was idle lives on")
			}
			w.clock.advance(6 * time.Minute)
			if alive(t, b) {
				t.Error("a session that is too old lives on")
			}
		})
	}
}

func TestAPrefixIsTakenOff(t *testing.T) {
	w := newWorld(t, open(func(o *proxy.Options) {
		o.Routes = []proxy.Route{{Path: "/api/v1", Policy: &policy.Policy{Anyone: true}, StripPrefix: true}}
	}))
	b := w.newBrowser(t)
	for path, want := range map[string]string{"/api/v1": "/", "/api/v1/": "/", "/api/v1/items/1?x=1": "/items/1?x=1", "/api/v1/caf%C3%A9": "/caf%C3%A9", "/%61pi/v1/x": "/x", "/api/v1?x": "/?x"} {
		if got := b.fetch("GET", path, "").wants(t, 200).body; got != "GET "+want {
			t.Errorf("%s reaches the upstream as %q, want GET %s", path, got, want)
		}
	}
}

func TestRoutesAreReadFromTopToBottomByMethodToo(t *testing.T) {
	anyone, admins := &policy.Policy{Anyone: true}, &policy.Policy{Entries: []policy.Entry{{Groups: []string{"admins"}}}}
	w := newWorld(t, setup{options: func(o *proxy.Options) {
		up := o.Default
		o.Default = nil
		o.Routes = []proxy.Route{
			{Path: "/items", Methods: []string{"GET"}, Policy: anyone, Upstream: up},
			{Path: "/secret", Methods: []string{"GET"}, Policy: admins, Upstream: up},
			{Path: "/secret", Policy: anyone, Upstream: up},
			{Path: "/items", Policy: admins, Upstream: up},
			{Path: "/one", Exact: true, Policy: anyone, Upstream: up},
		}
	}})
	b := w.newBrowser(t)
	b.fetch("GET", "/items/1", "").wants(t, 200)
	b.fetch("POST", "/items/1", "").wants(t, 401)
	for _, method := range []string{"get", "Post", "pOST", "delete"} { // some frameworks do not know case
		b.fetch(method, "/items/1", "").wants(t, 400)
	}
	b.fetch("HEAD", "/items/1", "").wants(t, 200)
	b.fetch("HEAD", "/secret", "").wants(t, 401) // it is a GET to the app
	b.fetch("POST", "/secret", "").wants(t, 200)
	b.fetch("GET", "/one", "").wants(t, 200)
	b.fetch("GET", "/one/x", "").wantsJSON(t, 404, "not_found")
	b.navigate("/elsewhere").wantsPage(t, 404, "Page not found") // without an upstream nothing is left
}

func TestWhatIsForwardedForAUserIsSigned(t *testing.T) { // RFC 9421
	key := []byte("a key that the app and we share, 32 bytes and more")
	w := newWorld(t, setup{options: func(o *proxy.Options) {
		o.Identity.Messages = must(assertion.NewMessageSigner(assertion.HMACSHA256, "shared", key))
	}})
	verified := make(chan error, 10)
	w.upstream.answer(func(_ http.ResponseWriter, r *http.Request) {
		verified <- assertion.VerifyMessage(r, key, assertion.MessageOptions{Algorithm: assertion.HMACSHA256, Now: w.clock.Now(),
			Headers: []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Authproxy-Assertion"}})
	})
	b := w.signedIn(t, "ada")
	<-verified
	forged := []string{"Signature", "authproxy=:AAAA:", "Signature-Input", `authproxy=("@method")`, "X-Forwarded-User", "root"}
	for _, path := range []string{"/x", "/x?a=b&c=%2F", "/caf%C3%A9?", "/x;y=1"} {
		b.fetch("POST", path, "body", forged...).wants(t, 200)
		if err := <-verified; err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	w.newBrowser(t).fetch("GET", "/public/x", "", forged...).wants(t, 200)
	if err := <-verified; err == nil {
		t.Error("a request of nobody is signed")
	}
	if h := w.upstream.last(t).Header; h.Get("Signature") != "" || h.Get("Signature-Input") != "" {
		t.Errorf("a client's signature came through: %v", h)
	}
}
