package supervise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cairn/init/supervise/account"
	"cairn/init/supervise/catalogue"
	"cairn/init/supervise/engine"
	"cairn/init/supervise/pump"
	"cairn/init/supervise/watchdog"
	"cairn/journal"
)

// The real shell is tested as a child process: this test program starts itself
// as the supervisor (a child subreaper instead of process 1), and that starts
// this program again as each service. The supervisor's console is its standard
// output; the tests wait for its lines, never for a time.

const roleEnv = "CAIRN_TEST_SUPERVISOR"

func TestMain(m *testing.M) {
	switch {
	case os.Args[0] == ExecServiceName:
		fmt.Fprintln(os.Stderr, ExecService(os.Args))
		os.Exit(127)
	case os.Getenv(roleEnv) != "":
		os.Exit(superviseRole(os.Getenv(roleEnv)))
	case len(os.Args) > 2 && os.Args[1] == serviceArg:
		os.Exit(serviceRole(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// serviceArg marks a service's command line.
const serviceArg = "cairn-test-service"

// sessions is Groups without cgroups: each service is a session of its own.
// It belongs to the tests' supervisor, which knows the main process of each.
type sessions struct{ s *Supervisor }

func (g sessions) Open(string) (*os.File, error) { return nil, nil }

func (g sessions) SetWeight(string, int) error { return nil }

func (g sessions) Kill(string) error { return nil }

func (g sessions) WaitEmpty(context.Context, string) error { return nil }

func (g sessions) Guests() bool { return false }

func (g sessions) Of(pid int) (string, bool) {
	sid, err := unix.Getsid(pid)
	if err != nil {
		return "", false
	}
	return g.s.engine.ByPID(sid)
}

// descendants is a System that reaches only the supervisor's own children.
type descendants struct{ log *slog.Logger }

func (d descendants) SignalAll(sig syscall.Signal) error {
	self := strconv.Itoa(os.Getpid())
	data, err := os.ReadFile("/proc/self/task/" + self + "/children")
	if err != nil {
		return err
	}
	for pid := range strings.FieldsSeq(string(data)) {
		n, err := strconv.Atoi(pid)
		if err != nil {
			return err
		}
		d.log.Info("test-signal", "signal", unix.SignalName(sig))
		err = unix.Kill(n, sig)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

func (d descendants) Unmount(log *slog.Logger) { log.Info("test-unmount") }

func (d descendants) Down(engine.Kind) error { return nil }

// device is a watchdog that writes what is done to it on the console.
type device struct{ w io.Writer }

func (d device) say(what string) error {
	_, err := fmt.Fprintln(d.w, "watchdog:", what)
	return err
}

func (d device) Name() string { return "fake" }
func (d device) Open() error  { return d.say("open") }
func (d device) Feed() error  { return d.say("feed") }

func (d device) SetTimeout(t time.Duration) (time.Duration, error) { return t, d.say(t.String()) }

func (d device) Close(disarm bool) error { return d.say(fmt.Sprint("close disarm=", disarm)) }

// superviseRole is the child process: a supervisor with the named catalogue.
func superviseRole(scenario string) int {
	dir := os.Getenv("CAIRN_TEST_DIR")
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	console := pump.NewConsole(os.Stdout)
	logs := pump.New(console)
	log := journal.New(console, "supervise")
	groups := &sessions{}
	s, err := New(Config{
		Services: scenarios[scenario](dir), Log: log, Console: console, Pump: logs, Groups: groups,
		System:   descendants{log},
		Watchdog: watchdog.NewKeeper(device{console}, false, journal.Discard()),
		Accounts: func() (account.Book, error) { return here(), nil },
		Uptime:   uptime, NotifySocket: filepath.Join(dir, "notify"), LogDir: dir, LogsAfter: "first",
		ShimPath: testProgram(),
	})
	if err != nil {
		panic(err)
	}
	groups.s = s
	kind := s.Run()
	s.Watchdog.End(kind != engine.Reboot)
	console.Flush(context.Background())
	return 0
}

// here knows whoever runs the tests as root.
func here() account.Book {
	return account.Parse(
		fmt.Appendf(nil, "root:x:%d:%d::/:\n", os.Getuid(), os.Getgid()),
		fmt.Appendf(nil, "root:x:%d:\n", os.Getgid()))
}

func testProgram() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

// service is a catalogue entry that runs this program in a role.
func service(name, role string, change func(*catalogue.Service)) catalogue.Service {
	s := catalogue.Service{
		Name: name, Argv: []string{testProgram(), serviceArg, role}, Ready: catalogue.Ready{Kind: catalogue.Notify},
		Class: catalogue.Restartable, StartTimeout: 20 * time.Second, Grace: 5 * time.Second,
		Kill: catalogue.KillGroup, Console: true,
	}
	if change != nil {
		change(&s)
	}
	return s
}

// child is a supervisor under test.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	dir   string
	lines chan string
	seen  []string
	fresh []string // seen, but not matched by a wait yet
}

// startChild runs a scenario. The directory's name is short because socket
// addresses are.
func startChild(t *testing.T, scenario string) *child {
	t.Helper()
	dir, err := os.MkdirTemp("", "sup")
	if err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, dir: dir, cmd: exec.Command(testProgram()), lines: make(chan string, 1024)}
	c.cmd.Env = append(os.Environ(), roleEnv+"="+scenario, "CAIRN_TEST_DIR="+dir)
	c.cmd.Stdout, c.cmd.Stderr = w, w
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		defer close(c.lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			c.lines <- scan.Text()
		}
	}()
	t.Cleanup(c.cleanup)
	return c
}

// cleanup ends what a failed test has left. The services are killed through
// their sessions' leader, whose pid each has printed.
func (c *child) cleanup() {
	if c.cmd.ProcessState == nil {
		for _, line := range c.seen {
			if m := mainPID.FindStringSubmatch(line); m != nil {
				pid, _ := strconv.Atoi(m[1])
				_ = unix.Kill(-pid, unix.SIGKILL)
			}
		}
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
	os.RemoveAll(c.dir)
	if c.t.Failed() {
		c.t.Logf("console:\n%s", strings.Join(c.seen, "\n"))
	}
}

var mainPID = regexp.MustCompile(`main pid=(\d+)`)

// wait reads the console until a line matches, and returns its sub-matches. A
// line that came earlier counts if no wait has had it: what a service prints
// and what is logged about it may come in either order.
func (c *child) wait(pattern string) []string {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	for i, line := range c.fresh {
		if m := re.FindStringSubmatch(line); m != nil {
			c.fresh = slices.Delete(c.fresh, i, i+1)
			return m
		}
	}
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for {
		select {
		case line, ok := <-c.lines:
			if !ok {
				c.t.Fatalf("the supervisor ended before %q", pattern)
			}
			c.seen = append(c.seen, line)
			if m := re.FindStringSubmatch(line); m != nil {
				return m
			}
			c.fresh = append(c.fresh, line)
		case <-limit.C:
			c.t.Fatalf("no line matches %q", pattern)
		}
	}
}

// ready waits for the host and forgets what was said before.
func (c *child) ready() {
	c.t.Helper()
	c.wait("host-ready uptime=")
	c.fresh = nil
}

// has says whether a line that was read matches.
func (c *child) has(pattern string) bool {
	re := regexp.MustCompile(pattern)
	for _, line := range c.seen {
		if re.MatchString(line) {
			return true
		}
	}
	return false
}

func (c *child) pid(pattern string) int {
	c.t.Helper()
	n, err := strconv.Atoi(c.wait(pattern)[1])
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

func (c *child) signal(pid int, sig syscall.Signal) {
	c.t.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		c.t.Fatal(err)
	}
}

// end asks for a shutdown and waits for the supervisor to end.
func (c *child) end(sig syscall.Signal, kind string) {
	c.t.Helper()
	c.signal(c.cmd.Process.Pid, sig)
	c.wait("shutdown-start kind=" + kind)
	c.wait("shutdown-done kind=" + kind)
	for line := range c.lines {
		c.seen = append(c.seen, line)
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("supervisor: %v", err)
	}
}

// get asks a service that serves HTTP on a unix socket.
func get(path string) (string, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", path)
		},
	}}
	resp, err := client.Get("http://service/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}
