package pool

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/certificate"
	"cairn/toolstack/db"
)

// registerUpdates binds where updates come from and when they are looked for.
func (m *Manager) registerUpdates(r *api.Registry) {
	api.HandleRepositoryIntroduce(r, m.introduce)
	api.HandleRepositoryIntroduceBundle(r, m.introduceBundle)
	api.HandleRepositoryIntroduceRemotePool(r, m.introduceRemotePool)
	api.HandleRepositorySetGpgkeyPath(r, m.setKeyPath)
	api.HandleRepositoryForget(r, m.forgetRepository)
	api.HandlePoolSetRepositories(r, m.setRepositories)
	api.HandlePoolAddRepository(r, func(c *api.Call, ref api.PoolRef, value api.RepositoryRef) error {
		return m.changeRepositories(c, ref, func(have []api.RepositoryRef) []api.RepositoryRef {
			return append(slices.DeleteFunc(have, func(r api.RepositoryRef) bool { return r == value }), value)
		})
	})
	api.HandlePoolRemoveRepository(r, func(c *api.Call, ref api.PoolRef, value api.RepositoryRef) error {
		return m.changeRepositories(c, ref, func(have []api.RepositoryRef) []api.RepositoryRef {
			return slices.DeleteFunc(have, func(r api.RepositoryRef) bool { return r == value })
		})
	})
	api.HandlePoolConfigureRepositoryProxy(r, m.configureProxy)
	api.HandlePoolDisableRepositoryProxy(r, func(c *api.Call, ref api.PoolRef) error {
		return m.edit(c, ref, func(tx *db.Tx, p *api.Pool) error { return setProxy(tx, p, "", "", "") })
	})
	api.HandlePoolConfigureUpdateSync(r, m.configureSync)
	api.HandlePoolSetUpdateSyncEnabled(r, m.enableSync)
}

// checkURL accepts what updates can be fetched from.
func checkURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && u.Fragment == ""
}

// keyPath is a file name: keys lie in one directory.
var keyPath = regexp.MustCompile(`^[0-9A-Za-z_-][0-9A-Za-z._-]{0,63}$`)

func (m *Manager) introduce(c *api.Call, name, description, binary, source string, update bool, key string) (api.RepositoryRef, error) {
	for _, u := range []string{binary, source} {
		if !checkURL(u) {
			return "", api.ErrInvalidBaseURL(u)
		}
	}
	if key != "" && !keyPath.MatchString(key) {
		return "", api.ErrInvalidGpgkeyPath(key)
	}
	return m.addRepository(c, &api.Repository{
		NameLabel: name, NameDescription: description, BinaryURL: binary, SourceURL: source, Update: update,
		GpgkeyPath: key, Origin: api.OriginRemote,
	})
}

func (m *Manager) introduceBundle(c *api.Call, name, description string) (api.RepositoryRef, error) {
	return m.addRepository(c, &api.Repository{NameLabel: name, NameDescription: description, Update: true, Origin: api.OriginBundle})
}

func (m *Manager) introduceRemotePool(c *api.Call, name, description, binary, pem string) (api.RepositoryRef, error) {
	if !checkURL(binary) {
		return "", api.ErrInvalidBaseURL(binary)
	}
	if _, err := certificate.Parse(pem); err != nil {
		return "", api.ErrCertificateCorrupt(name)
	}
	return m.addRepository(c, &api.Repository{
		NameLabel: name, NameDescription: description, BinaryURL: binary, Update: true, Origin: api.OriginRemotePool, Certificate: pem,
	})
}

// addRepository refuses a second one of the same place; there is one bundle.
func (m *Manager) addRepository(c *api.Call, r *api.Repository) (ref api.RepositoryRef, err error) {
	r.UUID = api.NewUUID()
	err = m.cfg.DB.Update(c, func(tx *db.Tx) error {
		for other, old := range db.All[api.Repository](tx) {
			switch {
			case old.Origin == api.OriginBundle && r.Origin == api.OriginBundle:
				return api.ErrBundleRepositoryAlreadyExists(other.String())
			case old.NameLabel == r.NameLabel, old.Origin == r.Origin && old.BinaryURL == r.BinaryURL:
				return api.ErrRepositoryAlreadyExists(other.String())
			}
		}
		ref = db.Insert(tx, r)
		return nil
	})
	return ref, err
}

