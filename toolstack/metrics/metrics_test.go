package metrics

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"cairn/toolstack/alert"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/metrics/proc"
	"cairn/toolstack/metrics/rrd"
	"cairn/toolstack/wire/wiretest"
)

var begin = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// said is what a hypervisor that a test speaks for answers.
type said struct {
	stats []hypervisor.Stats
	err   error
	hang  bool
}

func (s *said) Stats(ctx context.Context) ([]hypervisor.Stats, error) {
	if s.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.stats, s.err
}

// bench is a host with a sampler, in virtual time.
type bench struct {
	testing.TB
	*wiretest.Server
	m      *Manager
	guests said
	kernel fstest.MapFS
	dir    string
	now    time.Time
	log    strings.Builder
	ticks  int
	host   string // uuid
	sr     api.SRRef
}

func newBench(t testing.TB) *bench {
	b := &bench{TB: t, dir: filepath.Join(t.TempDir(), "metrics"), now: begin, kernel: fstest.MapFS{}}
	b.Server = wiretest.New(t, func(r *api.Registry, d *db.DB) {
		b.restart(d)
		b.m.Register(r)
	})
	b.m.Handle(b.Wire)
	b.host = api.NewUUID()
	b.update(func(tx *db.Tx) {
		h := api.NewHost()
		h.UUID, h.Metrics = b.host, db.Insert(tx, api.NewHostMetrics())
		db.InsertAs(tx, b.Host, h)
		for name, physical := range map[string]bool{"eth0": true, "bond0": false} {
			p := api.NewPIF()
			p.UUID, p.Host, p.Device, p.VLAN, p.Physical = api.NewUUID(), b.Host, name, -1, physical
			db.Insert(tx, p)
		}
		sr := api.NewSR()
		sr.UUID, sr.PhysicalSize, sr.PhysicalUtilisation, sr.VirtualAllocation = api.NewUUID(), 1<<40, 1<<39, 1<<38
		b.sr = db.Insert(tx, sr)
		pbd := api.NewPBD()
		pbd.UUID, pbd.Host, pbd.SR, pbd.CurrentlyAttached = api.NewUUID(), b.Host, b.sr, true
		db.Insert(tx, pbd)
	})
	return b
}

// restart is another process on the same files.
func (b *bench) restart(d *db.DB) {
	b.m = New(Config{
		DB: d, ThisHost: func() api.HostRef { return b.Host }, Guests: &b.guests, Alerts: alert.New(d), Kernel: proc.Root{FS: b.kernel},
		Dir: b.dir, Log: slog.New(slog.NewTextHandler(&b.log, nil)),
	})
	b.m.since = func(time.Time) time.Duration { return 0 }
}

func (b *bench) update(f func(*db.Tx)) {
	b.Helper()
	must(b, b.DB.Update(b.Context(), func(tx *db.Tx) error { f(tx); return nil }))
}

// vm makes a VM with a disk xvda and a NIC 0, and says how its hypervisor calls the NIC.
func (b *bench) vm() (ref api.VMRef, uuid, tap string) {
	b.update(func(tx *db.Tx) {
		vm := api.NewVM()
		vm.UUID, vm.PowerState, vm.ResidentOn, vm.MemoryTarget = api.NewUUID(), api.VMPowerStateRunning, b.Host, 1<<30
		vm.Metrics = db.Insert(tx, api.NewVMMetrics())
		ref, uuid = db.Insert(tx, vm), vm.UUID
		vdi := api.NewVDI()
		vdi.UUID, vdi.SR = api.NewUUID(), b.sr
		vbd := api.NewVBD()
		vbd.UUID, vbd.VM, vbd.VDI, vbd.Device = api.NewUUID(), ref, db.Insert(tx, vdi), "sda"
		db.Insert(tx, vbd)
		vif := api.NewVIF()
		vif.UUID, vif.VM, vif.Device = api.NewUUID(), ref, "0"
		db.Insert(tx, vif)
		tap = hypervisor.TapName(vif.UUID)
	})
	return ref, uuid, tap
}

