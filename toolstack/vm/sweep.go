package vm

import (
	"context"
	"errors"
	"strings"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
	"cairn/toolstack/storage"
)

// sweepInterval paces attempts to destroy what cannot be destroyed now.
const sweepInterval = 5 * time.Second

func (m *Manager) sweepSoon() {
	select {
	case m.jobEnded <- struct{}{}:
	default:
	}
}

// sweepMeanwhile runs the sweeper until the function it returns is called.
func (m *Manager) sweepMeanwhile(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); m.sweeper(ctx) }()
	return func() { cancel(); <-ended }
}

// sweeper destroys disks that belong to nobody, until the context ends.
func (m *Manager) sweeper(ctx context.Context) {
	if m.cfg.Disks == nil {
		return
	}
	class := api.ClassOf[api.VDI]()
	w := m.cfg.DB.WatchSince(m.cfg.DB.Snapshot().Generation(), func(ch *db.Change) bool { return ch.Class == class })
	defer w.Close()
	left := m.sweepAll(ctx)
	for {
		var later <-chan time.Time
		if left {
			later = time.After(sweepInterval)
		}
		select {
		case <-w.C():
			snap, changes, ok := w.Next()
			if !ok {
				left = m.sweepAll(ctx)
				continue
			}
			for _, ch := range changes {
				ref := api.VDIRef(ch.Ref)
				if vdi, err := db.Get(snap, ref); err == nil {
					left = m.sweep(ctx, ref, vdi) || left
				}
			}
		case <-m.jobEnded:
			left = m.sweepAll(ctx)
		case <-later:
			left = m.sweepAll(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// sweepAll looks at every disk. It reports whether something is left that should
// not be.
func (m *Manager) sweepAll(ctx context.Context) (left bool) {
	for ref, vdi := range db.All[api.VDI](m.cfg.DB.Snapshot()) {
		left = m.sweep(ctx, ref, vdi) || left
	}
	return left
}

func (m *Manager) sweep(ctx context.Context, ref api.VDIRef, vdi *api.VDI) (left bool) {
	if !m.unclaimed(vdi) {
		return false
	}
	err := m.remove(ctx, ref)
	if err == nil || errors.Is(err, errClaimed) {
		return false
	}
	m.cfg.Log.Warn("disk-not-swept", "uuid", vdi.UUID, "err", err)
	return true
}

// unclaimed tells disks whose job is no more.
func (m *Manager) unclaimed(vdi *api.VDI) bool {
	text, marked := vdi.SMConfig[storage.MarkKey]
	if !marked || !vdi.Managed {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.jobs[text]
}

// errClaimed is a disk that somebody has taken.
var errClaimed = errors.New("the disk belongs to a machine")

// remove destroys a disk, unless somebody has put it to use: then it is theirs.
func (m *Manager) remove(ctx context.Context, ref api.VDIRef) error {
	err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		vdi, err := db.Get(tx, ref)
		if err != nil {
			return errClaimed
		}
		if len(vdi.VBDs) > 0 || operation.HoldsMemory(tx, ref, vdi) {
			return mark(tx, "", ref)
		}
		return nil
	})
	if err != nil {
		return err
	}
	vdi, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil || !m.unclaimed(vdi) {
		return errClaimed
	}
	if err := m.detach(ctx, ref); err != nil {
		return err
	}
	if err := m.cfg.Disks.Destroy(ctx, ref); err != nil {
		return err
	}
	m.cfg.Log.Info("disk-swept", "uuid", vdi.UUID)
	return nil
}

// detach takes a disk from all hosts.
func (m *Manager) detach(ctx context.Context, ref api.VDIRef) error {
	vdi, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return nil
	}
	for key := range vdi.SMConfig {
		if host, attached := strings.CutPrefix(key, "host_"); attached {
			if err := m.cfg.Disks.Detach(ctx, api.HostRef(host), ref); err != nil {
				return err
			}
		}
	}
	return nil
}
