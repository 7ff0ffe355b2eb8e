package proxy

import (
	"net/http"
	"slices"
	"strings"
)

// hygiene knows which headers are ours to send. Names are compared folded, because frameworks behind us read X_Forwarded_User
// or X.Forwarded.User as X-Forwarded-User.
type hygiene struct {
	reserved headerSet       // what no client may send to an upstream
	identity headerSet       // of that, what says who the user is
	response map[string]bool // folded names that a response must not carry
	cookies  cookieNames
}

// A headerSet is a set of names and of beginnings of names, folded.
type headerSet struct {
	names    map[string]bool
	prefixes [256][]string // by their first byte
}

// add adds a name. A trailing * stands for any ending.
func (s *headerSet) add(patterns ...string) {
	if s.names == nil {
		s.names = map[string]bool{}
	}
	for _, pattern := range patterns {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
			folded := fold(prefix)
			s.prefixes[folded[0]] = append(s.prefixes[folded[0]], folded)
		} else {
			s.names[fold(pattern)] = true
		}
	}
}

// has says whether a name is in the set, in whatever spelling.
func (s *headerSet) has(name string) bool {
	var buf [64]byte
	folded := appendFolded(buf[:0], name)
	if len(folded) == 0 {
		return true
	}
	for _, p := range s.prefixes[folded[0]] {
		if len(folded) >= len(p) && string(folded[:len(p)]) == p {
			return true
		}
	}
	return s.names[string(folded)]
}

// ours are the headers that no client may send to an upstream through us. A trailing * stands for any ending.
var ours = []string{
	"X-Request-Id",
	"Forwarded", "X-Forwarded", "X-Forwarded-*", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Client-Ip", "Proxy-Client-Ip", "Cf-Connecting-Ip", "Fastly-Client-Ip",
	"X-Host", "X-Scheme", "X-Url-Scheme", "Front-End-Https", "X-Sendfile-Type", "X-Accel-Mapping", "X-Middleware-Subrequest", // what front servers say to frameworks

	"X-Original-*", "X-Rewrite-Url", "X-Envoy-Original-Path", // which URL was asked for
	"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", // which method
	"Proxy", // CGI reads it as HTTP_PROXY
}

// foreign are the headers by which other products tell an app who the user is.
var foreign = []string{
	"Remote-User", "Remote-Email", "Remote-Name", "Remote-Groups", "X-Remote-*", "X-Webauth-*", "X-Userinfo", "X-Grafana-Id",
	"X-Auth-Request-*", "X-Auth-User", "X-Auth-Username", "X-Auth-Email", "X-Auth-Name", "X-Auth-Groups", "X-Auth-Roles", "X-Authenticated-*",
	"X-Vouch-*", "X-Authentik-*", "X-Authelia-*", "X-Pomerium-*", "X-Oathkeeper-*", "X-Goog-Authenticated-User-*", "X-Goog-Iap-*", "Cf-Access-*",
	"X-Amzn-Oidc-*", "X-Ms-Client-Principal", "X-Ms-Client-Principal-*", "X-Ms-Token-*", "Tailscale-*", "X-Tailscale-*", "Oidc-*", "X-Oidc-*",
	"Ssl-Client-*", "X-Ssl-*", "X-Client-Cert", "X-Client-Cert-*", "X-Tls-Client-*", "Client-Cert", "Client-Cert-Chain",
}

// ForeignHeaders are the headers by which other products tell an app who the user is, and ClientHeaders those that say
// something about the client's request which only a proxy may say. A trailing * stands for any ending.
func ForeignHeaders() []string { return slices.Clone(foreign) }

// ClientHeaders is described at ForeignHeaders.
func ClientHeaders() []string { return slices.Clone(ours) }

// newHygiene returns the rules for a configuration: mapped are the names of identity.headers and of the assertion.
func newHygiene(mapped []string, signs, stripForeign bool, cookies cookieNames) *hygiene {
	h := &hygiene{response: map[string]bool{}, cookies: cookies}
	for _, set := range []*headerSet{&h.reserved, &h.identity} {
		set.add("X-Authproxy-*")
		set.add(mapped...)
		if stripForeign {
			set.add(foreign...)
		}
	}
	h.reserved.add(ours...)
	if signs {
		h.reserved.add("Signature", "Signature-Input")
	}
	for _, name := range mapped {
		h.response[fold(name)] = true
	}
	return h
}

// fold is the form in which names are compared: lower case, every character other than a letter or digit as "-".
func fold(name string) string {
	var buf [64]byte
	return string(appendFolded(buf[:0], name))
}

