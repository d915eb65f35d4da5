// Package devhost runs the daemons of a host on a machine that has none of them,
// for tests and for developing: real libvirtd and real QEMU, and if wanted hostd
// and toolstackd beside them.
//
// The Debian daemons come from an unpacked Debian 13 tree. All run in namespaces
// of their own: user, mount, PID, network, IPC and host name. Their root is a
// tmpfs that shows the tree's /usr read-only and one directory of the caller's
// for everything they write. In a user namespace not even root can mount a
// device, make a device node, load a module or see the machine's NICs, so
// whatever they do, they can touch neither the machine's disks, nor its network,
// nor its libvirt.
//
// The first process of the PID namespace is this program started again; when it
// dies the kernel kills all others, and it dies with its parent.
//
// A program that calls Start must call Main first thing in its main or TestMain.
// Methods may be called from many goroutines.
package devhost

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Config says what to run.
type Config struct {
	Tree string // an unpacked, usr-merged Debian 13 tree with libvirt and QEMU
	// Dir is for sockets, logs and state; keep it short if sockets below it are to
	// be used from outside.
	Dir string
	// Binds shows further files or directories, read-only: path inside → outside.
	Binds map[string]string
	// Daemons run beside libvirtd once Run has named them.
	Daemons []Daemon
	// Listener is handed to the daemon that says so.
	Listener *os.File
	// Bridges are made in the network namespace, without an uplink.
	Bridges []string
	// Version is what the host inside says Cairn's is.
	Version string
	// Output receives what the daemons print; nil discards it.
	Output io.Writer
	// Died is called when a daemon that ran has ended without being asked to by Kill or
	// Stop, and how. Calls come one at a time and must not wait for a method. It may be nil.
	Died func(name, how string)
}

// Daemon is a program of the caller's to run inside.
type Daemon struct {
	Name string
	Argv []string // paths as seen inside
	Role string   // instead of a program: a role of this one
	ID   int      // user and group; ignored where the caller is not root
	// Socket is what to wait for, as seen inside; empty waits for nothing.
	Socket string
	// Listener names the socket that is handed over, as systemd does.
	Listener string
}

// Libvirt is a running libvirtd with its virtlogd, and what runs beside them.
type Libvirt struct {
	cfg  Config
	cmd  *exec.Cmd
	gone chan struct{} // closed when all have ended

	mu      sync.Mutex
	in      io.WriteCloser
	answers chan string // closed when the first process says nothing more
}

// maxDir leaves room for the sockets below the directory: their paths have at
// most 107 bytes.
const maxDir = 60

// Start returns when libvirtd's socket is there; that it also answers is for the
// client to see.
func Start(ctx context.Context, cfg Config) (*Libvirt, error) {
	if len(cfg.Daemons) == 0 && len(cfg.Dir) > maxDir {
		return nil, fmt.Errorf("libvirt: directory %s is too long for the sockets below it", cfg.Dir)
	}
	l := &Libvirt{cfg: cfg, gone: make(chan struct{}), answers: make(chan string, 1)}
	if err := l.spawn(); err != nil {
		return nil, fmt.Errorf("libvirt: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.cmd.Process.Kill() })
	defer stop()
	if err := l.ask("start"); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("libvirt: %w", err)
	}
	return l, nil
}

// spawn starts this program again as the first process of new namespaces.
func (l *Libvirt) spawn() error {
	plan, err := json.Marshal(l.cfg.plan())
	if err != nil {
		return err
	}
	l.cmd = exec.Command("/proc/self/exe")
	l.cmd.Env = []string{childEnv + "=" + string(plan)}
	l.cmd.Stderr = l.cfg.Output
	if l.cmd.SysProcAttr, err = namespaces(); err != nil {
		return err
	}
	if l.cfg.Listener != nil {
		l.cmd.ExtraFiles = []*os.File{l.cfg.Listener}
	}
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := l.cmd.Start(); err != nil {
		return explain(err)
	}
	go l.listen(out)
	go func() {
		defer close(l.gone)
		_, _ = l.cmd.Process.Wait()
	}()
	return nil
}

// listen tells answers of the first process from what it says unasked.
func (l *Libvirt) listen(out io.Reader) {
	defer close(l.answers)
	for in := bufio.NewScanner(out); in.Scan(); {
		death, unasked := strings.CutPrefix(in.Text(), diedWord+" ")
		name, how, _ := strings.Cut(death, " ")
		switch {
		case !unasked:
			l.answers <- in.Text()
		case l.cfg.Died != nil:
			l.cfg.Died(name, how)
		}
	}
}

// explain adds what to do where a machine keeps users from making namespaces.
func explain(err error) error {
	if os.Getuid() != 0 && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES)) {
		return fmt.Errorf("%w: this machine lets only root make namespaces, use sudo", err)
	}
	return err
}

// idSpan is how many users and groups exist inside for root's daemons: all that
// Debian gives to packages.
const idSpan = 65536

// namespaces are new ones of every kind but the cgroup's. Root keeps the numbers
// of users and groups; another caller is alone inside, as root.
func namespaces() (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // a terminal's Ctrl-C is for the caller, who ends things in order
	}
	uid, gid, span := os.Getuid(), os.Getgid(), 1
	if uid == 0 {
		var err error
		if span, err = mapped("/proc/self/uid_map"); err != nil {
			return nil, err
		}
		gid, attr.GidMappingsEnableSetgroups = 0, true
	}
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: span}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: span}}
	return attr, nil
}

// mapped is how many users from root on this process itself may speak of: fewer
// than all in a container.
func mapped(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var first, outside, span int
	if _, err := fmt.Sscan(string(text), &first, &outside, &span); err != nil || first != 0 {
		return 0, fmt.Errorf("%s: %q does not map root: %w", file, text, err)
	}
	return min(span, idSpan), nil
}

// Root is where the daemons' root directory is seen from outside, as far as they
// write there; Socket is libvirtd's socket below it. Inside, all paths are the
// default ones, so that domain XML is the same as on a host.
func (l *Libvirt) Root() string { return l.cfg.Dir }

// Socket is libvirtd's socket as seen from outside.
func (l *Libvirt) Socket() string { return filepath.Join(l.cfg.Dir, "run/libvirt/libvirt-sock") }

// Pid is the first process, as the caller sees it; its namespaces are the host's.
func (l *Libvirt) Pid() int { return l.cmd.Process.Pid }

// Gone is closed when everything has ended, as after the host powered itself off.
func (l *Libvirt) Gone() <-chan struct{} { return l.gone }

// Kill ends a daemon ("libvirtd", "virtlogd") or QEMUs ("qemu-system-x86_64") the
// hard way, and Run starts a daemon, again or for the first time.
func (l *Libvirt) Kill(name string) error { return l.ask("kill " + name) }

// Run starts a daemon that does not run.
func (l *Libvirt) Run(name string) error { return l.ask("run " + name) }

// Stop asks a daemon to end and returns when it has.
func (l *Libvirt) Stop(name string) error { return l.ask("stop " + name) }

// ask sends one command to the first process and waits for its answer.
func (l *Libvirt) ask(command string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := fmt.Fprintln(l.in, command); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	answer, ok := <-l.answers
	if !ok {
		return fmt.Errorf("%s: the first process is gone", command)
	}
	if answer != "ok" {
		return fmt.Errorf("%s: %s", command, strings.TrimPrefix(answer, "error "))
	}
	return nil
}

// Close ends everything, guests included, and returns when it is gone.
func (l *Libvirt) Close() error {
	_ = l.cmd.Process.Kill()
	<-l.gone
	return nil
}
