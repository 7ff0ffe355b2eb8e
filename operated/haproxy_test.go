package operated_test

import (
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// haproxyConfig is for two replicas. It asks them often, so that shutdown.delay, which is 500 ms, may be short.
const haproxyConfig = `
global
	stats socket %s mode 600
defaults
	mode http
	timeout connect 2s
	timeout client 30s
	timeout server 30s
	timeout check 2s
	option redispatch
frontend public
	bind 127.0.0.1:%s
	default_backend authproxy
backend authproxy
	balance roundrobin
	option httpchk GET /readyz
	default-server check inter 50ms fall 1 rise 1
	server one %s port %s
	server two %s port %s
`

// A balancer is HAProxy in front of two replicas.
type balancer struct {
	addr, stats string
	*process
}

func startBalancer(t *testing.T, w *world, one, two *replica) *balancer {
	t.Helper()
	if _, err := exec.LookPath("haproxy"); err != nil {
		t.Skip("there is no haproxy: install the package of that name") // test.sh counts it
	}
	_, port, _ := net.SplitHostPort(w.public.Host)
	_, oneAdmin, _ := net.SplitHostPort(one.admin)
	_, twoAdmin, _ := net.SplitHostPort(two.admin)
	b := &balancer{addr: "127.0.0.1:" + port, stats: filepath.Join(w.dir, "stats")}
	file := filepath.Join(w.dir, "haproxy.cfg")
	write(t, file, fmt.Sprintf(haproxyConfig, b.stats, port, one.addr, oneAdmin, two.addr, twoAdmin))
	b.process = start(t, "haproxy", "-db", "-f", file)
	b.sees(t, "one", "UP")
	b.sees(t, "two", "UP")
	return b
}

// sees waits until HAProxy says that of a server.
func (b *balancer) sees(t *testing.T, server, status string) {
	t.Helper()
	eventually(t, "HAProxy sees that server "+server+" is "+status, func() bool {
		c, err := net.Dial("unix", b.stats)
		if err != nil {
			return false
		}
		defer c.Close()
		io.WriteString(c, "show stat\n")
		table := csv.NewReader(c)
		table.FieldsPerRecord = -1
		for rows, _ := table.ReadAll(); len(rows) > 0; rows = rows[1:] {
			if row := rows[0]; len(row) > 17 && row[0] == "authproxy" && row[1] == server {
				return strings.HasPrefix(row[17], status)
			}
		}
		return false
	})
}

// Issue 3: two replicas behind a balancer that asks /readyz are stopped and started again in turn, and nobody notices.
func TestARollingRestartLosesNoRequest(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	w := newWorld(t, settings{session: fmt.Sprintf("store: redis, redis: {url: %q}", redis.url())})
	one, two := w.replica(), w.replica()
	b := startBalancer(t, w, one, two)
	users := []string{"ada", "ben", "cat"}
	var cookies []string
	for _, name := range users {
		cookies = append(cookies, w.signIn(name, b.addr))
	}
	clients := []*client{w.client(b.addr), w.client(b.addr), w.client(b.addr), w.client(b.addr)}
	clients[0].DisableKeepAlives = true
	var busy atomic.Int32
	l := startLoad(t, len(clients), func(worker, n int) (answer, string) {
		user := n % len(users)
		a := clients[worker].get("/", cookies[user])
		if strings.Contains(a.body, "session_store_unavailable") { // a machine too busy for the store's time limits
			busy.Add(1)
			return a, ""
		}
		if s, ok := a.reached(); !ok || s.User != users[user] {
			return a, fmt.Sprintf("%s gets %s", users[user], a)
		}
		return a, ""
	})
	var slow atomic.Int32
	long := startLoad(t, 4, func(worker, _ int) (answer, string) {
		a := clients[worker].get("/slow", cookies[0])
		if a.err != nil || a.status != http.StatusOK || !strings.HasSuffix(a.body, "end") {
			return a, fmt.Sprintf("a long request gets %s", a)
		}
		slow.Add(1)
		return a, ""
	})
	began := time.Now()
	for range 2 {
		for name, r := range map[string]*replica{"one": one, "two": two} {
			eventually(t, "long requests are under way", func() bool { return w.app.slow.Load() == 4 })
			r.signal(syscall.SIGTERM)
			r.ended(t)
			b.sees(t, name, "DOWN")
			r.start()
			b.sees(t, name, "UP")
			w.signIn("ada", b.addr)
		}
	}
	answers := l.stop(t)
	long.stop(t)
	if n := int(busy.Load()); n > 5+len(answers)/100 {
		t.Errorf("for %d of %d requests the store was too slow", n, len(answers))
	}
	t.Logf("%d requests and %d long ones while each replica was restarted twice within %v; the slowest took %v", len(answers), slow.Load(), time.Since(began), longest(answers, 0))
	for i, cookie := range cookies {
		if !w.alive(clients[0], cookie) {
			t.Errorf("%s is signed out", users[i])
		}
	}
}
