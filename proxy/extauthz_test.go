package proxy_test

import (
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"authproxy/proxy"
)

// A field is a length-delimited protobuf field.
func pb(num protowire.Number, parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), all)
}

func pbText(num protowire.Number, s string) []byte { return pb(num, []byte(s)) }

// checkMessage is a CheckRequest. Headers and context are in pairs of name and value.
func checkMessage(method, host, path string, headers, context []string) []byte {
	http := append(pbText(2, method), pbText(4, path)...)
	http = append(append(http, pbText(5, host)...), pbText(6, "http")...)
	for i := 0; i < len(headers); i += 2 {
		http = append(http, pb(3, pbText(1, headers[i]), pbText(2, headers[i+1]))...)
	}
	attributes := pb(4, pb(2, http))
	for i := 0; i < len(context); i += 2 {
		attributes = append(attributes, pb(10, pbText(1, context[i]), pbText(2, context[i+1]))...)
	}
	return pb(1, attributes)
}

// framed is a message as gRPC sends it.
func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// call calls the gRPC service from this machine and returns the grpc-status and the google.rpc.Code of the CheckResponse, -1 when
// there is none.
func call(p http.Handler, path string, body []byte, change func(*http.Request)) (status string, code int) {
	r := httptest.NewRequest("POST", "http://authproxy"+path, strings.NewReader(string(body)))
	r.Header.Set("Content-Type", "application/grpc")
	r.RemoteAddr = "127.0.0.1:1"
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	code = -1
	if b := w.Body.Bytes(); len(b) > 5 && w.Header().Get("Grpc-Status") == "0" {
		if num, _, n := protowire.ConsumeTag(b[5:]); num == 1 {
			s, _ := protowire.ConsumeBytes(b[5+n:])
			if code = 0; len(s) > 0 {
				v, _ := protowire.ConsumeVarint(s[1:])
				code = int(v)
			}
		}
	}
	return w.Header().Get("Grpc-Status"), code
}

const checkPath = "/envoy.service.auth.v3.Authorization/Check"

func TestOnlyTrustedPeersCallTheGRPCService(t *testing.T) {
	const secret = "0123456789abcdef"
	for _, row := range []struct {
		name, peer, metadata string
		context              []string
		conf                 *proxy.ForwardAuth
		status               string
	}{
		{"loopback", "127.0.0.1:1", "", nil, new(proxy.ForwardAuth), "0"},
		{"forward auth that is off", "127.0.0.1:1", "", nil, nil, "7"},
		{"a neighbour", "10.0.0.1:1", "", nil, new(proxy.ForwardAuth), "7"},
		{"a neighbour in trust", "10.0.0.1:1", "", nil, &proxy.ForwardAuth{Trust: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, "0"},
		{"a Unix socket", "@", "", nil, new(proxy.ForwardAuth), "7"},
		{"a Unix socket in trust", "@", "", nil, &proxy.ForwardAuth{TrustUnix: true}, "0"},
		{"the secret in the metadata", "10.0.0.1:1", secret, nil, &proxy.ForwardAuth{SharedSecret: secret}, "0"},
		{"the secret in context_extensions", "10.0.0.1:1", "", []string{"authproxy.secret", secret}, &proxy.ForwardAuth{SharedSecret: secret}, "0"},
		{"another secret", "10.0.0.1:1", "", []string{"authproxy.secret", secret + "x"}, &proxy.ForwardAuth{SharedSecret: secret}, "7"},
		{"an empty secret", "10.0.0.1:1", "", []string{"authproxy.secret", ""}, &proxy.ForwardAuth{SharedSecret: secret}, "7"},
		{"a secret where there is none", "10.0.0.1:1", secret, []string{"authproxy.secret", ""}, new(proxy.ForwardAuth), "7"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t, func(o *proxy.Options) { o.ForwardAuth = row.conf })
			status, code := call(r.ExtAuthz(), checkPath, framed(checkMessage("GET", "app.test", "/public/x", nil, row.context)), func(req *http.Request) {
				req.RemoteAddr = row.peer
				if row.metadata != "" {
					req.Header.Set("X-Authproxy-Secret", row.metadata)
				}
			})
			if status != row.status || (status == "0") != (code == 0) {
				t.Errorf("grpc-status %s with code %d, want %s", status, code, row.status)
			}
		})
	}
}

func TestTheGRPCServiceRefusesWhatIsNoCall(t *testing.T) {
	r := newRig(t, func(o *proxy.Options) { o.ForwardAuth = new(proxy.ForwardAuth) })
	good := framed(checkMessage("GET", "app.test", "/public/x", nil, nil))
	long := binary.BigEndian.AppendUint32([]byte{0}, 2<<20)
	for _, row := range []struct {
		name, path string
		body       []byte
		status     string
	}{
		{"a call", checkPath, good, "0"},
		{"another method", "/envoy.service.auth.v3.Authorization/Other", good, "12"},
		{"another service", "/envoy.service.auth.v2.Authorization/Check", good, "12"},
		{"no message", checkPath, nil, "3"},
		{"a message that ends early", checkPath, good[:len(good)-1], "3"},
		{"a compressed message", checkPath, append([]byte{1}, good[1:]...), "12"},
		{"a message that is too long", checkPath, long, "12"},
		{"no protobuf", checkPath, framed([]byte("\xff\xff\xff")), "3"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if status, _ := call(r.ExtAuthz(), row.path, row.body, nil); status != row.status {
				t.Errorf("grpc-status %s, want %s", status, row.status)
			}
		})
	}
	// Operators write down a few audiences; whoever may ask could send any number.
	for i := range 1100 {
		_, code := call(r.ExtAuthz(), checkPath, framed(checkMessage("GET", "app.test", "/public/x", nil, []string{"authproxy.audience", "https://" + strings.Repeat("x", i+1)})), nil)
		if (code == 0) != (i < 1000) {
			t.Fatalf("audience %d: code %d", i+1, code)
		}
	}
}

// Whatever the message is, nobody passes where only somebody may, and nothing panics.
func FuzzCheckRequest(f *testing.F) {
	r := newRig(f, func(o *proxy.Options) { o.ForwardAuth = new(proxy.ForwardAuth) })
	for _, path := range []string{"/admin", "/public/x", "/public/../admin", "/x?y=1", "", "*"} {
		f.Add(checkMessage("GET", "app.test", path, []string{":path", path, "cookie", "authproxy=x", "a\nb", "c"}, []string{"authproxy.audience", "x"}))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		status, code := call(r.ExtAuthz(), checkPath, framed(message), nil)
		if decoded, err := url.PathUnescape(string(message)); code == 0 && err == nil && !strings.Contains(decoded, "/public") && !strings.Contains(decoded, "/exact") {
			t.Errorf("nobody passes with %q", message)
		}
		if status != "0" && status != "3" {
			t.Errorf("grpc-status %s", status)
		}
	})
}
