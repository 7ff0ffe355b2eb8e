package rig

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"authproxy/identity"
	"authproxy/session"
)

// Stores are the kinds of session stores.
var Stores = []string{"cookie", "file", "redis"}

const (
	idle = 24 * time.Hour     // session.idle_timeout by default
	life = 7 * 24 * time.Hour // session.max_lifetime
)

var cookie = session.NewCookie("authproxy", "", false, http.SameSiteLaxMode)

// Open opens a session store in this process, as the proxies have it: with the same key, cookie and lifetimes.
func (r *Rig) Open(ctx context.Context, store string) (session.Store, error) {
	keys := [][]byte{r.key}
	sealer, err := session.NewSealer(keys)
	if err != nil {
		return nil, err
	}
	switch store {
	case "cookie":
		return session.NewCookieStore(sealer, cookie, life, nil), nil
	case "file":
		return session.OpenFileStore(r.file(), sealer, keys, cookie, idle, nil)
	case "redis":
		server, err := r.Redis(ctx)
		if err != nil {
			return nil, err
		}
		return session.OpenRedisStore(session.RedisOptions{URL: server.url, Prefix: "authproxy:"}, sealer, keys, cookie, idle, nil)
	}
	return nil, fmt.Errorf("there is no store %q", store)
}

// Manager is the manager of a store that Open returned.
func Manager(s session.Store) *session.Manager { return session.NewManager(s, cookie, idle, life) }

// StoreBytes is what a store takes up for its sessions: the size of its file, or what Redis has allocated for them.
func (r *Rig) StoreBytes(ctx context.Context, store string) (float64, error) {
	switch store {
	case "file":
		st, err := os.Stat(r.file())
		if err != nil {
			return 0, err
		}
		return float64(st.Size()), nil
	case "redis":
		server, err := r.Redis(ctx)
		if err != nil {
			return 0, err
		}
		return server.Used(ctx)
	}
	return 0, nil
}

// Begin begins a session like that of a user of an Auth0 tenant, and returns the cookie, NAME=VALUE, with the session.
func (r *Rig) Begin(ctx context.Context, m *session.Manager) (string, *session.Session, error) {
	now := time.Now()
	user := strings.ToLower(rand.Text()[:24])
	s, c, err := m.Begin(ctx, &session.Session{
		Identity: &identity.Identity{Issuer: r.provider.Issuer(), Subject: "auth0|" + user, Email: "ada.lovelace" + user[:6] + "@example.com", EmailVerified: true,
			Name: "Ada Lovelace", Username: "ada" + user[:6], Groups: []string{"admins", "staff"}, Scopes: []string{"openid", "profile", "email", "offline_access"},
			AuthTime: now, Claims: map[string]any{"https://example.com/roles": []any{"owner"}}},
		ProviderSID: rand.Text() + rand.Text()[:6], Nonce: rand.Text() + rand.Text()[:17], RefreshToken: "v1." + rand.Text() + rand.Text() + rand.Text()[:9],
		AccessExpiry: now.Add(24 * time.Hour), RenewAt: now.Add(23 * time.Hour), Address: "203.0.113.77",
		Agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
	})
	if err != nil {
		return "", nil, err
	}
	return c.Name + "=" + c.Value, s, nil
}

// BeginMany begins n sessions, many at a time as many people do, and calls done with the cookies of some of them after the
// other.
func (r *Rig) BeginMany(ctx context.Context, store string, m *session.Manager, n int, done func(cookies []string) error) error {
	atOnce := 32
	if store == "file" {
		atOnce = 1000 // it commits up to 1000 together, and takes as long for one
	}
	for n > 0 {
		cookies := make([]string, min(n, 10_000))
		n -= len(cookies)
		var some errgroup.Group
		for w := range min(atOnce, len(cookies)) {
			some.Go(func() (err error) {
				for i := w; i < len(cookies) && err == nil; i += atOnce {
					for range 10 { // Redis may not answer in time when the machine is busy: then people try again
						if cookies[i], _, err = r.Begin(ctx, m); err == nil {
							break
						}
					}
				}
				return err
			})
		}
		if err := some.Wait(); err != nil {
			return err
		}
		if err := done(cookies); err != nil {
			return err
		}
	}
	return nil
}

// Login begins a session as a browser does, through the provider, sees to it that the upstream gets an assertion with it,
// and returns the cookie.
func (p *Process) Login(ctx context.Context) (string, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return "", err
	}
	browser := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/assertion", nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Accept", "text/html")
	response, err := browser.Do(request) // to the provider, and back
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK || strings.Count(string(body), ".") != 2 {
		return "", fmt.Errorf("the login came to %s at %s, and the upstream got no assertion", response.Status, response.Request.URL.Path)
	}
	at, err := url.Parse(p.URL)
	if err != nil {
		return "", err
	}
	for _, c := range jar.Cookies(at) {
		if c.Name == cookie.Name {
			return c.Name + "=" + c.Value, nil
		}
	}
	return "", errors.New("the login gave no session cookie")
}
