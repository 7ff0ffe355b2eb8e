package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// ExtAuthz is Envoy's gRPC service envoy.service.auth.v3.Authorization: Check decides as the endpoints under /verify do, about
// what the CheckRequest says of its client's request. It is for a listener of its own that speaks HTTP/2, and answers the
// same peers as they do. Until ForwardAuth is configured it refuses everybody.
//
// The operator may say in context_extensions, which no client can forge: authproxy.secret, the shared secret;
// authproxy.audience, whom the assertion is for; and authproxy.unauthenticated, login or 401. Others that begin with
// "authproxy." are a mistake and denied.
//
// Of gRPC it needs one unary method, and of the messages a few fields; that is all there is of both.
func (p *Proxy) ExtAuthz() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			http.Error(w, "this is a gRPC service of authproxy", http.StatusUnsupportedMediaType)
			return
		}
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(checkPatience))
		message, err := p.call(r)
		h := w.Header()
		h.Set("Content-Type", "application/grpc")
		h.Set("Trailer", "Grpc-Status, Grpc-Message")
		status, text := 0, ""
		if failed := (*grpcError)(nil); errors.As(err, &failed) {
			status, text = failed.code, failed.text
		} else {
			w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)) // not compressed
		}
		h.Set("Grpc-Status", strconv.Itoa(status))
		h.Set("Grpc-Message", text)
	})
}

// A grpcError is a failed call (google.rpc.Code). Envoy takes it for an error of ours and denies, unless it was told otherwise.
type grpcError struct {
	code int
	text string // ASCII
}

func (e *grpcError) Error() string { return e.text }

var errNotTrusted = &grpcError{codePermissionDenied, "not a front proxy in forward_auth.trust, and without the secret"}

const (
	codeOK               = 0
	codeInvalidArgument  = 3
	codePermissionDenied = 7
	codeUnimplemented    = 12
	codeInternal         = 13
	codeUnauthenticated  = 16
)

const (
	maxCheckRequest = 1 << 20 // bytes; Envoy sends the header, and the body only if it was told to
	checkPatience   = 5 * time.Second
)

// call reads one unary call and answers it.
func (p *Proxy) call(r *http.Request) ([]byte, error) {
	if r.URL.Path == "/grpc.health.v1.Health/Check" {
		return protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1), nil // SERVING
	}
	if r.URL.Path != "/envoy.service.auth.v3.Authorization/Check" {
		return nil, &grpcError{codeUnimplemented, "the only method is envoy.service.auth.v3.Authorization/Check"}
	}
	if p.opts.ForwardAuth == nil || p.opts.ForwardAuth.SharedSecret == "" && !p.mayAsk(r) { // who cannot show the secret in the message either
		return nil, errNotTrusted
	}
	var head [5]byte // https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: Compressed-Flag, Message-Length
	if _, err := io.ReadFull(r.Body, head[:]); err != nil {
		return nil, &grpcError{codeInvalidArgument, "there is no message"}
	}
	size := binary.BigEndian.Uint32(head[1:])
	if head[0] != 0 || size > maxCheckRequest {
		return nil, &grpcError{codeUnimplemented, "the message is compressed or too long"}
	}
	message, err := io.ReadAll(io.LimitReader(r.Body, int64(size))) // which takes the memory of what really comes
	if err != nil || len(message) < int(size) {
		return nil, &grpcError{codeInvalidArgument, "the message ends early"}
	}
	c, err := parseCheckRequest(message)
	if err != nil {
		return nil, &grpcError{codeInvalidArgument, "the message is no CheckRequest"}
	}
	return p.check(r, c)
}

// A checkRequest is what we read of a CheckRequest.
type checkRequest struct {
	method, path, host, scheme string
	header                     http.Header
	pseudo                     map[string]string // header fields that begin with a colon
	context                    map[string]string // context_extensions
}

// The dialect of the gRPC service.
var extAuthz = &dialect{name: "envoy over gRPC", removes: true}

