package storage

import "cairn/init/hostd/client"

// DriverConfig is what hostd is told of a repository.
func DriverConfig(kind string, device map[string]string) client.RepositoryConfig {
	d, err := driverOf(kind)
	if err != nil {
		panic(err)
	}
	return d.repository(device)
}