// tick lets five seconds pass in which the host's CPU 0 was half busy and CPU 1 idle,
// and looks.
func (b *bench) tick() {
	b.Helper()
	b.ticks++
	n := b.ticks
	b.kernel["stat"] = &fstest.MapFile{Data: fmt.Appendf(nil, "cpu0 %d 0 0 %d 0 0 0 0\ncpu1 0 0 0 %d 0 0 0 0\n", 250*n, 250*n, 500*n)}
	b.kernel["meminfo"] = &fstest.MapFile{Data: []byte("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")}
	b.kernel["loadavg"] = &fstest.MapFile{Data: []byte("0.75 0 0 1/1 1\n")}
	b.kernel["net/dev"] = &fstest.MapFile{Data: fmt.Appendf(nil,
		"  eth0: %d 1 0 0 0 0 0 0 %d 1 0 0 0 0 0 0\n bond0: %d 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  tap1: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n", 5000*n, 10000*n, 5000*n)}
	b.now = b.now.Add(rrd.Step)
	b.m.Tick(b.Context(), b.now)
}

// newest is the last value of a source that is recorded.
func (b *bench) newest(o Owner, name string) float64 {
	b.Helper()
	v := math.NaN()
	must(b, b.m.look(o, func(s *series) {
		names, rows := told(b, s, s.db.Last().Add(-rrd.Step), 0)
		if i := slices.Index(names, name); i >= 0 && len(rows) > 0 {
			v = rows[0][i]
		}
	}))
	return v
}

// value is a number as answers spell it, in quotes where JSON knows none of the kind.
type value float64

// UnmarshalJSON implements json.Unmarshaler.
func (v *value) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64)
	*v = value(n)
	return err
}

// told is what clients are told of averages after an instant, the newest first.
func told(t testing.TB, s *series, start time.Time, interval time.Duration) (names []string, rows [][]float64) {
	t.Helper()
	var b bytes.Buffer
	must(t, rrd.Join([]rrd.Member{{Owner: "x", Database: s.db}}, rrd.Query{Function: rrd.Average, Start: start, Interval: interval}).WriteJSON(&b))
	var answer struct {
		Meta struct{ Legend []string }
		Data []struct{ Values []value }
	}
	must(t, json.Unmarshal(b.Bytes(), &answer))
	for _, name := range answer.Meta.Legend {
		names = append(names, strings.TrimPrefix(name, "AVERAGE:x:"))
	}
	for _, r := range answer.Data {
		var row []float64
		for _, v := range r.Values {
			row = append(row, float64(v))
		}
		rows = append(rows, row)
	}
	return names, rows
}

func (b *bench) want(o Owner, want map[string]float64) {
	b.Helper()
	for name, v := range want {
		if got := b.newest(o, name); math.Abs(got-v) > 1e-5*max(1, math.Abs(v)) || math.IsNaN(got) != math.IsNaN(v) {
			b.Errorf("%s of %s is %v, want %v", name, o.Kind, got, v)
		}
	}
}

func TestHostFigures(t *testing.T) {
	b := newBench(t)
	for range 3 {
		b.tick()
	}
	b.want(Owner{HostKind, b.host}, map[string]float64{
		"cpu0": 0.5, "cpu1": 0, "cpu_avg": 0.25, "memory_total_kib": 16 << 20, "memory_free_kib": 8 << 20, "loadavg": 0.75,
		"pif_eth0_rx": 1000, "pif_eth0_tx": 2000, "pif_bond0_rx": 1000, "pif_aggr_rx": 1000, "pif_aggr_tx": 2000,
		"pif_tap1_rx": unknown, "pif_eth0_rx_errors": unknown, "running_domains": 0,
	})
	sr, err := db.Get(b.DB.Snapshot(), b.sr)
	must(t, err)
	b.want(Owner{SRKind, sr.UUID}, map[string]float64{"size": 1 << 40, "physical_utilisation": 1 << 39, "virtual_allocation": 1 << 38, "iops_total": 0})
}

