package config

import (
	"fmt"
	"testing"
)

func TestPassword(t *testing.T) {
	hash := HashPassword("pässword")
	if _, err := parseHash(hash); err != nil {
		t.Fatalf("own hash %q %v", hash, err)
	}
	if _, err := Parse(fmt.Appendf(nil, "version: 1\nroot:\n  password_hash: %s\n", hash)); err != nil {
		t.Errorf("own hash is refused in a document: %v", err)
	}
	if !VerifyPassword(hash, "pässword") || VerifyPassword(hash, "password") {
		t.Error("the hash does not tell the passwords apart")
	}
	if HashPassword("pässword") == hash {
		t.Error("two hashes share their salt")
	}
}

// TestForeignHash has a vector made by the reference implementation:
// argon2 somesalt -id -t 2 -m 16 -p 1 -l 24 <<< password.
func TestForeignHash(t *testing.T) {
	const hash = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	if !VerifyPassword(hash, "password") {
		t.Error("the reference hash of \"password\" does not verify")
	}
}

func TestNothingVerifies(t *testing.T) {
	for _, hash := range []string{"", "x", "$argon2id$v=19$m=0,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"} {
		if VerifyPassword(hash, "") || VerifyPassword(hash, hash) {
			t.Errorf("%q verifies", hash)
		}
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := parseHash(s); err == nil && (p.memory > maxHashMemoryKiB || p.time > maxHashTime || p.threads > maxHashThreads) {
			t.Fatalf("accepted costs %+v", p)
		}
	})
}

func BenchmarkVerifyPassword(b *testing.B) {
	hash := HashPassword("x")
	for b.Loop() {
		VerifyPassword(hash, "x")
	}
}
