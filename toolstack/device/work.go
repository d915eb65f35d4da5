package device

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/operation"
)

// finishTimeout bounds recording a result after the client's context has ended.
const finishTimeout = 30 * time.Second

// machine is where a device's machine is.
type machine struct {
	ref  api.VMRef
	uuid string
	host api.HostRef
	hv   hypervisor.Hypervisor // nil: no domain, rows are all there is
	born time.Time             // start of the domain
}

// machineOf finds the domain of a machine that runs.
func (m *Manager) machineOf(r db.Reader, ref api.VMRef) (machine, error) {
	vm, err := db.Get(r, ref)
	if err != nil {
		return machine{}, err
	}
	x := machine{ref: ref, uuid: vm.UUID, host: vm.ResidentOn}
	if vm.PowerState != api.VMPowerStateRunning && vm.PowerState != api.VMPowerStatePaused {
		return x, nil
	}
	if x.hv = m.cfg.Hypervisor(vm.ResidentOn); x.hv == nil {
		return x, api.ErrHostOffline(vm.ResidentOn.String())
	}
	x.born = born(r, vm)
	return x, nil
}

func born(r db.Reader, vm *api.VM) time.Time {
	metrics, err := db.Get(r, vm.Metrics)
	if err != nil {
		return time.Time{}
	}
	return metrics.StartTime
}

// same reports whether the machine still has the domain it had.
func (x machine) same(r db.Reader) bool {
	vm, err := db.Get(r, x.ref)
	if err != nil {
		return false
	}
	awake := vm.PowerState == api.VMPowerStateRunning || vm.PowerState == api.VMPowerStatePaused
	return awake && vm.ResidentOn == x.host && born(r, vm).Equal(x.born)
}

// work is an operation in progress on a device.
type work[T any, P api.RecordPtr[T], O ~string] struct {
	machine
	m     *Manager
	table *operation.Table[T, P, O]
	ref   api.Ref[T]
	row   *T // as it was, with what the intent changed
	id    string
	vm    *api.VM
	op    O
	task  string
}

// vbdWork is one on a drive, vifWork one on a NIC.
type (
	vbdWork struct {
		work[api.VBD, *api.VBD, api.VBDOperations]
	}
	vifWork struct {
		work[api.VIF, *api.VIF, api.VIFOperations]
	}
)

// beginVBD checks an operation and enters it, with its intent, in one transaction.
func (m *Manager) beginVBD(c *api.Call, ref api.VBDRef, op api.VBDOperations, intent func(*db.Tx, *api.VBD) error) (*vbdWork, error) {
	w := &vbdWork{work[api.VBD, *api.VBD, api.VBDOperations]{m: m, table: operation.VBD, ref: ref, op: op, task: operation.TaskKey(c)}}
	err := m.cfg.DB.Update(c, func(tx *db.Tx) error {
		v, err := operation.VBD.Begin(tx, ref, op, w.task)
		if err != nil {
			return err
		}
		if intent != nil {
			if err := intent(tx, v); err != nil {
				return err
			}
			operation.VBD.Renew(tx, ref, v)
		}
		w.row, w.id = v.Clone(), v.UUID
		return w.begun(tx, v.VM)
	})
	return w, err
}

// beginVIF checks an operation and enters it in one transaction.
func (m *Manager) beginVIF(c *api.Call, ref api.VIFRef, op api.VIFOperations, check func(*db.Tx, *api.VIF) error) (*vifWork, error) {
	w := &vifWork{work[api.VIF, *api.VIF, api.VIFOperations]{m: m, table: operation.VIF, ref: ref, op: op, task: operation.TaskKey(c)}}
	err := m.cfg.DB.Update(c, func(tx *db.Tx) error {
		v, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		if err := check(tx, v); err != nil {
			return err
		}
		operation.VIF.Enter(tx, ref, v, op, w.task)
		w.row, w.id = v.Clone(), v.UUID
		return w.begun(tx, v.VM)
	})
	return w, err
}

// begun finds the machine of a device whose operation is being entered.
func (w *work[T, P, O]) begun(tx *db.Tx, vm api.VMRef) (err error) {
	w.m.epoch.Add(1)
	if w.machine, err = w.m.machineOf(tx, vm); err != nil {
		return err
	}
	w.vm, err = db.Get(tx, vm)
	return err
}

// record writes a result and keeps the operation.
func (w *work[T, P, O]) record(ctx context.Context, result func(*T)) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	return db.Modify[T, P](ctx, w.m.cfg.DB, w.ref, func(tx *db.Tx, v *T) error {
		w.m.epoch.Add(1)
		result(v)
		w.table.Renew(tx, w.ref, v)
		return nil
	})
}

