// Package devprovider is an OpenID Provider for development and tests that behaves like Auth0: its issuer ends in a slash, access
// tokens without an audience are opaque and have five parts, a wrong client secret is 401 access_denied, a used code 403, a
// refreshed ID token has no sid, and so on. It also lies on request: see [Faults].
//
// It is no provider to rely on. Everything is in memory, passwords and tokens in the clear, the keys are new in every process,
// and anyone who can reach it may sign up. So it refuses an issuer that is not on a loopback address, and answers neither peers from
// elsewhere nor requests for another host. It imports only the standard library and nothing of this module, so that a
// mistake of our relying party cannot hide behind the same mistake here.
//
// Tests use [Start], which listens on a free port; a program that has a listener of its own uses [New]:
//
//	provider, err := devprovider.Start(devprovider.Options{
//		Clients: []devprovider.Client{{ID: "client", Secret: "a secret", Callbacks: []string{"http://127.0.0.1:8080/callback"}}},
//		Users:   devprovider.DemoUsers(),
//	})
//	...
//	defer provider.Close()
//	provider.Set(func(f *devprovider.Faults) { f.SignInAs = "ada" }) // no pages: every login is ada's
//
// Left out, although Auth0 has them: pushed authorization requests, DPoP, mutual TLS, the device flow, response modes that need a
// script, consent to scopes, a second factor (asking for one is believed), rate limits, and registration of clients.
package devprovider

