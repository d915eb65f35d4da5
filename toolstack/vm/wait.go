package vm

import (
	"context"
	"errors"
	"time"

	"cairn/toolstack/api"
)

// patience is how long a VM waits for what others do with its disks: a copy of a disk
// for another copy of it, which a VM may have side by side and a disk one after
// another; a VM that sleeps for a checkpoint or is between the two halves of a reboot
// for a snapshot, which takes a moment.
const patience = time.Minute

// whenFree repeats a step after each change of the rows, while an operation of
// another object stands in its way; one of the VM itself is an answer. What stood there last is the answer when patience
// ends; the end of ctx is its cause.
func (m *Manager) whenFree(ctx context.Context, step func() error) error {
	w := m.cfg.DB.WatchSince(m.cfg.DB.Snapshot().Generation(), nil)
	defer w.Close()
	limit, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_ = m.cfg.Sleep(limit, patience)
		cancel()
	}()
	for {
		w.Next() // what changes from here on is waited for
		err := step()
		if !others(err) {
			return err
		}
		select {
		case <-w.C():
		case <-limit.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
}

// others tells that an operation of another object than a VM stands in the way.
func others(err error) bool {
	var refused *api.Error
	return errors.As(err, &refused) && refused.Code == api.CodeOtherOperationInProgress &&
		(len(refused.Params) == 0 || refused.Params[0] != "VM")
}
