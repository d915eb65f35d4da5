package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"cairn/init/hostd/client"
	"cairn/init/storage/qemuimg"
)

// Names in a repository's directory: the mark that it is one, what is being made,
// notes.
const (
	markName    = ".cairn-repository"
	draftPrefix = ".new-"
	noteSuffix  = ".json"
)

// suffixes are those of volumes by format.
var suffixes = map[client.Format]string{client.Qcow2: ".qcow2", client.Raw: ".raw", logFormat: ".log"}

// leastFree is kept for notes and headers: with less a volume is not begun.
const leastFree = 1 << 20

// directory is a bed of files.
type directory struct {
	m      *Manager
	sr     string
	dir    string
	unhook func() error // undoes what attach did, if anything
}

// note is what a note's file holds.
type note struct {
	Note string `json:"note"`
}

func (d *directory) path() string { return d.dir }

func (d *directory) space(context.Context) (space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		return space{}, fmt.Errorf("statfs %s: %w", d.dir, err)
	}
	unit := int64(st.Bsize)
	return space{total: int64(st.Blocks) * unit, used: int64(st.Blocks-st.Bfree) * unit, free: int64(st.Bavail) * unit}, nil
}

// list reads the directory. One volume that cannot be read does not hide others.
func (d *directory) list(ctx context.Context) ([]client.Volume, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var out []client.Volume
	for _, e := range entries {
		name, format, ok := d.parse(e.Name())
		if !ok {
			continue
		}
		v, err := d.look(name, format)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			v.Problem = err.Error()
		}
		out = append(out, v)
	}
	return out, ctx.Err()
}

// parse tells a volume's name and format by its file's name.
func (d *directory) parse(file string) (string, client.Format, bool) {
	for format, suffix := range suffixes {
		if name, ok := strings.CutSuffix(file, suffix); ok && checkName(name) == nil {
			return name, format, true
		}
	}
	return "", "", false
}

func (d *directory) file(name string, format client.Format) string {
	return filepath.Join(d.dir, name+suffixes[format])
}

func (d *directory) noteFile(name string) string { return filepath.Join(d.dir, name+noteSuffix) }

func (d *directory) volume(_ context.Context, name string) (client.Volume, error) {
	if checkName(name) == nil {
		for format := range suffixes {
			v, err := d.look(name, format)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				v.Problem = err.Error()
			}
			return v, nil
		}
	}
	return client.Volume{}, Fail(client.CodeNotFound, "volume %s is not in repository %s", name, d.sr)
}

// look reads what a volume's file says of itself.
func (d *directory) look(name string, format client.Format) (client.Volume, error) {
	v := client.Volume{Name: name, Path: d.file(name, format), Format: format}
	// Without O_NOFOLLOW a link put here would lead out of the repository.
	f, err := os.OpenFile(v.Path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return v, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return v, err
	}
	st, ok := info.Sys().(*unixStat)
	if !ok || !info.Mode().IsRegular() {
		return v, errors.New("it is not a file")
	}
	v.Used, v.VirtualSize = st.Blocks*512, info.Size()
	if format == logFormat {
		return v, nil
	}
	v.Note = d.readNote(name)
	if format == client.Raw {
		return v, nil
	}
	return v, d.header(&v, f)
}

// header fills in what a qcow2 says, as far as it may be followed.
func (d *directory) header(v *client.Volume, f *os.File) error {
	h, err := qemuimg.ReadHeader(f)
	if err != nil {
		v.VirtualSize = 0
		return err
	}
	v.VirtualSize = h.Size
	if err := h.Usable(); err != nil {
		return err
	}
	v.Backing, err = d.named(h)
	return err
}

// named is the volume that a header names as backing: a file of this directory,
// and of the format its name says.
func (d *directory) named(h qemuimg.Header) (string, error) {
	if h.Backing == "" {
		return "", nil
	}
	file := strings.TrimPrefix(h.Backing, d.dir+"/") // as libvirt may write it
	name, format, ok := d.parse(file)
	if !ok || string(format) != h.BackingFormat {
		return "", fmt.Errorf("its backing %q of format %q is no volume of the repository", h.Backing, h.BackingFormat)
	}
	return name, nil
}

func (d *directory) readNote(name string) string {
	text, err := os.ReadFile(d.noteFile(name))
	var n note
	if err != nil || json.Unmarshal(text, &n) != nil {
		return ""
	}
	return n.Note
}

func (d *directory) note(_ context.Context, v client.Volume, text string) error {
	b, err := json.Marshal(note{text})
	if err != nil {
		return err
	}
	return replace(d.noteFile(v.Name), b)
}

func (d *directory) reference(v client.Volume) string { return filepath.Base(v.Path) }

// remove takes the volume first: a note without one is of nobody.
func (d *directory) remove(_ context.Context, v client.Volume) error {
	if err := os.Remove(v.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(d.noteFile(v.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return flush(d.dir)
}

// grow does nothing: files grow when they are written to.
func (*directory) grow(context.Context, client.Volume, int64) error { return nil }

// changed does nothing: the header is read each time.
func (*directory) changed(context.Context, client.Volume, int64, string) error { return nil }

// open gives volumes to QEMU's user, whom libvirt may have taken them from.
func (d *directory) open(_ context.Context, all ...client.Volume) (func(), error) {
	for _, v := range all {
		if v.Format == logFormat {
			continue
		}
		if err := d.m.give(v.Path); err != nil {
			return nil, err
		}
	}
	return func() {}, nil
}

func (d *directory) activate(_ context.Context, v client.Volume) error { return d.m.give(v.Path) }

func (*directory) deactivate(context.Context, client.Volume, []string) error { return nil }

func (d *directory) detach(context.Context) error {
	if d.unhook == nil {
		return nil
	}
	return d.unhook()
}

// give makes QEMU's user the owner of a volume. A file is not followed, a device
// is: its name may be a link, where only root can make one.
func (m *Manager) give(path string) error { return m.chown(os.Lchown, path) }

func (m *Manager) giveDevice(path string) error { return m.chown(os.Chown, path) }

func (m *Manager) chown(how func(string, int, int) error, path string) error {
	if m.cfg.User == 0 && m.cfg.Group == 0 {
		return nil
	}
	return how(path, m.cfg.User, m.cfg.Group)
}
