package frontproxies_test

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// replace replaces files, and every interface by loopback, in what print-config wrote. Each must be there.
func replace(t *testing.T, printed string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(printed, pairs[i]) {
			t.Fatalf("print-config does not say %q", pairs[i])
		}
		printed = strings.ReplaceAll(printed, pairs[i], pairs[i+1])
	}
	return printed
}

func startNginx(t *testing.T, w *world, printed string) {
	secretFile := filepath.Join(w.dir, "secret.conf")
	write(t, secretFile, `proxy_set_header X-Authproxy-Secret "`+secret+`";`)
	w.runNginx(t, replace(t, printed, "/etc/nginx/authproxy-secret.conf", secretFile, "listen "+w.port, "listen 127.0.0.1:"+w.port))
}

// runNginx runs nginx with what is in its http block.
func (w *world) runNginx(t *testing.T, http string) {
	t.Helper()
	write(t, filepath.Join(w.dir, "site.conf"), http)
	main := nginxMain(w.dir)
	file := filepath.Join(w.dir, "nginx.conf")
	write(t, file, main)
	p := w.process(t, nil, "nginx", "-c", file, "-e", "stderr")
	waitFor(t, "nginx", p, w.listening)
}

// nginxMain is what stands around site.conf.
func nginxMain(dir string) string {
	user := ""
	if os.Getuid() == 0 {
		user = "user root;\n"
	}
	var paths strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "scgi", "uwsgi"} {
		fmt.Fprintf(&paths, "%s_temp_path %s;\n", kind, filepath.Join(dir, kind))
	}
	return user + "daemon off;\nworker_processes 1;\nerror_log stderr;\npid " + filepath.Join(dir, "nginx.pid") + ";\nevents {}\nhttp {\naccess_log off;\n" +
		paths.String() + "include " + filepath.Join(dir, "site.conf") + ";\n}\n"
}

func startHAProxy(t *testing.T, w *world, printed string) {
	script, err := exec.Command(binary, "print-config", "haproxy-lua", "-config", filepath.Join(w.dir, "config.yaml")).Output()
	if err != nil {
		t.Fatal(err)
	}
	lua, file := filepath.Join(w.dir, "authproxy.lua"), filepath.Join(w.dir, "haproxy.cfg")
	write(t, lua, string(script))
	write(t, file, replace(t, printed, "/etc/haproxy/authproxy.lua", lua, "bind :", "bind 127.0.0.1:"))
	p := w.process(t, []string{"AUTHPROXY_SHARED_SECRET=" + secret}, "haproxy", "-db", "-f", file)
	waitFor(t, "HAProxy", p, w.listening)
}

func startCaddy(t *testing.T, w *world, printed string) {
	file := filepath.Join(w.dir, "Caddyfile")
	write(t, file, "{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}\n"+printed)
	p := w.process(t, []string{"AUTHPROXY_SHARED_SECRET=" + secret, "HOME=" + w.dir, "XDG_DATA_HOME=" + w.dir, "XDG_CONFIG_HOME=" + w.dir}, "caddy", "run", "--adapter", "caddyfile", "--config", file)
	waitFor(t, "Caddy", p, w.listening)
}

// A resource is a Kubernetes one.
type resource struct {
	Kind     string
	Metadata struct{ Annotations map[string]string }
	Data     map[string]string
	Spec     struct {
		Rules []struct {
			Host string
			HTTP struct {
				Paths []struct {
					Path     string
					PathType string `yaml:"pathType"`
					Backend  struct{ Service struct{ Name string } }
				}
			}
		}
	}
}