// check decides about a request and says so in a CheckResponse.
func (p *Proxy) check(r *http.Request, c *checkRequest) ([]byte, error) {
	trusted := p.opts.ForwardAuth != nil && (p.mayAsk(r) || sameSecret(c.context[contextSecret], p.opts.ForwardAuth.SharedSecret))
	if !trusted {
		return nil, errNotTrusted
	}
	w := &heldAnswer{header: http.Header{}}
	asking := (&http.Request{Method: http.MethodPost, URL: r.URL, RequestURI: r.RequestURI, Header: c.header, RemoteAddr: r.RemoteAddr, Body: http.NoBody}).WithContext(r.Context())
	x := p.begin(w, asking)
	x.asked = extAuthz
	p.answerCheck(x, c)
	switch w.status {
	case 0:
		return nil, &grpcError{codeInternal, "no decision"}
	case http.StatusOK:
		if !x.passed {
			return nil, &grpcError{codeInternal, "no decision"}
		}
		return p.okResponse(x, w.header), nil
	}
	return deniedResponse(w), nil
}

// answerCheck is ServeHTTP for a CheckRequest.
func (p *Proxy) answerCheck(x *exchange, c *checkRequest) {
	defer p.end(x)
	change, err := c.change()
	if err == nil {
		err = c.consistent()
	}
	if err != nil {
		p.fail(x, p.badRequest(err))
		return
	}
	if err := p.decideFor(x, asked{c.method, c.host, c.path, change}); err != nil {
		p.fail(x, err)
	}
}

// consistent refuses a request that is described in two ways.
func (c *checkRequest) consistent() error {
	for name, value := range map[string]string{":method": c.method, ":path": c.path, ":authority": c.host} {
		if said, ok := c.pseudo[name]; ok && said != value {
			return fmt.Errorf("the CheckRequest has another %s among the headers", name)
		}
	}
	if !isWeb(c.scheme) {
		return errors.New("the scheme of the CheckRequest is neither http nor https")
	}
	return nil
}

// The keys of context_extensions that are for us.
const (
	contextOurs            = "authproxy."
	contextSecret          = "authproxy.secret"
	contextAudience        = "authproxy.audience"
	contextUnauthenticated = "authproxy.unauthenticated"
)

// change is what the operator wants to be otherwise than the route has it.
func (c *checkRequest) change() (change routeChange, err error) {
	for key, value := range c.context {
		switch {
		case key == contextSecret || !strings.HasPrefix(key, contextOurs):
		case key == contextAudience && value != "":
			change.audience = value
		case key == contextUnauthenticated && (value == "login" || value == "401"):
			change.unauthenticated = value
		default:
			return change, fmt.Errorf("context_extensions: %q has no meaning, or not with that value", key)
		}
	}
	return change, nil
}

// A heldAnswer is an answer that is written nowhere.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *heldAnswer) Header() http.Header { return w.header }

func (w *heldAnswer) WriteHeader(status int) { w.status = status }

func (w *heldAnswer) Write(b []byte) (int, error) { return w.body.Write(b) }

// parseCheckRequest reads envoy/service/auth/v3/external_auth.proto and attribute_context.proto. Unknown fields are skipped, and of
// a field that comes twice the last counts, as protobuf has it.
func parseCheckRequest(b []byte) (*checkRequest, error) {
	c := &checkRequest{header: http.Header{}, pseudo: map[string]string{}, context: map[string]string{}}
	err := eachField(b, func(num protowire.Number, attributes []byte) error {
		if num != 1 {
			return nil
		}
		return eachField(attributes, func(num protowire.Number, v []byte) error {
			switch num {
			case 4: // request
				return eachField(v, func(num protowire.Number, v []byte) error {
					if num != 2 { // http
						return nil
					}
					return eachField(v, c.httpField)
				})
			case 10: // context_extensions
				key, value, err := keyValue(v)
				c.context[key] = value
				return err
			}
			return nil
		})
	})
	return c, err
}

