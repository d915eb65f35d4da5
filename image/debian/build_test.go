package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"cairn/journal"
)

// fakeArchive offers packages built by the test and counts its uses.
type fakeArchive struct {
	index   *index
	debs    map[string]string // sha256 → file
	corrupt bool              // deliver other bytes than the index says
	updates atomic.Int32
}

func (a *fakeArchive) update(context.Context) (*index, error) {
	a.updates.Add(1)
	return a.index, nil
}

func (a *fakeArchive) fetch(_ context.Context, dir string, pkgs []*candidate) error {
	for _, p := range pkgs {
		data, err := os.ReadFile(a.debs[p.SHA256])
		if err != nil {
			return err
		}
		if a.corrupt {
			data = append(data, '\n')
		}
		if err := os.WriteFile(filepath.Join(dir, p.Name+"_"+p.Version+".deb"), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// put builds a package with the given files and offers it.
func (a *fakeArchive) put(t *testing.T, name, version, depends string, files map[string]string) Package {
	t.Helper()
	dir := t.TempDir()
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: T <t@example.org>\nDepends: %s\nDescription: test\n", name, version, depends)
	if depends == "" {
		control = strings.Replace(control, "Depends: \n", "", 1)
	}
	all := map[string]string{"DEBIAN/control": control}
	for f, text := range files {
		all[f] = text
	}
	for f, text := range all {
		file := filepath.Join(dir, "in", f)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, file)
		} else {
			err = os.WriteFile(file, []byte(text), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	deb := filepath.Join(dir, "out.deb")
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-Znone", "--build", filepath.Join(dir, "in"), deb).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
	sum, err := fileSum(deb)
	if err != nil {
		t.Fatal(err)
	}
	p := Package{Name: name, Version: version, Arch: "all", SHA256: sum, Source: name}
	if a.index == nil {
		a.index, a.debs = newIndex(), map[string]string{}
	}
	a.index.add(&candidate{Package: p, depends: parseRelations(depends)})
	a.debs[sum] = deb
	return p
}

// drop removes a package version from the archive.
func (a *fakeArchive) drop(p Package) {
	var left []*candidate
	for _, c := range a.index.byName[p.Name] {
		if c.SHA256 != p.SHA256 {
			left = append(left, c)
		}
	}
	a.index.byName[p.Name] = left
}

// workspace is a list, a lock and an empty cache.
type workspace struct {
	cfg Config
	log *bytes.Buffer
}

func newWorkspace(t *testing.T, list string, lock []Package) workspace {
	t.Helper()
	dir := t.TempDir()
	w := workspace{log: &bytes.Buffer{}}
	w.cfg = Config{
		List: filepath.Join(dir, "packages.list"), Lock: filepath.Join(dir, "packages.lock"),
		Cache: filepath.Join(dir, "cache"), Log: journal.New(w.log, "debian"),
	}
	for file, data := range map[string][]byte{w.cfg.List: []byte(list), w.cfg.Lock: formatLock(otherHeader, lock)} {
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// open is Open with an archive of the test's.
func (w workspace) open(t *testing.T, a archive) (*Tree, error) {
	t.Helper()
	b, err := newBuilder(w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.archive = func(context.Context) (archive, error) {
		if a == nil {
			return nil, errors.New("the archive was asked")
		}
		return a, nil
	}
	return b.open(t.Context())
}

func TestOpenBuildsOnceAndStaysWarm(t *testing.T) {
	a := &fakeArchive{}
	lib := a.put(t, "lib", "1", "", map[string]string{"usr/lib/lib.so.1": "lib", "lib/lib.so": "-> lib.so.1"})
	app := a.put(t, "app", "2", "lib", map[string]string{"bin/app": "app", "usr/share/doc/app": "doc"})
	w := newWorkspace(t, "app", []Package{lib, app})
	tree, err := w.open(t, a)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(tree.Path("/bin/app")); err != nil || string(data) != "app" {
		t.Errorf("/bin/app holds %q, %v", data, err)
	}
	if p, err := tree.Resolve("/lib/lib.so"); err != nil || p != "/usr/lib/lib.so.1" {
		t.Errorf("/lib/lib.so is %q, %v", p, err)
	}
	for path, want := range map[string]string{"/bin/app": "app", "/usr/bin/app": "app", "usr/lib/lib.so": "lib", "/etc/none": ""} {
		if got, ok := tree.Owner(path); got != want || ok != (want != "") {
			t.Errorf("%s belongs to %q, want %q", path, got, want)
		}
	}
	again, err := w.open(t, nil)
	if err != nil || again.Dir != tree.Dir || len(again.Packages) != 2 || len(again.Drifted) != 0 {
		t.Errorf("warm: %+v, %v", again, err)
	}
	// Without the tree, the store alone is enough.
	if err := os.RemoveAll(filepath.Dir(tree.Dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.open(t, nil); err != nil {
		t.Errorf("from the store: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(w.cfg.Cache, "unpack-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOpenTwiceAtOnce(t *testing.T) {
	a := &fakeArchive{}
	w := newWorkspace(t, "app", []Package{a.put(t, "app", "2", "", map[string]string{"usr/bin/app": "app"})})
	w.cfg.Log = journal.Discard()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := w.open(t, a); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := a.updates.Load(); n != 1 {
		t.Errorf("the archive was read %d times, want once", n)
	}
}

func TestDrift(t *testing.T) {
	a := &fakeArchive{}
	old := a.put(t, "app", "1", "", map[string]string{"usr/bin/app": "old"})
	a.put(t, "app", "2", "", map[string]string{"usr/bin/app": "new"})
	a.drop(old)
	w := newWorkspace(t, "app", []Package{old})
	for _, temperature := range []string{"cold", "warm"} {
		w.log.Reset()
		tree, err := w.open(t, a)
		if err != nil {
			t.Fatal(err)
		}
		if len(tree.Drifted) != 1 || tree.Drifted[0] != (Drift{Name: "app", Locked: "1", Got: "2"}) {
			t.Errorf("%s: drifted %v", temperature, tree.Drifted)
		}
		if !strings.Contains(w.log.String(), "WARN debian package-drift") {
			t.Errorf("%s: drift was not said: %s", temperature, w.log)
		}
	}
	w.cfg.Strict = true
	if _, err := w.open(t, a); !errors.Is(err, ErrDrift) {
		t.Errorf("strict, warm: %v, want ErrDrift", err)
	}
	if err := os.RemoveAll(w.cfg.Cache); err != nil {
		t.Fatal(err)
	}
	if _, err := w.open(t, a); !errors.Is(err, ErrDrift) || !strings.Contains(err.Error(), "app") {
		t.Errorf("strict, cold: %v, want ErrDrift naming the package", err)
	}
}

func TestBytesAreVerified(t *testing.T) {
	a := &fakeArchive{}
	app := a.put(t, "app", "1", "", map[string]string{"usr/bin/app": "app"})
	w := newWorkspace(t, "app", []Package{app})
	a.corrupt = true
	if _, err := w.open(t, a); err == nil || !strings.Contains(err.Error(), "do not match sha256") {
		t.Errorf("corrupt download: %v", err)
	}
	a.corrupt = false
	if _, err := w.open(t, a); err != nil {
		t.Fatal(err)
	}
	// Packages that rot in the store, readable for dpkg-deb or not, are fetched anew.
	deb := filepath.Join(w.cfg.Cache, "debs", app.SHA256+".deb")
	good, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"cut": good[:10], "longer": append(good, '\n')} {
		if err := os.WriteFile(deb, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(w.cfg.Cache, "debian-"+treeKeyOf(t, w))); err != nil {
			t.Fatal(err)
		}
		if _, err := w.open(t, a); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func treeKeyOf(t *testing.T, w workspace) string {
	t.Helper()
	b, err := newBuilder(w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b.key
}

func TestRefresh(t *testing.T) {
	a := &fakeArchive{}
	old := a.put(t, "app", "1", "", nil)
	a.put(t, "app", "2", "lib", nil)
	a.put(t, "lib", "1", "", nil)
	w := newWorkspace(t, "app", []Package{old})
	b, err := newBuilder(w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.archive = func(context.Context) (archive, error) { return a, nil }
	pkgs, changes, err := b.refresh(t.Context())
	if err != nil || len(pkgs) != 2 || len(changes) != 2 {
		t.Fatalf("%v, %v, %v", pkgs, changes, err)
	}
	text, err := os.ReadFile(w.cfg.Lock)
	if err != nil || !bytes.Equal(text, formatLock(otherHeader, pkgs)) {
		t.Errorf("lock is\n%s (%v)", text, err)
	}
}

func TestUnpackRefusesEscapes(t *testing.T) {
	a := &fakeArchive{}
	out := filepath.Join(t.TempDir(), "outside")
	a.put(t, "aa", "1", "", map[string]string{"usr/trap": "-> " + filepath.Dir(out)})
	evil := a.put(t, "bb", "1", "", map[string]string{"usr/trap/outside": "escaped"})
	u, err := newUnpacker(filepath.Join(t.TempDir(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	defer u.root.Close()
	for sum, deb := range a.debs {
		if sum != evil.SHA256 {
			if err := u.add(t.Context(), "aa", deb, sum); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := u.add(t.Context(), "bb", a.debs[evil.SHA256], evil.SHA256); err == nil {
		t.Error("a file was written through a link that leaves the tree")
	}
	if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("outside of the tree: %v", err)
	}
}
