package network

import (
	"net/netip"
	"slices"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// registerVIF binds what a virtual interface may send and receive.
func (s settings) registerVIF(r *api.Registry) {
	api.HandleVIFSetLockingMode(r, func(c *api.Call, ref api.VIFRef, mode api.VIFLockingMode) error {
		return s.vif(c, ref, func(v *api.VIF) error { v.LockingMode = mode; return nil })
	})
	four := addresses{s, netip.Addr.Is4, func(v *api.VIF) *[]string { return &v.IPv4Allowed }}
	api.HandleVIFSetIPv4Allowed(r, four.set)
	api.HandleVIFAddIPv4Allowed(r, four.add)
	api.HandleVIFRemoveIPv4Allowed(r, four.remove)
	six := addresses{s, func(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }, func(v *api.VIF) *[]string { return &v.IPv6Allowed }}
	api.HandleVIFSetIPv6Allowed(r, six.set)
	api.HandleVIFAddIPv6Allowed(r, six.add)
	api.HandleVIFRemoveIPv6Allowed(r, six.remove)
	api.HandleVIFSetTrunks(r, s.setTrunks)
	api.HandleVIFAddTrunks(r, func(c *api.Call, ref api.VIFRef, tag int64) error {
		return s.vif(c, ref, func(v *api.VIF) error { return trunk(v, append(slices.Clone(v.Trunks), tag)) })
	})
	api.HandleVIFRemoveTrunks(r, func(c *api.Call, ref api.VIFRef, tag int64) error {
		return s.vif(c, ref, func(v *api.VIF) error {
			v.Trunks = slices.DeleteFunc(slices.Clone(v.Trunks), func(t int64) bool { return t == tag })
			return nil
		})
	})
}

// vif edits an interface that no guest uses now.
func (s settings) vif(c *api.Call, ref api.VIFRef, f func(*api.VIF) error) error {
	return db.Modify(c, s.db, ref, func(_ *db.Tx, v *api.VIF) error {
		if v.CurrentlyAttached {
			return api.ErrNotImplemented(c.Message.Method + " of an attached interface")
		}
		return f(v)
	})
}

// addresses is a list of addresses of one family.
type addresses struct {
	settings
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

func (s settings) setTrunks(c *api.Call, ref api.VIFRef, value []int64) error {
	return s.vif(c, ref, func(v *api.VIF) error { return trunk(v, value) })
}

// maxTag is the highest VLAN tag there is.
const maxTag = 4094

// trunk keeps which VLANs a guest may tag its traffic with, sorted and once each.
func trunk(v *api.VIF, tags []int64) error {
	for _, tag := range tags {
		if tag < 0 || tag > maxTag {
			return api.ErrVLANTagInvalid(strconv.FormatInt(tag, 10))
		}
	}
	v.Trunks = slices.Compact(slices.Sorted(slices.Values(tags)))
	return nil
}
