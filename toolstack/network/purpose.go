package network

import (
	"slices"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// registerNetwork binds what a network is for.
func (s settings) registerNetwork(r *api.Registry) {
	api.HandleNetworkAddPurpose(r, s.addPurpose)
	api.HandleNetworkRemovePurpose(r, func(c *api.Call, ref api.NetworkRef, value api.NetworkPurpose) error {
		return db.Modify(c, s.db, ref, func(_ *db.Tx, n *api.Network) error {
			n.Purpose = slices.DeleteFunc(slices.Clone(n.Purpose), func(p api.NetworkPurpose) bool { return p == value })
			return nil
		})
	})
	api.HandleNetworkSetDefaultLockingMode(r, s.setDefaultLocking)
}

// opposite are purposes that no two networks of a pool may have: disks are served
// in clear nowhere or everywhere.
var opposite = map[api.NetworkPurpose]api.NetworkPurpose{
	api.NetworkPurposeNBD:         api.NetworkPurposeInsecureNBD,
	api.NetworkPurposeInsecureNBD: api.NetworkPurposeNBD,
}

func (s settings) addPurpose(c *api.Call, ref api.NetworkRef, value api.NetworkPurpose) error {
	return db.Modify(c, s.db, ref, func(tx *db.Tx, n *api.Network) error {
		for _, other := range db.All[api.Network](tx) {
			if slices.Contains(other.Purpose, opposite[value]) {
				return api.ErrNetworkIncompatiblePurposes(string(value), string(opposite[value]))
			}
		}
		if !slices.Contains(n.Purpose, value) {
			n.Purpose = append(slices.Clone(n.Purpose), value)
		}
		return nil
	})
}

// setDefaultLocking is refused while an interface is attached that follows it.
func (s settings) setDefaultLocking(c *api.Call, ref api.NetworkRef, value api.NetworkDefaultLockingMode) error {
	return db.Modify(c, s.db, ref, func(tx *db.Tx, n *api.Network) error {
		for _, vif := range n.VIFs {
			v, err := db.Get(tx, vif)
			if err == nil && v.CurrentlyAttached && v.LockingMode == api.VIFLockingModeNetworkDefault {
				return api.ErrVIFInUse(ref.String(), vif.String())
			}
		}
		n.DefaultLockingMode = value
		return nil
	})
}
