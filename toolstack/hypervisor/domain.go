package hypervisor

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"

	"libvirt.org/go/libvirtxml"
)

// metadataNS marks a domain as made by Cairn and says by which layout, so that
// a later version can tell what it finds running after an update.
const metadataNS = "urn:cairn:domain"

// layoutVersion counts changes of what domainXML writes for the same Spec.
const layoutVersion = 3

// The guest reads these with dmidecode and may key licences to them: they are
// part of a machine's identity and never change.
const (
	smbiosManufacturer = "Cairn"
	smbiosProduct      = "Virtual Machine"
)

// maxTitle keeps `virsh list --title` and QEMU's log readable.
const maxTitle = 128

// domainXML writes the domain for a spec.
//
// What is not there is left out on purpose: without a graphical console no video
// and no USB, which only cost boot time, and no watchdog, which would stop a guest
// that never asked for one.
func (c Config) domainXML(s Spec) (string, error) {
	if err := s.Check(); err != nil {
		return "", err
	}
	d := libvirtxml.Domain{
		Type:          string(s.Kind),
		Name:          s.UUID,
		UUID:          s.UUID,
		Title:         title(s.Title),
		Metadata:      metadata(),
		Memory:        &libvirtxml.DomainMemory{Value: kib(s.MemoryBytes), Unit: "KiB"},
		CurrentMemory: memoryTarget(s),
		VCPU:          vcpus(s),
		IOThreads:     iothread,
		SysInfo:       sysinfo(),
		OS:            c.bootOS(s),
		Features:      features(s),
		CPU:           cpu(s),
		Clock:         clock(s.Kind),
		// The toolstack decides what follows a power-off or a crash: it alone knows
		// whether this host may still run the VM. Only a guest's own reset is done in
		// place, because it must work while the toolstack is away.
		OnPoweroff: "destroy",
		OnReboot:   onReboot(s),
		OnCrash:    "destroy",
		PM: &libvirtxml.DomainPM{
			SuspendToMem:  &libvirtxml.DomainPMPolicy{Enabled: "no"},
			SuspendToDisk: &libvirtxml.DomainPMPolicy{Enabled: "no"},
		},
		Devices:      c.devices(s),
		QEMUOverride: overrides(),
	}
	x, err := d.Marshal()
	if err != nil {
		return "", fmt.Errorf("domain %s: %w", s.UUID, err)
	}
	return x + "\n", nil
}

func metadata() *libvirtxml.DomainMetadata {
	return &libvirtxml.DomainMetadata{
		XML: fmt.Sprintf(`<cairn:domain xmlns:cairn=%q layout="%d"/>`, metadataNS, layoutVersion),
	}
}

// memoryTarget is where the balloon goes as soon as the guest has a driver.
func memoryTarget(s Spec) *libvirtxml.DomainCurrentMemory {
	if s.MemoryTargetBytes == 0 {
		return nil
	}
	return &libvirtxml.DomainCurrentMemory{Value: kib(s.MemoryTargetBytes), Unit: "KiB"}
}

func vcpus(s Spec) *libvirtxml.DomainVCPU {
	v := &libvirtxml.DomainVCPU{Placement: "static", Value: uint(s.VCPUsMax)}
	if s.VCPUs < s.VCPUsMax {
		v.Current = uint(s.VCPUs)
	}
	return v
}

func sysinfo() []libvirtxml.DomainSysInfo {
	return []libvirtxml.DomainSysInfo{{SMBIOS: &libvirtxml.DomainSysInfoSMBIOS{
		System: &libvirtxml.DomainSysInfoSystem{Entry: []libvirtxml.DomainSysInfoEntry{
			{Name: "manufacturer", Value: smbiosManufacturer},
			{Name: "product", Value: smbiosProduct},
		}},
	}}}
}

