//go:build lab

package labtest

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"cairn/ci/lab"
	"cairn/ci/lab/demo"
	"cairn/toolstack/client"
)

// TestBootSmoke takes the real boot chain from firmware to the API and back to
// power-off, and looks at the disk afterwards.
func TestBootSmoke(t *testing.T) {
	ctx := deadline(t)
	h := boot(ctx, t, func(c *lab.Config) { c.Firmware = lab.OVMF })
	for _, event := range []string{"stage1-start", "root-mounted", "pid1-start", "watchdog-open", "host-ready"} {
		wait(ctx, t, h, event)
	}
	wait(ctx, t, h, "network-up")
	c := login(ctx, t, h)
	var name string
	hostField(ctx, t, c, "hostname", &name)
	if name != "cairn-lab" {
		t.Errorf("host is named %q, the document says cairn-lab", name)
	}
	var software map[string]string
	hostField(ctx, t, c, "software_version", &software)
	if software["product_brand"] != "Cairn" {
		t.Errorf("software_version %v", software)
	}
	powerOff(ctx, t, h)
	clean(ctx, t, h)
}

// clean asserts that the host unmounted its file systems before it went.
func clean(ctx context.Context, t *testing.T, h *lab.Host) {
	t.Helper()
	if _, ok := h.Find(func(l lab.Line) bool { return l.Event == "shutdown-done" }); !ok {
		t.Error("the host did not say shutdown-done")
	}
	raw := filepath.Join(t.TempDir(), "disk.raw")
	if err := lab.Flatten(ctx, tools(t), h.Disk(0), raw); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"STATE", "LOGS"} {
		if err := lab.CheckExt4(ctx, tools(t), raw, part); err != nil {
			t.Error(err)
		}
	}
}

// TestBootCorruptedRoot boots from disks whose root is wrong: at its start,
// where stage 1 mounts it, and in its middle, where programs are read from.
func TestBootCorruptedRoot(t *testing.T) {
	root, err := lab.Partition(filepath.Join(image(t), "disk.img"), "root_A")
	if err != nil {
		t.Fatal(err)
	}
	const block = 4096
	cases := map[string]lab.Extent{
		"first block":                     {Offset: root.Offset, Size: block},
		"everything behind the first MiB": {Offset: root.Offset + 1<<20, Size: root.Size - 1<<20},
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) { corrupted(t, damage) })
	}
}

func corrupted(t *testing.T, damage lab.Extent) {
	ctx := deadline(t)
	dir := t.TempDir()
	err := lab.Prepare(ctx, lab.Config{Tools: tools(t), Image: image(t), Dir: dir})
	if err == nil {
		err = lab.Overwrite(ctx, tools(t), filepath.Join(dir, "disk0.qcow2"), damage.Offset, damage.Size)
	}
	if err != nil {
		t.Fatal(err)
	}
	h := boot(ctx, t, func(c *lab.Config) { c.Dir, c.NoReboot = dir, true })
	h.AllowPanic()
	wait(ctx, t, h, "stage1-start")
	exit, err := h.WaitExit(ctx)
	if err != nil || exit.Reason != "guest-reset" {
		t.Errorf("ended by %+v, %v; want a reset by the host itself", exit, err)
	}
	if _, ok := h.Find(func(l lab.Line) bool {
		return strings.Contains(l.Text, "device-mapper: verity:") && strings.Contains(l.Text, "corrupted")
	}); !ok {
		t.Error("the kernel did not name the corrupted block")
	}
	noShell(t, h)
}

// noShell asserts that nobody was offered a prompt.
func noShell(t *testing.T, h *lab.Host) {
	t.Helper()
	for _, l := range h.Lines() {
		text := strings.TrimSpace(l.Text)
		if strings.HasSuffix(text, "# ") || strings.HasSuffix(text, "#") || strings.HasSuffix(text, "$") || strings.HasPrefix(text, "> ") {
			t.Errorf("looks like a prompt: %q", l.Text)
		}
	}
}

// TestBootHungInit freezes PID 1 as a hang would and expects the watchdog to
// reset the machine, which then comes up again.
func TestBootHungInit(t *testing.T) {
	ctx := deadline(t)
	h := boot(ctx, t, func(c *lab.Config) { c.Debug = true })
	wait(ctx, t, h, "watchdog-open")
	wait(ctx, t, h, "host-ready")
	freeze(ctx, t, h)
	h.Mark()
	if _, err := h.WaitEvent(ctx, "WATCHDOG"); err != nil {
		t.Fatal(err)
	}
	wait(ctx, t, h, "stage1-start")
	wait(ctx, t, h, "host-ready")
}

// freeze moves PID 1 into a control group and freezes that. A signal would not
// do: the kernel keeps stop signals away from PID 1.
func freeze(ctx context.Context, t *testing.T, h *lab.Host) {
	t.Helper()
	const group = "/sys/fs/cgroup/frozen"
	for _, step := range [][]string{
		{"mkdir", group},
		{"write", group + "/cgroup.procs", "1"},
		{"write", group + "/cgroup.freeze", "1"},
	} {
		if _, err := h.Debug(ctx, step[0], step[1:]...); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBootWrongConfiguration hands over a document with a mistake in line 4:
// the console names the line, and the host is there with its defaults, on
// which nobody can log in.
func TestBootWrongConfiguration(t *testing.T) {
	ctx := deadline(t)
	h := boot(ctx, t, func(c *lab.Config) {
		c.SMBIOSConfig = "version: 1\nhostname: cairn-lab\nmanagement:\n  mode: sideways\n"
	})
	wait(ctx, t, h, "config-invalid", "line=4")
	wait(ctx, t, h, "api-ready")
	wait(ctx, t, h, "network-up")
	_, err := demo.Login(ctx, h.Addr(), password)
	if !client.IsCode(err, "SESSION_AUTHENTICATION_FAILED") {
		t.Errorf("login answered %v, want SESSION_AUTHENTICATION_FAILED", err)
	}
	powerOff(ctx, t, h)
}
