package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"cairn/journal"
	"cairn/toolstack/transfer/disk"
)

// Export is a disk that a server lends to one client, to be read.
type Export struct {
	Disk disk.Device
	// Alive says why the client may read it no longer; nil is that it always may.
	Alive func() error
}

// Server lends disks out, to be read. Fields are set before Serve.
type Server struct {
	// Admit says which TLS a client must speak before it asks for anything, nil being that
	// nothing is kept secret, or sends it away with an error. Without it all are admitted
	// in clear.
	Admit func(net.Conn) (*tls.Config, error)
	// Open finds the disk that a name means. Its error is in the log, and the client
	// hears only that there is no such export. The context is that of the connection.
	Open func(ctx context.Context, name string) (Export, error)
	Log  *slog.Logger
	// Idle is how long a client may be silent, and how long a reply may take to be
	// taken; 0 is some minutes.
	Idle time.Duration
	// Most is how many clients there are at once; 0 is DefaultMost.
	Most int
}

// DefaultMost bounds the memory of all: each client has a few MiB at most.
const DefaultMost = 32

const (
	defaultIdle = 15 * time.Minute
	serverGreet = 30 * time.Second // for the whole handshake
)

// Serve lends out to those who connect, until the context ends. It closes the listener,
// and returns when all have gone.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	most := s.Most
	if most == 0 {
		most = DefaultMost
	}
	room := make(chan struct{}, most)
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		select {
		case room <- struct{}{}:
		default:
			s.log().Warn("nbd-refused", "remote", conn.RemoteAddr(), "err", "there are too many clients")
			conn.Close()
			continue
		}
		all.Go(func() {
			defer func() { <-room }()
			if err := s.Lend(ctx, conn); err != nil && ctx.Err() == nil {
				s.log().Info("nbd-ended", "remote", conn.RemoteAddr(), "err", err)
			}
		})
	}
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return journal.Discard()
	}
	return s.Log
}

func (s *Server) idle() time.Duration {
	if s.Idle == 0 {
		return defaultIdle
	}
	return s.Idle
}

// Lend serves one client until it goes, which is no error, or has to. It closes the
// connection.
func (s *Server) Lend(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	h := &haggle{s: s, ctx: ctx, conn: conn}
	if s.Admit != nil {
		var err error
		if h.tls, err = s.Admit(conn); err != nil {
			return err
		}
	}
	defer h.close()
	if err := conn.SetDeadline(time.Now().Add(serverGreet)); err != nil {
		return err
	}
	err := h.run()
	if errors.Is(err, errTaken) {
		return nil
	}
	if err != nil {
		return err
	}
	return (&lender{
		conn: h.conn, disk: h.export.Disk, alive: h.export.Alive, ctx: ctx, idle: s.idle(),
		structured: h.structured, status: h.status && h.asked == h.name,
	}).run()
}
