package oidc

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// A Login holds the values of one login attempt; the caller keeps it sealed in the browser between the two legs.
type Login struct {
	State, Nonce, CodeVerifier string

	Issuer       string        // ours at the start (mix-up defence)
	MaxAge       time.Duration // 0: not asked; otherwise auth_time is required and no older
	ACR          string        // "": not asked; otherwise acr must be one of these, separated by spaces
	Organization string        // "": not asked; otherwise the login must be for this one
	FreshLogin   bool          // prompt=login was sent: auth_time, when present, must not be older than Started
	Invited      bool          `json:",omitempty"` // the request named an organization or invitation, and the provider may not know it
	Started      time.Time
}

// An AuthRequest is what a login may ask for besides; "" is not sent, except that an empty State makes a random one.
type AuthRequest struct {
	State string // at least 128 random bits, base64url

	Connection, LoginHint, ScreenHint, Organization, Invitation, UILocales, Prompt string

	MaxAge time.Duration // sent in whole seconds, at least 1; zero or less asks for none
	ACR    string
}

// Start begins a login: it makes the nonce and the code verifier, and the URL to send the browser to. The error is
// *Unavailable while the provider does not answer at all, and *Unavailable or *Misconfigured while discovery has not succeeded;
// Start asks it, for at most 2 s.
//
// An organization of the request is asked for in place of the configured one, but Finish insists on the configured one too.
func (rp *RelyingParty) Start(ctx context.Context, req AuthRequest) (authorizeURL string, login Login, err error) {
	m, err := rp.reachable(ctx)
	if err != nil {
		return "", Login{}, err
	}
	login = Login{
		State:        req.State,
		Nonce:        oauth2.GenerateVerifier(), // 256 random bits, as RFC 7636 §4.1 recommends for the verifier
		CodeVerifier: oauth2.GenerateVerifier(),
		Issuer:       m.IssuerURL,
		ACR:          req.ACR,
		Organization: req.Organization,
		Invited:      req.Organization != "" || req.Invitation != "",
		Started:      rp.now(),
	}
	if login.State == "" {
		login.State = oauth2.GenerateVerifier()
	}
	if login.Organization == "" {
		login.Organization = rp.cfg.Organization
	}
	login.MaxAge = rp.maxAge
	if asked := max(req.MaxAge.Truncate(time.Second), time.Second); req.MaxAge > 0 && (rp.maxAge == 0 || asked < rp.maxAge) {
		login.MaxAge = asked
	}
	maxAge := ""
	if login.MaxAge > 0 {
		maxAge = strconv.FormatInt(int64(login.MaxAge/time.Second), 10)
	}
	prompt, configured := req.Prompt, rp.cfg.Params["prompt"]
	if prompt == "" || asksForLogin(configured) { // a link cannot take back what the operator insists on
		prompt = configured
	}
	login.FreshLogin = asksForLogin(prompt)

	opts := []oauth2.AuthCodeOption{
		oauth2.SetAuthURLParam("nonce", login.Nonce),
		oauth2.S256ChallengeOption(login.CodeVerifier), // RFC 9700 §2.1.1: always, whatever discovery says
	}
	for name, value := range rp.cfg.Params {
		opts = append(opts, oauth2.SetAuthURLParam(name, value))
	}
	for _, p := range [][2]string{
		{"audience", rp.cfg.Audience}, {"organization", login.Organization}, {"connection", req.Connection}, {"login_hint", req.LoginHint},
		{"screen_hint", req.ScreenHint}, {"invitation", req.Invitation}, {"ui_locales", req.UILocales}, {"prompt", prompt},
		{"max_age", maxAge}, {"acr_values", req.ACR},
	} {
		if p[1] != "" {
			opts = append(opts, oauth2.SetAuthURLParam(p[0], p[1]))
		}
	}
	c := oauth2.Config{ClientID: rp.cfg.ClientID, RedirectURL: rp.cfg.RedirectURL, Scopes: rp.cfg.Scopes, Endpoint: oauth2.Endpoint{AuthURL: m.AuthURL}}
	return c.AuthCodeURL(login.State, opts...), login, nil
}

