// Package demo takes a host's demo guest through its life by the management
// API, the way a client would: clone the template, provision, start, listen to
// the console, shut down.
//
// A Guest is used by one goroutine at a time.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"cairn/ci/lab"
	"cairn/toolstack/client"
)

// Template is the name of the built-in template guests are made from.
const Template = "Cairn demo guest"

// What the guest says on its console.
const (
	Greeting  = "cairn-demo-guest ready"
	Heartbeat = "cairn-demo-guest heartbeat"
)

// Await waits until a host's API can be called from outside: it is ready and
// the management network is up, whichever comes last. It returns the line that
// says api-ready.
func Await(ctx context.Context, h *lab.Host) (lab.Line, error) {
	ready, err := h.Wait(ctx, "api-ready")
	if err == nil {
		_, err = h.Wait(ctx, "network-up")
	}
	return ready, err
}

// Login opens a session as root on a host whose API is ready.
func Login(ctx context.Context, addr, password string) (*client.Client, error) {
	return client.Dial(ctx, client.Config{Addr: addr, Username: "root", Password: password, Originator: "cairn-lab"})
}

// Guest is a VM made from the template.
type Guest struct {
	Name, Ref, UUID string

	api *client.Client
}

// Create clones and provisions the template; the guest is halted.
func Create(ctx context.Context, api *client.Client, name string) (*Guest, error) {
	var templates []string
	if err := api.Call(ctx, "VM.get_by_name_label", &templates, Template); err != nil {
		return nil, err
	}
	if len(templates) != 1 {
		return nil, fmt.Errorf("%d templates are named %q, want one", len(templates), Template)
	}
	g := &Guest{Name: name, api: api}
	return g, errors.Join(
		api.Call(ctx, "VM.clone", &g.Ref, templates[0], name),
		g.call(ctx, "VM.provision", nil),
		g.call(ctx, "VM.get_uuid", &g.UUID),
	)
}

// Attach is the same guest through another session.
func Attach(api *client.Client, g *Guest) *Guest {
	return &Guest{Name: g.Name, Ref: g.Ref, UUID: g.UUID, api: api}
}

func (g *Guest) call(ctx context.Context, method string, out any, args ...any) error {
	if g.Ref == "" {
		return nil // the clone failed, and its error says so
	}
	return g.api.Call(ctx, method, out, append([]any{g.Ref}, args...)...)
}

// Start starts the guest; it returns when the virtual machine runs, before its
// system is up.
func (g *Guest) Start(ctx context.Context) error {
	return g.call(ctx, "VM.start", nil, false, false)
}

// CleanShutdown asks the guest to power itself off and waits for it.
func (g *Guest) CleanShutdown(ctx context.Context) error {
	return g.call(ctx, "VM.clean_shutdown", nil)
}

// HardShutdown takes the guest's power away.
func (g *Guest) HardShutdown(ctx context.Context) error {
	return g.call(ctx, "VM.hard_shutdown", nil)
}

// Destroy removes the halted guest.
func (g *Guest) Destroy(ctx context.Context) error { return g.call(ctx, "VM.destroy", nil) }

// PowerState is what the API says of the guest.
func (g *Guest) PowerState(ctx context.Context) (string, error) {
	var state string
	err := g.call(ctx, "VM.get_power_state", &state)
	return state, err
}

// KVM is QEMU's own answer to query-kvm for the guest.
type KVM struct {
	Enabled bool `json:"enabled"`
	Present bool `json:"present"`

	Text string `json:"-"` // as it came
}

// QueryKVM asks the guest's QEMU whether KVM drives it.
func (g *Guest) QueryKVM(ctx context.Context) (KVM, error) {
	var host string
	if err := g.call(ctx, "VM.get_resident_on", &host); err != nil {
		return KVM{}, err
	}
	var k KVM
	args := map[string]string{"uuid": g.UUID}
	if err := g.api.Call(ctx, "host.call_plugin", &k.Text, host, "hypervisor", "query-kvm", args); err != nil {
		return KVM{}, err
	}
	if err := json.Unmarshal([]byte(k.Text), &k); err != nil {
		return k, fmt.Errorf("query-kvm answered %q: %w", k.Text, err)
	}
	return k, nil
}

// Console attaches to the guest's serial console and follows it; closing the
// writer detaches. watch may be nil.
func (g *Guest) Console(ctx context.Context, log io.Writer, watch func(lab.Line)) (*lab.Console, io.WriteCloser, error) {
	row, err := g.terminal(ctx)
	if err != nil {
		return nil, nil, err
	}
	stream, err := g.api.Console(ctx, row)
	if err != nil {
		return nil, nil, fmt.Errorf("console of %s: %w", g.Name, err)
	}
	return lab.Follow(g.Name, stream, log, watch), stream, nil
}

// terminal is the guest's serial console among its consoles.
func (g *Guest) terminal(ctx context.Context) (string, error) {
	var rows []string
	if err := g.call(ctx, "VM.get_consoles", &rows); err != nil {
		return "", err
	}
	for _, row := range rows {
		var protocol string
		if err := g.api.Call(ctx, "console.get_protocol", &protocol, row); err != nil {
			return "", err
		}
		if protocol == "vt100" {
			return row, nil
		}
	}
	return "", fmt.Errorf("%s has no serial console among %d", g.Name, len(rows))
}

// Heartbeats waits for n more heartbeats, which prove that the guest runs now.
func Heartbeats(ctx context.Context, c *lab.Console, n int) (lab.Line, error) {
	var last lab.Line
	for range n {
		c.Mark()
		var err error
		if last, err = c.Text(ctx, Heartbeat); err != nil {
			return last, err
		}
	}
	return last, nil
}
