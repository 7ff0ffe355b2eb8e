package config

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/netip"
	"net/textproto"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// anyText accepts every text, the empty one too.
func anyText(text string) (string, *fault) { return text, nil }

// nonEmpty accepts every text but the empty one and one that is only spaces.
func nonEmpty(text string) (string, *fault) {
	if strings.TrimSpace(text) == "" {
		return "", &fault{problem: "is empty", hint: "write a value or remove it"}
	}
	return text, nil
}

// minBytes accepts texts of at least n bytes.
func minBytes(n int) parser[string] {
	return func(text string) (string, *fault) {
		if len(text) < n {
			return "", &fault{problem: fmt.Sprintf("is shorter than %d bytes", n), hint: fmt.Sprintf("write at least %d random characters; authproxy keygen prints some", n)}
		}
		return text, nil
	}
}

// oneOf accepts exactly these texts.
func oneOf(choices ...string) parser[string] {
	return func(text string) (string, *fault) {
		if !slices.Contains(choices, text) {
			return "", &fault{problem: "is not one of " + strings.Join(choices, ", "), hint: "write one of " + strings.Join(choices, ", "), better: near(text, choices)}
		}
		return text, nil
	}
}

// logLevel accepts the names of levels.
func logLevel(text string) (slog.Level, *fault) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	_, f := oneOf("debug", "info", "warn", "error")(text)
	return levels[text], f
}

var (
	durationForm = regexp.MustCompile(`^([0-9]{1,9}(ms|s|m|h|d))+$`)
	durationPart = regexp.MustCompile(`([0-9]+)(ms|s|m|h|d)`)
	durationUnit = map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
)

// duration accepts whole numbers with units, like 1h30m, from least to most.
func duration(least, most time.Duration) parser[time.Duration] {
	return func(text string) (time.Duration, *fault) {
		if !durationForm.MatchString(text) {
			f := &fault{problem: "is not a duration with a unit", hint: "write whole numbers with the units ms, s, m, h or d, such as 90s, 15m, 1h30m or 7d"}
			if _, err := strconv.ParseUint(text, 10, 32); err == nil {
				f.better = text + "s, or another of the units ms, m, h, d"
			}
			return 0, f
		}
		var sum time.Duration
		for _, part := range durationPart.FindAllStringSubmatch(text, -1) {
			n, err := strconv.ParseInt(part[1], 10, 64)
			unit := durationUnit[part[2]]
			if err != nil || n > int64((most-min(sum, most))/unit) {
				sum = most + 1
				break
			}
			sum += time.Duration(n) * unit
		}
		if sum < least || sum > most {
			return 0, &fault{problem: fmt.Sprintf("is not between %s and %s", durationText(least), durationText(most)),
				hint: fmt.Sprintf("write a duration from %s to %s", durationText(least), durationText(most))}
		}
		return sum, nil
	}
}

// durationText writes d, a multiple of a millisecond, so that duration reads it.
func durationText(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var out strings.Builder
	for _, unit := range []string{"d", "h", "m", "s", "ms"} {
		if n := d / durationUnit[unit]; n > 0 {
			fmt.Fprintf(&out, "%d%s", n, unit)
			d %= durationUnit[unit]
		}
	}
	return out.String()
}

var (
	sizeForm = regexp.MustCompile(`^([0-9]{1,9})(B|KB|KiB|MB|MiB)$`)
	sizeUnit = map[string]int{"B": 1, "KB": 1000, "KiB": 1 << 10, "MB": 1_000_000, "MiB": 1 << 20}
)

// size accepts whole numbers of bytes with a unit, like 64KiB. leastKiB and mostKiB are in KiB.
func size(leastKiB, mostKiB int) parser[int] {
	return func(text string) (int, *fault) {
		m := sizeForm.FindStringSubmatch(text)
		if m == nil {
			return 0, &fault{problem: "is not a size with a unit", hint: "write a whole number with the unit B, KB, KiB, MB or MiB, such as 64KiB"}
		}
		n, err := strconv.ParseInt(m[1], 10, 64)
		if n *= int64(sizeUnit[m[2]]); err != nil || n < int64(leastKiB)<<10 || n > int64(mostKiB)<<10 {
			return 0, &fault{problem: fmt.Sprintf("is not between %dKiB and %dKiB", leastKiB, mostKiB), hint: fmt.Sprintf("write a size from %dKiB to %dKiB", leastKiB, mostKiB)}
		}
		return int(n), nil
	}
}

