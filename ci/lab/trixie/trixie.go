// Package trixie makes a guest of Debian's own packages: its cloud kernel, systemd,
// udev and qemu-guest-agent as a user has them, on a disk of their own. The packages
// are in a list of their own, fetched when a test asks for them, and part of no image.
//
// No maintainer script runs. What they would do that matters here is in the files of
// root/: an address, a root shell on the serial console, and a hook of the agent's that
// writes into the guest's journal. On the console the guest says Agent when its agent
// runs, Numbered when it has its address, and Shell when the shell runs.
package trixie

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cairn/image/debian"
	"cairn/image/disk"
	"cairn/image/initramfs"
	"cairn/image/modules"
	"cairn/image/rootfs"
	"cairn/image/uki"
)

// What the guest says on its console, and what it is.
const (
	Agent    = "trixie: agent started"
	Numbered = "trixie: has an address"
	Shell    = "trixie: shell"

	Address = "192.0.2.10"

	// DiskSize is that of the guest's disk, which is one file system.
	DiskSize = 400 << 20
)

const arguments = "console=ttyS0 quiet root=/dev/sda rw net.ifnames=0 mitigations=off systemd.show_status=no"

//go:embed root init
var files embed.FS

// Guest is the packages of the guest, and the tools that make disks of them.
type Guest struct {
	packages, tools *debian.Tree
	kernel          string // its version
}

// Open fetches the packages that are not there yet. root is the directory of the module.
func Open(ctx context.Context, root string) (*Guest, error) {
	tools, err := debian.Open(ctx, debian.Config{})
	if err != nil {
		return nil, err
	}
	packages, err := debian.Open(ctx, debian.Config{List: filepath.Join(root, "ci/lab/trixie/packages.list")})
	if err != nil {
		return nil, fmt.Errorf("debian guest: %w", err)
	}
	found, err := filepath.Glob(packages.Path("/usr/lib/modules/*"))
	if err != nil {
		return nil, fmt.Errorf("debian guest: its kernel: %w", err)
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("debian guest: its packages have %d kernels, want one: %v", len(found), found)
	}
	return &Guest{packages, tools, filepath.Base(found[0])}, nil
}

// Disc writes the CD that UEFI starts the guest from: its kernel, and an initramfs that
// finds the root on the disk.
func (g *Guest) Disc(ctx context.Context, file string) error {
	loader, err := g.loader(ctx)
	if err != nil {
		return fmt.Errorf("debian guest: %w", err)
	}
	cd := disk.CD{Label: "TRIXIE", UEFI: map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": loader}}
	return disk.BuildCD(cd, rootfs.BuildTime(), file)
}

func (g *Guest) loader(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "trixie")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initrd.img")
	if err := g.initramfs(ctx, dir, initrd); err != nil {
		return nil, err
	}
	return uki.Assemble(g.tools.Path(uki.Stub), []uki.Section{
		{Name: ".osrel", File: g.packages.Path("/usr/lib/os-release")},
		{Name: ".cmdline", Data: []byte(arguments)},
		{Name: ".uname", Data: []byte(g.kernel)},
		{Name: ".initrd", File: initrd},
		{Name: ".linux", File: g.packages.Path("/boot/vmlinuz-" + g.kernel)},
	})
}

// initramfs is a script for Debian's busybox, and the drivers of the disk.
func (g *Guest) initramfs(ctx context.Context, dir, file string) error {
	below := filepath.Join("lib/modules", g.kernel)
	drivers := []string{"scsi_common.ko.xz", "scsi_mod.ko.xz", "virtio_scsi.ko.xz", "sd_mod.ko.xz"}
	for i := range drivers {
		drivers[i] = filepath.Join("kernel/drivers/scsi", drivers[i])
	}
	if err := modules.Unpack(ctx, g.packages.Path("/usr/"+below), filepath.Join(dir, below), drivers); err != nil {
		return err
	}
	script, err := files.ReadFile("init")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "init"), script, 0o755)
	}
	if err != nil {
		return err
	}
	return initramfs.Build(initramfs.Spec{
		Init: filepath.Join(dir, "init"), Modules: dir, Busybox: g.packages.Path("/usr/bin/busybox"),
		Applets: []string{"sh", "mount", "insmod", "mkdir", "sleep", "switch_root"}, Shell: "sh",
	}, file)
}

// Disk writes the guest's disk.
func (g *Guest) Disk(ctx context.Context, file string) error {
	// Beside the packages, so that their files need no copies.
	root, err := os.MkdirTemp(filepath.Dir(g.packages.Dir), "guest")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := errors.Join(os.Chmod(root, 0o755), g.lay(root), g.settle(ctx, root)); err != nil {
		return fmt.Errorf("debian guest: %w", err)
	}
	cmd := g.tools.Command(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-d", root, file, fmt.Sprint(DiskSize>>10, "k"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("debian guest: mkfs.ext4: %w: %s", err, out)
	}
	return nil
}

// ballast is what no program reads.
var ballast = map[string]bool{"usr/share/doc": true, "usr/share/man": true, "usr/share/locale": true, "usr/share/info": true}

// lay puts the packages' files into a directory.
func (g *Guest) lay(root string) error {
	return filepath.WalkDir(g.packages.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(path, g.packages.Dir), "/")
		to := filepath.Join(root, name)
		switch {
		case name == "":
			return nil
		case ballast[name]:
			return fs.SkipDir
		case d.IsDir():
			return os.Mkdir(to, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			return errors.Join(err, os.Symlink(target, to))
		}
		return os.Link(path, to)
	})
}

// settle does what the packages' scripts would: users, and what is started.
func (g *Guest) settle(ctx context.Context, root string) error {
	for to, from := range map[string]string{"etc/passwd": "passwd.master", "etc/group": "group.master"} {
		text, err := os.ReadFile(filepath.Join(root, "usr/share/base-passwd", from))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, to), text, 0o644); err != nil {
			return err
		}
	}
	if out, err := g.packages.Command(ctx, "systemd-sysusers", "--root="+root).CombinedOutput(); err != nil {
		return fmt.Errorf("systemd-sysusers: %w: %s", err, out)
	}
	own, err := fs.Sub(files, "root")
	if err != nil {
		return err
	}
	if err := os.CopyFS(root, own); err != nil {
		return err
	}
	wants := filepath.Join(root, "etc/systemd/system/multi-user.target.wants")
	return errors.Join(
		os.Chmod(filepath.Join(root, "etc/qemu/fsfreeze-hook.d/journal"), 0o755),
		os.MkdirAll(wants, 0o755),
		os.Symlink("../address.service", filepath.Join(wants, "address.service")),
		// Nothing of /usr is newer than what was made of it: the first boot is like others.
		os.WriteFile(filepath.Join(root, "etc/.updated"), nil, 0o644),
		os.WriteFile(filepath.Join(root, "var/.updated"), nil, 0o644),
	)
}
