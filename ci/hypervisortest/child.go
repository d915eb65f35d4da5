package hypervisortest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const childEnv = "CAIRN_HYPERVISORTEST"

// plan is what the first process is told.
type plan struct {
	Tree, Dir string
	Binds     map[string]string
}

func (c Config) plan() plan { return plan{Tree: c.Tree, Dir: c.Dir, Binds: c.Binds} }

// Main does nothing, except in the first process of Start's namespaces, where it
// serves and never returns.
func Main() {
	text := os.Getenv(childEnv)
	if text == "" {
		return
	}
	var p plan
	err := json.Unmarshal([]byte(text), &p)
	if err == nil {
		err = p.enter()
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	(&first{exits: map[int]chan syscall.WaitStatus{}}).serve()
	os.Exit(0)
}

// enter builds the new root and goes there.
func (p plan) enter() error {
	root := filepath.Join(p.Dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	steps := []func(root string) error{privateRoot, p.system, p.writable, devices, p.binds, kernelViews, p.etc}
	for _, step := range steps {
		if err := step(root); err != nil {
			return err
		}
	}
	if err := unix.Chroot(root); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return os.Chdir("/")
}

// privateRoot cuts mounts off from the machine and puts a tmpfs on root.
func privateRoot(root string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("tmpfs: %w", err)
	}
	return nil
}

// system shows the tree's /usr. It is an overlay whose upper half is in memory, so
// that Binds below /usr find a directory to lie on; the tree itself stays as it is.
func (p plan) system(root string) error {
	for _, d := range []string{"usr", ".upper", ".work"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s",
		filepath.Join(p.Tree, "usr"), filepath.Join(root, ".upper"), filepath.Join(root, ".work"))
	if err := unix.Mount("overlay", filepath.Join(root, "usr"), "overlay", 0, options); err != nil {
		return fmt.Errorf("overlay on %s: %w", p.Tree, err)
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+d, filepath.Join(root, d)); err != nil {
			return err
		}
	}
	return os.Mkdir(filepath.Join(root, "tmp"), 0o1777)
}

// writable keeps what the daemons write in the caller's directory, where the
// caller's side of the sockets is too.
func (p plan) writable(root string) error {
	for _, d := range []string{"run", "var"} {
		outside := filepath.Join(p.Dir, d)
		if err := os.MkdirAll(outside, 0o755); err != nil {
			return err
		}
		if err := bind(outside, filepath.Join(root, d), false); err != nil {
			return err
		}
	}
	for _, d := range []string{"lib/libvirt", "log/libvirt/qemu", "cache/libvirt", "tmp"} {
		if err := os.MkdirAll(filepath.Join(p.Dir, "var", d), 0o755); err != nil {
			return err
		}
	}
	link := filepath.Join(p.Dir, "var/run")
	if err := os.Symlink("/run", link); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func devices(root string) error {
	dev := filepath.Join(root, "dev")
	for _, d := range []string{"pts", "shm", "net"} {
		if err := os.MkdirAll(filepath.Join(dev, d), 0o755); err != nil {
			return err
		}
	}
	for _, n := range []string{"null", "zero", "full", "random", "urandom", "tty", "net/tun"} {
		if _, err := os.Stat("/dev/" + n); err != nil {
			continue
		}
		if err := bind("/dev/"+n, filepath.Join(dev, n), false); err != nil {
			return err
		}
	}
	if err := unix.Mount("devpts", filepath.Join(dev, "pts"), "devpts", 0, "newinstance,ptmxmode=0666"); err != nil {
		return fmt.Errorf("devpts: %w", err)
	}
	if err := os.Symlink("pts/ptmx", filepath.Join(dev, "ptmx")); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", filepath.Join(dev, "shm"), "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("shm: %w", err)
	}
	return nil
}

func (p plan) binds(root string) error {
	for inside, outside := range p.Binds {
		if err := bind(outside, filepath.Join(root, inside), true); err != nil {
			return err
		}
	}
	return nil
}

// kernelViews mounts /proc of the new PID namespace; /sys is bound, because a
// fresh one would need the network namespace's owner. The machine's cgroups are
// hidden: libvirt would find them, and not be able to use them.
func kernelViews(root string) error {
	proc := filepath.Join(root, "proc")
	if err := os.Mkdir(proc, 0o555); err != nil {
		return err
	}
	if err := unix.Mount("proc", proc, "proc", 0, ""); err != nil {
		return fmt.Errorf("proc: %w", err)
	}
	if err := bind("/sys", filepath.Join(root, "sys"), true); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", filepath.Join(root, "sys/fs/cgroup"), "tmpfs", unix.MS_RDONLY, "size=4k"); err != nil {
		return fmt.Errorf("hide cgroups: %w", err)
	}
	return nil
}

