package machine_test

import (
	"bytes"
	"errors"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire/wiretest"
)

// content is what a disk of storage reads as.
func (r *rig) content(ref api.VDIRef) []byte {
	r.T.Helper()
	d, err := r.disks.Manager.Open(r.T.Context(), ref, false)
	must(r.T, err)
	b := make([]byte, d.Size())
	_, err = d.ReadAt(b, 0)
	must(r.T, errors.Join(err, d.Close()))
	return b
}

// TestThroughStorage takes the bytes through volumes, as a host does.
func TestThroughStorage(t *testing.T) {
	r := newRig(t)
	r.disks.real = true
	from, vdis := r.insert("web", nil)
	for i, ref := range vdis {
		d, err := r.disks.Manager.Open(t.Context(), ref, true)
		must(t, err)
		_, err = d.WriteAt(r.disks.memory(ref).Bytes(), 0)
		must(t, errors.Join(err, d.Flush(), d.Close()))
		if len(r.content(ref)) == 0 {
			t.Error(i)
		}
	}
	b := r.get("/export?ref=" + string(from) + "&use_compression=zstd")
	made := r.mustImport("", b)
	for i, ref := range r.vdis(made) {
		if !bytes.Equal(r.content(ref), r.content(vdis[i])) {
			t.Errorf("disk %d is not what it was", i)
		}
		if v := wiretest.Get(r.Server, ref); len(v.CurrentOperations) != 0 || v.PhysicalUtilisation == 0 {
			t.Errorf("disk %d: %+v", i, v)
		}
	}
	before := r.state()
	for _, c := range []struct{ verb, want string }{{"write-bytes", "VDI_IO_ERROR"}, {"flush", "VDI_IO_ERROR"}, {"export", ""}} {
		n := 0
		r.hostd.Fail(func(verb, _, _ string) error {
			if verb == c.verb {
				if n++; n == 2 {
					return errors.New("boom")
				}
			}
			return nil
		})
		_, err := r.importing("", b)
		r.hostd.Fail(nil)
		var known *api.Error
		if !errors.As(err, &known) || c.want != "" && known.Code != c.want {
			t.Errorf("%s: %v", c.verb, err)
		}
		r.unchanged(c.verb, before)
		if n := r.hostd.Lent(); n != 0 {
			t.Errorf("%s: %d volumes are lent out", c.verb, n)
		}
	}
	r.hostd.SetSize("/srv/one", 10*mib)
	if _, err := r.importing("", b); err == nil {
		t.Error("a full repository takes a VM")
	}
	r.unchanged("full", before)
}

// fill writes to a disk of storage.
func (r *rig) fill(ref api.VDIRef, b []byte) {
	r.T.Helper()
	d, err := r.disks.Manager.Open(r.T.Context(), ref, true)
	must(r.T, err)
	_, err = d.WriteAt(b, 0)
	must(r.T, errors.Join(err, d.Flush(), d.Close()))
}

// TestRevertWhereItCame: a snapshot that travelled can be reverted to, as often as one
// likes, and the disks it is made of are chains no more.
func TestRevertWhereItCame(t *testing.T) {
	for _, query := range []string{"", "&restore=true&force=true"} {
		r := newRig(t)
		r.disks.real = true
		from, vdis := r.insert("web", nil)
		r.fill(vdis[0], noise(11, 6*mib))
		var snap string
		r.Must(&snap, "VM.snapshot", from, "before")
		r.fill(vdis[0], noise(12, 6*mib))
		b := r.get("/export?include_snapshots=true&use_compression=zstd&ref=" + string(from))
		made := r.mustImport(query, b)
		now := wiretest.Get(r.Server, made)
		if len(now.Snapshots) != 1 || !bytes.Equal(r.content(r.vdis(made)[0]), noise(12, 6*mib)) {
			t.Fatalf("%+v", now)
		}
		for range 2 {
			r.Must(nil, "VM.revert", now.Snapshots[0])
			if !bytes.Equal(r.content(r.vdis(made)[0]), noise(11, 6*mib)) {
				t.Errorf("import%s: the revert shows something else", query)
			}
			r.fill(r.vdis(made)[0], noise(13, 6*mib))
		}
		var second string
		r.Must(&second, "VM.snapshot", made, "after")
		r.Must(nil, "VM.destroy", now.Snapshots[0])
		if !bytes.Equal(r.content(r.vdis(api.VMRef(second))[0]), noise(13, 6*mib)) {
			t.Error("a new snapshot is not what the VM was")
		}
	}
}

// TestMemoryEndsEarly: the file with a VM's memory ends with it, and is as large as its
// row where it arrives.
func TestMemoryEndsEarly(t *testing.T) {
	r := newRig(t)
	r.disks.real = true
	from, memory := r.suspended()
	keep := func(memory api.VDIRef) {
		r.update(func(tx *db.Tx) {
			vm, err := db.Edit(tx, from)
			must(t, err)
			vm.SuspendVDI = memory
		})
	}
	keep("") // what a VM keeps as its memory nobody else writes to
	r.fill(memory, noise(9, 2*mib))
	keep(memory)
	sr := wiretest.Get(r.Server, r.sr).UUID
	must(t, r.hostd.Shrink(sr, wiretest.Get(r.Server, memory).Location, mib+512))
	want := r.content(memory)
	b := r.get("/export?preserve_power_state=true&ref=" + string(from))
	r.Must(nil, "VM.destroy", from)
	v := wiretest.Get(r.Server, r.mustImport("&restore=true", b))
	if v.PowerState != api.VMPowerStateSuspended || wiretest.Get(r.Server, v.SuspendVDI).VirtualSize != 2*mib {
		t.Fatalf("%+v", v)
	}
	if got := r.content(v.SuspendVDI); len(got) != 2*mib || !bytes.Equal(got, want) || bytes.Equal(got[:mib+512], make([]byte, mib+512)) {
		t.Error("the memory is not what it was")
	}
}
