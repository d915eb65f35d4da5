package metrics

import (
	"maps"
	"slices"
	"time"

	"cairn/toolstack/hypervisor"
	"cairn/toolstack/metrics/proc"
)

// Sorts of a host's figures.
var (
	hostCPU     = &kind{description: "Use of the host's CPU %s", units: fraction, high: 1}
	hostCPUs    = &kind{description: "Use of all of the host's CPUs on average", units: fraction, high: 1}
	hostTotal   = &kind{description: "Memory of the host", units: kibibytes, high: unbounded}
	hostFree    = &kind{description: "Memory of the host that is free, or free at once when somebody needs it", units: kibibytes, high: unbounded}
	hostLoad    = &kind{description: "How many wanted to run on the host, on average of a minute", units: fraction, high: unbounded}
	allReceived = &kind{description: "Received on all of the host's NICs", units: byteRate, high: unbounded}
	allSent     = &kind{description: "Sent on all of the host's NICs", units: byteRate, high: unbounded}
	running     = &kind{description: "VMs that run on the host", units: "count", high: unbounded}
	runningCPUs = &kind{description: "Virtual CPUs of VMs that run on the host", units: "count", high: unbounded}
	pif         = nicKinds{
		prefix:   "pif_",
		received: &kind{description: "Received on the host's interface %s", units: byteRate, high: unbounded},
		sent:     &kind{description: "Sent on the host's interface %s", units: byteRate, high: unbounded},
		badIn:    &kind{description: "Errors in what was received on the host's interface %s", units: rate, high: unbounded, optional: true},
		badOut:   &kind{description: "Errors in what was sent on the host's interface %s", units: rate, high: unbounded, optional: true},
	}
)

// hostBefore is what the kernel said last.
type hostBefore struct {
	at   time.Time
	host proc.Host
}

// figures makes them of what the kernel says now and said before, and remembers it.
func (b *hostBefore) figures(now time.Time, w *world, h proc.Host) []figure {
	over := now.Sub(b.at)
	before := b.host
	b.at, b.host = now, h
	all := cpuFigures(before.CPUs, h.CPUs, occupied, hostCPU, "cpu_avg", hostCPUs)
	if h.Memory.Total > 0 {
		all = append(all,
			figure{name: "memory_total_kib", value: float64(h.Memory.Total >> 10), kind: hostTotal},
			figure{name: "memory_free_kib", value: float64(h.Memory.Available >> 10), kind: hostFree},
			figure{name: "loadavg", value: h.Load, kind: hostLoad})
	}
	return append(all, pifFigures(before.NICs, h.NICs, over, w)...)
}

// occupied is the part of a time in which a CPU had something to do.
func occupied(before, now proc.CPU) float64 {
	took, idle := now.Busy-before.Busy, max(0, now.Idle-before.Idle) // iowait may go back
	return share(took, took+idle)
}

// pifFigures are of the interfaces the host has as PIFs, and the sums of the physical
// ones: a bond's traffic is that of its members.
func pifFigures(before, now map[string]proc.NIC, over time.Duration, w *world) (all []figure) {
	var in, out float64
	for _, name := range slices.Sorted(maps.Keys(w.pifs)) {
		n, there := now[name]
		old, known := before[name]
		if !there {
			continue
		}
		since := over
		if !known {
			since = 0
		}
		figures := pif.figures(name, old, n, since)
		all = append(all, figures...)
		if w.pifs[name] {
			in, out = in+figures[0].value, out+figures[1].value
		}
	}
	if len(all) > 0 {
		all = append(all, figure{name: "pif_aggr_rx", value: in, kind: allReceived}, figure{name: "pif_aggr_tx", value: out, kind: allSent})
	}
	return all
}

func busyGuests(stats []hypervisor.Stats) []figure {
	guests, cpus := 0, 0
	for _, s := range stats {
		if s.State == hypervisor.Running {
			guests, cpus = guests+1, cpus+len(s.VCPUs)
		}
	}
	return []figure{
		{name: "running_domains", value: float64(guests), kind: running},
		{name: "running_vcpus", value: float64(cpus), kind: runningCPUs},
	}
}
