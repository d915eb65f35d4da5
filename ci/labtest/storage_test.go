//go:build lab

package labtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cairn/ci/lab"
	"cairn/ci/lab/demo"
)

// payload is a disk with a program on it, for hosts that have no shell.
func payload(t *testing.T, pkg string) lab.Disk {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(dir, "files", filepath.Base(pkg)), pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", pkg, err, out)
	}
	image := filepath.Join(dir, "payload.img")
	out, err := tools(t).Command(t.Context(), "mke2fs", "-q", "-t", "ext4", "-d", filepath.Join(dir, "files"), image, "64M").CombinedOutput()
	if err != nil {
		t.Fatalf("payload: %v: %s", err, out)
	}
	return lab.Disk{Path: image, Format: "raw", Serial: "payload"}
}

// TestStorageOnDisks leads volumes of ext and lvm repositories through their lives
// on a booted host's own disk, with the image's programs.
func TestStorageOnDisks(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*limit)
	defer cancel()
	h := boot(ctx, t, func(c *lab.Config) {
		c.Debug = true
		c.Disks = []lab.Disk{payload(t, "cairn/ci/lab/volumes"), {SizeMiB: 2048, Serial: "data"}}
	})
	if _, err := demo.Await(ctx, h); err != nil {
		t.Fatal(err)
	}
	run := func(argv ...string) {
		t.Helper()
		a, err := h.Debug(ctx, "run", argv...)
		if err != nil {
			t.Fatalf("%q: %v\n%s", argv, err, a.Output)
		}
		t.Logf("%s: %s", strings.Join(argv[1:], " "), a.Output)
	}
	mountPayload(ctx, t, h)
	for _, kind := range []string{"ext", "lvm"} {
		for _, step := range []string{"format", "create", "write", "snapshot", "grow", "commit", "coalesce", "copy", "reattach", "full", "erase"} {
			run("/mnt/volumes", kind, "/dev/vdc", step)
		}
	}
}

// mountPayload has a few tries: on a busy machine the host's first command takes
// longer than the debug channel waits.
func mountPayload(ctx context.Context, t *testing.T, h *lab.Host) {
	t.Helper()
	var err error
	for range 5 {
		if _, err = h.Debug(ctx, "run", "/usr/bin/mount", "-t", "ext4", "/dev/vdb", "/mnt"); err == nil {
			return
		}
		if a, rerr := h.Debug(ctx, "read", "/proc/mounts"); rerr == nil && strings.Contains(a.Output, "/dev/vdb /mnt ") {
			return
		}
	}
	t.Fatal(err)
}
