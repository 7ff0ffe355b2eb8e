package operated_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"authproxy/devprovider"
)

// A mount is a directory as Kubernetes mounts a ConfigMap or Secret: each file is a symbolic link by way of ..data, which is
// a link to the directory of a version. Swapping that link changes all files at once.
type mount struct {
	t       testing.TB
	dir     string
	version int
	files   map[string]string
}

func newMount(t testing.TB, files map[string]string) *mount {
	m := &mount{t: t, dir: t.TempDir(), files: map[string]string{}}
	m.swap(files)
	for name := range files {
		m.check(os.Symlink(filepath.Join("..data", name), m.path(name)))
	}
	return m
}

func (m *mount) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *mount) path(name string) string { return filepath.Join(m.dir, name) }

// swap brings a new version, in which those files are different.
func (m *mount) swap(files map[string]string) {
	m.t.Helper()
	former := filepath.Join(m.dir, fmt.Sprintf("..version%d", m.version))
	m.version++
	next := fmt.Sprintf("..version%d", m.version)
	m.check(os.Mkdir(filepath.Join(m.dir, next), 0o700))
	maps.Copy(m.files, files)
	for name, text := range m.files {
		write(m.t, filepath.Join(m.dir, next, name), text)
	}
	m.check(os.Symlink(next, m.path("..data_tmp")))
	m.check(os.Rename(m.path("..data_tmp"), m.path("..data")))
	m.check(os.RemoveAll(former))
}

// overwrite changes a file where it is.
func (m *mount) overwrite(name, text string) {
	m.t.Helper()
	m.files[name] = text
	write(m.t, m.path(name), text)
}

// replace renames another file to where one is.
func (m *mount) replace(name, text string) {
	m.t.Helper()
	m.files[name] = text
	write(m.t, m.path("..new"), text)
	m.check(os.Rename(m.path("..new"), m.path(filepath.Join("..data", name))))
}

