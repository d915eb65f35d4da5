package host

import (
	"context"
	"errors"
	"slices"

	"cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// registerDocument binds the settings that the host's configuration document
// owns: hostd puts them into force, then the row repeats them.
func (m *Manager) registerDocument(r *api.Registry) {
	api.HandleHostSetHostnameLive(r, m.setHostname)
	api.HandleHostSetNTPMode(r, m.setNTPMode)
	api.HandleHostSetNTPCustomServers(r, m.setNTPServers)
	api.HandleHostGetNTPSynchronized(r, func(c *api.Call, ref api.HostRef) (bool, error) {
		if err := m.isThis(ref); err != nil {
			return false, err
		}
		t, err := m.cfg.Hostd.Time(c)
		return t.Synchronized, err
	})
}

func (m *Manager) setHostname(c *api.Call, ref api.HostRef, name string) error {
	if err := m.isThis(ref); err != nil {
		return err
	}
	return m.editDocument(c, map[string]any{"hostname": name}, api.ErrHostNameInvalid)
}

// editDocument changes keys of the document. What makes a document wrong is the
// value, which a client is told by the error that invalid makes.
func (m *Manager) editDocument(ctx context.Context, values map[string]any, invalid func(why string) *api.Error) error {
	m.document.Lock()
	defer m.document.Unlock()
	now, err := m.cfg.Hostd.Config(ctx)
	if err != nil {
		return err
	}
	text, err := config.Edit([]byte(now.Text), values)
	if err == nil {
		_, err = m.cfg.Hostd.PutConfig(ctx, text)
	}
	var problems config.Problems
	var refused *client.Error
	switch {
	case errors.As(err, &problems):
		return invalid(problems[0].Message)
	case errors.As(err, &refused) && refused.Code == client.CodeConfigInvalid:
		return invalid(refused.Message)
	case err != nil:
		return err
	}
	return m.Sync(ctx)
}

// ntpMode is where the host's time servers come from.
func ntpMode(d config.Document) api.HostNTPMode {
	switch {
	case len(d.NTP) > 0:
		return api.HostNTPModeCustom
	case d.Management.Mode == config.ModeDHCP:
		return api.HostNTPModeDHCP
	default:
		return api.HostNTPModeDisabled
	}
}

// setNTPMode: servers the document names come before those of a lease, and a
// fixed address has no lease.
func (m *Manager) setNTPMode(c *api.Call, ref api.HostRef, mode api.HostNTPMode) error {
	if err := m.isThis(ref); err != nil {
		return err
	}
	h, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return err
	}
	now, err := m.cfg.Hostd.Config(c)
	if err != nil {
		return err
	}
	servers := []string{}
	leased := now.Document.Management.Mode == config.ModeDHCP
	switch {
	case mode == api.HostNTPModeFactory:
		return api.ErrValueNotSupported("ntp_mode", string(mode), "there are no time servers of the maker")
	case mode == api.HostNTPModeCustom && len(h.NTPCustomServers) == 0:
		return api.ErrInvalidNTPConfig("no custom servers are set")
	case mode == api.HostNTPModeCustom:
		servers = h.NTPCustomServers
	case mode == api.HostNTPModeDHCP && !leased:
		return api.ErrInvalidNTPConfig("the management interface has no DHCP lease")
	case mode == api.HostNTPModeDisabled && leased:
		return api.ErrValueNotSupported("ntp_mode", string(mode), "the servers of the DHCP lease are used")
	}
	return m.editDocument(c, map[string]any{"ntp": servers}, api.ErrInvalidNTPConfig)
}

// setNTPServers keeps the servers for mode Custom, and uses them at once where
// that is the mode.
func (m *Manager) setNTPServers(c *api.Call, ref api.HostRef, servers []string) error {
	if err := m.isThis(ref); err != nil {
		return err
	}
	now, err := m.cfg.Hostd.Config(c)
	if err != nil {
		return err
	}
	if ntpMode(now.Document) == api.HostNTPModeCustom {
		if len(servers) == 0 {
			return api.ErrInvalidNTPConfig("no custom servers are given")
		}
		return m.editDocument(c, map[string]any{"ntp": servers}, api.ErrInvalidNTPConfig)
	}
	var problems config.Problems
	if _, err := config.Edit(nil, map[string]any{"ntp": servers}); errors.As(err, &problems) {
		return api.ErrInvalidNTPConfig(problems[0].Message)
	} else if err != nil {
		return err
	}
	return m.edit(c, ref, func(h *api.Host) error { h.NTPCustomServers = slices.Clone(servers); return nil })
}

// edit changes a host's row.
func (m *Manager) edit(ctx context.Context, ref api.HostRef, change func(*api.Host) error) error {
	return m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		h, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		return change(h)
	})
}
