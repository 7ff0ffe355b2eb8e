package proxy

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"authproxy/oidc"
	"authproxy/proxy/pages"
)

const (
	loginLife  = time.Hour // a login may take so long; Auth0's own transactions live an hour as well
	maxLogins  = 5         // login cookies of one browser
	maxExpired = 20        // of them that an answer deletes
	purpose    = "login"
	purposeWay = "return_to"
)

// An attempt is a login under way. It is sealed into a cookie of its own, so that several tabs do not disturb each other.
type attempt struct {
	Login    oidc.Login `json:"l"`
	ReturnTo string     `json:"r"`
}

// A state binds a callback to a login cookie: a random text of 256 bits, of which the first eight characters name the cookie,
// and the way back, sealed, for when the cookie is lost. Its first character says whether this login was already a second try.
type state string

const (
	firstTry  = "a"
	secondTry = "b"
	stateLen  = 1 + 43
)

func (p *Proxy) newState(try, returnTo string) string {
	b := make([]byte, 32)
	rand.Read(b) // never fails (crypto/rand)
	s := try + base64.RawURLEncoding.EncodeToString(b)
	if returnTo != "/" && len(returnTo) <= 200 {
		if sealed, err := p.opts.Sealer.Seal(purposeWay, p.cookies.login, []byte(returnTo)); err == nil {
			s += "." + sealed
		}
	}
	return s
}

// cookie is the name of the login cookie of the state, or "" when it cannot be one of ours.
func (s state) cookie(names cookieNames) string {
	random, _, _ := strings.Cut(string(s), ".")
	if len(random) != stateLen || strings.Trim(random, base64urlAlphabet) != "" {
		return ""
	}
	return names.login + random[1:9]
}

const base64urlAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// returnToOf is the way back that was sealed into a state, or "/".
func (p *Proxy) returnToOf(s string) string {
	if _, sealed, ok := strings.Cut(s, "."); ok {
		if to, _, ok := p.opts.Sealer.Open(purposeWay, p.cookies.login, sealed); ok {
			return p.returnTo(string(to))
		}
	}
	return "/"
}

// startLogin sends the browser to the provider, with a new login cookie.
func (p *Proxy) startLogin(x *exchange, req oidc.AuthRequest, returnTo string) error {
	return p.startLoginAs(x, firstTry, req, returnTo)
}

func (p *Proxy) startLoginAs(x *exchange, try string, req oidc.AuthRequest, returnTo string) error {
	x.login = LoginFailed // until it has started
	if wait := p.limiter.take(x.client, p.now()); wait > 0 {
		return &failure{page: pages.TooManyLogins(p.loginURL(returnTo, "")), code: "too_many_logins", reason: "login_per_minute", retry: wait}
	}
	req.State = p.newState(try, returnTo)
	to, login, err := p.opts.Provider.Start(x.r.Context(), req)
	if err != nil {
		return p.loginFailure(x, err, returnTo)
	}
	name := state(req.State).cookie(p.cookies)
	cookie, err := p.sealAttempt(name, attempt{login, returnTo})
	if err != nil {
		return err
	}
	p.makeRoom(x)
	x.setCookie(cookie)
	if x.decision == "" {
		x.decision = decisionOwn
	}
	x.login = LoginStarted
	return &redirect{http.StatusFound, to, "login started"}
}

// sealAttempt makes the login's cookie. A way back that makes it too large for browsers is cut to its path, or to "/".
func (p *Proxy) sealAttempt(name string, a attempt) (*http.Cookie, error) {
	path, _, _ := strings.Cut(a.ReturnTo, "?")
	for _, to := range []string{a.ReturnTo, path, "/"} {
		a.ReturnTo = to
		var text bytes.Buffer
		e := json.NewEncoder(&text)
		e.SetEscapeHTML(false) // an & would take six bytes
		if err := e.Encode(a); err != nil {
			return nil, err
		}
		value, err := p.opts.Sealer.Seal(purpose, name, text.Bytes())
		if err != nil {
			return nil, err
		}
		if c := p.loginCookie(name, value); len(c.String()) <= maxCookie {
			return c, nil
		}
	}
	return nil, errors.New("a login does not fit into its cookie")
}

// maxCookie is what browsers keep of a cookie with its attributes (RFC 6265 §6.1).
const maxCookie = 4096

// loginCookie is Lax whatever the session cookie is: the provider's redirect must bring it along.
func (p *Proxy) loginCookie(name, value string) *http.Cookie {
	c := p.opts.Sessions.Cookie()
	c.Name = name
	if c.SameSite == http.SameSiteStrictMode {
		c.SameSite = http.SameSiteLaxMode
	}
	return c.With(value, loginLife)
}

func (p *Proxy) expiredLoginCookie(name string) *http.Cookie {
	c := p.loginCookie(name, "")
	c.MaxAge = -1
	return c
}

