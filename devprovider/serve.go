package devprovider

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// An endpoint is what answers at a path.
type endpoint struct {
	name    string // in Faults and Count
	methods string
	serve   func(*exchange)
}

// An exchange is a request being answered: the time and the faults are the same from its beginning to its end.
type exchange struct {
	w   http.ResponseWriter
	r   *http.Request
	f   Faults
	now time.Time
}

func (p *Provider) routes() map[string]endpoint {
	return map[string]endpoint{
		"/.well-known/openid-configuration":       {"discovery", "GET", p.discovery},
		"/.well-known/oauth-authorization-server": {"discovery", "GET", p.discovery},
		"/.well-known/jwks.json":                  {"jwks", "GET", p.jwks},
		"/authorize":                              {"authorize", "GET POST", p.authorize},
		"/authorize/resume":                       {"page", "GET", p.resume},
		"/u/login":                                {"page", "GET POST", p.loginPage},
		"/u/signup":                               {"page", "GET POST", p.signupPage},
		"/u/social":                               {"page", "GET POST", p.socialPage},
		"/u/style.css":                            {"page", "GET", p.style},
		"/oauth/token":                            {"token", "POST", p.token},
		"/oauth/revoke":                           {"revoke", "POST", p.revoke},
		"/userinfo":                               {"userinfo", "GET POST", p.userinfo},
		"/v2/logout":                              {"logout", "GET", p.logoutV2},
		"/oidc/logout":                            {"logout", "GET POST", p.logoutOIDC},
		"/u/logout":                               {"page", "POST", p.logoutPage},
	}
}

// ServeHTTP answers a request: first the guards, then the faults, then the endpoint.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Whatever it listens on, this provider is for this machine. The check of the host defeats DNS rebinding.
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || !peer.Addr().Unmap().IsLoopback() {
		http.Error(w, "this development provider answers only the machine it runs on", http.StatusForbidden)
		return
	}
	if r.Host != p.issuer.Host {
		http.Error(w, "this development provider answers only for "+p.issuer.Host, http.StatusMisdirectedRequest)
		return
	}
	e, found := p.endpoints[r.URL.Path]
	if !found {
		http.NotFound(w, r)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	bodyErr := parseForm(r)
	p.calls.add(e.name, r)

	x := &exchange{w: w, r: r, f: p.snapshot()}
	x.now = p.opts.Now().Add(x.f.Clock)
	w.Header().Set("Date", x.now.UTC().Format(http.TimeFormat))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if answered := x.misbehave(e.name); answered {
		return
	}
	if !strings.Contains(" "+e.methods+" ", " "+r.Method+" ") {
		w.Header().Set("Allow", strings.ReplaceAll(e.methods, " ", ", "))
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	if bodyErr != nil {
		x.json(http.StatusBadRequest, map[string]any{"error": "invalid_request", "error_description": "the request cannot be parsed"})
		return
	}
	e.serve(x)
}

// misbehave applies the faults that concern every endpoint, and reports whether the answer is thereby given.
func (x *exchange) misbehave(endpoint string) bool {
	wait := x.f.Slow[endpoint]
	if endpoint == "token" {
		wait += x.f.Delay
	}
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-x.r.Context().Done():
		}
	}
	if x.f.Down {
		panic(http.ErrAbortHandler)
	}
	if x.f.Intercept != nil && x.f.Intercept(endpoint, x.w, x.r) {
		return true
	}
	if status := x.f.Fail[endpoint]; status != 0 {
		x.w.Header().Set("Content-Type", "text/html; charset=utf-8")
		x.w.WriteHeader(status)
		fmt.Fprintln(x.w, "<!doctype html><title>Trouble</title><p>The provider has trouble, as it was told to.")
		return true
	}
	if body, found := x.f.Raw[endpoint]; found {
		x.w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(x.w, body)
		return true
	}
	return false
}

// json answers with a JSON document.
func (x *exchange) json(status int, v any) {
	x.w.Header().Set("Content-Type", "application/json")
	x.w.WriteHeader(status)
	x.w.Write(mustJSON(v))
}

// duplicated returns a parameter that is there more than once (RFC 6749 §3.1 forbids it), or "".
func duplicated(values map[string][]string) string {
	for name, v := range values {
		if len(v) > 1 {
			return name
		}
	}
	return ""
}

// parseForm parses the query and a body of either kind that Auth0 takes, a form or a JSON object of strings.
func parseForm(r *http.Request) error {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" || r.Method != http.MethodPost {
		return r.ParseForm()
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	var object map[string]string
	if err := json.Unmarshal(body, &object); err != nil {
		return err
	}
	r.PostForm = url.Values{}
	for name, value := range object {
		r.PostForm.Set(name, value)
	}
	return r.ParseForm() // the query; it keeps PostForm
}
