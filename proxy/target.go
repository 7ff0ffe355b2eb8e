package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// A target is the one reading of where a request goes. The policy judges path, and the upstream gets raw and query, which
// mean the same; what has two readings was refused before there was a target.
type target struct {
	host  string // canonical: lower case, without the default port
	path  string // decoded and clean: begins with "/", no dot segments, no empty segments but the last
	raw   string // path as it came, still escaped
	query string // as it came
	bare  bool   // a "?" without a query came along
}

// uri is path and query as they came.
func (t target) uri() string {
	if t.query != "" || t.bare {
		return t.raw + "?" + t.query
	}
	return t.raw
}

// An unclean path is one that has dot segments or empty segments: it has a clean equivalent.
type uncleanError struct{ clean string } // escaped, with query

func (e *uncleanError) Error() string { return "the path has dot segments or double slashes" }

// An ambiguous target is one that two programs might read in two ways.
type ambiguousError struct{ what string }

func (e *ambiguousError) Error() string { return e.what }

func ambiguous(format string, args ...any) error {
	return &ambiguousError{fmt.Sprintf(format, args...)}
}

// splitTarget reads a request target in origin-form, or in absolute-form (RFC 9112 §3.2), of which it judges the shape only.
func splitTarget(uri string) (rawPath, rawQuery string, bare bool, err error) {
	for i := range len(uri) {
		if c := uri[i]; c <= ' ' || c == 0x7f {
			return "", "", false, ambiguous("the request target contains a control character or space")
		}
	}
	if strings.IndexByte(uri, '#') >= 0 { // RFC 9112 §3.2: a fragment is no part of a target
		return "", "", false, ambiguous("the request target contains a #")
	}
	if !strings.HasPrefix(uri, "/") {
		u, err := url.Parse(uri)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Opaque != "" {
			return "", "", false, ambiguous("the request target is neither a path nor an http URL")
		}
		_, rest, _ := strings.Cut(uri, "://")
		slash := strings.IndexAny(rest, "/?")
		switch {
		case slash < 0:
			return "/", "", false, nil
		case rest[slash] == '?':
			uri = "/" + rest[slash:]
		default:
			uri = rest[slash:]
		}
	}
	rawPath, rawQuery, found := strings.Cut(uri, "?")
	return rawPath, rawQuery, found && rawQuery == "", nil
}

// cleanPath decodes a path once. The error is an uncleanError when the path has a clean equivalent, and an ambiguousError
// when it has more than one meaning.
func cleanPath(raw string) (path string, err error) {
	plain := true // no escape, no parameter, no dot segment, no double slash
	for i := range len(raw) {
		switch c := raw[i]; {
		case c == '\\':
			return "", ambiguous("the path contains a backslash")
		case c == '%', c == ';', c >= 0x80:
			plain = false
		case (c == '/' || c == '.') && i > 0 && raw[i-1] == '/':
			plain = false
		}
	}
	if plain {
		return raw, nil
	}
	path, err = url.PathUnescape(raw)
	if err != nil {
		return "", ambiguous("the path contains an invalid escape")
	}
	if !utf8.ValidString(path) {
		return "", ambiguous("the path is not UTF-8")
	}
	for i := range len(path) {
		if c := path[i]; c < ' ' || c == 0x7f || c == '\\' {
			return "", ambiguous("the path contains an encoded control character or backslash")
		}
	}
	if strings.Count(path, "/") != strings.Count(raw, "/") {
		return "", ambiguous("the path contains an encoded slash")
	}
	if doublyEncoded(path) {
		return "", ambiguous("the path contains a double-encoded dot, slash, backslash or control character")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if name, _, found := strings.Cut(segment, ";"); found && (name == "." || name == "..") {
			return "", ambiguous("the path contains a ; next to a dot segment")
		}
	}
	if clean := cleanSegments(raw); clean != raw {
		return "", &uncleanError{clean}
	}
	return path, nil
}

// maxDecodings is how often what was decoded may be decoded again with another result.
const maxDecodings = 3

// doublyEncoded says whether a decoded path would, decoded again, once or more, gain a dot, a slash, a backslash or a
// control character, or would take more decodings than anybody writes.
func doublyEncoded(path string) bool {
	for range maxDecodings {
		next, structure := decodeAgain(path)
		if structure || next == path {
			return structure
		}
		path = next
	}
	return true
}

