package disk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"cairn/init/slots"
)

// noTools stands for the Debian tree: file systems are not made, only asked for.
type noTools struct{ asked *[]string }

func (n noTools) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	*n.asked = append(*n.asked, name+" "+strings.Join(args, " "))
	return exec.CommandContext(ctx, "true")
}

var small = Layout{Disk: 160 * mib, ESP: 64 * mib, Root: 16 * mib, Hash: 2 * mib, Meta: 4 * mib, State: 16 * mib, Logs: 16 * mib}

var rootHash = strings.Repeat("0123456789abcdef", 4)

func build(t *testing.T, l Layout) (file string, asked []string) {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string]string{"root": "root image", "verity": "hash tree"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file = filepath.Join(dir, "disk.img")
	err := Build(t.Context(), noTools{&asked}, l, Content{
		RootHash: rootHash, RootFile: filepath.Join(dir, "root"), Verity: filepath.Join(dir, "verity"),
		ESP:       map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": []byte("loader"), "/loader/loader.conf": []byte("timeout 0\n")},
		BuildTime: 1735689600,
	}, file)
	if err != nil {
		t.Fatal(err)
	}
	return file, asked
}

func TestBuild(t *testing.T) {
	file, asked := build(t, small)
	d, err := diskfs.Open(file, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	pt, err := d.GetPartitionTable()
	if err != nil {
		t.Fatal(err)
	}
	var parts []slots.Partition
	end := uint64(0)
	for _, p := range pt.(*gpt.Table).Partitions {
		if p.Type == gpt.Unused {
			continue
		}
		parts = append(parts, slots.Partition{Name: p.Name, UUID: p.GUID})
		if p.Start <= end || p.Start%2048 != 0 {
			t.Errorf("%s starts at sector %d, the one before ends at %d", p.Name, p.Start, end)
		}
		end = p.End
	}
	if len(parts) != 8 {
		t.Errorf("%d partitions: %v", len(parts), parts)
	}
	if slot, ok := slots.Find(parts, rootHash); !ok || slot != slots.A {
		t.Errorf("the image is found in slot %q, %v", slot, ok)
	}
	fs, err := d.GetFilesystem(1)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fs.OpenFile("/loader/loader.conf", os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); err != nil || string(got) != "timeout 0\n" {
		t.Errorf("loader.conf holds %q, %v", got, err)
	}
	for i, label := range []string{slots.State, slots.Logs} {
		if len(asked) != 2 || !strings.Contains(asked[i], "-L "+label) {
			t.Errorf("file systems asked for: %q", asked)
		}
	}
}

func TestBuildTwice(t *testing.T) {
	sum := func() string {
		file, _ := build(t, small)
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(h.Sum(nil))
	}
	if a, b := sum(), sum(); a != b {
		t.Error("equal inputs give different disks")
	}
}

func TestBuildRefusesAnImageLargerThanItsSlot(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "root")
	if err := os.WriteFile(big, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, small.Root+1); err != nil {
		t.Fatal(err)
	}
	var asked []string
	err := Build(t.Context(), noTools{&asked}, small, Content{
		RootHash: rootHash, RootFile: big, Verity: big, ESP: map[string][]byte{"/x": []byte("x")},
	}, filepath.Join(dir, "disk.img"))
	if err == nil || !strings.Contains(err.Error(), "root_A") {
		t.Errorf("error %v does not name the slot", err)
	}
}
