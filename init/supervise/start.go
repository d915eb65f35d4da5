package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cairn/init/supervise/account"
	"cairn/init/supervise/catalogue"
	"cairn/init/supervise/engine"
)

// start runs in its own goroutine, because directories and programs are on
// disks, and answers with one event.
func (s *Supervisor) start(spec catalogue.Service) {
	ev := engine.Event(engine.StartFailed{Name: spec.Name, Err: "panic"})
	defer func() { s.events <- ev }()
	s.guard("start "+spec.Name, func() {
		pid, err := s.spawn(spec)
		if err != nil {
			ev = engine.StartFailed{Name: spec.Name, Err: err.Error()}
			return
		}
		ev = engine.Started{Name: spec.Name, PID: pid}
	})
}

// spawn makes everything a service needs and then its process.
func (s *Supervisor) spawn(spec catalogue.Service) (int, error) {
	book, err := s.Accounts()
	if err != nil {
		s.Log.Warn("accounts-failed", "err", err)
	}
	if err := makeDirs(spec.Dirs, book); err != nil {
		return 0, err
	}
	if spec.Kill == catalogue.KillGroup {
		s.clear(spec.Name)
	}
	if spec.Ready.Kind == catalogue.Socket {
		if err := s.watcher.add(spec.Name, spec.Ready.Path); err != nil {
			return 0, err
		}
	}
	user, err := book.User(spec.Owner.User, spec.Owner.Group)
	if err != nil {
		return 0, err
	}
	path, argv := spec.Argv[0], spec.Argv
	if len(s.sockets[spec.Name]) > 0 {
		path, argv = s.ShimPath, append([]string{ExecServiceName}, spec.Argv...)
	}
	pid, err := s.fork(spec, path, argv, user)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", path, err)
	}
	if err := constrain(pid, spec); err != nil {
		s.Log.Warn("limits-failed", "name", spec.Name, "err", err)
	}
	return pid, nil
}

// clear waits for the last run's processes to be gone.
func (s *Supervisor) clear(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), clearTimeout)
	defer cancel()
	if err := errors.Join(s.Groups.Kill(name), s.Groups.WaitEmpty(ctx, name)); err != nil {
		s.Log.Warn("clear-failed", "name", name, "err", err)
	}
}

// fork uses syscall and not os, whose processes want to be waited for there.
func (s *Supervisor) fork(spec catalogue.Service, path string, argv []string, user account.User) (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	out, err := s.Pump.Pipe(spec.Name, spec.Console)
	if err != nil {
		return 0, err
	}
	files := []uintptr{null.Fd(), out.Fd(), out.Fd()}
	for _, k := range s.sockets[spec.Name] {
		files = append(files, uintptr(k.fd)) // 3 and up, by sd_listen_fds(3)
	}
	sys := &syscall.SysProcAttr{Setsid: true}
	if user.UID != uint32(os.Getuid()) || user.GID != uint32(os.Getgid()) {
		sys.Credential = &syscall.Credential{Uid: user.UID, Gid: user.GID, Groups: user.Groups}
	}
	group, err := s.Groups.Open(spec.Name)
	if err != nil {
		return 0, err
	}
	if group != nil {
		defer group.Close()
		s.weigh(spec)
		sys.UseCgroupFD, sys.CgroupFD = true, int(group.Fd())
	}
	env := s.environment(spec, user)
	return syscall.ForkExec(path, argv, &syscall.ProcAttr{Dir: "/", Env: env, Files: files, Sys: sys})
}

// weigh is a preference: without it the service runs all the same.
func (s *Supervisor) weigh(spec catalogue.Service) {
	if spec.CPUWeight == 0 {
		return
	}
	if err := s.Groups.SetWeight(spec.Name, spec.CPUWeight); err != nil {
		s.Log.Warn("weight-failed", "name", spec.Name, "err", err)
	}
}

// environment is all a service gets: nothing is inherited from PID 1.
func (s *Supervisor) environment(spec catalogue.Service, user account.User) []string {
	env := []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C",
		"HOME=" + user.Home, "USER=" + user.Name, "LOGNAME=" + user.Name,
	}
	if spec.Ready.Kind == catalogue.Notify {
		env = append(env, "NOTIFY_SOCKET="+s.NotifySocket)
	}
	if spec.Watchdog > 0 {
		env = append(env, "WATCHDOG_USEC="+strconv.FormatInt(spec.Watchdog.Microseconds(), 10))
	}
	if n := len(s.sockets[spec.Name]); n > 0 {
		var names []string
		for _, k := range s.sockets[spec.Name] {
			names = append(names, k.name)
		}
		env = append(env, "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	return append(env, spec.Env...)
}

// probe starts the readiness command; its exit is found by reap.
func (s *Supervisor) probe(spec catalogue.Service) {
	ev := engine.Event(engine.Probed{Name: spec.Name})
	defer func() { s.events <- ev }()
	s.guard("probe "+spec.Name, func() {
		self := account.User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Home: "/"}
		pid, err := s.fork(spec, spec.Ready.Argv[0], spec.Ready.Argv, self)
		if err != nil {
			s.Log.Warn("probe-failed", "name", spec.Name, "err", err)
			return
		}
		ev = probeStarted{name: spec.Name, pid: pid}
		s.killLater(pid)
	})
}

// killLater ends a probe that hangs. It holds the process by a pidfd, so a later
// process of the same number is safe.
func (s *Supervisor) killLater(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it has ended already
	}
	time.AfterFunc(probeTimeout, func() {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		unix.Close(fd)
	})
}

// makeDirs makes directories with their owners, whatever they were before.
func makeDirs(dirs []catalogue.Dir, book account.Book) error {
	for _, d := range dirs {
		if err := os.MkdirAll(d.Path, d.Mode); err != nil {
			return err
		}
		if err := own(d.Path, d.Mode, d.Owner, book); err != nil {
			return err
		}
	}
	return nil
}

func own(path string, mode os.FileMode, owner catalogue.Owner, book account.Book) error {
	user, err := book.User(owner.User, owner.Group)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if user.UID != uint32(os.Getuid()) || user.GID != uint32(os.Getgid()) {
		if err := os.Lchown(path, int(user.UID), int(user.GID)); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// constrain sets limits and the OOM score from outside, right after execve. A
// process that has ended meanwhile needs none.
func constrain(pid int, spec catalogue.Service) error {
	var errs []error
	for _, l := range spec.Limits {
		limit := unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		if err := unix.Prlimit(pid, resources[l.Resource], &limit, nil); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("limit %s: %w", l.Resource, err))
		}
	}
	if spec.OOMScore != 0 {
		err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(spec.OOMScore)), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("oom score: %w", err))
		}
	}
	return errors.Join(errs...)
}

var resources = map[catalogue.Resource]int{
	catalogue.NoFile: unix.RLIMIT_NOFILE, catalogue.MemLock: unix.RLIMIT_MEMLOCK, catalogue.Core: unix.RLIMIT_CORE,
}

// ExecService is the exec-service role: argv is the role's name, then the
// service's own command line. It names itself as the receiver of the sockets
// and becomes the service.
func ExecService(argv []string) error {
	if len(argv) < 2 {
		return errors.New("exec-service: no command")
	}
	env := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "LISTEN_PID=") })
	env = append(env, "LISTEN_PID="+strconv.Itoa(os.Getpid()))
	if err := syscall.Exec(argv[1], argv[1:], env); err != nil {
		return fmt.Errorf("exec-service: %s: %w", argv[1], err)
	}
	return nil
}
