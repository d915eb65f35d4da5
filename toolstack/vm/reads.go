package vm

import (
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// How many devices a guest may have: positions of disks, and of NICs.
const (
	maxVBDs = 255
	maxVIFs = 7
)

// registerReads binds the messages that compute an answer from records.
func (s settings) registerReads(r *api.Registry) {
	api.HandleVMGetAllowedVBDDevices(r, s.allowedVBDs)
	api.HandleVMGetAllowedVIFDevices(r, s.allowedVIFs)
	api.HandleVMGetBootRecord(r, s.bootRecord)
	api.HandleVMMaximiseMemory(r, s.maximiseMemory)
	api.HandleVMAssertAgile(r, s.assertAgile)
}

// bootRecord is the record of a VM with a domain, kept in step with what changes in
// it. Settings that wait for the next boot are shown as they will be.
func (s settings) bootRecord(_ *api.Call, ref api.VMRef) (*api.VM, error) {
	vm, err := db.Get(s.db.Snapshot(), ref)
	if err != nil {
		return nil, err
	}
	return vm, check(ref, vm, api.VMOperationsGetBootRecord)
}

// allowedVBDs are the positions where no disk is yet.
func (s settings) allowedVBDs(_ *api.Call, ref api.VMRef) ([]string, error) {
	snap := s.db.Snapshot()
	vm, err := db.Get(snap, ref)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, vbd := range vm.VBDs {
		if v, err := db.Get(snap, vbd); err == nil {
			used[v.Userdevice] = true
		}
	}
	return free(maxVBDs, used), nil
}

func (s settings) allowedVIFs(_ *api.Call, ref api.VMRef) ([]string, error) {
	snap := s.db.Snapshot()
	vm, err := db.Get(snap, ref)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, vif := range vm.VIFs {
		if v, err := db.Get(snap, vif); err == nil {
			used[v.Device] = true
		}
	}
	return free(maxVIFs, used), nil
}

func free(limit int, used map[string]bool) []string {
	devices := []string{}
	for n := range limit {
		if d := strconv.Itoa(n); !used[d] {
			devices = append(devices, d)
		}
	}
	return devices
}

// maximiseMemory is the largest static_max whose domain, with its overhead, fits
// into total; the approximate one is whole MiB.
func (s settings) maximiseMemory(_ *api.Call, ref api.VMRef, total int64, approximate bool) (int64, error) {
	vm, err := db.Get(s.db.Snapshot(), ref)
	if err != nil {
		return 0, err
	}
	if total < 0 {
		return 0, api.ErrInvalidValue("total", strconv.FormatInt(total, 10))
	}
	fits := max(total-overhead(0, vm.VCPUsMax), 0) / 129 * 128 // overhead takes 1/128 of the memory
	for fits+128+overhead(fits+128, vm.VCPUsMax) <= total {
		fits += 128
	}
	if approximate {
		fits -= fits % (1 << 20)
	}
	return fits, nil
}

// assertAgile says whether a VM could start on any host: neither a disk nor a
// network of it may belong to one host alone.
func (s settings) assertAgile(_ *api.Call, ref api.VMRef) error {
	snap := s.db.Snapshot()
	vm, err := db.Get(snap, ref)
	if err != nil {
		return err
	}
	if len(vm.VGPUs) > 0 {
		return api.ErrVMHasVGPU(ref.String())
	}
	if len(vm.VUSBs) > 0 {
		return api.ErrVMHasVusbs(ref.String())
	}
	for _, vbd := range vm.VBDs {
		if err := agileDisk(snap, vbd); err != nil {
			return err
		}
	}
	for _, vif := range vm.VIFs {
		if err := agileNIC(snap, vif); err != nil {
			return err
		}
	}
	return nil
}

func agileDisk(r db.Reader, ref api.VBDRef) error {
	vbd, err := db.Get(r, ref)
	if err != nil || vbd.Empty || vbd.VDI.IsNull() {
		return nil
	}
	vdi, err := db.Get(r, vbd.VDI)
	if err != nil {
		return err
	}
	sr, err := db.Get(r, vdi.SR)
	if err != nil {
		return err
	}
	if !sr.Shared {
		return api.ErrHAConstraintViolationSRNotShared(vdi.SR.String())
	}
	return nil
}

// agileNIC: a network with physical interfaces must have one on every host; one
// with none is private to the host a VM is on.
func agileNIC(r db.Reader, ref api.VIFRef) error {
	vif, err := db.Get(r, ref)
	if err != nil {
		return nil
	}
	network, err := db.Get(r, vif.Network)
	if err != nil {
		return err
	}
	hosts := map[api.HostRef]bool{}
	for _, pif := range network.PIFs {
		if p, err := db.Get(r, pif); err == nil {
			hosts[p.Host] = true
		}
	}
	for host := range db.All[api.Host](r) {
		if !hosts[host] {
			return api.ErrHAConstraintViolationNetworkNotShared(vif.Network.String())
		}
	}
	return nil
}
