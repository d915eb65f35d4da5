//go:build lab

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairn/ci/lab"
	"cairn/ci/lab/demo"
	"cairn/ci/lab/life"
	"cairn/ci/lab/trixie"
	"cairn/toolstack/client"
)

const (
	// factsWithin is how soon after a guest has an agent and an address the API tells them.
	factsWithin = 30 * time.Second
	// askWithin is how long a call may take that has nothing to do with an agent,
	// on a machine that does other things too.
	askWithin = 20 * time.Second
	// clockSkew is what the clock of an emulated guest may be off.
	clockSkew = 3 * time.Second
)

// TestDevAgent runs Debian's own kernel, systemd and qemu-guest-agent in a guest. What
// the agent tells is in the API soon; the guest's own journal says that it held still
// for a snapshot, whose file system is whole; an agent that hangs is in nobody's way;
// and the guest ends when its agent is asked.
func TestDevAgent(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	defer cancel()
	d, dir := fresh(t)
	g := newDebian(ctx, d, dir)
	begin := time.Now()
	d.must(g.guest.Start(ctx))
	var err error
	g.tty, g.keys, err = g.guest.Console(ctx, t.Output(), nil)
	d.must(err)
	defer g.keys.Close()
	for _, word := range []string{trixie.Agent, trixie.Numbered} {
		said, err := g.tty.Text(ctx, word)
		d.must(err)
		t.Logf("%q %s after VM.start", word, said.Seen.Sub(begin).Round(time.Millisecond))
		if said.Seen.After(g.up) {
			g.up = said.Seen
		}
	}
	g.tells(ctx)
	_, err = g.tty.Text(ctx, trixie.Shell)
	d.must(err)
	g.atRest(ctx)
	g.hangs(ctx)
	d.must(g.guest.CleanShutdown(ctx))
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	d.must(err)
	if !strings.Contains(string(log), "vm-agent-asked") {
		t.Error("the guest was shut down, and not by its agent")
	}
	if state, err := g.guest.PowerState(ctx); err != nil || state != "Halted" {
		t.Errorf("it is %s, %v", state, err)
	}
	g.end(ctx)
}

// guestOfDebian is a VM with a disk, a CD it starts from and a NIC.
type guestOfDebian struct {
	life.API
	guest       *demo.Guest
	d           *instance
	before      life.Census
	sr, library string
	network     string
	metrics     string    // what its agent tells
	up          time.Time // when its agent ran, and it had an address
	tty         *lab.Console
	keys        io.WriteCloser
}

func newDebian(ctx context.Context, d *instance, dir string) *guestOfDebian {
	d.Helper()
	g := &guestOfDebian{API: life.API{T: d.T, Client: d.login()}, d: d}
	made, err := trixie.Open(ctx, "../..")
	d.must(err)
	g.before = life.Count(ctx, g.API, d.inside())
	g.sr = g.Repository(ctx, "file", map[string]string{"location": "/state/sr/debian"})
	g.network = g.Network(ctx, "lan")
	disc := d.disc(ctx, g.API, dir, func(file string) error { return made.Disc(ctx, file) })
	g.library = g.Ref(ctx, "VDI.get_SR", disc)
	g.guest = g.Bootable(ctx, "trixie")
	vm := g.guest.Ref
	g.Drive(ctx, vm, g.install(ctx, made), "0", "Disk")
	g.Drive(ctx, vm, disc, "3", "CD")
	g.NIC(ctx, vm, g.network, "0")
	return g
}

// install makes the guest's disk.
func (g *guestOfDebian) install(ctx context.Context, made *trixie.Guest) string {
	g.T.Helper()
	file := filepath.Join(g.T.TempDir(), "disk")
	g.d.must(made.Disk(ctx, file))
	f, err := os.Open(file)
	g.d.must(err)
	defer f.Close()
	vdi, _ := g.Disk(ctx, g.sr, "system", trixie.DiskSize)
	g.d.must(g.Put(ctx, "/import_raw_vdi", url.Values{"vdi": {vdi}}, f, trixie.DiskSize))
	return vdi
}

// facts are what the API knows from an agent.
type facts struct {
	OS       map[string]string `json:"os_version"`
	Networks map[string]string
	Disks    map[string]string
	Drivers  map[string]string `json:"PV_drivers_version"`
	Detected bool              `json:"PV_drivers_detected"`
	UpToDate bool              `json:"PV_drivers_up_to_date"`
	Other    map[string]string
	Live     bool
}

