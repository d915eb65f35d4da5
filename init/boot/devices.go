package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	return &sysModules{sys: "/sys", tree: tree}, nil
}

// Present implements Modules. Only buses for which the archive has a driver
// are looked at: walking all of /sys/devices takes ten times as long.
func (m *sysModules) Present() []string {
	var found []string
	for _, bus := range m.tree.Buses() {
		found = append(found, m.onBus(bus)...)
	}
	slices.SortStableFunc(found, func(a, b string) int { return rank(a) - rank(b) })
	return found
}

// onBus reads what the devices of a bus call themselves. A device may go while
// it is looked at, and many have no driver to ask for.
func (m *sysModules) onBus(bus string) []string {
	dir := filepath.Join(m.sys, "bus", bus, "devices")
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil
	}
	slices.Sort(names)
	if bus == "cpu" {
		names = names[:min(len(names), 1)] // they are all alike
	}
	var found []string
	for _, name := range names {
		if text, err := os.ReadFile(filepath.Join(dir, name, "modalias")); err == nil {
			found = append(found, strings.TrimSpace(string(text)))
		}
	}
	return found
}

// rank puts first what a root is likely to be behind, and fast to find there:
// the search ends with the driver that shows the root.
func rank(modalias string) int {
	bus, id, _ := strings.Cut(modalias, ":")
	switch {
	case bus == "virtio":
		return 0
	case bus == "pci" && strings.Contains(id, "bc01sc08"): // NVMe
		return 1
	case bus == "pci" && strings.Contains(id, "bc01"): // other storage
		return 2
	case bus == "scsi":
		return 3
	case bus == "cpu": // faster checksums; stage 1 asks for them by itself
		return 5
	default:
		return 4
	}
}

// LoadAlias implements Modules.
func (m *sysModules) LoadAlias(modalias string) (bool, []error) {
	return m.loadAll(m.tree.Match(modalias))
}

// Start implements Modules. Beside the named ones it loads what the processor
// offers: verity takes the fastest digest there is when it is opened.
func (m *sysModules) Start(names []string) func() error {
	errs := make(chan error, len(names)+1)
	for _, name := range names {
		go func() { errs <- m.tree.LoadName(name) }()
	}
	go func() {
		for _, modalias := range m.onBus("cpu") {
			m.loadAll(m.tree.Match(modalias)) // only faster, so never a failure
		}
		errs <- nil
	}()
	return func() (err error) {
		for range cap(errs) {
			err = errors.Join(err, <-errs)
		}
		return err
	}
}

// LoadWatchdogs implements Modules. Intel's own watchdog is no device until a
// driver of the chipset's LPC or SMBus function has made it one.
func (m *sysModules) LoadWatchdogs() []error {
	loaded, errs := m.loadBelow("pci", "/watchdog/", "")
	if loaded {
		return errs
	}
	for _, class := range []string{"bc06sc01", "bc0Csc05"} {
		_, more := m.loadBelow("pci", "", class)
		errs = append(errs, more...)
	}
	_, more := m.loadBelow("platform", "/watchdog/", "")
	return append(errs, more...)
}

// loadBelow loads the drivers on a bus whose file lies below dir, for devices
// whose modalias contains class.
func (m *sysModules) loadBelow(bus, dir, class string) (bool, []error) {
	var files []string
	for _, modalias := range m.onBus(bus) {
		if !strings.Contains(modalias, class) {
			continue
		}
		for _, file := range m.tree.Match(modalias) {
			if strings.Contains(file, dir) {
				files = append(files, file)
			}
		}
	}
	return m.loadAll(files)
}

// loadAll gives the files to the kernel and tells whether one was new. ENODEV
// is a driver's way to say that it has nothing to do on this machine, and no
// failure.
func (m *sysModules) loadAll(files []string) (loaded bool, errs []error) {
	for _, file := range files {
		if m.tree.Loaded(file) {
			continue
		}
		err := m.tree.LoadFile(file)
		switch {
		case err == nil:
			loaded = true
		case !errors.Is(err, unix.ENODEV):
			errs = append(errs, err)
		}
	}
	return loaded, errs
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
