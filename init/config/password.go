package config

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// The cost of new hashes is one of OWASP's equivalent argon2id settings, the
// one with little memory: a login must not push guests of a small host out.
// Native it takes about 25 ms.
const (
	hashMemoryKiB = 9 * 1024
	hashTime      = 4
	hashThreads   = 1
	hashSaltLen   = 16
	hashKeyLen    = 32
)

// Bounds on the parameters of a hash somebody else made, so that a document
// cannot make each login exhaust the host.
const (
	maxHashMemoryKiB = 256 * 1024
	maxHashTime      = 16
	maxHashThreads   = 16
	minHashSaltLen   = 8
	maxHashFieldLen  = 64
)

type hashParams struct {
	memory  uint32
	time    uint32
	threads uint8
	salt    []byte
	key     []byte
}

// HashPassword returns a fresh argon2id hash of the password in PHC form, as
// root.password_hash wants it.
func HashPassword(password string) string {
	salt := make([]byte, hashSaltLen)
	rand.Read(salt) // never fails: crypto/rand aborts the process instead
	key := argon2.IDKey([]byte(password), salt, hashTime, hashMemoryKiB, hashThreads, hashKeyLen)
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, hashMemoryKiB, hashTime, hashThreads, enc(salt), enc(key))
}

// VerifyPassword reports whether the password is the one the hash was made of.
// An empty or malformed hash matches nothing.
func VerifyPassword(hash, password string) bool {
	p, err := parseHash(hash)
	if err != nil {
		return false
	}
	key := argon2.IDKey([]byte(password), p.salt, p.time, p.memory, p.threads, uint32(len(p.key)))
	return subtle.ConstantTimeCompare(key, p.key) == 1
}

// parseHash reads $argon2id$v=19$m=…,t=…,p=…$salt$key and nothing looser.
func parseHash(hash string) (hashParams, error) {
	var p hashParams
	fields := strings.Split(hash, "$")
	if len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" {
		return p, errors.New("is not of the form $argon2id$v=19$m=…,t=…,p=…$salt$hash")
	}
	if fields[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, fmt.Errorf("has argon2 version %q, want v=%d", fields[2], argon2.Version)
	}
	if err := p.parseCost(fields[3]); err != nil {
		return p, err
	}
	var err error
	if p.salt, err = hashField("salt", fields[4]); err != nil {
		return p, err
	}
	p.key, err = hashField("hash", fields[5])
	return p, err
}

func (p *hashParams) parseCost(s string) error {
	var m, t, threads uint32
	n, err := fmt.Sscanf(s, "m=%d,t=%d,p=%d", &m, &t, &threads)
	if err != nil || n != 3 || s != fmt.Sprintf("m=%d,t=%d,p=%d", m, t, threads) {
		return fmt.Errorf("has cost %q, want m=…,t=…,p=…", s)
	}
	switch {
	case m < 8 || m > maxHashMemoryKiB:
		return fmt.Errorf("has memory cost m=%d, allowed are 8 to %d", m, maxHashMemoryKiB)
	case t < 1 || t > maxHashTime:
		return fmt.Errorf("has time cost t=%d, allowed are 1 to %d", t, maxHashTime)
	case threads < 1 || threads > maxHashThreads:
		return fmt.Errorf("has parallelism p=%d, allowed are 1 to %d", threads, maxHashThreads)
	}
	p.memory, p.time, p.threads = m, t, uint8(threads)
	return nil
}

func hashField(name, s string) ([]byte, error) {
	b, err := base64.RawStdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("has a %s that is not unpadded base64", name)
	}
	if len(b) < minHashSaltLen || len(b) > maxHashFieldLen {
		return nil, fmt.Errorf("has a %s of %d bytes, allowed are %d to %d", name, len(b), minHashSaltLen, maxHashFieldLen)
	}
	return b, nil
}