func resources[T any](t *testing.T, printed string) (all []T) {
	t.Helper()
	for d := yaml.NewDecoder(strings.NewReader(printed)); ; {
		var r T
		if err := d.Decode(&r); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
}

// startIngressNginx runs nginx with what ingress-nginx makes of the resources (rootfs/etc/nginx/template/nginx.tmpl of its
// release 1.15), without the parts that need Lua and other modules. What escapes the place to return to is one of these: the
// requests here have nothing in it to escape.
func startIngressNginx(t *testing.T, w *world, printed string) {
	const prefix = "nginx.ingress.kubernetes.io/"
	all := resources[resource](t, printed)
	headers := &bytes.Buffer{} // of the ConfigMap proxy-set-headers
	for _, r := range all {
		if r.Kind == "ConfigMap" {
			for name, value := range r.Data {
				fmt.Fprintf(headers, "proxy_set_header %s \"%s\";\n", name, value)
			}
		}
	}
	gate := w.gate.listener.Addr().String()
	upstreams := map[string]string{"authproxy": "http://" + gate, "app-1": w.app.server.URL}
	var locations strings.Builder
	for i, r := range all {
		a := r.Metadata.Annotations
		for _, rule := range r.Spec.Rules {
			for _, path := range rule.HTTP.Paths {
				auth := ""
				if at := a[prefix+"auth-url"]; at != "" {
					u, err := url.Parse(at)
					if err != nil || u.Hostname() != "authproxy.default.svc.cluster.local" {
						t.Fatalf("auth-url is %q", at)
					}
					fmt.Fprintf(&locations, `
location = /_external-auth-%d {
	internal;
	proxy_pass_request_body off;
	proxy_set_header Content-Length "";
	proxy_set_header X-Forwarded-Proto "";
	proxy_set_header X-Request-ID $request_id;
	proxy_set_header Host %s;
	proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
	proxy_set_header X-Original-Method $request_method;
	proxy_set_header X-Sent-From "nginx-ingress-controller";
	proxy_set_header X-Real-IP $remote_addr;
	proxy_set_header X-Forwarded-For $remote_addr;
	proxy_set_header X-Auth-Request-Redirect $request_uri;
	proxy_set_header X-Authproxy-Secret "%s"; # auth-proxy-set-headers: %s
	proxy_buffering off;
	proxy_buffer_size 4k;
	proxy_buffers 4 4k;
	proxy_request_buffering on;
	proxy_http_version 1.1;
	proxy_connect_timeout 5s;
	proxy_read_timeout 10s; # the default is a minute, for which no test waits
	set $target http://%s%s;
	proxy_pass $target;
}
location @signin-%d {
	internal;
	add_header Set-Cookie $auth_cookie;
	return 302 %s?%s=$scheme://$http_host$request_uri;
}
`, i, u.Host, secret, a[prefix+"auth-proxy-set-headers"], gate, u.Path, i, a[prefix+"auth-signin"], a[prefix+"auth-signin-redirect-param"])
					auth = fmt.Sprintf("auth_request /_external-auth-%d;\nauth_request_set $auth_cookie $upstream_http_set_cookie;\nadd_header Set-Cookie $auth_cookie;\nerror_page 401 = @signin-%d;\n", i, i)
					for j, name := range strings.Split(a[prefix+"auth-response-headers"], ",") {
						auth += fmt.Sprintf("auth_request_set $authHeader%d $upstream_http_%s;\nproxy_set_header '%s' $authHeader%d;\n", j, strings.ReplaceAll(strings.ToLower(name), "-", "_"), name, j)
					}
				}
				if a[prefix+"whitelist-source-range"] == "255.255.255.255/32" {
					auth = "return 403;\n"
				}
				at := []string{"= " + path.Path}
				if path.PathType == "Prefix" {
					at = append(at, strings.TrimSuffix(path.Path, "/")+"/")
				}
				size := a[prefix+"proxy-buffer-size"]
				if size == "" {
					size = "4k"
				}
				for _, at := range at {
					fmt.Fprintf(&locations, `
location %s {
	%s
	proxy_set_header Host $http_host;
	proxy_set_header Upgrade $http_upgrade;
	proxy_set_header Connection $connection_upgrade;
	proxy_set_header X-Request-ID $request_id;
	proxy_set_header X-Real-IP $remote_addr;
	proxy_set_header X-Forwarded-For $remote_addr;
	proxy_set_header X-Forwarded-Host $http_host;
	proxy_set_header X-Forwarded-Port %s;
	proxy_set_header X-Forwarded-Proto $scheme;
	proxy_set_header X-Forwarded-Scheme $scheme;
	proxy_set_header X-Scheme $scheme;
	proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for;
	proxy_set_header Proxy "";
	%s
	proxy_buffering off;
	proxy_buffer_size %s;
	proxy_buffers 4 %s;
	proxy_http_version 1.1;
	proxy_pass %s;
}
`, at, auth, w.port, headers, size, size, upstreams[path.Backend.Service.Name])
				}
			}
		}
	}
	w.runNginx(t, `
proxy_headers_hash_max_size 2048;
proxy_headers_hash_bucket_size 128;
variables_hash_max_size 2048;
underscores_in_headers off;
ignore_invalid_headers on;
large_client_header_buffers 4 8k;
map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
server {
	listen 127.0.0.1:`+w.port+`;
	server_name localhost;
`+locations.String()+`
}
server {
	listen 127.0.0.1:`+w.port+` default_server;
	return 404;
}
`)
}
