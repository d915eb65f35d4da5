// Package cgroup is PID 1's part of the cgroup v2 tree:
//
//	/            PID 1 itself, and the controllers it hands down
//	/svc/<name>  one group for each service
//	/machine     the guests; libvirt makes the groups below it
//
// A service is killed through its own group and never through /machine, so no
// stop or restart of a service reaches a guest.
//
// A Tree holds no state but its root; its methods may be called by any
// goroutine.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is where cgroup2 is mounted.
const Root = "/sys/fs/cgroup"

const (
	servicesDir = "svc"
	machineDir  = "machine"
)

// controllers are given to services and guests.
var controllers = []string{"cpu", "cpuset", "io", "memory", "pids"}

// Tree is a cgroup v2 hierarchy.
type Tree struct{ root string }

// New describes the hierarchy mounted at root.
func New(root string) *Tree { return &Tree{root: root} }

// Setup makes the fixed groups and enables the controllers. A controller that
// the kernel lacks is an error, but the others are enabled all the same.
func (t *Tree) Setup() error {
	var errs []error
	for _, dir := range []string{"", machineDir, servicesDir} {
		p := filepath.Join(t.root, dir)
		if err := os.MkdirAll(p, 0o755); err != nil {
			errs = append(errs, fmt.Errorf("cgroup: %w", err))
		}
		for _, c := range controllers {
			if err := write(p, "cgroup.subtree_control", "+"+c); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Open makes the group of a service and returns its directory, for
// CLONE_INTO_CGROUP.
func (t *Tree) Open(service string) (*os.File, error) {
	dir := t.service(service)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return os.Open(dir)
}

// SetWeight sets the share of the processor that the group gets when others want
// it too.
func (t *Tree) SetWeight(service string, weight int) error {
	return write(t.service(service), "cpu.weight", strconv.Itoa(weight))
}

// Kill sends SIGKILL to everything in the group and below. A group that is not
// there holds nothing.
func (t *Tree) Kill(service string) error {
	err := write(t.service(service), "cgroup.kill", "1")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// WaitEmpty returns when no process is left in the group. The kernel tells when
// that changes, so nothing is polled.
func (t *Tree) WaitEmpty(ctx context.Context, service string) error {
	p := filepath.Join(t.service(service), "cgroup.events")
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("cgroup: inotify: %w", err)
	}
	changes := os.NewFile(uintptr(fd), "inotify")
	defer changes.Close()
	if _, err := unix.InotifyAddWatch(fd, p, unix.IN_MODIFY); errors.Is(err, unix.ENOENT) {
		return nil
	} else if err != nil {
		return fmt.Errorf("cgroup: watch %s: %w", p, err)
	}
	defer context.AfterFunc(ctx, func() { changes.Close() })()
	buf := make([]byte, 4096)
	for {
		data, err := os.ReadFile(p)
		if err != nil || Empty(data) {
			return err
		}
		if _, err := changes.Read(buf); err != nil {
			return errors.Join(ctx.Err(), fmt.Errorf("cgroup %s: still in use", service))
		}
	}
}

// Empty reads cgroup.events.
func Empty(events []byte) bool {
	for line := range strings.Lines(string(events)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "populated" {
			return f[1] == "0"
		}
	}
	return false
}

// Guests says whether any guest runs. Without an answer the safe one is given:
// where the group cannot be read, no guest was ever started.
func (t *Tree) Guests() bool {
	events, err := os.ReadFile(filepath.Join(t.root, machineDir, "cgroup.events"))
	return err == nil && !Empty(events)
}

// Of returns the service in whose group a process is.
func (t *Tree) Of(pid int) (service string, ok bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", false
	}
	return ServiceOf(data)
}

// ServiceOf reads /proc/<pid>/cgroup. A process in a group below a service's
// belongs to the service.
func ServiceOf(data []byte) (service string, ok bool) {
	for line := range strings.Lines(string(data)) {
		rest, v2 := strings.CutPrefix(strings.TrimRight(line, "\n"), "0::/"+servicesDir+"/")
		if !v2 {
			continue
		}
		service, _, _ = strings.Cut(rest, "/")
		return service, service != ""
	}
	return "", false
}

func (t *Tree) service(name string) string { return filepath.Join(t.root, servicesDir, name) }

func write(dir, file, text string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cgroup: %s %q: %w", filepath.Join(dir, file), text, err)
	}
	return nil
}