// use is what a VM has used after so many seconds.
func use(uuid, tap string, seconds int) hypervisor.Stats {
	n := uint64(seconds)
	return hypervisor.Stats{
		UUID: uuid, State: hypervisor.Running,
		VCPUs:  map[int]time.Duration{0: time.Duration(seconds) * time.Second, 1: time.Duration(seconds) * 250 * time.Millisecond},
		Memory: hypervisor.MemoryStats{Actual: 1 << 30, Total: 1 << 30, Free: 1 << 20, Usable: 1 << 29},
		Disks: []hypervisor.DiskStats{
			{Device: "sda", Reads: hypervisor.IOStats{Requests: 10 * n, Bytes: n << 20, Time: time.Duration(10*n) * time.Millisecond}, Writes: hypervisor.IOStats{Requests: 2 * n, Bytes: n << 21, Time: time.Duration(n) * time.Millisecond}},
			{Device: "sdd"},
		},
		NICs: []hypervisor.NICStats{{Tap: tap, Received: 100 * n, Sent: 200 * n}, {Tap: "vnet7", Received: n}},
	}
}

func TestGuestFigures(t *testing.T) {
	b := newBench(t)
	_, uuid, tap := b.vm()
	for i := range 4 {
		b.guests.stats = []hypervisor.Stats{use(uuid, tap, 5*i), {UUID: api.NewUUID(), State: hypervisor.Running}}
		b.tick()
	}
	vm := Owner{VMKind, uuid}
	if v := valueNamed(b.m.now(vm), "vbd_xvda_io_throughput_total"); v != 3 {
		t.Errorf("vbd_xvda_io_throughput_total is %v", v)
	}
	b.want(vm, map[string]float64{
		"cpu0": 1, "cpu1": 0.25, "cpu_usage": 0.625, "memory": 1 << 30, "memory_target": 1 << 30, "memory_internal_free": 1 << 19,
		"vbd_xvda_read": 1 << 20, "vbd_xvda_write": 1 << 21, "vbd_xvda_iops_read": 10, "vbd_xvda_iops_write": 2,
		"vbd_xvda_read_latency": 1000, "vbd_xvda_write_latency": 500, "vbd_xvdd_read": 0, "vbd_xvdd_read_latency": 0,
		"vif_0_rx": 100, "vif_0_tx": 200, "vbd_xvda_iops_total": unknown,
	})
	if n := len(b.m.owners()); n != 3 {
		t.Errorf("%d owners: %v", n, b.m.owners())
	}
	sr, err := db.Get(b.DB.Snapshot(), b.sr)
	must(t, err)
	b.want(Owner{SRKind, sr.UUID}, map[string]float64{"io_throughput_read": 1, "io_throughput_write": 2, "io_throughput_total": 3, "iops_read": 10, "iops_write": 2, "iops_total": 12})
	b.want(Owner{HostKind, b.host}, map[string]float64{"io_throughput_total_" + sr.UUID[:8]: 3, "running_domains": 2, "running_vcpus": 2})
}

// TestGuestAnew: a VM that was started again has new counters; nothing is made of the
// difference.
func TestGuestAnew(t *testing.T) {
	b := newBench(t)
	_, uuid, tap := b.vm()
	for _, seconds := range []int{1000, 1005, 1, 6, 11} {
		b.guests.stats = []hypervisor.Stats{use(uuid, tap, seconds)}
		b.tick()
	}
	must(t, b.m.look(Owner{VMKind, uuid}, func(s *series) {
		_, rows := told(t, s, begin, 0)
		for _, row := range rows {
			if !math.IsNaN(row[0]) && row[0] != 1 {
				t.Errorf("%v", row)
			}
		}
	}))
	b.want(Owner{VMKind, uuid}, map[string]float64{"cpu0": 1, "vbd_xvda_read": 1 << 20})
}

// TestSlowHypervisor: one that fails costs VMs' samples and one line; VMs stay in
// memory, and the host's figures go on.
func TestSlowHypervisor(t *testing.T) {
	b := newBench(t)
	_, uuid, tap := b.vm()
	b.guests.stats = []hypervisor.Stats{use(uuid, tap, 0)}
	b.tick()
	b.guests.err = hypervisor.ErrUnavailable
	b.tick()
	if b.log.Len() > 0 {
		t.Errorf("log:\n%s", &b.log)
	}
	b.guests.err = errors.New("no answer")
	for range 3 {
		b.tick()
	}
	b.want(Owner{HostKind, b.host}, map[string]float64{"cpu0": 0.5, "running_domains": unknown})
	b.guests = said{stats: []hypervisor.Stats{use(uuid, tap, 25)}}
	b.tick()
	b.guests = said{stats: []hypervisor.Stats{use(uuid, tap, 30)}}
	b.tick()
	b.want(Owner{VMKind, uuid}, map[string]float64{"cpu0": 1})
	if strings.Count(b.log.String(), "metrics-missing") != 1 || strings.Count(b.log.String(), "metrics-back") != 1 {
		t.Errorf("log:\n%s", &b.log)
	}
}

