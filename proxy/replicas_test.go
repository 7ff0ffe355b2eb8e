package proxy_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authproxy/proxy"
	"authproxy/session"
)

// startRedis runs a real redis-server until the test ends and returns its URL.
func startRedis(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("there is no redis-server: install the package of that name") // test.sh counts it
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(address)
	server := exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	if err := server.Start(); err != nil {
		t.Fatalf("%v: install the package redis-server", err)
	}
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	return "redis://" + address + "/0"
}

// replicas makes a world whose Proxy keeps its sessions in Redis, or in cookies and the endings in Redis, and a second Proxy
// beside it that shares them. The returned transport reaches the second.
func replicas(t *testing.T, s setup, inCookies bool) (w *world, second *http.Transport, wait func()) {
	t.Helper()
	return replicasOf(t, startRedis(t), s, inCookies)
}

// replicasOf is replicas with a Redis that is there already.
func replicasOf(t *testing.T, redis string, s setup, inCookies bool) (w *world, second *http.Transport, wait func()) {
	t.Helper()
	key := []byte(sessionKey)
	open := func(o *proxy.Options) {
		cookie := session.NewCookie("authproxy", "", false, http.SameSiteLaxMode)
		var (
			where = session.RedisOptions{URL: redis, Prefix: "test:"}
			store session.Store
			err   error
		)
		if inCookies {
			store, err = session.OpenCookieStoreWithRedis(where, o.Sealer, [][]byte{key}, cookie, 7*24*time.Hour, o.Now)
		} else {
			store, err = session.OpenRedisStore(where, o.Sealer, [][]byte{key}, cookie, 24*time.Hour, o.Now)
		}
		if err != nil {
			t.Fatal(err)
		}
		m := session.NewManager(store, cookie, 24*time.Hour, 7*24*time.Hour)
		m.Now = o.Now
		t.Cleanup(func() { m.Close() })
		for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) { // until the server has started
			if err = m.Ping(t.Context()); err == nil {
				break
			}
			if time.Since(begin) > 10*time.Second {
				t.Fatal(err)
			}
		}
		o.Sessions = m
	}
	more := s.options
	s.options = func(o *proxy.Options) {
		if more != nil {
			more(o)
		}
		open(o)
	}
	w = newWorld(t, s)
	opts := w.opts
	open(&opts)
	other, err := proxy.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(other)
	t.Cleanup(server.Close)
	var dialer net.Dialer
	second = &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, server.Listener.Addr().String())
	}}
	t.Cleanup(second.CloseIdleConnections)
	return w, second, func() {
		w.proxyWait()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		other.Run(ctx)
	}
}

// A provider with rotation and without leeway ends the whole login when a refresh token comes twice.
func TestTwoReplicasMakeOneRenewal(t *testing.T) {
	for _, toUpstream := range []bool{false, true} {
		t.Run(fmt.Sprint("to the upstream ", toUpstream), func(t *testing.T) {
			w, second, wait := replicas(t, tokens(setup{}, toUpstream), false)
			b := w.signedIn(t, "ada")
			line := w.cookie + "=" + b.session()
			for round := range 3 {
				w.clock.advance(61 * time.Minute)
				var (
					running sync.WaitGroup
					busy    atomic.Int32
				)
				for i := range 100 {
					running.Go(func() {
						r := w.newRequest("GET", "/x")
						r.Header.Set("Cookie", line)
						transport := http.RoundTripper(b.transport)
						if i%2 == 1 {
							transport = second
						}
						res, err := transport.RoundTrip(r)
						if err != nil {
							t.Error(err)
							return
						}
						read(res)
						if res.StatusCode == http.StatusServiceUnavailable { // a machine too busy for the store's time limits
							busy.Add(1)
						} else if res.StatusCode != http.StatusOK {
							t.Errorf("status %d", res.StatusCode)
						}
					})
				}
				running.Wait()
				wait()
				if n := busy.Load(); n > 50 {
					t.Errorf("%d of 100 requests got 503", n)
				}
				for tries := 0; w.provider.Refreshes() < round+1 && tries < 10; tries++ { // the store was too slow for the lease: after a pause, then
					w.clock.advance(11 * time.Second)
					r := w.newRequest("GET", "/x")
					r.Header.Set("Cookie", line)
					if res, err := second.RoundTrip(r); err == nil {
						read(res)
					}
					wait()
				}
				if refreshes, reused := w.provider.Refreshes(), w.provider.ReusedRefreshTokens(); refreshes != round+1 || reused != 0 {
					t.Fatalf("after round %d: %d renewals, %d refresh tokens used twice", round, refreshes, reused)
				}
			}
		})
	}
}

