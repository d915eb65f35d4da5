package sbom

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/golden"
)

func testInput() Input {
	sum := strings.Repeat("ab", 32)
	return Input{
		Name: "cairn", Version: "0.1.0", Hash: strings.Repeat("01", 32), Created: time.Date(2026, 11, 1, 12, 0, 0, 0, time.FixedZone("", 3600)),
		Packages: []Package{
			{Name: "qemu-system-x86", Version: "1:10.0.13+ds-0+deb13u1", Arch: "amd64", SHA256: sum, Source: "qemu"},
			{Name: "libstdc++6", Version: "14.2.0-19", Arch: "amd64", SHA256: sum, Source: "gcc-14"},
			{Name: "ovmf", Version: "2025.02-8", Arch: "all", SHA256: sum, Source: "ovmf"},
		},
		Binaries: []Binary{
			{Path: "/usr/lib/cairn/toolstackd", SHA256: sum, Build: &debug.BuildInfo{GoVersion: "go1.26.0", Deps: []*debug.Module{
				{Path: "golang.org/x/sys", Version: "v0.49.0"}, {Path: "github.com/BurntSushi/toml", Version: "v1.4.1"},
			}}},
			{Path: "/usr/lib/cairn/init", SHA256: sum, Build: &debug.BuildInfo{GoVersion: "go1.26.0", Deps: []*debug.Module{
				{Path: "old", Version: "v1", Replace: &debug.Module{Path: "golang.org/x/sys", Version: "v0.49.0"}},
			}}},
		},
	}
}

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, testInput()); err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "testdata/cairn.spdx.json", b.Bytes())
}

func TestOrderOfInputDoesNotMatter(t *testing.T) {
	var a, b bytes.Buffer
	in := testInput()
	if err := Write(&a, in); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(in.Packages)
	slices.Reverse(in.Binaries)
	if err := Write(&b, in); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the document depends on the order of its input")
	}
}

func TestIdentifiersAreValidAndResolve(t *testing.T) {
	d, err := newDocument(testInput())
	if err != nil {
		t.Fatal(err)
	}
	syntax := regexp.MustCompile(`^SPDXRef-[a-zA-Z0-9.-]+$`)
	known := map[string]bool{documentID: true}
	for _, p := range d.Packages {
		known[p.SPDXID] = true
		if !syntax.MatchString(p.SPDXID) {
			t.Errorf("%q is not an SPDX id", p.SPDXID)
		}
	}
	for _, r := range d.Relationships {
		if !known[r.From] || !known[r.To] {
			t.Errorf("%v names an unknown element", r)
		}
	}
}

func TestBadInput(t *testing.T) {
	twice := testInput()
	twice.Packages = append(twice.Packages, twice.Packages[0])
	for _, in := range []Input{{}, {Name: "cairn"}, twice} {
		if err := Write(&bytes.Buffer{}, in); err == nil {
			t.Errorf("accepted %+v", in)
		}
	}
}

func TestReadBinary(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin, err := ReadBinary("/usr/bin/x", self)
	if err != nil {
		t.Fatal(err)
	}
	if len(bin.SHA256) != 64 || !strings.HasPrefix(bin.Build.GoVersion, "go1.") {
		t.Errorf("got %+v", bin)
	}
	in := testInput()
	in.Binaries = []Binary{bin}
	var b bytes.Buffer
	if err := Write(&b, in); err != nil || !json.Valid(b.Bytes()) {
		t.Errorf("document of %s: %v", self, err)
	}
	if _, err := ReadBinary("/etc/passwd", "sbom.go"); err == nil {
		t.Error("a text file passed for a program")
	}
}
