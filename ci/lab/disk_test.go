//go:build lab

package lab_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"cairn/ci/lab"
	"cairn/image/debian"
)

// TestCheckExt4 makes a disk with a file system in a partition and looks at it
// clean, and with its state byte taken away.
func TestCheckExt4(t *testing.T) {
	ctx := context.Background()
	tools, err := debian.Open(ctx, debian.Config{})
	if err != nil {
		t.Fatal(err)
	}
	const size, start = 32 << 20, 2048
	raw := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(raw)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table := &gpt.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, Partitions: []*gpt.Partition{
		{Index: 1, Start: start, End: start + 40000, Type: gpt.LinuxFilesystem, Name: "STATE"},
	}}
	storage, err := file.New(f, false).Writable()
	if err == nil {
		err = table.Write(storage, size)
	}
	if err != nil {
		t.Fatal(err)
	}
	mkfs := tools.Command(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-O", "^metadata_csum", "-E", "offset=1048576", raw, "16M")
	if out, err := mkfs.CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	if err := lab.CheckExt4(ctx, tools, raw, "STATE"); err != nil {
		t.Errorf("clean: %v", err)
	}
	if _, err := f.WriteAt([]byte{0}, start*512+1024+0x3a); err != nil { // s_state
		t.Fatal(err)
	}
	if err := lab.CheckExt4(ctx, tools, raw, "STATE"); err == nil || !strings.Contains(err.Error(), "not unmounted") {
		t.Errorf("dirty: %v", err)
	}
	if _, err := lab.Partition(raw, "LOGS"); err == nil {
		t.Error("found a partition that is not there")
	}
}
