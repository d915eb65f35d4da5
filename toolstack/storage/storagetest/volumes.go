package storagetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"cairn/init/hostd/client"
)

// header is what a volume takes of its medium beside its clusters.
const header = 4 * Cluster

// Volumes implements storage.Hostd.
func (h *Hostd) Volumes(ctx context.Context, sr string) ([]client.Volume, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.repository(ctx, sr)
	if err != nil {
		return nil, err
	}
	all := []client.Volume{}
	for _, name := range slices.Sorted(maps.Keys(m.volumes)) {
		all = append(all, m.volumes[name].Volume)
	}
	return all, nil
}

// volume finds a volume after a verb began.
func (h *Hostd) volume(ctx context.Context, sr, name string) (*medium, *volume, error) {
	m, err := h.repository(ctx, sr)
	if err != nil {
		return nil, nil, err
	}
	v := m.volumes[name]
	if v == nil {
		return nil, nil, refuse(client.CodeNotFound, "volume "+name)
	}
	return m, v, nil
}

// Volume implements storage.Hostd.
func (h *Hostd) Volume(ctx context.Context, sr, name string) (client.Volume, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, v, err := h.volume(ctx, sr, name)
	if err != nil {
		return client.Volume{}, err
	}
	return v.Volume, nil
}

func (m *medium) thick() bool { return m.kind == client.TypeLVM }

// children are the volumes based on another.
func (m *medium) children(name string) (all []string) {
	for _, v := range m.volumes {
		if v.Backing == name {
			all = append(all, v.Name)
		}
	}
	return all
}

// account recomputes what a volume takes; a write that does not fit is undone.
func (m *medium) account(v *volume) error {
	was := v.Used
	switch {
	case m.kind == client.TypeDummy:
		v.Used = 0
	case m.thick():
		v.Used = v.VirtualSize + header
	case v.Format == client.Raw:
		v.Used = v.VirtualSize
	default:
		v.Used = header + int64(len(v.clusters))*Cluster
	}
	if m.used() > m.size {
		v.Used = was
		return refuse(client.CodeNoSpace, fmt.Sprintf("%d bytes are free", max(0, m.size-m.used())))
	}
	return nil
}

// CreateVolume implements storage.Hostd.
func (h *Hostd) CreateVolume(ctx context.Context, sr, name string, spec client.VolumeSpec) (client.Volume, error) {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "create", sr, name); err != nil {
		return client.Volume{}, err
	}
	m, err := h.repository(ctx, sr)
	if err != nil {
		return client.Volume{}, err
	}
	if spec.Backing != "" {
		below := m.volumes[spec.Backing]
		if below == nil || spec.Format != client.Qcow2 || spec.Size != 0 && spec.Size < below.VirtualSize {
			return client.Volume{}, refuse(client.CodeBadRequest, "backing "+spec.Backing)
		}
		if spec.Size == 0 {
			spec.Size = below.VirtualSize
		}
	}
	if spec.Size <= 0 || spec.Size%512 != 0 {
		return client.Volume{}, refuse(client.CodeBadRequest, fmt.Sprintf("size %d", spec.Size))
	}
	if old := m.volumes[name]; old != nil {
		if old.VirtualSize != spec.Size || old.Format != spec.Format || old.Backing != spec.Backing {
			return client.Volume{}, refuse(client.CodeConflict, "volume "+name+" is there and different")
		}
		return old.Volume, nil
	}
	v := &volume{Volume: client.Volume{
		Name: name, Path: "/run/sr-mount/" + sr + "/" + name, Format: spec.Format, Block: m.thick(),
		VirtualSize: spec.Size, Backing: spec.Backing, Note: spec.Note,
	}, clusters: map[int64]uint64{}}
	m.volumes[name] = v
	if err := m.account(v); err != nil {
		delete(m.volumes, name)
		return client.Volume{}, err
	}
	return v.Volume, nil
}

