// Package media looks at block devices that are to hold a repository: which one a
// path means, what is on it, and whether anybody uses it.
//
// The rule it keeps for all others: a device is taken only when nothing at all is
// found on it, and every kind of doubt is an answer of "in use". It only reads,
// except for Wipe, which removes one signature by its type.
//
// A Source holds no state and may be used from many goroutines.
package media

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"cairn/init/storage/tool"
)

// Source is where devices are looked at.
type Source struct {
	Sys, Dev, Proc string // normally /sys, /dev, /proc
	// BootDisk is the kernel's name of the disk the host runs from, or empty.
	BootDisk string
	Tools    tool.Runner
}

// Disk is a whole block device.
type Disk struct {
	Name   string // the kernel's
	Path   string // below Dev
	Number string // major:minor
	Size   int64
}

// Signature is something that says what a device holds.
type Signature struct {
	Type  string `json:"type"`
	UUID  string `json:"uuid"`
	Label string `json:"label"`
}

func (s Signature) String() string {
	if s.Label != "" {
		return s.Type + " " + strconv.Quote(s.Label)
	}
	return s.Type
}

const (
	sectorSize = 512 // of /sys/…/size, whatever the disk's own
	lookLimit  = time.Minute
)

// ErrNoDisk says that a path is not that of a whole disk.
var ErrNoDisk = errors.New("not a whole disk")

// Disk finds the device that a path below Dev means, by whichever of its names.
func (s Source) Disk(path string) (Disk, error) {
	clean := filepath.Clean(path)
	if clean != path || !strings.HasPrefix(clean, s.Dev+"/") {
		return Disk{}, fmt.Errorf("device %q: %w: not a path below %s", path, ErrNoDisk, s.Dev)
	}
	real, err := filepath.EvalSymlinks(clean)
	if err != nil {
		return Disk{}, fmt.Errorf("device %s: %w", path, ErrNoDisk)
	}
	name, below := strings.CutPrefix(real, s.Dev+"/")
	if !below {
		return Disk{}, fmt.Errorf("device %s: %w", path, ErrNoDisk)
	}
	name = strings.ReplaceAll(name, "/", "!") // as sysfs spells cciss/c0d0
	return s.named(name)
}

func (s Source) named(name string) (Disk, error) {
	dir := filepath.Join(s.Sys, "class/block", name)
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		return Disk{}, fmt.Errorf("device %s: %w but a partition", name, ErrNoDisk)
	}
	sectors, err := strconv.ParseInt(s.text(dir, "size"), 10, 64)
	if err != nil || sectors <= 0 || sectors > 1<<62/sectorSize {
		return Disk{}, fmt.Errorf("device %s: %w with a size", name, ErrNoDisk)
	}
	return Disk{
		Name: name, Path: filepath.Join(s.Dev, strings.ReplaceAll(name, "!", "/")), Number: s.text(dir, "dev"), Size: sectors * sectorSize,
	}, nil
}

func (Source) text(parts ...string) string {
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Signatures reads all that a device says it is.
func (s Source) Signatures(ctx context.Context, d Disk) ([]Signature, error) {
	out, err := s.Tools.Run(ctx, tool.Command{Name: "wipefs", Args: []string{"--json", "--no-act", d.Path}, Limit: lookLimit})
	if err != nil {
		return nil, err
	}
	return parseSignatures(out)
}

func parseSignatures(out []byte) ([]Signature, error) {
	if len(strings.TrimSpace(string(out))) == 0 {
		return nil, nil
	}
	var report struct {
		Signatures []Signature `json:"signatures"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return nil, fmt.Errorf("answer of wipefs: %w", err)
	}
	return report.Signatures, nil
}

// Wipe removes the signatures of one type.
func (s Source) Wipe(ctx context.Context, d Disk, kind string) error {
	_, err := s.Tools.Run(ctx, tool.Command{Name: "wipefs", Args: []string{"--quiet", "--all", "--types", kind, d.Path}, Limit: lookLimit})
	return err
}
