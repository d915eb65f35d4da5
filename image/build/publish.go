package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"cairn/image/budget"
	"cairn/image/debian"
	"cairn/image/disk"
	"cairn/image/recipe"
	"cairn/image/rootfs"
	"cairn/image/uki"
)

// kernelArgs follow cairn.root= on every host. Both consoles get the kernel's
// and PID 1's words, the serial one last because it is /dev/console; a panic
// reboots, so that boot counting can do its work. The self-tests of crypto
// algorithms prove the kernel build, which Debian has done; here they only cost
// a tenth of the time to the first process.
// Huge pages go to those who ask, which QEMU does for guests; a Go heap would
// only hold more memory.
const kernelArgs = "console=tty0 console=ttyS0,115200 quiet loglevel=4 panic=10 cryptomgr.notests=1 transparent_hugepage=madvise"

// Manifest describes an image to whoever installs or compares it.
type Manifest struct {
	Version  string           `json:"version"`
	Kernel   string           `json:"kernel"`
	RootHash string           `json:"root_hash"`
	Drifted  []debian.Drift   `json:"drifted"`
	Sizes    map[string]int64 `json:"sizes"`
}

// publish fills the output directory.
func (b *builder) publish(ctx context.Context, r *results) error {
	cmdline := "cairn.root=" + r.rootHash + " " + kernelArgs
	host, err := b.unified(r, r.initramfs, cmdline, "cairn")
	if err != nil {
		return err
	}
	rescue, err := b.unified(r, r.rescue, cmdline+" cairn.rescue=1", "cairn-rescue")
	if err != nil {
		return err
	}
	for _, f := range []struct{ name, source string }{
		{"root.erofs", filepath.Join(r.erofs, "root.erofs")},
		{"root.verity", filepath.Join(r.erofs, "root.verity")},
		{"root.hash", filepath.Join(r.erofs, "root.hash")},
		{"vmlinuz", b.vmlinuz()},
		{"demo.iso", r.guestCD},
		{"initramfs.img", r.initramfs},
	} {
		if err := b.output(f.name, f.source); err != nil {
			return err
		}
	}
	for name, data := range map[string][]byte{
		"cmdline": []byte(cmdline + "\n"), "host.efi": host, "rescue.efi": rescue,
	} {
		if err := os.WriteFile(filepath.Join(b.Out, name), data, 0o644); err != nil {
			return err
		}
	}
	if err := b.disk(ctx, r, host, rescue); err != nil {
		return err
	}
	return b.describe(r)
}

// unified assembles a unified kernel image.
func (b *builder) unified(r *results, initramfs, cmdline, id string) ([]byte, error) {
	return uki.Assemble(b.tree.Path(uki.Stub), []uki.Section{
		{Name: ".osrel", Data: recipe.OSRelease(id, Version)},
		{Name: ".cmdline", Data: []byte(cmdline)},
		{Name: ".uname", Data: []byte(b.kernel)},
		{Name: ".ucode", File: r.microcode},
		{Name: ".initrd", File: initramfs},
		{Name: ".linux", File: b.vmlinuz()},
	})
}

// output puts a result into the output directory: a hard link where the file
// system allows it, because the cache never changes what it holds.
func (b *builder) output(name, source string) error {
	dst := filepath.Join(b.Out, name)
	if err := os.Remove(dst); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if os.Link(source, dst) == nil {
		return nil
	}
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return fmt.Errorf("%s: %w", name, err)
	}
	return out.Close()
}

// bootLoader is what firmware starts of the disk.
const bootLoader = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"

// loaderConf boots the newest image at once; the boot menu is no way in.
const loaderConf = "timeout 0\ndefault cairn_*\neditor no\n"

func (b *builder) disk(ctx context.Context, r *results, host, rescue []byte) error {
	loader, err := os.ReadFile(b.tree.Path(bootLoader))
	if err != nil {
		return err
	}
	return disk.Build(ctx, b.tree, disk.Lab, disk.Content{
		RootHash: r.rootHash,
		RootFile: filepath.Join(b.Out, "root.erofs"), Verity: filepath.Join(b.Out, "root.verity"),
		ESP: map[string][]byte{
			"/EFI/BOOT/BOOTX64.EFI":                loader,
			"/EFI/Linux/cairn_" + Version + ".efi": host,
			"/EFI/Linux/rescue.efi":                rescue,
			"/loader/loader.conf":                  []byte(loaderConf),
		},
		BuildTime: rootfs.BuildTime(),
	}, filepath.Join(b.Out, "disk.img"))
}

// describe writes the size table, the manifest and the bill of materials, and
// fails when a part is above its budget.
func (b *builder) describe(r *results) error {
	outputs := map[string]int64{}
	for label, file := range map[string]string{
		"root image (erofs)": filepath.Join(b.Out, "root.erofs"), "hash tree (verity)": filepath.Join(b.Out, "root.verity"),
		"stage 1 initramfs": r.initramfs, "microcode": r.microcode,
		"host.efi": filepath.Join(b.Out, "host.efi"), "rescue.efi": filepath.Join(b.Out, "rescue.efi"),
	} {
		fi, err := os.Stat(file)
		if err != nil {
			return err
		}
		outputs[label] = fi.Size()
	}
	outputs["PXE bytes (UKI+root+hash)"] = outputs["host.efi"] + outputs["root image (erofs)"] + outputs["hash tree (verity)"]
	inside, files := budget.Table(r.sizes), budget.Table(outputs)
	text := budget.Format("in the root image, uncompressed", inside) + "\n" + budget.Format("files", files)
	b.printf("%s", text)
	if err := os.WriteFile(filepath.Join(b.Out, "sizes.txt"), []byte(text), 0o644); err != nil {
		return err
	}
	if err := b.manifest(r, outputs); err != nil {
		return err
	}
	return errors.Join(b.bill(r), budget.Check(inside), budget.Check(files))
}

func (b *builder) manifest(r *results, sizes map[string]int64) error {
	m := Manifest{Version: Version, Kernel: b.kernel, RootHash: r.rootHash, Drifted: b.tree.Drifted, Sizes: sizes}
	if m.Drifted == nil {
		m.Drifted = []debian.Drift{}
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.Out, "manifest.json"), append(data, '\n'), 0o644)
}
