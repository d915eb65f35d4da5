package storage_test

import (
	"errors"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/transfer/qcow2"
	"cairn/toolstack/wire/wiretest"
)

// TestScratch: room for an image is nobody's disk, and gone when it is given back or the
// process that took it is no more.
func TestScratch(t *testing.T) {
	r := newRig(t)
	sr := r.sr("ext", "/dev/sdb")
	s, err := r.m.NewScratch(t.Context(), sr, 3*mib+1)
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Write(t.Context())
	if err != nil || d.Size() != 4*mib {
		t.Fatal(err)
	}
	if _, err := d.WriteAt([]byte(qcow2.Magic), 0); err != nil {
		t.Error(err)
	}
	if _, err := s.Read(t.Context(), "qcow2"); err == nil {
		t.Error("it is read while it is written to")
	}
	r.Must(nil, "SR.scan", sr)
	if n := r.names(sr); len(n) != 0 {
		t.Errorf("disks %v", n)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	s.Remove()
	s.Remove()
	r.sound(sr)
	if _, err := r.m.NewScratch(t.Context(), sr, mib); err != nil {
		t.Error(err)
	}
	r.restart()
	r.run()
	r.Until("what a former process took is gone", func() bool { return len(wiretest.Get(r.Server, sr).VDIs) == 0 })
	r.sound(sr)
	r.hostd.SetSize("/dev/sdb", 2*mib)
	_, err = r.m.NewScratch(t.Context(), sr, 8*mib)
	var e *api.Error
	if !errors.As(err, &e) || e.Code != "SR_FULL" {
		t.Errorf("no room: %v", err)
	}
	r.sound(sr)
}
