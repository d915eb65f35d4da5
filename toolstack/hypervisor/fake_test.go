package hypervisor_test

import (
	"net"
	"testing"
	"time"

	"cairn/image/guest/qga"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/hypervisor/conformance"
)

func TestFakeConforms(t *testing.T) {
	f := hypervisor.NewFake()
	defer f.Close()
	conformance.Run(t, conformance.Target{
		Hypervisor: f,
		Spec: hypervisor.Spec{
			Kind: hypervisor.Accelerated, Machine: hypervisor.DefaultMachine, MemoryBytes: 256 << 20,
			VCPUs: 1, VCPUsMax: 1, Boot: hypervisor.DirectBoot{Kernel: "/usr/share/cairn/guest/vmlinuz"},
		},
		Greeting: "cairn-demo-guest ready",
		KVM:      true,
		Answer: func(uuid string) {
			agent := qga.New(qga.Machine{Console: t.Output(), Off: func(string) { f.End(uuid, hypervisor.ByGuest) }})
			f.SetAgent(uuid, func(port net.Conn) { _ = agent.Serve(port) })
		},
		Volumes: conformance.Names{},
		Bridge:  "xenbr0",
		Hold:    func(_ *testing.T, uuid string) { f.HoldDevices(uuid, true) },
		Kept:    func(*testing.T, string, bool) {},
		Full: func(_ *testing.T, d hypervisor.Disk) conformance.Full {
			return conformance.Full{
				Source: *d.Source, Fail: func(uuid string) { f.FailWrite(uuid, d.ID, hypervisor.NoSpace) }, Grow: func() {},
			}
		},
		Kill:   func(_ *testing.T, uuid string) { f.End(uuid, hypervisor.ByCrash) },
		Bounce: func(*testing.T) { f.Resync() },
		Limit:  5 * time.Second,
	})
}
