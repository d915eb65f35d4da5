package sbom

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"cairn/image/debian"
)

// Packages names the packages of a Debian tree that files came from, each once.
// A file is given by its place on this machine; one outside of the tree is not
// Debian's and does not count. One inside that no package owns is an error: it
// would be missing from the bill.
func Packages(t *debian.Tree, files []string) ([]Package, error) {
	found := map[string]bool{}
	var out []Package
	for _, file := range files {
		rel, err := filepath.Rel(t.Dir, file)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		name, ok := t.Owner(rel)
		switch {
		case !ok && isIndex(rel):
			continue
		case !ok:
			return nil, fmt.Errorf("bill of materials: no package owns /%s", rel)
		case found[name]:
			continue
		}
		found[name] = true
		p, ok := t.Package(name)
		if !ok {
			return nil, fmt.Errorf("bill of materials: package %s is not in the tree's record", name)
		}
		out = append(out, Package{Name: p.Name, Version: p.Version, Arch: p.Arch, SHA256: p.SHA256, Source: p.Source})
	}
	slices.SortFunc(out, byName)
	return out, nil
}

// isIndex tells the files depmod made when the tree was unpacked.
func isIndex(rel string) bool {
	return strings.HasPrefix(rel, "usr/lib/modules/") && strings.HasPrefix(filepath.Base(rel), "modules.")
}
