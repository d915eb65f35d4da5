package sim

import (
	"cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/toolstack/host/hosttest"
)

// Size of a simulated host.
const (
	hostMemory = 512 << 30
	reserve    = 24 << 30 // the control domain's share
	hostCPUs   = 32
)

// Hostd answers as the hostd of the first simulated host. Who logs in as root
// gives a password with this hash.
func Hostd(passwordHash string) *hosttest.Hostd {
	h := hosttest.New()
	h.Set(func(h *hosttest.Hostd) {
		h.Document.Hostname = hostname(0)
		h.Document.Root.PasswordHash = passwordHash
		h.Document.Emulation = config.EmulationNone
		h.Address = hostAddress(0) + "/16"
		h.Hardware = client.Inventory{
			Hostname: hostname(0),
			CPU: client.CPU{
				Count: hostCPUs, Sockets: 2, Vendor: "AuthenticAMD", Model: "AMD EPYC 9124 16-Core Processor",
				Family: 25, ModelID: 17, Stepping: 1, MHz: 3000, Flags: []string{"fpu", "sse2", "avx2", "svm", "npt"},
			},
			KVM: client.KVM{Usable: true},
			NICs: []client.NIC{
				{Name: "eth0", MAC: "02:77:00:00:00:00", Driver: "sim", SpeedMbps: 25000, Duplex: true, Link: true, MTU: 1500},
				{Name: "eth1", MAC: "02:77:00:00:00:01", Driver: "sim", SpeedMbps: 25000, Duplex: true, Link: true, MTU: 1500},
			},
			Memory:  client.Memory{Total: hostMemory, Available: hostMemory - reserve},
			Product: client.Product{Manufacturer: "Example", Name: "Simulated server", Serial: "SIM0000"},
			BIOS:    client.BIOS{Vendor: "Example", Version: "1.0"},
		}
	})
	return h
}
