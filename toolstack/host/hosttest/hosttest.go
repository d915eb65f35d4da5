// Package hosttest is a hostd in memory, for tests of the toolstack. A Hostd may
// be used by many goroutines.
package hosttest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"

	"cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/toolstack/storage/storagetest"
)

// Hostd answers what its fields say. Change them through Set while it is in use.
type Hostd struct {
	*storagetest.Hostd // its storage

	mu           sync.Mutex
	Hardware     client.Inventory
	Document     config.Document
	Address      string // in CIDR form
	PowerAsks    []client.PowerAction
	ServiceLog   []string // lines of the toolstack's log; nil for no log
	Kernel       string   // the kernel's log
	Kills        []client.Kill
	Synchronized bool
	OfGuests     []string // whose logs there are
	Err          error    // what every call answers, unless nil

	BridgeRows map[string]client.Bridge // by name
	PortRows   map[string]client.Port   // by interface
}

// New is a host of 4 GiB with KVM and two CPUs.
func New() *Hostd {
	doc := config.Default()
	doc.Hostname = "cairn-test"
	return &Hostd{
		Hostd:    storagetest.New(),
		Document: doc,
		Address:  "192.0.2.7/24",
		Hardware: client.Inventory{
			Hostname: doc.Hostname,
			CPU:      client.CPU{Count: 2, Sockets: 1, Vendor: "AuthenticAMD", Model: "Test CPU", MHz: 3000, Flags: []string{"fpu", "svm"}},
			KVM:      client.KVM{Usable: true},
			Memory:   client.Memory{Total: 4 << 30, Available: 3 << 30},
			NICs: []client.NIC{{
				Name: "eth0", MAC: "52:54:00:00:00:01", Driver: "virtio_net", PCI: "0000:00:02.0", Vendor: "0x1af4", Device: "0x1041",
				SpeedMbps: 1000, Duplex: true, Link: true, MTU: 1500,
			}},
			Product: client.Product{Manufacturer: "Maker", Name: "Machine", Serial: "S1"},
			BIOS:    client.BIOS{Vendor: "Firm", Version: "1.0", Date: "01/02/2026"},
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
	text, err := json.Marshal(h.Document) // which is YAML, too
	return client.Config{Document: h.Document, Text: string(text), Source: "state"}, errors.Join(h.Err, err)
}

// PutConfig implements host.Hostd.
func (h *Hostd) PutConfig(_ context.Context, text []byte) (client.Config, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	doc, err := config.Parse(text)
	if err != nil {
		return client.Config{}, &client.Error{Status: 400, Code: client.CodeConfigInvalid, Message: err.Error()}
	}
	if h.Err == nil {
		h.Document, h.Hardware.Hostname = doc, doc.Hostname
		if doc.Management.Mode == config.ModeStatic {
			h.Address = doc.Management.Address.String()
		}
	}
	return client.Config{Document: doc, Text: string(text), Source: "state"}, h.Err
}

// Logs implements host.Hostd.
func (h *Hostd) Logs(_ context.Context, service string, lines int) (client.Logs, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ServiceLog == nil {
		return client.Logs{}, &client.Error{Status: 404, Code: client.CodeNotFound, Message: "no log of service " + service}
	}
	last := h.ServiceLog[max(len(h.ServiceLog)-lines, 0):]
	return client.Logs{Service: service, Lines: slices.Clone(last)}, h.Err
}

// KernelLog implements host.Hostd.
func (h *Hostd) KernelLog(context.Context) (client.KernelLog, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return client.KernelLog{Text: h.Kernel}, h.Err
}

// ClearKernelLog implements host.Hostd.
func (h *Hostd) ClearKernelLog(context.Context) (client.KernelLog, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := h.Kernel
	h.Kernel = ""
	return client.KernelLog{Text: text}, h.Err
}

// OutOfMemory implements vm.Hostd.
func (h *Hostd) OutOfMemory(context.Context) (client.OutOfMemory, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return client.OutOfMemory{Kills: h.Kills}, h.Err
}

// Time implements host.Hostd.
func (h *Hostd) Time(context.Context) (client.Time, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return client.Time{Synchronized: h.Synchronized}, h.Err
}

// Network implements host.Hostd.
func (h *Hostd) Network(context.Context) (client.Network, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return client.Network{
		Interface: "eth0", MAC: "52:54:00:00:00:01", Mode: string(h.Document.Management.Mode), Link: true, Address: h.Address,
		Gateway: "192.0.2.1", DNS: []string{"192.0.2.53"},
	}, h.Err
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

// GuestLogs implements host.Hostd.
func (h *Hostd) GuestLogs(context.Context) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.OfGuests), h.Err
}

// DeleteGuestLogs implements host.Hostd.
func (h *Hostd) DeleteGuestLogs(_ context.Context, uuid string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Err == nil {
		h.OfGuests = slices.DeleteFunc(h.OfGuests, func(other string) bool { return other == uuid })
	}
	return h.Err
}
