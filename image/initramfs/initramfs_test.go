package initramfs

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/u-root/mkuimage/cpio"
)

func write(t *testing.T, file, data string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(data), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func build(t *testing.T, dir string) []byte {
	t.Helper()
	spec := Spec{
		Init:    write(t, dir+"/init", "init"),
		Modules: dir + "/mods",
		Busybox: write(t, dir+"/bb", "bb"), Applets: []string{"gosh", "ls"}, Shell: "gosh",
	}
	write(t, dir+"/mods/lib/modules/1/modules.dep", "a.ko:\n")
	out := dir + "/out"
	if err := Build(spec, out); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestBuild(t *testing.T) {
	data := build(t, t.TempDir())
	if magic := binary.LittleEndian.Uint32(data); magic != 0x184c2102 {
		t.Fatalf("magic %#x is not the kernel's LZ4 format", magic)
	}
	if n := len(data); n%4 != 0 || binary.LittleEndian.Uint32(data[n-4:]) != 0 {
		t.Errorf("%d bytes that do not end in a zero word", n)
	}
	plain, err := unpack(data)
	if err != nil {
		t.Fatal(err)
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(plain)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range records {
		names = append(names, r.Name)
		if r.MTime != 0 || r.UID != 0 || r.GID != 0 {
			t.Errorf("%s carries a time or an owner", r.Name)
		}
	}
	for _, want := range []string{"init", "dev/console", "bin/sh", "bin/defaultsh", "bbin/bb", "bbin/ls", "lib/modules/1/modules.dep"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s in %v", want, names)
		}
	}
	if slices.Contains(names, "etc/resolv.conf") {
		t.Error("the archive has a resolver configuration")
	}
	if !slices.IsSorted(names[:len(names)-1]) && !slices.IsSorted(names) {
		t.Errorf("not sorted: %v", names)
	}
}

func TestBuildTwice(t *testing.T) {
	if !bytes.Equal(build(t, t.TempDir()), build(t, t.TempDir())) {
		t.Error("equal inputs give different archives")
	}
}

func TestMicrocode(t *testing.T) {
	dir := t.TempDir()
	out := dir + "/early"
	err := Microcode([]string{write(t, dir+"/06-02", "BB"), write(t, dir+"/06-01", "AA")}, []string{write(t, dir+"/amd", "C")}, out)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(data)%4 != 0 {
		t.Errorf("%d bytes: what follows would not be aligned", len(data))
	}
	a, err := cpio.ArchiveFromReader(cpio.Newc.Reader(bytes.NewReader(data)))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"GenuineIntel": "AABB", "AuthenticAMD": "C"} {
		r, ok := a.Get("kernel/x86/microcode/" + name + ".bin")
		if !ok {
			t.Fatalf("no %s", name)
		}
		got, err := io.ReadAll(io.NewSectionReader(r.ReaderAt, 0, int64(r.FileSize)))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
}

// unpack tries each padding there can be: the reader knows no end mark.
func unpack(data []byte) (plain []byte, err error) {
	for pad := 4; pad < 8; pad++ {
		plain, err = io.ReadAll(lz4.NewReader(bytes.NewReader(data[:len(data)-pad])))
		if err == nil {
			return plain, nil
		}
	}
	return nil, err
}
