package oidc

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"authproxy/identity"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	maxToken   = 64 << 10 // bytes of an ID token or logout token
	maxKeyID   = 256
	maxSubject = 255 // OIDC Core §2
	maxAddress = 320 // an e-mail address: RFC 5321 §4.5.3.1

	maxIDTokenAge = 10 * time.Minute // at login; a code is not good for longer (RFC 6749 §4.1.2)
)

// A jwt is a JWT in pieces. Nothing in it may be believed before verifySignature has said so.
type jwt struct {
	raw      string
	alg, typ string // typ in lower case; "" when absent
	claims   claims
}

// parseJWT takes a compact JWS with one signature apart (RFC 7515 §3.1). Keys and addresses of keys in the header are not
// looked at. What it accepts has no two claims of the same name, and none whose name is nearly that of a claim we rely on.
func (rp *RelyingParty) parseJWT(raw string) (*jwt, error) {
	if raw == "" || len(raw) > maxToken {
		return nil, invalid("malformed", "a token of %d bytes, want 1 to %d", len(raw), maxToken)
	}
	parts := strings.SplitN(raw, ".", 4)
	if len(parts) != 3 {
		return nil, invalid("malformed", "the token is not a compact JWS of three parts")
	}
	var decoded [3][]byte
	for i, p := range parts {
		// The decoder would skip line breaks; one token has one spelling.
		b, err := base64.RawURLEncoding.Strict().DecodeString(p)
		if err != nil || strings.ContainsAny(p, "\r\n") {
			return nil, invalid("malformed", "part %d of the token is not base64url", i+1)
		}
		decoded[i] = b
	}
	header, err := parseObject(decoded[0])
	if err != nil {
		return nil, invalid("malformed", "the token's header: %v", err)
	}
	t := &jwt{raw: raw}
	var ok bool
	if t.alg, ok = jsonString(header["alg"]); !ok {
		return nil, invalid("algorithm", "the token's header names no algorithm")
	}
	if v, present := header["typ"]; present {
		if t.typ, ok = jsonString(v); !ok {
			return nil, invalid("malformed", "typ of the token is not a string")
		}
		t.typ = strings.TrimPrefix(strings.ToLower(t.typ), "application/") // RFC 7515 §4.1.9
	}
	if v, present := header["kid"]; present {
		if kid, ok := jsonString(v); !ok || len(kid) > maxKeyID {
			return nil, invalid("malformed", "kid of the token is not a string of at most %d bytes", maxKeyID)
		}
	}
	for _, name := range []string{"crit", "b64", "zip"} { // RFC 7515 §4.1.11: we understand no extension
		if _, present := header[name]; present {
			return nil, invalid("malformed", "the token's header has %s", name)
		}
	}
	if t.claims, err = parseClaims(decoded[1], rp.wanted()); err != nil {
		return nil, invalid("malformed", "the token's claims: %v", err)
	}
	return t, nil
}

// wanted are the claims that the configuration names, which may look like others.
func (rp *RelyingParty) wanted() []string {
	n := rp.cfg.Claims
	return append([]string{n.Groups, n.Email, n.Name, n.Username}, rp.cfg.KeepClaims...)
}

