package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// format is part of a tree's key: raise it when unpacking changes.
const format = "cairn-tree-1"

// Config says which tree to open. The zero value of a field means its default.
type Config struct {
	List   string       // path of packages.list; default: image/packages.list of the module
	Lock   string       // path of packages.lock; default: beside List
	Cache  string       // default: $XDG_CACHE_HOME/cairn, else ~/.cache/cairn
	Strict bool         // drift is an error; default: LOCK=strict in the environment
	Log    *slog.Logger // default: slog.Default

	header string // of the lock
}

// A Tree is an unpacked set of packages. It is never written to.
type Tree struct {
	Dir      string // the root directory of the tree
	Key      string // names list, lock and format
	Packages []Package
	Drifted  []Drift

	owners func() (map[string]string, error)
}

// record is what tree.json keeps of a tree.
type record struct {
	Key      string
	Packages []Package
	Drifted  []Drift `json:",omitempty"`
}

// ErrDrift is returned under Strict when the mirror no longer has what the lock
// says.
var ErrDrift = errors.New("packages drifted from the lock")

// Open returns the tree for a list and its lock, building it if it is not in
// the cache. A warm open reads three small files and runs nothing.
func Open(ctx context.Context, cfg Config) (*Tree, error) {
	b, err := newBuilder(cfg)
	if err != nil {
		return nil, err
	}
	return b.open(ctx)
}

// Refresh rewrites the lock with the newest versions the archive has, and says
// how they differ from the old lock.
func Refresh(ctx context.Context, cfg Config) ([]Package, []Drift, error) {
	b, err := newBuilder(cfg)
	if err != nil {
		return nil, nil, err
	}
	return b.refresh(ctx)
}

// withDefaults completes a configuration.
func (c Config) withDefaults() (Config, error) {
	c.header = otherHeader
	if c.List == "" {
		root, err := moduleRoot()
		if err != nil {
			return c, err
		}
		c.List = filepath.Join(root, "image", "packages.list")
		c.header = treeHeader
	}
	if c.Lock == "" {
		c.Lock = strings.TrimSuffix(c.List, ".list") + ".lock"
	}
	if c.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return c, fmt.Errorf("cache: %w", err)
		}
		c.Cache = filepath.Join(dir, "cairn")
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.Strict = c.Strict || os.Getenv("LOCK") == "strict"
	return c, nil
}

// moduleRoot finds the directory of go.mod at or above the working directory.
func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod at or above %s", start)
		}
	}
}

// treeKey names a tree by everything that decides its content.
func treeKey(list, lock []byte) string {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(format), list, lock} {
		fmt.Fprintf(h, "%d\n%s\n", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// openRecord loads a complete tree from its holder directory.
func openRecord(holder string) (*Tree, error) {
	file := filepath.Join(holder, "tree.json")
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	now := time.Now()
	_ = os.Chtimes(file, now, now) // only tells prune that the tree is in use
	return &Tree{
		Dir: filepath.Join(holder, "root"), Key: rec.Key, Packages: rec.Packages, Drifted: rec.Drifted,
		owners: sync.OnceValues(func() (map[string]string, error) { return readOwners(filepath.Join(holder, "owners")) }),
	}, nil
}

// NewTree describes an unpacked tree that is known otherwise than from the
// cache: its root, its packages and which of them owns each path.
func NewTree(dir string, packages []Package, owners map[string]string) *Tree {
	return &Tree{Dir: dir, Packages: packages, owners: func() (map[string]string, error) { return owners, nil }}
}

// Path returns the place of an absolute path of the tree on this machine.
func (t *Tree) Path(p string) string { return filepath.Join(t.Dir, cleanPath(p)) }

// Owner names the package a file, given by its absolute or relative path in the
// tree, came from.
func (t *Tree) Owner(path string) (pkg string, ok bool) {
	owners, err := t.owners()
	if err != nil {
		return "", false
	}
	pkg, ok = owners[cleanPath(path)]
	return pkg, ok
}

// Package finds a package by name.
func (t *Tree) Package(name string) (Package, bool) {
	for _, p := range t.Packages {
		if p.Name == name {
			return p, true
		}
	}
	return Package{}, false
}

// readOwners reads "path<TAB>package" lines.
func readOwners(file string) (map[string]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	owners := make(map[string]string, strings.Count(string(data), "\n"))
	for line := range strings.Lines(string(data)) {
		path, pkg, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		owners[path] = pkg
	}
	return owners, nil
}
