package console

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/wire"
)

// picturesAtOnce bounds screenshots under way: each is a whole screen in memory.
const picturesAtOnce = 4

var errPictures = errors.New("too many pictures are being taken")

// screen is a viewer's connection to a VNC server.
type screen struct {
	conn net.Conn
	keys keyboard
	b    []byte
}

func (m *Manager) screen(ctx context.Context, t target) (*screen, error) {
	conn, err := m.dialer.DialVNC(ctx, t.vm.UUID)
	if errors.Is(err, hypervisor.ErrNotFound) {
		return nil, errNoScreen
	}
	if err != nil {
		return nil, err
	}
	return &screen{conn: conn, b: make([]byte, 32<<10)}, nil
}

// next implements guest.
func (s *screen) next() ([]byte, error) {
	n, err := s.conn.Read(s.b)
	if n > 0 {
		return s.b[:n], nil
	}
	if err == nil {
		return nil, nil
	}
	return nil, io.EOF // however QEMU went, it is gone
}

// enter implements guest.
func (s *screen) enter(p []byte) (active bool, err error) {
	active = s.keys.read(p)
	_, err = s.conn.Write(p)
	return active, err
}

// close implements guest.
func (s *screen) close(error) { s.conn.Close() }

// serveSnapshot answers a picture of a screen.
func (m *Manager) serveSnapshot(w http.ResponseWriter, r *wire.Request) {
	t, err := m.find(r.FormValue("uuid"), r.FormValue("ref"))
	if err == nil && t.vm.IsControlDomain {
		err = errNoScreen
	}
	if err != nil {
		refuse(w, err)
		return
	}
	if !m.here(t.vm.ResidentOn) {
		r.Redirect(w, t.vm.ResidentOn)
		return
	}
	picture, err := m.picture(r.Context(), t)
	if err != nil {
		m.log.Warn("screenshot", "uuid", t.vm.UUID, "err", err)
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "image/png")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(picture)))
	_, _ = w.Write(picture) // to nobody, if the client has gone
}

func (m *Manager) picture(ctx context.Context, t target) ([]byte, error) {
	select {
	case m.pictures <- struct{}{}:
	default:
		return nil, errPictures
	}
	defer func() { <-m.pictures }()
	picture, err := m.dialer.Screenshot(ctx, t.vm.UUID)
	if errors.Is(err, hypervisor.ErrNotFound) {
		return nil, errNoScreen
	}
	return picture, err
}

// hostAction is what one must be allowed for the console of a host itself.
func hostAction(method string) string {
	if method == http.MethodConnect {
		return "host_console"
	}
	return "host_console_ws"
}

// allow refuses what the role of the session does not reach to. The host's own
// console is not carried; who may not see it is told that rather.
func allow(r *wire.Request, vm *api.VM) error {
	if !vm.IsControlDomain {
		return nil
	}
	if err := r.Authorize(hostAction(r.Method)); err != nil {
		return err
	}
	return errNone
}
