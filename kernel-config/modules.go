package kernelconfig

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed modules.list
var modulesList []byte

// A Tree maps an absolute path of the Debian tree to its place on this machine.
type Tree interface {
	Path(string) string
}

// A Module is one kernel module file of the image.
type Module struct {
	Name string // with underscores, as the kernel spells it
	Path string // below the kernel's module directory, e.g. kernel/fs/erofs/erofs.ko.xz
	Size int64  // bytes on disk
}

// A ModuleGroup is one section of modules.list, resolved: the modules it names
// and those they depend on, less what an earlier group already brings, so that
// the sizes of all groups add up to the image's. The stage 1 groups come first
// and are closed among themselves.
type ModuleGroup struct {
	Name    string
	Stage1  bool
	Modules []Module
	Size    int64
	Missing []string // named, but neither a module nor built in
}

// Modules resolves modules.list against the kernel kver of a tree. Its
// modules.dep and kin must exist.
func Modules(t Tree, kver string) ([]ModuleGroup, error) {
	wanted, err := parseModules(modulesList)
	if err != nil {
		return nil, err
	}
	groups, err := resolveModules(os.DirFS(t.Path("/usr/lib/modules/"+kver)), wanted)
	if err != nil {
		return nil, fmt.Errorf("modules of kernel %s: %w", kver, err)
	}
	return groups, nil
}

// Kernels lists the kernel versions a tree has modules of.
func Kernels(t Tree) ([]string, error) {
	deps, err := filepath.Glob(filepath.Join(t.Path("/usr/lib/modules"), "*", "modules.dep"))
	if err != nil {
		return nil, err
	}
	var versions []string
	for _, d := range deps {
		versions = append(versions, filepath.Base(filepath.Dir(d)))
	}
	return versions, nil
}

// Stage1 returns the modules of the initramfs.
func Stage1(groups []ModuleGroup) []Module {
	var mods []Module
	for _, g := range groups {
		if g.Stage1 {
			mods = append(mods, g.Modules...)
		}
	}
	return mods
}

// wantedGroup is a section of modules.list as written.
type wantedGroup struct {
	name   string
	stage1 bool
	items  []string
}

