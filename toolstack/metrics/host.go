package metrics

import (
	"maps"
	"slices"
	"strconv"
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
	pifReceived = &kind{description: "Received on the host's interface %s", units: byteRate, high: unbounded}
	pifSent     = &kind{description: "Sent on the host's interface %s", units: byteRate, high: unbounded}
	pifBadIn    = &kind{description: "Errors in what was received on the host's interface %s", units: rate, high: unbounded, optional: true}
	pifBadOut   = &kind{description: "Errors in what was sent on the host's interface %s", units: rate, high: unbounded, optional: true}
	allReceived = &kind{description: "Received on all of the host's NICs", units: byteRate, high: unbounded}
	allSent     = &kind{description: "Sent on all of the host's NICs", units: byteRate, high: unbounded}
	running     = &kind{description: "VMs that run on the host", units: "count", high: unbounded}
	runningCPUs = &kind{description: "Virtual CPUs of VMs that run on the host", units: "count", high: unbounded}
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
	all := cpuFigures(before.CPUs, h.CPUs)
	if h.Memory.Total > 0 {
		all = append(all,
			figure{name: "memory_total_kib", value: float64(h.Memory.Total >> 10), kind: hostTotal},
			figure{name: "memory_free_kib", value: float64(h.Memory.Available >> 10), kind: hostFree},
			figure{name: "loadavg", value: h.Load, kind: hostLoad})
	}
	return append(all, pifFigures(before.NICs, h.NICs, over, w)...)
}

func cpuFigures(before, now map[int]proc.CPU) (all []figure) {
	var each []float64
	for _, n := range slices.Sorted(maps.Keys(now)) {
		value := unknown
		if old, known := before[n]; known {
			busy, idle := now[n].Busy-old.Busy, max(0, now[n].Idle-old.Idle) // iowait may go back
			value = share(busy, busy+idle)
		}
		each = append(each, value)
		id := strconv.Itoa(n)
		all = append(all, figure{name: "cpu" + id, of: id, value: value, kind: hostCPU})
	}
	if len(each) > 0 {
		all = append(all, figure{name: "cpu_avg", value: mean(each), kind: hostCPUs})
	}
	return all
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
		received, sent := rateOf(old.Received, n.Received, since), rateOf(old.Sent, n.Sent, since)
		all = append(all,
			figure{name: "pif_" + name + "_rx", of: name, value: received, kind: pifReceived},
			figure{name: "pif_" + name + "_tx", of: name, value: sent, kind: pifSent},
			figure{name: "pif_" + name + "_rx_errors", of: name, value: rateOf(old.ReceiveErrors, n.ReceiveErrors, since), kind: pifBadIn},
			figure{name: "pif_" + name + "_tx_errors", of: name, value: rateOf(old.SendErrors, n.SendErrors, since), kind: pifBadOut})
		if w.pifs[name] {
			in, out = in+received, out+sent
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
