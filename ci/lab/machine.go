package lab

import (
	"fmt"
	"strconv"
	"strings"
)

// machine is everything QEMU's command line says; args is its only reader, so
// the golden file shows each choice once.
type machine struct {
	Name      string
	KVM       bool
	NoNested  bool
	MemoryMiB int
	CPUs      int
	NoReboot  bool
	Watchdog  bool

	Code, Vars            string // OVMF: firmware and its private variables
	Kernel, Initrd, Words string // direct boot

	Disks  []Disk
	NICs   []NIC
	SMBIOS string // file holding the OEM string

	// Inherited sockets: QMP, the first serial port, the second (-1: none).
	QMP, Serial, Second int
}

func (m machine) args() []string {
	a := []string{
		"-name", m.Name,
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", "q35",
		"-m", strconv.Itoa(m.MemoryMiB), "-smp", strconv.Itoa(m.CPUs),
	}
	a = append(a, m.accelerator()...)
	a = append(a, m.boot()...)
	a = append(a, m.ports()...)
	for i, d := range m.Disks {
		a = append(a, d.args(i)...)
	}
	for i, n := range m.NICs {
		a = append(a, n.args(i)...)
	}
	a = append(a, "-device", "virtio-rng-pci")
	if m.SMBIOS != "" {
		a = append(a, "-smbios", "type=11,path="+m.SMBIOS)
	}
	if m.Kernel == "" && !m.KVM { // systemd-stub reads this string
		a = append(a, "-smbios", "type=11,value=io.systemd.stub.kernel-cmdline-extra="+noTimerCheck)
	}
	if m.Watchdog {
		a = append(a, "-device", "i6300esb", "-action", "watchdog=reset")
	}
	if m.NoReboot {
		a = append(a, "-no-reboot")
	}
	return a
}

// accelerator chooses the CPU. TCG emulates AMD's SVM with nested paging, so
// guests inside the host use real KVM code in both cases.
func (m machine) accelerator() []string {
	switch {
	case m.KVM && m.NoNested:
		return []string{"-accel", "kvm", "-cpu", "host,-svm,-vmx"}
	case m.KVM:
		return []string{"-accel", "kvm", "-cpu", "host"}
	case m.NoNested:
		return []string{"-accel", "tcg,thread=multi", "-cpu", "max,-svm,-vmx"}
	default:
		return []string{"-accel", "tcg,thread=multi", "-cpu", "max,+svm"}
	}
}

// noTimerCheck is a word for emulated kernels. Early on they count ticks of the
// timer over a few milliseconds of CPU work, and panic ("IO-APIC + timer
// doesn't work") where a busy machine did not run the emulator often enough
// meanwhile. Under KVM the kernel leaves the check out by itself.
const noTimerCheck = "no_timer_check"

func (m machine) boot() []string {
	if m.Kernel != "" {
		words := m.Words
		if !m.KVM {
			words = strings.TrimSpace(words + " " + noTimerCheck)
		}
		return []string{"-kernel", m.Kernel, "-initrd", m.Initrd, "-append", words}
	}
	return []string{
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + m.Code,
		"-drive", "if=pflash,unit=1,format=raw,file=" + m.Vars,
	}
}

func (m machine) ports() []string {
	a := []string{
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", m.QMP), "-mon", "chardev=qmp,mode=control",
		"-chardev", fmt.Sprintf("socket,id=serial0,fd=%d", m.Serial), "-serial", "chardev:serial0",
	}
	if m.Second >= 0 {
		a = append(a, "-chardev", fmt.Sprintf("socket,id=serial1,fd=%d", m.Second), "-serial", "chardev:serial1")
	}
	return a
}

// Disk is one disk of a host. Path is made in the run's directory when empty:
// as an overlay when Backing is set, else empty with the given size.
type Disk struct {
	Path    string
	Backing string // raw image the overlay starts from
	SizeMiB int
	Format  string // qcow2 unless set
	Bus     string // virtio (default), nvme, scsi, or cd: an ISO image in a drive
	Serial  string
}

// sataPorts is how many the machine type has.
const sataPorts = 6

func (d Disk) args(i int) []string {
	format := d.Format
	if format == "" {
		format = "qcow2"
	}
	id := fmt.Sprintf("disk%d", i)
	drive := fmt.Sprintf("if=none,id=%s,format=%s,discard=unmap,file=%s", id, format, escape(d.Path))
	serial := d.Serial
	if serial == "" {
		serial = id
	}
	device := "virtio-blk-pci"
	var a []string
	switch d.Bus {
	case "nvme":
		device = "nvme"
	case "scsi":
		a = []string{"-device", "virtio-scsi-pci,id=scsi" + strconv.Itoa(i)}
		device = fmt.Sprintf("scsi-hd,bus=scsi%d.0", i)
	}
	if d.Bus == "cd" {
		drive += ",media=cdrom,readonly=on"
		device = fmt.Sprintf("ide-cd,bus=ide.%d", i%sataPorts)
	}
	a = append(a, "-drive", drive)
	return append(a, "-device", fmt.Sprintf("%s,drive=%s,serial=%s", device, id, serial))
}

// NIC is one network card on QEMU's own user network, which is cut off from
// everything (restrict=on) but the forwarded ports. An unplugged NIC has no
// network at all.
type NIC struct {
	MAC      string
	Forwards []Forward
	Isolated bool
}

// Forward makes a host's TCP port reachable on 127.0.0.1. Local 0 lets the
// kernel choose; Host.Address tells which.
type Forward struct {
	Local, Port int
}

func (n NIC) args(i int) []string {
	id := fmt.Sprintf("net%d", i)
	mac := n.MAC
	if mac == "" {
		mac = fmt.Sprintf("52:54:00:ca:00:%02x", i+1)
	}
	if n.Isolated {
		return []string{"-netdev", fmt.Sprintf("hubport,hubid=%d,id=%s", i, id), "-device", "virtio-net-pci,mac=" + mac + ",netdev=" + id}
	}
	net := []string{"user", "id=" + id, "restrict=on"}
	for _, f := range n.Forwards {
		net = append(net, fmt.Sprintf("hostfwd=tcp:127.0.0.1:%d-:%d", f.Local, f.Port))
	}
	return []string{"-netdev", strings.Join(net, ","), "-device", "virtio-net-pci,mac=" + mac + ",netdev=" + id}
}

// escape doubles commas, QEMU's only quoting inside an option.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }
