package devprovider

import (
	"maps"
	"net/http"
	"net/url"
	"time"
)

// Faults are the ways in which the provider can misbehave. The zero value is a provider in good health.
// Hooks run without a lock and may call the Provider; they may run concurrently.
//
// Endpoints are called discovery, jwks, authorize, token, userinfo, logout and revoke; the pages for people are called page.
type Faults struct {
	SignInAs string // username: /authorize shows no pages and signs this user in

	Down  bool                     // connections are cut without an answer
	Slow  map[string]time.Duration // by endpoint: wait before every answer
	Delay time.Duration            // wait before every answer of the token endpoint
	Fail  map[string]int           // by endpoint: answer with this status and some HTML
	Raw   map[string]string        // by endpoint: answer with 200 and this body, as HTML
	// Intercept may answer a request by itself and then reports true: for what has no field of its own, such as an
	// answer that trickles, is compressed, redirects or is cut short. The request's form is parsed.
	Intercept func(endpoint string, w http.ResponseWriter, r *http.Request) bool
	Clock     time.Duration // added to the provider's idea of now, in tokens and in the Date header

	Deny, DenyDescription string // error and error_description of the next logins, e.g. access_denied
	TokenError            Error  // answer to every token request
	RefreshError          Error  // answer to every token request with grant_type=refresh_token

	Discovery       func(document map[string]any)                // changes the discovery document
	JWKS            func(keys []map[string]any) []map[string]any // changes the published keys
	Callback        func(answer url.Values)                      // changes the parameters sent to the redirect URI, errors included
	IDToken         func(t *Token)                               // changes ID tokens before they are signed
	RefreshedID     func(t *Token)                               // changes refreshed ID tokens, after IDToken
	SignedID        func(token string) string                    // changes ID tokens that are signed
	AccessToken     func(t *Token)                               // changes access tokens for an API before they are signed
	LogoutToken     func(t *Token)                               // changes the logout tokens that are sent
	TokenResponse   func(answer map[string]any)                  // changes the token endpoint's successful answer, refreshes included
	RefreshResponse func(answer map[string]any)                  // changes the successful answer to a refresh, after TokenResponse
	UserInfo        func(claims map[string]any)                  // changes the answer of the userinfo endpoint
	IgnorePKCE      bool                                         // every code verifier will do, and none as well
	NoRefresh       bool                                         // never give refresh tokens
	NoEndSession    bool                                         // do not advertise end_session_endpoint, as old tenants
	PromiseIss      bool                                         // advertise and send iss in authorization responses (RFC 9207)
	AccessLife      time.Duration                                // of access tokens instead of the API's; negative is expired
	NoBackchannel   bool                                         // sessions end without a word to the clients
}

// An Error is an answer of the token endpoint (RFC 6749 §5.2). The zero value means none.
// With status 429 it comes with Auth0's X-RateLimit headers.
type Error struct {
	Status            int // zero means 403
	Code, Description string
}

// Set changes the faults: each request is answered with those that were set when it came. f must not call the Provider.
// Setting *f to Faults{} heals it.
func (p *Provider) Set(f func(*Faults)) {
	p.faultsMu.Lock()
	defer p.faultsMu.Unlock()
	f(&p.faults)
}

// snapshot is a copy of the faults; the maps are copied because Set may change them in place.
func (p *Provider) snapshot() Faults {
	p.faultsMu.Lock()
	defer p.faultsMu.Unlock()
	f := p.faults
	f.Slow, f.Fail, f.Raw = maps.Clone(f.Slow), maps.Clone(f.Fail), maps.Clone(f.Raw)
	return f
}
