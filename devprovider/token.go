package devprovider

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// multiFactor is the acr of a login with a second factor, as Auth0 names it.
const multiFactor = "http://schemas.openid.net/pape/policies/2007/06/multi-factor"

// A grant is what came of one login for one client. All its tokens die with it.
type grant struct {
	request  *authRequest
	username string
	sid      string
	authTime time.Time

	// Guarded by Provider.mu.
	dead       bool
	generation int       // of the refresh token that is to be used next
	rotated    time.Time // when that came to be so
}

// An accessToken can be used at the userinfo endpoint.
type accessToken struct {
	grant  *grant
	scopes []string
}

// A refreshToken belongs to the family of its grant.
type refreshToken struct {
	grant      *grant
	generation int
	expires    time.Time // inherited, not extended by rotation
}

// The answers of the token endpoint that Auth0 gives with these texts.
var (
	errClient       = Error{401, "access_denied", "Unauthorized"}
	errCode         = Error{403, "invalid_grant", "Invalid authorization code"}
	errVerifier     = Error{403, "invalid_grant", "Failed to verify code verifier"}
	errRefreshToken = Error{403, "invalid_grant", "Unknown or invalid refresh token."}
)

func (x *exchange) refuse(e Error) {
	body := map[string]any{"error": e.Code}
	if e.Description != "" {
		body["error_description"] = e.Description
	}
	if e.Status == http.StatusTooManyRequests {
		x.w.Header().Set("X-RateLimit-Limit", "30")
		x.w.Header().Set("X-RateLimit-Remaining", "0")
		x.w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(x.now.Add(10*time.Second).Unix(), 10)) // Unix seconds
	}
	x.json(cmp.Or(e.Status, 403), body)
}

// token is the token endpoint (RFC 6749 §3.2).
func (p *Provider) token(x *exchange) {
	form := x.r.PostForm
	if name := duplicated(form); name != "" {
		x.refuse(Error{400, "invalid_request", "parameter " + name + " is there more than once"})
		return
	}
	kind := form.Get("grant_type")
	switch {
	case x.f.TokenError != Error{}:
		x.refuse(x.f.TokenError)
		return
	case kind == "refresh_token" && x.f.RefreshError != Error{}:
		x.refuse(x.f.RefreshError)
		return
	}
	client, ok := p.authenticate(x)
	if !ok {
		x.refuse(errClient)
		return
	}
	switch kind {
	case "authorization_code":
		p.redeem(x, client)
	case "refresh_token":
		p.renew(x, client)
	case "client_credentials":
		p.machine(x, client)
	case "":
		x.refuse(Error{400, "invalid_request", "Missing required parameter: grant_type"})
	default:
		x.refuse(Error{403, "unauthorized_client", "Grant type '" + kind + "' not allowed for the client."})
	}
}

// authenticate finds the client that proves who it is, in exactly one way and in the one that it is registered for.
func (p *Provider) authenticate(x *exchange) (Client, bool) {
	form := x.r.PostForm
	id, secret, basic := x.r.BasicAuth()
	if basic { // RFC 6749 §2.3.1: both are form-encoded first
		var errID, errSecret error
		id, errID = url.QueryUnescape(id)
		secret, errSecret = url.QueryUnescape(secret)
		if errID != nil || errSecret != nil || form.Has("client_id") && form.Get("client_id") != id {
			return Client{}, false
		}
	}
	post, assertion := form.Has("client_secret"), form.Has("client_assertion")
	method := ""
	switch {
	case basic && !post && !assertion:
		method = "basic"
	case post && !basic && !assertion:
		method, id, secret = "post", form.Get("client_id"), form.Get("client_secret")
	case assertion && !basic && !post:
		method, id = "private_key_jwt", form.Get("client_id")
		if id == "" {
			_, claims, _, _, _ := openJWT(form.Get("client_assertion"))
			id, _ = claims["sub"].(string)
		}
	}
	client, found := p.client(id)
	if !found || method == "" || client.AuthMethod != "" && client.AuthMethod != method {
		return Client{}, false
	}
	if method == "private_key_jwt" {
		return client, p.asserted(x, client)
	}
	return client, equal(client.Secret, secret)
}

