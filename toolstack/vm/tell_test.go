package vm_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/host/hosttest"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire/wiretest"
)

// alerts keeps what operators were told.
type alerts struct {
	mu   sync.Mutex
	told []string
	news chan struct{}
}

func newAlerts() *alerts { return &alerts{news: make(chan struct{}, 100)} }

func (a *alerts) Raise(_ context.Context, name string, cls api.Cls, uuid, body string) (api.MessageRef, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = append(a.told, name+" "+string(cls)+" "+uuid+" "+body)
	a.news <- struct{}{}
	return "", nil
}

// hears waits for one alert and returns it.
func (a *alerts) hears(t *testing.T) string {
	t.Helper()
	select {
	case <-a.news:
	case <-time.After(5 * time.Second):
		t.Fatal("nothing was told")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.told[len(a.told)-1]
}

// silent checks that there is nothing more to hear.
func (a *alerts) silent(t *testing.T) {
	t.Helper()
	select {
	case <-a.news:
		a.mu.Lock()
		defer a.mu.Unlock()
		t.Errorf("told: %s", a.told[len(a.told)-1])
	default:
	}
}

func TestEndsAreTold(t *testing.T) {
	told := newAlerts()
	s := newStackEdit(t, func(c *vm.Config) { c.Alerts = told })
	ref := s.makeVM("shop")
	uuid := s.uuid(ref)
	for _, tt := range []struct {
		why  hypervisor.Reason
		want string
	}{
		{hypervisor.ByCrash, "VM_CRASHED VM " + uuid + " VM 'shop' has crashed"},
		{hypervisor.ByGuest, "VM_SHUTDOWN VM " + uuid + " VM 'shop' has powered itself off"},
	} {
		s.Must(nil, "VM.start", ref, false, false)
		s.hv.End(uuid, tt.why)
		if got := told.hears(t); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: told %q", tt.why, got)
		}
		s.state(ref, api.VMPowerStateHalted)
	}
	s.Must(nil, "VM.start", ref, false, false)
	s.Must(nil, "VM.clean_shutdown", ref) // what was asked for is no news
	s.Must(nil, "VM.start", ref, false, false)
	s.Must(nil, "VM.hard_shutdown", ref)
	told.silent(t)
}

// TestOutOfMemory: what the kernel killed is told apart from what crashed, also
// when nobody saw it, and is followed like a crash. A kill of an earlier life is none.
func TestOutOfMemory(t *testing.T) {
	told, hostd := newAlerts(), hosttest.New()
	s := newStackEdit(t, func(c *vm.Config) { c.Alerts, c.Hostd = told, hostd })
	ref := s.makeVM("shop")
	uuid := s.uuid(ref)
	kill := func(ago time.Duration) {
		other := client.Kill{Guest: api.NewUUID()}
		hostd.Set(func(h *hosttest.Hostd) { h.Kills = []client.Kill{other, {Guest: uuid, PID: 7, Ago: ago}} })
	}
	const crash, memory = "' has crashed: its guest", "' has crashed: out of memory"
	for _, tt := range []struct {
		name        string
		ago, uptime time.Duration
		err         error
		want        string
		state       api.VMPowerState
	}{
		{"just now", 0, time.Second, nil, memory, api.VMPowerStateHalted},
		{"an earlier life", time.Hour, time.Minute, nil, crash, api.VMPowerStateRunning},
		{"after a long life", 0, time.Hour, nil, memory, api.VMPowerStateRunning},
		{"nobody knows", 0, time.Second, errors.New("hostd is away"), crash, api.VMPowerStateHalted},
	} {
		s.Must(nil, "VM.start", ref, false, false)
		started := time.Now().Add(-tt.uptime)
		must(t, s.DB.Update(s.ctx, func(tx *db.Tx) error {
			m, err := db.Edit(tx, s.record(ref).Metrics)
			m.StartTime = started
			return err
		}))
		kill(tt.ago)
		hostd.Set(func(h *hosttest.Hostd) { h.Err = tt.err })
		s.hv.End(uuid, hypervisor.ByCrash)
		if got := told.hears(t); !strings.HasPrefix(got, "VM_CRASHED VM "+uuid+" VM 'shop"+tt.want) {
			t.Errorf("%s: told %q", tt.name, got)
		}
		s.Until(tt.name, func() bool {
			return s.record(ref).PowerState == tt.state && (tt.state == api.VMPowerStateHalted || s.metrics(ref).StartTime.After(started))
		})
		if tt.state == api.VMPowerStateRunning {
			s.Must(nil, "VM.hard_shutdown", ref)
		}
	}
	hostd.Set(func(h *hosttest.Hostd) { h.Err = nil })
	s.Must(nil, "VM.start", ref, false, false)
	s.stop()
	kill(0)
	s.hv.End(uuid, hypervisor.ByCrash)
	s.run(vm.New(s.config))
	if got := told.hears(t); !strings.Contains(got, memory) {
		t.Errorf("while the toolstack was down: told %q", got)
	}
	s.state(ref, api.VMPowerStateHalted)
	told.silent(t)
}

