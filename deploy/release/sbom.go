package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// billOfMaterials writes what a program is made of in the format CycloneDX: each module that the compiler says is in it, with
// the checksum by which Go has verified it, and the standard library.
func (r *release) billOfMaterials(binary, out string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return err
	}
	sum, err := fileSum(binary)
	if err != nil {
		return err
	}
	bom := cdx.NewBOM()
	bom.SerialNumber = serialNumber(sum)
	program := cdx.Component{
		Type: cdx.ComponentTypeApplication, Name: "authproxy", Version: r.version, PackageURL: "pkg:golang/authproxy@" + r.version,
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum)}},
	}
	program.BOMRef = program.PackageURL
	bom.Metadata = &cdx.Metadata{Timestamp: r.time.Format(time.RFC3339), Component: &program}
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	components := []cdx.Component{{Type: cdx.ComponentTypeLibrary, Name: "std", Version: goVersion, PackageURL: "pkg:golang/std@" + goVersion}}
	for _, m := range info.Deps { // sorted by path
		if m.Replace != nil {
			m = m.Replace
		}
		hash, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:"))
		if err != nil || len(hash) != sha256.Size {
			return fmt.Errorf("module %s %s has no checksum that we know: %q", m.Path, m.Version, m.Sum)
		}
		components = append(components, cdx.Component{
			Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: "pkg:golang/" + m.Path + "@" + m.Version,
			Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(hash)}},
		})
	}
	var refs []string
	for i := range components {
		components[i].BOMRef = components[i].PackageURL
		components[i].Scope = cdx.ScopeRequired
		refs = append(refs, components[i].BOMRef)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: program.BOMRef, Dependencies: &refs}}
	return writeTo(out, func(w io.Writer) error {
		return cdx.NewBOMEncoder(w, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6)
	})
}

// serialNumber is a UUID of the form for own content (RFC 9562 §5.8), so that the same program gets the same one.
func serialNumber(sum []byte) string {
	id := sha256.Sum256(append([]byte("authproxy bill of materials "), sum...))
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
}
