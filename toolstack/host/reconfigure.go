package host

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"

	"cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// How long the rows wait for hostd to carry out a new address, and how often they
// look. A lease may take longer; the rows then follow later.
const (
	addressTimeout = 10 * time.Second
	addressLook    = 50 * time.Millisecond
)

// reconfigureIP changes how the management interface gets its address. The
// document is on disk before the call returns; who calls by the old address finds
// the host at the new one. Other interfaces have no address to change.
func (m *Manager) reconfigureIP(c *api.Call, ref api.PIFRef, mode api.IPConfigurationMode, ip, netmask, gateway, dns string) error {
	p, err := db.Get(m.cfg.DB.Snapshot(), ref)
	switch {
	case err != nil:
		return err
	case !p.Managed:
		return api.ErrPIFUnmanaged(ref.String())
	case !p.Management && mode == api.IPConfigurationModeNone && p.IPConfigurationMode == mode:
		return nil
	case !p.Management:
		return api.ErrNotImplemented(c.Message.Method + " of an interface that is not the management interface")
	case mode == api.IPConfigurationModeNone:
		return api.ErrPIFIsManagementInterface(ref.String())
	}
	if err := m.isThis(p.Host); err != nil {
		return err
	}
	now, err := m.cfg.Hostd.Config(c)
	if err != nil {
		return err
	}
	want := map[string]any{"mode": string(config.ModeDHCP)}
	if mode == api.IPConfigurationModeStatic {
		if want, err = static(ip, netmask, gateway, dns); err != nil {
			return err
		}
	}
	if i := now.Document.Management.Interface; i != "" {
		want["interface"] = i
	}
	ctx := context.WithoutCancel(c)
	err = m.editDocument(ctx, map[string]any{"management": want}, func(why string) *api.Error {
		return api.ErrPIFConfigurationError(ref.String(), why)
	})
	if err != nil {
		return err
	}
	return m.awaitAddress(ctx, want)
}

// static is the document's part for a fixed address.
func static(ip, netmask, gateway, dns string) (map[string]any, error) {
	addr, err := netip.ParseAddr(ip)
	if err != nil || !addr.Is4() {
		return nil, api.ErrInvalidIPAddressSpecified("IP")
	}
	mask, err := netip.ParseAddr(netmask)
	if err != nil || !mask.Is4() {
		return nil, api.ErrInvalidIPAddressSpecified("netmask")
	}
	ones, bits := net.IPMask(mask.AsSlice()).Size()
	if bits == 0 {
		return nil, api.ErrInvalidIPAddressSpecified("netmask")
	}
	want := map[string]any{"mode": string(config.ModeStatic), "address": netip.PrefixFrom(addr, ones).String()}
	if gateway != "" {
		if gw, err := netip.ParseAddr(gateway); err != nil || !gw.Is4() {
			return nil, api.ErrInvalidIPAddressSpecified("gateway")
		}
		want["gateway"] = gateway
	}
	var servers []string
	for _, text := range strings.FieldsFunc(dns, func(r rune) bool { return r == ',' || r == ' ' }) {
		if _, err := netip.ParseAddr(text); err != nil {
			return nil, api.ErrInvalidIPAddressSpecified("DNS")
		}
		servers = append(servers, text)
	}
	if len(servers) > 0 {
		want["dns"] = servers
	}
	return want, nil
}

// awaitAddress lets the rows follow once the host has the address.
func (m *Manager) awaitAddress(ctx context.Context, want map[string]any) error {
	ctx, cancel := context.WithTimeout(ctx, addressTimeout)
	defer cancel()
	for {
		n, err := m.cfg.Hostd.Network(ctx)
		if err == nil && reached(n, want) {
			return m.Sync(ctx)
		}
		select {
		case <-time.After(addressLook):
		case <-ctx.Done():
			return nil // the document says it, and the host goes on trying
		}
	}
}

func reached(n client.Network, want map[string]any) bool {
	address, fixed := want["address"]
	return n.Mode == want["mode"] && n.Address != "" && (!fixed || n.Address == address)
}