func TestALogoutAtOneReplicaIsObeyedByTheOther(t *testing.T) {
	for name, inCookies := range map[string]bool{"redis store": false, "cookie store with redis": true} {
		t.Run(name, func(t *testing.T) {
			w, second, _ := replicas(t, setup{}, inCookies)
			b := w.signedIn(t, "ada")
			line := w.cookie + "=" + b.session()
			ask := func() int {
				r := w.newRequest("GET", "/x")
				r.Header.Set("Cookie", line)
				res, err := second.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				read(res)
				return res.StatusCode
			}
			if got := ask(); got != http.StatusOK {
				t.Fatalf("the session of the first at the second: %d", got)
			}
			b.post("/auth/logout", nil).wants(t, http.StatusSeeOther)
			begin := time.Now()
			for ask() != http.StatusUnauthorized {
				if time.Since(begin) > 10*time.Second {
					t.Fatal("ten seconds after the logout the other replica still believes the session")
				}
			}
		})
	}
}

// Attacks P7: what is used once is used once by all replicas together.
func TestALoginIsUsedOnceByTwoReplicas(t *testing.T) {
	w, second, _ := replicas(t, setup{}, false)
	for _, atOnce := range []bool{false, true} {
		t.Run(fmt.Sprint("at once ", atOnce), func(t *testing.T) {
			b := w.newBrowser(t)
			callback := b.login("/x")
			r := must(http.NewRequest("GET", callback, nil))
			r.Header.Set("Accept", acceptPages)
			r.Header.Set("Cookie", b.jar.line(r))
			before := w.provider.Count("token")
			var signedIn atomic.Int32
			visit := func(transport http.RoundTripper) {
				res, err := transport.RoundTrip(r.Clone(t.Context()))
				if err != nil {
					t.Error(err)
					return
				}
				read(res)
				switch {
				case res.StatusCode == http.StatusSeeOther:
					signedIn.Add(1)
				case res.StatusCode != http.StatusFound: // begins again
					t.Errorf("the callback is answered %s", res.Status)
				}
			}
			var running sync.WaitGroup
			for i := range 8 {
				running.Go(func() { visit([]http.RoundTripper{b.transport, second}[i%2]) })
				if !atOnce {
					running.Wait()
				}
			}
			running.Wait()
			if n := w.provider.Count("token") - before; n != 1 || signedIn.Load() != 1 {
				t.Errorf("the code was sent %d times, and %d callbacks began a session", n, signedIn.Load())
			}
		})
	}
}

func TestALogoutTokenIsObeyedOnceByTwoReplicas(t *testing.T) {
	w, second, _ := replicas(t, setup{}, false)
	other := w.newBrowser(t)
	other.transport = second
	notify := func(b *browser, token string) {
		t.Helper()
		b.send("POST", "/auth/backchannel-logout", url.Values{"logout_token": {token}}.Encode(), "Content-Type", "application/x-www-form-urlencoded").wants(t, 200)
	}
	old := w.signedIn(t, "ada")
	token := w.provider.LogoutToken(clientID, "ada", "", nil)
	notify(old, token)
	if alive(t, old) {
		t.Fatal("the session lives on")
	}
	b := w.signedIn(t, "ada")
	notify(other, token)
	if !alive(t, b) {
		t.Error("a replay at the other replica has ended a session that was begun since")
	}
	if e := w.log.find(t, "the replay", func(r record) bool { return r["reason"] == "back-channel logout, replayed" }); len(e) != 1 {
		t.Errorf("%d replays are in the log", len(e))
	}
}

