package vm_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/console"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/memory"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire/wiretest"
)

// hurried is a clock on which time passes a thousand times as fast.
type hurried struct{ since time.Time }

const hurry = 1000

func (h hurried) Now() time.Time                         { return h.since.Add(time.Since(h.since) * hurry) }
func (h hurried) After(d time.Duration) <-chan time.Time { return time.After(d / hurry) }

// newMemoryStack is a stack on a host of so many MiB, whose memory is balanced.
func newMemoryStack(t *testing.T, total int64) *stack {
	t.Helper()
	s := &stack{hv: hypervisor.NewFake(), guests: t.TempDir(), ctx: t.Context()}
	must(t, os.WriteFile(filepath.Join(s.guests, "vmlinuz"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(s.guests, "initrd.img"), nil, 0o644))
	s.host = &fakeHost{ref: api.NewRef[api.Host](), kind: hypervisor.Accelerated, memory: total * mib}
	var accounts *memory.Manager
	s.Server = wiretest.New(t, func(r *api.Registry, d *db.DB) {
		must(t, d.Update(s.ctx, func(tx *db.Tx) error {
			h := &api.Host{UUID: api.NewUUID(), Enabled: true}
			h.Metrics = db.Insert(tx, api.NewHostMetrics())
			db.InsertAs(tx, s.host.ref, h)
			return nil
		}))
		accounts = memory.New(memory.Config{
			DB: d, Sites: []memory.Site{{Host: s.host, Balloons: s.hv}}, Clock: hurried{time.Now()},
		})
		accounts.Register(r)
		s.config = vm.Config{
			DB: d, Hypervisor: s.hv, Consoles: console.New(d, s.hv, nil), Host: s.host, Memory: accounts, GuestDir: s.guests,
			Sleep: func(ctx context.Context, d time.Duration) error {
				select {
				case <-time.After(d / hurry):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			},
		}
		s.vms = vm.New(s.config)
		s.vms.Register(r)
	})
	s.run(s.vms)
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	go func() { defer close(done); _ = accounts.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// sized makes a VM with these sizes in MiB.
func (s *stack) sized(name string, lo, hi, static int64) string {
	s.T.Helper()
	ref := s.makeVM(name)
	s.Must(nil, "VM.set_memory_limits", ref, 0, static*mib, lo*mib, hi*mib)
	return ref
}

func (s *stack) started(name string, lo, hi, static int64) string {
	s.T.Helper()
	ref := s.sized(name, lo, hi, static)
	s.Must(nil, "VM.start", ref, false, false)
	return ref
}

// actual is what VM_metrics says, in MiB.
func (s *stack) actual(ref string) int64 {
	s.T.Helper()
	return wiretest.Get(s.Server, s.record(ref).Metrics).MemoryActual / mib
}

// settles waits until a guest has these MiB, by its balloon and by its row.
func (s *stack) settles(ref string, want int64) {
	s.T.Helper()
	s.Until("the guest has its share", func() bool {
		spec, _ := s.hv.Spec(s.uuid(ref))
		return s.actual(ref) == want && spec.MemoryTargetBytes == want*mib && s.record(ref).MemoryTarget == want*mib
	})
}

// TestRangeMovesTheBalloon: a running guest follows its dynamic range.
func TestRangeMovesTheBalloon(t *testing.T) {
	s := newMemoryStack(t, 2000)
	ref := s.started("x", 512, 512, 1024)
	s.settles(ref, 512)
	s.Must(nil, "VM.set_memory_dynamic_range", ref, 128*mib, 256*mib)
	s.Must(nil, "VM.wait_memory_target_live", ref)
	s.settles(ref, 256)
	s.Must(nil, "VM.set_memory_target_live", ref, 300*mib)
	s.Must(nil, "VM.wait_memory_target_live", ref)
	s.settles(ref, 300)
	if r := s.record(ref); r.MemoryDynamicMin != 300*mib || r.MemoryDynamicMax != 300*mib {
		t.Errorf("the range is %d to %d", r.MemoryDynamicMin, r.MemoryDynamicMax)
	}
	s.Must(nil, "VM.set_memory_dynamic_max", ref, 700*mib)
	s.settles(ref, 700)
	s.Must(nil, "VM.set_memory_dynamic_min", ref, 400*mib)
	s.refused(api.CodeMemoryConstraintViolationOrder, nil, "VM.set_memory_dynamic_range", ref, 512*mib, 2048*mib)
	s.refused(api.CodeMemoryConstraintViolationOrder, nil, "VM.set_memory_target_live", ref, 2048*mib)
	s.refused(api.CodeVMBadPowerState, []string{ref, "halted", "running"}, "VM.set_memory_limits", ref, 0, 512*mib, 512*mib, 512*mib)
	s.refused(api.CodeVMBadPowerState, []string{ref, "halted", "running"}, "VM.set_memory", ref, 512*mib)
	s.Must(nil, "VM.set_shadow_multiplier_live", ref, 2.0)
	if got := s.record(ref).HVMShadowMultiplier; got != 2 {
		t.Errorf("the shadow multiplier is %g", got)
	}
	s.refused(api.CodeVMBadPowerState, nil, "VM.set_HVM_shadow_multiplier", ref, 3.0)
	s.Covers("VM.set_shadow_multiplier_live", "VM.set_memory_dynamic_range", "VM.set_memory_dynamic_max", "VM.set_memory_dynamic_min", "VM.set_memory_target_live",
		"VM.wait_memory_target_live")
	s.Must(nil, "VM.hard_shutdown", ref)
	s.refused(api.CodeVMBadPowerState, []string{ref, "running", "halted"}, "VM.set_memory_target_live", ref, 300*mib)
	s.refused(api.CodeVMBadPowerState, []string{ref, "running", "halted"}, "VM.wait_memory_target_live", ref)
	if got := s.actual(ref); got != 0 {
		t.Errorf("a halted VM has %d MiB", got)
	}
}

// TestStartSqueezesOthers: guests give what a starter needs, and get it back.
func TestStartSqueezesOthers(t *testing.T) {
	s := newMemoryStack(t, 2400)
	one, two := s.started("one", 256, 640, 768), s.started("two", 256, 640, 768)
	s.settles(one, 640) // less than it started with: its balloon answers
	s.settles(two, 640)
	var free int64
	s.Must(&free, "host.compute_free_memory", s.host.ref)
	if want := int64(2400 - 2*(256+1+48+1+6)); free/mib != want {
		t.Errorf("free after all have given what they can: %d MiB, want %d", free/mib, want)
	}
	three := s.started("three", 1024, 1024, 1024)
	share := int64(2400-1024-57-2*(48+1+6+1)) / 2
	s.settles(one, share)
	s.settles(two, share)
	s.Must(nil, "VM.clean_shutdown", three)
	s.settles(one, 640)
	s.settles(two, 640)
	host := wiretest.Get(s.Server, s.host.ref)
	s.Until("the host's free memory is told", func() bool {
		return wiretest.Get(s.Server, host.Metrics).MemoryFree == (2400-2*(640+48+1+6))*mib
	})
	s.Covers("host.compute_free_memory")
}

// TestStarterIsRefused: with no room whatever is given, and with guests that do not
// give; nothing is left of the attempt.
func TestStarterIsRefused(t *testing.T) {
	s := newMemoryStack(t, 2000)
	one := s.started("one", 256, 1000, 1024)
	s.settles(one, 1000)
	large := s.sized("large", 1900, 1900, 1900)
	s.refused(api.CodeHostNotEnoughFreeMemory, nil, "VM.start", large, false, false)
	s.hv.SetMemoryStats(s.uuid(one), hypervisor.MemoryStats{Actual: 1000 * mib, Total: 990 * mib})
	other := s.sized("other", 1024, 1024, 1024)
	s.refused(api.CodeVMsFailedToCooperate, nil, "VM.start", other, false, false)
	if r := s.record(other); r.PowerState != api.VMPowerStateHalted || !r.ScheduledToBeResidentOn.IsNull() || len(r.CurrentOperations) != 0 {
		t.Errorf("after a refused start: %s, scheduled to %q, doing %v", r.PowerState, r.ScheduledToBeResidentOn, r.CurrentOperations)
	}
	if _, runs := s.hv.Spec(s.uuid(other)); runs {
		t.Error("a domain was made without memory for it")
	}
	s.Must(nil, "VM.set_memory_dynamic_range", one, 256*mib, 512*mib)
	s.refused(api.CodeVMMemoryTargetWaitTimeout, []string{one}, "VM.wait_memory_target_live", one)
	var cooperative bool
	if s.Must(&cooperative, "VM.get_cooperative", one); cooperative {
		t.Error("the guest that does not give counts as cooperative")
	}
	var stuck []string
	if s.Must(&stuck, "host.get_uncooperative_resident_VMs", s.host.ref); !slices.Equal(stuck, []string{one}) {
		t.Errorf("uncooperative: %v", stuck)
	}
	s.Covers("VM.get_cooperative", "host.get_uncooperative_resident_VMs")
	s.refused(api.CodeHandleInvalid, nil, "host.compute_free_memory", "OpaqueRef:none")
	s.refused(api.CodeHandleInvalid, nil, "host.get_uncooperative_resident_VMs", "OpaqueRef:none")
}

// TestStartersShareNothing: many start at once on a host that must squeeze for each;
// together they never have more than there is.
func TestStartersShareNothing(t *testing.T) {
	s := newMemoryStack(t, 4000)
	var refs []string
	for range 6 {
		refs = append(refs, s.sized("x", 128, 768, 768))
	}
	failed := make(chan error, len(refs))
	for _, ref := range refs {
		go func() {
			_, err := s.Call("VM.start", ref, false, false)
			failed <- err
		}()
	}
	started := 0
	for range refs {
		if err := <-failed; err == nil {
			started++
		} else if e := new(api.Error); !errors.As(err, &e) || e.Code != api.CodeHostNotEnoughFreeMemory {
			t.Errorf("a start is answered with %v", err)
		}
	}
	if started < 4 { // four fit without anybody giving
		t.Errorf("%d of %d started", started, len(refs))
	}
	if free := memory.Free(s.DB.Snapshot(), s.host.ref, s.host.memory); free < 0 {
		t.Errorf("%d bytes more are held than there are", -free)
	}
}

// TestRestartHoldsAll: a guest that restarts may use static_max again, so it is
// refused while it runs where that is not there, and squeezes others where it is.
func TestRestartHoldsAll(t *testing.T) {
	s := newMemoryStack(t, 1700)
	one := s.started("one", 256, 512, 1024)
	s.settles(one, 512)
	two := s.started("two", 256, 890, 900)
	s.settles(two, 890)
	s.Must(nil, "VM.clean_reboot", one)
	s.state(one, api.VMPowerStateRunning)
	s.settles(one, 512)
	s.settles(two, 890)
	s.Must(nil, "VM.set_memory_dynamic_range", two, 890*mib, 890*mib)
	s.refused(api.CodeHostNotEnoughFreeMemory, nil, "VM.hard_reboot", one)
	if r := s.record(one); r.PowerState != api.VMPowerStateRunning || !r.ScheduledToBeResidentOn.IsNull() {
		t.Errorf("after a refused reboot: %s, scheduled to %q", r.PowerState, r.ScheduledToBeResidentOn)
	}
	s.refused(api.CodeHostNotEnoughFreeMemory, nil, "VM.set_memory_dynamic_range", one, 900*mib, 1024*mib)
	s.settles(one, 512)
}

// TestWaitEnds: without a balloon that moves after a time, and with the VM.
func TestWaitEnds(t *testing.T) {
	s := newMemoryStack(t, 2000)
	ref := s.started("x", 512, 1024, 1024)
	s.settles(ref, 1024)
	s.hv.SetMemoryStats(s.uuid(ref), hypervisor.MemoryStats{Actual: 1024 * mib, Total: 1000 * mib})
	s.Must(nil, "VM.set_memory_dynamic_range", ref, 512*mib, 512*mib)
	s.refused(api.CodeVMMemoryTargetWaitTimeout, []string{ref}, "VM.wait_memory_target_live", ref)
	if ops := s.record(ref).CurrentOperations; len(ops) != 0 {
		t.Errorf("it still waits: %v", ops)
	}
}

// TestPinnedMemory: a guest that runs guests has all its memory, always.
func TestPinnedMemory(t *testing.T) {
	s := newMemoryStack(t, 2000)
	ref := s.sized("x", 512, 512, 512)
	s.Must(nil, "VM.add_to_platform", ref, "nested-virt", "true")
	_, err := s.Call("VM.set_memory_dynamic_range", ref, 256*mib, 512*mib)
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeMemoryConstraintViolationMaxpin || len(e.Params) != 1 {
		t.Errorf("got %v", err)
	}
	s.Must(nil, "VM.set_memory", ref, 600*mib)
	s.Must(nil, "VM.start", ref, false, false)
	var record json.RawMessage
	s.Must(&record, "VM.get_record", ref)
	if s.actual(ref) != 600 {
		t.Errorf("has %d MiB", s.actual(ref))
	}
}
