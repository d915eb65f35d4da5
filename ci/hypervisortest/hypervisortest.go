// Package hypervisortest runs a real libvirtd and real QEMU for tests and for
// developing on a machine that has neither.
//
// The daemons come from an unpacked Debian 13 tree and run as that tree's root
// user in namespaces of their own (mount, PID, network, IPC, and user when the
// caller is not root). Their root is a tmpfs that shows the tree's /usr
// read-only and one directory of the caller's for everything they write, so
// they can touch neither the machine's libvirt nor its files or NICs. The first
// process of the PID namespace is this program started again; when it dies the
// kernel kills all others, and it dies with its parent.
//
// A program that calls Start must call Main first thing in its main or
// TestMain. Methods may be called from many goroutines.
package hypervisortest

import (
	"bufio"
	"context"
	"encoding/json"
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
	Dir  string // for sockets, logs and state; keep it short, sockets lie below it
	// Binds shows further files or directories, read-only: path inside → outside.
	Binds map[string]string
	// Output receives what the daemons print; nil discards it.
	Output io.Writer
}

// Libvirt is a running libvirtd with its virtlogd.
type Libvirt struct {
	cfg Config
	cmd *exec.Cmd

	mu    sync.Mutex
	in    io.WriteCloser
	reply *bufio.Scanner
}

// Start returns when libvirtd's socket is there; that it also answers is for the
// client to see.
func Start(ctx context.Context, cfg Config) (*Libvirt, error) {
	if len(cfg.Dir) > 60 {
		return nil, fmt.Errorf("libvirt: directory %s is too long for the sockets below it", cfg.Dir)
	}
	l := &Libvirt{cfg: cfg}
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
	l.cmd.SysProcAttr = namespaces()
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	l.reply = bufio.NewScanner(out)
	return l.cmd.Start()
}

func namespaces() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	if uid := os.Getuid(); uid != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// Root is where the daemons' root directory is seen from outside, as far as they
// write there; Socket is libvirtd's socket below it. Inside, all paths are the
// default ones, so that domain XML is the same as on a host.
func (l *Libvirt) Root() string { return l.cfg.Dir }

// Socket is libvirtd's socket as seen from outside.
func (l *Libvirt) Socket() string { return filepath.Join(l.cfg.Dir, "run/libvirt/libvirt-sock") }

// Kill ends a daemon ("libvirtd", "virtlogd") or QEMUs ("qemu-system-x86_64") the
// hard way, and Run starts a daemon again.
func (l *Libvirt) Kill(name string) error { return l.ask("kill " + name) }

// Run starts a daemon that was killed.
func (l *Libvirt) Run(name string) error { return l.ask("run " + name) }

// ask sends one command to the first process and waits for its answer.
func (l *Libvirt) ask(command string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := fmt.Fprintln(l.in, command); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	if !l.reply.Scan() {
		return fmt.Errorf("%s: the first process is gone", command)
	}
	if answer := l.reply.Text(); answer != "ok" {
		return fmt.Errorf("%s: %s", command, strings.TrimPrefix(answer, "error "))
	}
	return nil
}

// Close ends everything, guests included, and returns when it is gone.
func (l *Libvirt) Close() error {
	_ = l.cmd.Process.Kill()
	_ = l.cmd.Wait() // its status is the kill
	return nil
}
