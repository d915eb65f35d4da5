package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"cairn/firmware"
	"cairn/image/audit"
	"cairn/image/erofs"
	"cairn/image/gobuild"
	"cairn/image/initramfs"
	"cairn/image/modules"
	"cairn/image/recipe"
	"cairn/image/rootfs"
	"cairn/init/supervise/catalogue"
	kernelconfig "cairn/kernel-config"
)

// results are the files and facts the steps hand to publish.
type results struct {
	programs          map[string]string // package → file
	busybox           string
	moduleGroups      []kernelconfig.ModuleGroup
	modules           string // directory with all/ and stage1/
	firmware          []firmware.Group
	guest             string // directory with initrd.img
	guestCD           string // what a firmware boots the demo guest from
	root              *rootfs.Tree
	erofs             string // directory with root.erofs, root.verity, root.hash
	rootHash          string
	initramfs, rescue string // files
	microcode         string // file
	sizes             map[string]int64
}

// cairnPrograms are built from this module: package → place in the image; no
// place means that the program is not part of the root image.
var cairnPrograms = []struct{ pkg, place string }{
	{"./init", "usr/lib/cairn/init"},
	{"./toolstack/cmd/toolstackd", "usr/lib/cairn/toolstackd"},
	{"./toolstack/cmd/xe", "usr/bin/xe"},
	{guestInit, ""},
}

const (
	hostInit  = "./init"
	guestInit = "./image/guest/cmd/init"
)

func (b *builder) steps(ctx context.Context) (*results, error) {
	r := &results{programs: map[string]string{}}
	if err := b.checks(); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context, *results) error{
		b.sources, b.guest, b.guestDisc, b.rootTree, b.rootImage, b.archives,
	} {
		if err := step(ctx, r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// sources makes what does not depend on one another: Go programs, u-root's
// commands, kernel modules, firmware.
func (b *builder) sources(ctx context.Context, r *results) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	g.Go(func() error { return b.goPrograms(ctx, r) })
	g.Go(func() error { return b.busybox(ctx, r) })
	g.Go(func() error { return b.kernelModules(ctx, r) })
	if err := g.Wait(); err != nil {
		return err
	}
	var err error
	r.firmware, err = firmware.Files(b.tree)
	return err
}

// goPrograms builds into the output directory's own place, where the go command
// finds what it made last time and skips what is up to date.
func (b *builder) goPrograms(ctx context.Context, r *results) error {
	for _, p := range cairnPrograms {
		file := filepath.Join(b.Out, "bin", strings.ReplaceAll(strings.TrimPrefix(p.pkg, "./"), "/", "-"))
		if err := gobuild.Binary(ctx, b.Module, p.pkg, file); err != nil {
			return err
		}
		r.programs[p.pkg] = file
	}
	return nil
}

func (b *builder) busybox(ctx context.Context, r *results) error {
	sums, err := hashFile(filepath.Join(b.Module, "go.sum"))
	if err != nil {
		return err
	}
	key := keyOf(format, b.goKey, sums, strings.Join(applets, " "))
	dir, err := b.cache.step(ctx, "u-root", key, func(dir string) error {
		return gobuild.Busybox(b.Module, filepath.Join(dir, "bb"), applets)
	})
	r.busybox = filepath.Join(dir, "bb")
	return err
}

// kernelModules lays out all modules and, indexed on their own, those of stage
// 1 and of the demo guest.
func (b *builder) kernelModules(ctx context.Context, r *results) error {
	var err error
	if r.moduleGroups, err = kernelconfig.Modules(b.tree, b.kernel); err != nil {
		return err
	}
	all, stage1 := modulePaths(r.moduleGroups), paths(kernelconfig.Stage1(r.moduleGroups))
	key := keyOf(format, b.tree.Key, b.kernel, strings.Join(all, " "), strings.Join(stage1, " "), strings.Join(guestModules, " "), strings.Join(hotModules, " "))
	r.modules, err = b.cache.step(ctx, "modules", key, func(dir string) error {
		return b.layOutModules(ctx, dir, all, stage1)
	})
	return err
}

func (b *builder) layOutModules(ctx context.Context, dir string, all, stage1 []string) error {
	at := func(set string) string { return filepath.Join(dir, set, "lib/modules", b.kernel) }
	if err := modules.Unpack(ctx, b.tree.Path("/usr/lib/modules/"+b.kernel), at("all"), all); err != nil {
		return err
	}
	debian := b.tree.Path("/usr/lib/modules/" + b.kernel)
	if err := modules.Subset(at("all"), debian, at("stage1"), stage1, isHot); err != nil {
		return err
	}
	each := func(string) bool { return true }
	if err := modules.Subset(at("all"), debian, at("guest"), chosen(all, guestModules), each); err != nil {
		return err
	}
	depmod := func(ctx context.Context, args ...string) *exec.Cmd { return b.tree.Command(ctx, "depmod", args...) }
	for _, set := range []string{"all", "stage1", "guest"} {
		if err := modules.Index(ctx, depmod, filepath.Join(dir, set), b.kernel); err != nil {
			return err
		}
	}
	return nil
}

func modulePaths(groups []kernelconfig.ModuleGroup) []string {
	var out []string
	for _, g := range groups {
		out = append(out, paths(g.Modules)...)
	}
	return out
}

func paths(mods []kernelconfig.Module) []string {
	var out []string
	for _, m := range mods {
		out = append(out, m.Path)
	}
	return out
}

// chosen are the paths of modules given by file name without extension.
func chosen(all, names []string) []string {
	var out []string
	for _, p := range all {
		if slices.Contains(names, fileStem(p)) {
			out = append(out, p)
		}
	}
	return out
}

// guest builds the demo guest's archive.
func (b *builder) guest(ctx context.Context, r *results) error {
	bin, err := hashFile(r.programs[guestInit])
	if err != nil {
		return err
	}
	bb, err := hashFile(r.busybox)
	if err != nil {
		return err
	}
	key := keyOf(format, bin, bb, r.modules)
	r.guest, err = b.cache.step(ctx, "guest", key, func(dir string) error {
		return initramfs.Build(initramfs.Spec{
			Init: r.programs[guestInit], Modules: filepath.Join(r.modules, "guest"),
			Busybox: r.busybox, Applets: applets, Shell: shell,
		}, filepath.Join(dir, "initrd.img"))
	})
	return err
}

func (b *builder) rootTree(_ context.Context, r *results) error {
	in := recipe.Inputs{
		Debian: b.tree, Services: catalogue.All(), Busybox: r.busybox, Applets: applets, Version: Version,
	}
	for _, p := range cairnPrograms {
		if p.place != "" {
			in.Programs = append(in.Programs, recipe.File{Path: p.place, Source: r.programs[p.pkg]})
		}
	}
	var err error
	if in.Data, err = b.dataGroups(r); err != nil {
		return err
	}
	if r.root, err = recipe.Root(in); err != nil {
		return err
	}
	r.sizes = r.root.Sizes()
	return audit.Check(r.root)
}

// rootImage makes the erofs image and its hash tree.
func (b *builder) rootImage(ctx context.Context, r *results) error {
	digest, err := r.root.Digest()
	if err != nil {
		return err
	}
	key := keyOf(format, b.tree.Key, b.Erofs.String(), digest)
	r.erofs, err = b.cache.step(ctx, "erofs", key, func(dir string) error {
		image := filepath.Join(dir, "root.erofs")
		if err := erofs.Build(ctx, b.tree, b.Erofs, r.root, digest, image, rootfs.BuildTime()); err != nil {
			return err
		}
		hash, err := erofs.Verity(ctx, b.tree, image, filepath.Join(dir, "root.verity"), digest)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "root.hash"), []byte(hash+"\n"), 0o644)
	})
	if err != nil {
		return err
	}
	hash, err := os.ReadFile(filepath.Join(r.erofs, "root.hash"))
	r.rootHash = strings.TrimSpace(string(hash))
	return err
}

