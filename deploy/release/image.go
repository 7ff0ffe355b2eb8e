package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is who the program runs as in the container: nobody that a host has, and the number that others use for this.
const user = 65532

// An imagePart is the program for an architecture of Linux.
type imagePart struct{ arch, binary string }

// image is the program and the few files that it needs, for each architecture. There is no shell in it and nothing else to run.
func (r *release) image(parts []imagePart) (v1.ImageIndex, error) {
	roots, err := layer(rootFiles(), r)
	if err != nil {
		return nil, err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, part := range parts {
		program, err := layer([]file{
			{name: "usr/", mode: 0o755}, {name: "usr/local/", mode: 0o755}, {name: "usr/local/bin/", mode: 0o755},
			{name: "usr/local/bin/authproxy", mode: 0o755, from: part.binary},
		}, r)
		if err != nil {
			return nil, err
		}
		image, err := r.imageOf(part.arch, roots, program)
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: part.arch}}})
	}
	return index, nil
}

func (r *release) imageOf(arch string, layers ...v1.Layer) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.ConfigFile(image, &v1.ConfigFile{
		OS: "linux", Architecture: arch, Created: v1.Time{Time: r.time},
		RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			User:         fmt.Sprintf("%d:%d", user, user),
			Entrypoint:   []string{"/usr/local/bin/authproxy"},
			Env:          []string{"PATH=/usr/local/bin", "AUTHPROXY_CONFIG=/etc/authproxy/config.yaml"},
			ExposedPorts: map[string]struct{}{"8080/tcp": {}, "9090/tcp": {}},
			Labels: map[string]string{
				"org.opencontainers.image.title":       "authproxy",
				"org.opencontainers.image.description": "an authenticating reverse proxy",
				"org.opencontainers.image.version":     r.version,
				"org.opencontainers.image.revision":    r.commit,
			},
		},
	})
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		image, err = mutate.Append(image, mutate.Addendum{Layer: l, History: v1.History{Created: v1.Time{Time: r.time}, CreatedBy: "deploy/release"}})
		if err != nil {
			return nil, err
		}
	}
	return image, nil
}

// rootFiles is the file system without the program. The data on time zones is in the program (build tag timetzdata).
func rootFiles() []file {
	return []file{
		{name: "etc/", mode: 0o755},
		{name: "etc/group", mode: 0o644, text: fmt.Sprintf("root:x:0:\nauthproxy:x:%d:\n", user)},
		{name: "etc/passwd", mode: 0o644, text: fmt.Sprintf("root:x:0:0:root:/:/sbin/nologin\nauthproxy:x:%[1]d:%[1]d:authproxy:/var/lib/authproxy:/sbin/nologin\n", user)},
		{name: "etc/ssl/", mode: 0o755}, {name: "etc/ssl/certs/", mode: 0o755},
		{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, text: certificateAuthorities()},
		{name: "var/", mode: 0o755}, {name: "var/lib/", mode: 0o755},
		{name: "var/lib/authproxy/", mode: 0o700, uid: user, gid: user}, // for session.store: file
	}
}

// certificateAuthorities are Mozilla's, as the Go project keeps them, without those that are trusted under conditions, which
// the file format cannot express.
func certificateAuthorities() string {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // to memory: never fails
		}
	}
	return b.String()
}

func layer(files []file, r *release) (v1.Layer, error) {
	var b bytes.Buffer
	if err := gzipped(&b, func(w io.Writer) error { return writeTar(w, files, r.time) }); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
}

// writeImage writes the image as an archive of an OCI layout, which "docker load", podman, skopeo and containerd read.
func (r *release) writeImage(index v1.ImageIndex, dir, archive string) error {
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	names := map[string]string{"org.opencontainers.image.ref.name": r.version, "io.containerd.image.name": "localhost/authproxy:" + r.version}
	if err := path.AppendIndex(index, layout.WithAnnotations(names)); err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Fprintf(r.log, "image %s\n", digest)
	var files []file
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error { // in lexical order
		switch {
		case err != nil || p == dir:
			return err
		case d.IsDir():
			files = append(files, file{name: strings.TrimPrefix(p, dir+"/") + "/", mode: 0o755})
		default:
			files = append(files, file{name: strings.TrimPrefix(p, dir+"/"), mode: 0o644, from: p})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return writeTo(archive, func(w io.Writer) error { return writeTar(w, files, r.time) })
}

// pushImage pushes the image if that is wanted.
func (r *release) pushImage(ctx context.Context, index v1.ImageIndex) error {
	if r.push == "" {
		return nil
	}
	ref, err := name.ParseReference(r.push, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	if err := remote.WriteIndex(ref, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("push: %w", err)
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Fprintf(r.log, "pushed %s@%s\n", ref.Context(), digest)
	return nil
}
