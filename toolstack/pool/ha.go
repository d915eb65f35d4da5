package pool

import (
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// registerHA binds what can be said of high availability while it is off: how
// many hosts a pool may lose. For a pool of one that needs no plan: without its
// host nothing runs. For more hosts it needs one, and planning is not built.
func (m *Manager) registerHA(r *api.Registry) {
	api.HandlePoolHAFailoverPlanExists(r, m.planExists)
	api.HandlePoolHAComputeMaxHostFailuresToTolerate(r, func(c *api.Call) (int64, error) { return 0, m.trivial(c) })
	api.HandlePoolHAComputeHypotheticalMaxHostFailuresToTolerate(r, m.hypothetical)
	api.HandlePoolSetHAHostFailuresToTolerate(r, m.setFailures)
}

// trivial refuses where the answer would need a plan.
func (m *Manager) trivial(c *api.Call) error {
	if !alone(m.cfg.DB.Snapshot()) {
		return api.ErrNotImplemented(c.Message.Method)
	}
	return nil
}

// planExists: every plan survives no failure.
func (m *Manager) planExists(c *api.Call, n int64) (bool, error) {
	if n < 0 {
		return false, api.ErrInvalidValue("n", strconv.FormatInt(n, 10))
	}
	return n == 0, m.trivial(c)
}

func (m *Manager) hypothetical(c *api.Call, configuration map[api.VMRef]string) (int64, error) {
	snap := m.cfg.DB.Snapshot()
	for vm, priority := range configuration {
		if _, err := db.Get(snap, vm); err != nil {
			return 0, err
		}
		if priority != "" && priority != "best-effort" && priority != "restart" {
			return 0, api.ErrInvalidValue("ha_restart_priority", priority)
		}
	}
	return 0, m.trivial(c)
}

// setFailures keeps the number for when HA is switched on, which checks it
// against a plan.
func (m *Manager) setFailures(c *api.Call, ref api.PoolRef, value int64) error {
	return m.edit(c, ref, func(_ *db.Tx, p *api.Pool) error {
		if value < 0 {
			return api.ErrInvalidValue("ha_host_failures_to_tolerate", strconv.FormatInt(value, 10))
		}
		if p.HAEnabled {
			return api.ErrNotImplemented(c.Message.Method)
		}
		p.HAHostFailuresToTolerate = value
		return nil
	})
}
