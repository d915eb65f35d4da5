package guest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cairn/image/guest/qga"
	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/guest"
	protocol "cairn/toolstack/guest/qga"
	"cairn/toolstack/hypervisor"
)

// inside is a guest's system, as it changes.
type inside struct {
	mu      sync.Mutex
	address string
	did     []string
	freeze  func() (int, error)
	off     func()
}

func (i *inside) note(what string) { i.mu.Lock(); i.did = append(i.did, what); i.mu.Unlock() }
func (i *inside) log() string      { i.mu.Lock(); defer i.mu.Unlock(); return strings.Join(i.did, " ") }
func (i *inside) move(to string)   { i.mu.Lock(); i.address = to; i.mu.Unlock() }

func (i *inside) OS() map[string]string {
	return map[string]string{"id": "debian", "pretty-name": "Debian GNU/Linux 13 (trixie)", "version-id": "13", "kernel-release": "6.12"}
}
func (i *inside) HostName() string { return "web1" }
func (i *inside) Interfaces() []qga.Interface {
	i.mu.Lock()
	defer i.mu.Unlock()
	nic := qga.Interface{Name: "eth0", MAC: "02:aa:00:00:00:01"}
	if i.address != "" {
		nic.Addresses = []qga.Address{{Address: i.address}}
	}
	return []qga.Interface{nic}
}
func (i *inside) Filesystems() []qga.Filesystem { return nil }
func (i *inside) PowerOff(string) {
	i.note("off")
	if i.off != nil {
		i.off()
	}
}
func (i *inside) Thaw() (int, error) { i.note("thaw"); return 1, nil }
func (i *inside) Freeze() (int, error) {
	i.note("freeze")
	if i.freeze != nil {
		return i.freeze()
	}
	return 1, nil
}

// rig is one running machine with its watcher, in virtual time.
type rig struct {
	*testing.T
	db     *db.DB
	hv     *hypervisor.Fake
	m      *guest.Manager
	vm     api.VMRef
	uuid   string
	log    *lockedBuffer
	stop   func()
	inside *inside
	agent  *qga.Agent
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.Buffer.String() }

// run tests in a bubble of its own.
func run(t *testing.T, test func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		d, err := db.Open(t.Context(), db.NewMemory(), db.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r := &rig{T: t, db: d, hv: hypervisor.NewFake(), uuid: api.NewUUID(), log: &lockedBuffer{}, inside: &inside{address: "192.0.2.7"}}
		r.agent = qga.New(r.inside)
		r.hv.Add(hypervisor.Domain{UUID: r.uuid, State: hypervisor.Running})
		r.must(d.Update(t.Context(), func(tx *db.Tx) error {
			vm := api.NewVM()
			vm.UUID, vm.PowerState, vm.ResidentOn = r.uuid, api.VMPowerStateRunning, "OpaqueRef:host"
			r.vm = db.Insert(tx, vm)
			vif := api.NewVIF()
			vif.VM, vif.Device, vif.MAC = r.vm, "2", "02:AA:00:00:00:01"
			db.Insert(tx, vif)
			return nil
		}))
		r.start()
		defer func() {
			r.stop()
			r.hv.End(r.uuid, hypervisor.ByDestroy)
			_ = r.hv.Close()
			d.Close()
			if t.Failed() {
				t.Log(r.log)
			}
		}()
		test(r)
	})
}

