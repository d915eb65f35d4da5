// Package dm drives the kernel's device mapper through its ioctls: create a
// device, load a table, resume, ask for status and dependencies, remove. It
// knows the verity target and reads the superblock veritysetup writes.
//
// Invariants: nothing from the kernel or from a disk is trusted for a length;
// every decoder checks bounds and is fuzzed. A device that could not be made
// whole is removed again.
//
// A Control may be used by several goroutines; each call is one ioctl with a
// buffer of its own.
package dm

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ControlPath is the device mapper's control node, made by devtmpfs.
const ControlPath = "/dev/mapper/control"

// A Kernel performs one device mapper ioctl on buf, in place.
type Kernel interface {
	Ioctl(cmd Command, buf []byte) error
}

// Control is an open device mapper.
type Control struct {
	kernel Kernel
}

// New returns a Control that talks to the given kernel, which tests replace.
func New(k Kernel) *Control { return &Control{kernel: k} }

// Open opens the control node.
func Open() (*Control, error) {
	f, err := os.OpenFile(ControlPath, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("device mapper: %w", err)
	}
	return New(&node{f}), nil
}

// Close closes the control node; devices stay.
func (c *Control) Close() error {
	if n, ok := c.kernel.(*node); ok {
		return n.file.Close()
	}
	return nil
}

type node struct{ file *os.File }

// Ioctl implements Kernel.
func (n *node) Ioctl(cmd Command, buf []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, n.file.Fd(), cmd.number(), uintptr(unsafe.Pointer(&buf[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

// Version asks for the interface version of the kernel's device mapper.
func (c *Control) Version() (major, minor, patch uint32, err error) {
	h, _, err := c.call(Version, header{}, nil)
	return h.version[0], h.version[1], h.version[2], err
}

// Create makes an empty device and returns its number.
func (c *Control) Create(name, uuid string) (Device, error) {
	h, _, err := c.call(Create, header{name: name, uuid: uuid}, nil)
	return Device(h.dev), err
}

// Remove takes a device away. An open device is refused with EBUSY.
func (c *Control) Remove(name string) error {
	_, _, err := c.call(Remove, header{name: name}, nil)
	return err
}

// Load puts a table into the device's inactive slot; Resume makes it live.
func (c *Control) Load(name string, readOnly bool, table []Target) error {
	payload, err := encodeTargets(table)
	if err != nil {
		return fmt.Errorf("device mapper: load %s: %w", name, err)
	}
	h := header{name: name, targets: uint32(len(table))}
	if readOnly {
		h.flags |= flagReadOnly
	}
	_, _, err = c.call(Load, h, payload)
	return err
}

// Resume makes the loaded table live and lets I/O through.
func (c *Control) Resume(name string) error {
	_, _, err := c.call(Suspend, header{name: name}, nil)
	return err
}

// Suspend holds I/O back until Resume.
func (c *Control) Suspend(name string) error {
	_, _, err := c.call(Suspend, header{name: name, flags: flagSuspend}, nil)
	return err
}

// Info is the state of a device.
type Info struct {
	Device    Device
	Name      string
	UUID      string
	OpenCount int32
	ReadOnly  bool
	Suspended bool
}

// Info asks for the state of a device.
func (c *Control) Info(name string) (Info, error) {
	h, _, err := c.call(Status, header{name: name}, nil)
	return Info{
		Device: Device(h.dev), Name: h.name, UUID: h.uuid, OpenCount: h.openCount,
		ReadOnly: h.flags&flagReadOnly != 0, Suspended: h.flags&flagSuspend != 0,
	}, err
}

// Status asks the targets of the live table how they are; Params then holds
// the status line, for verity "V" (valid so far) or "C" (corruption seen).
func (c *Control) Status(name string) ([]Target, error) {
	return c.targets(name, 0)
}

// Table asks for the live table itself.
func (c *Control) Table(name string) ([]Target, error) {
	return c.targets(name, flagStatusTable)
}

func (c *Control) targets(name string, flags uint32) ([]Target, error) {
	h, payload, err := c.call(TableStatus, header{name: name, flags: flags}, nil)
	if err != nil {
		return nil, err
	}
	return decodeTargets(payload, h.targets)
}

// Deps lists the devices the live table stands on.
func (c *Control) Deps(name string) ([]Device, error) {
	_, payload, err := c.call(TableDeps, header{name: name}, nil)
	if err != nil {
		return nil, err
	}
	return decodeDeps(payload)
}

// Activate makes a device with the given table, live on return. When a step
// fails the half-made device is removed.
func (c *Control) Activate(name, uuid string, readOnly bool, table []Target) (Device, error) {
	dev, err := c.Create(name, uuid)
	if err != nil {
		return 0, err
	}
	if err = c.Load(name, readOnly, table); err == nil {
		err = c.Resume(name)
	}
	if err != nil {
		return 0, errors.Join(err, c.Remove(name))
	}
	return dev, nil
}

// A full reply buffer is the kernel's way to ask for a larger one; the largest
// table read here (multipath, hundreds of paths) stays far below the last try.
const (
	firstBuffer = 16 << 10
	lastBuffer  = 1 << 20
)

func (c *Control) call(cmd Command, h header, payload []byte) (header, []byte, error) {
	for size := firstBuffer; ; size *= 4 {
		reply, data, err := c.once(cmd, h, payload, size)
		if err != nil {
			return header{}, nil, fmt.Errorf("device mapper: %v %s: %w", cmd, h.name, err)
		}
		if reply.flags&flagBufferFull == 0 {
			return reply, data, nil
		}
		if size >= lastBuffer {
			return header{}, nil, fmt.Errorf("device mapper: %v %s: reply exceeds %d bytes", cmd, h.name, size)
		}
	}
}

func (c *Control) once(cmd Command, h header, payload []byte, size int) (header, []byte, error) {
	buf, err := h.encode(payload, size)
	if err != nil {
		return header{}, nil, err
	}
	if err := c.kernel.Ioctl(cmd, buf); err != nil {
		return header{}, nil, err
	}
	return decodeHeader(buf)
}
