package storage_test

import (
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire/wiretest"
)

var (
	errUnrelated = refused("460", "Failed to calculate changed blocks for given VDIs. [opterr=Source and target VDI are unrelated]")
	errSame      = refused("460", "Failed to calculate changed blocks for given VDIs. [opterr=Source and target VDI are same]")
)

// changed lists the blocks that changed, as a client does.
func (r *rig) changed(from, to api.VDIRef) string {
	r.T.Helper()
	var text string
	r.Must(&text, "VDI.list_changed_blocks", from, to)
	bits, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		r.T.Fatal(err)
	}
	var all []int
	for i := range len(bits) * 8 {
		if bits[i/8]&(0x80>>(i%8)) != 0 {
			all = append(all, i)
		}
	}
	return fmt.Sprint(all)
}

func (r *rig) changes(what string, from, to api.VDIRef, want string) {
	r.T.Helper()
	if got := r.changed(from, to); got != want {
		r.T.Errorf("%s: blocks %s changed, want %s", what, got, want)
	}
}

func (r *rig) snapshot(ref api.VDIRef) (s api.VDIRef) {
	r.T.Helper()
	r.Must(&s, "VDI.snapshot", ref, noMap)
	return s
}

// logs counts the logs of a repository.
func (r *rig) logs(sr api.SRRef) int {
	r.T.Helper()
	all, err := r.hostd.ChangeLogs(r.T.Context(), wiretest.Get(r.Server, sr).UUID)
	if err != nil {
		r.T.Fatal(err)
	}
	return len(all)
}

// alerts counts messages of a name about an object.
func (r *rig) alerts(name, uuid string) (n int) {
	for _, m := range db.All[api.Message](r.DB.Snapshot()) {
		if m.Name == name && m.ObjUUID == uuid {
			n++
		}
	}
	return n
}

// newTracked is a disk of 1 MiB whose changes are tracked since a snapshot.
func newTracked(t *testing.T) (r *rig, sr api.SRRef, disk, first api.VDIRef) {
	t.Helper()
	r = newRig(t)
	sr = r.sr("ext", "/dev/sdb")
	disk = r.disk(sr, "root", mib)
	r.write(disk, 0, 1)
	r.Must(nil, "VDI.enable_cbt", disk)
	r.Must(nil, "VDI.enable_cbt", disk)
	return r, sr, disk, r.snapshot(disk)
}

func TestChangedBlocks(t *testing.T) {
	r, sr, disk, a := newTracked(t)
	if !r.vdi(disk).CBTEnabled || !r.vdi(a).CBTEnabled {
		t.Error("the disk and its snapshot are not tracked")
	}
	r.changes("nothing written", a, disk, "[]")
	r.write(disk, 3, 1)
	b := r.snapshot(disk)
	r.write(disk, 15, 1)
	c := r.snapshot(disk)
	r.write(disk, 7, 1)
	for i, merged := range []string{"", " after a merge", " once more"} {
		r.changes("two neighbours"+merged, a, b, "[3]")
		r.changes("and the next"+merged, b, c, "[15]")
		r.changes("over one"+merged, a, c, "[3 15]")
		r.changes("to the disk"+merged, a, disk, "[3 7 15]")
		r.changes("from the last"+merged, c, disk, "[7]")
		r.coalesce(sr)
		if i == 1 {
			r.restart()
		}
	}
	r.Refused(errUnrelated, "VDI.list_changed_blocks", b, a)
	r.Refused(errUnrelated, "VDI.list_changed_blocks", disk, a)
	r.Refused(errSame, "VDI.list_changed_blocks", a, a)
	vm, vbd := r.vm(disk)
	r.Refused(api.ErrVDIInUse(disk.String(), "list_changed_blocks"), "VDI.list_changed_blocks", a, disk)
	r.changes("beside a running machine", a, c, "[3 15]")
	r.halt(vm, vbd)
	r.changes("after it", a, disk, "[3 7 15]")
	r.sound(sr)
	r.Covers("VDI.enable_cbt", "VDI.list_changed_blocks")
}

