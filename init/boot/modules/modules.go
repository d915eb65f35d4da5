// Package modules loads kernel modules by what the hardware calls itself. It
// reads the indexes depmod writes, modules.dep and modules.alias, and hands
// files to the kernel, which unpacks compressed ones itself.
//
// A module is given to the kernel once; dependencies go first. A Tree is not
// safe for concurrent use.
package modules

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnknown tells that the tree holds no such module.
var ErrUnknown = errors.New("no such module")

// A Loader gives one module file, by its path below the tree, to the kernel.
type Loader func(path string) error

// Tree is one directory of modules with its indexes.
type Tree struct {
	load    Loader
	deps    map[string][]string // file → files it needs, nearest first
	files   map[string]string   // module name → file
	soft    map[string][]string // module name → names or aliases to try first
	builtin map[string]bool     // module names the kernel has inside
	aliases index
	done    map[string]error // files the kernel was asked to load
}

// Open reads the indexes of the tree at the root of fsys.
func Open(fsys fs.FS, load Loader) (*Tree, error) {
	t := &Tree{
		load: load, deps: map[string][]string{}, files: map[string]string{},
		soft: map[string][]string{}, builtin: map[string]bool{}, done: map[string]error{},
	}
	dep, err := fs.ReadFile(fsys, "modules.dep")
	if err != nil {
		return nil, fmt.Errorf("kernel modules: %w", err)
	}
	alias, err := fs.ReadFile(fsys, "modules.alias")
	if err != nil {
		return nil, fmt.Errorf("kernel modules: %w", err)
	}
	t.parseDeps(dep)
	t.aliases.parse(alias)
	if text, err := fs.ReadFile(fsys, "modules.softdep"); err == nil {
		t.parseSoft(text)
	}
	// modules.builtin is a courtesy: it only turns "unknown" into "nothing to do".
	if text, err := fs.ReadFile(fsys, "modules.builtin"); err == nil {
		for line := range lines(text) {
			t.builtin[moduleName(line)] = true
		}
	}
	return t, nil
}

func (t *Tree) parseDeps(text []byte) {
	for line := range lines(text) {
		file, deps, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		t.deps[file] = strings.Fields(deps)
		t.files[moduleName(file)] = file
	}
}

// parseSoft reads "softdep name pre: a b post: c"; what should come after a
// module is of no use before there is a root.
func (t *Tree) parseSoft(text []byte) {
	for line := range lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "softdep" {
			continue
		}
		for _, word := range f[2:] {
			if word == "post:" {
				break
			}
			if word != "pre:" {
				t.soft[moduleName(f[1])] = append(t.soft[moduleName(f[1])], word)
			}
		}
	}
}

// Match lists the files of the modules that claim the device.
func (t *Tree) Match(modalias string) []string {
	var files []string
	for _, name := range t.aliases.match(modalias) {
		if file, ok := t.files[name]; ok {
			files = append(files, file)
		}
	}
	return files
}

// LoadName loads a module by its name and says so when there is none.
func (t *Tree) LoadName(name string) error {
	name = moduleName(name)
	if file, ok := t.files[name]; ok {
		return t.LoadFile(file)
	}
	if t.builtin[name] {
		return nil
	}
	return fmt.Errorf("kernel module %s: %w", name, ErrUnknown)
}

// LoadFile loads a module file and what it needs. Asking again answers what
// was answered the first time.
func (t *Tree) LoadFile(file string) error {
	deps := t.deps[file]
	// depmod lists all that is needed, the deepest last.
	for i := len(deps) - 1; i >= 0; i-- {
		if err := t.once(deps[i]); err != nil {
			return fmt.Errorf("kernel module %s: needs %w", moduleName(file), err)
		}
	}
	return t.once(file)
}

// Loaded tells whether the file was given to the kernel already.
func (t *Tree) Loaded(file string) bool {
	_, ok := t.done[file]
	return ok
}

func (t *Tree) once(file string) error {
	if err, ok := t.done[file]; ok {
		return err
	}
	t.done[file] = nil // what it wants first may want it in turn
	t.loadSoft(moduleName(file))
	err := t.load(file)
	if errors.Is(err, unix.EEXIST) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", moduleName(file), err)
	}
	t.done[file] = err
	return err
}

// loadSoft loads what a module would rather have there before itself, such as
// the checksum it asks the kernel's crypto for by name. There is no program
// the kernel could call to load it then. Failures are the module's to notice.
func (t *Tree) loadSoft(name string) {
	for _, want := range t.soft[name] {
		files := t.Match(want)
		if file, ok := t.files[moduleName(want)]; ok {
			files = []string{file}
		}
		for _, file := range files {
			_ = t.LoadFile(file)
		}
	}
}

// moduleName is what the kernel calls the module in the file: no directory, no
// suffix, underscores for dashes.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// lines yields the lines of an index, without comments and empty ones.
func lines(text []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		s := bufio.NewScanner(bytes.NewReader(text))
		for s.Scan() {
			line := strings.TrimSpace(s.Text())
			if line != "" && line[0] != '#' && !yield(line) {
				return
			}
		}
	}
}
