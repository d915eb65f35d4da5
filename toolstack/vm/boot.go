package vm

import (
	"os"
	"path/filepath"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
)

// bootOf checks how a VM boots. A kernel path is a way to make root's QEMU open a
// file, so it must name a regular file of the guest directory, after every
// symbolic link and every "..": the resolved path is what QEMU is given.
func (m *Manager) bootOf(vm *api.VM) (hypervisor.DirectBoot, error) {
	var none hypervisor.DirectBoot
	if vm.HVMBootPolicy != "" {
		return none, api.ErrValueNotSupported("HVM_boot_policy", vm.HVMBootPolicy, "only direct kernel boot is supported")
	}
	if vm.PVBootloader != "" {
		return none, api.ErrValueNotSupported("PV_bootloader", vm.PVBootloader, "only direct kernel boot is supported")
	}
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
