package debian

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// keepUnused is how long a tree that nobody opened stays in the cache. Each is
// above a gigabyte.
const keepUnused = 14 * 24 * time.Hour

// An archive is where packages come from; apt in production, a fake in tests.
type archive interface {
	update(ctx context.Context) (*index, error)
	fetch(ctx context.Context, dir string, pkgs []*candidate) error
}

// A builder makes the tree of one configuration.
type builder struct {
	Config
	list    List
	locked  []Package
	key     string
	store   store
	archive func(ctx context.Context) (archive, error)
}

func newBuilder(cfg Config) (*builder, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	listText, err := os.ReadFile(cfg.List)
	if err != nil {
		return nil, fmt.Errorf("package list: %w", err)
	}
	lockText, err := os.ReadFile(cfg.Lock)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("package lock: %w", err)
	}
	b := &builder{Config: cfg, key: treeKey(listText, lockText), store: store{filepath.Join(cfg.Cache, "debs")}}
	if b.list, err = ParseList(listText); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.List, err)
	}
	if b.locked, err = ParseLock(lockText); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Lock, err)
	}
	b.archive = b.apt
	return b, nil
}

// apt is the archive in production.
func (b *builder) apt(ctx context.Context) (archive, error) {
	m, err := findMirrors(os.Getenv("CAIRN_MIRROR"), "/etc/apt", "/usr/bin/mmdebstrap")
	if err != nil {
		return nil, err
	}
	return newApt(ctx, filepath.Join(b.Cache, "apt-"+release), m, b.Log)
}

func (b *builder) open(ctx context.Context) (*Tree, error) {
	t, err := b.warm()
	if errors.Is(err, fs.ErrNotExist) {
		t, err = b.build(ctx)
	}
	if err != nil {
		return nil, err
	}
	return t, b.report(t)
}

func (b *builder) holder() string { return filepath.Join(b.Cache, "debian-"+b.key) }

func (b *builder) warm() (*Tree, error) { return openRecord(b.holder()) }

// report says each drift and, under Strict, refuses the tree.
func (b *builder) report(t *Tree) error {
	for _, d := range t.Drifted {
		b.Log.Warn("package-drift", "detail", d.String())
	}
	if b.Strict && len(t.Drifted) > 0 {
		return fmt.Errorf("%d packages, first %s: %w", len(t.Drifted), t.Drifted[0], ErrDrift)
	}
	return nil
}

// build makes the tree unless another process did so while this one waited.
func (b *builder) build(ctx context.Context) (*Tree, error) {
	unlock, err := b.lockCache()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if t, err := b.warm(); !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	start := time.Now()
	err = b.assemble(ctx)
	if errors.Is(err, errDamaged) {
		b.Log.Warn("store-damaged", "err", err)
		err = b.assemble(ctx) // what was damaged is gone: fetch it anew
	}
	if err != nil {
		return nil, err
	}
	b.prune()
	b.Log.Info("tree-complete", "dir", b.holder(), "took", time.Since(start).Round(time.Second))
	return b.warm()
}

// assemble does the work of build.
func (b *builder) assemble(ctx context.Context) error {
	pkgs, drifted, err := b.resolve(ctx, b.locked)
	if err != nil {
		return err
	}
	if b.Strict && len(drifted) > 0 {
		return b.report(&Tree{Drifted: drifted})
	}
	if err := b.download(ctx, pkgs); err != nil {
		return err
	}
	return b.unpack(ctx, pkgs, drifted)
}

