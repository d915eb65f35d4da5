package vm_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/image/guest/qga"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/guest"
	protocol "cairn/toolstack/guest/qga"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire/wiretest"
)

// inside is a guest's system with an agent; what it is told to do it notes, and does
// more if that is set.
type inside struct {
	qga.Machine
	address     string
	freeze, off func()
	thaw        func()

	mu  sync.Mutex
	did []string
}

func (i *inside) do(what string, more func()) {
	i.mu.Lock()
	i.did = append(i.did, what)
	i.mu.Unlock()
	if more != nil {
		more()
	}
}

func (i *inside) log() string { i.mu.Lock(); defer i.mu.Unlock(); return strings.Join(i.did, " ") }

func (i *inside) OS() map[string]string {
	return map[string]string{"id": "debian", "pretty-name": "Debian GNU/Linux 13 (trixie)", "version-id": "13"}
}
func (i *inside) Interfaces() []qga.Interface {
	return []qga.Interface{{Name: "eth0", MAC: "02:00:00:00:00:07", Addresses: []qga.Address{{Address: i.address}}}}
}
func (i *inside) Freeze() (int, error) { i.do("freeze", i.freeze); return 1, nil }
func (i *inside) Thaw() (int, error)   { i.do("thaw", i.thaw); return 1, nil }
func (i *inside) PowerOff(string)      { i.do("off", i.off) }

