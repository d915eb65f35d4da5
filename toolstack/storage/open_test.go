package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/storage"
	"cairn/toolstack/storage/storagetest"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/nbd"
)

func (r *rig) open(vdi api.VDIRef, write bool) *storage.Disk {
	r.T.Helper()
	d, err := r.m.OpenDisk(r.T.Context(), vdi, write, "OpaqueRef:stream")
	if err != nil {
		r.T.Fatal(err)
	}
	return d
}

// refusedToOpen tells the error's code.
func (r *rig) refusedToOpen(vdi api.VDIRef, write bool, code string) {
	r.T.Helper()
	d, err := r.m.OpenDisk(r.T.Context(), vdi, write, "OpaqueRef:other")
	if err == nil {
		d.Close()
	}
	var e *api.Error
	if !errors.As(err, &e) || e.Code != code {
		r.T.Errorf("open for writing %v: %v, want %s", write, err, code)
	}
}

func (r *rig) closed(d *storage.Disk) {
	r.T.Helper()
	if err := d.Close(); err != nil {
		r.T.Error(err)
	}
}

func TestOpenToRead(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "d", 8*mib)
	r.write(ref, 3, 0x6361697263616972)
	var snapshot api.VDIRef
	r.Must(&snapshot, "VDI.snapshot", ref)
	for _, vdi := range []api.VDIRef{ref, snapshot} {
		d := r.open(vdi, false)
		if ops := r.vdi(vdi).CurrentOperations; len(ops) != 1 || ops["OpaqueRef:stream"] != api.VDIOperationsCopy {
			t.Errorf("operations %v", ops)
		}
		b := make([]byte, 16)
		if _, err := d.ReadAt(b, 3*storagetest.Cluster); err != nil || string(b) != "caircaircaircair" || d.Size() != 8*mib {
			t.Errorf("%q, %v", b, err)
		}
		if _, err := d.WriteAt(b, 0); err == nil {
			t.Error("it is written to")
		}
		second := r.open(vdi, false) // two may read
		r.refusedToOpen(vdi, true, map[bool]string{true: "VDI_IN_USE", false: "VDI_READONLY"}[vdi == ref])
		if _, err := r.m.Attach(t.Context(), r.host, ref, true); vdi == ref && err == nil {
			t.Error("it is attached for writing")
		}
		r.closed(second)
		r.closed(d)
		if ops := r.vdi(vdi).CurrentOperations; len(ops) != 0 || r.hostd.Lent() != 0 {
			t.Errorf("operations %v afterwards, %d lent", ops, r.hostd.Lent())
		}
	}
	r.m.Detach(t.Context(), r.host, ref)
	r.sound(sr)
}

func TestOpenToWrite(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "d", 8*mib)
	var snapshot api.VDIRef
	r.Must(&snapshot, "VDI.snapshot", ref)
	r.refusedToOpen(snapshot, true, "VDI_READONLY")
	before := r.vdi(ref).PhysicalUtilisation
	d := r.open(ref, true)
	want := bytes.Repeat([]byte("bytes"), 50000)
	if _, err := d.WriteAt(want, 1000); err != nil {
		t.Error(err)
	}
	r.refusedToOpen(ref, false, "OTHER_OPERATION_IN_PROGRESS")
	if _, err := r.m.Attach(t.Context(), r.host, ref, false); err == nil {
		t.Error("it is attached while it is written to")
	}
	r.closed(d)
	r.closed(d)
	if after := r.vdi(ref).PhysicalUtilisation; after < before+int64(len(want)) {
		t.Errorf("it takes %d bytes, and took %d", after, before)
	}
	d = r.open(ref, false)
	got := make([]byte, len(want))
	if _, err := d.ReadAt(got, 1000); err != nil || !bytes.Equal(got, want) {
		t.Error("it reads as something else", err)
	}
	r.closed(d)
	b := newBusy(t)
	b.refusedToOpen(b.ref, true, "VDI_IN_USE")
	b.refusedToOpen(b.ref, false, "VDI_IN_USE")
}

