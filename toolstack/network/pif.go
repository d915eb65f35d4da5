package network

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// registerPIF binds what only marks a physical interface.
func (s settings) registerPIF(r *api.Registry) {
	api.HandlePIFSetDisallowUnplug(r, func(c *api.Call, ref api.PIFRef, value bool) error {
		return db.Modify(c, s.db, ref, func(_ *db.Tx, p *api.PIF) error {
			p.DisallowUnplug = value
			return nil
		})
	})
}
