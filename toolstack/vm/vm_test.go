package vm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/console"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire/wiretest"
)

// stack is the API with VM behaviour on a fake hypervisor.
type stack struct {
	*wiretest.Server
	hv     *hypervisor.Fake
	vms    *vm.Manager
	guests string
	host   *fakeHost
	stop   func()
	ctx    context.Context
	config vm.Config
}

type fakeHost struct {
	ref    api.HostRef
	kind   hypervisor.Kind
	memory int64
	boots  int // since the first
}

func (h *fakeHost) Boot() string                    { return strconv.Itoa(h.boots) }
func (h *fakeHost) Ref() api.HostRef                { return h.ref }
func (h *fakeHost) AwaitKind(context.Context) error { return nil }

func (h *fakeHost) Kind() (hypervisor.Kind, bool) { return h.kind, h.kind != "" }
func (h *fakeHost) GuestMemory() int64            { return h.memory }
func (h *fakeHost) Address() string               { return "192.0.2.1" }

func newStack(t *testing.T) *stack { return newStackWith(t, time.Minute) }

// newStackEdit is a stack with a configuration of the test's.
func newStackEdit(t *testing.T, edit func(*vm.Config)) *stack {
	return makeStack(t, func(c *vm.Config) { c.ShutdownTimeout = time.Minute; edit(c) })
}

func newStackWith(t *testing.T, shutdownTimeout time.Duration, others ...vm.Site) *stack {
	return makeStack(t, func(c *vm.Config) { c.ShutdownTimeout = shutdownTimeout }, others...)
}

func makeStack(t *testing.T, edit func(*vm.Config), others ...vm.Site) *stack {
	t.Helper()
	s := &stack{hv: hypervisor.NewFake(), guests: t.TempDir(), ctx: t.Context()}
	for _, f := range []string{"vmlinuz", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(s.guests, f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.host = &fakeHost{ref: api.NewRef[api.Host](), kind: hypervisor.Accelerated, memory: 2 << 30}
	s.Server = wiretest.New(t, func(r *api.Registry, d *db.DB) {
		h := api.NewHost()
		h.UUID, h.Enabled = api.NewUUID(), true
		must(t, d.Update(s.ctx, func(tx *db.Tx) error {
			db.InsertAs(tx, s.host.ref, h)
			for _, o := range others {
				db.InsertAs(tx, o.Host.Ref(), &api.Host{UUID: api.NewUUID(), Enabled: true})
			}
			return nil
		}))
		s.config = vm.Config{
			DB: d, Hypervisor: s.hv, Consoles: console.New(d, s.hv, nil), Host: s.host,
			GuestDir: s.guests, Others: others,
		}
		edit(&s.config)
		s.vms = vm.New(s.config)
		s.vms.Register(r)
	})
	s.run(s.vms)
	return s
}

// run runs a Manager until stop, and waits until it has reconciled once.
func (s *stack) run(m *vm.Manager) {
	ctx, cancel := context.WithCancel(s.ctx)
	ready, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); _ = m.Run(ctx, func() { close(ready) }) }()
	s.stop = func() { cancel(); <-done }
	s.T.Cleanup(s.stop)
	<-ready
}

// makeVM clones the default template and provisions it.
func (s *stack) makeVM(name string) string {
	s.T.Helper()
	var templates []string
	s.Must(&templates, "VM.get_by_name_label", vm.DemoTemplate)
	var ref string
	s.Must(&ref, "VM.clone", templates[0], name)
	s.Must(nil, "VM.provision", ref)
	return ref
}

func (s *stack) uuid(ref string) (uuid string) {
	s.T.Helper()
	s.Must(&uuid, "VM.get_uuid", ref)
	return uuid
}

func (s *stack) record(ref string) *api.VM {
	s.T.Helper()
	v, err := db.Get(s.DB.Snapshot(), api.VMRef(ref))
	if err != nil {
		s.T.Fatal(err)
	}
	return v
}

