package nvram

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

const (
	one = "11111111-1111-4111-8111-111111111111"
	two = "22222222-2222-4222-8222-222222222222"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o711))
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

// has checks a file; "" is none.
func has(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if want == "" && !errors.Is(err, os.ErrNotExist) || want != "" && (err != nil || string(got) != want) {
		t.Errorf("%s: %q %v, want %q", path, got, err, want)
	}
}

func newStore(t *testing.T) Store {
	s := Store{t.TempDir()}
	put(t, s.variablesOf(one), "boot entries")
	put(t, filepath.Join(s.tpm(one), "tpm2-00.permall"), "keys")
	put(t, filepath.Join(s.tpm(one), "TMP2-00.permall"), "half of them")
	put(t, filepath.Join(s.tpm(one), ".lock"), "")
	return s
}

func (s Store) permall(uuid string) string { return filepath.Join(s.tpm(uuid), "tpm2-00.permall") }

func TestCopy(t *testing.T) {
	s := newStore(t)
	must(t, s.Copy(one, two, Parts{Variables: true, TPM: true}, true))
	has(t, s.variablesOf(two), "boot entries")
	has(t, s.permall(two), "keys")
	entries, err := os.ReadDir(s.tpm(two))
	if err != nil || len(entries) != 1 {
		t.Errorf("copied %v %v", entries, err)
	}
	// Neither writes to the other's.
	put(t, s.variablesOf(two), "other entries")
	has(t, s.variablesOf(one), "boot entries")
	// Back to what it was, as a revert does, with what the first has not.
	must(t, os.Remove(s.permall(one)))
	must(t, s.Copy(one, two, Parts{Variables: true, TPM: true}, false))
	has(t, s.variablesOf(two), "boot entries")
	has(t, s.permall(two), "")
	must(t, os.Remove(s.variablesOf(one)))
	must(t, s.Copy(one, two, Parts{TPM: true}, false))
	has(t, s.variablesOf(two), "boot entries") // not asked for
	must(t, s.Copy(one, two, Parts{Variables: true}, false))
	has(t, s.variablesOf(two), "")
}

func TestDrafts(t *testing.T) {
	s := newStore(t)
	drafts := func(want int) {
		t.Helper()
		if got, err := s.Drafts(); err != nil || len(got) != want {
			t.Fatalf("drafts %v %v, want %d", got, err, want)
		}
	}
	drafts(0)
	must(t, s.Copy(one, two, Parts{Variables: true, TPM: true}, true))
	drafts(1)
	must(t, s.Drop(two))
	must(t, s.Drop(two))
	drafts(0)
	has(t, s.variablesOf(two), "")
	has(t, s.permall(two), "")
	must(t, s.Drop(one)) // which is no draft
	has(t, s.variablesOf(one), "boot entries")
	must(t, s.Copy(one, two, Parts{Variables: true}, true))
	must(t, s.Keep(two))
	must(t, s.Keep(two))
	drafts(0)
	must(t, s.Drop(two))
	has(t, s.variablesOf(two), "boot entries")
}

func TestRefusals(t *testing.T) {
	s := newStore(t)
	for _, name := range []string{"", "..", "../" + one, one + "/x", "11111111-1111-4111-8111-11111111111X"} {
		for _, err := range []error{
			s.Copy(name, two, Parts{Variables: true}, true), s.Copy(one, name, Parts{Variables: true}, true), s.Keep(name), s.Drop(name),
		} {
			if !errors.Is(err, ErrName) {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
	if s.Copy(one, one, Parts{Variables: true}, false) == nil {
		t.Error("copied to itself")
	}
	put(t, s.variablesOf(one), string(bytes.Repeat([]byte{0xff}, maxFile+1)))
	if s.Copy(one, two, Parts{Variables: true}, true) == nil {
		t.Error("a file of any size is copied")
	}
	must(t, os.Remove(s.variablesOf(one)))
	must(t, os.Symlink("/etc/hostname", s.variablesOf(one)))
	if s.Copy(one, two, Parts{Variables: true}, true) == nil {
		t.Error("a link is followed")
	}
}