// decodeAgain decodes each valid escape once, as lenient programs do, and says whether there was structure in them: a dot,
// a slash, a backslash or a control character.
func decodeAgain(path string) (decoded string, structure bool) {
	at := strings.IndexByte(path, '%')
	if at < 0 {
		return path, false
	}
	b := []byte(path[:at])
	for i := at; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]) {
			c = unhex(path[i+1])<<4 | unhex(path[i+2])
			i += 2
			structure = structure || c < ' ' || c == '.' || c == '/' || c == '\\' || c == 0x7f
		}
		b = append(b, c)
	}
	return string(b), structure
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// cleanSegments removes dot segments and empty segments from an escaped path; what remains keeps its spelling. The result
// begins with exactly one slash.
func cleanSegments(raw string) string {
	var kept []string
	slash := false // the path ends in a slash
	for segment := range strings.SplitSeq(strings.TrimPrefix(raw, "/"), "/") {
		slash = false
		switch decoded, _ := url.PathUnescape(segment); decoded { // it was decoded before
		case "", ".":
			slash = true
		case "..":
			slash = true
			if len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
		default:
			kept = append(kept, segment)
		}
	}
	clean := "/" + strings.Join(kept, "/")
	if slash && len(kept) > 0 {
		clean += "/"
	}
	return clean
}

// compatibility reads the compatibility forms of what has a meaning in paths as that, as programs do that normalise (Unicode
// NFKC).
var compatibility = strings.NewReplacer("\u2024", ".", "\uff0e", ".", "\ufe52", ".", "\u2025", "..", "\u2026", "...",
	"\uff0f", "/", "\uff3c", "/", "\ufe68", "/", "\uff1b", ";", "\ufe54", ";", "\uff05", "%", "\ufe6a", "%")

// readings are the other paths that programs behind us may take a clean path for: they decode it again, they leave out the
// ";" parameters of its segments, or they normalise what looks like a dot, a slash or a semicolon.
func readings(path string) (others []string) {
	if strings.IndexFunc(path, func(c rune) bool { return c == '%' || c == ';' || c >= utf8.RuneSelf }) < 0 {
		return nil
	}
	add := func(other string) {
		if other != path && !slices.Contains(others, other) {
			others = append(others, other)
		}
	}
	again := path
	for {
		normal := compatibility.Replace(again)
		normalAgain, _ := decodeAgain(normal)
		for _, p := range [...]string{again, normal, normalAgain} {
			if p != path {
				add(decodedClean(p))
			}
			if strings.IndexByte(p, ';') >= 0 {
				add(withoutParameters(p))
			}
		}
		next, _ := decodeAgain(again)
		if next == again { // soon: cleanPath has refused more
			return others
		}
		again = next
	}
}

// withoutParameters is the clean path without the ";" parameters of its segments, as servlet containers read it.
func withoutParameters(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return decodedClean(strings.Join(segments, "/"))
}

// decodedClean is cleanSegments for a decoded path.
func decodedClean(path string) string {
	u := url.URL{Path: path}
	clean, err := url.PathUnescape(cleanSegments(u.EscapedPath()))
	if err != nil {
		return path
	}
	return clean
}

// below says whether a clean path is at or below root, by whole segments. A root of "" or "/" is above everything.
func below(path, root string) bool {
	root = strings.TrimSuffix(root, "/")
	return strings.HasPrefix(path, root) && (len(path) == len(root) || path[len(root)] == '/')
}

// checkMethod refuses a method with lower-case letters, and with characters that a method could have (RFC 9110 §5.6.2) and none has.
// Methods know case (§9.1), but some frameworks do not, and would take "post" for the POST that a route is about.
func checkMethod(method string) error {
	for i := range len(method) {
		if c := method[i]; (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return ambiguous("the method has lower-case letters, or what no method has")
		}
	}
	return nil
}

// readTarget gives the request its one reading, or says why there is none.
func (p *Proxy) readTarget(r *http.Request, host string) (target, error) {
	rawPath, query, bare, err := splitTarget(r.RequestURI)
	if err != nil {
		return target{}, err
	}
	if !strings.HasPrefix(r.RequestURI, "/") { // RFC 9112 §3.2.2; HTTP/2 has no such form, and net/http compares nothing there
		if name, err := canonicalHost(r.URL.Host, p.opts.PublicURL.Scheme); err != nil || name != host {
			return target{}, ambiguous("the request target is a URL of another host")
		}
	}
	t := target{host: host, raw: rawPath, query: query, bare: bare}
	t.path, err = cleanPath(rawPath)
	if unclean, ok := err.(*uncleanError); ok && (query != "" || bare) {
		return t, &uncleanError{unclean.clean + "?" + query}
	}
	return t, err
}
