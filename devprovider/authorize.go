package devprovider

import (
	"cmp"
	"crypto/subtle"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An authRequest is an authorization request whose client and redirect URI are in order.
type authRequest struct {
	client       Client
	redirectURI  string
	responseMode string // query or fragment
	state        string

	nonce             string
	scopes            []string // those that can be granted
	asked             string   // the scope parameter
	api               *API     // nil: opaque access tokens
	organization      Organization
	connection        string // "": the user chooses
	challenge, method string // PKCE
	prompt            []string
	maxAge            time.Duration // negative: any
	signup            bool
	invited           bool // any invitation is believed
	loginHint         string
	acr               string
	wantsAuthTime     bool // the ID token has auth_time
}

// A session is a browser's: the single sign-on session.
type session struct {
	sid, username string
	connection    string
	authTime      time.Time // of the last proof of who the user is
	created       time.Time
	clients       map[string]bool // that have got a code in it
}

// A transaction is a login in progress.
type transaction struct {
	request authRequest
	csrf    string
	browser string // the value of its cookie
	session string // cookie of the session in which the user proved who she is; "" before
	done    bool   // kept to tell a repeated page from an unknown one
}

// A code is an authorization code.
type code struct {
	grant *grant
	used  bool
}

// The cookies. On a loopback address they are shared with every other port, so their names are Auth0's and nobody else's.
const (
	sessionCookie = "auth0"
	browserCookie = "did"
)

// authorize is the authorization endpoint (RFC 6749 §3.1). What is wrong with the client or the redirect URI is said here and
// never by a redirect; the rest goes back to the client.
func (p *Provider) authorize(x *exchange) {
	q := x.r.Form
	for _, name := range []string{"client_id", "redirect_uri"} {
		if len(q[name]) > 1 {
			x.fail(http.StatusForbidden, "Invalid request", "The parameter "+name+" is there more than once.")
			return
		}
	}
	client, found := p.client(q.Get("client_id"))
	if !found {
		x.fail(http.StatusForbidden, "Unknown client", "There is no client with the client_id of this request.")
		return
	}
	// RFC 9700 §4.1.3: compared byte for byte.
	if redirect := q.Get("redirect_uri"); !isWebURL(redirect) || len(client.Callbacks) > 0 && !slices.Contains(client.Callbacks, redirect) {
		x.fail(http.StatusForbidden, "Callback URL mismatch", "The provided redirect_uri is not in the list of allowed callback URLs.")
		return
	}
	a, refusal := p.parse(client, q)
	if x.f.Deny != "" {
		refusal = &oauthError{x.f.Deny, x.f.DenyDescription}
	}
	if refusal != nil {
		p.answer(x, &a, refusal.values())
		return
	}
	cookie, s := p.session(x)
	if name := x.f.SignInAs; name != "" {
		user, known := p.user(name)
		switch {
		case !known:
			x.fail(http.StatusInternalServerError, "Nobody of that name", "SignInAs names a user that does not exist.")
			return
		case slices.Contains(a.prompt, "none") && (s == nil || !a.accepts(s, x.now) || s.username != name):
			p.answer(x, &a, loginRequired.values())
			return
		case s == nil || !a.accepts(s, x.now) || s.username != name:
			cookie = p.signIn(x, user)
		}
		p.finish(x, &a, cookie)
		return
	}
	switch {
	case s != nil && a.accepts(s, x.now):
		p.finish(x, &a, cookie)
	case slices.Contains(a.prompt, "none"):
		p.answer(x, &a, loginRequired.values())
	default:
		p.begin(x, a)
	}
}

// accepts reports whether the user need not prove again who she is. A screen hint alone does not change that, as at Auth0.
func (a *authRequest) accepts(s *session, now time.Time) bool {
	return !slices.Contains(a.prompt, "login") && !slices.Contains(a.prompt, "select_account") &&
		(a.maxAge < 0 || a.maxAge > 0 && now.Sub(s.authTime) <= a.maxAge) &&
		(a.connection == "" || a.connection == s.connection)
}

// An oauthError goes back to the client (RFC 6749 §4.1.2.1).
type oauthError struct{ code, description string }

var loginRequired = &oauthError{"login_required", "Login required"}

func (e *oauthError) values() url.Values {
	v := url.Values{"error": {e.code}}
	if e.description != "" {
		v.Set("error_description", e.description)
	}
	return v
}

// parse reads the rest of an authorization request. With an error, enough of it is there to answer it.
func (p *Provider) parse(client Client, q url.Values) (authRequest, *oauthError) {
	a := authRequest{
		client: client, redirectURI: q.Get("redirect_uri"), responseMode: cmp.Or(q.Get("response_mode"), "query"), state: q.Get("state"),
		nonce: q.Get("nonce"), asked: q.Get("scope"), connection: q.Get("connection"),
		challenge: q.Get("code_challenge"), method: cmp.Or(q.Get("code_challenge_method"), "plain"), // RFC 7636 §4.3
		prompt: strings.Fields(q.Get("prompt")), maxAge: -1, signup: q.Get("screen_hint") == "signup", invited: q.Get("invitation") != "", loginHint: q.Get("login_hint"),
	}
	invalid := func(description string) (authRequest, *oauthError) {
		return a, &oauthError{"invalid_request", description}
	}
	if a.responseMode != "query" && a.responseMode != "fragment" {
		a.responseMode = "query"
		return invalid("response_mode is not supported")
	}
	if name := duplicated(q); name != "" {
		return invalid("parameter " + name + " is there more than once")
	}
	if q.Get("response_type") != "code" {
		return a, &oauthError{"unsupported_response_type", "response_type must be code"}
	}
	if a.method != "S256" && a.method != "plain" {
		return invalid("code_challenge_method must be S256 or plain")
	}
	if a.method == "S256" && a.challenge == "" && q.Has("code_challenge_method") {
		return invalid("code_challenge is missing")
	}
	for _, word := range a.prompt {
		if !slices.Contains([]string{"none", "login", "consent", "select_account"}, word) || word == "none" && len(a.prompt) > 1 {
			return invalid("prompt is not valid") // OIDC Core §3.1.2.1
		}
	}
	if q.Has("max_age") {
		seconds, err := strconv.ParseUint(q.Get("max_age"), 10, 31)
		if err != nil {
			return invalid("max_age must be a number of seconds")
		}
		a.maxAge = time.Duration(seconds) * time.Second
	}
	a.wantsAuthTime = a.maxAge >= 0 || slices.Contains(a.prompt, "login")
	for _, acr := range strings.Fields(q.Get("acr_values")) {
		if acr == multiFactor {
			a.acr = acr
		}
	}
	if !p.knowsConnection(a.connection) {
		return invalid("the connection was not found")
	}
	if refusal := p.parseOrganization(&a, q.Get("organization")); refusal != nil {
		return a, refusal
	}
	api, refusal := p.api(cmp.Or(q.Get("audience"), p.opts.DefaultAudience))
	if refusal != nil {
		return a, refusal
	}
	a.api = api
	a.scopes = grantable(strings.Fields(a.asked), api)
	return a, nil
}

func (p *Provider) knowsConnection(name string) bool {
	if slices.Contains([]string{"", Database, Google, GitHub}, name) {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.users, func(u User) bool { return u.Connection == name })
}

func (p *Provider) parseOrganization(a *authRequest, wanted string) *oauthError {
	usage := a.client.OrganizationUsage
	switch {
	case wanted == "" && usage == "require":
		return &oauthError{"invalid_request", "parameter organization is required for this client"}
	case wanted == "":
		return nil
	case usage == "deny":
		return &oauthError{"invalid_request", "parameter organization is not allowed for this client"}
	}
	for _, o := range p.opts.Organizations {
		if o.ID == wanted || strings.EqualFold(o.Name, wanted) {
			a.organization = o
			return nil
		}
	}
	return &oauthError{"invalid_request", "parameter organization is invalid"}
}

// api finds the API of an audience: none for "" and the userinfo endpoint.
func (p *Provider) api(audience string) (*API, *oauthError) {
	if audience == "" || audience == p.opts.Issuer+"userinfo" {
		return nil, nil
	}
	for i, api := range p.opts.APIs {
		if api.Identifier == audience {
			return &p.opts.APIs[i], nil
		}
	}
	return nil, &oauthError{"access_denied", "Service not found: " + audience}
}

// grantable are the scopes that can be granted of those asked for; the others are dropped silently, as Auth0 does.
func grantable(asked []string, api *API) []string {
	var out []string
	for _, scope := range asked {
		switch {
		case slices.Contains(out, scope):
		case scope == "offline_access" && api != nil && !api.Offline:
		case slices.Contains(standardScopes, scope), api != nil && slices.Contains(api.Scopes, scope):
			out = append(out, scope)
		}
	}
	return out
}

// begin starts a login: it remembers the request and shows a page.
func (p *Provider) begin(x *exchange, a authRequest) {
	browser := random(16)
	if c, err := x.r.Cookie(browserCookie); err == nil && len(c.Value) == len(browser) {
		browser = c.Value
	} else {
		p.setCookie(x, browserCookie, browser, sessionMax)
	}
	id, t := random(24), &transaction{request: a, csrf: random(24), browser: browser}
	p.mu.Lock()
	var same []string
	for key, other := range p.transactions.all {
		if other.browser == browser {
			same = append(same, key)
		}
	}
	if len(same) >= maxPerBrowser {
		p.transactions.delete(same[0])
	}
	p.transactions.put(id, t, x.now, x.now.Add(transactionLife))
	p.mu.Unlock()

	page := "u/login"
	switch {
	case a.connection != "" && a.connection != Database:
		page = "u/social"
	case a.signup:
		page = "u/signup"
	}
	x.redirect(http.StatusFound, p.opts.Issuer+page+"?state="+id)
}

// transaction finds the login in progress of this browser. When there is none it has answered with a way out and returns nil.
// Looking at a form is possible for clients that keep no cookies; sending it is not.
func (p *Provider) transaction(x *exchange, look bool) (string, *transaction) {
	id := x.r.Form.Get("state")
	c, err := x.r.Cookie(browserCookie)
	p.mu.Lock()
	t, found := p.transactions.get(id, x.now)
	usable := found && !t.done && (err == nil && equal(c.Value, t.browser) || err != nil && look)
	p.mu.Unlock()
	switch {
	case usable:
		return id, t
	case found && t.request.client.InitiateLoginURI != "":
		to := t.request.client.InitiateLoginURI
		query := url.Values{"iss": {p.opts.Issuer}}
		if t.request.organization.ID != "" {
			query.Set("organization", t.request.organization.ID)
		}
		x.redirect(http.StatusFound, withQuery(to, "?", query))
	default:
		x.fail(http.StatusBadRequest, "Start again", "You may have pressed the back button, refreshed during login, opened too many login dialogs, or "+
			"there is some issue with cookies, since we couldn't find your session. Go back to the application and log in from there.")
	}
	return "", nil
}

// proved goes on after the user proved who she is: to where the login is completed.
func (p *Provider) proved(x *exchange, id string, u User) {
	cookie := p.signIn(x, u)
	p.mu.Lock()
	if t, found := p.transactions.get(id, x.now); found {
		t.session = cookie
	}
	p.mu.Unlock()
	x.redirect(http.StatusSeeOther, p.opts.Issuer+"authorize/resume?state="+id)
}

// resume completes a login.
func (p *Provider) resume(x *exchange) {
	id, t := p.transaction(x, false)
	if t == nil {
		return
	}
	p.mu.Lock()
	cookie, ready := t.session, t.session != "" && !t.done
	t.done = t.done || ready
	p.mu.Unlock()
	if !ready {
		x.redirect(http.StatusFound, p.opts.Issuer+"u/login?state="+id)
		return
	}
	p.finish(x, &t.request, cookie)
}

// deny completes a login without the user's agreement. The session at the provider stays, as at Auth0.
func (p *Provider) deny(x *exchange, t *transaction) {
	p.mu.Lock()
	t.done = true
	p.mu.Unlock()
	p.answer(x, &t.request, (&oauthError{"access_denied", "User did not authorize the request"}).values())
}

// finish answers the request of a user who proved who she is: with a code, unless she may not have one.
func (p *Provider) finish(x *exchange, a *authRequest, cookie string) {
	p.mu.Lock()
	s, live := p.sessions.get(cookie, x.now)
	p.mu.Unlock()
	if !live { // ended in the meantime
		p.answer(x, a, loginRequired.values())
		return
	}
	u, known := p.user(s.username)
	switch {
	case !known || u.Blocked:
		p.answer(x, a, (&oauthError{"unauthorized", "user is blocked"}).values())
		return
	case a.organization.ID != "" && !slices.Contains(u.Organizations, a.organization.ID):
		p.answer(x, a, (&oauthError{"access_denied", "user " + u.Subject + " is not part of the " + a.organization.ID + " organization"}).values())
		return
	}
	g := &grant{request: a, username: u.Username}
	value := random(32)
	p.mu.Lock()
	g.sid, g.authTime = s.sid, s.authTime
	s.clients[a.client.ID] = true
	p.lastSID = s.sid
	p.codes.put(value, &code{grant: g}, x.now, x.now.Add(codeLife))
	p.mu.Unlock()
	p.answer(x, a, url.Values{"code": {value}})
}

// answer redirects back to the client.
func (p *Provider) answer(x *exchange, a *authRequest, values url.Values) {
	if a.state != "" {
		values.Set("state", a.state)
	}
	if x.f.PromiseIss {
		values.Set("iss", p.opts.Issuer) // RFC 9207 §2: in errors, too
	}
	if x.f.Callback != nil {
		x.f.Callback(values)
	}
	status := http.StatusFound
	if x.r.Method == http.MethodPost {
		status = http.StatusSeeOther // RFC 9700 §4.12: never carry a form along
	}
	separator := "?"
	if a.responseMode == "fragment" {
		separator = "#"
	}
	x.redirect(status, withQuery(a.redirectURI, separator, values))
}

// withQuery appends parameters to a URL, whose own query stays as it is (RFC 6749 §3.1.2). Spaces are %20, as Auth0 writes them.
func withQuery(to, separator string, values url.Values) string {
	query := strings.ReplaceAll(values.Encode(), "+", "%20")
	base, fragment, _ := strings.Cut(to, "#")
	switch {
	case separator == "#" || query == "":
	case strings.Contains(base, "?"):
		separator = "&"
	}
	if separator == "#" {
		return base + "#" + query
	}
	if query != "" {
		base += separator + query
	}
	if fragment != "" {
		base += "#" + fragment
	}
	return base
}

// redirect does what http.Redirect does, except for touching the URL.
func (x *exchange) redirect(status int, to string) {
	x.w.Header().Set("Location", to)
	x.w.Header().Set("Referrer-Policy", "no-referrer")
	x.w.WriteHeader(status)
}

// isWebURL reports whether a browser could be sent there.
func isWebURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && !strings.Contains(s, "#")
}