// asserted checks a client assertion (RFC 7523 §3) as strictly as Auth0.
func (p *Provider) asserted(x *exchange, client Client) bool {
	form := x.r.PostForm
	jwt := form.Get("client_assertion")
	if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || len(jwt) > 2048 || client.PublicKey == nil {
		return false
	}
	header, claims, input, sig, err := openJWT(jwt)
	alg, _ := header["alg"].(string)
	if err != nil || !verified(alg, client.PublicKey, input, sig) {
		return false
	}
	audience, _ := claims["aud"].(string) // one string, not a list
	jti, _ := claims["jti"].(string)
	seconds, _ := claims["exp"].(float64)
	expires := time.Unix(int64(seconds), 0)
	if claims["iss"] != client.ID || claims["sub"] != client.ID || audience != p.opts.Issuer && audience != p.opts.Issuer+"oauth/token" || jti == "" ||
		!x.now.Before(expires) || expires.Sub(x.now) > maxAssertionLife {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := client.ID + " " + jti
	if _, used := p.assertions.get(key, x.now); used {
		return false
	}
	p.assertions.put(key, struct{}{}, x.now, expires)
	return true
}

// redeem answers grant_type=authorization_code.
func (p *Provider) redeem(x *exchange, client Client) {
	form := x.r.PostForm
	p.mu.Lock()
	c, found := p.codes.get(form.Get("code"), x.now)
	mine := found && c.grant.request.client.ID == client.ID
	replayed := mine && c.used
	if mine {
		c.used = true // RFC 6749 §4.1.2: once, whatever comes of it
	}
	if replayed {
		c.grant.dead = true // and what it gave is revoked
	}
	p.mu.Unlock()
	if !mine || replayed {
		x.refuse(errCode)
		return
	}
	a := c.grant.request
	if form.Get("redirect_uri") != a.redirectURI {
		x.refuse(errCode)
		return
	}
	if !x.f.IgnorePKCE && !a.proves(form.Get("code_verifier")) {
		x.refuse(errVerifier)
		return
	}
	answer, refusal := p.tokens(x, c.grant, a.scopes, false)
	if refusal != (Error{}) {
		x.refuse(refusal)
		return
	}
	if slices.Contains(a.scopes, "offline_access") && !x.f.NoRefresh {
		answer["refresh_token"] = p.newRefreshToken(x, c.grant, x.now.Add(cmp.Or(client.RefreshLifetime, 30*24*time.Hour)))
	}
	if x.f.TokenResponse != nil {
		x.f.TokenResponse(answer)
	}
	x.json(200, answer)
}

// proves checks a code verifier (RFC 7636 §4.6). One without a challenge is a sign of a downgrade (RFC 9700 §4.8.2).
func (a *authRequest) proves(verifier string) bool {
	switch {
	case a.challenge == "":
		return verifier == ""
	case a.method == "S256":
		sum := sha256.Sum256([]byte(verifier))
		return equal(a.challenge, b64(sum[:]))
	}
	return equal(a.challenge, verifier)
}

// renew answers grant_type=refresh_token. With rotation the newest token is good, and the one before it during the leeway; anything
// older has been stolen by or from somebody, so the whole family ends (RFC 9700 §4.14.2).
func (p *Provider) renew(x *exchange, client Client) {
	p.mu.Lock()
	rt, found := p.refresh.get(x.r.PostForm.Get("refresh_token"), x.now)
	good := found && rt.grant.request.client.ID == client.ID && !rt.grant.dead
	rotate := !client.NoRotation && !x.f.NoRefresh
	if good && rotate {
		switch g := rt.grant; {
		case rt.generation == g.generation:
			g.generation, g.rotated = g.generation+1, x.now
		case rt.generation == g.generation-1 && x.now.Sub(g.rotated) < client.Leeway:
		default:
			g.dead, good = true, false
			p.reused++
		}
	}
	p.mu.Unlock()
	if !good {
		x.refuse(errRefreshToken)
		return
	}
	// RFC 6749 §6: fewer scopes may be asked for, not more.
	scopes := rt.grant.request.scopes
	if asked := strings.Fields(x.r.PostForm.Get("scope")); len(asked) > 0 {
		scopes = slices.DeleteFunc(slices.Clone(scopes), func(s string) bool { return !slices.Contains(asked, s) })
	}
	answer, refusal := p.tokens(x, rt.grant, scopes, true)
	if refusal != (Error{}) {
		x.refuse(refusal)
		return
	}
	if rotate {
		answer["refresh_token"] = p.newRefreshToken(x, rt.grant, rt.expires)
	}
	if x.f.TokenResponse != nil {
		x.f.TokenResponse(answer)
	}
	if x.f.RefreshResponse != nil {
		x.f.RefreshResponse(answer)
	}
	x.json(200, answer)
}

func (p *Provider) newRefreshToken(x *exchange, g *grant, expires time.Time) string {
	value := "v1." + random(32)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refresh.put(value, &refreshToken{g, g.generation, expires}, x.now, expires)
	return value
}

// ReusedRefreshTokens counts the families of refresh tokens that ended because one was used again.
func (p *Provider) ReusedRefreshTokens() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reused
}

