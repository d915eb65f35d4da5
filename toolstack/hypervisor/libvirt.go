package hypervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"
)

// Libvirt is the real Hypervisor.
type Libvirt struct {
	cfg    Config
	owner  *owner
	asking atomic.Bool // Stats has a question out
}

var _ Hypervisor = (*Libvirt)(nil)

// Connect starts to connect and returns at once: a toolstack serves, and says
// what it waits for, while libvirtd is still starting or is being restarted.
func Connect(cfg Config) *Libvirt {
	cfg = cfg.withDefaults()
	return &Libvirt{cfg: cfg, owner: newOwner(cfg)}
}

// Close implements Hypervisor.
func (l *Libvirt) Close() error { return l.owner.close() }

// Subscribe implements Hypervisor.
func (l *Libvirt) Subscribe() (<-chan Event, func()) { return l.owner.events.subscribe() }

// Ready implements Hypervisor.
func (l *Libvirt) Ready(ctx context.Context) error {
	k, err := l.owner.current(ctx)
	if err != nil {
		return err
	}
	return l.owner.callOn(ctx, k, l.query(), "version", func(c *golibvirt.Libvirt) error {
		_, err := c.ConnectGetLibVersion()
		return err
	})
}

// query bounds what libvirtd answers alone, work what needs a QEMU too.
func (l *Libvirt) query() limit { return limit{after: l.cfg.Limits.Call, hangs: true} }
func (l *Libvirt) work() limit  { return limit{after: l.cfg.Limits.Job} }

// probes is how many jobs' time libvirt may take to probe QEMU: nobody waits for
// that, and asking once more would only put another probe behind the first.
const probes = 10

// Version implements Hypervisor. The first call makes libvirt probe QEMU, which is
// a job rather than a query.
func (l *Libvirt) Version(ctx context.Context) (Version, error) {
	var lib, qemu uint64
	err := l.owner.call(ctx, limit{after: probes * l.cfg.Limits.Job}, "version", func(c *golibvirt.Libvirt) (err error) {
		if lib, err = c.ConnectGetLibVersion(); err != nil {
			return err
		}
		qemu, err = c.ConnectGetVersion()
		return err
	})
	return Version{Libvirt: dotted(lib), QEMU: dotted(qemu)}, err
}

// dotted reads libvirt's million·major + thousand·minor + micro.
func dotted(v uint64) string { return fmt.Sprintf("%d.%d.%d", v/1e6, v/1e3%1e3, v%1e3) }

// Start implements Hypervisor.
func (l *Libvirt) Start(ctx context.Context, spec Spec, paused bool) error {
	x, err := l.cfg.domainXML(spec)
	if err != nil {
		return err
	}
	var flags golibvirt.DomainCreateFlags
	if paused {
		flags = golibvirt.DomainStartPaused
	}
	err = l.owner.in(ctx, l.owner.starts, l.work(), "start "+spec.UUID, func(c *golibvirt.Libvirt) error {
		_, err := c.DomainCreateXML(x, flags)
		return err
	})
	if errors.Is(err, ErrBadState) { // libvirt's answer to a UUID that runs already
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return err
}

// Pause implements Hypervisor.
func (l *Libvirt) Pause(ctx context.Context, uuid string) error {
	return l.job(ctx, "pause", uuid, (*golibvirt.Libvirt).DomainSuspend)
}

// Resume implements Hypervisor.
func (l *Libvirt) Resume(ctx context.Context, uuid string) error {
	return l.job(ctx, "resume", uuid, (*golibvirt.Libvirt).DomainResume)
}

// Shutdown implements Hypervisor.
func (l *Libvirt) Shutdown(ctx context.Context, uuid string) error {
	return l.job(ctx, "shutdown", uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) error {
		return c.DomainShutdownFlags(d, golibvirt.DomainShutdownAcpiPowerBtn)
	})
}

// Destroy implements Hypervisor.
func (l *Libvirt) Destroy(ctx context.Context, uuid string) error {
	return l.job(ctx, "destroy", uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) error {
		return c.DomainDestroyFlags(d, golibvirt.DomainDestroyDefault)
	})
}

// job runs one call on one domain. The daemon finds a domain by its UUID alone,
// so no look-up goes before.
func (l *Libvirt) job(ctx context.Context, what, id string, f func(*golibvirt.Libvirt, golibvirt.Domain) error) error {
	d, err := domainRef(id)
	if err != nil {
		return err
	}
	return l.owner.call(ctx, l.work(), what+" "+id, func(c *golibvirt.Libvirt) error { return f(c, d) })
}

func domainRef(id string) (golibvirt.Domain, error) {
	u, err := uuid.Parse(id)
	if err != nil {
		return golibvirt.Domain{}, fmt.Errorf("%w: uuid %q is not one", ErrNotFound, id)
	}
	return golibvirt.Domain{Name: id, UUID: golibvirt.UUID(u), ID: -1}, nil
}

