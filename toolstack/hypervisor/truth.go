package hypervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"
)

// Pace and number of looks at a merge, and at what it was done for.
const (
	mergeInterval = 50 * time.Millisecond
	mergeLooks    = 1200
	ejectLooks    = 40
)

// truth brings QEMU back to what libvirt says of a domain, or says why it cannot.
func (l *Libvirt) truth(ctx context.Context, uuid string, d libvirtxml.Domain) error {
	r, err := l.compare(ctx, uuid, d)
	if err != nil || r.none() {
		return err
	}
	if err := l.expel(ctx, uuid, r); err != nil {
		return err
	}
	for _, a := range r.merge {
		l.cfg.Log.Warn("disk-astray", "uuid", uuid, "disk", a.id, "top", a.top, "base", a.base)
		if err := l.mergeBack(ctx, uuid, a); err != nil {
			return fmt.Errorf("domain %s: disk %s: %w", uuid, a.id, err)
		}
	}
	for n := 0; len(r.merge)+len(r.eject) > 0 && n < ejectLooks; n++ { // a device goes a moment later
		sleep(ctx, mergeInterval)
		if r, err = l.compare(ctx, uuid, d); err != nil {
			return err
		}
	}
	if len(r.merge)+len(r.eject) > 0 {
		return fmt.Errorf("domain %s: still %+v: %w", uuid, r, ErrBusy)
	}
	for _, name := range r.drop { // one that is in use is refused, and stays
		if err := l.ask(ctx, uuid, "blockdev-del", map[string]any{"node-name": name}); err != nil {
			return err
		}
	}
	return nil
}

// expel takes the devices away that libvirt does not know of. A NIC's cable is cut at
// once; the guest gives it up when it likes.
func (l *Libvirt) expel(ctx context.Context, uuid string, r repairs) error {
	for _, name := range r.eject {
		l.cfg.Log.Warn("disk-unknown", "uuid", uuid, "device", name)
		if err := l.ask(ctx, uuid, "device_del", map[string]any{"id": name}); err != nil {
			return err
		}
	}
	for _, name := range r.unplug {
		l.cfg.Log.Warn("nic-unknown", "uuid", uuid, "device", name)
		if err := l.ask(ctx, uuid, "device_del", map[string]any{"id": name}); err != nil {
			return err
		}
		if err := l.ask(ctx, uuid, "netdev_del", map[string]any{"id": "host" + name}); err != nil {
			return err
		}
	}
	return nil
}

// ask asks the QEMU of a domain for what it may refuse.
func (l *Libvirt) ask(ctx context.Context, uuid, command string, arguments map[string]any) error {
	err := l.monitor(ctx, uuid, nil, command, arguments)
	if errors.Is(err, errMonitor) {
		return nil
	}
	return err
}

// compare asks QEMU, and libvirt once more: while a description changes it says
// nothing.
func (l *Libvirt) compare(ctx context.Context, uuid string, d libvirtxml.Domain) (repairs, error) {
	var q inside
	err := l.monitor(ctx, uuid, &q.drives, "query-blockstats", nil) // the shortest answer that names layers
	if err == nil {
		err = l.monitor(ctx, uuid, &q.nodes, "query-blockstats", map[string]any{"query-nodes": true})
	}
	if err == nil {
		err = l.monitor(ctx, uuid, &q.devices, "qom-list", map[string]any{"path": "/machine/peripheral"})
	}
	if err == nil {
		err = l.monitor(ctx, uuid, &q.networks, "human-monitor-command", map[string]any{"command-line": "info network"}) // no other tells
	}
	if err != nil {
		return repairs{}, err
	}
	r, wrong := diverged(d, q)
	if wrong == nil && r.none() {
		return r, nil
	}
	now, err := l.describe(ctx, uuid)
	if err != nil {
		return repairs{}, err
	}
	if !sameDevices(hardwareFrom(now), hardwareFrom(d)) {
		return repairs{}, errChanging
	}
	if wrong != nil {
		return repairs{}, fmt.Errorf("domain %s: %w", uuid, wrong)
	}
	return r, nil
}

// errChanging is a description that was overtaken while it was looked at.
var errChanging = fmt.Errorf("its disks change at the moment: %w", ErrBusy)

func sameDevices(a, b Hardware) bool {
	return slices.EqualFunc(a.Disks, b.Disks, func(a, b Disk) bool { return a.ID == b.ID && a.Source.Equal(b.Source) }) &&
		slices.EqualFunc(a.NICs, b.NICs, func(a, b NIC) bool { return a.ID == b.ID })
}

// merging is a block job of QEMU's.
type merging struct {
	Device string `json:"device"`
	Ready  bool   `json:"ready"`
}

// mergeBack writes what a disk's stray layer holds into the one beneath, which the
// guest then goes on with.
func (l *Libvirt) mergeBack(ctx context.Context, uuid string, a astray) error {
	job := "cairn-" + a.id
	err := l.monitor(ctx, uuid, nil, "block-commit", map[string]any{"job-id": job, "device": a.top, "base-node": a.base})
	if err != nil {
		return err
	}
	tick := time.NewTicker(mergeInterval)
	defer tick.Stop()
	for range mergeLooks {
		var jobs []merging
		if err := l.monitor(ctx, uuid, &jobs, "query-block-jobs", nil); err != nil {
			return err
		}
		i := slices.IndexFunc(jobs, func(m merging) bool { return m.Device == job })
		if i < 0 {
			return nil // whether it went well the next comparison says
		}
		if jobs[i].Ready {
			if err := l.ask(ctx, uuid, "block-job-complete", map[string]any{"device": job}); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return fmt.Errorf("job %s does not end", job)
}

// errMonitor is QEMU's own refusal.
var errMonitor = errors.New("QEMU refuses")

// monitor asks the QEMU of a domain.
func (l *Libvirt) monitor(ctx context.Context, uuid string, out any, command string, arguments map[string]any) error {
	text, err := json.Marshal(struct {
		Execute   string         `json:"execute"`
		Arguments map[string]any `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return err
	}
	var reply string
	err = l.job(ctx, command, uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) (err error) {
		reply, err = c.QEMUDomainMonitorCommand(d, string(text), 0)
		return err
	})
	if err != nil {
		return err
	}
	var answer struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Desc string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal([]byte(reply), &answer); err != nil {
		return fmt.Errorf("%s of %s: %w", command, uuid, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("%s of %s: %w: %s", command, uuid, errMonitor, answer.Error.Desc)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer.Return, out)
}