// start runs a Manager, as of a new process.
func (r *rig) start() {
	r.m = guest.New(guest.Config{DB: r.db, Ports: func(api.HostRef) guest.Ports { return r.hv }, Log: journal.New(r.log, "guest")})
	ctx, cancel := context.WithCancel(r.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.m.Run(ctx) }()
	r.stop = func() { cancel(); <-done }
	synctest.Wait()
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// answers lets the guest's agent answer from now on.
func (r *rig) answers() { r.hv.SetAgent(r.uuid, func(port net.Conn) { _ = r.agent.Serve(port) }) }

func (r *rig) pass(d time.Duration) { time.Sleep(d); synctest.Wait() }

func (r *rig) row() *api.VMGuestMetrics {
	r.Helper()
	vm, err := db.Get(r.db.Snapshot(), r.vm)
	r.must(err)
	g, err := db.Get(r.db.Snapshot(), vm.GuestMetrics)
	if err != nil {
		return api.NewVMGuestMetrics()
	}
	return g
}

func (r *rig) presence(want guest.Presence) {
	r.Helper()
	if got := r.m.Presence(r.uuid); got != want {
		r.Errorf("the agent is %s, want %s", got, want)
	}
}

func (r *rig) is(err, want error) {
	r.Helper()
	if !errors.Is(err, want) {
		r.Errorf("got %v, want %v", err, want)
	}
}

// TestFactsSoonAfterTheAgent: a guest that takes long to start has its facts in the row
// within the promised half a minute, and they follow it.
func TestFactsSoonAfterTheAgent(t *testing.T) {
	run(t, func(r *rig) {
		r.pass(95 * time.Second)
		r.presence(guest.Unknown)
		if g := r.row(); g.Live || g.PVDriversDetected {
			r.Errorf("before: %+v", g)
		}
		r.inside.move("")
		r.answers()
		r.pass(time.Second)
		r.presence(guest.Present)
		g := r.row()
		if !g.Live || !g.PVDriversDetected || g.OSVersion["name"] != "Debian GNU/Linux 13 (trixie)" || g.OSVersion["major"] != "13" ||
			g.OSVersion["distro"] != "debian" || g.OSVersion["uname"] != "6.12" || g.PVDriversVersion["major"] != "10" ||
			g.NetbiosName["host_name"] != "web1" || g.Other["feature-quiesce"] != "1" || len(g.Networks) != 0 {
			r.Errorf("after: %+v", g)
		}
		r.inside.move("192.0.2.7") // as DHCP has it some seconds later
		r.pass(10 * time.Second)
		want := map[string]string{"2/ip": "192.0.2.7", "2/ipv4/0": "192.0.2.7"}
		if g := r.row(); !maps.Equal(g.Networks, want) {
			r.Errorf("networks %v, want %v", g.Networks, want)
		}
		generation := r.db.Snapshot().Generation()
		r.pass(10 * time.Minute)
		if now := r.db.Snapshot().Generation(); now != generation {
			r.Errorf("%d changes of a guest that does not change", now-generation)
		}
		r.inside.move("2001:db8::1")
		r.pass(31 * time.Second)
		if g := r.row(); !maps.Equal(g.Networks, map[string]string{"2/ipv6/0": "2001:db8::1"}) {
			r.Errorf("networks %v", g.Networks)
		}
	})
}

// TestHangs: an agent that stops answering is hung, then gone, and its row says so once
// each; when it answers again it is back.
func TestHangs(t *testing.T) {
	run(t, func(r *rig) {
		var hang sync.Mutex
		r.hv.SetAgent(r.uuid, func(port net.Conn) { _ = r.agent.Serve(slow{port, &hang}) })
		r.pass(time.Second)
		r.presence(guest.Present)
		generation := r.db.Snapshot().Generation()
		hang.Lock()
		start := time.Now()
		r.is(r.m.PowerOff(r.Context(), r.uuid), protocol.ErrSilent) // nobody knows yet
		if took := time.Since(start); took > 10*time.Second {
			r.Errorf("a call waited %s for an agent that hangs", took)
		}
		r.pass(15 * time.Second)
		r.presence(guest.Present)
		r.pass(75 * time.Second)
		r.presence(guest.Hung)
		r.is(r.m.PowerOff(r.Context(), r.uuid), guest.ErrAbsent)
		if g := r.row(); g.Live || g.Networks["2/ip"] == "" {
			r.Errorf("hung: %+v", g)
		}
		r.pass(6 * time.Minute)
		r.presence(guest.Gone)
		if g := r.row(); g.Live || len(g.Networks) > 0 || g.OSVersion["distro"] != "debian" {
			r.Errorf("gone: %+v", g)
		}
		if now := r.db.Snapshot().Generation(); now != generation+2 {
			r.Errorf("%d changes, want 2", now-generation)
		}
		hang.Unlock()
		r.pass(30 * time.Second)
		r.presence(guest.Present)
		if g := r.row(); !g.Live || g.Networks["2/ip"] == "" {
			r.Errorf("back: %+v", g)
		}
	})
}

// slow is a port of an agent that does not answer while somebody holds its lock.
type slow struct {
	net.Conn
	hang *sync.Mutex
}

func (s slow) Write(b []byte) (int, error) {
	if !s.hang.TryLock() {
		return len(b), nil
	}
	defer s.hang.Unlock()
	return s.Conn.Write(b)
}

// TestHostileGuestsHarmNobody: a pool of guests that flood, stall or talk nonsense does
// not keep an honest one waiting, and each is read rarely.
func TestHostileGuestsHarmNobody(t *testing.T) {
	run(t, func(r *rig) {
		var mu sync.Mutex
		read := 0
		kinds := []func(net.Conn){
			func(port net.Conn) { // floods
				go io.Copy(io.Discard, port)
				b := bytes.Repeat([]byte{'x'}, 32<<10)
				for {
					n, err := port.Write(b)
					mu.Lock()
					read += n
					mu.Unlock()
					if err != nil {
						return
					}
				}
			},
			func(port net.Conn) { _ = r.agent.Serve(&once{Conn: port}) }, // does the handshake, then nothing
			func(port net.Conn) { _, _ = io.Copy(port, port) },           // says what it hears
			func(port net.Conn) { port.Close() },
			func(port net.Conn) { _, _ = io.Copy(io.Discard, port) },
		}
		const hostile = 100
		r.must(r.db.Update(r.Context(), func(tx *db.Tx) error {
			for i := range hostile {
				vm := api.NewVM()
				vm.UUID, vm.PowerState, vm.ResidentOn = api.NewUUID(), api.VMPowerStateRunning, "OpaqueRef:host"
				db.Insert(tx, vm)
				r.hv.Add(hypervisor.Domain{UUID: vm.UUID, State: hypervisor.Running})
				r.hv.SetAgent(vm.UUID, kinds[i%len(kinds)])
			}
			return nil
		}))
		defer func() {
			r.stop()
			all, _ := r.hv.List(context.Background())
			for _, d := range all {
				r.hv.End(d.UUID, hypervisor.ByDestroy)
			}
		}()
		r.pass(5 * time.Minute)
		r.answers()
		r.pass(30 * time.Second)
		r.presence(guest.Present)
		if g := r.row(); !g.Live || g.Networks["2/ip"] == "" {
			r.Errorf("the honest one: %+v", g)
		}
		mu.Lock()
		defer mu.Unlock()
		if most := 20 * 5 << 20; read > most { // 20 of a kind, doubling pauses from half a minute
			r.Errorf("%d bytes of floods were read in five minutes", read)
		}
	})
}

// once answers the handshake and swallows the rest.
type once struct {
	net.Conn
	said bool
}

func (o *once) Write(b []byte) (int, error) {
	if o.said {
		return len(b), nil
	}
	o.said = true
	return o.Conn.Write(b)
}

func TestPowerOff(t *testing.T) {
	run(t, func(r *rig) {
		r.is(r.m.PowerOff(r.Context(), r.uuid), guest.ErrAbsent)
		r.is(r.m.PowerOff(r.Context(), "nobody"), guest.ErrAbsent)
		r.answers()
		r.pass(time.Second)
		r.must(r.m.PowerOff(r.Context(), r.uuid))
		if r.inside.log() != "off" {
			r.Errorf("the guest did %q", r.inside.log())
		}
	})
}

func TestFreezeAndThaw(t *testing.T) {
	run(t, func(r *rig) {
		r.is(r.m.CanFreeze(r.uuid), guest.ErrAbsent)
		r.answers()
		r.pass(time.Second)
		r.must(r.m.CanFreeze(r.uuid))
		r.is(r.m.Thaw(r.Context(), r.uuid), guest.ErrThawed)
		r.must(r.m.Freeze(r.Context(), r.uuid))
		r.pass(5 * time.Second)
		r.must(r.m.Thaw(r.Context(), r.uuid))
		r.pass(time.Minute)
		r.presence(guest.Present)
		if r.inside.log() != "freeze thaw" {
			r.Errorf("the guest did %q", r.inside.log())
		}
		if g := r.row(); g.Other["feature-quiesce"] != "1" || g.OSVersion["distro"] != "debian" {
			r.Errorf("afterwards: %+v", g)
		}
	})
}

// TestFrozenIsThawed: whatever becomes of who froze a guest.
func TestFrozenIsThawed(t *testing.T) {
	for name, tt := range map[string]struct {
		then func(r *rig)
		wait time.Duration
	}{
		"nobody thaws it":         {func(*rig) {}, guest.FreezeLimit + time.Second},
		"the toolstack stops":     {func(r *rig) { r.stop(); r.start() }, time.Second},
		"the toolstack is killed": {func(r *rig) { r.hv.SetAgent(r.uuid, func(net.Conn) {}); r.stop(); r.start(); r.answers() }, time.Minute},
		"the connection breaks":   {func(r *rig) { r.hv.Cut(r.uuid) }, guest.FreezeLimit + 5*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(r *rig) {
				r.answers()
				r.pass(time.Second)
				r.must(r.m.Freeze(r.Context(), r.uuid))
				tt.then(r)
				r.pass(tt.wait)
				if r.inside.log() != "freeze thaw" {
					r.Errorf("the guest did %q", r.inside.log())
				}
				r.is(r.m.Thaw(r.Context(), r.uuid), guest.ErrThawed)
				r.presence(guest.Present)
			})
		})
	}
}

