package vm

import (
	"context"
	"errors"
	"time"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
)

// Names of alerts.
const (
	alertCrashed  = "VM_CRASHED"
	alertShutdown = "VM_SHUTDOWN"
	alertAlarm    = "ALARM"
)

// raise tells operators of something about a VM.
func (m *Manager) raise(ctx context.Context, name string, vm *api.VM, body string) {
	if m.cfg.Alerts == nil {
		return
	}
	if _, err := m.cfg.Alerts.Raise(ctx, name, api.ClsVM, vm.UUID, body); err != nil {
		m.cfg.Log.Warn("alert-failed", "name", name, "uuid", vm.UUID, "err", err)
	}
}

// Hostd is what this package asks of its own host's.
type Hostd interface {
	OutOfMemory(ctx context.Context) (client.OutOfMemory, error)
}

// byOutOfMemory: the kernel killed the emulator for lack of memory. The hypervisor
// sees a crash, or nothing when the toolstack was down meanwhile.
const byOutOfMemory hypervisor.Reason = "out-of-memory"

// explainLimit bounds the question why, which everything else waits for.
const explainLimit = 5 * time.Second

// explained finds out whether it was the kernel that ended a domain. A kill of
// before the VM's start is of an earlier life.
func (m *Manager) explained(ctx context.Context, vm *api.VM, why hypervisor.Reason) hypervisor.Reason {
	if m.cfg.Hostd == nil || why != hypervisor.ByCrash && why != "" || vm.ResidentOn != m.cfg.Host.Ref() {
		return why
	}
	ctx, cancel := context.WithTimeout(ctx, explainLimit)
	defer cancel()
	found, err := m.cfg.Hostd.OutOfMemory(ctx)
	if err != nil {
		m.cfg.Log.Warn("out-of-memory-unknown", "uuid", vm.UUID, "err", err)
		return why
	}
	uptime := m.uptime(vm)
	for _, k := range found.Kills {
		if k.Guest == vm.UUID && k.Ago <= uptime {
			m.cfg.Log.Warn("vm-out-of-memory", "uuid", vm.UUID, "pid", k.PID, "ago", k.Ago.Round(time.Millisecond))
			return byOutOfMemory
		}
	}
	return why
}

// tellEnd tells of an end that nobody asked for.
func (m *Manager) tellEnd(ctx context.Context, vm *api.VM, why hypervisor.Reason) {
	switch why {
	case hypervisor.ByCrash:
		m.raise(ctx, alertCrashed, vm, "VM '"+vm.NameLabel+"' has crashed: its guest failed, or its emulator died")
	case byOutOfMemory:
		m.raise(ctx, alertCrashed, vm, "VM '"+vm.NameLabel+"' has crashed: out of memory, the host's kernel killed its emulator")
	case hypervisor.ByGuest:
		m.raise(ctx, alertShutdown, vm, "VM '"+vm.NameLabel+"' has powered itself off")
	}
}

// spaceRetry: an attempt repeats the write that failed, so it is the one sure way
// to know whether there is space again. Each costs clients two changes of the power
// state, so attempts that fail become rare, up to mostRetries times as rare.
const (
	spaceRetry  = 5 * time.Second
	mostRetries = 6
)

// attempt is when a failed write is to be repeated, and how long was waited for it.
type attempt struct {
	next  time.Time
	pause time.Duration
}

// watchSpace tells once that a guest was paused because a disk could not be
// written, and lets it go on as soon as that works.
func (m *Manager) watchSpace(ctx context.Context, vm *api.VM, d located) error {
	last, known := m.starved[vm.UUID]
	now := time.Now()
	switch {
	case !d.IOError && known && now.After(last.next):
		delete(m.starved, vm.UUID) // it has written since the last attempt
		return nil
	case !d.IOError, known && now.Before(last.next):
		return nil
	}
	pause := m.cfg.SpaceRetry
	if known {
		pause = min(2*last.pause, mostRetries*pause)
	}
	m.starved[vm.UUID] = attempt{now.Add(pause), pause}
	m.again(ctx, pause)
	if known {
		return m.goOn(ctx, d)
	}
	m.cfg.Log.Warn("vm-io-error", "uuid", vm.UUID)
	m.raise(ctx, alertAlarm, vm, "VM '"+vm.NameLabel+
		"' is paused: its disk could not be written, as a rule because its storage is full. It goes on once there is space")
	return nil
}

// goOn lets a guest run again that nobody paused, as to repeat a write.
func (m *Manager) goOn(ctx context.Context, d located) error {
	err := d.site.Hypervisor.Resume(ctx, d.UUID)
	if errors.Is(err, hypervisor.ErrNotFound) || errors.Is(err, hypervisor.ErrBadState) {
		return nil // somebody was faster
	}
	return err
}

// again wakes the reconciler after a while.
func (m *Manager) again(ctx context.Context, after time.Duration) {
	t := time.AfterFunc(after, m.poke)
	context.AfterFunc(ctx, func() { t.Stop() })
}
