package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"authproxy/policy"
	"authproxy/proxy"
)

// What is left of a body, or follows a broken one, must not become a request: behind a front proxy that shares connections it
// would be answered to somebody else (SMG-14).
func TestTheRestOfABodyIsNoRequest(t *testing.T) {
	const smuggled = "GET /public/smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n"
	aligned := strings.Repeat(fmt.Sprintf("%-60s\r\n\r\n", "GET /public/smuggled HTTP/1.1\r\nHost: app.test\r\nX:"), 100_000) // a request follows, wherever one begins to read
	for _, row := range []struct{ name, path, framing, body string }{
		{"an upstream that is down", "/public/down", "Content-Length: %d", smuggled + strings.Repeat("x", 300<<10)},
		{"an upstream that does not read", "/public/refuses", "Content-Length: %d", aligned},
		{"no chunk at all", "/public/reads", "Transfer-Encoding: chunked", "ZZ\r\n" + smuggled},
		{"a chunk that is too long", "/public/reads", "Transfer-Encoding: chunked", "5\r\n12345XX" + smuggled},
		{"a good chunk before", "/public/reads", "Transfer-Encoding: chunked", "5\r\n12345\r\nZZ\r\n" + smuggled},
		{"a broken chunk that nobody reads", "/public/refuses", "Transfer-Encoding: chunked", "ZZ\r\n" + smuggled},
		{"an expectation that is not met", "/public/down", "Expect: 100-continue\r\nContent-Length: 300000", smuggled},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t, setup{options: func(o *proxy.Options) {
				down := &proxy.Upstream{URL: &url.URL{Scheme: "http", Host: freeAddr(t)}, Timeout: time.Second}
				o.Routes = append([]proxy.Route{{Path: "/public/down", Policy: &policy.Policy{Anyone: true}, Upstream: down}}, o.Routes...)
			}})
			w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/public/reads" {
					io.Copy(io.Discard, r.Body)
				} else {
					rw.Header().Set("Connection", "close")
					rw.WriteHeader(http.StatusRequestEntityTooLarge)
				}
			})
			c := w.dial(t)
			framing := row.framing
			if strings.Contains(framing, "%d") {
				framing = fmt.Sprintf(framing, len(row.body))
			}
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: app.test\r\n%s\r\n\r\n%s", row.path, framing, row.body)
			}()
			answers := bufio.NewReader(c)
			n := 0
			for ; ; n++ {
				res, err := http.ReadResponse(answers, nil)
				if err != nil {
					break
				}
				io.Copy(io.Discard, res.Body)
			}
			c.Close()
			<-sent
			if n > 1 {
				t.Errorf("%d answers to one request", n)
			}
			for _, r := range w.upstream.requests() {
				if r.Target == "/public/smuggled" {
					t.Fatal("the rest of the body was taken for a request")
				}
			}
		})
	}
}

// freeAddr is an address at which nobody listens.
func freeAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestWhoStopsSendingAfterTheAnswerIsNotWaitedForForEver(t *testing.T) {
	w := newWorld(t, setup{})
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
		http.NewResponseController(rw).EnableFullDuplex()
		http.Error(rw, "too large", http.StatusRequestEntityTooLarge)
		http.NewResponseController(rw).Flush()
	})
	c := w.dial(t)
	c.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(c, "POST /public/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000\r\n\r\n")
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("the connection is still open: %v", err)
	}
}

// The bound of an answer stays with its connection, and is over when the next request comes after more than a minute.
func TestAConnectionThatWasIdleForLongTakesABody(t *testing.T) {
	w := newWorld(t, setup{})
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) { io.Copy(rw, r.Body) })
	var idled http.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		http.NewResponseController(rw).SetWriteDeadline(time.Unix(1, 0))
		w.proxy.ServeHTTP(rw, r)
	})
	w.handler.Store(&idled)
	c := w.dial(t)
	c.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(c, "POST /public/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
	const goOn = "HTTP/1.1 100 Continue\r\n\r\n"
	b := make([]byte, len(goOn))
	if _, err := io.ReadFull(c, b); string(b) != goOn {
		t.Fatalf("%q, %v, want to be told to go on", b, err)
	}
	io.WriteString(c, "hello")
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") || !strings.HasSuffix(string(answer), "hello") {
		t.Errorf("%v, %s", err, answer)
	}
}

// deadlined is a ResponseWriter that notes when writing is bounded.
type deadlined struct {
	*httptest.ResponseRecorder
	did []string
}

func (w *deadlined) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		w.did = append(w.did, "free")
	} else {
		w.did = append(w.did, "bounded")
	}
	return nil
}

func (w *deadlined) Write(b []byte) (int, error) {
	w.did = append(w.did, "write")
	return w.ResponseRecorder.Write(b)
}

// DOS-17: who does not read is not waited for for ever. On HTTP/2 the bound is taken away while nothing is written, because it
// would end streams that are quiet.
func TestEveryWriteToAClientIsBounded(t *testing.T) {
	for major, want := range map[int]string{1: "bounded write", 2: "bounded write free bounded"} {
		r := newRig(t, nil)
		w := &deadlined{ResponseRecorder: httptest.NewRecorder()}
		req := httptest.NewRequest("GET", "http://app.test/auth/", nil)
		req.ProtoMajor = major
		req.Header.Set("Accept", "text/html")
		r.ServeHTTP(w, req)
		if got := strings.Join(w.did, " "); got != want {
			t.Errorf("HTTP/%d: %s, want %s", major, got, want)
		}
	}
}
