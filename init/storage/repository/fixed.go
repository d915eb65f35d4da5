package repository

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"cairn/init/hostd/client"
	"cairn/init/storage/media"
)

// fixed is what a store of volumes that others made has in common: nothing about
// them can be changed, and nothing needs to be done for QEMU to open them.
type fixed struct{ what string }

func (f fixed) refuse() error {
	return Fail(client.CodeUnsupported, "volumes of a repository of type %s cannot be changed", f.what)
}

func (f fixed) create(context.Context, string, client.VolumeSpec) error        { return f.refuse() }
func (f fixed) remove(context.Context, client.Volume) error                    { return f.refuse() }
func (f fixed) resize(context.Context, client.Volume, int64) error             { return f.refuse() }
func (f fixed) grow(context.Context, client.Volume, int64) error               { return f.refuse() }
func (f fixed) rebase(context.Context, client.Volume, client.Volume) error     { return f.refuse() }
func (f fixed) note(context.Context, client.Volume, string) error              { return f.refuse() }
func (f fixed) deactivate(context.Context, client.Volume, []string) error      { return nil }
func (f fixed) detach(context.Context) error                                   { return nil }
func (f fixed) readOnly() bool                                                 { return true }
func (f fixed) path() string                                                   { return "" }
func (f fixed) check(context.Context, client.Volume) (c client.Check, e error) { return c, nil }

func (f fixed) commit(context.Context, client.Volume, client.Volume, func(float64)) error {
	return f.refuse()
}

func (f fixed) receive(context.Context, string, client.VolumeSpec, func(string) error) error {
	return f.refuse()
}

func (f fixed) read(_ context.Context, v client.Volume) (string, func(), error) {
	return v.Path, func() {}, nil
}

// isoDriver shows a directory of the host as an ISO library.
type isoDriver struct{ m *Manager }

func (d isoDriver) check(config map[string]string) error {
	if err := onlyKeys(config, "location", "legacy_mode"); err != nil {
		return err
	}
	if config["legacy_mode"] != "true" {
		return Fail(client.CodeUnsupported, "ISO libraries on the network are not supported: legacy_mode must be true")
	}
	_, err := location(config, d.m.cfg.ISOPrefixes)
	return err
}

// probe has nothing to find: a library carries no mark.
func (d isoDriver) probe(_ context.Context, config map[string]string) ([]client.Repository, error) {
	return nil, d.check(config)
}

// format admits a directory that is there. An erase leaves others' files alone.
func (d isoDriver) format(_ context.Context, _ string, config map[string]string) error {
	_, err := d.open(config)
	return err
}

func (isoDriver) erase(context.Context, string, map[string]string) error { return nil }

func (d isoDriver) open(config map[string]string) (string, error) {
	dir := config["location"]
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", Fail(client.CodeNotFound, "ISO library %s is not a directory", dir)
	}
	return dir, nil
}

func (d isoDriver) attach(_ context.Context, _ string, config map[string]string) (store, string, error) {
	dir, err := d.open(config)
	return library{fixed{client.TypeISO}, dir, d.m}, "", err
}

// library is the ISO images directly in a directory.
type library struct {
	fixed
	dir string
	m   *Manager
}

func (l library) path() string { return l.dir }

func (l library) space(ctx context.Context) (space, error) {
	return (&directory{dir: l.dir}).space(ctx)
}

func (l library) list(context.Context) ([]client.Volume, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	var out []client.Volume
	for _, e := range entries {
		if v, ok := l.look(e.Name()); ok {
			out = append(out, v)
		}
	}
	return out, nil
}

func (l library) volume(_ context.Context, name string) (client.Volume, error) {
	if v, ok := l.look(name); ok {
		return v, nil
	}
	return client.Volume{}, Fail(client.CodeNotFound, "image %s is not in %s", name, l.dir)
}

// look admits regular files by their names' endings. Names that are not UTF-8
// cannot be told to a client; a link would lead out of the library.
func (l library) look(name string) (client.Volume, bool) {
	end := strings.ToLower(filepath.Ext(name))
	if end != ".iso" && end != ".img" || !utf8.ValidString(name) {
		return client.Volume{}, false
	}
	path := filepath.Join(l.dir, name)
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return client.Volume{}, false
	}
	return client.Volume{Name: name, Path: path, Format: client.Raw, VirtualSize: info.Size(), Used: info.Size(), ReadOnly: true}, true
}

// activate sees to it that QEMU's user can read the image, where it is not on a
// file system that is read-only anyway.
func (l library) activate(_ context.Context, v client.Volume) error {
	info, err := os.Lstat(v.Path)
	if err != nil || info.Mode()&0o004 != 0 {
		return err
	}
	return os.Chmod(v.Path, info.Mode().Perm()|0o444)
}

// udevDriver shows the drives that people put media into.
type udevDriver struct{ m *Manager }

// The locations that XenServer's own udev repositories have.
const (
	opticalLocation = "/dev/xapi/cd"
	usbLocation     = "/dev/xapi/block"
)

func (udevDriver) check(config map[string]string) error {
	if err := onlyKeys(config, "location"); err != nil {
		return err
	}
	if l := config["location"]; l != opticalLocation && l != usbLocation {
		return Fail(client.CodeBadRequest, "location %q is neither %s nor %s", l, opticalLocation, usbLocation)
	}
	return nil
}

func (d udevDriver) probe(_ context.Context, config map[string]string) ([]client.Repository, error) {
	return nil, d.check(config)
}

func (udevDriver) format(context.Context, string, map[string]string) error { return nil }
func (udevDriver) erase(context.Context, string, map[string]string) error  { return nil }

func (d udevDriver) attach(_ context.Context, _ string, config map[string]string) (store, string, error) {
	look := d.m.cfg.Media.Optical
	if config["location"] == usbLocation {
		look = d.m.cfg.Media.USB
	}
	return drives{fixed{client.TypeUdev}, look, d.m}, "", nil
}

// drives are looked for at each question: they come and go.
type drives struct {
	fixed
	look func() []media.Removable
	m    *Manager
}

func (d drives) space(context.Context) (space, error) {
	var s space
	for _, r := range d.look() {
		s.total += r.Size
		s.used += r.Size
	}
	return s, nil
}

func (d drives) list(context.Context) ([]client.Volume, error) {
	var out []client.Volume
	for _, r := range d.look() {
		out = append(out, client.Volume{
			Name: r.Name, Path: r.Path, Format: client.Raw, Block: true, VirtualSize: r.Size, Used: r.Size,
			ReadOnly: r.ReadOnly || strings.HasPrefix(r.Name, "sr"), Note: r.Model,
		})
	}
	return out, nil
}

func (d drives) volume(ctx context.Context, name string) (client.Volume, error) {
	list, err := d.list(ctx)
	for _, v := range list {
		if v.Name == name {
			return v, err
		}
	}
	return client.Volume{}, Fail(client.CodeNotFound, "there is no drive %s", name)
}

// activate refuses a disk that the host itself uses.
func (d drives) activate(_ context.Context, v client.Volume) error {
	disk, err := d.m.cfg.Media.Disk(v.Path)
	if err != nil {
		return nil // a drive without a medium is a guest's empty drive
	}
	if !v.ReadOnly {
		for _, u := range d.m.cfg.Media.Users(disk) {
			if !strings.HasPrefix(u, "partition ") {
				return inUse(v.Path, []string{u})
			}
		}
	}
	return d.m.giveDevice(v.Path)
}