func (s *stack) state(ref string, want api.VMPowerState) {
	s.T.Helper()
	s.Until(string(want), func() bool { return s.record(ref).PowerState == want })
}

// refused checks code and parameters of an error.
func (s *stack) refused(code string, params []string, method string, args ...any) {
	s.T.Helper()
	_, err := s.Call(method, args...)
	var e *api.Error
	if !errors.As(err, &e) || e.Code != code || params != nil && !reflect.DeepEqual(e.Params, params) {
		s.T.Errorf("%s: got %v, want %s %v", method, err, code, params)
	}
}

func TestWholeLife(t *testing.T) {
	s := newStack(t)
	s.Covers("VM.start", "VM.clean_shutdown", "VM.destroy")
	ref := s.makeVM("one")
	s.Must(nil, "VM.start", ref, false, false)
	r := s.record(ref)
	if r.PowerState != api.VMPowerStateRunning || r.ResidentOn != s.host.ref || len(r.CurrentOperations) != 0 {
		t.Errorf("after start: %s on %s, doing %v", r.PowerState, r.ResidentOn, r.CurrentOperations)
	}
	if !slices.Contains(r.AllowedOperations, api.VMOperationsCleanShutdown) || slices.Contains(r.AllowedOperations, api.VMOperationsStart) {
		t.Errorf("allowed: %v", r.AllowedOperations)
	}
	spec, _ := s.hv.Spec(r.UUID)
	if spec.Kind != hypervisor.Accelerated || spec.MemoryBytes != 256<<20 || spec.Machine != hypervisor.DefaultMachine || spec.Title != "one" {
		t.Errorf("spec %+v", spec)
	}
	var consoles []string
	s.Must(&consoles, "VM.get_consoles", ref)
	var location, protocol string
	s.Must(&location, "console.get_location", consoles[0])
	s.Must(&protocol, "console.get_protocol", consoles[0])
	if !strings.HasPrefix(location, "https://192.0.2.1/console?uuid=") || protocol != "vt100" {
		t.Errorf("console %s %s", protocol, location)
	}
	s.refused(api.CodeVMBadPowerState, []string{ref, "halted", "running"}, "VM.start", ref, false, false)
	s.refused(api.CodeVMBadPowerState, []string{ref, "halted; suspended", "running"}, "VM.destroy", ref)
	s.Must(nil, "VM.clean_shutdown", ref)
	s.state(ref, api.VMPowerStateHalted)
	s.Must(&consoles, "VM.get_consoles", ref)
	if len(consoles) != 0 || !s.record(ref).ResidentOn.IsNull() {
		t.Errorf("a halted VM has consoles %v and a host", consoles)
	}
	metrics := string(s.record(ref).Metrics)
	s.Must(nil, "VM.destroy", ref)
	s.refused(api.CodeHandleInvalid, []string{"VM", ref}, "VM.get_record", ref)
	s.refused(api.CodeHandleInvalid, nil, "VM_metrics.get_record", metrics)
}

func TestStartPausedAndUnpause(t *testing.T) {
	s := newStack(t)
	s.Covers("VM.start_on", "VM.pause", "VM.unpause", "VM.hard_shutdown")
	ref := s.makeVM("p")
	s.Must(nil, "VM.start_on", ref, string(s.host.ref), true, false)
	s.state(ref, api.VMPowerStatePaused)
	s.Must(nil, "VM.unpause", ref)
	s.state(ref, api.VMPowerStateRunning)
	s.Must(nil, "VM.pause", ref)
	s.state(ref, api.VMPowerStatePaused)
	s.refused(api.CodeVMBadPowerState, []string{ref, "running", "paused"}, "VM.clean_shutdown", ref)
	s.Must(nil, "VM.hard_shutdown", ref)
	s.state(ref, api.VMPowerStateHalted)
}

