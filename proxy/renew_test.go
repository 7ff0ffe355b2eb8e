package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authproxy/devprovider"
	"authproxy/proxy"
	"authproxy/session"
)

// tokens is a setup in which access tokens are good for an hour and can be renewed.
func tokens(s setup, toUpstream bool) setup {
	s = offline(s)
	s.options = func(o *proxy.Options) { o.Identity.AccessToken = toUpstream }
	return s
}

func TestTokensAreRenewedBesideTheRequestsShortlyBeforeTheyExpire(t *testing.T) {
	for name, s := range stores {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tokens(s, false))
			b := w.signedIn(t, "ada")
			w.clock.advance(58 * time.Minute)
			b.navigate("/x").wants(t, 200)
			w.proxyWait()
			if n := w.provider.Refreshes(); n != 0 {
				t.Fatalf("%d renewals two minutes early", n)
			}
			for round := range 3 { // each with the refresh token of the one before
				w.clock.advance(61 * time.Minute)
				b.navigate("/x").wants(t, 200)
				w.proxyWait()
				b.navigate("/x").wants(t, 200)
				w.proxyWait()
				if n := w.provider.Refreshes(); n != round+1 {
					t.Fatalf("after round %d there were %d renewals", round, n)
				}
			}
			if n := w.provider.ReusedRefreshTokens(); n != 0 {
				t.Errorf("%d refresh tokens were used twice", n)
			}
			w.restart()
			w.clock.advance(2 * time.Hour)
			b.navigate("/x").wants(t, 200)
			w.proxyWait()
			if n := w.provider.Refreshes(); n != 4 {
				t.Errorf("after a restart there were %d renewals, want 4", n)
			}
		})
	}
}

// Auth0 ends the whole family of tokens when one is used twice (its docs call it reuse detection).
func TestFiftyRequestsAtOnceMakeOneRenewal(t *testing.T) {
	for name, s := range stores {
		for _, toUpstream := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", to the upstream ", toUpstream), func(t *testing.T) {
				w := newWorld(t, tokens(s, toUpstream))
				b := w.signedIn(t, "ada")
				w.clock.advance(61 * time.Minute)
				line := w.cookie + "=" + b.session()
				seen := make([]string, 50)
				w.upstream.answer(func(rw http.ResponseWriter, r *http.Request) { rw.Write([]byte(r.Header.Get("Authorization"))) })
				var running sync.WaitGroup
				for i := range seen {
					running.Go(func() {
						r := w.newRequest("GET", "/x")
						r.Header.Set("Cookie", line)
						res, err := b.transport.RoundTrip(r)
						if err != nil {
							t.Error(err)
							return
						}
						seen[i] = fmt.Sprint(res.StatusCode, read(res))
					})
				}
				running.Wait()
				w.proxyWait()
				if refreshes, reused := w.provider.Refreshes(), w.provider.ReusedRefreshTokens(); refreshes != 1 || reused != 0 {
					t.Errorf("%d renewals, %d refresh tokens used twice", refreshes, reused)
				}
				slices.Sort(seen)
				if seen = slices.Compact(seen); len(seen) != 1 || !strings.HasPrefix(seen[0], "200") || toUpstream == (seen[0] == "200") {
					t.Errorf("the upstream saw %d different tokens: %.60q", len(seen), seen)
				}
			})
		}
	}
}

func TestARenewalBringsWhatTheProviderSaysNow(t *testing.T) {
	for name, s := range stores {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tokens(s, false))
			b := w.signedIn(t, "ada")
			b.navigate("/admin").wants(t, 200)
			ada := slices.IndexFunc(devprovider.DemoUsers(), func(u devprovider.User) bool { return u.Username == "ada" })
			user := devprovider.DemoUsers()[ada]
			user.Groups = []string{"staff"}
			if err := w.provider.SetUser(user); err != nil {
				t.Fatal(err)
			}
			w.clock.advance(61 * time.Minute)
			b.navigate("/x").wants(t, 200)
			w.proxyWait()
			b.navigate("/admin").wants(t, 403)
			b.navigate("/x").wants(t, 200)
			if got := w.upstream.last(t).Header.Get("X-Forwarded-Groups"); got != "staff" {
				t.Errorf("the upstream got the groups %q", got)
			}
			if got := b.navigate("/auth/me").body; !strings.Contains(got, `"groups":["staff"]`) {
				t.Errorf("/me says %s", got)
			}
		})
	}
}