// session finds the browser's session and the value of its cookie, and keeps it alive. Without one it is "" and nil.
func (p *Provider) session(x *exchange) (string, *session) {
	c, err := x.r.Cookie(sessionCookie)
	if err != nil {
		return "", nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s, found := p.sessions.get(c.Value, x.now)
	if !found {
		return "", nil
	}
	p.keep(c.Value, s, x.now)
	return c.Value, s.copy()
}

func (s *session) copy() *session { c := *s; return &c }

// keep extends a session by its idle time within its longest life. p.mu is held.
func (p *Provider) keep(cookie string, s *session, now time.Time) {
	expires := now.Add(sessionIdle)
	if end := s.created.Add(sessionMax); end.Before(expires) {
		expires = end
	}
	p.sessions.put(cookie, s, now, expires)
}

// signIn makes the browser's session one of this user, who has just proved who she is, under a new cookie, which it returns.
// A session of the same user goes on with its sid; one of another user ends.
func (p *Provider) signIn(x *exchange, u User) string {
	old, _ := p.session(x)
	cookie := random(32)
	p.mu.Lock()
	s, found := p.sessions.get(old, x.now)
	p.sessions.delete(old)
	if !found || s.username != u.Username {
		s = &session{sid: random(24), username: u.Username, created: x.now, clients: map[string]bool{}}
	}
	s.authTime, s.connection = x.now, u.Connection
	p.keep(cookie, s, x.now)
	p.mu.Unlock()
	p.setCookie(x, sessionCookie, cookie, sessionIdle)
	return cookie
}

// setCookie sets a cookie, or deletes it when life is negative.
func (p *Provider) setCookie(x *exchange, name, value string, life time.Duration) {
	c := &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: int(life / time.Second), HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if p.issuer.Scheme == "https" {
		c.Secure, c.SameSite = true, http.SameSiteNoneMode
	}
	http.SetCookie(x.w, c)
}

// equal compares secrets in constant time. Nothing equals an empty one.
func equal(a, b string) bool {
	x, y := digest(a), digest(b)
	return a != "" && subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
