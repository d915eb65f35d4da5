package machine_test

import (
	"bytes"
	"errors"
	"testing"

	"cairn/toolstack/api"
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