// When the lease of a renewal is over before its answer, another replica may have renewed: the provider refuses the older token then,
// and the session has the newer one.
func TestARefusedTokenThatWasReplacedMeanwhileEndsNoSession(t *testing.T) {
	for name, s := range stores {
		for what, change := range map[string]func(*session.Session){"replaced": func(s *session.Session) { s.RefreshToken = "of the other replica" }, "as it was": nil} {
			t.Run(name+", "+what, func(t *testing.T) {
				w := newWorld(t, tokens(s, false))
				b := w.signedIn(t, "ada")
				value := b.session()
				w.faults(func(f *devprovider.Faults) {
					f.Intercept = func(endpoint string, rw http.ResponseWriter, r *http.Request) bool {
						if endpoint != "token" || r.Form.Get("grant_type") != "refresh_token" {
							return false
						}
						if change != nil {
							if _, err := w.sessions.Update(context.Background(), value, change); err != nil {
								t.Error(err)
							}
						}
						rw.WriteHeader(http.StatusForbidden)
						io.WriteString(rw, `{"error":"invalid_grant"}`)
						return true
					}
				})
				w.clock.advance(61 * time.Minute)
				b.navigate("/x").wants(t, 200)
				w.proxyWait()
				if _, _, err := w.sessions.Find(context.Background(), value, false); (err == nil) != (change != nil) {
					t.Errorf("the session: %v", err)
				}
			})
		}
	}
}

// session_expiry is Auth0's name for when the provider's session ends at the latest; ours does not outlive it. A renewal may bring it
// nearer, never farther.
func TestASessionEndsWhenTheProviderSaysSo(t *testing.T) {
	for name, s := range stores {
		for _, row := range []struct {
			what            string
			login, renewal  time.Duration // from the login on; 0: the token does not say
			alive, endedYet time.Duration
		}{
			{"at the login", 3 * time.Hour, 0, 3*time.Hour - time.Minute, 3*time.Hour + time.Second},
			{"at a renewal", 0, 2 * time.Hour, 2*time.Hour - time.Minute, 2*time.Hour + time.Second},
			{"at a renewal, nearer", 6 * time.Hour, 2 * time.Hour, 2*time.Hour - time.Minute, 2*time.Hour + time.Second},
			{"at a renewal, farther", 2 * time.Hour, 6 * time.Hour, 2*time.Hour - time.Minute, 2*time.Hour + time.Second},
		} {
			t.Run(name+", "+row.what, func(t *testing.T) {
				w := newWorld(t, tokens(s, false))
				begun := w.clock.Now()
				says := func(after time.Duration) func(*devprovider.Token) {
					return func(t *devprovider.Token) {
						if delete(t.Claims, "session_expiry"); after > 0 {
							t.Claims["session_expiry"] = begun.Add(after).Unix()
						}
					}
				}
				w.faults(func(f *devprovider.Faults) { f.IDToken, f.RefreshedID = says(row.login), says(row.renewal) })
				b := w.signedIn(t, "ada")
				w.clock.advance(61 * time.Minute)
				b.navigate("/x").wants(t, 200)
				w.proxyWait()
				b.navigate("/x").wants(t, 200) // the browser of a cookie store gets the renewed session
				if n := w.provider.Refreshes(); n != 1 {
					t.Fatalf("%d renewals, want one", n)
				}
				w.clock.advance(row.alive - 61*time.Minute)
				b.navigate("/auth/me").wants(t, 200)
				w.proxyWait()
				w.clock.advance(row.endedYet - row.alive)
				b.navigate("/auth/me").wants(t, 401)
			})
		}
	}
}

