//go:build lab

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/ci/devhost"
	"cairn/ci/interpose"
	"cairn/ci/lab/demo"
	"cairn/ci/lab/life"
	"cairn/image/debian"
	hostd "cairn/init/hostd/client"
	"cairn/journal"
	"cairn/toolstack/hypervisor"
)

// rig is a host whose daemons die, with one guest. All but steps and ears is used
// by one goroutine.
type rig struct {
	*testing.T
	ctx       context.Context
	dir, addr string
	host      realHost
	log       *ears
	steps     *steps
	tools     *debian.Tree
	hostd     *hostd.Client       // past the proxy
	libvirt   *hypervisor.Libvirt // past the proxy
	api       life.API            // of the toolstackd that lives
	tty       *life.Keyboard      // nil after a death of toolstackd's, and of the guest's
	up        chan error          // a daemon that was killed runs again

	guest          *demo.Guest
	sr, network    string
	system, serial string            // the guest's disk
	vbd, vif       string            // what is plugged and unplugged
	content        map[string]string // checksums of disks that nobody writes to now
	fills          int
	qemu           int // the process of the guest, 0 without one

	since                                 time.Time
	kills, lost, finished, undone, missed int
}

// ears keep the log and hear how often the API has become ready.
type ears struct {
	file *os.File

	mu    sync.Mutex
	cut   journal.Lines
	ready int
	more  chan struct{} // closed and replaced when ready grows
}

// Write implements io.Writer.
func (e *ears) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cut.Cut(p, func(line string) {
		if strings.Contains(line, " api-ready ") {
			e.ready++
			close(e.more)
			e.more = make(chan struct{})
		}
	})
	return e.file.Write(p)
}

// starts is how often the API has become ready.
func (e *ears) starts() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ready
}

// await returns when that is more often.
func (e *ears) await(ctx context.Context, than int) error {
	for {
		e.mu.Lock()
		ready, more := e.ready, e.more
		e.mu.Unlock()
		if ready > than {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("no api-ready: %w", context.Cause(ctx))
		}
	}
}

// Sockets of the proxies, as toolstackd sees them.
const (
	hostdProxy   = "/run/cairn/chaos-hostd.sock"
	libvirtProxy = "/run/cairn/chaos-libvirt.sock"
)

// newRig starts a host whose toolstackd asks through proxies.
func newRig(ctx context.Context, t *testing.T) *rig {
	t.Helper()
	dir := scratch(t)
	file, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		T: t, ctx: ctx, dir: dir, log: &ears{file: file, more: make(chan struct{})}, steps: &steps{},
		content: map[string]string{}, since: time.Now(),
	}
	t.Cleanup(r.keepLog)
	r.tools, err = debian.Open(ctx, debian.Config{})
	r.must(err)
	r.proxy(interpose.HTTP, "hostd", hostdProxy, hostd.Socket)
	r.proxy(interpose.Libvirt, "libvirtd", libvirtProxy, hypervisor.DefaultSocket)
	l, err := listen("127.0.0.1:0")
	r.must(err)
	r.addr = l.Addr().String()
	root, err := filepath.Abs("../..")
	r.must(err)
	t.Chdir(root)
	h, err := startHost(ctx, config{Dir: dir, Bin: filepath.Join(dir, "bin"), Go: "go", Args: []string{
		"-hostd", hostdProxy, "-libvirt", libvirtProxy,
	}}, l, r.log)
	r.must(err)
	r.host = h.(realHost)
	t.Cleanup(func() { r.host.Libvirt.Close(); l.Close() })
	r.hostd = hostd.New(filepath.Join(dir, hostd.Socket))
	r.libvirt = hypervisor.Connect(hypervisor.Config{Socket: r.host.Socket(), Root: r.host.Root()})
	t.Cleanup(func() { r.hostd.Close(); r.libvirt.Close() })
	r.must(r.log.await(ctx, 0))
	r.login()
	return r
}

// keepLog shows where the log of a failed run is.
func (r *rig) keepLog() {
	r.log.file.Close()
	if !r.Failed() {
		return
	}
	text, _ := os.ReadFile(filepath.Join(r.dir, "log"))
	kept := filepath.Join(os.TempDir(), fmt.Sprintf("chaos-%d.log", os.Getpid()))
	if err := os.WriteFile(kept, text, 0o644); err == nil {
		r.Logf("the whole log is in %s; its end:", kept)
	}
	r.Logf("%s", text[max(0, len(text)-20000):])
}

