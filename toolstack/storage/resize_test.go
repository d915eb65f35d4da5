package storage_test

import (
	"errors"
	"fmt"
	"testing"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/operation"
	"cairn/toolstack/storage"
)

// sized checks that row and volume say the same, and that a snapshot can be taken.
func (b busy) sized(what string, want int64) {
	b.T.Helper()
	d := b.vdi(b.ref)
	v, err := b.hostd.Volume(b.T.Context(), b.uuid(b.ref), d.Location)
	if err != nil || d.VirtualSize != want || v.VirtualSize != want || d.SMConfig["cairn:sizing"] != "" {
		b.T.Errorf("%s: the row says %d %v, the volume %d, %v; want %d", what, d.VirtualSize, d.SMConfig, v.VirtualSize, err, want)
	}
}

func (b busy) snapshots() {
	b.T.Helper()
	b.Must(nil, "VDI.snapshot", b.ref, noMap)
}

// TestResizeMeetsShutdown: the machine goes while its disk is being enlarged. Whatever
// is answered, the row says what the volume is.
func TestResizeMeetsShutdown(t *testing.T) {
	for what, c := range map[string]struct {
		open, closes bool // the domain has it open, and lets go of it when it is told
		want         int64
	}{
		"before the domain wrote the size":    {true, true, 16 * mib},
		"after the domain wrote the size":     {false, false, 16 * mib},
		"and the domain takes its time to go": {true, false, 8 * mib},
	} {
		t.Run(what, func(t *testing.T) {
			b := newBusy(t)
			name := b.vdi(b.ref).Location
			b.hostd.Open(name, c.open)
			b.domains.resize = func(vm string, _ int64) error {
				b.domains.stop(vm)
				if c.closes {
					b.hostd.Open(name, false)
				}
				return fmt.Errorf("resize disk: %w", hypervisor.ErrUnknownOutcome)
			}
			if c.want == 16*mib {
				b.Must(nil, "VDI.resize_online", b.ref, 16*mib)
			} else {
				b.Refused(api.ErrVMBadPowerState(b.vm.String(), "running", "halted"), "VDI.resize_online", b.ref, 16*mib)
			}
			b.sized("the machine is gone", c.want)
			b.halt(b.vm, b.vbd)
			b.hostd.Open(name, false)
			b.snapshots()
		})
	}
}

// TestResizeOfADiskThatWasUnplugged: there is no domain to tell.
func TestResizeOfADiskThatWasUnplugged(t *testing.T) {
	b := newBusy(t)
	b.domains.resize = func(string, int64) error {
		b.domains.start(b.guest, "another", b.uuid(b.ref), hypervisor.Source{})
		return fmt.Errorf("disk: %w", hypervisor.ErrNotFound)
	}
	b.Must(nil, "VDI.resize_online", b.ref, 16*mib)
	b.sized("unplugged", 16*mib)
}

// TestSizeThatNobodyTold: hostd is gone when the volume has grown.
func TestSizeThatNobodyTold(t *testing.T) {
	for _, runs := range []bool{false, true} {
		b := newBusy(t)
		b.halt(b.vm, b.vbd)
		b.hostd.Fail(func(verb, _, _ string) error {
			if verb == "resize" {
				return nil
			}
			return errors.New("hostd: EOF")
		})
		if _, err := b.Call("VDI.resize", b.ref, 16*mib); err == nil {
			t.Error("done, and nobody knows")
		}
		b.hostd.Fail(nil)
		if runs {
			b.run()
			b.Until("the size is found out", func() bool { return b.vdi(b.ref).SMConfig["cairn:sizing"] == "" })
			b.sized("looked after", 16*mib)
		}
		b.snapshots()
		b.sound(b.sr)
	}
}

// TestKilledWhileResizing kills the toolstack before each change that a resize makes.
func TestKilledWhileResizing(t *testing.T) {
	for step := 0; ; step++ {
		l := newLife(t, 1)
		ref, err := l.m.Create(t.Context(), storage.CreateSpec{SR: l.sr, Size: mib, Name: "disk"})
		if err != nil {
			t.Fatal(err)
		}
		l.left = step
		err = l.m.Resize(t.Context(), ref, 2*mib)
		over := l.left > 0
		l.again()
		if err := operation.Recover(t.Context(), l.db, journal.Discard()); err != nil {
			t.Fatal(err)
		}
		if _, err := l.m.Snapshot(t.Context(), []api.VDIRef{ref}, nil); err != nil {
			t.Fatalf("killed before step %d: %v", step, err)
		}
		d, _ := db.Get(l.db.Snapshot(), ref)
		if v, verr := l.hostd.Volume(t.Context(), l.uuid, d.Location); verr != nil || v.VirtualSize != d.VirtualSize || err == nil && d.VirtualSize != 2*mib {
			t.Errorf("killed before step %d: the row says %d, the volume %d %v; answered %v", step, d.VirtualSize, v.VirtualSize, verr, err)
		}
		l.sound(fmt.Sprintf("killed before step %d", step))
		if over {
			return
		}
	}
}
