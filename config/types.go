package config

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"net/url"
	"time"
)

// A Config is a checked configuration with its defaults filled in. Files that it names have been read, unless a comment
// says otherwise; nothing has been connected to.
type Config struct {
	File  string // where it was read from
	Files []File // it and every file that it names: when one of them changes, the configuration has

	PublicURL      *url.URL // scheme and host only, in lower case, without a default port; Path is ""
	Listen         Addr
	Prefix         string // "" for "/", otherwise like "/auth", without a trailing slash
	TLS            TLS
	Admin          Admin
	TrustedProxies []netip.Prefix
	Log            Log
	Provider       Provider
	Session        Session
	Upstream       *Upstream // nil: unmatched paths are 404
	Routes         []Route
	SignInPage     bool
	Identity       Identity
	Bearer         *Bearer      // nil: off
	AppToken       *AppToken    // nil: off
	ForwardAuth    *ForwardAuth // nil: off
	Shutdown       Shutdown
	Limits         Limits

	// Warnings are mistakes that do not forbid to run, such as trusting every proxy.
	Warnings []Mistake

	lines map[string]int // where each key of the file stands
}

// Line returns the line, from 1, of a key such as "routes[2].upstream", for messages about what only running it can tell.
// Of a key that is not in the file it is the line of the nearest key above it that is, or 1.
func (c *Config) Line(key string) int { return nearestLine(c.lines, key) }

// An Addr is something to listen on.
type Addr struct {
	Network string // "tcp" or "unix"; "" is off
	Address string // host:port, or a path
}

func (a Addr) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return a.Address
}

// TLS names the certificate of our own listener. The files were read once to see that they fit together; whoever serves
// reads them again when they change.
type TLS struct{ CertFile, KeyFile string }

// Admin is the listener for health, metrics and sessions.
type Admin struct {
	Listen Addr // Network "" switches it off
	Token  string
}

// Log says what is logged. Format is "auto", "text" or "json".
type Log struct {
	Level  slog.Level
	Format string
}

// A Provider is the OpenID Provider and what we are to it.
type Provider struct {
	Issuer       string // exactly as the iss of its tokens; "https://DOMAIN/" when Domain is set
	Domain       string // Auth0; "" when the issuer was given
	ClientID     string
	ClientSecret string
	PrivateKey   crypto.Signer // of private_key_file; nil when there is none
	ClientAuth   string        // "auto", "post", "basic" or "private_key_jwt"
	Audience     string
	Scopes       []string // contains openid
	Params       map[string]string
	Connections  []string
	Organization string
	IDTokenAlg   string // a JWA name; never none or HS*
	Leeway       time.Duration
	Claims       Claims
	Logout       string // "auto", "auth0", "oidc" or "local"
	Federated    bool
	Userinfo     bool
	CAs          *x509.CertPool // system roots and ca_file; nil when there is no ca_file
}

// Claims are the names of the claims that fields of an identity come from. Each is one whole name.
type Claims struct{ Groups, Email, Name, Username string }

// Session is how sessions are kept.
type Session struct {
	Keys        [][]byte // decoded, at least 32 bytes each, at least one
	Store       string   // "cookie", "file" or "redis"
	Endings     string   // where the cookie store keeps which sessions were ended: "file", "redis" or, in memory, ""
	IdleTimeout time.Duration
	MaxLifetime time.Duration
	Refresh     bool
	Cache       int // bytes of opened sessions in memory
	Cookie      Cookie
	FilePath    string // not opened
	Redis       Redis
}

// A Cookie is the session cookie. SameSite is "lax", "strict" or "none".
type Cookie struct{ Name, Domain, SameSite string }

// Redis says where Redis is and how it is used; URL was parsed for its form only.
type Redis struct {
	URL, Prefix  string
	MaxStaleness time.Duration
}

// An Upstream is an app behind us.
type Upstream struct {
	URL                *url.URL // scheme http, https, h2c or unix; for unix, Path is the socket's path, otherwise it is ""
	CAs                *x509.CertPool
	Timeout            time.Duration // for the response's header
	PreserveHost       bool          // send the host that the user typed
	InsecureSkipVerify bool
}

// A Route says who may use a part of the paths, and where they lead.
type Route struct {
	Line            int    // in the file
	Host            string // lower case, without a port; "" is every host that we serve
	Path            string // clean, decoded, begins with "/", no trailing slash but for "/" itself
	Exact           bool
	Methods         []string  // empty: all
	Anyone          bool      // allow: anyone
	SignedIn        bool      // allow: signed_in
	Allow           []Allow   // otherwise; at least one
	Upstream        *Upstream // nil: that of Config
	StripPrefix     bool
	Audience        string
	MaxAuthAge      time.Duration // 0: any
	ACR             string
	Unauthenticated string        // "login", "401" or ""
	Timeout         time.Duration // 0: that of the upstream
}

// An Allow is one entry of a route's allow list: each key that is set must hold, and a key holds when one of its values does.
type Allow struct {
	Groups, Emails, EmailDomains, Subjects, Permissions, Scopes, Organizations []string

	Claims          []ClaimValues // sorted by name
	UnverifiedEmail bool
}

// ClaimValues are the values of which a claim must have one.
type ClaimValues struct {
	Name   string
	Values []string
}

// Identity is what upstreams get to know.
type Identity struct {
	Headers          []Header // sorted by name
	Claims           []string
	OnlyGroups       []string
	StripForeign     bool
	Assertion        Assertion
	MessageSignature MessageSignature
	SigningKeys      []*ecdsa.PrivateKey // P-256; empty: derived from the session keys
	AccessToken      bool
}

// A Header is a request header made from a field or claim. Name is in canonical form.
type Header struct{ Name, Source string }

// Assertion is the signed statement for upstreams. Header "" switches it off.
type Assertion struct {
	Header   string // canonical form
	TTL      time.Duration
	Audience string // "": the origin of the upstream
}

// MessageSignature is RFC 9421 signing of forwarded requests. Algorithm "" is off.
type MessageSignature struct {
	Algorithm string // "hmac-sha256", "ed25519" or "ecdsa-p256-sha256"
	Key       []byte // of hmac-sha256
}

// Bearer says which access tokens are credentials.
type Bearer struct {
	Issuers  []string // empty: the provider
	Audience string   // that of the provider when the key is absent
}

// AppToken is the token of our own for the app's pages.
type AppToken struct {
	TTL     time.Duration
	Handoff bool
	Key     []byte // nil: ES256 with the signing keys
}

// ForwardAuth says who may ask us for decisions.
type ForwardAuth struct {
	Trust        []netip.Prefix // loopback is always trusted
	TrustUnix    bool
	SharedSecret string
	Domains      []string // host names in lower case; empty: the host of public_url
	GRPCListen   Addr
}

// Shutdown is how serving ends.
type Shutdown struct{ Delay, Grace time.Duration }

// Limits bound what clients may ask of us.
type Limits struct {
	Header         int // bytes
	HeaderTimeout  time.Duration
	LoginPerMinute int
}
