package vm_test

import (
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// A revert that cannot take back one disk takes back none: a machine with some of its
// disks old and some new is lost.
func TestRevertTakesAllDisksOrNone(t *testing.T) {
	for i := range 2 {
		r := newRig(t)
		ref := r.install("x")
		var snapshot string
		r.Must(&snapshot, "VM.snapshot", ref, "s", []string{})
		busy := r.vdis(ref)[i]
		for _, vdi := range r.vdis(ref) {
			r.write(vdi, 0, 99)
		}
		occupy := func(ops map[string]api.VDIOperations) {
			must(t, db.Modify(r.ctx, r.DB, busy, func(_ *db.Tx, v *api.VDI) error { v.CurrentOperations = ops; return nil }))
		}
		occupy(map[string]api.VDIOperations{"task": api.VDIOperationsSnapshot})
		r.refused(api.CodeOtherOperationInProgress, nil, "VM.revert", snapshot)
		for _, vdi := range r.vdis(ref) {
			if got := r.read(vdi, 0); got != 99 {
				t.Errorf("with disk %d busy a disk reads %d", i, got)
			}
		}
		occupy(nil)
		r.Must(nil, "VM.revert", snapshot)
		for n, vdi := range r.vdis(ref) {
			if got := r.read(vdi, 0); got != uint64(10+n) {
				t.Errorf("disk %d reads %d", n, got)
			}
		}
	}
}
