package operated_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"authproxy/devprovider"
)

// Back-Channel Logout 1.0 §2.5 over two replicas: a sid ends its session and no other, a sub ends all of a user, at both; and
// attacks P7: a token that was obeyed does nothing at the other replica.
func TestABackChannelLogoutIsObeyedByAllReplicasOnce(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	w := newWorld(t, settings{session: fmt.Sprintf("store: redis, redis: {url: %q}", redis.url())})
	replicas := []*replica{w.replica(), w.replica()}
	clients := []*client{w.client(replicas[0].addr), w.client(replicas[1].addr)}
	signIn := func(name string) (cookie, sid string) {
		cookie = w.signIn(name, replicas[0].addr, replicas[1].addr)
		return cookie, w.provider.LastSID()
	}
	laptop, sid := signIn("ada")
	phone, _ := signIn("ada")
	other, _ := signIn("ben")
	wants := func(what string, wants map[string]bool) {
		t.Helper()
		for cookie, want := range wants {
			for i, c := range clients {
				if want && !w.alive(c, cookie) {
					t.Errorf("after %s a session is over at replica %d", what, i)
				} else if !want {
					eventually(t, fmt.Sprintf("after %s a session is over at replica %d", what, i), func() bool { return !w.alive(c, cookie) })
				}
			}
		}
	}
	send := func(i int, token string, status int) {
		t.Helper()
		if a := settled(func() answer { return clients[i].notify(token) }); a.status != status || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("replica %d answers %s, want %d and no-store", i, a, status)
		}
	}
	wants("nothing", map[string]bool{laptop: true, phone: true, other: true})
	ofSid := w.provider.LogoutToken(clientID, "ada", sid, nil)
	send(0, ofSid+"x", http.StatusBadRequest)
	wants("a token with a wrong signature", map[string]bool{laptop: true, phone: true, other: true})
	send(0, ofSid, http.StatusOK)
	wants("a sid", map[string]bool{laptop: false, phone: true, other: true})
	ofSub := w.provider.LogoutToken(clientID, "ada", "", nil)
	send(1, ofSub, http.StatusOK)
	wants("a sub", map[string]bool{laptop: false, phone: false, other: true})
	again, _ := signIn("ada")
	for i, r := range replicas {
		send(i, ofSub, http.StatusOK)
		r.kill() // and it knows no more than what is in Redis
		r.start()
		send(i, ofSub, http.StatusOK)
	}
	wants("replays", map[string]bool{again: true, other: true})
}

// Attacks P8: after a logout was answered nothing brings the session back: no renewal that was under way, no retry, no other
// replica, no reload, no restart and no crash. What happens in which order is different each time.
func TestNothingRevivesASession(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"file", "redis"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			for range 2 {
				seed := rand.Uint64()
				t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { nothingRevives(t, store, rand.New(rand.NewPCG(seed, 0))) })
			}
		})
	}
}