func TestTemplatesAreNotRun(t *testing.T) {
	s := newStack(t)
	s.Covers("VM.clone")
	var all []string
	s.Must(&all, "VM.get_by_name_label", vm.DemoTemplate)
	if len(all) != 1 {
		t.Fatalf("%d default templates", len(all))
	}
	s.refused(api.CodeVMIsTemplate, all, "VM.start", all[0], false, false)
	s.refused(api.CodeVMIsTemplate, all, "VM.destroy", all[0])
	var ref string
	s.Must(&ref, "VM.clone", all[0], "copy")
	if r := s.record(ref); !r.IsATemplate || r.IsDefaultTemplate || r.OtherConfig["default_template"] != "" {
		t.Errorf("a clone of the default template: %+v", r)
	}
	s.refused(api.CodeVMIsTemplate, []string{ref}, "VM.start", ref, false, false)
	s.Must(nil, "VM.destroy", ref)
}

func TestStartIsRefused(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "evil")
	must(t, os.WriteFile(outside, nil, 0o644))
	tests := []struct {
		name   string
		edit   func(s *stack, r *api.VM)
		code   string
		params int
	}{
		{"no virtualization", func(s *stack, _ *api.VM) { s.host.kind = "" }, api.CodeVMHvmRequired, 1},
		{"no memory", func(s *stack, _ *api.VM) { s.host.memory = 100 << 20 }, api.CodeHostNotEnoughFreeMemory, 2},
		{"blocked", func(_ *stack, r *api.VM) {
			r.BlockedOperations = map[api.VMOperations]string{api.VMOperationsStart: "because"}
		}, api.CodeOperationBlocked, 2},
		{"no kernel", func(_ *stack, r *api.VM) { r.PVKernel = "" }, api.CodeValueNotSupported, 3},
		{"kernel elsewhere", func(_ *stack, r *api.VM) { r.PVKernel = outside }, api.CodeValueNotSupported, 3},
		{"dots", func(s *stack, r *api.VM) { r.PVKernel = s.guests + "/../" + filepath.Base(s.guests) + "/vmlinuz" }, api.CodeValueNotSupported, 3},
		{"sibling directory", func(s *stack, r *api.VM) { r.PVKernel = s.guests + "-evil/vmlinuz" }, api.CodeValueNotSupported, 3},
		{"link out", func(s *stack, r *api.VM) {
			must(t, os.Symlink(outside, s.guests+"/link"))
			r.PVRamdisk = s.guests + "/link"
		}, api.CodeValueNotSupported, 3},
		{"directory", func(s *stack, r *api.VM) {
			must(t, os.Mkdir(s.guests+"/dir", 0o755))
			r.PVKernel = s.guests + "/dir"
		}, api.CodeValueNotSupported, 3},
		{"nothing to boot from", func(_ *stack, r *api.VM) { r.HVMBootPolicy = "BIOS order" }, api.CodeOperationNotAllowed, 1},
		{"boot order", func(_ *stack, r *api.VM) {
			r.HVMBootPolicy, r.HVMBootParams = "BIOS order", map[string]string{"order": "cx"}
		}, api.CodeValueNotSupported, 3},
		{"firmware", func(_ *stack, r *api.VM) {
			r.HVMBootPolicy, r.HVMBootParams = "BIOS order", map[string]string{"firmware": "coreboot"}
		}, api.CodeValueNotSupported, 3},
		{"boot policy", func(_ *stack, r *api.VM) { r.HVMBootPolicy = "any" }, api.CodeValueNotSupported, 3},
		{"cores", func(_ *stack, r *api.VM) { r.Platform = map[string]string{"cores-per-socket": "3"} }, api.CodeInvalidValue, 2},
		{"memory order", func(_ *stack, r *api.VM) { r.MemoryDynamicMin = r.MemoryStaticMax + 1 }, api.CodeMemoryConstraintViolationOrder, 0},
		{"vcpus", func(_ *stack, r *api.VM) { r.VCPUsAtStartup = 2 }, api.CodeValueNotSupported, 3},
		{"NIC model", func(_ *stack, r *api.VM) { r.Platform = map[string]string{"nic-model": "ne2000"} }, api.CodeInvalidValue, 2},
		{"disk bus", func(_ *stack, r *api.VM) { r.Platform = map[string]string{"disk-bus": "ide"} }, api.CodeInvalidValue, 2},
		{"machine", func(_ *stack, r *api.VM) { r.Platform = map[string]string{"machine-type": "q35"} }, api.CodeValueNotSupported, 3},
		{"busy", func(_ *stack, r *api.VM) {
			r.CurrentOperations = map[string]api.VMOperations{"OpaqueRef:t": api.VMOperationsClone}
		}, api.CodeOtherOperationInProgress, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStack(t)
			ref := s.makeVM("x")
			must(t, s.DB.Update(s.ctx, func(tx *db.Tx) error {
				r, err := db.Edit(tx, api.VMRef(ref))
				tt.edit(s, r)
				return err
			}))
			_, err := s.Call("VM.start", ref, false, false)
			var e *api.Error
			if !errors.As(err, &e) || e.Code != tt.code || len(e.Params) != tt.params {
				t.Errorf("got %v, want %s with %d parameters", err, tt.code, tt.params)
			}
			if domains, _ := s.hv.List(s.ctx); len(domains) != 0 {
				t.Errorf("a domain runs: %+v", domains)
			}
		})
	}
}