// DeleteVolume implements storage.Hostd.
func (h *Hostd) DeleteVolume(ctx context.Context, sr, name string) error {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "delete", sr, name); err != nil {
		return err
	}
	m, v, err := h.volume(ctx, sr, name)
	switch {
	case m != nil && v == nil:
		return nil
	case notFound(err):
		return nil
	case err != nil:
		return err
	case v.Active || v.readers+v.writers > 0:
		return refuse(client.CodeInUse, "volume "+name+" is active or lent out")
	case len(m.children(name)) > 0:
		return refuse(client.CodeConflict, "volume "+name+" is the backing of "+m.children(name)[0])
	}
	delete(m.volumes, name)
	return nil
}

func notFound(err error) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Code == client.CodeNotFound
}

// ResizeVolume implements storage.Hostd.
func (h *Hostd) ResizeVolume(ctx context.Context, sr, name string, size int64) (client.Volume, error) {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "resize", sr, name); err != nil {
		return client.Volume{}, err
	}
	m, v, err := h.volume(ctx, sr, name)
	if err != nil {
		return client.Volume{}, err
	}
	if size < v.VirtualSize {
		return client.Volume{}, refuse(client.CodeBadRequest, "volume "+name+" cannot shrink")
	}
	if h.open[name] {
		return v.Volume, nil
	}
	was := v.VirtualSize
	v.VirtualSize = size
	if err := m.account(v); err != nil {
		v.VirtualSize = was
		return client.Volume{}, err
	}
	return v.Volume, nil
}

// ActivateVolume implements storage.Hostd.
func (h *Hostd) ActivateVolume(ctx context.Context, sr, name string) (client.Volume, error) {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "activate", sr, name); err != nil {
		return client.Volume{}, err
	}
	_, v, err := h.volume(ctx, sr, name)
	if err != nil {
		return client.Volume{}, err
	}
	if v.copies > 0 {
		return client.Volume{}, refuse(client.CodeInUse, "volume "+name+" is being copied")
	}
	v.Active = true
	return v.Volume, nil
}

// DeactivateVolume implements storage.Hostd.
func (h *Hostd) DeactivateVolume(ctx context.Context, sr, name string) (client.Volume, error) {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "deactivate", sr, name); err != nil {
		return client.Volume{}, err
	}
	_, v, err := h.volume(ctx, sr, name)
	if err != nil {
		return client.Volume{}, err
	}
	v.Active = false
	return v.Volume, nil
}

// RebaseVolume implements storage.Hostd.
func (h *Hostd) RebaseVolume(ctx context.Context, sr, name, backing string) error {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "rebase", sr, name); err != nil {
		return err
	}
	m, v, err := h.volume(ctx, sr, name)
	if err != nil {
		return err
	}
	if backing != "" && m.volumes[backing] == nil || v.Format != client.Qcow2 {
		return refuse(client.CodeBadRequest, "backing "+backing)
	}
	v.Backing = backing
	return h.step("rebased", sr, name)
}

// CommitVolume implements storage.Hostd.
func (h *Hostd) CommitVolume(ctx context.Context, sr, name string, progress func(float64)) error {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "commit", sr, name); err != nil {
		return err
	}
	m, v, err := h.volume(ctx, sr, name)
	if err != nil {
		return err
	}
	below := m.volumes[v.Backing]
	if below == nil {
		return refuse(client.CodeBadRequest, "volume "+name+" has no backing")
	}
	if below.readers+below.writers+v.writers > 0 {
		return refuse(client.CodeInUse, "volume "+below.Name+" is lent out")
	}
	if others := m.children(below.Name); len(others) > 1 {
		return refuse(client.CodeConflict, fmt.Sprintf("volume %s is the backing of %v", below.Name, others))
	}
	below.VirtualSize = max(below.VirtualSize, v.VirtualSize)
	for i, at := range slices.Sorted(maps.Keys(v.clusters)) {
		if err := errors.Join(ctx.Err(), h.step("commit-cluster", sr, name)); err != nil {
			return err
		}
		if err := m.put(below, at, v.clusters[at]); err != nil {
			return err
		}
		if progress != nil {
			progress(float64(i+1) / float64(len(v.clusters)))
		}
	}
	return nil
}

