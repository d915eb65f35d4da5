package debian

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// program is an ELF header that asks for a loader, or for none.
func program(loader string) []byte {
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	if loader != "" {
		h.Phnum = 1
	}
	_ = binary.Write(&b, binary.LittleEndian, h)
	if loader != "" {
		_ = binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_INTERP), Off: 120, Filesz: uint64(len(loader) + 1)})
		b.WriteString(loader + "\x00")
	}
	return b.Bytes()
}

func testTree(t *testing.T, files map[string][]byte, links map[string]string) *Tree {
	t.Helper()
	tree := &Tree{Dir: t.TempDir()}
	for name, target := range links {
		file := filepath.Join(tree.Dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, file); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range files {
		file := filepath.Join(tree.Dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

func TestCommand(t *testing.T) {
	tree := testTree(t, map[string][]byte{
		"usr/bin/qemu-system-x86_64": program("/lib64/ld-linux-x86-64.so.2"),
		"usr/sbin/mke2fs":            program(""),
		"usr/sbin/script":            []byte("#!/bin/sh\n"),
	}, map[string]string{"usr/sbin/mkfs.ext4": "/sbin/mke2fs", "sbin": "usr/sbin"})
	cmd := tree.Command(t.Context(), "qemu-system-x86_64", "-version")
	want := []string{
		tree.Dir + "/usr/lib64/ld-linux-x86-64.so.2",
		"--library-path", tree.Dir + "/usr/lib/x86_64-linux-gnu:" + tree.Dir + "/usr/lib/x86_64-linux-gnu/systemd:" +
			tree.Dir + "/usr/lib/x86_64-linux-gnu/libvirt:" + tree.Dir + "/usr/lib",
		"--argv0", "qemu-system-x86_64", tree.Dir + "/usr/bin/qemu-system-x86_64",
		"-L", tree.Dir + "/usr/share/qemu", "-L", tree.Dir + "/usr/share/seabios", "-L", tree.Dir + "/usr/lib/ipxe/qemu", "-version",
	}
	if cmd.Err != nil || !slices.Equal(cmd.Args, want) {
		t.Errorf("got %q (%v), want %q", cmd.Args, cmd.Err, want)
	}
	if slices.ContainsFunc(cmd.Env, func(e string) bool {
		return strings.HasPrefix(e, "LD_LIBRARY_PATH=") && os.Getenv("LD_LIBRARY_PATH") == ""
	}) {
		t.Error("the library path leaks to children")
	}
	cmd = tree.Command(t.Context(), "mkfs.ext4", "disk")
	if cmd.Err != nil || cmd.Path != tree.Dir+"/usr/sbin/mke2fs" || !slices.Contains(cmd.Env, "MKE2FS_CONFIG="+tree.Dir+"/etc/mke2fs.conf") {
		t.Errorf("static program behind a link: %q, %v", cmd.Args, cmd.Err)
	}
	for _, name := range []string{"script", "none", "/usr/bin/../../../../bin/sh"} {
		if cmd := tree.Command(t.Context(), name); cmd.Err == nil || cmd.Run() == nil {
			t.Errorf("%s can be run", name)
		}
	}
}

func TestResolveLinks(t *testing.T) {
	tree := testTree(t, map[string][]byte{"usr/share/a/file": nil}, map[string]string{
		"usr/share/abs": "/usr/share/a", "usr/share/rel": "../share/abs/file", "usr/share/up": "../../../../usr/share/a/file",
		"usr/share/loop": "loop", "usr/share/gone": "nothing",
	})
	for path, want := range map[string]string{
		"/usr/share/a/file": "/usr/share/a/file", "/usr/share/abs/file": "/usr/share/a/file", "/usr/share/rel": "/usr/share/a/file",
		"/usr/share/up": "/usr/share/a/file", "/": "/",
	} {
		if got, err := tree.Resolve(path); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"/usr/share/loop", "/usr/share/gone", "/none"} {
		if got, err := tree.Resolve(path); err == nil {
			t.Errorf("%s is %q", path, got)
		}
	}
}
