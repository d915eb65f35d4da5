package pool

import (
	"crypto/x509"
	"slices"

	"cairn/toolstack/api"
	"cairn/toolstack/certificate"
)

// Roots are the authorities that somebody who is called for a purpose may be
// vouched for by: those trusted for it, and those trusted for anything.
func (m *Manager) Roots(purpose api.CertificatePurpose) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for _, row := range trusted(m.cfg.DB.Snapshot()) {
		if row.Type != api.CertificateTypeCa || len(row.Purpose) > 0 && !slices.Contains(row.Purpose, purpose) {
			continue
		}
		c, err := m.load(row)
		if err != nil {
			return nil, err
		}
		pool.AddCert(c)
	}
	return pool, nil
}

// load reads a certificate's text and compares it with the row.
func (m *Manager) load(row *api.Certificate) (*x509.Certificate, error) {
	text, err := m.store.get(certificates, row.UUID)
	if err != nil {
		return nil, api.ErrCertificateLibraryCorrupt()
	}
	c, err := certificate.Parse(text)
	if err != nil || certificate.Fingerprint(c) != row.FingerprintSha256 {
		return nil, api.ErrCertificateLibraryCorrupt()
	}
	return c, nil
}

// checkLibrary makes sure that every row has its text and every list is one.
// Copies for other hosts are made when they join.
func (m *Manager) checkLibrary() error {
	m.files.Lock()
	defer m.files.Unlock()
	for _, row := range trusted(m.cfg.DB.Snapshot()) {
		if _, err := m.load(row); err != nil {
			return err
		}
	}
	names, err := m.store.names(lists)
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := m.store.get(lists, name)
		if err != nil {
			return err
		}
		if _, err := certificate.ParseCRL(text); err != nil {
			return api.ErrCertificateLibraryCorrupt()
		}
	}
	return m.sweep()
}

// sweep removes texts that no row is about.
func (m *Manager) sweep() error {
	kept := map[string]bool{}
	for _, row := range trusted(m.cfg.DB.Snapshot()) {
		kept[row.UUID] = true
	}
	names, err := m.store.names(certificates)
	if err != nil {
		return err
	}
	for _, name := range names {
		if kept[name] {
			continue
		}
		m.cfg.Log.Warn("certificate-without-row", "uuid", name)
		if err := m.store.remove(certificates, name); err != nil {
			return err
		}
	}
	return nil
}