func nothingRevives(t *testing.T, store string, random *rand.Rand) {
	t.Helper()
	set := renewing("")
	set.more, set.session = "", ""
	if store == "redis" {
		set.session = fmt.Sprintf("store: redis, redis: {url: %q}", startRedis(t).url())
	}
	w := newWorld(t, set)
	replicas := []*replica{w.replica()}
	if store == "redis" {
		replicas = append(replicas, w.replica())
	}
	var clients []*client
	for _, r := range replicas {
		clients = append(clients, w.client(r.addr))
	}
	var held atomic.Int32
	release := make(chan struct{})
	lifetime := func(seconds int) { // of access tokens
		w.provider.Set(func(f *devprovider.Faults) {
			f.TokenResponse = func(answer map[string]any) { answer["expires_in"] = seconds }
			f.RefreshResponse = func(answer map[string]any) {
				answer["expires_in"] = 3600
				held.Add(1)
				<-release
			}
		})
	}
	// Of each user there is a session that ends, and one that goes on. Half of the former are being renewed when they end.
	type ending struct{ user, cookie, sid, other, how string }
	hows := []string{"a logout", "a back-channel logout", "an operator", "its user", "all of a user"}
	var all []*ending
	for i := range 2 * len(hows) {
		e := &ending{user: fmt.Sprint("user", i), how: hows[i%len(hows)]}
		if err := w.provider.SetUser(user(e.user)); err != nil {
			t.Fatal(err)
		}
		if i < len(hows) {
			lifetime(1)
		}
		e.cookie = w.signIn(e.user, replicas[0].addr)
		e.sid = w.provider.LastSID()
		lifetime(3600)
		e.other = w.signIn(e.user, replicas[0].addr)
		all = append(all, e)
	}
	eventually(t, "renewals are under way", func() bool {
		for _, e := range all[:len(hows)] {
			clients[random.IntN(len(clients))].get("/", e.cookie)
		}
		return int(held.Load()) >= len(hows)
	})

	// The provider answers while the sessions end, or later.
	let := sync.OnceFunc(func() { close(release) })
	meanwhile := random.IntN(2 * len(all))
	var gone, alive []string
	for k, i := range random.Perm(len(all)) {
		if k == meanwhile {
			let()
		}
		e, n := all[i], random.IntN(len(replicas))
		c, a := clients[n], answer{}
		end := func(ask func() answer) { a = settled(ask) }
		gone, alive = append(gone, e.cookie), append(alive, e.other)
		switch e.how {
		case "a logout":
			end(func() answer { return c.logout(e.cookie) })
		case "a back-channel logout":
			end(func() answer { return c.notify(w.provider.LogoutToken(clientID, e.user, e.sid, nil)) })
		case "an operator":
			end(func() answer { return replicas[n].ask("GET", "/sessions?subject=auth0|"+e.user) })
			_, older, _ := strings.Cut(a.body[1:], "{\"id\":\"")
			_, older, _ = strings.Cut(older, "{\"id\":\"") // the latest is the first
			id, _, _ := strings.Cut(older, `"`)
			end(func() answer { return replicas[n].ask("DELETE", "/sessions/"+id) })
		case "its user":
			end(func() answer { return c.signOutElsewhere(e.other) })
		case "all of a user":
			end(func() answer { return replicas[n].ask("DELETE", "/sessions?subject=auth0|"+e.user) })
			gone, alive = append(gone, e.other), alive[:len(alive)-1]
		}
		if a.err != nil || a.status/100 > 3 {
			t.Fatalf("%s is answered %s", e.how, a)
		}
		for _, cookie := range gone {
			if w.alive(c, cookie) && cookie == gone[len(gone)-1] {
				t.Errorf("after %s was answered the session is alive at the same replica", e.how)
			}
		}
	}
	for _, c := range clients {
		for _, cookie := range gone {
			eventually(t, "each replica knows of the end", func() bool { return !w.alive(c, cookie) })
		}
	}
	ended := time.Now()

	events := map[string]func(){
		"the provider answers": let,
		"a reload": func() {
			r := replicas[random.IntN(len(replicas))]
			done := r.metric(`authproxy_reloads_total{result="done"}`)
			r.signal(syscall.SIGHUP)
			eventually(t, "a reload", func() bool { return r.metric(`authproxy_reloads_total{result="done"}`) > done })
		},
		"a crash": func() {
			r := replicas[random.IntN(len(replicas))]
			r.kill()
			r.start()
		},
		"a second logout": func() { clients[0].logout(gone[random.IntN(len(gone))]) },
		"a restart": func() {
			r := replicas[random.IntN(len(replicas))]
			r.signal(syscall.SIGTERM)
			r.ended(t)
			r.start()
		},
	}
	names := []string{"the provider answers", "a reload", "a crash", "a second logout", "a reload", "a second logout"}
	random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range append(names, "a restart") { // which waits for renewals under way
		events[name]()
		for _, c := range clients {
			for _, cookie := range gone {
				if a := settled(func() answer { return c.get("/", cookie) }); a.status != http.StatusUnauthorized {
					t.Fatalf("%v after it had ended, after %s of %q, a session gets %s", time.Since(ended), name, names, a)
				}
			}
		}
	}
	for _, c := range clients {
		for _, cookie := range alive {
			if !w.alive(c, cookie) {
				t.Errorf("after %q the other session of a user is over", names)
			}
		}
	}
}
