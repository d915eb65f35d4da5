//go:build lab

package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cairn/ci/lab/demo"
	"cairn/ci/lab/inside"
	"cairn/ci/lab/life"
)

// fresh starts a host in a directory of its own, and shows its log if the test
// fails.
func fresh(t *testing.T) (d *instance, dir string) {
	t.Helper()
	dir = scratch(t)
	d = launch(t, program(t), dir)
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("%s", log[max(0, len(log)-20000):])
			return
		}
		d.sound()
	})
	return d, dir
}

// sound asserts that no test ends with an image that qemu-img complains of.
func (d *instance) sound() {
	d.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute) // the test's own is over
	defer cancel()
	api, err := demo.Login(ctx, d.addr, password)
	d.must(err)
	life.Sound(ctx, life.API{T: d.T, Client: api}, d.inside())
}

// TestDevLife takes a guest through all there is on a host of make dev.
func TestDevLife(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	d, _ := fresh(t)
	life.New(ctx, t, d.login(), d.inside(), "file", map[string]string{"location": "/state/sr/life"}).Whole(ctx)
}

// TestDevCrowd starts 20 guests at once, stops and destroys them: nothing of them is
// left.
func TestDevCrowd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	d, _ := fresh(t)
	crowd := life.NewCrowd(ctx, t, d.login(), d.inside(), "file", map[string]string{"location": "/state/sr/crowd"})
	crowd.Live(ctx, 20)
	crowd.End(ctx)
}

// inside looks in by hostd, which is in all of the host's namespaces.
func (d *instance) inside() inside.Namespaces {
	d.Helper()
	return inside.Namespaces{PID: d.process("hostd").pid}
}

// disc is a CD in an ISO library, as write makes its file.
func (d *instance) disc(ctx context.Context, a life.API, dir string, write func(file string) error) string {
	d.Helper()
	library := filepath.Join(dir, "state/iso/library")
	d.must(os.MkdirAll(library, 0o755))
	d.must(write(filepath.Join(library, "cd.iso")))
	config := map[string]string{"location": "/state/iso/library", "legacy_mode": "true"}
	sr := a.Ref(ctx, "SR.create", a.First(ctx, "host.get_all"), config, "0", "library", "", "iso", "iso", false, map[string]string{})
	return a.First(ctx, "SR.get_VDIs", sr)
}

// TestDevFromCD boots the demo guest by UEFI from a CD of an ISO library.
func TestDevFromCD(t *testing.T) {
	iso, err := os.ReadFile("../../.build/image/demo.iso")
	if err != nil {
		t.Fatalf("no CD, make it by `make image`: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	d, dir := fresh(t)
	a := life.API{T: t, Client: d.login()}
	disc := d.disc(ctx, a, dir, func(file string) error { return os.WriteFile(file, iso, 0o644) })
	g := a.Bootable(ctx, "from CD")
	a.Drive(ctx, g.Ref, disc, "3", "CD")
	a.Call(ctx, nil, "VTPM.create", g.Ref, false)
	tty := life.Up(ctx, t, g)
	life.ReadsDemoCD(ctx, t, tty)
	snapshot := a.Ref(ctx, "VM.snapshot", g.Ref, "running", []string{})
	d.must(g.CleanShutdown(ctx))
	firmwareRemembers(ctx, t, a, dir, g.Ref, snapshot)
	d.must(g.Destroy(ctx))
}

// firmwareRemembers compares the files of a halted UEFI guest with a TPM, a snapshot of
// when it ran, and what is made of it.
func firmwareRemembers(ctx context.Context, t *testing.T, a life.API, dir, vm, snapshot string) {
	t.Helper()
	files := func(ref string) (all [2]string) {
		uuid := a.Text(ctx, "VM.get_uuid", ref)
		for i, name := range []string{"qemu/nvram/" + uuid + "_VARS.fd", "swtpm/" + uuid + "/tpm2/tpm2-00.permall"} {
			text, err := os.ReadFile(filepath.Join(dir, "var/lib/libvirt", name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			all[i] = string(text)
		}
		return all
	}
	none := [2]string{}
	was, kept := files(vm), files(snapshot)
	if was[0] == "" || was[1] == "" || kept[0] == "" || kept[1] == "" {
		t.Fatalf("the VM has %d and %d bytes, its snapshot %d and %d", len(was[0]), len(was[1]), len(kept[0]), len(kept[1]))
	}
	clone := a.Ref(ctx, "VM.clone", vm, "clone")
	if files(clone) != was {
		t.Error("the clone remembers something else")
	}
	a.Call(ctx, nil, "VM.destroy", clone)
	path := filepath.Join(dir, "var/lib/libvirt/qemu/nvram", a.Text(ctx, "VM.get_uuid", vm)+"_VARS.fd")
	if err := os.WriteFile(path, []byte("lost"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Call(ctx, nil, "VM.revert", snapshot)
	if files(vm) != kept {
		t.Error("reverted, the VM remembers something else than its snapshot")
	}
	uuid := a.Text(ctx, "VM.get_uuid", snapshot)
	a.Call(ctx, nil, "VM.destroy", snapshot)
	for _, pattern := range []string{"qemu/nvram/" + uuid + "*", "swtpm/" + uuid + "/*"} {
		if left, err := filepath.Glob(filepath.Join(dir, "var/lib/libvirt", pattern)); err != nil || len(left) != 0 {
			t.Errorf("left of the snapshot: %v %v", left, err)
		}
	}
	if files(vm) == none {
		t.Error("the VM's own went with the snapshot's")
	}
}
