package pool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// store keeps texts as files: certificates by the UUID of their row, revocation
// lists by their name. A text is on disk, whole, before put returns.
type store struct{ dir string }

// The two kinds of texts are two directories.
const (
	certificates = "certificates"
	lists        = "crls"
	suffix       = ".pem"
)

func (s store) path(kind, name string) string { return filepath.Join(s.dir, kind, name+suffix) }

func (s store) put(kind, name, text string) error {
	dir := filepath.Join(s.dir, kind)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it has its name
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.path(kind, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

func (s store) get(kind, name string) (string, error) {
	b, err := os.ReadFile(s.path(kind, name))
	return string(b), err
}

// remove is idempotent.
func (s store) remove(kind, name string) error {
	if err := os.Remove(s.path(kind, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Join(s.dir, kind))
}

// names are those of one kind, sorted.
func (s store) names(kind string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, kind))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	names := []string{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, err
}

// syncDir makes a change of names durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
