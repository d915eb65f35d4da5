//go:build lab

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cairn/ci/devhost"
	hostconfig "cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/toolstack/host/hosttest"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm"
)

func TestMain(m *testing.M) {
	devhost.Main()
	os.Exit(m.Run())
}

// consoleGroup stands for the group cairn.
const consoleGroup = 990

// newReal is toolstackd on libvirt and QEMU, whose sockets are in dir.
func newReal(t *testing.T) (d *instance, l *devhost.Libvirt, dir string) {
	t.Helper()
	tree := devhost.Tree(t)
	guests := t.TempDir()
	if err := devhost.BuildGuest(t.Context(), tree, guests); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "lv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var out bytes.Buffer
	l, err = devhost.Start(t.Context(), devhost.Config{Tree: tree, Dir: dir, Binds: map[string]string{guests: guests}, Output: &out})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Cleanup(func() { l.Close() })
	d = &instance{t: t, cfg: config{
		listen: "127.0.0.1:0", state: t.TempDir(), engine: "etcd", guests: guests, fakeHostd: emulator(),
		hypervisor: hypervisor.Config{Socket: l.Socket(), Root: l.Root(), ConsoleOwner: "+0:+990"},
	}}
	d.start()
	return d, l, dir
}

// TestRealGuest is TestFirstGuest on libvirt and QEMU, with libvirtd killed half-way.
func TestRealGuest(t *testing.T) {
	d, l, dir := newReal(t)
	c := d.login(d.address())
	ctx := t.Context()
	var templates, consoles []string
	var ref, uuid, state string
	d.must(c.Call(ctx, "VM.get_by_name_label", &templates, vm.DemoTemplate))
	d.must(c.Call(ctx, "VM.clone", &ref, templates[0], "real"))
	d.must(c.Call(ctx, "VM.provision", nil, ref))
	began := time.Now()
	d.must(c.Call(ctx, "VM.start", nil, ref, false, false))
	t.Logf("VM.start took %s", time.Since(began))
	d.must(c.Call(ctx, "VM.get_uuid", &uuid, ref))
	if st, err := os.Stat(filepath.Join(dir, "run/libvirt/qemu", uuid+".sock")); err != nil || st.Sys().(*syscall.Stat_t).Gid != consoleGroup {
		t.Errorf("console socket: %+v, %v", st, err)
	}
	d.must(c.Call(ctx, "VM.get_consoles", &consoles, ref))
	tty, err := c.Console(ctx, consoles[0])
	d.must(err)
	readUntil(t, tty, devhost.Greeting)

	d.must(errors.Join(l.Kill("libvirtd"), l.Run("libvirtd")))
	_, err = io.WriteString(tty, "alive\n")
	d.must(err)
	readUntil(t, tty, "echo alive")
	d.must(c.Call(ctx, "VM.pause", nil, ref)) // waits for the new connection
	d.must(c.Call(ctx, "VM.unpause", nil, ref))
	d.must(c.Call(ctx, "VM.clean_shutdown", nil, ref))
	d.must(c.Call(ctx, "VM.get_power_state", &state, ref))
	if state != "Halted" {
		t.Errorf("power state %s", state)
	}
	d.must(c.Call(ctx, "VM.destroy", nil, ref))
	d.stop()
}

// emulator is a host without KVM whose owner allows emulation.
func emulator() *hosttest.Hostd {
	h := hosttest.New()
	h.Hardware.KVM = client.KVM{Reason: "no svm"}
	h.Document.Emulation = hostconfig.EmulationAllowed
	h.Document.Root.PasswordHash = hostconfig.HashPassword(password)
	return h
}

func readUntil(t *testing.T, r io.Reader, want string) (said string) {
	t.Helper()
	var got strings.Builder
	b := make([]byte, 4096)
	for !strings.Contains(got.String(), want) {
		n, err := r.Read(b)
		got.Write(b[:n])
		if err != nil {
			t.Fatalf("console: %v after %q, want %q", err, got.String(), want)
		}
	}
	return got.String()
}
