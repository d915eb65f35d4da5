package metrics

import (
	"cmp"
	"math"
	"slices"

	"cairn/toolstack/api"
)

// Sorts of figures of a storage repository: of itself, and of a host about it.
var (
	srSize      = &kind{description: "Size of the repository", units: wholeBytes, high: unbounded}
	srUsed      = &kind{description: "How much of the repository is in use", units: wholeBytes, high: unbounded}
	srPromised  = &kind{description: "Size of all disks in the repository together", units: wholeBytes, high: unbounded}
	srRead      = &kind{description: "Read from the repository by VMs of this host", units: mibRate, high: unbounded}
	srWritten   = &kind{description: "Written to the repository by VMs of this host", units: mibRate, high: unbounded}
	srBoth      = &kind{description: "Read from and written to the repository by VMs of this host", units: mibRate, high: unbounded}
	srReads     = &kind{description: "Requests of VMs of this host to read from the repository", units: rate, high: unbounded}
	srWrites    = &kind{description: "Requests of VMs of this host to write to the repository", units: rate, high: unbounded}
	srRequests  = &kind{description: "Requests of VMs of this host to the repository", units: rate, high: unbounded}
	hostRead    = &kind{description: "Read by VMs from storage repository %s", units: mibRate, high: unbounded}
	hostWritten = &kind{description: "Written by VMs to storage repository %s", units: mibRate, high: unbounded}
	hostBoth    = &kind{description: "Read and written by VMs, of storage repository %s", units: mibRate, high: unbounded}
)

func srFigures(sr *api.SR) []figure {
	return []figure{
		{name: "size", value: float64(sr.PhysicalSize), kind: srSize},
		{name: "physical_utilisation", value: float64(sr.PhysicalUtilisation), kind: srUsed},
		{name: "virtual_allocation", value: float64(sr.VirtualAllocation), kind: srPromised},
	}
}

// ioBySR sums what disks did by where they are.
type ioBySR map[api.SRRef]*srIO

// srIO is what disks of a repository did, and of how many that is known or not.
type srIO struct {
	diskIO
	known, unknown int
}

func (b ioBySR) add(vm *guest, io []diskIO) {
	for _, d := range io {
		sr, known := vm.srs[d.name]
		if !known {
			continue
		}
		if b[sr] == nil {
			b[sr] = &srIO{}
		}
		b[sr].add(d)
	}
}

func (s *srIO) add(d diskIO) {
	if math.IsNaN(d.read + d.written + d.reads + d.writes) {
		s.unknown++
		return
	}
	s.known++
	s.read, s.written = s.read+d.read, s.written+d.written
	s.reads, s.writes = s.reads+d.reads, s.writes+d.writes
}

// sum is what the disks of a repository did. Where there is none that is nothing; disks
// that nothing is known of yet do not count beside others.
func (b ioBySR) sum(sr api.SRRef) diskIO {
	s := b[sr]
	switch {
	case s == nil:
		return diskIO{}
	case s.known == 0:
		return diskIO{read: unknown, written: unknown, reads: unknown, writes: unknown}
	}
	return s.diskIO
}

const mib = 1 << 20

// of are the figures of one repository.
func (b ioBySR) of(sr api.SRRef) []figure {
	io := b.sum(sr)
	return []figure{
		{name: "io_throughput_read", value: io.read / mib, kind: srRead},
		{name: "io_throughput_write", value: io.written / mib, kind: srWritten},
		{name: "io_throughput_total", value: (io.read + io.written) / mib, kind: srBoth},
		{name: "iops_read", value: io.reads, kind: srReads},
		{name: "iops_write", value: io.writes, kind: srWrites},
		{name: "iops_total", value: io.reads + io.writes, kind: srRequests},
	}
}

// shortID is as much of a repository's uuid as the host's figures are named by.
const shortID = 8

// ofHost are the figures of all repositories that clients look for at the host.
func (b ioBySR) ofHost(w *world) (all []figure) {
	for ref, sr := range w.srs {
		io, id := b.sum(ref), sr.UUID[:min(len(sr.UUID), shortID)]
		all = append(all,
			figure{name: "io_throughput_read_" + id, of: sr.UUID, value: io.read / mib, kind: hostRead},
			figure{name: "io_throughput_write_" + id, of: sr.UUID, value: io.written / mib, kind: hostWritten},
			figure{name: "io_throughput_total_" + id, of: sr.UUID, value: (io.read + io.written) / mib, kind: hostBoth})
	}
	slices.SortFunc(all, func(a, b figure) int { return cmp.Compare(a.name, b.name) })
	return all
}