// A snapshot that goes leaves its changes to those after it, wherever it is.
func TestDestroyOfTracked(t *testing.T) {
	r, sr, disk, a := newTracked(t)
	r.write(disk, 3, 1)
	b := r.snapshot(disk)
	r.write(disk, 5, 1)
	c := r.snapshot(disk)
	r.write(disk, 7, 1)
	want := r.content(disk)
	r.Must(nil, "VDI.destroy", b)
	r.changes("over one that is gone", a, c, "[3 5]")
	r.coalesce(sr)
	r.changes("and merged", a, c, "[3 5]")
	r.Must(nil, "VDI.destroy", c)
	r.coalesce(sr)
	r.changes("the disk after the last is gone", a, disk, "[3 5 7]")
	r.reads("the disk", disk, want)
	if n := r.volumes(sr); n != 3 {
		t.Errorf("%d volumes, want those of the snapshot and the disk and one between", n)
	}
	r.Must(nil, "VDI.destroy", a)
	r.coalesce(sr)
	if n, l := r.volumes(sr), r.logs(sr); n != 1 || l != 0 {
		t.Errorf("%d volumes and %d logs are left of a disk of which no snapshot is", n, l)
	}
	d := r.snapshot(disk)
	r.write(disk, 9, 1)
	r.changes("a new beginning", d, disk, "[9]")
	r.Must(nil, "VDI.destroy", disk)
	r.Must(nil, "VDI.destroy", d)
	r.coalesce(sr)
	if n, l := r.volumes(sr), r.logs(sr); n != 0 || l != 0 {
		t.Errorf("%d volumes and %d logs are left of nothing", n, l)
	}
	r.sound(sr)
}

// What backups do: the bytes of the last snapshot go, its record stays.
func TestDataDestroy(t *testing.T) {
	r, sr, disk, a := newTracked(t)
	last := a
	for i := range int64(40) {
		r.write(disk, i%16, uint64(i)+2)
		next := r.snapshot(disk)
		r.changes("a generation", last, next, fmt.Sprint([]int64{i % 16}))
		r.Must(nil, "VDI.data_destroy", last)
		r.coalesce(sr)
		r.changes("and without the bytes of the first", last, next, fmt.Sprint([]int64{i % 16}))
		if n := r.volumes(sr); n > 4 {
			t.Fatalf("%d volumes after %d generations", n, i)
		}
		last = next
		if i >= 2 && i != 30 {
			continue
		}
		r.restart()
	}
	all := r.changed(a, disk)
	if want := "[0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15]"; all != want {
		t.Errorf("over all: %s", all)
	}
	gone := r.vdi(a)
	if gone.Type != api.VDITypeCBTMetadata || gone.PhysicalUtilisation != 0 || !gone.Managed || !gone.CBTEnabled || !gone.IsASnapshot {
		t.Errorf("%+v", gone)
	}
	r.Must(nil, "VDI.data_destroy", a)
	r.Must(nil, "SR.scan", sr)
	if r.vdi(a).Missing {
		t.Error("it is said to be missing")
	}
	r.Refused(api.ErrVDIIncompatibleType(a.String(), "cbt_metadata"), "VDI.clone", a, noMap)
	if _, err := r.m.Attach(t.Context(), r.host, a, false); !isAPI(err, api.CodeVDIIncompatibleType) {
		t.Errorf("attached: %v", err)
	}
	r.Must(nil, "VDI.destroy", r.vdi(disk).Snapshots[1])
	r.Must(nil, "VDI.destroy", a)
	r.Refused(api.ErrHandleInvalid("VDI", a.String()), "VDI.list_changed_blocks", a, disk)
	r.Covers("VDI.data_destroy")
}

func isAPI(err error, code string) bool {
	e, ok := err.(*api.Error)
	return ok && e.Code == code
}

