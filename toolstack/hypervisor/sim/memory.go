package sim

import (
	"context"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/memory"
)

// refreshInterval is how late a host's free memory may be.
const refreshInterval = 5 * time.Second

// Run keeps the hosts' metrics true until the context ends.
func (p *Pool) Run(ctx context.Context, d *db.DB) error {
	ticker := time.NewTicker(refreshInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := p.Refresh(ctx, d); err != nil {
			return err
		}
	}
}

// Refresh writes what memory the hosts beside the own one have left, where that
// has changed.
func (p *Pool) Refresh(ctx context.Context, d *db.DB) error {
	stale := staleMetrics(d.Snapshot())
	if len(stale) == 0 {
		return nil
	}
	return d.Update(ctx, func(tx *db.Tx) error {
		for ref, free := range stale {
			m, err := db.Edit(tx, ref)
			if err != nil {
				return err
			}
			m.MemoryFree, m.LastUpdated = free, time.Now().UTC()
		}
		return nil
	})
}

func staleMetrics(s *db.Snapshot) map[api.HostMetricsRef]int64 {
	used := memory.HeldBy(s)
	stale := map[api.HostMetricsRef]int64{}
	for ref, h := range db.All[api.Host](s) {
		if h.OtherConfig[indexKey] == "0" {
			continue // the toolstack keeps its own host's
		}
		m, err := db.Get(s, h.Metrics)
		if free := max(hostMemory-reserve-used[ref], 0); err == nil && m.MemoryFree != free {
			stale[h.Metrics] = free
		}
	}
	return stale
}
