package rootfs

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func sample(t *testing.T) *Tree {
	t.Helper()
	r := New()
	for _, err := range []error{
		r.Dir("tmp", 0o777|os.ModeSticky),
		r.Data("usr/share/x/conf", []byte("hello\n"), 0o644, "cairn"),
		r.Data("usr/bin/prog", []byte("#!"), 0o755, "cairn"),
		r.Link("bin", "usr/bin", "cairn"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestWriteTar(t *testing.T) {
	var b bytes.Buffer
	if err := sample(t).WriteTar(&b); err != nil {
		t.Fatal(err)
	}
	want := []struct {
		name string
		mode int64
	}{
		{"././", 0o755}, {"./bin", 0o777}, {"./tmp/", 0o1777}, {"./usr/", 0o755}, {"./usr/bin/", 0o755},
		{"./usr/bin/prog", 0o755}, {"./usr/share/", 0o755}, {"./usr/share/x/", 0o755}, {"./usr/share/x/conf", 0o644},
	}
	tr := tar.NewReader(&b)
	for _, w := range want {
		h, err := tr.Next()
		if err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		if h.Name != w.name || h.Mode != w.mode || h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != BuildTime() {
			t.Errorf("got %s %o %d:%d %v, want %s %o", h.Name, h.Mode, h.Uid, h.Gid, h.ModTime, w.name, w.mode)
		}
	}
	if _, err := tr.Next(); err != io.EOF {
		t.Errorf("more entries than expected: %v", err)
	}
}

func TestDigestIsThatOfTheContent(t *testing.T) {
	a, err := sample(t).Digest()
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := sample(t).Digest(); a != b {
		t.Error("equal trees have different digests")
	}
	other := sample(t)
	if err := other.Data("usr/share/x/more", nil, 0o644, "cairn"); err != nil {
		t.Fatal(err)
	}
	if b, _ := other.Digest(); a == b {
		t.Error("different trees have one digest")
	}
}

func TestRefuses(t *testing.T) {
	for name, add := range map[string]func(*Tree) error{
		"absolute path":        func(r *Tree) error { return r.Data("/etc/x", nil, 0o644, "") },
		"path upwards":         func(r *Tree) error { return r.Data("../x", nil, 0o644, "") },
		"unclean path":         func(r *Tree) error { return r.Data("a//b", nil, 0o644, "") },
		"root":                 func(r *Tree) error { return r.Data(".", nil, 0o644, "") },
		"other content":        func(r *Tree) error { return r.Data("usr/bin/prog", []byte("x"), 0o755, "") },
		"file as directory":    func(r *Tree) error { return r.Data("usr/bin/prog/x", nil, 0o644, "") },
		"directory over it":    func(r *Tree) error { return r.Dir("usr/bin/prog", 0o755) },
		"file through link":    func(r *Tree) error { return r.Data("bin/y", nil, 0o644, "") },
		"missing source":       func(r *Tree) error { return r.File("y", "/does/not/exist", 0o644, "") },
		"directory as file":    func(r *Tree) error { return r.File("y", "/", 0o644, "") },
		"missing to be copied": func(r *Tree) error { return r.Copy("/", "does/not/exist", "") },
	} {
		t.Run(name, func(t *testing.T) {
			if err := add(sample(t)); err == nil {
				t.Error("was accepted")
			}
		})
	}
}

func TestSameTwiceIsFine(t *testing.T) {
	r := sample(t)
	if err := r.Data("usr/bin/prog", []byte("#!"), 0o755, "cairn"); err != nil {
		t.Error(err)
	}
}

func TestCopyIgnoresTheUmask(t *testing.T) {
	base := t.TempDir()
	for name, mode := range map[string]os.FileMode{"prog": 0o700, "data": 0o600} {
		if err := os.WriteFile(filepath.Join(base, name), []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("prog", filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	r := New()
	for _, p := range []string{"prog", "data", "link"} {
		if err := r.Copy(base, p, "c"); err != nil {
			t.Fatal(err)
		}
	}
	if m := r.Lookup("prog").Mode; m != 0o755 {
		t.Errorf("program has mode %o", m)
	}
	if m := r.Lookup("data").Mode; m != 0o644 {
		t.Errorf("data has mode %o", m)
	}
	if l := r.Lookup("link"); l.Target != "prog" {
		t.Errorf("link leads to %q", l.Target)
	}
	if got := r.Sizes()["c"]; got != 8 {
		t.Errorf("component weighs %d bytes, want 8", got)
	}
}