func parseModules(data []byte) ([]wantedGroup, error) {
	var groups []wantedGroup
	err := eachLine(data, func(text, _ string) error {
		if h, ok := header(text); ok {
			name, flag, _ := strings.Cut(h, " ")
			if flag != "" && flag != "stage1" {
				return fmt.Errorf("group %s: %q is not a group's flag", name, flag)
			}
			g := wantedGroup{name: name, stage1: flag != ""}
			if n := len(groups); n > 0 && g.stage1 && !groups[n-1].stage1 {
				return fmt.Errorf("group %s: stage 1 groups come first", name)
			}
			groups = append(groups, g)
			return nil
		}
		if len(groups) == 0 || strings.ContainsAny(text, " \t") {
			return fmt.Errorf("%q is not a module of a group", text)
		}
		g := &groups[len(groups)-1]
		g.items = append(g.items, text)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("modules.list: %w", err)
	}
	return groups, nil
}

// resolveModules resolves groups against a kernel's module directory.
func resolveModules(dir fs.FS, wanted []wantedGroup) ([]ModuleGroup, error) {
	k, err := readKernel(dir)
	if err != nil {
		return nil, err
	}
	var groups []ModuleGroup
	taken := map[string]bool{}
	for _, w := range wanted {
		g := ModuleGroup{Name: w.name, Stage1: w.stage1}
		for _, item := range w.items {
			files, ok := k.match(item)
			if !ok {
				g.Missing = append(g.Missing, item)
			}
			for _, file := range files {
				k.closure(file, taken, &g.Modules)
			}
		}
		for i := range g.Modules {
			info, err := fs.Stat(dir, g.Modules[i].Path)
			if err != nil {
				return nil, err
			}
			g.Modules[i].Size = info.Size()
			g.Size += info.Size()
		}
		slices.SortFunc(g.Modules, func(a, b Module) int { return strings.Compare(a.Path, b.Path) })
		groups = append(groups, g)
	}
	return groups, nil
}

// kernel is what depmod knows of a kernel's modules.
type kernel struct {
	files   []string            // all module files, sorted
	byName  map[string]string   // module name → file
	deps    map[string][]string // file → files
	soft    map[string][]string // module name → names or aliases wanted beside it
	aliases map[string][]string // alias without wildcards → module names
	builtin map[string]bool     // module names
}

func readKernel(dir fs.FS) (*kernel, error) {
	k := &kernel{
		byName: map[string]string{}, deps: map[string][]string{}, soft: map[string][]string{},
		aliases: map[string][]string{}, builtin: map[string]bool{},
	}
	for _, f := range []struct {
		name     string
		optional bool
		line     func(string) error
	}{
		{"modules.dep", false, k.readDep},
		{"modules.builtin", false, k.readBuiltin},
		{"modules.softdep", true, k.readSoft},
		{"modules.alias", true, k.readAlias},
	} {
		data, err := fs.ReadFile(dir, f.name)
		if f.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		if err := eachLine(data, func(text, _ string) error { return f.line(text) }); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	slices.Sort(k.files)
	return k, nil
}

// readDep reads "file: file file…" of modules.dep.
func (k *kernel) readDep(text string) error {
	file, deps, ok := strings.Cut(text, ":")
	if !ok || !fs.ValidPath(file) {
		return fmt.Errorf("%q is not a module and its dependencies", text)
	}
	k.files = append(k.files, file)
	k.byName[moduleName(file)] = file
	k.deps[file] = strings.Fields(deps)
	return nil
}

func (k *kernel) readBuiltin(text string) error {
	k.builtin[moduleName(text)] = true
	return nil
}

// readSoft reads "softdep name [pre:|post:] name…".
func (k *kernel) readSoft(text string) error {
	words := strings.Fields(text)
	if len(words) < 2 || words[0] != "softdep" {
		return nil
	}
	name := normal(words[1])
	for _, w := range words[2:] {
		if w != "pre:" && w != "post:" {
			k.soft[name] = append(k.soft[name], w)
		}
	}
	return nil
}

// readAlias keeps the plain aliases, by which algorithms and protocols are
// asked for; device aliases hold wildcards and are of no use here.
func (k *kernel) readAlias(text string) error {
	words := strings.Fields(text)
	if len(words) == 3 && words[0] == "alias" && !strings.ContainsAny(words[1], "*?[") {
		k.aliases[normal(words[1])] = append(k.aliases[normal(words[1])], words[2])
	}
	return nil
}

// match finds the files of a line of modules.list; ok is also true for what is
// built in.
func (k *kernel) match(item string) (files []string, ok bool) {
	if strings.Contains(item, "/") {
		return k.glob("kernel/" + item)
	}
	if strings.Contains(item, "*") {
		for _, f := range k.files {
			if hit, _ := path.Match(normal(item), moduleName(f)); hit {
				files = append(files, f)
			}
		}
		return files, len(files) > 0
	}
	if f, found := k.byName[normal(item)]; found {
		return []string{f}, true
	}
	return nil, k.builtin[normal(item)]
}

func (k *kernel) glob(pattern string) (files []string, ok bool) {
	prefix, deep := strings.CutSuffix(pattern, "/**")
	for _, f := range k.files {
		hit := deep && strings.HasPrefix(f, prefix+"/")
		if !deep {
			hit, _ = path.Match(pattern, stem(f))
		}
		if hit {
			files = append(files, f)
		}
	}
	return files, len(files) > 0
}

// closure adds a file and all it needs to mods, each file once for all groups.
func (k *kernel) closure(file string, taken map[string]bool, mods *[]Module) {
	if taken[file] {
		return
	}
	taken[file] = true
	*mods = append(*mods, Module{Name: moduleName(file), Path: file})
	for _, d := range k.deps[file] {
		k.closure(d, taken, mods)
	}
	for _, want := range k.soft[moduleName(file)] {
		for _, name := range append([]string{want}, k.aliases[normal(want)]...) {
			if f, ok := k.byName[normal(name)]; ok {
				k.closure(f, taken, mods)
			}
		}
	}
}

// moduleName turns kernel/fs/nls/nls_iso8859-1.ko.xz into nls_iso8859_1.
func moduleName(file string) string { return normal(path.Base(stem(file))) }

// stem cuts .ko and any compression suffix.
func stem(file string) string {
	dir, base := path.Split(file)
	base, _, _ = strings.Cut(base, ".ko")
	return dir + base
}

func normal(name string) string { return strings.ReplaceAll(name, "-", "_") }