// An authority signs certificates for localhost.
type authority struct {
	t     testing.TB
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate
	roots *x509.CertPool
	count int64
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, roots: x509.NewCertPool()}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	a.cert, a.key = template, newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.roots.AddCert(a.cert)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue returns the files of a new certificate, whose serial number is the count of all.
func (a *authority) issue() map[string]string {
	a.t.Helper()
	a.count++
	key := newKey(a.t)
	template := &x509.Certificate{SerialNumber: big.NewInt(a.count), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return map[string]string{"tls.crt": block("CERTIFICATE", cert), "tls.key": block("PRIVATE KEY", private)}
}

// serial is the number of the certificate that a new connection gets; 0 when there is none.
func (a *authority) serial(addr string) int64 {
	c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: a.roots, ServerName: "localhost"})
	if err != nil {
		return 0
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// reloading is a world of one process whose configuration is in a mount and has one of two policies, a or b. Each lets in
// the group of its name only, shows the app that group only, in a header of its own, and leads to an app of its own.
type reloading struct {
	*world
	*replica
	*mount
	authority *authority
	apps      map[string]*app
	policy    string            // that of the latest configuration
	cookies   map[string]string // by user
}

func newReloading(t *testing.T) *reloading {
	t.Helper()
	x := &reloading{world: newWorld(t, settings{https: true}), authority: newAuthority(t), apps: map[string]*app{"a": startApp(t, "a"), "b": startApp(t, "b")}}
	x.world.roots = x.authority.roots
	x.replica = &replica{w: x.world, addr: "127.0.0.1:" + freePort(t), admin: "127.0.0.1:" + freePort(t)}
	files := x.authority.issue()
	files["client-secret"], files["session-key"], files["former-key"] = secret, x.world.key, sessionKey()
	x.mount = newMount(t, files)
	x.policy = "a"
	x.mount.swap(map[string]string{"config.yaml": x.text("a")})
	x.mount.check(os.Symlink("..data/config.yaml", x.mount.path("config.yaml")))
	x.replica.file = x.mount.path("config.yaml")
	x.replica.start()
	x.cookies = map[string]string{}
	for _, name := range []string{"ada", "ben", "cat"} {
		x.cookies[name] = x.world.signIn(name, x.replica.addr)
	}
	return x
}

// text is the configuration with a policy.
func (x *reloading) text(policy string) string {
	return fmt.Sprintf(`public_url: %s
listen: %s
admin: {listen: %q}
tls: {cert_file: tls.crt, key_file: tls.key}
log: {level: warn, format: json}
provider: {issuer: %q, client_id: %s, client_secret: "${file:client-secret}", logout: local}
session: {keys: ["${file:session-key}", "${file:former-key}"], store: file, file: {path: %q}}
identity: {headers: {X-Forwarded-User: sub, X-Forwarded-Groups: groups, X-Seen-%s: sub}, only_groups: [%s]}
upstream: %s
routes:
  - {path: /, allow: [{groups: [%s]}]}
`, x.world.public, x.replica.addr, x.replica.admin, x.world.provider.Issuer(), clientID, filepath.Join(x.world.dir, "sessions.db"), strings.ToUpper(policy), policy, x.apps[policy].URL, policy)
}

// judge says what is wrong with the answer to a user's request.
func (x *reloading) judge(user string, a answer) string {
	if a.err == nil && a.status == 403 && user != "cat" { // she is in both groups
		return ""
	}
	s, ok := a.reached()
	allowed := map[string]string{"ada": "a", "ben": "b", "cat": s.App}[user]
	if !ok || s.User != user || s.App != allowed || s.Groups != s.App || !slices.Equal(s.Names, []string{strings.ToUpper(s.App)}) {
		return fmt.Sprintf("%s gets %s", user, a)
	}
	return ""
}

// inForce is the policy by which new requests are judged.
func (x *reloading) inForce(c *client) string {
	s, _ := c.get("/", x.cookies["cat"]).reached()
	return s.App
}

// Issue 3: a reload is atomic. No request is dropped, and none is judged by one policy and forwarded by the other.
func TestFiftyReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	x := newReloading(t)
	users := []string{"ada", "ben", "cat"}
	clients := []*client{x.world.client(x.replica.addr), x.world.client(x.replica.addr), x.world.client(x.replica.addr)}
	clients[0].ForceAttemptHTTP2 = true
	clients[1].DisableKeepAlives = true // a handshake for each request
	l := startLoad(t, len(clients), func(worker, n int) (answer, string) {
		user := users[n%len(users)]
		a := clients[worker].get("/", x.cookies[user])
		return a, x.judge(user, a)
	})
	slow := startLoad(t, 1, func(int, int) (answer, string) {
		a := clients[2].get("/slow", x.cookies["cat"])
		if a.err != nil || a.status != 200 || !strings.HasSuffix(a.body, "end") {
			return a, fmt.Sprintf("the long one gets %s", a)
		}
		return a, ""
	})

	asker, noticed := x.world.client(x.replica.addr), []time.Duration{}
	for i := range 50 {
		x.policy = map[string]string{"a": "b", "b": "a"}[x.policy]
		x.change(i%3, x.text(x.policy))
		if i%16 < 15 {
			x.replica.signal(syscall.SIGHUP)
		}
		took := eventually(t, "the new policy is in force", func() bool { return x.inForce(asker) == x.policy })
		if i%16 == 15 {
			noticed = append(noticed, took)
		}
		x.judgeNow(asker)
		if i%15 == 0 { // a new certificate and a new client secret have come as well
			eventually(t, "new connections get the new certificate", func() bool { return x.authority.serial(x.replica.addr) == x.authority.count })
			x.world.signIn("cat", x.replica.addr)
		}
	}
	answers := l.stop(t)
	t.Logf("%d requests and %d long ones during 50 reloads; without a signal they took %v", len(answers), len(slow.stop(t)), noticed)
	if n := x.replica.metric(`authproxy_reloads_total{result="done"}`); n < 50 {
		t.Errorf("%v reloads are counted", n)
	}
	if n := x.replica.metric(`authproxy_reloads_total{result="failed"}`); n != 0 {
		t.Errorf("%v failed reloads are counted:\n%s", n, x.replica.out.String())
	}
}

// change brings a configuration: by a swap of the mount with a new certificate and client secret, in place, or by a rename.
func (x *reloading) change(how int, text string) {
	x.world.t.Helper()
	switch how {
	case 0:
		files := x.authority.issue()
		files["config.yaml"], files["client-secret"] = text, sessionKey()
		x.mount.check(x.world.provider.SetClient(devprovider.Client{ID: clientID, Secret: files["client-secret"], Callbacks: []string{x.world.public.String() + "/auth/callback"}}))
		x.mount.swap(files)
	case 1:
		x.mount.overwrite("config.yaml", text)
	case 2:
		x.mount.replace("config.yaml", text)
	}
}

// judgeNow fails the test unless everybody who asks now is judged by the policy that is in force.
func (x *reloading) judgeNow(c *client) {
	x.world.t.Helper()
	for user, cookie := range x.cookies {
		a := c.get("/", cookie)
		if wrong := x.judge(user, a); wrong != "" || (a.status == 200) != (user == "cat" || user == "ada" && x.policy == "a" || user == "ben" && x.policy == "b") {
			x.world.t.Errorf("under policy %s %s gets %s", x.policy, user, a)
		}
	}
}

