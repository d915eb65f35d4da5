package firmware

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"cairn/golden"
)

func testDir() fstest.MapFS {
	return fstest.MapFS{
		"ql2400_fw.bin":              {Data: make([]byte, 24)},
		"ql2500_fw.bin":              {Data: make([]byte, 25)},
		"intel/ice/ddp/ice-1.3.pkg":  {Data: make([]byte, 13)},
		"intel/ice/ddp/ice.pkg":      {Data: []byte("ice-1.3.pkg"), Mode: fs.ModeSymlink},
		"intel-ucode/06-55-04":       {Data: make([]byte, 6)},
		"intel-ucode/0f-04-01":       {Data: make([]byte, 15)},
		"broken/outside.bin":         {Data: []byte("../../../etc/passwd"), Mode: fs.ModeSymlink},
		"broken/dangling.bin":        {Data: []byte("gone"), Mode: fs.ModeSymlink},
		"broken/loop.bin":            {Data: []byte("loop.bin"), Mode: fs.ModeSymlink},
		"broken/directory/something": {},
	}
}

func TestResolve(t *testing.T) {
	groups, err := parse([]byte(`
[microcode early]
intel-ucode/06-*
[hba]
ql24*.bin   # old
ql2?00_fw.bin
lpfc.bin
[ice]
intel/ice/ddp/ice.pkg
`))
	if err != nil {
		t.Fatal(err)
	}
	if err := resolve(testDir(), groups); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, g := range groups {
		fmt.Fprintf(&b, "[%s] early=%v size=%d missing=%v\n", g.Name, g.Early, g.Size, g.Missing)
		for _, f := range g.Files {
			fmt.Fprintf(&b, "%s %d %s\n", f.Path, f.Size, f.Link)
		}
	}
	golden.Equal(t, "testdata/groups.txt", b.String())
}

func TestResolveErrors(t *testing.T) {
	for _, name := range []string{"outside*", "dangling*", "director*"} {
		groups := []Group{{Name: "g", Missing: []string{"broken/" + name}}}
		if err := resolve(testDir(), groups); err == nil {
			t.Errorf("accepted %s", name)
		}
	}
}

func TestListIsGood(t *testing.T) {
	groups, err := parse(filesList)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if len(g.Missing) == 0 {
			t.Errorf("group %s is empty", g.Name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[a early]\nx/*.bin\n# c\n[b]\nql2[1-5]??_fw.bin")
	f.Fuzz(func(t *testing.T, text string) {
		groups, err := parse([]byte(text))
		if err != nil {
			return
		}
		_ = resolve(testDir(), groups) // must end and not panic
		for _, g := range groups {
			for _, f := range g.Files {
				if !fs.ValidPath(f.Path) {
					t.Errorf("resolved to %q", f.Path)
				}
			}
		}
	})
}