// TestCrashWhileDown: the end of a domain that nobody saw is recorded; why it ended
// is not known, so nothing is told.
func TestCrashWhileDown(t *testing.T) {
	told := newAlerts()
	s := newStackEdit(t, func(c *vm.Config) { c.Alerts = told })
	ref := s.makeVM("x")
	s.Must(nil, "VM.start", ref, false, false)
	s.stop()
	s.hv.End(s.uuid(ref), hypervisor.ByCrash)
	s.run(vm.New(s.config))
	s.state(ref, api.VMPowerStateHalted)
	told.silent(t)
}

// TestNoSpace: a guest whose disk cannot be written is paused and told of, tries
// again without another word, and goes on when it can; or when somebody says so.
func TestNoSpace(t *testing.T) {
	told := newAlerts()
	s := newStackEdit(t, func(c *vm.Config) { c.Alerts, c.SpaceRetry = told, 30*time.Millisecond })
	ref := s.makeVM("shop")
	uuid := s.uuid(ref)
	s.Must(nil, "VM.start", ref, false, false)
	events, cancel := s.hv.Subscribe()
	defer cancel()
	s.hv.FailWrite(uuid, "disk", hypervisor.NoSpace)
	if got := told.hears(t); !strings.HasPrefix(got, "ALARM VM "+uuid+" VM 'shop' is paused") {
		t.Errorf("told %q", got)
	}
	for n := 0; n < 2; { // attempts: the first fails again
		e := <-events
		if e.Kind == hypervisor.Resumed {
			if n++; n == 1 {
				s.hv.FailWrite(uuid, "disk", hypervisor.NoSpace)
			}
		}
	}
	s.state(ref, api.VMPowerStateRunning)
	told.silent(t)
}

func TestUnpauseAfterNoSpace(t *testing.T) {
	s := newStackEdit(t, func(c *vm.Config) { c.SpaceRetry = time.Hour })
	ref := s.makeVM("x")
	s.Must(nil, "VM.start", ref, false, false)
	s.hv.FailWrite(s.uuid(ref), "disk", hypervisor.NoSpace)
	s.state(ref, api.VMPowerStatePaused)
	s.Must(nil, "VM.unpause", ref)
	s.state(ref, api.VMPowerStateRunning)
}

func TestBootRecord(t *testing.T) {
	s := newStack(t)
	s.Covers("VM.get_boot_record")
	ref := s.makeVM("x")
	s.refused(api.CodeVMBadPowerState, []string{ref, "running; paused; suspended", "halted"}, "VM.get_boot_record", ref)
	s.Must(nil, "VM.start", ref, false, false)
	var r struct {
		UUID  string `json:"uuid"`
		VCPUs any    `json:"VCPUs_at_startup"`
	}
	s.Must(&r, "VM.get_boot_record", ref)
	if r.UUID != s.uuid(ref) {
		t.Errorf("%+v", r)
	}
}

