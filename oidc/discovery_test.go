package oidc_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"authproxy/oidc"
)

// oidcc-client-test-discovery-openid-config, -discovery-jwks-uri-keys, -discovery-issuer-mismatch; SRF-04.
func TestDiscoveryDocumentsAreCheckedBeforeTheyAreUsed(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(p *provider)
		want   string
	}{
		{"as it should be", func(*provider) {}, "ok"},
		{"without the optional endpoints", func(p *provider) {
			p.discovery = all(set("userinfo_endpoint", nil), set("end_session_endpoint", nil), set("revocation_endpoint", nil))
		}, "ok"},
		{"oidcc discovery-issuer-mismatch", func(p *provider) { p.discovery = set("issuer", p.issuer+"INVALID") }, "misconfigured issuer_mismatch"},
		{"issuer of another", func(p *provider) { p.discovery = set("issuer", "https://evil.example/") }, "misconfigured issuer_mismatch"},
		{"issuer missing", func(p *provider) { p.discovery = set("issuer", nil) }, "misconfigured issuer_mismatch"},
		{"issuer in another case", func(p *provider) { p.discovery = set("issuer", strings.ToUpper(p.issuer)) }, "misconfigured issuer_mismatch"},
		{"issuer with two slashes", func(p *provider) { p.discovery = set("issuer", p.issuer+"/") }, "misconfigured issuer_mismatch"},
		{"no authorization_endpoint", func(p *provider) { p.discovery = set("authorization_endpoint", nil) }, "misconfigured discovery"},
		{"no token_endpoint", func(p *provider) { p.discovery = set("token_endpoint", "") }, "misconfigured discovery"},
		{"no jwks_uri", func(p *provider) { p.discovery = set("jwks_uri", nil) }, "misconfigured discovery"},
		{"jwks_uri file", func(p *provider) { p.discovery = set("jwks_uri", "file:///etc/passwd") }, "misconfigured discovery"},
		{"jwks_uri gopher", func(p *provider) { p.discovery = set("jwks_uri", "gopher://127.0.0.1/x") }, "misconfigured discovery"},
		{"jwks_uri http elsewhere", func(p *provider) { p.discovery = set("jwks_uri", "http://169.254.169.254/latest") }, "misconfigured discovery"},
		{"jwks_uri relative", func(p *provider) { p.discovery = set("jwks_uri", "/keys") }, "misconfigured discovery"},
		{"token_endpoint http elsewhere", func(p *provider) { p.discovery = set("token_endpoint", "http://example.com/token") }, "misconfigured discovery"},
		{"token_endpoint with a user", func(p *provider) {
			p.discovery = set("token_endpoint", strings.Replace(p.issuer, "//", "//u:p@", 1)+"token")
		}, "misconfigured discovery"},
		{"authorization_endpoint javascript", func(p *provider) { p.discovery = set("authorization_endpoint", "javascript:alert(1)") }, "misconfigured discovery"},
		{"end_session_endpoint javascript", func(p *provider) { p.discovery = set("end_session_endpoint", "javascript:alert(1)") }, "misconfigured discovery"},
		{"revocation_endpoint with a fragment", func(p *provider) { p.discovery = set("revocation_endpoint", p.issuer+"revoke#x") }, "misconfigured discovery"},
		{"jwks_uri a number", func(p *provider) { p.discovery = set("jwks_uri", 1) }, "misconfigured discovery"},
		{"2 MiB", func(p *provider) { p.discovery = set("x", strings.Repeat("a", 2<<20)) }, "misconfigured discovery"},
		{"issuer twice", func(p *provider) {
			p.instead["discovery"] = raw(`{"issuer":"https://evil.example/","issuer":"` + p.issuer + `"}`)
		}, "unavailable discovery"},
		{"an HTML page", func(p *provider) { p.instead["discovery"] = raw("<html>maintenance</html>") }, "unavailable discovery"},
		{"404", func(p *provider) { p.instead["discovery"] = http.NotFound }, "unavailable discovery"},
		{"500", func(p *provider) { p.instead["discovery"] = fail(500, nil) }, "unavailable discovery"},
		{"connection cut", func(p *provider) { p.instead["discovery"] = cut }, "unavailable discovery"},
		{"a redirect on the same host", func(p *provider) {
			real := p.issuer + ".well-known/openid-configuration?again=1"
			p.instead["discovery"] = func(w http.ResponseWriter, r *http.Request) {
				if r.URL.RawQuery == "" {
					http.Redirect(w, r, real, http.StatusFound)
					return
				}
				reply(w, object{"issuer": p.issuer, "authorization_endpoint": p.issuer + "authorize", "token_endpoint": p.issuer + "token", "jwks_uri": p.issuer + "keys"})
			}
		}, "ok"},
		{"a redirect in a circle", func(p *provider) {
			p.instead["discovery"] = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) }
		}, "unavailable discovery"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			row.change(p)
			rp := p.party()
			to, login, err := rp.Start(context.Background(), oidc.AuthRequest{})
			wantReason(t, "Start", err, row.want)
			if ok := row.want == "ok"; rp.Discovered() != ok || (to != "") != ok || (login != oidc.Login{}) != ok {
				t.Errorf("Start = %q, %+v; Discovered() = %v", to, login, rp.Discovered())
			}
			if rp.Issuer() != p.issuer {
				t.Errorf("Issuer() = %q, want %q", rp.Issuer(), p.issuer)
			}
		})
	}
}

