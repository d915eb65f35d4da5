package xe

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/term"
)

// trust says which certificates of the host are good enough. On this host
// itself any is: what is said does not leave the machine. Elsewhere, in this
// order: --no-ssl-verify, a fingerprint, a file of certificates, what ~/.xe-known
// remembers of the host, the certificates the system trusts, and at last the
// user, who is asked once. Without a terminal to ask on, an unknown host is
// refused.
func (s *session) trust(ctx context.Context) (*tls.Config, error) {
	switch {
	case s.NoVerify || isLoopback(s.Server):
		return &tls.Config{InsecureSkipVerify: true}, nil
	case s.Fingerprint != "":
		return pinned(s.Fingerprint), nil
	case s.CAFile != "":
		return authorities(s.CAFile)
	}
	known, err := s.known()
	if err != nil || known != "" {
		return pinned(known), err
	}
	return s.firstContact(ctx)
}

func isLoopback(server string) bool {
	if server == "" || server == "localhost" || path.IsAbs(server) {
		return true
	}
	ip := net.ParseIP(server)
	return ip != nil && ip.IsLoopback()
}

// authorities trusts what the certificates in a file have signed.
func authorities(file string) (*tls.Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("ca-file: %s holds no certificate", file)
	}
	return &tls.Config{RootCAs: pool}, nil
}

// errNotThatHost is said when a host shows a certificate that is not the one
// that was trusted.
var errNotThatHost = errors.New("the host shows another certificate than the one trusted: somebody may be listening in, or the host was installed anew")

// pinned trusts one certificate by its SHA-256: the host's own, or an authority
// that signed it.
func pinned(fingerprint string) *tls.Config {
	want := plainHex(fingerprint)
	return &tls.Config{
		InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection: func(cs tls.ConnectionState) error {
			for i, c := range cs.PeerCertificates {
				if plainHex(fingerprintOf(c)) != want {
					continue
				}
				if i == 0 || signed(cs.PeerCertificates[0], c) {
					return nil
				}
			}
			return errNotThatHost
		},
	}
}

// signed reports whether the authority signed the leaf. The name is not
// compared: pinning knows who is meant.
func signed(leaf, authority *x509.Certificate) bool {
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

func plainHex(text string) string {
	return strings.ToUpper(strings.NewReplacer(":", "", " ", "", "sha256", "", "SHA256", "").Replace(text))
}

// fingerprintOf is written as "AA:BB:…", as hosts show it.
func fingerprintOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	pairs := make([]string, len(sum))
	for i, b := range sum {
		pairs[i] = strings.ToUpper(hex.EncodeToString([]byte{b}))
	}
	return strings.Join(pairs, ":")
}

func (s *session) knownFile() string {
	if home := s.cfg.Getenv("HOME"); home != "" {
		return filepath.Join(home, ".xe-known")
	}
	return ""
}

// known is the fingerprint remembered of this host.
func (s *session) known() (string, error) {
	f, err := os.Open(s.knownFile())
	if err != nil {
		return "", nil // nothing is known
	}
	defer f.Close()
	found := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if word := strings.Fields(lines.Text()); len(word) == 2 && word[0] == s.addr() {
			found = word[1] // the last line counts
		}
	}
	return found, nil
}

// firstContact looks at the certificates of an unknown host.
func (s *session) firstContact(ctx context.Context) (*tls.Config, error) {
	chain, err := showCertificates(ctx, s.addr())
	if err != nil {
		return nil, err
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: s.Server}); err == nil {
		return &tls.Config{}, nil
	}
	top := chain[len(chain)-1]
	if !signed(chain[0], top) {
		top = chain[0]
	}
	if err := s.askTrust(chain[0], top); err != nil {
		return nil, err
	}
	return pinned(fingerprintOf(top)), s.remember(fingerprintOf(top))
}

// contactTimeout bounds the look at an unknown host.
const contactTimeout = 10 * time.Second

func showCertificates(ctx context.Context, addr string) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, contactTimeout)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates, nil
}

func (s *session) askTrust(leaf, top *x509.Certificate) error {
	f, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return fmt.Errorf("host %s is not known: its certificate has the SHA-256 fingerprint %s; if that is right, give it as --fingerprint or connect once from a terminal", s.addr(), fingerprintOf(leaf))
	}
	fmt.Fprintf(s.errOut, "Host %s is not known yet.\nIts certificate: SHA-256 %s\n", s.addr(), fingerprintOf(leaf))
	if leaf != top {
		fmt.Fprintf(s.errOut, "Its pool's authority: SHA-256 %s\n", fingerprintOf(top))
	}
	fmt.Fprint(s.errOut, "Trust it from now on? Type 'yes': ")
	if s.saysYes() {
		return nil
	}
	return fmt.Errorf("host %s: not trusted", s.addr())
}

func (s *session) remember(fingerprint string) error {
	f, err := os.OpenFile(s.knownFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("remember the host: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s %s\n", s.addr(), fingerprint)
	return errors.Join(err, f.Close())
}
