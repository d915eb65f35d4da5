package devhost

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"cairn/init/config"
	"cairn/init/hostd"
	"cairn/init/hostd/client"
	"cairn/init/network"
	"cairn/init/network/port"
	"cairn/init/storage"
	"cairn/init/storage/tool"
	"cairn/journal"
)

// RoleHostd is hostd itself, with everything that would touch a machine taken
// away from it.
const RoleHostd = "hostd"

// hostdMain serves hostd's socket until it is told to end.
func hostdMain() error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	listener, err := listenAsHostd()
	if err != nil {
		return err
	}
	kernel, err := network.NewNetlink("/sys")
	if err != nil {
		return err
	}
	defer kernel.Close()
	host := &hostd.Host{
		Paths: hostd.Paths{
			Sys: "/sys", Proc: "/proc", Etc: "/etc", Config: "/state/config", Logs: "/var/log", Run: "/run/cairn",
			KVM: "/dev/kvm", Input: "/dev/input", OSRelease: "/etc/os-release",
			Dev: "/dev", Libvirt: "/var/lib/libvirt", Mounts: "/run/sr-mount", Repositories: []string{"/state/sr"}, ISOs: []string{"/state/iso", "/usr/share/cairn"},
		},
		System: fenced{}, Kernel: kernel, Guard: port.NewGuard(), Files: config.OS{}, Listener: listener, Log: journal.New(os.Stderr, "hostd"),
		Tools: tool.Linux{}, // QEMU is this namespace's root, so its user is the volumes' too
	}
	return host.Run(ctx)
}

// listenAsHostd makes the socket as PID 1 would: for root and the group cairn. It is there
// under its name, which others wait for, once it can be connected to.
func listenAsHostd() (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(client.Socket), 0o755); err != nil {
		return nil, err
	}
	const early = client.Socket + ".early"
	if err := os.Remove(early); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", early)
	if err != nil {
		return nil, err
	}
	_ = os.Chown(early, 0, ToolstackID) // there is one user only where the caller is not root
	return l, errors.Join(os.Chmod(early, 0o660), os.Rename(early, client.Socket))
}

// fenced is the System of a hostd that must not touch the machine: what it would
// do to disks, modules, screens and power buttons is not done.
type fenced struct{ files storage.Linux }

var errFenced = errors.New("not in a development host")

func (fenced) RootDevice() (string, error) { return "", errFenced }

// Mounted says that the caller's directory lies everywhere STATE and LOGS would,
// so that nothing is mounted.
func (fenced) Mounted(string) (string, error)                 { return "development", nil }
func (fenced) Prepare(string) error                           { return errFenced }
func (fenced) Mount(_, _, _ string, _ []storage.Option) error { return errFenced }
func (fenced) Unmount(string) error                           { return errFenced }
func (fenced) Bind(_, _ string) error                         { return errFenced }
func (fenced) LoadModule(string) error                        { return nil }
func (fenced) Admit(string, int) error                        { return errFenced }
func (fenced) LoadNICs() error                                { return nil }
func (fenced) SetHostname(name string) error                  { return unix.Sethostname([]byte(name)) }
func (fenced) Notify(string) error                            { return nil }
func (fenced) Media() ([]byte, bool, error)                   { return nil, false, nil }
func (fenced) Show(_, _ string)                               {}
func (fenced) ReloadTime() error                              { return nil }
func (fenced) Synchronized() (bool, error)                    { return true, nil }

// KernelLog is empty: the kernel's messages are the machine's.
func (fenced) KernelLog(bool) ([]byte, error) { return nil, nil }

func (f fenced) MkdirAll(path string, mode fs.FileMode) error { return f.files.MkdirAll(path, mode) }

func (fenced) Devices(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

// Power tells the first process, which stands for PID 1.
func (fenced) Power(action client.PowerAction) error {
	if action == client.Poweroff {
		return syscall.Kill(1, unix.SIGUSR2)
	}
	return syscall.Kill(1, unix.SIGTERM)
}
