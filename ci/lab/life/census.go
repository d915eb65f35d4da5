package life

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/ci/lab/inside"
)

// Census is what a host has of guests and their parts, each thing a line that
// begins with its kind.
type Census []string

// guestClasses are those of which machines and their parts have rows.
var guestClasses = []string{
	"VM", "VM_metrics", "VM_guest_metrics", "VBD", "VIF", "VDI", "console", "VM_appliance", "VTPM",
	"SR", "PBD", "network", "blob",
}

// guestDirs are where the host's daemons keep what belongs to one guest: sockets,
// process numbers, consoles, saved memory, images, firmware's variables, logs,
// control groups. One of them may itself come with the first guest, and stay.
var guestDirs = []string{
	"/run/libvirt", "/run/cairn", "/run/sr-mount", "/var/lib/libvirt", "/var/log/libvirt", "/var/log/swtpm", "/etc/libvirt", "/etc/libvirt/qemu", "/sys/fs/cgroup",
	"/sys/class/net", "/dev/mapper", "/state/sr",
}

// passing are files that come and go with the daemons themselves.
var passing = []string{"/run/cairn/", "/var/lib/libvirt/qemu/capabilities", "/run/libvirt/common/"}

// Count takes a census.
func Count(ctx context.Context, a API, host inside.Host) Census {
	a.T.Helper()
	var all Census
	for _, class := range guestClasses {
		var refs []string
		must(a.T, a.Client.Call(ctx, class+".get_all", &refs))
		for _, ref := range refs {
			all = append(all, class+" "+ref)
		}
	}
	all = append(all, work(ctx, a)...)
	all = append(all, programs(ctx, a.T, host)...)
	files, err := host.Files(ctx, guestDirs...)
	must(a.T, err)
	for _, f := range files {
		if dir, link := strings.CutPrefix(f, "/sys/class/net/"); link && dir != "" {
			all = append(all, "link "+dir)
		} else if !slices.Contains(guestDirs, strings.TrimSuffix(f, "/")) && !slices.ContainsFunc(passing, func(p string) bool { return strings.HasPrefix(f, p) }) {
			all = append(all, "file "+f)
		}
	}
	rules, err := host.Rules(ctx)
	must(a.T, err)
	for _, r := range rules {
		all = append(all, "rule "+r)
	}
	return append(all, wires(ctx, a.T, host)...)
}

// work are the tasks that go on. One that has ended, such as that of a merge of layers,
// is kept for whoever asks how it went.
func work(ctx context.Context, a API) (all Census) {
	a.T.Helper()
	var tasks map[string]struct {
		Name   string `json:"name_label"`
		Status string `json:"status"`
	}
	must(a.T, a.Client.Call(ctx, "task.get_all_records", &tasks))
	for ref, t := range tasks {
		if t.Status == "pending" {
			all = append(all, "task "+ref+" "+t.Name)
		}
	}
	return all
}

// programs are the processes that serve guests.
func programs(ctx context.Context, t testing.TB, host inside.Host) (all Census) {
	t.Helper()
	processes, err := host.Processes(ctx)
	must(t, err)
	for _, p := range processes {
		argv, _, _ := strings.Cut(p.Argv, " ")
		if name := filepath.Base(argv); strings.Contains(name, "qemu") || strings.Contains(name, "swtpm") {
			all = append(all, "process "+p.Argv)
		}
	}
	return all
}

// wires are hostd's bridges and ports.
func wires(ctx context.Context, t testing.TB, host inside.Host) (all Census) {
	t.Helper()
	hostd := host.Hostd()
	defer hostd.Close()
	bridges, err := hostd.Bridges(ctx)
	must(t, err)
	for _, b := range bridges {
		all = append(all, "bridge "+b.Name)
	}
	ports, err := hostd.Ports(ctx)
	must(t, err)
	for _, p := range ports {
		all = append(all, "port "+p.Interface)
	}
	return all
}

// Beyond is what a census has that an earlier one has not.
func (c Census) Beyond(before Census) (more Census) {
	for _, line := range c {
		if !slices.Contains(before, line) {
			more = append(more, line)
		}
	}
	return more
}

// Kinds counts the things of each kind.
func (c Census) Kinds() map[string]int {
	all := map[string]int{}
	for _, line := range c {
		kind, _, _ := strings.Cut(line, " ")
		all[kind]++
	}
	return all
}

// leftLimit is how long what is given up may stay: devices go when their user has
// ended, layers soon after their disk.
const leftLimit = time.Minute

// NothingBeyond asserts that the host has nothing that it had not in an earlier
// census, after a while at the latest.
func NothingBeyond(ctx context.Context, a API, host inside.Host, before Census) {
	a.T.Helper()
	var left Census
	end := time.Now().Add(leftLimit)
	a.Until(ctx, "nothing to be left", []string{"*"}, func() bool {
		left = Count(ctx, a, host).Beyond(before)
		return len(left) == 0 || time.Now().After(end)
	})
	if len(left) > 0 {
		a.T.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}
