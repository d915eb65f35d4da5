// Package modules lays out kernel modules for an image: the chosen files of
// Debian's kernel package, uncompressed, with the indexes depmod makes of just
// those.
//
// Uncompressed, because the image itself is compressed: erofs and the initramfs
// hold them smaller than xz twice over would, and reading a module costs one
// fast zstd pass instead of a slow xz one, which under emulation is most of the
// time a driver takes to load. The kernel checks the signature at a module's
// end either way.
//
// Functions here share no state.
package modules

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/ulikunitz/xz"
	"golang.org/x/sync/errgroup"
)

// Depmod prepares a run of depmod with the given arguments.
type Depmod func(ctx context.Context, args ...string) *exec.Cmd

// metadata are files depmod needs beside the modules.
var metadata = []string{"modules.order", "modules.builtin", "modules.builtin.modinfo"}

// Unpack writes the modules, given by path below src such as
// "kernel/fs/erofs/erofs.ko.xz", uncompressed below dst.
func Unpack(ctx context.Context, src, dst string, paths []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, p := range paths {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := unpack(filepath.Join(src, p), filepath.Join(dst, Plain(p))); err != nil {
				return fmt.Errorf("module %s: %w", p, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, m := range metadata {
		if err := copyFile(filepath.Join(src, m), filepath.Join(dst, m)); err != nil {
			return fmt.Errorf("module metadata: %w", err)
		}
	}
	return nil
}

// Plain is the path of a module once it is uncompressed.
func Plain(p string) string { return strings.TrimSuffix(p, ".xz") }

func unpack(src, dst string) error {
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(src, ".xz") {
		if r, err = xz.NewReader(f); err != nil {
			return err
		}
	}
	return writeFile(dst, r)
}

// Subset makes dst hold the given modules, so that they can be indexed on their
// own: those that plain says yes to as in the unpacked directory src, by hard
// link, the others compressed, as in debian.
func Subset(src, debian, dst string, paths []string, plain func(p string) bool) error {
	for _, p := range paths {
		from := filepath.Join(debian, p)
		if plain(p) {
			p = Plain(p)
			from = filepath.Join(src, p)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dst, p)), 0o755); err != nil {
			return err
		}
		if err := linkOrCopy(from, filepath.Join(dst, p)); err != nil {
			return fmt.Errorf("module %s: %w", p, err)
		}
	}
	for _, m := range metadata {
		if err := copyFile(filepath.Join(src, m), filepath.Join(dst, m)); err != nil {
			return fmt.Errorf("module metadata: %w", err)
		}
	}
	return nil
}

func linkOrCopy(src, dst string) error {
	if os.Link(src, dst) == nil {
		return nil
	}
	return copyFile(src, dst)
}

// Index runs depmod for the kernel version below base/lib/modules.
func Index(ctx context.Context, depmod Depmod, base, version string) error {
	out, err := depmod(ctx, "-b", base, version).CombinedOutput()
	if err != nil {
		return fmt.Errorf("depmod %s: %w: %s", version, err, out)
	}
	return nil
}

func copyFile(src, dst string) error {
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	return writeFile(dst, f)
}

func writeFile(dst string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	w, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}
