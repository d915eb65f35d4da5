package host

import (
	"context"
	"errors"
	"slices"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// SweepLogs removes the logs of guests that are no more: of those whose VM is gone,
// and that do not run for all that. What files there are is asked first, so that a
// VM made meanwhile keeps its own.
func (m *Manager) SweepLogs(ctx context.Context) error {
	guests, err := m.cfg.Hostd.GuestLogs(ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, vm := range db.All[api.VM](m.cfg.DB.Snapshot()) {
		known[vm.UUID] = true
	}
	guests = slices.DeleteFunc(guests, func(uuid string) bool { return known[uuid] })
	if len(guests) == 0 {
		return nil
	}
	domains, err := m.cfg.Hypervisor.List(ctx)
	if err != nil {
		return err
	}
	for _, uuid := range guests {
		if slices.ContainsFunc(domains, func(d hypervisor.Domain) bool { return d.UUID == uuid }) {
			continue
		}
		err = errors.Join(err, m.cfg.Hostd.DeleteGuestLogs(ctx, uuid))
	}
	return err
}
