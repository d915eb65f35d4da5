// Package sbom writes the bill of materials of an image as SPDX 2.3 JSON: the
// Debian packages that files of the image came from, our own programs, and the
// Go modules these are built from.
//
// The document is a function of its input: same image, same bytes. Licences are
// not asserted; Debian's own copyright files say them. Functions are pure and
// safe for concurrent use.
package sbom

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// An Input is what one image consists of.
type Input struct {
	Name     string // of the image, e.g. "cairn"
	Version  string
	Hash     string    // root hash, hex; makes the document's name unique
	Created  time.Time // of the image, not of this run
	Packages []Package
	Binaries []Binary
}

// A Package is a Debian package with at least one file in the image.
type Package struct {
	Name, Version, Arch string
	SHA256              string // of the package file
	Source              string
}

// A Binary is a Go program of our own.
type Binary struct {
	Path   string // in the image
	SHA256 string
	Build  *debug.BuildInfo
}

// ReadBinary describes the program in a file that is at path in the image.
func ReadBinary(path, file string) (Binary, error) {
	f, err := os.Open(file)
	if err != nil {
		return Binary{}, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return Binary{}, fmt.Errorf("%s: %w", file, err)
	}
	info, err := buildinfo.Read(f)
	if err != nil {
		return Binary{}, fmt.Errorf("%s: %w", file, err)
	}
	return Binary{Path: path, SHA256: hex.EncodeToString(h.Sum(nil)), Build: info}, nil
}

// Write writes the document of in.
func Write(w io.Writer, in Input) error {
	d, err := newDocument(in)
	if err != nil {
		return fmt.Errorf("bill of materials: %w", err)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(d); err != nil {
		return fmt.Errorf("bill of materials: %w", err)
	}
	return nil
}

// builder collects the document's packages and relationships.
type builder struct {
	doc     *document
	modules map[string]string // "path@version" → SPDX id
}

func newDocument(in Input) (*document, error) {
	if in.Name == "" || in.Hash == "" {
		return nil, errors.New("the image has no name or no hash")
	}
	d := &document{
		SPDXVersion: "SPDX-2.3",
		DataLicense: "CC0-1.0",
		SPDXID:      documentID,
		Name:        in.Name + "-" + in.Version,
		Namespace:   "https://spdx.org/spdxdocs/" + in.Name + "-" + in.Hash,
		CreationInfo: creationInfo{
			Created:  in.Created.UTC().Format(time.RFC3339),
			Creators: []string{"Tool: cairn-mkimage"},
		},
	}
	b := &builder{doc: d, modules: map[string]string{}}
	image := b.add("Image", in.Name, pkg{
		Version: in.Version, Purpose: "OPERATING-SYSTEM", Supplier: "NOASSERTION",
		Comment: "dm-verity root hash " + in.Hash,
	})
	b.relate(documentID, "DESCRIBES", image)
	for _, p := range slices.SortedFunc(slices.Values(in.Packages), byName) {
		b.relate(image, "CONTAINS", b.debian(p))
	}
	for _, bin := range slices.SortedFunc(slices.Values(in.Binaries), byPath) {
		b.relate(image, "CONTAINS", b.binary(bin, in.Version))
	}
	return d, b.unique()
}

func byName(a, b Package) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version))
}

func byPath(a, b Binary) int { return strings.Compare(a.Path, b.Path) }

// add completes a package with what is the same for all and returns its id.
func (b *builder) add(kind, name string, p pkg) string {
	p.Name = name
	p.SPDXID = identifier(kind, name, p.Version)
	p.Download, p.Concluded, p.Declared, p.Copyright = "NOASSERTION", "NOASSERTION", "NOASSERTION", "NOASSERTION"
	b.doc.Packages = append(b.doc.Packages, p)
	return p.SPDXID
}

func (b *builder) relate(from, how, to string) {
	b.doc.Relationships = append(b.doc.Relationships, relationship{from, how, to})
}

// debian adds a Debian package. Scanners match it by the package URL.
func (b *builder) debian(p Package) string {
	out := pkg{
		Version: p.Version, Purpose: "LIBRARY", Supplier: "Organization: Debian",
		Refs: purl("pkg:deb/debian/" + escape(p.Name) + "@" + escape(p.Version) + "?arch=" + p.Arch + "&distro=debian-13"),
	}
	if p.SHA256 != "" {
		out.Checksums = []checksum{{"SHA256", p.SHA256}}
	}
	if p.Source != "" && p.Source != p.Name {
		out.SourceInfo = "built from Debian source package " + p.Source
	}
	return b.add("Deb", p.Name, out)
}

// binary adds one of our programs and what is linked into it.
func (b *builder) binary(bin Binary, version string) string {
	id := b.add("Binary", bin.Path, pkg{
		Version: version, Purpose: "APPLICATION", Supplier: "NOASSERTION",
		Checksums: []checksum{{"SHA256", bin.SHA256}},
	})
	if bin.Build == nil {
		return id
	}
	b.relate(id, "STATIC_LINK", b.module("stdlib", strings.TrimPrefix(bin.Build.GoVersion, "go")))
	for _, m := range slices.SortedFunc(slices.Values(bin.Build.Deps), func(x, y *debug.Module) int { return strings.Compare(x.Path, y.Path) }) {
		if m.Replace != nil {
			m = m.Replace
		}
		b.relate(id, "STATIC_LINK", b.module(m.Path, m.Version))
	}
	return id
}

// module adds a Go module once for all programs.
func (b *builder) module(path, version string) string {
	key := path + "@" + version
	if id, ok := b.modules[key]; ok {
		return id
	}
	escaped := strings.ReplaceAll(escape(path), "%2F", "/")
	id := b.add("Go", path, pkg{
		Version: version, Purpose: "LIBRARY", Supplier: "NOASSERTION",
		Refs: purl("pkg:golang/" + escaped + "@" + escape(version)),
	})
	b.modules[key] = id
	return id
}

// escape encodes as package URLs want it, where "+" would mean a space.
func escape(s string) string { return strings.ReplaceAll(url.PathEscape(s), "+", "%2B") }

// unique refuses a document in which two things have one id.
func (b *builder) unique() error {
	seen := map[string]string{}
	for _, p := range b.doc.Packages {
		if other, twice := seen[p.SPDXID]; twice {
			return fmt.Errorf("%s %s is there twice (%s)", p.Name, p.Version, other)
		}
		seen[p.SPDXID] = p.Name
	}
	return nil
}

// identifier makes an SPDX id, which knows only letters, digits, "." and "-".
// The hash keeps names apart that differ in other characters.
func identifier(kind, name, version string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, name)
	sum := sha256.Sum256([]byte(kind + "\x00" + name + "\x00" + version))
	return "SPDXRef-" + kind + "-" + strings.Trim(clean, "-") + "-" + hex.EncodeToString(sum[:4])
}