// archives builds the initramfs of stage 1, the one with a rescue shell, and
// the microcode.
func (b *builder) archives(ctx context.Context, r *results) error {
	bin, err := hashFile(r.programs[hostInit])
	if err != nil {
		return err
	}
	spec := initramfs.Spec{Init: r.programs[hostInit], Modules: filepath.Join(r.modules, "stage1")}
	dir, err := b.cache.step(ctx, "initramfs", keyOf(format, bin, r.modules), func(dir string) error {
		return initramfs.Build(spec, filepath.Join(dir, "initramfs.img"))
	})
	if err != nil {
		return err
	}
	r.initramfs = filepath.Join(dir, "initramfs.img")
	spec.Busybox, spec.Applets, spec.Shell = r.busybox, applets, shell
	dir, err = b.cache.step(ctx, "rescue", keyOf(format, bin, r.modules, r.busybox), func(dir string) error {
		return initramfs.Build(spec, filepath.Join(dir, "rescue.img"))
	})
	if err != nil {
		return err
	}
	r.rescue = filepath.Join(dir, "rescue.img")
	return b.microcode(ctx, r)
}

func (b *builder) microcode(ctx context.Context, r *results) error {
	var intel, amd []string
	for _, g := range r.firmware {
		if !g.Early {
			continue
		}
		for _, f := range g.Files {
			file := b.tree.Path(filepath.Join(firmware.Dir, f.Path))
			if strings.HasPrefix(f.Path, "intel-ucode/") {
				intel = append(intel, file)
			} else {
				amd = append(amd, file)
			}
		}
	}
	dir, err := b.cache.step(ctx, "microcode", keyOf(format, b.tree.Key, fmt.Sprint(intel, amd)), func(dir string) error {
		return initramfs.Microcode(intel, amd, filepath.Join(dir, "microcode.cpio"))
	})
	r.microcode = filepath.Join(dir, "microcode.cpio")
	return err
}
