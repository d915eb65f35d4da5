package storage

import (
	"context"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
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
