package main

import (
	"strconv"
	"testing"

	"cairn/toolstack/hypervisor"
)

// TestMemoryCommands: sizes with xe, while halted and while the guest runs, whose
// balloon follows.
func TestMemoryCommands(t *testing.T) {
	d := newInstance(t, "memory")
	c := newCommandLine(t, d.address())
	vm := c.xe("vm-install", "template=Cairn demo guest", "new-name-label=web")
	get := func(param string) string { return c.xe("vm-param-get", "uuid="+vm, "param-name="+param) }
	mib := func(n int) string { return strconv.Itoa(n << 20) }
	target := func() string {
		spec, _ := d.hv.Spec(vm)
		return strconv.FormatInt(spec.MemoryTargetBytes, 10)
	}
	c.xe("vm-memory-set", "vm=web", "memory=256MiB")
	c.want(get("memory-static-max"), mib(256))
	c.xe("vm-memory-limits-set", "vm=web", "static-min=64MiB", "dynamic-min=128MiB", "dynamic-max=384MiB", "static-max=512MiB")
	c.xe("vm-memory-static-range-set", "vm=web", "min=96MiB", "max=640MiB")
	c.want(get("memory-static-min")+" "+get("memory-static-max"), mib(96)+" "+mib(640))
	overhead, err := strconv.ParseInt(c.xe("vm-compute-memory-overhead", "vm=web"), 10, 64)
	if err != nil || overhead < 32<<20 {
		t.Errorf("overhead %d, %v", overhead, err)
	}
	largest, err := strconv.ParseInt(c.xe("vm-compute-maximum-memory", "vm=web", "total=1GiB", "approximate=true"), 10, 64)
	if err != nil || largest <= 900<<20 || largest >= 1<<30 || largest%(1<<20) != 0 {
		t.Errorf("of 1 GiB a VM may have %d, %v", largest, err)
	}
	free := c.xe("host-compute-free-memory")

	c.xe("vm-start", "vm=web")
	c.xe("vm-memory-target-wait", "vm=web")
	c.want(target(), mib(384))
	c.want(get("memory-actual"), mib(384))
	if now := c.xe("host-compute-free-memory"); now == free {
		t.Errorf("beside a running VM %s is free, as before", now)
	}
	c.xe("vm-memory-dynamic-range-set", "vm=web", "min=128MiB", "max=256MiB")
	c.xe("vm-memory-target-wait", "vm=web")
	c.want(target(), mib(256))
	c.want(get("memory-target"), mib(256))
	c.xe("vm-memory-target-set", "vm=web", "target=300MiB")
	c.xe("vm-memory-target-wait", "vm=web")
	c.want(target(), mib(300))
	c.want(get("memory-dynamic-min")+" "+get("memory-dynamic-max"), mib(300)+" "+mib(300))
	c.xe("vm-memory-balloon", "vm=web", "target=320MiB")
	c.xe("vm-memory-target-wait", "vm=web")
	c.want(target(), mib(320))
	c.xe("vm-memory-shadow-multiplier-set", "vm=web", "multiplier=2")
	c.want(get("HVM-shadow-multiplier"), "2.000")
	for _, refused := range [][]string{
		{"vm-memory-set", "vm=web", "memory=256MiB"},
		{"vm-memory-dynamic-range-set", "vm=web", "min=128MiB", "max=2GiB"},
		{"vm-memory-target-set", "vm=web", "target=1"},
	} {
		if status, _, errOut := c.try(refused...); status == 0 || errOut == "" {
			t.Errorf("%v is done", refused)
		}
	}
	c.want(target(), mib(320))
	d.hv.End(vm, hypervisor.ByGuest)
	d.stop()
}
