package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func mounts() error {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	return nil
}

// loadAll says which drivers it could not load and goes on: a guest without a
// NIC can still be looked at.
func loadAll(console io.Writer, names []string) {
	for _, name := range names {
		if err := load(name); err != nil {
			fmt.Fprintf(console, "cairn-demo-guest driver-missing name=%s err=%q\n", name, err)
		}
	}
}

// load inserts a module and what it depends on, by the archive's modules.dep.
func load(name string) error {
	dir := "/lib/modules/" + release()
	dep, err := os.Open(dir + "/modules.dep")
	if err != nil {
		return err
	}
	defer dep.Close()
	for sc := bufio.NewScanner(dep); sc.Scan(); {
		file, needs, _ := strings.Cut(sc.Text(), ":")
		if strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_") != name {
			continue
		}
		all := strings.Fields(needs)
		for i := len(all) - 1; i >= 0; i-- {
			if err := insert(dir + "/" + all[i]); err != nil {
				return err
			}
		}
		return insert(dir + "/" + file)
	}
	return nil // built in, or not part of this archive
}

func insert(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return nil
}

// openConsole opens the terminal behind /dev/console, which can be a controlling
// terminal.
func openConsole() (*os.File, error) {
	if data, err := os.ReadFile("/sys/class/tty/console/active"); err == nil {
		if names := strings.Fields(string(data)); len(names) > 0 {
			if f, err := os.OpenFile("/dev/"+names[len(names)-1], os.O_RDWR|unix.O_NOCTTY, 0); err == nil {
				return f, nil
			}
		}
	}
	return os.OpenFile("/dev/console", os.O_RDWR|unix.O_NOCTTY, 0)
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func cpu() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}
