package host

import (
	_ "embed" // the list of time zones
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // the image carries no zone files

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// timezones are the names of the zones that time/tzdata knows, sorted; that
// package has no way to list them.
//
//go:embed timezones.txt
var timezones string

func zones() []string { return strings.Fields(timezones) }

// registerClock binds what tells the time. The host itself, its logs and all
// times in records keep UTC; a zone is how its local time is told.
func (m *Manager) registerClock(r *api.Registry) {
	api.HandleHostGetServertime(r, func(_ *api.Call, ref api.HostRef) (time.Time, error) {
		return m.cfg.Now().UTC(), m.isThis(ref)
	})
	api.HandleHostGetServerLocaltime(r, m.localTime)
	api.HandleHostListTimezones(r, func(_ *api.Call, ref api.HostRef) ([]string, error) {
		return zones(), m.isThis(ref)
	})
	api.HandleHostSetTimezone(r, func(c *api.Call, ref api.HostRef, zone string) error {
		if _, known := slices.BinarySearch(zones(), zone); !known {
			return api.ErrInvalidValue("timezone", zone)
		}
		return m.edit(c, ref, func(h *api.Host) error { h.Timezone = zone; return nil })
	})
}

// localTime is the wall clock's reading, which this API sends without a zone.
func (m *Manager) localTime(_ *api.Call, ref api.HostRef) (time.Time, error) {
	if err := m.isThis(ref); err != nil {
		return time.Time{}, err
	}
	h, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return time.Time{}, err
	}
	zone, err := time.LoadLocation(h.Timezone)
	if err != nil {
		zone = time.UTC
	}
	now := m.cfg.Now().In(zone)
	return time.Date(now.Year(), now.Month(), now.Day(), now.Hour(), now.Minute(), now.Second(), 0, time.UTC), nil
}
