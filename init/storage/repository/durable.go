package repository

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cairn/init/hostd/client"
)

// flush brings a file or a directory to its disk.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// settle brings a volume to its medium. One without a path of its own, or whose path
// is not there because it is not active, has nothing on the way; nor has a device
// that knows of no such thing (EINVAL).
func settle(v client.Volume) error {
	if v.Path == "" || v.ReadOnly {
		return nil
	}
	if err := flush(v.Path); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// replace writes a file so that a crash leaves the old text or the new one.
func replace(path string, text []byte) error {
	temp := filepath.Join(filepath.Dir(path), draftPrefix+filepath.Base(path))
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = os.Remove(temp) // the first error is the one to tell
		return err
	}
	return flush(filepath.Dir(path))
}
