package inventory

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cairn/golden"
	"cairn/init/hostd/client"
)

// plant makes the files a .tree lists: "path content" with Go escapes, "path/"
// for a directory, "path -> target" for a symlink, its target below sys.
func plant(t *testing.T, tree string) Source {
	t.Helper()
	text, err := os.ReadFile(tree)
	must(t, err)
	dir := t.TempDir()
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		path, content, _ := strings.Cut(line, " ")
		full := filepath.Join(dir, path)
		if strings.HasSuffix(path, "/") {
			must(t, os.MkdirAll(full, 0o755))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(full), 0o755))
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			must(t, os.Symlink(filepath.Join(dir, "sys", target), full))
			continue
		}
		content, err := strconv.Unquote(`"` + content + `"`)
		must(t, err)
		must(t, os.WriteFile(full, []byte(content), 0o644))
	}
	return Source{Sys: dir + "/sys", Proc: dir + "/proc"}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestInventory(t *testing.T) {
	s := plant(t, "testdata/virtio.tree")
	got, err := json.MarshalIndent(client.Inventory{
		CPU: s.CPU(), Memory: s.Memory(), NICs: s.NICs(), Disks: s.Disks("vda"), Product: s.Product(), BIOS: s.BIOS(),
	}, "", "  ")
	must(t, err)
	golden.Equal(t, "testdata/virtio.golden", got)
}

func TestNothingIsNoError(t *testing.T) {
	s := Source{Sys: t.TempDir(), Proc: t.TempDir()}
	if n := len(s.NICs()) + len(s.Disks("")) + s.CPU().Count + int(s.Memory().Total); n != 0 || s.Product().Name != "" {
		t.Errorf("an empty machine has something")
	}
}

func TestThisMachine(t *testing.T) {
	s := Source{Sys: "/sys", Proc: "/proc"}
	if c := s.CPU(); c.Count == 0 || len(c.Flags) == 0 {
		t.Errorf("got %+v", c)
	}
	if m := s.Memory(); m.Total == 0 || m.Available == 0 || m.Available > m.Total {
		t.Errorf("got %+v", m)
	}
}

func FuzzParseCPU(f *testing.F) {
	f.Add("processor\t: 0\nvendor_id\t: x\nflags\t: a b\n\nprocessor\t: 1\n")
	f.Fuzz(func(t *testing.T, info string) {
		if c := parseCPU(info); c.Count < 0 || c.Count == 0 && c.Sockets > 0 && !strings.Contains(info, "physical id") {
			t.Fatalf("got %+v", c)
		}
	})
}
