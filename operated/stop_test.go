package operated_test

import (
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// later makes a request whose answer is waited for later.
func (c *client) later(path, cookie string) <-chan answer {
	a := make(chan answer, 1)
	go func() { a <- c.get(path, cookie) }()
	return a
}

// listens says whether connections are accepted.
func (r *replica) listens() bool {
	c, err := net.Dial("tcp", r.addr)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// SIGTERM turns balancers away at once, serves what still comes for a moment, then finishes what is under
// way. SIGINT is the same without the moment.
func TestSignalsStopGracefully(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			delay := "4s"
			if signal == syscall.SIGINT {
				delay = "1m"
			}
			w := newWorld(t, settings{more: "shutdown: {delay: " + delay + "}"})
			r := w.replica()
			cookie := w.signIn("ada", r.addr)
			kept, fresh, multiplexed := w.client(r.addr), w.client(r.addr), w.client(r.addr)
			fresh.DisableKeepAlives = true
			multiplexed.Protocols = new(http.Protocols)
			multiplexed.Protocols.SetUnencryptedHTTP2(true)
			if a := kept.get("/", cookie); a.status != http.StatusOK {
				t.Fatal(a)
			}
			long := []<-chan answer{fresh.later("/late", cookie), kept.later("/late", cookie), multiplexed.later("/late", cookie)}
			eventually(t, "long requests are under way", func() bool { return int(w.app.late.Load()) == len(long) })
			r.signal(signal)
			eventually(t, "readiness fails", func() bool { return r.ready() == http.StatusServiceUnavailable })
			if signal == syscall.SIGTERM {
				for _, c := range []*client{kept, fresh, multiplexed} {
					if a := c.get("/", cookie); a.status != http.StatusOK {
						t.Errorf("within shutdown.delay a request is answered %s", a)
					}
				}
			}
			eventually(t, "the listener is closed", func() bool { return !r.listens() })
			if !r.running() {
				t.Error("the program has ended and requests were under way")
			}
			w.app.begin()
			for _, got := range long {
				a := <-got
				if s, ok := a.reached(); !ok || s.User != "ada" {
					t.Errorf("a request that was under way is answered %s", a)
				}
			}
			r.ended(t)
			r.start()
			if !w.alive(kept, cookie) {
				t.Error("the user is signed out by the restart")
			}
		})
	}
}

// What does not end by itself is cut off after shutdown.grace, or by a second signal.
func TestStoppingHasAnEnd(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		grace string
		twice bool
	}{"grace": {"1s", false}, "a second signal": {"10m", true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{more: "shutdown: {delay: 0s, grace: " + test.grace + "}"})
			r := w.replica()
			download := w.open(r.addr, "/chunks", w.signIn("ada", r.addr))
			r.signal(syscall.SIGTERM)
			eventually(t, "the listener is closed", func() bool { return !r.listens() })
			if test.twice {
				download.lives(t)
				r.signal(syscall.SIGTERM)
			}
			download.ends(t, 0)
			r.ended(t)
		})
	}
}

// Issue 3: WebSockets are told that we are going away, all of them, and also those that begin just then.
func TestStreamsEndWhenTheProgramStops(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{more: "shutdown: {delay: 0s, grace: 10m}"})
	r := w.replica()
	cookie := w.signIn("ada", r.addr)
	var open []*stream
	for i := range 200 {
		open = append(open, w.open(r.addr, streamPaths[i%2], cookie))
	}
	late := make(chan *stream, 2)
	for _, path := range streamPaths[:2] {
		go func() { late <- w.open(r.addr, path+"/late", cookie) }()
	}
	eventually(t, "two more streams are about to begin", func() bool { return w.app.late.Load() == 2 })
	stopped := time.Now()
	r.signal(syscall.SIGTERM)
	last := time.Duration(0)
	for _, s := range open {
		last = max(last, s.ends(t, 1001).Sub(stopped))
	}
	eventually(t, "the listener is closed", func() bool { return !r.listens() })
	w.app.begin()
	for range 2 {
		(<-late).ends(t, 1001)
	}
	r.ended(t)
	t.Logf("%d streams ended within %v of the signal", len(open), last)
}
