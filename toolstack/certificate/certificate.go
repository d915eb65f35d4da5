// Package certificate reads X.509 certificates as clients send them and describes
// them as this API does. It holds no state.
package certificate

import (
	"bytes"
	"crypto/sha1" // the API shows it beside the SHA-256
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"cairn/toolstack/api"
)

// maxText bounds what is parsed; a chain of a dozen large certificates fits.
const maxText = 64 << 10

// Parse reads the one certificate of a PEM text.
func Parse(text string) (*x509.Certificate, error) {
	block, err := one(text, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(block)
}

// ParseCRL reads the one revocation list of a PEM text.
func ParseCRL(text string) (*x509.RevocationList, error) {
	block, err := one(text, "X509 CRL")
	if err != nil {
		return nil, err
	}
	return x509.ParseRevocationList(block)
}

// one returns the content of a text's only block.
func one(text, kind string) ([]byte, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("text is longer than %d bytes", maxText)
	}
	block, rest := pem.Decode([]byte(text))
	switch {
	case block == nil:
		return nil, errors.New("text is not PEM")
	case block.Type != kind:
		return nil, fmt.Errorf("PEM holds a %q, not a %q", block.Type, kind)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("text holds more than one PEM block")
	}
	return block.Bytes, nil
}

// PEM is a certificate's text.
func PEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// Record describes a certificate; its name, type, host and purposes are the
// caller's to fill in.
func Record(c *x509.Certificate) *api.Certificate {
	r := api.NewCertificate()
	r.UUID = api.NewUUID()
	r.NotBefore, r.NotAfter = c.NotBefore.UTC(), c.NotAfter.UTC()
	r.FingerprintSha256 = Fingerprint(c)
	sum := sha1.Sum(c.Raw)
	r.FingerprintSha1 = colons(sum[:])
	r.Fingerprint = r.FingerprintSha256
	return r
}

// Fingerprint is a certificate's SHA-256 as "AA:BB:…".
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return colons(sum[:])
}

func colons(sum []byte) string {
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}
