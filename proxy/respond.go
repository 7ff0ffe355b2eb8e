package proxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"authproxy/proxy/pages"
)

// A failure is an error that says how to answer: with its page for people and as JSON for programs. The cause goes into the
// log only.
type failure struct {
	page    pages.Error // its Status is the answer's
	code    string      // of the JSON answer
	reason  string      // for the log; "" means code
	cause   error       // for the log; may be nil
	retry   time.Duration
	header  [2]string         // one more header, or none
	details map[string]string // further members of the JSON answer
	json    bool              // never as a page
}

func (f *failure) Error() string {
	if f.cause != nil {
		return f.cause.Error()
	}
	return f.code
}

func (f *failure) Unwrap() error { return f.cause }

// A redirect is an error as well: the request goes no further.
type redirect struct {
	status   int
	location string
	reason   string
}

func (r *redirect) Error() string { return r.reason }

// fail turns an error into the answer, and is the only place that does.
func (p *Proxy) fail(x *exchange, err error) {
	var to *redirect
	if errors.As(err, &to) {
		if x.reason == "" {
			x.reason = to.reason
		}
		status := to.status
		if x.asked != nil && x.asked.unauthorized {
			if status != http.StatusFound { // not to a login
				p.fail(x, p.badRequest(to))
				return
			}
			status = http.StatusUnauthorized
		}
		p.redirect(x, status, to.location)
		return
	}
	if errors.Is(err, errClientGone) {
		x.err, x.failure = errClientGone, "client_closed"
		panic(http.ErrAbortHandler) // nobody is there to answer to
	}
	var f *failure
	if !errors.As(err, &f) { // a bug: what can fail says how to answer
		f = &failure{page: pages.Internal(p.again(x), p.home()), code: "internal_error", cause: err}
	}
	if x.reason == "" || f.reason != "" {
		if x.reason = f.reason; x.reason == "" {
			x.reason = f.code
		}
	}
	if x.err == nil {
		x.err = f.cause
	}
	x.failed(f)
	h := x.w.Header()
	if f.header[0] != "" {
		h.Set(f.header[0], f.header[1])
	}
	if f.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int(max(f.retry, time.Second)/time.Second)))
	}
	if wantsPage(x.r) && !f.json {
		page := f.page
		page.Host, page.RequestID = p.opts.PublicURL.Host, x.id
		if to := p.again(x); len(page.Actions) == 0 && page.Status >= 500 && to != "" { // no page is a dead end
			page.Actions = []pages.Action{{Label: "Try again", URL: to, Primary: true}}
		}
		p.page(x, x.status(page.Status), page)
		return
	}
	body := map[string]string{"error": f.code, "message": f.page.Message, "request_id": x.id}
	for k, v := range f.details {
		body[k] = v
	}
	p.json(x, x.status(f.page.Status), body)
}

// status is what a refusal with that status is to whoever asks. Front proxies know two ways to say no; of others, some make a
// failure of their own.
func (x *exchange) status(s int) int {
	if x.asked != nil && s/100 == 4 && s != http.StatusUnauthorized {
		return http.StatusForbidden
	}
	return s
}

// again is where to try once more what has failed: for GET and HEAD, whose bodies are not lost, the same address. A callback
// is for one time.
func (p *Proxy) again(x *exchange) string {
	switch {
	case x.r.Method != http.MethodGet && x.r.Method != http.MethodHead:
		return ""
	case x.target.path == p.opts.Prefix+"/callback":
		return p.loginURL("/", "")
	}
	return p.returnTo(x.target.uri())
}

// page answers with a page.
func (p *Proxy) page(x *exchange, status int, page pages.Page) {
	p.begins(x)
	r := x.r
	if r.Method != x.method { // that which a front proxy asks about; the answer is to its own request
		r = new(*r)
		r.Method = x.method
	}
	pages.Write(x.w, r, status, page)
}

// json answers with JSON that nobody stores.
func (p *Proxy) json(x *exchange, status int, v any) {
	p.begins(x)
	body, err := json.Marshal(v)
	if err != nil { // a claim that JSON cannot say: not after decoding it from JSON
		status, body = http.StatusInternalServerError, []byte(`{"error":"internal_error"}`)
		x.err = err
	}
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	x.w.WriteHeader(status)
	if x.method != http.MethodHead {
		x.w.Write(append(body, '\n'))
	}
}

// redirect answers with a redirect that nobody stores.
func (p *Proxy) redirect(x *exchange, status int, location string) {
	p.begins(x)
	h := x.w.Header()
	h.Set("Location", location)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	x.w.WriteHeader(status)
}

// begins is for every answer of our own: it sets the cookies of the exchange, and bounds how long a client may go on sending
// a body that nobody wants.
func (p *Proxy) begins(x *exchange) {
	if x.asked != nil {
		x.cookies = nil
	}
	for _, c := range x.cookies {
		x.w.Header().Add("Set-Cookie", c.String())
	}
	x.cookies = nil
	x.hurry()
}

// bodyPatience is how long we wait for the rest of a body that is not forwarded.
const bodyPatience = 5 * time.Second

// hurry bounds how long the request's body may take from the first call on. The next request on the connection has its own
// time.
func (x *exchange) hurry() {
	if x.r.ContentLength != 0 && !x.hurried {
		x.hurried = true
		http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(bodyPatience)) // where it cannot be set, there is no connection to bound
	}
}

// setCookie sets a cookie with the answer; of several with one name the last counts.
func (x *exchange) setCookie(c *http.Cookie) {
	for i := range x.cookies {
		if x.cookies[i].Name == c.Name && x.cookies[i].Domain == c.Domain {
			x.cookies[i] = c
			return
		}
	}
	x.cookies = append(x.cookies, c)
}

// home is where our own pages lead back to.
func (p *Proxy) home() string { return p.opts.Prefix + "/" }

func (p *Proxy) badRequest(cause error) error {
	return &failure{page: pages.BadRequest("/"), code: "bad_request", reason: cause.Error()}
}

func (p *Proxy) notFound() error {
	return &failure{page: pages.NotFound(p.home()), code: "not_found", reason: "not one of our endpoints"}
}

// navigation says whether a browser asks for a page that it will show, so that a redirect to a login makes sense.
func navigation(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.Header.Get("Upgrade") != "" || prefetch(r.Header) {
		return false
	}
	return wantsPage(r)
}

// prefetch says whether a browser fetches what its user may never look at.
func prefetch(h http.Header) bool {
	for _, name := range [...]string{"Sec-Purpose", "Purpose", "X-Moz", "X-Purpose"} {
		v := strings.ToLower(h.Get(name))
		if strings.Contains(v, "prefetch") || strings.Contains(v, "prerender") || strings.Contains(v, "preview") {
			return true
		}
	}
	return false
}

// wantsPage says whether the answer is for a person's eyes: Sec-Fetch-Mode tells (W3C Fetch Metadata), and Accept where a
// browser does not send it.
func wantsPage(r *http.Request) bool {
	h := r.Header
	if mode := h.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	if h.Get("Sec-Fetch-Dest") != "" || h.Get("Sec-Fetch-Site") != "" || h.Get("X-Requested-With") != "" {
		return false
	}
	return strings.Contains(h.Get("Accept"), "text/html")
}
