package storage

import (
	"context"
	"fmt"
	"time"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// fullAlert is the name of the alert for a repository without space.
const fullAlert = "SM_GC_NO_SPACE"

// after makes the figures of a repository and what is kept with its volumes true
// after an operation. That does not fail the operation.
func (m *Manager) after(ctx context.Context, at repository, refs ...api.VDIRef) {
	ctx, cancel := finishing(ctx)
	defer cancel()
	m.label(ctx, at.hostd, at.uuid, refs...)
	if err := m.measure(ctx, at, false); err != nil {
		m.cfg.Log.Warn("repository-figures", "repository", at.uuid, "err", err)
	}
	m.poke()
}

// measure writes how large a repository is and how full, and with volumes how much
// each of them takes.
func (m *Manager) measure(ctx context.Context, at repository, volumes bool) error {
	r, err := at.hostd.Repository(ctx, at.uuid)
	if err != nil {
		return err
	}
	used := map[string]int64{}
	if volumes {
		all, err := at.hostd.Volumes(ctx, at.uuid)
		if err != nil {
			return err
		}
		for _, v := range all {
			used[v.Name] = v.Used
		}
	}
	if err := m.recordFigures(ctx, at.ref, r, used); err != nil {
		return ignoreGone(err)
	}
	return m.watchSpace(ctx, at, r)
}

// recordFigures writes only what has changed.
func (m *Manager) recordFigures(ctx context.Context, ref api.SRRef, r client.Repository, used map[string]int64) error {
	snap := m.cfg.DB.Snapshot()
	sr, err := db.Get(snap, ref)
	if err != nil {
		return err
	}
	changed := map[api.VDIRef]int64{}
	for v, disk := range disks(snap, ref) {
		if now, known := used[disk.Location]; known && disk.PhysicalUtilisation != now {
			changed[v] = now
		}
	}
	if len(changed) == 0 && sr.PhysicalSize == r.Total && sr.PhysicalUtilisation == r.Used && sr.VirtualAllocation == allocation(snap, ref) {
		return nil
	}
	return db.Modify(ctx, m.cfg.DB, ref, func(tx *db.Tx, sr *api.SR) error {
		sr.PhysicalSize, sr.PhysicalUtilisation = r.Total, r.Used
		sr.VirtualAllocation = allocation(tx, ref)
		for v, now := range changed {
			if _, err := db.Get(tx, v); err != nil {
				continue
			}
			disk, err := db.Edit(tx, v)
			if err != nil {
				return err
			}
			disk.PhysicalUtilisation = now
		}
		return nil
	})
}

// allocation is what the disks of a repository may grow to.
func allocation(r db.Reader, ref api.SRRef) (sum int64) {
	for _, v := range disks(r, ref) {
		if v.Managed && v.Type != api.VDITypeCBTMetadata {
			sum += v.VirtualSize
		}
	}
	return sum
}

// A repository is full when less than a twentieth is left; it is no longer when a
// tenth is and has been for a while without anything that did not fit, so that the
// alert does not flutter: an import that fills it and fails leaves room behind, and
// the next one fills it again.
const (
	fullAt  = 20
	roomyAt = 10
	roomyIn = 10 * time.Minute
)

// watchSpace raises an alert once when a repository becomes full.
func (m *Manager) watchSpace(ctx context.Context, at repository, r client.Repository) error {
	if r.ReadOnly || r.Total == 0 || at.kind == client.TypeDummy {
		return nil
	}
	switch {
	case r.Free < r.Total/fullAt:
		return m.tellFull(ctx, at, fmt.Sprintf("%d of %d bytes are free", r.Free, r.Total))
	case r.Free > r.Total/roomyAt:
		m.mu.Lock()
		if m.cfg.Now().Sub(m.full[at.ref]) >= roomyIn {
			delete(m.full, at.ref)
		}
		m.mu.Unlock()
	}
	return nil
}

// noSpace tells of an operation that failed for lack of space.
func (m *Manager) noSpace(ctx context.Context, at repository, err error) {
	if !hasCode(err, client.CodeNoSpace) {
		return
	}
	if err := m.tellFull(ctx, at, err.Error()); err != nil {
		m.cfg.Log.Warn("alert", "name", fullAlert, "err", err)
	}
}

func (m *Manager) tellFull(ctx context.Context, at repository, why string) error {
	m.mu.Lock()
	_, told := m.full[at.ref]
	m.full[at.ref] = m.cfg.Now()
	m.mu.Unlock()
	if told || m.cfg.Alerts == nil {
		return nil
	}
	m.cfg.Log.Warn("repository-full", "repository", at.uuid, "why", why)
	_, err := m.cfg.Alerts.Raise(ctx, fullAlert, api.ClsSR, at.uuid, "The storage repository has no space left: "+why)
	return err
}