// readIDToken takes the ID token of resp apart and makes every check of OIDC Core §3.1.3.7 that needs neither the provider's
// keys nor the login.
func (rp *RelyingParty) readIDToken(m *metadata, resp *tokenResponse) (*jwt, error) {
	t, err := rp.parseJWT(resp.idToken)
	if err != nil {
		return nil, err
	}
	c, k := t.claims, resp.clock
	if t.alg == "HS256" || t.alg == "HS384" || t.alg == "HS512" {
		return nil, &Misconfigured{Reason: "alg_hs256", Detail: fmt.Sprintf("the ID token is signed with %s, want %s", t.alg, rp.cfg.IDTokenAlg),
			Hint: "Application > Advanced > OAuth > JWT signature algorithm is " + t.alg + "; set " + rp.cfg.IDTokenAlg}
	}
	if err := rp.checkAlg(t); err != nil {
		if _, known := keyKinds[t.alg]; known { // as the provider signs, whoever made the token
			return nil, &Misconfigured{Reason: "algorithm", Detail: fmt.Sprintf("the ID token is signed with %s, want %s", t.alg, rp.cfg.IDTokenAlg),
				Hint: "set provider.id_token_alg: " + t.alg + " if the provider is meant to sign so"}
		}
		return nil, err
	}
	if t.typ != "" && t.typ != "jwt" { // RFC 8725 §3.11: at+jwt and logout+jwt are not ID tokens
		return nil, invalid("token_type", "typ %q is not that of an ID token", clean(t.typ, 40))
	}
	if _, present := c["events"]; present { // OIDC Back-Channel Logout §2.4
		return nil, invalid("token_type", "the ID token is a logout token")
	}
	if err := rp.checkParties(c, m.IssuerURL); err != nil {
		return nil, err
	}
	if _, err := c.subject(); err != nil {
		return nil, err
	}
	if err := k.checkExpiry(c); err != nil {
		return nil, err
	}
	if _, err := k.issuedAt(c); err != nil {
		return nil, err
	}
	if at, present, err := c.time("auth_time"); err != nil {
		return nil, err
	} else if present && at.After(k.now.Add(k.leeway)) {
		return nil, invalid("auth_time", "auth_time %s is in the future%s", stamp(at), k.remark())
	}
	if raw, present := c["at_hash"]; present {
		if got, ok := jsonString(raw); !ok || got != atHash(t.alg, resp.accessToken) {
			return nil, invalid("at_hash", "at_hash is not that of the access token") // OIDC Core §3.1.3.8
		}
	}
	return t, nil
}

// checkAlg refuses every algorithm but the configured one (RFC 8725 §3.1).
func (rp *RelyingParty) checkAlg(t *jwt) error {
	if t.alg != rp.cfg.IDTokenAlg {
		return invalid("algorithm", "the token is signed with %q, want %s", clean(t.alg, 40), rp.cfg.IDTokenAlg)
	}
	return nil
}

// checkParties checks iss, aud and azp: OIDC Core §3.1.3.7 points 2 to 5.
func (rp *RelyingParty) checkParties(c claims, issuer string) error {
	if iss, ok := jsonString(c["iss"]); !ok || iss != issuer {
		return &Invalid{Reason: "token_issuer", Detail: fmt.Sprintf("iss of the token is %q, want %q", clean(iss, 200), issuer),
			Hint: "the provider's tokens and its discovery document must name one issuer; check the host name that it takes for its own, and provider.issuer or provider.domain"}
	}
	audience, err := c.audience()
	if err != nil {
		return err
	}
	// Point 3: an audience that we do not trust is refused, so that a token is for us alone.
	if len(audience) == 0 || slices.ContainsFunc(audience, func(a string) bool { return a != rp.cfg.ClientID }) {
		return &Invalid{Reason: "audience", Detail: fmt.Sprintf("aud is %q, want %q alone", clean(strings.Join(audience, " "), 200), rp.cfg.ClientID),
			Hint: "check provider.client_id"}
	}
	raw, present := c["azp"]
	if azp, ok := jsonString(raw); present && (!ok || azp != rp.cfg.ClientID) {
		return invalid("audience", "azp is %q, want %q", clean(azp, 200), rp.cfg.ClientID)
	}
	if len(audience) > 1 && !present {
		return invalid("audience", "several audiences and no azp")
	}
	return nil
}

// checkLogin checks the ID token of a login against what the login asked for.
func (rp *RelyingParty) checkLogin(t *jwt, login *Login, resp *tokenResponse) error {
	c, k := t.claims, resp.clock
	nonce, ok := jsonString(c["nonce"])
	if !ok || nonce == "" || subtle.ConstantTimeCompare([]byte(nonce), []byte(login.Nonce)) != 1 { // OIDC Core §3.1.3.7 point 11
		return invalid("nonce", "the nonce of the ID token is not the one of the login")
	}
	issued, err := k.issuedAt(c)
	if err != nil {
		return err
	}
	if age := k.now.Sub(issued); age > maxIDTokenAge+k.leeway { // point 10
		return invalid("issued_at", "the ID token was issued at %s, more than %s ago%s", stamp(issued), maxIDTokenAge, k.remark())
	}
	at, present, err := c.time("auth_time")
	if err != nil {
		return err
	}
	if login.MaxAge > 0 && !present { // point 13
		return invalid("auth_time", "max_age was asked for and the ID token has no auth_time")
	}
	if login.MaxAge > 0 && k.now.Sub(at) > login.MaxAge+k.leeway {
		return invalid("auth_time", "the user signed in at %s, more than %s ago%s", stamp(at), login.MaxAge, k.remark())
	}
	if login.FreshLogin && present && at.Before(login.Started.Truncate(time.Second).Add(-k.leeway)) {
		return invalid("auth_time", "prompt=login was asked for and the user signed in before, at %s%s", stamp(at), k.remark())
	}
	acr, err := c.text("acr")
	if err != nil {
		return err
	}
	if login.ACR != "" && !slices.Contains(strings.Fields(login.ACR), acr) { // point 12
		return invalid("acr", "acr is %q, want one of %q", clean(acr, 200), clean(login.ACR, 200))
	}
	for _, organization := range []string{login.Organization, rp.cfg.Organization} {
		if err := checkOrganization(c, organization); err != nil {
			return err
		}
	}
	return nil
}