// TestMemoryIsAdmittedOnce starts more VMs at once than there is memory for.
func TestMemoryIsAdmittedOnce(t *testing.T) {
	s := newStack(t)
	s.host.memory = 3 * (256<<20 + 60<<20)
	errs := make(chan error, 6)
	for range cap(errs) {
		ref := s.makeVM("m")
		go func() { _, err := s.Call("VM.start", ref, false, false); errs <- err }()
	}
	started := 0
	for range cap(errs) {
		err := <-errs
		var e *api.Error
		if err == nil {
			started++
		} else if !errors.As(err, &e) || e.Code != api.CodeHostNotEnoughFreeMemory {
			t.Errorf("got %v", err)
		}
	}
	if started != 3 {
		t.Errorf("%d VMs started, want 3", started)
	}
}

func TestStartFailureLeavesNothing(t *testing.T) {
	tests := []struct {
		name, method string
		err          error
	}{
		{"start fails", "Start", errors.New("boom")},
		{"start unknown", "Start", hypervisor.ErrUnknownOutcome},
		{"resume fails", "Resume", errors.New("boom")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStack(t)
			ref := s.makeVM("x")
			s.hv.FailNext(tt.method, tt.err)
			s.refused(api.CodeInternalError, nil, "VM.start", ref, false, false)
			if r := s.record(ref); r.PowerState != api.VMPowerStateHalted || len(r.CurrentOperations) != 0 || !r.ScheduledToBeResidentOn.IsNull() {
				t.Errorf("record %+v", r)
			}
			if domains, _ := s.hv.List(s.ctx); len(domains) != 0 {
				t.Errorf("a domain is left: %+v", domains)
			}
			s.Must(nil, "VM.start", ref, false, false)
		})
	}
}

// TestUndoLater: the undo itself fails, and the reconciler makes up for it.
func TestUndoLater(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("x")
	s.hv.FailNext("Resume", errors.New("boom"))
	s.hv.FailNext("Destroy", hypervisor.ErrUnavailable)
	events, cancel := s.hv.Subscribe()
	defer cancel()
	s.refused(api.CodeInternalError, nil, "VM.start", ref, false, false)
	for e := range events {
		if e.Kind == hypervisor.Stopped {
			break
		}
	}
	s.state(ref, api.VMPowerStateHalted)
}

