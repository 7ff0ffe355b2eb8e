package proxy_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"authproxy/proxy"
	"authproxy/session"
)

// webSockets makes the upstream switch to WebSocket where it is asked to, and hand each connection to talk.
func (w *world) webSockets(talk func(net.Conn)) {
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "Upgrade" {
			return
		}
		c, buffered, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			w.t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\nSet-Cookie: authproxy=forged\r\n\r\n", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
		talk(bufferedConn{c, buffered})
	})
}

// bufferedConn is a hijacked connection of which some bytes may have been read already.
type bufferedConn struct {
	net.Conn
	r io.Reader
}

func (c bufferedConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// shake sends a WebSocket handshake with further header lines and returns the answer.
func (w *world) shake(t testing.TB, path string, lines ...string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	c := w.dial(t)
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
		path, strings.Join(append(lines, ""), "\r\n"))
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, &http.Request{Method: "GET"})
	if err != nil {
		t.Fatal(err)
	}
	return c, br, res
}

// frame is an unfragmented text frame as a server sends it (RFC 6455 §5.2).
func frame(text string) []byte {
	head := []byte{0x81}
	switch n := len(text); {
	case n < 126:
		head = append(head, byte(n))
	case n < 1<<16:
		head = binary.BigEndian.AppendUint16(append(head, 126), uint16(n))
	default:
		head = binary.BigEndian.AppendUint64(append(head, 127), uint64(n))
	}
	return append(head, text...)
}

// closing is a close frame of a server.
func closing(code uint16) string {
	return string(binary.BigEndian.AppendUint16([]byte{0x88, 2}, code))
}

func TestAWebSocketCarriesBytesBothWays(t *testing.T) {
	for _, scheme := range []string{"http", "h2c"} {
		t.Run(scheme, func(t *testing.T) {
			w := newWorld(t, setup{options: func(o *proxy.Options) { o.Default.URL.Scheme = scheme }})
			w.webSockets(func(c net.Conn) { io.Copy(c, c) })
			b := w.signedIn(t, "ada")
			c, br, res := w.shake(t, "/socket?x=1", "Origin: http://app.test", "Cookie: "+w.cookie+"="+b.session(), "Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Extensions: permessage-deflate")
			if res.StatusCode != 101 || res.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || len(res.Header["Set-Cookie"]) > 0 {
				t.Fatalf("the handshake is answered %s with %v", res.Status, res.Header)
			}
			got := w.upstream.last(t)
			if got.Header.Get("X-Forwarded-User") != adaSubject || got.Header.Get("Sec-WebSocket-Protocol") != "chat" || got.Header.Get("Sec-WebSocket-Extensions") == "" ||
				got.Header.Get("Cookie") != "" || got.Target != "/socket?x=1" || got.Header.Get("Origin") != "http://app.test" {
				t.Errorf("the upstream got %s with %v", got.Target, got.Header)
			}
			for _, text := range []string{"hello", "", strings.Repeat("x", 1000), strings.Repeat("y", 100_000)} {
				sent := frame(text)
				go c.Write(sent)
				back := make([]byte, len(sent))
				if _, err := io.ReadFull(br, back); err != nil || string(back) != string(sent) {
					t.Fatalf("%d bytes came back changed: %v", len(sent), err)
				}
			}
			c.Close()
			if e := w.log.request(t, "/socket"); e["status"] != 101.0 || e["subject"] != adaSubject {
				t.Errorf("the log says %v", e)
			}
		})
	}
}

