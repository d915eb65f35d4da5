package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
)

// Bridge is a switch of the host. PutBridge takes Name, Uplink and MTU; the rest
// is what Bridges adds of the bridge as it is.
type Bridge struct {
	Name string `json:"name"`
	// Uplink is the NIC that joins the bridge to the outside; without one the
	// bridge is private to this host.
	Uplink string `json:"uplink,omitempty"`
	MTU    int    `json:"mtu,omitempty"` // 0 is 1500
	MAC    string `json:"mac,omitempty"`
	// Management says that the host's own address is on this bridge: it is kept
	// by the configuration document and cannot be deleted.
	Management bool `json:"management,omitempty"`
	// Ports are the interfaces in the bridge beside the uplink.
	Ports []string `json:"ports,omitempty"`
	// Error is why the bridge is not as it should be, empty when it is.
	Error string `json:"error,omitempty"`
}

// PortMode says what a guest may send and receive.
type PortMode string

// The modes of a port.
const (
	Unlocked PortMode = "unlocked" // anything
	Locked   PortMode = "locked"   // its own MAC, and the addresses it was given
	Disabled PortMode = "disabled" // nothing
)

// Port is what a guest's interface may do. It is put before the interface
// exists, so that no frame passes unchecked, and holds until it is deleted.
type Port struct {
	Interface string   `json:"interface"`
	Bridge    string   `json:"bridge"`
	MAC       string   `json:"mac"`
	Mode      PortMode `json:"mode"`
	// IPv4 and IPv6 are the addresses a locked port may use; none is no traffic
	// of that family.
	IPv4 []string `json:"ipv4,omitempty"`
	IPv6 []string `json:"ipv6,omitempty"`
	// RateKBps limits what the guest sends, in kilobytes (1,024) a second; 0 is
	// no limit.
	RateKBps int64 `json:"rate_kbps,omitempty"`
	MTU      int   `json:"mtu,omitempty"`
	// Dropped counts the frames of the guest, or to it, that the mode did not
	// let pass since the port was put first. Only Ports sets it.
	Dropped uint64 `json:"dropped,omitempty"`
}

// PutBridge makes the bridge, or changes the one there is, and remembers it until
// the host's next boot. It is idempotent.
func (c *Client) PutBridge(ctx context.Context, b Bridge) error {
	return c.put(ctx, "/v1/bridges/"+url.PathEscape(b.Name), b)
}

// DeleteBridge removes the bridge; its uplink stays as a NIC. One that is not
// there is no error.
func (c *Client) DeleteBridge(ctx context.Context, name string) error {
	_, err := do[struct{}](ctx, c, http.MethodDelete, "/v1/bridges/"+url.PathEscape(name), "", nil)
	return err
}

// Bridges lists the bridges of the host, that of the management network included.
func (c *Client) Bridges(ctx context.Context) ([]Bridge, error) {
	return get[[]Bridge](ctx, c, "/v1/bridges")
}

// PutPort sets what an interface may do, at once and as a whole, whether the
// interface exists yet or not. It is idempotent.
func (c *Client) PutPort(ctx context.Context, p Port) error {
	return c.put(ctx, "/v1/ports/"+url.PathEscape(p.Interface), p)
}

// DeletePort forgets a port and all that was set up for it. One that is not there
// is no error.
func (c *Client) DeletePort(ctx context.Context, iface string) error {
	_, err := do[struct{}](ctx, c, http.MethodDelete, "/v1/ports/"+url.PathEscape(iface), "", nil)
	return err
}

// Ports lists the ports that were put, with what they dropped.
func (c *Client) Ports(ctx context.Context) ([]Port, error) {
	return get[[]Port](ctx, c, "/v1/ports")
}

func (c *Client) put(ctx context.Context, path string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("hostd: %w", err)
	}
	_, err = do[struct{}](ctx, c, http.MethodPut, path, "application/json", body)
	return err
}
