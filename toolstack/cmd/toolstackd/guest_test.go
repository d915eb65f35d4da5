package main

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"cairn/image/guest/qga"
	"cairn/toolstack/hypervisor"
)

// TestGuestAgent: what a user sees of an agent with xe.
func TestGuestAgent(t *testing.T) {
	d := newInstance(t, "memory")
	c := newCommandLine(t, d.address())
	vm := c.xe("vm-install", "template=Cairn demo guest", "new-name-label=web")
	off := make(chan string, 1)
	var said bytes.Buffer // by the agent's goroutine, read when that has answered
	agent := qga.New(qga.Machine{Console: &said, Off: func(why string) {
		off <- why
		d.hv.End(vm, hypervisor.ByGuest)
	}})
	d.hv.SetAgent(vm, func(port net.Conn) { _ = agent.Serve(port) })
	get := func(param string) string { return c.xe("vm-param-get", "uuid="+vm, "param-name="+param) }
	c.xe("vm-start", "vm=web")
	d.saw("guest-agent-present")
	if os := get("os-version"); !strings.Contains(os, "name: Cairn demo guest 1.0") || !strings.Contains(os, "distro: cairn-demo") {
		t.Errorf("os-version %q", os)
	}
	c.want(get("live")+" "+get("PV-drivers-up-to-date"), "true true")
	snapshot := c.xe("vm-snapshot-with-quiesce", "vm=web", "new-name-label=rest")
	c.want(c.xe("snapshot-param-get", "uuid="+snapshot, "param-name=name-label"), "rest")
	c.want(said.String(), "guest-agent freeze\nguest-agent thaw\n")

	d.hv.IgnorePowerButton(vm)
	c.xe("vm-shutdown", "vm=web")
	c.want(<-off, "guest-agent")
	c.want(get("power-state"), "halted")
	c.want(get("os-version"), "<not in database>")
	d.stop()
}

// saw waits until a line with this event has come.
func (d *instance) saw(event string) {
	d.t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case line := <-d.log.lines:
			if strings.Contains(line, " "+event+" ") {
				return
			}
		case <-limit:
			d.t.Fatalf("no %s", event)
		}
	}
}
