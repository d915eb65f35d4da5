package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// FS is what Store needs of a file system; the tests crash between its calls.
type FS interface {
	ReadFile(name string) ([]byte, error)
	// WriteFile creates or truncates a file that only its owner may read.
	// Nothing is durable before SyncFile.
	WriteFile(name string, data []byte) error
	SyncFile(name string) error
	Rename(from, to string) error
	// SyncDir makes the renames in a directory durable.
	SyncDir(name string) error
}

// Names of the files below the store's directory.
const (
	currentName = "cairn.yaml"
	goodName    = "cairn.yaml.good"
	tempSuffix  = ".new"
)

// Store keeps the document in force and the one before it, the last known
// good. At each moment, a crash included, one of the two is whole.
type Store struct {
	FS  FS
	Dir string
}

// Candidates reads what the store holds, the document in force first.
func (s Store) Candidates() ([]Candidate, error) {
	var out []Candidate
	var errs []error
	for _, f := range []struct {
		name   string
		source Source
	}{{currentName, SourceState}, {goodName, SourceGood}} {
		text, err := s.FS.ReadFile(s.path(f.name))
		switch {
		case err == nil:
			out = append(out, Candidate{Source: f.source, Text: text})
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("read %s: %w", f.name, err))
		}
	}
	return out, errors.Join(errs...)
}

// Put makes text, which must be a sound document, the one in force. On return
// without error it is durable; with an error the old one still is.
func (s Store) Put(text []byte) error {
	if _, err := Parse(text); err != nil {
		return err
	}
	old, err := s.FS.ReadFile(s.path(currentName))
	if err == nil && bytes.Equal(old, text) {
		// It may have been written by a host that died before its sync.
		return s.sync(currentName)
	}
	if err == nil {
		if _, perr := Parse(old); perr == nil {
			if err := s.replace(goodName, old); err != nil {
				return err
			}
		}
	}
	return s.replace(currentName, text)
}

// replace writes beside, syncs, and renames over: the name always leads to a
// whole file.
func (s Store) replace(name string, text []byte) error {
	temp := s.path(name + tempSuffix)
	if err := s.FS.WriteFile(temp, text); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := s.FS.SyncFile(temp); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	if err := s.FS.Rename(temp, s.path(name)); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := s.FS.SyncDir(s.Dir); err != nil {
		return fmt.Errorf("sync directory of %s: %w", name, err)
	}
	return nil
}

func (s Store) sync(name string) error {
	if err := s.FS.SyncFile(s.path(name)); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	if err := s.FS.SyncDir(s.Dir); err != nil {
		return fmt.Errorf("sync directory of %s: %w", name, err)
	}
	return nil
}

func (s Store) path(name string) string { return filepath.Join(s.Dir, name) }

// OS is the FS of the running system.
type OS struct{}

// ReadFile implements FS, bounded: a damaged file system may offer any size.
func (OS) ReadFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f)
}

// WriteFile implements FS.
func (OS) WriteFile(name string, data []byte) error { return os.WriteFile(name, data, 0o600) }

// SyncFile implements FS.
func (OS) SyncFile(name string) error { return syncPath(name) }

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// SyncDir implements FS.
func (OS) SyncDir(name string) error { return syncPath(name) }

func syncPath(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
