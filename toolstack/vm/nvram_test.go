package vm_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire/wiretest"
)

// nvram is what machines remember, by uuid: "" in a part is nothing.
type nvram struct {
	mu     sync.Mutex
	states map[string]remembered
	drafts map[string]bool
	step   func() error // before each change, and between its parts
}

type remembered struct{ variables, tpm string }

func newNVRAM() *nvram {
	return &nvram{states: map[string]remembered{}, drafts: map[string]bool{}, step: func() error { return nil }}
}

func (n *nvram) set(uuid string, r remembered) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.states[uuid] = r; r == (remembered{}) {
		delete(n.states, uuid)
	}
}

func (n *nvram) of(uuid string) remembered {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.states[uuid]
}

func (n *nvram) CopyNVRAM(_ context.Context, to string, what client.NVRAM) error {
	if err := n.step(); err != nil {
		return err
	}
	from, made := n.of(what.From), n.of(to)
	n.mu.Lock()
	if what.Draft {
		n.drafts[to] = true
	}
	n.mu.Unlock()
	if what.Variables {
		made.variables = from.variables
		n.set(to, made)
	}
	if err := n.step(); err != nil {
		return err
	}
	if what.TPM {
		made.tpm = from.tpm
	}
	n.set(to, made)
	return nil
}

func (n *nvram) KeepNVRAM(_ context.Context, uuid string) error {
	if err := n.step(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.drafts, uuid)
	return nil
}

func (n *nvram) DropNVRAM(_ context.Context, uuid string) error {
	if err := n.step(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.drafts[uuid] {
		delete(n.states, uuid)
		delete(n.drafts, uuid)
	}
	return nil
}

func (n *nvram) DraftNVRAM(context.Context) (all []string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for uuid := range n.drafts {
		all = append(all, uuid)
	}
	return all, nil
}

// wrong says what is left of machines that are not there, or not copied to one that is.
func (n *nvram) wrong(snap *db.Snapshot) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.drafts) > 0 {
		return fmt.Sprintf("drafts %v", n.drafts)
	}
	there := map[string]bool{}
	for _, v := range db.All[api.VM](snap) {
		there[v.UUID] = true
		if v.HVMBootParams["firmware"] == "uefi" && v.NameLabel == "made" && n.states[v.UUID].variables == "" {
			return "what was made remembers nothing"
		}
	}
	for uuid := range n.states {
		if !there[uuid] {
			return "a machine that is not there remembers something"
		}
	}
	return ""
}

// uefi installs a VM with UEFI, and a TPM if tpm says how.
func (r *rig) uefi(name string, tpm ...bool) (ref, uuid string) {
	ref = r.install(name)
	r.Must(nil, "VM.set_HVM_boot_params", ref, map[string]string{"firmware": "uefi", "order": "c"})
	for _, unique := range tpm {
		r.Must(nil, "VTPM.create", ref, unique)
	}
	return ref, r.uuid(ref)
}

// remembering is a rig whose machines remember.
func remembering(t *testing.T) (*rig, *nvram) {
	n := newNVRAM()
	return newRigEdit(t, func(c *vm.Config) { c.NVRAM = n }), n
}

// TestCopiesRemember: clone, copy, snapshot and checkpoint take along what firmware
// and TPM remember, and share it with nobody; a unique TPM's secrets stay.
func TestCopiesRemember(t *testing.T) {
	for _, unique := range []bool{false, true} {
		r, n := remembering(t)
		ref, uuid := r.uefi("x", unique)
		was := remembered{"entries", "keys"}
		want := was
		if unique {
			want.tpm = ""
		}
		n.set(uuid, was)
		for _, make := range []struct {
			method string
			args   []any
		}{
			{"VM.clone", []any{"c"}}, {"VM.copy", []any{"c", ""}}, {"VM.snapshot", []any{"c", []string{}}}, {"VM.checkpoint", []any{"c"}},
		} {
			if make.method == "VM.checkpoint" {
				r.Must(nil, "VM.start", ref, false, false)
			}
			var made string
			r.Must(&made, make.method, append([]any{ref}, make.args...)...)
			v := r.record(made)
			if got := n.of(v.UUID); got != want || len(v.VTPMs) != 1 {
				t.Errorf("%s, unique %t: %+v with %d TPMs, want %+v", make.method, unique, got, len(v.VTPMs), want)
				continue
			}
			if tpm := wiretest.Get(r.Server, v.VTPMs[0]); tpm.IsUnique != unique || string(tpm.VM) != made {
				t.Errorf("%s: TPM %+v", make.method, tpm)
			}
		}
		if got := n.of(uuid); got != was || len(n.drafts) != 0 {
			t.Errorf("the original remembers %+v; drafts %v", got, n.drafts)
		}
	}
}

// TestRevertTakesATPM: to before the VM had one.
func TestRevertTakesATPM(t *testing.T) {
	r, n := remembering(t)
	ref, uuid := r.uefi("x")
	n.set(uuid, remembered{variables: "entries"})
	var snap string
	r.Must(&snap, "VM.snapshot", ref, "s", []string{})
	r.Must(nil, "VTPM.create", ref, true)
	n.set(uuid, remembered{"entries", "keys"})
	r.Must(nil, "VM.revert", snap)
	if got := n.of(uuid); got.tpm != "" || len(r.record(ref).VTPMs) != 0 {
		t.Errorf("reverted: %+v with %v", got, r.record(ref).VTPMs)
	}
}

