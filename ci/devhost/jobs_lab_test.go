//go:build lab

package devhost

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cairn/toolstack/hypervisor"
)

// TestLibvirtJobsLeftBehind: whoever dies in the middle of a commit finds it, or its
// effect, when it comes back, and the guest's disk is whole.
func TestLibvirtJobsLeftBehind(t *testing.T) {
	l, h, v := start(t)
	ctx := bounded(t)
	base := v.Create(t, "base.qcow2", 32<<20)
	spec, id := withDisk(base)
	spec.Graphics = true
	must(t, h.Start(ctx, spec, true))
	conn, err := h.DialConsole(ctx, spec.UUID)
	must(t, err)
	defer conn.Close()
	must(t, h.Resume(ctx, spec.UUID))
	tty := &line{t: t, conn: conn, in: bufio.NewScanner(conn)}
	tty.until(Greeting)
	groupReaches(t, filepath.Join(l.Root(), "run/libvirt/vnc", spec.UUID+".vnc"))

	over := v.Overlay(t, "over.qcow2", base)
	must(t, h.Snapshot(ctx, spec.UUID, []hypervisor.Overlay{{ID: id, Source: over}}))
	tty.ask("fill disk 3 24")
	want := tty.ask("sum disk")
	on := func(s hypervisor.Source) {
		t.Helper()
		hw, err := h.Hardware(ctx, spec.UUID)
		must(t, err)
		if d, _ := hw.Disk(id); !d.Source.Equal(&s) {
			t.Fatalf("the disk is on %+v, want %+v", d.Source, s)
		}
	}

	giveUp, stop := context.WithCancel(ctx)
	if err := h.Commit(giveUp, spec.UUID, id, func(float64) { stop() }); !errors.Is(err, context.Canceled) {
		t.Errorf("called off: %v", err)
	}
	on(over)

	hurried := limits
	hurried.Call = 5 * time.Second // is all it waits for a libvirtd that is not there
	dying := hypervisor.Connect(hypervisor.Config{Socket: l.Socket(), Root: l.Root(), Limits: hurried})
	defer dying.Close()
	killed := false
	err = dying.Commit(ctx, spec.UUID, id, func(float64) {
		if !killed {
			killed = true
			must(t, l.Kill("libvirtd"))
		}
	})
	if err == nil || !killed {
		t.Errorf("a commit without libvirtd: %v", err)
	}
	must(t, l.Run("libvirtd"))
	must(t, h.Commit(ctx, spec.UUID, id, nil))
	on(base)
	if got := tty.ask("sum disk"); got != want {
		t.Errorf("the disk had %q, has %q", want, got)
	}
	if err := h.Commit(ctx, spec.UUID, id, nil); !errors.Is(err, hypervisor.ErrBadState) {
		t.Errorf("nothing is left to commit: %v", err)
	}
	must(t, h.Destroy(ctx, spec.UUID))
	v.Check(t, base)
}

// groupReaches wants a socket that the toolstack's group may connect to, and nobody
// else.
func groupReaches(t *testing.T, socket string) {
	t.Helper()
	for path, want := range map[string]os.FileMode{socket: 0o020, filepath.Dir(socket): 0o070} {
		info, err := os.Stat(path)
		must(t, err)
		if gid := info.Sys().(*syscall.Stat_t).Gid; gid != ToolstackID || info.Mode()&want != want {
			t.Errorf("%s has group %d and mode %s", path, gid, info.Mode())
		}
		if info.IsDir() && info.Mode()&0o007 != 0 {
			t.Errorf("%s is open to others: %s", path, info.Mode())
		}
	}
}

// line is a guest's console.
type line struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Scanner
}

func (l *line) until(want string) (last string) {
	l.t.Helper()
	must(l.t, l.conn.SetReadDeadline(time.Now().Add(90*time.Second)))
	for l.in.Scan() {
		if strings.HasPrefix(l.in.Text(), want) {
			return last
		}
		last = l.in.Text()
	}
	l.t.Fatalf("console: no %q: %v", want, l.in.Err())
	return ""
}

// ask returns the last line of a command's answer.
func (l *line) ask(command string) string {
	l.t.Helper()
	_, err := fmt.Fprintln(l.conn, command)
	must(l.t, err)
	name, _, _ := strings.Cut(command, " ")
	return strings.TrimSpace(l.until(name + " ok"))
}
