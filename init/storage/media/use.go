package media

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Users names who uses a device now: the host itself, its partitions, what is
// made of it, mounts and swap. Empty means nobody does.
func (s Source) Users(d Disk) []string {
	dir := filepath.Join(s.Sys, "class/block", d.Name)
	var found []string
	if d.Name == s.BootDisk {
		found = append(found, "the disk the host runs from")
	}
	if s.text(dir, "ro") == "1" {
		found = append(found, "a write protection")
	}
	for _, e := range entries(dir) {
		if _, err := os.Stat(filepath.Join(dir, e, "partition")); err == nil {
			found = append(found, "partition "+e)
		}
	}
	for _, e := range entries(filepath.Join(dir, "holders")) {
		found = append(found, "device "+e+" on top of it")
	}
	if at := s.mountedAt(d); at != "" {
		found = append(found, "a mount at "+at)
	}
	for line := range strings.Lines(s.text(s.Proc, "swaps")) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == d.Path {
			found = append(found, "swap space")
		}
	}
	return found
}

// Found is all that keeps a device from being taken: its users, and what it holds
// except for signatures that are the caller's own.
func (s Source) Found(ctx context.Context, d Disk, own func(Signature) bool) ([]string, error) {
	found := s.Users(d)
	signatures, err := s.Signatures(ctx, d)
	if err != nil {
		return nil, err
	}
	for _, sig := range signatures {
		if own == nil || !own(sig) {
			found = append(found, sig.String())
		}
	}
	return found, nil
}

// Disks lists the disks of the machine, by name: none that are made of others, of
// memory or of files, and no optical drives.
func (s Source) Disks() []Disk {
	var out []Disk
	for _, name := range entries(filepath.Join(s.Sys, "class/block")) {
		dir := filepath.Join(s.Sys, "class/block", name)
		if _, err := os.Stat(filepath.Join(dir, "device")); err != nil || s.text(dir, "hidden") == "1" || strings.HasPrefix(name, "sr") {
			continue
		}
		if d, err := s.named(name); err == nil {
			out = append(out, d)
		}
	}
	return out
}

// mountedAt is the first mount of a device, by its number.
func (s Source) mountedAt(d Disk) string {
	for line := range strings.Lines(s.text(s.Proc, "self/mountinfo")) {
		if f := strings.Fields(line); len(f) > 4 && f[2] == d.Number {
			return f[4]
		}
	}
	return ""
}

func entries(dir string) []string {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}
