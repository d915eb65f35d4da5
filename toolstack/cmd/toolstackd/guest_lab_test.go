//go:build lab

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cairn/ci/devhost"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm"
)

// TestRealGuestAgent is TestGuestAgent with a kernel between: the guest's own log says
// what its agent was told, and in which order.
func TestRealGuestAgent(t *testing.T) {
	d, _, dir := newReal(t)
	c := d.login(d.address())
	ctx := t.Context()
	var templates, consoles []string
	var ref, uuid, metrics, snapshot string
	d.must(c.Call(ctx, "VM.get_by_name_label", &templates, vm.DemoTemplate))
	d.must(c.Call(ctx, "VM.clone", &ref, templates[0], "real"))
	d.must(c.Call(ctx, "VM.provision", nil, ref))
	d.must(c.Call(ctx, "VM.start", nil, ref, false, false))
	d.must(c.Call(ctx, "VM.get_uuid", &uuid, ref))
	if st, err := os.Stat(filepath.Join(dir, "run/libvirt/qemu", uuid+".qga")); err != nil || st.Sys().(*syscall.Stat_t).Gid != consoleGroup {
		t.Errorf("%s's socket: %+v, %v", hypervisor.AgentPort, st, err)
	}
	d.must(c.Call(ctx, "VM.get_consoles", &consoles, ref))
	tty, err := c.Console(ctx, consoles[0])
	d.must(err)
	readUntil(t, tty, devhost.Greeting)
	d.saw("guest-agent-present")
	var system map[string]string
	var live bool
	d.must(c.Call(ctx, "VM.get_guest_metrics", &metrics, ref))
	d.must(c.Call(ctx, "VM_guest_metrics.get_os_version", &system, metrics))
	d.must(c.Call(ctx, "VM_guest_metrics.get_live", &live, metrics))
	if !live || system["distro"] != "cairn-demo" || system["uname"] == "" {
		t.Errorf("live %v, os_version %v", live, system)
	}
	d.must(c.Call(ctx, "VM.snapshot_with_quiesce", &snapshot, ref, "at rest"))
	if said := readUntil(t, tty, "guest-agent thaw"); !strings.Contains(said, "guest-agent freeze") {
		t.Errorf("the guest was let go on, and not frozen: %q", said)
	}
	d.must(c.Call(ctx, "VM.clean_shutdown", nil, ref))
	d.saw("vm-agent-asked")
	d.must(c.Call(ctx, "VM.destroy", nil, ref))
	d.stop()
}