func (g *guestOfDebian) facts(ctx context.Context) (f facts) {
	g.T.Helper()
	g.metrics = ""
	if err := g.Client.Call(ctx, "VM.get_guest_metrics", &g.metrics, g.guest.Ref); err != nil {
		g.T.Fatal(err)
	}
	if g.metrics != life.Null {
		g.d.must(g.Client.Call(ctx, "VM_guest_metrics.get_record", &f, g.metrics))
	}
	return f
}

// tells: system and addresses are in the API soon after the guest has them and an agent.
func (g *guestOfDebian) tells(ctx context.Context) {
	g.T.Helper()
	var f facts
	g.Until(ctx, "what the agent tells", []string{"vm", "vm_guest_metrics"}, func() bool {
		f = g.facts(ctx)
		return f.OS["name"] != "" && f.Networks["0/ip"] != ""
	})
	took := time.Since(g.up)
	g.T.Logf("%s later the API tells %+v", took.Round(time.Millisecond), f)
	if took > factsWithin {
		g.T.Errorf("that took %s, more than %s", took, factsWithin)
	}
	if f.OS["distro"] != "debian" || f.OS["major"] != "13" || !strings.Contains(f.OS["name"], "trixie") || !strings.Contains(f.OS["uname"], "cloud-amd64") {
		g.T.Errorf("os_version %v", f.OS)
	}
	if f.Networks["0/ip"] != trixie.Address || f.Networks["0/ipv4/0"] != trixie.Address || !strings.HasPrefix(f.Networks["0/ipv6/0"], "fe80:") {
		g.T.Errorf("networks %v", f.Networks)
	}
	if f.Disks["0/mountpoint"] != "/" || f.Disks["0/type"] != "ext4" {
		g.T.Errorf("disks %v", f.Disks)
	}
	for _, feature := range []string{"feature-shutdown", "feature-quiesce", "feature-reboot"} {
		if f.Other[feature] != "1" {
			g.T.Errorf("%s is %q", feature, f.Other[feature])
		}
	}
	if !f.Live || !f.Detected || !f.UpToDate || len(f.Drivers) == 0 {
		g.T.Errorf("%+v", f)
	}
}

// shell types a line for the guest's shell and returns what it printed.
func (g *guestOfDebian) shell(ctx context.Context, line string) (printed []string) {
	g.T.Helper()
	g.tty.Mark()
	before := len(g.tty.Lines())
	_, err := fmt.Fprintf(g.keys, "%s; echo ended=$?\n", line)
	g.d.must(err)
	ended, err := g.tty.Text(ctx, "ended=")
	g.d.must(err)
	if text := strings.TrimSpace(ended.Text); !strings.HasSuffix(text, "ended=0") {
		g.T.Fatalf("%s: %s", line, text)
	}
	for _, l := range g.tty.Lines()[before:] {
		printed = append(printed, strings.TrimSpace(l.Text))
	}
	return printed
}

// atRest takes a snapshot while the guest holds still, and one while it does not: the
// file system in the first one is whole, that in the other has a journal to replay.
func (g *guestOfDebian) atRest(ctx context.Context) {
	g.T.Helper()
	g.shell(ctx, "dd if=/dev/urandom of=/var/before bs=64k count=16 2>/dev/null")
	begin := time.Now()
	quiet := g.Ref(ctx, "VM.snapshot_with_quiesce", g.guest.Ref, "at rest")
	end := time.Now()
	var info map[string]string
	g.Call(ctx, &info, "VM.get_snapshot_info", quiet)
	if kind := info["disk-snapshot-type"]; kind != "quiesced" {
		g.T.Errorf("the snapshot is %q", kind)
	}
	g.journal(ctx, begin, end)
	g.shell(ctx, "dd if=/dev/urandom of=/var/after bs=64k count=16 2>/dev/null")
	plain := g.Ref(ctx, "VM.snapshot", g.guest.Ref, "as it is", []string{})
	if g.unfinished(ctx, quiet) {
		g.T.Error("the guest was not at rest: its file system has a journal to replay")
	}
	if !g.unfinished(ctx, plain) {
		g.T.Error("a plain snapshot of a guest that runs has nothing to replay")
	}
}

// journal asserts that the guest's own log has freeze and thaw, once each and in this
// order, while the snapshot was taken.
func (g *guestOfDebian) journal(ctx context.Context, begin, end time.Time) {
	g.T.Helper()
	var said []string
	for _, l := range g.shell(ctx, "SYSTEMD_COLORS=0 journalctl --no-pager -q -o short-unix -t fsfreeze-hook") {
		at, rest, _ := strings.Cut(l, " ")
		_, what, ok := strings.Cut(rest, "]: ")
		seconds, err := strconv.ParseFloat(at, 64)
		if !ok || err != nil {
			continue
		}
		said = append(said, what)
		when := time.UnixMilli(int64(seconds * 1000))
		g.T.Logf("the guest's journal: %s %s after the snapshot was asked for", what, when.Sub(begin))
		if when.Before(begin.Add(-clockSkew)) || when.After(end.Add(clockSkew)) {
			g.T.Errorf("%s at %s; the snapshot was taken from %s to %s", what, when, begin, end)
		}
	}
	if got := strings.Join(said, " "); got != "freeze thaw" {
		g.T.Errorf("the guest's journal has %q, want freeze thaw", got)
	}
}

// unfinished tells whether the file system on a snapshot's disk has a journal that has
// to be replayed: ext4's superblock says so, at 1024, by bit 2 of its incompatible
// features, at 0x60.
func (g *guestOfDebian) unfinished(ctx context.Context, snapshot string) bool {
	g.T.Helper()
	const superblock, magic, features, recover = 1024, 0x38, 0x60, 1 << 2
	var vbds []string
	g.Call(ctx, &vbds, "VM.get_VBDs", snapshot)
	for _, vbd := range vbds {
		if g.Text(ctx, "VBD.get_type", vbd) != "Disk" {
			continue
		}
		body, err := g.Get(ctx, "/export_raw_vdi", url.Values{"vdi": {g.Ref(ctx, "VBD.get_VDI", vbd)}})
		g.d.must(err)
		defer body.Close()
		b := make([]byte, superblock+1024)
		_, err = io.ReadFull(body, b)
		g.d.must(err)
		if b = b[superblock:]; binary.LittleEndian.Uint16(b[magic:]) != 0xef53 {
			g.T.Fatal("no ext4 on the snapshot's disk")
		}
		return binary.LittleEndian.Uint32(b[features:])&recover != 0
	}
	g.T.Fatal("the snapshot has no disk")
	return false
}

// hangs stops the agent in the guest: it is told of, calls that ask it say so, and no
// other call waits. Then it goes on.
func (g *guestOfDebian) hangs(ctx context.Context) {
	g.T.Helper()
	g.shell(ctx, "systemctl kill --signal=STOP qemu-guest-agent.service")
	stopped := time.Now()
	var record map[string]any
	g.quick(ctx, "VM.get_record", &record, g.guest.Ref)
	g.quick(ctx, "VM.snapshot", &record, g.guest.Ref, "beside one that hangs", []string{})
	g.quick(ctx, "VM.pause", nil, g.guest.Ref)
	g.quick(ctx, "VM.unpause", nil, g.guest.Ref)
	g.Until(ctx, "the agent to be missed", []string{"vm_guest_metrics"}, func() bool { return !g.facts(ctx).Live })
	g.T.Logf("that the agent hangs was known %s after it did", time.Since(stopped).Round(time.Millisecond))
	begin := time.Now()
	err := g.Client.Call(ctx, "VM.snapshot_with_quiesce", nil, g.guest.Ref, "never")
	if !client.IsCode(err, "VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED") || time.Since(begin) > askWithin {
		g.T.Errorf("a snapshot at rest without an agent: %v after %s", err, time.Since(begin))
	}
	g.shell(ctx, "systemctl kill --signal=CONT qemu-guest-agent.service")
	g.Until(ctx, "the agent to be back", []string{"vm_guest_metrics"}, func() bool { return g.facts(ctx).Live })
}

// quick is a call that must not wait for an agent.
func (g *guestOfDebian) quick(ctx context.Context, method string, out any, args ...any) {
	g.T.Helper()
	begin := time.Now()
	if method == "VM.snapshot" {
		out = new(string)
	}
	g.Call(ctx, out, method, args...)
	if took := time.Since(begin); took > askWithin {
		g.T.Errorf("%s took %s beside an agent that hangs", method, took)
	}
}

// end destroys everything; nothing of it is left.
func (g *guestOfDebian) end(ctx context.Context) {
	g.T.Helper()
	g.Clear(ctx, g.guest.Ref, g.sr)
	g.Call(ctx, nil, "PBD.unplug", g.First(ctx, "SR.get_PBDs", g.library))
	g.Call(ctx, nil, "SR.forget", g.library)
	g.Call(ctx, nil, "network.destroy", g.network)
	life.NothingBeyond(ctx, g.API, g.d.inside(), g.before)
}
