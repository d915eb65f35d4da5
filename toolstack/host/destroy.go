package host

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// destroy forgets a host that is gone for good, and what belongs to it alone. A
// host that lives is ejected instead; one that VMs are recorded on may still run
// them.
func (m *Manager) destroy(c *api.Call, ref api.HostRef) error {
	return m.cfg.DB.Update(c, func(tx *db.Tx) error {
		h, err := db.Get(tx, ref)
		if err != nil {
			return err
		}
		metrics, err := db.Get(tx, h.Metrics)
		if ref == m.Ref() || err == nil && metrics.Live {
			return api.ErrHostIsLive(ref.String())
		}
		for _, vm := range h.ResidentVMs {
			if v, err := db.Get(tx, vm); err == nil && !v.IsControlDomain {
				return api.ErrHostHasResidentVMs(ref.String())
			}
		}
		return forget(tx, ref, h)
	})
}

// forget deletes a host's row and those that would mean nothing without it.
func forget(tx *db.Tx, ref api.HostRef, h *api.Host) error {
	d := deleter{tx: tx}
	remove(&d, h.Metrics)
	for _, cpu := range h.HostCPUs {
		remove(&d, cpu)
	}
	for _, pif := range h.PIFs {
		if p, err := db.Get(tx, pif); err == nil {
			remove(&d, p.Metrics)
		}
		remove(&d, pif)
	}
	for _, pbd := range h.PBDs {
		remove(&d, pbd)
	}
	for _, certificate := range h.Certificates {
		remove(&d, certificate)
	}
	if vm, err := db.Get(tx, h.ControlDomain); err == nil {
		remove(&d, vm.Metrics)
		for _, console := range vm.Consoles {
			remove(&d, console)
		}
		remove(&d, h.ControlDomain)
	}
	remove(&d, ref)
	return d.err
}

// deleter deletes rows until one cannot be.
type deleter struct {
	tx  *db.Tx
	err error
}

func remove[T any, P api.RecordPtr[T]](d *deleter, ref api.Ref[T]) {
	if _, err := db.Get[T, P](d.tx, ref); err != nil || d.err != nil {
		return
	}
	d.err = db.Delete[T, P](d.tx, ref)
}
