package repository

import (
	"context"
	"maps"

	"cairn/init/hostd/client"
)

// Probe lists what a config finds. It changes nothing.
func (m *Manager) Probe(ctx context.Context, config client.RepositoryConfig) ([]client.Repository, error) {
	d, ok := m.drivers[config.Type]
	if !ok {
		return nil, Fail(client.CodeUnsupported, "repositories of type %q are not known", config.Type)
	}
	found, err := d.probe(ctx, config.Config)
	for i := range found {
		found[i].Type = config.Type
	}
	if found == nil {
		found = []client.Repository{}
	}
	return found, about(err, "probe %s", config.Type)
}

// Format makes a repository on a blank medium.
func (m *Manager) Format(ctx context.Context, sr string, config client.RepositoryConfig) (client.Repository, error) {
	out := client.Repository{UUID: sr, Type: config.Type, Config: config.Config}
	d, release, err := m.alone(ctx, sr, config, "it is being formatted")
	if err != nil {
		return out, err
	}
	defer release()
	switch r, err := m.find(ctx, sr); {
	case err == nil && same(r.config, config):
		return out, nil
	case err == nil:
		return out, elsewhere(sr)
	}
	m.cfg.Log.Info("repository-format", "sr", sr, "type", config.Type)
	return out, about(d.format(ctx, sr, config.Config), "format repository %s", sr)
}

// Erase removes a repository from its medium.
func (m *Manager) Erase(ctx context.Context, sr string, config client.RepositoryConfig) error {
	d, release, err := m.alone(ctx, sr, config, "it is being erased")
	if err != nil {
		return err
	}
	defer release()
	if r, err := m.find(ctx, sr); err == nil && !same(r.config, config) {
		return elsewhere(sr)
	}
	if err := m.letGo(ctx, sr); err != nil {
		return err
	}
	m.cfg.Log.Info("repository-erase", "sr", sr, "type", config.Type)
	return about(d.erase(ctx, sr, config.Config), "erase repository %s", sr)
}

// alone checks a request and takes the repository for the caller.
func (m *Manager) alone(ctx context.Context, sr string, config client.RepositoryConfig, long string) (driver, func(), error) {
	if err := checkUUID(sr); err != nil {
		return nil, nil, err
	}
	d, err := m.driver(config)
	if err != nil {
		return nil, nil, err
	}
	release, err := m.locks.take(ctx, long, writes(sr)...)
	return d, release, err
}

// Attach makes a repository's volumes reachable.
func (m *Manager) Attach(ctx context.Context, sr string, config client.RepositoryConfig) (client.Repository, error) {
	if r := m.already(sr); r != nil && same(r.config, config) {
		return m.Repository(ctx, sr) // also while its volumes are worked on
	}
	_, release, err := m.alone(ctx, sr, config, "it is being attached")
	if err != nil {
		return client.Repository{}, err
	}
	defer release()
	r, err := m.find(ctx, sr)
	switch {
	case is(err, client.CodeNotAttached):
		if r, err = m.bringUp(ctx, sr, config); err != nil {
			return client.Repository{}, about(err, "attach repository %s", sr)
		}
		m.cfg.Log.Info("repository-attached", "sr", sr, "type", config.Type, "problem", r.problem)
	case err != nil:
		return client.Repository{}, about(err, "attach repository %s", sr)
	case !same(r.config, config):
		return client.Repository{}, elsewhere(sr)
	}
	return m.describe(ctx, r)
}

func elsewhere(sr string) error {
	return Fail(client.CodeConflict, "repository %s is attached with another config", sr)
}

func same(a, b client.RepositoryConfig) bool {
	return a.Type == b.Type && maps.Equal(a.Config, b.Config)
}

func (m *Manager) already(sr string) *repo {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.attached[sr]
}

// Detach lets go of a repository nobody uses.
func (m *Manager) Detach(ctx context.Context, sr string) error {
	if err := checkUUID(sr); err != nil {
		return err
	}
	release, err := m.locks.take(ctx, "it is being detached", writes(sr)...)
	if err != nil {
		return err
	}
	defer release()
	return m.letGo(ctx, sr)
}

// letGo detaches; the record goes last, so that a crash leaves work that is found
// and done again.
func (m *Manager) letGo(ctx context.Context, sr string) error {
	r, err := m.find(ctx, sr)
	if is(err, client.CodeNotAttached) {
		return nil
	}
	if err != nil {
		return m.forgetUnless(sr, err)
	}
	if active := m.active(sr); len(active) > 0 {
		return Fail(client.CodeInUse, "repository %s has active volumes, such as %s", sr, active[0])
	}
	if err := r.detach(ctx); err != nil {
		return about(err, "detach repository %s", sr)
	}
	m.cfg.Log.Info("repository-detached", "sr", sr)
	return m.forget(sr)
}

// forgetUnless drops a recorded repository that cannot be attached again, as its
// disk is gone, unless volumes are active, whose guests may still hold it.
func (m *Manager) forgetUnless(sr string, err error) error {
	if len(m.active(sr)) > 0 {
		return err
	}
	m.cfg.Log.Warn("repository-lost", "sr", sr, "err", err)
	return m.forget(sr)
}

func (m *Manager) forget(sr string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.attached, sr)
	delete(m.record, sr)
	return m.writeRecord()
}

// Repository describes one that is attached.
func (m *Manager) Repository(ctx context.Context, sr string) (client.Repository, error) {
	r, err := m.use(ctx, sr)
	if err != nil {
		return client.Repository{}, err
	}
	return m.describe(ctx, r)
}

// use finds an attached repository for a verb that does not change what is
// attached. Only when it must be attached anew, as after a restart of hostd, is
// there anything to lock; whoever needs it meanwhile waits.
func (m *Manager) use(ctx context.Context, sr string) (*repo, error) {
	if err := checkUUID(sr); err != nil {
		return nil, err
	}
	if r := m.already(sr); r != nil {
		return r, nil
	}
	release, err := m.locks.take(ctx, "", writes(sr)...)
	if err != nil {
		return nil, err
	}
	defer release()
	return m.find(ctx, sr)
}

func (m *Manager) describe(ctx context.Context, r *repo) (client.Repository, error) {
	s, err := r.space(ctx)
	return client.Repository{
		UUID: r.uuid, Type: r.config.Type, Config: r.config.Config, Path: r.path(),
		Total: s.total, Used: s.used, Free: s.free, ReadOnly: r.readOnly(), Problem: r.problem,
	}, about(err, "space of repository %s", r.uuid)
}