// Browsers let every page open a WebSocket with the user's cookie, and no preflight asks (RFC 6455 §10.2).
func TestAWebSocketOfAnotherOriginIsRefused(t *testing.T) {
	w := newWorld(t, setup{})
	w.webSockets(func(c net.Conn) { io.Copy(c, c) })
	cookie := "Cookie: " + w.cookie + "=" + w.signedIn(t, "ada").session()
	for _, c := range []struct {
		name   string
		path   string
		lines  []string
		status int
	}{
		{"our own", "/x", []string{cookie, "Origin: http://app.test"}, 101},
		{"none", "/x", []string{cookie}, 403},
		{"null", "/x", []string{cookie, "Origin: null"}, 403},
		{"another site", "/x", []string{cookie, "Origin: http://evil.test"}, 403},
		{"a sibling", "/x", []string{cookie, "Origin: http://evil.app.test"}, 403},
		{"another scheme", "/x", []string{cookie, "Origin: https://app.test"}, 403},
		{"another port", "/x", []string{cookie, "Origin: http://app.test:8080"}, 403},
		{"our name in another", "/x", []string{cookie, "Origin: http://app.test.evil.test"}, 403},
		{"in capitals", "/x", []string{cookie, "Origin: HTTP://APP.TEST"}, 403},
		{"two", "/x", []string{cookie, "Origin: http://app.test", "Origin: http://app.test"}, 403},
		{"two in a line", "/x", []string{cookie, "Origin: http://app.test, http://evil.test"}, 403},
		{"nobody signed in", "/x", []string{"Origin: http://app.test"}, 401},
		{"a public route of our own pages", "/public/x", []string{"Origin: http://app.test"}, 101},
		{"a public route of another site", "/public/x", []string{"Origin: http://evil.test"}, 403},
		{"a public route of a program", "/public/x", nil, 101},
		{"a public route with a session and no origin", "/public/x", []string{cookie}, 403},
		{"with a body", "/x", []string{cookie, "Origin: http://app.test", "Content-Length: 5\r\n\r\nhello"}, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(w.upstream.requests())
			conn, _, res := w.shake(t, c.path, c.lines...)
			if res.StatusCode != c.status {
				t.Errorf("the handshake is answered %s, want %d", res.Status, c.status)
			}
			if asked := len(w.upstream.requests()) - before; asked > 0 != (c.status == 101) {
				t.Errorf("the upstream was asked %d times", asked)
			}
			conn.Close()
		})
	}
}

func TestAWebSocketThatTheAppDoesNotWantIsAnOrdinaryAnswer(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.signedIn(t, "ada")
	w.upstream.answer(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(418); rw.Write([]byte("no")) })
	_, _, res := w.shake(t, "/x", "Origin: http://app.test", "Cookie: "+w.cookie+"="+b.session())
	if body := read(res); res.StatusCode != 418 || body != "no" {
		t.Errorf("the handshake is answered %s %q", res.Status, body)
	}
}

// openSocket is a WebSocket of a signed-in user over which the upstream sends what comes from out.
func openSocket(t *testing.T, w *world, b *browser) (br *bufio.Reader, out chan<- []byte, ended <-chan struct{}) {
	t.Helper()
	sends, over := make(chan []byte), make(chan struct{})
	w.webSockets(func(c net.Conn) {
		defer close(over)
		go func() {
			for bytes := range sends {
				c.Write(bytes)
			}
		}()
		io.Copy(io.Discard, c)
	})
	t.Cleanup(func() { close(sends) })
	_, br, res := w.shake(t, "/socket", "Origin: http://app.test", "Cookie: "+w.cookie+"="+b.session())
	if res.StatusCode != 101 {
		t.Fatalf("the handshake is answered %s", res.Status)
	}
	return br, sends, over
}

// endings are what ends a session, and with it its streams.
var endings = map[string]func(*testing.T, *world, *browser){
	"a logout": func(t *testing.T, _ *world, b *browser) { b.navigate("/auth/logout").wants(t, 303) },
	"a back-channel logout": func(t *testing.T, w *world, _ *browser) {
		notify(t, w, w.provider.LogoutToken(clientID, "ada", "", nil)).wants(t, 200)
	},
	"another login": func(t *testing.T, _ *world, b *browser) { b.back(b.login("/auth/login")).wants(t, 303) },
	"its age":       func(_ *testing.T, w *world, _ *browser) { w.clock.advance(8 * 24 * time.Hour) },
	"a logout after a reload": func(t *testing.T, w *world, b *browser) {
		w.reload(nil)
		b.navigate("/auth/logout").wants(t, 303)
	},
}

func TestAWebSocketEndsWithItsSession(t *testing.T) {
	for name, end := range endings {
		for store, s := range stores {
			t.Run(name+", "+store, func(t *testing.T) {
				t.Parallel() // ending by age is noticed within half a second
				w := newWorld(t, s)
				w.run()
				b := w.signedIn(t, "ada")
				br, out, over := openSocket(t, w, b)
				out <- frame("hello")
				if got := next(t, br, len(frame("hello"))); got != string(frame("hello")) {
					t.Fatalf("the client got %q", got)
				}
				end(t, w, b)
				if got := next(t, br, 4); got != closing(1008) { // policy violation
					t.Errorf("the client is told %x, want the close code 1008", got)
				}
				if _, err := br.ReadByte(); err != io.EOF {
					t.Errorf("the connection goes on: %v", err)
				}
				within(t, "the end of the upstream's connection", over)
			})
		}
	}
}