func TestAProviderThatCannotRenewAtTheMomentEndsNoSession(t *testing.T) {
	for name, fault := range map[string]func(*devprovider.Faults){
		"down":       func(f *devprovider.Faults) { f.Down = true },
		"status 500": func(f *devprovider.Faults) { f.Fail = map[string]int{"token": 500} },
		"too many requests": func(f *devprovider.Faults) {
			f.RefreshError = devprovider.Error{Status: 429, Code: "too_many_requests"}
		},
		"a wrong secret":   func(f *devprovider.Faults) { f.RefreshError = devprovider.Error{Status: 401, Code: "access_denied"} },
		"a page":           func(f *devprovider.Faults) { f.Raw = map[string]string{"token": "<html>"} },
		"an unknown error": func(f *devprovider.Faults) { f.RefreshError = devprovider.Error{Status: 400, Code: "strange"} },
		"another key": func(f *devprovider.Faults) {
			f.RefreshedID = func(t *devprovider.Token) { t.Key = devprovider.UnpublishedKey() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			results := make(chan string, 100)
			s := tokens(setup{}, true)
			s.client = func(c *devprovider.Client) { c.NoRotation = true } // so that the token is good for another try
			options := s.options
			s.options = func(o *proxy.Options) { options(o); o.ObserveRenewal = func(r string) { results <- r } }
			w := newWorld(t, s)
			b := w.signedIn(t, "ada")
			before := w.upstream.last(t).Header.Get("Authorization")
			w.faults(fault)
			w.clock.advance(61 * time.Minute)
			for range 5 { // within the pause
				b.navigate("/x").wants(t, 200)
				w.proxyWait()
			}
			if n := len(results); n != 1 {
				t.Errorf("%d tries to renew within the pause", n)
			}
			if r := <-results; r == "renewed" || r == "ended" {
				t.Errorf("the renewal counts as %s", r)
			}
			if w.upstream.last(t).Header.Get("Authorization") != before {
				t.Error("the upstream got another token")
			}
			w.clock.advance(11 * time.Second)
			b.navigate("/x").wants(t, 200)
			w.proxyWait()
			if n := len(results); n != 1 {
				t.Errorf("%d tries to renew after the pause", n)
			}
			w.faults(func(f *devprovider.Faults) { *f = devprovider.Faults{SignInAs: "ada"} })
			w.clock.advance(11 * time.Second)
			b.navigate("/x").wants(t, 200)
			w.proxyWait()
			b.navigate("/x").wants(t, 200)
			if w.upstream.last(t).Header.Get("Authorization") == before {
				t.Error("the upstream got the old token after the provider was back")
			}
			if got := w.log.find(t, "the failed renewal", func(r record) bool { return r["msg"] == "tokens were not renewed" }); got[0]["subject"] != adaSubject {
				t.Errorf("the log says %v", got[0])
			}
		})
	}
}

func TestAProviderThatTakesTheLoginBackEndsTheSession(t *testing.T) {
	for name, fault := range map[string]func(*devprovider.Faults){
		"invalid_grant":       func(f *devprovider.Faults) { f.RefreshError = devprovider.Error{Status: 403, Code: "invalid_grant"} },
		"an Action denies":    func(f *devprovider.Faults) { f.RefreshError = devprovider.Error{Status: 403, Code: "access_denied"} },
		"a factor is missing": func(f *devprovider.Faults) { f.RefreshError = devprovider.Error{Status: 403, Code: "mfa_required"} },
		"another user": func(f *devprovider.Faults) {
			f.RefreshedID = func(t *devprovider.Token) { t.Claims["sub"] = "auth0|other" }
		},
		"another issuer": func(f *devprovider.Faults) {
			f.RefreshedID = func(t *devprovider.Token) { t.Claims["iss"] = "https://evil.test/" }
		},
	} {
		for store, s := range stores {
			t.Run(name+", "+store, func(t *testing.T) {
				results := make(chan string, 100)
				s := tokens(s, false)
				s.options = func(o *proxy.Options) { o.ObserveRenewal = func(r string) { results <- r } }
				w := newWorld(t, s)
				b, other := w.signedIn(t, "ada"), w.signedIn(t, "ada")
				value := b.session()
				w.faults(fault)
				w.clock.advance(61 * time.Minute)
				b.fetch("GET", "/api/x", "").wants(t, 200) // it does not wait for the renewal
				w.proxyWait()
				if r := <-results; r != "ended" {
					t.Errorf("the renewal counts as %s", r)
				}
				b.fetch("GET", "/api/x", "").wantsJSON(t, 401, "login_required")
				b.navigate("/x").wants(t, 302)
				gone(t, w, value)
				w.faults(func(f *devprovider.Faults) { *f = devprovider.Faults{SignInAs: "ada"} })
				if !alive(t, other) {
					t.Error("ada's other session has ended as well")
				}
			})
		}
	}
}

func TestTheUpstreamGetsAnAccessTokenThatIsGood(t *testing.T) {
	for name, s := range stores {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tokens(s, true))
			b := w.newBrowser(t)
			b.follow("/x").wants(t, 200)
			first := w.upstream.last(t).Header.Get("Authorization")
			if !strings.HasPrefix(first, "Bearer ") || strings.Count(first, ".") != 2 {
				t.Fatalf("the upstream got Authorization %.40q", first)
			}
			w.canaries = append(w.canaries, strings.TrimPrefix(first, "Bearer "))
			w.clock.advance(61 * time.Minute) // it has expired: the request waits for the next
			b.navigate("/x").wants(t, 200)
			second := w.upstream.last(t).Header.Get("Authorization")
			if second == first || !strings.HasPrefix(second, "Bearer ") {
				t.Errorf("the upstream got the token that has expired: %t", second == first)
			}
			b.navigate("/x", "Authorization", "Bearer mine").wants(t, 200)
			if got := w.upstream.last(t).Header["Authorization"]; len(got) != 1 || got[0] != second {
				t.Errorf("a client's Authorization came through: %t", len(got) == 1 && got[0] == "Bearer mine")
			}
			w.newBrowser(t).fetch("GET", "/public", "", "Authorization", "Bearer mine").wants(t, 200)
			if got := w.upstream.last(t).Header["Authorization"]; got != nil {
				t.Errorf("an anonymous client's Authorization came through: %q", got)
			}
			w.faults(func(f *devprovider.Faults) { f.RefreshError = devprovider.Error{Status: 403, Code: "invalid_grant"} })
			w.clock.advance(61 * time.Minute)
			b.fetch("GET", "/api/x", "").wants(t, 401)
		})
	}
}

