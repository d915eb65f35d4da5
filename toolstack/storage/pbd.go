package storage

import (
	"context"
	"errors"
	"maps"
	"time"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
)

// pluggedKey of a PBD's other_config: the repository is to be attached whenever the
// host runs.
const pluggedKey = "cairn:plugged"

// registerPBD binds how a host reaches a repository.
func (m *Manager) registerPBD(r *api.Registry) {
	api.HandlePBDCreate(r, m.createPBD)
	api.HandlePBDDestroy(r, m.destroyPBD)
	api.HandlePBDPlug(r, m.plug)
	api.HandlePBDUnplug(r, m.unplug)
	api.HandlePBDSetDeviceConfig(r, func(c *api.Call, ref api.PBDRef, value map[string]string) error {
		return db.Modify(c, m.cfg.DB, ref, func(_ *db.Tx, p *api.PBD) error {
			if p.CurrentlyAttached {
				return api.ErrOperationNotAllowed("the PBD is attached")
			}
			p.DeviceConfig = value
			return nil
		})
	})
}

func (m *Manager) createPBD(c *api.Call, args *api.PBD) (ref api.PBDRef, err error) {
	err = m.cfg.DB.Update(c, func(tx *db.Tx) error {
		sr, err := db.Get(tx, args.SR)
		if err != nil {
			return err
		}
		if _, err := db.Get(tx, args.Host); err != nil {
			return err
		}
		if err := operation.SR.Check(tx, args.SR, sr, api.StorageOperationsPBDCreate); err != nil {
			return err
		}
		for p, other := range db.All[api.PBD](tx) {
			switch {
			case other.SR != args.SR:
			case other.Host == args.Host:
				return api.ErrPBDExists(args.SR.String(), args.Host.String(), p.String())
			case !sr.Shared:
				return api.ErrSRNotSharable(args.SR.String(), args.Host.String())
			}
		}
		pbd := api.NewPBD()
		pbd.SR, pbd.Host = args.SR, args.Host
		pbd.DeviceConfig, pbd.OtherConfig = maps.Clone(args.DeviceConfig), amend(args.OtherConfig, pluggedKey, "")
		ref = db.Insert(tx, pbd)
		return nil
	})
	return ref, err
}

func (m *Manager) destroyPBD(c *api.Call, ref api.PBDRef) error {
	return m.cfg.DB.Update(c, func(tx *db.Tx) error {
		pbd, err := db.Get(tx, ref)
		if err != nil {
			return err
		}
		if pbd.CurrentlyAttached {
			return api.ErrOperationNotAllowed("the PBD is attached")
		}
		if sr, err := db.Get(tx, pbd.SR); err == nil {
			if err := operation.SR.Check(tx, pbd.SR, sr, api.StorageOperationsPBDDestroy); err != nil {
				return err
			}
		}
		return db.Delete(tx, ref)
	})
}

func (m *Manager) plug(c *api.Call, ref api.PBDRef) error {
	pbd, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return err
	}
	if pbd.CurrentlyAttached {
		return nil
	}
	done, err := m.holdSR(c, pbd.SR, api.StorageOperationsPlug)
	if err != nil {
		return err
	}
	defer done()
	return m.attachPBD(c, ref)
}

// attachPBD attaches a repository to a host and finishes what was left there.
func (m *Manager) attachPBD(ctx context.Context, ref api.PBDRef) error {
	snap := m.cfg.DB.Snapshot()
	pbd, err := db.Get(snap, ref)
	if err != nil {
		return err
	}
	sr, err := db.Get(snap, pbd.SR)
	if err != nil {
		return err
	}
	d, err := driverOf(sr.Type)
	if err != nil {
		return err
	}
	if err := d.check(pbd.DeviceConfig); err != nil {
		return err
	}
	h, err := m.hostdOf(pbd.Host)
	if err != nil {
		return err
	}
	found, err := h.AttachRepository(ctx, sr.UUID, d.repository(pbd.DeviceConfig))
	if err != nil {
		return place{sr: pbd.SR}.failed(err)
	}
	if found.Problem != "" {
		m.cfg.Log.Warn("repository-problem", "repository", sr.UUID, "problem", found.Problem)
	}
	fctx, cancel := finishing(ctx)
	defer cancel()
	err = m.cfg.DB.Update(fctx, func(tx *db.Tx) error {
		p, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		p.CurrentlyAttached, p.OtherConfig = true, amend(p.OtherConfig, pluggedKey, "true")
		return nil
	})
	if err != nil {
		return errors.Join(err, h.DetachRepository(fctx, sr.UUID))
	}
	at := repository{ref: pbd.SR, uuid: sr.UUID, kind: sr.Type, host: pbd.Host, hostd: h}
	m.repair(ctx, at)
	if err := m.look(ctx, pbd.SR); err != nil {
		m.cfg.Log.Warn("repository-scan", "repository", sr.UUID, "err", err)
	}
	return nil
}

