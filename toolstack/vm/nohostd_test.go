package vm_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/vm"
)

// mortal is a hostd that dies at a step, and is back at the next one or when it is told.
type mortal struct {
	steps, dies atomic.Int64 // at 0 it does not
	back        atomic.Bool
}

func (m *mortal) step() error {
	n, dies := m.steps.Add(1), m.dies.Load()
	if dies > 0 && (n == dies || n > dies && !m.back.Load()) {
		return errors.New("hostd: EOF")
	}
	return nil
}

// die has it die at a step from now on.
func (m *mortal) die(at int64, back bool) {
	m.steps.Store(0)
	m.back.Store(back)
	m.dies.Store(at)
}

// TestHostdDiesDuringASnapshot: at whichever of its steps hostd dies, and whether it is
// back for the next one, a snapshot or a revert fails with an error that clients know,
// changes nothing and succeeds later.
func TestHostdDiesDuringASnapshot(t *testing.T) {
	for _, what := range []struct {
		name  string
		state api.VMPowerState
		call  func(r *rig, ref, snapshot string) error
		back  bool // the disks are then as when the snapshot was taken
	}{
		{"VM.snapshot of a halted machine", api.VMPowerStateHalted, snapshotVM, false},
		{"VM.snapshot of a running machine", api.VMPowerStateRunning, snapshotVM, false},
		{"VM.snapshot of a suspended machine", api.VMPowerStateSuspended, snapshotVM, false},
		{"VDI.snapshot", api.VMPowerStateHalted, snapshotVDI, false},
		{"VDI.snapshot of a running machine", api.VMPowerStateRunning, snapshotVDI, false},
		{"VM.revert of a halted machine", api.VMPowerStateHalted, revertVM, true},
		{"VM.revert of a running machine", api.VMPowerStateRunning, revertVM, true},
	} {
		t.Run(what.name, func(t *testing.T) {
			for _, back := range []bool{false, true} {
				for at := int64(1); dies(t, what.state, what.call, what.back, at, back); at++ {
				}
			}
		})
	}
}

// dies reports false when the call needs fewer steps.
func dies(t *testing.T, state api.VMPowerState, call func(*rig, string, string) error, reverts bool, at int64, back bool) bool {
	hostd, remember := &mortal{}, newNVRAM()
	remember.step = hostd.step
	r := newRigEdit(t, func(c *vm.Config) { c.NVRAM = remember })
	r.hostd.Fail(func(string, string, string) error { return hostd.step() })
	r.unplugging = hostd.step
	ref, _ := r.uefi("x", false)
	var snapshot string
	r.Must(&snapshot, "VM.snapshot", ref, "s", []string{})
	disks := r.vdis(ref)
	for _, vdi := range disks {
		r.write(vdi, 0, 99)
	}
	if state != api.VMPowerStateHalted {
		r.bring(ref, state)
	}
	before := r.managed()
	hostd.die(at, back)
	err := call(r, ref, snapshot)
	died := hostd.steps.Load() >= at
	hostd.die(0, true)
	var known *api.Error
	switch {
	case err == nil:
	case !errors.As(err, &known) || known.Code == api.CodeInternalError:
		t.Errorf("dead at step %d (back %t): %v", at, back, err)
		fallthrough
	default:
		r.Until("nothing is left", func() bool { return r.managed() == before && len(r.record(ref).CurrentOperations) == 0 })
		must(t, call(r, ref, snapshot))
	}
	for n, vdi := range disks {
		want := uint64(99)
		if reverts {
			want = uint64(10 + n)
		}
		if got := r.read(vdi, 0); got != want {
			t.Errorf("dead at step %d (back %t): disk %d reads %d, want %d", at, back, n, got, want)
		}
	}
	return died && !t.Failed()
}

func snapshotVM(r *rig, ref, _ string) error {
	_, err := r.Call("VM.snapshot", ref, "again", []string{})
	return err
}

func snapshotVDI(r *rig, ref, _ string) error {
	_, err := r.Call("VDI.snapshot", r.vdis(ref)[0], map[string]string{})
	return err
}

func revertVM(r *rig, _, snapshot string) error {
	_, err := r.Call("VM.revert", snapshot)
	return err
}