// TestHangingHypervisor: a question that is not answered ends with the manager.
func TestHangingHypervisor(t *testing.T) {
	b := newBench(t)
	b.guests.hang = true
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.m.Tick(ctx, b.now)
	if strings.Contains(b.log.String(), "hypervisor") {
		t.Errorf("log:\n%s", &b.log)
	}
}

// TestClockGoesBack: a host whose date was wrong by hours is not silent until then, and
// still knows what was before.
func TestClockGoesBack(t *testing.T) {
	b := newBench(t)
	for range 12 * 70 {
		b.tick()
	}
	right := b.now
	b.now = right.Add(2 * time.Hour)
	b.tick()
	b.tick()
	b.now = right
	for range 3 {
		b.tick()
	}
	host := Owner{HostKind, b.host}
	b.want(host, map[string]float64{"cpu0": 0.5})
	must(t, b.m.look(host, func(s *series) {
		if _, hours := told(t, s, begin.Add(-time.Second), time.Hour); len(hours) != 2 || hours[0][0] != 0.5 {
			t.Errorf("hours: %v", hours)
		}
	}))
	b.now = b.now.Add(-30 * time.Second) // a correction costs samples only
	b.tick()
	if n := strings.Count(b.log.String(), "metrics-rewound"); n != 2 {
		t.Errorf("%d lines in\n%s", n, &b.log)
	}
}

// TestKept: what was known goes on after a restart and after a VM's rest; what is of the
// dead goes away.
func TestKept(t *testing.T) {
	b := newBench(t)
	ref, uuid, tap := b.vm()
	vm := Owner{VMKind, uuid}
	for i := range 3 {
		b.guests.stats = []hypervisor.Stats{use(uuid, tap, 5*i)}
		b.tick()
	}
	b.m.SaveAll()
	b.restart(b.DB)
	b.want(vm, map[string]float64{"cpu0": 1})
	b.tick()
	if b.guests.stats = nil; len(b.m.owners()) != 3 {
		t.Errorf("after a restart there are %v", b.m.owners())
	}
	b.tick() // it has stopped
	if len(b.m.owners()) != 2 {
		t.Errorf("after the VM's end there are %v", b.m.owners())
	}
	must(t, b.m.look(vm, func(s *series) {
		if _, rows := told(t, s, begin, 0); len(rows) != 4 {
			t.Errorf("%d rows of a VM that rests", len(rows))
		}
	}))
	b.update(func(tx *db.Tx) { must(t, db.Delete(tx, ref)) })
	must(t, os.WriteFile(filepath.Join(b.dir, ".new-1"), nil, 0o600))
	b.m.saveDue(b.now)
	if left, _ := os.ReadDir(b.dir); len(left) != 2 || b.m.look(vm, func(*series) {}) == nil {
		t.Errorf("left: %v", left)
	}
}

// TestDamagedFile: it is dropped with one line, and figures begin anew.
func TestDamagedFile(t *testing.T) {
	b := newBench(t)
	b.tick()
	b.m.SaveAll()
	o := Owner{HostKind, b.host}
	path := b.m.store.path(o)
	good, err := os.ReadFile(path)
	must(t, err)
	flipped := append([]byte(nil), good...)
	flipped[len(good)/2] ^= 1
	for name, bad := range map[string][]byte{"short": good[:len(good)/2], "empty": {}, "flipped": flipped, "other": []byte("something")} {
		must(t, os.WriteFile(path, bad, 0o600))
		b.log.Reset()
		b.restart(b.DB)
		b.tick()
		b.tick()
		b.want(o, map[string]float64{"cpu0": 0.5})
		if n := strings.Count(b.log.String(), "metrics-dropped"); n != 1 {
			t.Errorf("%s: %d lines in\n%s", name, n, &b.log)
		}
	}
}

