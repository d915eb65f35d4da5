package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockOut makes builds into one output directory wait for one another: a lab
// test, `make run` and a developer may all want the image at once.
func (b *builder) lockOut() (unlock func(), err error) {
	if err := os.MkdirAll(b.Out, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(b.Out, ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		b.printf("image: waiting for another build into %s", b.Out)
		err = flock(f, unix.LOCK_EX)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", b.Out, err)
		}
	} else if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", b.Out, err)
	}
	return func() { f.Close() }, nil
}

// flock retries when a signal interrupts the wait.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
