//go:build lab

package db_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A tracer runs a workload under ptrace and notes what it does to the files of
// one directory, in the order in which calls begin and end. It knows every call
// that changes a file which the engine makes; on any other it fails, so nothing
// can escape it. Memory mappings are refused if they can be written.
type tracer struct {
	root  string
	disk  *disk
	acks  func(line string) error
	pid   int
	calls map[int]*pending // by thread
}

// pending is a call between its begin and its end.
type pending struct {
	done func(result int64) error // nil when the call does not matter
}

// syscallInfo is the kernel's struct ptrace_syscall_info.
type syscallInfo struct {
	op   uint8 // 1 at the begin of a call, 2 at its end
	_    [3]uint8
	arch uint32
	ip   uint64
	sp   uint64
	data [8]uint64 // begin: number and arguments; end: result
}

const ptraceGetSyscallInfo = 0x420e

// trace runs the workload to its end.
func (tr *tracer) trace(w *workload) error {
	runtime.LockOSThread() // ptrace speaks to one thread only
	defer runtime.UnlockOSThread()
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	tr.calls = map[int]*pending{}
	p, err := os.StartProcess(os.Args[0], os.Args[:1], &os.ProcAttr{
		Env:   append(os.Environ(), workloadEnv+"="+string(text), "GODEBUG=asyncpreemptoff=1"),
		Files: []*os.File{null, null, os.Stderr},
		Sys:   &unix.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return err
	}
	tr.pid = p.Pid
	defer p.Release()
	if err := tr.loop(); err != nil {
		unix.Kill(tr.pid, unix.SIGKILL)
		return err
	}
	return nil
}

func (tr *tracer) loop() error {
	var status unix.WaitStatus
	if _, err := unix.Wait4(tr.pid, &status, unix.WALL, nil); err != nil {
		return err
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(tr.pid, options); err != nil {
		return err
	}
	tid, signal := tr.pid, 0
	for {
		// A thread may be gone by now; its end was or will be told.
		if err := unix.PtraceSyscall(tid, signal); err != nil && err != unix.ESRCH {
			return fmt.Errorf("continue: %w", err)
		}
		var err error
		if tid, err = unix.Wait4(-1, &status, unix.WALL, nil); err != nil {
			return fmt.Errorf("wait: %w", err)
		}
		signal = 0
		switch {
		case status.Exited() && tid == tr.pid:
			if status.ExitStatus() != 0 {
				return fmt.Errorf("workload ended with %d", status.ExitStatus())
			}
			return nil
		case status.Signaled() && tid == tr.pid:
			return fmt.Errorf("workload died of %v", status.Signal())
		case !status.Stopped():
		case status.StopSignal() == unix.SIGTRAP|0x80:
			if err := tr.call(tid); err != nil {
				return err
			}
		case status.StopSignal() != unix.SIGTRAP && status.StopSignal() != unix.SIGSTOP:
			signal = int(status.StopSignal())
		}
	}
}

// call handles a thread that stopped at the begin or end of a call.
func (tr *tracer) call(tid int) error {
	var info syscallInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, ptraceGetSyscallInfo, uintptr(tid),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		if errno == unix.ESRCH {
			return nil
		}
		return errno
	}
	if info.op == 1 {
		done, err := tr.begin(tid, info.data[0], info.data[1:7])
		tr.calls[tid] = &pending{done}
		return err
	}
	p := tr.calls[tid]
	delete(tr.calls, tid)
	if p == nil || p.done == nil {
		return nil
	}
	return p.done(int64(info.data[0]))
}

// begin notes a call that begins; what it returns is called with its result.
func (tr *tracer) begin(tid int, number uint64, a []uint64) (func(int64) error, error) {
	switch number {
	case unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FSYNC, unix.SYS_FDATASYNC:
		return tr.beginFile(tid, number, a)
	case unix.SYS_OPENAT, unix.SYS_MKDIRAT, unix.SYS_RENAMEAT, unix.SYS_UNLINKAT:
		return tr.beginName(tid, number, a)
	case unix.SYS_MMAP:
		if a[2]&unix.PROT_WRITE != 0 && a[3]&unix.MAP_SHARED != 0 && tr.file(tid, a[4]) != nil {
			return nil, fmt.Errorf("a file of the database is mapped for writing")
		}
	case unix.SYS_PWRITEV, unix.SYS_PWRITEV2, unix.SYS_WRITEV, unix.SYS_SENDFILE, unix.SYS_COPY_FILE_RANGE:
		if tr.file(tid, a[0]) != nil || tr.file(tid, a[2]) != nil {
			return nil, fmt.Errorf("call %d is not known", number)
		}
	case unix.SYS_IO_URING_SETUP, unix.SYS_OPEN, unix.SYS_CREAT, unix.SYS_TRUNCATE, unix.SYS_RENAME, unix.SYS_RENAMEAT2,
		unix.SYS_LINK, unix.SYS_LINKAT, unix.SYS_SYMLINK, unix.SYS_SYMLINKAT, unix.SYS_UNLINK, unix.SYS_RMDIR, unix.SYS_MKDIR,
		unix.SYS_SPLICE, unix.SYS_OPENAT2, unix.SYS_DUP, unix.SYS_DUP3:
		return nil, fmt.Errorf("call %d is not known", number)
	}
	return nil, nil
}

func (tr *tracer) beginFile(tid int, number uint64, a []uint64) (func(int64) error, error) {
	if number == unix.SYS_WRITE && a[0] == 1 {
		line, err := tr.memory(a[1], a[2])
		if err == nil {
			err = tr.acks(string(line))
		}
		return nil, err
	}
	f := tr.file(tid, a[0])
	if f == nil {
		return nil, nil
	}
	op := &operation{node: f}
	switch number {
	case unix.SYS_WRITE, unix.SYS_PWRITE64:
		data, err := tr.memory(a[1], a[2])
		if err != nil {
			return nil, err
		}
		op.kind, op.data, op.offset = opWrite, data, int64(a[3])
		if number == unix.SYS_WRITE {
			if op.offset, err = tr.position(a[0]); err != nil {
				return nil, err
			}
		}
	case unix.SYS_FTRUNCATE:
		op.kind, op.offset = opTruncate, int64(a[1])
	case unix.SYS_FALLOCATE:
		if a[1] != 0 {
			return nil, fmt.Errorf("fallocate with mode %d is not known", a[1])
		}
		op.kind, op.offset = opExtend, int64(a[2]+a[3])
	default:
		op.kind = opSync
	}
	tr.disk.begin(op)
	return func(result int64) error {
		if result < 0 || op.kind == opWrite && result != int64(len(op.data)) {
			return fmt.Errorf("%s: call %d answered %d", f.name, number, result)
		}
		tr.disk.end(op)
		return nil
	}, nil
}

func (tr *tracer) beginName(tid int, number uint64, a []uint64) (func(int64) error, error) {
	path, ok, err := tr.path(a[0], a[1])
	if err != nil || !ok {
		return nil, err
	}
	op := &operation{kind: opName, path: path}
	switch number {
	case unix.SYS_OPENAT:
		f := tr.disk.find(path)
		switch {
		case f != nil && a[2]&unix.O_TRUNC != 0:
			op.kind, op.node = opTruncate, f
		case f == nil && a[2]&unix.O_CREAT != 0:
			op.change, op.node = create, &node{name: path}
		default:
			return nil, nil
		}
	case unix.SYS_MKDIRAT:
		op.change, op.node = create, &node{name: path, children: map[string]*node{}}
	case unix.SYS_RENAMEAT:
		op.change = rename
		if op.to, ok, err = tr.path(a[2], a[3]); err != nil || !ok {
			return nil, fmt.Errorf("rename of %s to the outside: %w", path, err)
		}
	case unix.SYS_UNLINKAT:
		op.change = remove
	}
	tr.disk.begin(op)
	return func(result int64) error {
		if result < 0 {
			tr.disk.withdraw(op) // such as a mkdir of what is there
			return nil
		}
		return tr.disk.end(op)
	}, nil
}

// memory reads what the workload hands to a call.
func (tr *tracer) memory(address, size uint64) ([]byte, error) {
	b := make([]byte, size)
	if size == 0 {
		return b, nil
	}
	local := []unix.Iovec{{Base: &b[0], Len: size}}
	n, err := unix.ProcessVMReadv(tr.pid, local, []unix.RemoteIovec{{Base: uintptr(address), Len: int(size)}}, 0)
	if err == nil && n != len(b) {
		err = fmt.Errorf("read %d of %d bytes", n, len(b))
	}
	return b, err
}

// path is a path argument relative to the root, if it is below it.
func (tr *tracer) path(dir, address uint64) (string, bool, error) {
	var text []byte
	for !bytes.Contains(text, []byte{0}) {
		// Up to the end of the page: the next one may not be there.
		b, err := tr.memory(address, 4096-address%4096)
		if err != nil {
			return "", false, err
		}
		text = append(text, b...)
		address += uint64(len(b))
	}
	p := string(text[:bytes.IndexByte(text, 0)])
	if !filepath.IsAbs(p) {
		base := "."
		if int32(dir) != unix.AT_FDCWD {
			base = tr.link(dir)
		} else if cwd, err := os.Getwd(); err == nil {
			base = cwd
		}
		p = filepath.Join(base, p)
	}
	return tr.relative(p)
}

func (tr *tracer) relative(p string) (string, bool, error) {
	rel, err := filepath.Rel(tr.root, p)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false, nil
	}
	return rel, true, nil
}

func (tr *tracer) link(fd uint64) string {
	p, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tr.pid, int32(fd)))
	return p
}

// file is the node behind a descriptor; nil when it is outside, or has no name
// any more and so will not be missed.
func (tr *tracer) file(_ int, fd uint64) *node {
	p := tr.link(fd)
	if p == "" || strings.HasSuffix(p, " (deleted)") {
		return nil
	}
	rel, ok, _ := tr.relative(p)
	if !ok {
		return nil
	}
	return tr.disk.find(rel)
}

// position is where a descriptor's next write goes.
func (tr *tracer) position(fd uint64) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", tr.pid, fd))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text)) // pos: N flags: 0NNN …
	flags, err := strconv.ParseUint(fields[3], 8, 64)
	if err != nil {
		return 0, err
	}
	if flags&unix.O_APPEND != 0 {
		return 0, fmt.Errorf("a file is opened for appending")
	}
	return strconv.ParseInt(fields[1], 10, 64)
}
