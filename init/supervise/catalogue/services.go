package catalogue

import (
	"io/fs"
	"time"
)

// waitForAPI is how long what nobody needs for the API waits for it to answer.
// It keeps driver loading and time keeping out of the way of a boot, and is a
// few times what a slow machine takes.
const waitForAPI = 20 * time.Second

// background is the processor weight of services that are not on the way from
// the kernel to the API. Stage 1 has loaded the drivers of the disks, and hostd
// loads those of the NICs, so even udevd is not.
const background = 20

// udevd loads modules by modalias and names and permits device nodes. The rule
// set is the part a server needs. Left out on purpose: predictable NIC names
// (hostd identifies NICs by MAC and PCI path, and a rename under a running DHCP
// client is a race), device-mapper and LVM rules (they come with the storage
// services), seats, sound, cameras, and everything that tags for systemd.
func udevd() Service {
	return Service{
		Name:         "udevd",
		Argv:         []string{"/usr/lib/systemd/systemd-udevd"},
		After:        []string{"toolstackd"},
		AfterLimit:   waitForAPI,
		Ready:        Ready{Kind: Notify},
		Class:        Critical,
		StartTimeout: 60 * time.Second,
		Grace:        5 * time.Second,
		Watchdog:     3 * time.Minute, // WatchdogSec of Debian's unit
		Kill:         KillGroup,
		OOMScore:     -1000,
		CPUWeight:    background,
		Programs: []string{
			"/usr/bin/udevadm",
			"/usr/lib/udev/ata_id",
			"/usr/lib/udev/cdrom_id",
			"/usr/lib/udev/scsi_id",
		},
		Files: []string{
			"/usr/lib/udev/rules.d/50-udev-default.rules",
			"/usr/lib/udev/rules.d/60-block.rules",
			"/usr/lib/udev/rules.d/60-cdrom_id.rules",
			"/usr/lib/udev/rules.d/60-evdev.rules",
			"/usr/lib/udev/rules.d/60-input-id.rules",
			"/usr/lib/udev/rules.d/60-persistent-storage.rules",
			"/usr/lib/udev/rules.d/60-serial.rules",
			"/usr/lib/udev/rules.d/64-ext4.rules",
			"/usr/lib/udev/rules.d/70-power-switch.rules",
			"/usr/lib/udev/rules.d/80-drivers.rules",
			// Opened with dlopen by libsystemd-shared (its .note.dlopen):
			"/usr/lib/x86_64-linux-gnu/libkmod.so.2",
		},
		Unit: "/usr/lib/systemd/system/systemd-udevd.service",
	}
}

// udevTrigger replays the devices the kernel found before udevd ran. It does
// not wait for the events to be handled: whoever needs a device waits for it.
func udevTrigger() Service {
	return Service{
		Name: "udev-trigger",
		Argv: []string{
			"/usr/bin/udevadm", "trigger", "--type=all", "--action=add",
			"--prioritized-subsystem=module,block,tpmrm,net,tty,input",
		},
		Needs:        []string{"udevd"},
		Ready:        Ready{Kind: Exit},
		Class:        Oneshot,
		StartTimeout: 60 * time.Second,
		Grace:        2 * time.Second,
		Kill:         KillGroup,
		CPUWeight:    background,
		Unit:         "/usr/lib/systemd/system/systemd-udev-trigger.service",
	}
}

