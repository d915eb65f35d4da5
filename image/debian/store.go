package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// store keeps downloaded packages by content: <dir>/<sha256>.deb. A file has
// its name only after its bytes were hashed here.
type store struct {
	dir string
}

func (s store) path(sum string) string { return filepath.Join(s.dir, sum+".deb") }

func (s store) has(sum string) bool {
	_, err := os.Stat(s.path(sum))
	return err == nil
}

// errDamaged is a stored package whose bytes are no longer those it was stored
// with.
var errDamaged = errors.New("damaged in the package store")

// candidate describes a kept package from its own control file, or is nil. One
// that cannot be read is removed.
func (s store) candidate(ctx context.Context, p Package) *candidate {
	if !s.has(p.SHA256) {
		return nil
	}
	out, err := exec.CommandContext(ctx, "dpkg-deb", "--field", s.path(p.SHA256)).Output()
	if err != nil {
		if ctx.Err() == nil {
			_ = os.Remove(s.path(p.SHA256))
		}
		return nil
	}
	var found *candidate
	err = eachParagraph(bytes.NewReader(out), indexFields, func(f paragraph) error {
		found = newCandidate(f)
		found.SHA256 = p.SHA256
		return nil
	})
	if err != nil || found == nil || found.Name != p.Name || found.Version != p.Version {
		return nil
	}
	return found
}

// adopt moves every wanted package found in a download directory into the
// store and removes the rest. What the store still lacks is returned.
func (s store) adopt(download string, want []*candidate) ([]*candidate, error) {
	wanted := map[string]bool{}
	for _, c := range want {
		wanted[c.SHA256] = true
	}
	files, err := filepath.Glob(filepath.Join(download, "*"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if filepath.Ext(f) != ".deb" {
			continue // apt's own partial files continue an interrupted download
		}
		sum, err := fileSum(f)
		if err != nil {
			return nil, err
		}
		if wanted[sum] {
			err = os.Rename(f, s.path(sum))
		} else {
			err = os.Remove(f)
		}
		if err != nil {
			return nil, fmt.Errorf("package store: %w", err)
		}
	}
	var missing []*candidate
	for _, c := range want {
		if !s.has(c.SHA256) {
			missing = append(missing, c)
		}
	}
	return missing, nil
}

// fileSum returns a file's sha256 in hex.
func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
