package watchdog

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Path is the first watchdog device of the machine.
const Path = "/dev/watchdog"

// ErrClosed is the error of a device that is not open.
var ErrClosed = errors.New("watchdog is not open")

// Linux is a Device of the kernel's watchdog API.
type Linux struct {
	path string
	fd   int // -1 is closed
}

// NewLinux describes the device at path. fd is a descriptor that is open
// already, or -1.
func NewLinux(path string, fd int) *Linux {
	if fd >= 0 {
		unix.CloseOnExec(fd)
	}
	return &Linux{path: path, fd: fd}
}

// Name implements Device.
func (d *Linux) Name() string { return d.path }

// Open implements Device. It arms the device.
func (d *Linux) Open() error {
	fd, err := unix.Open(d.path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: d.path, Err: err}
	}
	d.fd = fd
	return nil
}

// SetTimeout implements Device.
func (d *Linux) SetTimeout(t time.Duration) (time.Duration, error) {
	if d.fd < 0 {
		return 0, ErrClosed
	}
	err := unix.IoctlSetPointerInt(d.fd, unix.WDIOC_SETTIMEOUT, int(t/time.Second))
	got, getErr := unix.IoctlGetInt(d.fd, unix.WDIOC_GETTIMEOUT)
	return time.Duration(got) * time.Second, errors.Join(err, getErr)
}

// Feed implements Device.
func (d *Linux) Feed() error {
	if d.fd < 0 {
		return ErrClosed
	}
	_, err := unix.Write(d.fd, []byte{0})
	return err
}

// Close implements Device. The magic byte is what disarms (unless the driver
// was loaded with nowayout).
func (d *Linux) Close(disarm bool) error {
	if d.fd < 0 {
		return ErrClosed
	}
	var err error
	if disarm {
		_, err = unix.Write(d.fd, []byte{'V'})
	}
	err = errors.Join(err, unix.Close(d.fd))
	d.fd = -1
	return err
}
