package main

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"authproxy/assertion"
	"authproxy/config"
	"authproxy/oidc"
	"authproxy/policy"
	"authproxy/proxy"
	"authproxy/session"
)

// An assembly is what a configuration describes, ready to serve.
type assembly struct {
	cfg      *config.Config
	provider *oidc.RelyingParty

	providerConf oidc.Config // what provider was made of, without the log and who watches

	store    session.Store
	sessions *session.Manager
	proxy    *proxy.Proxy
}

// openStore opens the session store; check has a look instead.
type openStore func(cfg *config.Config, log *slog.Logger, sealer *session.Sealer, cookie session.Cookie) (session.Store, error)

// observers are told what happens, for metrics. One that is nil does not want to know.
type observers struct {
	request  func(proxy.Event)
	renewal  func(result string)
	provider func(op string, took time.Duration, err error)
	store    func(op string, took time.Duration, err error)
	reload   func(ok bool)
}

// reloaded tells that a changed configuration was taken over, or was not.
func (o observers) reloaded(ok bool) {
	if o.reload != nil {
		o.reload(ok)
	}
}

// build makes everything that a configuration describes but listeners. Nothing is connected to.
func build(cfg *config.Config, log *slog.Logger, open openStore) (*assembly, error) {
	return buildObserved(cfg, log, open, observers{}, nil)
}

// buildObserved is build with somebody watching. With a former assembly, the new one goes on with what that one knows.
func buildObserved(cfg *config.Config, log *slog.Logger, open openStore, watch observers, former *assembly) (*assembly, error) {
	conf := oidc.Config{
		Issuer: cfg.Provider.Issuer, Auth0: isAuth0(cfg), ClientID: cfg.Provider.ClientID, ClientSecret: cfg.Provider.ClientSecret,
		PrivateKey: cfg.Provider.PrivateKey, ClientAuth: cfg.Provider.ClientAuth, RedirectURL: publicURL(cfg) + cfg.Prefix + "/callback",
		Scopes: cfg.Provider.Scopes, Audience: cfg.Provider.Audience, Params: cfg.Provider.Params, Organization: cfg.Provider.Organization,
		IDTokenAlg: cfg.Provider.IDTokenAlg, Leeway: cfg.Provider.Leeway, Claims: oidc.ClaimNames(cfg.Provider.Claims), KeepClaims: cfg.Identity.Claims,
		Logout: cfg.Provider.Logout, Federated: cfg.Provider.Federated, Userinfo: cfg.Provider.Userinfo, CAs: cfg.Provider.CAs,
	}
	var (
		provider *oidc.RelyingParty
		err      error
	)
	if former != nil && reflect.DeepEqual(conf, former.providerConf) { // with what it knows of the provider, which may be down just now
		provider = former.provider
	} else {
		observed := conf
		observed.Log, observed.Observe = log, watch.provider
		provider, err = oidc.New(observed)
	}
	if err != nil {
		return nil, err
	}
	var bearer *oidc.Resource
	if b := cfg.Bearer; b != nil {
		if bearer, err = oidc.NewResource(provider, b.Audience, b.Issuers); err != nil {
			return nil, err
		}
	}
	sealer, err := session.NewSealer(cfg.Session.Keys)
	if err != nil {
		return nil, err
	}
	keys, err := signingKeys(cfg)
	if err != nil {
		return nil, err
	}
	signer, err := assertion.NewSigner(publicURL(cfg), cfg.Identity.Assertion.TTL, keys)
	if err != nil {
		return nil, err
	}
	messages, err := messageSigner(cfg, signer, keys[0])
	if err != nil {
		return nil, err
	}
	cookie := session.NewCookie(cfg.Session.Cookie.Name, cfg.Session.Cookie.Domain, cfg.PublicURL.Scheme == "https", sameSite(cfg.Session.Cookie.SameSite))
	store, err := open(cfg, log, sealer, cookie)
	if err != nil {
		return nil, err
	}
	if c, ok := store.(session.Cacher); ok { // all are
		c.SetCache(cfg.Session.Cache)
	}
	sessions := session.NewManager(store, cookie, cfg.Session.IdleTimeout, cfg.Session.MaxLifetime)
	sessions.Observe = watch.store
	sessions.Failed = func(err error) { log.Warn("session store", "error", err.Error()) }

	upstreams := map[*config.Upstream]*proxy.Upstream{}
	upstream := func(u *config.Upstream) *proxy.Upstream {
		if u == nil {
			return nil
		}
		if upstreams[u] == nil {
			made := proxy.Upstream(*u)
			upstreams[u] = &made
		}
		return upstreams[u]
	}
	opts := proxy.Options{
		PublicURL: cfg.PublicURL, Prefix: cfg.Prefix, Provider: provider, Sessions: sessions, Sealer: sealer, Signer: signer,
		Default: upstream(cfg.Upstream), SignInPage: cfg.SignInPage, Connections: cfg.Provider.Connections, StoreTokens: cfg.Session.Refresh,
		TrustedProxies: cfg.TrustedProxies, LoginsPerMinute: cfg.Limits.LoginPerMinute, Log: log,
		Bearer: bearer, Observe: watch.request, ObserveRenewal: watch.renewal,
		Identity: proxy.Identity{
			Claims: cfg.Identity.Claims, OnlyGroups: cfg.Identity.OnlyGroups, StripForeign: cfg.Identity.StripForeign,
			AssertionHeader: cfg.Identity.Assertion.Header, Audience: cfg.Identity.Assertion.Audience, AccessToken: cfg.Identity.AccessToken, Messages: messages,
		},
	}
	if f := cfg.ForwardAuth; f != nil {
		opts.ForwardAuth = &proxy.ForwardAuth{Trust: f.Trust, TrustUnix: f.TrustUnix, SharedSecret: f.SharedSecret, Domains: f.Domains}
	}
	if a := cfg.AppToken; a != nil {
		opts.AppToken = &proxy.AppToken{TTL: a.TTL, Handoff: a.Handoff, Key: a.Key, SigningKeys: keys}
	}
	for _, h := range cfg.Identity.Headers {
		opts.Identity.Headers = append(opts.Identity.Headers, proxy.Header(h))
	}
	for _, r := range cfg.Routes {
		opts.Routes = append(opts.Routes, proxy.Route{
			Host: r.Host, Path: r.Path, Exact: r.Exact, Methods: r.Methods, Policy: routePolicy(r, cfg), Upstream: upstream(r.Upstream),
			StripPrefix: r.StripPrefix, Audience: r.Audience, Unauthenticated: r.Unauthenticated, Timeout: r.Timeout,
		})
	}
	if former != nil {
		opts.Former = former.proxy
	}
	p, err := proxy.New(opts)
	if err != nil {
		if former == nil { // otherwise the former one may go on with it
			store.Close()
		}
		return nil, err
	}
	return &assembly{cfg, provider, conf, store, sessions, p}, nil
}

