//go:build lab

package units

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"cairn/image/debian"
	"cairn/init/supervise/catalogue"
)

var update = flag.Bool("update", false, "rewrite the golden files from the Debian tree")

// TestImageUnits compares the tree's units with the golden files; the image
// build does the same and fails. With -update it takes over what Debian changed,
// after somebody has compared it with the catalogue.
func TestImageUnits(t *testing.T) {
	tree, err := debian.Open(t.Context(), debian.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		for _, s := range catalogue.All() {
			if s.Unit != "" {
				rewrite(t, tree.Path(s.Unit), filepath.Join("testdata", s.Name+".golden"))
			}
		}
	}
	if err := Check(tree, catalogue.All()); err != nil && !*update {
		t.Error(err)
	}
}

func rewrite(t *testing.T, unit, golden string) {
	t.Helper()
	f, err := os.Open(unit)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := Summary(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
