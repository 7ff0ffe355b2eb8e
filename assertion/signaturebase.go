package assertion

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// A component names a part of a message that a signature covers (RFC 9421 §2).
type component struct {
	name   string // "@method", or a field name in lower case
	params string // as they are written, each with its semicolon; of our own components "", and any other is refused
}

// signatureBase is the text that is signed (RFC 9421 §2.5): a line for each component and one for params, which is the
// inner list with the parameters of the signature, as in Signature-Input.
//
// Values are not restricted to ASCII, as the RFC wants: a query may hold other bytes, apps get them, and the same bytes
// mean the same to both sides. What could end a line is refused.
func signatureBase(components []component, params string, value func(component) (string, error)) ([]byte, error) {
	base := make([]byte, 0, 1024)
	for _, c := range components {
		v, err := value(c)
		if err != nil {
			return nil, err
		}
		for i := range len(v) {
			if v[i] < ' ' && v[i] != '\t' || v[i] == 0x7f {
				return nil, fmt.Errorf("assertion: component %q has the control character %q in it", c.name, v[i])
			}
		}
		base = append(base, '"')
		base = append(base, c.name...)
		base = append(base, '"')
		base = append(base, c.params...)
		base = append(base, ": "...)
		base = append(base, v...)
		base = append(base, '\n')
	}
	base = append(base, `"@signature-params": `...)
	return append(base, params...), nil
}

// componentsOf returns the function that finds the values of the components that we sign. scheme is that of the request's
// target, and authority the value of its Host header.
func componentsOf(req *http.Request, scheme, authority string) func(component) (string, error) {
	return func(c component) (string, error) {
		switch {
		case c.params != "":
			return "", fmt.Errorf("assertion: component %q has parameters", c.name)
		case c.name == "@method": // RFC 9421 §2.2.1: as it is, in its case
			if req.Method == "" {
				return http.MethodGet, nil
			}
			return req.Method, nil
		case c.name == "@authority":
			return normalAuthority(scheme, authority), nil
		case c.name == "@path": // RFC 9421 §2.2.6: an empty path is "/"
			if p := req.URL.EscapedPath(); p != "" {
				return p, nil
			}
			return "/", nil
		case c.name == "@query": // RFC 9421 §2.2.7: without a query, the question mark alone
			return "?" + req.URL.RawQuery, nil
		case strings.HasPrefix(c.name, "@"):
			return "", fmt.Errorf("assertion: component %q is not one that we sign", c.name)
		}
		values := req.Header.Values(c.name)
		if len(values) == 0 {
			return "", fmt.Errorf("assertion: component %q is not in the message", c.name)
		}
		return fieldValue(values), nil
	}
}

// normalAuthority is RFC 9421 §2.2.3: lower case, without the default port of the scheme.
func normalAuthority(scheme, authority string) string {
	authority = strings.ToLower(authority)
	switch scheme {
	case "http":
		return strings.TrimSuffix(authority, ":80")
	case "https":
		return strings.TrimSuffix(authority, ":443")
	}
	return authority
}

// fieldValue is RFC 9421 §2.1: the lines of a field without white space around them, joined.
func fieldValue(values []string) string {
	if len(values) == 1 {
		return strings.Trim(values[0], " \t")
	}
	trimmed := make([]string, len(values))
	for i, v := range values {
		trimmed[i] = strings.Trim(v, " \t")
	}
	return strings.Join(trimmed, ", ")
}

// A signatureInput is one member of a Signature-Input field (RFC 9421 §4.1).
type signatureInput struct {
	components []component
	text       string // what @signature-params is: all of the member's value

	created, expires       int64 // Unix seconds; 0 when absent
	nonce, keyID, alg, tag string
}

const (
	maxSignatureInput = 8 << 10 // bytes
	maxComponents     = 64
	maxSignature      = 1 << 10 // bytes, decoded
)

