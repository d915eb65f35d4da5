package devhost

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Environment of the first process, and of those that are a role of this program.
const (
	childEnv = "CAIRN_DEVHOST"
	roleEnv  = "CAIRN_DEVHOST_ROLE"
)

// Main does nothing, except in the processes inside Start's namespaces that are
// this program, where it serves and never returns.
func Main() {
	role, text := os.Getenv(roleEnv), os.Getenv(childEnv)
	var err error
	switch {
	case role != "":
		err = play(role)
	case text != "":
		err = serve(text)
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "devhost:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// play is a daemon that is a role of this program.
func play(role string) error {
	switch role {
	case roleExec:
		return execute()
	case RoleHostd:
		return hostdMain()
	default:
		return fmt.Errorf("no role is named %q", role)
	}
}

// roleExec runs the program of the arguments with the socket at descriptor 3: who
// gets one must be told its own process number, which only itself knows.
const roleExec = "exec"

func execute() error {
	if err := os.Unsetenv(roleEnv); err != nil {
		return err
	}
	if err := os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	return syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
}

// Command prepares a program that is handed a listening socket, without any
// namespaces. It dies with its parent.
func Command(listener *os.File, name string, argv ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", argv...)
	cmd.Env = append(os.Environ(), roleEnv+"="+roleExec, "LISTEN_FDS=1", "LISTEN_FDNAMES="+name)
	cmd.ExtraFiles = []*os.File{listener}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	return cmd
}

// serve is the first process: it answers on its output, so an error goes there.
func serve(text string) error {
	f := newFirst(os.Stdout)
	err := json.Unmarshal([]byte(text), &f.plan)
	if err == nil {
		f.daemons = append(slices.Clone(libvirtDaemons), f.plan.Daemons...)
		if f.plan.Listener {
			f.listener = handed(3)
		}
		err = f.plan.enter()
	}
	if err != nil {
		fmt.Println("error", err)
		return err
	}
	f.serve(os.Stdin)
	return nil
}

// handed is a file that was handed over. Those who get it are named: what else is
// started does not inherit it.
func handed(fd int) *os.File {
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "listener")
}

// first is the first process: it runs the daemons, obeys, and reaps, because
// libvirt takes a QEMU that is a zombie for one that lives.
type first struct {
	plan     plan
	daemons  []Daemon
	listener *os.File
	out      io.Writer // for answers, each with one call

	mu    sync.Mutex
	exits map[int]chan syscall.WaitStatus // of daemons
	pids  map[string]int
	up    map[int]string // daemons that nobody has asked to end
}

func newFirst(out io.Writer) *first {
	return &first{out: out, exits: map[int]chan syscall.WaitStatus{}, pids: map[string]int{}, up: map[int]string{}}
}

// diedWord begins a line of the first process that is no answer.
const diedWord = "died"

var libvirtDaemons = []Daemon{
	{Name: "virtlogd", Argv: []string{"/usr/sbin/virtlogd"}, Socket: "/run/libvirt/virtlogd-sock"},
	{Name: "libvirtd", Argv: []string{"/usr/sbin/libvirtd"}, Socket: "/run/libvirt/libvirt-sock"},
}

func (f *first) serve(commands io.Reader) {
	go f.reap()
	go f.powerOff()
	in := bufio.NewScanner(commands)
	for in.Scan() {
		verb, name, _ := strings.Cut(in.Text(), " ")
		if err := f.do(verb, name); err != nil {
			fmt.Fprintln(f.out, "error", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Fprintln(f.out, "ok")
	}
}

// powerOff ends the host when hostd asks PID 1 to, restart or not.
func (f *first) powerOff() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGUSR2)
	<-asked
	_ = f.stop("toolstackd")
	os.Exit(0)
}

func (f *first) do(verb, name string) error {
	switch verb {
	case "start":
		return errors.Join(f.run("virtlogd"), f.run("libvirtd"))
	case "run":
		return f.run(name)
	case "stop":
		return f.stop(name)
	case "kill":
		return f.kill(name)
	default:
		return fmt.Errorf("unknown command %q", verb)
	}
}

// run starts a daemon and waits for its socket, watching that it lives.
func (f *first) run(name string) error {
	i := slices.IndexFunc(f.daemons, func(d Daemon) bool { return d.Name == name })
	if i < 0 {
		return fmt.Errorf("no daemon %q", name)
	}
	d := f.daemons[i]
	if d.Socket != "" {
		_ = os.Remove(d.Socket)
	}
	pid, exited, err := f.start(d)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for range 3000 { // 30 s; there is no event for a socket that is being bound
		if d.Socket == "" {
			return f.watch(name, pid)
		}
		if _, err := os.Stat(d.Socket); err == nil {
			return f.watch(name, pid)
		}
		select {
		case status := <-exited:
			return fmt.Errorf("%s: ended with status %d", name, status.ExitStatus())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s: no socket", name)
}

// watch has the end of a daemon told from now on.
func (f *first) watch(name string, pid int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.exits[pid] == nil {
		return fmt.Errorf("%s: ended at once", name)
	}
	f.up[pid] = name
	return nil
}

func (f *first) start(d Daemon) (int, <-chan syscall.WaitStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path, argv, attr := f.command(d)
	p, err := os.StartProcess(path, argv, attr)
	if err != nil {
		return 0, nil, err
	}
	exited := make(chan syscall.WaitStatus, 1)
	f.exits[p.Pid], f.pids[d.Name] = exited, p.Pid
	return p.Pid, exited, nil
}

// command says how to start a daemon.
func (f *first) command(d Daemon) (string, []string, *os.ProcAttr) {
	attr := &os.ProcAttr{
		Env:   []string{"PATH=/usr/sbin:/usr/bin", "HOME=/root", "LANG=C"},
		Files: []*os.File{nil, os.Stderr, os.Stderr},
		Sys:   &syscall.SysProcAttr{},
	}
	path, argv, role := "/proc/self/exe", append([]string{d.Name}, d.Argv...), d.Role
	switch {
	case d.Listener != "" && f.listener != nil:
		role = roleExec
		attr.Files = append(attr.Files, f.listener)
		attr.Env = append(attr.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES="+d.Listener)
	case role == "":
		path, argv = d.Argv[0], d.Argv
	}
	if role != "" {
		attr.Env = append(attr.Env, roleEnv+"="+role)
	}
	if d.ID != 0 && f.plan.Root {
		id := uint32(d.ID)
		attr.Sys.Credential = &syscall.Credential{Uid: id, Gid: id, Groups: []uint32{id}}
	}
	return path, argv, attr
}

// reap collects every child, started or inherited.
func (f *first) reap() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	for range ended {
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if err != nil || pid <= 0 {
				break
			}
			f.ended(pid, status)
		}
	}
}

// ended notes the end of a child, and tells of a daemon's that was not asked for.
func (f *first) ended(pid int, status syscall.WaitStatus) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if exited := f.exits[pid]; exited != nil {
		exited <- status
		delete(f.exits, pid)
	}
	name, unasked := f.up[pid]
	if !unasked {
		return
	}
	delete(f.up, pid)
	how := fmt.Sprintf("exit status %d", status.ExitStatus())
	if status.Signaled() {
		how = "signal: " + status.Signal().String()
	}
	fmt.Fprintln(f.out, diedWord, name, how)
}

// stopGrace is what a daemon gets to end by itself.
const stopGrace = 12 * time.Second

// stop asks a daemon to end, insists when it does not, and waits.
func (f *first) stop(name string) error {
	f.mu.Lock()
	pid := f.pids[name]
	exited := f.exits[pid]
	delete(f.up, pid)
	f.mu.Unlock()
	if exited == nil {
		return nil // not there any more
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-exited:
		return nil
	case <-time.After(stopGrace):
		return errors.Join(fmt.Errorf("%s does not end", name), syscall.Kill(pid, syscall.SIGKILL))
	}
}

// kill ends every process of that program's name and returns when they are gone.
func (f *first) kill(name string) error {
	pids, err := named(name)
	if err == nil && len(pids) == 0 {
		err = fmt.Errorf("no process %q", name)
	}
	for _, pid := range pids {
		f.mu.Lock()
		delete(f.up, pid)
		f.mu.Unlock()
		err = errors.Join(err, end(pid))
	}
	return err
}

// end kills one process and waits for its death.
func end(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return err
	}
	dead := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for range 10 { // a signal may cut the wait short: children die meanwhile
		n, err := unix.Poll(dead, int(stopGrace.Milliseconds()))
		if n == 1 || err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return fmt.Errorf("process %d does not die", pid)
}

// named lists the processes of this namespace with the given program name.
func named(name string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue
		}
		program, _, _ := strings.Cut(string(line), "\x00")
		if filepath.Base(program) == name {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
