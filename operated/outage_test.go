package operated_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// An outage is two replicas with one Redis that goes away and comes back, while people use both.
type outage struct {
	*world
	t        testing.TB
	replicas []*replica
	clients  []*client
	cookies  []string // of sessions, of the users in turn
	load     *load
}

var everybody = []string{"ada", "ben", "cat"}

func newOutage(t *testing.T, url string) *outage {
	t.Helper()
	o := &outage{t: t, world: newWorld(t, settings{session: fmt.Sprintf("store: redis, redis: {url: %q}", url)})}
	for range 2 {
		r := o.replica()
		o.replicas, o.clients = append(o.replicas, r), append(o.clients, o.client(r.addr))
	}
	for i := range 30 {
		o.cookies = append(o.cookies, o.signIn(everybody[i%len(everybody)], o.replicas[0].addr, o.replicas[1].addr))
	}
	return o
}

// begin starts the load: some sessions are in use all the time, others are seldom asked for.
func (o *outage) begin() {
	cookies := slices.Clone(o.cookies)
	o.load = startLoad(o.t, 6, func(worker, n int) (answer, string) {
		i := n % 3
		if n%10 == 0 {
			i = (n / 10 * 7) % len(cookies)
		}
		a := o.clients[worker%2].get("/", cookies[i])
		return a, o.judge(i, a)
	})
}

// goOn waits until some hundred more requests were answered with that status.
func (o *outage) goOn(status int) {
	o.t.Helper()
	began := time.Now()
	eventually(o.t, fmt.Sprint("answers of status ", status), func() bool { return count(o.load.since(began), status) > 300 })
}

// judge says what is wrong with an answer for a session. Right is what the app says to its user, or that the store does not
// answer, and nothing else.
func (o *outage) judge(i int, a answer) string {
	if s, ok := a.reached(); ok && s.User == everybody[i%len(everybody)] {
		return ""
	}
	if retry, err := strconv.Atoi(a.header.Get("Retry-After")); a.status == http.StatusServiceUnavailable && err == nil && retry > 0 && strings.Contains(a.body, "session_store_unavailable") {
		return ""
	}
	return fmt.Sprintf("session %d of %s gets %s", i, everybody[i%len(everybody)], a)
}

// noticed waits until every replica refuses sessions in use for want of the store, and says so to balancers.
func (o *outage) noticed() {
	o.t.Helper()
	for _, r := range o.replicas {
		c := o.client(r.addr)
		eventually(o.t, "a replica notices", func() bool { return c.get("/", o.cookies[0]).status == http.StatusServiceUnavailable })
		eventually(o.t, "a replica is not ready", func() bool { return r.ready() == http.StatusServiceUnavailable })
	}
}

// over waits until every replica serves again, and returns how long after the given time the last 503 was sent.
func (o *outage) over(back time.Time) time.Duration {
	o.t.Helper()
	for _, r := range o.replicas {
		c := o.client(r.addr)
		eventually(o.t, "a replica serves again", func() bool { return c.get("/", o.cookies[0]).status == http.StatusOK })
		eventually(o.t, "a replica is ready again", func() bool { return r.ready() == http.StatusOK })
	}
	last := time.Duration(0)
	for _, a := range o.load.since(back) {
		if a.status == http.StatusServiceUnavailable {
			last = max(last, a.began.Add(a.took).Sub(back))
		}
	}
	if last > 10*time.Second {
		o.t.Errorf("the last 503 was sent %v after the store was back, want 2s", last)
	}
	return last
}

// end stops the load. All sessions are there, at both replicas, and those who sign out are gone.
func (o *outage) end() {
	o.t.Helper()
	answers := o.load.stop(o.t)
	slowest := longest(answers, http.StatusServiceUnavailable)
	o.t.Logf("%d answers, of which %d are 503; the slowest 503 took %v, the slowest of all %v", len(answers), count(answers, 503), slowest, longest(answers, 0))
	if slowest > 5*time.Second {
		o.t.Errorf("a 503 took %v, want a second", slowest)
	}
	for i, cookie := range o.cookies {
		for n, c := range o.clients {
			a := settled(func() answer { return c.get("/", cookie) })
			if _, ok := a.reached(); !ok || o.judge(i, a) != "" {
				o.t.Errorf("session %d at replica %d afterwards: %s", i, n, a)
			}
		}
	}
	if a := settled(func() answer { return o.clients[0].logout(o.cookies[0]) }); a.status != http.StatusSeeOther {
		o.t.Errorf("a logout is answered %s", a)
	}
	for _, c := range o.clients {
		eventually(o.t, "the session has ended", func() bool { return !o.alive(c, o.cookies[0]) })
	}
}

