package storage

import (
	"context"

	"cairn/init/hostd/client"
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
