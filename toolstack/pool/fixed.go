package pool

import (
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// registerFixed binds settings of which this system has one value only: to ask
// for it leaves nothing to do, to ask for another is refused.
func (m *Manager) registerFixed(r *api.Registry) {
	api.HandlePoolSetHTTPSOnly(r, func(_ *api.Call, ref api.PoolRef, value bool) error {
		if err := m.there(ref); err != nil {
			return err
		}
		if !value {
			return api.ErrValueNotSupported("https_only", strconv.FormatBool(value), "the API is served over TLS only")
		}
		return nil
	})
	api.HandlePoolDisableSSLLegacy(r, func(_ *api.Call, ref api.PoolRef) error {
		return m.there(ref) // TLS older than 1.2 is not spoken
	})
	api.HandlePoolDisableSSH(r, func(_ *api.Call, ref api.PoolRef) error {
		return m.there(ref) // no host has an SSH service
	})
	api.HandlePoolHasExtension(r, func(_ *api.Call, ref api.PoolRef, _ string) (bool, error) {
		return false, m.there(ref) // the messages of the description are all there are
	})
	api.HandlePoolEnableTLSVerification(r, m.enableTLSVerification)
	api.HandlePoolSyncDatabase(r, func(c *api.Call) error {
		// What was acknowledged is on disk. A further update waits its turn behind
		// those that are on their way there.
		return m.cfg.DB.Update(c, func(*db.Tx) error { return nil })
	})
}

func (m *Manager) there(ref api.PoolRef) error {
	_, err := db.Get(m.cfg.DB.Snapshot(), ref)
	return err
}

// enableTLSVerification: hosts verify each other from the start; the rows of a
// pool that was made otherwise are brought in line.
func (m *Manager) enableTLSVerification(c *api.Call) error {
	return m.cfg.DB.Update(c, func(tx *db.Tx) error {
		ref, p, err := the(tx)
		if err != nil {
			return err
		}
		if p.HAEnabled {
			return api.ErrHAIsEnabled()
		}
		row, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		row.TLSVerificationEnabled = true
		for h := range db.All[api.Host](tx) {
			row, err := db.Edit(tx, h)
			if err != nil {
				return err
			}
			row.TLSVerificationEnabled = true
		}
		return nil
	})
}
