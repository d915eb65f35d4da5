//go:build lab && amd64

package repository

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// traceUntil runs the child under ptrace, with all programs it starts, and kills
// it before the nth call that changes a file below dir. It returns the last verb
// that was finished, and whether the child came to its end.
func traceUntil(dir string, n int) (acked int, done bool, err error) {
	runtime.LockOSThread() // ptrace speaks to one thread only
	defer runtime.UnlockOSThread()
	out, err := os.CreateTemp("", "acks")
	if err != nil {
		return 0, false, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, false, err
	}
	defer null.Close()
	p, err := os.StartProcess(os.Args[0], os.Args[:1], &os.ProcAttr{
		Env:   append(os.Environ(), crashEnv+"="+dir, "GODEBUG=asyncpreemptoff=1"),
		Files: []*os.File{null, out, os.Stderr},
		Sys:   &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return 0, false, err
	}
	defer p.Release()
	tr := tracer{dir: dir, pid: p.Pid, left: n, inside: map[int]bool{}}
	done, err = tr.loop()
	if err != nil {
		return 0, false, errors.Join(err, unix.Kill(p.Pid, unix.SIGKILL))
	}
	acked, err = lastAck(out)
	return acked, done, err
}

type tracer struct {
	dir    string
	pid    int
	left   int // calls until the end
	killed bool
	inside map[int]bool // threads in a call
}

// loop ends when no process is left.
func (tr *tracer) loop() (done bool, err error) {
	var status unix.WaitStatus
	if _, err := unix.Wait4(tr.pid, &status, unix.WALL, nil); err != nil {
		return false, err
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK |
		unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(tr.pid, options); err != nil {
		return false, err
	}
	tid, signal := tr.pid, 0
	for {
		// A thread may be gone by now; its end was or will be told.
		if err := unix.PtraceSyscall(tid, signal); err != nil && err != unix.ESRCH {
			return false, fmt.Errorf("continue: %w", err)
		}
		tid, err = unix.Wait4(-1, &status, unix.WALL, nil)
		if err == unix.ECHILD {
			return done, nil
		}
		if err != nil {
			return false, fmt.Errorf("wait: %w", err)
		}
		signal = 0
		switch {
		case status.Exited() && tid == tr.pid:
			done = status.ExitStatus() == 0
			if !done {
				return false, fmt.Errorf("the child ended with %d", status.ExitStatus())
			}
		case !status.Stopped():
			delete(tr.inside, tid)
		case status.StopSignal() == unix.SIGTRAP|0x80:
			tr.call(tid)
		case status.StopSignal() != unix.SIGTRAP && status.StopSignal() != unix.SIGSTOP:
			signal = int(status.StopSignal())
		}
	}
}

// call counts a call at its begin, and kills hostd when it is the one.
func (tr *tracer) call(tid int) {
	if tr.inside[tid] = !tr.inside[tid]; !tr.inside[tid] || tr.killed {
		return
	}
	var regs unix.PtraceRegs
	if unix.PtraceGetRegs(tid, &regs) != nil || !tr.changes(tid, &regs) {
		return
	}
	if tr.left--; tr.left > 0 {
		return
	}
	tr.killed = true
	// Only hostd: what it has started dies with it, as on a host.
	_ = unix.Kill(tr.pid, unix.SIGKILL)
	if tid != tr.pid { // the call itself must not happen any more
		regs.Orig_rax = ^uint64(0)
		_ = unix.PtraceSetRegs(tid, &regs)
	}
}

// changes tells whether a call changes a file below the directory.
func (tr *tracer) changes(tid int, r *unix.PtraceRegs) bool {
	switch r.Orig_rax {
	case unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_PWRITEV, unix.SYS_PWRITEV2, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FSYNC,
		unix.SYS_FDATASYNC, unix.SYS_FCHMOD, unix.SYS_FCHOWN:
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, int32(r.Rdi)))
		return err == nil && strings.HasPrefix(path, tr.dir)
	case unix.SYS_OPENAT:
		return r.Rdx&(unix.O_CREAT|unix.O_TRUNC) != 0 && strings.HasPrefix(text(tid, r.Rsi), tr.dir)
	case unix.SYS_MKDIRAT, unix.SYS_RENAMEAT, unix.SYS_UNLINKAT, unix.SYS_FCHOWNAT, unix.SYS_FCHMODAT, unix.SYS_RENAMEAT2:
		return strings.HasPrefix(text(tid, r.Rsi), tr.dir)
	case unix.SYS_UNLINK, unix.SYS_RENAME, unix.SYS_LCHOWN, unix.SYS_CHMOD, unix.SYS_MKDIR, unix.SYS_RMDIR:
		return strings.HasPrefix(text(tid, r.Rdi), tr.dir)
	}
	return false
}

// text reads a path from the memory of a thread.
func text(tid int, address uint64) string {
	b := make([]byte, 512)
	n := min(uint64(len(b)), 4096-address%4096)
	local := []unix.Iovec{{Base: (*byte)(unsafe.Pointer(&b[0])), Len: n}}
	got, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: uintptr(address), Len: int(n)}}, 0)
	if err != nil {
		return ""
	}
	s, _, _ := strings.Cut(string(b[:got]), "\x00")
	return s
}
