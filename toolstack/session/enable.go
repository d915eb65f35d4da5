package session

import (
	"context"
	"errors"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Settings that are secrets are kept as objects of class secret; the
// configuration of a host holds their uuids under the setting's name and this.
const secretSuffix = "_secret"

// secretSettings are the settings nobody may read back.
var secretSettings = []string{"bind_password", "pass"}

func (m *Manager) registerDirectory(r *api.Registry) {
	api.HandlePoolEnableExternalAuth(r, m.enablePool)
	api.HandlePoolDisableExternalAuth(r, m.disablePool)
	api.HandleHostEnableExternalAuth(r, m.enableHost)
	api.HandleHostDisableExternalAuth(r, func(c *api.Call, host api.HostRef, _ map[string]string, _ bool) error {
		return m.disable(c, host)
	})
	api.HandleAuthGetSubjectIdentifier(r, func(c *api.Call, name string) (sid string, err error) {
		err = m.ask(c, func(ctx context.Context, e External) error {
			sid, err = e.Lookup(ctx, name)
			return err
		})
		return sid, err
	})
	api.HandleAuthGetSubjectInformationFromIdentifier(r, func(c *api.Call, sid string) (about map[string]string, err error) {
		err = m.ask(c, func(ctx context.Context, e External) error {
			about, err = e.Information(ctx, sid)
			return err
		})
		return about, err
	})
	api.HandleAuthGetGroupMembership(r, func(c *api.Call, sid string) (groups []string, err error) {
		err = m.ask(c, func(ctx context.Context, e External) error {
			groups, err = e.Groups(ctx, sid)
			return err
		})
		return groups, err
	})
}

// ask asks the directory in use for a client.
func (m *Manager) ask(c *api.Call, question func(context.Context, External) error) error {
	ctx, cancel := context.WithTimeout(c, askTimeout)
	defer cancel()
	e, err := m.external(ctx)
	switch {
	case err == nil && e == nil:
		return api.ErrAuthIsDisabled()
	case err == nil:
		err = question(ctx, e)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoSubject):
		return api.ErrSubjectCannotBeResolved()
	}
	m.cfg.Log.Error("directory-unreachable", "err", err)
	return api.ErrAuthServiceError(err.Error())
}

// enablePool turns external authentication on for all hosts. It is tried here
// first, so that a mistake changes nothing.
func (m *Manager) enablePool(c *api.Call, pool api.PoolRef, config map[string]string, service, kind string) error {
	snap := m.cfg.DB.Snapshot()
	if _, err := db.Get(snap, pool); err != nil {
		return err
	}
	var hosts []api.HostRef
	for ref, h := range db.All[api.Host](snap) {
		if h.ExternalAuthType != "" {
			return api.ErrPoolAuthAlreadyEnabled(ref.String())
		}
		hosts = append(hosts, ref)
	}
	err := m.enable(c, hosts, config, service, kind)
	var known *api.Error
	if errors.As(err, &known) && strings.HasPrefix(known.Code, api.CodeAuthEnableFailed) {
		return &api.Error{Code: "POOL_" + known.Code, Params: append([]string{m.cfg.ThisHost().String()}, known.Params...)}
	}
	return err
}

func (m *Manager) enableHost(c *api.Call, host api.HostRef, config map[string]string, service, kind string) error {
	h, err := db.Get(m.cfg.DB.Snapshot(), host)
	if err != nil {
		return err
	}
	if h.ExternalAuthType != "" {
		return api.ErrAuthAlreadyEnabled(h.ExternalAuthType, h.ExternalAuthServiceName)
	}
	return m.enable(c, []api.HostRef{host}, config, service, kind)
}