// TestFreezeFails: each way to fail is told, and leaves no frozen guest behind.
func TestFreezeFails(t *testing.T) {
	for name, tt := range map[string]struct {
		freeze func(r *rig) (int, error)
		ctx    time.Duration // until the caller goes away
		want   error
		did    string
	}{
		"refused":           {func(*rig) (int, error) { return 0, errors.New("busy") }, time.Hour, nil, "freeze"},
		"nothing to freeze": {func(*rig) (int, error) { return 0, nil }, time.Hour, guest.ErrUnsupported, "freeze thaw"},
		"too slow":          {func(*rig) (int, error) { time.Sleep(45 * time.Second); return 1, nil }, time.Hour, context.DeadlineExceeded, "freeze thaw"},
		"caller goes away":  {func(*rig) (int, error) { time.Sleep(10 * time.Second); return 1, nil }, 5 * time.Second, context.DeadlineExceeded, "freeze thaw"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(r *rig) {
				r.answers()
				r.pass(time.Second)
				r.inside.freeze = func() (int, error) { return tt.freeze(r) }
				ctx, cancel := context.WithTimeout(r.Context(), tt.ctx)
				defer cancel()
				err := r.m.Freeze(ctx, r.uuid)
				if err == nil {
					r.Fatal("it succeeded")
				}
				if tt.want != nil {
					r.is(err, tt.want)
				}
				r.pass(2 * time.Minute)
				if r.inside.log() != tt.did {
					r.Errorf("the guest did %q, want %q", r.inside.log(), tt.did)
				}
				r.presence(guest.Present)
				r.must(r.m.CanFreeze(r.uuid))
			})
		})
	}
}

