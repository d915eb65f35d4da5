package kernelconfig

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"cairn/golden"
)

// testKernel is a small module directory: a file's size is its name's length.
func testKernel() fstest.MapFS {
	dir := fstest.MapFS{
		"modules.dep": {Data: []byte(`kernel/drivers/md/dm-mod.ko.xz:
kernel/drivers/md/dm-bufio.ko.xz: kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/md/dm-verity.ko.xz: kernel/drivers/md/dm-bufio.ko.xz kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/md/dm-multipath.ko.xz: kernel/drivers/md/dm-mod.ko.xz
kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz
kernel/fs/jbd2/jbd2.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
kernel/net/netfilter/xt_mark.ko.xz:
kernel/net/netfilter/xt_LOG.ko.xz:
kernel/fs/nls/nls_iso8859-1.ko.xz:
`)},
		"modules.builtin": {Data: []byte("kernel/drivers/char/tpm/tpm_tis.ko\n")},
		"modules.softdep": {Data: []byte("# comment\nsoftdep ext4 pre: crypto-crc32c\n")},
		"modules.alias":   {Data: []byte("alias crypto-crc32c crc32c_generic\nalias pci:v*d* ext4\n")},
	}
	for line := range strings.Lines(string(dir["modules.dep"].Data)) {
		file, _, _ := strings.Cut(line, ":")
		dir[file] = &fstest.MapFile{Data: []byte(file)}
	}
	return dir
}

func TestResolveModules(t *testing.T) {
	wanted, err := parseModules([]byte(`
[root stage1]
dm-verity
ext4         # needs a checksum
tpm_tis
[net]
xt_*
gone
[dm]
drivers/md/**
fs/nls/nls_iso*
`))
	if err != nil {
		t.Fatal(err)
	}
	groups, err := resolveModules(testKernel(), wanted)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, g := range groups {
		fmt.Fprintf(&b, "[%s] stage1=%v size=%d missing=%v\n", g.Name, g.Stage1, g.Size, g.Missing)
		for _, m := range g.Modules {
			fmt.Fprintf(&b, "%s %s\n", m.Name, m.Path)
		}
	}
	golden.Equal(t, "testdata/modules.txt", b.String())
	if n := len(Stage1(groups)); n != len(groups[0].Modules) {
		t.Errorf("stage 1 has %d modules, want those of the first group", n)
	}
}

func TestModuleListIsGood(t *testing.T) {
	groups, err := parseModules(modulesList)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, g := range groups {
		for _, item := range g.items {
			if other, twice := seen[item]; twice {
				t.Errorf("%s is in the groups %s and %s", item, other, g.name)
			}
			seen[item] = g.name
		}
	}
	for _, m := range []string{"dm-verity", "erofs", "ext4", "virtio_blk", "nvme", "usb-storage", "iTCO_wdt"} {
		if i := slices.IndexFunc(groups, func(g wantedGroup) bool { return g.name == seen[m] }); i < 0 || !groups[i].stage1 {
			t.Errorf("stage 1 lacks %s", m)
		}
	}
}

func TestModuleListErrors(t *testing.T) {
	for _, text := range []string{"ext4", "[a stage2]\nx", "[a]\nx y", "[a]\nx\n[b stage1]\ny"} {
		if _, err := parseModules([]byte(text)); err == nil {
			t.Errorf("accepted %q", text)
		}
	}
}

func FuzzModules(f *testing.F) {
	f.Add("kernel/a.ko: kernel/b.ko\nkernel/b.ko: kernel/a.ko\n", "softdep a pre: b", "[g]\na\n*")
	f.Fuzz(func(t *testing.T, dep, soft, list string) {
		wanted, err := parseModules([]byte(list))
		if err != nil {
			return
		}
		dir := fstest.MapFS{
			"modules.dep":     {Data: []byte(dep)},
			"modules.builtin": {},
			"modules.softdep": {Data: []byte(soft)},
		}
		_, _ = resolveModules(dir, wanted) // must end and not panic
	})
}
