package metrics

import (
	"strconv"
	"time"

	"cairn/toolstack/api"
)

// saveDue writes those that were not written for long, a few at a time, and now and then
// removes what is kept of the dead.
func (m *Manager) saveDue(now time.Time) {
	due := m.due(now)
	for _, o := range due {
		m.save(o)
	}
	if now.Sub(m.swept) >= saveEvery {
		m.swept = now
		m.store.sweep(m.exists)
		m.prune()
	}
}

// prune forgets figures of devices and repositories that have been gone for long.
func (m *Manager) prune() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.series {
		here := map[string]bool{}
		for _, f := range s.now {
			here[f.name] = true
		}
		s.db.Prune(func(name string) bool { return here[name] })
	}
}

// backup serves host.backup_rrds: all is written now, or a little later.
func (m *Manager) backup(c *api.Call, host api.HostRef, delay float64) error {
	if _, err := m.hostOwner(host); err != nil {
		return err
	}
	if !(delay >= 0 && delay <= saveEvery.Seconds()) {
		return api.ErrInvalidValue("delay", strconv.FormatFloat(delay, 'g', -1, 64))
	}
	select {
	case <-time.After(time.Duration(delay * float64(time.Second))):
	case <-c.Done():
		return c.Err()
	}
	m.SaveAll()
	return nil
}

func (m *Manager) due(now time.Time) (due []Owner) {
	for _, o := range m.owners() {
		m.mu.Lock()
		s := m.series[o]
		is := s != nil && s.dirty && (now.Sub(s.saved) >= saveEvery || s.saved.Sub(now) > leap)
		if is {
			s.saved = now
		}
		m.mu.Unlock()
		if is {
			due = append(due, o)
		}
		if len(due) == saveAtOnce {
			break
		}
	}
	return due
}

// SaveAll writes all that is not on disk yet.
func (m *Manager) SaveAll() {
	for _, o := range m.owners() {
		m.save(o)
	}
}

// save writes one. Figures go on while it is written.
func (m *Manager) save(o Owner) {
	m.mu.Lock()
	s := m.series[o]
	if s == nil || !s.dirty {
		m.mu.Unlock()
		return
	}
	copied, h := s.db.Clone(), head{Chosen: s.choices()}
	s.dirty = false
	m.mu.Unlock()
	err := m.store.save(o, h, copied)
	m.trouble("disk", err)
	if err != nil {
		m.mu.Lock()
		s.dirty = true
		m.mu.Unlock()
	}
}

// exists reports whether an owner still has a row.
func (m *Manager) exists(o Owner) bool {
	class := o.class()
	return class != nil && m.cfg.DB.Snapshot().RefByUUID(class, o.UUID) != ""
}