func next(t *testing.T, br *bufio.Reader, n int) string {
	t.Helper()
	buf := make([]byte, n)
	if _, err := io.ReadFull(br, buf); err != nil {
		t.Fatalf("the client got %q, %v", buf, err)
	}
	return string(buf)
}

// A close frame within another frame would be read as its content.
func TestACloseFrameStandsBetweenFramesOrNotAtAll(t *testing.T) {
	long := frame(strings.Repeat("x", 70_000))
	for name, c := range map[string]struct {
		sent  []byte
		whole bool
	}{
		"a short frame":            {frame("hello"), true},
		"an empty frame":           {frame(""), true},
		"a long frame":             {long, true},
		"two frames":               {append(frame("a"), frame(strings.Repeat("b", 200))...), true},
		"half a head":              {long[:1], false},
		"a head":                   {long[:10], false},
		"a frame but for a byte":   {long[:len(long)-1], false},
		"a frame and half another": {append(frame("a"), frame("hello")[:4]...), false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, setup{})
			w.run()
			b := w.signedIn(t, "ada")
			br, out, over := openSocket(t, w, b)
			out <- c.sent
			if got := next(t, br, len(c.sent)); got != string(c.sent) {
				t.Fatal("the frame was changed")
			}
			b.navigate("/auth/logout").wants(t, 303)
			rest, _ := io.ReadAll(br)
			if want := closing(1008); c.whole && string(rest) != want || !c.whole && len(rest) > 0 {
				t.Errorf("after %q the client got %x", name, rest)
			}
			within(t, "the end of the upstream's connection", over)
		})
	}
}

func TestStreamsOfOthersGoOn(t *testing.T) {
	w := newWorld(t, setup{})
	w.run()
	ada, bob := w.signedIn(t, "ada"), w.signedIn(t, "bob")
	fromAda, toAda, adaOver := openSocket(t, w, ada)
	fromBob, toBob, _ := openSocket(t, w, bob)
	toAda <- frame("a")
	next(t, fromAda, 3)
	ada.navigate("/auth/logout").wants(t, 303)
	within(t, "the end of ada's connection", adaOver)
	toBob <- frame("b")
	if got := next(t, fromBob, 3); got != string(frame("b")) {
		t.Errorf("bob got %q", got)
	}
}

// sse opens an event stream and returns its lines, and a way to send one.
func sse(t *testing.T, w *world, b *browser, kind string) (lines *bufio.Reader, send func(string)) {
	t.Helper()
	more := make(chan string)
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", kind)
		http.NewResponseController(rw).Flush()
		for {
			select {
			case text := <-more:
				io.WriteString(rw, text+"\n")
				http.NewResponseController(rw).Flush()
			case <-r.Context().Done():
				return
			case <-w.upstream.released:
				return
			}
		}
	})
	r := w.newRequest("GET", "/events")
	r.Header.Set("Cookie", w.cookie+"="+b.session())
	return bufio.NewReader(w.send(t, r).Body), func(text string) {
		select {
		case more <- text:
		case <-time.After(patience):
			t.Error("the upstream does not send any more")
		}
	}
}

func TestAnEventStreamEndsWithItsSession(t *testing.T) {
	for name, end := range endings {
		for _, kind := range []string{"text/event-stream", "application/octet-stream"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, setup{})
				w.run()
				b := w.signedIn(t, "ada")
				lines, send := sse(t, w, b, kind)
				send("data: 1")
				if line, err := lines.ReadString('\n'); line != "data: 1\n" {
					t.Fatalf("the stream begins with %q, %v", line, err)
				}
				end(t, w, b)
				if rest, err := io.ReadAll(lines); err == nil || len(rest) > 0 {
					t.Errorf("the stream ends with %q, %v, want it broken off", rest, err)
				}
				if e := w.log.request(t, "/events"); !strings.Contains(fmt.Sprint(e["error"]), "its session has ended") || e["status"] != 200.0 {
					t.Errorf("the log says %v", e)
				}
			})
		}
	}
}

func TestAStoreThatIsDownEndsNoStream(t *testing.T) {
	w := newWorld(t, setup{file: true})
	b := w.signedIn(t, "ada")
	lines, send := sse(t, w, b, "text/event-stream")
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	w.proxy.CheckStreams(t.Context())
	send("data: still there")
	if line, err := lines.ReadString('\n'); line != "data: still there\n" {
		t.Errorf("the stream goes on with %q, %v", line, err)
	}
}

