package build

import (
	"path/filepath"
	"slices"
	"strings"

	"cairn/firmware"
	"cairn/image/modules"
	"cairn/image/recipe"
)

// applets are u-root's commands in the root image, the rescue archive and the
// demo guest: what a person needs to look around and to copy a file. None of
// them is used by the host's own programs.
var applets = strings.Fields(`
	blkid cat chmod cmp cp date dd df dmesg du echo false find free gosh grep gzip head hexdump
	hostname id insmod ip kill ln losetup ls lsmod mkdir mknod mktemp more mount mv netstat pci
	ping printenv ps pwd readlink realpath rm rmmod seq shasum sleep sort strings stty sync tail
	tar tee time timeout touch tr true umount uname uniq uptime wc wget which xargs`)

// shell is the applet behind /bin/sh.
const shell = "gosh"

// guestModules are the drivers of the demo guest, by file name, closed under
// their dependencies; TestGuestModules holds the list to that.
var guestModules = []string{
	"button", "evdev",
	"virtio_ring", "virtio", "virtio_pci", "virtio_pci_legacy_dev", "virtio_pci_modern_dev",
	"virtio_balloon", "virtio-rng", "virtio_blk", "virtio_net", "net_failover", "failover", "e1000e",
	"scsi_common", "scsi_mod", "virtio_scsi", "sd_mod", "libata", "libahci", "ahci", "cdrom", "sr_mod", "isofs",
}

// hotModules are those of stage 1 that nearly every boot loads. They lie in the
// initramfs as they are; the others stay compressed one by one, because the
// kernel unpacks the whole archive before it goes on, and most of them are never
// asked for.
var hotModules = strings.Fields(`
	dm-mod dm-bufio dm-verity erofs netfs reed_solomon
	virtio virtio_ring virtio_pci virtio_pci_legacy_dev virtio_pci_modern_dev virtio_blk virtio_scsi
	nvme nvme-core ahci libahci libata scsi_mod scsi_common sd_mod i6300esb`)

// isHot reports whether the module at p is one of hotModules.
func isHot(p string) bool { return slices.Contains(hotModules, fileStem(p)) }

// fileStem is the name of a module file without its extensions.
func fileStem(p string) string {
	base, _, _ := strings.Cut(filepath.Base(p), ".ko")
	return base
}

// guestDir is where the toolstack finds the demo guest.
const guestDir = "usr/share/cairn/guest"

// dataGroups are the root image's files that are neither Debian programs nor
// ours: modules with their indexes, firmware, the demo guest.
func (b *builder) dataGroups(r *results) ([]recipe.Group, error) {
	groups, err := b.moduleData(r)
	if err != nil {
		return nil, err
	}
	for _, g := range r.firmware {
		if !g.Early {
			groups = append(groups, b.firmwareData(g))
		}
	}
	return append(groups, recipe.Group{Name: "demo guest", Files: []recipe.File{
		{Path: guestDir + "/initrd.img", Source: filepath.Join(r.guest, "initrd.img")},
		{Path: guestDir + "/vmlinuz", Source: b.vmlinuz()},
	}}), nil
}

func (b *builder) vmlinuz() string { return b.tree.Path("/boot/vmlinuz-" + b.kernel) }

func (b *builder) moduleData(r *results) ([]recipe.Group, error) {
	src := filepath.Join(r.modules, "all", "lib/modules", b.kernel)
	dst := filepath.Join("usr/lib/modules", b.kernel)
	var groups []recipe.Group
	for _, g := range r.moduleGroups {
		group := recipe.Group{Name: "modules: " + g.Name}
		for _, m := range g.Modules {
			p := modules.Plain(m.Path)
			group.Files = append(group.Files, recipe.File{Path: filepath.Join(dst, p), Source: filepath.Join(src, p)})
		}
		groups = append(groups, group)
	}
	index := recipe.Group{Name: "modules: index"}
	found, err := filepath.Glob(filepath.Join(src, "modules.*"))
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		index.Files = append(index.Files, recipe.File{Path: filepath.Join(dst, filepath.Base(f)), Source: f})
	}
	return append(groups, index), nil
}

func (b *builder) firmwareData(g firmware.Group) recipe.Group {
	group := recipe.Group{Name: "firmware: " + g.Name, Links: map[string]string{}}
	dst := strings.TrimPrefix(firmware.Dir, "/")
	for _, f := range g.Files {
		if f.Link != "" {
			group.Links[filepath.Join(dst, f.Path)] = f.Link
			continue
		}
		group.Files = append(group.Files, recipe.File{
			Path: filepath.Join(dst, f.Path), Source: b.tree.Path(filepath.Join(firmware.Dir, f.Path)),
		})
	}
	return group
}
