package template

// All lists the templates in the order people look for them.
func All() []Template {
	var all []Template
	add := func(t Template, changes ...func(*Template)) {
		for _, change := range changes {
			change(&t)
		}
		all = append(all, t)
	}
	for _, s := range linux {
		add(s.of(linuxGuest))
	}
	for _, s := range windows {
		add(s.of(windowsGuest), s.change)
	}
	add(Template{
		Key: "generic-linux-uefi", Name: "Generic Linux UEFI", Description: "Any current Linux, booted by UEFI",
		Firmware: UEFI, Memory: 2 * gib, MinMemory: 256 * mib, VCPUs: 1, Disk: 20 * gib, MaxMemory: maxMemory, MaxVCPUs: maxVCPUs,
	})
	add(Template{
		Key: "generic-linux-bios", Name: "Generic Linux BIOS", Description: "Any Linux with virtio drivers, booted by BIOS",
		Firmware: BIOS, Memory: 2 * gib, MinMemory: 256 * mib, VCPUs: 1, Disk: 20 * gib, MaxMemory: maxMemory, MaxVCPUs: maxVCPUs,
	})
	add(Template{
		Key: "other-install-media", Name: "Other install media",
		Description: "A system that none of the other templates is for: disks and network cards that need no special drivers, no disk to begin with",
		Firmware:    BIOS, Legacy: true, Memory: gib, MinMemory: 128 * mib, VCPUs: 1, MaxMemory: maxMemory, MaxVCPUs: maxVCPUs,
	})
	return all
}

// What templates recommend at most; the systems below take it, and so does the
// machine type.
const (
	maxMemory = 3 * tib / 2
	maxVCPUs  = 64
)

var (
	linuxGuest = Template{
		Firmware: UEFI, Memory: 2 * gib, MinMemory: 512 * mib, VCPUs: 1, Disk: 20 * gib, MaxMemory: maxMemory, MaxVCPUs: maxVCPUs,
		SecureBoot: "auto",
	}
	windowsGuest = Template{
		Firmware: UEFI, Windows: true, Memory: 4 * gib, MinMemory: 2 * gib, VCPUs: 2, Disk: 32 * gib,
		MaxMemory: maxMemory, MaxVCPUs: maxVCPUs, SecureBoot: "auto",
	}
)

// system is what tells one template of a family from another.
type system struct {
	key, name string
	memory    int64 // what its makers ask for at least; 0: the family's
	disk      int64
	change    func(*Template)
}

func (s system) of(family Template) Template {
	t := family
	t.Key, t.Name, t.Description = s.key, s.name, "For installing "+s.name
	if s.memory > 0 {
		t.MinMemory = s.memory
	}
	t.Memory = max(t.Memory, t.MinMemory)
	if s.disk > 0 {
		t.Disk = s.disk
	}
	return t
}

// RHEL and its kin do not install into less than 1.5 GiB, from 10 on less than 2.
var linux = []system{
	{key: "debian-12", name: "Debian Bookworm 12", disk: 10 * gib},
	{key: "debian-13", name: "Debian Trixie 13", disk: 10 * gib},
	{key: "ubuntu-22.04", name: "Ubuntu Jammy Jellyfish 22.04", memory: gib},
	{key: "ubuntu-24.04", name: "Ubuntu Noble Numbat 24.04", memory: gib},
	{key: "ubuntu-26.04", name: "Ubuntu Resolute Raccoon 26.04", memory: gib},
	{key: "rhel-8", name: "Red Hat Enterprise Linux 8", memory: 3 * gib / 2},
	{key: "rhel-9", name: "Red Hat Enterprise Linux 9", memory: 3 * gib / 2},
	{key: "rhel-10", name: "Red Hat Enterprise Linux 10", memory: 2 * gib},
	{key: "almalinux-8", name: "AlmaLinux 8", memory: 3 * gib / 2},
	{key: "almalinux-9", name: "AlmaLinux 9", memory: 3 * gib / 2},
	{key: "almalinux-10", name: "AlmaLinux 10", memory: 2 * gib},
	{key: "rocky-8", name: "Rocky Linux 8", memory: 3 * gib / 2},
	{key: "rocky-9", name: "Rocky Linux 9", memory: 3 * gib / 2},
	{key: "rocky-10", name: "Rocky Linux 10", memory: 2 * gib},
	{key: "oracle-8", name: "Oracle Linux 8", memory: 3 * gib / 2},
	{key: "oracle-9", name: "Oracle Linux 9", memory: 3 * gib / 2},
	{key: "oracle-10", name: "Oracle Linux 10", memory: 2 * gib},
	{key: "centos-stream-9", name: "CentOS Stream 9", memory: 3 * gib / 2},
	{key: "centos-stream-10", name: "CentOS Stream 10", memory: 2 * gib},
	{key: "sles-15", name: "SUSE Linux Enterprise 15 (64-bit)", memory: gib},
	{key: "sles-16", name: "SUSE Linux Enterprise 16 (64-bit)", memory: 2 * gib},
}

var windows = []system{
	{key: "windows-10", name: "Windows 10 (64-bit)", change: same},
	{key: "windows-11", name: "Windows 11", memory: 4 * gib, disk: 64 * gib, change: trusted},
	{key: "windows-server-2016", name: "Windows Server 2016 (64-bit)", change: same},
	{key: "windows-server-2019", name: "Windows Server 2019 (64-bit)", change: same},
	{key: "windows-server-2022", name: "Windows Server 2022 (64-bit)", change: same},
	{key: "windows-server-2025", name: "Windows Server 2025", disk: 64 * gib, change: trusted},
}

func same(*Template) {}

// trusted is for systems that ask for a TPM and secure boot.
func trusted(t *Template) { t.TPM, t.SecureBoot = true, "true" }