// enable tries a directory and writes it into the rows of hosts.
func (m *Manager) enable(c *api.Call, hosts []api.HostRef, config map[string]string, service, kind string) error {
	open := m.cfg.Directories[kind]
	if open == nil {
		return api.ErrAuthUnknownType(kind)
	}
	ctx, cancel := context.WithTimeout(c, askTimeout)
	defer cancel()
	for k := range config {
		if strings.HasSuffix(k, secretSuffix) {
			return api.ErrAuthEnableFailed(k + ": give the secret itself")
		}
	}
	if _, err := open(ctx, service, config); err != nil {
		m.cfg.Log.Warn("directory-refused", "type", kind, "service", service, "err", err)
		return enableFailed(err)
	}
	err := m.cfg.DB.Update(c, func(tx *db.Tx) error {
		for _, ref := range hosts {
			h, err := db.Edit(tx, ref)
			if err != nil {
				return err
			}
			if h.ExternalAuthType != "" { // by somebody else, meanwhile
				return api.ErrAuthAlreadyEnabled(h.ExternalAuthType, h.ExternalAuthServiceName)
			}
			h.ExternalAuthType, h.ExternalAuthServiceName = kind, service
			h.ExternalAuthConfiguration = conceal(tx, config)
		}
		return nil
	})
	if err == nil {
		m.cfg.Log.Info("directory-enabled", "type", kind, "service", service, "hosts", len(hosts))
	}
	return err
}

// enableFailed says what is wrong with a directory in the terms of the API.
func enableFailed(err error) error {
	switch {
	case errors.Is(err, ErrCredentials):
		return api.ErrAuthEnableFailedWrongCredentials(err.Error())
	case errors.Is(err, ErrTrust):
		return api.ErrAuthEnableFailedInvalidTrustedCerts(err.Error())
	case errors.Is(err, ErrSettings):
		return api.ErrAuthEnableFailed(err.Error())
	}
	return api.ErrAuthEnableFailedUnavailable(err.Error())
}

// conceal replaces secrets by the uuids of objects that hold them.
func conceal(tx *db.Tx, config map[string]string) map[string]string {
	public := map[string]string{}
	for k, v := range config {
		public[k] = v
	}
	for _, name := range secretSettings {
		value, ok := config[name]
		if !ok {
			continue
		}
		s := api.NewSecret()
		s.UUID, s.Value = api.NewUUID(), value
		db.Insert(tx, s)
		delete(public, name)
		public[name+secretSuffix] = s.UUID
	}
	return public
}

// reveal is the inverse of conceal.
func (m *Manager) reveal(config map[string]string) (map[string]string, error) {
	snap := m.cfg.DB.Snapshot()
	plain := map[string]string{}
	for k, v := range config {
		name, ok := strings.CutSuffix(k, secretSuffix)
		if !ok {
			plain[k] = v
			continue
		}
		ref, err := db.ByUUID[api.Secret](snap, v)
		if err != nil {
			return nil, err
		}
		s, err := db.Get(snap, ref)
		if err != nil {
			return nil, err
		}
		plain[name] = s.Value
	}
	return plain, nil
}

func (m *Manager) disablePool(c *api.Call, pool api.PoolRef, _ map[string]string) error {
	snap := m.cfg.DB.Snapshot()
	if _, err := db.Get(snap, pool); err != nil {
		return err
	}
	var hosts []api.HostRef
	for ref := range db.All[api.Host](snap) {
		hosts = append(hosts, ref)
	}
	return m.disable(c, hosts...)
}

// disable turns external authentication off; where it is off that is no
// mistake. Whoever came by it is logged out.
func (m *Manager) disable(c *api.Call, hosts ...api.HostRef) error {
	here := false
	err := m.cfg.DB.Update(c, func(tx *db.Tx) error {
		for _, ref := range hosts {
			h, err := db.Edit(tx, ref)
			if err != nil {
				return err
			}
			here = here || ref == m.cfg.ThisHost()
			for k, v := range h.ExternalAuthConfiguration {
				if strings.HasSuffix(k, secretSuffix) {
					if s, err := db.ByUUID[api.Secret](tx, v); err == nil {
						db.Delete(tx, s)
					}
				}
			}
			h.ExternalAuthType, h.ExternalAuthServiceName, h.ExternalAuthConfiguration = "", "", nil
		}
		return nil
	})
	if err != nil || !here {
		return err
	}
	n := m.closeWhere(func(_ api.SessionRef, s *state) bool { return s.sid != "" })
	m.cfg.Log.Info("directory-disabled", "hosts", len(hosts), "sessions-closed", n)
	return nil
}
