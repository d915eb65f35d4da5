// Package rootfs holds a file system tree as a list of entries in memory and
// writes it as a tar stream for mkfs.erofs. No staging directory exists, so
// owner, mode and time of every file are what the list says, whoever builds and
// on whatever file system.
//
// Paths are relative, clean and unique; the stream is sorted and carries one
// fixed time, so that equal trees are equal bytes. A Tree is built by one
// goroutine; after that any number may read it.
package rootfs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
)

// Entry is one file, directory or symbolic link.
type Entry struct {
	Path string
	// Mode is the type and the permission bits: fs.ModeDir, fs.ModeSymlink or
	// a regular file. Set-user-ID files do not exist in the image.
	Mode     fs.FileMode
	UID, GID int
	// A regular file's content is Data, or the file Source of the machine.
	Source string
	Data   []byte
	Size   int64
	Target string // of a symbolic link
	// Component names the line of the size table the entry counts for.
	Component string
}

// Tree is a file system under construction.
type Tree struct {
	entries map[string]*Entry
}

// New returns a tree that holds only its root directory.
func New() *Tree {
	return &Tree{entries: map[string]*Entry{}}
}

// Dir adds a directory and, with mode 0755, the missing ones above it. A
// directory that is already there gets the mode.
func (t *Tree) Dir(p string, mode fs.FileMode) error {
	if e := t.entries[p]; e != nil {
		if !e.Mode.IsDir() {
			return fmt.Errorf("%s: is no directory", p)
		}
		e.Mode = fs.ModeDir | mode
		return nil
	}
	return t.add(&Entry{Path: p, Mode: fs.ModeDir | mode})
}

// Link adds a symbolic link.
func (t *Tree) Link(p, target, component string) error {
	return t.add(&Entry{Path: p, Mode: fs.ModeSymlink | 0o777, Target: target, Component: component})
}

// Data adds a regular file with the given content.
func (t *Tree) Data(p string, data []byte, mode fs.FileMode, component string) error {
	return t.add(&Entry{Path: p, Mode: mode, Data: data, Size: int64(len(data)), Component: component})
}

// File adds a regular file whose content is the machine's file source.
func (t *Tree) File(p, source string, mode fs.FileMode, component string) error {
	fi, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s: %s is not a regular file", p, source)
	}
	return t.add(&Entry{Path: p, Mode: mode, Source: source, Size: fi.Size(), Component: component})
}

// Copy adds base's entry p as it is: link, directory or file. Permissions are
// reduced to 0755 or 0644 by whether the owner may execute it, so that the
// umask of whoever unpacked base has no say.
func (t *Tree) Copy(base, p, component string) error {
	source := filepath.Join(base, p)
	fi, err := os.Lstat(source)
	if err != nil {
		return fmt.Errorf("copy %s: %w", p, err)
	}
	switch {
	case fi.IsDir():
		return t.Dir(p, 0o755)
	case fi.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(source)
		if err != nil {
			return fmt.Errorf("copy %s: %w", p, err)
		}
		return t.Link(p, target, component)
	case fi.Mode()&0o100 != 0:
		return t.File(p, source, 0o755, component)
	default:
		return t.File(p, source, 0o644, component)
	}
}

// add puts e in and completes the directories above it. Adding the same thing
// twice is fine (closures overlap); adding another thing is an error.
func (t *Tree) add(e *Entry) error {
	if e.Path == "" || e.Path == "." || path.Clean(e.Path) != e.Path || path.IsAbs(e.Path) || strings.HasPrefix(e.Path, "../") {
		return fmt.Errorf("path %q is not clean and relative", e.Path)
	}
	if old := t.entries[e.Path]; old != nil {
		if same(old, e) {
			return nil
		}
		return fmt.Errorf("%s: added twice with different content", e.Path)
	}
	if dir := path.Dir(e.Path); dir != "." {
		if up := t.entries[dir]; up == nil {
			if err := t.add(&Entry{Path: dir, Mode: fs.ModeDir | 0o755}); err != nil {
				return err
			}
		} else if !up.Mode.IsDir() {
			return fmt.Errorf("%s: %s is no directory", e.Path, dir)
		}
	}
	t.entries[e.Path] = e
	return nil
}

func same(a, b *Entry) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Source == b.Source &&
		string(a.Data) == string(b.Data) && a.Target == b.Target
}

// Lookup returns the entry at p, nil when there is none. Links are not followed.
func (t *Tree) Lookup(p string) *Entry { return t.entries[p] }

// Entries returns all entries sorted by path, parents before children.
func (t *Tree) Entries() []*Entry {
	out := make([]*Entry, 0, len(t.entries))
	for _, e := range t.entries {
		out = append(out, e)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out
}

// Sizes returns the bytes of regular files by component.
func (t *Tree) Sizes() map[string]int64 {
	m := map[string]int64{}
	for _, e := range t.entries {
		if e.Mode.IsRegular() {
			m[e.Component] += e.Size
		}
	}
	return m
}

// Digest is a hash of everything WriteTar would write.
func (t *Tree) Digest() (string, error) {
	h := sha256.New()
	if err := t.WriteTar(h); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
