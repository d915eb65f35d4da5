package xe

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn/toolstack/session/identity"
)

// serveTLS is a host that only shakes hands, with an identity of its own.
func serveTLS(t *testing.T) (addr string, id *identity.Identity) {
	t.Helper()
	cfg, id, err := identity.Load(t.TempDir(), identity.Options{Names: []string{"host.example", "127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String(), id
}

func shake(t *testing.T, addr string, cfg *tls.Config) error {
	t.Helper()
	c, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", addr)
	if err == nil {
		c.Close()
	}
	return err
}

// runner is a session with a home, as for a remote host.
func runner(t *testing.T, server string) *session {
	t.Helper()
	home := t.TempDir()
	s := &session{cfg: Config{Getenv: func(string) string { return home }}, in: strings.NewReader("yes\n"), errOut: new(strings.Builder)}
	s.Settings = defaults()
	s.Server = server
	return s
}

func TestPinnedCertificates(t *testing.T) {
	addr, id := serveTLS(t)
	other, _ := serveTLS(t)
	chain, err := showCertificates(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	if got := fingerprintOf(chain[0]); got != id.Fingerprint() {
		t.Errorf("fingerprint %s, the host says %s", got, id.Fingerprint())
	}
	authority := fingerprintOf(chain[len(chain)-1])
	for _, pin := range []string{id.Fingerprint(), authority, strings.ToLower(strings.ReplaceAll(authority, ":", "")), "SHA256:" + authority} {
		if err := shake(t, addr, pinned(pin)); err != nil {
			t.Errorf("pin %s: %v", pin, err)
		}
		if err := shake(t, other, pinned(pin)); !errors.Is(err, errNotThatHost) {
			t.Errorf("pin %s lets another host through: %v", pin, err)
		}
	}
	if err := shake(t, addr, pinned("")); err == nil {
		t.Error("an empty pin lets a host through")
	}
}

func TestAuthoritiesFromAFile(t *testing.T) {
	addr, id := serveTLS(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, id.CAPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := authorities(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := shake(t, addr, cfg); err != nil {
		t.Error(err)
	}
	if other, _ := serveTLS(t); shake(t, other, cfg) == nil {
		t.Error("a host of another authority is let through")
	}
	for name, text := range map[string]string{"none": "", "no certificate": "hello"} {
		file := filepath.Join(t.TempDir(), "x")
		if text != "" {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := authorities(file); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestWhomIsTrusted(t *testing.T) {
	addr, id := serveTLS(t)
	_, port, _ := net.SplitHostPort(addr)
	for _, server := range []string{"", "localhost", "127.0.0.1", "::1"} {
		cfg, err := runner(t, server).trust(t.Context())
		if err != nil || !cfg.InsecureSkipVerify || cfg.VerifyConnection != nil {
			t.Errorf("%q is this machine, but %v", server, err)
		}
	}
	s := runner(t, "host.example")
	if err := s.set("port", port); err != nil {
		t.Fatal(err)
	}
	// Known from before, and then wrongly known.
	if err := s.remember(id.Fingerprint()); err != nil {
		t.Fatal(err)
	}
	cfg, err := s.trust(t.Context())
	if err != nil || shake(t, addr, cfg) != nil {
		t.Errorf("a known host: %v", err)
	}
	if err := s.remember(strings.Repeat("00:", 31) + "00"); err != nil {
		t.Fatal(err)
	}
	if cfg, err = s.trust(t.Context()); err != nil || !errors.Is(shake(t, addr, cfg), errNotThatHost) {
		t.Errorf("a host that changed: %v", err)
	}
	s.Fingerprint = id.Fingerprint()
	if cfg, err = s.trust(t.Context()); err != nil || shake(t, addr, cfg) != nil {
		t.Errorf("a fingerprint counts before what is known: %v", err)
	}
}

// TestUnknownHostIsRefusedWithoutTerminal: nothing is sent and nothing is
// remembered where nobody can be asked.
func TestUnknownHostIsRefusedWithoutTerminal(t *testing.T) {
	addr, id := serveTLS(t)
	chain, err := showCertificates(context.Background(), addr)
	if err != nil {
		t.Fatal(err)
	}
	s := runner(t, "host.example")
	err = s.askTrust(chain[0], chain[1])
	if err == nil || !strings.Contains(err.Error(), id.Fingerprint()) {
		t.Errorf("got %v", err)
	}
	if known, err := s.known(); known != "" || err != nil {
		t.Errorf("remembered %q, %v", known, err)
	}
}
