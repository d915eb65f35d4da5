package repository

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"cairn/init/hostd/client"
)

// record is what an earlier hostd of this boot had attached, by UUID.
type record map[string]entry

type entry struct {
	Config client.RepositoryConfig `json:"config"`
	Active []string                `json:"active,omitempty"`
}

func (m *Manager) recorded() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.record))
}

// readRecord forgets what it cannot read: the toolstack attaches again what it
// needs, which harms nobody.
func (m *Manager) readRecord() record {
	r := record{}
	text, err := os.ReadFile(m.cfg.Record)
	if errors.Is(err, fs.ErrNotExist) {
		return r
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		m.cfg.Log.Error("repositories-forgotten", "file", m.cfg.Record, "err", err)
		return record{}
	}
	return r
}

// writeRecord needs m.mu. The file lives in memory: it must be whole, not durable.
func (m *Manager) writeRecord() error {
	text, err := json.Marshal(m.record)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.cfg.Record), 0o755); err != nil {
		return err
	}
	temp := m.cfg.Record + ".new"
	if err := os.WriteFile(temp, text, 0o600); err != nil {
		return fmt.Errorf("record of repositories: %w", err)
	}
	return os.Rename(temp, m.cfg.Record)
}

// active are the volumes of a repository that somebody has activated.
func (m *Manager) active(sr string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.record[sr].Active)
}

func (m *Manager) isActive(sr, name string) bool { return slices.Contains(m.active(sr), name) }

// setActive records that a volume is active, or is not any more.
func (m *Manager) setActive(sr, name string, active bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.record[sr]
	i := slices.Index(e.Active, name)
	switch {
	case active && i < 0:
		e.Active = append(slices.Clone(e.Active), name)
	case !active && i >= 0:
		e.Active = slices.Delete(slices.Clone(e.Active), i, i+1)
	default:
		return nil
	}
	m.record[sr] = e
	return m.writeRecord()
}
