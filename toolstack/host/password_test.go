package host_test

import (
	"testing"

	"cairn/init/config"
)

func TestSetRootPassword(t *testing.T) {
	s := newStack(t)
	if err := s.m.SetRootPassword(t.Context(), "open sesame"); err != nil {
		t.Fatal(err)
	}
	hash, err := s.m.RootHash(t.Context())
	if err != nil || !config.VerifyPassword(hash, "open sesame") {
		t.Errorf("the hash in force is %q, %v", hash, err)
	}
	if s.m.Hostname() != "cairn-test" {
		t.Errorf("the rest of the document has changed: the host is %q", s.m.Hostname())
	}
}