func appendFolded(b []byte, name string) []byte {
	for i := range len(name) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		default:
			c = '-'
		}
		b = append(b, c)
	}
	return b
}

// request removes from headers on their way to an upstream everything that only we may send, and our cookies.
func (h *hygiene) request(header http.Header) {
	for name := range header {
		if h.reserved.has(name) {
			delete(header, name)
		}
	}
	h.cookies.strip(header)
}

// ourWord says whether a response header of that name would look like our word.
func (h *hygiene) ourWord(name string) bool {
	var buf [64]byte
	folded := appendFolded(buf[:0], name)
	return h.response[string(folded)] || strings.HasPrefix(string(folded), "x-authproxy-")
}

// answer removes from headers on their way to a client what only we may set: our cookies, and what would look like our word.
func (h *hygiene) answer(header http.Header) {
	for name := range header {
		if h.ourWord(name) {
			delete(header, name)
		}
	}
	if set := header["Set-Cookie"]; len(set) > 0 {
		set = slices.DeleteFunc(slices.Clone(set), h.cookies.setBy)
		if len(set) == 0 {
			delete(header, "Set-Cookie")
		} else {
			header["Set-Cookie"] = set
		}
	}
}

// trailers removes the same from trailers, and every cookie: they set none (RFC 9110 §6.5.1), but some proxies in front of us
// merge them into the header. They are those of an upstream's response, or the header of an answer of which the head was sent.
func (h *hygiene) trailers(header http.Header) {
	for name := range header {
		if bare := strings.TrimPrefix(name, http.TrailerPrefix); bare == "Set-Cookie" || h.ourWord(bare) {
			delete(header, name)
		}
	}
}

// interim keeps of an interim (1xx) response what may pass: hints about what to load. Anything else waits for the final
// response, whose headers are judged as a whole.
func interim(header http.Header) {
	for name := range header {
		if name != "Link" {
			delete(header, name)
		}
	}
}

// cookieNames are the cookies that are ours: the session's, those of logins, and the one that says that a logout is just over.
type cookieNames struct {
	session string
	login   string // prefix
	out     string
}

func newCookieNames(session string) cookieNames {
	return cookieNames{session, session + "-login-", session + "-out"}
}

func (c cookieNames) own(name string) bool {
	return name == c.session || name == c.out || strings.HasPrefix(name, c.login)
}

// setBy says whether a Set-Cookie line sets a cookie of ours, or one that some browser might take for it: names that differ
// in case, and a line without a name whose value begins with ours, which browsers send back as if it were the name.
func (c cookieNames) setBy(line string) bool {
	pair, _, _ := strings.Cut(line, ";")
	name, value, found := strings.Cut(pair, "=")
	name = strings.TrimSpace(name)
	if !found {
		value = name
		name = ""
	}
	if name == "" {
		name, _, _ = strings.Cut(strings.TrimSpace(value), "=")
		name = strings.TrimSpace(name)
	}
	name = strings.ToLower(name)
	return name == strings.ToLower(c.session) || name == strings.ToLower(c.out) || strings.HasPrefix(name, strings.ToLower(c.login))
}

// values returns the values of the cookies of that name, as they were sent, and at most two of them: more than one is
// believed as little as none.
func cookieValues(header http.Header, name string) (values []string) {
	for _, line := range header["Cookie"] {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			if n, v, ok := strings.Cut(strings.TrimLeft(pair, " \t"), "="); ok && n == name {
				if values = append(values, strings.TrimRight(v, " \t")); len(values) == 2 {
					return values
				}
			}
		}
	}
	return values
}

// strip takes our cookies out of Cookie and leaves every other byte-identical and in its place.
func (c cookieNames) strip(header http.Header) {
	lines := header["Cookie"]
	if len(lines) == 0 || !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, c.session) }) {
		return
	}
	var kept []string
	for _, line := range lines {
		if !strings.Contains(line, c.session) {
			kept = append(kept, line)
			continue
		}
		var out strings.Builder
		out.Grow(len(line))
		for pair := range strings.SplitSeq(line, ";") {
			name, _, _ := strings.Cut(strings.TrimLeft(pair, " \t"), "=")
			if c.own(strings.TrimRight(name, " \t")) {
				continue
			}
			if out.Len() > 0 {
				out.WriteByte(';')
			} else {
				pair = strings.TrimLeft(pair, " \t")
			}
			out.WriteString(pair)
		}
		if strings.Trim(out.String(), " \t") != "" {
			kept = append(kept, out.String())
		}
	}
	if len(kept) == 0 {
		delete(header, "Cookie")
		return
	}
	header["Cookie"] = kept
}
