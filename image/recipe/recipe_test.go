package recipe

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn/image/rootfs"
	"cairn/init/supervise/catalogue"
)

// dir is a Debian tree of a few files that all belong to package "chrony".
type dir string

func (d dir) Path(p string) string        { return filepath.Join(string(d), p) }
func (d dir) Owner(string) (string, bool) { return "chrony", true }

func debian(t *testing.T, files ...string) dir {
	t.Helper()
	root := t.TempDir()
	for _, f := range append(files, "usr/bin/kmod", "usr/lib/modprobe.d/a.conf") {
		file := filepath.Join(root, f)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(f), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir(root)
}

func inputs(t *testing.T, d dir) Inputs {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "bin")
	if err := os.WriteFile(bin, []byte("bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	return Inputs{
		Debian: d,
		Services: []catalogue.Service{
			{Name: "chronyd", Argv: []string{"/usr/sbin/chronyd"}, Files: []string{"/usr/share/x/*.xml"}},
			{Name: "hostd", Argv: []string{"/usr/lib/cairn/hostd"}},
		},
		Programs: []File{{Path: "usr/lib/cairn/init", Source: bin}},
		Busybox:  bin, Applets: []string{"gosh", "ls"},
		Data:    []Group{{Name: "demo guest", Files: []File{{Path: "usr/share/cairn/guest/vmlinuz", Source: bin}}}},
		Version: "1",
	}
}

func TestRoot(t *testing.T) {
	root, err := Root(inputs(t, debian(t, "usr/sbin/chronyd", "usr/share/x/a.xml", "usr/share/x/b.xml", "usr/sbin/other")))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{
		"usr/sbin/chronyd", "usr/share/x/a.xml", "usr/share/x/b.xml", "usr/bin/kmod", "usr/lib/cairn/init",
		"usr/bin/ls", "usr/share/cairn/guest/vmlinuz", "usr/share/cairn/etc/passwd", "state", "logs", "bin",
	} {
		if root.Lookup(p) == nil {
			t.Errorf("no %s in the image", p)
		}
	}
	if root.Lookup("usr/sbin/other") != nil {
		t.Error("a program that nothing names is in the image")
	}
	if c := root.Lookup("usr/sbin/chronyd").Component; c != "chrony" {
		t.Errorf("chronyd counts for %q", c)
	}
}

func TestRootNamesWhatIsMissing(t *testing.T) {
	for name, files := range map[string][]string{
		"chronyd":            {"usr/share/x/a.xml"},
		"/usr/share/x/*.xml": {"usr/sbin/chronyd"},
	} {
		if _, err := Root(inputs(t, debian(t, files...))); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v does not name %s", err, name)
		}
	}
}

// lines returns the fields of a colon-separated file of the skeleton.
func lines(t *testing.T, root *rootfs.Tree, name string) map[string][]string {
	t.Helper()
	e := root.Lookup(skeletonDir + "/" + name)
	if e == nil {
		t.Fatalf("no %s", name)
	}
	out := map[string][]string{}
	for _, l := range strings.Split(strings.TrimSpace(string(e.Data)), "\n") {
		f := strings.Split(l, ":")
		out[f[0]] = f
	}
	return out
}

func TestAccounts(t *testing.T) {
	root, err := Root(inputs(t, debian(t, "usr/sbin/chronyd", "usr/share/x/a.xml")))
	if err != nil {
		t.Fatal(err)
	}
	passwd, group := lines(t, root, "passwd"), lines(t, root, "group")
	gids := map[string]bool{}
	for _, g := range group {
		gids[g[2]] = true
	}
	for name, u := range passwd {
		if len(u) != 7 || !gids[u[3]] {
			t.Errorf("user %s: %v is malformed or has no group", name, u)
		}
	}
	for _, s := range catalogue.All() {
		owners := []catalogue.Owner{s.Owner}
		for _, d := range s.Dirs {
			owners = append(owners, d.Owner)
		}
		for _, l := range s.Sockets {
			owners = append(owners, l.Owner)
		}
		for _, o := range owners {
			if o.User != "" && passwd[o.User] == nil || o.Group != "" && group[o.Group] == nil {
				t.Errorf("service %s: no user %q or group %q in the image", s.Name, o.User, o.Group)
			}
		}
	}
	for name, id := range map[string]string{"root": "0", "cairn": "990", "libvirt-qemu": "64055", "_chrony": "101"} {
		if passwd[name] == nil || passwd[name][2] != id {
			t.Errorf("user %s is %v, want id %s", name, passwd[name], id)
		}
	}
}

func TestOSRelease(t *testing.T) {
	got := string(OSRelease("cairn", "1.2.3"))
	for _, want := range []string{"ID=cairn\n", "VERSION_ID=1.2.3\n", "IMAGE_VERSION=1.2.3\n", "PRETTY_NAME=\"Cairn 1.2.3\"\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q has no %q", got, want)
		}
	}
}