// How long a session may last at most is known without the store.
func TestAStoreThatIsDownKeepsNoStreamBeyondItsSessionsTime(t *testing.T) {
	w := newWorld(t, setup{file: true})
	b := w.signedIn(t, "ada")
	lines, send := sse(t, w, b, "text/event-stream")
	send("data: 1")
	lines.ReadString('\n')
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.sessions.End(t.Context(), session.Selector{ID: "x"}); err == nil { // after which no session is known by heart
		t.Fatal("the store is not down")
	}
	w.clock.advance(7 * 24 * time.Hour)
	w.proxy.CheckStreams(t.Context())
	if rest, err := io.ReadAll(lines); err == nil || len(rest) > 0 {
		t.Errorf("the stream ends with %q, %v, want it broken off", rest, err)
	}
}

func TestAShutdownEndsWhatWouldNotEndByItself(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.signedIn(t, "ada")
	br, out, over := openSocket(t, w, b)
	out <- frame("x")
	next(t, br, 3)
	lines, send := sse(t, w, b, "text/event-stream")
	send("data: 1")
	lines.ReadString('\n')
	download, more := sse(t, w, b, "application/zip")
	more("part")
	w.proxy.CloseStreams()
	if got := next(t, br, 4); got != closing(1001) { // going away
		t.Errorf("the client is told %x, want the close code 1001", got)
	}
	within(t, "the end of the upstream's connection", over)
	if rest, err := io.ReadAll(lines); err == nil || len(rest) > 0 {
		t.Errorf("the event stream ends with %q, %v", rest, err)
	}
	more("last part") // a download is waited for
	for _, want := range []string{"part\n", "last part\n"} {
		if line, err := download.ReadString('\n'); line != want {
			t.Errorf("the download goes on with %q, %v, want %q", line, err, want)
		}
	}
}

// A request that the upstream has not answered yet when we stop may turn out to be one that never ends.
func TestAShutdownEndsStreamsThatBeginJustThen(t *testing.T) {
	w := newWorld(t, setup{})
	w.run()
	b := w.signedIn(t, "ada")
	asked, begin := make(chan struct{}), make(chan struct{})
	w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		close(asked)
		<-begin
		http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r := w.newRequest("GET", "/events")
		r.Header.Set("Cookie", w.cookie+"="+b.session())
		if res, err := b.transport.RoundTrip(r); err == nil {
			read(res)
		}
	}()
	<-asked
	w.proxy.CloseStreams()
	close(begin)
	within(t, "the end of the event stream", ended)
}

// The program ends when nothing is under way, and a WebSocket is not: its client must have been told before.
func TestAShutdownDoesNotOvertakeWhatClientsAreTold(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.signedIn(t, "ada")
	var all []net.Conn
	for range 100 {
		w.webSockets(func(c net.Conn) { io.Copy(io.Discard, c) })
		c, _, res := w.shake(t, "/socket", "Origin: http://app.test", "Cookie: "+w.cookie+"="+b.session())
		if res.StatusCode != 101 {
			t.Fatal(res.Status)
		}
		all = append(all, c)
	}
	w.proxy.CloseStreams()
	for _, c := range all {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		buf, n := make([]byte, 10), 0
		raw.Read(func(fd uintptr) bool { n, err = syscall.Read(int(fd), buf); return true }) // what is there, without waiting
		if got := string(buf[:max(n, 0)]); got != closing(1001) {
			t.Fatalf("after CloseStreams a client has got %x, %v", got, err)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	w := newWorld(t, setup{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.proxy.Run(ctx) }()
	b := w.signedIn(t, "ada")
	b.navigate("/x").wants(t, 200)
	cancel()
	within(t, "the end of Run", done)
}

func TestPagesOfPublicURLAndOfARoutesHostMayOpenItsWebSockets(t *testing.T) {
	w := newWorld(t, setup{https: true, domain: "app.test", options: func(o *proxy.Options) {
		r := o.Routes[0] // for anyone
		r.Host, r.Path = "wiki.app.test", "/"
		o.Routes = append(o.Routes, r)
	}})
	w.upstream.answer(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusUpgradeRequired) })
	for origin, want := range map[string]int{"https://wiki.app.test": 426, "https://app.test": 426, "https://other.app.test": 403, "https://app.test.evil.test": 403} {
		r := must(http.NewRequest("GET", "https://wiki.app.test/x", nil))
		r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Origin": {origin}}
		if res := w.send(t, r); res.StatusCode != want {
			t.Errorf("from %s: %s, want %d", origin, res.Status, want)
		}
	}
}