import (
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// The limits of what is remembered. In each case the oldest makes room, except for users: nobody can sign up when it is full there.
const (
	maxBody         = 64 << 10 // bytes
	maxUsers        = 1000
	maxSessions     = 1000
	maxTransactions = 1000
	maxPerBrowser   = 10 // transactions; as Auth0, which then says that it couldn't find the session
	maxTokens       = 10000
	maxRecords      = 1000 // calls and deliveries
)

// Lifetimes, as Auth0 has them where it says so.
const (
	codeLife         = 10 * time.Minute
	transactionLife  = time.Hour
	sessionIdle      = 3 * 24 * time.Hour
	sessionMax       = 30 * 24 * time.Hour
	idTokenLife      = 10 * time.Hour
	logoutTokenLife  = 2 * time.Minute
	maxAssertionLife = 5 * time.Minute // of a client assertion
)

// The names of connections that the pages know.
const (
	Database = "Username-Password-Authentication"
	Google   = "google-oauth2"
	GitHub   = "github"
)

// Options describe the tenant: who may sign in where. The zero value of a field is Auth0's default unless it says otherwise.
type Options struct {
	Issuer  string // with a trailing slash, e.g. http://127.0.0.1:4181/; the host must be a loopback address or localhost
	Clients []Client
	Users   []User
	APIs    []API

	Organizations []Organization
	LogoutURLs    []string // of the tenant: where /v2/logout may return to when it got no client_id

	DefaultAudience   string // audience of authorization requests without one
	RolesClaim        string // where User.Roles go; "" means https://demo.example/roles
	GroupsClaim       string // where User.Groups go; "" means groups, although Auth0 would not let an Action set a name like that
	OnlyNamespaced    bool   // drop custom claims whose names are no URLs, as Auth0 does
	OrganizationNames bool   // tokens say org_name beside org_id
	NoLogoutConsent   bool   // /oidc/logout never asks; otherwise it does when no hint names the session of this browser
	ShowUsers         bool   // the login page lists the users that have a Note and a password, and the passwords

	Now        func() time.Time // nil means time.Now
	HTTPClient *http.Client     // sends logout tokens; nil means one that waits 5 s and follows no redirect
}

// A Client is an application, a relying party.
type Client struct {
	ID   string
	Name string // what the pages call it; "" means ID

	Secret     string
	AuthMethod string           // the one accepted: post, basic or private_key_jwt; "" accepts each for which there is a secret or key
	PublicKey  crypto.PublicKey // of private_key_jwt: *rsa.PublicKey or *ecdsa.PublicKey

	Callbacks  []string // compared byte for byte; none: every http and https URL, for tests that do not know theirs yet
	LogoutURLs []string // the first is the default of /v2/logout; none: every http and https URL

	InitiateLoginURI string // where a lost or repeated login page sends the browser; "" shows a page
	BackchannelURL   string // gets a logout token when a session ends that the client took part in; "" gets none

	OrganizationUsage string // allow, require or deny; "" means allow

	NoRotation      bool          // refresh tokens stay the same, and the answer to a refresh has none
	Leeway          time.Duration // how long after a rotation the token before may be used again; zero is not at all
	RefreshLifetime time.Duration // of a family of refresh tokens, not extended by rotation; zero means 30 days
}

// A User can sign in. Username and Subject are unique.
type User struct {
	Username   string
	Password   string // "" cannot sign in with a password
	Subject    string // e.g. auth0|ada
	Connection string // "" means Database
	Blocked    bool

	// Claims of ID tokens and userinfo by their exact names. The standard claims of the scopes profile and email are sent only with those scopes.
	Claims map[string]any

	Groups, Roles []string // sent as Options.GroupsClaim and Options.RolesClaim
	Permissions   []string // in access tokens for an API
	Organizations []string // IDs of organizations that the user is a member of

	Note string // beside the name in the list of Options.ShowUsers; without one the user is not in it
}

// An API is a resource server: an audience of access tokens.
type API struct {
	Identifier    string
	Scopes        []string      // those beside the scopes of OpenID Connect that can be granted
	TokenLifetime time.Duration // of access tokens; zero means 24 hours
	Offline       bool          // "Allow Offline Access": offline_access gives a refresh token
	Dialect       string        // auth0 (typ JWT, azp) or rfc9068 (typ at+jwt, client_id, jti); "" means auth0
}

// An Organization groups users; it can be named in an authorization request by ID or by name.
type Organization struct {
	ID   string // org_...
	Name string
}

// A Provider is an OpenID Provider. It is safe for concurrent use. [New] makes one.
type Provider struct {
	opts      Options
	issuer    *url.URL
	endpoints map[string]endpoint // by path
	calls     recorder

	faultsMu sync.Mutex
	faults   Faults

	mu           sync.Mutex
	clients      []Client
	users        []User
	key          int // index of the signing key
	sessions     shelf[*session]
	transactions shelf[*transaction]
	codes        shelf[*code]
	access       shelf[*accessToken]
	refresh      shelf[*refreshToken]
	assertions   shelf[struct{}] // used client assertions by client and jti
	consents     shelf[*consent]
	deliveries   []Delivery
	sending      int        // sessions whose logout tokens are on their way
	idle         *sync.Cond // on mu: sending has become less
	reused       int
	lastSID      string
}

// New returns a Provider, ready to be served at o.Issuer. It refuses an issuer that is not on a loopback address.
// It makes RSA keys, which takes some tenths of a second for the first Provider of a process.
func New(o Options) (*Provider, error) {
	issuer, err := url.Parse(o.Issuer)
	switch {
	case err != nil:
		return nil, fmt.Errorf("issuer: %w", err)
	case issuer.Scheme != "http" && issuer.Scheme != "https", issuer.Path != "/", issuer.User != nil, issuer.RawQuery != "" || issuer.ForceQuery, strings.Contains(o.Issuer, "#"):
		return nil, fmt.Errorf("issuer %q is not of the form http://127.0.0.1:4181/", o.Issuer)
	case !isLoopback(issuer.Hostname()):
		return nil, fmt.Errorf("issuer %q is not on a loopback address: this provider is for development only", o.Issuer)
	}
	if o.RolesClaim == "" {
		o.RolesClaim = "https://demo.example/roles"
	}
	if o.GroupsClaim == "" {
		o.GroupsClaim = "groups"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.HTTPClient == nil {
		o.HTTPClient = &http.Client{
			Timeout:       5 * time.Second, // what Auth0 waits
			Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	for _, a := range o.APIs {
		if a.Identifier == "" || a.Dialect != "" && a.Dialect != "auth0" && a.Dialect != "rfc9068" {
			return nil, fmt.Errorf("API %q: an identifier is required, and the dialect is auth0 or rfc9068, not %q", a.Identifier, a.Dialect)
		}
	}
	p := &Provider{
		opts: o, issuer: issuer,
		sessions:     newShelf[*session](maxSessions),
		transactions: newShelf[*transaction](maxTransactions),
		codes:        newShelf[*code](maxTokens),
		access:       newShelf[*accessToken](maxTokens),
		refresh:      newShelf[*refreshToken](maxTokens),
		assertions:   newShelf[struct{}](maxTokens),
		consents:     newShelf[*consent](maxTransactions),
	}
	p.idle = sync.NewCond(&p.mu)
	p.endpoints = p.routes()
	for _, c := range o.Clients {
		if _, found := p.client(c.ID); found {
			return nil, fmt.Errorf("client %q is there twice", c.ID)
		}
		if err := p.SetClient(c); err != nil {
			return nil, err
		}
	}
	for _, u := range o.Users {
		if _, found := p.user(u.Username); found {
			return nil, fmt.Errorf("user %q is there twice", u.Username)
		}
		if err := p.SetUser(u); err != nil {
			return nil, err
		}
	}
	var wg sync.WaitGroup
	for i := range 2 { // the two that are published first
		wg.Go(func() { keyAt(i) })
	}
	wg.Wait()
	return p, nil
}

// isLoopback reports whether host can only be this machine. The name localhost is taken at its word (RFC 6761 §6.3).
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || host == "localhost"
}

// Issuer is the provider's iss, with a trailing slash.
func (p *Provider) Issuer() string { return p.opts.Issuer }

// SetClient adds a client or replaces the one with that ID. Logins in progress keep what they started with.
func (p *Provider) SetClient(c Client) error {
	switch {
	case c.ID == "":
		return errors.New("a client has no ID")
	case !slices.Contains([]string{"", "post", "basic", "private_key_jwt"}, c.AuthMethod):
		return fmt.Errorf("client %q: unknown authentication method %q", c.ID, c.AuthMethod)
	case !slices.Contains([]string{"", "allow", "require", "deny"}, c.OrganizationUsage):
		return fmt.Errorf("client %q: organization usage is allow, require or deny, not %q", c.ID, c.OrganizationUsage)
	case c.AuthMethod == "private_key_jwt" && c.PublicKey == nil:
		return fmt.Errorf("client %q: private_key_jwt needs a public key", c.ID)
	case c.AuthMethod != "private_key_jwt" && c.Secret == "" && (c.AuthMethod != "" || c.PublicKey == nil):
		return fmt.Errorf("client %q has no secret", c.ID)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.IndexFunc(p.clients, func(old Client) bool { return old.ID == c.ID }); i >= 0 {
		p.clients[i] = c
	} else {
		p.clients = append(p.clients, c)
	}
	return nil
}

// SetUser adds a user or replaces the one with that username: tokens issued from then on say what u says.
func (p *Provider) SetUser(u User) error {
	if u.Username == "" || u.Subject == "" {
		return fmt.Errorf("user %q with subject %q: both are required", u.Username, u.Subject)
	}
	if u.Connection == "" {
		u.Connection = Database
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.users, func(old User) bool { return old.Username == u.Username })
	if slices.ContainsFunc(p.users, func(old User) bool { return old.Username != u.Username && old.Subject == u.Subject }) {
		return fmt.Errorf("user %q: the subject %q is another user's", u.Username, u.Subject)
	}
	switch {
	case i >= 0:
		p.users[i] = u
	case len(p.users) >= maxUsers:
		return errFull
	default:
		p.users = append(p.users, u)
	}
	return nil
}

var errFull = fmt.Errorf("there are already %d users, which is the limit", maxUsers)

func (p *Provider) client(id string) (Client, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clients {
		if c.ID == id {
			return c, true
		}
	}
	return Client{}, false
}

func (p *Provider) user(name string) (User, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.users {
		if u.Username == name {
			return u, true
		}
	}
	return User{}, false
}
