package build

import (
	"os"
	"path/filepath"
	"time"

	"cairn/image/rootfs"
	"cairn/image/sbom"
	"cairn/image/uki"
)

// bill writes the bill of materials: what the root image and the unified kernel
// image hold of Debian's, and our own programs.
func (b *builder) bill(r *results) error {
	in := sbom.Input{Name: "cairn", Version: Version, Hash: r.rootHash, Created: time.Unix(rootfs.BuildTime(), 0)}
	// Modules are unpacked on the way into the image and the boot loader is
	// beside the root: their packages are found by a file that is certain.
	files := []string{b.vmlinuz(), b.tree.Path(uki.Stub), b.tree.Path(bootLoader)}
	for _, e := range r.root.Entries() {
		if e.Source != "" {
			files = append(files, e.Source)
		}
	}
	for _, g := range r.firmware {
		for _, f := range g.Files {
			files = append(files, b.tree.Path(filepath.Join("/usr/lib/firmware", f.Path)))
		}
	}
	var err error
	if in.Packages, err = sbom.Packages(b.tree, files); err != nil {
		return err
	}
	for _, p := range cairnPrograms {
		if p.place == "" {
			continue
		}
		bin, err := sbom.ReadBinary("/"+p.place, r.programs[p.pkg])
		if err != nil {
			return err
		}
		in.Binaries = append(in.Binaries, bin)
	}
	bb, err := sbom.ReadBinary("/usr/lib/u-root/bb", r.busybox)
	if err != nil {
		return err
	}
	in.Binaries = append(in.Binaries, bb)
	f, err := os.Create(filepath.Join(b.Out, "sbom.spdx.json"))
	if err != nil {
		return err
	}
	if err := sbom.Write(f, in); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
