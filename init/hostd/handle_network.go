package hostd

import (
	"net/http"
	"net/netip"

	"cairn/init/hostd/client"
	"cairn/init/network"
)

func (h *Host) getNetwork(w http.ResponseWriter, _ *http.Request) {
	h.answer(w, networkAnswer(h.network.Status()))
}

func networkAnswer(s network.Status) client.Network {
	n := client.Network{
		Interface: s.Link.Name, Bridge: s.Bridge, MAC: s.Link.MAC, Mode: string(s.Mode), Link: s.Link.Carrier,
		Domain: s.Domain, DNS: texts(s.DNS), NTP: texts(s.NTP),
	}
	if s.Address.IsValid() {
		n.Address = s.Address.String()
	}
	if s.Gateway.IsValid() {
		n.Gateway = s.Gateway.String()
	}
	if s.LeaseState != "" {
		n.Lease = &client.Lease{State: string(s.LeaseState), Expires: s.Expires}
		if s.Server.IsValid() {
			n.Lease.Server = s.Server.String()
		}
	}
	if s.Err != nil {
		n.Error = s.Err.Error()
	}
	return n
}

func texts(addrs []netip.Addr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}
