package metrics

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
)

// Register binds the messages about data sources. They tell of what the last look has
// found: a VM must run, and a repository be attached.
func (m *Manager) Register(r *api.Registry) {
	api.HandleHostBackupRrds(r, m.backup)
	api.HandleVMGetDataSources(r, sources(m, m.vmOwner))
	api.HandleVMQueryDataSource(r, ask(m, m.vmOwner))
	api.HandleVMRecordDataSource(r, choose(m, m.vmOwner, keep))
	api.HandleVMForgetDataSourceArchives(r, choose(m, m.vmOwner, forget))
	api.HandleHostGetDataSources(r, sources(m, m.hostOwner))
	api.HandleHostQueryDataSource(r, ask(m, m.hostOwner))
	api.HandleHostRecordDataSource(r, choose(m, m.hostOwner, keep))
	api.HandleHostForgetDataSourceArchives(r, choose(m, m.hostOwner, forget))
	api.HandleSRGetDataSources(r, sources(m, m.srOwner))
	api.HandleSRQueryDataSource(r, ask(m, m.srOwner))
	api.HandleSRRecordDataSource(r, choose(m, m.srOwner, keep))
	api.HandleSRForgetDataSourceArchives(r, choose(m, m.srOwner, forget))
}

func (m *Manager) vmOwner(ref api.VMRef) (Owner, error) {
	vm, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return Owner{}, err
	}
	return Owner{VMKind, vm.UUID}, operation.VM.Check(nil, ref, vm, api.VMOperationsDataSourceOp)
}

func (m *Manager) hostOwner(ref api.HostRef) (Owner, error) {
	host, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return Owner{}, err
	}
	return Owner{HostKind, host.UUID}, nil
}

func (m *Manager) srOwner(ref api.SRRef) (Owner, error) {
	sr, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return Owner{}, err
	}
	return Owner{SRKind, sr.UUID}, nil
}

// sources serves get_data_sources.
func sources[R any](m *Manager, owner func(R) (Owner, error)) func(*api.Call, R) ([]*api.DataSource, error) {
	return func(_ *api.Call, ref R) ([]*api.DataSource, error) {
		o, err := owner(ref)
		if err != nil {
			return nil, err
		}
		all := []*api.DataSource{}
		m.mu.Lock()
		defer m.mu.Unlock()
		if s := m.series[o]; s != nil {
			for _, f := range s.now {
				all = append(all, &api.DataSource{
					NameLabel: f.name, NameDescription: f.description(), Enabled: s.records(f), Standard: !f.kind.optional,
					Units: f.kind.units, Min: f.kind.low, Max: f.kind.high, Value: f.value,
				})
			}
		}
		return all, nil
	}
}

// ask serves query_data_source.
func ask[R any](m *Manager, owner func(R) (Owner, error)) func(*api.Call, R, string) (float64, error) {
	return func(_ *api.Call, ref R, name string) (value float64, err error) {
		return value, onSource(m, owner, ref, name, func(_ *series, f figure) { value = f.value })
	}
}

// choose serves what changes whether a source is recorded.
func choose[R any](m *Manager, owner func(R) (Owner, error), do func(*series, figure)) func(*api.Call, R, string) error {
	return func(_ *api.Call, ref R, name string) error { return onSource(m, owner, ref, name, do) }
}

// onSource does something to a source the last look has found.
func onSource[R any](m *Manager, owner func(R) (Owner, error), ref R, name string, do func(*series, figure)) error {
	o, err := owner(ref)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.series[o]; s != nil {
		for _, f := range s.now {
			if f.name == name {
				do(s, f)
				return nil
			}
		}
	}
	return api.ErrInvalidValue("data_source", name)
}

// keep records a source from now on, over restarts too.
func keep(s *series, f figure) {
	s.chosen[f.name], s.dirty = true, true
	_ = s.db.Add(f.source()) // what is a figure has a name and bounds
}

// forget drops what is known of a source, and records it no more.
func forget(s *series, f figure) {
	s.chosen[f.name], s.dirty = false, true
	s.db.Remove(f.name)
}
