//go:build lab

package main

import (
	"context"
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
	dir, err := os.MkdirTemp("", "dev")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
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
func (d *instance) inside() inside.Host {
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
	g := &demo.Guest{Name: "from CD"}
	g.Ref = a.Ref(ctx, "VM.clone", a.First(ctx, "VM.get_by_name_label", "Debian Trixie 13"), g.Name)
	a.Call(ctx, nil, "VM.remove_from_other_config", g.Ref, "disks")
	a.Call(ctx, nil, "VM.provision", g.Ref)
	a.Call(ctx, nil, "VM.set_memory_limits", g.Ref, 512<<20, 512<<20, 512<<20, 512<<20)
	a.Call(ctx, nil, "VM.set_HVM_boot_params", g.Ref, map[string]string{"firmware": "uefi", "order": "d"})
	a.Drive(ctx, g.Ref, disc, "3", "CD")
	g = demo.Attach(a.Client, g)
	tty := life.Up(ctx, t, g)
	life.ReadsDemoCD(ctx, t, tty)
	d.must(g.CleanShutdown(ctx))
	d.must(g.Destroy(ctx))
}
