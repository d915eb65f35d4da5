package supervise

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"cairn/init/supervise/account"
	"cairn/init/supervise/catalogue"
	"cairn/init/supervise/cgroup"
	"cairn/init/supervise/engine"
	"cairn/init/supervise/pump"
	"cairn/init/supervise/watchdog"
	"cairn/journal"
)

// WatchdogEnv names the descriptor of the watchdog that stage 1 has opened.
const WatchdogEnv = "CAIRN_WATCHDOG_FD"

// ExecServiceName is argv[0] of the role that ExecService is.
const ExecServiceName = "exec-service"

const (
	consolePath  = "/dev/console"
	accountsDir  = "/etc"
	logDir       = "/var/log"
	notifySocket = "/run/cairn/notify"
	ownLog       = "init"
)

// Main is PID 1. It returns only if it is not, or if the machine cannot be
// brought down, and then the kernel panics and reboots.
func Main(context.Context) error {
	if os.Getpid() != 1 {
		return errors.New("supervise: not process 1")
	}
	// PID 1 allocates little; a small heap matters more than its garbage
	// collector's share of the processor.
	debug.SetGCPercent(50)
	console := pump.NewConsole(openConsole())
	logs := pump.New(console)
	log := journal.New(io.MultiWriter(console, logs.Writer(ownLog)), "supervise")
	keeper := openWatchdog(log)
	log.Info("pid1-start", "uptime", seconds(uptime()))
	system := linux{}
	system.prepare(log)
	tree := cgroup.New(cgroup.Root)
	if err := tree.Setup(); err != nil {
		log.Error("setup-failed", "what", "cgroups", "err", err)
	}
	lab := labCommandLine()
	cfg := Config{
		Services: append(catalogue.All(), labServices(lab)...), Log: log, Console: console, Pump: logs, Groups: tree, System: system,
		Watchdog: keeper, Uptime: uptime, NotifySocket: notifySocket, LogDir: logDir, LogsAfter: "hostd",
		Accounts:  func() (account.Book, error) { return account.Read(accountsDir) },
		ShimPath:  ownPath(),
		HangAfter: parseHang(lab),
	}
	kind := engine.Reboot
	if s, err := New(cfg); err != nil {
		// Nothing can be supervised. The watchdog or this reboot ends it.
		log.Error("supervise-failed", "err", err)
		time.Sleep(failurePause)
		system.Unmount(log)
	} else {
		kind = s.Run()
	}
	keeper.End(kind != engine.Reboot)
	return system.Down(kind)
}

func openWatchdog(log *slog.Logger) *watchdog.Keeper {
	fd := inheritedWatchdog()
	return watchdog.NewKeeper(watchdog.NewLinux(watchdog.Path, fd), fd >= 0, log)
}

func openConsole() io.Writer {
	f, err := os.OpenFile(consolePath, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return os.Stderr
	}
	return f
}

// ownPath is this program's file, from which the exec-service role is started.
func ownPath() string {
	path, err := os.Executable()
	if err != nil {
		return "/usr/lib/cairn/init"
	}
	return path
}

// uptime is the time since the kernel started.
func uptime() time.Duration {
	var ts unix.Timespec
	// It fails only for a clock that does not exist.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }

// inheritedWatchdog is the descriptor from stage 1, or -1.
func inheritedWatchdog() int {
	fd, err := strconv.Atoi(os.Getenv(WatchdogEnv))
	if err != nil || fd < 3 {
		return -1
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return -1
	}
	return fd
}
