package storage

import (
	"context"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/storage/changes"
)

// DriverConfig is what hostd is told of a repository.
func DriverConfig(kind string, device map[string]string) client.RepositoryConfig {
	d, err := driverOf(kind)
	if err != nil {
		panic(err)
	}
	return d.repository(device)
}

// Begin makes the repository a host begins with, as Run does.
func (m *Manager) Begin(ctx context.Context) { m.begin(ctx) }

// SweepLogs removes logs of nobody, as Run does.
func (m *Manager) SweepLogs(ctx context.Context, sr api.SRRef) error {
	at, err := m.reach(m.cfg.DB.Snapshot(), sr, "")
	if err != nil {
		return err
	}
	return m.sweepLogs(ctx, at)
}

// Resize is VDI.resize.
func (m *Manager) Resize(ctx context.Context, vdi api.VDIRef, size int64) error {
	return m.resize(ctx, vdi, size, api.VDIOperationsResize, "")
}

// Track is VDI.enable_cbt and VDI.disable_cbt.
func (m *Manager) Track(ctx context.Context, vdi api.VDIRef, on bool) error {
	return m.track(ctx, vdi, on, "")
}

// DataDestroy is VDI.data_destroy.
func (m *Manager) DataDestroy(ctx context.Context, vdi api.VDIRef) error {
	return m.dataDestroy(ctx, vdi, "")
}

// ListChangedBlocks is VDI.list_changed_blocks.
func (m *Manager) ListChangedBlocks(ctx context.Context, from, to api.VDIRef) (*changes.Map, error) {
	return m.listChanged(ctx, from, to, "")
}
