package pool

import (
	"context"
	"crypto/x509"
	"fmt"
	"regexp"
	"slices"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/certificate"
	"cairn/toolstack/db"
)

// registerCertificates binds the certificates and revocation lists a pool trusts
// when it calls others: directories, repositories, other pools.
func (m *Manager) registerCertificates(r *api.Registry) {
	api.HandlePoolCertificateInstall(r, m.installCA)
	api.HandlePoolInstallCaCertificate(r, m.installCA)
	api.HandlePoolCertificateUninstall(r, func(c *api.Call, name string) error { return m.uninstallCA(c, name, false) })
	api.HandlePoolUninstallCaCertificate(r, m.uninstallCA)
	api.HandlePoolCertificateList(r, m.listCA)
	api.HandlePoolInstallTrustedCertificate(r, m.installTrusted)
	api.HandlePoolUninstallTrustedCertificate(r, m.uninstallTrusted)
	api.HandlePoolCertificateSync(r, func(*api.Call) error { return m.checkLibrary() })
	api.HandlePoolCRLInstall(r, m.installCRL)
	api.HandlePoolCRLUninstall(r, m.uninstallCRL)
	api.HandlePoolCRLList(r, func(*api.Call) ([]string, error) { return m.store.names(lists) })
}

// fileName is what a certificate may be called: it is a file's name for clients.
var fileName = regexp.MustCompile(`^[0-9A-Za-z_-][0-9A-Za-z._-]{0,127}$`)

// faults are the errors of one way to install a certificate.
type faults struct {
	invalid        func() *api.Error
	early, expired func(now, limit string) *api.Error
}

// check accepts a certificate that is valid now.
func (f faults) check(pem string) (*x509.Certificate, error) {
	c, err := certificate.Parse(pem)
	if err != nil {
		return nil, f.invalid()
	}
	now := time.Now().UTC()
	switch text := now.Format(api.TimeLayout); {
	case now.Before(c.NotBefore):
		return nil, f.early(text, c.NotBefore.UTC().Format(api.TimeLayout))
	case now.After(c.NotAfter):
		return nil, f.expired(text, c.NotAfter.UTC().Format(api.TimeLayout))
	}
	return c, nil
}

func (m *Manager) installCA(c *api.Call, name, pem string) error {
	if !fileName.MatchString(name) {
		return api.ErrCertificateNameInvalid(name)
	}
	cert, err := faults{
		invalid: func() *api.Error { return api.ErrCertificateCorrupt(name) },
		early:   func(now, limit string) *api.Error { return api.ErrCaCertificateNotValidYet(now, limit) },
		expired: func(now, limit string) *api.Error { return api.ErrCaCertificateExpired(now, limit) },
	}.check(pem)
	if err != nil {
		return err
	}
	if !cert.IsCA {
		return api.ErrCaCertificateInvalid()
	}
	row := certificate.Record(cert)
	row.Name, row.Type = name, api.CertificateTypeCa
	return m.install(c, row, cert, func(old *api.Certificate) error {
		if old.Name == name {
			return api.ErrCertificateAlreadyExists(name)
		}
		return nil
	})
}

func (m *Manager) installTrusted(c *api.Call, ref api.PoolRef, ca bool, pem string, purposes []api.CertificatePurpose) error {
	if err := m.there(ref); err != nil {
		return err
	}
	cert, err := faults{
		invalid: api.ErrTrustedCertificateInvalid, early: api.ErrTrustedCertificateNotValidYet, expired: api.ErrTrustedCertificateExpired,
	}.check(pem)
	if err != nil {
		return err
	}
	if ca && !cert.IsCA {
		return api.ErrTrustedCertificateInvalid()
	}
	row := certificate.Record(cert)
	row.Type, row.Purpose = api.CertificateTypePinned, purposes
	if ca {
		row.Type = api.CertificateTypeCa
	}
	return m.install(c, row, cert, func(old *api.Certificate) error {
		if old.FingerprintSha256 == row.FingerprintSha256 {
			return api.ErrTrustedCertificateAlreadyExists(row.FingerprintSha256)
		}
		return nil
	})
}

// install writes text, then row. clash is asked about each trusted certificate.
func (m *Manager) install(ctx context.Context, row *api.Certificate, cert *x509.Certificate, clash func(*api.Certificate) error) error {
	m.files.Lock()
	defer m.files.Unlock()
	for _, old := range trusted(m.cfg.DB.Snapshot()) {
		if err := clash(old); err != nil {
			return err
		}
	}
	if err := m.store.put(certificates, row.UUID, certificate.PEM(cert)); err != nil {
		return fmt.Errorf("certificate %s: %w", row.UUID, err)
	}
	err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error { db.Insert(tx, row); return nil })
	if err == nil {
		m.cfg.Log.Info("certificate-trusted", "uuid", row.UUID, "name", row.Name, "sha256", row.FingerprintSha256)
	}
	return err
}

// trusted are the rows of certificates that the pool trusts others by.
func trusted(r db.Reader) map[api.CertificateRef]*api.Certificate {
	found := map[api.CertificateRef]*api.Certificate{}
	for ref, c := range db.All[api.Certificate](r) {
		if c.Type == api.CertificateTypeCa || c.Type == api.CertificateTypePinned {
			found[ref] = c
		}
	}
	return found
}

func (m *Manager) uninstallCA(c *api.Call, name string, force bool) error {
	for ref, row := range trusted(m.cfg.DB.Snapshot()) {
		if row.Name == name && name != "" {
			return m.uninstall(c, ref)
		}
	}
	if force {
		return nil
	}
	return api.ErrCertificateDoesNotExist(name)
}

func (m *Manager) uninstallTrusted(c *api.Call, ref api.PoolRef, cert api.CertificateRef) error {
	if err := m.there(ref); err != nil {
		return err
	}
	snap := m.cfg.DB.Snapshot()
	if _, err := db.Get(snap, cert); err != nil {
		return err
	}
	if trusted(snap)[cert] == nil {
		return api.ErrNotTrustedCertificate(cert.String())
	}
	return m.uninstall(c, cert)
}

// uninstall removes row, then text.
func (m *Manager) uninstall(ctx context.Context, ref api.CertificateRef) error {
	m.files.Lock()
	defer m.files.Unlock()
	row, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return err
	}
	if err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error { return db.Delete(tx, ref) }); err != nil {
		return err
	}
	m.cfg.Log.Info("certificate-no-longer-trusted", "uuid", row.UUID, "name", row.Name)
	return m.store.remove(certificates, row.UUID)
}

// listCA are the names of those that were installed under one.
func (m *Manager) listCA(*api.Call) ([]string, error) {
	names := []string{}
	for _, c := range trusted(m.cfg.DB.Snapshot()) {
		if c.Name != "" {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (m *Manager) installCRL(_ *api.Call, name, text string) error {
	if !fileName.MatchString(name) {
		return api.ErrCRLNameInvalid(name)
	}
	if _, err := certificate.ParseCRL(text); err != nil {
		return api.ErrCRLCorrupt(name)
	}
	m.files.Lock()
	defer m.files.Unlock()
	if _, err := m.store.get(lists, name); err == nil {
		return api.ErrCRLAlreadyExists(name)
	}
	return m.store.put(lists, name, text)
}

func (m *Manager) uninstallCRL(_ *api.Call, name string) error {
	if !fileName.MatchString(name) {
		return api.ErrCRLNameInvalid(name)
	}
	m.files.Lock()
	defer m.files.Unlock()
	if _, err := m.store.get(lists, name); err != nil {
		return api.ErrCRLDoesNotExist(name)
	}
	return m.store.remove(lists, name)
}
