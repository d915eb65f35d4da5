package vm_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
	"cairn/toolstack/vm/template"
)

var (
	crashAll  = flag.Bool("crash.all", false, "kill at every step of every operation, not at some")
	crashSeed = flag.Uint64("crash.seed", rand.Uint64(), "which steps to kill at")
)

// crashCase is an operation that is killed.
type crashCase struct {
	name  string
	state api.VMPowerState // of the VM before
	// before makes what else is needed.
	before func(*life)
	call   func(*life) error
	// after says what is wrong beyond what is always checked.
	after func(l *life) string
}

const (
	halted    = api.VMPowerStateHalted
	running   = api.VMPowerStateRunning
	suspended = api.VMPowerStateSuspended
)

var crashCases = []crashCase{
	{"provision", halted, makeTemplate, func(l *life) error { return l.call(nil, "VM.provision", l.snap) }, provisionedOrNot},
	{"clone", halted, nothing, func(l *life) error { return l.call(nil, "VM.clone", l.subject, "made") }, madeOrNot},
	{"copy", halted, nothing, func(l *life) error { return l.call(nil, "VM.copy", l.subject, "made", "") }, madeOrNot},
	{"snapshot halted", halted, nothing, takeSnapshot, madeOrNot},
	{"snapshot running", running, nothing, takeSnapshot, awakeAnd(madeOrNot)},
	{"snapshot at rest", running, nothing, takeQuiesced, awakeAnd(madeOrNot)},
	{"snapshot suspended", suspended, nothing, takeSnapshot, asleepAnd(madeOrNot)},
	{"checkpoint running", running, nothing, takeCheckpoint, awakeAnd(madeOrNot)},
	{"checkpoint suspended", suspended, nothing, takeCheckpoint, asleepAnd(madeOrNot)},
	{"revert", running, snapshotThenWrite("VM.snapshot"), func(l *life) error { return l.call(nil, "VM.revert", l.snap) }, revertedOrNot(halted)},
	{"revert to a checkpoint", running, snapshotThenWrite("VM.checkpoint"), func(l *life) error { return l.call(nil, "VM.revert", l.snap) }, revertedOrNot(suspended)},
	{"suspend", running, nothing, func(l *life) error { return l.call(nil, "VM.suspend", l.subject) }, alive},
	{"resume", suspended, nothing, func(l *life) error { return l.call(nil, "VM.resume", l.subject, false, false) }, alive},
	{"shutdown of a suspended", suspended, nothing, func(l *life) error { return l.call(nil, "VM.hard_shutdown", l.subject) }, intact},
	{"destroy", suspended, nothing, func(l *life) error { return l.call(nil, "VM.destroy", l.subject) }, destroyedOrNot},
}

func nothing(*life) {}

func takeSnapshot(l *life) error { return l.call(nil, "VM.snapshot", l.subject, "made", []string{}) }

func takeQuiesced(l *life) error { return l.call(nil, "VM.snapshot_with_quiesce", l.subject, "made") }

func takeCheckpoint(l *life) error { return l.call(nil, "VM.checkpoint", l.subject, "made") }

func makeTemplate(l *life) {
	l.must(&l.snap, "VM.clone", l.template("debian-13"), "provisioned")
	must(l.t, l.db.Update(l.ctx, func(tx *db.Tx) error {
		v, err := db.Edit(tx, l.snap)
		v.OtherConfig[template.DisksKey] = template.Disks{{Device: "0", Size: gib, Type: api.VDITypeUser}, {Device: "1", Size: gib, Type: api.VDITypeUser}}.String()
		return err
	}))
}

func snapshotThenWrite(method string) func(*life) {
	return func(l *life) {
		args := []any{l.subject, "before"}
		if method == "VM.snapshot" {
			args = append(args, []string{})
		}
		l.must(&l.snap, method, args...)
		l.write(98, 99) // as the guest would: it writes to its top layers
		l.nvram.set(l.vm(l.subject).UUID, remembered{"entries 98", "keys 98"})
	}
}

// named are the VMs, templates and snapshots of a name.
func (l *life) named(name string) []api.VMRef { return db.ByName[api.VM](l.db.Snapshot(), name) }

func (l *life) template(key string) api.VMRef {
	for ref, v := range db.All[api.VM](l.db.Snapshot()) {
		if v.IsDefaultTemplate && v.ReferenceLabel == key {
			return ref
		}
	}
	return ""
}

func (l *life) intact(want ...uint64) string {
	if got := l.reads(l.subject); !slices.Equal(got, want) {
		return fmt.Sprintf("the disks read %v, want %v", got, want)
	}
	return l.remembers(l.subject, want[0])
}

