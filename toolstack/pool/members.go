package pool

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// registerMembers binds what is about the hosts of a pool and their master.
func (m *Manager) registerMembers(r *api.Registry) {
	api.HandlePoolDesignateNewMaster(r, m.designate)
	api.HandlePoolRecoverSlaves(r, m.recoverSlaves)
	api.HandlePoolIsSlave(r, func(_ *api.Call, ref api.HostRef) (bool, error) {
		snap := m.cfg.DB.Snapshot()
		_, p, err := the(snap)
		if err != nil {
			return false, err
		}
		_, err = db.Get(snap, ref)
		return ref != p.Master, err
	})
}

// designate makes a host the master. To be so already is all that is asked of a
// pool of one; hand-over between hosts is not built.
func (m *Manager) designate(c *api.Call, ref api.HostRef) error {
	snap := m.cfg.DB.Snapshot()
	_, p, err := the(snap)
	if err != nil {
		return err
	}
	if _, err := db.Get(snap, ref); err != nil {
		return err
	}
	switch {
	case p.HAEnabled:
		return api.ErrHAIsEnabled()
	case ref != p.Master:
		return api.ErrNotImplemented(c.Message.Method)
	}
	return nil
}

// recoverSlaves tells members that have lost their master who it is, and answers
// which were reached: of a pool of one, none.
func (m *Manager) recoverSlaves(c *api.Call) ([]api.HostRef, error) {
	if !alone(m.cfg.DB.Snapshot()) {
		return nil, api.ErrNotImplemented(c.Message.Method)
	}
	return []api.HostRef{}, nil
}

// alone reports whether the pool has one host.
func alone(r db.Reader) bool {
	hosts := 0
	for range db.All[api.Host](r) {
		hosts++
	}
	return hosts <= 1
}