// hostd mounts STATE and LOGS and writes /etc before it says READY=1, so
// whatever reads either needs hostd.
func hostd() Service {
	return Service{
		Name:         "hostd",
		Argv:         []string{HostdPath},
		Ready:        Ready{Kind: Notify},
		Class:        Critical,
		StartTimeout: 90 * time.Second,
		Grace:        10 * time.Second,
		Kill:         KillGroup,
		OOMScore:     -900,
		Limits:       []Limit{debianNoFile},
		// Sockets of volumes that are lent out take over the directory's group.
		Dirs: []Dir{
			{"/run/cairn", 0o755, Owner{"root", "root"}},
			{"/run/cairn/exports", fs.ModeSetgid | 0o750, Owner{"root", "cairn"}},
		},
		Sockets: []Listen{{
			Name: "hostd", Network: "unix", Address: "/run/cairn/hostd.sock",
			Mode: 0o660, Owner: Owner{"root", "cairn"},
		}},
		Console: true,
		Trusted: true,
		// What makes, checks and holds repositories and their volumes.
		Programs: []string{
			"/usr/bin/qemu-img",
			"/usr/bin/qemu-nbd",
			"/usr/sbin/e2fsck",
			"/usr/sbin/lvm",
			"/usr/sbin/mke2fs",
			"/usr/sbin/wipefs",
		},
	}
}

// virtlogd holds the guests' console logs open, so it must outlive libvirtd;
// nothing but a shutdown stops it. It opens files only when a guest starts, so
// it need not wait for hostd to mount them. PID 1 holds its sockets, under the
// names of Debian's socket units: a guest that starts before virtlogd runs, or
// while it is restarted, waits for it instead of failing.
func virtlogd() Service {
	return Service{
		Name:         "virtlogd",
		Argv:         []string{"/usr/sbin/virtlogd"},
		After:        []string{"toolstackd"},
		AfterLimit:   waitForAPI,
		Ready:        Ready{Kind: Notify},
		Class:        Restartable,
		StartTimeout: 60 * time.Second,
		Grace:        5 * time.Second,
		Kill:         KillMain,
		OOMScore:     -900,
		Limits:       []Limit{debianNoFile},
		Dirs:         []Dir{{"/run/libvirt", 0o755, Owner{"root", "root"}}},
		Sockets: []Listen{
			{"virtlogd.socket", "unix", "/run/libvirt/virtlogd-sock", 0o600, Owner{"root", "root"}},
			{"virtlogd-admin.socket", "unix", "/run/libvirt/virtlogd-admin-sock", 0o600, Owner{"root", "root"}},
		},
		Unit: "/usr/lib/systemd/system/virtlogd.service",
	}
}

// libvirtd runs without Debian's --timeout and without systemd's sockets. It
// need not wait for udevd: it asks again when /dev/kvm becomes usable. Nor for
// virtlogd, which it calls only when a guest starts. Only its
// main process is ever killed: guests live in /machine, and a QEMU on its way
// there is for a moment still in /svc/libvirtd.
func libvirtd() Service {
	return Service{
		Name:         "libvirtd",
		Argv:         []string{"/usr/sbin/libvirtd"},
		Needs:        []string{"hostd"},
		Ready:        Ready{Kind: Notify},
		Class:        Restartable,
		StartTimeout: 120 * time.Second,
		Grace:        15 * time.Second,
		Kill:         KillMain,
		OOMScore:     -500,
		Limits:       []Limit{debianNoFile, {MemLock, 64 << 20, 64 << 20}},
		// LOGS is empty at first; virtlogd makes a guest's log, not its directory.
		// Sockets of graphical consoles are QEMU's, and take over the directory's group.
		Dirs: []Dir{
			{"/var/log/libvirt/qemu", 0o750, Owner{"root", "root"}},
			{"/run/libvirt/vnc", fs.ModeSetgid | 0o770, Owner{"libvirt-qemu", "cairn"}},
			{"/var/lib/libvirt/swtpm-localca", 0o750, Owner{"libvirt-qemu", "kvm"}},
		},
		Programs: []string{
			"/usr/bin/qemu-system-x86_64",
			"/usr/bin/qemu-img",
			"/usr/lib/libvirt/libvirt_iohelper",
			"/usr/sbin/dmidecode",
			// Guests' TPMs: the chip, what makes one with the certificates a maker would
			// give it, and the host's own maker's authority.
			"/usr/bin/swtpm",
			"/usr/bin/swtpm_setup",
			"/usr/bin/swtpm_ioctl",
			"/usr/bin/swtpm_localca",
			"/usr/bin/swtpm_cert",
			"/usr/bin/certtool",
		},
		Files: []string{
			"/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so",
			// Other architectures' models are read only for their emulators.
			"/usr/share/libvirt/cpu_map/index.xml",
			"/usr/share/libvirt/cpu_map/x86_*.xml",
			// QEMU's firmware for pc and q35 with and without direct kernel boot.
			"/usr/share/seabios/bios-256k.bin",
			"/usr/share/seabios/vgabios-stdvga.bin",
			"/usr/share/seabios/vgabios-virtio.bin",
			"/usr/share/qemu/efi-virtio.rom",
			"/usr/share/qemu/efi-e1000.rom",
			"/usr/share/qemu/efi-e1000e.rom",
			"/usr/share/qemu/kvmvapic.bin",
			"/usr/share/qemu/linuxboot.bin",
			"/usr/share/qemu/linuxboot_dma.bin",
			"/usr/share/qemu/multiboot.bin",
			"/usr/share/qemu/multiboot_dma.bin",
			"/usr/share/qemu/pvh.bin",
			"/usr/share/qemu/keymaps/en-us",
			// UEFI for guests, plain and with secure boot, and what their variables begin as.
			"/usr/share/OVMF/OVMF_CODE_4M.fd",
			"/usr/share/OVMF/OVMF_VARS_4M.fd",
			"/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
			"/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
		},
		Unit: "/usr/lib/systemd/system/libvirtd.service",
	}
}

