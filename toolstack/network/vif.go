package network

import (
	"context"
	"net/netip"
	"slices"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// registerVIF binds what a virtual interface may send and receive.
func (m *Manager) registerVIF(r *api.Registry) {
	m.quality(r)
	api.HandleVIFSetLockingMode(r, func(c *api.Call, ref api.VIFRef, mode api.VIFLockingMode) error {
		return m.vif(c, ref, func(v *api.VIF) error { v.LockingMode = mode; return nil })
	})
	four := addresses{m, netip.Addr.Is4, func(v *api.VIF) *[]string { return &v.IPv4Allowed }}
	api.HandleVIFSetIPv4Allowed(r, four.set)
	api.HandleVIFAddIPv4Allowed(r, four.add)
	api.HandleVIFRemoveIPv4Allowed(r, four.remove)
	six := addresses{m, func(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }, func(v *api.VIF) *[]string { return &v.IPv6Allowed }}
	api.HandleVIFSetIPv6Allowed(r, six.set)
	api.HandleVIFAddIPv6Allowed(r, six.add)
	api.HandleVIFRemoveIPv6Allowed(r, six.remove)
	api.HandleVIFSetTrunks(r, m.setTrunks)
	api.HandleVIFAddTrunks(r, func(c *api.Call, ref api.VIFRef, tag int64) error {
		return m.vif(c, ref, func(v *api.VIF) error { return trunk(v, append(slices.Clone(v.Trunks), tag)) })
	})
	api.HandleVIFRemoveTrunks(r, func(c *api.Call, ref api.VIFRef, tag int64) error {
		return m.vif(c, ref, func(v *api.VIF) error {
			return trunk(v, slices.DeleteFunc(slices.Clone(v.Trunks), func(t int64) bool { return t == tag }))
		})
	})
}

// vif edits an interface. What its guest may send changes with the call, if it
// runs; when the host cannot be told, the caller hears of it, and the row is what
// the host will be told next.
func (m *Manager) vif(c *api.Call, ref api.VIFRef, f func(*api.VIF) error) error {
	if err := db.Modify(c, m.db, ref, func(_ *db.Tx, v *api.VIF) error { return f(v) }); err != nil {
		return err
	}
	return m.refresh(context.WithoutCancel(c), ref)
}

// quality overrides the plain setters of what limits an interface's traffic.
func (m *Manager) quality(r *api.Registry) {
	change := func(f func(v *api.VIF, ref api.VIFRef, args []api.Value) error) api.Handler {
		return func(c *api.Call, args []api.Value) (api.Result, error) {
			ref := api.VIFRef(api.ParseRef(args[0].Text))
			return api.Void{}, m.vif(c, ref, func(v *api.VIF) error { return f(v, ref, args[1:]) })
		}
	}
	r.Override("VIF.set_qos_algorithm_type", change(func(v *api.VIF, _ api.VIFRef, args []api.Value) error {
		v.QosAlgorithmType = args[0].Text
		return nil
	}))
	r.Override("VIF.set_qos_algorithm_params", change(func(v *api.VIF, _ api.VIFRef, args []api.Value) error {
		v.QosAlgorithmParams = map[string]string{}
		for i, key := range args[0].Keys {
			v.QosAlgorithmParams[key] = args[0].Items[i].Text
		}
		return nil
	}))
	r.Override("VIF.add_to_qos_algorithm_params", change(func(v *api.VIF, ref api.VIFRef, args []api.Value) error {
		key := args[0].Text
		if _, ok := v.QosAlgorithmParams[key]; ok {
			return api.ErrMapDuplicateKey("VIF", "qos_algorithm_params", ref.String(), key)
		}
		if v.QosAlgorithmParams == nil {
			v.QosAlgorithmParams = map[string]string{}
		}
		v.QosAlgorithmParams[key] = args[1].Text
		return nil
	}))
	r.Override("VIF.remove_from_qos_algorithm_params", change(func(v *api.VIF, _ api.VIFRef, args []api.Value) error {
		delete(v.QosAlgorithmParams, args[0].Text)
		return nil
	}))
}

// addresses is a list of addresses of one family.
type addresses struct {
	*Manager
	family func(netip.Addr) bool
	at     func(*api.VIF) *[]string
}

// check gives an address its canonical form.
func (a addresses) check(text string) (string, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || !a.family(addr) || addr.Zone() != "" {
		return "", api.ErrInvalidIPAddressSpecified(text)
	}
	return addr.String(), nil
}

func (a addresses) set(c *api.Call, ref api.VIFRef, value []string) error {
	return a.vif(c, ref, func(v *api.VIF) error {
		kept := []string{}
		for _, text := range value {
			addr, err := a.check(text)
			if err != nil {
				return err
			}
			if !slices.Contains(kept, addr) {
				kept = append(kept, addr)
			}
		}
		*a.at(v) = kept
		return nil
	})
}

func (a addresses) add(c *api.Call, ref api.VIFRef, text string) error {
	return a.vif(c, ref, func(v *api.VIF) error {
		addr, err := a.check(text)
		if err != nil || slices.Contains(*a.at(v), addr) {
			return err
		}
		*a.at(v) = append(slices.Clone(*a.at(v)), addr)
		return nil
	})
}

func (a addresses) remove(c *api.Call, ref api.VIFRef, text string) error {
	return a.vif(c, ref, func(v *api.VIF) error {
		addr, err := a.check(text)
		if err != nil {
			return err
		}
		*a.at(v) = slices.DeleteFunc(slices.Clone(*a.at(v)), func(have string) bool { return have == addr })
		return nil
	})
}

func (m *Manager) setTrunks(c *api.Call, ref api.VIFRef, value []int64) error {
	return m.vif(c, ref, func(v *api.VIF) error { return trunk(v, value) })
}

// maxTag is the highest VLAN tag there is.
const maxTag = 4094

// trunk keeps which VLANs a guest may tag its traffic with, sorted and once each.
func trunk(v *api.VIF, tags []int64) error {
	if v.CurrentlyAttached {
		return api.ErrNotImplemented("trunks of an attached interface")
	}
	for _, tag := range tags {
		if tag < 0 || tag > maxTag {
			return api.ErrVLANTagInvalid(strconv.FormatInt(tag, 10))
		}
	}
	v.Trunks = slices.Compact(slices.Sorted(slices.Values(tags)))
	return nil
}
