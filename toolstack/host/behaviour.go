package host

import (
	"context"
	"encoding/json"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Register binds the behaviour of the host class.
func (m *Manager) Register(r *api.Registry) {
	api.HandleHostDisable(r, m.disable)
	api.HandleHostEnable(r, m.enable)
	api.HandleHostShutdown(r, func(c *api.Call, ref api.HostRef) error { return m.power(c, ref, client.Poweroff) })
	api.HandleHostReboot(r, func(c *api.Call, ref api.HostRef) error { return m.power(c, ref, client.Reboot) })
	api.HandleHostComputeMemoryOverhead(r, func(_ *api.Call, ref api.HostRef) (int64, error) {
		return 0, m.isThis(ref) // all of the host's own need is its control domain's
	})
	api.HandleHostCallPlugin(r, m.callPlugin)
	api.HandleHostDestroy(r, m.destroy)
	api.HandleHostGetManagementInterface(r, m.managementInterface)
	api.HandlePIFReconfigureIP(r, m.reconfigureIP)
	api.HandleHostGetServerCertificate(r, m.serverCertificate)
	m.registerClock(r)
	m.registerDocument(r)
	m.registerEvacuation(r)
	m.registerLogs(r)
	m.registerSettings(r)
}

// isThis refuses a host that is not there, or not this one.
func (m *Manager) isThis(ref api.HostRef) error {
	if _, err := db.Get(m.cfg.DB.Snapshot(), ref); err != nil {
		return err
	}
	if ref != m.Ref() {
		return api.ErrHostOffline(ref.String())
	}
	return nil
}

// disable keeps new VMs away. Without autoEnable that outlives a reboot.
func (m *Manager) disable(c *api.Call, ref api.HostRef, autoEnable bool) error {
	return m.setEnabled(c, ref, false, autoEnable)
}

func (m *Manager) enable(c *api.Call, ref api.HostRef) error { return m.setEnabled(c, ref, true, true) }

func (m *Manager) setEnabled(ctx context.Context, ref api.HostRef, enabled, autoEnable bool) error {
	return db.Modify(ctx, m.cfg.DB, ref, func(_ *db.Tx, h *api.Host) error {
		h.Enabled = enabled
		if h.OtherConfig == nil {
			h.OtherConfig = map[string]string{}
		}
		delete(h.OtherConfig, disabledKey)
		if !autoEnable {
			h.OtherConfig[disabledKey] = "false"
		}
		h.AllowedOperations = hostOperations(enabled)
		return nil
	})
}

// EnableAtStart undoes a disable that was meant until the next start.
func (m *Manager) EnableAtStart(ctx context.Context) error {
	h, err := db.Get(m.cfg.DB.Snapshot(), m.Ref())
	if err != nil || h.Enabled || h.OtherConfig[disabledKey] == "false" {
		return err
	}
	return m.setEnabled(ctx, m.Ref(), true, true)
}

// power turns a host off or restarts it: it must be disabled and empty, so that
// nobody loses a VM by it.
func (m *Manager) power(c *api.Call, ref api.HostRef, action client.PowerAction) error {
	if err := m.isThis(ref); err != nil {
		return err
	}
	s := m.cfg.DB.Snapshot()
	h, err := db.Get(s, ref)
	if err != nil {
		return err
	}
	if h.Enabled {
		return api.ErrHostNotDisabled()
	}
	for _, vm := range h.ResidentVMs {
		if v, err := db.Get(s, vm); err == nil && !v.IsControlDomain {
			return api.ErrHostInUse(ref.String(), "VM", vm.String())
		}
	}
	return m.cfg.Hostd.Power(c, action)
}

// callPlugin: there are no scripts on a host. The plugins that exist are Go.
func (m *Manager) callPlugin(c *api.Call, ref api.HostRef, plugin, fn string, args map[string]string) (string, error) {
	if err := m.isThis(ref); err != nil {
		return "", err
	}
	if plugin != "hypervisor" {
		return "", api.ErrXenapiMissingPlugin(plugin)
	}
	if fn != "query-kvm" {
		return "", api.ErrXenapiPluginFailure("unknown function", "", fn)
	}
	return m.queryKVM(c, args["uuid"])
}

// queryKVM answers what QEMU itself says of a running VM, as JSON.
func (m *Manager) queryKVM(c *api.Call, uuid string) (string, error) {
	if _, err := db.ByUUID[api.VM](m.cfg.DB.Snapshot(), uuid); err != nil {
		return "", err
	}
	kvm, err := m.cfg.Hypervisor.QueryKVM(c, uuid)
	if err != nil {
		return "", api.ErrXenapiPluginFailure("query-kvm", "", err.Error())
	}
	text, err := json.Marshal(kvm)
	return string(text), err
}
