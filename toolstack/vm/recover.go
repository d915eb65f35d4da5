package vm

import (
	"context"
	"fmt"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
)

// Recover takes note of what a former process left and empties current_operations.
// It belongs before the first request: from then on what is in there is this
// process's own. Run does it where nobody has.
func (m *Manager) Recover(ctx context.Context) error {
	m.mu.Lock()
	done := m.recovered
	m.recovered = true
	m.mu.Unlock()
	if done {
		return nil
	}
	if err := m.recoverOperations(ctx); err != nil {
		return fmt.Errorf("recover operations: %w", err)
	}
	m.recoverNVRAM(ctx)
	return nil
}

// sight says that rows have been compared with domains.
func (m *Manager) sight() {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.sighted:
	default:
		close(m.sighted)
	}
}

// sightLimit bounds how long a start waits for the first look at the domains.
const sightLimit = time.Minute

// awaitSight keeps operations that make domains until the rows say what a former
// process has left: a domain that it made and did not record, a disk it plugged. To
// their rows those disks look free.
func (m *Manager) awaitSight(ctx context.Context, op api.VMOperations) error {
	if !makesDomain[op] && op != api.VMOperationsCleanReboot && op != api.VMOperationsHardReboot {
		return nil
	}
	m.mu.Lock()
	runs := m.recovered
	m.mu.Unlock()
	if !runs {
		return nil // nobody looks
	}
	limit := time.NewTimer(sightLimit)
	defer limit.Stop()
	select {
	case <-m.sighted:
		return nil
	case <-limit.C:
		return hypervisor.ErrUnavailable
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
