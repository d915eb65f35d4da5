package notify

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Packet is one message with its sender as the kernel named it. Close must be
// called when it has been handled: it is the answer to BARRIER=1.
type Packet struct {
	PID     int
	Message Message
	Err     error // of the first value that was not understood
	fds     []int
}

// Close closes what came with the message.
func (p Packet) Close() {
	for _, fd := range p.fds {
		unix.Close(fd)
	}
}

// Server is the socket that NOTIFY_SOCKET names.
type Server struct {
	conn    *net.UnixConn
	packets chan Packet
	dropped atomic.Int64
}

// Listen opens the socket at path, replacing one that is left over. Every user
// may write to it; who counts is decided by pid.
func Listen(path string) (*Server, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	if err := errors.Join(passCredentials(conn), os.Chmod(path, 0o666)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("notify socket %s: %w", path, err)
	}
	return &Server{conn: conn, packets: make(chan Packet, 64)}, nil
}

func passCredentials(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	})
	return errors.Join(err, set)
}

// Packets is where messages come out, in the order they were sent.
func (s *Server) Packets() <-chan Packet { return s.packets }

// Dropped counts datagrams that were no message: too long or without sender.
func (s *Server) Dropped() int64 { return s.dropped.Load() }

// Close ends Serve.
func (s *Server) Close() error { return s.conn.Close() }

// Serve reads until Close. A reader that is slow makes senders wait, which is
// what sd_notify promises, so nothing said is lost.
func (s *Server) Serve() error {
	buf := make([]byte, MaxSize+1)
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*253)) // SCM_MAX_FD
	for {
		n, oobn, flags, _, err := s.conn.ReadMsgUnix(buf, oob)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, syscall.EINTR), errors.Is(err, syscall.ENOBUFS):
			continue
		case err != nil:
			return fmt.Errorf("notify socket: %w", err)
		}
		p := Packet{}
		p.PID, p.fds = control(oob[:oobn])
		if p.PID <= 0 || n > MaxSize || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
			s.dropped.Add(1)
			p.Close()
			continue
		}
		p.Message, p.Err = Parse(buf[:n])
		s.packets <- p
	}
}

// control takes the sender and the descriptors out of the ancillary data.
func control(oob []byte) (pid int, fds []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, nil
	}
	for i := range msgs {
		if rights, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, rights...)
		}
		if len(msgs[i].Data) < unix.SizeofUcred {
			continue // the parser below would read beyond it
		}
		if cred, err := unix.ParseUnixCredentials(&msgs[i]); err == nil {
			pid = int(cred.Pid)
		}
	}
	return pid, fds
}