func TestDataDestroyRefused(t *testing.T) {
	r, _, disk, a := newTracked(t)
	r.Refused(api.ErrOperationNotAllowed("the VDI is not a snapshot"), "VDI.data_destroy", disk)
	if _, err := r.m.Attach(t.Context(), r.host, a, false); err != nil {
		t.Fatal(err)
	}
	r.Refused(api.ErrVDIInUse(a.String(), "data_destroy"), "VDI.data_destroy", a)
	r.Must(nil, "VDI.disable_cbt", disk)
	b := r.snapshot(disk)
	r.Refused(api.ErrVDINoCBTMetadata(b.String()), "VDI.data_destroy", b)
	r.Refused(api.ErrOperationNotAllowed("changes of a snapshot cannot be tracked"), "VDI.enable_cbt", b)
	if d := r.vdi(a); d.Type != api.VDITypeUser {
		t.Errorf("a refused call made it %s", d.Type)
	}
}

// What was not tracked all the time is not known.
func TestNewBeginnings(t *testing.T) {
	r, sr, disk, a := newTracked(t)
	r.write(disk, 1, 1)
	b := r.snapshot(disk)
	r.Refused(api.ErrVDICBTEnabled(disk.String()), "VDI.resize", disk, 2*mib)
	r.Refused(api.ErrVDICBTEnabled(disk.String()), "VDI.set_on_boot", disk, "reset")
	r.Must(nil, "VDI.disable_cbt", disk)
	r.Must(nil, "VDI.disable_cbt", disk)
	r.Refused(errUnrelated, "VDI.list_changed_blocks", b, disk)
	r.Must(nil, "VDI.enable_cbt", disk)
	r.write(disk, 2, 1)
	c := r.snapshot(disk)
	r.write(disk, 3, 1)
	r.Refused(errUnrelated, "VDI.list_changed_blocks", b, c)
	r.changes("of the first set", a, b, "[1]")
	r.changes("of the second", c, disk, "[3]")

	var copied, cloned api.VDIRef
	r.Must(&cloned, "VDI.clone", disk, noMap)
	r.Must(&copied, "VDI.copy", disk, sr, "OpaqueRef:NULL", "OpaqueRef:NULL")
	if r.vdi(cloned).CBTEnabled || r.vdi(copied).CBTEnabled {
		t.Error("a clone or a copy is tracked")
	}
	r.write(disk, 4, 1)
	r.changes("over the layer of a clone", c, disk, "[3 4]")
	r.coalesce(sr)
	r.changes("over the layer of a clone", c, disk, "[3 4]")
	d := r.snapshot(disk)
	r.changes("over the layer of a clone", c, d, "[3 4]")

	r.Must(nil, "VDI.revert", c)
	if r.vdi(disk).CBTEnabled {
		t.Error("a disk that was reverted is tracked")
	}
	r.Refused(errUnrelated, "VDI.list_changed_blocks", d, disk)
	r.changes("of a set that is closed", c, d, "[3 4]")
	r.coalesce(sr)
	r.changes("of a set that is closed", c, d, "[3 4]")
	r.sound(sr)
	r.Covers("VDI.disable_cbt")
}

// A record that cannot be read is dropped, and somebody is told.
func TestTornLog(t *testing.T) {
	for name, text := range map[string][]byte{"missing": nil, "torn": []byte("CAIRNCB1 and then nothing"), "empty": {}} {
		t.Run(name, func(t *testing.T) {
			r, sr, disk, a := newTracked(t)
			r.write(disk, 1, 1)
			b := r.snapshot(disk)
			r.write(disk, 2, 1)
			c := r.snapshot(disk)
			r.coalesce(sr)
			uuid := wiretest.Get(r.Server, sr).UUID
			log := r.vdi(b).SMConfig["cairn:log"]
			r.hostd.Tear(uuid, log, text)
			_, err := r.Call("VDI.list_changed_blocks", a, c)
			if !isAPI(err, "SR_BACKEND_FAILURE_460") {
				t.Errorf("got %v", err)
			}
			if n := r.alerts("VDI_CBT_METADATA_INCONSISTENT", r.vdi(b).UUID); n != 1 {
				t.Errorf("%d alerts", n)
			}
			r.Refused(errUnrelated, "VDI.list_changed_blocks", a, c)
			r.changes("after it", b, c, "[2]")
			r.Must(nil, "VDI.destroy", b)
			r.Refused(errUnrelated, "VDI.list_changed_blocks", a, c)
		})
	}
}