func TestGuestEndsByItself(t *testing.T) {
	tests := []struct {
		name string
		edit func(*api.VM)
		why  hypervisor.Reason
		want api.VMPowerState
	}{
		{"power-off", func(*api.VM) {}, hypervisor.ByGuest, api.VMPowerStateHalted},
		{"power-off restarts", func(r *api.VM) { r.ActionsAfterShutdown = api.OnNormalExitRestart }, hypervisor.ByGuest, api.VMPowerStateRunning},
		{"crash", func(r *api.VM) { r.ActionsAfterCrash = api.OnCrashBehaviourDestroy }, hypervisor.ByCrash, api.VMPowerStateHalted},
		{"crash at once is not repeated", func(*api.VM) {}, hypervisor.ByCrash, api.VMPowerStateHalted},
		{"destroyed by another", func(*api.VM) {}, hypervisor.ByDestroy, api.VMPowerStateHalted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStack(t)
			ref := s.makeVM("x")
			must(t, s.DB.Update(s.ctx, func(tx *db.Tx) error {
				r, err := db.Edit(tx, api.VMRef(ref))
				tt.edit(r)
				return err
			}))
			s.Must(nil, "VM.start", ref, false, false)
			before := s.metrics(ref).StartTime
			s.hv.End(s.uuid(ref), tt.why)
			s.Until("settled", func() bool {
				r := s.record(ref)
				fresh := tt.want == api.VMPowerStateHalted || s.metrics(ref).StartTime.After(before)
				return r.PowerState == tt.want && fresh && len(r.CurrentOperations) == 0
			})
		})
	}
}

func (s *stack) metrics(ref string) *api.VMMetrics {
	s.T.Helper()
	m, err := db.Get(s.DB.Snapshot(), s.record(ref).Metrics)
	if err != nil {
		s.T.Fatal(err)
	}
	return m
}

func TestCrashIsRestartedLater(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("x")
	s.Must(nil, "VM.start", ref, false, false)
	long := time.Now().Add(-time.Hour)
	must(t, s.DB.Update(s.ctx, func(tx *db.Tx) error {
		m, err := db.Edit(tx, s.record(ref).Metrics)
		m.StartTime = long
		return err
	}))
	s.hv.Forget(s.uuid(ref)) // its end is seen before it is told
	s.hv.Resync()
	s.hv.Tell(hypervisor.Event{Kind: hypervisor.Stopped, UUID: s.uuid(ref), Reason: hypervisor.ByCrash})
	s.Until("restarted", func() bool {
		return s.record(ref).PowerState == api.VMPowerStateRunning && s.metrics(ref).StartTime.After(long)
	})
}

func TestDeafGuest(t *testing.T) {
	s := newStackWith(t, 200*time.Millisecond)
	s.Covers("VM.shutdown")
	ref := s.makeVM("deaf")
	s.Must(nil, "VM.start", ref, false, false)
	s.hv.IgnorePowerButton(s.uuid(ref))
	s.refused(api.CodeVMShutdownTimeout, []string{ref, "0.2"}, "VM.clean_shutdown", ref)
	if r := s.record(ref); r.PowerState != api.VMPowerStateRunning || len(r.CurrentOperations) != 0 {
		t.Errorf("after a shutdown that failed: %s %v", r.PowerState, r.CurrentOperations)
	}
	s.Must(nil, "VM.shutdown", ref) // tries, then takes the hard way
	s.state(ref, api.VMPowerStateHalted)
}

// TestHardInterruptsClean: the hard way is open while the clean one waits.
func TestHardInterruptsClean(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("x")
	s.Must(nil, "VM.start", ref, false, false)
	s.hv.IgnorePowerButton(s.uuid(ref))
	var task string
	s.Must(&task, "Async.VM.clean_shutdown", ref)
	s.Until("clean shutdown in progress", func() bool { return len(s.record(ref).CurrentOperations) == 1 })
	s.refused(api.CodeOtherOperationInProgress, []string{"VM", ref, "clean_shutdown", task}, "VM.pause", ref)
	s.Must(nil, "VM.hard_shutdown", ref)
	s.state(ref, api.VMPowerStateHalted)
	s.Until("no operation left", func() bool { return len(s.record(ref).CurrentOperations) == 0 })
}

