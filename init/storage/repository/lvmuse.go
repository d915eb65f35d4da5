package repository

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"cairn/init/hostd/client"
	"cairn/init/storage/lvm"
	"cairn/init/storage/qemuimg"
)

func (g *group) activate(ctx context.Context, v client.Volume) error {
	g.turn.Lock()
	defer g.turn.Unlock()
	if err := g.m.run(ctx, g.Group.Activate(v.Name, true)); err != nil {
		return err
	}
	if v.Format == logFormat {
		return nil
	}
	if err := g.m.giveDevice(v.Path); err != nil {
		return err
	}
	return g.follow(ctx, v)
}

// follow brings the tags up to what the header says, where QEMU or a command that
// was cut off has changed it since. What the header asks of QEMU is checked here,
// as it cannot be while the volume is not active.
func (g *group) follow(ctx context.Context, v client.Volume) error {
	if v.Format != client.Qcow2 {
		return nil
	}
	h, damage, err := examine(v.Path)
	if err != nil {
		return err
	}
	backing := h.Backing
	if p := g.path() + "/"; len(backing) > len(p) && backing[:len(p)] == p {
		backing = backing[len(p):] // as libvirt may write it
	}
	if damage == nil && backing != "" && checkName(backing) != nil {
		damage = fmt.Errorf("its backing %q is no volume of the repository", backing)
	}
	if damage != nil {
		return Fail(client.CodeDamaged, "volume %s: %v", v.Name, damage)
	}
	if h.Size == v.VirtualSize && backing == v.Backing {
		return nil
	}
	return g.changed(ctx, v, h.Size, backing)
}

// deactivate lets go of the volume and of those below it that nobody needs.
func (g *group) deactivate(ctx context.Context, v client.Volume, needed []string) error {
	g.turn.Lock()
	defer g.turn.Unlock()
	all, err := g.volumes(ctx)
	if err != nil {
		return err
	}
	for name := v.Name; name != ""; {
		lv, ok := all[name]
		if !ok {
			return nil
		}
		below, _ := g.describe(lv)
		if lv.Active && !slices.Contains(needed, name) && !g.used(name) {
			if err := g.off(ctx, lv); err != nil {
				return err
			}
		}
		name = below.Backing
		delete(all, lv.Name) // a ring ends
	}
	return nil
}

func (g *group) used(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.users[name] > 0
}

// open activates what is not active, for as long as somebody needs it.
func (g *group) open(ctx context.Context, all ...client.Volume) (func(), error) {
	var done []client.Volume
	release := func() { g.shut(context.WithoutCancel(ctx), done) }
	for _, v := range all {
		g.count(v.Name, 1)
		done = append(done, v)
		if err := g.activate(ctx, v); err != nil {
			release()
			return nil, err
		}
	}
	return release, nil
}

func (g *group) count(name string, by int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.users == nil {
		g.users = map[string]int{}
	}
	if g.users[name] += by; g.users[name] == 0 {
		delete(g.users, name)
	}
}

// shut deactivates what was opened, the upper ones first, unless it is in use by
// now. What stays active is found when the repository is detached.
func (g *group) shut(ctx context.Context, all []client.Volume) {
	g.turn.Lock()
	defer g.turn.Unlock()
	active := g.m.active(g.sr)
	var needed []string
	for _, name := range active {
		for depth := 0; name != "" && depth <= maxChain; depth++ {
			needed = append(needed, name)
			v, err := g.volume(ctx, name)
			if err != nil {
				break
			}
			name = v.Backing
		}
	}
	for _, v := range slices.Backward(all) {
		g.count(v.Name, -1)
		if slices.Contains(needed, v.Name) || g.used(v.Name) {
			continue
		}
		if err := g.m.run(ctx, g.Group.Activate(v.Name, false)); err != nil {
			g.m.cfg.Log.Warn("volume-stays-active", "volume", v.Name, "err", err)
		}
	}
}

// volumeDraft is a logical volume that is marked as being made.
type volumeDraft struct {
	g    *group
	name string
	meta lvm.Meta
}

func (g *group) draft(ctx context.Context, name string, spec client.VolumeSpec) (draft, error) {
	size := qemuimg.FullSize(spec.Format, spec.Size)
	if err := g.room(ctx, name, size); err != nil {
		return nil, err
	}
	d := volumeDraft{g, name, lvm.Meta{
		Draft: true, Format: string(spec.Format), Size: spec.Size, Backing: spec.Backing, Note: spec.Note,
	}}
	if err := g.m.run(ctx, g.Create(name, size, d.meta.Tags())); err != nil {
		return nil, errors.Join(err, d.drop(context.WithoutCancel(ctx)))
	}
	var err error
	if spec.Format != logFormat {
		err = g.m.giveDevice(d.path())
	}
	if err == nil {
		err = erase(ctx, d.path(), spec.Format)
	}
	if err != nil {
		return nil, errors.Join(err, d.drop(context.WithoutCancel(ctx)))
	}
	return d, nil
}

// erase zeroes what a new volume would show of an old one: all of a raw one, and
// what QEMU would take for a header of another.
func erase(ctx context.Context, path string, format client.Format) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		return err
	}
	if format == client.Qcow2 {
		size = min(size, 1<<20)
	}
	const step = 1 << 30
	for at := int64(0); at < size; at += step {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := zero(f, at, min(step, size-at)); err != nil {
			return fmt.Errorf("zero %s: %w", path, err)
		}
	}
	return f.Sync()
}

// zero lets the kernel choose how: many disks are told to instead of written to.
func zero(f *os.File, at, n int64) error {
	const mode = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
	err := unix.Fallocate(int(f.Fd()), mode, at, n)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	empty := make([]byte, 1<<20)
	for end := at + n; at < end; at += int64(len(empty)) {
		if _, err := f.WriteAt(empty[:min(int64(len(empty)), end-at)], at); err != nil {
			return err
		}
	}
	return nil
}

func (d volumeDraft) path() string { return d.g.Path(d.name) }

func (d volumeDraft) keep(ctx context.Context) error {
	if err := flush(d.path()); err != nil {
		return err
	}
	if err := d.g.m.run(ctx, d.g.Group.Activate(d.name, false)); err != nil {
		return err
	}
	kept := d.meta
	kept.Draft = false
	return d.g.m.run(ctx, *d.g.Retag(d.name, d.meta.Tags(), kept.Tags()))
}

// drop removes a draft, and nothing that is not one any more.
func (d volumeDraft) drop(ctx context.Context) error {
	lv, err := d.g.find(ctx, d.name)
	if is(err, client.CodeNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if meta, _ := lvm.ParseTags(lv.Tags); !meta.Draft {
		return nil
	}
	return d.g.remove(ctx, client.Volume{Name: d.name})
}
