package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"authproxy/session"
)

// streams knows the answers that go on for long, so that they end when the session does that they were begun with.
type streams struct {
	p       atomic.Pointer[Proxy] // the latest; streams outlive a reload
	wake    chan struct{}         // a session was ended here: look at once
	leaving atomic.Bool           // the program stops
	closing sync.WaitGroup        // of streams whose session has ended

	mu   sync.Mutex
	open map[*stream]struct{}
}

// streamCheck is how often it is asked whether the sessions of open streams are still alive: an ending on another replica is
// obeyed within that time.
const streamCheck = 500 * time.Millisecond

// Close codes of WebSocket (RFC 6455 §7.4.1).
const (
	closeGoingAway = 1001
	closePolicy    = 1008
)

// A stream is one such answer.
type stream struct {
	who     visitor   // whose it is; anonymous is nobody
	body    io.Closer // of the upstream's response
	socket  *socket   // nil unless it is a WebSocket
	endless bool      // not worth waiting for at a shutdown
	owner   *streams
	closed  atomic.Bool // by us
}

func newStreams(p *Proxy) *streams {
	s := &streams{wake: make(chan struct{}, 1), open: map[*stream]struct{}{}}
	s.p.Store(p)
	return s
}

// watch makes a stream of a response that may go on for long: it is closed when the visitor's session ends.
func (s *streams) watch(x *exchange, who visitor, res *http.Response) {
	upgraded := res.StatusCode == http.StatusSwitchingProtocols
	if !upgraded && res.ContentLength >= 0 && res.ContentLength < 1<<20 {
		return
	}
	st := &stream{who: who, body: res.Body, owner: s, endless: upgraded || strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream")}
	if who.IsAnonymous() && !st.endless { // a public answer, which ends by itself
		return
	}
	x.stream = st
	if upgraded {
		both, ok := res.Body.(io.ReadWriteCloser)
		if !ok {
			return // httputil.ReverseProxy refuses it
		}
		res.Body = &streamConn{both, st}
		x.w.hijacked = func(c net.Conn) net.Conn {
			st.socket = &socket{Conn: c}
			s.add(st)
			return st.socket
		}
		return
	}
	res.Body = &streamBody{res.Body, st}
	s.add(st)
}

func (s *streams) add(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[st] = struct{}{}
}

func (s *streams) remove(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, st)
}

// A streamBody leaves the list when it is closed.
type streamBody struct {
	io.ReadCloser
	stream *stream
}

func (b *streamBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.stream.closed.Load() { // what was on its way when the session ended
		return 0, net.ErrClosed
	}
	return n, err
}

func (b *streamBody) Close() error {
	b.stream.owner.remove(b.stream)
	return b.ReadCloser.Close()
}

type streamConn struct {
	io.ReadWriteCloser
	stream *stream
}

func (c *streamConn) Close() error {
	c.stream.owner.remove(c.stream)
	return c.ReadWriteCloser.Close()
}

// run looks after the streams until ctx ends.
func (s *streams) run(ctx context.Context) {
	tick := time.NewTicker(streamCheck)
	defer tick.Stop()
	defer s.closing.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.wake:
		}
		s.check(ctx)
	}
}

// check closes the streams whose session has ended. That a store does not answer ends those only whose time is over.
func (s *streams) check(ctx context.Context) {
	if s.leaving.Load() {
		s.leave() // those that have begun since
	}
	p := s.p.Load()
	owned := s.list(func(st *stream) bool { return !st.who.IsAnonymous() })
	for _, st := range owned { // all of them, before a store makes us wait
		if p.expired(st.who) {
			st.end()
		}
	}
	for _, st := range owned {
		if !st.closed.Load() && errors.Is(p.alive(ctx, st.who), session.ErrNone) {
			st.end()
		}
	}
}

// end closes a stream whose session has ended. A client that does not read is not waited for.
func (st *stream) end() {
	st.closed.Store(true) // at once, for what is on its way
	st.owner.closing.Go(func() { st.close(closePolicy) })
}

// ended says that sessions were ended here.
func (s *streams) ended() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *streams) list(want func(*stream) bool) (all []*stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.open {
		if want(st) {
			all = append(all, st)
		}
	}
	return all
}

// CloseStreams ends the WebSockets and event streams, which would not end by themselves, for a shutdown. It returns when their
// clients have been told, after a second at most; those that begin later are ended by Run.
func (p *Proxy) CloseStreams() {
	p.streams.leaving.Store(true)
	p.streams.leave()
}

func (s *streams) leave() {
	var closing sync.WaitGroup
	for _, st := range s.list(func(st *stream) bool { return st.endless }) {
		closing.Go(func() { st.close(closeGoingAway) })
	}
	closing.Wait()
}

// close ends the stream towards both sides. A WebSocket client is told why, if that is possible between two frames. It takes a
// second at most, when the client does not read.
func (st *stream) close(code uint16) {
	st.closed.Store(true)
	st.owner.remove(st)
	if st.socket != nil {
		st.socket.closeWith(code)
	}
	st.body.Close()
}

// A socket is the client's end of a WebSocket. It follows the frames that the upstream sends, to know when a frame of ours
// can stand between them (RFC 6455 §5.2).
type socket struct {
	net.Conn

	closing atomic.Bool

	mu     sync.Mutex
	head   []byte // of a frame, as far as it was seen
	left   uint64 // of its payload
	closed bool
}

func (s *socket) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.closing.Load() {
		return 0, net.ErrClosed
	}
	s.Conn.SetWriteDeadline(time.Now().Add(writePatience))
	if s.closing.Load() { // closeWith wants its own deadline
		s.Conn.SetWriteDeadline(time.Now().Add(time.Second))
	}
	n, err := s.Conn.Write(b)
	s.follow(b[:n])
	return n, err
}

// follow keeps track of where in a frame the bytes sent end.
func (s *socket) follow(b []byte) {
	for len(b) > 0 {
		if s.left > 0 {
			n := min(s.left, uint64(len(b)))
			s.left -= n
			b = b[n:]
			continue
		}
		s.head = append(s.head, b[0])
		b = b[1:]
		if size, ok := payload(s.head); ok {
			s.left, s.head = size, s.head[:0]
		}
	}
}

// payload is the length of what follows a frame's head, once the head is complete. Servers do not mask (§5.1); if one does,
// the mask counts as payload.
func payload(head []byte) (size uint64, ok bool) {
	if len(head) < 2 {
		return 0, false
	}
	more := 0
	if head[1]&0x80 != 0 {
		more = 4
	}
	switch n := head[1] & 0x7f; {
	case n < 126:
		return uint64(n) + uint64(more), true
	case n == 126 && len(head) == 4:
		return uint64(binary.BigEndian.Uint16(head[2:])) + uint64(more), true
	case n == 127 && len(head) == 10:
		return binary.BigEndian.Uint64(head[2:])&(1<<63-1) + uint64(more), true
	}
	return 0, false
}

// closeWith says goodbye and closes the connection. A client that does not read is not waited for.
func (s *socket) closeWith(code uint16) {
	s.closing.Store(true)
	s.Conn.SetWriteDeadline(time.Now().Add(time.Second)) // also ends a Write that holds the lock
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && s.left == 0 && len(s.head) == 0 {
		s.Conn.Write(binary.BigEndian.AppendUint16([]byte{0x88, 2}, code)) // FIN, opcode close, two bytes
	}
	s.closed = true
	s.Conn.Close()
}
