// Package closure finds what a set of ELF programs needs at run time inside one
// unpacked tree: the program interpreter and every DT_NEEDED library, the way
// ld.so would find them there (RPATH and RUNPATH first, then Debian's default
// directories).
//
// Paths are relative to the tree, slash separated, without a leading slash, and
// with usr-merged directories spelled out ("usr/bin/x", never "bin/x"). A
// library that cannot be found is an error that names both sides: an image with
// a hole must not be built. A Resolver caches what it reads and is not safe for
// concurrent use.
package closure

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
)

// DefaultDirs are the directories Debian's ld.so searches without a cache.
var DefaultDirs = []string{"usr/lib/x86_64-linux-gnu", "usr/lib"}

// maxLinks bounds a chain of symbolic links, as the kernel does.
const maxLinks = 40

// Files is the tree to resolve in.
type Files interface {
	// Readlink returns the target of a symbolic link, "" for anything else that
	// is there, and fs.ErrNotExist for what is not.
	Readlink(p string) (string, error)
	Open(p string) (Content, error)
}

// Content is an open file.
type Content interface {
	io.ReaderAt
	io.Closer
}

// Dir is a tree unpacked in a directory of the machine.
type Dir string

// Readlink implements Files.
func (d Dir) Readlink(p string) (string, error) {
	file := filepath.Join(string(d), p)
	fi, err := os.Lstat(file)
	if err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		return "", err
	}
	return os.Readlink(file)
}

// Open implements Files.
func (d Dir) Open(p string) (Content, error) { return os.Open(filepath.Join(string(d), p)) }

// Resolver answers questions about one tree.
type Resolver struct {
	files Files
	infos map[string]*Info
}

// New returns a Resolver for a tree.
func New(files Files) *Resolver {
	return &Resolver{files: files, infos: map[string]*Info{}}
}

// Info is the part of an ELF file the dynamic linker acts on.
type Info struct {
	Interp   string   // program interpreter, empty for libraries and static programs
	Needed   []string // DT_NEEDED in file order
	RunPaths []string // DT_RPATH and DT_RUNPATH entries, unexpanded
}

// Closure returns paths and everything they need, symbolic links on the way
// included, sorted. Files that are not ELF (scripts, data) need nothing.
func (r *Resolver) Closure(paths ...string) ([]string, error) {
	seen := map[string]bool{}
	queue := append([]string(nil), paths...)
	for len(queue) > 0 {
		p := Clean(queue[0])
		queue = queue[1:]
		if seen[p] {
			continue
		}
		next, err := r.visit(p, seen)
		if err != nil {
			return nil, err
		}
		queue = append(queue, next...)
	}
	out := make([]string, 0, len(seen))
	for p := range seen {
		out = append(out, p)
	}
	sort.Strings(out)
	return out, nil
}

// visit records p and the links it goes through and returns what it needs.
func (r *Resolver) visit(p string, seen map[string]bool) ([]string, error) {
	chain, err := r.Chain(p)
	if err != nil {
		return nil, err
	}
	for _, c := range chain {
		seen[c] = true
	}
	file := chain[len(chain)-1]
	info, err := r.Info(file)
	if err != nil || info == nil {
		return nil, err
	}
	var next []string
	if info.Interp != "" {
		next = append(next, Clean(info.Interp))
	}
	for _, lib := range info.Needed {
		found, err := r.find(file, lib, info.RunPaths)
		if err != nil {
			return nil, err
		}
		next = append(next, found)
	}
	return next, nil
}

// Info reads the dynamic section of the regular file p, or returns nil when it
// is not an ELF file.
func (r *Resolver) Info(p string) (*Info, error) {
	if i, ok := r.infos[p]; ok {
		return i, nil
	}
	f, err := r.files.Open(p)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", p, err)
	}
	defer f.Close()
	i, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", p, err)
	}
	r.infos[p] = i
	return i, nil
}

// read reads the dynamic section of a file, nil when it is not ELF.
func read(f io.ReaderAt) (*Info, error) {
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil || string(magic[:]) != elf.ELFMAG {
		return nil, nil // too short or another format: not ELF
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return nil, err
	}
	return dynamic(e)
}

func dynamic(e *elf.File) (*Info, error) {
	var i Info
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return nil, fmt.Errorf("interpreter: %w", err)
			}
			i.Interp = strings.TrimRight(string(b), "\x00")
		}
	}
	var err error
	if i.Needed, err = e.DynString(elf.DT_NEEDED); err != nil {
		return nil, fmt.Errorf("needed libraries: %w", err)
	}
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		paths, err := e.DynString(tag)
		if err != nil {
			return nil, fmt.Errorf("library path: %w", err)
		}
		for _, p := range paths {
			i.RunPaths = append(i.RunPaths, strings.Split(p, ":")...)
		}
	}
	return &i, nil
}

// find returns where the library named lib is for the file that needs it.
func (r *Resolver) find(file, lib string, runPaths []string) (string, error) {
	if strings.Contains(lib, "/") {
		return Clean(lib), nil
	}
	for _, dir := range r.searchDirs(file, runPaths) {
		p := path.Join(dir, lib)
		if _, err := r.Chain(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s needs %s, which is not in the tree", file, lib)
}

func (r *Resolver) searchDirs(file string, runPaths []string) []string {
	var dirs []string
	for _, p := range runPaths {
		p = strings.NewReplacer("$ORIGIN", path.Dir(file), "${ORIGIN}", path.Dir(file)).Replace(p)
		dirs = append(dirs, Clean(p))
	}
	return append(dirs, DefaultDirs...)
}

// Chain returns p and every path it leads to through symbolic links in its last
// component; the last element is not a link.
func (r *Resolver) Chain(p string) ([]string, error) {
	p = Clean(p)
	chain := []string{p}
	for range maxLinks {
		target, err := r.files.Readlink(p)
		if err != nil {
			return nil, notInTree(p, err)
		}
		if target == "" {
			return chain, nil
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(p), target)
		}
		p = Clean(target)
		chain = append(chain, p)
	}
	return nil, fmt.Errorf("%s: more than %d symbolic links", chain[0], maxLinks)
}

func notInTree(p string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not in the tree: %w", p, fs.ErrNotExist)
	}
	return fmt.Errorf("stat %s: %w", p, err)
}

// merged maps the directories that are links in a usr-merged system.
var merged = map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}

// Clean spells p the one way this package knows: no leading slash, no dot
// elements, usr-merged.
func Clean(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	first, rest, _ := strings.Cut(p, "/")
	if m, ok := merged[first]; ok {
		return path.Join(m, rest)
	}
	return p
}
