//go:build lab

package main

import (
	"bufio"
	"context"
	"io"
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

	"cairn/ci/lab/demo"
	"cairn/toolstack/client"
)

// instance is the program as a user starts it.
type instance struct {
	*testing.T
	cmd  *exec.Cmd
	addr string
	took time.Duration
}

// program builds it once.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dev")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

var readyLine = regexp.MustCompile(`^ready +https://(\S+) `)

func launch(t *testing.T, path, dir string, args ...string) *instance {
	t.Helper()
	begin := time.Now()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	d := &instance{T: t, cmd: exec.Command(path, append([]string{"-listen", "127.0.0.1:0", "-dir", dir, "-bin", dir + "/bin"}, args...)...)}
	d.cmd.Dir, d.cmd.Stderr = root, os.Stderr
	out, err := d.cmd.StdoutPipe()
	if err == nil {
		err = d.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.cmd.Process.Kill() })
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if m := readyLine.FindStringSubmatch(line); m != nil {
			d.addr, d.took = m[1], time.Since(begin)
			break
		}
		if err != nil {
			t.Fatalf("no ready: %v", err)
		}
	}
	go io.Copy(io.Discard, lines)
	t.Logf("ready after %s", d.took.Round(10*time.Millisecond))
	return d
}

func (d *instance) login() *client.Client {
	d.Helper()
	api, err := demo.Login(d.Context(), d.addr, password)
	d.must(err)
	return api
}

func (d *instance) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// TestDevSmoke: a host on this machine runs a guest by emulation, is fenced, ends
// on Ctrl-C with all that it started, keeps its state, and dies with its parent.
func TestDevSmoke(t *testing.T) {
	nics := names(t, "/sys/class/net")
	dir := scratch(t)
	path := program(t)
	d := launch(t, path, dir)
	api := d.login()
	g, err := demo.Create(t.Context(), api, "smoke")
	d.must(err)
	d.must(g.Start(t.Context()))
	d.console(api, g)
	left := d.descendants()
	d.fenced(left)
	d.must(api.Call(t.Context(), "VM.clean_shutdown", nil, g.Ref))
	d.must(d.cmd.Process.Signal(os.Interrupt))
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	gone(t, left)

	d = launch(t, path, dir)
	var vms []string
	d.must(d.login().Call(t.Context(), "VM.get_by_name_label", &vms, "smoke"))
	if len(vms) != 1 {
		t.Errorf("%d VMs of that name after a restart", len(vms))
	}
	left = d.descendants()
	d.must(d.cmd.Process.Kill())
	_ = d.cmd.Wait()
	gone(t, left)
	if now := names(t, "/sys/class/net"); !slices.Equal(nics, now) {
		t.Errorf("the machine's NICs were %v and are %v", nics, now)
	}
}

// console reads until the guest says that it is ready.
func (d *instance) console(api *client.Client, g *demo.Guest) {
	d.Helper()
	var consoles []string
	d.must(api.Call(d.Context(), "VM.get_consoles", &consoles, g.Ref))
	ctx, cancel := context.WithTimeout(d.Context(), 3*time.Minute) // a busy machine emulates slowly
	defer cancel()
	tty, err := api.Console(ctx, consoles[0])
	d.must(err)
	defer tty.Close()
	context.AfterFunc(ctx, func() { tty.Close() })
	var got strings.Builder
	b := make([]byte, 4096)
	for !strings.Contains(got.String(), "guest ready") {
		n, err := tty.Read(b)
		got.Write(b[:n])
		if err != nil {
			d.Fatalf("console: %v after %q", err, &got)
		}
	}
}

// process is one that must not outlive the program.
type process struct {
	pid, fd int
	name    string
}

// descendants lists everything the program has started, directly or not.
func (d *instance) descendants() []process {
	d.Helper()
	parents := map[int][]int{}
	for _, name := range names(d.T, "/proc") {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); len(f) > 1 {
			parent, _ := strconv.Atoi(f[1])
			parents[parent] = append(parents[parent], pid)
		}
	}
	var all []process
	for next := []int{d.cmd.Process.Pid}; len(next) > 0; next = next[1:] {
		for _, pid := range parents[next[0]] {
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				continue
			}
			cmdline, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
			program, _, _ := strings.Cut(string(cmdline), "\x00")
			all = append(all, process{pid, fd, filepath.Base(program)})
			next = append(next, pid)
		}
	}
	return all
}

