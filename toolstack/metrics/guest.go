package metrics

import (
	"slices"
	"strings"
	"time"

	"cairn/toolstack/hypervisor"
	"cairn/toolstack/metrics/proc"
)

// Sorts of a VM's figures.
var (
	vmCPU      = &kind{description: "Use of virtual CPU %s", units: fraction, high: 1}
	vmCPUs     = &kind{description: "Use of all virtual CPUs on average", units: fraction, high: 1}
	vmMemory   = &kind{description: "Memory the VM has", units: wholeBytes, high: unbounded}
	vmTarget   = &kind{description: "Memory the VM should have", units: wholeBytes, high: unbounded}
	vmFree     = &kind{description: "Memory that the guest's system says is free", units: kibibytes, high: unbounded}
	vbdRead    = &kind{description: "Read from disk %s", units: byteRate, high: unbounded}
	vbdWritten = &kind{description: "Written to disk %s", units: byteRate, high: unbounded}
	vbdReads   = &kind{description: "Requests to read from disk %s", units: rate, high: unbounded}
	vbdWrites  = &kind{description: "Requests to write to disk %s", units: rate, high: unbounded}
	vbdAll     = &kind{description: "Requests to disk %s", units: rate, high: unbounded, optional: true}
	vbdMiBIn   = &kind{description: "Read from disk %s", units: mibRate, high: unbounded, optional: true}
	vbdMiBOut  = &kind{description: "Written to disk %s", units: mibRate, high: unbounded, optional: true}
	vbdMiB     = &kind{description: "Read from and written to disk %s", units: mibRate, high: unbounded, optional: true}
	vbdSlowIn  = &kind{description: "How long a request to read from disk %s took on average", units: micros, high: unbounded}
	vbdSlowOut = &kind{description: "How long a request to write to disk %s took on average", units: micros, high: unbounded}
	vif        = nicKinds{
		prefix:   "vif_",
		received: &kind{description: "Received by the VM on interface %s", units: byteRate, high: unbounded},
		sent:     &kind{description: "Sent by the VM on interface %s", units: byteRate, high: unbounded},
		badIn:    &kind{description: "Errors in what the VM received on interface %s", units: rate, high: unbounded, optional: true},
		badOut:   &kind{description: "Errors in what the VM sent on interface %s", units: rate, high: unbounded, optional: true},
	}
)

// guestBefore is what the hypervisor said of a VM last.
type guestBefore struct {
	at    time.Time
	stats hypervisor.Stats
}

// diskIO is what a disk did in a second.
type diskIO struct {
	name                         string // xvda, …
	read, written, reads, writes float64
}

// guestFigures makes a VM's figures of what is known of it now and was before; both may
// be of different domains, whose counters began anew.
func guestFigures(before guestBefore, now time.Time, vm *guest, s hypervisor.Stats) ([]figure, []diskIO) {
	over := now.Sub(before.at)
	if before.at.IsZero() || another(before.stats, s) {
		before.stats, over = hypervisor.Stats{}, 0
	}
	busy := func(before, now time.Duration) float64 { return share(now-before, over) }
	all := cpuFigures(before.stats.VCPUs, s.VCPUs, busy, vmCPU, "cpu_usage", vmCPUs)
	if s.Memory.Actual > 0 {
		all = append(all, figure{name: "memory", value: float64(s.Memory.Actual), kind: vmMemory})
	}
	all = append(all, figure{name: "memory_target", value: float64(vm.row.MemoryTarget), kind: vmTarget})
	if s.Memory.Total > 0 { // the guest's driver speaks
		all = append(all, figure{name: "memory_internal_free", value: float64(freeIn(s.Memory) >> 10), kind: vmFree})
	}
	disks, io := vbdFigures(before.stats.Disks, s.Disks, over)
	all = append(all, disks...)
	return append(all, vifFigures(before.stats.NICs, s.NICs, over, vm)...), io
}

// freeIn is what a guest could use at once: caches count as free, where it says so.
func freeIn(m hypervisor.MemoryStats) int64 {
	if m.Usable > 0 {
		return m.Usable
	}
	return m.Free
}

// another reports whether counters are of another domain than those before.
func another(before, now hypervisor.Stats) bool {
	for n, took := range before.VCPUs {
		if t, there := now.VCPUs[n]; there && t < took {
			return true
		}
	}
	return false
}

// diskName is what clients call a place, whatever bus it is on.
func diskName(device string) string { return "xvd" + strings.TrimPrefix(device, "sd") }

func vbdFigures(before, now []hypervisor.DiskStats, over time.Duration) (all []figure, io []diskIO) {
	for _, d := range now {
		if d.Device == "" {
			continue
		}
		old, since := earlier(before, over, func(o hypervisor.DiskStats) bool { return o.Device == d.Device })
		r, w := old.Reads, old.Writes
		k := diskIO{
			name: diskName(d.Device), read: rateOf(r.Bytes, d.Reads.Bytes, since), written: rateOf(w.Bytes, d.Writes.Bytes, since),
			reads: rateOf(r.Requests, d.Reads.Requests, since), writes: rateOf(w.Requests, d.Writes.Requests, since),
		}
		io = append(io, k)
		of, name := k.name, "vbd_"+k.name
		all = append(all,
			figure{name: name + "_read", of: of, value: k.read, kind: vbdRead},
			figure{name: name + "_write", of: of, value: k.written, kind: vbdWritten},
			figure{name: name + "_iops_read", of: of, value: k.reads, kind: vbdReads},
			figure{name: name + "_iops_write", of: of, value: k.writes, kind: vbdWrites},
			figure{name: name + "_iops_total", of: of, value: k.reads + k.writes, kind: vbdAll},
			figure{name: name + "_io_throughput_read", of: of, value: k.read / mib, kind: vbdMiBIn},
			figure{name: name + "_io_throughput_write", of: of, value: k.written / mib, kind: vbdMiBOut},
			figure{name: name + "_io_throughput_total", of: of, value: (k.read + k.written) / mib, kind: vbdMiB},
			figure{name: name + "_read_latency", of: of, value: latency(r, d.Reads, since), kind: vbdSlowIn},
			figure{name: name + "_write_latency", of: of, value: latency(w, d.Writes, since), kind: vbdSlowOut})
	}
	return all, io
}

// latency is how long a request took, in microseconds; 0 where there was none.
func latency(before, now hypervisor.IOStats, over time.Duration) float64 {
	requests := rateOf(before.Requests, now.Requests, over)
	if requests == 0 {
		return 0
	}
	return float64((now.Time - before.Time).Microseconds()) / (requests * over.Seconds())
}

func vifFigures(before, now []hypervisor.NICStats, over time.Duration, vm *guest) (all []figure) {
	for _, n := range now {
		device, ours := vm.nics[n.Tap]
		if !ours {
			continue
		}
		old, since := earlier(before, over, func(o hypervisor.NICStats) bool { return o.Tap == n.Tap })
		all = append(all, vif.figures(device, counted(old), counted(n), since)...)
	}
	return all
}

// counted is what went through an interface of a VM, as the kernel tells it of others.
func counted(n hypervisor.NICStats) proc.NIC {
	return proc.NIC{Received: n.Received, Sent: n.Sent, ReceiveErrors: n.ReceiveErrors, SendErrors: n.SendErrors}
}

// earlier is what was said of one of many before, and how long ago; nothing at no time
// where nothing was.
func earlier[T any](before []T, over time.Duration, same func(T) bool) (old T, since time.Duration) {
	if i := slices.IndexFunc(before, same); i >= 0 {
		old, since = before[i], over
	}
	return old, since
}
