package hypervisor

import (
	"context"
	"slices"
	"strings"
	"time"
)

// What a fake guest does between two looks.
const (
	fakeWork  = 250 * time.Millisecond // of each virtual CPU
	fakeBytes = 64 << 10               // of each disk and NIC, each way
	fakeWait  = time.Millisecond       // of each operation
)

// SetStats makes a guest report so from now on.
func (f *Fake) SetStats(s Stats) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.domains[s.UUID]; d != nil {
		d.stats = &s
	}
}

// Stats implements Hypervisor: between two looks every guest that runs has done a
// little.
func (f *Fake) Stats(ctx context.Context) ([]Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failure(ctx, "Stats"); err != nil {
		return nil, err
	}
	var all []Stats
	for id, d := range f.domains {
		if d.state == Running {
			d.looks++
		}
		s := d.report(id)
		if d.stats != nil {
			s = *d.stats
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Stats) int { return strings.Compare(a.UUID, b.UUID) })
	return all, nil
}

func (d *fakeDomain) report(id string) Stats {
	s := Stats{UUID: id, State: d.state, VCPUs: map[int]time.Duration{}, Memory: d.memoryStats()}
	for n := range d.spec.VCPUs {
		s.VCPUs[n] = time.Duration(d.looks) * fakeWork
	}
	n := uint64(d.looks)
	io := IOStats{Requests: n, Bytes: n * fakeBytes, Time: time.Duration(n) * fakeWait}
	for _, k := range d.spec.Disks {
		disk := DiskStats{Device: k.Device, Reads: io, Writes: io}
		if k.Source == nil {
			disk.Reads, disk.Writes = IOStats{}, IOStats{}
		}
		s.Disks = append(s.Disks, disk)
	}
	for _, k := range d.spec.NICs {
		s.NICs = append(s.NICs, NICStats{Tap: k.Tap, Received: n * fakeBytes, Sent: n * fakeBytes})
	}
	return s
}