// newGuestRig is a rig that talks to agents in guests.
func newGuestRig(t *testing.T) *rig {
	return newRigEdit(t, func(c *vm.Config) {
		hv := c.Hypervisor
		m := guest.New(guest.Config{DB: c.DB, Ports: func(api.HostRef) guest.Ports { return hv }, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = m.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
		c.Guests, c.PressInterval = m, 20*time.Millisecond
	})
}

// present starts a machine with an agent in its guest, and waits until that is known.
func (r *rig) present(ref string, i *inside) {
	r.T.Helper()
	i.Machine.Console = io.Discard
	agent := qga.New(i)
	r.hv.SetAgent(r.uuid(ref), func(port net.Conn) { _ = agent.Serve(port) })
	r.Must(nil, "VM.start", ref, false, false)
	r.Until("the agent is known", func() bool { return r.told(ref).Live })
}

// told is the row of what a guest tells.
func (r *rig) told(ref string) *api.VMGuestMetrics {
	r.T.Helper()
	return wiretest.Get(r.Server, r.record(ref).GuestMetrics)
}

// TestGuestMetricsOfALife: the row comes with the start, says what the guest tells, and
// goes with the end.
func TestGuestMetricsOfALife(t *testing.T) {
	r := newGuestRig(t)
	ref := r.install("x")
	vif := r.record(ref).VIFs[0]
	must(t, db.Modify(r.ctx, r.DB, vif, func(_ *db.Tx, v *api.VIF) error { v.MAC = "02:00:00:00:00:07"; return nil }))
	r.Must(nil, "VM.start", ref, false, false)
	if g := r.told(ref); g.Live || g.PVDriversDetected || g.UUID == "" {
		t.Errorf("at the start: %+v", g)
	}
	r.Must(nil, "VM.hard_shutdown", ref)
	if !r.record(ref).GuestMetrics.IsNull() {
		t.Error("a halted machine has guest metrics")
	}
	r.present(ref, &inside{address: "192.0.2.7"})
	var networks, os map[string]string
	metrics := r.record(ref).GuestMetrics
	r.Must(&networks, "VM_guest_metrics.get_networks", metrics)
	r.Must(&os, "VM_guest_metrics.get_os_version", metrics)
	if networks["0/ip"] != "192.0.2.7" || os["name"] != "Debian GNU/Linux 13 (trixie)" || os["major"] != "13" {
		t.Errorf("networks %v, os_version %v", networks, os)
	}
	r.Must(nil, "VM.suspend", ref)
	if !r.record(ref).GuestMetrics.IsNull() {
		t.Error("a suspended machine has guest metrics")
	}
	r.refused(api.CodeHandleInvalid, nil, "VM_guest_metrics.get_record", metrics)
	r.Must(nil, "VM.resume", ref, false, false)
	r.Until("the agent is known again", func() bool { return r.told(ref).Live })
	r.Must(nil, "VM.hard_shutdown", ref)
}

// TestCleanShutdownAsksTheAgent: of a guest that does not know its power button.
func TestCleanShutdownAsksTheAgent(t *testing.T) {
	for _, method := range []string{"VM.clean_shutdown", "VM.clean_reboot", "VM.shutdown"} {
		t.Run(method, func(t *testing.T) {
			r := newGuestRig(t)
			r.Covers(method)
			ref := r.install("x")
			uuid := r.uuid(ref)
			r.hv.IgnorePowerButton(uuid)
			i := &inside{off: func() { r.hv.End(uuid, hypervisor.ByGuest) }}
			r.present(ref, i)
			r.Must(nil, method, ref)
			if i.log() != "off" {
				t.Errorf("the guest did %q", i.log())
			}
			if want := map[bool]api.VMPowerState{true: "Running", false: "Halted"}[method == "VM.clean_reboot"]; r.record(ref).PowerState != want {
				t.Errorf("the machine is %s", r.record(ref).PowerState)
			}
		})
	}
}

// TestAgentThatDoesNothing: the power button is pressed after an agent that agreed and
// did not act, and at once where the agent cannot be asked.
func TestAgentThatDoesNothing(t *testing.T) {
	for _, err := range []error{nil, guest.ErrAbsent, guest.ErrUnsupported, errors.New("it refuses")} {
		s := newStackEdit(t, func(c *vm.Config) { c.Guests, c.PressInterval = agents{err: err}, 5*time.Millisecond })
		ref := s.makeVM("x")
		s.Must(nil, "VM.start", ref, false, false)
		s.Must(nil, "VM.clean_shutdown", ref)
		s.state(ref, api.VMPowerStateHalted)
	}
}

// TestDeafAgentKeepsTheDeadline: neither agent nor button helps.
func TestDeafAgentKeepsTheDeadline(t *testing.T) {
	s := newStackEdit(t, func(c *vm.Config) {
		c.Guests, c.ShutdownTimeout, c.PressInterval = agents{}, 60*time.Millisecond, 5*time.Millisecond
	})
	ref := s.makeVM("x")
	s.Must(nil, "VM.start", ref, false, false)
	s.hv.IgnorePowerButton(s.uuid(ref))
	s.refused(api.CodeVMShutdownTimeout, []string{ref, "0.06"}, "VM.clean_shutdown", ref)
	s.state(ref, api.VMPowerStateRunning)
}

// agents answer as told.
type agents struct{ err, freeze, thaw error }

func (a agents) PowerOff(context.Context, string) error { return a.err }
func (a agents) CanFreeze(string) error                 { return a.err }
func (a agents) Freeze(context.Context, string) error   { return a.freeze }
func (a agents) Thaw(context.Context, string) error     { return a.thaw }

// TestSnapshotWithQuiesce: the guest is at rest at the instant of the snapshot, and only
// then.
func TestSnapshotWithQuiesce(t *testing.T) {
	r := newGuestRig(t)
	r.Covers("VM.snapshot_with_quiesce")
	ref := r.install("x")
	uuid := r.uuid(ref)
	layers := func() (all []string) {
		hw, err := r.hv.Hardware(r.ctx, uuid)
		must(t, err)
		for _, d := range hw.Disks {
			if d.Source != nil {
				all = append(all, path.Base(d.Source.Path))
			}
		}
		return all
	}
	var frozen, thawn []string
	i := &inside{freeze: func() { frozen = layers() }, thaw: func() { thawn = layers(); r.guestWrites(ref, 0, 5, 78) }}
	r.present(ref, i)
	before := layers()
	if !slices.Contains(r.record(ref).AllowedOperations, api.VMOperationsSnapshotWithQuiesce) {
		t.Errorf("allowed: %v", r.record(ref).AllowedOperations)
	}
	var snap string
	r.Must(&snap, "VM.snapshot_with_quiesce", ref, "at rest")
	if i.log() != "freeze thaw" || !slices.Equal(frozen, before) || slices.Equal(thawn, before) {
		t.Errorf("the guest did %q, its layers were %q, %q frozen, %q when it went on", i.log(), before, frozen, thawn)
	}
	s := r.record(snap)
	if !s.IsASnapshot || string(s.SnapshotOf) != ref || s.SnapshotInfo["disk-snapshot-type"] != "quiesced" || s.NameLabel != "at rest" {
		t.Errorf("the snapshot is %+v", s)
	}
	if kept, now := r.read(r.vdis(snap)[0], 5), r.read(r.vdis(ref)[0], 5); kept != 0 || now != 78 {
		t.Errorf("what the guest wrote when it went on is %d in the snapshot, and %d in its disk", kept, now)
	}
}

// TestSnapshotWithQuiesceFails: with its own error each time, and without a trace.
func TestSnapshotWithQuiesceFails(t *testing.T) {
	lost := errors.New("lost")
	for name, tt := range map[string]struct {
		agents agents
		fail   error // of the hypervisor
		code   string
		params int
	}{
		"no agent":          {agents: agents{err: guest.ErrAbsent}, code: api.CodeVMSnapshotWithQuiesceNotSupported, params: 2},
		"agent cannot":      {agents: agents{freeze: guest.ErrUnsupported}, code: api.CodeVMSnapshotWithQuiesceNotSupported, params: 2},
		"agent refuses":     {agents: agents{freeze: lost}, code: api.CodeVMSnapshotWithQuiesceFailed, params: 1},
		"agent hangs":       {agents: agents{freeze: errors.Join(lost, context.DeadlineExceeded, protocol.ErrSilent)}, code: api.CodeVMSnapshotWithQuiescePluginDeosNotRespond, params: 1},
		"went on too early": {agents: agents{thaw: guest.ErrThawed}, code: api.CodeVMSnapshotWithQuiesceTimeout, params: 1},
		"lost when to go on": {agents: agents{thaw: guest.ErrAbsent}, code: api.CodeVMSnapshotWithQuiescePluginDeosNotRespond,
			params: 1},
		"snapshot fails": {fail: lost, code: api.CodeInternalError, params: -1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRigEdit(t, func(c *vm.Config) { c.Guests = tt.agents })
			ref := r.install("x")
			r.Must(nil, "VM.start", ref, false, false)
			disks := r.managed()
			if tt.fail != nil {
				r.hv.FailNext("Snapshot", tt.fail)
			}
			_, err := r.Call("VM.snapshot_with_quiesce", ref, "s")
			var e *api.Error
			if !errors.As(err, &e) || e.Code != tt.code || tt.params >= 0 && len(e.Params) != tt.params || tt.params > 0 && e.Params[0] != ref {
				t.Errorf("got %v, want %s", err, tt.code)
			}
			r.onlyDisks(disks)
			if v := r.record(ref); len(v.CurrentOperations) != 0 || len(v.Snapshots) != 0 {
				t.Errorf("it left %v, %v", v.CurrentOperations, v.Snapshots)
			}
		})
	}
}

// TestThawedWhenTheSnapshotFails: also when its caller is gone by then.
func TestThawedWhenTheSnapshotFails(t *testing.T) {
	r := newGuestRig(t)
	ref := r.install("x")
	thawn := make(chan struct{}, 2)
	i := &inside{thaw: func() { thawn <- struct{}{} }}
	i.freeze = func() { r.hv.FailNext("Snapshot", errors.New("full")) }
	r.present(ref, i)
	if _, err := r.Call("VM.snapshot_with_quiesce", ref, "s"); err == nil {
		t.Error("it succeeded")
	}
	<-thawn
	i.freeze = func() { // cancelled while the guest comes to rest
		var tasks map[string]map[string]any
		r.Must(&tasks, "task.get_all_records")
		for ref, task := range tasks {
			if task["status"] == "pending" {
				r.Must(nil, "task.cancel", ref)
			}
		}
	}
	var task string
	r.Must(&task, "Async.VM.snapshot_with_quiesce", ref, "s")
	r.Until("the task has ended", func() bool {
		row, err := db.Get(r.DB.Snapshot(), api.TaskRef(task))
		return err != nil || row.Status != api.TaskStatusTypePending
	})
	<-thawn
	if i.log() != "freeze thaw freeze thaw" {
		t.Errorf("the guest did %q", i.log())
	}
	r.refused(api.CodeVMBadPowerState, []string{ref, "halted; suspended", "running"}, "VM.destroy", ref)
}
