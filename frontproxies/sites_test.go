package frontproxies_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// certificate writes a certificate for every site into two files and, for HAProxy, a directory.
func certificate(t *testing.T, dir string) (cert, key, both string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"*.example.test"}, NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	cert, key, both = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "both.pem")
	write(t, cert, certPEM)
	write(t, key, keyPEM)
	write(t, both, certPEM+keyPEM)
	return cert, key, both
}

// Host and target of a request may name two sites, of which the one is open and the other is not: what is judged must be what
// is served. The sites are several, with HTTPS, and our endpoints are at the root of a third host.
func TestASiteIsJudgedByItsOwnPolicy(t *testing.T) {
	for _, name := range []string{"nginx", "caddy", "haproxy"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(name); err != nil {
				t.Skipf("%s is not installed", name)
			}
			w := &world{dir: t.TempDir(), app: newApp(t), port: freePort(t)}
			cert, key, both := certificate(t, w.dir)
			socket := filepath.Join(w.dir, "s")
			file := filepath.Join(w.dir, "config.yaml")
			write(t, file, fmt.Sprintf(`
public_url: https://auth.example.test:%s
prefix: /
listen: unix:%s
admin: {listen: ""}
provider: {issuer: "http://127.0.0.1:1/", client_id: client, client_secret: a secret}
session: {keys: [%s], cookie: {domain: example.test}}
identity: {access_token: true}
upstream: %s
routes:
  - {host: open.example.test, path: /, allow: anyone}
forward_auth: {trust: [unix], domains: [open.example.test, closed.example.test]}
`, w.port, socket, base64.RawURLEncoding.EncodeToString([]byte(sessionKey)), w.app.server.URL))
			serve := w.process(t, nil, binary, "serve", "-config", file)
			waitFor(t, "authproxy", serve, func() bool { c, err := net.Dial("unix", socket); return err == nil && c.Close() == nil })
			printed, err := exec.Command(binary, "print-config", name, "-config", file).Output()
			if err != nil {
				t.Fatal(err)
			}
			text := string(printed)
			switch name {
			case "nginx":
				for _, site := range []string{"open", "closed", "auth"} {
					text = replace(t, text, "/etc/ssl/certs/"+site+".example.test.pem", cert, "/etc/ssl/private/"+site+".example.test.key", key)
				}
				w.runNginx(t, replace(t, text, "listen "+w.port, "listen 127.0.0.1:"+w.port))
			case "caddy":
				write(t, filepath.Join(w.dir, "Caddyfile"), "{\n\tadmin off\n\tdefault_bind 127.0.0.1\n\tauto_https disable_redirects\n}\n"+
					replace(t, text, ".example.test:"+w.port+" {", ".example.test:"+w.port+" {\n\ttls "+cert+" "+key))
				p := w.process(t, []string{"HOME=" + w.dir, "XDG_DATA_HOME=" + w.dir, "XDG_CONFIG_HOME=" + w.dir}, "caddy", "run", "--adapter", "caddyfile", "--config", filepath.Join(w.dir, "Caddyfile"))
				waitFor(t, "Caddy", p, w.listening)
			case "haproxy":
				startHAProxy(t, w, replace(t, text, "/etc/haproxy/certs/", both))
			}
			for i, row := range []struct {
				target, host string
				want         []int // as the front proxies differ; the app is asked with 200 alone
			}{
				{"/x", "open", []int{200}},
				{"/x", "closed", []int{401}},
				{"https://closed.example.test:" + w.port + "/x", "open", []int{400, 401}},
				{"https://open.example.test:" + w.port + "/x", "closed", []int{200, 400}},
				{"https://closed.example.test/x", "open", []int{400, 401, 403}},
				{"/x", "OPEN", []int{200}},
				{"/login", "auth", []int{503}}, // there is no provider
				{"/verify/" + name, "open", []int{404}},
				{"/verify/" + name, "closed", []int{404}},
				{"/verify/" + name, "auth", []int{404}},
			} {
				id := fmt.Sprint("row ", i)
				c, err := tls.Dial("tcp", "127.0.0.1:"+w.port, &tls.Config{InsecureSkipVerify: true, ServerName: "open.example.test"})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s.example.test:%s\r\nX-Row: %s\r\nAuthorization: Bearer of-the-client\r\nConnection: close\r\n\r\n", row.target, row.host, w.port, id)
				a, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatalf("%s of %s: %v", row.target, row.host, err)
				}
				io.Copy(io.Discard, a.Body)
				if !slices.Contains(row.want, a.StatusCode) {
					t.Errorf("%s of %s: status %d, want one of %d", row.target, row.host, a.StatusCode, row.want)
				}
				came, _ := w.app.request(id)
				if (a.StatusCode == 200) != (came != nil) {
					t.Errorf("%s of %s: status %d, and the app was asked: %v", row.target, row.host, a.StatusCode, came != nil)
				}
				if came == nil {
					continue
				}
				if !strings.HasPrefix(strings.ToLower(came.Host), "open.") {
					t.Errorf("%s of %s: nobody has signed in, and %s is served", row.target, row.host, came.Host)
				}
				if got := came.Header.Get("Authorization"); got != "" {
					t.Errorf("%s of %s: the app gets Authorization: %s, which the client made up", row.target, row.host, got)
				}
			}
		})
	}
}