// chronyd stays root only until it has dropped to _chrony itself. -d is -n
// with the log on standard error; -F 1 is Debian's DAEMON_OPTS. It has no
// sd_notify, so its command socket says that it is up.
func chronyd() Service {
	owner := Owner{"_chrony", "_chrony"}
	return Service{
		Name:         "chronyd",
		Argv:         []string{"/usr/sbin/chronyd", "-d", "-F", "1"},
		Needs:        []string{"hostd"},
		After:        []string{"toolstackd"},
		AfterLimit:   waitForAPI,
		Ready:        Ready{Kind: Socket, Path: "/run/chrony/chronyd.sock"},
		Class:        Restartable,
		StartTimeout: 30 * time.Second,
		Grace:        5 * time.Second,
		Kill:         KillGroup,
		CPUWeight:    background,
		Dirs: []Dir{
			{"/run/chrony", 0o700, owner},
			{"/var/lib/chrony", 0o750, owner},
		},
		Unit: "/usr/lib/systemd/system/chrony.service",
	}
}

// toolstackd needs hostd only: it opens its database while libvirtd starts and
// says READY=1 once libvirt has answered.
func toolstackd() Service {
	return Service{
		Name:         "toolstackd",
		Argv:         []string{ToolstackdPath},
		Needs:        []string{"hostd"},
		Ready:        Ready{Kind: Notify},
		Class:        Critical,
		StartTimeout: 180 * time.Second,
		Grace:        15 * time.Second,
		Watchdog:     60 * time.Second,
		Kill:         KillGroup,
		Owner:        Owner{"cairn", "cairn"},
		OOMScore:     -500,
		Limits:       []Limit{{NoFile, 65536, 524288}},
		Dirs: []Dir{
			{"/run/cairn", 0o755, Owner{"root", "root"}},
			{"/run/cairn/toolstackd", 0o750, Owner{"cairn", "cairn"}},
			{"/var/lib/cairn", 0o750, Owner{"cairn", "cairn"}},
		},
		Sockets: []Listen{
			{Name: "https", Network: "tcp", Address: "[::]:443"},
			// Whoever is heard there is root and needs no password.
			{"local", "unix", "/run/cairn/api.sock", 0o600, Owner{"root", "root"}},
		},
		Console: true,
	}
}
