package proxy

import (
	"fmt"
	"net/http"
	"net/url"
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

// splitTarget reads a request target in origin-form, or in absolute-form (RFC 9112 §3.2). The authority of an
// absolute-form has taken the place of Host already (net/http, RFC 9112 §3.2.2); here only its shape is judged.
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
// when it has more than one meaning (contract section 4).
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

// doublyEncoded says whether a decoded path would, decoded again, once or more, gain a dot, a slash, a backslash or a
// control character.
func doublyEncoded(path string) bool {
	for {
		i := strings.IndexByte(path, '%')
		if i < 0 {
			return false
		}
		path = path[i+1:]
		rest := path
		for strings.HasPrefix(rest, "25") {
			rest = rest[2:]
		}
		if len(rest) < 2 {
			continue
		}
		switch code := strings.ToLower(rest[:2]); {
		case code == "2e", code == "2f", code == "5c", code == "7f", code[0] == '0' && isHex(code[1]), code[0] == '1' && isHex(code[1]):
			return true
		}
	}
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }

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

// withoutParameters is the clean path without the ";" parameters of its segments, as servlet containers read it.
func withoutParameters(path string) string {
	if strings.IndexByte(path, ';') < 0 {
		return path
	}
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

// readTarget gives the request its one reading, or says why there is none.
func (p *Proxy) readTarget(r *http.Request, host string) (target, error) {
	rawPath, query, bare, err := splitTarget(r.RequestURI)
	if err != nil {
		return target{}, err
	}
	t := target{host: host, raw: rawPath, query: query, bare: bare}
	t.path, err = cleanPath(rawPath)
	if unclean, ok := err.(*uncleanError); ok && (query != "" || bare) {
		return t, &uncleanError{unclean.clean + "?" + query}
	}
	return t, err
}