func TestAnAlgorithmThatTheProviderDoesNotOfferIsWarnedOf(t *testing.T) {
	for offered, want := range map[string]bool{"RS256": false, "ES256": true, "": false} {
		p, log := newProvider(t), new(strings.Builder)
		p.discovery = set("id_token_signing_alg_values_supported", []any{"HS256", offered})
		if offered == "" {
			p.discovery = set("id_token_signing_alg_values_supported", nil)
		}
		rp := p.party(func(c *oidc.Config) { c.Log = textLog(log) })
		for range 2 {
			if _, err := p.login2(rp); err != nil {
				t.Fatal(err)
			}
		}
		if n := strings.Count(log.String(), "level=WARN"); n > 1 || (n == 1) != want || want && !strings.Contains(log.String(), "id_token_alg=RS256") {
			t.Errorf("offered %q:\n%s", offered, log)
		}
	}
}

func TestUserinfoNeedsItsEndpoint(t *testing.T) {
	p := newProvider(t)
	p.discovery = set("userinfo_endpoint", nil)
	_, _, err := p.party(func(c *oidc.Config) { c.Userinfo = true }).Start(context.Background(), oidc.AuthRequest{})
	wantReason(t, "Start", err, "misconfigured discovery")
}

// Redirects of documents stay on their origin.
func TestDocumentsAreNotFetchedFromAnotherOrigin(t *testing.T) {
	var trapped atomic.Int32
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { trapped.Add(1) }))
	defer trap.Close()
	for _, endpoint := range []string{"discovery", "keys"} {
		p := newProvider(t)
		p.instead[endpoint] = func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, trap.URL+r.URL.Path, http.StatusFound)
		}
		rp := p.party()
		_, _, err := rp.Start(context.Background(), oidc.AuthRequest{})
		if endpoint == "keys" {
			_, err = p.login(rp, oidc.AuthRequest{})
		}
		wantReason(t, endpoint, err, "unavailable "+endpoint)
	}
	if n := trapped.Load(); n != 0 {
		t.Errorf("%d requests reached another origin", n)
	}
}

// A provider whose certificate nobody vouches for gets no request; with CAs it does.
func TestCertificatesAreChecked(t *testing.T) {
	p := newProvider(t)
	p.srv.Close()
	p.srv = httptest.NewUnstartedServer(p)
	p.srv.Config.ErrorLog = discardLog
	p.srv.StartTLS()
	defer p.srv.Close()
	p.issuer = p.srv.URL + "/"
	_, err := p.login2(p.party())
	wantReason(t, "without CAs", err, "unavailable discovery")
	if n := p.count("discovery"); n != 0 {
		t.Errorf("%d requests without a trusted certificate", n)
	}
	trusting := func(c *oidc.Config) { c.CAs = certPool(p.srv.Certificate()) }
	_, err = p.login2(p.party(trusting))
	wantReason(t, "with CAs", err, "ok")

	p.discovery = set("jwks_uri", "http"+strings.TrimPrefix(p.issuer, "https")+"keys")
	_, err = p.login2(p.party(trusting))
	wantReason(t, "with http keys of an https issuer", err, "misconfigured discovery")
}

