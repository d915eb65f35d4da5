package hypervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"
)

// A libvirtd that is killed while it switches a domain to overlays or gives it a disk
// may leave things behind that the next one knows nothing of: QEMU writes to an
// overlay, or has one open that nobody uses, or the guest has the disk. libvirt's description of the domain is not true
// then, and whoever removed the overlay by it would remove what the guest has
// written. So the description is compared with QEMU's own, and QEMU brought back
// to it: what is in the overlay is merged into the layer libvirt knows of.

// node is one of QEMU's block nodes, of a drive's the one it writes to.
type node struct {
	Device  string `json:"qdev"`
	Name    string `json:"node-name"`
	Backing *node  `json:"backing"`
}

// Names libvirt gives to the nodes of an image and of the file beneath it; a number
// is in between, which its description calls index.
const (
	nodePrefix    = "libvirt-"
	formatSuffix  = "-format"
	storageSuffix = "-storage"
)

func nodeName(index uint) string { return fmt.Sprintf("%s%d%s", nodePrefix, index, formatSuffix) }

// numberOf reads the number of a node's name.
func numberOf(name string) (uint, bool) {
	rest, ours := strings.CutPrefix(name, nodePrefix)
	digits, image := strings.CutSuffix(rest, formatSuffix)
	if !image {
		digits, image = strings.CutSuffix(rest, storageSuffix)
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint(n), ours && image && err == nil
}

// astray is a disk that QEMU writes to another layer than libvirt says.
type astray struct{ id, top, base string }

// repairs is what brings QEMU back to what libvirt says.
type repairs struct {
	merge []astray
	eject []string // devices libvirt gave, and does not know of
	drop  []string // nodes, in the order they can go
}

func (r repairs) none() bool { return len(r.merge)+len(r.eject)+len(r.drop) == 0 }

// diverged compares libvirt's description with the nodes of drives, and with all
// nodes. An error says that they differ in a way that nobody has an answer to.
func diverged(d libvirtxml.Domain, drives, nodes []node) (r repairs, err error) {
	if d.Devices == nil {
		return r, nil
	}
	at, known := map[string]node{}, map[uint]bool{}
	for _, v := range drives {
		at[strings.TrimPrefix(v.Device, userAlias)] = v
	}
	for _, x := range d.Devices.Disks {
		if x.Mirror != nil {
			return repairs{}, nil // libvirt is changing it itself
		}
		numbers(x, known)
		id := idOf(x.Alias)
		is, there := at[id]
		delete(at, id)
		if _, ours := numberOf(is.Name); id == "" || x.Source == nil || !there || !ours || !strings.HasSuffix(is.Name, formatSuffix) {
			continue // an empty drive, or an image without a format
		}
		want := nodeName(x.Source.Index)
		switch {
		case is.Name == want:
		case is.Backing == nil || is.Backing.Name != want:
			return repairs{}, fmt.Errorf("disk %s is written to %s, and by libvirt to %s", id, is.Name, want)
		default:
			r.merge = append(r.merge, astray{id: id, top: is.Name, base: want})
		}
	}
	for _, v := range at {
		if strings.HasPrefix(v.Device, userAlias) {
			r.eject = append(r.eject, v.Device)
		}
	}
	slices.Sort(r.eject)
	for _, n := range nodes {
		if number, ours := numberOf(n.Name); ours && !known[number] {
			r.drop = append(r.drop, n.Name)
		}
	}
	slices.Sort(r.drop) // "…-format" before "…-storage"
	return r, nil
}

// numbers notes those of a disk's layers.
func numbers(x libvirtxml.DomainDisk, known map[uint]bool) {
	if x.Source != nil {
		known[x.Source.Index] = true
	}
	for b := x.BackingStore; b != nil; b = b.BackingStore {
		known[b.Index] = true
	}
}

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
	for _, device := range r.eject {
		l.cfg.Log.Warn("disk-unknown", "uuid", uuid, "device", device)
		if err := l.monitor(ctx, uuid, nil, "device_del", map[string]any{"id": device}); err != nil && !errors.Is(err, errMonitor) {
			return err
		}
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
		if err := l.monitor(ctx, uuid, nil, "blockdev-del", map[string]any{"node-name": name}); err != nil && !errors.Is(err, errMonitor) {
			return err
		}
	}
	return nil
}

// compare asks QEMU, and libvirt once more: while a description changes it says
// nothing.
func (l *Libvirt) compare(ctx context.Context, uuid string, d libvirtxml.Domain) (repairs, error) {
	var drives, nodes []node
	err := l.monitor(ctx, uuid, &drives, "query-blockstats", nil) // the shortest answer that names layers
	if err == nil {
		err = l.monitor(ctx, uuid, &nodes, "query-blockstats", map[string]any{"query-nodes": true})
	}
	if err != nil {
		return repairs{}, err
	}
	r, wrong := diverged(d, drives, nodes)
	if wrong == nil && r.none() {
		return r, nil
	}
	now, err := l.describe(ctx, uuid)
	if err != nil {
		return repairs{}, err
	}
	if !slices.EqualFunc(hardwareFrom(now).Disks, hardwareFrom(d).Disks, sameSource) {
		return repairs{}, errChanging
	}
	if wrong != nil {
		return repairs{}, fmt.Errorf("domain %s: %w", uuid, wrong)
	}
	return r, nil
}

// errChanging is a description that was overtaken while it was looked at.
var errChanging = fmt.Errorf("its disks change at the moment: %w", ErrBusy)

func sameSource(a, b Disk) bool { return a.ID == b.ID && a.Source.Equal(b.Source) }

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
			if err := l.monitor(ctx, uuid, nil, "block-job-complete", map[string]any{"device": job}); err != nil && !errors.Is(err, errMonitor) {
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