// TestOnlyRunningMachinesAreAsked: rows of others are left alone, and a machine that
// comes back is met anew.
func TestOnlyRunningMachinesAreAsked(t *testing.T) {
	run(t, func(r *rig) {
		r.answers()
		r.pass(time.Second)
		r.presence(guest.Present)
		set := func(s api.VMPowerState) {
			r.must(db.Modify(r.Context(), r.db, r.vm, func(_ *db.Tx, vm *api.VM) error { vm.PowerState = s; return nil }))
			r.pass(time.Second)
		}
		set(api.VMPowerStatePaused)
		r.presence(guest.Unknown)
		r.inside.move("198.51.100.1")
		r.pass(time.Minute)
		if r.row().Networks["2/ip"] != "192.0.2.7" {
			r.Errorf("a paused guest's row became %v", r.row().Networks)
		}
		set(api.VMPowerStateRunning)
		r.presence(guest.Present)
		if r.row().Networks["2/ip"] != "198.51.100.1" {
			r.Errorf("after it: %v", r.row().Networks)
		}
		set(api.VMPowerStateHalted)
		r.presence(guest.Unknown)
		r.must(r.db.Update(r.Context(), func(tx *db.Tx) error { return db.Delete(tx, r.vm) }))
		r.pass(time.Minute)
	})
}