// A slash more or less is forgiven for a host, never for a path.
func TestOneTrailingSlashOfAHostIsForgiven(t *testing.T) {
	for _, row := range []struct {
		name, configured, discovered string // suffixes of the origin
		want                         string
	}{
		{"configured without", "", "/", "ok"},
		{"configured with", "/", "", "ok"},
		{"a path configured without", "/tenant", "/tenant/", "misconfigured issuer_mismatch"},
		{"a path configured with", "/tenant/", "/tenant", "misconfigured issuer_mismatch"},
		{"two slashes configured", "//", "/", "misconfigured issuer_mismatch"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			origin := p.srv.URL
			inner := p.srv.Config.Handler
			p.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration") {
					r.URL.Path = "/.well-known/openid-configuration"
				}
				inner.ServeHTTP(w, r)
			})
			p.discovery = set("issuer", origin+row.discovered)
			p.claims = set("iss", origin+row.discovered)
			var text fmt.Stringer
			rp := p.party(func(c *oidc.Config) { c.Issuer = origin + row.configured; text = logged(c) })
			_, err := p.login2(rp)
			wantReason(t, "login", err, row.want)
			if row.want != "ok" {
				return
			}
			if rp.Issuer() != origin+row.discovered {
				t.Errorf("Issuer() = %q, want the provider's spelling %q", rp.Issuer(), origin+row.discovered)
			}
			if !strings.Contains(text.String(), "trailing slash") {
				t.Errorf("nothing about it in the log: %s", text)
			}
			p.claims = set("iss", origin+row.configured)
			_, err = p.login2(rp)
			wantReason(t, "a token with the configured spelling", err, "invalid token_issuer")
		})
	}
}

func TestAFailedDiscoveryIsNotRepeatedForEveryRequest(t *testing.T) {
	p := newProvider(t)
	p.instead["discovery"] = fail(500, nil)
	rp := p.party()
	for range 10 {
		_, _, err := rp.Start(context.Background(), oidc.AuthRequest{})
		wantReason(t, "Start", err, "unavailable discovery")
	}
	if n := p.count("discovery"); n != 1 {
		t.Errorf("%d requests within a second, want 1", n)
	}
	delete(p.instead, "discovery")
	p.sleep(time.Second)
	_, _, err := rp.Start(context.Background(), oidc.AuthRequest{})
	wantReason(t, "Start a second later", err, "ok")
}

func TestConcurrentStartsShareOneDiscovery(t *testing.T) {
	p := newProvider(t)
	synctest.Test(t, func(t *testing.T) {
		release := make(chan bool)
		var asked atomic.Int32
		rp := p.party(func(c *oidc.Config) { c.Now = time.Now })
		rp.SetTransport(direct{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			<-release
			p.ServeHTTP(w, r)
		})})
		// The second round is of those that know the provider already, and ask whether it is still there.
		for round := range 2 {
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if _, _, err := rp.Start(t.Context(), oidc.AuthRequest{}); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			if round == 0 {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if _, _, err := rp.Start(ctx, oidc.AuthRequest{}); !errors.Is(err, context.Canceled) {
					t.Errorf("a waiter whose context ended got %v", err)
				}
			}
			release <- true
			wg.Wait()
			if n := asked.Load(); n != int32(round+1) {
				t.Errorf("%d requests after round %d, want one for each", n, round+1)
			}
		}
	})
}

// direct answers requests without a network, so that time can be that of a synctest bubble.
type direct struct{ http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Result(), nil
}

