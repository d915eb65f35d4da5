package hostd

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"cairn/init/hostd/client"
	"cairn/init/network/port"
)

// Bounds of a port. A list of more addresses is somebody's mistake, and a rate
// beyond is none.
const (
	maxAddresses = 256
	maxRateKBps  = 1 << 30
)

func (h *Host) putPort(w http.ResponseWriter, r *http.Request) {
	var p client.Port
	err := named(w, r, &p, &p.Interface)
	if err == nil {
		err = h.ports.put(p)
	}
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	h.answer(w, struct{}{})
}

func (h *Host) deletePort(w http.ResponseWriter, r *http.Request) {
	if err := h.ports.remove(r.PathValue("name")); err != nil {
		h.refuse(w, r, err)
		return
	}
	h.answer(w, struct{}{})
}

func (h *Host) getPorts(w http.ResponseWriter, r *http.Request) {
	all, err := h.ports.list()
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	h.answer(w, all)
}

// portOf checks a port that came over the socket.
func portOf(p client.Port) (port.Port, error) {
	bad := func(what string) (port.Port, error) {
		return port.Port{}, badRequest("port " + p.Interface + ": " + what)
	}
	mac, err := net.ParseMAC(p.MAC)
	mode := port.Mode(p.Mode)
	switch {
	case !linkName.MatchString(p.Interface):
		return bad("bad name")
	case !linkName.MatchString(p.Bridge):
		return bad("bad name of the bridge")
	case err != nil || len(mac) != 6 || mac[0]&1 != 0:
		return bad("bad MAC")
	case mode != port.Unlocked && mode != port.Locked && mode != port.Disabled:
		return bad("bad mode")
	case p.RateKBps < 0 || p.RateKBps > maxRateKBps:
		return bad("bad rate")
	case p.MTU != 0 && (p.MTU < minMTU || p.MTU > maxMTU):
		return bad("bad MTU")
	}
	out := port.Port{Interface: p.Interface, MAC: mac, Mode: mode, Rate: uint64(p.RateKBps) << 10}
	if out.IPv4, err = addressesOf(p.IPv4, netip.Addr.Is4); err != nil {
		return bad(err.Error())
	}
	if out.IPv6, err = addressesOf(p.IPv6, func(a netip.Addr) bool { return a.Is6() && !a.Is4In6() && a.Zone() == "" }); err != nil {
		return bad(err.Error())
	}
	return out, nil
}

func addressesOf(texts []string, family func(netip.Addr) bool) ([]netip.Addr, error) {
	if len(texts) > maxAddresses {
		return nil, fmt.Errorf("%d addresses, at most %d", len(texts), maxAddresses)
	}
	var out []netip.Addr
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil || !family(a) {
			return nil, fmt.Errorf("bad address %s", strings.ToValidUTF8(text[:min(len(text), 64)], "?"))
		}
		out = append(out, a)
	}
	return out, nil
}
