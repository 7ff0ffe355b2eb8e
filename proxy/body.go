package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// bodyIdle is how long a client may pause within a body that is forwarded. Who sends nothing at all would hold one of the
// upstream's workers for ever.
const bodyIdle = time.Minute

// An upload is the body of a request that is forwarded. http.Transport reads it, also while the answer is under way already.
type upload struct {
	body    io.ReadCloser // net/http closes it when the request is over
	control *http.ResponseController

	over   atomic.Bool // its end was seen
	broken atomic.Bool // it ended early, or cannot be read

	reading  sync.Mutex // held by a Read under way
	mu       sync.Mutex
	complete bool // the answer is: nobody wants the rest
}

var errComplete = errors.New("the answer to this body is complete")

func (u *upload) Read(p []byte) (int, error) {
	u.reading.Lock()
	defer u.reading.Unlock()
	if u.over.Load() { // http.Transport looks whether there is more than Content-Length says, and the body may be closed by then
		return 0, io.EOF
	}
	if !u.patience() {
		return 0, errComplete
	}
	n, err := u.body.Read(p)
	switch err {
	case nil:
	case io.EOF:
		u.over.Store(true)
		u.control.SetReadDeadline(time.Time{}) // the connection goes on: with the answer, and with other requests
	default:
		u.broken.Store(true)
	}
	return n, err
}

// patience gives the client bodyIdle for its next bytes, while somebody wants them.
func (u *upload) patience() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.complete {
		u.control.SetReadDeadline(time.Now().Add(bodyIdle)) // where it cannot be set, there is no connection to wait for
	}
	return !u.complete
}

// Close does nothing: closing would read on, before the answer is sent.
func (u *upload) Close() error { return nil }

// answering is called when the answer begins. If the body is not over by then, the connection is given up after the answer:
// where the next request begins is not known. It also keeps net/http from reading the body itself at this moment, under the
// transport, which breaks off the answer of an upstream that did not wait for the whole body.
func (u *upload) answering(r *http.Request, h http.Header) {
	if u != nil && !u.over.Load() && r.ProtoMajor == 1 {
		h["Connection"] = []string{"close"}
	}
}

// leave is called when the answer is complete. It ends a Read that the transport has left behind, and bounds how long net/http
// waits for the rest, in this order: net/http would end that Read itself, and take away every deadline with it.
func (u *upload) leave() {
	u.mu.Lock()
	u.complete = true
	if !u.over.Load() {
		u.control.SetReadDeadline(time.Unix(1, 0))
	}
	u.mu.Unlock()
	u.reading.Lock()
	defer u.reading.Unlock()
	if u.over.Load() {
		u.control.SetReadDeadline(time.Time{})
	} else {
		u.control.SetReadDeadline(time.Now().Add(bodyPatience))
	}
}