func (b *builder) refresh(ctx context.Context) ([]Package, []Drift, error) {
	unlock, err := b.lockCache()
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	found, _, err := b.resolve(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	pkgs := packagesOf(found)
	tmp := b.Lock + ".new"
	if err := os.WriteFile(tmp, formatLock(b.header, pkgs), 0o644); err != nil {
		return nil, nil, err
	}
	return pkgs, drift(b.locked, found), os.Rename(tmp, b.Lock)
}

// lockCache serialises all processes that change the cache.
func (b *builder) lockCache() (unlock func(), err error) {
	if err := os.MkdirAll(b.store.dir, 0o755); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(b.Cache, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	fd := int(f.Fd())
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		b.Log.Info("waiting", "for", "another build in "+b.Cache)
		if err := flock(fd); err != nil {
			f.Close()
			return nil, fmt.Errorf("cache lock: %w", err)
		}
	}
	return func() { f.Close() }, nil
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// resolve needs no archive at all where the store holds every locked package.
func (b *builder) resolve(ctx context.Context, locked []Package) ([]*candidate, []Drift, error) {
	kept := map[string]*candidate{}
	for _, p := range locked {
		if c := b.store.candidate(ctx, p); c != nil {
			kept[p.SHA256] = c
		}
	}
	x := newIndex()
	if len(kept) < len(locked) || !b.covers(locked) {
		a, err := b.archive(ctx)
		if err != nil {
			return nil, nil, err
		}
		if x, err = a.update(ctx); err != nil {
			return nil, nil, err
		}
	}
	return resolve(x, b.list, locked, func(p Package) *candidate { return kept[p.SHA256] })
}

// covers reports whether the lock knows every wanted package.
func (b *builder) covers(locked []Package) bool {
	names := map[string]bool{}
	for _, p := range locked {
		names[p.Name] = true
	}
	return !slices.ContainsFunc(b.list.Want, func(n string) bool { return !names[n] })
}

// download brings every package into the store.
func (b *builder) download(ctx context.Context, pkgs []*candidate) error {
	dir := filepath.Join(b.store.dir, "partial")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	missing, err := b.store.adopt(dir, pkgs)
	if err != nil || len(missing) == 0 {
		return err
	}
	a, err := b.archive(ctx)
	if err != nil {
		return err
	}
	b.Log.Info("fetch-start", "packages", len(missing))
	ferr := a.fetch(ctx, dir, missing)
	missing, err = b.store.adopt(dir, missing) // keep what did arrive
	if err := errors.Join(ferr, err); err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("package %s %s: the mirror's bytes do not match sha256 %s", missing[0].Name, missing[0].Version, missing[0].SHA256)
	}
	return nil
}

// unpack extracts everything beside the final place and renames it there.
func (b *builder) unpack(ctx context.Context, pkgs []*candidate, drifted []Drift) error {
	tmp, err := os.MkdirTemp(b.Cache, "unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	b.Log.Info("unpack-start", "packages", len(pkgs))
	u, err := newUnpacker(filepath.Join(tmp, "root"))
	if err != nil {
		return err
	}
	defer u.root.Close()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, p := range pkgs {
		g.Go(func() error {
			err := u.add(gctx, p.Name, b.store.path(p.SHA256), p.SHA256)
			if errors.Is(err, errDamaged) {
				err = errors.Join(err, os.Remove(b.store.path(p.SHA256)))
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := indexModules(ctx, filepath.Join(tmp, "root")); err != nil {
		return err
	}
	if err := writeRecord(tmp, record{Key: b.key, Packages: packagesOf(pkgs), Drifted: drifted}, u.owners); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	return os.Rename(tmp, b.holder())
}

// indexModules writes modules.dep and its kin, which the kernel package leaves
// to its maintainer script.
func indexModules(ctx context.Context, root string) error {
	kernels, err := filepath.Glob(filepath.Join(root, "usr/lib/modules", "*", "modules.order"))
	if err != nil {
		return err
	}
	for _, k := range kernels {
		version := filepath.Base(filepath.Dir(k))
		t := &Tree{Dir: root}
		out, err := t.Command(ctx, "depmod", "-b", root, version).CombinedOutput()
		if err != nil {
			return fmt.Errorf("depmod %s: %w: %s", version, err, lastLines(out))
		}
	}
	return nil
}

func writeRecord(dir string, rec record, owners map[string]string) error {
	data, err := json.MarshalIndent(rec, "", " ")
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, p := range slices.Sorted(maps.Keys(owners)) {
		fmt.Fprintf(&b, "%s\t%s\n", p, owners[p])
	}
	if err := os.WriteFile(filepath.Join(dir, "owners"), []byte(b.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "tree.json"), data, 0o644)
}

func packagesOf(cs []*candidate) []Package {
	pkgs := make([]Package, 0, len(cs))
	for _, c := range cs {
		pkgs = append(pkgs, c.Package)
	}
	return pkgs
}

// prune removes what crashed builds left and trees nobody opened for long.
// Failure to remove costs only space, so it is not an error.
func (b *builder) prune() {
	left, _ := filepath.Glob(filepath.Join(b.Cache, "unpack-*"))
	for _, dir := range left {
		_ = os.RemoveAll(dir)
	}
	records, _ := filepath.Glob(filepath.Join(b.Cache, "debian-*", "tree.json"))
	for _, r := range records {
		if info, err := os.Stat(r); err == nil && time.Since(info.ModTime()) > keepUnused {
			_ = os.Remove(r)
			_ = os.RemoveAll(filepath.Dir(r))
		}
	}
}
