package proxy_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authproxy/proxy"
)

// A socketUpstream is an upstream that speaks HTTP/1.1 by itself: it keeps what came, byte for byte, and answers with any
// bytes.
type socketUpstream struct {
	net.Listener
	answer func(*sent) string // the default says 200

	mu   sync.Mutex
	seen []*sent
	bad  []string // bytes that are no request
}

func newSocketUpstream(tb testing.TB) *socketUpstream {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	u := &socketUpstream{Listener: l}
	var serving sync.WaitGroup
	var conns sync.Map
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Store(c, nil)
			serving.Go(func() { defer c.Close(); u.serve(c) })
		}
	})
	tb.Cleanup(func() {
		l.Close()
		conns.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		serving.Wait()
	})
	return u
}

func (u *socketUpstream) serve(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		raw, err := readMessage(r)
		if err != nil {
			if raw != "" && errors.Is(err, errNoMessage) {
				u.mu.Lock()
				u.bad = append(u.bad, raw)
				u.mu.Unlock()
			}
			return
		}
		s, err := parseSent(raw)
		u.mu.Lock()
		if err != nil {
			u.bad = append(u.bad, raw)
		} else {
			u.seen = append(u.seen, s)
		}
		u.mu.Unlock()
		if err != nil {
			return
		}
		answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		if u.answer != nil {
			answer = u.answer(s)
		}
		if _, err := io.WriteString(c, answer); err != nil || strings.Contains(answer, "Connection: close") {
			return
		}
	}
}

var errNoMessage = errors.New("not a message")

// readMessage reads one request with its body and trailers, by Content-Length or chunks.
func readMessage(r *bufio.Reader) (string, error) {
	var b strings.Builder
	line := func() (string, error) {
		l, err := r.ReadString('\n')
		b.WriteString(l)
		return strings.TrimSuffix(strings.TrimSuffix(l, "\n"), "\r"), err
	}
	var length int64
	chunked := false
	for first := true; ; first = false {
		l, err := line()
		if err != nil {
			return b.String(), err
		}
		if first && len(strings.Split(l, " ")) != 3 {
			return b.String(), errNoMessage
		}
		if l == "" {
			break
		}
		name, value, _ := strings.Cut(l, ":")
		switch strings.ToLower(name) {
		case "content-length":
			fmt.Sscan(value, &length)
		case "transfer-encoding":
			chunked = true
		}
	}
	if !chunked {
		_, err := io.CopyN(&b, r, length)
		return b.String(), err
	}
	for {
		l, err := line()
		if err != nil {
			return b.String(), err
		}
		var n int64
		if _, err := fmt.Sscanf(l, "%x", &n); err != nil {
			return b.String(), errNoMessage
		}
		if n == 0 {
			break
		}
		if _, err := io.CopyN(&b, r, n+2); err != nil {
			return b.String(), err
		}
	}
	for {
		if l, err := line(); err != nil || l == "" {
			return b.String(), err
		}
	}
}

func (u *socketUpstream) take() (seen []*sent, bad []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	seen, bad = u.seen, u.bad
	u.seen, u.bad = nil, nil
	return seen, bad
}

// A wireWorld is a rig that listens, with a socketUpstream behind it.
type wireWorld struct {
	*rig
	up   *socketUpstream
	addr string
}

func newWireWorld(tb testing.TB, change func(*proxy.Options)) *wireWorld {
	tb.Helper()
	up := newSocketUpstream(tb)
	r := newRig(tb, func(o *proxy.Options) {
		o.Default = &proxy.Upstream{URL: &url.URL{Scheme: "http", Host: up.Addr().String()}, Timeout: 5 * time.Second}
		if change != nil {
			change(o)
		}
	})
	server := httptest.NewUnstartedServer(r)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.DisableGeneralOptionsHandler = true // as cmd/authproxy
	server.Config.MaxHeaderBytes = 64 << 10
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	tb.Cleanup(server.Close)
	return &wireWorld{r, up, server.Listener.Addr().String()}
}

