//go:build lab

// Package labtest boots Cairn in the lab and looks at it from outside, one
// file per area. Each test names in its first word the suite it belongs to
// (TestBoot…, TestVM…); those with Smoke in their name run in `make test`.
//
// Tests need the built image in .build/image and run one after another: a host
// under emulation has both CPUs of a small machine for itself.
package labtest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cairn/ci/lab"
	"cairn/ci/lab/demo"
	"cairn/image/debian"
	"cairn/toolstack/client"
)

// password of root on every host of this suite.
const password = "correct horse"

// limit bounds a test under emulation on a busy machine; a sound host needs a
// quarter of it.
const limit = 5 * time.Minute

func image(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("CAIRN_IMAGE")
	if dir == "" {
		dir = filepath.Join("..", "..", ".build", "image")
	}
	if _, err := os.Stat(filepath.Join(dir, "disk.img")); err != nil {
		t.Fatalf("no image, make it by `make image`: %v", err)
	}
	return dir
}

func tools(t *testing.T) *debian.Tree {
	t.Helper()
	tree, err := debian.Open(t.Context(), debian.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// deadline is the context of a whole test.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// boot powers a host on with what every test wants and the given changes.
func boot(ctx context.Context, t *testing.T, change func(*lab.Config)) *lab.Host {
	t.Helper()
	cfg := lab.Config{
		Name: "host", Tools: tools(t), Image: image(t), Dir: t.TempDir(), Firmware: lab.Direct,
		Watchdog: true, SMBIOSConfig: lab.Document("cairn-lab", password),
	}
	change(&cfg)
	h, err := lab.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(h.Failure())
			keep(t, h)
		}
		h.Close()
	})
	return h
}

// keep saves the serial log of a failed test where it outlives the run.
func keep(t *testing.T, h *lab.Host) {
	dir := filepath.Join("..", "..", ".build", "labtest")
	b, err := os.ReadFile(h.SerialLog())
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	file := filepath.Join(dir, t.Name()+".serial.log")
	if err == nil {
		err = os.WriteFile(file, b, 0o644)
	}
	if err != nil {
		t.Log(err)
		return
	}
	t.Logf("the whole console is in %s", file)
}

func wait(ctx context.Context, t *testing.T, h *lab.Host, event string, attrs ...string) lab.Line {
	t.Helper()
	l, err := h.Wait(ctx, event, attrs...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func login(ctx context.Context, t *testing.T, h *lab.Host) *client.Client {
	t.Helper()
	if _, err := demo.Await(ctx, h); err != nil {
		t.Fatal(err)
	}
	c, err := demo.Login(ctx, h.Addr(), password)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// hostField reads one field of the only host record.
func hostField(ctx context.Context, t *testing.T, c *client.Client, field string, out any) {
	t.Helper()
	var refs []string
	if err := c.Call(ctx, "host.get_all", &refs); err != nil || len(refs) != 1 {
		t.Fatalf("hosts %v, %v", refs, err)
	}
	if err := c.Call(ctx, "host.get_"+field, out, refs[0]); err != nil {
		t.Fatal(err)
	}
}

// powerOff presses the power button, once the host watches it, and waits until
// the machine is off.
func powerOff(ctx context.Context, t *testing.T, h *lab.Host) {
	t.Helper()
	if !h.Since("pid1-start", "power-button") {
		wait(ctx, t, h, "power-button")
	}
	if err := h.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
}
