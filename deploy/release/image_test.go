package main

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// readImage reads the archive of the image, as others do.
func readImage(t *testing.T, dist string) v1.ImageIndex {
	t.Helper()
	f, err := os.Open(filepath.Join(dist, "authproxy_"+version+"_image.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := t.TempDir()
	unpack(t, f, dir, false)
	outer, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := outer.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 1 {
		t.Fatalf("index.json names %d manifests, want the one of all platforms", len(manifest.Manifests))
	}
	index, err := outer.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// images are the images in the index by platform.
func images(t *testing.T, index v1.ImageIndex) map[string]v1.Image {
	t.Helper()
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]v1.Image{}
	for _, m := range manifest.Manifests {
		if found[m.Platform.String()], err = index.Image(m.Digest); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func imageDigest(t *testing.T, dist, platform string) string {
	t.Helper()
	digest, err := images(t, readImage(t, dist))[platform].Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

func config(t *testing.T, image v1.Image) v1.Config {
	t.Helper()
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return file.Config
}

// extract writes the files of an image to a directory, for root with their owners, and names them.
func extract(t *testing.T, image v1.Image, dir string) (names []string) {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, unpack(t, r, dir, os.Geteuid() == 0)...)
		r.Close()
	}
	return names
}

func TestTheImageHasNothingInItButTheProgram(t *testing.T) {
	index := readImage(t, dist(t))
	if err := validate.Index(index); err != nil {
		t.Fatal(err)
	}
	found := images(t, index)
	if got, want := slices.Sorted(maps.Keys(found)), []string{"linux/amd64", "linux/arm64"}; !slices.Equal(got, want) {
		t.Fatalf("platforms = %q, want %q", got, want)
	}
	for platform, image := range found {
		t.Run(platform, func(t *testing.T) {
			dir := t.TempDir()
			want := []string{
				"etc/", "etc/group", "etc/passwd", "etc/ssl/", "etc/ssl/certs/", "etc/ssl/certs/ca-certificates.crt", "var/", "var/lib/", "var/lib/authproxy/",
				"usr/", "usr/local/", "usr/local/bin/", "usr/local/bin/authproxy*",
			}
			if got := extract(t, image, dir); !slices.Equal(got, want) {
				t.Errorf("the image has\n%q, want\n%q", got, want)
			}
			c := config(t, image)
			if c.User != "65532:65532" {
				t.Errorf("user = %q, want 65532:65532", c.User)
			}
			if want := []string{"/usr/local/bin/authproxy"}; !slices.Equal(c.Entrypoint, want) || len(c.Cmd) > 0 {
				t.Errorf("entrypoint and command = %q, %q, want %q and none", c.Entrypoint, c.Cmd, want)
			}
			if got := c.Labels["org.opencontainers.image.version"]; got != version {
				t.Errorf("the label of the version = %q, want %q", got, version)
			}
			certificates := x509.NewCertPool()
			certificates.AppendCertsFromPEM([]byte(read(t, dir, "etc/ssl/certs/ca-certificates.crt")))
			if n := strings.Count(read(t, dir, "etc/ssl/certs/ca-certificates.crt"), "BEGIN CERTIFICATE"); n < 100 || certificates.Equal(x509.NewCertPool()) {
				t.Errorf("%d certificate authorities, want those of Mozilla", n)
			}
		})
	}
}

func TestThePushedImageIsTheOneInTheArchive(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	r, index := releaseOf("", ""), readImage(t, dist(t))
	r.push = strings.TrimPrefix(server.URL, "http://") + "/authproxy:" + version
	if err := r.pushImage(t.Context(), index); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(r.push)
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(pushed); err != nil {
		t.Error(err)
	}
	got, err := pushed.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if want, err := index.Digest(); err != nil || got != want {
		t.Errorf("digest = %s, want %s (%v)", got, want, err)
	}
}

// TestTheImageServes runs what is in the image as a container runtime would: its entry point, as its user, with its environment
// and, for root, with nothing of this machine's files in sight.
func TestTheImageServes(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the image's program for linux/amd64 does not run here")
	}
	dir, err := os.MkdirTemp("", "authproxy-image") // the image's user has to get in, which it cannot below t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	image := images(t, readImage(t, dist(t)))["linux/amd64"]
	extract(t, image, dir)
	c := config(t, image)
	run := func(env []string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), c.Entrypoint[0], append(c.Entrypoint[1:], args...)...)
		cmd.Env = append(slices.Clone(c.Env), env...)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{}
		if os.Geteuid() == 0 {
			cmd.SysProcAttr.Chroot = dir
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: user, Gid: user}
		} else {
			cmd.Path = filepath.Join(dir, c.Entrypoint[0])
			cmd.Env = append(cmd.Env, "AUTHPROXY_CONFIG="+filepath.Join(dir, "etc/authproxy/config.yaml"))
		}
		return cmd
	}

	out, err := run(nil, "version").CombinedOutput()
	if want := "authproxy v1.2.3-test, commit 0123456789abcdef0123456789abcdef01234567, "; err != nil || !strings.HasPrefix(string(out), want) {
		t.Fatalf("authproxy version = %s, %v, want %s...", out, err, want)
	}
	key, err := run(nil, "keygen").Output()
	if err != nil {
		t.Fatal(err)
	}

	public, admin := freeAddress(t), freeAddress(t)
	sessions := "/var/lib/authproxy/sessions.db"
	if os.Geteuid() != 0 {
		sessions = filepath.Join(dir, sessions)
	}
	mount(t, dir, "etc/authproxy/config.yaml", `
public_url: http://localhost:8080
listen: `+public+`
admin: {listen: "`+admin+`"}
provider: {issuer: "http://127.0.0.1:9", client_id: x, client_secret: "${file:../../run/secrets/client-secret}"}
session: {keys: ["${file:../../run/secrets/session-key}"], store: file, file: {path: `+sessions+`}}
upstream: http://127.0.0.1:9
`)
	mount(t, dir, "run/secrets/session-key", string(key))
	mount(t, dir, "run/secrets/client-secret", "secret\n")

	if out, err := run(nil, "check").CombinedOutput(); err != nil {
		t.Fatalf("authproxy check: %v\n%s", err, out)
	}
	server := run([]string{"TZ=Asia/Kathmandu"}) // without arguments it serves
	var events syncBuffer
	server.Stderr = &events
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	waitForOK(t, "http://"+admin+"/readyz", &events)
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := server.Wait(); err != nil {
		t.Errorf("authproxy ended with %v\n%s", err, &events)
	}
	if !strings.Contains(events.String(), "+05:45") {
		t.Errorf("the events do not have the time of TZ:\n%s", &events)
	}
}

