package certificate

import (
	"strings"
	"testing"

	"cairn/toolstack/certificate/certificatetest"
)

func TestRecord(t *testing.T) {
	a := certificatetest.New(t, certificatetest.Options{Name: "a"})
	c, err := Parse(a.PEM)
	if err != nil {
		t.Fatal(err)
	}
	r := Record(c)
	if len(r.FingerprintSha256) != 32*3-1 || len(r.FingerprintSha1) != 20*3-1 || r.Fingerprint != r.FingerprintSha256 {
		t.Errorf("fingerprints %+v", r)
	}
	if !r.NotAfter.Equal(c.NotAfter) || !r.NotBefore.Equal(c.NotBefore) || r.UUID == "" {
		t.Errorf("record %+v", r)
	}
	if PEM(c) != a.PEM {
		t.Error("the text is another one")
	}
}

func TestParseRefuses(t *testing.T) {
	a := certificatetest.New(t, certificatetest.Options{Name: "a"})
	for name, text := range map[string]string{
		"empty": "", "no PEM": "hello", "a key": a.KeyPEM, "a list": a.CRL(t), "two": a.PEM + a.PEM,
		"broken": strings.Replace(a.PEM, "M", "N", 1), "too long": a.PEM + strings.Repeat("\n", maxText),
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%s: taken for a certificate", name)
		}
	}
	if _, err := ParseCRL(a.PEM); err == nil {
		t.Error("a certificate is taken for a revocation list")
	}
	if _, err := ParseCRL(a.CRL(t)); err != nil {
		t.Errorf("revocation list: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	a := certificatetest.New(f, certificatetest.Options{Name: "a"})
	f.Add(a.PEM)
	f.Add(a.CRL(f))
	f.Fuzz(func(_ *testing.T, text string) {
		if c, err := Parse(text); err == nil {
			Record(c)
		}
		_, _ = ParseCRL(text)
	})
}
