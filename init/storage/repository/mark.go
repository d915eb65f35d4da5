package repository

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"cairn/init/hostd/client"
)

// mark says in a directory that it is a repository, and which.
type mark struct {
	UUID    string `json:"uuid"`
	Version int    `json:"version"`
}

// markVersion is raised when an older hostd could not keep what a newer one made.
const markVersion = 1

// readMark returns the mark of a directory, an empty one where there is none.
func readMark(dir string) (mark, error) {
	var m mark
	text, err := os.ReadFile(filepath.Join(dir, markName))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil || checkUUID(m.UUID) != nil {
		return m, Fail(client.CodeDamaged, "the mark of repository %s cannot be read", dir)
	}
	if m.Version > markVersion {
		return m, Fail(client.CodeUnsupported, "repository %s was made by a newer version", dir)
	}
	return m, nil
}

// putMark makes a directory the repository, unless it is that already. Whatever
// else is in it makes it somebody's.
func putMark(dir, sr string) error {
	m, err := readMark(dir)
	switch {
	case err != nil:
		return err
	case m.UUID == sr:
		return nil
	case m.UUID != "":
		return inUse(dir, []string{"repository " + m.UUID})
	}
	if other := strangers(dir); len(other) > 0 {
		return inUse(dir, other[:min(len(other), 3)])
	}
	text, err := json.Marshal(mark{UUID: sr, Version: markVersion})
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, markName), text)
}

// strangers are files that no repository put there. lost+found comes with ext4, and
// a half-written mark is of one that was never finished.
func strangers(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, e := range entries {
		if !slices.Contains([]string{"lost+found", markName, draftPrefix + markName}, e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out
}

// expectMark refuses a directory that is not the repository.
func expectMark(dir, sr string) error {
	m, err := readMark(dir)
	switch {
	case err != nil:
		return err
	case m.UUID == "":
		return Fail(client.CodeNotFound, "%s is not a repository", dir)
	case m.UUID != sr:
		return inUse(dir, []string{"repository " + m.UUID})
	}
	return nil
}

// clear removes the volumes, notes and drafts of a repository, then its mark.
// Files of others stay.
func (d *directory) clear() error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		_, _, volume := d.parse(e.Name())
		if volume || d.orphan(e.Name()) || d.isNote(e.Name()) {
			if err := os.Remove(filepath.Join(d.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := flush(d.dir); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(d.dir, markName)); err != nil {
		return err
	}
	return flush(d.dir)
}

func (d *directory) isNote(file string) bool {
	return filepath.Ext(file) == noteSuffix && checkName(file[:len(file)-len(noteSuffix)]) == nil
}
