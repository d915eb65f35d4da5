package qga

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
)

// Bounds of what is taken over from an answer; a guest that has more is told by its
// first ones.
const (
	maxText       = 256
	maxCommands   = 256
	maxInterfaces = 512
	maxAddresses  = 64
	maxDisks      = 64
)

// Commands that are not in every agent, or disabled by some.
const (
	CmdShutdown = "guest-shutdown"
	CmdFreeze   = "guest-fsfreeze-freeze"
	CmdThaw     = "guest-fsfreeze-thaw"
	CmdStatus   = "guest-fsfreeze-status"
)

// Info is what an agent is and can do.
type Info struct {
	Version  string
	commands map[string]bool
}

// Has reports whether the agent knows a command, and has it enabled.
func (i Info) Has(command string) bool { return i.commands[command] }

// Info asks what the agent can do.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var a struct {
		Version  string `json:"version"`
		Commands []struct {
			Name    string `json:"name"`
			Enabled bool   `json:"enabled"`
		} `json:"supported_commands"`
	}
	err := c.Ask(ctx, "guest-info", nil, &a)
	i := Info{Version: clean(a.Version), commands: map[string]bool{}}
	for _, command := range a.Commands[:min(len(a.Commands), maxCommands)] {
		if command.Enabled {
			i.commands[clean(command.Name)] = true
		}
	}
	return i, err
}

// OS is what runs in the guest, as os-release or Windows' own words have it.
type OS struct {
	ID            string `json:"id"` // "debian", "mswindows"
	Name          string `json:"name"`
	PrettyName    string `json:"pretty-name"`
	VersionID     string `json:"version-id"`
	KernelRelease string `json:"kernel-release"`
	KernelVersion string `json:"kernel-version"`
}

// OS asks what runs in the guest.
func (c *Client) OS(ctx context.Context) (OS, error) {
	var o OS
	err := c.Ask(ctx, "guest-get-osinfo", nil, &o)
	for _, s := range []*string{&o.ID, &o.Name, &o.PrettyName, &o.VersionID, &o.KernelRelease, &o.KernelVersion} {
		*s = clean(*s)
	}
	return o, err
}

// HostName asks for the guest's own name.
func (c *Client) HostName(ctx context.Context) (string, error) {
	var a struct {
		Name string `json:"host-name"`
	}
	err := c.Ask(ctx, "guest-get-host-name", nil, &a)
	return clean(a.Name), err
}

// Interface is a network interface of the guest's.
type Interface struct {
	MAC       string
	Addresses []netip.Addr
}

// Interfaces asks for the guest's network interfaces. What is no address is left out.
func (c *Client) Interfaces(ctx context.Context) ([]Interface, error) {
	var a []struct {
		MAC       string `json:"hardware-address"`
		Addresses []struct {
			Address string `json:"ip-address"`
		} `json:"ip-addresses"`
	}
	err := c.Ask(ctx, "guest-network-get-interfaces", nil, &a)
	var all []Interface
	for _, x := range a[:min(len(a), maxInterfaces)] {
		i := Interface{MAC: strings.ToLower(clean(x.MAC))}
		for _, y := range x.Addresses[:min(len(x.Addresses), maxAddresses)] {
			if addr, err := netip.ParseAddr(y.Address); err == nil {
				i.Addresses = append(i.Addresses, addr.WithZone("").Unmap())
			}
		}
		all = append(all, i)
	}
	return all, err
}

// Filesystem is a mounted file system; Total is 0 where the agent does not tell.
type Filesystem struct {
	Mountpoint, Type string
	Total            int64
}

// Filesystems asks what is mounted. The agent looks at local file systems only.
func (c *Client) Filesystems(ctx context.Context) ([]Filesystem, error) {
	var a []struct {
		Mountpoint string  `json:"mountpoint"`
		Type       string  `json:"type"`
		Total      float64 `json:"total-bytes"`
	}
	err := c.Ask(ctx, "guest-get-fsinfo", nil, &a)
	var all []Filesystem
	for _, x := range a[:min(len(a), maxDisks)] {
		f := Filesystem{Mountpoint: clean(x.Mountpoint), Type: clean(x.Type)}
		if x.Total > 0 && x.Total < 1<<62 {
			f.Total = int64(x.Total)
		}
		all = append(all, f)
	}
	return all, err
}

// powerOffWait is how long an agent gets to refuse: one that obeys does not answer.
const powerOffWait = 3 * time.Second

// PowerOff asks the guest to end. Nil means that it was asked and has not refused; the
// connection is out of step then.
func (c *Client) PowerOff(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, powerOffWait)
	defer cancel()
	err := c.Ask(ctx, CmdShutdown, map[string]string{"mode": "powerdown"}, nil)
	if errors.Is(err, ErrSilent) || errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

// Freeze makes the guest write out what it has and stop writing, until Thaw; it reports
// how many file systems that are.
func (c *Client) Freeze(ctx context.Context) (n int, err error) {
	err = c.Ask(ctx, CmdFreeze, nil, &n)
	return n, err
}

// Thaw lets the guest write again; n is 0 when nothing was frozen.
func (c *Client) Thaw(ctx context.Context) (n int, err error) {
	err = c.Ask(ctx, CmdThaw, nil, &n)
	return n, err
}

// Frozen asks whether the guest is between Freeze and Thaw.
func (c *Client) Frozen(ctx context.Context) (bool, error) {
	var status string
	if err := c.Ask(ctx, CmdStatus, nil, &status); err != nil {
		return false, err
	}
	if status != "frozen" && status != "thawed" {
		c.broken = fmt.Errorf("%w: fsfreeze status %q", ErrGarbage, clean(status))
		return false, c.broken
	}
	return status == "frozen", nil
}

// clean makes one printable line of a stranger's text, of bounded length.
func clean(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxText)], "")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s))
}
