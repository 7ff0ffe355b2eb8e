package frontproxies_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"gopkg.in/yaml.v3"
)

// The front proxies that Debian has not: the parts of Traefik, Envoy and Gateways that matter here, as their documentation and
// source say, driven by the configuration that print-config wrote.

// node is a place in YAML.
type node struct{ v any }

func parseYAML(t *testing.T, text string) node {
	t.Helper()
	var n node
	if err := yaml.Unmarshal([]byte(text), &n.v); err != nil {
		t.Fatal(err)
	}
	return n
}

// at goes down by keys and, into lists, by numbers.
func (n node) at(keys ...any) node {
	for _, key := range keys {
		switch v := n.v.(type) {
		case map[string]any:
			k, _ := key.(string)
			n = node{v[k]}
		case []any:
			i, ok := key.(int)
			if !ok || i >= len(v) {
				return node{}
			}
			n = node{v[i]}
		default:
			return node{}
		}
	}
	return n
}

func (n node) text() string { s, _ := n.v.(string); return s }

func (n node) list() (all []node) {
	l, _ := n.v.([]any)
	for _, v := range l {
		all = append(all, node{v})
	}
	return all
}

func (n node) texts() (all []string) {
	for _, e := range n.list() {
		all = append(all, e.text())
	}
	return all
}

// asking is the client by which front proxies ask. They wait 10 seconds and more; nobody waits here for what does not come.
var asking = &http.Client{
	Timeout:       5 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport:     &http.Transport{DisableCompression: true, DisableKeepAlives: true},
}

// listen serves a handler at the port of the front proxy.
func (w *world) listen(t *testing.T, h http.HandlerFunc) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:"+w.port)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, MaxHeaderBytes: 60 << 10}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
}

// forward sends a request on, with exactly its headers: none is added.
func forward(w http.ResponseWriter, r *http.Request, to string) {
	u, _ := url.Parse(to)
	p := &httputil.ReverseProxy{
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = u.Scheme, u.Host
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if v, ok := p.In.Header[name]; ok {
					p.Out.Header[name] = v
				}
			}
		},
	}
	p.ServeHTTP(w, r)
}

// withoutConnection removes what Connection names, and leaves a switch of protocols.
func withoutConnection(h http.Header, named bool) {
	upgrade := ""
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.TrimSpace(name)
			if strings.EqualFold(name, "Upgrade") {
				upgrade = h.Get("Upgrade")
			} else if named {
				h.Del(name)
			}
		}
	}
	h.Del("Connection")
	h.Del("Upgrade")
	if upgrade != "" {
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", upgrade)
	}
}

var hopByHop = []string{"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// answer gives the client what authproxy answered.
func answer(w http.ResponseWriter, a *http.Response, without ...string) {
	for name, values := range a.Header {
		if !slices.Contains(hopByHop, name) && !slices.Contains(without, name) {
			w.Header()[name] = values
		}
	}
	w.WriteHeader(a.StatusCode)
	io.Copy(w, a.Body)
}

// startTraefik is Traefik 3.7.13: the entry point (pkg/server/server_entrypoint_tcp.go, pkg/middlewares/forwardedheaders), and the
// middlewares headers and forwardAuth (pkg/middlewares/headers, pkg/middlewares/auth/forward.go).
func startTraefik(t *testing.T, w *world, printed string) {
	w.traefik(t, printed, true)
}

// startOldTraefik is one that does not know aliasHeadersStrategy.
func startOldTraefik(t *testing.T, w *world, printed string) {
	w.traefik(t, printed, false)
}

// xHeaders are those that Traefik manages.
var xHeaders = []string{"X-Forwarded-Proto", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Uri", "X-Forwarded-Method",
	"X-Forwarded-Prefix", "X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info", "X-Real-Ip"}

func withoutXHeaders(h http.Header) {
	for name := range h {
		if slices.Contains(xHeaders, http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))) {
			delete(h, name)
		}
	}
}