// end takes the operation out of the row. The first error is the answer.
func (w *work[T, P, O]) end(ctx context.Context, failed error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	err := w.leave(ctx)
	if err != nil {
		w.m.later(w.machine, err, w.leave)
	}
	if failed != nil {
		class := strings.ToLower(P(nil).Class().Name)
		w.m.cfg.Log.Warn(class+"-operation-failed", "op", w.op, "uuid", w.id, "err", failed)
		return failed
	}
	return err
}

func (w *work[T, P, O]) leave(ctx context.Context) error {
	return w.m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		_, err := w.table.End(tx, w.ref, w.task)
		if err == nil {
			w.m.epoch.Add(1)
		}
		return err
	})
}

// retryInterval paces attempts to write what could not be written.
const retryInterval = time.Second

// later ends an operation that could not be ended, as soon as that can be written:
// a device must not stay locked by what is over. Then the rows are made true to
// the domain. It ends with the process.
func (m *Manager) later(x machine, err error, leave func(context.Context) error) {
	go func() {
		for err != nil {
			var known *api.Error
			if errors.As(err, &known) || errors.Is(err, db.ErrClosed) {
				return
			}
			m.cfg.Log.Warn("device-operation-not-recorded", "vm", x.uuid, "err", err)
			time.Sleep(retryInterval)
			err = m.repair(x, leave)
		}
	}()
}

func (m *Manager) repair(x machine, leave func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), finishTimeout)
	defer cancel()
	if err := leave(ctx); err != nil || x.hv == nil {
		return err
	}
	_, err := m.Found(ctx, x.host, x.ref)
	if errors.Is(err, hypervisor.ErrNotFound) {
		return nil // whoever records the machine's end records that of its devices
	}
	return err
}

// letGo detaches a disk that is in no drive any more. A failure is left to a sweep:
// the guest is rid of the disk.
func (m *Manager) letGo(ctx context.Context, host api.HostRef, vdi api.VDIRef) {
	if vdi.IsNull() || host.IsNull() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := m.releaseDisk(ctx, host, vdi); err != nil {
		m.cfg.Log.Warn("vdi-detach-later", "vdi", vdi, "err", err)
		m.leave()
	}
}

// leave asks for a sweep.
func (m *Manager) leave() {
	select {
	case m.left <- struct{}{}:
	default:
	}
}

// Left tells, again and again, that something could not be let go of which a Sweep, or
// the Release of its machine, finds.
func (m *Manager) Left() <-chan struct{} { return m.left }

// has looks whether the domain has a device after an answer was lost, when nothing is
// under way any more. What cannot be told counts as had: nobody else may get the disk
// then.
func (x machine) has(ctx context.Context, is func(hypervisor.Hardware) bool) bool {
	had, _ := x.tell(ctx, is)
	return had
}

// tell is has that says what keeps it from telling. Who asks because libvirtd died may
// be faster than its successor, and because QEMU ends, faster than libvirtd, which then
// passes on what it hears of QEMU: it is asked again for a moment.
func (x machine) tell(ctx context.Context, is func(hypervisor.Hardware) bool) (had bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	for range looks {
		var hw hypervisor.Hardware
		if err = x.hv.Settled(ctx, x.uuid); err == nil {
			hw, err = x.hv.Hardware(ctx, x.uuid)
		}
		switch {
		case err == nil:
			return is(hw), nil
		case errors.Is(err, hypervisor.ErrNotFound):
			return false, nil
		case errors.Is(err, hypervisor.ErrBusy):
			return true, err
		}
		select {
		case <-time.After(lookPause):
		case <-ctx.Done():
			return true, err
		}
	}
	return true, err
}

// Number and pace of looks at a domain that cannot be asked.
const (
	looks     = 50
	lookPause = 100 * time.Millisecond
)

// detached turns an error of taking a device away into the API's.
func (x machine) detached(class, ref string, err error) error {
	if errors.Is(err, hypervisor.ErrBusy) {
		return api.ErrDeviceDetachTimeout(class, ref)
	}
	return x.answer(class, ref, err)
}

// answer turns an error of the hypervisor into the API's.
func (x machine) answer(class, ref string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, hypervisor.ErrBusy):
		return api.ErrDeviceAttachTimeout(class, ref)
	case errors.Is(err, hypervisor.ErrUnsupported):
		return api.ErrOperationNotAllowed("not possible while the VM runs: " + err.Error())
	case errors.Is(err, hypervisor.ErrNotFound), errors.Is(err, hypervisor.ErrBadState): // QEMU ends
		return api.ErrVMBadPowerState(x.ref.String(), "running", "halted")
	default:
		return fmt.Errorf("%s %s: %w", class, ref, err)
	}
}
