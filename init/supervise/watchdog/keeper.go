package watchdog

import (
	"fmt"
	"log/slog"
	"time"
)

// Device is a watchdog device.
type Device interface {
	Open() error
	// SetTimeout returns the timeout that the device took.
	SetTimeout(time.Duration) (time.Duration, error)
	Feed() error
	// Close ends feeding; with disarm the timer is stopped first.
	Close(disarm bool) error
	Name() string
}

// Keeper runs an Owner against a Device.
type Keeper struct {
	owner *Owner
	dev   Device
	log   *slog.Logger
	quiet bool // a failed open was said
}

// NewKeeper takes the device; held says that it is open already.
func NewKeeper(dev Device, held bool, log *slog.Logger) *Keeper {
	k := &Keeper{owner: NewOwner(held), dev: dev, log: log}
	if held {
		k.run([]Action{{Do: SetTimeout, Timeout: BootTimeout}, {Do: Feed}})
	} else {
		k.run([]Action{{Do: Open, Timeout: BootTimeout}})
	}
	return k
}

// Tick feeds the device, or tries to get it.
func (k *Keeper) Tick(now time.Duration) { k.run(k.owner.Tick(now)) }

// HostReady shortens the timeout.
func (k *Keeper) HostReady() { k.run(k.owner.HostReady()) }

// HandOver gives the device to a peer.
func (k *Keeper) HandOver(now time.Duration, peer string) { k.run(k.owner.HandOver(now, peer)) }

// PeerHolds says that the peer has the device.
func (k *Keeper) PeerHolds() { k.owner.PeerHolds() }

// PeerGone takes the device back.
func (k *Keeper) PeerGone() { k.run(k.owner.PeerGone()) }

// Shutdown limits feeding.
func (k *Keeper) Shutdown(until time.Duration) { k.owner.Shutdown(until) }

// End is the last act.
func (k *Keeper) End(off bool) { k.run(k.owner.End(off)) }

// State says who has the device.
func (k *Keeper) State() State { return k.owner.State() }

func (k *Keeper) run(actions []Action) {
	for len(actions) > 0 {
		a := actions[0]
		more, err := k.do(a)
		if err != nil {
			k.log.Warn("watchdog-error", "dev", k.dev.Name(), "do", a.Do, "err", err)
		}
		actions = append(actions[1:], more...)
	}
}

func (k *Keeper) do(a Action) ([]Action, error) {
	switch a.Do {
	case Open:
		return k.open(), nil
	case SetTimeout:
		got, err := k.dev.SetTimeout(a.Timeout)
		k.log.Info("watchdog-open", "dev", k.dev.Name(), "timeout", got)
		return nil, err
	case Feed:
		return nil, k.dev.Feed()
	case CloseArmed:
		return nil, k.dev.Close(false)
	case Release:
		return nil, k.dev.Close(true)
	case SayHanded, SayTaken:
		k.log.Info("watchdog-hand-over", "to", a.To)
		return nil, nil
	}
	return nil, fmt.Errorf("unknown verb %q", a.Do)
}

// open says once that there is no device; trying again is silent.
func (k *Keeper) open() []Action {
	err := k.dev.Open()
	if err != nil && !k.quiet {
		k.quiet = true
		k.log.Warn("watchdog-missing", "dev", k.dev.Name(), "err", err)
	}
	return k.owner.Opened(err == nil)
}
