package storage

import (
	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// QEMU keeps tables of a qcow2 in memory, so two of them cannot write to one: what
// machines share is a raw volume, for as long as it is shared one without layers.

// plain reports whether a disk is a single raw volume.
func plain(disk *api.VDI) bool {
	format := disk.SMConfig[formatKey] // none is that of found disks
	return (format == "" || format == string(client.Raw)) && disk.SMConfig[parentKey] == ""
}

// mayShare says whether a disk can become sharable. Any can cease to be.
func mayShare(r db.Reader, ref api.VDIRef, disk *api.VDI, value bool) error {
	switch {
	case !value || disk.Sharable:
		return nil
	case !plain(disk):
		return api.ErrVDIIncompatibleType(ref.String(), disk.SMConfig[formatKey])
	case disk.IsASnapshot || len(children(r, disk)) > 0:
		return api.ErrOperationNotAllowed("a snapshot, or a VDI that others are based on, cannot be shared")
	case disk.CBTEnabled:
		return api.ErrVDICBTEnabled(ref.String())
	case disk.OnBoot == api.OnBootReset:
		return api.ErrVDIOnBootModeIncompatibleWithOperation()
	}
	return nil
}

// extent is what sizes of logical volumes are multiples of: whoever opens a raw one sees
// all of it, and has to be told so.
const extent = 4 << 20

// sizeOf makes a size one that the disk can have.
func sizeOf(sharable bool, size int64) int64 {
	if sharable {
		return (size + extent - 1) / extent * extent
	}
	return roundUp(size)
}
