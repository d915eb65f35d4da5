package host

import (
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// registerEvacuation binds what asks whether a host can be emptied. Nothing moves
// a running VM yet, so every VM on a host keeps it from being emptied, and a host
// without any is empty already.
func (m *Manager) registerEvacuation(r *api.Registry) {
	api.HandleHostGetVMsWhichPreventEvacuation(r, func(_ *api.Call, ref api.HostRef) (map[api.VMRef][]string, error) {
		return impediments(m.cfg.DB.Snapshot(), ref)
	})
	api.HandleHostAssertCanEvacuate(r, func(_ *api.Call, ref api.HostRef) error { return m.assertCanEvacuate(ref) })
	api.HandleHostEvacuate(r, func(_ *api.Call, ref api.HostRef, network api.NetworkRef, _ int64) error {
		if !network.IsNull() {
			if _, err := db.Get(m.cfg.DB.Snapshot(), network); err != nil {
				return err
			}
		}
		return m.assertCanEvacuate(ref)
	})
}

// impediments says for each VM on a host why it cannot move, as code and
// parameters of an error.
func impediments(r db.Reader, ref api.HostRef) (map[api.VMRef][]string, error) {
	h, err := db.Get(r, ref)
	if err != nil {
		return nil, err
	}
	why := api.ErrNoHostsAvailable()
	if elsewhere(r, ref) {
		why = api.ErrNotImplemented("VM.pool_migrate")
	}
	found := map[api.VMRef][]string{}
	for _, vm := range h.ResidentVMs {
		if v, err := db.Get(r, vm); err == nil && !v.IsControlDomain {
			found[vm] = append([]string{why.Code}, why.Params...)
		}
	}
	return found, nil
}

// elsewhere reports whether another host takes VMs.
func elsewhere(r db.Reader, ref api.HostRef) bool {
	for other, h := range db.All[api.Host](r) {
		if other != ref && h.Enabled {
			return true
		}
	}
	return false
}

func (m *Manager) assertCanEvacuate(ref api.HostRef) error {
	found, err := impediments(m.cfg.DB.Snapshot(), ref)
	if err != nil || len(found) == 0 {
		return err
	}
	seen := map[string]bool{}
	var all []string
	for _, why := range found {
		if text := strings.Join(why, ","); !seen[text] {
			seen[text] = true
			all = append(all, text)
		}
	}
	return api.ErrCannotEvacuateHost(strings.Join(all, "|"))
}
