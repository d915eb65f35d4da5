package memory

import (
	"slices"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Register binds what asks for a host's memory.
func (m *Manager) Register(r *api.Registry) {
	api.HandleHostComputeFreeMemory(r, m.computeFree)
	api.HandleHostGetUncooperativeResidentVMs(r, m.uncooperative)
}

// computeFree is what a VM to come may have: after all others have given what they
// can, as in the reference implementation.
func (m *Manager) computeFree(_ *api.Call, host api.HostRef) (int64, error) {
	s := m.cfg.DB.Snapshot()
	if _, err := db.Get(s, host); err != nil {
		return 0, err
	}
	if m.accounts[host] == nil {
		return 0, api.ErrHostOffline(host.String())
	}
	return max(m.Rooms(s, "")[host].Most, 0), nil
}

// uncooperative lists the guests of a host that do not do what their balloon is told.
func (m *Manager) uncooperative(_ *api.Call, host api.HostRef) ([]api.VMRef, error) {
	h, err := db.Get(m.cfg.DB.Snapshot(), host)
	if err != nil {
		return nil, err
	}
	stuck := []api.VMRef{}
	for _, vm := range h.ResidentVMs {
		if !m.Cooperative(vm) {
			stuck = append(stuck, vm)
		}
	}
	slices.SortFunc(stuck, func(a, b api.VMRef) int { return strings.Compare(string(a), string(b)) })
	return stuck, nil
}
