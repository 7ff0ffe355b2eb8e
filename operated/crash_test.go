package operated_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"authproxy/devprovider"
)

// Contract and issue 3: what was answered survives a kill -9. A login that was answered is a session, and a logout that was
// answered is none.
func TestACrashLosesNothingThatWasAnswered(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"file", "redis"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			set := settings{}
			if store == "redis" {
				set.session = fmt.Sprintf("store: redis, redis: {url: %q}", startRedis(t).url())
			}
			w := newWorld(t, set)
			r := w.replica()
			w.provider.Set(func(f *devprovider.Faults) { f.SignInAs = "ada" })
			c := w.client(r.addr)
			var (
				mu                          sync.Mutex
				alive, ended                []string
				logins, logouts, unanswered int
			)
			for range 3 {
				crashed := make(chan struct{})
				var workers sync.WaitGroup
				for worker := range 4 {
					workers.Go(func() {
						for n := 0; ; n++ {
							select {
							case <-crashed:
								return
							default:
							}
							cookie, _ := w.walk(r.addr)
							if cookie == "" {
								continue // killed meanwhile
							}
							signsOut := (n+worker)%3 == 0
							status := 0
							if signsOut {
								status = c.logout(cookie).status
							}
							mu.Lock()
							switch {
							case !signsOut:
								alive = append(alive, cookie)
							case status == http.StatusSeeOther:
								ended = append(ended, cookie)
							default:
								unanswered++ // either will do
							}
							mu.Unlock()
						}
					})
				}
				eventually(t, "logins and logouts", func() bool {
					mu.Lock()
					defer mu.Unlock()
					return len(alive) > logins+20 && len(ended) > logouts+5
				})
				r.kill()
				close(crashed)
				workers.Wait()
				r.start()
				for _, cookie := range alive {
					if a := settled(func() answer { return c.get("/", cookie) }); a.status != http.StatusOK {
						t.Errorf("of a session that was there before the crash: %s", a)
					}
				}
				for _, cookie := range ended {
					if a := settled(func() answer { return c.get("/auth/me", cookie) }); a.status != http.StatusUnauthorized {
						t.Errorf("of a session that had ended before the crash: %s", a)
					}
				}
				logins, logouts = len(alive), len(ended)
			}
			t.Logf("after three crashes: %d sessions are there, %d have ended, of %d nobody was told", logins, logouts, unanswered)
		})
	}
}
