package repository

import (
	"os"
	"strings"
	"testing"

	"cairn/init/hostd/client"
)

func attached(t *testing.T, m *Manager, sr string, config client.RepositoryConfig) client.Repository {
	t.Helper()
	_, err := m.Format(t.Context(), sr, config)
	must(t, err)
	r, err := m.Attach(t.Context(), sr, config)
	must(t, err)
	return r
}

func TestISOLibrary(t *testing.T) {
	f, m := newMachine(t)
	f.plant(t, "iso/lib/debian 13.iso", strings.Repeat("x", 2048))
	f.plant(t, "iso/lib/FLOPPY.IMG", "")
	f.plant(t, "iso/lib/readme.txt", "")
	f.plant(t, "iso/lib/bad\xff.iso", "")
	f.plant(t, "iso/lib/sub/deep.iso", "")
	must(t, os.Mkdir(f.dir+"/iso/lib/dir.iso", 0o755))
	must(t, os.Symlink("/etc/passwd", f.dir+"/iso/lib/link.iso"))
	must(t, os.Chmod(f.dir+"/iso/lib/debian 13.iso", 0o600))
	r := attached(t, m, srA, client.RepositoryConfig{Type: client.TypeISO, Config: map[string]string{"location": f.dir + "/iso/lib", "legacy_mode": "true"}})
	if !r.ReadOnly || r.Path != f.dir+"/iso/lib" || r.Total == 0 {
		t.Errorf("%+v", r)
	}
	show(t, m, "FLOPPY.IMG:raw:0 debian 13.iso:raw:0")
	v, err := m.ActivateVolume(t.Context(), srA, "debian 13.iso")
	must(t, err)
	info, err := os.Stat(v.Path)
	must(t, err)
	if !v.ReadOnly || v.VirtualSize != 2048 || !v.Active || info.Mode().Perm() != 0o644 {
		t.Errorf("%+v, %v", v, info.Mode())
	}
	for _, name := range []string{"../sr/x", "link.iso", "readme.txt", "none.iso", "sub/deep.iso"} {
		if _, err := m.ActivateVolume(t.Context(), srA, name); !is(err, client.CodeNotFound) && !is(err, client.CodeBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused(t, m.NoteVolume(t.Context(), srA, "FLOPPY.IMG", "x"), client.CodeUnsupported)
	refused(t, m.DeleteVolume(t.Context(), srA, "FLOPPY.IMG"), client.CodeUnsupported)
	_, err = m.CreateVolume(t.Context(), srA, "new", client.VolumeSpec{Size: mib, Format: client.Raw})
	refused(t, err, client.CodeUnsupported)
	// A copy of an image is an ordinary volume.
	attached(t, m, srB, fileConfig(f.dir+"/sr/one"))
	must(t, os.WriteFile(f.dir+"/iso/lib/debian 13.iso", make([]byte, 2048), 0o644))
	c, err := m.CopyVolume(t.Context(), srA, "debian 13.iso", srB, "copy", func(float64) {})
	if err != nil || c.Format != client.Raw || c.Path != f.dir+"/sr/one/copy.raw" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestDrives(t *testing.T) {
	f, m := newMachine(t)
	f.plant(t, "sys/class/block/sr0/size", "0\n")
	f.plant(t, "sys/class/block/sr0/device/model", "DVD-ROM\n")
	f.plant(t, "sys/devices/usb1/sdb/size", "4096\n")
	f.plant(t, "sys/devices/usb1/sdb/dev", "8:16\n")
	must(t, os.Symlink(f.dir+"/sys/devices/usb1/sdb", f.dir+"/sys/class/block/sdb"))
	f.plant(t, "dev/sdb", "")
	f.plant(t, "dev/sr0", "")
	r := attached(t, m, srA, client.RepositoryConfig{Type: client.TypeUdev, Config: map[string]string{"location": "/dev/xapi/cd"}})
	if !r.ReadOnly {
		t.Errorf("%+v", r)
	}
	show(t, m, "sr0:raw:0")
	v, err := m.ActivateVolume(t.Context(), srA, "sr0")
	if err != nil || !v.Block || !v.ReadOnly || v.Note != "DVD-ROM" {
		t.Errorf("%+v, %v", v, err)
	}
	attached(t, m, srB, client.RepositoryConfig{Type: client.TypeUdev, Config: map[string]string{"location": "/dev/xapi/block"}})
	if _, err := m.ActivateVolume(t.Context(), srB, "sda"); !is(err, client.CodeNotFound) {
		t.Errorf("a disk that is not USB: %v", err)
	}
	v, err = m.ActivateVolume(t.Context(), srB, "sdb")
	if err != nil || v.VirtualSize != 2*mib || v.ReadOnly {
		t.Errorf("%+v, %v", v, err)
	}
	f.plant(t, "proc/self/mountinfo", "30 1 8:16 / /data rw - ext4 /dev/sdb rw\n")
	_, err = m.ActivateVolume(t.Context(), srB, "sdb")
	refused(t, err, client.CodeInUse)
	_, err = m.DeactivateVolume(t.Context(), srB, "sdb")
	must(t, err)
}

func TestDummy(t *testing.T) {
	_, m := newMachine(t)
	r := attached(t, m, srA, client.RepositoryConfig{Type: client.TypeDummy, Config: map[string]string{"size": "134217728"}})
	if r.Total != 128*mib || r.Free != 128*mib {
		t.Errorf("%+v", r)
	}
	create(t, m, "one", "")
	create(t, m, "two", "one")
	_, err := m.CreateVolume(t.Context(), srA, "three", client.VolumeSpec{Size: 512, Format: client.Raw})
	refused(t, err, client.CodeNoSpace)
	must(t, m.CommitVolume(t.Context(), srA, "two", func(float64) {}))
	must(t, m.DeleteVolume(t.Context(), srA, "two"))
	_, err = m.ResizeVolume(t.Context(), srA, "one", 128*mib)
	must(t, err)
	show(t, m, "one:qcow2:128")
}

// TestVolumesAreNotFollowedOut: what lies in a repository's directory and is not
// what it says is shown with a problem and never opened.
func TestVolumesAreNotFollowedOut(t *testing.T) {
	f, m := newMachine(t)
	attached(t, m, srA, fileConfig(f.dir+"/sr/one"))
	dir := f.dir + "/sr/one/"
	create(t, m, "base", "")
	must(t, os.Symlink("/etc/passwd", dir+"link.raw"))
	must(t, os.Mkdir(dir+"dir.raw", 0o755))
	must(t, os.WriteFile(dir+"junk.qcow2", []byte("junk"), 0o600))
	for name, backing := range map[string][2]string{
		"out": {"../../etc/passwd", "raw"}, "absolute": {"/etc/passwd", "raw"}, "kind": {"base.qcow2", "raw"}, "url": {"nbd:unix:/x", "raw"}, "gone": {"gone2.qcow2", "qcow2"},
	} {
		create(t, m, name, "")
		must(t, patch(dir+name+".qcow2", func(h []byte) { setBacking(h, backing[0], backing[1]) }))
	}
	f.transcript()
	for _, name := range []string{"link", "dir", "junk", "out", "absolute", "kind", "url", "gone"} {
		_, err := m.ActivateVolume(t.Context(), srA, name)
		refused(t, err, client.CodeDamaged)
		_, err = m.CreateVolume(t.Context(), srA, "on-"+name, client.VolumeSpec{Size: mib, Format: client.Qcow2, Backing: name})
		refused(t, err, client.CodeDamaged)
		_, err = m.CopyVolume(t.Context(), srA, name, srA, "copy", func(float64) {})
		refused(t, err, client.CodeDamaged)
	}
	if log := f.transcript(); strings.Contains(log, "qemu-img") {
		t.Errorf("one was opened:\n%s", log)
	}
	// libvirt may write the whole path of a neighbour, which is the same.
	must(t, patch(dir+"out.qcow2", func(h []byte) { setBacking(h, dir+"base.qcow2", "qcow2") }))
	if v, err := m.ActivateVolume(t.Context(), srA, "out"); err != nil || v.Backing != "base" {
		t.Errorf("%+v, %v", v, err)
	}
}
