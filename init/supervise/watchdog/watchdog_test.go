package watchdog

import (
	"errors"
	"testing"
	"time"

	"cairn/journal"
)

// fake is a machine with a watchdog: it counts down, and resets.
type fake struct {
	now     time.Duration
	timeout time.Duration
	due     time.Duration // reset at; 0 is disarmed
	holder  string
	reset   bool
	missing bool
}

// peer is the device as another process would use it.
type peer struct {
	*fake
	name string
}

func (p peer) Name() string { return "fake" }

func (p peer) Open() error {
	if p.missing || p.holder != "" {
		return errors.New("device or resource busy")
	}
	p.holder = p.name
	return p.Feed()
}

func (p peer) SetTimeout(t time.Duration) (time.Duration, error) {
	p.timeout = t
	return t, nil
}

func (p peer) Feed() error {
	if p.holder != p.name {
		return ErrClosed
	}
	p.due = p.now + p.timeout
	return nil
}

func (p peer) Close(disarm bool) error {
	if p.holder != p.name {
		return ErrClosed
	}
	p.holder = ""
	if disarm {
		p.due = 0
	}
	return nil
}

// pass lets time go by in seconds with whatever runs each second.
func (f *fake) pass(d time.Duration, each func(now time.Duration)) {
	for end := f.now + d; f.now < end; {
		f.now += time.Second
		if f.due != 0 && f.now >= f.due {
			f.reset = true
		}
		if each != nil {
			each(f.now)
		}
	}
}

func newKeeper() (*fake, *Keeper) {
	f := &fake{timeout: time.Minute}
	return f, NewKeeper(peer{f, "init"}, false, journal.Discard())
}

func TestMainLoopFeeds(t *testing.T) {
	f, k := newKeeper()
	f.pass(5*time.Minute, k.Tick)
	k.HostReady()
	f.pass(5*time.Minute, k.Tick)
	if f.reset || f.timeout != ReadyTimeout {
		t.Fatalf("reset %v, timeout %v", f.reset, f.timeout)
	}
	f.pass(ReadyTimeout+time.Second, nil)
	if !f.reset {
		t.Error("a main loop that hangs did not reset the machine")
	}
}

func TestDeviceThatComesLate(t *testing.T) {
	f := &fake{timeout: time.Minute, missing: true}
	k := NewKeeper(peer{f, "init"}, false, journal.Discard())
	f.pass(10*time.Second, k.Tick)
	f.missing = false
	f.pass(2*time.Second, k.Tick)
	if k.State() != Init || f.holder != "init" {
		t.Errorf("state %s, holder %q", k.State(), f.holder)
	}
}

func TestDeviceOfStageOne(t *testing.T) {
	f := &fake{timeout: time.Minute, holder: "init", due: time.Second}
	k := NewKeeper(peer{f, "init"}, true, journal.Discard())
	f.pass(time.Minute, k.Tick)
	if f.reset || k.State() != Init {
		t.Errorf("reset %v, state %s", f.reset, k.State())
	}
}

func TestHandOver(t *testing.T) {
	f, k := newKeeper()
	wdmd := peer{f, "wdmd"}
	f.pass(time.Minute, k.Tick)
	k.HandOver(f.now, "wdmd")
	if f.holder != "" || f.due == 0 {
		t.Fatalf("after hand-over: holder %q, due %v; want free and armed", f.holder, f.due)
	}
	f.pass(10*time.Second, k.Tick)
	if err := wdmd.Open(); err != nil {
		t.Fatal(err)
	}
	k.PeerHolds()
	f.pass(10*time.Minute, func(now time.Duration) { k.Tick(now); wdmd.Feed() })
	if f.reset || k.State() != Peer {
		t.Fatalf("reset %v, state %s", f.reset, k.State())
	}
	wdmd.Close(false) // killed
	k.PeerGone()
	f.pass(5*time.Minute, k.Tick)
	if f.reset || k.State() != Init || f.holder != "init" {
		t.Errorf("after its death: reset %v, state %s, holder %q", f.reset, k.State(), f.holder)
	}
}

func TestPeerThatStopsFeedingResets(t *testing.T) {
	f, k := newKeeper()
	wdmd := peer{f, "wdmd"}
	k.HandOver(f.now, "wdmd")
	if err := wdmd.Open(); err != nil {
		t.Fatal(err)
	}
	k.PeerHolds()
	f.pass(BootTimeout+time.Second, k.Tick)
	if !f.reset {
		t.Error("PID 1 fed a device that is wdmd's")
	}
}

func TestPeerThatNeverComes(t *testing.T) {
	f, k := newKeeper()
	k.HandOver(f.now, "wdmd")
	f.pass(5*time.Minute, k.Tick)
	if f.reset || k.State() != Init {
		t.Errorf("reset %v, state %s", f.reset, k.State())
	}
}

func TestPeerThatHoldsOnAfterItsEnd(t *testing.T) {
	f, k := newKeeper()
	k.HandOver(f.now, "wdmd")
	f.holder = "wdmd" // its last thread is not gone yet
	k.PeerGone()
	if k.State() != Closed {
		t.Fatalf("state %s", k.State())
	}
	f.holder = ""
	f.pass(2*time.Second, k.Tick)
	if k.State() != Init {
		t.Errorf("state %s", k.State())
	}
}

func TestShutdownThatHangsResets(t *testing.T) {
	f, k := newKeeper()
	k.Shutdown(f.now + 2*time.Minute)
	f.pass(time.Minute, k.Tick)
	if f.reset {
		t.Fatal("reset within the shutdown's time")
	}
	f.pass(3*time.Minute, k.Tick)
	if !f.reset {
		t.Error("a shutdown that hangs was fed for ever")
	}
	k.HandOver(f.now, "wdmd")
	if k.State() != Init {
		t.Error("handed over in a shutdown")
	}
}

func TestEnd(t *testing.T) {
	for _, off := range []bool{true, false} {
		f, k := newKeeper()
		k.End(off)
		if (f.due == 0) != off {
			t.Errorf("off=%v: due %v", off, f.due)
		}
	}
}