// TestHardRebootInterruptsClean: whatever waits gives way, and the VM runs.
func TestHardRebootInterruptsClean(t *testing.T) {
	for _, method := range []string{"VM.clean_shutdown", "VM.clean_reboot"} {
		t.Run(method, func(t *testing.T) {
			s := newStack(t)
			ref := s.makeVM("x")
			s.Must(nil, "VM.start", ref, false, false)
			s.hv.IgnorePowerButton(s.uuid(ref))
			s.Must(nil, "Async."+method, ref)
			s.Until("in progress", func() bool { return len(s.record(ref).CurrentOperations) == 1 })
			s.Must(nil, "VM.hard_reboot", ref)
			s.state(ref, api.VMPowerStateRunning)
			if _, runs := s.hv.Spec(s.uuid(ref)); !runs {
				t.Error("no domain runs")
			}
		})
	}
}

func TestCancelCleanShutdown(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("x")
	s.Must(nil, "VM.start", ref, false, false)
	s.hv.IgnorePowerButton(s.uuid(ref))
	var task string
	s.Must(&task, "Async.VM.clean_shutdown", ref)
	s.Until("in progress", func() bool { return len(s.record(ref).CurrentOperations) == 1 })
	s.Must(nil, "task.cancel", task)
	s.Until("cancelled", func() bool { return len(s.record(ref).CurrentOperations) == 0 })
	s.state(ref, api.VMPowerStateRunning)
}

func TestReboots(t *testing.T) {
	for _, method := range []string{"VM.clean_reboot", "VM.hard_reboot"} {
		t.Run(method, func(t *testing.T) {
			s := newStack(t)
			s.Covers(method)
			ref := s.makeVM("x")
			s.Must(nil, "VM.start", ref, false, false)
			s.Must(nil, "VM.set_name_label", ref, "renamed")
			s.Must(nil, method, ref)
			s.state(ref, api.VMPowerStateRunning)
			if spec, ok := s.hv.Spec(s.uuid(ref)); !ok || spec.Title != "renamed" {
				t.Errorf("after reboot: %+v", spec)
			}
		})
	}
}

// TestRecovery leaves a database as a crash would, and starts anew.
func TestRecovery(t *testing.T) {
	tests := []struct {
		name   string
		op     api.VMOperations
		row    api.VMPowerState
		domain hypervisor.State
		want   api.VMPowerState
		runs   bool
	}{
		{"before the domain was made", api.VMOperationsStart, api.VMPowerStateHalted, "", api.VMPowerStateHalted, false},
		{"before the domain ran", api.VMOperationsStart, api.VMPowerStateHalted, hypervisor.Paused, api.VMPowerStateHalted, false},
		{"before the start was recorded", api.VMOperationsStart, api.VMPowerStateHalted, hypervisor.Running, api.VMPowerStateRunning, true},
		{"before the stop was recorded", api.VMOperationsHardShutdown, api.VMPowerStateRunning, "", api.VMPowerStateHalted, false},
		{"before the stop", api.VMOperationsCleanShutdown, api.VMPowerStateRunning, hypervisor.Running, api.VMPowerStateRunning, true},
		{"between the halves of a reboot", api.VMOperationsStart, api.VMPowerStateRunning, "", api.VMPowerStateRunning, true},
		{"idle, ended meanwhile", "", api.VMPowerStateRunning, "", api.VMPowerStateHalted, false},
		{"idle, paused meanwhile", "", api.VMPowerStateRunning, hypervisor.Paused, api.VMPowerStatePaused, true},
		{"idle, runs", "", api.VMPowerStateRunning, hypervisor.Running, api.VMPowerStateRunning, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStack(t)
			ref := s.makeVM("x")
			s.stop()
			must(t, s.DB.Update(s.ctx, func(tx *db.Tx) error {
				r, err := db.Edit(tx, api.VMRef(ref))
				r.PowerState = tt.row
				if tt.row != api.VMPowerStateHalted {
					r.ResidentOn = s.host.ref
				}
				if tt.op != "" {
					r.CurrentOperations = map[string]api.VMOperations{"OpaqueRef:gone": tt.op}
				}
				return err
			}))
			if tt.domain != "" {
				s.hv.Add(hypervisor.Domain{UUID: s.uuid(ref), State: tt.domain})
			}
			s.run(vm.New(s.config))
			s.Until("recovered", func() bool {
				r := s.record(ref)
				return r.PowerState == tt.want && len(r.CurrentOperations) == 0
			})
			if _, runs := s.hv.Spec(s.uuid(ref)); runs != tt.runs {
				t.Errorf("a domain runs: %t", runs)
			}
		})
	}
}

