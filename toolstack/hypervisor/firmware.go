package hypervisor

import (
	"path/filepath"

	"libvirt.org/go/libvirtxml"
)

// Firmware of Debian's ovmf. The paths are spelled out: libvirt's own choice goes
// by descriptions that change with the package, and a VM whose firmware changes
// may not find its boot entries again. Of the variables' templates, that of secure
// boot has Microsoft's and Debian's keys enrolled.
const (
	ovmfCode       = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars       = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	ovmfSecureCode = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	ovmfSecureVars = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
)

// bootOS says what starts the guest. libvirt makes the file of a VM's UEFI
// variables from the template when it is not there, and keeps it.
func (c Config) bootOS(s Spec) *libvirtxml.DomainOS {
	os := &libvirtxml.DomainOS{
		Type:    &libvirtxml.DomainOSType{Arch: "x86_64", Machine: s.Machine, Type: "hvm"},
		Kernel:  s.Boot.Kernel,
		Initrd:  s.Boot.Initrd,
		Cmdline: s.Boot.Args,
		SMBios:  &libvirtxml.DomainSMBios{Mode: "sysinfo"},
	}
	if s.Firmware != UEFI {
		return os
	}
	code, vars, secure := ovmfCode, ovmfVars, "no"
	if s.SecureBoot {
		code, vars, secure = ovmfSecureCode, ovmfSecureVars, "yes"
	}
	os.Loader = &libvirtxml.DomainLoader{Path: code, Readonly: "yes", Secure: secure, Type: "pflash"}
	os.NVRam = &libvirtxml.DomainNVRam{NVRam: c.nvramPath(s.UUID), Template: vars}
	return os
}

func (c Config) nvramPath(uuid string) string {
	return filepath.Join(c.NVRAMDir, uuid+"_VARS.fd")
}

// features: secure boot's variables are safe only from behind system management
// mode.
func features(s Spec) *libvirtxml.DomainFeatureList {
	f := &libvirtxml.DomainFeatureList{
		ACPI: &libvirtxml.DomainFeature{}, // the power button of a clean shutdown
		APIC: &libvirtxml.DomainFeatureAPIC{},
		// VMware's I/O port: a guest has no business finding it.
		VMPort: &libvirtxml.DomainFeatureState{State: "off"},
	}
	if s.SecureBoot {
		f.SMM = &libvirtxml.DomainFeatureSMM{State: "on"}
	}
	return f
}