// checkOrganization compares an ID (org_...) exactly with org_id, a name also with org_name, in any case.
func checkOrganization(c claims, want string) error {
	if want == "" {
		return nil
	}
	id, err := c.text("org_id")
	if err != nil {
		return err
	}
	name, err := c.text("org_name")
	if err != nil {
		return err
	}
	if id == want || !strings.HasPrefix(want, "org_") && strings.EqualFold(name, want) {
		return nil
	}
	return invalid("organization", "the login is for organization %q %q, want %q", clean(id, 100), clean(name, 100), clean(want, 100))
}

// verifySignature checks the signature of t over its header and claims with the provider's keys. go-oidc checks issuer and
// audience once more; the times are left to us, because it knows no leeway.
func (rp *RelyingParty) verifySignature(ctx context.Context, m *metadata, t *jwt) error {
	keys := &tokenKeys{set: rp.keys, url: m.JWKSURL}
	_, err := gooidc.NewVerifier(m.IssuerURL, keys, &gooidc.Config{
		ClientID:             rp.cfg.ClientID,
		SupportedSigningAlgs: []string{rp.cfg.IDTokenAlg},
		SkipExpiryCheck:      true,
	}).Verify(ctx, t.raw)
	var down *Unavailable
	switch {
	case errors.As(keys.err, &down):
		return down
	case keys.err != nil:
		return &Invalid{Reason: "signature", Detail: keys.err.Error(), Err: keys.err}
	case err != nil:
		return &Invalid{Reason: "malformed", Detail: "the token does not verify", Err: err}
	}
	return nil
}

// tokenKeys is the go-oidc KeySet of one verification. It keeps its error, which the verifier would flatten to text.
type tokenKeys struct {
	set *keySet
	url string
	err error
}

func (k *tokenKeys) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(k.set.alg)})
	if err != nil {
		k.err = fmt.Errorf("reading the token: %w", err)
		return nil, k.err
	}
	payload, err := k.set.verify(ctx, k.url, jws)
	k.err = err
	return payload, err
}

// atHash is the left half of the access token's hash (OIDC Core §3.1.3.6).
func atHash(alg, accessToken string) string {
	h := keyKinds[alg].hash.New()
	h.Write([]byte(accessToken))
	sum := h.Sum(nil)
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

// A clock is the moment at which a token is judged.
type clock struct {
	now      time.Time
	leeway   time.Duration
	provider time.Time // what the provider thinks; zero when unknown
}

// checkExpiry checks exp, which is required, and nbf.
func (k clock) checkExpiry(c claims) error {
	exp, present, err := c.time("exp")
	if err != nil {
		return err
	}
	if !present || !k.now.Before(exp.Add(k.leeway)) { // OIDC Core §3.1.3.7 point 9
		return invalid("expired", "exp is %s%s", stamp(exp), k.remark())
	}
	nbf, _, err := c.time("nbf")
	if err != nil {
		return err
	}
	if nbf.After(k.now.Add(k.leeway)) { // RFC 7519 §4.1.5
		return invalid("not_before", "nbf is %s%s", stamp(nbf), k.remark())
	}
	return nil
}

// issuedAt returns iat, which is required (OIDC Core §2) and must not be in the future.
func (k clock) issuedAt(c claims) (time.Time, error) {
	iat, present, err := c.time("iat")
	if err != nil {
		return time.Time{}, err
	}
	if !present {
		return time.Time{}, invalid("issued_at", "the token has no iat")
	}
	if iat.After(k.now.Add(k.leeway)) {
		return time.Time{}, invalid("issued_at", "the token was issued in the future, at %s%s", stamp(iat), k.remark())
	}
	return iat, nil
}

// remark says how far the clocks are apart, which is the usual cause when a time is wrong.
func (k clock) remark() string {
	if k.provider.IsZero() {
		return ""
	}
	by := k.now.Sub(k.provider).Round(time.Second)
	ahead, todo := int64(by/time.Second), ""
	if by.Abs() > k.leeway {
		todo = hint("set the clock, best by NTP")
	}
	switch {
	case ahead > 1:
		return fmt.Sprintf("; this server's clock is %d s ahead of the provider's%s", ahead, todo)
	case ahead < -1:
		return fmt.Sprintf("; this server's clock is %d s behind the provider's%s", -ahead, todo)
	}
	return ""
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "absent"
	}
	return t.UTC().Format(time.RFC3339)
}