func TestRevertRemembers(t *testing.T) {
	r, n := remembering(t)
	ref, uuid := r.uefi("x", false)
	n.set(uuid, remembered{"entries", "keys"})
	var snap string
	r.Must(&snap, "VM.snapshot", ref, "s", []string{})
	n.set(uuid, remembered{"other entries", "other keys"})
	tpm := r.record(ref).VTPMs[0]
	r.Must(nil, "VM.revert", snap)
	if got := n.of(uuid); got != (remembered{"entries", "keys"}) {
		t.Errorf("reverted: %+v", got)
	}
	if now := r.record(ref).VTPMs; !slices.Equal(now, []api.VTPMRef{tpm}) {
		t.Errorf("the TPM was %s, is %v", tpm, now)
	}
	// One that it had then comes back, with what it held.
	r.Must(nil, "VTPM.destroy", tpm)
	if got := n.of(uuid); got != (remembered{variables: "entries"}) {
		t.Errorf("without a TPM: %+v", got)
	}
	r.Must(nil, "VM.revert", snap)
	if v := r.record(ref); len(v.VTPMs) != 1 || n.of(uuid).tpm != "keys" {
		t.Errorf("reverted: %v, %+v", v.VTPMs, n.of(uuid))
	}
}

// TestRevertThatCannotRemember: the disks stay what they are.
func TestRevertThatCannotRemember(t *testing.T) {
	r, n := remembering(t)
	ref, uuid := r.uefi("x")
	n.set(uuid, remembered{variables: "entries"})
	var snap string
	r.Must(&snap, "VM.snapshot", ref, "s", []string{})
	r.Must(nil, "VM.set_name_label", ref, "y")
	before := r.vdis(ref)
	r.write(before[0], 0, 99)
	n.step = func() error { return fmt.Errorf("boom") }
	r.refused(api.CodeVMRevertFailed, []string{ref, snap}, "VM.revert", snap)
	if got := r.vdis(ref); !slices.Equal(got, before) || r.read(got[0], 0) != 99 || r.record(ref).NameLabel != "y" {
		t.Errorf("disks %v, were %v, with %d", got, before, r.read(got[0], 0))
	}
	n.step = func() error { return nil }
	r.Must(nil, "VM.revert", snap)
	if got := r.read(r.vdis(ref)[0], 0); got != 10 {
		t.Errorf("reverted to %d", got)
	}
}

// TestCopyThatCannotRemember: nothing is made.
func TestCopyThatCannotRemember(t *testing.T) {
	for _, tt := range []struct {
		method string
		args   []any
	}{{"VM.clone", []any{"made"}}, {"VM.snapshot", []any{"made", []string{}}}} {
		r, n := remembering(t)
		ref, uuid := r.uefi("x")
		n.set(uuid, remembered{variables: "entries"})
		left := 1 // the draft is begun
		n.step = func() error {
			if left--; left == -1 {
				return fmt.Errorf("boom")
			}
			return nil
		}
		if _, err := r.Call(tt.method, append([]any{ref}, tt.args...)...); err == nil {
			t.Errorf("%s succeeds", tt.method)
		}
		r.onlyDisks(2)
		if what := n.wrong(r.DB.Snapshot()); what != "" || len(db.ByName[api.VM](r.DB.Snapshot(), "made")) != 0 {
			t.Errorf("%s left %s", tt.method, what)
		}
	}
}

func TestVTPM(t *testing.T) {
	r, n := remembering(t)
	r.Covers("VTPM.create", "VTPM.destroy", "VM.get_VTPMs")
	ref, uuid := r.uefi("x")
	var tpm api.VTPMRef
	r.Must(&tpm, "VTPM.create", ref, true)
	var all []api.VTPMRef
	r.Must(&all, "VM.get_VTPMs", ref)
	if row := wiretest.Get(r.Server, tpm); !slices.Equal(all, []api.VTPMRef{tpm}) || !row.IsUnique || string(row.VM) != ref || !slices.Contains(row.AllowedOperations, api.VTPMOperationsDestroy) {
		t.Errorf("%v: %+v", all, row)
	}
	r.refused(api.CodeVTPMMaxAmountReached, []string{"1"}, "VTPM.create", ref, false)
	r.bring(ref, api.VMPowerStateRunning)
	r.refused(api.CodeVMBadPowerState, []string{ref, "halted", "running"}, "VTPM.destroy", tpm)
	r.Must(nil, "VM.hard_shutdown", ref)
	n.set(uuid, remembered{"entries", "keys"})
	r.Must(nil, "VTPM.destroy", tpm)
	if got := n.of(uuid); got != (remembered{variables: "entries"}) || len(r.record(ref).VTPMs) != 0 {
		t.Errorf("destroyed: %+v, %v", got, r.record(ref).VTPMs)
	}
	r.bring(ref, api.VMPowerStateRunning)
	r.refused(api.CodeVMBadPowerState, []string{ref, "halted", "running"}, "VTPM.create", ref, false)
}

// TestWantedVTPM: a VM whose template asks for a TPM gets its row at its first start,
// unless it has been given one, and no other after that one was taken away.
func TestWantedVTPM(t *testing.T) {
	r, _ := remembering(t)
	ref, _ := r.uefi("x")
	r.Must(nil, "VM.add_to_platform", ref, "vtpm", "true")
	r.bring(ref, api.VMPowerStateRunning)
	r.Must(nil, "VM.hard_shutdown", ref)
	all := r.record(ref).VTPMs
	r.bring(ref, api.VMPowerStateRunning)
	r.Must(nil, "VM.hard_shutdown", ref)
	if again := r.record(ref).VTPMs; len(all) != 1 || !slices.Equal(again, all) {
		t.Fatalf("%v, then %v", all, again)
	}
	r.Must(nil, "VTPM.destroy", all[0])
	r.bring(ref, api.VMPowerStateRunning)
	if v := r.record(ref); len(v.VTPMs) != 0 {
		t.Errorf("%v", v.VTPMs)
	}
}
