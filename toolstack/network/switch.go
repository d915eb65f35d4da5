package network

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// managementBridge is how hostd calls the bridge over the NIC the host is managed
// through, whichever it is.
const managementBridge = "xenbr0"

// bridgeName is what hostd takes as the name of a bridge.
var bridgeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$`)

// Bounds of an MTU: what IPv4 needs, and what Ethernet hardware carries.
const (
	minMTU = 68
	maxMTU = 65521
)

// registerSwitch binds what makes and removes networks.
func (m *Manager) registerSwitch(r *api.Registry) {
	api.HandleNetworkCreate(r, m.create)
	api.HandleNetworkDestroy(r, m.destroy)
	api.HandleNetworkAttach(r, func(c *api.Call, ref api.NetworkRef, host api.HostRef) error {
		if _, err := db.Get(m.db.Snapshot(), host); err != nil {
			return err
		}
		return m.attach(c, host, ref)
	})
	r.Override("network.set_MTU", m.setMTU)
}

// create makes a network without NICs. Its bridge is made where and when a guest
// first needs it.
func (m *Manager) create(c *api.Call, args *api.Network) (ref api.NetworkRef, err error) {
	n := args.Clone()
	n.UUID = api.NewUUID()
	err = m.db.Update(c, func(tx *db.Tx) error {
		ref, err = Insert(tx, n)
		return err
	})
	return ref, err
}

// Insert writes a new network, which the record becomes. Without a bridge it gets one.
func Insert(tx *db.Tx, n *api.Network) (api.NetworkRef, error) {
	n.AllowedOperations, n.CurrentOperations, n.AssignedIps, n.Blobs, n.Purpose = nil, nil, nil, nil, nil
	n.DefaultLockingMode = api.NetworkDefaultLockingModeUnlocked
	if err := CheckMTU(n.MTU); err != nil {
		return "", err
	}
	if n.Bridge != "" && !bridgeName.MatchString(n.Bridge) || n.Bridge == "" && !n.Managed || isInterface(tx, n.Bridge) {
		return "", api.ErrInvalidValue("bridge", n.Bridge)
	}
	taken := bridges(tx)
	if n.Bridge == "" {
		n.Bridge = free("xapi", 0, taken)
	} else if taken[n.Bridge] {
		return "", api.ErrBridgeNameExists(n.Bridge)
	}
	return db.Insert(tx, n), nil
}

// isInterface tells names that hosts have for what is no bridge.
func isInterface(r db.Reader, name string) bool {
	for _, p := range db.All[api.PIF](r) {
		if p.Device == name {
			return true
		}
	}
	return name == "lo"
}

// CheckMTU refuses what no network can have.
func CheckMTU(mtu int64) error {
	if mtu < minMTU || mtu > maxMTU {
		return api.ErrInvalidValue("MTU", strconv.FormatInt(mtu, 10))
	}
	return nil
}

// bridges are the names in use.
func bridges(r db.Reader) map[string]bool {
	taken := map[string]bool{managementBridge: true}
	for _, n := range db.All[api.Network](r) {
		taken[n.Bridge] = true
	}
	return taken
}

// free is the first name of a kind that is not taken.
func free(prefix string, from int, taken map[string]bool) string {
	for n := from; ; n++ {
		if name := prefix + strconv.Itoa(n); !taken[name] {
			return name
		}
	}
}

// destroy removes a network nothing is joined to. The row goes first: a bridge
// without a row is removed by the next start at the latest.
func (m *Manager) destroy(c *api.Call, ref api.NetworkRef) error {
	var bridge string
	err := m.db.Update(c, func(tx *db.Tx) error {
		n, err := db.Get(tx, ref)
		if err != nil {
			return err
		}
		switch {
		case len(n.VIFs) > 0:
			return api.ErrNetworkContainsVIF(list(n.VIFs))
		case len(n.PIFs) > 0:
			return api.ErrNetworkContainsPIF(list(n.PIFs))
		}
		bridge = n.Bridge
		return db.Delete(tx, ref)
	})
	if err != nil {
		return err
	}
	m.everywhere(func(host api.HostRef, hostd Hostd) {
		if err := hostd.DeleteBridge(c, bridge); err != nil {
			m.log.Warn("bridge-left", "bridge", bridge, "host", host, "err", err)
		}
	})
	return nil
}

func list[T any](refs []api.Ref[T]) string {
	var texts []string
	for _, r := range refs {
		texts = append(texts, r.String())
	}
	slices.Sort(texts)
	return strings.Join(texts, "; ")
}

// everywhere calls f for each host that can be reached.
func (m *Manager) everywhere(f func(api.HostRef, Hostd)) {
	for host := range db.All[api.Host](m.db.Snapshot()) {
		if hostd := m.hostd(host); hostd != nil {
			f(host, hostd)
		}
	}
}

// attach makes a network's bridge on a host, and its NIC's row say so.
func (m *Manager) attach(ctx context.Context, host api.HostRef, ref api.NetworkRef) error {
	hostd, err := m.at(host)
	if err != nil {
		return err
	}
	snap := m.db.Snapshot()
	n, err := db.Get(snap, ref)
	if err != nil {
		return err
	}
	bridge := bridgeOf(snap, host, n)
	pif, p := nicOf(snap, host, n)
	if n.Bridge == managementBridge && !pif.IsNull() && !p.Management {
		return api.ErrBridgeNotAvailable(n.Bridge) // another network's on this host
	}
	if !n.Managed {
		return nil // somebody else's bridge
	}
	if err := hostd.PutBridge(ctx, bridge); err != nil {
		return bridgeError(host, n, ref, err)
	}
	if pif.IsNull() || p.CurrentlyAttached {
		return nil
	}
	return db.Modify(ctx, m.db, pif, func(_ *db.Tx, p *api.PIF) error {
		p.CurrentlyAttached = true
		return nil
	})
}

// bridgeError gives a refusal of hostd the API's words.
func bridgeError(host api.HostRef, n *api.Network, ref api.NetworkRef, err error) error {
	var refused *client.Error
	if errors.As(err, &refused) && refused.Code == client.CodeNotFound {
		return api.ErrHostCannotAttachNetwork(host.String(), ref.String())
	}
	if errors.As(err, &refused) && refused.Code == client.CodeInUse {
		return api.ErrBridgeNotAvailable(n.Bridge)
	}
	return fmt.Errorf("bridge %s: %w", n.Bridge, err)
}

// nicOf is the host's NIC in a network; the reference is null when it has none.
func nicOf(r db.Reader, host api.HostRef, n *api.Network) (api.PIFRef, *api.PIF) {
	for _, ref := range n.PIFs {
		if p, err := db.Get(r, ref); err == nil && p.Host == host && p.Physical {
			return ref, p
		}
	}
	return "", nil
}

// bridgeOf is what a network is on a host: a bridge over the host's NIC in that
// network, or one without an uplink. The management network's is where hostd has
// it, over the NIC that hostd chose.
func bridgeOf(r db.Reader, host api.HostRef, n *api.Network) client.Bridge {
	b := client.Bridge{Name: n.Bridge, MTU: int(n.MTU)}
	ref, p := nicOf(r, host, n)
	switch {
	case ref.IsNull():
	case p.Management:
		b.Name = managementBridge
	default:
		b.Uplink = p.Device
	}
	return b
}

// setMTU changes the bridges that are there, too.
func (m *Manager) setMTU(c *api.Call, args []api.Value) (api.Result, error) {
	ref := api.NetworkRef(api.ParseRef(args[0].Text))
	mtu, err := strconv.ParseInt(args[1].Text, 10, 64)
	if err == nil {
		err = CheckMTU(mtu)
	}
	if err != nil {
		return nil, api.ErrInvalidValue("MTU", args[1].Text)
	}
	err = db.Modify(c, m.db, ref, func(_ *db.Tx, n *api.Network) error {
		n.MTU = mtu
		return nil
	})
	if err != nil {
		return nil, err
	}
	var failed []error
	m.everywhere(func(host api.HostRef, hostd Hostd) {
		failed = append(failed, m.renew(context.WithoutCancel(c), host, hostd, ref))
	})
	return api.Void{}, errors.Join(failed...)
}

// renew puts a network's bridge again on a host that has it.
func (m *Manager) renew(ctx context.Context, host api.HostRef, hostd Hostd, ref api.NetworkRef) error {
	all, err := hostd.Bridges(ctx)
	if err != nil {
		return err
	}
	snap := m.db.Snapshot()
	n, err := db.Get(snap, ref)
	if err != nil {
		return err
	}
	want := bridgeOf(snap, host, n)
	if !slices.ContainsFunc(all, func(b client.Bridge) bool { return b.Name == want.Name }) {
		return nil
	}
	return m.attach(ctx, host, ref)
}