// QueryKVM implements Hypervisor.
func (l *Libvirt) QueryKVM(ctx context.Context, uuid string) (KVM, error) {
	var reply string
	err := l.job(ctx, "query-kvm", uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) (err error) {
		reply, err = c.QEMUDomainMonitorCommand(d, `{"execute":"query-kvm"}`, 0)
		return err
	})
	if err != nil {
		return KVM{}, err
	}
	var answer struct {
		Return *KVM `json:"return"`
	}
	if err := json.Unmarshal([]byte(reply), &answer); err != nil || answer.Return == nil {
		return KVM{}, fmt.Errorf("domain %s: query-kvm answered %q", uuid, reply)
	}
	return *answer.Return, nil
}

// DialConsole implements Hypervisor.
func (l *Libvirt) DialConsole(ctx context.Context, id string) (net.Conn, error) {
	return l.dialSocket(ctx, "console", id, l.cfg.consolePath(id))
}

// List implements Hypervisor. One round trip answers for all domains; NOWAIT
// keeps a domain that is busy from delaying it.
func (l *Libvirt) List(ctx context.Context) ([]Domain, error) {
	var records []golibvirt.DomainStatsRecord
	err := l.owner.call(ctx, l.query(), "list", func(c *golibvirt.Libvirt) (err error) {
		records, err = c.ConnectGetAllDomainStats(nil,
			uint32(golibvirt.DomainStatsState|golibvirt.DomainStatsBalloon),
			uint32(golibvirt.ConnectGetAllDomainsStatsActive|golibvirt.ConnectGetAllDomainsStatsNowait))
		return err
	})
	if err != nil {
		return nil, err
	}
	domains := make([]Domain, 0, len(records))
	for _, r := range records {
		if d, ok := domainFrom(r); ok {
			domains = append(domains, d)
		}
	}
	return domains, nil
}

// domainFrom reads one record; a domain that is gone already is left out.
func domainFrom(r golibvirt.DomainStatsRecord) (Domain, bool) {
	d := Domain{UUID: uuid.UUID(r.Dom.UUID).String(), Name: r.Dom.Name}
	reason := golibvirt.DomainPausedUnknown
	for _, p := range r.Params {
		switch v := p.Value.I.(type) {
		case int32:
			switch p.Field {
			case golibvirt.DomainStatsStateState:
				d.State = stateOf(golibvirt.DomainState(v))
			case golibvirt.DomainStatsStateReason:
				reason = golibvirt.DomainPausedReason(v)
			}
		case uint64:
			if p.Field == golibvirt.DomainStatsBalloonMaximum {
				d.MemoryBytes = int64(v) << 10
			}
		}
	}
	d.IOError = d.State == Paused && reason == golibvirt.DomainPausedIoerror
	return d, d.State != ""
}

func stateOf(s golibvirt.DomainState) State {
	switch s {
	case golibvirt.DomainRunning, golibvirt.DomainBlocked, golibvirt.DomainPmsuspended:
		return Running
	case golibvirt.DomainPaused:
		return Paused
	case golibvirt.DomainShutdown, golibvirt.DomainCrashed:
		return Stopping
	default:
		return ""
	}
}

// eventFrom reads a lifecycle event; ok is false for what no consumer needs.
func eventFrom(m golibvirt.DomainEventLifecycleMsg) (Event, bool) {
	e := Event{UUID: uuid.UUID(m.Dom.UUID).String()}
	switch golibvirt.DomainEventType(m.Event) {
	case golibvirt.DomainEventStarted:
		e.Kind = Started
	case golibvirt.DomainEventSuspended:
		e.Kind = PausedE
	case golibvirt.DomainEventResumed:
		e.Kind = Resumed
	case golibvirt.DomainEventStopped:
		e.Kind, e.Reason = Stopped, reasonOf(golibvirt.DomainEventStoppedDetailType(m.Detail))
	default:
		return Event{}, false
	}
	return e, true
}

// deviceEventFrom reads an event of a device's.
func deviceEventFrom(m any) (Event, bool) {
	switch m := m.(type) {
	case *golibvirt.DomainEventCallbackIOErrorReasonMsg:
		if golibvirt.DomainEventIOErrorAction(m.Msg.Action) != golibvirt.DomainEventIoErrorPause {
			return Event{}, false // the guest was told, and deals with it
		}
		e := Event{Kind: IOError, UUID: uuid.UUID(m.Msg.Dom.UUID).String(), Device: aliasID(m.Msg.DevAlias), Reason: OtherError}
		if m.Msg.Reason == string(NoSpace) {
			e.Reason = NoSpace
		}
		return e, true
	case *golibvirt.DomainEventCallbackDeviceRemovedMsg:
		return Event{
			Kind: Unplugged, UUID: uuid.UUID(m.Msg.Dom.UUID).String(), Device: aliasID(m.Msg.DevAlias),
		}, true
	default:
		return Event{}, false
	}
}

// reasonOf: libvirt reports QEMU dying without a word as "failed".
func reasonOf(d golibvirt.DomainEventStoppedDetailType) Reason {
	switch d {
	case golibvirt.DomainEventStoppedShutdown:
		return ByGuest
	case golibvirt.DomainEventStoppedDestroyed:
		return ByDestroy
	case golibvirt.DomainEventStoppedCrashed, golibvirt.DomainEventStoppedFailed:
		return ByCrash
	case golibvirt.DomainEventStoppedMigrated:
		return ByMigration
	case golibvirt.DomainEventStoppedSaved:
		return BySave
	default:
		return ByOther
	}
}
