//go:build lab

package lab_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"

	"cairn/ci/lab"
	"cairn/image/debian"
)

// minihost builds the initramfs of ci/lab/minihost and finds a kernel for it.
func minihost(t *testing.T, tools *debian.Tree) (kernel, initrd string) {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "init"), "cairn/ci/lab/minihost")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	program, err := os.ReadFile(filepath.Join(dir, "init"))
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := cpio.Newc.Writer(&archive)
	err = cpio.WriteRecords(w, []cpio.Record{
		cpio.Directory("dev", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.StaticFile("init", string(program), 0o755),
	})
	if err == nil {
		err = cpio.WriteTrailer(w)
	}
	initrd = filepath.Join(dir, "initrd")
	if err == nil {
		err = os.WriteFile(initrd, archive.Bytes(), 0o644)
	}
	kernels, _ := filepath.Glob(tools.Path("/boot/vmlinuz-*"))
	if err != nil || len(kernels) == 0 {
		t.Fatalf("initrd: %v, kernels: %v", err, kernels)
	}
	return kernels[0], initrd
}

// TestHostSmoke takes the lab through everything it offers, with a host that needs
// no image.
func TestHostSmoke(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	tools, err := debian.Open(ctx, debian.Config{})
	if err != nil {
		t.Fatal(err)
	}
	kernel, initrd := minihost(t, tools)
	h, err := lab.Start(ctx, lab.Config{
		Name: "mini", Tools: tools, Firmware: lab.Direct, Kernel: kernel, Initrd: initrd,
		Cmdline: []string{"console=ttyS0", "quiet", "panic=1"}, MemoryMiB: 512, Debug: true, Watchdog: true,
		Disks: []lab.Disk{{SizeMiB: 64}}, SMBIOSConfig: "version: 1\nhostname: mini\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	defer func() {
		if t.Failed() {
			t.Log(h.Failure())
		}
	}()
	ready, err := h.Wait(ctx, "host-ready", "pid=1")
	if err != nil {
		t.Fatal(err)
	}
	if up, err := ready.Seconds("uptime"); err != nil || up <= 0 {
		t.Errorf("uptime %v, %v", up, err)
	}
	if !strings.HasPrefix(h.Addr(), "127.0.0.1:") {
		t.Errorf("address %q", h.Addr())
	}
	if p, err := h.Process(ctx, "init"); err != nil || p.PID != 1 || p.PSSKiB == 0 {
		t.Errorf("init: %+v, %v", p, err)
	}
	dmi, err := h.Debug(ctx, "read", "/sys/firmware/dmi/tables/DMI")
	if err != nil || !strings.Contains(dmi.Output, "cairn.config:version: 1\nhostname: mini") {
		t.Errorf("smbios: %v", err)
	}
	resets(ctx, t, h)
	if _, err := h.Debug(ctx, "write", "/proc/sysrq-trigger", "o"); err != nil {
		t.Log(err) // the answer may be lost with the power
	}
	if e, err := h.WaitExit(ctx); err != nil || e.Reason != "guest-shutdown" {
		t.Errorf("exit %+v, %v", e, err)
	}
}

// resets takes the host through a reset and a power button it does not heed.
func resets(ctx context.Context, t *testing.T, h *lab.Host) {
	t.Helper()
	h.Mark()
	if err := h.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if e, err := h.WaitEvent(ctx, "RESET"); err != nil || e.Data["reason"] != "host-qmp-system-reset" {
		t.Errorf("reset: %+v, %v", e, err)
	}
	if said := h.Failure(); !strings.Contains(said, "QEMU: RESET") {
		t.Errorf("a failure would not tell of the reset: %s", said)
	}
	if _, err := h.Wait(ctx, "host-ready"); err != nil {
		t.Fatal(err)
	}
	if err := h.PowerButton(ctx); err != nil {
		t.Error(err)
	}
	if _, err := h.WaitEvent(ctx, "POWERDOWN"); err != nil {
		t.Error(err)
	}
}
