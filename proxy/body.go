package proxy

import (
	"errors"
	"io"
	"net/http"
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
	left   atomic.Bool // the answer is complete: nobody wants the rest
}

var errLeft = errors.New("the answer to this body is complete")

func (u *upload) Read(p []byte) (int, error) {
	switch {
	case u.over.Load(): // http.Transport looks whether there is more than Content-Length says, and the body may be closed by then
		return 0, io.EOF
	case u.left.Load():
		return 0, errLeft
	}
	u.control.SetReadDeadline(time.Now().Add(bodyIdle)) // where it cannot be set, there is no connection to wait for
	n, err := u.body.Read(p)
	if err != nil {
		u.over.Store(err == io.EOF)
		u.broken.Store(err != io.EOF)
		u.control.SetReadDeadline(time.Time{}) // the connection goes on: with the answer, and with other requests
	}
	return n, err
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

// leave is called when the answer is complete.
func (u *upload) leave(x *exchange) {
	if u != nil && !u.over.Load() {
		u.left.Store(true)
		x.hurry()
	}
}
