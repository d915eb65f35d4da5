package host

import (
	"context"
	"fmt"

	"cairn/toolstack/api"
	"cairn/toolstack/certificate"
	"cairn/toolstack/db"
)

// Present records the certificate that this host shows its clients.
func (m *Manager) Present(ctx context.Context, pem []byte) error {
	c, err := certificate.Parse(string(pem))
	if err != nil {
		return fmt.Errorf("host certificate: %w", err)
	}
	fresh := certificate.Record(c)
	err = m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		there := false
		for ref, old := range db.All[api.Certificate](tx) {
			switch {
			case old.Host != m.Ref() || old.Type != api.CertificateTypeHost:
			case old.FingerprintSha256 == fresh.FingerprintSha256:
				there = true
			default:
				if err := db.Delete(tx, ref); err != nil {
					return err
				}
			}
		}
		if there {
			return errUnchanged
		}
		fresh.Type, fresh.Host = api.CertificateTypeHost, m.Ref()
		db.Insert(tx, fresh)
		return nil
	})
	if err != nil && err != errUnchanged {
		return fmt.Errorf("host certificate: %w", err)
	}
	m.face.Store(&pem)
	return nil
}

// serverCertificate answers what Present was given.
func (m *Manager) serverCertificate(_ *api.Call, ref api.HostRef) (string, error) {
	if err := m.isThis(ref); err != nil {
		return "", err
	}
	if pem := m.face.Load(); pem != nil {
		return string(*pem), nil
	}
	return "", api.ErrCertificateDoesNotExist("host")
}
