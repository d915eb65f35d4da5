package inventory

import (
	"os"
	"path/filepath"
	"strings"

	"cairn/init/hostd/client"
)

const sectorSize = 512 // of /sys/block/*/size, whatever the disk's own

// Disks lists whole disks, by name. boot is the one the host runs from.
func (s Source) Disks(boot string) []client.Disk {
	dir := filepath.Join(s.Sys, "block")
	out := []client.Disk{}
	for _, name := range names(dir) {
		path, err := filepath.EvalSymlinks(filepath.Join(dir, name))
		if err != nil || !isDisk(path, name) {
			continue
		}
		d := disk(path, name)
		d.Boot = name == boot
		if d.SizeBytes > 0 { // an empty card reader or DVD drive holds nothing
			out = append(out, d)
		}
	}
	return out
}

// isDisk leaves out what is made of other devices or of memory.
func isDisk(path, name string) bool {
	if _, err := os.Stat(filepath.Join(path, "device")); err != nil {
		return false // loop, ram, zram, dm, md
	}
	// A hidden one is a path of a multipath NVMe disk; mmcblk0boot0 holds firmware.
	return text(path, "hidden") != "1" && !strings.Contains(name, "boot")
}

func disk(path, name string) client.Disk {
	return client.Disk{
		Name:      name,
		SizeBytes: number(path, "size") * sectorSize,
		Model:     firstOf(text(path, "device/model"), text(path, "device/name")),
		Serial:    serial(path),
		Transport: transport(path, name),
		Rotating:  text(path, "queue/rotational") == "1",
		ReadOnly:  text(path, "ro") == "1",
		Removable: text(path, "removable") == "1",
	}
}

// serial is in different places: virtio has it on the disk, NVMe on the
// controller, SCSI in vital product data page 0x80 after a four-byte head.
func serial(path string) string {
	if s := firstOf(text(path, "serial"), text(path, "device/serial")); s != "" {
		return s
	}
	page, err := os.ReadFile(filepath.Join(path, "device/vpd_pg80"))
	if err != nil || len(page) < 4 {
		return ""
	}
	return strings.Trim(string(page[4:]), " \x00")
}

// transport is told by the path through the device tree.
func transport(path, name string) string {
	for _, t := range []struct{ part, name string }{
		{"/usb", "usb"}, {"/ata", "sata"}, {"/nvme", "nvme"}, {"/virtio", "virtio"}, {"/mmc", "mmc"}, {"/session", "iscsi"}, {"/rport-", "fc"},
	} {
		if strings.Contains(path, t.part) {
			return t.name
		}
	}
	if strings.HasPrefix(name, "sd") || strings.HasPrefix(name, "sr") {
		return "scsi"
	}
	return ""
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
