package main

import (
	"context"
	"fmt"
	"path/filepath"

	"cairn/toolstack/db"
	"cairn/toolstack/db/etcd"
)

// openEngine opens what keeps the database.
func openEngine(ctx context.Context, cfg config) (db.Engine, error) {
	switch cfg.engine {
	case "memory":
		return db.NewMemory(), nil
	case "etcd":
		e, err := etcd.Open(ctx, etcd.Config{Dir: filepath.Join(cfg.state, "db"), Log: cfg.log.With("component", "etcd")})
		if err != nil {
			return nil, fmt.Errorf("database: %w", err)
		}
		return e, nil
	default:
		return nil, fmt.Errorf("database engine %q is unknown", cfg.engine)
	}
}