// CopyVolume implements storage.Hostd.
func (h *Hostd) CopyVolume(ctx context.Context, sr, name, toSR, toName string, progress func(float64)) error {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "copy", sr, name); err != nil {
		return err
	}
	m, v, err := h.volume(ctx, sr, name)
	if err != nil {
		return err
	}
	to, err := h.repository(ctx, toSR)
	if err != nil {
		return err
	}
	h.linger(v)
	if to.volumes[toName] != nil {
		return refuse(client.CodeConflict, "volume "+toName+" is there")
	}
	c := &volume{Volume: v.Volume, clusters: m.flatten(v)}
	c.Name, c.Path, c.Backing, c.Active, c.Block = toName, "/run/sr-mount/"+toSR+"/"+toName, "", false, to.thick()
	if c.ReadOnly {
		c.ReadOnly = false
	}
	to.volumes[toName] = c
	c.Used = 0
	if err := to.account(c); err != nil {
		delete(to.volumes, toName)
		return err
	}
	if progress != nil {
		progress(1)
	}
	return nil
}

// linger is the time that a copy takes, in which others come.
func (h *Hostd) linger(v *volume) {
	if h.Copying == nil {
		return
	}
	v.copies++
	h.mu.Unlock()
	h.Copying()
	h.mu.Lock()
	v.copies--
}

// CheckVolume implements storage.Hostd.
func (h *Hostd) CheckVolume(ctx context.Context, sr, name string) (client.Check, error) {
	v, err := h.Volume(ctx, sr, name)
	return client.Check{End: v.Used}, err
}

// NoteVolume implements storage.Hostd.
func (h *Hostd) NoteVolume(ctx context.Context, sr, name, note string) error {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "note", sr, name); err != nil {
		return err
	}
	_, v, err := h.volume(ctx, sr, name)
	if err != nil {
		return err
	}
	if len(note) > client.MaxNote {
		return refuse(client.CodeTooLarge, "note")
	}
	v.Note = note
	return nil
}

func (m *medium) put(v *volume, cluster int64, value uint64) error {
	was, had := v.clusters[cluster]
	v.clusters[cluster] = value
	if err := m.account(v); err != nil {
		if delete(v.clusters, cluster); had {
			v.clusters[cluster] = was
		}
		return err
	}
	return nil
}

// flatten is what a volume reads, without its zeros.
func (m *medium) flatten(v *volume) map[int64]uint64 {
	all := map[int64]uint64{}
	if below := m.volumes[v.Backing]; below != nil {
		all = m.flatten(below)
	}
	maps.Copy(all, v.clusters)
	maps.DeleteFunc(all, func(at int64, value uint64) bool { return value == 0 || at*Cluster >= v.VirtualSize })
	return all
}

// Write is a guest's write of one cluster. It is refused, which is the worst that
// can happen, where others read what is about to change.
func (h *Hostd) Write(sr, name string, cluster int64, value uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, v, err := h.volume(context.Background(), sr, name)
	switch {
	case err != nil:
		return err
	case len(m.children(name)) > 0:
		return refuse(client.CodeConflict, "a write to "+name+", on which others are based")
	case v.ReadOnly || cluster < 0 || cluster*Cluster >= v.VirtualSize:
		return refuse(client.CodeBadRequest, "a write outside of "+name)
	}
	return m.put(v, cluster, value)
}

// Shrink makes a volume's file end early, as a machine's memory does that was saved there.
func (h *Hostd) Shrink(sr, name string, size int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, v, err := h.volume(context.Background(), sr, name)
	if err == nil {
		v.VirtualSize = size
	}
	return err
}

// Content is what a volume reads: its clusters that are not zero.
func (h *Hostd) Content(sr, name string) (map[int64]uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, v, err := h.volume(context.Background(), sr, name)
	if err != nil {
		return nil, err
	}
	return m.flatten(v), nil
}
