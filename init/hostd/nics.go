package hostd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// LoadNICs implements System. A virtual NIC shows only once the driver of its
// bus has been loaded, so the second look finds what the first one brought.
func (l *linux) LoadNICs() error {
	tree, err := l.modules()
	if err != nil {
		return err
	}
	var errs []error
	for range 2 {
		for _, alias := range nicAliases(l.paths.Sys) {
			for _, file := range tree.Match(alias) {
				errs = append(errs, tree.LoadFile(file))
			}
		}
	}
	return errors.Join(errs...)
}

// nicAliases lists the modaliases of network controllers: PCI class 02, and
// device type 1 of virtio (Virtio 1.2, section 5).
func nicAliases(sys string) []string {
	var out []string
	for _, dir := range glob(sys, "bus/pci/devices/*") {
		if strings.HasPrefix(word(dir, "class"), "0x02") {
			out = append(out, word(dir, "modalias"))
		}
	}
	for _, dir := range glob(sys, "bus/virtio/devices/*") {
		if alias := word(dir, "modalias"); strings.HasPrefix(alias, "virtio:d00000001v") {
			out = append(out, alias)
		}
	}
	return out
}

func glob(sys, pattern string) []string {
	found, _ := filepath.Glob(filepath.Join(sys, pattern)) // the pattern is sound
	return found
}

// word reads a one-line file of sysfs; one that is gone reads as empty.
func word(dir, name string) string {
	text, _ := os.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(text))
}
