package device

import (
	"net/netip"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
)

// createVIF makes a NIC, which the domain gets by plug or with its next start.
func (m *Manager) createVIF(c *api.Call, args *api.VIF) (api.VIFRef, error) {
	v := args.Clone()
	v.UUID, v.CurrentlyAttached, v.CurrentOperations = api.NewUUID(), false, nil
	v.StatusCode, v.StatusDetail, v.RuntimeProperties, v.Metrics = 0, "", nil, ""
	ref := api.NewRef[api.VIF]()
	return ref, m.cfg.DB.Update(c, func(tx *db.Tx) error {
		vm, err := db.Edit(tx, v.VM)
		if err != nil {
			return err
		}
		network, err := db.Get(tx, v.Network)
		if err != nil {
			return err
		}
		if err := CheckVIF(v, network); err != nil {
			return err
		}
		if err := notMigrating(v.VM, vm); err != nil {
			return err
		}
		if v.Device, err = chooseVIFPlace(tx, vm, v.Device); err != nil {
			return err
		}
		if vm.OtherConfig[MACSeed] == "" {
			Seed(vm) // it comes from elsewhere
		}
		if err := chooseMAC(vm, v); err != nil {
			return err
		}
		db.InsertAs(tx, ref, v)
		r, err := db.Edit(tx, ref)
		if err == nil {
			operation.VIF.Renew(tx, ref, r)
		}
		return err
	})
}

// Bounds of an MTU: what IPv4 needs, and what Ethernet hardware carries.
const (
	minMTU     = 68
	maxMTU     = 65521
	defaultMTU = 1500
)

// CheckVIF checks a NIC against itself and its network, whose MTU it gets where it has none.
func CheckVIF(v *api.VIF, network *api.Network) error {
	if v.MTU == 0 {
		v.MTU = network.MTU
	}
	if v.MTU == 0 {
		v.MTU = defaultMTU
	}
	if v.MTU < minMTU || v.MTU > maxMTU {
		return api.ErrInvalidValue("MTU", strconv.FormatInt(v.MTU, 10))
	}
	for _, text := range v.IPv4Allowed {
		if a, err := netip.ParseAddr(text); err != nil || !a.Is4() {
			return api.ErrInvalidIPAddressSpecified(text)
		}
	}
	for _, text := range v.IPv6Allowed {
		if a, err := netip.ParseAddr(text); err != nil || !a.Is6() || a.Zone() != "" {
			return api.ErrInvalidIPAddressSpecified(text)
		}
	}
	return nil
}

func (m *Manager) destroyVIF(c *api.Call, ref api.VIFRef) error {
	return m.cfg.DB.Update(c, func(tx *db.Tx) error {
		v, err := db.Get(tx, ref)
		if err != nil {
			return err
		}
		if task, op, busy := other(v.CurrentOperations, ""); busy {
			return api.ErrOtherOperationInProgress("VIF", ref.String(), string(op), task)
		}
		if v.CurrentlyAttached {
			return api.ErrOperationNotAllowed("VIF '" + v.UUID + "' still attached to '" + uuidOf(tx, v.VM) + "'")
		}
		return db.Delete(tx, ref)
	})
}
