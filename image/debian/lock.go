package debian

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// A Package is one binary package of the tree.
type Package struct {
	Name    string
	Version string
	Arch    string
	SHA256  string
	Source  string // source package, for the SBOM
	Section string
}

// A Drift is a package that differs from its lock line. Got is empty where the
// package is gone, Locked where the lock does not know it.
type Drift struct {
	Name   string
	Locked string
	Got    string
}

// String says the drift in words.
func (d Drift) String() string {
	switch {
	case d.Got == "":
		return fmt.Sprintf("%s: locked %s is no longer needed", d.Name, d.Locked)
	case d.Locked == "":
		return fmt.Sprintf("%s: not in the lock, taking %s", d.Name, d.Got)
	case d.Locked == d.Got:
		return fmt.Sprintf("%s: version %s has other bytes than the lock says", d.Name, d.Got)
	}
	return fmt.Sprintf("%s: locked %s cannot be had any more, taking %s", d.Name, d.Locked, d.Got)
}

// What a lock begins with.
const (
	treeHeader  = "# Every Debian package of the image and of the build tools" + headerTail
	otherHeader = "# Every Debian package that the list beside it means" + headerTail

	headerTail = `: name version architecture sha256.
# Written by "make lock" from packages.list; do not edit.
`
)

// ParseLock reads a lock file: "name version arch sha256" per line, "#" lines
// are comments.
func ParseLock(data []byte) ([]Package, error) {
	var pkgs []Package
	seen := map[string]bool{}
	sc := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 4 || !packageName.MatchString(f[0]) || !isSHA256(f[3]) {
			return nil, fmt.Errorf("line %d: want name, version, architecture and sha256", n)
		}
		if seen[f[0]] {
			return nil, fmt.Errorf("line %d: package %s is locked twice", n, f[0])
		}
		seen[f[0]] = true
		pkgs = append(pkgs, Package{Name: f[0], Version: f[1], Arch: f[2], SHA256: f[3]})
	}
	return pkgs, sc.Err()
}

func isSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && s == strings.ToLower(s)
}

// formatLock writes what ParseLock reads, sorted by name.
func formatLock(header string, pkgs []Package) []byte {
	sorted := slices.SortedFunc(slices.Values(pkgs), byName)
	b := bytes.NewBufferString(header)
	for _, p := range sorted {
		fmt.Fprintf(b, "%s %s %s %s\n", p.Name, p.Version, p.Arch, p.SHA256)
	}
	return b.Bytes()
}

func byName(a, b Package) int { return strings.Compare(a.Name, b.Name) }
