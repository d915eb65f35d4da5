package coding

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// nextData is where the next bytes of a file lie, at an offset or behind it: its size
// where only a hole follows. File systems that know of no holes say that all is data.
func nextData(f *os.File, off, size int64) (int64, error) {
	at, err := f.Seek(off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, syscall.ENXIO):
		return size, nil
	case errors.Is(err, syscall.EINVAL):
		return off, nil
	case err != nil:
		return 0, fmt.Errorf("holes of %s: %w", f.Name(), err)
	}
	return min(at, size), nil
}

// Sparse tells whether a file has less on its medium than it is long.
func Sparse(info os.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && s.Blocks*512 < info.Size()
}
