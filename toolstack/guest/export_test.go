package guest

// Presence is what is known of the agent in a machine.
func (m *Manager) Presence(uuid string) Presence {
	w := m.watcherOf(uuid)
	if w == nil {
		return Unknown
	}
	return w.now()
}
