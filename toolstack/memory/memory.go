// Package memory keeps account of the memory of hosts and shares it among guests.
//
// The ledger is the rows. A guest that is about to run (scheduled_to_be_resident_on)
// holds its static_max; one that runs holds the larger of what its balloon says it
// has (VM_metrics.memory_actual) and what it may grow to (VM.memory_target); each
// holds its overhead besides. A guest whose balloon has never answered counts with
// static_max, which it may use before its driver loads. Whoever takes memory checks
// the ledger and enters himself in one transaction, so no byte is given twice, and a
// crash leaves the ledger as true as it was.
//
// A Policy says who should have how much. It is pure: it hears the time and what was
// observed, and answers with changes.
//
//   - Never more is promised than there is: a target is raised only by bytes nobody
//     holds. A guest can still take by itself, by restarting without its balloon; it
//     then counts with what it has, and the others make room.
//   - Targets are always between dynamic_min and dynamic_max.
//   - All guests with a live balloon get the same fraction of their dynamic range.
//   - What frees comes first: the bytes of a lowered target count as held until an
//     observation made after the lowering says the guest has given them.
//   - A guest that does not move for five seconds is inactive. It counts with what it
//     has and may grow by a small step only, so it neither holds up nor starves others;
//     with its first move it is back.
//   - While nothing changes from outside, targets come to rest.
//
// The order in which a Manager acts keeps the ledger on the safe side of the
// hypervisor: a raise is written first and told second, a lowering is told first and
// written when it was seen.
//
// All methods of Manager may be called from many goroutines.
package memory

import (
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

const (
	kib = 1 << 10
	mib = 1 << 20

	// leastMemory is below any target, whatever the range: no kernel lives with less.
	leastMemory = 16 * mib
)

// Overhead is what QEMU needs beside the guest's memory: its heap and device models,
// its stacks per vCPU, and page tables and dirty bitmaps in proportion to the memory.
func Overhead(staticMax, vcpus int64) int64 { return 48*mib + vcpus*mib + staticMax/128 }

// Footprint is what a VM may take of its host from its first instruction on.
func Footprint(vm *api.VM) int64 {
	return vm.MemoryStaticMax + Overhead(vm.MemoryStaticMax, vm.VCPUsMax)
}

// Free is what nobody holds of a host's memory for guests, by the ledger. It is
// negative while guests have more than they should.
func Free(r db.Reader, host api.HostRef, total int64) int64 {
	for _, l := range ledger(r)[host] {
		total -= l.hold()
	}
	return total
}

// HeldBy is what the guests of each host hold, for hosts that have any.
func HeldBy(r db.Reader) map[api.HostRef]int64 {
	held := map[api.HostRef]int64{}
	for host, lines := range ledger(r) {
		for _, l := range lines {
			held[host] += l.hold()
		}
	}
	return held
}

// line is a VM's entry in the ledger of a host.
type line struct {
	Guest
	ref     api.VMRef
	vm      *api.VM
	started time.Time // tells the domains of a VM apart
}

// ledger reads the rows. One that moves has a line on either host.
func ledger(r db.Reader) map[api.HostRef][]line {
	all := map[api.HostRef][]line{}
	for ref, vm := range db.All[api.VM](r) {
		if vm.IsControlDomain || vm.ResidentOn.IsNull() && vm.ScheduledToBeResidentOn.IsNull() {
			continue
		}
		l := lineOf(r, ref, vm)
		if to := vm.ScheduledToBeResidentOn; !to.IsNull() {
			arriving := l
			arriving.Arriving = true
			all[to] = append(all[to], arriving)
		}
		if at := vm.ResidentOn; !at.IsNull() && at != vm.ScheduledToBeResidentOn {
			all[at] = append(all[at], l)
		}
	}
	return all
}

func lineOf(r db.Reader, ref api.VMRef, vm *api.VM) line {
	g := Guest{
		ID: string(ref), StaticMax: vm.MemoryStaticMax, Overhead: Overhead(vm.MemoryStaticMax, vm.VCPUsMax),
		Actual: vm.MemoryStaticMax, Promise: min(vm.MemoryTarget, vm.MemoryStaticMax),
	}
	g.Min = min(max(vm.MemoryDynamicMin, leastMemory), g.StaticMax)
	g.Max = max(vm.MemoryDynamicMax, g.Min)
	g.Asked = g.Promise
	l := line{Guest: g, ref: ref, vm: vm}
	if metrics, err := db.Get(r, vm.Metrics); err == nil {
		l.started = metrics.StartTime
		if metrics.MemoryActual > 0 {
			l.Actual = min(metrics.MemoryActual, g.StaticMax)
		}
	}
	return l
}

// Room is what a host has for one more guest.
type Room struct {
	Free int64 // at once
	Most int64 // after all others have given what they can
}

// Better compares two hosts for a guest of a size: one that has room at once beats
// one where others must give, then the larger room wins.
func (r Room) Better(other Room, need int64) bool {
	if now, then := r.Free >= need, other.Free >= need; now || then {
		return r.Free > other.Free
	}
	return r.Most > other.Most
}
