package closure

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

// program is an ELF file small enough to write by hand: a PT_INTERP, a
// PT_DYNAMIC and a string table, which is all the dynamic linker's search reads.
func program(interp, runPath string, needed ...string) []byte {
	strtab := []byte{0}
	str := func(s string) uint64 {
		at := len(strtab)
		strtab = append(append(strtab, s...), 0)
		return uint64(at)
	}
	var dyn []uint64
	for _, n := range needed {
		dyn = append(dyn, uint64(elf.DT_NEEDED), str(n))
	}
	if runPath != "" {
		dyn = append(dyn, uint64(elf.DT_RUNPATH), str(runPath))
	}
	dyn = append(dyn, uint64(elf.DT_NULL), 0)
	const ehdr, phdr, shdr = 64, 56, 64
	interpOff := ehdr + 2*phdr
	dynOff := (interpOff + len(interp) + 1 + 7) &^ 7
	strOff := dynOff + 8*len(dyn)
	shOff := (strOff + len(strtab) + 7) &^ 7
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	pad := func(to int) { b.Write(make([]byte, to-b.Len())) }
	put(elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64),
		Version: 1, Phoff: ehdr, Shoff: uint64(shOff), Ehsize: ehdr, Phentsize: phdr, Phnum: 2, Shentsize: shdr, Shnum: 3,
	})
	put(elf.Prog64{Type: uint32(elf.PT_INTERP), Off: uint64(interpOff), Filesz: uint64(len(interp) + 1)})
	put(elf.Prog64{Type: uint32(elf.PT_DYNAMIC), Off: uint64(dynOff), Filesz: uint64(8 * len(dyn))})
	b.WriteString(interp + "\x00")
	pad(dynOff)
	put(dyn)
	b.Write(strtab)
	pad(shOff)
	put(elf.Section64{})
	put(elf.Section64{Type: uint32(elf.SHT_DYNAMIC), Off: uint64(dynOff), Size: uint64(8 * len(dyn)), Link: 2, Entsize: 16})
	put(elf.Section64{Type: uint32(elf.SHT_STRTAB), Off: uint64(strOff), Size: uint64(len(strtab))})
	return b.Bytes()
}

// tree writes files and, where the content begins with "->", links.
func tree(t *testing.T, files map[string]string) Dir {
	t.Helper()
	root := t.TempDir()
	for p, content := range files {
		file := filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "->"); ok {
			err = os.Symlink(target, file)
		} else {
			err = os.WriteFile(file, []byte(content), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return Dir(root)
}

const (
	ld  = "usr/lib/x86_64-linux-gnu/ld.so"
	lib = "usr/lib/x86_64-linux-gnu/"
)

func TestClosure(t *testing.T) {
	files := map[string]string{
		"usr/lib64":                  "->lib/x86_64-linux-gnu",
		ld:                           "loader",
		"usr/bin/tool":               string(program("/usr/lib/x86_64-linux-gnu/ld.so", "$ORIGIN/../lib/private", "liba.so.1", "libpriv.so")),
		"usr/bin/alias":              "->tool",
		lib + "liba.so.1":            "->liba.so.1.2",
		lib + "liba.so.1.2":          string(program("", "", "libb.so")),
		lib + "libb.so":              string(program("", "", "liba.so.1")), // a cycle
		"usr/lib/private/libpriv.so": string(program("", "")),
		"usr/share/data":             "text",
	}
	want := []string{
		"usr/bin/alias", "usr/bin/tool", "usr/lib/private/libpriv.so",
		ld, lib + "liba.so.1", lib + "liba.so.1.2", lib + "libb.so", "usr/share/data",
	}
	got, err := New(tree(t, files)).Closure("/bin/alias", "/usr/share/data")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("closure:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestClosureNamesBothSidesOfAHole(t *testing.T) {
	r := New(tree(t, map[string]string{"usr/bin/tool": string(program("", "", "libgone.so.3"))}))
	_, err := r.Closure("usr/bin/tool")
	if err == nil || !strings.Contains(err.Error(), "usr/bin/tool") || !strings.Contains(err.Error(), "libgone.so.3") {
		t.Errorf("error %v does not name the program and the library", err)
	}
}

func TestClosureOfMissingFile(t *testing.T) {
	if _, err := New(tree(t, nil)).Closure("usr/bin/none"); err == nil {
		t.Error("a file that is not there was accepted")
	}
}

func TestChainEndsForALoop(t *testing.T) {
	r := New(tree(t, map[string]string{"a": "->b", "b": "->a"}))
	if _, err := r.Chain("a"); err == nil {
		t.Error("a loop of links was accepted")
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"/bin/sh": "usr/bin/sh", "lib64/ld.so": "usr/lib64/ld.so", "/usr/./lib/../lib/x": "usr/lib/x",
		"../../etc/passwd": "etc/passwd", "/": "", "library/x": "library/x",
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(program("/ld.so", "/x:$ORIGIN", "a", "b"))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := read(bytes.NewReader(data))
		if err != nil && info != nil {
			t.Error("information beside an error")
		}
	})
}
