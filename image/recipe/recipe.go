// Package recipe says what the root image holds and puts it together.
//
// Nothing is taken from Debian because a package brings it: a file is in the
// image because a catalogue entry names it, because a program there links it,
// or because this package lists it with a reason. The rest is ours: Go
// programs, u-root's commands, and the skeleton of /etc.
//
// Root is a pure function of its inputs and the files they name.
package recipe

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"cairn/image/closure"
	"cairn/image/rootfs"
	"cairn/init/supervise/catalogue"
)

//go:embed all:etc
var skeleton embed.FS

// skeletonDir is where PID 1 finds the /etc it copies to memory at each boot.
const skeletonDir = "usr/share/cairn/etc"

// Debian is the unpacked tree that programs and data come from.
type Debian interface {
	Path(string) string
	Owner(path string) (pkg string, ok bool)
}

// File is a file of the machine and its place in the image.
type File struct{ Path, Source string }

// Group is a set of files that share a line in the size table.
type Group struct {
	Name  string
	Files []File
	Links map[string]string
}

// Inputs is everything a root image is made of.
type Inputs struct {
	Debian   Debian
	Services []catalogue.Service
	Programs []File   // Cairn's own
	Busybox  string   // u-root's commands
	Applets  []string // their names
	Data     []Group  // modules, firmware, demo guest
	Version  string
}

// directories exist for mounts and for programs that expect them; the mode is
// that of the empty directory below.
var directories = map[string]fs.FileMode{
	"dev": 0o755, "proc": 0o555, "sys": 0o555, "run": 0o755, "etc": 0o755, "root": 0o700,
	"state": 0o755, "logs": 0o755, "tmp": 0o777 | fs.ModeSticky, "var": 0o755, "mnt": 0o755,
}

// links make the tree usr-merged, and give things the names others call them by.
var links = map[string]string{
	"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64",
	"usr/sbin/init":       "../lib/cairn/init",
	"usr/lib/cairn/hostd": "init",
	"usr/bin/sh":          "gosh",
	// The kernel asks for modules by this name; u-root has no modprobe that reads
	// the binary indexes.
	"usr/sbin/modprobe": "../bin/kmod",
}

// extra are Debian files that belong to no single service.
var extra = []string{
	"/usr/bin/kmod",
	"/usr/lib/modprobe.d/*.conf",
	// NTP and TLS need neither; guests' and hosts' clocks are UTC.
}

// Root assembles the image's tree.
func Root(in Inputs) (*rootfs.Tree, error) {
	t := rootfs.New()
	for _, add := range []func(*rootfs.Tree, Inputs) error{
		addSkeleton, addDebian, addPrograms, addData,
	} {
		if err := add(t, in); err != nil {
			return nil, fmt.Errorf("root image: %w", err)
		}
	}
	return t, nil
}

func addSkeleton(t *rootfs.Tree, in Inputs) error {
	for p, mode := range directories {
		if err := t.Dir(p, mode); err != nil {
			return err
		}
	}
	for p, target := range links {
		if err := t.Link(p, target, "cairn"); err != nil {
			return err
		}
	}
	if err := t.Data("usr/lib/os-release", OSRelease("cairn", in.Version), 0o644, "cairn"); err != nil {
		return err
	}
	if err := t.Link(skeletonDir+"/os-release", "../usr/lib/os-release", "cairn"); err != nil {
		return err
	}
	return fs.WalkDir(skeleton, "etc", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := skeleton.ReadFile(p)
		if err != nil {
			return err
		}
		return t.Data(path.Join(skeletonDir, strings.TrimPrefix(p, "etc/")), data, 0o644, "cairn")
	})
}

// OSRelease names the system to itself and to systemd-boot.
func OSRelease(id, version string) []byte {
	return fmt.Appendf(nil, "ID=%[1]s\nNAME=Cairn\nPRETTY_NAME=\"Cairn %[2]s\"\nVERSION_ID=%[2]s\nIMAGE_ID=%[1]s\nIMAGE_VERSION=%[2]s\n", id, version)
}

// addDebian takes the catalogue's programs and files with their closure.
func addDebian(t *rootfs.Tree, in Inputs) error {
	wanted, err := wantedFiles(in)
	if err != nil {
		return err
	}
	resolver := closure.New(closure.Dir(in.Debian.Path("/")))
	all, err := resolver.Closure(wanted...)
	if err != nil {
		return err
	}
	for _, p := range all {
		if err := t.Copy(in.Debian.Path("/"), p, component(in.Debian, p)); err != nil {
			return err
		}
	}
	return nil
}

func wantedFiles(in Inputs) ([]string, error) {
	own := map[string]bool{}
	for _, f := range in.Programs {
		own["/"+f.Path] = true
	}
	for l := range links {
		own["/"+l] = true
	}
	patterns := append([]string(nil), extra...)
	for _, s := range in.Services {
		for _, p := range append(append([]string{s.Argv[0]}, s.Programs...), s.Files...) {
			if !own[p] {
				patterns = append(patterns, p)
			}
		}
	}
	var out []string
	for _, p := range patterns {
		found, err := expand(in.Debian.Path("/"), p)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// expand resolves a pattern in the tree; one that matches nothing is an error.
func expand(root, pattern string) ([]string, error) {
	p := closure.Clean(pattern)
	if !strings.ContainsAny(p, "*?[") {
		return []string{p}, nil
	}
	found, err := filepath.Glob(filepath.Join(root, p))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pattern, err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s matches nothing in the Debian tree", pattern)
	}
	for i, f := range found {
		if found[i], err = filepath.Rel(root, f); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// component names the size table's line for a Debian file.
func component(d Debian, p string) string {
	pkg, _ := d.Owner("/" + p)
	for _, c := range []struct{ prefix, name string }{
		{"qemu", "QEMU"}, {"libvirt-", "libvirt"}, {"seabios", "guest firmware"}, {"ovmf", "guest firmware"},
		{"ipxe", "guest firmware"}, {"swtpm", "guest firmware"}, {"libtpms", "guest firmware"}, {"udev", "udev and kmod"}, {"kmod", "udev and kmod"},
		{"libsystemd-shared", "udev and kmod"}, {"chrony", "chrony"},
		{"lvm2", "storage tools"}, {"e2fsprogs", "storage tools"}, {"util-linux", "storage tools"},
	} {
		if strings.HasPrefix(pkg, c.prefix) {
			return c.name
		}
	}
	return "shared libraries"
}

func addPrograms(t *rootfs.Tree, in Inputs) error {
	for _, f := range in.Programs {
		if err := t.File(f.Path, f.Source, 0o755, "cairn"); err != nil {
			return err
		}
	}
	if err := t.File("usr/lib/u-root/bb", in.Busybox, 0o755, "u-root"); err != nil {
		return err
	}
	for _, a := range in.Applets {
		if err := t.Link("usr/bin/"+a, "../lib/u-root/bb", "u-root"); err != nil {
			return err
		}
	}
	return nil
}

func addData(t *rootfs.Tree, in Inputs) error {
	for _, g := range in.Data {
		for _, f := range g.Files {
			if err := t.File(f.Path, f.Source, 0o644, g.Name); err != nil {
				return err
			}
		}
		for p, target := range g.Links {
			if err := t.Link(p, target, g.Name); err != nil {
				return err
			}
		}
	}
	return nil
}