func (m *Manager) unplug(c *api.Call, ref api.PBDRef) error {
	snap := m.cfg.DB.Snapshot()
	pbd, err := db.Get(snap, ref)
	if err != nil || !pbd.CurrentlyAttached {
		return err
	}
	done, err := m.holdSR(c, pbd.SR, api.StorageOperationsUnplug)
	if err != nil {
		return err
	}
	defer done()
	release, err := m.enterAll(c, pbd.SR)
	if err != nil {
		return err
	}
	defer release()
	if err := idleOn(m.cfg.DB.Snapshot(), pbd); err != nil {
		return err
	}
	sr, err := db.Get(snap, pbd.SR)
	if err != nil {
		return err
	}
	h, err := m.hostdOf(pbd.Host)
	if err != nil {
		return err
	}
	if err := h.DetachRepository(c, sr.UUID); err != nil {
		return place{sr: pbd.SR}.failed(err)
	}
	ctx, cancel := finishing(c)
	defer cancel()
	return db.Modify(ctx, m.cfg.DB, ref, func(_ *db.Tx, p *api.PBD) error {
		p.CurrentlyAttached, p.OtherConfig = false, amend(p.OtherConfig, pluggedKey, "")
		return nil
	})
}

// idleOn refuses to take a repository from a host whose machines use its disks.
func idleOn(r db.Reader, pbd *api.PBD) error {
	for ref, disk := range disks(r, pbd.SR) {
		for task, op := range disk.CurrentOperations {
			return api.ErrOtherOperationInProgress("VDI", ref.String(), string(op), task)
		}
		if users(disk)[pbd.Host] != "" {
			return api.ErrVDIInUse(ref.String(), "detach")
		}
		for _, v := range disk.VBDs {
			b, err := db.Get(r, v)
			if err != nil || !b.CurrentlyAttached {
				continue
			}
			if vm, err := db.Get(r, b.VM); err == nil && vm.ResidentOn == pbd.Host {
				return api.ErrVDIInUse(ref.String(), "detach")
			}
		}
	}
	return nil
}

// enterAll holds all trees of a repository.
func (m *Manager) enterAll(ctx context.Context, sr api.SRRef) (release func(), err error) {
	var held []func()
	release = func() {
		for _, f := range held {
			f()
		}
	}
	for ref, disk := range disks(m.cfg.DB.Snapshot(), sr) {
		if disk.SMConfig[parentKey] != "" {
			continue
		}
		f, err := m.enter(ctx, ref)
		if err != nil {
			if ignoreGone(err) == nil {
				continue
			}
			release()
			return nil, err
		}
		held = append(held, f)
	}
	return release, nil
}

// again is how long a repository that could not be attached is left alone.
const again = 15 * time.Second

// reattach attaches what was attached before this process began. What cannot be
// reached now is tried again later; meanwhile its row says so.
func (m *Manager) reattach(ctx context.Context) error {
	for ref, pbd := range db.All[api.PBD](m.cfg.DB.Snapshot()) {
		if !pbd.CurrentlyAttached && pbd.OtherConfig[pluggedKey] == "" || m.cfg.Hostd(pbd.Host) == nil {
			continue
		}
		if err := m.tryAttach(ctx, ref); err != nil {
			return err
		}
	}
	return nil
}

// Lost says in the rows which repositories are attached no more, as after the host
// has started anew; Run attaches them. It belongs before the first request, which
// would else find repositories attached that are not.
func (m *Manager) Lost(ctx context.Context) error {
	snap := m.cfg.DB.Snapshot()
	for ref, pbd := range db.All[api.PBD](snap) {
		h, sr := m.cfg.Hostd(pbd.Host), repositoryOf(snap, pbd)
		if !pbd.CurrentlyAttached || h == nil || sr == nil {
			continue
		}
		var e *client.Error
		if _, err := h.Repository(ctx, sr.UUID); !errors.As(err, &e) || e.Code != client.CodeNotAttached {
			continue
		}
		if err := m.detachedButWanted(ctx, ref); err != nil {
			return err
		}
	}
	return nil
}

func repositoryOf(r db.Reader, pbd *api.PBD) *api.SR {
	sr, err := db.Get(r, pbd.SR)
	if err != nil {
		return nil
	}
	return sr
}

func (m *Manager) detachedButWanted(ctx context.Context, ref api.PBDRef) error {
	return ignoreGone(db.Modify(ctx, m.cfg.DB, ref, func(_ *db.Tx, p *api.PBD) error {
		p.CurrentlyAttached, p.OtherConfig = false, amend(p.OtherConfig, pluggedKey, "true")
		return nil
	}))
}

// tryAttach attaches one that is wanted.
func (m *Manager) tryAttach(ctx context.Context, ref api.PBDRef) error {
	err := m.attachPBD(ctx, ref)
	m.mu.Lock()
	if m.wanted[ref] = m.cfg.Now().Add(again); err == nil {
		delete(m.wanted, ref)
	}
	m.mu.Unlock()
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	m.cfg.Log.Warn("repository-not-attached", "pbd", ref, "err", err)
	return m.detachedButWanted(ctx, ref)
}

// retryWanted tries those whose time has come.
func (m *Manager) retryWanted(ctx context.Context) {
	now := m.cfg.Now()
	m.mu.Lock()
	var due []api.PBDRef
	for ref, at := range m.wanted {
		if !at.After(now) {
			due = append(due, ref)
		}
	}
	m.mu.Unlock()
	for _, ref := range due {
		pbd, err := db.Get(m.cfg.DB.Snapshot(), ref)
		if err != nil || pbd.CurrentlyAttached || pbd.OtherConfig[pluggedKey] == "" {
			m.mu.Lock()
			delete(m.wanted, ref)
			m.mu.Unlock()
			continue
		}
		if err := m.tryAttach(ctx, ref); err != nil {
			return
		}
	}
}
