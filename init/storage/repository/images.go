package repository

import (
	"context"
	"errors"
	"time"

	"cairn/init/hostd/client"
	"cairn/init/storage/qemuimg"
)

// headerLimit is for work on an image's header; what works on data takes the time
// it takes.
const headerLimit = 2 * time.Minute

// bed is where images lie: files of a directory, or logical volumes.
type bed interface {
	path() string
	space(ctx context.Context) (space, error)
	list(ctx context.Context) ([]client.Volume, error)
	volume(ctx context.Context, name string) (client.Volume, error)
	// reference is how an overlay's header names a volume.
	reference(v client.Volume) string
	// draft makes room for a new volume that nobody sees yet.
	draft(ctx context.Context, name string, spec client.VolumeSpec) (draft, error)
	remove(ctx context.Context, v client.Volume) error
	note(ctx context.Context, v client.Volume, note string) error
	// grow makes room for a larger volume, which it is not yet.
	grow(ctx context.Context, v client.Volume, size int64) error
	// changed is told what a header says now.
	changed(ctx context.Context, v client.Volume, size int64, backing string) error
	// open lets qemu-img open volumes until close is called.
	open(ctx context.Context, all ...client.Volume) (close func(), err error)
	activate(ctx context.Context, v client.Volume) error
	deactivate(ctx context.Context, v client.Volume, needed []string) error
	detach(ctx context.Context) error
}

// draft is a volume in the making.
type draft interface {
	path() string
	// keep flushes it and gives it its name; drop removes it.
	keep(ctx context.Context) error
	drop(ctx context.Context) error
}

// images is the store of types that keep qcow2 and raw images.
type images struct {
	bed
	m *Manager
}

func (images) readOnly() bool { return false }

func (s images) create(ctx context.Context, name string, spec client.VolumeSpec) error {
	var below qemuimg.Overlay
	if spec.Backing != "" {
		b, err := s.volume(ctx, spec.Backing)
		if err != nil {
			return err
		}
		below = qemuimg.Overlay{Backing: s.reference(b), Format: b.Format}
	}
	return s.receive(ctx, name, spec, func(path string) error {
		cmd := qemuimg.Create(path, spec.Format, spec.Size, below)
		cmd.Limit = headerLimit
		_, err := s.m.cfg.Tools.Run(ctx, cmd)
		return err
	})
}

func (s images) receive(ctx context.Context, name string, spec client.VolumeSpec, fill func(string) error) error {
	d, err := s.draft(ctx, name, spec)
	if err != nil {
		return err
	}
	if err = fill(d.path()); err == nil {
		err = d.keep(ctx)
	}
	if err != nil {
		return errors.Join(err, d.drop(context.WithoutCancel(ctx)))
	}
	return nil
}

func (s images) resize(ctx context.Context, v client.Volume, size int64) error {
	if size == v.VirtualSize {
		return nil
	}
	if err := s.grow(ctx, v, size); err != nil {
		return err
	}
	below, err := s.below(ctx, v)
	if err != nil {
		return err
	}
	cmd := qemuimg.Resize(v.Path, v.Format, size)
	cmd.Limit = headerLimit
	err = s.image(ctx, func() error {
		_, err := s.m.cfg.Tools.Run(ctx, cmd)
		return err
	}, append(below, v)...)
	if err != nil && code(err) == client.CodeInUse {
		// A running QEMU has it open and will write the size itself.
		return s.changed(ctx, v, size, v.Backing)
	}
	if err != nil {
		return err
	}
	return s.changed(ctx, v, size, v.Backing)
}

// image runs something on images while they can be opened, and flushes what it
// wrote to the last one.
func (s images) image(ctx context.Context, do func() error, all ...client.Volume) error {
	release, err := s.open(ctx, all...)
	if err != nil {
		return err
	}
	defer release()
	if err := do(); err != nil {
		return err
	}
	return flush(all[len(all)-1].Path)
}

// below are the layers under a volume, the lowest first.
func (s images) below(ctx context.Context, v client.Volume) ([]client.Volume, error) {
	var out []client.Volume
	for name := v.Backing; name != "" && len(out) <= maxChain; {
		b, err := s.volume(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append([]client.Volume{b}, out...)
		name = b.Backing
	}
	return out, nil
}

func (s images) rebase(ctx context.Context, v, backing client.Volume) error {
	cmd := qemuimg.Rebase(v.Path, qemuimg.Overlay{Backing: s.reference(backing), Format: backing.Format})
	cmd.Limit = headerLimit
	err := s.image(ctx, func() error {
		_, err := s.m.cfg.Tools.Run(ctx, cmd)
		return err
	}, v)
	if err != nil {
		return err
	}
	return s.changed(ctx, v, v.VirtualSize, backing.Name)
}

// commit grows the backing first: a shorter one would lose the overlay's end.
func (s images) commit(ctx context.Context, v, backing client.Volume, progress func(float64)) error {
	if err := s.roomToCommit(ctx, v, backing); err != nil {
		return err
	}
	if v.VirtualSize > backing.VirtualSize {
		if err := s.resize(ctx, backing, v.VirtualSize); err != nil {
			return err
		}
		if b, err := s.volume(ctx, backing.Name); err != nil || b.VirtualSize < v.VirtualSize {
			return errors.Join(err, Fail(client.CodeInUse, "backing %s cannot grow", backing.Name))
		}
	}
	below, err := s.below(ctx, v)
	if err != nil {
		return err
	}
	return s.image(ctx, func() error {
		_, err := s.m.cfg.Tools.Run(ctx, qemuimg.Commit(v.Path, progress))
		// One that was killed, now or before, has left clusters that are lost to the
		// backing and nothing else.
		if backing.Format == client.Qcow2 {
			_, terr := s.m.cfg.Tools.Run(context.WithoutCancel(ctx), qemuimg.Tidy(backing.Path))
			err = errors.Join(err, terr)
		}
		if err != nil {
			return err
		}
		return flush(backing.Path)
	}, append(below, v)...)
}

// roomToCommit refuses what cannot fit: the overlay's blocks that the backing does
// not have yet are at most all it lacks.
func (s images) roomToCommit(ctx context.Context, v, backing client.Volume) error {
	if v.Block {
		return nil // it has its full size already, or grow finds that there is no room
	}
	sp, err := s.space(ctx)
	if err != nil {
		return err
	}
	lacks := qemuimg.FullSize(backing.Format, max(v.VirtualSize, backing.VirtualSize)) - backing.Used
	if need := min(v.Used, lacks); need > sp.free {
		return Fail(client.CodeNoSpace, "a commit of volume %s takes up to %d bytes, and %d are free", v.Name, need, sp.free)
	}
	return nil
}

func (s images) check(ctx context.Context, v client.Volume) (c client.Check, err error) {
	below, err := s.below(ctx, v)
	if err != nil {
		return c, err
	}
	err = s.image(ctx, func() error {
		c, err = qemuimg.ParseCheck(s.m.cfg.Tools.Run(ctx, qemuimg.Check(v.Path)))
		return err
	}, append(below, v)...)
	return c, err
}

func (s images) read(ctx context.Context, v client.Volume) (string, func(), error) {
	below, err := s.below(ctx, v)
	if err != nil {
		return "", nil, err
	}
	release, err := s.open(ctx, append(below, v)...)
	return v.Path, release, err
}

// convert copies an image's content into another of the same format.
func (m *Manager) convert(ctx context.Context, source string, format client.Format, path string, progress func(float64)) error {
	_, err := m.cfg.Tools.Run(ctx, qemuimg.Convert(source, format, path, format, progress))
	return err
}
