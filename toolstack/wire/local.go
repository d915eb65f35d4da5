package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"
)

// localAddr is what is said of callers on the host's own socket.
const localAddr = "local"

// rootKey marks the context of a connection that root has on the host's own socket.
type rootKey struct{}

// fromRoot tells whether a request comes from root on this host.
func fromRoot(r *http.Request) bool { return r.Context().Value(rootKey{}) != nil }

// NewLocalServer is NewHTTPServer for the host's own socket, which is LocalListener's.
// What is said there does not leave the machine, so it is not encrypted, and whoever is
// heard is root and needs no password.
func NewLocalServer(h http.Handler, log *slog.Logger) *http.Server {
	s := NewHTTPServer(h, nil, log)
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if _, ok := c.(localConn); ok {
			ctx = context.WithValue(ctx, rootKey{}, true)
		}
		return ctx
	}
	return s
}

// LocalListener accepts root's connections to a unix socket, by what the kernel says of
// the other end, and those of the process's own user; it hangs up on all others. That
// the socket's mode lets nobody else come so far is the first lock, this is the second.
type LocalListener struct {
	net.Listener
	Log *slog.Logger
}

// Accept implements net.Listener.
func (l LocalListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peer(c)
		if err == nil && (uid == 0 || int(uid) == os.Geteuid()) {
			return localConn{c}, nil
		}
		l.Log.Warn("local-refused", "uid", uid, "err", err)
		c.Close()
	}
}

// localConn is root's.
type localConn struct{ net.Conn }

// RemoteAddr implements net.Conn: the other end has no name.
func (localConn) RemoteAddr() net.Addr { return &net.UnixAddr{Name: localAddr, Net: "unix"} }

// peer is the user who connected.
func peer(c net.Conn) (uid uint32, err error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("a %T has no user", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var asked error
	err = raw.Control(func(fd uintptr) { cred, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, asked); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
