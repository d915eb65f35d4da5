// Package devicetest is storage and network for tests of machines with devices:
// in memory, counting who has what, and failing when told to. Its methods may be
// called from many goroutines.
package devicetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
)

// Host is the host's side of all devices.
type Host struct {
	// Before is asked before each step, by name ("attach", "detach", "plug",
	// "unplug") and object; an error is the step's, without effect. May be nil.
	Before func(step, ref string) error
	// Bridge names the bridge of a VIF; nil is always "br0".
	Bridge func(api.VIFRef) string

	mu    sync.Mutex
	disks map[api.VDIRef]bool
	ports map[api.VIFRef]bool
}

// New returns a host that has nothing.
func New() *Host {
	return &Host{disks: map[api.VDIRef]bool{}, ports: map[api.VIFRef]bool{}}
}

func (h *Host) before(ctx context.Context, step, ref string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if h.Before == nil {
		return nil
	}
	return h.Before(step, ref)
}

// Attach implements device.Storage.
func (h *Host) Attach(ctx context.Context, _ api.HostRef, vdi api.VDIRef, _ bool) (*hypervisor.Source, error) {
	if err := h.before(ctx, "attach", string(vdi)); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disks[vdi] = true
	return &hypervisor.Source{Path: "/sr/" + string(vdi), Format: hypervisor.Raw}, nil
}

// Detach implements device.Storage.
func (h *Host) Detach(ctx context.Context, _ api.HostRef, vdi api.VDIRef) error {
	if err := h.before(ctx, "detach", string(vdi)); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.disks, vdi)
	return nil
}

// Plug implements device.Network. The MAC is not looked up.
func (h *Host) Plug(ctx context.Context, _ api.HostRef, vif api.VIFRef) (hypervisor.NIC, error) {
	if err := h.before(ctx, "plug", string(vif)); err != nil {
		return hypervisor.NIC{}, err
	}
	bridge := "br0"
	if h.Bridge != nil {
		bridge = h.Bridge(vif)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ports[vif] = true
	n := len(h.ports)
	tap := hypervisor.TapName(string(vif)[len("OpaqueRef:"):])
	return hypervisor.NIC{MAC: fmt.Sprintf("02:00:00:00:00:%02x", n), Bridge: bridge, Tap: tap, MTU: 1500}, nil
}

// Unplug implements device.Network.
func (h *Host) Unplug(ctx context.Context, _ api.HostRef, vif api.VIFRef) error {
	if err := h.before(ctx, "unplug", string(vif)); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.ports, vif)
	return nil
}

// Disks are those attached now.
func (h *Host) Disks() []api.VDIRef {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.disks))
}

// Ports are the VIFs with a port now.
func (h *Host) Ports() []api.VIFRef {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.ports))
}
