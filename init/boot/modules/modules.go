// Package modules loads kernel modules by what the hardware calls itself. It
// reads the indexes depmod writes, modules.dep, modules.alias and
// modules.softdep, and hands files to the kernel, which unpacks compressed ones
// itself.
//
// A module is given to the kernel once; what it needs goes first. A Tree may be
// used by several goroutines: most of the time a module takes is the kernel's
// check of its signature, which runs well in parallel.
package modules

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrUnknown tells that the tree holds no such module.
var ErrUnknown = errors.New("no such module")

// A Loader gives one module file, by its path below the tree, to the kernel.
type Loader func(path string) error

// Tree is one directory of modules with its indexes.
type Tree struct {
	load    Loader
	fsys    fs.FS
	deps    map[string][]string // file → files it needs, nearest first
	files   map[string]string   // module name → file
	soft    map[string][]string // module name → names or aliases to try first
	aliases index

	mu   sync.Mutex
	asks map[string]*ask
}

// ask is the one request to load a file.
type ask struct {
	once sync.Once
	err  error
}

// Open reads the indexes of the tree at the root of fsys.
func Open(fsys fs.FS, load Loader) (*Tree, error) {
	t := &Tree{
		load: load, fsys: fsys, deps: map[string][]string{}, files: map[string]string{},
		soft: map[string][]string{}, asks: map[string]*ask{},
	}
	dep, err := fs.ReadFile(fsys, "modules.dep")
	if err != nil {
		return nil, fmt.Errorf("kernel modules: %w", err)
	}
	alias, err := fs.ReadFile(fsys, "modules.alias")
	if err != nil {
		return nil, fmt.Errorf("kernel modules: %w", err)
	}
	t.parseDeps(string(dep))
	t.aliases.parse(string(alias))
	if text, err := fs.ReadFile(fsys, "modules.softdep"); err == nil {
		t.parseSoft(string(text))
	}
	return t, nil
}

func (t *Tree) parseDeps(text string) {
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
func (t *Tree) parseSoft(text string) {
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

// Buses lists the first words of all device patterns: devices of other buses
// need not be looked at.
func (t *Tree) Buses() []string { return t.aliases.buses() }

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
	if t.builtin(name) {
		return nil
	}
	return fmt.Errorf("kernel module %s: %w", name, ErrUnknown)
}

// builtin tells whether the kernel has the module inside. It is rarely asked,
// so the list is read when it is.
func (t *Tree) builtin(name string) bool {
	text, err := fs.ReadFile(t.fsys, "modules.builtin")
	if err != nil {
		return false
	}
	for line := range lines(string(text)) {
		if moduleName(line) == name {
			return true
		}
	}
	return false
}

// LoadFile loads a module file and what it needs. Asking again answers what
// was answered the first time.
func (t *Tree) LoadFile(file string) error {
	for _, need := range t.order(file) {
		err := t.once(need)
		if err != nil && need == file {
			return fmt.Errorf("kernel module %w", err)
		}
		if err != nil && slices.Contains(t.deps[file], need) {
			return fmt.Errorf("kernel module %s: needs %w", moduleName(file), err)
		}
	}
	return nil
}

// Loaded tells whether the kernel was asked to load the file already.
func (t *Tree) Loaded(file string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.asks[file] != nil
}

// order lists all files to load for one file, each behind what it needs or
// would rather have there before itself, such as the checksum it asks the
// kernel's crypto for by name: there is no program the kernel could call to
// load that. The list is flat so that parallel loads cannot wait in a circle.
func (t *Tree) order(file string) []string {
	var list []string
	seen := map[string]bool{}
	var visit func(file string)
	visit = func(file string) {
		if seen[file] {
			return
		}
		seen[file] = true
		deps := t.deps[file]
		for i := len(deps) - 1; i >= 0; i-- { // depmod puts the deepest last
			visit(deps[i])
		}
		for _, want := range t.soft[moduleName(file)] {
			for _, f := range t.named(want) {
				visit(f)
			}
		}
		list = append(list, file)
	}
	visit(file)
	return list
}

// named lists the files of a module name or of an alias.
func (t *Tree) named(name string) []string {
	if file, ok := t.files[moduleName(name)]; ok {
		return []string{file}
	}
	return t.Match(name)
}

func (t *Tree) once(file string) error {
	t.mu.Lock()
	a := t.asks[file]
	if a == nil {
		a = &ask{}
		t.asks[file] = a
	}
	t.mu.Unlock()
	a.once.Do(func() {
		if err := t.load(file); err != nil && !errors.Is(err, unix.EEXIST) {
			a.err = fmt.Errorf("%s: %w", moduleName(file), err)
		}
	})
	return a.err
}

// moduleName is what the kernel calls the module in the file: no directory, no
// suffix, underscores for dashes.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// lines yields the lines of an index, without comments and empty ones.
func lines(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for line := range strings.SplitSeq(text, "\n") {
			line = strings.TrimSpace(line)
			if line != "" && line[0] != '#' && !yield(line) {
				return
			}
		}
	}
}
