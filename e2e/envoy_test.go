package e2e_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"authproxy/devprovider"
)

// An envoy asks authproxy as Envoy's gRPC client does, with Envoy's own messages.
type envoy struct {
	t      *testing.T
	host   string // of the app
	checks authv3.AuthorizationClient
	health grpc_health_v1.HealthClient
	cookie string // of ada
}

func startEnvoy(t *testing.T) *envoy {
	t.Helper()
	port, grpcPort := freePort(t), freePort(t)
	public := fmt.Sprintf("http://localhost:%d", port)
	provider, err := devprovider.Start(devprovider.Options{Users: devprovider.DemoUsers(),
		Clients: []devprovider.Client{{ID: "client", Secret: "secret", Callbacks: []string{public + "/auth/callback"}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(provider.Close)
	provider.Set(func(f *devprovider.Faults) { f.SignInAs = "ada" })
	serve(t, public, fmt.Sprintf(`
public_url: %s
listen: 127.0.0.1:%d
admin: {listen: ""}
provider: {issuer: %q, client_id: client, client_secret: secret}
session: {keys: [%q]}
forward_auth: {grpc_listen: "127.0.0.1:%d", shared_secret: a-secret-of-envoy-1234}
routes:
  - {path: /public, allow: anyone}
  - {path: /admin, allow: [{groups: [nobody-is-in-this-one]}]}
`, public, port, provider.Issuer(), base64.RawURLEncoding.EncodeToString([]byte("0f1e2d3c4b5a69788796a5b4c3d2e1f0")), grpcPort))

	conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", grpcPort), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	e := &envoy{t: t, host: fmt.Sprintf("localhost:%d", port), checks: authv3.NewAuthorizationClient(conn), health: grpc_health_v1.NewHealthClient(conn)}

	jar, _ := cookiejar.New(nil) // never fails
	browser := &http.Client{Jar: jar, Timeout: patience}
	res, err := browser.Get(public + "/auth/login?return_to=/auth/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	for _, c := range jar.Cookies(res.Request.URL) {
		e.cookie += "; " + c.Name + "=" + c.Value
	}
	if res.StatusCode != http.StatusOK || e.cookie == "" {
		t.Fatalf("the login ended at %s with %s", res.Request.URL, res.Status)
	}
	e.cookie = "theme=dark" + e.cookie
	return e
}

// ask sends a CheckRequest about a navigation, changed by f.
func (e *envoy) ask(path string, f func(*authv3.CheckRequest)) *authv3.CheckResponse {
	e.t.Helper()
	req := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
		Id: "1", Method: "GET", Path: path, Host: e.host, Scheme: "http", Protocol: "HTTP/2", Size: -1,
		Headers: map[string]string{":method": "GET", ":path": path, ":authority": e.host, ":scheme": "http", "accept": "text/html", "sec-fetch-mode": "navigate",
			"x-forwarded-user": "root", "x_forwarded_user": "root", "x.authproxy.assertion": "forged", "remote-user": "root", "user-agent": "test"},
	}}}}
	if f != nil {
		f(req)
	}
	res, err := e.checks.Check(context.Background(), req)
	if err != nil {
		e.t.Fatalf("Check of %s: %v", path, err)
	}
	return res
}

// asAda signs the request in.
func (e *envoy) asAda(r *authv3.CheckRequest) {
	r.Attributes.Request.Http.Headers["cookie"] = e.cookie
}

// values are the headers that a response sets, by their names.
func values(options []*corev3.HeaderValueOption) map[string]string {
	m := map[string]string{}
	for _, o := range options {
		m[o.Header.Key] = o.Header.Value
		//lint:ignore SA1019 older Envoys read Append
		if o.AppendAction != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || o.Append.GetValue() {
			m[o.Header.Key] = "would be appended"
		}
	}
	return m
}