// machine answers grant_type=client_credentials: a token of the client itself.
func (p *Provider) machine(x *exchange, client Client) {
	api, refusal := p.api(cmp.Or(x.r.PostForm.Get("audience"), p.opts.DefaultAudience))
	if refusal != nil || api == nil {
		x.refuse(Error{403, "access_denied", "Service not found: " + x.r.PostForm.Get("audience")})
		return
	}
	asked := strings.Fields(x.r.PostForm.Get("scope"))
	scopes := slices.DeleteFunc(slices.Clone(api.Scopes), func(s string) bool { return len(asked) > 0 && !slices.Contains(asked, s) })
	life := x.accessLife(api)
	t := p.accessToken(x.now, client.ID, api, client.ID+"@clients", scopes, life)
	t.Claims["gty"] = "client-credentials"
	if x.f.AccessToken != nil {
		x.f.AccessToken(t)
	}
	answer := map[string]any{"access_token": t.Sign(), "token_type": "Bearer", "expires_in": int(life.Seconds()), "scope": strings.Join(scopes, " ")}
	if x.f.TokenResponse != nil {
		x.f.TokenResponse(answer)
	}
	x.json(200, answer)
}

func (x *exchange) accessLife(api *API) time.Duration {
	life := 24 * time.Hour
	if api != nil && api.TokenLifetime != 0 {
		life = api.TokenLifetime
	}
	return cmp.Or(x.f.AccessLife, life)
}

// tokens is the token endpoint's answer for a grant, without a refresh token.
func (p *Provider) tokens(x *exchange, g *grant, scopes []string, refreshed bool) (map[string]any, Error) {
	a := g.request
	u, known := p.user(g.username)
	if !known || u.Blocked {
		return nil, Error{403, "invalid_grant", "user is blocked"}
	}
	life := x.accessLife(a.api)
	answer := map[string]any{"token_type": "Bearer", "expires_in": int(life.Seconds())}
	// RFC 6749 §5.1: scope may be absent when it is what was asked for. Relying parties must cope, so it is.
	if granted := strings.Join(scopes, " "); granted != a.asked || refreshed {
		answer["scope"] = granted
	}
	access := p.opaqueToken()
	if a.api != nil {
		t := p.accessToken(x.now, a.client.ID, a.api, u.Subject, scopes, life)
		if u.Permissions != nil {
			t.Claims["permissions"] = u.Permissions
		}
		p.addOrganization(t.Claims, a)
		if x.f.AccessToken != nil {
			x.f.AccessToken(t)
		}
		access = t.Sign()
	}
	answer["access_token"] = access
	p.mu.Lock()
	p.access.put(access, &accessToken{g, scopes}, x.now, x.now.Add(life))
	p.mu.Unlock()
	if slices.Contains(scopes, "openid") {
		answer["id_token"] = p.idToken(x, g, u, scopes, refreshed)
	}
	return answer, Error{}
}

// opaqueToken looks like an encrypted JWT of five parts, with nothing in it.
func (p *Provider) opaqueToken() string {
	header := mustJSON(map[string]any{"alg": "dir", "enc": "A256GCM", "iss": p.opts.Issuer})
	return strings.Join([]string{b64(header), "", random(12), random(96), random(16)}, ".")
}

// accessToken is an access token for an API in the API's dialect.
func (p *Provider) accessToken(now time.Time, clientID string, api *API, subject string, scopes []string, life time.Duration) *Token {
	t := p.newToken(map[string]any{"iss": p.opts.Issuer, "sub": subject, "aud": api.Identifier, "iat": now.Unix(), "exp": now.Add(life).Unix()})
	if len(scopes) > 0 {
		t.Claims["scope"] = strings.Join(scopes, " ")
	}
	if slices.Contains(scopes, "openid") {
		t.Claims["aud"] = []any{api.Identifier, p.opts.Issuer + "userinfo"}
	}
	if api.Dialect == "rfc9068" {
		t.Header["typ"] = "at+jwt"
		t.Claims["client_id"], t.Claims["jti"] = clientID, random(16)
	} else {
		t.Claims["azp"] = clientID
	}
	return t
}

// newToken is a token of these claims as the provider signs it in good health.
func (p *Provider) newToken(claims map[string]any) *Token {
	key := p.signingKey()
	return &Token{Header: map[string]any{"alg": "RS256", "typ": "JWT", "kid": key.kid}, Claims: claims, Key: key.private}
}

func (p *Provider) addOrganization(claims map[string]any, a *authRequest) {
	if a.organization.ID == "" {
		return
	}
	claims["org_id"] = a.organization.ID
	if p.opts.OrganizationNames {
		claims["org_name"] = strings.ToLower(a.organization.Name)
	}
}