// cpu passes the host's CPU through. A pool of unlike hosts will need a common
// model; until it can migrate, the fastest CPU is the right one.
func cpu(s Spec) *libvirtxml.DomainCPU {
	c := &libvirtxml.DomainCPU{Mode: "host-passthrough", Check: "none", Migratable: "on"}
	if s.Kind == Emulated {
		c.Mode = "maximum"
	}
	if n := s.CoresPerSocket; n > 0 {
		c.Topology = &libvirtxml.DomainCPUTopology{Sockets: s.VCPUsMax / n, Cores: n, Threads: 1}
	}
	return c
}

// clock catches up lost RTC ticks and does without HPET, as every KVM guest of
// the last decade expects.
func clock(k Kind) *libvirtxml.DomainClock {
	c := &libvirtxml.DomainClock{Offset: "utc"}
	c.Timer = []libvirtxml.DomainTimer{
		{Name: "rtc", TickPolicy: "catchup"},
		{Name: "hpet", Present: "no"},
	}
	if k == Accelerated {
		c.Timer = append(c.Timer, libvirtxml.DomainTimer{Name: "pit", TickPolicy: "delay"})
	}
	return c
}

func onReboot(s Spec) string {
	if s.RebootDestroys {
		return "destroy"
	}
	return "restart"
}

// statsPeriod is how often, in seconds, the guest reports on its memory.
const statsPeriod = 5

func (c Config) devices(s Spec) *libvirtxml.DomainDeviceList {
	d := &libvirtxml.DomainDeviceList{
		Emulator:    c.Emulator,
		Controllers: controllers(s),
		Serials:     []libvirtxml.DomainSerial{c.serial(s)},
		Channels:    c.channels(s),
		MemBalloon: &libvirtxml.DomainMemBalloon{
			Model: "virtio", FreePageReporting: "on", Stats: &libvirtxml.DomainMemBalloonStats{Period: statsPeriod},
		},
		RNGs: []libvirtxml.DomainRNG{{
			Model:   "virtio",
			Backend: &libvirtxml.DomainRNGBackend{Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"}},
		}},
		Panics: []libvirtxml.DomainPanic{{Model: "isa"}}, // tells a crash from a power-off
	}
	c.plugged(s, d)
	c.graphics(s, d)
	return d
}

// serial is COM1 on a unix socket. Independent of who is connected, every byte also
// goes through virtlogd into a log of bounded size.
func (c Config) serial(s Spec) libvirtxml.DomainSerial {
	port := uint(0)
	return libvirtxml.DomainSerial{
		Source: c.socket(c.consolePath(s.UUID)),
		Target: &libvirtxml.DomainSerialTarget{Port: &port},
		Log:    &libvirtxml.DomainChardevLog{File: filepath.Join(c.LogDir, s.UUID+"-console.log"), Append: "on"},
	}
}

// socket is where a guest's bytes come and go. libvirtd makes the socket before QEMU
// runs, and hands it the descriptor, so QEMU's confinement does not matter to it. The
// label gives the socket to the toolstack's group and nothing else of the domain:
// toolstackd reaches it without being in QEMU's group.
func (c Config) socket(path string) *libvirtxml.DomainChardevSource {
	source := &libvirtxml.DomainChardevSourceUNIX{Mode: "bind", Path: path}
	if c.ConsoleOwner != "" {
		source.SecLabel = []libvirtxml.DomainDeviceSecLabel{{Model: "dac", Relabel: "yes", Label: c.ConsoleOwner}}
	}
	return &libvirtxml.DomainChardevSource{UNIX: source}
}

func (c Config) consolePath(uuid string) string {
	return filepath.Join(c.ConsoleDir, uuid+".sock")
}

// title makes one printable line of a name a user chose freely.
func title(name string) string {
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, name)
	if r := []rune(clean); len(r) > maxTitle {
		clean = string(r[:maxTitle])
	}
	return strings.TrimSpace(clean)
}

// kib rounds up: a guest never gets less than its record says.
func kib(bytes int64) uint { return uint((bytes + 1023) / 1024) }