// makeRoom expires the oldest login cookies of the browser until there is room for one more.
func (p *Proxy) makeRoom(x *exchange) {
	type old struct {
		name    string
		started time.Time // zero when it cannot be opened
	}
	var have []old
	for _, c := range x.r.Cookies() {
		if !strings.HasPrefix(c.Name, p.cookies.login) || slices.ContainsFunc(have, func(o old) bool { return o.name == c.Name }) {
			continue
		}
		o := old{name: c.Name}
		if a, ok := p.openAttempt(c.Name, c.Value); ok {
			o.started = a.Login.Started
		}
		have = append(have, o)
	}
	slices.SortFunc(have, func(a, b old) int { return a.started.Compare(b.started) })
	have = have[max(0, len(have)-maxExpired):] // the answer is bounded, whatever the browser sends
	for i := 0; len(have)-i >= maxLogins; i++ {
		x.setCookie(p.expiredLoginCookie(have[i].name))
	}
}

func (p *Proxy) openAttempt(name, value string) (a attempt, ok bool) {
	text, _, ok := p.opts.Sealer.Open(purpose, name, value)
	if !ok || json.Unmarshal(text, &a) != nil {
		return attempt{}, false
	}
	age := p.now().Sub(a.Login.Started)
	return a, age < loginLife && age > -loginLife
}

// takeAttempt finds the login that a callback's state belongs to, in this browser's cookies, and lets it be used once, here or
// at another replica. Its cookie is expired in every outcome. The error means that the store could not say whether it was.
func (p *Proxy) takeAttempt(x *exchange, s string) (a attempt, ok bool, err error) {
	name := state(s).cookie(p.cookies)
	if name == "" {
		return attempt{}, false, nil
	}
	values := cookieValues(x.r.Header, name)
	if len(values) == 0 {
		return attempt{}, false, nil
	}
	x.setCookie(p.expiredLoginCookie(name))
	if len(values) > 1 {
		return attempt{}, false, nil
	}
	a, ok = p.openAttempt(name, values[0])
	if !ok || subtle.ConstantTimeCompare([]byte(a.Login.State), []byte(s)) != 1 || !p.consumed.add(sha256.Sum256([]byte(s)), p.now(), loginLife) {
		return attempt{}, false, nil
	}
	ok, err = p.opts.Sessions.Once(x.r.Context(), "state:"+s, loginLife)
	return a, ok, err
}

// login is the endpoint that starts a login. Of its query, what the contract names is used, each at most once, and
// everything else is ignored.
func (p *Proxy) login(x *exchange) error { return p.loginWith(x, oidc.AuthRequest{}) }

// signup asks the provider for its sign-up page: with prompt=login it comes even if somebody is signed in there.
func (p *Proxy) signup(x *exchange) error {
	return p.loginWith(x, oidc.AuthRequest{Prompt: "login", ScreenHint: "signup"})
}

func (p *Proxy) loginWith(x *exchange, req oidc.AuthRequest) error {
	if prefetch(x.r.Header) { // nobody may ever come back from that login, and its cookie would push out another's
		return p.notSignedIn()
	}
	if len(cookieValues(x.r.Header, p.cookies.session)) > 1 { // the login would give a third, and lead back to where two are too many
		return p.cookieTwice(x)
	}
	q, err := onceQuery(x.target.query, "return_to", "connection", "login_hint", "screen_hint", "organization", "invitation", "ui_locales", "prompt", "iss", "target_link_uri")
	if err != nil {
		return p.badRequest(err)
	}
	if mode := x.r.Header.Get("Sec-Fetch-Mode"); mode != "" && mode != "navigate" { // an image or script, which cannot log in but uses up the limit
		return p.badRequest(errors.New("a login that no person navigates to"))
	}
	if iss := q["iss"]; iss != "" && iss != p.opts.Provider.Issuer() { // OIDC Core §4
		return &failure{page: pages.BadRequest(p.home()), code: "bad_request", reason: "a login for another issuer"}
	}
	if c := q["connection"]; slices.Contains(p.opts.Connections, c) {
		req.Connection = c
	}
	if q["screen_hint"] == "signup" {
		req.ScreenHint = "signup"
	}
	if v := q["prompt"]; v == "login" || v == "select_account" {
		req.Prompt = v
	}
	req.LoginHint, req.Organization, req.Invitation, req.UILocales = q["login_hint"], q["organization"], q["invitation"], q["ui_locales"]
	to := q["return_to"]
	if to == "" {
		to = q["target_link_uri"]
	}
	to = p.returnTo(to)
	for _, rt := range p.routesTo(to) {
		rt.asksFor(&req)
	}
	return p.startLogin(x, req, to)
}

// maxParameter bounds what we pass on to the provider.
const maxParameter = 512

// onceQuery reads the named parameters of a raw query. Each may come once; others are ignored, and so is what cannot be
// decoded.
func onceQuery(raw string, names ...string) (map[string]string, error) {
	values := map[string]string{}
	for pair := range strings.SplitSeq(raw, "&") {
		k, v, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(k)
		if err != nil || !slices.Contains(names, name) {
			continue
		}
		if _, ok := values[name]; ok {
			return nil, errors.New("the parameter " + name + " came twice")
		}
		value, err := url.QueryUnescape(v)
		if err != nil {
			return nil, errors.New("the parameter " + name + " has an invalid escape")
		}
		if len(value) > maxParameter && name != "return_to" && name != "target_link_uri" && name != "invitation" {
			return nil, errors.New("the parameter " + name + " is too long")
		}
		values[name] = value
	}
	return values, nil
}

// addressKey groups the addresses that one client can easily have: an IPv6 /64 counts as one.
func addressKey(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	key, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return key
}
