// Package nvram is what the firmware and the TPMs of virtual machines remember from
// one run to the next: files by the machine's uuid, in the places where libvirt looks
// for them.
//
// A copy belongs to nobody until it is kept: before its first byte a mark says that
// it is a draft, and whoever ordered it and died finds it by that mark. A state
// without a mark is never removed here. A reader sees a file's old content or the
// new one, also after a power cut.
//
// Methods may be called by many goroutines, for one machine by one at a time.
package nvram

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// Store is libvirt's directory.
type Store struct{ Dir string }

// Parts of what a machine remembers.
type Parts struct {
	Variables bool // of UEFI
	TPM       bool
}

const (
	variablesSuffix = "_VARS.fd"
	draftSuffix     = ".draft"
	tempPrefix      = ".new-"
	// maxFile bounds what is copied: 540 KiB of variables, a few of a TPM.
	maxFile = 16 << 20
)

var uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// ErrName is a machine that is not named by a uuid.
var ErrName = errors.New("not a uuid")

// ErrBusy is a file that is being written all the time.
var ErrBusy = errors.New("it does not come to rest")

func check(uuids ...string) error {
	for _, u := range uuids {
		if !uuidPattern.MatchString(u) {
			return fmt.Errorf("machine %q: %w", u, ErrName)
		}
	}
	return nil
}

func (s Store) variables() string { return filepath.Join(s.Dir, "qemu/nvram") }
func (s Store) variablesOf(uuid string) string {
	return filepath.Join(s.variables(), uuid+variablesSuffix)
}
func (s Store) mark(uuid string) string { return filepath.Join(s.variables(), uuid+draftSuffix) }
func (s Store) chip(uuid string) string { return filepath.Join(s.Dir, "swtpm", uuid) }
func (s Store) tpm(uuid string) string  { return filepath.Join(s.chip(uuid), "tpm2") }

// Copy makes parts of what one machine remembers those of another, which does not
// run; what the first has none of, the other has none of afterwards. The first may
// run. With draft the other one is new, and its state one that Drafts lists.
func (s Store) Copy(from, to string, parts Parts, draft bool) error {
	err := check(from, to)
	if err == nil && from == to {
		err = fmt.Errorf("machine %s: cannot be copied to itself", from)
	}
	if err == nil && draft {
		err = s.begin(to)
	}
	if err == nil && parts.Variables {
		err = s.replace(s.variablesOf(from), s.variablesOf(to))
	}
	if err == nil && parts.TPM {
		err = s.copyTPM(from, to)
	}
	return err
}

func (s Store) begin(uuid string) error {
	if err := os.MkdirAll(s.variables(), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(s.mark(uuid), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), flush(s.variables()))
}

// copyTPM copies the chip's state. Its program writes a new state beside the old one
// and renames it; those and its lock are left out.
func (s Store) copyTPM(from, to string) error {
	found, err := os.ReadDir(s.tpm(from))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	if len(found) > 0 {
		for _, dir := range []func(string) string{s.chip, s.tpm} {
			if err := sameDir(dir(from), dir(to)); err != nil {
				return err
			}
		}
	}
	there := map[string]bool{}
	for _, e := range found {
		name := e.Name()
		if !e.Type().IsRegular() || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "TMP") {
			continue
		}
		there[name] = true
		if err := s.replace(filepath.Join(s.tpm(from), name), filepath.Join(s.tpm(to), name)); err != nil {
			return err
		}
	}
	return removeOthers(s.tpm(to), there)
}

// removeOthers leaves of a directory's files those that are wanted.
func removeOthers(dir string, wanted map[string]bool) error {
	old, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range old {
		if e.Type().IsRegular() && !wanted[e.Name()] {
			if err := remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// sameDir makes a directory as another one is.
func sameDir(like, dir string) error {
	st, err := os.Lstat(like)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := own(dir, st); err != nil {
		return err
	}
	return flush(filepath.Dir(dir))
}

// own gives a file the mode and the owner of another.
func own(path string, like fs.FileInfo) error {
	sys, ok := like.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: no owner", path)
	}
	return errors.Join(os.Chown(path, int(sys.Uid), int(sys.Gid)), os.Chmod(path, like.Mode().Perm()))
}

// replace makes one file the copy of another, or removes it where there is no other.
func (s Store) replace(from, to string) error {
	content, st, err := steady(from)
	if errors.Is(err, fs.ErrNotExist) {
		return remove(to)
	}
	if err != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(to), tempPrefix+filepath.Base(to))
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, own(temp, st), f.Sync(), f.Close()); err == nil {
		err = os.Rename(temp, to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return flush(filepath.Dir(to))
}

// attempts to read a file that changes meanwhile.
const attempts = 16

// steady reads a file until it reads the same twice: firmware writes in several
// places, and what lies between them is not what it would find after a power cut.
func steady(path string) ([]byte, fs.FileInfo, error) {
	var last []byte
	for n := range attempts {
		content, st, err := read(path)
		if err != nil {
			return nil, nil, err
		}
		if n > 0 && bytes.Equal(content, last) {
			return content, st, nil
		}
		last = content
	}
	return nil, nil, fmt.Errorf("%s: %w", path, ErrBusy)
}

func read(path string) ([]byte, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	if err != nil {
		return nil, nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(content) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return content, st, err
}

// Keep makes a draft somebody's: it is a state like any other from then on.
func (s Store) Keep(uuid string) error {
	if err := check(uuid); err != nil {
		return err
	}
	return remove(s.mark(uuid))
}

// Drop removes a draft; a state that is none stays.
func (s Store) Drop(uuid string) error {
	if err := check(uuid); err != nil {
		return err
	}
	if _, err := os.Lstat(s.mark(uuid)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := remove(s.variablesOf(uuid))
	if err == nil {
		err = os.RemoveAll(s.chip(uuid))
	}
	if err == nil {
		err = remove(filepath.Join(s.variables(), tempPrefix+uuid+variablesSuffix))
	}
	if err != nil {
		return err
	}
	return remove(s.mark(uuid))
}

// Drafts are the machines whose states nobody has kept or dropped.
func (s Store) Drafts() ([]string, error) {
	entries, err := os.ReadDir(s.variables())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []string
	for _, e := range entries {
		if uuid, ok := strings.CutSuffix(e.Name(), draftSuffix); ok && check(uuid) == nil {
			all = append(all, uuid)
		}
	}
	return all, err
}

// remove takes a file away for good; one that is not there is fine.
func remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return flush(filepath.Dir(path))
}

// flush brings a directory to its disk.
func flush(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