// httpField reads a field of AttributeContext.HttpRequest.
func (c *checkRequest) httpField(num protowire.Number, v []byte) error {
	switch num {
	case 2:
		c.method = string(v)
	case 3: // headers, a map
		return c.addHeader(v)
	case 4:
		c.path = string(v)
	case 5:
		c.host = string(v)
	case 6:
		c.scheme = string(v)
	case 13: // header_map, instead of headers
		return eachField(v, func(num protowire.Number, v []byte) error {
			if num != 1 {
				return nil
			}
			return c.addHeader(v)
		})
	}
	return nil
}

func (c *checkRequest) addHeader(entry []byte) error {
	name, value, err := keyValue(entry)
	if err != nil {
		return err
	}
	if strings.HasPrefix(name, ":") {
		c.pseudo[name] = value
		return nil
	}
	c.header.Add(name, value)
	return nil
}

// keyValue reads an entry of a map of strings, or a HeaderValue, which has a raw value in its third field instead.
func keyValue(b []byte) (key, value string, err error) {
	err = eachField(b, func(num protowire.Number, v []byte) error {
		switch num {
		case 1:
			key = string(v)
		case 2, 3:
			value = string(v)
		}
		return nil
	})
	return key, value, err
}

// eachField calls f with each length-delimited field.
func eachField(b []byte, f func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, kind, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(num, v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// okResponse is a CheckResponse that lets the request pass: with our headers in place of the client's, without those that
// would look like ours, and without our cookies.
func (p *Proxy) okResponse(x *exchange, h http.Header) []byte {
	var ok []byte
	var remove []string
	for _, name := range p.passes {
		ok = appendHeader(ok, 2, name, h[name][0])
		if h[name][0] == "" {
			remove = append(remove, name) // Envoy removes after it has set
		}
	}
	for name := range strings.SplitSeq(h.Get(removeHeader), ",") {
		if name != "" {
			remove = append(remove, name)
		}
	}
	rest := http.Header{"Cookie": slices.Clone(x.r.Header["Cookie"])}
	p.hygiene.cookies.strip(rest)
	switch cookies := rest["Cookie"]; {
	case slices.Equal(cookies, x.r.Header["Cookie"]):
	case len(cookies) == 0 || !utf8.ValidString(strings.Join(cookies, "; ")): // a protobuf string has no other bytes
		remove = append(remove, "Cookie")
	default:
		ok = appendHeader(ok, 2, "Cookie", strings.Join(cookies, "; "))
	}
	for _, name := range remove {
		ok = appendBytes(ok, 5, []byte(strings.ToLower(name)))
	}
	return appendBytes(rpcStatus(codeOK), 3, ok)
}

// deniedResponse is a CheckResponse that has Envoy give our answer to the client.
func deniedResponse(w *heldAnswer) []byte {
	var denied []byte
	denied = appendBytes(denied, 1, protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(w.status)))
	for _, name := range slices.Sorted(maps.Keys(w.header)) {
		for _, value := range w.header[name] {
			denied = appendHeader(denied, 2, name, value)
		}
	}
	denied = appendBytes(denied, 3, w.body.Bytes())
	code := codePermissionDenied
	if w.status == http.StatusUnauthorized || w.status == http.StatusFound {
		code = codeUnauthenticated
	}
	return appendBytes(rpcStatus(code), 2, denied)
}

// rpcStatus is the field status, a google.rpc.Status.
func rpcStatus(code int) []byte {
	return appendBytes(nil, 1, protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(code)))
}

// appendHeader appends a HeaderValueOption that replaces what is there: append is false, and append_action is
// OVERWRITE_IF_EXISTS_OR_ADD.
func appendHeader(b []byte, num protowire.Number, name, value string) []byte {
	header := appendBytes(appendBytes(nil, 1, []byte(strings.ToLower(name))), 2, []byte(value))
	option := appendBytes(appendBytes(nil, 1, header), 2, nil)
	option = protowire.AppendVarint(protowire.AppendTag(option, 3, protowire.VarintType), 2)
	option = protowire.AppendVarint(protowire.AppendTag(option, 4, protowire.VarintType), 1) // keep_empty_value
	return appendBytes(b, num, option)
}

func appendBytes(b []byte, num protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}