func TestRunTriesDiscoveryUntilItSucceedsAndRenewsIt(t *testing.T) {
	p := newProvider(t)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // held by this goroutine except while time passes
		mu.Lock()
		pass := func(d time.Duration) {
			mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
		}
		var at []time.Duration
		began := time.Now()
		down := true
		log := new(logBuffer)
		rp := p.party(func(c *oidc.Config) { c.Now = time.Now; c.Log = textLog(log) })
		rp.SetTransport(direct{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if strings.HasSuffix(r.URL.Path, "configuration") {
				at = append(at, time.Since(began))
			}
			if down {
				w.WriteHeader(502)
				return
			}
			p.ServeHTTP(w, r)
		})})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan bool)
		go func() { rp.Run(ctx); close(done) }()

		pass(100 * time.Second)
		if got, want := fmt.Sprint(at), "[0s 250ms 750ms 1.75s 3.75s 7.75s 15.75s 31.75s 1m1.75s 1m31.75s]"; got != want {
			t.Errorf("tries at %s, want %s", got, want)
		}
		if rp.Discovered() {
			t.Error("Discovered() = true while the provider is down")
		}
		if n := strings.Count(log.String(), "discovery failed"); n != 1 {
			t.Errorf("the same failure was logged %d times:\n%s", n, log)
		}

		down, at = false, nil
		pass(30 * time.Second)
		if !rp.Discovered() || len(at) != 1 || p.count("keys") != 1 {
			t.Errorf("Discovered() = %v after %d tries, %d fetches of the keys", rp.Discovered(), len(at), p.count("keys"))
		}
		pass(10 * time.Minute)
		if len(at) != 2 {
			t.Errorf("%d discoveries within 10 minutes of the first, want 2", len(at))
		}

		p.discovery = set("issuer", "https://evil.example/") // a provider that went bad leaves the last good document in use
		pass(15 * time.Minute)
		mu.Unlock()
		_, login, err := rp.Start(ctx, oidc.AuthRequest{})
		mu.Lock()
		if err != nil || login.Issuer != p.issuer {
			t.Errorf("Start after a bad renewal = %+v, %v", login, err)
		}
		if !strings.Contains(log.String(), "evil.example") {
			t.Errorf("nothing about the bad renewal in the log:\n%s", log)
		}
		cancel()
		<-done
	})
}

func TestStartWaitsAtMostTwoSecondsForDiscovery(t *testing.T) {
	p := newProvider(t)
	synctest.Test(t, func(t *testing.T) {
		rp := p.party(func(c *oidc.Config) { c.Now = time.Now })
		rp.SetTransport(direct{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(time.Minute):
			}
			w.WriteHeader(500)
		})})
		began := time.Now()
		_, _, err := rp.Start(t.Context(), oidc.AuthRequest{})
		wantReason(t, "Start", err, "unavailable discovery")
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("Start took %s, want 2s", took)
		}
		time.Sleep(time.Minute)
	})
}

// Whoever is sent to a provider that is not there gets an error of the browser's, and nowhere.
func TestNobodyIsSentToAProviderThatDoesNotAnswer(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		want   string // of wantReason; "" is no error
	}{
		{"the connection is cut", cut, "unavailable discovery"},
		{"it answers 500", fail(500, nil), ""},
		{"it answers 429", fail(429, nil), ""},
		{"it answers with another issuer", raw(`{"issuer":"https://evil.example/"}`), ""},
		{"it answers with a page", raw("<html>maintenance</html>"), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			rp := p.party()
			if _, _, err := rp.Start(t.Context(), oidc.AuthRequest{}); err != nil {
				t.Fatal(err)
			}
			p.set("discovery", row.answer)
			_, login, err := rp.Start(t.Context(), oidc.AuthRequest{})
			if row.want != "" {
				wantReason(t, "Start", err, row.want)
			} else if err != nil || login.Issuer != p.issuer {
				t.Errorf("Start = %+v, %v, want a login at %s", login, err, p.issuer)
			}
			p.set("discovery", nil)
			if _, _, err := rp.Start(t.Context(), oidc.AuthRequest{}); err != nil {
				t.Errorf("Start when it answers again = %v", err)
			}
		})
	}
}

func TestAProviderThatIsSlowAtTheMomentHoldsNoLoginUp(t *testing.T) {
	p := newProvider(t)
	synctest.Test(t, func(t *testing.T) {
		slow := false
		rp := p.party(func(c *oidc.Config) { c.Now = time.Now })
		rp.SetTransport(direct{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if slow {
				<-r.Context().Done()
			}
			p.ServeHTTP(w, r)
		})})
		if _, _, err := rp.Start(t.Context(), oidc.AuthRequest{}); err != nil {
			t.Fatal(err)
		}
		slow = true
		began := time.Now()
		if _, _, err := rp.Start(t.Context(), oidc.AuthRequest{}); err != nil {
			t.Errorf("Start = %v", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("Start took %s, want 1s", took)
		}
		time.Sleep(time.Minute)
	})
}
