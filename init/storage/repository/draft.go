package repository

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"cairn/init/hostd/client"
)

type unixStat = syscall.Stat_t

// fileDraft is a file under another name, with the note it will have.
type fileDraft struct {
	d      *directory
	name   string
	format client.Format
	note   string
}

func (d *directory) draft(ctx context.Context, name string, spec client.VolumeSpec) (draft, error) {
	s, err := d.space(ctx)
	if err != nil {
		return nil, err
	}
	if s.free < leastFree {
		return nil, Fail(client.CodeNoSpace, "repository %s has %d bytes free", d.sr, s.free)
	}
	f := fileDraft{d, name, spec.Format, spec.Note}
	// QEMU's user may not make files here, only write to the one it is given.
	file, err := os.OpenFile(f.path(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if f.format == logFormat {
		return f, file.Close()
	}
	return f, errors.Join(file.Close(), d.m.give(f.path()))
}

func (f fileDraft) path() string {
	return filepath.Join(f.d.dir, draftPrefix+f.name+suffixes[f.format])
}

// keep writes the note first, so that the volume never is there without.
func (f fileDraft) keep(ctx context.Context) error {
	if err := flush(f.path()); err != nil {
		return err
	}
	if f.format != logFormat {
		if err := f.d.note(ctx, client.Volume{Name: f.name}, f.note); err != nil {
			return err
		}
	}
	if err := os.Rename(f.path(), f.d.file(f.name, f.format)); err != nil {
		return err
	}
	return flush(f.d.dir)
}

func (f fileDraft) drop(context.Context) error {
	err := os.Remove(f.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sweep removes what an earlier hostd had half made: drafts, and notes of volumes
// that are not there.
func (d *directory) sweep() error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !d.orphan(e.Name()) {
			continue
		}
		d.m.cfg.Log.Warn("half-made-removed", "sr", d.sr, "file", e.Name())
		if err := os.Remove(filepath.Join(d.dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (d *directory) orphan(file string) bool {
	if rest, ok := strings.CutPrefix(file, draftPrefix); ok {
		_, _, volume := d.parse(rest)
		return volume || strings.HasSuffix(rest, noteSuffix) || rest == markName
	}
	name, ok := strings.CutSuffix(file, noteSuffix)
	if !ok || checkName(name) != nil {
		return false
	}
	for format := range suffixes {
		if _, err := os.Lstat(d.file(name, format)); err == nil {
			return false
		}
	}
	return true
}
