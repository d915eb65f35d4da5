//go:build lab

package devhost

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskfs/go-diskfs"
	diskfsdisk "github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"golang.org/x/sys/unix"

	"cairn/image/debian"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/hypervisor/conformance"
)

// volumes are images below /state of the host inside.
type volumes struct {
	tools *debian.Tree
	root  string // of the host inside, as seen here
}

const (
	inside = "/state/vol"
	small  = inside + "/small"
)

// newVolumes also makes a file system that is full after 4 MiB. It must be there
// before the host inside is.
func newVolumes(t *testing.T, tools *debian.Tree, root string) volumes {
	v := volumes{tools: tools, root: root}
	at := filepath.Join(root, small)
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return v
}

func (v volumes) image(t *testing.T, args ...string) {
	t.Helper()
	if out, err := v.tools.Command(t.Context(), "qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %q: %v: %s", args, err, out)
	}
}

func (v volumes) Path(name string) string { return filepath.Join(inside, name) }

func (v volumes) outside(s hypervisor.Source) string { return filepath.Join(v.root, s.Path) }

func (v volumes) Create(t *testing.T, name string, bytes int64) hypervisor.Source {
	s := hypervisor.Source{Path: v.Path(name), Format: hypervisor.Qcow2}
	v.image(t, "create", "-q", "-f", "qcow2", v.outside(s), fmt.Sprint(bytes))
	return s
}

func (v volumes) Raw(t *testing.T, name string, bytes int64) hypervisor.Source {
	s := hypervisor.Source{Path: v.Path(name), Format: hypervisor.Raw}
	v.image(t, "create", "-q", "-f", "raw", v.outside(s), fmt.Sprint(bytes))
	return s
}

// Overlay names its backing by path, as a reader of the image alone would want.
func (v volumes) Overlay(t *testing.T, name string, on hypervisor.Source) hypervisor.Source {
	s := hypervisor.Source{Path: v.Path(name), Format: hypervisor.Qcow2, Backing: &on}
	v.image(t, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", filepath.Base(on.Path), v.outside(s))
	return s
}

func (v volumes) CD(t *testing.T, name, file string) hypervisor.Source {
	t.Helper()
	s := hypervisor.Source{Path: v.Path(name), Format: hypervisor.Raw}
	d, err := diskfs.Create(v.outside(s), 4<<20, diskfs.SectorSizeDefault)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.LogicalBlocksize = 2048
	fs, err := d.CreateFilesystem(diskfsdisk.FilesystemSpec{FSType: filesystem.TypeISO9660, VolumeLabel: "TEST"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := fs.OpenFile("/"+file, os.O_CREATE|os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	if err := fs.(*iso9660.FileSystem).Finalize(iso9660.FinalizeOptions{RockRidge: true, VolumeIdentifier: "TEST"}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (v volumes) Check(t *testing.T, s hypervisor.Source) {
	t.Helper()
	v.image(t, "check", "-q", v.outside(s))
}

func (v volumes) full(t *testing.T, d hypervisor.Disk) conformance.Full {
	s := hypervisor.Source{Path: filepath.Join(small, d.ID+".qcow2"), Format: hypervisor.Qcow2}
	v.image(t, "create", "-q", "-f", "qcow2", v.outside(s), fmt.Sprint(16<<20))
	return conformance.Full{
		Source: s,
		Fail:   func(string) {}, // the guest does it
		Grow: func() {
			if err := unix.Mount("", filepath.Join(v.root, small), "", unix.MS_REMOUNT, "size=40m"); err != nil {
				t.Error(err)
			}
		},
	}
}
