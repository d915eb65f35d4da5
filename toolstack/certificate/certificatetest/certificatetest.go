// Package certificatetest makes certificates for tests. It holds no state.
package certificatetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// Options say what certificate to make; the zero value is an authority valid for
// a day around now.
type Options struct {
	Name                string
	Leaf                bool
	NotBefore, NotAfter time.Time
}

// Authority is a certificate that signed itself.
type Authority struct {
	PEM, KeyPEM string
	cert        *x509.Certificate
	key         *ecdsa.PrivateKey
}

// New makes one.
func New(t testing.TB, o Options) *Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: o.Name},
		NotBefore: time.Now().Add(-12 * time.Hour), NotAfter: time.Now().Add(12 * time.Hour),
		IsCA: !o.Leaf, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if !o.NotBefore.IsZero() {
		c.NotBefore = o.NotBefore
	}
	if !o.NotAfter.IsZero() {
		c.NotAfter = o.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &Authority{key: key, PEM: text("CERTIFICATE", der)}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a.KeyPEM = text("PRIVATE KEY", keyDER)
	return a
}

// CRL makes a revocation list that revokes nothing.
func (a *Authority) CRL(t testing.TB) string {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return text("X509 CRL", der)
}

func text(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// Certificate is the authority's own.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }
