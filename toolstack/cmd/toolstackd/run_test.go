package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	hostconfig "cairn/init/config"
	"cairn/journal"
	"cairn/toolstack/client"
	"cairn/toolstack/host/hosttest"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm"
)

const password = "open sesame"

// instance is toolstackd in this process, with a fake hostd and hypervisor.
type instance struct {
	t      *testing.T
	cfg    config
	hv     *hypervisor.Fake
	log    *logLines
	cancel context.CancelFunc
	done   chan error
}

func newInstance(t *testing.T, engine string) *instance {
	t.Helper()
	hostd := hosttest.New()
	hostd.Document.Root.PasswordHash = hostconfig.HashPassword(password)
	d := &instance{t: t, hv: hypervisor.NewFake()}
	guests := t.TempDir()
	for _, f := range []string{"vmlinuz", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(guests, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d.cfg = config{
		listen: "127.0.0.1:0", state: t.TempDir(), engine: engine, guests: guests,
		fakeHypervisor: d.hv, fakeHostd: hostd,
	}
	d.start()
	return d
}

func (d *instance) start() {
	d.log = newLogLines()
	d.cfg.log = journal.New(d.log, "toolstackd")
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel, d.done = cancel, make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.done <- run(ctx, d.cfg)
	}()
	d.t.Cleanup(func() { cancel(); <-ended }) // which writes to its directory up to its end
}

func (d *instance) stop() {
	d.t.Helper()
	d.cancel()
	select {
	case err := <-d.done:
		if err != nil {
			d.t.Errorf("run: %v", err)
		}
	case <-time.After(20 * time.Second):
		d.t.Fatal("toolstackd does not stop")
	}
}

// address waits until the API is announced.
func (d *instance) address() string {
	d.t.Helper()
	for {
		select {
		case line := <-d.log.lines:
			if _, rest, ok := strings.Cut(line, " api-ready addr="); ok {
				return strings.Fields(rest)[0]
			}
		case err := <-d.done:
			d.t.Fatalf("toolstackd ended: %v", err)
		case <-time.After(20 * time.Second):
			d.t.Fatal("no api-ready")
		}
	}
}

func (d *instance) login(address string) *client.Client {
	d.t.Helper()
	c, err := client.Dial(d.t.Context(), client.Config{Addr: address, Username: "root", Password: password})
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

func (d *instance) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// TestFirstGuest is the user's first hour, through TLS and JSON-RPC.
func TestFirstGuest(t *testing.T) {
	d := newInstance(t, "memory")
	c := d.login(d.address())
	ctx := t.Context()
	var templates, consoles []string
	var ref, state string
	d.must(c.Call(ctx, "VM.get_by_name_label", &templates, vm.DemoTemplate))
	d.must(c.Call(ctx, "VM.clone", &ref, templates[0], "first"))
	d.must(c.Call(ctx, "VM.provision", nil, ref))
	d.must(c.Call(ctx, "VM.start", nil, ref, false, false))
	d.must(c.Call(ctx, "VM.get_consoles", &consoles, ref))
	tty, err := c.Console(ctx, consoles[0])
	d.must(err)
	line := make([]byte, len(hypervisor.FakeGreeting))
	_, err = io.ReadFull(tty, line)
	d.must(err)
	if string(line) != hypervisor.FakeGreeting {
		t.Errorf("the guest says %q", line)
	}
	d.must(c.Call(ctx, "VM.clean_shutdown", nil, ref))
	d.must(c.Call(ctx, "VM.get_power_state", &state, ref))
	if state != "Halted" {
		t.Errorf("power state %s", state)
	}
	if rest, err := io.ReadAll(tty); err != nil || len(rest) > 0 {
		t.Errorf("console after the end: %q, %v", rest, err)
	}
	d.must(c.Call(ctx, "VM.destroy", nil, ref))
	d.stop()
}

// insecure asks a server whose certificate nobody has vouched for.
func insecure() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
}

// TestXML asks the same server the other way.
func TestXML(t *testing.T) {
	d := newInstance(t, "memory")
	address := d.address()
	hc := insecure()
	body := "<methodCall><methodName>session.login_with_password</methodName><params><param><value>root</value></param>" +
		"<param><value>" + password + "</value></param></params></methodCall>"
	resp, err := hc.Post("https://"+address+"/RPC2", "text/xml", strings.NewReader(body))
	d.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	d.must(err)
	if !bytes.Contains(text, []byte("Success")) || !bytes.Contains(text, []byte("OpaqueRef:")) || xml.Unmarshal(text, new(struct{})) != nil {
		t.Errorf("login answered %s", text)
	}
	d.stop()
}

// TestRestart: a toolstack that comes back finds its VM running, from etcd.
func TestRestart(t *testing.T) {
	d := newInstance(t, "etcd")
	c := d.login(d.address())
	ctx := t.Context()
	var templates []string
	var ref, state string
	d.must(c.Call(ctx, "VM.get_by_name_label", &templates, vm.DemoTemplate))
	d.must(c.Call(ctx, "VM.clone", &ref, templates[0], "survivor"))
	d.must(c.Call(ctx, "VM.provision", nil, ref))
	d.must(c.Call(ctx, "VM.start", nil, ref, false, false))
	d.stop()

	d.cfg.fakeHypervisor = survive(d.hv)
	d.start()
	c = d.login(d.address())
	d.must(c.Call(ctx, "VM.get_power_state", &state, ref))
	var hosts, pools, all []string
	d.must(c.Call(ctx, "host.get_all", &hosts))
	d.must(c.Call(ctx, "pool.get_all", &pools))
	d.must(c.Call(ctx, "VM.get_by_name_label", &all, vm.DemoTemplate))
	if state != "Running" || len(hosts) != 1 || len(pools) != 1 || len(all) != 1 {
		t.Errorf("after a restart: VM %s, %d hosts, %d pools, %d templates", state, len(hosts), len(pools), len(all))
	}
	d.must(c.Call(ctx, "VM.hard_shutdown", nil, ref))
	d.stop()
}

// survive carries the domains of a closed fake into a new one.
func survive(old *hypervisor.Fake) *hypervisor.Fake {
	fresh := hypervisor.NewFake()
	domains, _ := old.List(context.Background())
	for _, d := range domains {
		fresh.Add(d)
	}
	return fresh
}

// TestWaitsForHostd says aloud what it waits for.
func TestWaitsForHostd(t *testing.T) {
	d := newInstance(t, "memory")
	d.address()
	d.stop()
	late := hosttest.New()
	late.Err = errors.New("not yet")
	d.cfg.fakeHostd, d.cfg.fakeHypervisor = late, survive(d.hv)
	d.start()
	for line := range d.log.lines {
		if strings.Contains(line, " waiting for=hostd") {
			break
		}
	}
	late.Set(func(h *hosttest.Hostd) { h.Err = nil })
	d.address()
	d.stop()
}

func TestListenNeedsASocket(t *testing.T) {
	if _, err := listen("", ""); err == nil {
		t.Error("listens on nothing")
	}
	s, err := listen("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, ok := s.network.(*net.TCPListener); !ok || s.local != nil {
		t.Errorf("listens on %T and %T", s.network, s.local)
	}
}

func TestParse(t *testing.T) {
	cfg, err := parse(nil)
	if err != nil || cfg.engine != "etcd" || cfg.state != "/var/lib/cairn" || cfg.hypervisor.Socket != hypervisor.DefaultSocket {
		t.Errorf("defaults %+v, %v", cfg, err)
	}
	if _, err := parse([]string{"-nonsense"}); err == nil {
		t.Error("accepted nonsense")
	}
}

// logLines is a log that can be waited on.
type logLines struct {
	mu    sync.Mutex
	cut   journal.Lines
	lines chan string
}

func newLogLines() *logLines { return &logLines{lines: make(chan string, 1000)} }

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut.Cut(p, func(line string) {
		select {
		case l.lines <- line:
		default: // nobody waits any more
		}
	})
	return len(p), nil
}