// process is one that the program has started, by name.
func (d *instance) process(name string) process {
	d.Helper()
	for _, p := range d.descendants() {
		if p.name == name {
			return p
		}
	}
	d.Fatalf("no process %s", name)
	return process{}
}

// fenced: hostd shares no namespace with the machine and sees none of its NICs.
func (d *instance) fenced(all []process) {
	d.Helper()
	found := map[string]int{}
	for _, p := range all {
		found[p.name] = p.pid
	}
	for _, name := range []string{"hostd", "toolstackd", "libvirtd", "virtlogd", "qemu-system-x86_64"} {
		if found[name] == 0 {
			d.Errorf("no %s among %v", name, found)
		}
	}
	proc := "/proc/" + strconv.Itoa(found["hostd"])
	for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts"} {
		own, err := os.Readlink("/proc/self/ns/" + ns)
		d.must(err)
		other, err := os.Readlink(proc + "/ns/" + ns)
		d.must(err)
		if own == other {
			d.Errorf("hostd is in this machine's %s namespace", ns)
		}
	}
	devices, err := os.ReadFile(proc + "/net/dev")
	d.must(err)
	for line := range strings.Lines(string(devices)) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && name != "lo" && name != "mgmt0" && name != "xenbr0" {
			d.Errorf("hostd sees %s", name)
		}
	}
	if st, err := os.Stat(proc + "/root/sys/class/block"); err != nil || len(names(d.T, proc+"/root/sys/class/block")) > 0 {
		d.Errorf("hostd sees the machine's disks: %v, %v", st, err)
	}
	if blocks, _ := filepath.Glob(proc + "/root/dev/[svn][dv][abm]*"); len(blocks) > 0 {
		d.Errorf("hostd has %v", blocks)
	}
}

// gone waits for the end of all.
func gone(t *testing.T, all []process) {
	t.Helper()
	if len(all) == 0 {
		t.Error("the program had started nothing")
	}
	for _, p := range all {
		ended := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(ended, int((10 * time.Second).Milliseconds())); n != 1 || err != nil {
			_ = unix.PidfdSendSignal(p.fd, syscall.SIGKILL, nil, 0)
			t.Errorf("%s (%d) lives on (%d, %v)", p.name, p.pid, n, err)
		}
		unix.Close(p.fd)
	}
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// TestDevPool: a pool of 64 hosts and 4,000 VMs is there soon, and its guests can
// be stopped and started.
func TestDevPool(t *testing.T) {
	dir := t.TempDir()
	path := program(t)
	launchPool := func() *instance { return launch(t, path, dir, "-sim-hosts", "64", "-sim-vms", "4000") }
	d := launchPool()
	var hosts, pick []string
	var vms map[string]struct {
		State string `json:"power_state"`
		Host  string `json:"resident_on"`
	}
	api := d.login()
	d.must(api.Call(t.Context(), "host.get_all", &hosts))
	d.must(api.Call(t.Context(), "VM.get_all_records", &vms))
	if len(hosts) != 64 || len(vms) < 4064 {
		t.Errorf("%d hosts and %d VMs", len(hosts), len(vms))
	}
	for ref, v := range vms {
		if v.State == "Halted" && len(pick) < 20 {
			pick = append(pick, ref)
		}
	}
	done := make(chan error)
	for _, ref := range pick {
		go func() {
			err := api.Call(t.Context(), "VM.start", nil, ref, false, false)
			if err == nil || client.IsCode(err, "VM_IS_TEMPLATE") {
				err = nil
			}
			done <- err
		}()
	}
	for range pick {
		d.must(<-done)
	}
	left := d.descendants()
	d.must(d.cmd.Process.Signal(os.Interrupt))
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	gone(t, left)
	d = launchPool() // on the kept database
	d.must(d.login().Call(t.Context(), "VM.get_all_records", &vms))
	for _, ref := range pick {
		if v := vms[ref]; v.State == "Running" && v.Host == "OpaqueRef:NULL" {
			t.Errorf("%s runs nowhere", ref)
		}
	}
}
