package storage

import (
	"context"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// lookEvery is how often figures are read anew: volumes grow while guests write.
const lookEvery = 30 * time.Second

// repairRetry paces attempts to finish what could not be finished: hostd or libvirtd
// are back in a moment, as a rule.
const repairRetry = 2 * time.Second

// Run attaches what was attached, finishes what was left half done, and keeps
// figures true until the context ends.
func (m *Manager) Run(ctx context.Context) error {
	close(m.begun)
	if err := m.EnsureDrivers(ctx); err != nil {
		return err
	}
	if err := m.reattach(ctx); err != nil {
		return err
	}
	close(m.ready)
	m.begin(ctx)
	m.lookAtDrives(ctx)
	defer m.working.Wait()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		m.retryWanted(ctx)
		m.pokeWorkers(ctx)
		select {
		case <-m.wake:
			m.repairAll(ctx)
		case <-tick.C:
			m.lookAround(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lookAround reads figures of all repositories and finishes what could not be
// finished before.
func (m *Manager) lookAround(ctx context.Context) {
	m.begin(ctx)
	m.repairAll(ctx)
	m.lookAtDrives(ctx)
	for _, at := range m.attached() {
		if err := m.measure(ctx, at, true); err != nil && ctx.Err() == nil {
			m.cfg.Log.Warn("repository-figures", "repository", at.uuid, "err", err)
		}
		if err := m.sweepLogs(ctx, at); err != nil && ctx.Err() == nil {
			m.cfg.Log.Warn("repository-logs", "repository", at.uuid, "err", err)
		}
	}
}

func (m *Manager) repairAll(ctx context.Context) {
	for _, at := range m.attached() {
		m.repair(ctx, at)
	}
}

// attached are the repositories that can be reached.
func (m *Manager) attached() (all []repository) {
	snap := m.cfg.DB.Snapshot()
	for ref := range db.All[api.SR](snap) {
		if at, err := m.reach(snap, ref, ""); err == nil {
			all = append(all, at)
		}
	}
	return all
}

// repair settles open steps and removes garbage of one repository. What cannot be
// done now is tried again.
func (m *Manager) repair(ctx context.Context, at repository) {
	snap := m.cfg.DB.Snapshot()
	for uuid := range openSteps(snap, at.ref) {
		ref, err := db.ByUUID[api.VDI](snap, uuid)
		if err != nil {
			continue
		}
		if err := m.settleLater(ctx, at, ref); err != nil && ctx.Err() == nil {
			m.cfg.Log.Warn("step-open", "vdi", uuid, "err", err)
			m.pokeLater(ctx)
		}
	}
	// A layer goes before the one it is based on, so look again while it gets less.
	var err error
	for left := m.garbage(m.cfg.DB.Snapshot(), at.ref); len(left) > 0; {
		err = m.sweep(ctx, at, left...)
		now := m.garbage(m.cfg.DB.Snapshot(), at.ref)
		if len(now) == len(left) {
			break
		}
		left = now
	}
	if err == nil {
		return
	}
	if ctx.Err() == nil {
		m.cfg.Log.Warn("volume-left", "repository", at.uuid, "err", err)
		m.pokeLater(ctx)
	}
}

// pokeLater wakes Run after a while.
func (m *Manager) pokeLater(ctx context.Context) {
	t := time.AfterFunc(repairRetry, m.poke)
	context.AfterFunc(ctx, func() { t.Stop() })
}

// settleLater settles a step that nobody in this process is in: an operation or a
// coalesce that is under way settles its own.
func (m *Manager) settleLater(ctx context.Context, at repository, vdi api.VDIRef) error {
	_, release, alone := m.gate.claim(ctx, vdi)
	if !alone {
		return nil
	}
	defer release()
	return m.settle(ctx, at, vdi)
}

// Recover attaches what was attached and settles what a former process left.
func (m *Manager) Recover(ctx context.Context) error { return m.reattach(ctx) }