// proxy opens a socket for toolstackd's user.
func (r *rig) proxy(open func(peer, path, target string, gate interpose.Gate) (*interpose.Proxy, error), peer, own, target string) {
	r.Helper()
	path := filepath.Join(r.dir, own)
	r.must(os.MkdirAll(filepath.Dir(path), 0o755))
	p, err := open(peer, path, filepath.Join(r.dir, target), r.steps.gate)
	r.must(err)
	r.must(os.Chown(path, 0, devhost.ToolstackID))
	r.must(os.Chmod(path, 0o660))
	r.Cleanup(func() { p.Close() })
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) login() {
	r.Helper()
	c, err := demo.Login(r.ctx, r.addr, password)
	r.must(err)
	r.api = life.API{T: quiet{r.T}, Client: c}
	if r.guest != nil {
		r.guest = demo.Attach(c, r.guest)
	}
	r.tty = nil
}

// quiet leaves out how long each call took and what the guest says.
type quiet struct{ testing.TB }

func (quiet) Logf(string, ...any) {}
func (quiet) Output() io.Writer   { return io.Discard }

// note writes a line into the host's log.
func (r *rig) note(format string, args ...any) {
	fmt.Fprintf(r.log.file, format+"\n", args...)
}

// restartPause is about what PID 1 waits before it starts a daemon that died.
const restartPause = 100 * time.Millisecond

// blow makes a kill ready: the daemon dies, and PID 1 starts it again.
func (r *rig) blow(k kill) *blow {
	r.up = make(chan error, 1)
	starts := r.log.starts()
	return &blow{kill: k, do: func() {
		if err := r.host.Kill(k.daemon); err != nil {
			r.up <- err
			return
		}
		time.AfterFunc(restartPause, func() {
			err := r.host.Run(k.daemon)
			if err == nil && k.daemon == toolstackName {
				err = r.log.await(r.ctx, starts)
			}
			r.up <- err
		})
	}}
}

// arm readies a kill for the call that follows.
func (r *rig) arm(k kill) *blow {
	r.Helper()
	b := r.blow(k)
	switch {
	case k.step.Name == begun:
		r.onBegin(b)
	case k.step == interpose.Step{}:
		time.AfterFunc(k.delay, b.fire)
	default:
		r.steps.arm(b)
	}
	return b
}

// disarm calls off a kill whose moment did not come, and waits for the daemon of one
// that was made.
func (r *rig) disarm(b *blow) (made bool) {
	r.Helper()
	r.steps.arm(nil)
	if !b.end() {
		return false
	}
	if err := <-r.up; err != nil {
		r.Fatalf("%s: %v", b.kill, err)
	}
	if b.daemon == toolstackName {
		r.login()
	}
	return true
}

// batch is an answer of event.from.
type batch struct {
	Token  string `json:"token"`
	Events []struct {
		Class    string `json:"class"`
		Snapshot struct {
			Current map[string]string `json:"current_operations"`
		} `json:"snapshot"`
	} `json:"events"`
}

// onBegin kills as soon as a record says that an operation is in progress.
func (r *rig) onBegin(b *blow) {
	r.Helper()
	classes := []string{"vm", "vbd", "vif"}
	c, err := demo.Login(r.ctx, r.addr, password)
	r.must(err)
	var now batch
	r.must(c.Call(r.ctx, "event.from", &now, classes, "", 0.0))
	go func() {
		for range 100 {
			var next batch
			if c.Call(r.ctx, "event.from", &next, classes, now.Token, 10.0) != nil {
				return
			}
			for _, e := range next.Events {
				if len(e.Snapshot.Current) > 0 {
					b.fire()
					return
				}
			}
			now.Token = next.Token
		}
	}()
}

// pids are the QEMU processes of the guest.
func (r *rig) pids() (all []int) {
	r.Helper()
	for _, path := range r.glob("/proc/[0-9]*/cmdline") {
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte("qemu-system")) || !bytes.Contains(text, []byte(r.guest.UUID)) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

func (r *rig) glob(pattern string) []string {
	r.Helper()
	all, err := filepath.Glob(pattern)
	r.must(err)
	return all
}

// keyboard is the guest's console.
func (r *rig) keyboard() life.Keyboard {
	r.Helper()
	if r.tty == nil {
		k := life.Sit(r.ctx, quiet{r.T}, r.guest)
		r.tty = &k
	}
	return *r.tty
}

// short is a reference's first letters, for messages.
func short(ref string) string {
	_, id, _ := strings.Cut(ref, ":")
	return id[:min(len(id), 8)]
}