func (w *world) traefik(t *testing.T, printed string, aliases bool) {
	t.Helper()
	// The file provider makes a template of it.
	var file bytes.Buffer
	tmpl, err := template.New("").Funcs(template.FuncMap{"env": func(string) string { return secret }}).Parse(printed)
	if err != nil {
		t.Fatal(err)
	}
	if err := tmpl.Execute(&file, nil); err != nil {
		t.Fatal(err)
	}
	conf := parseYAML(t, file.String())
	_, static, _ := strings.Cut(printed, "#   entryPoints:")
	static, _, _ = strings.Cut("entryPoints:"+static, "\n#\n")
	entry := parseYAML(t, strings.ReplaceAll(static, "\n#   ", "\n")).at("entryPoints", "web")
	if entry.at("address").text() != ":"+w.port {
		t.Fatalf("the entry point listens on %q", entry.at("address").text())
	}
	if entry.at("http", "aliasHeadersStrategy").text() != "delete" {
		t.Fatal("the entry point does not delete aliases")
	}

	routers, _ := conf.at("http", "routers").v.(map[string]any)
	middlewares := conf.at("http", "middlewares")
	handlers := map[string]func(w http.ResponseWriter, r *http.Request) bool{}
	all, _ := middlewares.v.(map[string]any)
	for name := range all {
		m := middlewares.at(name)
		switch {
		case m.at("headers").v != nil:
			custom, _ := m.at("headers", "customRequestHeaders").v.(map[string]any)
			handlers[name] = func(_ http.ResponseWriter, r *http.Request) bool {
				for name, value := range custom {
					if value == "" {
						r.Header.Del(name)
					} else {
						r.Header.Set(name, value.(string))
					}
				}
				return true
			}
		case m.at("forwardAuth").v != nil:
			f := m.at("forwardAuth")
			handlers[name] = func(w http.ResponseWriter, r *http.Request) bool {
				q, _ := http.NewRequestWithContext(r.Context(), "GET", f.at("address").text(), nil)
				q.Header = r.Header.Clone()
				for _, name := range append(hopByHop, "Content-Length") {
					q.Header.Del(name)
				}
				if f.at("trustForwardHeader").v == false {
					withoutXHeaders(q.Header)
				}
				q.Header.Set("X-Forwarded-Method", r.Method)
				q.Header.Set("X-Forwarded-Proto", "http")
				q.Header.Set("X-Forwarded-Host", r.Host)
				q.Header.Set("X-Forwarded-Uri", r.URL.RequestURI())
				q.Header.Set("X-Forwarded-For", "127.0.0.1")
				a, err := asking.Do(q)
				if err != nil {
					w.WriteHeader(http.StatusInternalServerError)
					return false
				}
				defer a.Body.Close()
				if a.StatusCode/100 != 2 {
					answer(w, a)
					return false
				}
				for _, name := range f.at("authResponseHeaders").texts() {
					r.Header.Del(name)
					if v := a.Header.Values(name); len(v) > 0 {
						r.Header[http.CanonicalHeaderKey(name)] = v
					}
				}
				return true
			}
		}
	}
	type router struct {
		priority int
		rule     string
		services string
		chain    []string
	}
	var byPriority []router
	for name := range routers {
		r := conf.at("http", "routers", name)
		priority, _ := r.at("priority").v.(int)
		one := router{priority: priority, rule: r.at("rule").text(), services: r.at("service").text()}
		for _, m := range r.at("middlewares").texts() {
			one.chain = append(one.chain, middlewares.at(m, "chain", "middlewares").texts()...)
		}
		byPriority = append(byPriority, one)
	}
	slices.SortFunc(byPriority, func(a, b router) int { return b.priority - a.priority })

	w.listen(t, func(rw http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			if aliases && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-") != "" {
				delete(r.Header, name)
			}
		}
		withoutXHeaders(r.Header) // forwardedHeaders without trustedIPs
		r.Header.Set("X-Real-Ip", "127.0.0.1")
		r.Header.Set("X-Forwarded-Proto", "http")
		if r.Header.Get("Upgrade") != "" {
			r.Header.Set("X-Forwarded-Proto", "ws")
		}
		r.Header.Set("X-Forwarded-Host", r.Host)
		r.Header.Set("X-Forwarded-Port", w.port)
		withoutConnection(r.Header, true)
		r.URL = r.URL.JoinPath() // sanitizePath
		host, _, _ := net.SplitHostPort(r.Host)
		for _, one := range byPriority {
			if !ruleHolds(t, one.rule, host, r.URL.Path) {
				continue
			}
			for _, m := range one.chain {
				if !handlers[m](rw, r) {
					return
				}
			}
			if one.services == "noop@internal" {
				rw.WriteHeader(http.StatusTeapot)
				return
			}
			r.Header.Set("X-Forwarded-For", "127.0.0.1")
			forward(rw, r, conf.at("http", "services", one.services, "loadBalancer", "servers", 0, "url").text())
			return
		}
		rw.WriteHeader(http.StatusNotFound)
	})
}

