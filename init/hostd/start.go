package hostd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/init/network"
	"cairn/init/network/port"
	"cairn/init/storage/tool"
	"cairn/journal"
)

// listenName is the socket's LISTEN_FDNAMES entry.
const listenName = "hostd"

// machine are the paths of a real host.
var machine = Paths{
	Sys: "/sys", Proc: "/proc",
	Etc:       "/etc",
	Config:    "/state/config",
	Logs:      "/var/log",
	Run:       "/run/cairn",
	KVM:       "/dev/kvm",
	Input:     "/dev/input",
	OSRelease: "/usr/lib/os-release",
	Dev:       "/dev",
	Libvirt:   "/var/lib/libvirt",
	Mounts:    "/run/sr-mount",
	// On STATE, and the ISO images that come with the image.
	Repositories: []string{"/state/sr"},
	ISOs:         []string{"/state/iso", "/usr/share/cairn"},
}

// Whom guests run as: libvirt-qemu and kvm of the image's /etc/passwd.
const (
	qemuUser  = 64055
	qemuGroup = 991
)

// Main runs hostd on this machine until ctx is done or a signal ends it.
func Main(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	log := journal.New(os.Stderr, "hostd")
	listener, err := listen(activation.FilesWithNames()[listenName], client.Socket)
	if err != nil {
		return err
	}
	kernel, err := network.NewNetlink(machine.Sys)
	if err != nil {
		return err
	}
	defer kernel.Close()
	// Half the limit, as sd_watchdog_enabled(3) recommends; 0 without a limit.
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("watchdog-unknown", "err", err)
	}
	host := &Host{
		Paths: machine, System: newLinux(machine), Kernel: kernel, Guard: port.NewGuard(), Files: config.OS{},
		Listener: listener, Log: log, WatchdogEvery: limit / 2,
		Tools: tool.Linux{User: qemuUser, Group: qemuGroup}, VolumeUser: qemuUser, VolumeGroup: qemuGroup,
	}
	return host.Run(ctx)
}

// listen takes the socket PID 1 holds for hostd, or makes one where nobody does.
func listen(given []*os.File, path string) (net.Listener, error) {
	if len(given) > 0 {
		defer given[0].Close()
		l, err := net.FileListener(given[0])
		if err != nil {
			return nil, fmt.Errorf("socket %s: %w", listenName, err)
		}
		return l, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o660)
}
