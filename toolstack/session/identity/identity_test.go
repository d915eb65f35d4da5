package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func mustLoad(t *testing.T, dir string, o Options) (*tls.Config, *Identity) {
	t.Helper()
	c, id, err := Load(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return c, id
}

func TestIdentityIsMadeOnceAndServes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	names := Options{Names: []string{"cairn-1", "10.0.0.7"}}
	_, first := mustLoad(t, dir, names)
	cfg, again := mustLoad(t, dir, names)
	if !bytes.Equal(first.HostPEM, again.HostPEM) || first.Fingerprint() != again.Fingerprint() {
		t.Error("the host certificate changed over a restart")
	}
	if info, err := os.Stat(filepath.Join(dir, hostKeyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(first.CAPEM)
	for _, name := range []string{"cairn-1", "10.0.0.7"} {
		if err := handshake(cfg, &tls.Config{RootCAs: pool, ServerName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if handshake(cfg, &tls.Config{RootCAs: pool, ServerName: "cairn-1", MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}) == nil {
		t.Error("TLS 1.1 is accepted")
	}
}

func handshake(server, client *tls.Config) error {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go tls.Server(a, server).Handshake()
	return tls.Client(b, client).Handshake()
}

func TestNewNamesGetANewHostCertificateOfTheSameAuthority(t *testing.T) {
	dir := t.TempDir()
	_, first := mustLoad(t, dir, Options{Names: []string{"a"}})
	_, second := mustLoad(t, dir, Options{Names: []string{"a", "10.0.0.8"}})
	if bytes.Equal(first.HostPEM, second.HostPEM) || !bytes.Equal(first.CAPEM, second.CAPEM) {
		t.Error("want a new host certificate and the same authority")
	}
	later := Options{Names: []string{"a"}, Now: func() time.Time { return time.Now().Add(lifetime - renewBefore/2) }}
	if _, third := mustLoad(t, dir, later); bytes.Equal(second.HostPEM, third.HostPEM) {
		t.Error("a certificate about to expire was kept")
	}
}

func TestDamagedIdentityIsAnError(t *testing.T) {
	dir := t.TempDir()
	mustLoad(t, dir, Options{})
	if err := os.WriteFile(filepath.Join(dir, caFile), []byte("rubbish"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(dir, Options{}); err == nil {
		t.Error("a damaged authority was replaced without a word")
	}
}

// TestHalfRenewedHostPairIsReplaced: the power went between the new key and its
// certificate, or took the certificate's bytes.
func TestHalfRenewedHostPairIsReplaced(t *testing.T) {
	for name, damage := range map[string]func(old []byte) []byte{
		"the old certificate beside the new key": func(old []byte) []byte { return old },
		"an empty certificate":                   func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			mustLoad(t, dir, Options{Names: []string{"a"}})
			old, err := os.ReadFile(filepath.Join(dir, hostFile))
			if err != nil {
				t.Fatal(err)
			}
			_, second := mustLoad(t, dir, Options{Names: []string{"b"}})
			if err := os.WriteFile(filepath.Join(dir, hostFile), damage(old), 0o644); err != nil {
				t.Fatal(err)
			}
			cfg, third := mustLoad(t, dir, Options{Names: []string{"b"}})
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(second.CAPEM)
			if err := handshake(cfg, &tls.Config{RootCAs: pool, ServerName: "b"}); err != nil || !bytes.Equal(second.CAPEM, third.CAPEM) {
				t.Errorf("the new pair does not serve: %v", err)
			}
		})
	}
}