var matcher = regexp.MustCompile("^(Host|Path|PathPrefix)\\(`([^`]*)`\\)")

// ruleHolds reads the rule of a router. && binds closer than ||.
func ruleHolds(t *testing.T, rule, host, path string) bool {
	rest := rule
	var or func() bool
	one := func() bool {
		rest = strings.TrimSpace(rest)
		if after, ok := strings.CutPrefix(rest, "("); ok {
			rest = after
			holds := or()
			rest = strings.TrimPrefix(strings.TrimSpace(rest), ")")
			return holds
		}
		m := matcher.FindStringSubmatch(rest)
		if m == nil {
			t.Errorf("the rule %q cannot be read at %q", rule, rest)
			rest = ""
			return false
		}
		rest = rest[len(m[0]):]
		switch m[1] {
		case "Host":
			return strings.EqualFold(host, m[2])
		case "Path":
			return path == m[2]
		}
		return strings.HasPrefix(path, m[2])
	}
	and := func() bool {
		holds := one()
		for {
			after, ok := strings.CutPrefix(strings.TrimSpace(rest), "&&")
			if !ok {
				return holds
			}
			rest = after
			holds = one() && holds
		}
	}
	or = func() bool {
		holds := and()
		for {
			after, ok := strings.CutPrefix(strings.TrimSpace(rest), "||")
			if !ok {
				return holds
			}
			rest = after
			holds = and() || holds
		}
	}
	return or()
}

// A dataPlane is what Envoy, and a Gateway made of it, does with a request.
type dataPlane struct {
	remove     []string                 // before anything else
	late       []string                 // after the question
	route      func(path string) string // "" is no route, closed, redirect, authproxy or app
	host       string
	pathPrefix string
	sends      func(name string) bool // of the client's headers
	adds       map[string]string
	takes      []string // headers of the answer
	obeys      bool     // x-envoy-auth-headers-to-remove
	failed     int      // status when authproxy fails
	redirect   string
	closed     int
	app        string
	authproxy  string
}

var escapedSlash = regexp.MustCompile(`(?i)%2f|%5c`)

