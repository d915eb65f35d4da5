package tool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of every program: what it prints, and for confined ones memory. A
// qcow2's tables that QEMU holds at once are bounded by its caches. The address
// space is many times what qemu-img takes: each of its threads reserves a heap of
// 64 MiB and a stack of 8, and it aborts when one of them does not fit.
const (
	maxOutput     = 16 << 20
	maxStderr     = 64 << 10
	confinedSpace = 8 << 30
	confinedFiles = 256
	// stopGrace is how long a program may take to die of SIGKILL: one that waits
	// for a disk does not.
	stopGrace = 5 * time.Second
	// gentleGrace is how long one that is asked to end may take to: what it has to
	// write may have to wait for a disk.
	gentleGrace = 15 * time.Second
	askEvery    = 100 * time.Millisecond
)

// Linux runs programs of this machine.
type Linux struct {
	// Make prepares a program; nil takes those of the image.
	Make func(ctx context.Context, name string, args ...string) *exec.Cmd
	// User and Group are whom confined programs run as; 0 leaves them as they are.
	User, Group uint32
}

// programs of the image.
var programs = map[string]string{
	"qemu-img": "/usr/bin/qemu-img",
	"qemu-nbd": "/usr/bin/qemu-nbd",
	"mke2fs":   "/usr/sbin/mke2fs",
	"e2fsck":   "/usr/sbin/e2fsck",
	"wipefs":   "/usr/sbin/wipefs",
	"lvm":      "/usr/sbin/lvm",
}

// Run implements Runner.
func (l Linux) Run(ctx context.Context, c Command) ([]byte, error) {
	if c.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Limit, fmt.Errorf("%s took more than %v", c.Name, c.Limit))
		defer cancel()
	}
	cmd := l.command(ctx, c)
	out, stderr := &bounded{max: maxOutput}, &bounded{max: maxStderr}
	cmd.Stdout, cmd.Stderr = out, stderr
	if c.Output != nil {
		cmd.Stdout = stream(c.Output)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	limit := error(nil)
	if c.Confined {
		limit = restrict(cmd.Process.Pid)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case c.Gently && cmd.ProcessState.Success():
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", c.Name, context.Cause(ctx))
	case errors.As(err, &exit):
		return nil, &Failure{Name: c.Name, Code: exit.ExitCode(), Output: out.Bytes(), Stderr: stderr.String()}
	case err != nil:
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	return out.Bytes(), limit
}

func (l Linux) command(ctx context.Context, c Command) *exec.Cmd {
	var cmd *exec.Cmd
	if l.Make != nil {
		cmd = l.Make(ctx, c.Name, c.Args...)
	} else {
		cmd = exec.CommandContext(ctx, programs[c.Name], c.Args...)
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8"}
	}
	cmd.Env = append(cmd.Environ(), c.Env...)
	cmd.Dir, cmd.ExtraFiles = "/", c.Files
	cmd.WaitDelay = stopGrace
	if c.Gently {
		cmd.WaitDelay = gentleGrace
		cmd.Cancel = func() error { return ask(cmd.Process) }
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if !c.Confined {
		return cmd
	}
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID
	if l.User != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: l.User, Gid: l.Group, Groups: []uint32{}}
	}
	return cmd
}

// ask tells a program to end, again and again: one that is number 1 to itself hears
// nothing before it listens.
func ask(p *os.Process) error {
	err := p.Signal(syscall.SIGTERM)
	if err == nil {
		time.AfterFunc(askEvery, func() { _ = ask(p) }) // until it has ended
	}
	return err
}

// restrict bounds a process that has just started; until then it has read
// nothing but its libraries. One that has ended already needs no bounds. A host's
// root may always do this; a container's may not, and has bounds of its own.
func restrict(pid int) error {
	for _, l := range []struct {
		what int
		max  uint64
	}{{unix.RLIMIT_AS, confinedSpace}, {unix.RLIMIT_NOFILE, confinedFiles}, {unix.RLIMIT_CORE, 0}} {
		err := unix.Prlimit(pid, l.what, &unix.Rlimit{Cur: l.max, Max: l.max}, nil)
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("limit of process %d: %w", pid, err)
		}
	}
	return nil
}
