// Command release makes what a release consists of: an archive of the program for each platform with its bill of materials, a
// container image as an OCI archive, and SHA256SUMS. It needs Go and nothing else, no Docker daemon among it.
//
//	go -C deploy/release run . -version v1.2.3
//	go -C deploy/release run . -version v1.2.3 -push registry.example.com/authproxy:v1.2.3
//
// The same source, version and Go make the same bytes, on any machine and in any directory.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	var r release
	var platforms string
	flag.StringVar(&r.source, "source", "../..", "`directory` of the authproxy module")
	flag.StringVar(&r.out, "out", "../../dist", "`directory` to write to; it is made, and must be empty")
	flag.StringVar(&r.version, "version", "", "`version` of the release, such as v1.2.3")
	flag.StringVar(&platforms, "platforms", "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64", "what to build for; those of Linux are in the image")
	flag.StringVar(&r.push, "push", "", "also push the image there, such as registry.example.com/authproxy:v1.2.3, with the credentials of docker login")
	flag.Parse()
	r.platforms = strings.Split(platforms, ",")
	r.log = os.Stdout
	err := errors.New("unexpected arguments")
	if flag.NArg() == 0 {
		err = r.fromGit()
	}
	if err == nil {
		err = r.make(context.Background())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "release: %v\n", err)
		os.Exit(1)
	}
}

// A release is what to make, from what.
type release struct {
	source, out string
	version     string
	commit      string    // of the source; "" is unknown
	time        time.Time // of everything in it
	platforms   []string  // os/architecture
	push        string    // reference to push the image to; "": it is not pushed
	log         io.Writer
}

var versionForm = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)

// fromGit takes commit and time from the source's repository, which must hold what is built. SOURCE_DATE_EPOCH, in seconds,
// goes before the commit's time (reproducible-builds.org/specs/source-date-epoch). Without a repository it has to be given.
func (r *release) fromGit() error {
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", r.source}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if commit, err := git("rev-parse", "HEAD"); err == nil {
		changed, err := git("status", "--porcelain", "--untracked-files=no")
		if err != nil {
			return fmt.Errorf("git status: %w", err)
		}
		if changed != "" {
			return fmt.Errorf("the source has changes that are not committed:\n%s", changed)
		}
		r.commit = commit
		if epoch == "" {
			if epoch, err = git("log", "-1", "--format=%ct"); err != nil {
				return fmt.Errorf("git log: %w", err)
			}
		}
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH is %q and there is no git repository: want the time of the release in seconds", epoch)
	}
	r.time = time.Unix(seconds, 0).UTC()
	return nil
}

// make writes the release.
func (r *release) make(ctx context.Context) error {
	if !versionForm.MatchString(r.version) {
		return fmt.Errorf("version %q is none: want one such as v1.2.3", r.version)
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	if found, err := os.ReadDir(r.out); err != nil || len(found) > 0 {
		return errors.Join(err, fmt.Errorf("%s is not empty", r.out))
	}
	tmp, err := os.MkdirTemp("", "authproxy-release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)

	var parts []imagePart
	for _, platform := range r.platforms {
		goos, arch, ok := strings.Cut(platform, "/")
		if !ok {
			return fmt.Errorf("platform %q: want os/architecture, such as linux/amd64", platform)
		}
		binary := filepath.Join(tmp, goos+"_"+arch)
		if err := r.build(ctx, goos, arch, binary); err != nil {
			return err
		}
		name := fmt.Sprintf("authproxy_%s_%s_%s", r.version, goos, arch)
		if err := r.archive(name, binary); err != nil {
			return err
		}
		if err := r.billOfMaterials(binary, filepath.Join(r.out, name+".cdx.json")); err != nil {
			return err
		}
		if goos == "linux" {
			parts = append(parts, imagePart{arch, binary})
		}
	}
	if len(parts) > 0 {
		index, err := r.image(parts)
		if err != nil {
			return err
		}
		if err := r.writeImage(index, filepath.Join(tmp, "image"), filepath.Join(r.out, "authproxy_"+r.version+"_image.tar")); err != nil {
			return err
		}
		if err := r.pushImage(ctx, index); err != nil {
			return err
		}
	}
	return r.checksums()
}

// build compiles the program without anything of this machine in it: no C library, no paths, no flags of its environment.
func (r *release) build(ctx context.Context, goos, arch, binary string) error {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	ldflags := fmt.Sprintf("-s -w -buildid= -X main.version=%s -X main.commit=%s", r.version, r.commit)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-tags", "timetzdata", "-ldflags", ldflags, "-o", binary, "./cmd/authproxy")
	cmd.Dir = r.source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building for %s/%s: %w\n%s", goos, arch, err, out)
	}
	return nil
}

// checksums writes SHA256SUMS for sha256sum -c, and shows it.
func (r *release) checksums() error {
	entries, err := os.ReadDir(r.out) // sorted
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, e := range entries {
		sum, err := fileSum(filepath.Join(r.out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sum, e.Name())
	}
	io.WriteString(r.log, sums.String())
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(sums.String()), 0o644)
}

func fileSum(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// writeTo creates a file and lets write fill it.
func writeTo(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// archived are the files of the source that go into each archive beside the program.
var archived = []string{"README.md", "CHANGELOG.md", "config.yaml.example", "deploy/systemd/README.md", "deploy/systemd/authproxy.service"}

// archive writes a tar.gz with one directory of the archive's name.
func (r *release) archive(name, binary string) error {
	files := []file{{name: name + "/authproxy", mode: 0o755, from: binary}}
	for _, from := range archived {
		files = append(files, file{name: name + "/" + from, mode: 0o644, from: filepath.Join(r.source, from)})
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return writeTo(filepath.Join(r.out, name+".tar.gz"), func(w io.Writer) error {
		return gzipped(w, func(w io.Writer) error { return writeTar(w, files, r.time) })
	})
}
