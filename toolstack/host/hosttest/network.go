package hosttest

import (
	"context"
	"maps"
	"slices"

	"cairn/init/hostd/client"
)

// PutBridge implements network.Hostd.
func (h *Hostd) PutBridge(_ context.Context, b client.Bridge) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Err != nil {
		return h.Err
	}
	if h.BridgeRows == nil {
		h.BridgeRows = map[string]client.Bridge{}
	}
	h.BridgeRows[b.Name] = b
	return nil
}

// DeleteBridge implements network.Hostd.
func (h *Hostd) DeleteBridge(_ context.Context, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Err == nil {
		delete(h.BridgeRows, name)
	}
	return h.Err
}

// Bridges implements network.Hostd.
func (h *Hostd) Bridges(context.Context) ([]client.Bridge, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.BridgeRows)), h.Err
}

// PutPort implements network.Hostd.
func (h *Hostd) PutPort(_ context.Context, p client.Port) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Err != nil {
		return h.Err
	}
	if h.PortRows == nil {
		h.PortRows = map[string]client.Port{}
	}
	h.PortRows[p.Interface] = p
	return nil
}

// DeletePort implements network.Hostd.
func (h *Hostd) DeletePort(_ context.Context, iface string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Err == nil {
		delete(h.PortRows, iface)
	}
	return h.Err
}

// Ports implements network.Hostd.
func (h *Hostd) Ports(context.Context) ([]client.Port, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.PortRows)), h.Err
}