// etc is all the configuration the daemons need. QEMU runs as this namespace's
// root, which is nobody special outside, and without a mount namespace of its
// own, because it is in one already.
func (p plan) etc(root string) error {
	files := map[string]string{
		"passwd":                "root:x:0:0:root:/root:/bin/false\nlibvirt-qemu:x:64055:108::/:/bin/false\n",
		"group":                 "root:x:0:\ntty:x:5:\nkvm:x:108:\nlibvirt-qemu:x:64055:\n",
		"nsswitch.conf":         "passwd: files\ngroup: files\nhosts: files\n",
		"hosts":                 "127.0.0.1 localhost\n",
		"machine-id":            strings.Repeat("c", 32) + "\n",
		"libvirt/libvirtd.conf": "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nunix_sock_rw_perms = \"0700\"\n",
		"libvirt/qemu.conf":     "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\nnamespaces = []\ncgroup_controllers = []\nstdio_handler = \"logd\"\n",
		"libvirt/virtlogd.conf": "",
	}
	for name, text := range files {
		path := filepath.Join(root, "etc", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// bind shows src at dst, making dst whatever src is.
func bind(src, dst string, readOnly bool) error {
	st, err := os.Stat(src)
	if err != nil {
		return err
	}
	if st.IsDir() {
		err = os.MkdirAll(dst, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(dst), 0o755); err == nil {
		err = os.WriteFile(dst, nil, 0o644)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(src, dst, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", dst, err)
	}
	if !readOnly {
		return nil
	}
	// Flags the machine's mount has are locked in a user namespace: keep them.
	var fs unix.Statfs_t
	if err := unix.Statfs(dst, &fs); err != nil {
		return fmt.Errorf("bind %s: %w", dst, err)
	}
	keep := uintptr(fs.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME)
	if err := unix.Mount("", dst, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|keep, ""); err != nil {
		return fmt.Errorf("bind %s read-only: %w", dst, err)
	}
	return nil
}

// first is the first process: it runs the daemons, obeys, and reaps, because
// libvirt takes a QEMU that is a zombie for one that lives.
type first struct {
	mu    sync.Mutex
	exits map[int]chan syscall.WaitStatus // of daemons
}

var argv = map[string][]string{
	"virtlogd": {"/usr/sbin/virtlogd"},
	"libvirtd": {"/usr/sbin/libvirtd"},
}

var sockets = map[string]string{
	"virtlogd": "/run/libvirt/virtlogd-sock",
	"libvirtd": "/run/libvirt/libvirt-sock",
}

func (f *first) serve() {
	go f.reap()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		verb, name, _ := strings.Cut(in.Text(), " ")
		if err := f.do(verb, name); err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Println("ok")
	}
}

func (f *first) do(verb, name string) error {
	switch verb {
	case "start":
		return errors.Join(f.run("virtlogd"), f.run("libvirtd"))
	case "run":
		return f.run(name)
	case "kill":
		return f.kill(name)
	default:
		return fmt.Errorf("unknown command %q", verb)
	}
}

// run starts a daemon and waits for its socket, watching that it lives.
func (f *first) run(name string) error {
	if argv[name] == nil {
		return fmt.Errorf("no daemon %q", name)
	}
	_ = os.Remove(sockets[name])
	exited, err := f.start(argv[name])
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for range 3000 { // 30 s; there is no event for a socket that is being bound
		if _, err := os.Stat(sockets[name]); err == nil {
			return nil
		}
		select {
		case status := <-exited:
			return fmt.Errorf("%s: ended with status %d", name, status.ExitStatus())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s: no socket", name)
}

func (f *first) start(argv []string) (<-chan syscall.WaitStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{
		Env:   []string{"PATH=/usr/sbin:/usr/bin", "HOME=/root", "LANG=C"},
		Files: []*os.File{nil, os.Stderr, os.Stderr},
	})
	if err != nil {
		return nil, err
	}
	exited := make(chan syscall.WaitStatus, 1)
	f.exits[p.Pid] = exited
	return exited, nil
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
			f.mu.Lock()
			if exited := f.exits[pid]; exited != nil {
				exited <- status
				delete(f.exits, pid)
			}
			f.mu.Unlock()
		}
	}
}

// kill ends every process of that program's name.
func (f *first) kill(name string) error {
	pids, err := named(name)
	if err == nil && len(pids) == 0 {
		err = fmt.Errorf("no process %q", name)
	}
	for _, pid := range pids {
		err = errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
	}
	return err
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
