package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

const version = "v1.2.3-test"

// scratch is removed at the end.
var scratch string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "authproxy-release-test")
	if err != nil {
		panic(err)
	}
	scratch = dir
	status := m.Run()
	os.RemoveAll(scratch)
	os.Exit(status)
}

// made is the release that the tests look at: that of the platforms of the image.
var made = sync.OnceValues(func() (release, error) {
	r := releaseOf("../..", filepath.Join(scratch, "dist"))
	return r, r.make(context.Background())
})

func releaseOf(source, out string) release {
	return release{source: source, out: out, version: version, commit: "0123456789abcdef0123456789abcdef01234567",
		time: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), platforms: []string{"linux/amd64", "linux/arm64"}, log: io.Discard}
}

// dist is the directory of the release.
func dist(t *testing.T) string {
	t.Helper()
	r, err := made()
	if err != nil {
		t.Fatal(err)
	}
	return r.out
}

func TestTheSameSourceMakesTheSameReleaseAnywhere(t *testing.T) {
	source := t.TempDir()
	copySource(t, "../..", source)
	t.Setenv("GOFLAGS", "-race") // of somebody's environment
	again := releaseOf(source, filepath.Join(t.TempDir(), "out"))
	again.platforms = []string{"linux/amd64"} // for another, the compiler would be no other
	if err := again.make(t.Context()); err != nil {
		t.Fatal(err)
	}
	sums := read(t, dist(t), "SHA256SUMS")
	for line := range strings.Lines(read(t, again.out, "SHA256SUMS")) {
		if strings.Contains(line, "linux_amd64") && !strings.Contains(sums, line) {
			t.Errorf("the checksum of a copy of the source is %swant that in\n%s", line, sums)
		}
	}
	const platform = "linux/amd64"
	if got, want := imageDigest(t, again.out, platform), imageDigest(t, dist(t), platform); got != want {
		t.Errorf("the digest of the image for %s is %s, want %s", platform, got, want)
	}
}

// copySource copies the module without its tests' tools and other modules.
func copySource(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, other := os.Stat(filepath.Join(p, "go.mod"))
			if rel != "." && (other == nil || strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !d.Type().IsRegular() || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(p)
		return errors.Join(err, os.WriteFile(filepath.Join(to, rel), text, 0o644))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSHA256SUMSNamesEveryFile(t *testing.T) {
	sums := map[string]string{}
	for line := range strings.Lines(read(t, dist(t), "SHA256SUMS")) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		sums[name] = sum
	}
	want := []string{
		"authproxy_v1.2.3-test_image.tar",
		"authproxy_v1.2.3-test_linux_amd64.cdx.json", "authproxy_v1.2.3-test_linux_amd64.tar.gz",
		"authproxy_v1.2.3-test_linux_arm64.cdx.json", "authproxy_v1.2.3-test_linux_arm64.tar.gz",
	}
	for _, name := range want {
		if got := fmt.Sprintf("%x", sha256.Sum256([]byte(read(t, dist(t), name)))); got != sums[name] {
			t.Errorf("%s has the checksum %s, and %q in SHA256SUMS", name, got, sums[name])
		}
	}
	if len(sums) != len(want) {
		t.Errorf("SHA256SUMS names %d files, want %d", len(sums), len(want))
	}
}

func TestAnArchiveHasTheProgramAndWhatOneNeedsToInstallIt(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		t.Run(arch, func(t *testing.T) {
			name := "authproxy_" + version + "_linux_" + arch
			f, err := os.Open(filepath.Join(dist(t), name+".tar.gz"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			z, err := gzip.NewReader(f)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			want := []string{name + "/CHANGELOG.md", name + "/README.md", name + "/authproxy*", name + "/config.yaml.example",
				name + "/deploy/systemd/README.md", name + "/deploy/systemd/authproxy.service"}
			if got := unpack(t, z, dir, false); !slices.Equal(got, want) {
				t.Errorf("the archive has\n%q, want\n%q", got, want)
			}
			checkProgram(t, filepath.Join(dir, name, "authproxy"), machine)
		})
	}
}

// unpack extracts a tar and names what is in it: a slash ends a directory's name, a star that of a program.
func unpack(t *testing.T, r io.Reader, dir string, owned bool) (names []string) {
	t.Helper()
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, filepath.FromSlash(h.Name))
		name := h.Name
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(to, 0o755)
		case tar.TypeReg:
			if h.Mode&0o111 != 0 {
				name += "*"
			}
			var text []byte
			if text, err = io.ReadAll(archive); err == nil {
				err = os.MkdirAll(filepath.Dir(to), 0o755)
			}
			if err == nil {
				err = os.WriteFile(to, text, 0o600)
			}
		default:
			t.Fatalf("%s is neither a file nor a directory", h.Name)
		}
		if err == nil {
			err = os.Chmod(to, h.FileInfo().Mode())
		}
		if err == nil && owned {
			err = os.Chown(to, h.Uid, h.Gid)
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.FileInfo().Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 || h.Mode&0o022 != 0 {
			t.Errorf("%s has the mode %o", h.Name, h.Mode)
		}
		names = append(names, name)
	}
}

