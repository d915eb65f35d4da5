//go:build lab

package volume_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"cairn/ci/devhost"
	"cairn/image/debian/debiantest"
	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
	"cairn/toolstack/transfer/volume"
	"cairn/toolstack/wire/wiretest"
)

func TestMain(m *testing.M) {
	devhost.Main()
	os.Exit(m.Run())
}

// real is a rig with the real hostd, qemu-img and qemu-nbd, on a repository of files.
type real struct {
	*wiretest.Server
	rig   rig
	hostd *client.Client
	img   func(args ...string) string
}

func newReal(t *testing.T) *real {
	t.Helper()
	r := &real{}
	_, _, r.hostd = devhost.Hostd(t)
	r.Server = wiretest.New(t, func(reg *api.Registry, d *db.DB) {
		r.rig.m = storage.New(storage.Config{DB: d, Hostd: func(api.HostRef) storage.Hostd { return r.hostd }})
		r.rig.m.Register(reg)
	})
	r.rig.Server = r.Server
	volume.New(volume.Config{DB: r.DB, Disks: r.rig.m, Drafts: r.rig.drafts()}).Handle(r.Wire)
	r.rig.host = wiretest.Insert(r.Server, api.NewHost())
	must(t, r.rig.m.EnsureDrivers(t.Context()))
	r.Must(&r.rig.sr, "SR.create", r.rig.host, map[string]string{"location": "/state/sr/one"}, 0, "files", "", "file", "", false, noMap)
	r.img = debiantest.Program(t, "qemu-img")
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestRealStreams: disks go out and come in through the real hostd and QEMU, and
// qemu-img reads and writes the same images.
func TestRealStreams(t *testing.T) {
	r := newReal(t)
	dir := t.TempDir()
	raw, image := filepath.Join(dir, "raw"), filepath.Join(dir, "image")
	for _, kind := range []string{"full", "sparse", "empty"} {
		const size = 23 * mib
		want := random(kind, size)
		a, b := r.rig.disk(size), r.rig.disk(size)
		r.rig.put("vdi="+string(a), want)
		if got := r.rig.get("vdi=" + string(a)); !bytes.Equal(got, want) {
			t.Errorf("%s: raw", kind)
		}
		for format, name := range map[string][]string{"vhd": {"vpc", "force_size=on"}, "vmdk": {"vmdk", "subformat=streamOptimized"}, "qcow2": {"qcow2", "cluster_size=4096"}} {
			must(t, os.WriteFile(image, r.rig.get("format="+format+"&vdi="+string(a)), 0o600))
			r.img("convert", "-f", name[0], "-O", "raw", image, raw)
			if got, err := os.ReadFile(raw); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: qemu-img reads the %s as something else: %v", kind, format, err)
			}
			r.img("convert", "-f", "raw", "-O", name[0], "-o", name[1], raw, image)
			theirs, err := os.ReadFile(image)
			must(t, err)
			r.rig.put("format="+format+"&vdi="+string(b), theirs)
			r.rig.holds(kind+" from qemu-img's "+format, b, want)
		}
		for _, ref := range []api.VDIRef{a, b} {
			v, err := r.hostd.Volume(t.Context(), wiretest.Get(r.Server, r.rig.sr).UUID, r.rig.vdi(ref).Location)
			most := map[string]int64{"full": 25 * mib, "sparse": 5 * mib, "empty": mib}[kind]
			if err != nil || v.Used > most || r.rig.vdi(ref).PhysicalUtilisation != v.Used {
				t.Errorf("%s: %+v, the row says %d, %v", kind, v, r.rig.vdi(ref).PhysicalUtilisation, err)
			}
		}
	}
}

// TestRealChain restores each state from images and from what changed.
func TestRealChain(t *testing.T) {
	r := newReal(t)
	r.rig.chain("full", 9*mib)
}

// TestRealCut: whoever goes in the middle leaves a disk that can be used and removed.
func TestRealCut(t *testing.T) {
	r := newReal(t)
	const size = 16 * mib
	for at := 0; at < size; at += 5 * mib {
		ref, task := r.rig.disk(size), r.task()
		body := io.MultiReader(bytes.NewReader(random("full", size)[:at]), iotest.ErrReader(errors.New("gone")))
		r.rig.send("PUT", "/import_raw_vdi", "task_id="+task+"&vdi="+string(ref), body, size)
		if got := r.rig.ended(task); !strings.HasPrefix(got, "failure[VDI_IO_ERROR") {
			t.Errorf("cut at %d: %s", at, got)
		}
		r.Until("the disk is free", func() bool { return len(r.rig.vdi(ref).CurrentOperations) == 0 })
		c, err := r.hostd.CheckVolume(t.Context(), wiretest.Get(r.Server, r.rig.sr).UUID, r.rig.vdi(ref).Location)
		if err != nil || c.Errors != 0 || c.Leaks != 0 {
			t.Errorf("cut at %d: %+v, %v", at, c, err)
		}
		r.Must(nil, "VDI.destroy", ref)
	}
}

func (r *real) task() string { return r.rig.task() }

// TestRealLarge: what a disk of 3 TiB holds beyond 2 TiB goes out and comes in, in the
// formats that can hold it.
func TestRealLarge(t *testing.T) {
	r := newReal(t)
	const size, at = 3 << 40, 2<<40 + 123<<20
	ref := r.rig.disk(size)
	want := random("full", 3*mib)
	r.rig.write(ref, want, at)
	r.rig.write(ref, want[:512], size-512)
	resp, text, err := r.rig.send("GET", "/export_raw_vdi", "format=vhd&vdi="+string(ref), nil, 0)
	if err != nil || !strings.Contains(string(text), "VDI_TOO_LARGE") {
		t.Errorf("as VHD: %v %q %v", resp, text, err)
	}
	for _, format := range []string{"qcow2", "vmdk"} {
		into := r.rig.disk(size)
		r.rig.put("format="+format+"&vdi="+string(into), r.rig.get("format="+format+"&vdi="+string(ref)))
		d, err := r.rig.m.OpenDisk(t.Context(), into, false, "")
		must(t, err)
		got := make([]byte, len(want)+2*mib)
		_, err = d.ReadAt(got, at-mib)
		around := append(append(make([]byte, mib), want...), make([]byte, mib)...)
		if err != nil || !bytes.Equal(got, around) {
			t.Errorf("%s: beyond 2 TiB it reads as something else: %v", format, err)
		}
		last := make([]byte, 512)
		if _, err := d.ReadAt(last, size-512); err != nil || !bytes.Equal(last, want[:512]) {
			t.Errorf("%s: the last sector is lost: %v", format, err)
		}
		must(t, d.Close())
	}
}
