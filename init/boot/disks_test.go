package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"cairn/init/slots"
)

// machineDir is a directory that looks like /sys and /dev of a machine with
// one disk, written by the same library as the image's disk.
type machineDir struct {
	t    *testing.T
	root string
}

func (m machineDir) write(name, text string) {
	m.t.Helper()
	file := filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// device makes /sys/class/block/NAME, a link to the device's directory.
func (m machineDir) device(name, path, uevent string, files map[string]string) {
	m.t.Helper()
	dir := "sys/devices/" + path
	m.write(dir+"/uevent", uevent)
	for file, text := range files {
		m.write(dir+"/"+file, text)
	}
	if err := os.MkdirAll(filepath.Join(m.root, "sys/class/block"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Symlink("../../devices/"+path, filepath.Join(m.root, "sys/class/block", name)); err != nil {
		m.t.Fatal(err)
	}
}

func (m machineDir) scan() ([]Disk, []error) {
	return sysDisks{sys: filepath.Join(m.root, "sys"), dev: filepath.Join(m.root, "dev")}.Scan()
}

func newMachineDir(t *testing.T) machineDir {
	t.Helper()
	m := machineDir{t: t, root: t.TempDir()}
	m.write("dev/.keep", "")
	disk, err := diskfs.Create(filepath.Join(m.root, "dev/vda"), 8<<20, diskfs.SectorSize512)
	if err != nil {
		t.Fatal(err)
	}
	root, hash, err := slots.PartUUIDs(sampleHash)
	if err != nil {
		t.Fatal(err)
	}
	err = disk.Partition(&gpt.Table{
		LogicalSectorSize: 512, PhysicalSectorSize: 512, ProtectiveMBR: true, GUID: "5e2f0000-0000-4000-8000-000000000001",
		Partitions: []*gpt.Partition{
			{Index: 1, Start: 2048, End: 4095, Type: gpt.LinuxFilesystem, Name: "root_A", GUID: root},
			{Index: 2, Start: 4096, End: 6143, Type: gpt.LinuxFilesystem, Name: "hash_A", GUID: hash},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	m.device("vda", "virtio0/block/vda", "MAJOR=254\nMINOR=0\nDEVNAME=vda\nDEVTYPE=disk\n",
		map[string]string{"size": "16384\n", "queue/logical_block_size": "512\n"})
	return m
}

func (m machineDir) partition(name, number, label string) {
	m.t.Helper()
	m.device(name, "virtio0/block/vda/"+name, "MAJOR=254\nMINOR="+number+"\nDEVNAME="+name+"\nPARTN="+number+"\nPARTNAME="+label+"\n",
		map[string]string{"size": "2048\n", "partition": number + "\n"})
}

func TestScan(t *testing.T) {
	m := newMachineDir(t)
	m.device("loop0", "virtual/block/loop0", "MAJOR=7\nMINOR=0\nDEVNAME=loop0\n", map[string]string{"size": "0\n"})
	if disks, errs := m.scan(); len(disks)+len(errs) != 0 {
		t.Errorf("a disk without partitions: %v, %v", disks, errs)
	}
	m.partition("vda1", "1", "root_A")
	disks, errs := m.scan()
	if len(disks) != 1 || len(errs) != 0 {
		t.Fatalf("Scan = %v, %v", disks, errs)
	}
	if _, ok := match(disks[0], sampleHash); ok {
		t.Error("matched before the kernel made the second partition")
	}
	m.partition("vda2", "2", "hash_A")
	disks, errs = m.scan()
	if len(disks) != 1 || len(errs) != 0 {
		t.Fatalf("Scan = %v, %v", disks, errs)
	}
	c, ok := match(disks[0], sampleHash)
	if !ok || c.slot != slots.A || c.root.Dev != "254:1" || c.hash.Dev != "254:2" || c.root.Size != 1<<20 {
		t.Errorf("match = %+v, %v", c, ok)
	}
	if want := "5e2f0000-0000-4000-8000-000000000001"; disks[0].GUID != want {
		t.Errorf("disk GUID = %s, want %s", disks[0].GUID, want)
	}
}

func TestScanNamesTheDiskItCannotRead(t *testing.T) {
	m := newMachineDir(t)
	m.partition("vda1", "1", "root_A")
	if err := os.Truncate(filepath.Join(m.root, "dev/vda"), 0); err != nil {
		t.Fatal(err)
	}
	disks, errs := m.scan()
	if len(disks) != 0 || len(errs) != 1 || !strings.Contains(errs[0].Error(), "disk vda:") {
		t.Errorf("Scan = %v, %v", disks, errs)
	}
}
