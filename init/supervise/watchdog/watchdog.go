// Package watchdog owns /dev/watchdog for the whole life of the host.
//
// The device resets the machine when nobody has fed it for its timeout. One
// process can have it open. PID 1 opens it first of all (or takes the
// descriptor stage 1 opened) and feeds it from its main loop and nowhere else,
// so a main loop that hangs is a machine that resets. When HA is on, wdmd must
// be the one that feeds it, because sanlock tells wdmd when to stop; then PID 1
// gives the device away and takes it back when wdmd dies.
//
// Owner is the pure part: a step function over the states
//
//	closed ──opened──▶ init ──hand-over──▶ handing ──peer holds──▶ peer
//	   ▲                 ▲                    │                       │
//	   └─ open failed ───┴──── too late ◀─────┴────── peer gone ◀─────┘
//
// Invariants:
//   - The device is never disarmed but by Release: handing over closes it
//     without the magic byte, so the timer runs on while nobody holds it.
//   - Before it is closed for the peer it is fed, so the peer has the whole
//     timeout to open it; after half of the timeout PID 1 takes it back.
//   - While it should be PID 1's and cannot be opened, opening is tried again at
//     each tick.
//   - A shutdown feeds it until the shutdown's deadline and no longer.
//   - Release (the magic close) is said only when the machine is about to be
//     switched off or halted. A reboot leaves it armed: firmware that hangs is
//     reset too.
//
// wdmd itself does not come with this step; hand-over is asked for by name.
// Keeper runs an Owner against a Device. Both belong to one goroutine.
package watchdog

import "time"

// State says who has the device.
type State string

// The states.
const (
	Closed  State = "closed"  // nobody: there is none, or opening failed
	Init    State = "init"    // PID 1 holds and feeds it
	Handing State = "handing" // closed but armed, until the peer has it
	Peer    State = "peer"    // wdmd holds and feeds it
)

// Timeouts of the device: long at boot, when services compete for the
// processor, shorter once the host is ready.
const (
	BootTimeout  = 60 * time.Second
	ReadyTimeout = 30 * time.Second
)

// Action is something to do with the device or to say.
type Action struct {
	Do      Verb
	Timeout time.Duration // Open and SetTimeout
	To      string        // Say
}

// Verb is the kind of an Action.
type Verb string

// The verbs.
const (
	Open       Verb = "open"
	SetTimeout Verb = "set-timeout"
	Feed       Verb = "feed"
	CloseArmed Verb = "close-armed" // without the magic byte
	Release    Verb = "release"     // magic byte, then close
	SayHanded  Verb = "say-handed"  // the peer may open it now
	SayTaken   Verb = "say-taken"   // it is PID 1's again
)

// Owner decides about the device. The zero value is closed with BootTimeout.
type Owner struct {
	state    State
	timeout  time.Duration
	peer     string
	handBy   time.Duration // Handing: the peer must have it
	feedTill time.Duration // shutdown: feed until then; 0 is for ever
	wasPeer  bool          // the next open is a taking back
}

// NewOwner starts closed, or holding a device that stage 1 has opened.
func NewOwner(held bool) *Owner {
	o := &Owner{state: Closed, timeout: BootTimeout}
	if held {
		o.state = Init
	}
	return o
}

// State says who has the device.
func (o *Owner) State() State { return o.state }

// Opened is the answer to Open.
func (o *Owner) Opened(ok bool) []Action {
	if !ok || o.state != Closed {
		return nil
	}
	o.state = Init
	actions := []Action{{Do: SetTimeout, Timeout: o.timeout}, {Do: Feed}}
	if o.wasPeer {
		o.wasPeer = false
		actions = append(actions, Action{Do: SayTaken, To: "init"})
	}
	return actions
}

// Tick comes from the main loop several times within a timeout.
func (o *Owner) Tick(now time.Duration) []Action {
	switch o.state {
	case Closed:
		return []Action{{Do: Open, Timeout: o.timeout}}
	case Init:
		if o.feedTill != 0 && now >= o.feedTill {
			return nil
		}
		return []Action{{Do: Feed}}
	case Handing:
		if now >= o.handBy {
			return o.takeBack()
		}
	}
	return nil
}

// HostReady shortens the timeout.
func (o *Owner) HostReady() []Action {
	o.timeout = ReadyTimeout
	if o.state != Init {
		return nil
	}
	return []Action{{Do: SetTimeout, Timeout: o.timeout}, {Do: Feed}}
}

// HandOver gives the device to a peer, which must say that it holds it within
// half of the timeout. It does nothing unless PID 1 holds the device.
func (o *Owner) HandOver(now time.Duration, peer string) []Action {
	if o.state != Init || o.feedTill != 0 {
		return nil
	}
	o.state, o.peer, o.handBy = Handing, peer, now+o.timeout/2
	return []Action{{Do: Feed}, {Do: CloseArmed}, {Do: SayHanded, To: peer}}
}

// PeerHolds says that the peer has opened the device.
func (o *Owner) PeerHolds() {
	if o.state == Handing {
		o.state = Peer
	}
}

// PeerGone says that the peer has ended, so the device is free: armed when it
// was killed, disarmed when it ended cleanly. Either way PID 1 opens it again.
func (o *Owner) PeerGone() []Action {
	if o.state != Handing && o.state != Peer {
		return nil
	}
	return o.takeBack()
}

func (o *Owner) takeBack() []Action {
	o.state, o.wasPeer = Closed, true
	return []Action{{Do: Open, Timeout: o.timeout}}
}

// Shutdown limits how long the device is still fed.
func (o *Owner) Shutdown(until time.Duration) { o.feedTill = until }

// End is the last thing before reboot(2). off says that the machine will not
// run again by itself.
func (o *Owner) End(off bool) []Action {
	if o.state != Init {
		return nil
	}
	if !off {
		return []Action{{Do: Feed}}
	}
	o.state = Closed
	return []Action{{Do: Release}}
}