func (d *dataPlane) serve(w http.ResponseWriter, r *http.Request) {
	for name := range r.Header {
		if strings.Contains(name, "_") { // headers_with_underscores_action: DROP_HEADER
			delete(r.Header, name)
		}
	}
	for _, name := range d.remove { // early, so that what Envoy says itself stays
		r.Header.Del(name)
	}
	r.Header.Set("X-Forwarded-For", strings.TrimPrefix(r.Header.Get("X-Forwarded-For")+",127.0.0.1", ",")) // use_remote_address
	r.Header.Set("X-Forwarded-Proto", "http")
	r.Header.Set("X-Envoy-External-Address", "127.0.0.1")
	if r.Host != d.host {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	raw, query, asks := strings.Cut(r.RequestURI, "?")
	if u, err := url.Parse(raw); err == nil && u.Scheme != "" { // the whole URL
		raw = u.EscapedPath()
	}
	if escapedSlash.MatchString(raw) { // path_with_escaped_slashes_action: REJECT_REQUEST
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	// normalize_path and merge_slashes
	clean := strings.NewReplacer("%2e", ".", "%2E", ".", `\`, "/").Replace(raw)
	if slash := strings.HasSuffix(clean, "/"); clean != "" {
		if clean = path.Clean(clean); slash && clean != "/" {
			clean += "/"
		}
	}
	target := clean
	if asks {
		target += "?" + query
	}
	switch d.route(clean) {
	case "":
		w.WriteHeader(http.StatusNotFound)
	case "closed":
		w.WriteHeader(d.closed)
	case "redirect":
		http.Redirect(w, r, d.redirect, http.StatusFound)
	case "authproxy":
		d.forward(w, r, d.authproxy, target)
	case "app":
		if d.ask(w, r, target) {
			for _, name := range d.late {
				r.Header.Del(name)
			}
			d.forward(w, r, d.app, target)
		}
	}
}

// forward sends on what Connection names: Envoy knows the end-to-end headers by their names.
func (d *dataPlane) forward(w http.ResponseWriter, r *http.Request, to, target string) {
	withoutConnection(r.Header, false)
	u, err := url.ParseRequestURI(target)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.URL = u
	forward(w, r, to)
}

func (d *dataPlane) ask(w http.ResponseWriter, r *http.Request, target string) bool {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, r.Method, d.authproxy+d.pathPrefix+target, nil)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return false
	}
	q.Host = r.Host
	for name, values := range r.Header {
		if name == "Authorization" || d.sends(strings.ToLower(name)) {
			q.Header[name] = values
		}
	}
	for name, value := range d.adds {
		q.Header.Set(name, value)
	}
	q.Header.Del("Upgrade") // without Connection it is nothing
	a, err := asking.Do(q)
	if err != nil {
		w.WriteHeader(d.failed)
		return false
	}
	defer a.Body.Close()
	switch {
	case a.StatusCode/100 == 5:
		w.WriteHeader(d.failed)
		return false
	case a.StatusCode != http.StatusOK:
		answer(w, a)
		return false
	}
	for _, name := range d.takes {
		if v, ok := a.Header[http.CanonicalHeaderKey(name)]; ok {
			r.Header[http.CanonicalHeaderKey(name)] = v
		}
	}
	if d.obeys {
		for name := range strings.SplitSeq(a.Header.Get("X-Envoy-Auth-Headers-To-Remove"), ",") {
			for sent := range r.Header {
				if strings.EqualFold(sent, strings.TrimSpace(name)) {
					delete(r.Header, sent)
				}
			}
		}
	}
	return true
}

// below is path_separated_prefix, and PathPrefix of the Gateway API.
func below(path, root string) bool {
	root = strings.TrimSuffix(root, "/")
	return strings.HasPrefix(path, root) && (len(path) == len(root) || path[len(root)] == '/')
}

// startEnvoy is Envoy's ext_authz over HTTP (ext_authz.proto, http_connection_manager.proto).
func startEnvoy(t *testing.T, w *world, printed string) {
	conf := parseYAML(t, strings.ReplaceAll(printed, "value: CHANGE", "value: "+secret))
	hcm := conf.at("static_resources", "listeners", 0, "filter_chains", 0, "filters", 0, "typed_config")
	authz := hcm.at("http_filters", 0, "typed_config")
	host := hcm.at("route_config", "virtual_hosts", 0)
	d := &dataPlane{
		host: host.at("domains", 0).text(), pathPrefix: authz.at("http_service", "path_prefix").text(), adds: map[string]string{}, obeys: true, failed: http.StatusForbidden,
		app: w.app.server.URL, authproxy: authz.at("http_service", "server_uri", "uri").text(), closed: host.at("routes", 0, "direct_response", "status").v.(int),
	}
	if authz.at("status_on_error", "code").text() == "ServiceUnavailable" {
		d.failed = http.StatusServiceUnavailable
	}
	if authz.at("failure_mode_allow").v != false || hcm.at("normalize_path").v != true || hcm.at("merge_slashes").v != true || hcm.at("use_remote_address").v != true ||
		hcm.at("path_with_escaped_slashes_action").text() != "REJECT_REQUEST" || hcm.at("common_http_protocol_options", "headers_with_underscores_action").text() != "DROP_HEADER" {
		t.Fatal("the configuration is not the one that the simulation is of")
	}
	for _, m := range hcm.at("early_header_mutation_extensions", 0, "typed_config", "mutations").list() {
		d.remove = append(d.remove, m.at("remove").text())
	}
	var patterns []*regexp.Regexp
	for _, p := range authz.at("allowed_headers", "patterns").list() {
		expr := p.at("safe_regex", "regex").text()
		if expr == "" {
			expr = regexp.QuoteMeta(p.at("exact").text())
		}
		patterns = append(patterns, regexp.MustCompile("^(?:"+expr+")$"))
	}
	d.sends = func(name string) bool {
		return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(name) })
	}
	for _, h := range authz.at("http_service", "authorization_request", "headers_to_add").list() {
		d.adds[h.at("key").text()] = h.at("value").text()
	}
	for _, p := range authz.at("http_service", "authorization_response", "allowed_upstream_headers", "patterns").list() {
		d.takes = append(d.takes, p.at("exact").text())
	}
	d.route = func(path string) string {
		for _, r := range host.at("routes").list() {
			switch m := r.at("match"); {
			case m.at("path_separated_prefix").text() != "" && !below(path, m.at("path_separated_prefix").text()):
			case r.at("direct_response").v != nil:
				return "closed"
			case r.at("route", "cluster").text() == "authproxy":
				return "authproxy"
			case r.at("typed_per_filter_config").v == nil:
				return "app"
			}
		}
		return ""
	}
	w.listen(t, d.serve)
}

// startGateway is a Gateway that does no more than the Gateway API says of ExternalAuth over HTTP, on Envoy Gateway with the
// ClientTrafficPolicy that was printed.
func startGateway(t *testing.T, w *world, printed string) {
	all := resources[any](t, printed)
	route, policy := node{all[0]}, node{all[len(all)-1]}
	d := &dataPlane{host: "localhost:" + w.port, failed: http.StatusForbidden, app: w.app.server.URL, authproxy: "http://" + w.gate.listener.Addr().String()}
	d.remove = policy.at("spec", "headers", "earlyRequestHeaders", "remove").texts()
	if policy.at("spec", "headers", "withUnderscoresAction").text() != "DropHeader" || policy.at("spec", "path", "escapedSlashesAction").text() != "RejectRequest" ||
		route.at("spec", "hostnames", 0).text() != "localhost" || len(d.remove) > 64 {
		t.Fatal("the configuration is not the one that the simulation is of")
	}
	rules := route.at("spec", "rules").list()
	for _, r := range rules {
		for _, f := range r.at("filters").list() {
			if to := f.at("requestRedirect", "path", "replaceFullPath").text(); to != "" {
				d.redirect = to
			}
			d.late = append(d.late, f.at("requestHeaderModifier", "remove").texts()...)
			if h := f.at("externalAuth", "http"); h.v != nil {
				d.pathPrefix = h.at("path").text()
				d.takes = h.at("allowedResponseHeaders").texts()
				allowed := h.at("allowedHeaders").texts()
				d.sends = func(name string) bool {
					return slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, name) })
				}
			}
		}
	}
	if len(d.late) > 16 {
		t.Fatalf("a Gateway does not remove %d headers", len(d.late))
	}
	d.route = func(path string) string {
		longest, to := -1, ""
		for _, r := range rules {
			for _, m := range r.at("matches").list() {
				at := m.at("path", "value").text()
				if !below(path, at) || len(at) <= longest {
					continue
				}
				longest = len(at)
				switch {
				case r.at("filters", 0, "type").text() == "RequestRedirect":
					to = "redirect"
				case slices.ContainsFunc(r.at("filters").list(), func(f node) bool { return f.at("type").text() == "ExternalAuth" }):
					to = "app"
				default:
					to = r.at("backendRefs", 0, "name").text()
				}
			}
		}
		return to
	}
	w.listen(t, d.serve)
}
