package inventory

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFirmware(t *testing.T) {
	s := Source{Sys: t.TempDir()}
	if s.IOMMU() || s.SecureBoot() {
		t.Error("a machine without anything has an IOMMU or Secure Boot")
	}
	plant := func(path, content string) {
		t.Helper()
		full := filepath.Join(s.Sys, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	plant("class/iommu/dmar0", "")
	plant(secureBoot, "\x06\x00\x00\x00\x01")
	if !s.IOMMU() || !s.SecureBoot() {
		t.Errorf("IOMMU %t, Secure Boot %t", s.IOMMU(), s.SecureBoot())
	}
	plant(secureBoot, "\x06\x00\x00\x00\x00")
	if s.SecureBoot() {
		t.Error("Secure Boot is off and reported")
	}
}
