package supervise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"cairn/init/supervise/engine"
)

// watcher tells when the sockets that services make have appeared. It watches
// their directories, so nothing is polled.
type watcher struct {
	events  chan<- engine.Event
	inotify *os.File

	mu   sync.Mutex
	want map[string]string // path → service
}

func newWatcher(events chan<- engine.Event) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	return &watcher{events: events, inotify: os.NewFile(uintptr(fd), "inotify"), want: map[string]string{}}, nil
}

// add removes a socket that is left over, so that the next one to appear is the
// new one's.
func (w *watcher) add(service, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("left-over socket: %w", err)
	}
	w.mu.Lock()
	w.want[path] = service
	w.mu.Unlock()
	raw, err := w.inotify.SyscallConn()
	if err != nil {
		return err
	}
	var watch error
	err = raw.Control(func(fd uintptr) {
		_, watch = unix.InotifyAddWatch(int(fd), filepath.Dir(path), unix.IN_CREATE|unix.IN_MOVED_TO)
	})
	if err := errors.Join(err, watch); err != nil {
		return fmt.Errorf("watch %s: %w", filepath.Dir(path), err)
	}
	return nil
}

// run looks at every awaited path whenever any watched directory has changed.
// There are few, and so the kernel's records need not be read.
func (w *watcher) run() {
	buf := make([]byte, 4096)
	for {
		if _, err := w.inotify.Read(buf); err != nil {
			return
		}
		for _, service := range w.appeared() {
			w.events <- engine.SocketAppeared{Name: service}
		}
	}
}

func (w *watcher) appeared() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for path, service := range w.want {
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
			delete(w.want, path)
			out = append(out, service)
		}
	}
	return out
}
