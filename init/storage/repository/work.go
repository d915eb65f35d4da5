package repository

import (
	"context"

	"cairn/init/hostd/client"
)

// ActivateVolume makes a volume and what is below it openable by QEMU.
func (m *Manager) ActivateVolume(ctx context.Context, sr, name string) (v client.Volume, err error) {
	err = m.with(ctx, sr, writes(name), func(r *repo) error {
		chain, err := m.chain(ctx, r, name)
		if err != nil {
			return err
		}
		// Recorded first: what is recorded and not active costs nothing.
		if err := m.setActive(sr, name, true); err != nil {
			return err
		}
		for i := len(chain) - 1; i >= 0; i-- {
			if err := r.activate(ctx, chain[i]); err != nil {
				return about(err, "activate volume %s", chain[i].Name)
			}
		}
		v, err = m.get(ctx, r, name)
		return err
	})
	return v, err
}

// DeactivateVolume undoes that, and brings to the medium what was written by others
// than this package, such as a guest's saved memory. A volume that is gone was not
// active.
func (m *Manager) DeactivateVolume(ctx context.Context, sr, name string) (v client.Volume, err error) {
	err = m.with(ctx, sr, writes(name), func(r *repo) error {
		v, err = m.get(ctx, r, name)
		if is(err, client.CodeNotFound) {
			v = client.Volume{Name: name}
			return m.setActive(sr, name, false)
		}
		if err != nil {
			return err
		}
		if err := settle(v); err != nil {
			return about(err, "flush volume %s", name)
		}
		if err := r.deactivate(ctx, v, m.needed(ctx, r, name)); err != nil {
			return about(err, "deactivate volume %s", name)
		}
		if err := m.setActive(sr, name, false); err != nil {
			return err
		}
		v, err = m.get(ctx, r, name)
		return err
	})
	return v, err
}

// needed are the layers of all active volumes but one.
func (m *Manager) needed(ctx context.Context, r *repo, except string) []string {
	var out []string
	for _, name := range m.active(r.uuid) {
		if name == except {
			continue
		}
		for depth := 0; name != "" && depth <= maxChain; depth++ {
			out = append(out, name)
			v, err := r.volume(ctx, name)
			if err != nil {
				break
			}
			name = v.Backing
		}
	}
	return out
}

// RebaseVolume changes what a volume's header names as its backing.
func (m *Manager) RebaseVolume(ctx context.Context, sr, name, backing string) error {
	return m.with(ctx, sr, append(writes(name), reads(backing)...), func(r *repo) error {
		v, err := m.sound(ctx, r, name)
		if err != nil {
			return err
		}
		if v.Backing == "" {
			return Fail(client.CodeBadRequest, "volume %s has no backing to replace", name)
		}
		chain, err := m.chain(ctx, r, backing)
		if err != nil {
			return err
		}
		for _, b := range chain {
			if b.Name == name {
				return Fail(client.CodeBadRequest, "volume %s would be below itself", name)
			}
		}
		return about(r.rebase(ctx, v, chain[0]), "rebase volume %s", name)
	})
}

// busy bounds how many images are worked on at once.
func (m *Manager) busy(ctx context.Context, do func() error) error {
	select {
	case m.heavy <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-m.heavy }()
	return do()
}

// CommitVolume writes an overlay's data into its backing, which it then reads the
// same as.
func (m *Manager) CommitVolume(ctx context.Context, sr, name string, progress func(float64)) error {
	v, err := m.Volume(ctx, sr, name)
	if err != nil {
		return err
	}
	if v.Backing == "" {
		return Fail(client.CodeBadRequest, "volume %s has no backing to commit to", name)
	}
	names := append(writes(v.Backing), reads(name)...)
	return m.during(ctx, "volume "+name+" is being committed", sr, names, func(r *repo) error {
		chain, err := m.chain(ctx, r, name)
		if err != nil {
			return err
		}
		if len(chain) < 2 || chain[1].Name != v.Backing {
			return Fail(client.CodeConflict, "volume %s has got another backing", name)
		}
		if err := m.childless(ctx, r, v.Backing, name); err != nil {
			return err
		}
		return m.busy(ctx, func() error {
			return about(r.commit(ctx, chain[0], chain[1], progress), "commit volume %s", name)
		})
	})
}

// CheckVolume looks for defects.
func (m *Manager) CheckVolume(ctx context.Context, sr, name string) (c client.Check, err error) {
	err = m.during(ctx, "volume "+name+" is being checked", sr, reads(name), func(r *repo) error {
		v, err := m.sound(ctx, r, name)
		if err != nil || v.Format != client.Qcow2 {
			return err
		}
		return m.busy(ctx, func() error {
			c, err = r.check(ctx, v)
			return about(err, "check volume %s", name)
		})
	})
	return c, err
}

// CopyVolume makes a new volume that reads the same.
func (m *Manager) CopyVolume(ctx context.Context, sr, name, toSR, toName string, progress func(float64)) (out client.Volume, err error) {
	if err := checkNew(toName); err != nil {
		return out, err
	}
	long := "volume " + name + " is being copied"
	err = m.during(ctx, long, sr, reads(name), func(from *repo) error {
		return m.during(ctx, long, toSR, writes(toName), func(to *repo) error {
			out, err = m.copyTo(ctx, from, name, to, toName, progress)
			return about(err, "copy volume %s", name)
		})
	})
	return out, err
}

func (m *Manager) copyTo(ctx context.Context, from *repo, name string, to *repo, toName string, progress func(float64)) (client.Volume, error) {
	chain, err := m.chain(ctx, from, name)
	if err != nil {
		return client.Volume{}, err
	}
	switch _, err := m.get(ctx, to, toName); {
	case err == nil:
		return client.Volume{}, Fail(client.CodeConflict, "volume %s is there already", toName)
	case !is(err, client.CodeNotFound):
		return client.Volume{}, err
	}
	if err := fits(ctx, to, chain); err != nil {
		return client.Volume{}, err
	}
	v := chain[0]
	path, release, err := from.read(ctx, v)
	if err != nil {
		return client.Volume{}, err
	}
	defer release()
	spec := client.VolumeSpec{Size: v.VirtualSize, Format: v.Format, Note: v.Note}
	err = m.busy(ctx, func() error {
		return to.receive(ctx, toName, spec, func(dst string) error {
			return m.convert(ctx, path, v.Format, dst, progress)
		})
	})
	if err != nil {
		return client.Volume{}, err
	}
	return m.get(ctx, to, toName)
}

// fits refuses a copy that is larger than what is free. The layers may hold the
// same blocks, so that less is needed; never more than the guest sees.
func fits(ctx context.Context, to *repo, chain []client.Volume) error {
	s, err := to.space(ctx)
	if err != nil {
		return err
	}
	var used int64
	for _, v := range chain {
		used += v.Used
	}
	if used = min(used, chain[0].VirtualSize); used > s.free {
		return Fail(client.CodeNoSpace, "a copy of volume %s takes up to %d bytes, and %d are free", chain[0].Name, used, s.free)
	}
	return nil
}