// isAuth0 says whether the provider is Auth0, also where it was given as an issuer: a tenant's own host name tells.
func isAuth0(cfg *config.Config) bool {
	u, err := url.Parse(cfg.Provider.Issuer)
	return cfg.Provider.Domain != "" || err == nil && strings.HasSuffix(u.Hostname(), ".auth0.com")
}

// publicURL is the origin of public_url.
func publicURL(cfg *config.Config) string { return cfg.PublicURL.Scheme + "://" + cfg.PublicURL.Host }

func routePolicy(r config.Route, cfg *config.Config) *policy.Policy {
	p := &policy.Policy{Anyone: r.Anyone, SignedIn: r.SignedIn, MaxAuthAge: r.MaxAuthAge, ACR: r.ACR, Leeway: cfg.Provider.Leeway}
	for _, a := range r.Allow {
		e := policy.Entry{Groups: a.Groups, Emails: a.Emails, EmailDomains: a.EmailDomains, Subjects: a.Subjects, Permissions: a.Permissions,
			Scopes: a.Scopes, Organizations: a.Organizations, UnverifiedEmail: a.UnverifiedEmail}
		for _, c := range a.Claims {
			e.Claims = append(e.Claims, policy.Claim(c))
		}
		p.Entries = append(p.Entries, e)
	}
	return p
}