// parseSignatureInput reads a Signature-Input field that has one member with that label, in the one spelling that RFC 9651
// serializes it to: what is accepted has no other reading. Strings with backslashes and parameters that RFC 9421 §2.3 does
// not name are refused.
func parseSignatureInput(field, label string) (*signatureInput, error) {
	if len(field) > maxSignatureInput {
		return nil, fmt.Errorf("assertion: Signature-Input of %d bytes, want %d at most", len(field), maxSignatureInput)
	}
	text, ok := strings.CutPrefix(field, label+"=")
	if !ok {
		return nil, fmt.Errorf("assertion: Signature-Input does not begin with the label %q", label)
	}
	in := &signatureInput{text: text}
	rest, ok := strings.CutPrefix(text, "(")
	if !ok {
		return nil, errors.New("assertion: Signature-Input has no list of components")
	}
	var err error
	for !strings.HasPrefix(rest, ")") {
		if len(in.components) > 0 {
			if rest, ok = strings.CutPrefix(rest, " "); !ok {
				return nil, errors.New("assertion: Signature-Input: want a space or the end of the list after a component")
			}
		}
		var c component
		if c.name, rest, err = cutString(rest); err != nil {
			return nil, err
		}
		before := rest
		for strings.HasPrefix(rest, ";") {
			if _, _, rest, err = cutParameter(rest); err != nil {
				return nil, err
			}
		}
		c.params = before[:len(before)-len(rest)]
		// RFC 9421 §2: each component once.
		for _, other := range in.components {
			if other == c {
				return nil, fmt.Errorf("assertion: Signature-Input names component %q twice", c.name)
			}
		}
		if in.components = append(in.components, c); len(in.components) > maxComponents {
			return nil, fmt.Errorf("assertion: Signature-Input names more than %d components", maxComponents)
		}
	}
	rest = rest[1:]
	seen := map[string]bool{}
	for rest != "" {
		var name string
		var value any
		if name, value, rest, err = cutParameter(rest); err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, fmt.Errorf("assertion: Signature-Input has the parameter %q twice", name)
		}
		seen[name] = true
		switch name {
		case "created":
			in.created, ok = value.(int64)
		case "expires":
			in.expires, ok = value.(int64)
		case "nonce":
			in.nonce, ok = value.(string)
		case "keyid":
			in.keyID, ok = value.(string)
		case "alg":
			in.alg, ok = value.(string)
		case "tag":
			in.tag, ok = value.(string)
		default:
			ok = false
		}
		if !ok {
			return nil, fmt.Errorf("assertion: Signature-Input has the parameter %q, unknown or of another type", name)
		}
	}
	return in, nil
}

// cutString cuts a string of RFC 9651 §3.3.3 from the beginning of s.
func cutString(s string) (value, rest string, err error) {
	for i := 1; i < len(s) && s[0] == '"'; i++ {
		switch c := s[i]; {
		case c == '"':
			return s[1:i], s[i+1:], nil
		case c < ' ' || c > '~' || c == '\\':
			return "", "", fmt.Errorf("assertion: Signature-Input has %q in a string", c)
		}
	}
	return "", "", errors.New("assertion: Signature-Input: want a string in double quotes")
}

// cutParameter cuts a semicolon, a name and a string or integer (RFC 9651 §3.1.2) from the beginning of s.
func cutParameter(s string) (name string, value any, rest string, err error) {
	before, after, ok := strings.Cut(s, "=")
	name, semicolon := strings.CutPrefix(before, ";")
	if !ok || !semicolon || name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz") != "" {
		return "", nil, "", errors.New("assertion: Signature-Input: want ;name=value")
	}
	if strings.HasPrefix(after, `"`) {
		value, rest, err = cutString(after)
		return name, value, rest, err
	}
	end := len(after) - len(strings.TrimLeft(after, "0123456789"))
	// RFC 9651 §3.3.1: 15 digits at most. Serialized, an integer has no leading zeros; none that we read is 0 or negative.
	if end == 0 || end > 15 || after[0] == '0' {
		return "", nil, "", fmt.Errorf("assertion: Signature-Input: parameter %q is neither a string nor a positive integer", name)
	}
	n, err := strconv.ParseInt(after[:end], 10, 64)
	return name, n, after[end:], err
}

// parseSignature reads a Signature field that has one member with that label (RFC 9421 §4.2).
func parseSignature(field, label string) ([]byte, error) {
	text, ok1 := strings.CutPrefix(field, label+"=:")
	text, ok2 := strings.CutSuffix(text, ":")
	if !ok1 || !ok2 || strings.ContainsAny(text, "\r\n") || len(text) > base64.StdEncoding.EncodedLen(maxSignature) {
		return nil, fmt.Errorf("assertion: Signature is not %s=:base64: as it should be", label)
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("assertion: Signature is not %s=:base64: as it should be", label)
	}
	return sig, nil
}
