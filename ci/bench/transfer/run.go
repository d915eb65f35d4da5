package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"cairn/ci/bench/figure"
	"cairn/ci/bench/host"
	"cairn/image/debian"
)

// config is the command line.
type config struct {
	Doc, JSON, Go string
	Size          size
	Rounds        int
	Only          string
}

// format is a way to write a disk down, and how qemu-img calls it. Its images have the
// size of the disk and are of the kind that goes out here.
type format struct{ name, qemu, options string }

var formats = []format{
	{"raw", "raw", ""}, {"vhd", "vpc", "force_size=on"}, {"qcow2", "qcow2", ""}, {"vmdk", "vmdk", "subformat=streamOptimized"},
}

func run(ctx context.Context, cfg config) error {
	begin := time.Now()
	r := &report{Size: int64(cfg.Size), Rounds: cfg.Rounds, CPUs: runtime.NumCPU(), Load: [2]string{figure.Load(), ""}, Date: begin.UTC().Format("2006-01-02")}
	tree, err := debian.Open(ctx, debian.Config{})
	if err != nil {
		return err
	}
	h, err := host.Start(ctx, cfg.Go)
	if err != nil {
		return err
	}
	b := &bench{Host: h, tree: tree, report: r, only: strings.FieldsFunc(cfg.Only, func(c rune) bool { return c == ',' })}
	err = b.prepare(ctx)
	for n := 0; n < cfg.Rounds && err == nil; n++ {
		fmt.Fprintf(os.Stderr, "bench-transfer: round %d of %d, load %s\n", n+1, cfg.Rounds, figure.Load())
		err = b.round(ctx, n == 0)
	}
	r.Libvirt = b.libvirt()
	if err := errors.Join(err, h.Close()); err != nil {
		return err
	}
	r.Load[1], r.Took = figure.Load(), time.Since(begin)
	if cfg.JSON != "" {
		text, err := json.MarshalIndent(r, "", "\t")
		if err := errors.Join(err, os.WriteFile(cfg.JSON, append(text, '\n'), 0o644)); err != nil {
			return err
		}
	}
	return r.publish(cfg.Doc)
}

// bench is one run.
type bench struct {
	*host.Host
	tree   *debian.Tree
	report *report
	only   []string // formats; empty: all
	sr     string
	vdi    string // what goes out
	raw    string // a file that holds the same bytes
	volume string // a qcow2 that does, as the repository's own
}

func (b *bench) path(name string) string { return filepath.Join(b.Dir, name) }

// prepare makes the disk and its twins.
func (b *bench) prepare(ctx context.Context) (err error) {
	b.raw, b.volume = b.path("disk.raw"), b.path("disk.qcow2")
	if err := makeDisk(b.raw, b.report.Size); err != nil {
		return err
	}
	if err := b.tree.Command(ctx, "qemu-img", "convert", "-O", "qcow2", "-t", "writeback", b.raw, b.volume).Run(); err != nil {
		return fmt.Errorf("qemu-img: %w", err)
	}
	if b.sr, err = b.Repository(ctx, "bench"); err != nil {
		return err
	}
	if b.vdi, err = b.Disk(ctx, b.sr, b.report.Size); err != nil {
		return err
	}
	_, err = b.stream(ctx, "put", b.Local, url.Values{"vdi": {b.vdi}}, b.raw)
	return err
}

// libvirt says why its own streams are not beside the others, if they could not be.
func (b *bench) libvirt() string {
	if _, err := b.Libvirt.ConnectNumOfStoragePools(); err != nil {
		return "libvirt's vol-download and vol-upload are not measured: the libvirt of the tools tree has no storage driver (" + err.Error() + ")."
	}
	return "libvirt's vol-download and vol-upload are not measured."
}

// round does each piece of work once; the first one checks the results, too.
func (b *bench) round(ctx context.Context, check bool) error {
	if err := b.copies(ctx); err != nil {
		return err
	}
	for _, f := range formats {
		if only := b.only; len(only) > 0 && !slices.Contains(only, f.name) {
			continue
		}
		if err := b.out(ctx, f, check); err != nil {
			return fmt.Errorf("%s out: %w", f.name, err)
		}
		if err := b.in(ctx, f, check); err != nil {
			return fmt.Errorf("%s in: %w", f.name, err)
		}
	}
	return nil
}

// copies are what cp takes: into the page cache, and onto the medium, where all that goes
// out or comes in here ends.
func (b *bench) copies(ctx context.Context) error {
	for _, c := range []struct {
		work    string
		durable bool
		args    []string
	}{{copied, false, nil}, {copiedDurably, true, nil}, {copiedSparse, true, []string{"--sparse=always"}}} {
		out := b.path("copy")
		cmd := exec.CommandContext(ctx, "cp", append(c.args, b.raw, out)...)
		if err := b.peer(c.work, cmd, out, c.durable); err != nil {
			return err
		}
		if err := os.Remove(out); err != nil {
			return err
		}
	}
	return nil
}