// TestNoRoomOnDisk: what cannot be written is kept in memory, and said once.
func TestNoRoomOnDisk(t *testing.T) {
	b := newBench(t)
	must(t, os.WriteFile(b.dir, nil, 0o600)) // where the directory should be
	for range 3 {
		b.tick()
		b.m.SaveAll()
	}
	if n := strings.Count(b.log.String(), "metrics-missing"); n != 1 {
		t.Errorf("%d lines in\n%s", n, &b.log)
	}
	must(t, os.Remove(b.dir))
	b.m.SaveAll()
	if left, _ := os.ReadDir(b.dir); len(left) != 2 {
		t.Errorf("saved: %v", left)
	}
}

// TestTooMuchKept: the files that were not written for longest give way.
func TestTooMuchKept(t *testing.T) {
	b := newBench(t)
	var names []string
	for n := range 5 {
		_, uuid, _ := b.vm()
		o := Owner{VMKind, uuid}
		names = append(names, b.m.store.path(o))
		must(t, b.m.store.save(o, head{}, rrd.New()))
		at := begin.Add(time.Duration(n) * time.Hour)
		must(t, os.Chtimes(names[n], at, at))
	}
	info, err := os.Stat(names[0])
	must(t, err)
	b.m.store.most = 2*info.Size() + 1
	b.m.saveDue(b.now)
	for n, name := range names {
		if _, err := os.Stat(name); (err == nil) != (n >= 3) {
			t.Errorf("file %d: %v", n, err)
		}
	}
}

// TestSavedInTurn: every database is written once an hour, a few at a time.
func TestSavedInTurn(t *testing.T) {
	b := newBench(t)
	for range 7 {
		_, uuid, tap := b.vm()
		b.guests.stats = append(b.guests.stats, use(uuid, tap, 1))
	}
	b.tick()
	counts := []int{}
	for range 4 {
		b.m.saveDue(b.now)
		files, _ := os.ReadDir(b.dir)
		counts = append(counts, len(files))
		b.now = b.now.Add(saveEvery)
	}
	if fmt.Sprint(counts) != "[0 4 8 9]" {
		t.Errorf("files: %v", counts)
	}
}

// TestBackup: what an administrator asks for is on disk when the answer comes.
func TestBackup(t *testing.T) {
	b := newBench(t)
	b.tick()
	b.Must(nil, "host.backup_rrds", b.Host.String(), 0.0)
	if files, _ := os.ReadDir(b.dir); len(files) != 2 {
		t.Errorf("files: %v", files)
	}
	for _, delay := range []float64{-1, 1e9} {
		if _, err := b.Call("host.backup_rrds", b.Host.String(), delay); err == nil || !strings.Contains(err.Error(), api.CodeInvalidValue) {
			t.Errorf("after %v s: %v", delay, err)
		}
	}
	b.Covers("host.backup_rrds")
}

// TestForgottenDevices: what was never known of a device that is gone is not kept.
func TestForgottenDevices(t *testing.T) {
	b := newBench(t)
	_, uuid, tap := b.vm()
	b.guests.stats = []hypervisor.Stats{use(uuid, tap, 1)}
	b.tick()
	b.guests.stats[0].Disks = nil
	b.tick()
	b.m.saveDue(b.now)
	must(t, b.m.look(Owner{VMKind, uuid}, func(s *series) {
		names, _ := told(t, s, begin, 0)
		for _, name := range names {
			if strings.HasPrefix(name, "vbd_") {
				t.Errorf("there is %s", name)
			}
		}
		if len(names) < 5 {
			t.Errorf("sources: %v", names)
		}
	}))
}

// BenchmarkTick is one look at a host with 100 VMs.
func BenchmarkTick(b *testing.B) {
	x := newBench(b)
	taps := map[string]string{}
	for range 100 {
		_, uuid, tap := x.vm()
		taps[uuid] = tap
	}
	for b.Loop() {
		x.guests.stats = nil
		for uuid, tap := range taps {
			x.guests.stats = append(x.guests.stats, use(uuid, tap, 5*x.ticks))
		}
		x.tick()
	}
}
