package rootfs

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// buildTime is the time of every file: a fixed day, late enough that no program
// takes it for an unset clock.
var buildTime = time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC)

// BuildTime is the modification time of every file, as Unix seconds.
func BuildTime() int64 { return buildTime.Unix() }

// WriteTar writes the tree as a tar stream.
func (t *Tree) WriteTar(w io.Writer) error {
	tw := tar.NewWriter(w)
	root := &Entry{Path: ".", Mode: fs.ModeDir | 0o755}
	for _, e := range append([]*Entry{root}, t.Entries()...) {
		if err := writeEntry(tw, e); err != nil {
			return fmt.Errorf("write %s: %w", e.Path, err)
		}
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, e *Entry) error {
	h := &tar.Header{
		Name: "./" + e.Path, Mode: int64(e.Mode.Perm()), Uid: e.UID, Gid: e.GID,
		ModTime: buildTime, Format: tar.FormatGNU,
	}
	if e.Mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	switch {
	case e.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	case e.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
	default:
		h.Typeflag, h.Size = tar.TypeReg, e.Size
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(tw, r)
	return err
}

// Open returns the content of a regular file.
func (e *Entry) Open() (io.ReadCloser, error) {
	if e.Source == "" {
		return io.NopCloser(bytes.NewReader(e.Data)), nil
	}
	return os.Open(e.Source)
}
