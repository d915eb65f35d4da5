package host

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Keys of host.other_config that repeat a field for older clients.
const (
	iqnKey       = "iscsi_iqn"
	multipathKey = "multipathing"
)

// registerSettings binds the messages that check a value and keep it in the
// host's row; what uses the value reads it there.
func (m *Manager) registerSettings(r *api.Registry) {
	api.HandleHostSetISCSIIQN(r, m.setIQN)
	api.HandleHostSetMultipathing(r, m.setMultipathing)
	api.HandleHostSetPowerOnMode(r, m.setPowerOnMode)
	api.HandleHostApplyEdition(r, m.applyEdition)
	api.HandleHostEmergencyClearMandatoryGuidance(r, func(c *api.Call) error {
		return m.edit(c, m.Ref(), func(h *api.Host) error { h.PendingGuidances = nil; return nil })
	})
	m.registerFixed(r)
}

// registerFixed binds settings of which this system has one value only: to ask
// for it leaves nothing to do, to ask for another is refused.
func (m *Manager) registerFixed(r *api.Registry) {
	api.HandleHostSetSSLLegacy(r, func(_ *api.Call, ref api.HostRef, value bool) error {
		return m.only(ref, value, false, "ssl_legacy", "TLS older than 1.2 is not spoken")
	})
	api.HandleHostSetHTTPSOnly(r, func(_ *api.Call, ref api.HostRef, value bool) error {
		return m.only(ref, value, true, "https_only", "the API is served over TLS only")
	})
	api.HandleHostDisableSSH(r, func(_ *api.Call, ref api.HostRef) error {
		_, err := db.Get(m.cfg.DB.Snapshot(), ref)
		return err // a host has no SSH service
	})
	api.HandleHostHasExtension(r, func(_ *api.Call, ref api.HostRef, _ string) (bool, error) {
		_, err := db.Get(m.cfg.DB.Snapshot(), ref)
		return false, err // the messages of the description are all there are
	})
	api.HandleHostIsInEmergencyMode(r, func(*api.Call) (bool, error) {
		return false, nil // who has a session has it from the pool's database
	})
	api.HandleHostHAXapiHealthcheck(r, func(c *api.Call) (bool, error) {
		// Healthy is who still commits: an update that changes nothing waits its
		// turn behind all others.
		err := m.cfg.DB.Update(c, func(*db.Tx) error { return nil })
		return err == nil, err
	})
	api.HandleHostSyncData(r, func(_ *api.Call, ref api.HostRef) error {
		_, err := db.Get(m.cfg.DB.Snapshot(), ref)
		return err // what was acknowledged is on disk already
	})
	api.HandleHostGetSchedGran(r, func(_ *api.Call, ref api.HostRef) (api.HostSchedGran, error) {
		_, err := db.Get(m.cfg.DB.Snapshot(), ref)
		return api.HostSchedGranCPU, err // Linux schedules threads of vCPUs each by itself
	})
	if m.cfg.Restart != nil {
		api.HandleHostRestartAgent(r, func(_ *api.Call, ref api.HostRef) error {
			if err := m.isThis(ref); err != nil {
				return err
			}
			m.cfg.Log.Warn("restart-asked-for")
			m.cfg.Restart()
			return nil
		})
	}
}

// only refuses all but one value.
func (m *Manager) only(ref api.HostRef, value, want bool, field, why string) error {
	if _, err := db.Get(m.cfg.DB.Snapshot(), ref); err != nil {
		return err
	}
	if value != want {
		return api.ErrValueNotSupported(field, strconv.FormatBool(value), why)
	}
	return nil
}

// iqn is the form of an iSCSI qualified name, RFC 7143: a date, a reversed
// domain, and text of the owner's.
var iqn = regexp.MustCompile(`^(iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[^\s]+)?|eui\.[0-9A-Fa-f]{16})$`)

// maxIQN is the standard's limit.
const maxIQN = 223

func (m *Manager) setIQN(c *api.Call, ref api.HostRef, value string) error {
	if len(value) > maxIQN || value != "" && !iqn.MatchString(value) {
		return api.ErrInvalidValue("iscsi_iqn", value)
	}
	return m.edit(c, ref, func(h *api.Host) error {
		h.ISCSIIQN = value
		repeat(h, iqnKey, value)
		return nil
	})
}

func (m *Manager) setMultipathing(c *api.Call, ref api.HostRef, value bool) error {
	return m.edit(c, ref, func(h *api.Host) error {
		h.Multipathing = value
		repeat(h, multipathKey, strconv.FormatBool(value))
		return nil
	})
}

func repeat(h *api.Host, key, value string) {
	if h.OtherConfig == nil {
		h.OtherConfig = map[string]string{}
	}
	h.OtherConfig[key] = value
}

// powerOnKeys are what each way to power a host on from afar needs to know.
var powerOnKeys = map[string][]string{
	"":            nil,
	"wake-on-lan": nil,
	"iLO":         {"power_on_ip", "power_on_user"},
	"DRAC":        {"power_on_ip", "power_on_user"},
}

// passwordKey is a password of a client's; it becomes a secret, of which the row
// holds the UUID under secretKey.
const (
	passwordKey = "power_on_password"
	secretKey   = "power_on_password_secret"
)

// setPowerOnMode keeps how a host is powered on. A mode that is not known is the
// name of a script elsewhere in the world; here there is none.
func (m *Manager) setPowerOnMode(c *api.Call, ref api.HostRef, mode string, cfg map[string]string) error {
	needed, known := powerOnKeys[mode]
	if !known {
		return api.ErrInvalidValue("power_on_mode", mode)
	}
	for _, key := range needed {
		if cfg[key] == "" {
			return api.ErrInvalidValue("power_on_config:"+key, "")
		}
	}
	return db.Modify(c, m.cfg.DB, ref, func(tx *db.Tx, h *api.Host) error {
		kept := maps.Clone(cfg)
		if kept == nil {
			kept = map[string]string{}
		}
		if err := forgetSecret(tx, h.PowerOnConfig[secretKey], kept[secretKey]); err != nil {
			return err
		}
		if password, given := kept[passwordKey]; given {
			s := api.NewSecret()
			s.UUID, s.Value = api.NewUUID(), password
			db.Insert(tx, s)
			delete(kept, passwordKey)
			kept[secretKey] = s.UUID
		}
		h.PowerOnMode, h.PowerOnConfig = mode, kept
		return nil
	})
}

// forgetSecret drops a secret that nothing refers to any longer.
func forgetSecret(tx *db.Tx, uuid, kept string) error {
	if uuid == "" || uuid == kept {
		return nil
	}
	ref, err := db.ByUUID[api.Secret](tx, uuid)
	if err != nil {
		return nil // somebody has taken it away
	}
	return db.Delete(tx, ref)
}

// applyEdition: there is one edition, which has everything.
func (m *Manager) applyEdition(c *api.Call, ref api.HostRef, edition string, _ bool) error {
	if !slices.Contains(Editions, edition) {
		return api.ErrInvalidEdition(edition)
	}
	return m.edit(c, ref, func(h *api.Host) error {
		h.Edition, h.LicenseParams = strings.ToLower(edition), LicenseParams()
		return nil
	})
}