// claims are the members of a JSON object by their exact names. encoding/json would take "Sub" for sub, and the last of
// several.
type claims map[string]json.RawMessage

// precise are the claims we rely on. A claim whose name differs from one of them by case only fails the token: whoever
// could add it (Auth0 Actions can) might speak to a reader that is not exact.
var precise = []string{"iss", "sub", "aud", "exp", "iat", "nbf", "jti", "azp", "nonce", "auth_time", "acr", "amr", "at_hash", "c_hash",
	"sid", "events", "email", "email_verified", "org_id", "org_name", "session_expiry"}

// parseClaims reads the claims of a token or of userinfo. The names in wanted may look like others.
func parseClaims(data []byte, wanted []string) (claims, error) {
	c, err := parseObject(data)
	if err != nil {
		return nil, err
	}
	for name := range c {
		if slices.Contains(precise, name) || slices.Contains(wanted, name) {
			continue
		}
		for _, p := range precise {
			if strings.EqualFold(p, name) {
				return nil, fmt.Errorf("%q looks like %q", clean(name, 40), p)
			}
		}
	}
	return c, nil
}

// parseObject reads one JSON object whose members have different names. Names in objects inside it are not compared.
func parseObject(data []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8") // RFC 8259 §8.1
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	o := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, errors.New("not JSON")
		}
		if _, twice := o[name]; twice {
			return nil, fmt.Errorf("%q is there twice", clean(name, 40))
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, errors.New("not JSON")
		}
		o[name] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, errors.New("not JSON")
	}
	if rest := data[d.InputOffset():]; len(bytes.TrimLeft(rest, " \t\r\n")) > 0 {
		return nil, errors.New("more than one JSON value")
	}
	return o, nil
}

// jsonString is the value of a JSON string; false for anything else, an absent member included.
func jsonString(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}

// text is a claim that is a string, or absent.
func (c claims) text(name string) (string, error) {
	raw, present := c[name]
	s, ok := jsonString(raw)
	if present && !ok {
		return "", invalid("malformed", "%s is not a string", name)
	}
	return s, nil
}

// time is a claim that is a NumericDate (RFC 7519 §2), or absent.
func (c claims) time(name string) (t time.Time, present bool, err error) {
	raw, present := c[name]
	if !present {
		return time.Time{}, false, nil
	}
	const year9999 = 253402300800
	seconds, err := strconv.ParseFloat(string(raw), 64) // fails for strings, which keep their quotes
	if err != nil || seconds <= 0 || seconds >= year9999 {
		return time.Time{}, true, invalid("malformed", "%s is not a time in seconds since 1970", name)
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), true, nil
}

