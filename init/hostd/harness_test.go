package hostd

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
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
	"slices"
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
	"cairn/init/network/port"
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
		Paths: pathsIn(dir), System: &fakeSystem{dir: dir, log: journal.New(os.Stderr, "system")}, Kernel: newFakeKernel(dir), Guard: newFakeGuard(dir),
		Files: config.OS{}, Listener: l, Log: log, WatchdogEvery: limit / 2, Tools: lender{},
	}
	return h.Run(ctx)
}

func pathsIn(dir string) Paths {
	return Paths{
		Sys: dir + "/sys", Proc: dir + "/proc", Etc: dir + "/etc", Config: dir + "/state/config", Logs: dir + "/log",
		Run: dir + "/run", KVM: dir + "/dev/kvm", Input: dir + "/dev/input", OSRelease: dir + "/os-release",
		Dev: dir + "/dev", Libvirt: dir + "/libvirt", Mounts: dir + "/run/sr-mount", Repositories: []string{dir + "/sr"}, ISOs: []string{dir + "/iso"},
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

func (f *fakeSystem) Admit(device string, group int) error {
	f.log.Info("admit", "device", filepath.Base(device), "group", group)
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

// fakeKernel has one NIC with a link, and what was made of it. It outlives the
// child, in a file.
type fakeKernel struct {
	mu   sync.Mutex
	file string
	f    network.Found
}

func newFakeKernel(dir string) *fakeKernel {
	k := &fakeKernel{file: dir + "/kernel.json"}
	if b, err := os.ReadFile(k.file); err == nil && json.Unmarshal(b, &k.f) == nil {
		return k
	}
	eth0 := network.Link{Index: 2, Name: "eth0", MAC: "52:54:00:00:00:01", Path: "/sys/devices/pci0000:00/0000:00:02.0", Up: true, Carrier: true, MTU: 1500}
	k.f.Links = []network.Link{{Index: 1, Name: "lo", Up: true, Carrier: true}, eth0}
	return k
}

func (k *fakeKernel) Found() (network.Found, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := network.Found{Links: slices.Clone(k.f.Links), Routes: slices.Clone(k.f.Routes)}
	for i, l := range f.Links {
		f.Links[i].Addrs = slices.Clone(l.Addrs)
	}
	return f, nil
}

func (k *fakeKernel) Do(s network.Step) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s.Op == network.BridgeAdd {
		k.f.Links = append(k.f.Links, network.Link{
			Index: 10 + len(k.f.Links), Name: s.Link, MAC: s.MAC, Kind: "bridge", Ours: true, Carrier: true, MTU: 1500,
		})
	}
	i := slices.IndexFunc(k.f.Links, func(l network.Link) bool { return l.Name == s.Link })
	if i < 0 {
		return errors.New("no link " + s.Link)
	}
	l := &k.f.Links[i]
	switch s.Op {
	case network.LinkUp:
		l.Up = true
	case network.BridgeDel:
		k.f.Links = slices.Delete(k.f.Links, i, i+1)
	case network.PortJoin:
		l.Master = s.Bridge
	case network.PortLeave:
		l.Master = ""
	case network.MTUSet:
		l.MTU = s.MTU
	case network.AddrAdd:
		l.Addrs = append(l.Addrs, s.Addr)
	case network.AddrDel:
		l.Addrs = slices.DeleteFunc(l.Addrs, func(a netip.Prefix) bool { return a == s.Addr })
	case network.RouteSet:
		k.f.Routes = []network.Route{s.Route}
	case network.RouteDel:
		k.f.Routes = nil
	}
	b, err := json.Marshal(k.f)
	return errors.Join(err, os.WriteFile(k.file, b, 0o644))
}

// fakeGuard writes down the ports there are, and the interfaces it took away with
// their rules in force, and says that each has dropped seven frames.
type fakeGuard struct {
	file string
	all  map[string]port.Port
}

func newFakeGuard(dir string) *fakeGuard {
	return &fakeGuard{file: dir + "/guarded", all: map[string]port.Port{}}
}

func (g *fakeGuard) write() error {
	var lines []string
	for name, p := range g.all {
		lines = append(lines, fmt.Sprint(name, " ", p.Mode, " ", p.MAC, " ", p.IPv4, " ", p.IPv6, " ", p.Rate))
	}
	slices.Sort(lines)
	return os.WriteFile(g.file, []byte(strings.Join(lines, "\n")), 0o644)
}

func (g *fakeGuard) Put(p port.Port) error {
	if p.Interface == "cvbroken" {
		return errors.New("operation not permitted")
	}
	g.all[p.Interface] = p
	return g.write()
}

func (g *fakeGuard) Delete(iface string) error {
	delete(g.all, iface)
	return g.write()
}

func (g *fakeGuard) Cut(iface string) error {
	if _, guarded := g.all[iface]; !guarded {
		return fmt.Errorf("interface %s has no rules", iface)
	}
	f, err := os.OpenFile(g.file+".cut", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, iface)
	return errors.Join(err, f.Close())
}

func (g *fakeGuard) Restore(all []port.Port) error {
	clear(g.all)
	for _, p := range all {
		g.all[p.Interface] = p
	}
	return g.write()
}

func (g *fakeGuard) Dropped() (map[string]uint64, error) {
	out := map[string]uint64{}
	for name := range g.all {
		out[name] = 7
	}
	return out, nil
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
