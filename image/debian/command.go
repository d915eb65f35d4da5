package debian

import (
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// libraryDirs are where the tree's programs find their libraries. It is given
// to the dynamic loader by option and not by environment, so that children of a
// program of the tree that are the machine's own keep the machine's libraries.
var libraryDirs = []string{
	"/usr/lib/x86_64-linux-gnu",
	"/usr/lib/x86_64-linux-gnu/systemd",
	"/usr/lib/x86_64-linux-gnu/libvirt",
	"/usr/lib",
}

// qemuData are the places where Debian keeps what QEMU loads by bare name.
var qemuData = []string{"/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe/qemu"}

// programDirs is the search order for a program given by bare name.
var programDirs = []string{"/usr/bin", "/usr/sbin", "/usr/libexec", "/usr/lib/udev", "/usr/lib/systemd", "/usr/lib/qemu"}

// Command prepares a program of the tree, by name or by absolute path in the
// tree, to run in place with the tree's loader and libraries. What it needs to
// know of its data is added. As with exec.Command, a program that cannot be run
// is reported by the command's Err.
func (t *Tree) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	file, err := t.program(name)
	if err != nil {
		return &exec.Cmd{Path: name, Args: append([]string{name}, args...), Err: err}
	}
	args = append(t.dataArgs(filepath.Base(name)), args...)
	loader, err := interpreter(file)
	if err != nil {
		return &exec.Cmd{Path: file, Args: append([]string{name}, args...), Err: err}
	}
	var cmd *exec.Cmd
	if loader == "" {
		cmd = exec.CommandContext(ctx, file, args...)
	} else {
		var dirs []string
		for _, d := range libraryDirs {
			dirs = append(dirs, t.Path(d))
		}
		pre := []string{"--library-path", strings.Join(dirs, ":"), "--argv0", name, file}
		cmd = exec.CommandContext(ctx, t.Path(loader), append(pre, args...)...)
	}
	if env := t.dataEnv(filepath.Base(name)); env != nil {
		cmd.Env = append(os.Environ(), env...)
	}
	return cmd
}

// program finds the file of a program. Links are followed inside the tree
// because absolute ones mean the tree's root.
func (t *Tree) program(name string) (string, error) {
	names := []string{name}
	if !strings.Contains(name, "/") {
		names = nil
		for _, d := range programDirs {
			names = append(names, d+"/"+name)
		}
	}
	for _, n := range names {
		if file, err := t.Resolve(n); err == nil {
			return t.Path(file), nil
		}
	}
	return "", fmt.Errorf("program %s is not in the Debian tree", name)
}

// Resolve follows the symbolic links of an absolute path inside the tree and
// returns the path in the tree of the file it means.
func (t *Tree) Resolve(path string) (string, error) {
	rest := strings.Split(cleanPath(path), "/")
	var done []string
	for hops := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = done[:max(0, len(done)-1)]
			continue
		}
		here := append(slices.Clone(done), part)
		file := filepath.Join(t.Dir, filepath.Join(here...))
		info, err := os.Lstat(file)
		if err != nil {
			return "", err
		}
		if info.Mode()&os.ModeSymlink == 0 {
			done = here
			continue
		}
		if hops++; hops > 40 {
			return "", fmt.Errorf("%s: too many symbolic links", path)
		}
		target, err := os.Readlink(file)
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(target, "/") {
			done = nil
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return "/" + strings.Join(done, "/"), nil
}

// dataArgs are arguments a program needs to find its data in the tree.
func (t *Tree) dataArgs(name string) []string {
	var args []string
	if strings.HasPrefix(name, "qemu-system-") {
		for _, d := range qemuData {
			args = append(args, "-L", t.Path(d))
		}
	}
	return args
}

// dataEnv is the same for programs that take it from the environment.
func (t *Tree) dataEnv(name string) []string {
	switch {
	case strings.HasPrefix(name, "qemu-"):
		return []string{"QEMU_MODULE_DIR=" + t.Path("/usr/lib/x86_64-linux-gnu/qemu")}
	case strings.HasPrefix(name, "mke2fs"), strings.HasPrefix(name, "mkfs.ext"):
		return []string{"MKE2FS_CONFIG=" + t.Path("/etc/mke2fs.conf")}
	}
	return nil
}

// interpreter returns the dynamic loader a program asks for, "" for a static
// one.
func interpreter(file string) (string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", fmt.Errorf("program %s: only ELF programs run in place: %w", file, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name, err := io.ReadAll(io.LimitReader(p.Open(), 4096))
		if err != nil {
			return "", fmt.Errorf("program %s: %w", file, err)
		}
		return strings.TrimRight(string(name), "\x00"), nil
	}
	return "", nil
}
