package pool_test

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/certificate/certificatetest"
	"cairn/toolstack/db"
)

func (s *stack) files(kind string) []string {
	s.T.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, kind, "*"))
	must(s.T, err)
	return found
}

func (s *stack) list(method string) (names []string) {
	s.T.Helper()
	s.Must(&names, method)
	return names
}

// vouched reports whether a certificate is vouched for by what the pool trusts.
func (s *stack) vouched(a *certificatetest.Authority, purpose api.CertificatePurpose) bool {
	s.T.Helper()
	roots, err := s.m.Roots(purpose)
	must(s.T, err)
	c := a.Certificate()
	_, err = c.Verify(x509.VerifyOptions{Roots: roots})
	return err == nil
}

func TestCACertificates(t *testing.T) {
	s := newStack(t)
	a, b := certificatetest.New(t, certificatetest.Options{Name: "a"}), certificatetest.New(t, certificatetest.Options{Name: "b"})
	s.Must(nil, "pool.install_ca_certificate", "a.pem", a.PEM)
	s.Must(nil, "pool.certificate_install", "b.pem", b.PEM)
	if names := s.list("pool.certificate_list"); !slices.Equal(names, []string{"a.pem", "b.pem"}) {
		t.Errorf("names %v", names)
	}
	if !s.vouched(a, api.CertificatePurposeLdaps) || len(s.files("certificates")) != 2 {
		t.Error("an installed authority is not trusted")
	}
	s.Must(nil, "pool.certificate_sync")
	s.m = s.open(s.DB) // as after a restart
	if !s.vouched(b, api.CertificatePurposeLdaps) {
		t.Error("trust does not outlive a restart")
	}
	s.Must(nil, "pool.uninstall_ca_certificate", "a.pem")
	s.Must(nil, "pool.uninstall_ca_certificate", "a.pem", true)
	s.Must(nil, "pool.certificate_uninstall", "b.pem")
	if names := s.list("pool.certificate_list"); len(names) != 0 || len(s.files("certificates")) != 0 {
		t.Errorf("left are %v, %v", names, s.files("certificates"))
	}
	if s.vouched(a, api.CertificatePurposeLdaps) {
		t.Error("an uninstalled authority is trusted")
	}
	s.Covers("pool.install_ca_certificate", "pool.certificate_install", "pool.certificate_list", "pool.uninstall_ca_certificate",
		"pool.certificate_uninstall", "pool.certificate_sync")
}

func TestCertificatesRefused(t *testing.T) {
	s := newStack(t)
	now := time.Now()
	good := certificatetest.New(t, certificatetest.Options{Name: "good"})
	leaf := certificatetest.New(t, certificatetest.Options{Name: "leaf", Leaf: true})
	old := certificatetest.New(t, certificatetest.Options{Name: "old", NotAfter: now.Add(-time.Hour)})
	young := certificatetest.New(t, certificatetest.Options{Name: "young", NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour)})
	s.Must(nil, "pool.install_ca_certificate", "good", good.PEM)
	s.refused([]refusal{
		{"pool.install_ca_certificate", []any{"../x", good.PEM}, api.ErrCertificateNameInvalid("../x")},
		{"pool.install_ca_certificate", []any{"", good.PEM}, api.ErrCertificateNameInvalid("")},
		{"pool.install_ca_certificate", []any{"good", good.PEM}, api.ErrCertificateAlreadyExists("good")},
		{"pool.install_ca_certificate", []any{"x", "no PEM"}, api.ErrCertificateCorrupt("x")},
		{"pool.install_ca_certificate", []any{"x", good.KeyPEM}, api.ErrCertificateCorrupt("x")},
		{"pool.install_ca_certificate", []any{"x", leaf.PEM}, api.ErrCaCertificateInvalid()},
		{"pool.uninstall_ca_certificate", []any{"x"}, api.ErrCertificateDoesNotExist("x")},
		{"pool.uninstall_ca_certificate", []any{""}, api.ErrCertificateDoesNotExist("")},
		{"pool.install_trusted_certificate", []any{s.pool, true, leaf.PEM, []string{}}, api.ErrTrustedCertificateInvalid()},
		{"pool.install_trusted_certificate", []any{s.pool, false, "x", []string{}}, api.ErrTrustedCertificateInvalid()},
		{"pool.crl_install", []any{"a/b", good.CRL(t)}, api.ErrCRLNameInvalid("a/b")},
		{"pool.crl_install", []any{"x", good.PEM}, api.ErrCRLCorrupt("x")},
		{"pool.crl_uninstall", []any{"x"}, api.ErrCRLDoesNotExist("x")},
		{"pool.crl_uninstall", []any{".."}, api.ErrCRLNameInvalid("..")},
	}...)
	for code, c := range map[string]struct {
		method string
		args   []any
	}{
		api.CodeCaCertificateExpired:            {"pool.install_ca_certificate", []any{"x", old.PEM}},
		api.CodeCaCertificateNotValidYet:        {"pool.install_ca_certificate", []any{"x", young.PEM}},
		api.CodeTrustedCertificateExpired:       {"pool.install_trusted_certificate", []any{s.pool, true, old.PEM, []string{}}},
		api.CodeTrustedCertificateNotValidYet:   {"pool.install_trusted_certificate", []any{s.pool, true, young.PEM, []string{}}},
		api.CodeTrustedCertificateAlreadyExists: {"pool.install_trusted_certificate", []any{s.pool, true, good.PEM, []string{}}},
	} {
		_, err := s.Call(c.method, c.args...)
		var e *api.Error
		if !errors.As(err, &e) || e.Code != code || len(e.Params) == 0 {
			t.Errorf("%s: got %v, want %s", c.method, err, code)
		}
	}
	if names := s.list("pool.certificate_list"); !slices.Equal(names, []string{"good"}) || len(s.files("certificates")) != 1 || len(s.files("crls")) != 0 {
		t.Errorf("left are %v, %v, %v", names, s.files("certificates"), s.files("crls"))
	}
}

