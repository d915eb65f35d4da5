package build

import (
	"context"
	"fmt"
	"path/filepath"

	"cairn/image/disk"
	"cairn/image/recipe"
	"cairn/image/rootfs"
	"cairn/image/uki"
)

// guestArgs are the demo guest's own, as its template has them.
const guestArgs = "console=ttyS0 quiet"

// guestDisc makes the CD that UEFI boots the demo guest from. It is no part of a
// host: tests and users of `make run` put it into drives.
func (b *builder) guestDisc(ctx context.Context, r *results) error {
	initrd := filepath.Join(r.guest, "initrd.img")
	sum, err := hashFile(initrd)
	if err != nil {
		return err
	}
	dir, err := b.cache.step(ctx, "guest-cd", keyOf(format, b.tree.Key, sum, guestArgs), func(dir string) error {
		loader, err := b.guestLoader(initrd)
		if err != nil {
			return fmt.Errorf("guest CD: %w", err)
		}
		cd := disk.CD{Label: "CAIRN_DEMO", UEFI: map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": loader}}
		return disk.BuildCD(cd, rootfs.BuildTime(), filepath.Join(dir, "demo.iso"))
	})
	r.guestCD = filepath.Join(dir, "demo.iso")
	return err
}

// guestLoader is the guest's kernel as firmware starts it.
func (b *builder) guestLoader(initrd string) ([]byte, error) {
	return uki.Assemble(b.tree.Path(uki.Stub), []uki.Section{
		{Name: ".osrel", Data: recipe.OSRelease("cairn-demo", Version)},
		{Name: ".cmdline", Data: []byte(guestArgs)},
		{Name: ".uname", Data: []byte(b.kernel)},
		{Name: ".initrd", File: initrd},
		{Name: ".linux", File: b.vmlinuz()},
	})
}