// A bad new configuration is logged with its mistakes, counted, and the old one stays.
func TestABadFileChangesNothingAndTheLogSaysWhy(t *testing.T) {
	t.Parallel()
	x := newReloading(t)
	c := x.world.client(x.replica.addr)
	l := startLoad(t, 1, func(_, n int) (answer, string) {
		user := []string{"ada", "ben", "cat"}[n%3]
		a := c.get("/", x.cookies[user])
		if s, ok := a.reached(); ok && s.App != "a" {
			return a, fmt.Sprintf("a configuration with a mistake is in use: %s", a)
		}
		return a, x.judge(user, a)
	})
	other := x.authority.issue()
	good := maps.Clone(x.mount.files)
	for name, test := range map[string]struct {
		files map[string]string // "": is missing
		says  []string
	}{
		"a misspelt key":               {map[string]string{"config.yaml": x.text("b") + "uptream: http://127.0.0.1:1\n"}, []string{`"key":"uptream"`, `"line":12`, `"hint":"write upstream"`}},
		"a key twice":                  {map[string]string{"config.yaml": x.text("b") + "listen: 127.0.0.1:1\n"}, []string{`"key":"listen"`, `"line":12`}},
		"no YAML":                      {map[string]string{"config.yaml": "routes: [\n"}, []string{"not YAML"}},
		"nothing":                      {map[string]string{"config.yaml": ""}, []string{`"key":"public_url"`}},
		"a route that can never match": {map[string]string{"config.yaml": x.text("b") + "  - {path: /x, allow: anyone}\n"}, []string{`"key":"routes[1]`}},
		"a weak session key":           {map[string]string{"config.yaml": x.text("b"), "session-key": "c2hvcnQ"}, []string{`"key":"session.keys`}},
		"no client secret":             {map[string]string{"config.yaml": x.text("b"), "client-secret": ""}, []string{`"key":"provider.client_secret"`}},
		"a key of another certificate": {map[string]string{"config.yaml": x.text("b"), "tls.key": other["tls.key"]}, []string{`"key":"tls.key_file"`, "the key of another certificate"}},
		"half a certificate":           {map[string]string{"config.yaml": x.text("b"), "tls.crt": other["tls.crt"][:100]}, []string{`"key":"tls.`}},
	} {
		before, failed := len(x.replica.out.String()), x.replica.metric(`authproxy_reloads_total{result="failed"}`)
		x.mount.swap(test.files)
		x.replica.signal(syscall.SIGHUP)
		eventually(t, "the failure with "+name+" is counted", func() bool { return x.replica.metric(`authproxy_reloads_total{result="failed"}`) > failed })
		eventually(t, "the log says what is wrong with "+name, func() bool {
			return strings.Contains(x.replica.out.String()[before:], "the new configuration is not used; the old one stays")
		})
		for _, text := range test.says {
			if log := x.replica.out.String()[before:]; !strings.Contains(log, text) {
				t.Errorf("with %s the log lacks %s:\n%s", name, text, log)
			}
		}
		if n := x.replica.metric("authproxy_last_reload_successful"); n != 0 {
			t.Errorf("with %s authproxy_last_reload_successful is %v", name, n)
		}
		x.judgeNow(c)
		if x.replica.ready() != 200 {
			t.Errorf("with %s it is not ready", name)
		}
		if x.authority.serial(x.replica.addr) != 1 {
			t.Errorf("with %s another certificate is in use", name)
		}
		x.mount.swap(good)
	}
	l.stop(t)
	if log := x.replica.out.String(); strings.Contains(log, x.mount.files["client-secret"]) || strings.Contains(log, x.world.key) {
		t.Error("the log has a secret in it")
	}
	x.policy = "b"
	x.mount.swap(map[string]string{"config.yaml": x.text("b")})
	x.replica.signal(syscall.SIGHUP)
	eventually(t, "a good configuration is taken after all", func() bool { return x.inForce(c) == "b" })
	if n := x.replica.metric("authproxy_last_reload_successful"); n != 1 {
		t.Errorf("authproxy_last_reload_successful is %v", n)
	}
}

// Who installs a configuration and sends the signal cannot know how far a program that was just started has come.
func TestASignalToReloadDoesNoHarmAtTheStart(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // in the place of Redis, so that the start takes a while
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	w := newWorld(t, settings{session: fmt.Sprintf("store: redis, redis: {url: 'redis://%s'}", silent.Addr())})
	r := &replica{w: w, addr: "127.0.0.1:" + freePort(t), admin: "127.0.0.1:" + freePort(t), file: filepath.Join(t.TempDir(), "config.yaml")}
	write(t, r.file, w.config(r))
	r.process = start(t, program, "serve", "-config", r.file)
	c, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r.signal(syscall.SIGHUP)
	eventually(t, "it listens", func() bool {
		if !r.running() {
			t.Fatalf("it has ended: %v", r.err)
		}
		return r.listens()
	})
	r.signal(syscall.SIGINT)
	r.ended(t)
}
