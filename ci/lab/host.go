package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cairn/ci/lab/qmp"
)

// Host is a running machine.
type Host struct {
	*Console // its first serial port

	cfg     Config
	machine machine
	temp    bool // Dir is ours to remove
	pid     int
	qmp     *qmp.Client
	debug   *channel       // nil without Config.Debug
	ports   map[int]string // guest port → 127.0.0.1:local

	exited  chan struct{} // closed when QEMU is gone
	exitErr error

	mu      sync.Mutex
	events  []qmp.Event
	changed chan struct{}
}

// Start powers a host on. It returns when QEMU runs and its ports are known,
// long before the host has booted.
func Start(ctx context.Context, cfg Config) (*Host, error) {
	h := &Host{exited: make(chan struct{}), changed: make(chan struct{})}
	if cfg.Dir == "" {
		dir, err := os.MkdirTemp("", "cairn-lab-")
		if err != nil {
			return nil, err
		}
		cfg.Dir, h.temp = dir, true
	}
	m, err := cfg.prepare(ctx)
	h.cfg, h.machine = cfg, m
	if err == nil {
		err = h.launch(ctx)
	}
	if err != nil {
		_ = h.Close()
		return nil, fmt.Errorf("lab: %s: %w", h.cfg.Name, err)
	}
	return h, nil
}

// launch starts QEMU with its channels as inherited sockets. The first
// inherited file is descriptor 3.
func (h *Host) launch(ctx context.Context) error {
	var theirs []*os.File
	socket := func() (net.Conn, int, error) {
		ours, other, err := socketPair()
		if err == nil {
			theirs = append(theirs, other)
		}
		return ours, 2 + len(theirs), err
	}
	control, fd, err := socket()
	if err != nil {
		return err
	}
	h.machine.QMP = fd
	serial, fd, err := socket()
	if err != nil {
		return err
	}
	h.machine.Serial, h.machine.Second = fd, -1
	if h.cfg.Debug {
		var second net.Conn
		if second, h.machine.Second, err = socket(); err != nil {
			return err
		}
		h.debug = newChannel(second)
	}
	err = h.exec(ctx, theirs, serial)
	for _, f := range theirs { // else the end of QEMU would go unheard
		_ = f.Close()
	}
	if err != nil {
		return err
	}
	return h.connect(ctx, control)
}

// exec starts the process from a thread that lives as long as the process
// does: Linux sends the parent-death signal when the starting thread ends.
func (h *Host) exec(ctx context.Context, files []*os.File, serial net.Conn) error {
	log, err := os.OpenFile(h.SerialLog(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	cmd := emulator(context.WithoutCancel(ctx), h.cfg.Tools, h.machine.KVM, h.machine.args())
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	stderr := &tail{}
	cmd.Stdout, cmd.Stderr = stderr, stderr
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		h.exitErr = exitError(cmd.Wait(), stderr)
		close(h.exited)
	}()
	if err := <-started; err != nil {
		close(h.exited)
		return fmt.Errorf("qemu: %w", err)
	}
	h.pid = cmd.Process.Pid
	h.Console = newConsole(h.cfg.Name, h.cfg.Watch)
	go func() {
		h.follow(serial, log)
		_ = log.Close()
	}()
	return nil
}

func exitError(err error, stderr *tail) error {
	var exit *exec.ExitError
	if err == nil || errors.As(err, &exit) && exit.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return nil
	}
	return fmt.Errorf("qemu: %w: %s", err, stderr.String())
}

// greeting is how long QEMU may take to start on a busy machine.
const greeting = 60 * time.Second

func (h *Host) connect(ctx context.Context, control net.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	client, err := qmp.Connect(ctx, control, h.record)
	if err == nil {
		h.qmp = client
		h.ports, err = forwards(ctx, client)
	}
	if errors.Is(err, qmp.ErrClosed) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, syscall.EPIPE) {
		<-h.exited
		return errors.Join(h.exitErr, err)
	}
	return err
}

// forward is a line of `info usernet`:
// TCP[HOST_FORWARD]   3       127.0.0.1 46587       10.0.2.15   443     0     0
var forward = regexp.MustCompile(`(?m)^\s*TCP\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)`)

func forwards(ctx context.Context, client *qmp.Client) (map[int]string, error) {
	text, err := client.Human(ctx, "info usernet")
	return parseForwards(text), err
}

func parseForwards(text string) map[int]string {
	ports := map[int]string{}
	for _, m := range forward.FindAllStringSubmatch(text, -1) {
		if port, err := strconv.Atoi(m[3]); err == nil {
			ports[port] = net.JoinHostPort(m[1], m[2])
		}
	}
	return ports
}

// socketPair makes a channel QEMU can inherit, so that there is no file to
// collide, to leak or to outgrow the length of a socket's name.
func socketPair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	f := os.NewFile(uintptr(fds[0]), "lab")
	defer f.Close()
	theirs = os.NewFile(uintptr(fds[1]), "qemu")
	if ours, err = net.FileConn(f); err != nil {
		_ = theirs.Close()
	}
	return ours, theirs, err
}

// Wait waits for a journal line on the console, see Console.Event.
func (h *Host) Wait(ctx context.Context, event string, attrs ...string) (Line, error) {
	return h.Event(ctx, event, attrs...)
}

// Addr is where this machine reaches the host's API.
func (h *Host) Addr() string { return h.ports[HTTPS] }

// Address is where this machine reaches a forwarded port of the host.
func (h *Host) Address(port int) string { return h.ports[port] }

// QMP is QEMU's control channel.
func (h *Host) QMP() *qmp.Client { return h.qmp }

// PID is QEMU's process.
func (h *Host) PID() int { return h.pid }

// Dir is where the run's files are.
func (h *Host) Dir() string { return h.cfg.Dir }

// Disk is the file behind disk i; 0 is the root disk.
func (h *Host) Disk(i int) string { return h.machine.Disks[i].Path }

// SerialLog is the file that gets everything said on the console. A second
// Start on the same directory appends.
func (h *Host) SerialLog() string { return filepath.Join(h.cfg.Dir, "serial.log") }

// dying is how long QEMU may take to end once its consoles have: it may leave a core.
const dying = 3 * time.Second

// Failure puts together what a failing test should print. A host that began anew without
// a word on its console did so for a reason that only QEMU knows.
func (h *Host) Failure() string {
	text := fmt.Sprintf("--- last lines of %s (%s)\n%s", h.cfg.Name, h.SerialLog(), h.Tail(60))
	for _, e := range h.Events() {
		if e.Name == "RESET" || e.Name == "WATCHDOG" || e.Name == "GUEST_PANICKED" {
			text += fmt.Sprintf("\n--- QEMU: %s %v", e.Name, e.Data)
		}
	}
	select {
	case <-h.exited:
		text += fmt.Sprintf("\n--- QEMU ended: %v", h.exitErr)
	case <-time.After(dying): // it goes on
	}
	return text
}

// tail keeps the last bytes QEMU wrote to stderr.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	t.buf = t.buf[max(0, len(t.buf)-4096):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.buf))
}
