package media

import (
	"os"
	"path/filepath"
	"strings"
)

// Removable is a drive that people put media into.
type Removable struct {
	Name, Path string
	// Size is 0 for a drive without a medium.
	Size     int64
	ReadOnly bool
	Model    string
}

// Optical lists the optical drives.
func (s Source) Optical() []Removable {
	return s.removable(func(name, _ string) bool { return strings.HasPrefix(name, "sr") })
}

// USB lists the USB disks, except for one the host runs from.
func (s Source) USB() []Removable {
	return s.removable(func(name, dir string) bool {
		return !strings.HasPrefix(name, "sr") && strings.Contains(dir, "/usb") && name != s.BootDisk
	})
}

func (s Source) removable(wanted func(name, dir string) bool) []Removable {
	var out []Removable
	for _, name := range entries(filepath.Join(s.Sys, "class/block")) {
		dir, err := filepath.EvalSymlinks(filepath.Join(s.Sys, "class/block", name))
		if err != nil || !wanted(name, dir) {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
			continue
		}
		r := Removable{Name: name, Path: filepath.Join(s.Dev, name), ReadOnly: s.text(dir, "ro") == "1", Model: s.text(dir, "device/model")}
		if d, err := s.named(name); err == nil {
			r.Size = d.Size
		}
		out = append(out, r)
	}
	return out
}