// TestForeignDomains are left alone, and lost events cost nothing but time.
func TestForeignDomainsAndLostEvents(t *testing.T) {
	s := newStack(t)
	s.hv.Add(hypervisor.Domain{UUID: api.NewUUID(), Name: "stranger", State: hypervisor.Running})
	ref := s.makeVM("x")
	s.Must(nil, "VM.start", ref, false, false)
	s.hv.Forget(s.uuid(ref))
	s.hv.Resync()
	s.state(ref, api.VMPowerStateHalted)
	if domains, _ := s.hv.List(s.ctx); len(domains) != 1 || domains[0].State != hypervisor.Running {
		t.Errorf("the stranger: %+v", domains)
	}
}

func TestCreate(t *testing.T) {
	s := newStack(t)
	s.Covers("VM.create")
	record := map[string]any{
		"name_label": "made", "name_description": "", "user_version": 0, "is_a_template": false, "affinity": "",
		"memory_target": 0, "memory_static_max": 512 << 20, "memory_dynamic_max": 512 << 20, "memory_dynamic_min": 256 << 20,
		"memory_static_min": 128 << 20, "VCPUs_params": map[string]string{}, "VCPUs_max": 2, "VCPUs_at_startup": 1,
		"actions_after_shutdown": "destroy", "actions_after_reboot": "restart", "actions_after_crash": "restart",
		"PV_bootloader": "", "PV_kernel": s.guests + "/vmlinuz", "PV_ramdisk": "", "PV_args": "", "PV_bootloader_args": "",
		"PV_legacy_args": "", "HVM_boot_policy": "", "HVM_boot_params": map[string]string{}, "platform": map[string]string{},
		"PCI_bus": "", "other_config": map[string]string{}, "recommendations": "",
	}
	var ref string
	s.Must(&ref, "VM.create", record)
	r := s.record(ref)
	if r.Platform["machine-type"] != hypervisor.DefaultMachine || r.DomainType != api.DomainTypePvh || r.Metrics.IsNull() {
		t.Errorf("created %+v", r)
	}
	s.Must(nil, "VM.start", ref, false, false)
	s.refused(api.CodeVMBadPowerState, nil, "VM.set_memory_static_max", ref, 1<<30)
	s.Must(nil, "VM.hard_shutdown", ref)
	s.Must(nil, "VM.set_memory", ref, 300<<20)
	s.refused(api.CodeMemoryConstraintViolationOrder, []string{}, "VM.set_memory_dynamic_min", ref, 301<<20)
	s.refused(api.CodeValueNotSupported, nil, "VM.set_VCPUs_at_startup", ref, 3)
	record["memory_static_max"] = 1
	s.refused(api.CodeValueNotSupported, nil, "VM.create", record)
}

func TestNotBuiltIsSaid(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("x")
	s.refused(api.CodeNotImplemented, nil, "VM.pool_migrate", ref, string(s.host.ref), map[string]string{})
	s.refused(api.CodeNotImplemented, nil, "VM.assert_operation_valid", ref, "pool_migrate")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
