package modules

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

const (
	depText = `kernel/drivers/md/dm-mod.ko.xz:
kernel/drivers/md/dm-bufio.ko.xz: kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/md/dm-verity.ko.xz: kernel/drivers/md/dm-bufio.ko.xz kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/block/virtio_blk.ko:
kernel/drivers/watchdog/i6300esb.ko.xz:
`
	aliasText = `# Aliases extracted from modules themselves.
alias virtio:d00000002v* virtio_blk
alias pci:v00008086d000025ABsv*sd*bc*sc*i* i6300esb
alias acpi*:PNP0A05:* button-thing
broken line
alias only-two
`
)

func open(t *testing.T, load Loader) *Tree {
	t.Helper()
	tree, err := Open(fstest.MapFS{
		"modules.dep":     {Data: []byte(depText)},
		"modules.alias":   {Data: []byte(aliasText)},
		"modules.builtin": {Data: []byte("kernel/fs/ext4/ext4.ko\n")},
	}, load)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestLoadNameLoadsDependenciesFirstAndOnce(t *testing.T) {
	var got []string
	tree := open(t, func(file string) error {
		got = append(got, moduleName(file))
		if strings.Contains(file, "bufio") {
			return unix.EEXIST
		}
		return nil
	})
	for range 2 {
		if err := tree.LoadName("dm-verity"); err != nil {
			t.Fatal(err)
		}
	}
	if want := "dm_mod dm_bufio dm_verity"; strings.Join(got, " ") != want {
		t.Errorf("loaded %v, want %s", got, want)
	}
	if err := tree.LoadName("ext4"); err != nil {
		t.Errorf("a module inside the kernel: %v", err)
	}
	if err := tree.LoadName("nothing"); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown module: %v, want ErrUnknown", err)
	}
}

func TestLoadFileNamesWhatFailed(t *testing.T) {
	tree := open(t, func(file string) error {
		if strings.Contains(file, "dm-mod") {
			return unix.ENODEV
		}
		return nil
	})
	err := tree.LoadName("dm_verity")
	if !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "dm_verity: needs dm_mod") {
		t.Errorf("err = %v", err)
	}
}

func TestSoftDependencies(t *testing.T) {
	var got []string
	tree, err := Open(fstest.MapFS{
		"modules.dep":     {Data: []byte("a.ko:\nb.ko: libcrc.ko\nlibcrc.ko:\ncrc-fast.ko:\ncrc-plain.ko:\nlater.ko:\n")},
		"modules.alias":   {Data: []byte("alias crc crc_fast\nalias crc crc_plain\n")},
		"modules.softdep": {Data: []byte("softdep libcrc pre: crc a post: later\nsoftdep a pre: libcrc\nsoftdep short\n")},
	}, func(file string) error {
		got = append(got, moduleName(file))
		if file == "crc-fast.ko" {
			return unix.ENODEV
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.LoadName("b"); err != nil {
		t.Fatal(err)
	}
	if want := "crc_fast crc_plain a libcrc b"; strings.Join(got, " ") != want {
		t.Errorf("loaded %v, want %s", got, want)
	}
}

func TestMatch(t *testing.T) {
	tree := open(t, nil)
	cases := []struct{ modalias, want string }{
		{"virtio:d00000002v00001AF4", "kernel/drivers/block/virtio_blk.ko"},
		{"pci:v00008086d000025ABsv00001AF4sd00001100bc08sc80i00", "kernel/drivers/watchdog/i6300esb.ko.xz"},
		{"virtio:d00000003v00001AF4", ""},
		{"acpi:PNP0A05:", ""}, // claimed, but the tree lacks the module
		{"", ""},
	}
	for _, c := range cases {
		if got := strings.Join(tree.Match(c.modalias), " "); got != c.want {
			t.Errorf("Match(%q) = %q, want %q", c.modalias, got, c.want)
		}
	}
}

func TestOpenRefusesTreeWithoutIndex(t *testing.T) {
	if _, err := Open(fstest.MapFS{}, nil); err == nil {
		t.Error("a tree without modules.dep was accepted")
	}
}

func TestBuses(t *testing.T) {
	if got := strings.Join(open(t, nil).Buses(), " "); got != "acpi pci virtio" {
		t.Errorf("Buses = %s", got)
	}
}

// TestParallel checks that goroutines share one request per file.
func TestParallel(t *testing.T) {
	var count atomic.Int32
	tree := open(t, func(string) error {
		count.Add(1)
		return nil
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := tree.LoadName("dm_verity"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if count.Load() != 3 || !tree.Loaded("kernel/drivers/md/dm-mod.ko.xz") {
		t.Errorf("%d loads, want 3", count.Load())
	}
}

func TestGlob(t *testing.T) {
	cases := []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "abc", true},
		{"a?c", "abc", true}, {"a?c", "ac", false},
		{"a*c*e", "abcde", true}, {"a*c*e", "abcd", false}, {"*bb", "abbb", true},
		{"[ab]c", "bc", true}, {"[!ab]c", "bc", false}, {"[0-9]x", "5x", true}, {"[0-9]x", "ax", false},
		{"[", "[", true}, {"acpi*:PNP0501:*", "acpi:PNP0501:PNP0500:", true},
	}
	for _, c := range cases {
		if got := glob(c.pattern, c.s); got != c.want {
			t.Errorf("glob(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
}

func FuzzIndex(f *testing.F) {
	f.Add(depText, aliasText, "softdep a pre: b", "virtio:d00000002v00001AF4")
	f.Add("a:b", "alias [ a", "softdep a a b\nsoftdep b a", "[")
	f.Fuzz(func(t *testing.T, dep, alias, soft, modalias string) {
		tree, err := Open(fstest.MapFS{
			"modules.dep": {Data: []byte(dep)}, "modules.alias": {Data: []byte(alias)}, "modules.softdep": {Data: []byte(soft)},
		}, func(string) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range tree.Match(modalias) {
			if err := tree.LoadFile(file); err != nil {
				t.Error(err)
			}
		}
		if !strings.ContainsAny(modalias, "*?[") && !glob(modalias, modalias) {
			t.Errorf("%q does not match itself", modalias)
		}
	})
}
