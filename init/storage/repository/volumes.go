package repository

import (
	"context"
	"slices"
	"strings"

	"cairn/init/hostd/client"
)

// maxChain is how many layers a volume may have. The toolstack allows fewer, but there
// are disks from when it allowed 30; this bounds what QEMU opens at once.
const maxChain = 32

// sector is what sizes are multiples of.
const sector = 512

// Volumes lists all volumes by name.
func (m *Manager) Volumes(ctx context.Context, sr string) ([]client.Volume, error) {
	r, err := m.use(ctx, sr)
	if err != nil {
		return nil, err
	}
	list, err := r.list(ctx)
	if err != nil {
		return nil, about(err, "volumes of repository %s", sr)
	}
	list = slices.DeleteFunc(list, func(v client.Volume) bool { return v.Format == logFormat })
	active := m.active(sr)
	for i := range list {
		list[i].Active = slices.Contains(active, list[i].Name)
	}
	slices.SortFunc(list, func(a, b client.Volume) int { return strings.Compare(a.Name, b.Name) })
	return slices.Clip(append([]client.Volume{}, list...)), nil
}

// Volume describes one volume.
func (m *Manager) Volume(ctx context.Context, sr, name string) (client.Volume, error) {
	if err := checkFound(name); err != nil {
		return client.Volume{}, err
	}
	r, err := m.use(ctx, sr)
	if err != nil {
		return client.Volume{}, err
	}
	return m.get(ctx, r, name)
}

func (m *Manager) get(ctx context.Context, r *repo, name string) (client.Volume, error) {
	v, err := r.volume(ctx, name)
	if v.Format == logFormat {
		return client.Volume{}, Fail(client.CodeNotFound, "volume %s is not in repository %s", name, r.uuid)
	}
	v.Active = m.isActive(r.uuid, name)
	return v, about(err, "volume %s", name)
}

// sound is get for verbs that let QEMU open the volume.
func (m *Manager) sound(ctx context.Context, r *repo, name string) (client.Volume, error) {
	v, err := m.get(ctx, r, name)
	if err == nil && v.Problem != "" {
		err = Fail(client.CodeDamaged, "volume %s: %s", name, v.Problem)
	}
	return v, err
}

// with runs a short verb on volumes of one repository, with their names locked.
func (m *Manager) with(ctx context.Context, sr string, names []need, do func(*repo) error) error {
	return m.during(ctx, "", sr, names, do)
}

// during runs a verb that takes long, which long says.
func (m *Manager) during(ctx context.Context, long, sr string, names []need, do func(*repo) error) error {
	for _, n := range names {
		if err := checkFound(n.name); err != nil {
			return err
		}
	}
	if _, err := m.use(ctx, sr); err != nil {
		return err
	}
	all := reads(sr)
	for _, n := range names {
		all = append(all, need{sr + "/" + n.name, n.write})
	}
	release, err := m.locks.take(ctx, long, all...)
	if err != nil {
		return err
	}
	defer release()
	r := m.already(sr)
	if r == nil {
		return Fail(client.CodeNotAttached, "repository %s is not attached", sr)
	}
	return do(r)
}

// CreateVolume makes a volume, or finds the same one made before.
func (m *Manager) CreateVolume(ctx context.Context, sr, name string, spec client.VolumeSpec) (v client.Volume, err error) {
	if err := checkSpec(name, spec); err != nil {
		return v, err
	}
	names := writes(name)
	if spec.Backing != "" {
		names = append(names, reads(spec.Backing)...)
	}
	err = m.with(ctx, sr, names, func(r *repo) error {
		if spec, err = m.complete(ctx, r, spec); err != nil {
			return err
		}
		v, err = m.get(ctx, r, name)
		switch {
		case err == nil:
			return matches(v, spec)
		case !is(err, client.CodeNotFound):
			return err
		}
		if err := r.create(ctx, name, spec); err != nil {
			return about(err, "create volume %s", name)
		}
		v, err = m.get(ctx, r, name)
		return err
	})
	return v, err
}

func checkSpec(name string, s client.VolumeSpec) error {
	if err := checkNew(name); err != nil {
		return err
	}
	switch {
	case s.Format != client.Raw && s.Format != client.Qcow2:
		return Fail(client.CodeBadRequest, "volume %s: format %q is not known", name, s.Format)
	case s.Size < 0 || s.Size%sector != 0 || s.Size == 0 && s.Backing == "":
		return Fail(client.CodeBadRequest, "volume %s: %d bytes are no size for a volume", name, s.Size)
	case s.Backing != "" && s.Format != client.Qcow2:
		return Fail(client.CodeBadRequest, "volume %s: only qcow2 has a backing", name)
	case s.Backing == name:
		return Fail(client.CodeBadRequest, "volume %s cannot be its own backing", name)
	case len(s.Note) > client.MaxNote:
		return Fail(client.CodeTooLarge, "volume %s: a note has at most %d bytes", name, client.MaxNote)
	}
	return nil
}

