// Package build is the image builder: from the Debian tree and this module's
// sources to the files a host boots from.
//
// It is a chain of steps. Each step's result is kept in the cache under the hash
// of everything that went in, so a build does only what changed; a build where
// nothing changed compares one hash and is done. Nothing of the machine, the
// time or the checkout enters a result: equal sources and equal packages give
// an equal root hash.
//
// Two builds may run at once on one cache; an output directory belongs to one.
package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"cairn/image/debian"
	"cairn/image/erofs"
)

// Version is Cairn's, and the only thing about its origin that an image says.
const Version = "0.1.0"

// format is part of every key: raise it when a step changes what it makes from
// the same inputs.
const format = "cairn-image-1"

// Config says what to build and where to.
type Config struct {
	Module string // directory of go.mod
	Out    string // output directory
	Cache  string // default: $XDG_CACHE_HOME/cairn/image, else ~/.cache/cairn/image
	Fresh  bool   // do not take results from the cache
	Log    io.Writer
	Erofs  erofs.Options // default: erofs.Default
}

// Outputs are the names of the files in Config.Out.
var Outputs = []string{
	"root.erofs", "root.verity", "root.hash", "vmlinuz", "initramfs.img", "cmdline",
	"host.efi", "rescue.efi", "disk.img", "manifest.json", "sizes.txt", "sbom.spdx.json",
}

// stampFile in the output directory holds the key of a complete build.
const stampFile = ".complete"

// builder carries one build.
type builder struct {
	Config
	cache  cache
	tree   *debian.Tree
	kernel string // version
	goKey  string // toolchain
}

// Run builds everything that is not up to date.
func Run(ctx context.Context, cfg Config) error {
	start := time.Now()
	b, err := newBuilder(cfg)
	if err != nil {
		return err
	}
	unlock, err := b.lockOut()
	if err != nil {
		return err
	}
	defer unlock()
	source, err := sourceKey(b.Module)
	if err != nil {
		return err
	}
	if b.tree, err = b.openTree(ctx); err != nil {
		return err
	}
	key := keyOf(format, source, b.tree.Key, b.goKey, b.Erofs.String())
	if !b.Fresh && complete(b.Out, key) {
		b.printf("image: %s is up to date (%.1f s)", b.Out, time.Since(start).Seconds())
		return nil
	}
	if err := b.build(ctx, key); err != nil {
		return err
	}
	b.printf("image: built in %.0f s", time.Since(start).Seconds())
	return nil
}

func newBuilder(cfg Config) (*builder, error) {
	if cfg.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("cache: %w", err)
		}
		cfg.Cache = filepath.Join(dir, "cairn", "image")
	}
	if cfg.Erofs == (erofs.Options{}) {
		cfg.Erofs = erofs.Default
	}
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	b := &builder{Config: cfg, goKey: runtime.Version()}
	b.cache = cache{dir: cfg.Cache, fresh: cfg.Fresh, say: b.saySteps}
	return b, nil
}

func (b *builder) printf(f string, args ...any) { fmt.Fprintf(b.Log, f+"\n", args...) }

func (b *builder) saySteps(step string, took time.Duration, cached bool) {
	how := fmt.Sprintf("%5.1f s", took.Seconds())
	if cached {
		how = "cached "
	}
	b.printf("image: %-12s %s", step, how)
}

func (b *builder) openTree(ctx context.Context) (*debian.Tree, error) {
	return debian.Open(ctx, debian.Config{
		List: filepath.Join(b.Module, "image", "packages.list"),
	})
}

// complete reports whether dir holds all outputs of the build with this key.
func complete(dir, key string) bool {
	stamp, err := os.ReadFile(filepath.Join(dir, stampFile))
	if err != nil || strings.TrimSpace(string(stamp)) != key {
		return false
	}
	for _, name := range Outputs {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// build runs the steps and fills the output directory. The stamp goes first and
// comes back last, so a build that was cut short is never taken for complete.
func (b *builder) build(ctx context.Context, key string) error {
	stamp := filepath.Join(b.Out, stampFile)
	if err := os.Remove(stamp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	r, err := b.steps(ctx)
	if err != nil {
		return err
	}
	if err := b.publish(ctx, r); err != nil {
		return err
	}
	return os.WriteFile(stamp, []byte(key+"\n"), 0o644)
}