func TestTrustedCertificates(t *testing.T) {
	s := newStack(t)
	ca, peer := certificatetest.New(t, certificatetest.Options{Name: "ca"}), certificatetest.New(t, certificatetest.Options{Name: "peer", Leaf: true})
	s.Must(nil, "pool.install_trusted_certificate", s.pool, true, ca.PEM, []string{"ldaps"})
	s.Must(nil, "pool.install_trusted_certificate", s.pool, false, peer.PEM, []string{"licensing"})
	if !s.vouched(ca, api.CertificatePurposeLdaps) || s.vouched(ca, api.CertificatePurposeLicensing) || s.vouched(peer, api.CertificatePurposeLicensing) {
		t.Error("trust is not bound to its purpose")
	}
	var pinned, own api.CertificateRef
	for ref, c := range db.All[api.Certificate](s.DB.Snapshot()) {
		if c.Type == api.CertificateTypePinned {
			pinned = ref
		}
	}
	must(t, s.DB.Update(t.Context(), func(tx *db.Tx) error {
		c := api.NewCertificate()
		c.Type, c.Host = api.CertificateTypeHost, s.host
		own = db.Insert(tx, c)
		return nil
	}))
	s.refused(refusal{"pool.uninstall_trusted_certificate", []any{s.pool, own}, api.ErrNotTrustedCertificate(own.String())})
	s.Must(nil, "pool.uninstall_trusted_certificate", s.pool, pinned)
	if len(s.files("certificates")) != 1 {
		t.Errorf("left are %v", s.files("certificates"))
	}
	s.Covers("pool.install_trusted_certificate", "pool.uninstall_trusted_certificate")
}

func TestRevocationLists(t *testing.T) {
	s := newStack(t)
	crl := certificatetest.New(t, certificatetest.Options{Name: "a"}).CRL(t)
	s.Must(nil, "pool.crl_install", "a", crl)
	s.refused(refusal{"pool.crl_install", []any{"a", crl}, api.ErrCRLAlreadyExists("a")})
	if names := s.list("pool.crl_list"); !slices.Equal(names, []string{"a"}) {
		t.Errorf("lists %v", names)
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "crls", "a.pem"))
	if err != nil || string(text) != crl {
		t.Errorf("the list is not kept: %v", err)
	}
	s.Must(nil, "pool.crl_uninstall", "a")
	if names := s.list("pool.crl_list"); len(names) != 0 {
		t.Errorf("lists %v", names)
	}
	s.Covers("pool.crl_install", "pool.crl_list", "pool.crl_uninstall")
}

// TestDamagedLibrary: a text that is not its row's is noticed, one without a row
// goes.
func TestDamagedLibrary(t *testing.T) {
	s := newStack(t)
	a, b := certificatetest.New(t, certificatetest.Options{Name: "a"}), certificatetest.New(t, certificatetest.Options{Name: "b"})
	s.Must(nil, "pool.install_ca_certificate", "a", a.PEM)
	file := s.files("certificates")[0]
	must(t, os.WriteFile(file, []byte(b.PEM), 0o600))
	s.refused(refusal{"pool.certificate_sync", nil, api.ErrCertificateLibraryCorrupt()})
	must(t, os.Remove(file))
	s.refused(refusal{"pool.certificate_sync", nil, api.ErrCertificateLibraryCorrupt()})
	must(t, os.WriteFile(file, []byte(a.PEM), 0o600))
	must(t, os.WriteFile(strings.Replace(file, ".pem", "0.pem", 1), []byte(b.PEM), 0o600))
	s.Must(nil, "pool.certificate_sync")
	if left := s.files("certificates"); !slices.Equal(left, []string{file}) {
		t.Errorf("left are %v", left)
	}
}