// remembers checks firmware and TPM of a VM by what its first disk reads.
func (l *life) remembers(ref api.VMRef, disk uint64) string {
	want := remembered{fmt.Sprint("entries ", disk), fmt.Sprint("keys ", disk)}
	if v := l.vm(ref); l.nvram.of(v.UUID) != want || len(v.VTPMs) != 1 {
		return fmt.Sprintf("%s remembers %+v with %d TPMs, want %+v", v.NameLabel, l.nvram.of(v.UUID), len(v.VTPMs), want)
	}
	return ""
}

func intact(l *life) string { return l.intact(10, 11) }

func madeOrNot(l *life) string {
	made := l.named("made")
	if len(made) > 1 {
		return "made more than once"
	}
	for _, ref := range made {
		if got := l.reads(ref); !slices.Equal(got, []uint64{10, 11}) {
			return fmt.Sprintf("what was made reads %v", got)
		}
		if what := l.remembers(ref, 10); what != "" {
			return what
		}
	}
	return intact(l)
}

func provisionedOrNot(l *life) string {
	v := l.vm(l.snap)
	if n := len(v.VBDs); v.IsATemplate && n != 0 || !v.IsATemplate && n != 2 {
		return fmt.Sprintf("template %t with %d drives", v.IsATemplate, n)
	}
	return intact(l)
}

// alive: neither guest nor memory is lost by the death of the toolstack.
func alive(l *life) string {
	if l.vm(l.subject).PowerState == halted && !l.loss {
		return "the guest is lost"
	}
	return intact(l)
}

func awakeAnd(f func(*life) string) func(*life) string {
	return func(l *life) string {
		if state := l.vm(l.subject).PowerState; state != running && !l.loss {
			return "the VM is " + string(state)
		}
		return f(l)
	}
}

func asleepAnd(f func(*life) string) func(*life) string {
	return func(l *life) string {
		if state := l.vm(l.subject).PowerState; state != suspended {
			return "the VM is " + string(state)
		}
		return f(l)
	}
}

func revertedOrNot(done api.VMPowerState) func(*life) string {
	return func(l *life) string {
		got, state := l.reads(l.subject), l.vm(l.subject).PowerState
		before := running
		if l.loss {
			before = halted
		}
		if slices.Equal(got, []uint64{10, 11}) && state == done || slices.Equal(got, []uint64{98, 99}) && state == before {
			return l.remembers(l.subject, got[0])
		}
		return fmt.Sprintf("%s, and the disks read %v", state, got)
	}
}

func destroyedOrNot(l *life) string {
	if l.vm(l.subject) != nil {
		return intact(l)
	}
	for i, vdi := range l.disks {
		row := l.vdi(vdi)
		if row == nil {
			return "a disk is lost"
		}
		content, err := l.hostd.Content(l.srUUID(), row.Location)
		if err != nil || content[0] != uint64(10+i) {
			return fmt.Sprintf("a disk reads %v: %v", content, err)
		}
	}
	return ""
}

// prepare makes the VM that things are done to.
func (w *world) prepare(tt crashCase) *life {
	l := w.boot()
	l.must(&w.sr, "SR.create", w.host.ref, map[string]string{"location": "/srv"}, 0, "sr", "", "file", "", false, map[string]string{})
	must(w.t, l.db.Update(l.ctx, func(tx *db.Tx) error {
		pool := api.NewPool()
		pool.DefaultSR, pool.SuspendImageSR = w.sr, w.sr
		db.Insert(tx, pool)
		return nil
	}))
	l.must(&w.subject, "VM.clone", l.template("other-install-media"), "subject")
	l.must(nil, "VM.provision", w.subject)
	must(w.t, l.db.Update(l.ctx, func(tx *db.Tx) error {
		v, err := db.Edit(tx, w.subject)
		v.HVMBootParams = map[string]string{"firmware": "uefi", "order": "c"}
		return err
	}))
	l.must(nil, "VTPM.create", w.subject, false)
	w.nvram.set(l.vm(w.subject).UUID, remembered{"entries 10", "keys 10"})
	for n := range 2 {
		vdi, err := l.store.Create(l.ctx, storage.CreateSpec{SR: w.sr, Size: gib, Name: fmt.Sprint("disk ", n)})
		must(w.t, err)
		w.disks = append(w.disks, vdi)
		l.must(nil, "VBD.create", map[string]any{
			"VM": w.subject, "VDI": vdi, "userdevice": fmt.Sprint(n), "bootable": true, "mode": "RW", "type": "Disk",
			"unpluggable": true, "empty": false, "other_config": map[string]string{}, "qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
		})
	}
	l.write(10, 11)
	if tt.state != halted {
		l.must(nil, "VM.start", w.subject, false, false)
	}
	tt.before(l)
	if tt.state == suspended {
		l.must(nil, "VM.suspend", w.subject)
	}
	if what := l.until(l.wrong); what != "" {
		w.t.Fatalf("before: %s", what)
	}
	return l
}

