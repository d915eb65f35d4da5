package hypervisor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// Kind is what executes the guest's instructions.
type Kind string

// Kinds of execution.
const (
	Accelerated Kind = "kvm"
	Emulated    Kind = "qemu" // TCG: only where the configuration document allows it
)

// Machine types a VM may be pinned to. The machine type fixes every piece of
// hardware the guest sees. It is recorded in the VM when the VM is made and
// stays, because a plain "q35" means another machine in the next QEMU: a guest
// would find its devices moved after a host update, Windows would ask for
// activation, and a live migration from an old host to a new one would fail.
// Entries are only ever added here.
var Machines = []string{"pc-q35-10.0"}

// DefaultMachine is what new VMs are pinned to.
const DefaultMachine = "pc-q35-10.0"

const (
	minMemory = 16 << 20
	maxMemory = 16 << 40 // libvirt and QEMU take more; no host of today has it
	maxVCPUs  = 288      // what q35 takes without an extended interrupt controller
)

// Spec says what machine to start.
type Spec struct {
	UUID    string // of the VM; also the domain's name
	Title   string // the VM's name_label: for people, need not be unique
	Kind    Kind
	Machine string // one of Machines

	MemoryBytes int64
	VCPUs       int // started with
	VCPUsMax    int // at least VCPUs

	// MemoryTargetBytes is what the balloon leaves to the guest; 0 is all.
	MemoryTargetBytes int64
	// CoresPerSocket divides VCPUsMax; 0 is one.
	CoresPerSocket int

	Firmware   Firmware
	Boot       DirectBoot // of Firmware Direct
	SecureBoot bool       // of UEFI: only signed code boots
	TPM        bool
	// BootOrder of BIOS and UEFI: BootDisk, BootCD, BootNetwork.
	BootOrder []string

	Graphics bool // VGA, VNC and a tablet
	Disks    []Disk
	NICs     []NIC

	// RebootDestroys ends the domain when the guest resets itself, where otherwise
	// it starts again in place.
	RebootDestroys bool
}

// Firmware is what starts the guest.
type Firmware string

// Kinds of firmware.
const (
	Direct Firmware = "" // none: a kernel is loaded
	BIOS   Firmware = "bios"
	UEFI   Firmware = "uefi"
)

// Entries of BootOrder.
const (
	BootDisk    = "hd"
	BootCD      = "cdrom"
	BootNetwork = "network"
)

// DirectBoot loads a kernel without any firmware's help.
type DirectBoot struct{ Kernel, Initrd, Args string }

// Check reports what is wrong with a spec. It is the last check before XML is
// written; package vm refuses bad records earlier and with better words.
func (s Spec) Check() error {
	return errors.Join(s.checkIdentity(), s.checkSize(), s.checkFirmware(), s.checkDevices())
}

func (s Spec) checkIdentity() error {
	if _, err := uuid.Parse(s.UUID); err != nil || len(s.UUID) != 36 {
		return fmt.Errorf("spec: uuid %q is not one", s.UUID)
	}
	if s.Kind != Accelerated && s.Kind != Emulated {
		return fmt.Errorf("spec %s: kind %q is unknown", s.UUID, s.Kind)
	}
	if !slices.Contains(Machines, s.Machine) {
		return fmt.Errorf("spec %s: machine %q is unknown", s.UUID, s.Machine)
	}
	return nil
}

func (s Spec) checkSize() error {
	if s.MemoryBytes < minMemory || s.MemoryBytes > maxMemory {
		return fmt.Errorf("spec %s: memory of %d bytes is out of range", s.UUID, s.MemoryBytes)
	}
	if s.VCPUs < 1 || s.VCPUsMax < s.VCPUs || s.VCPUsMax > maxVCPUs {
		return fmt.Errorf("spec %s: %d of %d vcpus is out of range", s.UUID, s.VCPUs, s.VCPUsMax)
	}
	if s.MemoryTargetBytes < 0 || s.MemoryTargetBytes > s.MemoryBytes {
		return fmt.Errorf("spec %s: memory target of %d bytes is out of range", s.UUID, s.MemoryTargetBytes)
	}
	if s.CoresPerSocket < 0 || s.CoresPerSocket > 0 && s.VCPUsMax%s.CoresPerSocket != 0 {
		return fmt.Errorf("spec %s: %d vcpus do not divide into sockets of %d", s.UUID, s.VCPUsMax, s.CoresPerSocket)
	}
	return nil
}
