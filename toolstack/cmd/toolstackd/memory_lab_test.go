//go:build lab

package main

import (
	"testing"

	"cairn/ci/devhost"
	"cairn/toolstack/vm"
)

// TestRealBalloon: a guest of QEMU's starts with static_max, comes down to its dynamic
// range when its driver has loaded, and follows it from then on.
func TestRealBalloon(t *testing.T) {
	const mib = 1 << 20
	d, _, _ := newReal(t)
	c := d.login(d.address())
	ctx := t.Context()
	var templates, consoles []string
	var ref, metrics, host string
	d.must(c.Call(ctx, "VM.get_by_name_label", &templates, vm.DemoTemplate))
	d.must(c.Call(ctx, "VM.clone", &ref, templates[0], "real"))
	d.must(c.Call(ctx, "VM.provision", nil, ref))
	d.must(c.Call(ctx, "VM.set_memory_limits", nil, ref, 64*mib, 512*mib, 256*mib, 384*mib))
	d.must(c.Call(ctx, "VM.start", nil, ref, false, false))
	d.must(c.Call(ctx, "VM.get_metrics", &metrics, ref))
	d.must(c.Call(ctx, "VM.get_consoles", &consoles, ref))
	d.must(c.Call(ctx, "VM.get_resident_on", &host, ref))
	actual := func() (bytes int64) {
		d.must(c.Call(ctx, "VM_metrics.get_memory_actual", &bytes, metrics))
		return bytes
	}
	if got := actual(); got != 512*mib {
		t.Errorf("before its driver has loaded it counts with %d", got)
	}
	tty, err := c.Console(ctx, consoles[0])
	d.must(err)
	readUntil(t, tty, devhost.Greeting)
	d.must(c.Call(ctx, "VM.wait_memory_target_live", nil, ref))
	if got := actual(); got > 385*mib || got < 383*mib {
		t.Errorf("with its driver it has %d MiB", got/mib)
	}
	var before, after int64
	d.must(c.Call(ctx, "host.compute_free_memory", &before, host))
	d.must(c.Call(ctx, "VM.set_memory_dynamic_range", nil, ref, 192*mib, 256*mib))
	d.must(c.Call(ctx, "VM.wait_memory_target_live", nil, ref))
	if got := actual(); got > 257*mib || got < 255*mib {
		t.Errorf("after its range was lowered it has %d MiB", got/mib)
	}
	d.must(c.Call(ctx, "host.compute_free_memory", &after, host))
	if after-before != 64*mib {
		t.Errorf("%d MiB more may be had of it, want 64", (after-before)/mib)
	}
	d.must(c.Call(ctx, "VM.set_memory_target_live", nil, ref, 320*mib))
	d.must(c.Call(ctx, "VM.wait_memory_target_live", nil, ref))
	if got := actual(); got > 321*mib || got < 319*mib {
		t.Errorf("after its target was raised it has %d MiB", got/mib)
	}
	d.must(c.Call(ctx, "VM.hard_shutdown", nil, ref))
	d.must(c.Call(ctx, "VM.destroy", nil, ref))
	d.stop()
}