func TestWithoutRefreshTokensAndWithoutNeedThereIsNoRenewal(t *testing.T) {
	for name, s := range map[string]setup{
		"the provider gives none": func() setup {
			s := tokens(setup{}, false)
			s.tenant = func(o *devprovider.Options) { o.APIs[0].Offline = false }
			return s
		}(),
		"session.refresh is off": func() setup {
			s := offline(setup{})
			s.options = func(o *proxy.Options) { o.StoreTokens = false }
			return s
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, s)
			b := w.signedIn(t, "ada")
			w.clock.advance(3 * time.Hour)
			b.navigate("/x").wants(t, 200)
			w.proxyWait()
			if n := w.provider.Refreshes(); n != 0 {
				t.Errorf("%d renewals", n)
			}
		})
	}
}

func TestAProviderThatDoesNotRotateIsAskedWithTheSameToken(t *testing.T) {
	s := tokens(setup{}, false)
	s.client = func(c *devprovider.Client) { c.NoRotation = true }
	w := newWorld(t, s)
	b := w.signedIn(t, "ada")
	for range 3 {
		w.clock.advance(61 * time.Minute)
		b.navigate("/x").wants(t, 200)
		w.proxyWait()
	}
	if n := w.provider.Refreshes(); n != 3 {
		t.Errorf("%d renewals", n)
	}
	b.navigate("/x").wants(t, 200)
}

// A renewal that is under way when the user signs out must not bring the session back.
func TestARenewalDoesNotReviveASessionThatWasEndedMeanwhile(t *testing.T) {
	for name, s := range stores {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tokens(s, false))
			b := w.signedIn(t, "ada")
			value := b.session()
			asked, answer := make(chan struct{}), make(chan struct{})
			var once sync.Once
			w.faults(func(f *devprovider.Faults) {
				f.RefreshResponse = func(map[string]any) { once.Do(func() { close(asked); <-answer }) }
			})
			w.clock.advance(61 * time.Minute)
			b.navigate("/x").wants(t, 200)
			<-asked
			b.navigate("/auth/logout").wants(t, 303)
			close(answer)
			w.proxyWait()
			gone(t, w, value)
		})
	}
}

// Who goes away while we wait for the provider is not an error of ours.
func TestAClientThatLeavesWhileItsTokenIsRenewed(t *testing.T) {
	w := newWorld(t, tokens(setup{}, true))
	b := w.signedIn(t, "ada")
	asked, answer := make(chan struct{}), make(chan struct{})
	w.faults(func(f *devprovider.Faults) {
		f.RefreshResponse = func(map[string]any) { close(asked); <-answer }
	})
	w.clock.advance(61 * time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	r := w.newRequest("GET", "/left").WithContext(ctx)
	r.Header.Set("Cookie", w.cookie+"="+b.session())
	left := make(chan error)
	go func() {
		res, err := b.transport.RoundTrip(r)
		if err == nil {
			res.Body.Close()
		}
		left <- err
	}()
	<-asked
	cancel()
	if err := <-left; err == nil {
		t.Error("there was an answer")
	}
	if e := w.log.request(t, "/left"); e["status"] != 499.0 || e["level"] != "INFO" {
		t.Errorf("the log says status %v at level %v, want 499 and INFO", e["status"], e["level"])
	}
	close(answer)
	w.proxyWait()
	b.navigate("/x").wants(t, 200) // the renewal was finished all the same
	if n := w.provider.Refreshes(); n != 1 {
		t.Errorf("%d renewals", n)
	}
}

// A reload while renewals run: the Proxy before waits for its own, and never for those of the one that took over.
func TestReloadsDoNotDisturbRenewals(t *testing.T) {
	w := newWorld(t, tokens(setup{file: true}, false))
	b := w.signedIn(t, "ada")
	for range 20 {
		former := w.proxy
		w.reload(nil)
		w.clock.advance(61 * time.Minute)
		var running sync.WaitGroup
		running.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			former.Run(ctx)
		})
		b.navigate("/x").wants(t, 200)
		running.Wait()
	}
	w.proxyWait()
	if n := w.provider.ReusedRefreshTokens(); n != 0 {
		t.Errorf("%d refresh tokens were used twice", n)
	}
}