// TestKilledAtEachStep kills the toolstack before each thing it does to the world
// in the course of an operation, starts another one, and looks whether the
// operation is finished or undone, the rows true, nothing left over and nothing
// lost. By default a few steps of each operation, by a seed; all with -crash.all.
func TestKilledAtEachStep(t *testing.T) {
	t.Logf("seed %d", *crashSeed)
	for i, tt := range crashCases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(*crashSeed, uint64(i)))
			total := killedAt(t, tt, death{})
			for step := 1; step <= total; step++ {
				for _, d := range []death{{step: step}, {step: step, again: 1 + random.IntN(12)}, {step: step, loss: true}, {step: step, loss: true, luck: true}} {
					if *crashAll || random.IntN(2*total) < 2 {
						killedAt(t, tt, d)
					}
				}
			}
		})
	}
}

// death is how a process ends: before a step of an operation, 0 for not at all, and
// the next one before a step of what it does about that, 0 for not. The host may lose
// its power in the same moment, with luck in what was not yet on its media.
type death struct {
	step, again int
	loss, luck  bool
}

// killedAt reports how many steps the operation took.
func killedAt(t *testing.T, tt crashCase, d death) int {
	w := newWorld(t)
	l := w.prepare(tt)
	l.gate.arm(d.step)
	err := tt.call(l)
	if d.step == 0 && err != nil {
		t.Fatalf("not killed: %v", err)
	}
	if d.step == 0 {
		l.until(l.wrong) // what goes on after the answer counts, too
	}
	total := l.gate.steps()
	l.end()
	if d.loss {
		w.losePower(d.luck)
	}
	must(t, w.finishSave())
	if w.lives = d.again; d.again > 0 {
		l = w.boot()
		l.until(l.wrong)
		l.end()
		must(t, w.finishSave())
	}
	l = w.boot()
	defer l.end()
	if what := l.until(func() string {
		if what := l.wrong(); what != "" {
			return what
		}
		return tt.after(l)
	}); what != "" {
		t.Errorf("killed: %+v of %d (%v): %s", d, total, err, what)
		return total
	}
	l.mu.Lock()
	twice := slices.Clone(l.twice)
	l.mu.Unlock()
	if len(twice) > 0 {
		t.Errorf("killed: %+v: memory ran twice: %v", d, twice)
	}
	if what := l.usable(); what != "" {
		t.Errorf("killed: %+v of %d (%v): afterwards %s", d, total, err, what)
	}
	return total
}

// usable runs the VM once more.
func (l *life) usable() string {
	v := l.vm(l.subject)
	if v == nil {
		return ""
	}
	var err error
	switch v.PowerState {
	case suspended:
		err = l.call(nil, "VM.resume", l.subject, false, false)
	case halted:
		err = l.call(nil, "VM.start", l.subject, false, false)
	}
	if err == nil {
		err = l.call(nil, "VM.hard_shutdown", l.subject)
	}
	if err != nil {
		return err.Error()
	}
	return l.until(l.wrong)
}

// TestPowerLostWhileSuspending: whatever of the image has reached its medium, the VM
// is halted with its disks as they were, unless its row had said Suspended before.
func TestPowerLostWhileSuspending(t *testing.T) {
	tt := crashCase{"suspend", running, nothing, func(l *life) error { return l.call(nil, "VM.suspend", l.subject) }, intact}
	total := killedAt(t, tt, death{})
	for step := 1; step <= total; step++ {
		for _, luck := range []bool{false, true} {
			w := newWorld(t)
			l := w.prepare(tt)
			l.gate.arm(step)
			_ = tt.call(l)
			l.gate.steps()
			want := halted
			if l.vm(l.subject).PowerState == suspended {
				want = suspended
			}
			l.end()
			w.losePower(luck)
			l = w.boot()
			if what := l.until(func() string {
				if state := l.vm(l.subject).PowerState; state != want {
					return "the VM is " + string(state)
				}
				if what := l.wrong(); what != "" {
					return what
				}
				return l.intact(10, 11)
			}); what != "" {
				t.Errorf("step %d of %d, luck %t: %s, want %s", step, total, luck, what, want)
			}
			l.end()
		}
	}
}