// refuses fails the test unless what needs the store is refused while it does not answer: nobody is told that all is well.
func (o *outage) refuses() {
	o.t.Helper()
	cookie := o.cookies[1]
	for what, ask := range map[string]func(c *client) answer{
		"a logout":              func(c *client) answer { return c.logout(cookie) },
		"a back-channel logout": func(c *client) answer { return c.notify(o.provider.LogoutToken(clientID, "ben", "", nil)) },
		"/me":                   func(c *client) answer { return c.get("/auth/me", cookie) },
		"a login":               func(c *client) answer { _, a := o.trySignIn("ada", o.replicas[0].addr); return a },
	} {
		a := ask(o.clients[0])
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			o.t.Errorf("while the store does not answer %s is answered %s", what, a)
		}
		if a.took > 5*time.Second {
			o.t.Errorf("while the store does not answer %s takes %v, want a second", what, a.took)
		}
	}
	for _, r := range o.replicas {
		if a := r.ask("DELETE", "/sessions?all=true"); a.status != http.StatusServiceUnavailable {
			o.t.Errorf("while the store does not answer an operator gets %s", a)
		}
		if a := r.ask("GET", "/healthz"); a.status != http.StatusOK {
			o.t.Errorf("while the store does not answer /healthz says %s", a)
		}
	}
}

// Issue 3: a Redis that is killed, frozen or restarted under load is 503 with Retry-After within a second, never "anonymous",
// never another user, and costs no session; service is back within two seconds of its return.
func TestAnOutageOfRedisUnderLoad(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	o := newOutage(t, redis.url())
	o.begin()
	o.goOn(http.StatusOK)

	errors := o.replicas[0].metric(`authproxy_store_errors_total{operation="load"}`)
	killed := time.Now()
	redis.kill()
	o.noticed()
	t.Logf("killed: noticed by both within %v", time.Since(killed))
	o.refuses()
	o.goOn(http.StatusServiceUnavailable)
	if now := o.replicas[0].metric(`authproxy_store_errors_total{operation="load"}`); now <= errors {
		t.Errorf("errors of the store were counted up to %v before, and %v afterwards", errors, now)
	}
	redis.start()
	t.Logf("restarted: the last 503 came %v after Redis answered", o.over(time.Now()))
	o.goOn(http.StatusOK)

	frozen := time.Now()
	redis.freeze()
	o.noticed()
	believed := time.Duration(0)
	for _, a := range o.load.since(frozen) {
		if a.status == http.StatusOK {
			believed = max(believed, a.began.Sub(frozen))
		}
	}
	t.Logf("frozen: sessions were believed for %v", believed)
	if believed > 5*time.Second {
		t.Errorf("sessions were believed for %v, want max_staleness, which is 1s", believed)
	}
	o.refuses()
	back := time.Now()
	redis.thaw()
	t.Logf("thawed: the last 503 came %v later", o.over(back))
	o.goOn(http.StatusOK)
	o.end()
}

// The same when Sentinel makes another server the master: because the first is dead, or because it was frozen, in which case
// it comes back and takes itself for the master still.
func TestAFailoverOfRedisUnderLoad(t *testing.T) {
	t.Parallel()
	for name, thaws := range map[string]bool{"killed": false, "frozen": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := startRedis(t)
			second := startRedis(t, "--replicaof", "127.0.0.1 "+first.port)
			sentinel := startSentinel(t, first)
			o := newOutage(t, "redis://127.0.0.1:"+sentinel.port+"/0?master_set=main")
			gone := o.signIn("cat", o.replicas[0].addr)
			if a := settled(func() answer { return o.clients[1].logout(gone) }); a.status != http.StatusSeeOther {
				t.Errorf("a logout is answered %s", a)
			}
			eventually(t, "everything is replicated", first.replicated)
			o.begin()
			o.goOn(http.StatusOK)

			failed := time.Now()
			if thaws {
				first.freeze()
			} else {
				first.kill()
			}
			o.noticed()
			eventually(t, "the second server is the master", func() bool { return second.role() == "master" })
			back := time.Now()
			t.Logf("another server was the master after %v, and the last 503 came %v later", back.Sub(failed), o.over(back))
			o.goOn(http.StatusOK)
			if thaws {
				first.thaw()
				eventually(t, "the first server answers again", func() bool { return first.role() != "" })
			}
			o.cookies = append(o.cookies, o.signIn("ada", o.replicas[0].addr), o.signIn("ben", o.replicas[1].addr))
			after := o.signIn("cat", o.replicas[0].addr)
			if a := settled(func() answer { return o.clients[1].logout(after) }); a.status != http.StatusSeeOther {
				t.Errorf("a logout is answered %s", a)
			}
			o.goOn(http.StatusOK)
			for _, c := range o.clients {
				eventually(t, "the session has ended", func() bool { return !o.alive(c, after) })
				if o.alive(c, gone) {
					t.Error("a session that had ended before is back")
				}
			}
			o.end()
		})
	}
}
