// Package hosttest is a hostd in memory, for tests of the toolstack. A Hostd may
// be used by many goroutines.
package hosttest

import (
	"context"
	"sync"

	"cairn/init/config"
	"cairn/init/hostd/client"
)

// Hostd answers what its fields say. Change them through Set while it is in use.
type Hostd struct {
	mu        sync.Mutex
	Hardware  client.Inventory
	Document  config.Document
	Address   string // in CIDR form
	PowerAsks []client.PowerAction
	Err       error // what every call answers, unless nil
}

// New is a host of 4 GiB with KVM and two CPUs.
func New() *Hostd {
	doc := config.Default()
	doc.Hostname = "cairn-test"
	return &Hostd{
		Document: doc,
		Address:  "192.0.2.7/24",
		Hardware: client.Inventory{
			Hostname: doc.Hostname,
			CPU:      client.CPU{Count: 2, Sockets: 1, Vendor: "AuthenticAMD", Model: "Test CPU", MHz: 3000, Flags: []string{"fpu", "svm"}},
			KVM:      client.KVM{Usable: true},
			Memory:   client.Memory{Total: 4 << 30, Available: 3 << 30},
		},
	}
}

// Set changes fields while the host is in use.
func (h *Hostd) Set(change func(*Hostd)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

// Asked returns what power actions were asked for.
func (h *Hostd) Asked() []client.PowerAction {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]client.PowerAction(nil), h.PowerAsks...)
}

// Version implements host.Hostd.
func (h *Hostd) Version(context.Context) (client.Version, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return client.Version{API: 1, Product: "0.1.0", Kernel: "6.12.0-test"}, h.Err
}

// Inventory implements host.Hostd.
func (h *Hostd) Inventory(context.Context) (client.Inventory, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.Hardware, h.Err
}

// Config implements host.Hostd.
func (h *Hostd) Config(context.Context) (client.Config, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return client.Config{Document: h.Document, Source: "default"}, h.Err
}

// Network implements host.Hostd.
func (h *Hostd) Network(context.Context) (client.Network, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return client.Network{Interface: "eth0", Mode: "dhcp", Link: true, Address: h.Address}, h.Err
}

// LoadKVM implements host.Hostd: a pending verdict becomes KVM.
func (h *Hostd) LoadKVM(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Hardware.KVM.Pending {
		h.Hardware.KVM = client.KVM{Usable: true}
	}
	return h.Err
}

// Power implements host.Hostd.
func (h *Hostd) Power(_ context.Context, action client.PowerAction) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.PowerAsks = append(h.PowerAsks, action)
	return h.Err
}