// integer accepts whole numbers from least to most.
func integer(least, most int) parser[int] {
	return func(text string) (int, *fault) {
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most || strings.HasPrefix(text, "+") {
			return 0, &fault{problem: fmt.Sprintf("is not a whole number from %d to %d", least, most), hint: fmt.Sprintf("write a number from %d to %d, without a unit", least, most)}
		}
		return n, nil
	}
}

var hostForm = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$`)

// hostName accepts host names and IPv4 addresses without a port, and folds them to lower case.
func hostName(text string) (string, *fault) {
	host := lower(text)
	f := &fault{problem: "is not a host name", hint: "write a host name and nothing else, such as app.example.com; names in other scripts in their xn-- form"}
	switch last := host[strings.LastIndexByte(host, '.')+1:]; {
	case text == "":
		f.problem = "is empty"
	case strings.Contains(host, "://"):
		f.problem = "is a URL, expected a host name"
		f.better, _, _ = strings.Cut(host[strings.Index(host, "://")+3:], "/")
	case strings.Contains(host, "/"):
		f.problem = "has a path, expected a host name"
		f.better, _, _ = strings.Cut(host, "/")
	case strings.Contains(host, "*"):
		f.problem, f.hint = "holds a wildcard, and names are compared whole", "write each host name"
	case strings.HasPrefix(host, "."), strings.HasSuffix(host, "."):
		f.problem, f.better = "begins or ends with a dot", strings.Trim(host, ".")
	case len(host) > 253, !hostForm.MatchString(host):
	case strings.Trim(last, "0123456789") == "" && !isIP(host): // RFC 3696 §2: a top-level domain is not all digits
	default:
		return host, nil
	}
	return "", f
}

// hostAndPort accepts a host name, optionally with a port.
func hostAndPort(text string) (string, *fault) {
	name, port, found := strings.Cut(text, ":")
	if !found || strings.HasPrefix(port, "//") {
		return hostName(text)
	}
	host, f := hostName(name)
	if f == nil && !isPort(port) {
		f = &fault{problem: "has no valid port", hint: "write a host name, or HOST:PORT with a port from 1 to 65535"}
	}
	return host + ":" + port, f
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s[0] != '0'
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}

// isLoopback reports whether host, perhaps in brackets, is localhost or a loopback address.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// webURL accepts an absolute URL with one of these schemes, a valid host, and neither userinfo, query nor fragment.
func webURL(text string, schemes ...string) (*url.URL, *fault) {
	example := "write a URL such as " + schemes[0] + "://app.example.com"
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		f := &fault{problem: "has no scheme", hint: example}
		if text != "" && !slices.ContainsFunc(schemes, func(s string) bool { return strings.HasPrefix(text, s+":") }) {
			f.better = schemes[0] + "://" + text
			if host, _, _ := strings.Cut(text, ":"); slices.Contains(schemes, "http") && (isLoopback(lower(host)) || strings.HasPrefix(text, "[::1]")) {
				f.better = "http://" + text
			}
		}
		return nil, f
	}
	if !slices.Contains(schemes, scheme) {
		return nil, &fault{problem: "has a scheme other than " + strings.Join(schemes, ", "), hint: example}
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, &fault{problem: "is not a URL", hint: example}
	case u.User != nil:
		return nil, &fault{problem: "holds user name or password", hint: "remove what stands before the @"}
	case strings.ContainsAny(rest, "?#"):
		return nil, &fault{problem: "has a query or fragment", hint: "remove what begins with ? or #"}
	case u.Port() == "" && strings.HasSuffix(u.Host, ":"), u.Port() != "" && !isPort(u.Port()):
		return nil, &fault{problem: "has no valid port", hint: "write a port from 1 to 65535, or none"}
	}
	if strings.HasPrefix(u.Host, "[") {
		if addr, err := netip.ParseAddr(u.Hostname()); err != nil || addr.Zone() != "" {
			return nil, &fault{problem: "has no valid IPv6 address", hint: "write an address such as [::1]"}
		}
	} else if _, f := hostName(u.Hostname()); f != nil {
		return nil, &fault{problem: "has no valid host name", hint: example + "; names in other scripts in their xn-- form"}
	}
	u.Host = lower(u.Host)
	return u, nil
}

// publicURL accepts what users type: scheme and host. Plain http is for trying things out on the own machine.
func publicURL(text string) (*url.URL, *fault) {
	const hint = "write the URL that users type, such as https://app.example.com, or http://localhost:8080 to try it out"
	if text == "" {
		return nil, &fault{problem: "is empty", hint: hint}
	}
	u, f := webURL(text, "https", "http")
	switch {
	case f != nil:
		return nil, f
	case u.Path != "" && u.Path != "/":
		return nil, &fault{problem: "has a path", hint: "write scheme and host only; where our own endpoints are is said by prefix", better: u.Scheme + "://" + u.Host}
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, &fault{problem: "is http, which is for localhost and loopback addresses only", hint: hint, better: "https://" + u.Host}
	}
	host := u.Host
	if port := u.Port(); u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return &url.URL{Scheme: u.Scheme, Host: host}, nil
}

// issuer accepts the issuer of a provider (OpenID Connect Discovery §3: https, without query and fragment); http for a
// provider on this machine. The text is kept as it is, because the iss of tokens is compared with all of it.
func issuer(text string) (string, *fault) {
	u, f := webURL(text, "https", "http")
	switch {
	case f != nil:
		return "", f
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return "", &fault{problem: "is http, which is for localhost and loopback addresses only", hint: "write the issuer with https", better: "https" + strings.TrimPrefix(text, "http")}
	case strings.Contains(u.Path, "/.well-known/"):
		return "", &fault{problem: "is the address of a document, expected the issuer", hint: "leave out /.well-known/ and what follows", better: text[:strings.Index(text, ".well-known/")]}
	}
	return text, nil
}

// upstreamURL accepts where an app is: http, https or h2c with a host, or unix:/path.
func upstreamURL(text string) (*url.URL, *fault) {
	if socket, ok := strings.CutPrefix(text, "unix:"); ok {
		name, f := socketPath(socket)
		return &url.URL{Scheme: "unix", Path: name, OmitHost: true}, f // written as unix:/path
	}
	u, f := webURL(text, "http", "https", "h2c")
	if f != nil {
		if text == "" {
			f = &fault{problem: "is empty", hint: "write a URL such as http://127.0.0.1:5000, or unix:/path"}
		}
		return nil, f
	}
	if u.Path != "" && u.Path != "/" {
		return nil, &fault{problem: "has a path", hint: "write scheme and host only: the upstream gets the path that users ask for, without that of the route with strip_prefix",
			better: u.Scheme + "://" + u.Host}
	}
	u.Path = ""
	return u, nil
}

// socketPath accepts the absolute path of a Unix socket.
func socketPath(text string) (string, *fault) {
	const longest = 107 // bytes, of sun_path in unix(7) without the final zero
	switch {
	case !strings.HasPrefix(text, "/"), path.Clean(text) != text, text == "/":
		f := &fault{problem: "has no absolute path after unix:", hint: "write unix:/path/of/socket"}
		if socket := path.Clean(text); strings.HasPrefix(text, "//") && socket != "/" { // as in a URL
			f.better = "unix:" + socket
		}
		return "", f
	case len(text) > longest:
		return "", &fault{problem: fmt.Sprintf("has a path longer than %d bytes", longest), hint: "choose a shorter path; the operating system takes no longer one for a socket"}
	}
	return text, nil
}

// listenAddr accepts host:port with or without a host, and unix:/path.
func listenAddr(text string) (Addr, *fault) {
	if socket, ok := strings.CutPrefix(text, "unix:"); ok {
		name, f := socketPath(socket)
		return Addr{"unix", name}, f
	}
	f := &fault{problem: "is neither host:port nor unix:/path", hint: `write an address such as ":8080", "127.0.0.1:8080" or "unix:/run/authproxy.sock"`}
	if isPort(text) {
		f.better = `":` + text + `"`
	}
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return Addr{}, f
	}
	host, port := text[:i], text[i+1:]
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return Addr{}, f
	}
	if bare, ok := strings.CutPrefix(host, "["); ok {
		if addr, err := netip.ParseAddr(strings.TrimSuffix(bare, "]")); err != nil || !addr.Is6() || !strings.HasSuffix(bare, "]") {
			return Addr{}, f
		}
	} else if host != "" {
		if _, wrong := hostName(host); wrong != nil {
			return Addr{}, f
		}
	}
	return Addr{"tcp", text}, nil
}

var plainSegments = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*$`)