// send writes raw bytes and returns every answer until the connection is closed, and whether that happened in time.
func (w *wireWorld) send(tb testing.TB, raw string) (answers []*http.Response, closed bool) {
	tb.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	go io.WriteString(c, raw) // an error means that the server has closed
	var got bytes.Buffer
	_, err = io.Copy(&got, c)
	var timeout net.Error
	closed = !errors.As(err, &timeout) || !timeout.Timeout()
	r := bufio.NewReader(&got)
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			if r.Buffered() > 0 {
				rest, _ := io.ReadAll(r)
				tb.Errorf("the client got what is no answer: %q", rest)
			}
			return answers, closed
		}
		if res.StatusCode >= 200 {
			body, _ := io.ReadAll(res.Body)
			res.Body = io.NopCloser(bytes.NewReader(body))
		}
		answers = append(answers, res)
	}
}

func statuses(answers []*http.Response) (all []int) {
	for _, a := range answers {
		all = append(all, a.StatusCode)
	}
	return all
}

const (
	publicHead = "Host: app.test\r\n"
	lastOne    = "GET /public/last HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n"
)

// Each row is sent on one connection, and a last request after it. What reaches the upstream is what we meant, each in one
// framing, and nothing hidden in a body becomes a request that was not judged by itself.
func TestBytesThatTwoParsersReadDifferently(t *testing.T) {
	w := newWireWorld(t, nil)
	alice := "Cookie: " + w.signIn(t, "alice") + "\r\n"
	post := func(head, body string) string {
		return "POST /public/x HTTP/1.1\r\n" + publicHead + head + "\r\n" + body
	}
	const hidden = "GET /admin/s HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-User: admin\r\n\r\n"
	refused := []int{400, 501, 505}
	for _, row := range []struct {
		id, what, raw string
		upstream      []string // targets that may be seen, in order; a refused row has none
		statuses      []int    // each answer's; nil: one of refused, and then the end
	}{
		{"SMG-01", "a length and chunks", post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), []string{"/public/x", "/public/last"}, []int{200, 200}},
		{"SMG-02", "a request in a chunk", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden)), []string{"/public/x", "/public/last"}, []int{200, 200}},
		{"SMG-04", "two equal lengths", post("Content-Length: 1\r\nContent-Length: 1\r\n", "x"), []string{"/public/x", "/public/last"}, []int{200, 200}},
		{"SMG-04", "two lengths", post("Content-Length: 1\r\nContent-Length: 2\r\n", "xy"), nil, nil},
		{"SMG-04", "+5", post("Content-Length: +5\r\n", "12345"), nil, nil},
		{"SMG-04", "-1", post("Content-Length: -1\r\n", ""), nil, nil},
		{"SMG-04", "0x5", post("Content-Length: 0x5\r\n", "12345"), nil, nil},
		{"SMG-04", "5,5", post("Content-Length: 5,5\r\n", "12345"), nil, nil},
		{"SMG-04", "5 5", post("Content-Length: 5 5\r\n", "12345"), nil, nil},
		{"SMG-04", "NUL", post("Content-Length: 5\x00\r\n", "12345"), nil, nil},
		{"SMG-04", "2^63", post("Content-Length: 9223372036854775808\r\n", ""), nil, nil},
		{"SMG-04", "2^64+5", post("Content-Length: 18446744073709551621\r\n", "12345"), nil, nil},
		{"SMG-04", "an empty length", post("Content-Length: \r\n", ""), nil, nil},
		{"SMG-04", "an unknown coding", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), nil, nil},
		{"SMG-04", "two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), nil, nil},
		{"SMG-04", "gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), nil, nil},
		{"SMG-20", "HTTP/1.2", "GET /public/x HTTP/1.2\r\n" + publicHead + "\r\n", []string{"/public/x", "/public/last"}, []int{200, 200}}, // RFC 9110 §2.5: as 1.1
		{"SMG-20", "HTTP/0.9", "GET /public/x\r\n", nil, nil},
		{"SMG-20", "http/1.1", "GET /public/x http/1.1\r\n" + publicHead + "\r\n", nil, nil},
		{"SMG-20", "CR in the line", "GET /public/x HTTP/1.1\r\r\n" + publicHead + "\r\n", nil, nil},
		{"SMG-20", "NUL in the line", "GET /public/\x00 HTTP/1.1\r\n" + publicHead + "\r\n", nil, nil},
		{"SMG-20", "a line break in the target", "GET /public/\nx HTTP/1.1\r\n" + publicHead + "\r\n", nil, nil},
		{"SMG-20", "a head with LF only", "GET /public/x HTTP/1.1\nHost: app.test\n\n", []string{"/public/x", "/public/last"}, []int{200, 200}},
		{"HDR-29", "space before the colon", post("X-Forwarded-User : admin\r\n", ""), nil, nil},
		{"HDR-29", "tab before the colon", post("X-Forwarded-User\t: admin\r\n", ""), nil, nil},
		{"HDR-29", "space before the first name", "POST /public/x HTTP/1.1\r\n X-Forwarded-User: admin\r\n" + publicHead + "\r\n", nil, nil},
		{"HDR-29", "no colon", post("X-Forwarded-User\r\n", ""), nil, nil},
		{"HDR-29", "no name", post(": admin\r\n", ""), nil, nil},
		{"FWD-26", "two Hosts", "GET /public/x HTTP/1.1\r\n" + publicHead + "Host: evil.test\r\n\r\n", nil, nil},
		{"FWD-26", "no Host", "GET /public/x HTTP/1.1\r\n\r\n", nil, nil},
		{"FWD-26", "an empty Host", "GET /public/x HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", nil, nil},
		{"FWD-26", "HTTP/1.0 without Host", "GET /public/x HTTP/1.0\r\n\r\n", nil, nil},
		{"PTH-16", "a method that is no token", "G\xc9T /public/x HTTP/1.1\r\n" + publicHead + "\r\n", nil, nil},
		{"SMG-14", "a request in a body that nobody read", "POST /x HTTP/1.1\r\n" + publicHead + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(hidden)) + hidden, []string{"/public/last"}, []int{401, 200}},
		{"SMG-16", "who is signed in is asked for each request", "GET /x HTTP/1.1\r\n" + publicHead + alice + "\r\nGET /x HTTP/1.1\r\n" + publicHead + "\r\nGET /admin/x HTTP/1.1\r\n" + publicHead + alice + "\r\n", []string{"/x", "/public/last"}, []int{200, 401, 403, 200}},
		{"SMG-08", "a WebSocket that the upstream does not want", "GET /x HTTP/1.1\r\n" + publicHead + alice + "Origin: http://app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\n\r\nGET /admin/s HTTP/1.1\r\n" + publicHead + alice + "\r\n", []string{"/x", "/public/last"}, []int{200, 403, 200}},
		{"SMG-19", "an unknown expectation", post("Expect: foo\r\n", ""), nil, []int{417}},
		{"SMG-11", "HTTP/1.0 with chunks", "POST /public/x HTTP/1.0\r\n" + publicHead + "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, []string{"/public/x"}, []int{200, 400}},
		{"SMG-11", "HTTP/1.0 with a coding, and a request at once", "POST /public/x HTTP/1.0\r\n" + publicHead + "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + hidden, []string{"/public/x", "/public/last"}, []int{200, 401, 200}},
	} {
		t.Run(row.id+" "+row.what, func(t *testing.T) {
			answers, closed := w.send(t, row.raw+lastOne)
			seen, bad := w.up.take()
			if !closed || len(bad) > 0 {
				t.Errorf("the connection was closed: %v; the upstream got what is no request: %q", closed, bad)
			}
			var targets []string
			for _, s := range seen {
				targets = append(targets, s.target)
				subject := ""
				if s.target == "/x" {
					subject = "alice"
				}
				checkFolds(t, s, ownFor(subject))
				if len(s.values("Content-Length"))+len(s.values("Transfer-Encoding")) > 1 {
					t.Errorf("the upstream got two framings: %q", s.raw)
				}
			}
			if row.statuses == nil {
				if len(answers) != 1 || !slices.Contains(refused, answers[0].StatusCode) || !answers[0].Close {
					t.Errorf("answers %v, want one that refuses and closes", statuses(answers))
				}
			} else if got := statuses(answers); !slices.Equal(got, row.statuses) {
				t.Errorf("answers %v, want %v", got, row.statuses)
			}
			if !slices.Equal(targets, row.upstream) {
				t.Errorf("the upstream got %q, want %q", targets, row.upstream)
			}
		})
	}
}

// SMG-05: broken chunks end the request and the connection.
func TestSMG05BrokenChunksAreNoSecondRequest(t *testing.T) {
	w := newWireWorld(t, nil)
	for _, body := range []string{"5\n12345\r\n0\r\n\r\n", "5;ext\n12345\r\n0\r\n\r\n", "5\r\n12345XX0\r\n\r\n", "0x5\r\n12345\r\n0\r\n\r\n", "+5\r\n12345\r\n0\r\n\r\n", "00000000000000005\r\n12345\r\n0\r\n\r\n", "5;" + strings.Repeat("x", 64<<10) + "\r\n12345\r\n0\r\n\r\n", "-1\r\n"} {
		t.Run(fmt.Sprintf("SMG-05 %.20q", body), func(t *testing.T) {
			answers, closed := w.send(t, "POST /public/x HTTP/1.1\r\n"+publicHead+"Transfer-Encoding: chunked\r\n\r\n"+body+lastOne)
			seen, bad := w.up.take()
			for _, s := range seen {
				if s.target != "/public/x" {
					t.Errorf("the upstream got %q", s.raw)
				}
			}
			if !closed || len(answers) > 1 || len(bad) > 1 {
				t.Errorf("answers %v, closed %v, the upstream got %q", statuses(answers), closed, bad)
			}
		})
	}
}

// SMG-07, SMG-13, CSWSH: an upgrade is passed on when it is a WebSocket of our own page, and otherwise the request goes
// without it or not at all.
func TestUpgradesThatAreNoWebSocketOfOursAreNotPassedOn(t *testing.T) {
	w := newWireWorld(t, nil)
	alice := "Cookie: " + w.signIn(t, "alice") + "\r\n"
	for _, row := range []struct {
		id, fields string
		status     int
		upgrade    string // what the upstream sees
	}{
		{"SMG-13", "Upgrade: websocket\r\nOrigin: http://app.test\r\n", 200, "websocket"},
		{"SMG-13", "Upgrade: WebSocket\r\nOrigin: http://app.test\r\n", 200, "WebSocket"},
		{"SMG-13", "Upgrade: websocket\r\nOrigin: https://evil.test\r\n", 403, ""},
		{"SMG-13", "Upgrade: websocket\r\nOrigin: null\r\n", 403, ""},
		{"SMG-13", "Upgrade: websocket\r\nOrigin: http://app.test.evil.test\r\n", 403, ""},
		{"SMG-13", "Upgrade: websocket\r\nOrigin: http://app.test:80\r\n", 403, ""},
		{"SMG-13", "Upgrade: websocket\r\nOrigin: http://app.test\r\nOrigin: http://evil.test\r\n", 403, ""},
		{"SMG-13", "Upgrade: websocket\r\n", 403, ""},
		{"SMG-07", "Upgrade: tls/1.0\r\n", 200, ""},
		{"SMG-07", "Upgrade: foo\r\n", 200, ""},
		{"SMG-07", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", 200, ""},
		{"SMG-07", "Upgrade: websocket, h2c\r\n", 200, ""},
		{"SMG-07", "Upgrade: WebSocket2\r\n", 200, ""},
		{"SMG-07", "Upgrade: foo\r\nUpgrade: websocket\r\nOrigin: https://evil.test\r\n", 200, ""},
		{"SMG-07", "Upgrade: caf\xc3\xa9\r\n", 200, ""},
	} {
		t.Run(row.id+" "+row.fields, func(t *testing.T) {
			answers, _ := w.send(t, "GET /x HTTP/1.1\r\n"+publicHead+alice+"Connection: Upgrade, X-Forwarded-User\r\n"+row.fields+"\r\n"+lastOne)
			seen, _ := w.up.take()
			if got := statuses(answers); !slices.Equal(got, []int{row.status, 200}) {
				t.Fatalf("answers %v, want %d and 200", got, row.status)
			}
			if row.status != 200 {
				return
			}
			checkFolds(t, seen[0], ownFor("alice"))
			if got := strings.Join(seen[0].values("Upgrade"), "|"); got != row.upgrade || (len(seen[0].values("Connection")) > 0) != (got != "") {
				t.Errorf("the upstream got Upgrade %q and Connection %q, want %q", got, seen[0].values("Connection"), row.upgrade)
			}
		})
	}
	body := "POST /x HTTP/1.1\r\n" + publicHead + alice + "Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: https://evil.test\r\nContent-Length: 1\r\n\r\nx"
	if answers, _ := w.send(t, body+lastOne); !slices.Equal(statuses(answers), []int{200, 200}) {
		t.Errorf("SMG-07 POST with an upgrade: answers %v", statuses(answers))
	}
	if seen, _ := w.up.take(); len(seen) != 2 || len(seen[0].values("Upgrade")) != 0 {
		t.Errorf("SMG-07 POST with an upgrade: the upstream got %q", seen[0].raw)
	}
	bodied := "GET /x HTTP/1.1\r\n" + publicHead + alice + "Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://app.test\r\nContent-Length: 1\r\n\r\nx"
	if answers, _ := w.send(t, bodied+lastOne); !slices.Equal(statuses(answers), []int{400, 200}) {
		t.Errorf("SMG-07 a handshake with a body: answers %v", statuses(answers))
	}
}

// HDR-07, HDR-08, HDR-10, HDR-11, HDR-22, HDR-28, SMG-22, SMG-23: what a client says about who it is reaches no upstream,
// and what we say does.
func TestTheUpstreamHearsWhoTheUserIsFromUsAlone(t *testing.T) {
	w := newWireWorld(t, nil)
	cookie := w.signIn(t, "alice", "dev", "ops")
	for _, row := range []struct{ id, fields, tail string }{
		{"HDR-07", "Connection: X-Forwarded-User, X-Forwarded-Groups, X-Authproxy-Assertion, X-Request-Id, X-Forwarded-For\r\n", ""},
		{"HDR-08", "Connection: x-forwarded-user\r\nconnection: X-FORWARDED-GROUPS\r\nConnection:\tx-Forwarded-email ,\r\n", ""},
		{"HDR-10", "Trailer: X-Forwarded-User\r\nTransfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\nX-Forwarded-User: admin\r\nX_Forwarded_Groups: admins\r\n\r\n"},
		{"HDR-10", "Transfer-Encoding: chunked\r\n", "0\r\nX.Forwarded.User: admin\r\n\r\n"},
		{"HDR-11", "X-Forwarded-User: alice\r\nx-fOrWarDed-uSeR: admin\r\nX-Forwarded-User: alice, admin\r\n", ""},
		{"HDR-22", rigAssertion + ": eyJhbGciOiJub25lIn0.e30.\r\nX_Authproxy_Assertion: x\r\n", ""},
		{"HDR-28", "X-Foo: a\r\n X-Forwarded-User: admin\r\nX-Forwarded-Groups:\r\n admins\r\n", ""},
		{"SMG-22", "Transfer-Encoding: chunked\r\n", "0\r\nHost: evil.test\r\nCookie: authproxy=x\r\nAuthorization: Bearer x\r\nX-Any: x\r\n\r\n"},
		{"SMG-23", "TE: trailers, deflate\r\nConnection: TE\r\n", ""},
		{"HDR-17", "Cookie: a=1; authproxy-login-x=1\r\n", ""},
	} {
		t.Run(row.id+" "+row.fields, func(t *testing.T) {
			answers, _ := w.send(t, "POST /x HTTP/1.1\r\n"+publicHead+"Cookie: "+cookie+"\r\n"+row.fields+"\r\n"+row.tail+lastOne)
			if got := statuses(answers); !slices.Equal(got, []int{200, 200}) {
				t.Fatalf("answers %v, want 200 and 200", got)
			}
			seen, _ := w.up.take()
			checkFolds(t, seen[0], ownFor("alice", "dev", "ops"))
			if te := seen[0].values("TE"); len(te) > 1 || len(te) == 1 && te[0] != "trailers" {
				t.Errorf("TE: %q", te)
			}
			for _, name := range []string{"Trailer", "X-Any", "Authorization", "Connection"} {
				if v := seen[0].values(name); v != nil {
					t.Errorf("the upstream got %s: %q", name, v)
				}
			}
			if hosts := seen[0].values("Host"); len(hosts) != 1 || hosts[0] != w.up.Addr().String() {
				t.Errorf("Host %q", hosts)
			}
		})
	}
}

// HDR-19, HDR-20, SMG-17: what an upstream sends before, beside and after its answer.
func TestWhatUpstreamsSendIsNoWordOfOurs(t *testing.T) {
	w := newWireWorld(t, nil)
	cookie := w.signIn(t, "alice")
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for _, row := range []struct {
		id, what, answer string
		statuses         []int // of all answers with interim ones, or nil: 502
	}{
		{"HDR-20", "early hints with more than hints", "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x\r\nSet-Cookie: authproxy=A\r\nX-Forwarded-User: admin\r\nX-Authproxy-Assertion: a\r\n\r\n" + ok, []int{103, 200, 200}},
		{"HDR-19", "other interim answers", "HTTP/1.1 102 Processing\r\nSet-Cookie: authproxy=A\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + ok, []int{200, 200}},
		{"SMG-17", "many interim answers", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 1000) + ok, []int{200, 200}},
		{"SMG-17", "interim answers of 3 MB", strings.Repeat("HTTP/1.1 102 Processing\r\nX-Y: "+strings.Repeat("y", 1000)+"\r\n\r\n", 3000) + ok, []int{200, 200}}, // the route's timeout bounds them
		{"SMG-17", "two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", nil},
		{"SMG-17", "a length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", []int{200, 200}},
		{"SMG-17", "more than its length", ok + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", []int{200, 200}},
		{"SMG-17", "a header of 2 MiB", "HTTP/1.1 200 OK\r\nX-Y: " + strings.Repeat("y", 2<<20) + "\r\nContent-Length: 2\r\n\r\nok", nil},
		{"SMG-17", "no HTTP", "evil\r\n\r\nConnection: close", nil},
		{"SMG-17", "101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", nil},
		{"SMG-17", "101 without a protocol", "HTTP/1.1 101 Switching Protocols\r\n\r\n", nil},
		{"HDR-20", "trailers that are ours", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie, X-Forwarded-User, X-Fine\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: authproxy=A\r\nX-Forwarded-User: admin\r\nX-Authproxy-Assertion: a\r\nX-Fine: end\r\n\r\n", []int{200, 200}},
		{"HDR-20", "trailers that it did not announce", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: authproxy-login-x=A\r\nx_forwarded_user: admin\r\nX-Fine: end\r\n\r\n", []int{200, 200}},
	} {
		t.Run(row.id+" "+row.what, func(t *testing.T) {
			w.up.answer = func(s *sent) string {
				if s.target != "/x" {
					return ok
				}
				return row.answer
			}
			answers, closed := w.send(t, "GET /x HTTP/1.1\r\n"+publicHead+"Cookie: "+cookie+"\r\nTE: trailers\r\nConnection: TE\r\n\r\n"+lastOne)
			want := row.statuses
			if want == nil {
				want = []int{502, 200}
			}
			if got := statuses(answers); !slices.Equal(got, want) || !closed {
				t.Fatalf("answers %v, closed %v, want %v", got, closed, want)
			}
			for _, a := range answers {
				for _, all := range []http.Header{a.Header, a.Trailer} {
					for name, values := range all {
						if n := folded(name); n == "set-cookie" || n == "x-forwarded-user" || strings.HasPrefix(n, "x-authproxy-") || strings.Contains(fmt.Sprint(values), "evil") {
							t.Errorf("%d has %s: %q", a.StatusCode, name, values)
						}
					}
				}
				if a.StatusCode == 103 && len(a.Header) != 1 {
					t.Errorf("103 with %v", a.Header)
				}
			}
			if body, _ := io.ReadAll(answers[len(answers)-1].Body); string(body) != "ok" {
				t.Errorf("the next request got the answer %q", body)
			}
			if strings.Contains(row.what, "trailers") && answers[0].Trailer.Get("X-Fine") != "end" {
				t.Errorf("trailers %v, want X-Fine", answers[0].Trailer)
			}
		})
	}
}

// frames is a client of HTTP/2 with prior knowledge (RFC 9113) that sends any fields: every one as a literal without
// indexing or Huffman coding (RFC 7541 §6.2.2).
func frames(fields [][2]string) []byte {
	var block []byte
	text := func(s string) {
		n := len(s)
		if n < 127 {
			block = append(block, byte(n))
		} else {
			block = append(block, 127)
			for n -= 127; n >= 128; n >>= 7 {
				block = append(block, byte(n)|0x80)
			}
			block = append(block, byte(n))
		}
		block = append(block, s...)
	}
	for _, f := range fields {
		block = append(block, 0)
		text(f[0])
		text(f[1])
	}
	frame := func(kind, flags byte, stream uint32, payload []byte) []byte {
		b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
		return append(binary.BigEndian.AppendUint32(b, stream), payload...)
	}
	return slices.Concat([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(4, 0, 0, nil), frame(1, 5, 1, block)) // SETTINGS, HEADERS with END_STREAM and END_HEADERS
}

// outcome reads frames until the stream is answered or refused: a status where it is in the static table, "reset" or
// "goaway".
func outcome(tb testing.TB, addr string, request []byte) string {
	tb.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(request); err != nil {
		tb.Fatal(err)
	}
	r := bufio.NewReader(c)
	for {
		var head [9]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err.Error()
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(r, payload); err != nil {
			return err.Error()
		}
		switch head[3] {
		case 1: // HEADERS: the status comes first
			if status, ok := map[byte]string{0x88: "200", 0x8c: "400", 0x8d: "404", 0x8e: "500"}[payload[0]]; ok {
				return status
			}
			return "another status"
		case 3:
			return "reset"
		case 7:
			return "goaway"
		}
	}
}

// PTH-14, SMG-10, HDR-10, HDR-11, CKE-19 over HTTP/2, to an upstream of HTTP/1.1.
func TestRequestsOverHTTP2ThatHTTP1CannotSayAreRefused(t *testing.T) {
	w := newWireWorld(t, nil)
	for _, row := range []struct {
		id, what string
		fields   [][2]string // instead of those of a good request, or beside them
		ok       bool
	}{
		{"PTH-14", "good", nil, true},
		{"PTH-14", "rootless", [][2]string{{":path", "public/x"}}, false},
		{"PTH-14", "empty", [][2]string{{":path", ""}}, false},
		{"PTH-14", "asterisk", [][2]string{{":path", "*"}}, false},
		{"PTH-14", "rootless dots", [][2]string{{":path", "public/../admin"}}, false},
		{"PTH-14", "absolute-form of another host", [][2]string{{":path", "http://u/public/x"}}, false},
		{"PTH-14", "opaque", [][2]string{{":path", "x:admin"}}, false},
		{"PTH-02", "fragment", [][2]string{{":path", "/admin/s#/public/y"}}, false},
		{"SMG-10", "space in the path", [][2]string{{":path", "/public/x HTTP/1.1"}}, false},
		{"SMG-10", "CRLF in the path", [][2]string{{":path", "/public/x\r\nA: b"}}, false},
		{"SMG-10", "CRLF in the method", [][2]string{{":method", "GET /x HTTP/1.1\r\nA:"}}, false},
		{"SMG-10", "space in the method", [][2]string{{":method", "GET /x HTTP/1.1"}}, false},
		{"SMG-10", "CRLF in a value", [][2]string{{"x-a", "b\r\nX-Forwarded-User: admin"}}, false},
		{"SMG-10", "LF in a value", [][2]string{{"x-a", "b\nc"}}, false},
		{"SMG-10", "NUL in a value", [][2]string{{"x-a", "b\x00c"}}, false},
		{"SMG-10", "upper case in a name", [][2]string{{"X-A", "b"}}, false},
		{"SMG-10", "colon in a name", [][2]string{{"x-a:b", "c"}}, false},
		{"SMG-10", "space in a name", [][2]string{{"x-a ", "c"}}, false},
		{"SMG-10", "CRLF in a name", [][2]string{{"x-a\r\nx-b", "c"}}, false},
		{"SMG-10", "transfer-encoding", [][2]string{{"transfer-encoding", "chunked"}}, false},
		{"SMG-10", "connection", [][2]string{{"connection", "x-forwarded-user"}}, false},
		{"SMG-10", "a length without a body", [][2]string{{"content-length", "10"}}, true}, // it does not reach the upstream
		{"SMG-10", "an unknown pseudo-header", [][2]string{{":evil", "x"}}, false},
		{"SMG-10", "te", [][2]string{{"te", "gzip"}}, false},
		{"SMG-10", "userinfo in the authority", [][2]string{{":authority", "app.test@evil.test"}}, false},
		{"PTH-14", "two paths", [][2]string{{":path", "/public/x"}, {":path", "/admin"}}, false},
		{"HDR-11", "identity twice", [][2]string{{"x-forwarded-user", "admin"}, {"x-forwarded-user", "root"}, {"x_forwarded_user", "admin"}, {"x-request-id", "1"}}, true},
		{"FWD-26", "host beside the authority", [][2]string{{"host", "evil.test"}}, true},
		{"CKE-19", "a session in two fields", [][2]string{{"cookie", "a=1"}, {"cookie", "authproxy=x"}, {"cookie", "authproxy-login-a=x; b=2"}}, true},
	} {
		t.Run(row.id+" "+row.what, func(t *testing.T) {
			good := [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "app.test"}, {":path", "/public/x"}}
			good = slices.DeleteFunc(good, func(f [2]string) bool {
				return slices.ContainsFunc(row.fields, func(o [2]string) bool { return o[0] == f[0] })
			})
			var pseudo, regular [][2]string
			for _, f := range row.fields {
				if strings.HasPrefix(f[0], ":") {
					pseudo = append(pseudo, f)
				} else {
					regular = append(regular, f)
				}
			}
			got := outcome(t, w.addr, frames(slices.Concat(good, pseudo, regular)))
			seen, bad := w.up.take()
			if len(bad) > 0 {
				t.Errorf("the upstream got what is no request: %q", bad)
			}
			if !row.ok {
				if got == "200" || len(seen) > 0 {
					t.Errorf("outcome %s, and %d requests at the upstream", got, len(seen))
				}
				return
			}
			if got != "200" || len(seen) != 1 {
				t.Fatalf("outcome %s, and %d requests at the upstream", got, len(seen))
			}
			checkFolds(t, seen[0], ownFor(""))
			if v := seen[0].values("Content-Length"); v != nil {
				t.Errorf("Content-Length %q of a request without a body", v)
			}
			if cookies := seen[0].values("Cookie"); row.id == "CKE-19" && (len(cookies) != 1 || cookies[0] != "a=1; b=2") {
				t.Errorf("Cookie %q", cookies)
			}
		})
	}
}
