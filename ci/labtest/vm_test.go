//go:build lab

package labtest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"cairn/ci/lab"
	"cairn/ci/lab/demo"
	"cairn/toolstack/client"
)

// guestConsole attaches to a guest until the test ends.
func guestConsole(ctx context.Context, t *testing.T, g *demo.Guest) *lab.Console {
	t.Helper()
	console, detach, err := g.Console(ctx, t.Output(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { detach.Close() })
	return console
}

func create(ctx context.Context, t *testing.T, c *client.Client, name string) *demo.Guest {
	t.Helper()
	g, err := demo.Create(ctx, c, name)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// greeted starts a guest and waits for its first words.
func greeted(ctx context.Context, t *testing.T, g *demo.Guest) *lab.Console {
	t.Helper()
	if err := g.Start(ctx); err != nil {
		t.Fatal(err)
	}
	console := guestConsole(ctx, t, g)
	if _, err := console.Text(ctx, demo.Greeting); err != nil {
		t.Fatal(err)
	}
	return console
}

func wantState(ctx context.Context, t *testing.T, g *demo.Guest, want string) {
	t.Helper()
	if got, err := g.PowerState(ctx); err != nil || got != want {
		t.Errorf("%s is %s, %v; want %s", g.Name, got, err, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestVMSmoke takes a guest through its life: start, clean shutdown, start
// again, hard shutdown, destroy. KVM drives it. On the host itself xe knows it without
// a password.
func TestVMSmoke(t *testing.T) {
	ctx := deadline(t)
	h := boot(ctx, t, func(c *lab.Config) { c.Debug = true })
	c := login(ctx, t, h)
	g := create(ctx, t, c, "smoke")
	wantState(ctx, t, g, "Halted")
	console := greeted(ctx, t, g)
	_, err := demo.Heartbeats(ctx, console, 2)
	must(t, err)
	if kvm, err := g.QueryKVM(ctx); err != nil || !kvm.Enabled {
		t.Errorf("query-kvm: %+v, %v", kvm, err)
	}
	wantState(ctx, t, g, "Running")
	a, err := h.Debug(ctx, "run", "/usr/bin/xe", "vm-list", "power-state=running", "params=name-label", "--minimal")
	if must(t, err); !strings.Contains(a.Output, "smoke") {
		t.Errorf("xe on the host says %q", a.Output)
	}
	if err := g.Start(ctx); !client.IsCode(err, "VM_BAD_POWER_STATE") {
		t.Errorf("starting a running guest answered %v", err)
	}
	must(t, g.CleanShutdown(ctx))
	wantState(ctx, t, g, "Halted")
	must(t, g.Start(ctx))
	must(t, g.HardShutdown(ctx))
	wantState(ctx, t, g, "Halted")
	must(t, g.Destroy(ctx))
	if _, err := g.PowerState(ctx); !client.IsCode(err, "HANDLE_INVALID") {
		t.Errorf("a destroyed guest answered %v", err)
	}
	powerOff(ctx, t, h)
}

// TestVMSurvivesKilledDaemons kills each daemon of the host with SIGKILL while
// a guest runs. Each comes back, and the guest keeps its process and its beat.
func TestVMSurvivesKilledDaemons(t *testing.T) {
	ctx := deadline(t)
	h := boot(ctx, t, func(c *lab.Config) { c.Debug = true })
	c := login(ctx, t, h)
	g := create(ctx, t, c, "survivor")
	greeted(ctx, t, g)
	wait(ctx, t, h, "host-ready")
	before, err := h.Process(ctx, "qemu-system-x86")
	must(t, err)
	for _, service := range []string{"udevd", "hostd", "virtlogd", "libvirtd", "chronyd", "toolstackd"} {
		t.Run(service, func(t *testing.T) { killed(ctx, t, h, g, service) })
	}
	after, err := h.Process(ctx, "qemu-system-x86")
	if err != nil || after.PID != before.PID {
		t.Errorf("guest's process was %d, is %d, %v", before.PID, after.PID, err)
	}
	c, err = demo.Login(ctx, h.Addr(), password)
	must(t, err)
	again := demo.Attach(c, g)
	must(t, again.CleanShutdown(ctx))
	wantState(ctx, t, again, "Halted")
	powerOff(ctx, t, h)
	clean(ctx, t, h)
}

// programs are the kernel's names of services' processes where they differ.
var programs = map[string]string{"udevd": "systemd-udevd"}

func killed(ctx context.Context, t *testing.T, h *lab.Host, g *demo.Guest, service string) {
	program := service
	if p, ok := programs[service]; ok {
		program = p
	}
	h.Mark()
	if _, err := h.Kill(ctx, program); err != nil {
		t.Fatal(err)
	}
	wait(ctx, t, h, "service-exit", "name="+service)
	wait(ctx, t, h, "service-ready", "name="+service)
	if service == "toolstackd" {
		wait(ctx, t, h, "api-ready")
	}
	c, err := demo.Login(ctx, h.Addr(), password)
	must(t, err)
	now := demo.Attach(c, g)
	wantState(ctx, t, now, "Running")
	_, err = demo.Heartbeats(ctx, guestConsole(ctx, t, now), 2)
	must(t, err)
}

// TestVMWithoutKVM boots a host whose CPU cannot virtualize: it says so
// everywhere a user looks, and refuses to start a guest.
func TestVMWithoutKVM(t *testing.T) {
	ctx := deadline(t)
	h := boot(ctx, t, func(c *lab.Config) { c.NoNestedKVM = true })
	missing := wait(ctx, t, h, "kvm-missing")
	if missing.Level != "WARN" || missing.Attrs["reason"] == "" {
		t.Errorf("console says %q", missing.Text)
	}
	c := login(ctx, t, h)
	var capabilities []string
	hostField(ctx, t, c, "capabilities", &capabilities)
	if slices.ContainsFunc(capabilities, func(s string) bool { return strings.Contains(s, "hvm") }) {
		t.Errorf("capabilities %v", capabilities)
	}
	var other map[string]string
	hostField(ctx, t, c, "other_config", &other)
	if !strings.Contains(strings.Join(values(other), " "), missing.Attrs["reason"]) {
		t.Errorf("other_config %v does not say %q", other, missing.Attrs["reason"])
	}
	if err := create(ctx, t, c, "refused").Start(ctx); !client.IsCode(err, "VM_HVM_REQUIRED") {
		t.Errorf("VM.start answered %v, want VM_HVM_REQUIRED", err)
	}
	powerOff(ctx, t, h)
}

// TestVMEmulation boots the same host with emulation allowed: the guest starts,
// and KVM does not drive it. Its first words are not waited for: where the host
// itself is emulated, they take many minutes.
func TestVMEmulation(t *testing.T) {
	ctx := deadline(t)
	h := boot(ctx, t, func(c *lab.Config) {
		c.NoNestedKVM = true
		c.SMBIOSConfig = lab.Document("cairn-lab", password, "emulation: allowed")
	})
	c := login(ctx, t, h)
	g := create(ctx, t, c, "emulated")
	must(t, g.Start(ctx))
	wantState(ctx, t, g, "Running")
	if kvm, err := g.QueryKVM(ctx); err != nil || kvm.Enabled {
		t.Errorf("query-kvm: %+v, %v", kvm, err)
	}
	must(t, g.HardShutdown(ctx))
	powerOff(ctx, t, h)
}

func values(m map[string]string) []string {
	var all []string
	for _, v := range m {
		all = append(all, v)
	}
	return all
}