// prefix accepts the path of our own endpoints; the result is "" for "/".
func prefix(text string) (string, *fault) {
	const hint = "write a path of letters, digits and . _ ~ - such as /auth, or /"
	if !strings.HasPrefix(text, "/") {
		return "", &fault{problem: "does not begin with /", hint: hint, better: "/" + text}
	}
	if text == "/" {
		return "", nil
	}
	if path.Clean(text) != text || !plainSegments.MatchString(text) {
		return "", &fault{problem: "is not a plain path", hint: hint, better: cleaner(text)}
	}
	return text, nil
}

// routePath accepts the path of a route: clean and decoded. It is compared by segments, never as a pattern.
func routePath(text string) (string, *fault) {
	switch {
	case !strings.HasPrefix(text, "/"):
		return "", &fault{problem: "does not begin with /", hint: "write a path such as /admin; a host goes into host", better: cleaner("/" + text)}
	case strings.ContainsAny(text, "*{}[]|^"):
		return "", &fault{problem: "looks like a pattern, and paths are compared literally", hint: "write the path without it: a path covers itself and everything below it",
			better: cleaner(strings.TrimRight(text, "*/"))}
	case strings.ContainsAny(text, "%?#;\\"):
		return "", &fault{problem: `holds one of % ? # ; \`, hint: "write the path alone, decoded: spaces and letters as they are, without query or parameters"}
	case path.Clean(text) != text:
		return "", &fault{problem: "is not clean", hint: "leave out dot segments, empty segments and the slash at the end: a path covers itself and everything below it", better: cleaner(text)}
	}
	return text, nil
}

// cleaner is a clean path to suggest, or "" when text holds more than cleaning can mend.
func cleaner(text string) string {
	if text = path.Clean(text); plainSegments.MatchString(text) {
		return text
	}
	return ""
}

// token is the form of methods and header names, RFC 9110 §5.6.2.
var token = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// method accepts a method in capitals. Methods are case-sensitive (RFC 9110 §9.1), so that "get" would match nothing.
func method(text string) (string, *fault) {
	if !token.MatchString(text) || strings.ToUpper(text) != text {
		return "", &fault{problem: "is not a method in capital letters", hint: "write methods such as GET, POST or PROPFIND", better: methodLike(text)}
	}
	return text, nil
}

func methodLike(text string) string {
	if up := strings.ToUpper(text); token.MatchString(up) {
		return up
	}
	return ""
}

// email accepts an address and folds ASCII letters to lower case.
func email(text string) (string, *fault) {
	local, domain, found := strings.Cut(text, "@")
	if !found || local == "" || domain == "" || strings.ContainsAny(domain, "@,;*") || strings.ContainsFunc(text, unicode.IsSpace) || strings.Contains(local, "*") {
		return "", &fault{problem: "is not an e-mail address", hint: "write one address such as ada@example.com; whole domains go into email_domains"}
	}
	return lower(text), nil
}

// emailDomain accepts what stands behind the @, and folds it to lower case.
func emailDomain(text string) (string, *fault) {
	if before, domain, found := strings.Cut(text, "@"); found {
		f := &fault{problem: "holds an @, expected a domain", hint: "write the domain alone, such as example.com; addresses go into emails"}
		if before == "" {
			f.better = domain
		}
		return "", f
	}
	return hostName(text)
}

// lower folds ASCII letters, and only them: folding more would make different addresses equal.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// network accepts a CIDR or a single address.
func network(text string) (netip.Prefix, *fault) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil || p.Addr().Is4In6():
		return netip.Prefix{}, &fault{problem: "is neither a CIDR nor an address", hint: "write a CIDR such as 10.1.0.0/16 or fd00::/8, or one address"}
	case p.Masked() != p:
		return netip.Prefix{}, &fault{problem: "has address bits beyond its length", hint: "write the network's first address, or the one address without a length", better: p.Masked().String() + ", or " + p.Addr().String() + " for the one address"}
	}
	return p, nil
}

var scopeForm = regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]+$`)

// scope accepts a scope-token of RFC 6749 §3.3.
func scope(text string) (string, *fault) {
	if !scopeForm.MatchString(text) {
		return "", &fault{problem: "is not one scope", hint: "write each scope as an element of the list: [openid, profile, email]"}
	}
	return text, nil
}

// placeholders are words of keys that people type. A key of authproxy keygen holds one about once in 10^7 times.
var placeholders = []string{"changeme", "secret", "password", "example"}

// isPlaceholder reports whether s holds one of these words, in any case and with or without hyphens in it.
func isPlaceholder(s string) bool {
	s = strings.NewReplacer("-", "", "_", "").Replace(lower(s))
	return slices.ContainsFunc(placeholders, func(word string) bool { return strings.Contains(s, word) })
}

// repeats reports whether s begins with a block of at most half its length and goes on with it to its end.
func repeats(s string) bool {
	for n := 1; n <= len(s)/2; n++ {
		if s[n:] == s[:len(s)-n] {
			return true
		}
	}
	return false
}

// sessionKey accepts at least 32 bytes in base64 or base64url, with or without padding, that look random: what people
// type to try something out would let everybody who guesses it make sessions.
func sessionKey(text string) ([]byte, *fault) {
	const least, distinct = 32, 8
	const hint = "write a key that authproxy keygen printed, best as ${NAME} or ${file:/path}"
	plain := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	k, err := base64.RawStdEncoding.DecodeString(plain)
	switch {
	case text == "":
		return nil, &fault{problem: "is empty", hint: hint}
	case err != nil:
		return nil, &fault{problem: "is not base64 or base64url", hint: hint}
	case len(k) < least:
		return nil, &fault{problem: fmt.Sprintf("is a key of %d bytes, expected at least %d", len(k), least), hint: hint}
	case isPlaceholder(text), isPlaceholder(string(k)):
		return nil, &fault{problem: "holds a word such as secret or change-me, and is not random", hint: hint}
	case repeats(plain), repeats(string(k)):
		return nil, &fault{problem: "repeats itself, and is not random", hint: hint}
	}
	seen := map[byte]bool{}
	for _, b := range k {
		seen[b] = true
	}
	if len(seen) < distinct { // 32 random bytes have fewer once in 10^37 times
		return nil, &fault{problem: "is not random", hint: hint}
	}
	return k, nil
}

var cookieNameForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// cookieName accepts a name to which __Host- or __Secure- can be put in front.
func cookieName(text string) (string, *fault) {
	if !cookieNameForm.MatchString(text) {
		return "", &fault{problem: "is not a cookie name", hint: "write 1 to 64 letters, digits, _ or -"}
	}
	for _, p := range []string{"__host-", "__secure-"} {
		if strings.HasPrefix(lower(text), p) {
			return "", &fault{problem: "begins with a prefix that we add ourselves", hint: "write the name without it", better: text[len(p):]}
		}
	}
	return text, nil
}

// sharedSuffixes are domains below which anybody can have a name, beyond those of a single label. The real list
// (publicsuffix.org) has thousands: these are what people host small services on, to catch the likely mistake. Browsers
// refuse the others.
var sharedSuffixes = strings.Fields(`co.uk org.uk ac.uk gov.uk com.au net.au org.au co.nz co.jp com.br com.cn co.in co.za com.mx com.tr
	github.io gitlab.io pages.dev workers.dev vercel.app netlify.app herokuapp.com fly.dev onrender.com azurewebsites.net cloudfront.net
	appspot.com web.app firebaseapp.com run.app duckdns.org ngrok.io ngrok.app ngrok-free.app ts.net trycloudflare.com nip.io sslip.io dyndns.org no-ip.org`)

// cookieDomain accepts a domain that a cookie may be for.
func cookieDomain(text string) (string, *fault) {
	domain, f := hostName(text)
	switch {
	case f != nil:
		return "", f
	case isIP(domain):
		return "", &fault{problem: "is an address, and cookies of addresses are for one host", hint: "remove cookie.domain, or use host names"}
	case !strings.Contains(domain, "."):
		return "", &fault{problem: "is a single label, and browsers refuse cookies for it", hint: "write a domain that is yours, such as example.com, or remove cookie.domain"}
	case slices.Contains(sharedSuffixes, domain):
		return "", &fault{problem: "is shared by people who do not know each other", hint: "write a domain that is yours alone, or remove cookie.domain"}
	}
	return domain, nil
}

// redisURL accepts redis:// and rediss:// with one host or several, as far as their form goes.
func redisURL(text string) (string, *fault) {
	const hint = "write redis://HOST:6379/0, with rediss:// for TLS, several hosts separated by commas for a cluster"
	scheme, rest, _ := strings.Cut(text, "://")
	if scheme != "redis" && scheme != "rediss" {
		return "", &fault{problem: "does not begin with redis:// or rediss://", hint: hint}
	}
	rest, query, _ := strings.Cut(rest, "?")
	if _, err := url.ParseQuery(query); err != nil || strings.Contains(text, "#") {
		return "", &fault{problem: "has a malformed query, or a # that is not written %23", hint: hint}
	}
	user, hosts, found := cutLast(rest, "@")
	if !found {
		user, hosts = "", rest
	}
	if _, err := url.PathUnescape(user); err != nil {
		return "", &fault{problem: "has a malformed escape before the @", hint: "write a % of the password as %25"}
	}
	hosts, db, _ := strings.Cut(hosts, "/")
	if _, err := strconv.ParseUint(db, 10, 16); err != nil && db != "" {
		return "", &fault{problem: "has no number as its database", hint: hint}
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if addr, f := listenAddr(withPort(host)); f != nil || strings.HasPrefix(addr.Address, ":") {
			return "", &fault{problem: "has a host that is not HOST or HOST:PORT", hint: hint}
		}
	}
	return text, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// withPort is host with some port when it has none.
func withPort(host string) string {
	if i := strings.LastIndexByte(host, ':'); i < 0 || strings.HasSuffix(host, "]") {
		return host + ":6379"
	}
	return host
}

// headerName accepts the name of a request header that we may set from what we know about a user.
func headerName(text string) (string, *fault) {
	folded := fold(text)
	switch {
	case !token.MatchString(text):
		return "", &fault{problem: "is not a header name", hint: "write a name of letters, digits and hyphens, such as X-User"}
	case len(text) > 128:
		return "", &fault{problem: "is longer than 128 bytes", hint: "choose a shorter name"}
	case slices.Contains(reservedHeaders, folded), slices.ContainsFunc(reservedPrefixes, func(p string) bool { return strings.HasPrefix(folded, p) }):
		return "", &fault{problem: "is a header with a meaning of its own", hint: "choose another name, such as X-User"}
	}
	return textproto.CanonicalMIMEHeaderKey(text), nil
}

// fold is how two header names are compared: many servers take - and _ for the same (CGI, RFC 3875 §4.1.18), some every
// other character.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, lower(name))
}

// Headers that frame or route the message, carry credentials, or that we set ourselves; folded.
var (
	reservedHeaders = strings.Fields(`host cookie cookie2 set-cookie set-cookie2 authorization connection keep-alive te trailer transfer-encoding upgrade expect
		forwarded via x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port x-forwarded-prefix x-forwarded-server x-forwarded-uri x-forwarded-method
		x-forwarded-scheme x-forwarded-ssl x-real-ip x-request-id x-rewrite-url x-http-method x-http-method-override x-method-override x-authproxy-secret
		signature signature-input proxy accept origin referer range date user-agent location http2-settings alt-svc cache-control pragma vary`)
	reservedPrefixes = []string{"content-", "proxy-", "sec-", "if-", "accept-", "access-control-", "x-original-"}
)