func (m *Manager) setKeyPath(c *api.Call, ref api.RepositoryRef, value string) error {
	return db.Modify(c, m.cfg.DB, ref, func(_ *db.Tx, r *api.Repository) error {
		if value != "" && !keyPath.MatchString(value) {
			return api.ErrInvalidGpgkeyPath(value)
		}
		r.GpgkeyPath = value
		return nil
	})
}

func (m *Manager) forgetRepository(c *api.Call, ref api.RepositoryRef) error {
	return m.cfg.DB.Update(c, func(tx *db.Tx) error {
		_, p, err := the(tx)
		if err != nil {
			return err
		}
		if slices.Contains(p.Repositories, ref) {
			return api.ErrRepositoryIsInUse()
		}
		return db.Delete(tx, ref)
	})
}

func (m *Manager) setRepositories(c *api.Call, ref api.PoolRef, value []api.RepositoryRef) error {
	return m.changeRepositories(c, ref, func([]api.RepositoryRef) []api.RepositoryRef { return slices.Clone(value) })
}

// changeRepositories: what was synchronized came from others, so it counts no
// more; and nothing can be synchronized from nowhere.
func (m *Manager) changeRepositories(c *api.Call, ref api.PoolRef, change func([]api.RepositoryRef) []api.RepositoryRef) error {
	return m.edit(c, ref, func(tx *db.Tx, p *api.Pool) error {
		before := slices.Clone(p.Repositories)
		wanted := change(slices.Clone(p.Repositories))
		for _, r := range wanted {
			if _, err := db.Get(tx, r); err != nil {
				return err
			}
		}
		p.Repositories = wanted
		if !slices.Equal(before, wanted) {
			p.LastUpdateSync = time.Time{}
		}
		if canSync(tx, p) != nil {
			p.UpdateSyncEnabled = false
		}
		return nil
	})
}

// canSync says why updates cannot be looked for from time to time: a bundle is
// brought by hand.
func canSync(r db.Reader, p *api.Pool) error {
	if len(p.Repositories) == 0 {
		return api.ErrNoRepositoriesConfigured()
	}
	for _, ref := range p.Repositories {
		if repo, err := db.Get(r, ref); err == nil && repo.Origin == api.OriginBundle {
			return api.ErrCanNotPeriodicSyncUpdates()
		}
	}
	return nil
}

func (m *Manager) enableSync(c *api.Call, ref api.PoolRef, value bool) error {
	return m.edit(c, ref, func(tx *db.Tx, p *api.Pool) error {
		if value {
			if err := canSync(tx, p); err != nil {
				return err
			}
		}
		p.UpdateSyncEnabled = value
		return nil
	})
}

// configureSync: days of the week count from 0, Sunday; every day has no number.
func (m *Manager) configureSync(c *api.Call, ref api.PoolRef, frequency api.UpdateSyncFrequency, day int64) error {
	return m.edit(c, ref, func(_ *db.Tx, p *api.Pool) error {
		if day < 0 || day > 6 || frequency == api.UpdateSyncFrequencyDaily && day != 0 {
			return api.ErrInvalidUpdateSyncDay(strconv.FormatInt(day, 10))
		}
		p.UpdateSyncFrequency, p.UpdateSyncDay = frequency, day
		return nil
	})
}

func (m *Manager) configureProxy(c *api.Call, ref api.PoolRef, proxy, user, password string) error {
	if !checkURL(proxy) {
		return api.ErrInvalidRepositoryProxyURL(proxy)
	}
	if (user == "") != (password == "") {
		return api.ErrInvalidRepositoryProxyCredential()
	}
	return m.edit(c, ref, func(tx *db.Tx, p *api.Pool) error { return setProxy(tx, p, proxy, user, password) })
}

// setProxy keeps the password as a secret, and the former one no longer.
func setProxy(tx *db.Tx, p *api.Pool, proxy, user, password string) error {
	if err := forget(tx, p.RepositoryProxyPassword); err != nil {
		return err
	}
	p.RepositoryProxyURL, p.RepositoryProxyUsername, p.RepositoryProxyPassword = proxy, user, ""
	if password != "" {
		p.RepositoryProxyPassword = keep(tx, password)
	}
	return nil
}
