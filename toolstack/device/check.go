package device

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
)

// Check says why a machine's devices cannot be had on a host.
func (m *Manager) Check(r db.Reader, host api.HostRef, ref api.VMRef) error {
	vm, err := db.Get(r, ref)
	if err != nil {
		return err
	}
	for _, vbd := range vm.VBDs {
		if v, err := db.Get(r, vbd); err == nil {
			if err := checkDisk(r, host, ref, v); err != nil {
				return err
			}
		}
	}
	for _, vif := range vm.VIFs {
		if v, err := db.Get(r, vif); err == nil && !reachable(r, host, v.Network) {
			return api.ErrVMRequiresNetwork(ref.String(), v.Network.String())
		}
	}
	return nil
}

// checkDisk: an image that was destroyed leaves a drive empty; a disk must be there.
func checkDisk(r db.Reader, host api.HostRef, ref api.VMRef, v *api.VBD) error {
	if inside(v).IsNull() {
		return nil
	}
	vdi, err := db.Get(r, v.VDI)
	switch {
	case err != nil && v.Type == api.VBDTypeCD:
		return nil
	case err != nil || vdi.Missing:
		return api.ErrVMRequiresVDI(ref.String(), v.VDI.String())
	case !operation.Attached(r, host, vdi.SR):
		return api.ErrVMRequiresSR(ref.String(), vdi.SR.String())
	default:
		return nil
	}
}

// reachable: a network with physical interfaces needs one on the host; one with
// none is private to each host.
func reachable(r db.Reader, host api.HostRef, ref api.NetworkRef) bool {
	network, err := db.Get(r, ref)
	if err != nil {
		return false
	}
	for _, pif := range network.PIFs {
		if p, err := db.Get(r, pif); err == nil && p.Host == host {
			return true
		}
	}
	return len(network.PIFs) == 0
}
