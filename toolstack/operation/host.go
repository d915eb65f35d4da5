package operation

import (
	"slices"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// machines are the operations on a host that concern one machine each, and so
// go on side by side.
var machines = []api.HostAllowedOperations{
	api.HostAllowedOperationsProvision, api.HostAllowedOperationsVMStart,
	api.HostAllowedOperationsVMResume, api.HostAllowedOperationsVMMigrate,
}

// Host is the table of hosts.
var Host = &Table[api.Host, *api.Host, api.HostAllowedOperations]{
	built: []api.HostAllowedOperations{
		api.HostAllowedOperationsProvision, api.HostAllowedOperationsVMStart, api.HostAllowedOperationsEnable,
		api.HostAllowedOperationsShutdown, api.HostAllowedOperationsReboot, api.HostAllowedOperationsEvacuate,
	},
	fields: func(h *api.Host) (*[]api.HostAllowedOperations, *map[string]api.HostAllowedOperations) {
		return &h.AllowedOperations, &h.CurrentOperations
	},
	rules: []rule[api.Host, api.HostAllowedOperations]{
		{op: api.HostAllowedOperationsProvision, then: all(hostEnabled), beside: machines},
		{op: api.HostAllowedOperationsEvacuate, beside: machines},
		{op: api.HostAllowedOperationsEnable, then: all(hostDisabled), beside: machines},
		{op: api.HostAllowedOperationsShutdown, then: all(hostDisabled)},
		{op: api.HostAllowedOperationsReboot, then: all(hostDisabled)},
		{op: api.HostAllowedOperationsPowerOn, then: all(hostDown)},
		{op: api.HostAllowedOperationsVMStart, then: all(hostEnabled), beside: machines},
		{op: api.HostAllowedOperationsVMResume, then: all(hostEnabled), beside: machines},
		{op: api.HostAllowedOperationsVMMigrate, then: all(hostEnabled),
			beside: append([]api.HostAllowedOperations{api.HostAllowedOperationsEvacuate}, machines...)},
		{op: api.HostAllowedOperationsApplyUpdates, then: all(hostDisabled)},
	},
}

func hostEnabled(s *subject[api.Host]) error {
	if !s.rec.Enabled {
		return api.ErrHostDisabled(s.ref.String())
	}
	return nil
}

func hostDisabled(s *subject[api.Host]) error {
	if s.rec.Enabled {
		return api.ErrHostNotDisabled()
	}
	return nil
}

func hostDown(s *subject[api.Host]) error {
	if m, err := db.Get(s.r, s.rec.Metrics); err == nil && m.Live {
		return api.ErrHostIsLive(s.ref.String())
	}
	return nil
}

// poolBusy are the operations on a pool and the error for another while one is
// in progress.
var poolBusy = map[api.PoolAllowedOperations]func() *api.Error{
	api.PoolAllowedOperationsHAEnable:              api.ErrHAEnableInProgress,
	api.PoolAllowedOperationsHADisable:             api.ErrHADisableInProgress,
	api.PoolAllowedOperationsClusterCreate:         api.ErrClusterCreateInProgress,
	api.PoolAllowedOperationsDesignateNewMaster:    plain(api.ErrDesignateNewMasterInProgress),
	api.PoolAllowedOperationsConfigureRepositories: api.ErrConfigureRepositoriesInProgress,
	api.PoolAllowedOperationsSyncUpdates:           api.ErrSyncUpdatesInProgress,
	api.PoolAllowedOperationsSyncBundle:            api.ErrSyncBundleInProgress,
	api.PoolAllowedOperationsGetUpdates:            plain(api.ErrGetUpdatesInProgress),
	api.PoolAllowedOperationsApplyUpdates:          api.ErrApplyUpdatesInProgress,
	api.PoolAllowedOperationsTLSVerificationEnable: plain(api.ErrTLSVerificationEnableInProgress),
	api.PoolAllowedOperationsCertRefresh:           plain(api.ErrCertRefreshInProgress),
}

func plain(f func(...string) *api.Error) func() *api.Error {
	return func() *api.Error { return f() }
}

// Pool is the table of pools: one operation at a time, and each says by an error
// of its own that it is the one.
var Pool = &Table[api.Pool, *api.Pool, api.PoolAllowedOperations]{
	fields: func(p *api.Pool) (*[]api.PoolAllowedOperations, *map[string]api.PoolAllowedOperations) {
		return &p.AllowedOperations, &p.CurrentOperations
	},
	busy: func(s *subject[api.Pool], task string, other api.PoolAllowedOperations) error {
		if f := poolBusy[other]; f != nil {
			return f()
		}
		return inProgress(api.ClassOf[api.Pool](), string(s.ref), task, string(other))
	},
	rules: []rule[api.Pool, api.PoolAllowedOperations]{
		{op: api.PoolAllowedOperationsHAEnable, then: all(withoutHA)},
		{op: api.PoolAllowedOperationsHADisable, then: all(withHA)},
		{op: api.PoolAllowedOperationsClusterCreate, then: all(withoutCluster)},
		{op: api.PoolAllowedOperationsDesignateNewMaster, then: all(withoutHA)},
		{op: api.PoolAllowedOperationsConfigureRepositories},
		{op: api.PoolAllowedOperationsSyncUpdates},
		{op: api.PoolAllowedOperationsSyncBundle},
		{op: api.PoolAllowedOperationsGetUpdates},
		{op: api.PoolAllowedOperationsApplyUpdates},
		{op: api.PoolAllowedOperationsTLSVerificationEnable, then: all(withoutHA)},
		{op: api.PoolAllowedOperationsCertRefresh},
		{op: api.PoolAllowedOperationsExchangeCertificatesOnJoin},
		{op: api.PoolAllowedOperationsExchangeCaCertificatesOnJoin},
		{op: api.PoolAllowedOperationsCopyPrimaryHostCerts},
		{op: api.PoolAllowedOperationsEject, then: all(withoutHA)},
		{op: api.PoolAllowedOperationsExchangeCrlsOnJoin},
	},
}

func withoutHA(s *subject[api.Pool]) error {
	if s.rec.HAEnabled {
		return api.ErrHAIsEnabled()
	}
	return nil
}

func withHA(s *subject[api.Pool]) error {
	if !s.rec.HAEnabled {
		return api.ErrHANotEnabled()
	}
	return nil
}

func withoutCluster(s *subject[api.Pool]) error {
	for range db.All[api.Cluster](s.r) {
		return api.ErrClusterAlreadyExists()
	}
	return nil
}

// Cluster is the table of clusters.
var Cluster = &Table[api.Cluster, *api.Cluster, api.ClusterOperation]{
	fields: func(c *api.Cluster) (*[]api.ClusterOperation, *map[string]api.ClusterOperation) {
		return &c.AllowedOperations, &c.CurrentOperations
	},
	rules: []rule[api.Cluster, api.ClusterOperation]{
		{op: api.ClusterOperationAdd},
		{op: api.ClusterOperationRemove},
		{op: api.ClusterOperationEnable},
		{op: api.ClusterOperationDisable},
		{op: api.ClusterOperationDestroy},
	},
}

// ClusterHost is the table of the members of a cluster.
var ClusterHost = &Table[api.ClusterHost, *api.ClusterHost, api.ClusterHostOperation]{
	fields: func(c *api.ClusterHost) (*[]api.ClusterHostOperation, *map[string]api.ClusterHostOperation) {
		return &c.AllowedOperations, &c.CurrentOperations
	},
	rules: []rule[api.ClusterHost, api.ClusterHostOperation]{
		{op: api.ClusterHostOperationEnable, then: all(func(s *subject[api.ClusterHost]) error {
			if s.rec.Enabled {
				return api.ErrClusteringEnabled(s.ref.String())
			}
			return nil
		})},
		{op: api.ClusterHostOperationDisable, then: all(func(s *subject[api.ClusterHost]) error {
			if !s.rec.Enabled {
				return api.ErrClusteringDisabled(s.ref.String())
			}
			return nil
		})},
		{op: api.ClusterHostOperationDestroy},
	},
}

// Appliance is the table of groups of machines that start and stop together.
var Appliance = &Table[api.VMAppliance, *api.VMAppliance, api.VMApplianceOperation]{
	fields: func(a *api.VMAppliance) (*[]api.VMApplianceOperation, *map[string]api.VMApplianceOperation) {
		return &a.AllowedOperations, &a.CurrentOperations
	},
	built: []api.VMApplianceOperation{
		api.VMApplianceOperationStart, api.VMApplianceOperationCleanShutdown,
		api.VMApplianceOperationHardShutdown, api.VMApplianceOperationShutdown,
	},
	rules: []rule[api.VMAppliance, api.VMApplianceOperation]{
		{op: api.VMApplianceOperationStart, then: all(anyVM("halted", awake))},
		{op: api.VMApplianceOperationCleanShutdown, then: all(anyVM("running", atRest))},
		{op: api.VMApplianceOperationHardShutdown, then: all(anyVM("started", halted))},
		{op: api.VMApplianceOperationShutdown, then: all(anyVM("started", halted))},
	},
}

// anyVM asks for a machine of the appliance in none of the states, so that there
// is something to do.
func anyVM(what string, none []api.VMPowerState) condition[api.VMAppliance] {
	return func(s *subject[api.VMAppliance]) error {
		for _, ref := range s.rec.VMs {
			if vm, err := db.Get(s.r, ref); err == nil && !slices.Contains(none, vm.PowerState) {
				return nil
			}
		}
		return api.ErrOperationNotAllowed("no VM of the appliance is " + what)
	}
}
