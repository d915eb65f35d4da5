//go:build lab

package units

import (
	"os"
	"path/filepath"
	"testing"

	"cairn/golden"
	"cairn/image/debian"
	"cairn/init/supervise/catalogue"
)

// TestImageUnits compares the tree's units with the golden files; the image
// build does the same and fails. With -update it takes over what Debian changed,
// after somebody has compared it with the catalogue.
func TestImageUnits(t *testing.T) {
	tree, err := debian.Open(t.Context(), debian.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if golden.Updating() {
		for _, s := range catalogue.All() {
			if s.Unit != "" {
				rewrite(t, tree.Path(s.Unit), filepath.Join("testdata", s.Name+".golden"))
			}
		}
	}
	if err := Check(tree, catalogue.All()); err != nil && !golden.Updating() {
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
