// Package identity is the host's face on the network: a certificate authority
// and a host certificate signed by it, made at the first start, kept in a
// directory on STATE and reloaded later. Both are ECDSA P-256.
//
// The host certificate is made anew when the names it is wanted for are no
// longer all in it, or when it is about to expire; the authority stays, so a
// client that trusts it keeps doing so.
package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Lifetimes. A host's clock may be far behind at its first start, before it
// heard of the time, so certificates begin long before they are made.
const (
	lifetime     = 10 * 365 * 24 * time.Hour
	renewBefore  = 90 * 24 * time.Hour
	backdated    = 2 * 365 * 24 * time.Hour
	caFile       = "ca.pem"
	caKeyFile    = "ca.key"
	hostFile     = "host.pem"
	hostKeyFile  = "host.key"
	organisation = "Cairn"
)

// Options say what the host certificate is for.
type Options struct {
	// Names are host names and IP addresses, the most important one first.
	Names []string
	// Now is the time; nil is the real one.
	Now func() time.Time
}

// Identity is the loaded pair of certificates.
type Identity struct {
	CAPEM   []byte
	HostPEM []byte
	ca      *x509.Certificate
	host    *x509.Certificate
}

// Fingerprint is the SHA-256 of the host certificate, as "AA:BB:…".
func (id *Identity) Fingerprint() string {
	sum := sha256.Sum256(id.host.Raw)
	text := strings.ToUpper(hex.EncodeToString(sum[:]))
	var b strings.Builder
	for i := 0; i < len(text); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(text[i : i+2])
	}
	return b.String()
}

// Load reads the identity from dir, making what is missing.
func Load(dir string, o Options) (*tls.Config, *Identity, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(o.Names) == 0 {
		o.Names = []string{"localhost"}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	ca, caKey, err := load(dir, caFile, caKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		ca, caKey, err = makeCA(dir, o)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("certificate authority: %w", err)
	}
	// Whatever is wrong with the host's own pair, such as a key without its
	// certificate after a power cut, a new one serves as well.
	host, key, err := load(dir, hostFile, hostKeyFile)
	if err != nil || !serves(host, ca, o) {
		host, key, err = makeHost(dir, o, ca, caKey)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("host certificate: %w", err)
	}
	id := &Identity{CAPEM: encodeCert(ca.Raw), HostPEM: encodeCert(host.Raw), ca: ca, host: host}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		Certificates: []tls.Certificate{{
			Certificate: [][]byte{host.Raw, ca.Raw}, PrivateKey: key, Leaf: host,
		}},
	}, id, nil
}

// serves reports whether a host certificate is still good for its purpose.
func serves(host, ca *x509.Certificate, o Options) bool {
	if host.CheckSignatureFrom(ca) != nil || o.Now().Add(renewBefore).After(host.NotAfter) {
		return false
	}
	for _, n := range o.Names {
		if host.VerifyHostname(n) != nil {
			return false
		}
	}
	return true
}

func makeCA(dir string, o Options) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	t := template(o, "Cairn pool "+serial().Text(16)[:8])
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return makeCert(dir, caFile, caKeyFile, t, nil, nil)
}

func makeHost(dir string, o Options, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	t := template(o, o.Names[0])
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, n := range o.Names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	return makeCert(dir, hostFile, hostKeyFile, t, ca, caKey)
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n.SetBit(n, 126, 1)
}

func template(o Options, name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{Organization: []string{organisation}, CommonName: name},
		NotBefore:    o.Now().Add(-backdated),
		NotAfter:     o.Now().Add(lifetime),
	}
}

// makeCert makes a key and a certificate and stores both. Without a parent it
// signs itself.
func makeCert(dir, file, keyFile string, t, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, parentKey = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	// The key first: without a certificate Load makes both anew.
	if err := write(filepath.Join(dir, keyFile), keyPEM, 0o600); err != nil {
		return nil, nil, err
	}
	if err := write(filepath.Join(dir, file), encodeCert(der), 0o644); err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// write replaces a file as a whole, on disk before it appears.
func write(path string, text []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes renames in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// load reads a certificate and its key.
func load(dir, file, keyFile string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, file), filepath.Join(dir, keyFile))
	if err != nil {
		return nil, nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("%s: not an ECDSA key", keyFile)
	}
	return pair.Leaf, key, nil
}
