package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"cairn/init/boot/modules"
	"cairn/init/boot/uevent"
)

// modulesDir is where the archive keeps the running kernel's modules.
func modulesDir() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("kernel release: %w", err)
	}
	return filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:])), nil
}

// sysModules loads drivers for the devices in sysfs.
type sysModules struct {
	sys  string
	tree *modules.Tree
	seen map[string]bool // modaliases that were served
}

// openModules is called before anything is mounted: the indexes are files of
// the archive.
func openModules() (*sysModules, error) {
	dir, err := modulesDir()
	if err != nil {
		return nil, err
	}
	tree, err := modules.Open(os.DirFS(dir), modules.Kernel(dir))
	if err != nil {
		return nil, err
	}
	return &sysModules{sys: "/sys", tree: tree, seen: map[string]bool{}}, nil
}

// Present implements Modules. The bus directories list every device with a
// driver; walking all of /sys/devices takes ten times as long.
func (m *sysModules) Present() []string {
	files, err := filepath.Glob(m.sys + "/bus/*/devices/*/modalias")
	if err != nil {
		return nil
	}
	files = append(files, m.sys+"/devices/system/cpu/modalias")
	var found []string
	for _, file := range files {
		// A device may go while it is looked at.
		if text, err := os.ReadFile(file); err == nil {
			found = append(found, strings.TrimSpace(string(text)))
		}
	}
	return found
}

// LoadAlias implements Modules.
func (m *sysModules) LoadAlias(modalias string) []error {
	if m.seen[modalias] {
		return nil
	}
	m.seen[modalias] = true
	return m.loadAll(m.tree.Match(modalias))
}

// LoadName implements Modules.
func (m *sysModules) LoadName(name string) error { return m.tree.LoadName(name) }

// LoadWatchdogs implements Modules.
func (m *sysModules) LoadWatchdogs() []error {
	var files []string
	for _, modalias := range m.Present() {
		for _, file := range m.tree.Match(modalias) {
			if strings.Contains(file, "/watchdog/") {
				files = append(files, file)
			}
		}
	}
	return m.loadAll(files)
}

// loadAll gives the files to the kernel. ENODEV is a driver's way to say that
// it has nothing to do on this machine, and no failure.
func (m *sysModules) loadAll(files []string) []error {
	var errs []error
	for _, file := range files {
		if m.tree.Loaded(file) {
			continue
		}
		if err := m.tree.LoadFile(file); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, err)
		}
	}
	return errs
}

// sysEvents hears device events.
type sysEvents struct{ socket *uevent.Socket }

// Next implements Events. A new device is worth waking for when it wants a
// driver or is a disk; the rest (queues, power supplies, …) is passed over.
func (s sysEvents) Next(ctx context.Context) (string, error) {
	for {
		e, err := s.socket.Next(ctx)
		switch {
		case errors.Is(err, uevent.ErrOverrun):
			return "", errLost
		case err != nil:
			return "", err
		case e.Action == "remove":
		case e.Vars["MODALIAS"] != "":
			return e.Vars["MODALIAS"], nil
		case e.Vars["SUBSYSTEM"] == "block":
			return "", nil
		}
	}
}
