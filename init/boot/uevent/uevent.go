// Package uevent hears the kernel's device events, without udev. Stage 1 sleeps
// on it instead of polling.
//
// An event only says "look again": after ErrOverrun events were lost and the
// listener must look at everything. A Socket has one reader.
package uevent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrOverrun tells that the kernel dropped events.
var ErrOverrun = errors.New("device events were lost")

// Event is one message of the kernel.
type Event struct {
	Action  string // add, change, remove, bind …
	DevPath string // below /sys
	Vars    map[string]string
}

// Parse decodes a message: "action@devpath", then NUL-terminated key=value.
func Parse(b []byte) (Event, error) {
	head, rest, _ := strings.Cut(string(b), "\x00")
	action, devPath, ok := strings.Cut(head, "@")
	if !ok || action == "" || !strings.HasPrefix(devPath, "/") {
		return Event{}, fmt.Errorf("device event begins with %q", head[:min(len(head), 64)])
	}
	e := Event{Action: action, DevPath: devPath, Vars: map[string]string{}}
	for _, pair := range strings.Split(rest, "\x00") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			e.Vars[key] = value
		}
	}
	return e, nil
}

// Socket is a subscription to the kernel's events.
type Socket struct {
	file *os.File
	conn rawConn
}

type rawConn interface {
	Read(f func(fd uintptr) bool) error
}

// bufferSize holds the burst of a large host's boot; overruns are survivable.
const bufferSize = 1 << 20

// Open subscribes. Devices that were there before are not announced again.
func Open() (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("device events: %w", err)
	}
	file := os.NewFile(uintptr(fd), "uevent")
	// Group 1 is the kernel's own; 2 is udev's. A smaller buffer works too.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return nil, errors.Join(fmt.Errorf("device events: %w", err), file.Close())
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("device events: %w", err), file.Close())
	}
	return &Socket{file: file, conn: conn}, nil
}

// Close ends the subscription.
func (s *Socket) Close() error { return s.file.Close() }

// Next waits for an event until ctx ends. Messages that are not the kernel's,
// or not understood, are passed over.
func (s *Socket) Next(ctx context.Context) (Event, error) {
	deadline, _ := ctx.Deadline() // none: the zero time, which means no limit
	if err := s.file.SetReadDeadline(deadline); err != nil {
		return Event{}, fmt.Errorf("device events: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 16<<10)
	for {
		n, from, err := s.receive(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return Event{}, context.DeadlineExceeded
		case errors.Is(err, unix.ENOBUFS):
			return Event{}, ErrOverrun
		case err != nil:
			return Event{}, fmt.Errorf("device events: %w", err)
		}
		// Only the kernel has port 0; any process may send to the group.
		if from != 0 {
			continue
		}
		if e, err := Parse(buf[:n]); err == nil {
			return e, nil
		}
	}
}

func (s *Socket) receive(buf []byte) (n int, port uint32, err error) {
	var from unix.Sockaddr
	waitErr := s.conn.Read(func(fd uintptr) bool {
		n, from, err = unix.Recvfrom(int(fd), buf, 0)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if waitErr != nil {
		return 0, 0, waitErr
	}
	if sender, ok := from.(*unix.SockaddrNetlink); ok {
		port = sender.Pid
	}
	return n, port, err
}
