package hostd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/init/network"
	"cairn/init/storage"
	"cairn/journal"
)

// childDir, in the environment, makes the test binary a hostd whose machine is
// a directory: real socket, real files, a kernel that is made up.
const childDir = "CAIRN_HOSTD_CHILD"

func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := child(dir); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}

func child(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	// The parent cannot know the pid before; PID 1 sets it between fork and exec.
	os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
	l, err := listen(activation.FilesWithNames()[listenName], dir+"/own.sock")
	if err != nil {
		return err
	}
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return err
	}
	log := journal.New(os.Stderr, "hostd")
	h := &Host{
		Paths: pathsIn(dir), System: &fakeSystem{dir: dir, log: journal.New(os.Stderr, "system")}, Kernel: newFakeKernel(dir),
		Files: config.OS{}, Listener: l, Log: log, WatchdogEvery: limit / 2,
	}
	return h.Run(ctx)
}

func pathsIn(dir string) Paths {
	return Paths{
		Sys: dir + "/sys", Proc: dir + "/proc", Etc: dir + "/etc", Config: dir + "/state/config", Logs: dir + "/log",
		Run: dir + "/run", KVM: dir + "/dev/kvm", Input: dir + "/dev/input", OSRelease: dir + "/os-release",
		Dev: dir + "/dev", Mounts: dir + "/run/sr-mount", Repositories: []string{dir + "/sr"}, ISOs: []string{dir + "/iso"},
	}
}

// fakeSystem does nothing to the machine and logs what it would have done.
type fakeSystem struct {
	dir string
	log interface{ Info(string, ...any) }
}

func (f *fakeSystem) RootDevice() (string, error)            { return "", errors.New("no root here") }
func (f *fakeSystem) Mounted(string) (string, error)         { return "", nil }
func (f *fakeSystem) Prepare(string) error                   { return nil }
func (f *fakeSystem) Bind(string, string) error              { return nil }
func (f *fakeSystem) MkdirAll(p string, m fs.FileMode) error { return os.MkdirAll(f.dir+p, 0o755) }
func (f *fakeSystem) Mount(source, target, fstype string, _ []storage.Option) error {
	f.log.Info("mount", "source", source, "target", target)
	return nil
}

func (f *fakeSystem) Unmount(target string) error {
	f.log.Info("unmount", "target", target)
	return nil
}

func (f *fakeSystem) LoadNICs() error { return nil }

func (f *fakeSystem) LoadModule(name string) error {
	f.log.Info("module", "name", name)
	return nil
}

func (f *fakeSystem) SetHostname(name string) error {
	f.log.Info("sethostname", "name", name)
	return nil
}

func (f *fakeSystem) Power(a client.PowerAction) error {
	f.log.Info("power", "action", a)
	return nil
}

func (f *fakeSystem) Notify(state string) error {
	_, err := daemon.SdNotify(false, state)
	return err
}

func (f *fakeSystem) Media() ([]byte, bool, error) {
	b, err := os.ReadFile(f.dir + "/media.yaml")
	return b, err == nil, nil
}

func (f *fakeSystem) Show(_, text string) { f.log.Info("screen", "text", text) }

func (f *fakeSystem) ReloadTime() error {
	f.log.Info("reload-time")
	return nil
}

func (f *fakeSystem) Synchronized() (bool, error) { return true, nil }

// KernelLog is the text of a file.
func (f *fakeSystem) KernelLog(empty bool) ([]byte, error) {
	b, err := os.ReadFile(f.dir + "/kernel-log")
	if err == nil && empty {
		err = os.WriteFile(f.dir+"/kernel-log", nil, 0o600)
	}
	return b, err
}

// Devices calls found at SIGUSR1.
func (f *fakeSystem) Devices(ctx context.Context, found func()) error {
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGUSR1)
	found()
	f.log.Info("watching-devices")
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sig:
			found()
		}
	}
}

// fakeKernel is one NIC with a link. Its address outlives the child.
type fakeKernel struct {
	mu   sync.Mutex
	file string
	f    network.Found
}

func newFakeKernel(dir string) *fakeKernel {
	k := &fakeKernel{file: dir + "/kernel-address"}
	eth0 := network.Link{Index: 2, Name: "eth0", MAC: "52:54:00:00:00:01", Path: "/sys/devices/pci0000:00/0000:00:02.0", Up: true, Carrier: true}
	if b, err := os.ReadFile(k.file); err == nil {
		eth0.Addrs = append(eth0.Addrs, netip.MustParsePrefix(string(b)))
	}
	k.f.Links = []network.Link{{Index: 1, Name: "lo", Up: true, Carrier: true}, eth0}
	return k
}

func (k *fakeKernel) Found() (network.Found, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	links := append([]network.Link{}, k.f.Links...)
	return network.Found{Links: links, Routes: k.f.Routes}, nil
}

func (k *fakeKernel) Do(s network.Step) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch s.Op {
	case network.AddrAdd:
		k.f.Links[1].Addrs = []netip.Prefix{s.Addr}
		return os.WriteFile(k.file, []byte(s.Addr.String()), 0o644)
	case network.AddrDel:
		k.f.Links[1].Addrs = nil
		return os.Remove(k.file)
	case network.RouteSet:
		k.f.Routes = []network.Route{s.Route}
	case network.RouteDel:
		k.f.Routes = nil
	}
	return nil
}