// A signed-in user passes, the app gets our word about her, and nothing of what the client said itself, nor her session.
func TestEnvoyPassesASignedInUserOn(t *testing.T) {
	e := startEnvoy(t)
	for name, carry := range map[string]func(*authv3.CheckRequest){
		"headers": e.asAda,
		"header_map": func(r *authv3.CheckRequest) {
			e.asAda(r)
			h := r.Attributes.Request.Http
			h.HeaderMap = new(corev3.HeaderMap)
			for name, value := range h.Headers {
				h.HeaderMap.Headers = append(h.HeaderMap.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
			}
			h.Headers = nil
		},
	} {
		res := e.ask("/x?y=1", carry)
		if code := codes.Code(res.GetStatus().GetCode()); code != codes.OK {
			t.Fatalf("%s: %v, %v", name, code, res)
		}
		ok := res.GetOkResponse()
		set := values(ok.Headers)
		if !strings.HasPrefix(set["x-forwarded-user"], "auth0|") || strings.Count(set["x-authproxy-assertion"], ".") != 2 || set["cookie"] != "theme=dark" {
			t.Errorf("%s: the request gets %v", name, set)
		}
		for _, forged := range []string{"x_forwarded_user", "x.authproxy.assertion", "remote-user"} {
			if !slices.Contains(ok.HeadersToRemove, forged) {
				t.Errorf("%s: %s is not removed: %v", name, forged, ok.HeadersToRemove)
			}
		}
		for _, kept := range []string{"x-forwarded-user", "user-agent", "accept"} {
			if slices.Contains(ok.HeadersToRemove, kept) {
				t.Errorf("%s: %s is removed", name, kept)
			}
		}
	}
	nobody := e.ask("/public/x", nil)
	if set := values(nobody.GetOkResponse().GetHeaders()); set["x-forwarded-user"] != "" || !slices.Contains(nobody.GetOkResponse().GetHeadersToRemove(), "x-forwarded-user") {
		t.Errorf("for nobody the request gets %v without %v", set, nobody.GetOkResponse().GetHeadersToRemove())
	}
}

func TestEnvoyIsToldWhatToAnswer(t *testing.T) {
	e := startEnvoy(t)
	field := func(f func(*authv3.AttributeContext_HttpRequest)) func(*authv3.CheckRequest) {
		return func(r *authv3.CheckRequest) { e.asAda(r); f(r.Attributes.Request.Http) }
	}
	extension := func(key, value string) func(*authv3.CheckRequest) {
		return func(r *authv3.CheckRequest) { r.Attributes.ContextExtensions = map[string]string{key: value} }
	}
	for _, row := range []struct {
		name, path string
		change     func(*authv3.CheckRequest)
		status     int
		code       codes.Code
	}{
		{"a navigation of nobody", "/x", nil, 302, codes.Unauthenticated},
		{"a program of nobody", "/x", func(r *authv3.CheckRequest) { r.Attributes.Request.Http.Headers["sec-fetch-mode"] = "cors" }, 401, codes.Unauthenticated},
		{"nobody, where the operator wants 401", "/x", extension("authproxy.unauthenticated", "401"), 401, codes.Unauthenticated},
		{"a user who may not", "/admin", e.asAda, 403, codes.PermissionDenied},
		{"another method among the headers", "/x", field(func(h *authv3.AttributeContext_HttpRequest) { h.Headers[":method"] = "POST" }), 403, codes.PermissionDenied},
		{"another path among the headers", "/public", field(func(h *authv3.AttributeContext_HttpRequest) { h.Headers[":path"] = "/admin" }), 403, codes.PermissionDenied},
		{"another host", "/public", field(func(h *authv3.AttributeContext_HttpRequest) {
			h.Host = "evil.test"
			h.Headers[":authority"] = "evil.test"
		}), 403, codes.PermissionDenied},
		{"an encoded slash", "/public/..%2fadmin", func(r *authv3.CheckRequest) { e.asAda(r) }, 403, codes.PermissionDenied},
		{"no path", "", e.asAda, 403, codes.PermissionDenied},
		{"no method", "/public", field(func(h *authv3.AttributeContext_HttpRequest) { h.Method = ""; delete(h.Headers, ":method") }), 403, codes.PermissionDenied},
		{"no HTTP request", "/x", func(r *authv3.CheckRequest) { r.Attributes.Request = nil }, 403, codes.PermissionDenied},
		{"a misspelt extension", "/public", extension("authproxy.audiense", "x"), 403, codes.PermissionDenied},
		{"an extension that is nobody's", "/x", extension("other", "x"), 302, codes.Unauthenticated},
	} {
		t.Run(row.name, func(t *testing.T) {
			res := e.ask(row.path, row.change)
			denied := res.GetDeniedResponse()
			if got := int(denied.GetStatus().GetCode()); got != row.status || codes.Code(res.GetStatus().GetCode()) != row.code {
				t.Fatalf("answered %d with %v, want %d with %v", got, codes.Code(res.GetStatus().GetCode()), row.status, row.code)
			}
			set := values(denied.Headers)
			if set["cache-control"] != "no-store" || set["set-cookie"] != "" || row.status == 302 && !strings.HasPrefix(set["location"], "http://"+e.host+"/auth/login?") {
				t.Errorf("the answer has %v", set)
			}
		})
	}
	res := e.ask("/x", func(r *authv3.CheckRequest) {
		e.asAda(r)
		r.Attributes.ContextExtensions = map[string]string{"authproxy.audience": "https://app.internal"}
	})
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(values(res.GetOkResponse().GetHeaders())["x-authproxy-assertion"]+"..", ".")[1])
	var claims struct{ Aud string }
	if json.Unmarshal(payload, &claims); err != nil || claims.Aud != "https://app.internal" {
		t.Errorf("the assertion is for %q", claims.Aud)
	}
	health, err := e.health.Check(context.Background(), new(grpc_health_v1.HealthCheckRequest))
	if err != nil || health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}
}
