package hostd

import (
	"os"
	"path/filepath"
	"testing"
)

// TestOnlyMediaAtHandAreAsked: a guest must not be able to configure its host by
// the label of its own disk.
func TestOnlyMediaAtHandAreAsked(t *testing.T) {
	const usb, san = "devices/pci0000:00/usb1/1-1/host0/block", "devices/pci0000:00/host1/block"
	sysfs := t.TempDir()
	plant := func(name, dir, removable string) {
		t.Helper()
		dir = filepath.Join(sysfs, dir)
		link := filepath.Join(sysfs, "class/block", name)
		for _, d := range []string{dir, filepath.Dir(link)} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if removable != "" {
			if err := os.WriteFile(filepath.Join(dir, "removable"), []byte(removable+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(dir, link); err != nil {
			t.Fatal(err)
		}
	}
	plant("sda", usb+"/sda", "0")
	plant("sda1", usb+"/sda/sda1", "")
	plant("sdb", san+"/sdb", "0")
	plant("sdb1", san+"/sdb/sdb1", "")
	plant("sdc", san+"/sdc", "1")
	plant("sdc1", san+"/sdc/sdc1", "")
	plant("dm-0", "devices/virtual/block/dm-0", "0")
	plant("nvme0n1", "devices/pci0000:00/nvme/nvme0/nvme0n1", "0")
	plant("sr0", "devices/pci0000:00/ata1/block/sr0", "1")
	for name, want := range map[string]bool{
		"sda": true, "sda1": true, "sdb": false, "sdb1": false, "sdc": true, "sdc1": true,
		"dm-0": false, "nvme0n1": false, "sr0": true, "none": false,
	} {
		if got := atHand(sysfs, name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