// mount puts a file into the image's files.
func mount(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func waitForOK(t *testing.T, url string, events fmt.Stringer) {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	for end := time.Now().Add(30 * time.Second); ; {
		res, err := client.Get(url)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not 200: %v\n%s", url, err, events)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A syncBuffer is written by a process while the test reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// The Dockerfile cannot be run by a test that has no Docker; that it says the same as we do can be seen.
func TestTheDockerfileMakesTheSameImage(t *testing.T) {
	text := regexp.MustCompile(`\s*\\\n\s*`).ReplaceAllString(read(t, "..", "Dockerfile"), " ")
	_, final, ok := strings.Cut(text, "\nFROM scratch\n")
	if !ok {
		t.Fatal("the last stage is not from scratch")
	}
	c := config(t, images(t, readImage(t, dist(t)))["linux/amd64"])
	var ports []string
	for p := range c.ExposedPorts {
		ports = append(ports, strings.TrimSuffix(p, "/tcp"))
	}
	slices.Sort(ports)
	want := []string{
		"COPY --from=build /root-fs /",
		"ENV " + strings.Join(c.Env, " "),
		"EXPOSE " + strings.Join(ports, " "),
		"USER " + c.User,
		fmt.Sprintf("ENTRYPOINT [%q]", c.Entrypoint[0]),
	}
	if got := strings.Split(strings.TrimSpace(final), "\n"); !slices.Equal(got, want) {
		t.Errorf("the last stage is\n%q, want\n%q", got, want)
	}
	for _, f := range rootFiles() {
		if f.text != "" && !strings.HasPrefix(f.text, "-----BEGIN") {
			if line := fmt.Sprintf("printf '%s' > /root-fs/%s", strings.ReplaceAll(f.text, "\n", `\n`), f.name); !strings.Contains(text, line) {
				t.Errorf("the Dockerfile has no %s", line)
			}
		}
	}
	source := read(t, ".", "main.go")
	for _, flag := range []string{"-trimpath", "-buildvcs=false", "-mod=readonly", "-tags timetzdata", "-s -w -buildid= -X main.version=", "CGO_ENABLED=0"} {
		inOurs := strings.Contains(strings.ReplaceAll(source, `", "`, " "), flag)
		if !inOurs || !strings.Contains(text, flag) {
			t.Errorf("%s is in ours: %t, in the Dockerfile: %t", flag, inOurs, strings.Contains(text, flag))
		}
	}
}

func TestTheDockerfileSeesEveryPackageOfTheProgram(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./cmd/authproxy")
	list.Dir = "../.."
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(read(t, "..", "Dockerfile.dockerignore"), "\n")
	for pkg := range strings.Lines(string(out)) {
		if dir, ours := strings.CutPrefix(strings.TrimSpace(pkg), "authproxy/"); ours {
			top, _, _ := strings.Cut(dir, "/")
			if !slices.Contains(lines, "!"+top) {
				t.Errorf("deploy/Dockerfile.dockerignore has no !%s, and the program imports %s", top, dir)
			}
		}
	}
}

func TestAnImageIsNotPushedToAGuessedPlace(t *testing.T) {
	for _, ref := range []string{"authproxy", "authproxy:v1", "registry.example.com/authproxy"} {
		r := releaseOf("", "")
		r.push = ref
		if err := r.pushImage(t.Context(), nil); err == nil {
			t.Errorf("pushing to %q was begun, want an error: registry or tag is missing", ref)
		}
	}
}