func TestVCPUsLive(t *testing.T) {
	s := newStack(t)
	s.Covers("VM.set_VCPUs_number_live")
	ref := s.makeVM("x")
	s.Must(nil, "VM.set_VCPUs_max", ref, "4")
	s.refused(api.CodeVMBadPowerState, []string{ref, "running", "halted"}, "VM.set_VCPUs_number_live", ref, "2")
	s.Must(nil, "VM.start", ref, false, false)
	s.Must(nil, "VM.set_VCPUs_number_live", ref, "3")
	number := func() int64 {
		metrics, err := db.Get(s.DB.Snapshot(), s.record(ref).Metrics)
		must(t, err)
		return metrics.VCPUsNumber
	}
	hw, err := s.hv.Hardware(s.ctx, s.uuid(ref))
	must(t, err)
	if hw.VCPUs != 3 || number() != 3 || s.record(ref).VCPUsAtStartup != 3 {
		t.Errorf("%d in the domain, %d in metrics, %d at startup", hw.VCPUs, number(), s.record(ref).VCPUsAtStartup)
	}
	for _, n := range []string{"0", "5"} {
		s.refused(api.CodeInvalidValue, []string{"nvcpu", n}, "VM.set_VCPUs_number_live", ref, n)
	}
	s.hv.FailNext("SetVCPUs", hypervisor.ErrUnsupported)
	s.refused(api.CodeOperationNotAllowed, nil, "VM.set_VCPUs_number_live", ref, "1")
	must(t, s.hv.SetVCPUs(s.ctx, s.uuid(ref), 2)) // unseen, as by a call whose answer was lost
	s.hv.Resync()
	s.Until("metrics say what the domain has", func() bool { return number() == 2 })
}

// TestVCPUsAreNotGivenUp: a guest whose system is not up, or does not want to, and one
// that would lose what it began with, keep what they have, and the rows say so.
func TestVCPUsAreNotGivenUp(t *testing.T) {
	s := newStack(t)
	ref := s.makeVM("x")
	s.Must(nil, "VM.set_VCPUs_max", ref, "4")
	s.Must(nil, "VM.set_VCPUs_at_startup", ref, "2")
	s.Must(nil, "VM.start", ref, false, false)
	s.Must(nil, "VM.set_VCPUs_number_live", ref, "4")
	metrics := s.record(ref).Metrics
	unchanged := func(what string, has int64) {
		t.Helper()
		s.Until(what, func() bool { return wiretest.Get(s.Server, metrics).VCPUsNumber == has })
		if r := s.record(ref); r.VCPUsAtStartup != 4 || len(r.CurrentOperations) != 0 {
			t.Errorf("%s: %d at startup, doing %v", what, r.VCPUsAtStartup, r.CurrentOperations)
		}
	}
	s.refused(api.CodeOperationNotAllowed, nil, "VM.set_VCPUs_number_live", ref, "1")
	unchanged("it began with two", 4)
	s.hv.HoldDevices(s.uuid(ref), true)
	s.refused(api.CodeOperationNotAllowed, nil, "VM.set_VCPUs_number_live", ref, "2")
	unchanged("its system does not answer", 4)
	s.hv.HoldDevices(s.uuid(ref), false)
	must(t, s.hv.SetVCPUs(s.ctx, s.uuid(ref), 3))
	s.hv.FailNext("SetVCPUs", hypervisor.ErrBusy) // when one was given up already
	s.refused(api.CodeOperationNotAllowed, nil, "VM.set_VCPUs_number_live", ref, "2")
	unchanged("it gave up one of two", 3)
	s.Must(nil, "VM.set_VCPUs_number_live", ref, "2")
}