// A machine that always runs leaves a layer for each snapshot that goes. Before a disk
// runs out of them the record ends, and not the disk.
func TestTrackedForEver(t *testing.T) {
	r := newBusy(t)
	r.Must(nil, "VDI.enable_cbt", r.ref)
	last := r.snapshot(r.ref)
	r.Must(nil, "VDI.data_destroy", last)
	known, ended := 0, 0
	for i := range int64(60) {
		r.writes(i%8, uint64(i)+100)
		next := r.snapshot(r.ref)
		if text, err := r.Call("VDI.list_changed_blocks", last, next); err == nil {
			known++
		} else if ended++; !isAPI(err, "SR_BACKEND_FAILURE_460") {
			t.Fatalf("%v, %v", text, err)
		}
		r.Must(nil, "VDI.data_destroy", next)
		r.Must(nil, "VDI.destroy", last)
		r.coalesce(r.sr)
		last = next
	}
	if known < 50 || ended == 0 {
		t.Errorf("changes were known %d times, and %d times not", known, ended)
	}
	r.sound(r.sr)
}

// Logs that a process which died has written are removed, and no others.
func TestStrayLogs(t *testing.T) {
	r, sr, disk, a := newTracked(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r.config.Now = func() time.Time { return now }
	r.restart()
	r.write(disk, 1, 1)
	b := r.snapshot(disk)
	r.coalesce(sr)
	uuid := wiretest.Get(r.Server, sr).UUID
	if err := r.hostd.WriteChangeLog(t.Context(), uuid, "stray", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		left  int
	}{{0, 2}, {59 * time.Minute, 2}, {time.Minute, 1}} {
		now = now.Add(step.after)
		if err := r.m.SweepLogs(t.Context(), sr); err != nil || r.logs(sr) != step.left {
			t.Errorf("after %s: %d logs, want %d, %v", step.after, r.logs(sr), step.left, err)
		}
	}
	r.changes("its own log", a, b, "[1]")
}

// A layer whose changes cannot be written down is not merged until they can.
func TestNoRoomForLogs(t *testing.T) {
	r, sr, disk, a := newTracked(t)
	hidden := r.snapshot(disk)
	r.write(disk, 1, 1)
	b := r.snapshot(disk)
	r.Must(nil, "VDI.destroy", hidden)
	r.Must(nil, "VDI.data_destroy", a)
	r.write(disk, 2, 1)
	c := r.snapshot(disk)
	r.hostd.Fail(func(verb, _, _ string) error {
		if verb == "write-log" {
			return &client.Error{Code: client.CodeNoSpace, Message: "no room"}
		}
		return nil
	})
	before := r.volumes(sr)
	r.coalesce(sr)
	r.changes("without room", a, b, "[1]")
	r.changes("without room", a, c, "[1 2]")
	_, err := r.Call("VDI.data_destroy", b)
	if !isAPI(err, api.CodeSRFull) || r.vdi(b).Type != api.VDITypeUser {
		t.Errorf("data_destroy: %v", err)
	}
	r.hostd.Fail(nil)
	r.coalesce(sr)
	if n := r.volumes(sr); n >= before {
		t.Errorf("%d volumes, and %d before there was room", n, before)
	}
	r.changes("with room", a, b, "[1]")
	r.changes("with room", b, c, "[2]")
	r.sound(sr)
}
