package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn/golden"
)

// fake is a machine that writes down what is done to it.
type fake struct {
	root    string
	rootErr error
	mounted map[string]string
	fail    map[string]error // by what is mounted, bound or made
	out     strings.Builder
}

func (f *fake) RootDevice() (string, error) { return f.root, f.rootErr }

func (f *fake) Mounted(target string) (string, error) { return f.mounted[target], nil }

func (f *fake) Prepare(fstype string) error { return f.did("prepare "+fstype, fstype) }

func (f *fake) did(what, key string) error {
	if err := f.fail[key]; err != nil {
		fmt.Fprintf(&f.out, "    %s: %v\n", what, err)
		return err
	}
	fmt.Fprintf(&f.out, "    %s\n", what)
	return nil
}

func (f *fake) Mount(source, target, fstype string, options []Option) error {
	err := f.did(fmt.Sprintf("mount %s %s %s %v", source, target, fstype, options), source)
	if err == nil {
		f.mounted[target] = source
	}
	return err
}

func (f *fake) Bind(source, target string) error {
	f.mounted[target] = source
	return f.did("bind "+source+" "+target, source)
}

func (f *fake) MkdirAll(path string, mode fs.FileMode) error {
	return f.did(fmt.Sprintf("mkdir %s %#o", path, mode), path)
}

// sysfs builds a tree like /sys of a host: vda with partitions named in order,
// and dm-0 on top of root_A and hash_A.
func sysfs(t *testing.T, parts ...string) string {
	t.Helper()
	dir := t.TempDir()
	disk := filepath.Join(dir, "devices/pci0000:00/0000:00:03.0/virtio1/block/vda")
	dm := filepath.Join(dir, "devices/virtual/block/dm-0")
	for _, d := range []string{disk + "/slaves", dm + "/slaves", dir + "/dev/block"} {
		must(t, os.MkdirAll(d, 0o755))
	}
	must(t, os.WriteFile(disk+"/uevent", []byte("MAJOR=253\nMINOR=0\nDEVNAME=vda\nDEVTYPE=disk\n"), 0o644))
	for i, name := range parts {
		part := fmt.Sprintf("vda%d", i+1)
		must(t, os.MkdirAll(filepath.Join(disk, part), 0o755))
		must(t, os.WriteFile(filepath.Join(disk, part, "partition"), fmt.Appendf(nil, "%d\n", i+1), 0o644))
		must(t, os.WriteFile(filepath.Join(disk, part, "uevent"), fmt.Appendf(nil, "MAJOR=253\nMINOR=%d\nDEVNAME=%s\nDEVTYPE=partition\nPARTN=%d\nPARTNAME=%s\n", i+1, part, i+1, name), 0o644))
		must(t, os.Symlink(filepath.Join(disk, part), filepath.Join(dir, "dev/block", fmt.Sprintf("253:%d", i+1))))
		if strings.HasSuffix(name, "_A") {
			must(t, os.Symlink(filepath.Join(disk, part), filepath.Join(dm, "slaves", part)))
		}
	}
	must(t, os.Symlink(disk, dir+"/dev/block/253:0"))
	must(t, os.Symlink(dm, dir+"/dev/block/254:0"))
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var whole = []string{"ESP", "root_A", "hash_A", "root_B", "hash_B", "META", "STATE", "LOGS"}

func TestMount(t *testing.T) {
	var b strings.Builder
	all := map[string]string{"/state": "/dev/vda7", "/logs": "/dev/vda8"}
	standIn := map[string]string{"/state": "tmpfs", "/logs": "/dev/vda8"}
	for _, d := range dirs {
		if d.bind != "" {
			all[d.bind], standIn[d.bind] = "x", "x"
		}
	}
	for _, c := range []struct {
		name    string
		fake    fake
		parts   []string
		mounted map[string]string
	}{
		{"a whole disk", fake{root: "254:0"}, whole, nil},
		{"hostd starts again", fake{root: "254:0"}, whole, all},
		{"hostd starts again after STATE did not mount", fake{root: "254:0"}, whole, standIn},
		{"no STATE", fake{root: "254:0"}, whole[:6], nil},
		{"root in memory", fake{root: "0:23"}, whole, nil},
		{"root on a bare disk", fake{root: "253:0"}, whole, nil},
		{"root device unknown", fake{rootErr: errors.New("stat /: permission denied")}, whole, nil},
		{"STATE does not mount", fake{root: "254:0", fail: map[string]error{"/dev/vda7": errors.New("structure needs cleaning")}}, whole, nil},
		{"no ext4", fake{root: "254:0", fail: map[string]error{"ext4": errors.New("no such module"), "/dev/vda7": errors.New("no such device"), "/dev/vda8": errors.New("no such device")}}, whole, nil},
		{"not even a tmpfs", fake{root: "0:23", fail: map[string]error{"tmpfs": errors.New("out of memory"), "/state/config": errors.New("read-only file system")}}, whole, nil},
	} {
		f := c.fake
		if f.mounted = maps.Clone(c.mounted); f.mounted == nil {
			f.mounted = map[string]string{}
		}
		m := Mount(&f, sysfs(t, c.parts...))
		fmt.Fprintf(&b, "%s\n%s", c.name, f.out.String())
		fmt.Fprintf(&b, "  = state %s %q err=%v\n  = logs %s %q err=%v\n  = disk %q err=%v\n", m.State.Kind, m.State.Device, m.State.Err,
			m.Logs.Kind, m.Logs.Device, m.Logs.Err, m.BootDisk, m.Err)
	}
	const path = "testdata/mount.golden"
	golden.Equal(t, path, b.String())
}

func TestMountPoints(t *testing.T) {
	const info = `22 28 0:20 / /proc rw,nosuid - proc proc rw
31 28 253:7 / /state rw,noatime shared:1 - ext4 /dev/vda7 rw
32 28 253:7 /libvirt /var/lib/lib\040virt rw,noatime - ext4 /dev/vda7 rw
short line
`
	got := mountPoints(info)
	for p, source := range map[string]string{"/proc": "proc", "/state": "/dev/vda7", "/var/lib/lib virt": "/dev/vda7"} {
		if got[p] != source {
			t.Errorf("at %s is %q", p, got[p])
		}
	}
	if len(got) != 3 {
		t.Errorf("got %v", got)
	}
}

func FuzzMountPoints(f *testing.F) {
	f.Add("31 28 253:7 / /st\\040ate rw - ext4 /dev/vda7 rw\n")
	f.Add(`a b c d \0 e \400`)
	f.Fuzz(func(t *testing.T, info string) {
		for p, source := range mountPoints(info) {
			if p == "" || source == "" {
				t.Fatalf("an empty mount point in %q", info)
			}
		}
	})
}
