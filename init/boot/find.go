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

// find loads drivers and looks at disks until the root is there or ctx ends.
func find(ctx context.Context, d Deps, rootHash string) (candidate, error) {
	uuid, _, err := slots.PartUUIDs(rootHash)
	if err != nil {
		return candidate{}, err
	}
	loadDrivers(d, d.Modules.Present())
	loader, known := d.Machine.LoaderPartition()
	grace, cancel := context.WithTimeout(ctx, loaderWait)
	defer cancel()
	for said := false; ; {
		found := candidates(d, rootHash)
		if c, ok := choose(found, loader, !known || grace.Err() != nil); ok {
			return c, nil
		}
		if !said {
			d.Log.Info("waiting", "for", "root partition "+uuid)
			said = true
		}
		wait := ctx
		if len(found) > 0 {
			wait = grace
		}
		if err := next(wait, d); err != nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
			return candidate{}, err
		}
		if ctx.Err() != nil {
			return candidate{}, fmt.Errorf("root partition %s: not found within %v", uuid, rootWait)
		}
	}
}

// next waits for one event and loads the driver it asks for.
func next(ctx context.Context, d Deps) error {
	modalias, err := d.Events.Next(ctx)
	switch {
	case errors.Is(err, errLost):
		loadDrivers(d, d.Modules.Present())
	case err != nil:
		return err
	case modalias != "":
		loadDrivers(d, []string{modalias})
	}
	return nil
}

// loadDrivers loads what claims the devices. A driver that fails is said and
// passed over: the root may well be behind another one.
func loadDrivers(d Deps, modaliases []string) {
	for _, modalias := range modaliases {
		for _, err := range d.Modules.LoadAlias(modalias) {
			d.Log.Warn("module-failed", "err", err)
		}
	}
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
