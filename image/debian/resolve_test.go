package debian

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"cairn/golden"
)

func testIndex(t *testing.T) *index {
	t.Helper()
	f, err := os.Open("testdata/Packages")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	x := newIndex()
	if err := x.read(f); err != nil {
		t.Fatal(err)
	}
	return x
}

// lockLine is a lock of one package whose sha256 ends in the given digits.
func lockLine(name, version, prefix, last string) Package {
	return Package{Name: name, Version: version, Arch: "amd64", SHA256: prefix + strings.Repeat("0", 64-len(prefix)-len(last)) + last}
}

func TestResolve(t *testing.T) {
	old := []Package{
		lockLine("base", "1.0-1", "1", "1"), lockLine("libc", "2.0-1", "2", "1"),
		lockLine("tool-alternative", "3.0", "3", "1"), lockLine("awk-b", "1", "4", "2"),
	}
	gone := lockLine("libc", "1.9-1", "2", "9")
	tests := []struct {
		name, list string
		lock       []Package
		kept       []Package
	}{
		{name: "newest without a lock", list: "base"},
		{name: "locked versions win", list: "base", lock: old},
		{name: "a dropped version is replaced", list: "libc", lock: []Package{gone}},
		{name: "a dropped version that was kept", list: "libc", lock: []Package{gone}, kept: []Package{gone}},
		{name: "other bytes under the same version", list: "libc", lock: []Package{lockLine("libc", "2.1-1", "2", "7")}},
		{
			name: "a package moves when its dependency had to", list: "base",
			lock: []Package{lockLine("base", "1.0-1+deb13u1", "1", "2"), lockLine("libc", "2.0-1", "2", "1"), old[2], old[3]},
		},
		{
			name: "the old kernel goes", list: "kernel",
			lock: []Package{lockLine("kernel", "6.12.1", "6", "1"), lockLine("kernel-6.12.1", "6.12.1", "61", "1")},
		},
		{name: "the list has grown", list: "base\nwants-awk", lock: old},
		{name: "the list has shrunk", list: "libc", lock: old},
		{name: "omitted", list: "base\n-script-runner\n-tool"},
		{name: "versioned provides", list: "wants-awk"},
		{name: "unknown name", list: "ghost"},
		{name: "unmet dependency", list: "needs-ghost"},
	}
	var b strings.Builder
	for _, tt := range tests {
		list, err := ParseList([]byte(tt.list))
		if err != nil {
			t.Fatal(err)
		}
		kept := func(p Package) *candidate {
			if slices.Contains(tt.kept, p) {
				return &candidate{Package: p}
			}
			return nil
		}
		pkgs, drifted, err := resolve(testIndex(t), list, tt.lock, kept)
		fmt.Fprintf(&b, "# %s\n", tt.name)
		for _, p := range pkgs {
			fmt.Fprintf(&b, "%s %s …%s\n", p.Name, p.Version, p.SHA256[60:])
		}
		for _, d := range drifted {
			fmt.Fprintf(&b, "drift: %s\n", d)
		}
		if err != nil {
			fmt.Fprintf(&b, "error: %v\n", err)
		}
	}
	golden.Equal(t, "testdata/resolve.txt", b.String())
}

func TestIndexFields(t *testing.T) {
	x := testIndex(t)
	c := x.newest(relation{name: "libc"})
	if c.Source != "glibc" || c.Version != "2.1-1" {
		t.Errorf("got %+v", c.Package)
	}
	if c := x.newest(relation{name: "libc", op: "<<", version: "2.1"}); c.Version != "2.0-1" {
		t.Errorf("below 2.1: got %s", c.Version)
	}
}

func TestParseRelations(t *testing.T) {
	got := fmt.Sprint(parseRelations("a, b:any (>= 1:2~) | c (<<3) , ,d(= 4)"))
	if want := "[[{a  }] [{b >= 1:2~} {c << 3}] [{d = 4}]]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func FuzzIndex(f *testing.F) {
	data, err := os.ReadFile("testdata/Packages")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, "base")
	f.Fuzz(func(t *testing.T, data []byte, want string) {
		x := newIndex()
		if x.read(bytes.NewReader(data)) != nil {
			return
		}
		// Must end, and never choose what the index does not have.
		pkgs, _, err := resolve(x, List{Want: []string{want}}, nil, func(Package) *candidate { return nil })
		if err != nil {
			return
		}
		for _, p := range pkgs {
			if !slices.Contains(x.byName[p.Name], p) {
				t.Errorf("chose %s %s from nowhere", p.Name, p.Version)
			}
		}
	})
}