// audience is aud: a string or a list of strings (RFC 7519 §4.1.3).
func (c claims) audience() ([]string, error) {
	if s, ok := jsonString(c["aud"]); ok {
		return []string{s}, nil
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(c["aud"], &raw); err != nil {
		return nil, invalid("audience", "aud is missing or neither a string nor a list")
	}
	var out []string
	for _, r := range raw {
		s, ok := jsonString(r)
		if !ok {
			return nil, invalid("audience", "aud has an element that is not a string")
		}
		out = append(out, s)
	}
	return out, nil
}

// subject is sub, which is required: at most 255 printable ASCII characters (OIDC Core §2), with spaces only between others.
func (c claims) subject() (string, error) {
	sub, ok := jsonString(c["sub"])
	printable := !strings.ContainsFunc(sub, func(r rune) bool { return r < ' ' || r > '~' })
	if !ok || sub == "" || len(sub) > maxSubject || !printable || strings.TrimSpace(sub) != sub {
		return "", invalid("subject", "sub is missing, empty, or not a string of at most %d printable ASCII characters", maxSubject)
	}
	return sub, nil
}

// sessionID is sid, or "" when it is absent.
func (c claims) sessionID() (string, error) {
	sid, err := c.text("sid")
	if err != nil {
		return "", err
	}
	if _, present := c["sid"]; present && (sid == "" || len(sid) > maxSubject) {
		return "", invalid("malformed", "sid is not a string of 1 to %d bytes", maxSubject)
	}
	return sid, nil
}

// tokens makes the result of a login or a refresh: id are the claims of the ID token, all those and what userinfo added.
func (rp *RelyingParty) tokens(id, all claims, resp *tokenResponse, scopes []string) (*Tokens, error) {
	sid, err := id.sessionID()
	if err != nil {
		return nil, err
	}
	who, err := rp.identity(id, all)
	if err != nil {
		return nil, err
	}
	who.Scopes = slices.Clone(scopes) // RFC 6749 §5.1: as asked, when the response does not say
	if resp.scopes != nil {
		who.Scopes = resp.scopes
	}
	ends, present, err := id.time("session_expiry")
	if err != nil {
		return nil, err
	}
	if present && !ends.After(resp.clock.now) {
		return nil, invalid("expired", "session_expiry is %s%s", stamp(ends), resp.clock.remark())
	}
	nonce, _ := jsonString(id["nonce"]) // compared before
	return &Tokens{Identity: *who, Nonce: nonce, SessionID: sid, AccessToken: resp.accessToken, RefreshToken: resp.refreshToken,
		IDToken: resp.idToken, AccessExpiry: resp.expiry, SessionExpiry: ends}, nil
}

// identity reads who the user is. Profile claims of an unexpected type count as absent.
func (rp *RelyingParty) identity(id, all claims) (*identity.Identity, error) {
	names := rp.cfg.Claims
	who := &identity.Identity{}
	var err error
	if who.Subject, err = id.subject(); err != nil {
		return nil, err
	}
	if who.ACR, err = id.text("acr"); err != nil {
		return nil, err
	}
	if who.AuthTime, _, err = id.time("auth_time"); err != nil {
		return nil, err
	}
	if who.Organization, err = id.text("org_id"); err != nil {
		return nil, err
	}
	who.Issuer, _ = jsonString(id["iss"]) // compared before
	who.Name, _ = jsonString(all[names.Name])
	who.Username, _ = jsonString(all[names.Username])
	if who.Username == "" && names.Username == "preferred_username" {
		who.Username, _ = jsonString(all["nickname"])
	}
	who.Groups = all.list(names.Groups)
	if address, _ := jsonString(all[names.Email]); isAddress(address) {
		verified, _ := jsonString(all["email"])
		who.Email = address
		who.EmailVerified = string(all["email_verified"]) == "true" && verified == address
	}
	for _, name := range rp.cfg.KeepClaims {
		var v any
		if raw, present := all[name]; present && json.Unmarshal(raw, &v) == nil && v != nil {
			if who.Claims == nil {
				who.Claims = map[string]any{}
			}
			who.Claims[name] = v
		}
	}
	return who, nil
}

// list is a claim that is a string, or the strings of a list; nil for anything else.
func (c claims) list(name string) (out []string) {
	if s, ok := jsonString(c[name]); ok {
		if s == "" {
			return nil
		}
		return []string{s}
	}
	var raw []json.RawMessage
	if json.Unmarshal(c[name], &raw) != nil {
		return nil
	}
	for _, r := range raw {
		if s, ok := jsonString(r); ok && s != "" {
			out = append(out, s)
		}
	}
	return out
}

// isAddress reports whether s looks like one e-mail address: something on both sides of exactly one @, and nothing that
// could make it two or hide a part of it.
func isAddress(s string) bool {
	local, domain, _ := strings.Cut(s, "@")
	return local != "" && domain != "" && !strings.Contains(domain, "@") && len(s) <= maxAddress &&
		!strings.ContainsFunc(s, func(r rune) bool { return r == ' ' || r == ',' || !unicode.IsPrint(r) })
}
