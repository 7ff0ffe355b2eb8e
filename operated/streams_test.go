package operated_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A stream is an answer that goes on for long: a WebSocket, an event stream or a chunked answer.
type stream struct {
	path string
	over chan struct{} // closed when it has ended
	rest []byte        // what came after "hello"; to be read after over, as the rest
	err  error         // how it ended
	at   time.Time
}

var streamPaths = []string{"/socket", "/events", "/chunks"}

// open opens a stream and waits until it has begun.
func (w *world) open(addr, path, cookie string) *stream {
	w.t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	r := w.request(context.Background(), "GET", path, cookie)
	hello := "hello"
	if strings.HasPrefix(path, "/socket") {
		hello = "\x81\x05hello"
		r.Header = http.Header{"Cookie": {cookie}, "Origin": {w.public.String()}, "Connection": {"Upgrade"}, "Upgrade": {"websocket"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
	}
	if err := r.Write(c); err != nil {
		w.t.Fatal(err)
	}
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, r)
	if err != nil {
		w.t.Fatal(err)
	}
	var body io.Reader = res.Body
	if res.StatusCode == http.StatusSwitchingProtocols {
		body = br
	}
	begin := make([]byte, len(hello))
	if _, err := io.ReadFull(body, begin); err != nil || string(begin) != hello {
		w.t.Fatalf("%s begins %s with %q, %v", path, res.Status, begin, err)
	}
	s := &stream{path: path, over: make(chan struct{})}
	go func() {
		s.rest, s.err = io.ReadAll(body)
		s.at = time.Now()
		close(s.over)
	}()
	return s
}

// ends waits for the end, with that code where it is a WebSocket, and returns when that was.
func (s *stream) ends(t testing.TB, code uint16) time.Time {
	t.Helper()
	select {
	case <-s.over:
	case <-time.After(patience):
		t.Errorf("%s goes on", s.path)
		return time.Now()
	}
	if want := string(binary.BigEndian.AppendUint16([]byte{0x88, 2}, code)); strings.HasPrefix(s.path, "/socket") && string(s.rest) != want {
		t.Errorf("the WebSocket ends with %x, %v, want the close code %d", s.rest, s.err, code)
	}
	if !strings.HasPrefix(s.path, "/socket") && (s.err == nil || len(s.rest) > 0) {
		t.Errorf("%s ends with %q, %v, want it broken off", s.path, s.rest, s.err)
	}
	return s.at
}

// lives fails the test when the stream has ended.
func (s *stream) lives(t testing.TB) {
	t.Helper()
	select {
	case <-s.over:
		t.Errorf("%s has ended: %q, %v", s.path, s.rest, s.err)
	default:
	}
}

// Issue 3: streams die with the session, within a second, wherever it is ended.
func TestStreamsEndWithTheirSessionAtAnotherReplica(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	w := newWorld(t, settings{session: fmt.Sprintf("store: redis, redis: {url: %q}", redis.url())})
	here, there := w.replica(), w.replica()
	at := w.client(there.addr)
	bystander := w.open(here.addr, "/socket", w.signIn("ben", here.addr))
	for name, end := range map[string]func(cookie string) answer{
		"a logout":                        at.logout,
		"a back-channel logout of a sid":  func(string) answer { return at.notify(w.provider.LogoutToken(clientID, "", w.provider.LastSID(), nil)) },
		"a back-channel logout of a user": func(string) answer { return at.notify(w.provider.LogoutToken(clientID, "ada", "", nil)) },
		"an operator":                     func(string) answer { return there.ask("DELETE", "/sessions?subject=auth0|ada") },
		"the user, from another session":  func(string) answer { return at.signOutElsewhere(w.signIn("ada", there.addr)) },
		"a logout at the same replica":    w.client(here.addr).logout,
		"an operator at the same replica": func(string) answer { return here.ask("DELETE", "/sessions?subject=auth0|ada") },
	} {
		t.Run(name, func(t *testing.T) {
			cookie := w.signIn("ada", here.addr, there.addr)
			var open []*stream
			for _, path := range streamPaths {
				open = append(open, w.open(here.addr, path, cookie))
			}
			if a := settled(func() answer { return end(cookie) }); a.err != nil || a.status/100 > 3 {
				t.Fatalf("it is answered %s", a)
			}
			ended, last := time.Now(), time.Duration(0)
			for _, s := range open {
				last = max(last, s.ends(t, 1008).Sub(ended))
			}
			t.Logf("the last stream ended %v after the answer", last)
			if last > 5*time.Second {
				t.Errorf("the last stream ended %v after the answer, want a second", last)
			}
		})
	}
	bystander.lives(t)
}

// A store that does not answer must not keep streams open beyond the time that their session had from the beginning.
func TestStreamsEndWhenTheirSessionExpires(t *testing.T) {
	t.Parallel()
	for _, down := range []bool{false, true} {
		t.Run(fmt.Sprintf("the store is down %t", down), func(t *testing.T) {
			t.Parallel()
			redis := startRedis(t)
			const life = 5 * time.Second
			w := newWorld(t, settings{session: fmt.Sprintf("max_lifetime: %v, store: redis, redis: {url: %q}", life, redis.url())})
			r := w.replica()
			began := time.Now()
			cookie := w.signIn("ada", r.addr)
			var open []*stream
			for _, path := range streamPaths {
				open = append(open, w.open(r.addr, path, cookie))
			}
			if down {
				redis.kill()
			}
			for _, s := range open {
				lived := s.ends(t, 1008).Sub(began)
				t.Logf("%s lived for %v", s.path, lived)
				if lived < life || lived > life+5*time.Second {
					t.Errorf("%s lived for %v, its session %v", s.path, lived, life)
				}
			}
		})
	}
}