// complete looks at the backing and takes the size from there if none is given.
func (m *Manager) complete(ctx context.Context, r *repo, spec client.VolumeSpec) (client.VolumeSpec, error) {
	if spec.Backing == "" {
		return spec, nil
	}
	chain, err := m.chain(ctx, r, spec.Backing)
	if err != nil {
		return spec, err
	}
	if len(chain) >= maxChain {
		return spec, Fail(client.CodeUnsupported, "backing %s has %d layers already", spec.Backing, len(chain))
	}
	size := chain[0].VirtualSize
	if spec.Size == 0 {
		spec.Size = size
	}
	if spec.Size < size {
		return spec, Fail(client.CodeBadRequest, "%d bytes are less than the %d of backing %s", spec.Size, size, spec.Backing)
	}
	return spec, nil
}

// chain is a volume and all below it, each checked.
func (m *Manager) chain(ctx context.Context, r *repo, name string) ([]client.Volume, error) {
	var out []client.Volume
	for name != "" {
		if len(out) > maxChain {
			return nil, Fail(client.CodeDamaged, "volume %s has more than %d layers", out[0].Name, maxChain)
		}
		v, err := m.sound(ctx, r, name)
		if len(out) > 0 && is(err, client.CodeNotFound) {
			return nil, Fail(client.CodeDamaged, "backing %s of volume %s is not there", name, out[len(out)-1].Name)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, v)
		name = v.Backing
	}
	return out, nil
}

// matches says whether a volume is what a spec asks for.
func matches(v client.Volume, spec client.VolumeSpec) error {
	if v.Format == spec.Format && v.VirtualSize == spec.Size && v.Backing == spec.Backing {
		return nil
	}
	return Fail(client.CodeConflict, "volume %s is there already: %s, %d bytes, backing %q", v.Name, v.Format, v.VirtualSize, v.Backing)
}

// DeleteVolume removes a volume that nothing needs.
func (m *Manager) DeleteVolume(ctx context.Context, sr, name string) error {
	return m.with(ctx, sr, writes(name), func(r *repo) error {
		v, err := m.get(ctx, r, name)
		if is(err, client.CodeNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if v.Active {
			return Fail(client.CodeInUse, "volume %s is active", name)
		}
		if err := m.childless(ctx, r, name, ""); err != nil {
			return err
		}
		return about(r.remove(ctx, v), "delete volume %s", name)
	})
}

// childless refuses a volume that has overlays, other than one.
func (m *Manager) childless(ctx context.Context, r *repo, name, except string) error {
	list, err := r.list(ctx)
	if err != nil {
		return err
	}
	for _, v := range list {
		if v.Backing == name && v.Name != except {
			return Fail(client.CodeConflict, "volume %s is the backing of %s", name, v.Name)
		}
	}
	return nil
}

// NoteVolume replaces a volume's note.
func (m *Manager) NoteVolume(ctx context.Context, sr, name, note string) error {
	if len(note) > client.MaxNote {
		return Fail(client.CodeTooLarge, "volume %s: a note has at most %d bytes", name, client.MaxNote)
	}
	return m.with(ctx, sr, writes(name), func(r *repo) error {
		v, err := m.get(ctx, r, name)
		if err != nil {
			return err
		}
		return about(r.note(ctx, v, note), "note of volume %s", name)
	})
}

// ResizeVolume makes a volume larger.
func (m *Manager) ResizeVolume(ctx context.Context, sr, name string, size int64) (v client.Volume, err error) {
	err = m.with(ctx, sr, writes(name), func(r *repo) error {
		if v, err = m.sound(ctx, r, name); err != nil {
			return err
		}
		if size < v.VirtualSize || size%sector != 0 {
			return Fail(client.CodeBadRequest, "volume %s has %d bytes and cannot become %d", name, v.VirtualSize, size)
		}
		enlarge := r.resize
		if err := m.childless(ctx, r, name, ""); is(err, client.CodeConflict) {
			enlarge = r.grow // for what a running QEMU is about to commit to it
		} else if err != nil {
			return err
		}
		if err := enlarge(ctx, v, size); err != nil {
			return about(err, "resize volume %s", name)
		}
		v, err = m.get(ctx, r, name)
		return err
	})
	return v, err
}