// A logout that was not obeyed, because the store failed, is obeyed when the provider tries again, at any replica.
func TestALogoutTokenThatFailedAtOneReplicaIsObeyedByTheOther(t *testing.T) {
	redis := startRedis(t)
	w, second, _ := replicasOf(t, redis, setup{}, false)
	set := func(replicas string) { // with one more than there are, Redis is read from and not written to
		t.Helper()
		if out, err := exec.Command("redis-cli", "-e", "-u", redis, "CONFIG", "SET", "min-replicas-to-write", replicas).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	other := w.newBrowser(t)
	other.transport = second
	b := w.signedIn(t, "ada")
	form := url.Values{"logout_token": {w.provider.LogoutToken(clientID, "ada", "", nil)}}.Encode()
	set("1")
	b.send("POST", "/auth/backchannel-logout", form, "Content-Type", "application/x-www-form-urlencoded").wantsJSON(t, 503, "session_store_unavailable")
	set("0")
	if !alive(t, b) {
		t.Fatal("the session has ended")
	}
	other.send("POST", "/auth/backchannel-logout", form, "Content-Type", "application/x-www-form-urlencoded").wants(t, 200)
	for begin := time.Now(); alive(t, b); time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatal("the session lives on")
		}
	}
}

// A replica that crashed while it renewed a session keeps others from renewing it for a while, but nobody waits for it once
// the session has ended.
func TestNobodyWaitsForTheRenewalOfASessionThatHasEnded(t *testing.T) {
	redis := startRedis(t)
	w, second, _ := replicasOf(t, redis, tokens(setup{}, true), false)
	b := w.signedIn(t, "ada")
	crashed, err := session.OpenRedisStore(session.RedisOptions{URL: redis, Prefix: "test:"}, w.opts.Sealer, [][]byte{[]byte(sessionKey)}, w.opts.Sessions.Cookie(), time.Hour, w.clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer crashed.Close()
	all, err := crashed.List(t.Context(), session.Selector{All: true})
	if err != nil || len(all) != 1 {
		t.Fatalf("%d sessions, %v", len(all), err)
	}
	if _, ok, err := crashed.Lease(t.Context(), all[0].ID, time.Hour); err != nil || !ok {
		t.Fatalf("Lease = %v, %v", ok, err)
	}
	scripts := func() (n int) {
		out, err := exec.Command("redis-cli", "-u", redis, "INFO", "commandstats").Output()
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(out), "cmdstat_eval:calls=")
		fmt.Sscan(strings.SplitN(rest, ",", 2)[0], &n)
		return n
	}
	w.clock.advance(61 * time.Minute)
	before, status := scripts(), make(chan int, 1)
	go func() {
		r := w.newRequest("GET", "/x")
		r.Header.Set("Cookie", w.cookie+"="+b.session())
		res, err := second.RoundTrip(r)
		if err != nil {
			t.Error(err)
			status <- 0
			return
		}
		read(res)
		status <- res.StatusCode
	}()
	for begin := time.Now(); scripts() < before+3 && time.Since(begin) < patience; { // it asks for the lease again and again
		time.Sleep(10 * time.Millisecond)
	}
	b.post("/auth/logout", nil).wants(t, http.StatusSeeOther)
	select {
	case got := <-status:
		if got != http.StatusUnauthorized {
			t.Errorf("the request is answered %d, want 401", got)
		}
	case <-time.After(patience):
		t.Error("the request waits for a renewal of a session that has ended")
	}
}
