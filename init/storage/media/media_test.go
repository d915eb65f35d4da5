package media

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"cairn/init/storage/tool"
)

type answers map[string]string

func (a answers) Run(_ context.Context, c tool.Command) ([]byte, error) {
	text, ok := a[c.Args[len(c.Args)-1]]
	if !ok {
		return nil, errors.New("no such device")
	}
	return []byte(text), nil
}

const ext4 = `{"signatures": [{"device": "sda", "offset": "0x438", "type": "ext4", "uuid": "u", "label": "data"}]}`

// tree is a machine with a disk, a USB disk, an optical drive and a loop device.
func tree(t *testing.T) Source {
	t.Helper()
	dir := t.TempDir()
	plant := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	for name, at := range map[string]string{
		"sda": "sys/devices/pci/ata1", "sdb": "sys/devices/pci/usb1/1-1", "sr0": "sys/devices/pci/ata2", "loop0": "sys/devices/virtual",
	} {
		plant(at+"/"+name+"/size", "2048\n")
		plant(at+"/"+name+"/dev", "8:0\n")
		if name != "loop0" {
			plant(at+"/"+name+"/device/model", "Model "+name+"\n")
		}
		must(t, os.MkdirAll(dir+"/sys/class/block", 0o755))
		must(t, os.Symlink(filepath.Join(dir, at, name), dir+"/sys/class/block/"+name))
		plant("dev/"+name, "")
	}
	plant("sys/devices/pci/usb1/1-1/sdb/sdb1/partition", "1")
	plant("sys/devices/pci/usb1/1-1/sdb/sdb1/size", "1")
	must(t, os.Symlink(filepath.Join(dir, "sys/devices/pci/usb1/1-1/sdb/sdb1"), dir+"/sys/class/block/sdb1"))
	plant("dev/sdb1", "")
	must(t, os.MkdirAll(dir+"/dev/disk/by-id", 0o755))
	must(t, os.Symlink("../../sda", dir+"/dev/disk/by-id/wwn-1"))
	must(t, os.Symlink("/etc/passwd", dir+"/dev/trap"))
	return Source{Sys: dir + "/sys", Dev: dir + "/dev", Proc: dir + "/proc", Tools: answers{dir + "/dev/sda": ext4, dir + "/dev/sdb": `{"signatures": []}`}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestDisk(t *testing.T) {
	s := tree(t)
	for _, path := range []string{"/sda", "/disk/by-id/wwn-1"} {
		d, err := s.Disk(s.Dev + path)
		if err != nil || d.Name != "sda" || d.Path != s.Dev+"/sda" || d.Size != 1<<20 || d.Number != "8:0" {
			t.Errorf("%s: %+v, %v", path, d, err)
		}
	}
	for _, path := range []string{"", "/", "/etc/passwd", s.Dev, s.Dev + "/none", s.Dev + "/trap", s.Dev + "/../dev/sda", s.Dev + "/sdb1", "sda"} {
		if d, err := s.Disk(path); !errors.Is(err, ErrNoDisk) {
			t.Errorf("%q is %+v, %v", path, d, err)
		}
	}
}

func TestWhatThereIs(t *testing.T) {
	s := tree(t)
	if got := fmt.Sprint(s.Disks()); got != fmt.Sprintf("[{sda %[1]s/sda 8:0 1048576} {sdb %[1]s/sdb 8:0 1048576}]", s.Dev) {
		t.Errorf("disks: %s", got)
	}
	if got := s.Optical(); len(got) != 1 || got[0].Name != "sr0" || got[0].Model != "Model sr0" || got[0].Size != 1<<20 {
		t.Errorf("optical: %+v", got)
	}
	if got := s.USB(); len(got) != 1 || got[0].Name != "sdb" {
		t.Errorf("USB: %+v", got)
	}
	s.BootDisk = "sdb"
	if got := s.USB(); len(got) != 0 {
		t.Errorf("the boot disk is offered: %+v", got)
	}
}

func TestFound(t *testing.T) {
	s := tree(t)
	sda, err := s.Disk(s.Dev + "/sda")
	must(t, err)
	found, err := s.Found(t.Context(), sda, nil)
	if err != nil || fmt.Sprint(found) != `[ext4 "data"]` {
		t.Errorf("%q, %v", found, err)
	}
	found, err = s.Found(t.Context(), sda, func(sig Signature) bool { return sig.UUID == "u" })
	if err != nil || len(found) != 0 {
		t.Errorf("own: %q, %v", found, err)
	}
	sdb, err := s.Disk(s.Dev + "/sdb")
	must(t, err)
	found, err = s.Found(t.Context(), sdb, nil)
	if err != nil || fmt.Sprint(found) != "[partition sdb1]" {
		t.Errorf("%q, %v", found, err)
	}
	if found, err := s.Found(t.Context(), Disk{Name: "sdz", Path: "/dev/sdz"}, nil); err == nil {
		t.Errorf("a disk that cannot be read holds %q", found)
	}
}

func FuzzParseSignatures(f *testing.F) {
	f.Add([]byte(ext4))
	f.Add([]byte(""))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseSignatures(b) })
}