func (k *fakeKernel) Watch(ctx context.Context, wake chan<- struct{}) error {
	wake <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

// lab is a directory that is a machine, and the hostd that runs on it.
type lab struct {
	t      *testing.T
	dir    string
	socket *os.File
	notify *net.UnixConn
	cmd    *exec.Cmd
	client *client.Client
	env    []string

	mu    sync.Mutex
	lines []string
	more  chan struct{} // a line has come
	ended chan struct{}
}

const patience = 20 * time.Second

func newLab(t *testing.T) *lab {
	t.Helper()
	// Unix socket paths are short; t.TempDir's may not be.
	dir, err := os.MkdirTemp("", "hostd")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &lab{t: t, dir: dir, more: make(chan struct{}, 1)}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/hostd.sock", Net: "unix"})
	must(t, err)
	l.socket, err = ln.File()
	must(t, err)
	t.Cleanup(func() { ln.Close(); l.socket.Close() })
	l.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/notify.sock", Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { l.notify.Close() })
	l.client = client.New(dir + "/hostd.sock")
	t.Cleanup(l.client.Close)
	l.plant("proc/cpuinfo", "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu svm\n")
	l.plant("proc/meminfo", "MemTotal: 2014636 kB\nMemAvailable: 1739600 kB\n")
	l.plant("os-release", "ID=cairn\nVERSION_ID=\"0.1\"\n")
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (l *lab) plant(path, content string) {
	l.t.Helper()
	full := filepath.Join(l.dir, path)
	must(l.t, os.MkdirAll(filepath.Dir(full), 0o755))
	must(l.t, os.WriteFile(full, []byte(content), 0o644))
}

func (l *lab) read(path string) string {
	l.t.Helper()
	b, err := os.ReadFile(filepath.Join(l.dir, path))
	must(l.t, err)
	return string(b)
}

// smbios plants a document as firmware would hand it over.
func (l *lab) smbios(doc string) {
	l.t.Helper()
	table := append([]byte{11, 5, 0, 0, 1}, "cairn.config:"+doc+"\x00\x00"...)
	l.plant("sys/firmware/dmi/tables/DMI", string(append(table, 127, 4, 0, 0, 0, 0)))
}

// start runs hostd and waits until it says READY=1.
func (l *lab) start() {
	l.t.Helper()
	l.cmd = exec.Command("/proc/self/exe")
	l.cmd.Env = append(os.Environ(), childDir+"="+l.dir, "NOTIFY_SOCKET="+l.dir+"/notify.sock", "LISTEN_FDS=1", "LISTEN_FDNAMES=hostd")
	l.cmd.Env = append(l.cmd.Env, l.env...)
	l.cmd.ExtraFiles = []*os.File{l.socket}
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := l.cmd.StderrPipe()
	must(l.t, err)
	must(l.t, l.cmd.Start())
	l.ended = make(chan struct{})
	go l.collect(stderr, l.cmd, l.ended)
	l.t.Cleanup(l.kill)
	l.notified("READY=1")
}

func (l *lab) collect(r io.Reader, cmd *exec.Cmd, ended chan struct{}) {
	defer close(ended)
	for s := bufio.NewScanner(r); s.Scan(); {
		l.mu.Lock()
		l.lines = append(l.lines, s.Text())
		l.mu.Unlock()
		select {
		case l.more <- struct{}{}:
		default:
		}
	}
	cmd.Wait() // how it ended is for the test to judge by what it said
}

func (l *lab) kill() {
	l.cmd.Process.Kill()
	<-l.ended
}

// terminate ends hostd as PID 1 would.
func (l *lab) terminate() {
	l.t.Helper()
	must(l.t, l.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-l.ended:
	case <-time.After(patience):
		l.t.Fatalf("does not end:\n%s", strings.Join(l.lines, "\n"))
	}
	if code := l.cmd.ProcessState.ExitCode(); code != 0 {
		l.t.Errorf("ended with %d:\n%s", code, strings.Join(l.lines, "\n"))
	}
}

// notified waits for a notification.
func (l *lab) notified(want string) {
	l.t.Helper()
	buf := make([]byte, 256)
	must(l.t, l.notify.SetReadDeadline(time.Now().Add(patience)))
	for {
		n, err := l.notify.Read(buf)
		if err != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.t.Fatalf("no %s: %v\n%s", want, err, strings.Join(l.lines, "\n"))
		}
		if string(buf[:n]) == want {
			return
		}
	}
}

// logged waits for a line that holds all the words, and forgets those before.
func (l *lab) logged(words ...string) string {
	l.t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		for i, line := range l.lines {
			if containsAll(line, words) {
				l.lines = l.lines[i+1:]
				l.mu.Unlock()
				return line
			}
		}
		all := strings.Join(l.lines, "\n")
		l.mu.Unlock()
		select {
		case <-l.more:
		case <-deadline:
			l.t.Fatalf("no line with %q in:\n%s", words, all)
		}
	}
}

func containsAll(s string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

// keyEvent is a struct input_event.
func keyEvent(code uint16, value uint32) []byte {
	b := make([]byte, eventSize)
	binary.LittleEndian.PutUint16(b[16:], evKey)
	binary.LittleEndian.PutUint16(b[18:], code)
	binary.LittleEndian.PutUint32(b[20:], value)
	return b
}
