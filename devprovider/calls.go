package devprovider

import (
	"net/http"
	"net/url"
	"slices"
	"sync"
)

// A Call is a request that reached one of the protocol's endpoints. It holds copies, secrets included; pages for people are
// counted but not kept, since they have passwords.
type Call struct {
	Endpoint, Method, Path string
	Query                  url.Values
	Form                   url.Values // the body's
	Header                 http.Header
}

// A recorder counts all calls and keeps the last maxRecords.
type recorder struct {
	mu    sync.Mutex
	count map[string]int
	last  []Call
}

func (rec *recorder) add(endpoint string, r *http.Request) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.count == nil {
		rec.count = map[string]int{}
	}
	rec.count[endpoint]++
	rec.count[""]++
	if endpoint == "token" && r.PostForm.Get("grant_type") == "refresh_token" {
		rec.count["refresh"]++
	}
	if endpoint == "page" {
		return
	}
	if len(rec.last) >= maxRecords {
		rec.last = slices.Delete(rec.last, 0, 1)
	}
	rec.last = append(rec.last, Call{endpoint, r.Method, r.URL.Path, r.URL.Query(), r.PostForm, r.Header.Clone()})
}

// Count is the number of requests so far to an endpoint: discovery, jwks, authorize, token, userinfo, logout, revoke or page. "" counts
// all of them, failed and refused ones included.
func (p *Provider) Count(endpoint string) int {
	p.calls.mu.Lock()
	defer p.calls.mu.Unlock()
	return p.calls.count[endpoint]
}

// Calls are the last requests to an endpoint, oldest first; the last 1000 of all endpoints are kept.
func (p *Provider) Calls(endpoint string) []Call {
	p.calls.mu.Lock()
	defer p.calls.mu.Unlock()
	var out []Call
	for _, c := range p.calls.last {
		if c.Endpoint == endpoint {
			out = append(out, c)
		}
	}
	return out
}

// Last is the last request to an endpoint; the zero Call when there was none.
func (p *Provider) Last(endpoint string) Call {
	calls := p.Calls(endpoint)
	if len(calls) == 0 {
		return Call{}
	}
	return calls[len(calls)-1]
}

// Refreshes counts the token requests with grant_type=refresh_token.
func (p *Provider) Refreshes() int { return p.Count("refresh") }
