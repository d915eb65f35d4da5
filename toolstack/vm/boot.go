package vm

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
)

// bootOf says what starts the guest: firmware under the one policy there is, else
// a kernel that is loaded directly.
func (m *Manager) bootOf(vm *api.VM, spec *hypervisor.Spec) error {
	switch {
	case vm.HVMBootPolicy == biosOrder:
		return firmwareOf(vm, spec)
	case vm.HVMBootPolicy != "":
		return api.ErrValueNotSupported("HVM_boot_policy", vm.HVMBootPolicy, "must be "+biosOrder+" or nothing")
	case vm.PVBootloader != "":
		return api.ErrValueNotSupported("PV_bootloader", vm.PVBootloader, "only direct kernel boot is supported")
	}
	var err error
	spec.Boot, err = m.kernelOf(vm)
	return err
}

// kernelOf checks what a VM boots. A kernel path is a way to make root's QEMU open
// a file, so it must name a regular file of the guest directory, after every
// symbolic link and every "..": the resolved path is what QEMU is given.
func (m *Manager) kernelOf(vm *api.VM) (hypervisor.DirectBoot, error) {
	var none hypervisor.DirectBoot
	kernel, err := m.guestFile("PV_kernel", vm.PVKernel)
	if err != nil {
		return none, err
	}
	boot := hypervisor.DirectBoot{Kernel: kernel, Args: vm.PVArgs}
	if vm.PVRamdisk != "" {
		if boot.Initrd, err = m.guestFile("PV_ramdisk", vm.PVRamdisk); err != nil {
			return none, err
		}
	}
	return boot, nil
}

// Keys of VM.HVM_boot_params and VM.platform that say what the guest starts with.
const (
	firmwareKey = "firmware"
	orderKey    = "order"
	secureKey   = "secureboot"
	vtpmKey     = "vtpm"
)

// defaultOrder is that of VMs which do not say: disk, CD.
const defaultOrder = "cd"

// bootLetters are the devices of a boot order.
var bootLetters = map[rune]string{'c': hypervisor.BootDisk, 'd': hypervisor.BootCD, 'n': hypervisor.BootNetwork}

func firmwareOf(vm *api.VM, spec *hypervisor.Spec) error {
	switch f := vm.HVMBootParams[firmwareKey]; f {
	case "", string(hypervisor.BIOS):
		spec.Firmware = hypervisor.BIOS
	case string(hypervisor.UEFI):
		spec.Firmware = hypervisor.UEFI
		spec.SecureBoot = on(vm.Platform[secureKey])
	default:
		return api.ErrValueNotSupported("HVM_boot_params:firmware", f, "must be bios or uefi")
	}
	spec.TPM = len(vm.VTPMs) > 0 || on(vm.Platform[vtpmKey])
	spec.Graphics = true
	order, ok := vm.HVMBootParams[orderKey]
	if !ok {
		order = defaultOrder
	}
	for _, letter := range order {
		device, known := bootLetters[letter]
		if !known || slices.Contains(spec.BootOrder, device) {
			return api.ErrValueNotSupported("HVM_boot_params:order", order, "must be of the letters c, d and n, each once")
		}
		spec.BootOrder = append(spec.BootOrder, device)
	}
	return nil
}

// on reads a switch of VM.platform.
func on(text string) bool { return text == "true" || text == "1" }

// bootable says why firmware would find nothing at all to start from.
func bootable(spec hypervisor.Spec) error {
	if spec.Firmware == hypervisor.Direct {
		return nil
	}
	there := map[string]bool{hypervisor.BootNetwork: len(spec.NICs) > 0}
	for _, d := range spec.Disks {
		if d.CD {
			there[hypervisor.BootCD] = there[hypervisor.BootCD] || d.Source != nil
		} else {
			there[hypervisor.BootDisk] = true
		}
	}
	for _, device := range spec.BootOrder {
		if there[device] {
			return nil
		}
	}
	return api.ErrOperationNotAllowed("the VM has no device that its boot order names")
}

// coresPerSocket divides the vCPUs for guests that count sockets.
func coresPerSocket(vm *api.VM) (int, error) {
	text, ok := vm.Platform[coresKey]
	if !ok {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || int(vm.VCPUsMax)%n != 0 {
		return 0, api.ErrInvalidValue("platform:"+coresKey, text)
	}
	return n, nil
}

func (m *Manager) guestFile(field, path string) (string, error) {
	refuse := func(why string) (string, error) { return "", api.ErrValueNotSupported(field, path, why) }
	if path == "" {
		return refuse("must be set")
	}
	if !filepath.IsAbs(path) || path != filepath.Clean(path) || !below(path, m.cfg.GuestDir) {
		return refuse("must be a file of " + m.cfg.GuestDir)
	}
	dir, err := filepath.EvalSymlinks(m.cfg.GuestDir)
	if err != nil {
		return refuse("there is no " + m.cfg.GuestDir)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return refuse("there is no such file")
	}
	if !below(real, dir) {
		return refuse("must be a file of " + m.cfg.GuestDir)
	}
	if st, err := os.Stat(real); err != nil || !st.Mode().IsRegular() {
		return refuse("must be a regular file")
	}
	return real, nil
}

func below(path, dir string) bool { return strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/") }
