package pool

import (
	"encoding/base64"
	"strconv"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/host"
)

// Bounds of settings.
const (
	maxAuthThreads = 1024
	// maxCertificates bounds the text of UEFI certificates: a request is not much
	// larger anyway.
	maxCertificates = 256 << 10
)

// latestCollection is how far ahead telemetry may be due, by how often it is.
var latestCollection = map[api.TelemetryFrequency]time.Duration{
	api.TelemetryFrequencyDaily:   2 * 24 * time.Hour,
	api.TelemetryFrequencyWeekly:  14 * 24 * time.Hour,
	api.TelemetryFrequencyMonthly: 62 * 24 * time.Hour,
}

// registerSettings binds the messages that check a value and keep it.
func (m *Manager) registerSettings(r *api.Registry) {
	api.HandlePoolSetLocalAuthMaxThreads(r, set(m, between("local_auth_max_threads", 1, maxAuthThreads, func(p *api.Pool) *int64 { return &p.LocalAuthMaxThreads })))
	api.HandlePoolSetExtAuthMaxThreads(r, set(m, between("ext_auth_max_threads", 1, maxAuthThreads, func(p *api.Pool) *int64 { return &p.ExtAuthMaxThreads })))
	api.HandlePoolSetExtAuthCacheSize(r, set(m, between("ext_auth_cache_size", 1, 1<<20, func(p *api.Pool) *int64 { return &p.ExtAuthCacheSize })))
	api.HandlePoolSetExtAuthCacheExpiry(r, set(m, between("ext_auth_cache_expiry", 1, 1<<31, func(p *api.Pool) *int64 { return &p.ExtAuthCacheExpiry })))
	api.HandlePoolSetExtAuthCacheEnabled(r, set(m, func(p *api.Pool, value bool) error { p.ExtAuthCacheEnabled = value; return nil }))
	api.HandlePoolSetUEFICertificates(r, set(m, func(p *api.Pool, value string) error {
		p.UEFICertificates = value
		return checkBase64("uefi_certificates", value)
	}))
	api.HandlePoolSetCustomUEFICertificates(r, set(m, func(p *api.Pool, value string) error {
		p.CustomUEFICertificates = value
		return checkBase64("custom_uefi_certificates", value)
	}))
	api.HandlePoolSetTelemetryNextCollection(r, set(m, setNextCollection))
	api.HandlePoolResetTelemetryUUID(r, m.resetTelemetry)
	api.HandlePoolAddToGuestAgentConfig(r, m.addToGuestAgent)
	api.HandlePoolRemoveFromGuestAgentConfig(r, func(c *api.Call, ref api.PoolRef, key string) error {
		return m.edit(c, ref, func(_ *db.Tx, p *api.Pool) error { delete(p.GuestAgentConfig, key); return nil })
	})
	api.HandlePoolApplyEdition(r, m.applyEdition)
	api.HandlePoolGetLicenseState(r, m.licenseState)
	api.HandlePoolDeconfigureWLB(r, m.deconfigureWLB)
}

func between(field string, low, high int64, at func(*api.Pool) *int64) func(*api.Pool, int64) error {
	return func(p *api.Pool, value int64) error {
		if value < low || value > high {
			return api.ErrValueNotSupported(field, strconv.FormatInt(value, 10),
				"must be from "+strconv.FormatInt(low, 10)+" to "+strconv.FormatInt(high, 10))
		}
		*at(p) = value
		return nil
	}
}

func checkBase64(field, value string) error {
	if len(value) > maxCertificates {
		return api.ErrInvalidValue(field, "longer than "+strconv.Itoa(maxCertificates))
	}
	if _, err := base64.StdEncoding.DecodeString(value); err != nil {
		return api.ErrInvalidValue(field, "not base64")
	}
	return nil
}

func setNextCollection(p *api.Pool, value time.Time) error {
	if value.After(time.Now().Add(latestCollection[p.TelemetryFrequency])) {
		return api.ErrTelemetryNextCollectionTooLate(value.UTC().Format(api.TimeLayout))
	}
	p.TelemetryNextCollection = value
	return nil
}

// resetTelemetry gives the pool a new identity towards whoever collects.
func (m *Manager) resetTelemetry(c *api.Call, ref api.PoolRef) error {
	return m.edit(c, ref, func(tx *db.Tx, p *api.Pool) error {
		if err := forget(tx, p.TelemetryUUID); err != nil {
			return err
		}
		p.TelemetryUUID = keep(tx, api.NewUUID())
		return nil
	})
}

// keep stores a secret.
func keep(tx *db.Tx, value string) api.SecretRef {
	s := api.NewSecret()
	s.UUID, s.Value = api.NewUUID(), value
	return db.Insert(tx, s)
}

// forget deletes a secret, unless somebody has.
func forget(tx *db.Tx, ref api.SecretRef) error {
	if _, err := db.Get(tx, ref); err != nil {
		return nil
	}
	return db.Delete(tx, ref)
}

// addToGuestAgent: guests' agents read the map, so its keys are theirs.
func (m *Manager) addToGuestAgent(c *api.Call, ref api.PoolRef, key, value string) error {
	return m.edit(c, ref, func(_ *db.Tx, p *api.Pool) error {
		if _, there := p.GuestAgentConfig[key]; there {
			return api.ErrMapDuplicateKey("pool", "guest_agent_config", ref.String(), key)
		}
		if key == "" {
			return api.ErrInvalidValue("key", key)
		}
		if p.GuestAgentConfig == nil {
			p.GuestAgentConfig = map[string]string{}
		}
		p.GuestAgentConfig[key] = value
		return nil
	})
}

// applyEdition applies it to all hosts or none.
func (m *Manager) applyEdition(c *api.Call, ref api.PoolRef, edition string) error {
	if edition != host.Edition {
		return api.ErrInvalidEdition(edition)
	}
	return m.edit(c, ref, func(tx *db.Tx, p *api.Pool) error {
		for h := range db.All[api.Host](tx) {
			row, err := db.Edit(tx, h)
			if err != nil {
				return err
			}
			row.Edition = edition
		}
		p.Restrictions = host.Restrictions()
		return nil
	})
}

// licenseState: the pool has what all its hosts have, and it never expires.
func (m *Manager) licenseState(_ *api.Call, ref api.PoolRef) (map[string]string, error) {
	_, err := db.Get(m.cfg.DB.Snapshot(), ref)
	return map[string]string{"edition": host.Edition, "expiry": "never"}, err
}

// deconfigureWLB ends the use of a workload balancing server.
func (m *Manager) deconfigureWLB(c *api.Call) error {
	return m.cfg.DB.Update(c, func(tx *db.Tx) error {
		ref, _, err := the(tx)
		if err != nil {
			return err
		}
		p, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		p.WLBURL, p.WLBUsername, p.WLBEnabled, p.WLBVerifyCert = "", "", false, false
		return nil
	})
}