// checkProgram checks that a program needs nothing of the system that it runs on, and tells nothing of the one it is from.
func checkProgram(t *testing.T, path string, machine elf.Machine) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Machine != machine {
		t.Errorf("the program is for %s, want %s", f.Machine, machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the program has a %s: it is not static", p.Type)
		}
	}
	text := read(t, filepath.Dir(path), filepath.Base(path))
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{source, goEnv(t, "GOROOT"), goEnv(t, "GOMODCACHE")} {
		if strings.Contains(text, dir+"/") {
			t.Errorf("the program names %s", dir)
		}
	}
	if !strings.Contains(text, "Europe/Berlin") {
		t.Error("the program has no data on time zones")
	}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestTheBillOfMaterialsNamesWhatIsImported(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}}{{end}}{{end}}", "./cmd/authproxy")
	list.Dir = "../.."
	list.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64", "GOFLAGS=", "GOWORK=off")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"std@" + strings.TrimPrefix(goEnv(t, "GOVERSION"), "go")}
	for line := range strings.Lines(string(out)) {
		if m := strings.TrimSpace(line); m != "" && !slices.Contains(want, m) {
			want = append(want, m)
		}
	}
	slices.Sort(want)

	f, err := os.Open(filepath.Join(dist(t), "authproxy_"+version+"_linux_arm64.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bom := new(cdx.BOM)
	if err := cdx.NewBOMDecoder(f, cdx.BOMFileFormatJSON).Decode(bom); err != nil {
		t.Fatal(err)
	}
	var got, refs []string
	for _, c := range *bom.Components {
		got = append(got, c.Name+"@"+c.Version)
		refs = append(refs, c.PackageURL)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("components = %q, want %q", got, want)
	}
	if d := *bom.Dependencies; len(d) != 1 || d[0].Ref != bom.Metadata.Component.BOMRef || !slices.Equal(*d[0].Dependencies, refs) {
		t.Errorf("dependencies = %+v, want all components of the program", d)
	}
	if got, want := bom.Metadata.Timestamp, "2026-11-25T12:00:00Z"; got != want {
		t.Errorf("timestamp = %q, want %q", got, want)
	}
	checkModuleSum(t, bom, "github.com/gorilla/securecookie")
}

// checkModuleSum compares the checksum of a module with that in go.sum.
func checkModuleSum(t *testing.T, bom *cdx.BOM, module string) {
	t.Helper()
	for _, c := range *bom.Components {
		if c.Name != module {
			continue
		}
		sum, err := hex.DecodeString((*c.Hashes)[0].Value)
		if err != nil {
			t.Fatal(err)
		}
		if line := fmt.Sprintf("%s %s h1:%s\n", module, c.Version, base64Of(sum)); !strings.Contains(read(t, "../..", "go.sum"), line) {
			t.Errorf("go.sum has no line %q", line)
		}
		return
	}
	t.Errorf("there is no %s", module)
}

func TestWhatCannotBeReleasedIsRefused(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*release)
		want   string
	}{
		"no version":           {func(r *release) { r.version = "" }, `version "" is none: want one such as v1.2.3`},
		"flags in the version": {func(r *release) { r.version = "v1.2.3 -X main.x=y" }, `version "v1.2.3 -X main.x=y" is none: want one such as v1.2.3`},
		"files of another":     {func(r *release) { r.out = full }, full + " is not empty"},
		"half a platform":      {func(r *release) { r.platforms = []string{"linux"} }, `platform "linux": want os/architecture, such as linux/amd64`},
	} {
		t.Run(name, func(t *testing.T) {
			r := releaseOf("../..", filepath.Join(t.TempDir(), "out"))
			test.change(&r)
			if err := r.make(t.Context()); err == nil || err.Error() != test.want {
				t.Errorf("make = %v, want %s", err, test.want)
			}
		})
	}
}

func TestCommitAndTimeAreThoseOfTheRepository(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "")
	r := release{source: t.TempDir()}
	if err := r.fromGit(); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("fromGit without a repository = %v, want that SOURCE_DATE_EPOCH is needed", err)
	}
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", r.source, "-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2026-11-25T12:00:00Z")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(r.source, "x"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git("init", "-q")
	write("one")
	git("add", "x")
	git("commit", "-q", "-m", "x")
	if err := r.fromGit(); err != nil {
		t.Fatal(err)
	}
	if want := git("rev-parse", "HEAD"); r.commit != want || !r.time.Equal(time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("fromGit = %s, %s, want %s, 2026-11-25 12:00:00", r.commit, r.time, want)
	}
	write("two")
	if err := r.fromGit(); err == nil || !strings.Contains(err.Error(), "not committed") {
		t.Errorf("fromGit with a changed file = %v, want that it is not committed", err)
	}
}
