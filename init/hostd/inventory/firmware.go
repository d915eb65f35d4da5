package inventory

import (
	"os"
	"path/filepath"
)

// IOMMU reports whether the kernel runs one.
func (s Source) IOMMU() bool {
	units, err := os.ReadDir(filepath.Join(s.Sys, "class/iommu"))
	return err == nil && len(units) > 0
}

// secureBoot is the firmware's variable: four bytes of attributes, then whether
// it checks signatures.
const secureBoot = "firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

// SecureBoot reports whether the firmware checked what it started.
func (s Source) SecureBoot() bool {
	b, err := os.ReadFile(filepath.Join(s.Sys, secureBoot))
	return err == nil && len(b) == 5 && b[4] == 1
}