// peer measures another program's work, and puts what it made onto the medium, within
// the time or after it.
func (b *bench) peer(work string, cmd *exec.Cmd, out string, durable bool) error {
	cmd.Stderr = os.Stderr
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := (*watched)(nil).follow(func() int { return cmd.Process.Pid })
	err := cmd.Wait()
	took, most := time.Since(begin), stop()
	if err != nil {
		return fmt.Errorf("%s: %w", work, err)
	}
	size, err := settle(out)
	if durable {
		took = time.Since(begin)
	}
	name := filepath.Base(cmd.Args[0])
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	b.report.add(work, cost{Wall: took, CPU: map[string]time.Duration{name: used}, Peak: map[string]int64{name: most}, Size: size})
	return err
}

// settle puts a file onto the medium, so that it does not disturb what follows, and
// tells how long it is.
func settle(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), f.Sync()
}

func (b *bench) convert(ctx context.Context, args ...string) *exec.Cmd {
	cmd := b.tree.Command(ctx, "qemu-img", append([]string{"convert"}, args...)...)
	cmd.Args[0] = "qemu-img"
	return cmd
}

// image is the one of a format that qemu-img has made, and that both bring in.
func (b *bench) image(f format) string { return b.path("image." + f.name) }

// way is how a client reaches the host, and what its work is called after that.
type way struct{ suffix, address string }

// ways are those that a format is measured by: what is as it was on the disk costs so
// little that the network's cipher shows, so it goes by the host's own socket, too.
func (b *bench) ways(f format) []way {
	all := []way{{"", b.Address}}
	if f.name == "raw" {
		all = append(all, way{onHost, b.Local})
	}
	return all
}

// out measures a disk on its way into an image.
func (b *bench) out(ctx context.Context, f format, check bool) error {
	for _, w := range b.ways(f) {
		if err := b.export(ctx, f, w, check); err != nil {
			return err
		}
	}
	args := []string{"-f", "qcow2", "-O", f.qemu, "-t", "writeback"}
	if f.options != "" {
		args = append(args, "-o", f.options)
	}
	return b.peer(convertedTo(f.name), b.convert(ctx, append(args, b.volume, b.image(f))...), b.image(f), true)
}

func (b *bench) export(ctx context.Context, f format, w way, check bool) error {
	mine := b.path("out." + f.name)
	c, err := b.stream(ctx, "get", w.address, url.Values{"vdi": {b.vdi}, "format": {f.name}}, mine)
	if err != nil {
		return err
	}
	defer os.Remove(mine)
	if c.Size, err = settle(mine); err != nil {
		return err
	}
	b.report.add(exported(f.name)+w.suffix, c)
	if !check {
		return nil
	}
	return b.compare(ctx, f, mine)
}

// compare lets qemu-img say whether an image holds the disk.
func (b *bench) compare(ctx context.Context, f format, image string) error {
	text, err := b.tree.Command(ctx, "qemu-img", "compare", "-f", "raw", "-F", f.qemu, b.raw, image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("qemu-img compare: %w: %s", err, text)
	}
	return nil
}

// in measures an image on its way into a new disk.
func (b *bench) in(ctx context.Context, f format, check bool) error {
	for _, w := range b.ways(f) {
		if err := b.load(ctx, f, w, check); err != nil {
			return err
		}
	}
	out := b.path("in.qcow2")
	defer os.Remove(out)
	return b.peer(convertedFrom(f.name), b.convert(ctx, "-f", f.qemu, "-O", "qcow2", "-t", "writeback", b.image(f), out), out, true)
}

func (b *bench) load(ctx context.Context, f format, w way, check bool) error {
	into, err := b.Disk(ctx, b.sr, b.report.Size)
	if err != nil {
		return err
	}
	c, err := b.stream(ctx, "put", w.address, url.Values{"vdi": {into}, "format": {f.name}}, b.image(f))
	if err != nil {
		return err
	}
	b.report.add(imported(f.name)+w.suffix, c)
	if check {
		if err := b.holds(ctx, into); err != nil {
			return err
		}
	}
	return b.API.Call(ctx, "VDI.destroy", nil, into)
}

// holds fails unless a disk holds what the first one does.
func (b *bench) holds(ctx context.Context, vdi string) error {
	back := b.path("back.raw")
	defer os.Remove(back)
	if _, err := b.stream(ctx, "get", b.Address, url.Values{"vdi": {vdi}}, back); err != nil {
		return err
	}
	return same(b.raw, back)
}
