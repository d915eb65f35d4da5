package boot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn/init/slots"
)

// errLost tells that device events were dropped.
var errLost = errors.New("device events were lost")

// candidate is a slot that holds the wanted image.
type candidate struct {
	disk       Disk
	slot       slots.Slot
	root, hash Partition
}

// search is one search for the root.
type search struct {
	deps     Deps
	rootHash string
	uuid     string
	loader   string // partition the boot loader came from, if known
	grace    context.Context
}

// find loads drivers and looks at disks until the root is there or ctx ends.
func find(ctx context.Context, d Deps, rootHash string) (candidate, error) {
	uuid, _, err := slots.PartUUIDs(rootHash)
	if err != nil {
		return candidate{}, err
	}
	s := search{deps: d, rootHash: rootHash, uuid: uuid}
	s.loader, _ = d.Machine.LoaderPartition()
	grace, cancel := context.WithTimeout(ctx, loaderWait)
	defer cancel()
	s.grace = grace
	if c, found, ok := s.present(); ok {
		return c, nil
	} else if !found {
		d.Log.Info("waiting", "for", "root partition "+uuid)
	} else {
		d.Log.Info("waiting", "for", "boot disk with partition "+s.loader)
	}
	return s.wait(ctx)
}

// present loads the drivers of what is there, most likely ones first, and
// stops when one of them shows the root: the rest is left to the real root.
func (s search) present() (c candidate, found, ok bool) {
	if c, found, ok = s.look(); ok {
		return c, found, ok
	}
	for _, modalias := range s.deps.Modules.Present() {
		if !loadDriver(s.deps, modalias) {
			continue
		}
		if c, found, ok = s.look(); ok {
			return c, found, ok
		}
	}
	return c, found, false
}

// wait sleeps on device events until one of them brings the root.
func (s search) wait(ctx context.Context) (candidate, error) {
	for {
		c, found, ok := s.look()
		if ok {
			return c, nil
		}
		limit := ctx
		if found {
			limit = s.grace
		}
		modalias, err := s.deps.Events.Next(limit)
		switch {
		case ctx.Err() != nil:
			return candidate{}, fmt.Errorf("root partition %s: not found within %v", s.uuid, rootWait)
		case errors.Is(err, errLost):
			if c, _, ok := s.present(); ok {
				return c, nil
			}
		case err != nil && limit.Err() == nil:
			return candidate{}, err
		case err == nil && modalias != "":
			loadDriver(s.deps, modalias)
		}
	}
}

// look chooses among the copies of the root there are now; found tells that
// there are some, ok that one is to be taken.
func (s search) look() (c candidate, found, ok bool) {
	all := candidates(s.deps, s.rootHash)
	c, ok = choose(all, s.loader, s.loader == "" || s.grace.Err() != nil)
	return c, len(all) > 0, ok
}

// loadDriver loads what claims the device. A driver that fails is said and
// passed over: the root may well be behind another one.
func loadDriver(d Deps, modalias string) bool {
	loaded, errs := d.Modules.LoadAlias(modalias)
	for _, err := range errs {
		d.Log.Warn("module-failed", "err", err)
	}
	return loaded
}

// candidates lists the slots that hold the image, in an order that does not
// depend on which disk was found first.
func candidates(d Deps, rootHash string) []candidate {
	disks, errs := d.Disks.Scan()
	for _, err := range errs {
		d.Log.Warn("disk-unreadable", "err", err)
	}
	var found []candidate
	for _, disk := range disks {
		if c, ok := match(disk, rootHash); ok {
			found = append(found, c)
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return strings.Compare(a.disk.GUID, b.disk.GUID) })
	return found
}

func match(disk Disk, rootHash string) (candidate, bool) {
	plain := make([]slots.Partition, len(disk.Partitions))
	for i, p := range disk.Partitions {
		plain[i] = p.Partition
	}
	slot, ok := slots.Find(plain, rootHash)
	if !ok {
		return candidate{}, false
	}
	root, hash, _ := slots.PartUUIDs(rootHash)
	return candidate{
		disk: disk, slot: slot,
		root: partition(disk, slot.RootName(), root), hash: partition(disk, slot.HashName(), hash),
	}, true
}

func partition(disk Disk, name, uuid string) Partition {
	i := slices.IndexFunc(disk.Partitions, func(p Partition) bool { return p.Name == name && strings.EqualFold(p.UUID, uuid) })
	if i < 0 {
		return Partition{}
	}
	return disk.Partitions[i]
}

// choose takes the copy on the disk the boot loader came from, so that two
// attached installs do not mix; any is as good once that disk stays away.
func choose(found []candidate, loader string, any bool) (candidate, bool) {
	for _, c := range found {
		for _, p := range c.disk.Partitions {
			if loader != "" && strings.EqualFold(p.UUID, loader) {
				return c, true
			}
		}
	}
	if any && len(found) > 0 {
		return found[0], true
	}
	return candidate{}, false
}

// seconds writes a duration as the uptime attribute has it.
func seconds(t time.Duration) string { return fmt.Sprintf("%.2f", t.Seconds()) }