// TestChanged: what differs between a disk and its snapshot is in their own layers.
func TestChanged(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref := r.disk(sr, "d", 8*mib)
	r.write(ref, 1, 1)
	var first, second, clone api.VDIRef
	r.Must(&first, "VDI.snapshot", ref)
	r.write(ref, 2, 2)
	r.Must(&clone, "VDI.clone", first, noMap)
	r.write(clone, 7, 7)
	r.Must(&second, "VDI.snapshot", ref)
	r.write(ref, 3, 0)
	other := r.disk(sr, "other", 4*mib)
	r.write(other, 5, 5)
	for _, c := range []struct {
		vdi, base api.VDIRef
		want      []int64 // clusters
	}{
		{second, first, []int64{2}}, {ref, first, []int64{2, 3}}, {ref, second, []int64{3}}, {first, second, []int64{2}},
		{clone, second, []int64{2, 7}}, {first, first, nil}, {other, first, []int64{1, 5}}, {first, other, []int64{1, 5}},
	} {
		d, base := r.open(c.vdi, false), r.open(c.base, false)
		var got []int64
		for e, err := range d.Changed(t.Context(), base) {
			if err != nil {
				t.Fatal(err)
			}
			for at := e.Off; at < e.End(); at += storagetest.Cluster {
				got = append(got, at/storagetest.Cluster)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("changed %v, want %v", got, c.want)
		}
		r.closed(d)
		r.closed(base)
	}
}

// fill writes more to a new disk than there is room for, and destroys it.
func (r *rig) fill(sr api.SRRef) {
	r.T.Helper()
	ref := r.disk(sr, "d", 64*mib)
	d := r.open(ref, true)
	s := disk.NewSink(r.T.Context(), d)
	err := s.Write(bytes.Repeat([]byte("x"), 32*mib), 0)
	err = d.Failed(errors.Join(err, s.Finish()))
	var e *api.Error
	if !errors.As(err, &e) || e.Code != "SR_FULL" {
		r.T.Error(err)
	}
	r.closed(d)
	r.Must(nil, "VDI.destroy", ref)
	r.Must(nil, "SR.scan", sr)
}

// TestFullWhileWritten: a repository that is full says so, and its disk is free. There
// is one alert, however often that is tried, until there has been room for a while.
func TestFullWhileWritten(t *testing.T) {
	r := newRig(t)
	r.hostd.SetSize("/dev/sdb", 10*mib)
	sr := r.sr("ext", "/dev/sdb")
	for range 6 {
		r.fill(sr)
		r.later.Add(int64(9 * time.Minute))
	}
	if told := r.toldFull(sr); told != 1 {
		t.Errorf("%d alerts of six attempts, want 1", told)
	}
	r.later.Add(int64(time.Minute))
	r.Must(nil, "SR.scan", sr)
	r.fill(sr)
	if told := r.toldFull(sr); told != 2 {
		t.Errorf("%d alerts after there was room, want 2", told)
	}
	if r.hostd.Lent() != 0 {
		t.Error("it is lent out still")
	}
}

func TestOpenFails(t *testing.T) {
	r := newRig(t)
	ref := r.disk(r.sr("ext", "/dev/sdb"), "d", 8*mib)
	fail := "export"
	r.hostd.Fail(func(verb, _, _ string) error {
		if verb == fail {
			return errors.New("no")
		}
		return nil
	})
	r.refusedToOpen(ref, false, "SR_BACKEND_FAILURE_47")
	fail = "read-bytes"
	d := r.open(ref, false)
	_, err := d.ReadAt(make([]byte, 1), 0)
	var e *api.Error
	for _, err := range []error{err, fmt.Errorf("write: %w", nbd.ErrGone)} {
		if !errors.As(d.Failed(err), &e) || e.Code != "VDI_IO_ERROR" {
			t.Error(err)
		}
	}
	r.closed(d)
	ctx, cancel := context.WithCancel(t.Context())
	d, err = r.m.OpenDisk(ctx, ref, true, "")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := d.WriteAt(make([]byte, 1), 0); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	d.Close()
	if ops := r.vdi(ref).CurrentOperations; len(ops) != 0 || r.hostd.Lent() != 0 {
		t.Errorf("operations %v afterwards, %d lent", ops, r.hostd.Lent())
	}
	r.refusedToOpen("OpaqueRef:none", false, "HANDLE_INVALID")
}

// TestMemoryEndsEarly: what a machine's memory was saved into is as large as its row,
// however long the file.
func TestMemoryEndsEarly(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	ref, err := r.m.Create(t.Context(), storage.CreateSpec{SR: sr, Size: 8 * mib, Name: "memory", Type: api.VDITypeSuspend})
	if err != nil {
		t.Fatal(err)
	}
	r.write(ref, 3, 0x6361697263616972)
	const end = 4*storagetest.Cluster + 512
	row := r.vdi(ref)
	if err := r.hostd.Shrink(r.uuid(ref), row.Location, end); err != nil {
		t.Fatal(err)
	}
	d := r.open(ref, false)
	defer r.closed(d)
	b := bytes.Repeat([]byte{1}, end)
	if n, err := d.ReadAt(b, end-256); n != end || err != nil || !bytes.Equal(b, make([]byte, end)) {
		t.Errorf("across the end: %d, %v", n, err)
	}
	if n, err := d.ReadAt(b, 8*mib-10); n != 10 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if n, err := d.ReadAt(b[:16], 3*storagetest.Cluster); n != 16 || err != nil || string(b[:16]) != "caircaircaircair" {
		t.Errorf("before it: %d, %v, %q", n, err, b[:16])
	}
	var zero, all int64
	for e, err := range disk.All(t.Context(), d) {
		if all += e.Len; e.Zero {
			zero += e.Len
		}
		if err != nil {
			t.Error(err)
		}
	}
	if d.Size() != 8*mib || all != d.Size() || zero != d.Size()-storagetest.Cluster {
		t.Errorf("%d of %d bytes, %d zero", all, d.Size(), zero)
	}
}