// idToken makes and signs an ID token. A refreshed one lacks sid, nonce, auth_time, acr and amr.
func (p *Provider) idToken(x *exchange, g *grant, u User, scopes []string, refreshed bool) string {
	a := g.request
	claims := p.claims(u, scopes)
	claims["iss"], claims["aud"], claims["sub"] = p.opts.Issuer, a.client.ID, u.Subject
	claims["iat"], claims["exp"] = x.now.Unix(), x.now.Add(idTokenLife).Unix()
	p.addOrganization(claims, a)
	if !refreshed {
		claims["sid"] = g.sid
		if a.nonce != "" {
			claims["nonce"] = a.nonce
		}
		if a.wantsAuthTime {
			claims["auth_time"] = g.authTime.Unix()
		}
		if a.acr != "" {
			claims["acr"], claims["amr"] = a.acr, []string{"mfa"}
		}
	}
	t := p.newToken(claims)
	if x.f.IDToken != nil {
		x.f.IDToken(t)
	}
	if refreshed && x.f.RefreshedID != nil {
		x.f.RefreshedID(t)
	}
	signed := t.Sign()
	if x.f.SignedID != nil {
		signed = x.f.SignedID(signed)
	}
	return signed
}

// scopeOf tells with which scope a standard claim is sent (OIDC Core §5.4). Scopes named like claims are Auth0's.
var scopeOf = map[string]string{
	"name": "profile", "given_name": "profile", "family_name": "profile", "nickname": "profile", "picture": "profile", "updated_at": "profile",
	"preferred_username": "profile", "email": "email", "email_verified": "email", "phone_number": "phone", "phone_number_verified": "phone", "address": "address",
}

// claims are what ID tokens and userinfo say of a user beside the protocol's own claims.
func (p *Provider) claims(u User, scopes []string) map[string]any {
	claims := maps.Clone(u.Claims)
	if claims == nil {
		claims = map[string]any{}
	}
	if u.Groups != nil {
		claims[p.opts.GroupsClaim] = slices.Clone(u.Groups)
	}
	if u.Roles != nil {
		claims[p.opts.RolesClaim] = slices.Clone(u.Roles)
	}
	maps.DeleteFunc(claims, func(name string, _ any) bool {
		if scope, standard := scopeOf[name]; standard {
			return !slices.Contains(scopes, scope) && !slices.Contains(scopes, name)
		}
		return p.opts.OnlyNamespaced && !strings.Contains(name, "://")
	})
	return claims
}

// AccessToken is an access token for an API as a JWT, signed, for a user who need not be signed in; change may be nil, or change it before.
// It panics when the API or the user is unknown. The userinfo endpoint does not know it.
func (p *Provider) AccessToken(clientID, username, audience string, scopes []string, change func(*Token)) string {
	u, known := p.user(username)
	api, _ := p.api(audience)
	if !known || api == nil {
		panic("devprovider: AccessToken for an unknown user or API: " + username + ", " + audience)
	}
	f := p.snapshot()
	t := p.accessToken(p.now(), clientID, api, u.Subject, scopes, (&exchange{f: f}).accessLife(api))
	if u.Permissions != nil {
		t.Claims["permissions"] = u.Permissions
	}
	if change != nil {
		change(t)
	}
	return t.Sign()
}

// now is the time that the provider believes in.
func (p *Provider) now() time.Time { return p.opts.Now().Add(p.snapshot().Clock) }

// userinfo is the userinfo endpoint (OIDC Core §5.3): the latest of what is known.
func (p *Provider) userinfo(x *exchange) {
	value, bearer := strings.CutPrefix(x.r.Header.Get("Authorization"), "Bearer ")
	p.mu.Lock()
	at, found := p.access.get(value, x.now)
	found = bearer && found && !at.grant.dead && slices.Contains(at.scopes, "openid")
	p.mu.Unlock()
	var u User
	if found {
		u, found = p.user(at.grant.username)
	}
	if !found || u.Blocked {
		x.w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`) // RFC 6750 §3.1
		x.json(401, map[string]any{"error": "invalid_token"})
		return
	}
	claims := p.claims(u, at.scopes)
	claims["sub"] = u.Subject
	if x.f.UserInfo != nil {
		x.f.UserInfo(claims)
	}
	x.json(200, claims)
}

// revoke is the revocation endpoint (RFC 7009). It ends the whole grant of a refresh token and says nothing about what it found.
func (p *Provider) revoke(x *exchange) {
	client, ok := p.authenticate(x)
	if !ok {
		x.refuse(errClient)
		return
	}
	p.mu.Lock()
	if rt, found := p.refresh.get(x.r.PostForm.Get("token"), x.now); found && rt.grant.request.client.ID == client.ID {
		rt.grant.dead = true
	}
	p.mu.Unlock()
	x.w.WriteHeader(http.StatusOK)
}