// signingKeys are the configured keys, or one derived from each session key: the first signs.
func signingKeys(cfg *config.Config) ([]*ecdsa.PrivateKey, error) {
	if len(cfg.Identity.SigningKeys) > 0 {
		return cfg.Identity.SigningKeys, nil
	}
	var keys []*ecdsa.PrivateKey
	for _, secret := range cfg.Session.Keys {
		k, err := assertion.DeriveKey(secret)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// messageSigner signs forwarded requests when that is configured; nil when not.
func messageSigner(cfg *config.Config, signer *assertion.Signer, key *ecdsa.PrivateKey) (*assertion.MessageSigner, error) {
	alg := cfg.Identity.MessageSignature.Algorithm
	switch alg {
	case "":
		return nil, nil
	case "hmac-sha256":
		return assertion.NewMessageSigner(alg, "shared", cfg.Identity.MessageSignature.Key)
	case "ecdsa-p256-sha256":
		id, err := assertion.KeyID(key.Public())
		if err != nil {
			return nil, err
		}
		return assertion.NewMessageSigner(alg, id, key)
	case "ed25519":
		var public []jose.JSONWebKey
		for _, secret := range cfg.Session.Keys { // the first signs, all are published
			k, err := assertion.DeriveEd25519(secret)
			if err != nil {
				return nil, err
			}
			id, err := assertion.KeyID(k.Public())
			if err != nil {
				return nil, err
			}
			public = append(public, jose.JSONWebKey{Key: k.Public(), KeyID: id, Algorithm: "EdDSA", Use: "sig"})
		}
		if err := signer.Publish(public...); err != nil {
			return nil, err
		}
		k, err := assertion.DeriveEd25519(cfg.Session.Keys[0])
		if err != nil {
			return nil, err
		}
		return assertion.NewMessageSigner(alg, public[0].KeyID, k)
	}
	return nil, fmt.Errorf("identity.message_signature.algorithm: %q is unknown", alg)
}

func sameSite(name string) http.SameSite {
	switch name {
	case "strict":
		return http.SameSiteStrictMode
	case "none":
		return http.SameSiteNoneMode
	}
	return http.SameSiteLaxMode
}

// openConfiguredStore opens the store that sessions are kept in.
func openConfiguredStore(cfg *config.Config, log *slog.Logger, sealer *session.Sealer, cookie session.Cookie) (session.Store, error) {
	s := cfg.Session
	var redis session.RedisOptions
	if s.Store == "redis" || s.Endings == "redis" {
		var err error
		if redis, err = redisOptions(cfg, log); err != nil {
			return nil, err
		}
	}
	switch {
	case s.Store == "file":
		store, err := session.OpenFileStore(s.FilePath, sealer, s.Keys, cookie, s.IdleTimeout, nil)
		if err != nil {
			return nil, noFileStore(cfg, err)
		}
		return store, nil
	case s.Store == "redis":
		return session.OpenRedisStore(redis, sealer, s.Keys, cookie, s.IdleTimeout, nil)
	case s.Endings == "file":
		store, err := session.OpenCookieStoreWithFile(s.FilePath, log, sealer, s.Keys, cookie, s.MaxLifetime, nil)
		if err != nil {
			return nil, noFileStore(cfg, err)
		}
		return store, nil
	case s.Endings == "redis":
		return session.OpenCookieStoreWithRedis(redis, sealer, s.Keys, cookie, s.MaxLifetime, nil)
	}
	return session.NewCookieStore(sealer, cookie, s.MaxLifetime, nil), nil
}

// noFileStore says why the file of the sessions cannot be opened.
func noFileStore(cfg *config.Config, err error) error {
	const key = "session.file.path"
	path := cfg.Session.FilePath
	if cause := errors.Unwrap(err); cause != nil {
		err = cause // without the path once more
	}
	m := config.Mistake{File: cfg.File, Line: cfg.Line(key), Key: key,
		Problem: fmt.Sprintf("%q is not a session database of authproxy: %v", path, err), Hint: "name another file, or remove it"}
	var system *fs.PathError
	switch {
	case errors.Is(err, session.ErrFileInUse):
		m.Problem = fmt.Sprintf("%q is in use by another process, and the file store is for one", path)
		m.Hint = "stop the other one, or write store: redis for several"
	case errors.Is(err, fs.ErrNotExist):
		m.Problem = fmt.Sprintf("%q cannot be made: its directory is not there", path)
		m.Hint = "make the directory, for the user that authproxy runs as alone, or name another file"
	case errors.As(err, &system):
		m.Problem = fmt.Sprintf("%q cannot be opened: %v", path, system.Err)
		m.Hint = "let the user that authproxy runs as write there, or name another file"
	}
	return &notHere{config.Mistakes{m}, err}
}

// redisOptions are those of the configuration, which knows the form of the URL only.
func redisOptions(cfg *config.Config, log *slog.Logger) (session.RedisOptions, error) {
	r := cfg.Session.Redis
	opts := session.RedisOptions{URL: r.URL, Prefix: r.Prefix, MaxStaleness: r.MaxStaleness, Log: log}
	if err := opts.Check(); err != nil {
		return opts, config.Mistakes{{File: cfg.File, Line: cfg.Line("session.redis.url"), Key: "session.redis.url", Problem: err.Error(),
			Hint: "write redis://HOST:6379/0, with rediss:// for TLS, several hosts separated by commas for a cluster, ?master_set=NAME for Sentinel"}}
	}
	return opts, nil
}

// closedStore stands for the store where none may be opened: for check and explain.
func closedStore(cfg *config.Config, log *slog.Logger, sealer *session.Sealer, cookie session.Cookie) (session.Store, error) {
	if cfg.Session.Store == "redis" || cfg.Session.Endings == "redis" {
		if _, err := redisOptions(cfg, log); err != nil {
			return nil, err
		}
	}
	return session.NewCookieStore(sealer, cookie, cfg.Session.MaxLifetime, nil), nil
}
