package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// begin has the kernel begin to put a part of a file onto its medium, and does not wait.
// Where that is not possible the end waits for it.
func begin(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}
