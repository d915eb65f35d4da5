package storage

import (
	"slices"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// registerSR binds the settings of repositories.
func (m *Manager) registerSR(r *api.Registry) {
	api.HandleSRSetNameLabel(r, set(m, func(_ *db.Tx, r *api.SR, value string) error { r.NameLabel = value; return nil }))
	api.HandleSRSetNameDescription(r, set(m, func(_ *db.Tx, r *api.SR, value string) error { r.NameDescription = value; return nil }))
	api.HandleSRSetShared(r, set(m, setShared))
	api.HandleSRSetPhysicalSize(r, set(m, size("physical_size", func(r *api.SR) *int64 { return &r.PhysicalSize })))
	api.HandleSRSetPhysicalUtilisation(r, set(m, size("physical_utilisation", func(r *api.SR) *int64 { return &r.PhysicalUtilisation })))
	api.HandleSRSetVirtualAllocation(r, set(m, size("virtual_allocation", func(r *api.SR) *int64 { return &r.VirtualAllocation })))
	api.HandleSRGetSupportedTypes(r, m.supportedTypes)
	api.HandleSRGetLiveHosts(r, m.liveHosts)

	api.HandleSRCreate(r, m.createSR)
	api.HandleSRIntroduce(r, m.introduceSR)
	api.HandleSRForget(r, m.forgetSR)
	api.HandleSRDestroy(r, m.destroySR)
	api.HandleSRScan(r, m.scan)
	api.HandleSRUpdate(r, m.updateSR)
	api.HandleSRProbe(r, m.probe)
	api.HandleSRProbeExt(r, m.probeExt)
	api.HandleSRAssertCanHostHAStatefile(r, m.canHostStatefile)
}

// setShared: what several hosts are attached to is shared.
func setShared(_ *db.Tx, r *api.SR, value bool) error {
	if !value && len(r.PBDs) > 1 {
		return api.ErrSRHasMultiplePbds(r.PBDs[0].String())
	}
	r.Shared = value
	return nil
}

// size keeps a number of bytes.
func size[T any](field string, at func(*T) *int64) func(*db.Tx, *T, int64) error {
	return func(_ *db.Tx, r *T, value int64) error {
		if value < 0 {
			return api.ErrInvalidValue(field, strconv.FormatInt(value, 10))
		}
		*at(r) = value
		return nil
	}
}

// supportedTypes are those that a storage driver is there for.
func (m *Manager) supportedTypes(*api.Call) ([]string, error) {
	types := []string{}
	for _, driver := range db.All[api.SM](m.cfg.DB.Snapshot()) {
		types = append(types, driver.Type)
	}
	slices.Sort(types)
	return slices.Compact(types), nil
}

// liveHosts are hosts that live and have the repository attached.
func (m *Manager) liveHosts(_ *api.Call, ref api.SRRef) ([]api.HostRef, error) {
	snap := m.cfg.DB.Snapshot()
	r, err := db.Get(snap, ref)
	if err != nil {
		return nil, err
	}
	hosts := []api.HostRef{}
	for _, pbd := range r.PBDs {
		p, err := db.Get(snap, pbd)
		if err != nil || !p.CurrentlyAttached {
			continue
		}
		h, err := db.Get(snap, p.Host)
		if err != nil || !h.Enabled {
			continue
		}
		if metrics, err := db.Get(snap, h.Metrics); err == nil && metrics.Live {
			hosts = append(hosts, p.Host)
		}
	}
	return hosts, nil
}
