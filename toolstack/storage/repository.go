package storage

import (
	"context"
	"errors"
	"maps"

	"github.com/google/uuid"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
)

// plan is a repository about to be made on a host.
type plan struct {
	driver driver
	config client.RepositoryConfig
	host   api.HostRef
	hostd  Hostd
	sr     *api.SR
	device map[string]string
}

func (m *Manager) createSR(c *api.Call, host api.HostRef, device map[string]string, size int64, label, description, kind, content string, shared bool, config map[string]string) (api.SRRef, error) {
	d, err := driverOf(kind)
	if err != nil {
		return "", err
	}
	h, err := m.hostdOf(host)
	if err != nil {
		return "", err
	}
	if err := d.check(device); err != nil {
		return "", err
	}
	if shared && d.local {
		return "", api.ErrInvalidValue("shared", "true")
	}
	r := newSR(api.NewUUID(), label, description, d, content, shared, config)
	p := plan{driver: d, config: d.repository(device), host: host, hostd: h, sr: r, device: device}
	found, err := p.prepare(c)
	if err != nil {
		return "", place{}.failed(err)
	}
	r.PhysicalSize, r.PhysicalUtilisation = found.Total, found.Used
	ref, err := m.insertSR(c, p)
	if err != nil {
		return "", errors.Join(err, p.undo(c))
	}
	if d.found {
		if err := m.look(c, ref); err != nil {
			m.cfg.Log.Warn("repository-scan", "repository", r.UUID, "err", err)
		}
	}
	return ref, nil
}

func newSR(id, label, description string, d driver, content string, shared bool, config map[string]string) *api.SR {
	r := api.NewSR()
	r.UUID, r.NameLabel, r.NameDescription, r.Type, r.Shared = id, label, description, d.kind, shared
	if r.ContentType = content; content == "" {
		r.ContentType = d.content
	}
	r.SMConfig = maps.Clone(config)
	return r
}

// hostdOf reaches a host.
func (m *Manager) hostdOf(host api.HostRef) (Hostd, error) {
	if _, err := db.Get(m.cfg.DB.Snapshot(), host); err != nil {
		return nil, err
	}
	h := m.cfg.Hostd(host)
	if h == nil {
		return nil, api.ErrHostOffline(host.String())
	}
	return h, nil
}

// prepare makes the medium a repository and attaches it.
func (p plan) prepare(ctx context.Context) (client.Repository, error) {
	if !p.driver.found {
		if _, err := p.hostd.FormatRepository(ctx, p.sr.UUID, p.config); err != nil {
			return client.Repository{}, err
		}
	}
	r, err := p.hostd.AttachRepository(ctx, p.sr.UUID, p.config)
	if err != nil {
		err = errors.Join(err, p.undo(ctx))
	}
	return r, err
}

// undo gives the medium back as it was: blank.
func (p plan) undo(ctx context.Context) error {
	ctx, cancel := finishing(ctx)
	defer cancel()
	err := p.hostd.DetachRepository(ctx, p.sr.UUID)
	if !p.driver.found {
		err = errors.Join(err, p.hostd.EraseRepository(ctx, p.sr.UUID, p.config))
	}
	return err
}

// insertSR writes the rows of a repository that is attached. Further hosts of a
// shared one get a PBD, which they plug themselves.
func (m *Manager) insertSR(ctx context.Context, p plan) (ref api.SRRef, err error) {
	err = m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		ref = db.Insert(tx, p.sr)
		for host := range db.All[api.Host](tx) {
			if host != p.host && !p.sr.Shared {
				continue
			}
			pbd := api.NewPBD()
			pbd.SR, pbd.Host, pbd.DeviceConfig = ref, host, maps.Clone(p.device)
			if host == p.host {
				pbd.CurrentlyAttached, pbd.OtherConfig = true, map[string]string{pluggedKey: "true"}
			}
			db.Insert(tx, pbd)
		}
		return nil
	})
	return ref, err
}

func (m *Manager) introduceSR(c *api.Call, id, label, description, kind, content string, shared bool, config map[string]string) (api.SRRef, error) {
	d, err := driverOf(kind)
	if err != nil {
		return "", err
	}
	if parsed, err := uuid.Parse(id); err != nil || parsed.String() != id {
		return "", api.ErrUUIDInvalid("SR", id)
	}
	var ref api.SRRef
	err = m.cfg.DB.Update(c, func(tx *db.Tx) error {
		if _, err := db.ByUUID[api.SR](tx, id); err == nil {
			return api.ErrSRUUIDExists(id)
		}
		ref = db.Insert(tx, newSR(id, label, description, d, content, shared, config))
		return nil
	})
	return ref, err
}

