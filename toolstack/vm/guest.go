package vm

import (
	"context"
	"errors"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/guest"
	"cairn/toolstack/guest/qga"
)

// Guests are the agents inside machines, by the machine's uuid. All errors say that the
// guest was not asked, or has refused.
type Guests interface {
	// PowerOff asks a guest to end, which it may or may not do.
	PowerOff(ctx context.Context, uuid string) error
	// CanFreeze reports why a guest cannot be brought to rest.
	CanFreeze(uuid string) error
	// Freeze brings a guest's file systems to rest until Thaw, or until a limit.
	Freeze(ctx context.Context, uuid string) error
	// Thaw lets a guest go on. An error says that it may have gone on before.
	Thaw(ctx context.Context, uuid string) error
}

// noGuests is for hosts where nobody talks to agents.
type noGuests struct{}

func (noGuests) PowerOff(context.Context, string) error { return guest.ErrAbsent }
func (noGuests) CanFreeze(string) error                 { return guest.ErrAbsent }
func (noGuests) Freeze(context.Context, string) error   { return guest.ErrAbsent }
func (noGuests) Thaw(context.Context, string) error     { return guest.ErrAbsent }

// button is what a guest is asked to end by: its agent, as soon as one answers, and the
// power button else and from then on, for an agent may agree and do nothing.
func (m *Manager) button(ctx context.Context, o *running) func() error {
	agreed := false
	return func() error {
		if !agreed {
			err := m.cfg.Guests.PowerOff(ctx, o.uuid)
			if agreed = err == nil; agreed {
				m.cfg.Log.Info("vm-agent-asked", "uuid", o.uuid, "for", o.op)
				return nil
			}
			if !errors.Is(err, guest.ErrAbsent) {
				m.cfg.Log.Warn("vm-agent-power-off", "uuid", o.uuid, "err", err)
			}
		}
		return o.site.Hypervisor.Shutdown(ctx, o.uuid)
	}
}

// recordGuest gives a machine that starts the row of what its guest will tell.
func recordGuest(tx *db.Tx, vm *api.VM) {
	fresh := api.NewVMGuestMetrics()
	fresh.LastUpdated = time.Now().UTC().Truncate(time.Second)
	if row, err := db.Edit(tx, vm.GuestMetrics); err == nil {
		fresh.UUID, fresh.OtherConfig = row.UUID, row.OtherConfig
		*row = *fresh
		return
	}
	fresh.UUID = api.NewUUID()
	vm.GuestMetrics = db.Insert(tx, fresh)
}

// quiesced: the guest wrote out all it had, and held still.
const quiesced = "quiesced"

// snapshotWithQuiesce is a snapshot of disks that the guest has brought to rest. Whether
// it can is known before anything begins.
func (m *Manager) snapshotWithQuiesce(c *api.Call, ref api.VMRef, name string) (api.VMRef, error) {
	o, err := m.begin(c, ref, api.VMOperationsSnapshotWithQuiesce, func(_ *db.Tx, vm *api.VM) error {
		if err := m.cfg.Guests.CanFreeze(vm.UUID); err != nil {
			return api.ErrVMSnapshotWithQuiesceNotSupported(ref.String(), err.Error())
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	rest := &rest{m: m, o: o}
	return m.snapshotWith(c, o, snapshotOf{name: name, kind: quiesced}, nil, rest)
}

// rest is a guest's while it holds still, around the instant of a snapshot.
type rest struct {
	m     *Manager
	o     *running
	thawn error // why the guest may not have held still until the end
}

// during freezes the guest, and thaws it whatever becomes of step and of the caller. A
// guest that went on too early is no reason to undo the step: that is up to check.
func (r *rest) during(ctx context.Context, step func() error) error {
	if r == nil {
		return step()
	}
	if err := r.m.cfg.Guests.Freeze(ctx, r.o.uuid); err != nil {
		r.m.cfg.Log.Warn("vm-freeze", "uuid", r.o.uuid, "err", err)
		return quiesceError(r.o.vm, err)
	}
	defer func() {
		ctx, cancel := finishing(ctx)
		defer cancel()
		if r.thawn = r.m.cfg.Guests.Thaw(ctx, r.o.uuid); r.thawn != nil {
			r.m.cfg.Log.Warn("vm-thaw", "uuid", r.o.uuid, "err", r.thawn)
		}
	}()
	return step()
}

// check says whether the guest held still all the while.
func (r *rest) check() error {
	if r == nil || r.thawn == nil {
		return nil
	}
	return quiesceError(r.o.vm, r.thawn)
}

// quiesceError is why there is no snapshot of a guest at rest.
func quiesceError(ref api.VMRef, err error) error {
	vm := ref.String()
	switch {
	case errors.Is(err, guest.ErrUnsupported):
		return api.ErrVMSnapshotWithQuiesceNotSupported(vm, err.Error())
	case errors.Is(err, guest.ErrThawed):
		return api.ErrVMSnapshotWithQuiesceTimeout(vm)
	case errors.Is(err, guest.ErrAbsent), errors.Is(err, qga.ErrSilent), errors.Is(err, qga.ErrClosed):
		return api.ErrVMSnapshotWithQuiescePluginDeosNotRespond(vm)
	default:
		return api.ErrVMSnapshotWithQuiesceFailed(vm)
	}
}