// Finish ends a login: it checks the callback's query, redeems the code, once, and verifies the ID token. Everything that
// can be checked without the provider is checked before the code is sent anywhere. That the Login belongs to this browser
// and is used once is the caller's.
func (rp *RelyingParty) Finish(ctx context.Context, login Login, response url.Values) (*Tokens, error) {
	m, err := rp.provider(ctx)
	if err != nil {
		return nil, err
	}
	code, err := checkResponse(m, &login, response)
	if err != nil {
		return nil, rp.blame(err, &login)
	}
	resp, err := rp.requestTokens(ctx, m, "token", url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {code},
		"redirect_uri":  {rp.cfg.RedirectURL},
		"code_verifier": {login.CodeVerifier},
	})
	if err != nil {
		return nil, err
	}
	if resp.idToken == "" {
		return nil, invalid("id_token_missing", "the token response has no ID token")
	}
	id, err := rp.readIDToken(m, resp)
	if err != nil {
		return nil, err
	}
	if err := rp.checkLogin(id, &login, resp); err != nil {
		return nil, err
	}
	if err := rp.verifySignature(ctx, m, id); err != nil {
		return nil, err
	}
	all, err := rp.withUserinfo(ctx, m, id.claims, resp.accessToken)
	if err != nil {
		return nil, err
	}
	t, err := rp.tokens(id.claims, all, resp, rp.cfg.Scopes)
	if err != nil {
		return nil, err
	}
	return rp.withPermissions(ctx, t, nil), nil
}

// checkResponse checks the authorization response and returns its code.
func checkResponse(m *metadata, login *Login, response url.Values) (code string, err error) {
	for _, values := range response {
		if len(values) > 1 { // RFC 6749 §3.1, §4.1.2. The name is not ours, so it stays out of the text
			return "", invalid("duplicate_parameter", "a parameter of the authorization response came more than once")
		}
	}
	// RFC 6749 §10.12. An absent state would equal an absent state.
	if login.State == "" || subtle.ConstantTimeCompare([]byte(response.Get("state")), []byte(login.State)) != 1 {
		return "", invalid("state", "the state of the authorization response is not the one of the login")
	}
	if login.Nonce == "" || login.CodeVerifier == "" || login.Started.IsZero() {
		return "", invalid("malformed", "the login is incomplete")
	}
	if login.Issuer != m.IssuerURL { // RFC 9700 §4.4
		return "", invalid("issuer_mismatch", "the login was started with issuer %q, now it is %q", login.Issuer, m.IssuerURL)
	}
	secrets := []string{login.State, login.Nonce, login.CodeVerifier, response.Get("code")}
	// RFC 9207 §2.4, for error responses as well.
	if iss, ok := response["iss"]; ok && iss[0] != m.IssuerURL {
		return "", invalid("issuer_mismatch", "the authorization response is of issuer %q, want %q", clean(iss[0], 200, secrets...), m.IssuerURL)
	} else if !ok && m.PromisesIss {
		return "", invalid("issuer_mismatch", "the authorization response names no issuer although the provider promises it")
	}
	if response.Has("error") { // with a code beside it too
		return "", &Denied{clean(response.Get("error"), maxErrorCode, secrets...), clean(response.Get("error_description"), maxDescription, secrets...)}
	}
	code = response.Get("code")
	if code == "" {
		return "", invalid("missing_code", "the authorization response has neither a code nor an error")
	}
	if len(code) > 8<<10 || !isVisible(code) { // RFC 6749 appendix A.11, which allows spaces that nobody uses
		return "", invalid("malformed", "the code is too long or has characters that a code has not")
	}
	return code, nil
}

// blame tells errors of the authorization endpoint that a setting causes, and that no user can do anything about, from those
// about the user (RFC 6749 §4.1.2.1).
func (rp *RelyingParty) blame(err error, login *Login) error {
	denied, ok := errors.AsType[*Denied](err)
	if !ok {
		return err
	}
	wrong := &Misconfigured{Reason: "authorization", Detail: denied.Error(),
		Hint: "check provider.scopes, audience, organization, connections and params against what this client may ask the provider for"}
	switch denied.Code {
	case "invalid_scope", "unauthorized_client", "unsupported_response_type":
		return wrong
	case "invalid_request":
		if login.Invited { // by a link that anybody could have made
			return err
		}
		if strings.HasPrefix(denied.Description, "You may have pressed the back button") { // Auth0, of its own login page
			return &Invalid{Reason: "back_button", Detail: denied.Error()}
		}
		return wrong
	case "access_denied":
		if rp.cfg.Audience != "" && strings.HasPrefix(denied.Description, "Service not found") { // Auth0
			wrong.Hint = "provider.audience is no API of this tenant"
			return wrong
		}
	}
	return err
}

func asksForLogin(prompt string) bool { return slices.Contains(strings.Fields(prompt), "login") }

// isVisible reports whether s has only visible ASCII characters.
func isVisible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