// holdSR begins an operation on a repository; done ends it.
func (m *Manager) holdSR(c *api.Call, ref api.SRRef, op api.StorageOperations) (done func(), err error) {
	task := operation.TaskKey(c)
	err = m.cfg.DB.Update(c, func(tx *db.Tx) error {
		_, err := operation.SR.Begin(tx, ref, op, task)
		return err
	})
	if err != nil {
		return nil, err
	}
	return func() {
		ctx, cancel := finishing(c)
		defer cancel()
		err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
			if _, err := db.Get(tx, ref); err != nil {
				return nil // destroyed or forgotten
			}
			_, err := operation.SR.End(tx, ref, task)
			return err
		})
		if err != nil {
			m.cfg.Log.Error("sr-operation-not-ended", "sr", ref, "err", err)
		}
	}, nil
}

func (m *Manager) forgetSR(c *api.Call, ref api.SRRef) error {
	done, err := m.holdSR(c, ref, api.StorageOperationsForget)
	if err != nil {
		return err
	}
	defer done()
	return m.removeSR(c, ref)
}

func (m *Manager) destroySR(c *api.Call, ref api.SRRef) error {
	done, err := m.holdSR(c, ref, api.StorageOperationsDestroy)
	if err != nil {
		return err
	}
	defer done()
	snap := m.cfg.DB.Snapshot()
	sr, err := db.Get(snap, ref)
	if err != nil {
		return err
	}
	d, err := driverOf(sr.Type)
	if err != nil {
		return err
	}
	for vdi, disk := range disks(snap, ref) {
		if len(users(disk)) > 0 {
			return api.ErrVDIInUse(vdi.String(), "destroy")
		}
	}
	if !d.found {
		pbd, h, err := m.onePBD(snap, sr)
		if err != nil {
			return err
		}
		if err := h.EraseRepository(c, sr.UUID, d.repository(pbd.DeviceConfig)); err != nil {
			return place{sr: ref}.failed(err)
		}
	}
	return m.removeSR(c, ref)
}

// onePBD finds a way to a repository that this process has.
func (m *Manager) onePBD(r db.Reader, sr *api.SR) (*api.PBD, Hostd, error) {
	for _, ref := range sr.PBDs {
		pbd, err := db.Get(r, ref)
		if err != nil {
			continue
		}
		if h := m.cfg.Hostd(pbd.Host); h != nil {
			return pbd, h, nil
		}
	}
	return nil, nil, api.ErrHostOffline(api.HostRef("").String())
}

// removeSR deletes the rows of a repository, its disks and the ways to it.
func (m *Manager) removeSR(ctx context.Context, ref api.SRRef) error {
	return m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		sr, err := db.Get(tx, ref)
		if err != nil {
			return err
		}
		for vdi, disk := range disks(tx, ref) {
			if err := inUse(tx, vdi, disk); err != nil {
				return err
			}
			if err := m.dropRow(tx, vdi, disk); err != nil {
				return err
			}
		}
		for _, pbd := range sr.PBDs {
			if err := ignoreGone(db.Delete(tx, pbd)); err != nil {
				return err
			}
		}
		if err := forgetDefaults(tx, ref); err != nil {
			return err
		}
		return db.Delete(tx, ref)
	})
}

// inUse refuses to forget a disk that a machine has, whatever the ways to its
// repository say: they are not attached either when that fails at a start.
func inUse(tx *db.Tx, vdi api.VDIRef, disk *api.VDI) error {
	if _, yes := attached(tx, disk); yes || len(users(disk)) > 0 {
		return api.ErrVDIInUse(vdi.String(), "forget")
	}
	return nil
}

// forgetDefaults takes a repository out of what points to it by default.
func forgetDefaults(tx *db.Tx, ref api.SRRef) error {
	for pool, p := range db.All[api.Pool](tx) {
		if p.DefaultSR != ref && p.SuspendImageSR != ref && p.CrashDumpSR != ref {
			continue
		}
		edit, err := db.Edit(tx, pool)
		if err != nil {
			return err
		}
		for _, at := range []*api.SRRef{&edit.DefaultSR, &edit.SuspendImageSR, &edit.CrashDumpSR} {
			if *at == ref {
				*at = ""
			}
		}
	}
	return nil
}

// canHostStatefile: every host must reach the repository, and its driver must be
// able to attach a disk before the pool's database is there.
func (m *Manager) canHostStatefile(_ *api.Call, ref api.SRRef) error {
	snap := m.cfg.DB.Snapshot()
	sr, err := db.Get(snap, ref)
	if err != nil {
		return err
	}
	if !sr.Shared {
		return api.ErrHAConstraintViolationSRNotShared(ref.String())
	}
	attached := map[api.HostRef]bool{}
	for _, p := range sr.PBDs {
		if pbd, err := db.Get(snap, p); err == nil && pbd.CurrentlyAttached {
			attached[pbd.Host] = true
		}
	}
	for host := range db.All[api.Host](snap) {
		if !attached[host] {
			return api.ErrSRNotAttached(ref.String())
		}
	}
	if !can(snap, sr.Type, "VDI_GENERATE_CONFIG") {
		return api.ErrSROperationNotSupported(ref.String())
	}
	return nil
}
