package hostd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"cairn/init/boot/modules"
	"cairn/init/boot/uevent"
	"cairn/init/hostd/client"
	"cairn/init/storage"
)

// linux is the System of the running machine.
type linux struct {
	storage.Linux
	paths Paths

	mu   sync.Mutex // of tree, until it is open
	tree *modules.Tree

	screens sync.Mutex
}

func newLinux(p Paths) *linux {
	l := &linux{paths: p}
	l.Linux = storage.Linux{LoadModule: l.LoadModule}
	return l
}

// LoadModule implements System. The indexes are read on the first call only.
func (l *linux) LoadModule(name string) error {
	tree, err := l.modules()
	if err != nil {
		return err
	}
	return tree.LoadName(name)
}

// Admit implements System.
func (*linux) Admit(device string, group int) error {
	return errors.Join(os.Chown(device, 0, group), os.Chmod(device, 0o660))
}

func (l *linux) modules() (*modules.Tree, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tree == nil {
		dir := filepath.Join("/usr/lib/modules", kernelRelease())
		tree, err := modules.Open(os.DirFS(dir), modules.Kernel(dir))
		if err != nil {
			return nil, err
		}
		l.tree = tree
	}
	return l.tree, nil
}

// Prepare implements storage.System; what the kernel already knows needs no
// module, and no reading of the module indexes.
func (l *linux) Prepare(fstype string) error {
	if b, err := os.ReadFile(filepath.Join(l.paths.Proc, "filesystems")); err == nil && knows(string(b), fstype) {
		return nil
	}
	return l.Linux.Prepare(fstype)
}

// knows reads /proc/filesystems, whose lines end with the name.
func knows(filesystems, fstype string) bool {
	for line := range strings.Lines(filesystems) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == fstype {
			return true
		}
	}
	return false
}

// SetHostname implements System.
func (*linux) SetHostname(name string) error {
	if old, err := os.Hostname(); err == nil && old == name {
		return nil
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set host name %s: %w", name, err)
	}
	return nil
}

// Power implements System by PID 1's signals.
func (*linux) Power(a client.PowerAction) error {
	signal := unix.SIGTERM // reboot
	if a == client.Poweroff {
		signal = unix.SIGUSR2
	}
	if err := unix.Kill(1, signal); err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	return nil
}

// Notify implements System.
func (*linux) Notify(state string) error {
	_, err := daemon.SdNotify(false, state)
	return err
}

// Devices implements System. An event says only that something is there.
func (*linux) Devices(ctx context.Context, found func()) error {
	sock, err := uevent.Open()
	if err != nil {
		return err
	}
	defer sock.Close()
	found()
	for {
		e, err := sock.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, uevent.ErrOverrun):
			found()
		case err != nil:
			return err
		case e.Action != "remove" && (e.Vars["SUBSYSTEM"] == "input" || e.Vars["SUBSYSTEM"] == "block"):
			found()
		}
	}
}

// writeLimit bounds how long a screen may take the text: a serial line with
// flow control and nobody behind it takes none.
const writeLimit = 5 * time.Second

// Show implements System, without waiting for slow lines.
func (l *linux) Show(screen, text string) {
	go func() {
		l.screens.Lock()
		defer l.screens.Unlock()
		// A machine without a screen or a serial line has nothing to show it on.
		_ = writeTTY("/dev/tty1", screen)
		for _, name := range serialConsoles(l.paths.Sys) {
			_ = writeTTY(filepath.Join("/dev", name), text)
		}
	}()
}

func writeTTY(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return err
}

// serialConsoles lists the kernel's consoles that are not virtual terminals.
func serialConsoles(sysfs string) []string {
	b, err := os.ReadFile(filepath.Join(sysfs, "class/tty/console/active"))
	if err != nil {
		return nil
	}
	var out []string
	for _, name := range strings.Fields(string(b)) {
		if rest := strings.TrimPrefix(name, "tty"); rest == name || rest == "" || rest[0] < '0' || rest[0] > '9' {
			out = append(out, name)
		}
	}
	return out
}
