// Package foreign makes a guest that is not of this tree: the CD of Debian's
// installer, from the files Debian's own package has. Its packages are in a list
// of their own, fetched when a test asks for them, and part of no image.
//
// The CD starts by itself, without a menu, by UEFI (Debian's shim and GRUB) and by
// BIOS (isolinux). The installer then runs on the serial console and on the
// screen at once.
package foreign

import (
	"context"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"cairn/image/debian"
	"cairn/image/disk"
	"cairn/image/rootfs"
)

// Where the package has the installer, and where the CD has it: the place GRUB's
// signed image looks for its configuration.
const (
	packaged = "/usr/lib/debian-installer/images/13/amd64/text/debian-installer/amd64/"
	onDisc   = "/debian-installer/amd64/"
)

//go:embed grub.cfg isolinux.cfg
var configurations embed.FS

// Disc writes the installer's CD. root is the directory of the module.
func Disc(ctx context.Context, root, file string) error {
	tree, err := debian.Open(ctx, debian.Config{List: filepath.Join(root, "ci/lab/foreign/packages.list")})
	if err != nil {
		return fmt.Errorf("foreign guest: %w", err)
	}
	cd := disk.CD{Label: "DEBIAN_INSTALLER", BIOS: "/isolinux/isolinux.bin"}
	cd.Files, err = read(tree, map[string]string{
		onDisc + "linux":         packaged + "linux",
		onDisc + "initrd.gz":     packaged + "initrd.gz",
		onDisc + "grub/grub.cfg": "grub.cfg",
		cd.BIOS:                  "/usr/lib/ISOLINUX/isolinux.bin",
		"/isolinux/ldlinux.c32":  "/usr/lib/syslinux/modules/bios/ldlinux.c32",
		"/isolinux/isolinux.cfg": "isolinux.cfg",
	})
	if err == nil {
		cd.UEFI, err = read(tree, map[string]string{
			"/EFI/BOOT/BOOTX64.EFI": packaged + "bootnetx64.efi",
			"/EFI/BOOT/grubx64.efi": packaged + "grubx64.efi",
		})
	}
	if err != nil {
		return fmt.Errorf("foreign guest: %w", err)
	}
	return disk.BuildCD(cd, rootfs.BuildTime(), file)
}

// read reads files of the tree, by absolute path, and of this package, by name.
func read(tree *debian.Tree, names map[string]string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, from := range names {
		var err error
		if strings.HasPrefix(from, "/") {
			files[name], err = os.ReadFile(tree.Path(from))
		} else {
			files[name], err = configurations.ReadFile(from)
		}
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}
