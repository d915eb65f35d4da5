package metrics

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"cairn/toolstack/db"
	"cairn/toolstack/metrics/rrd"
	"cairn/toolstack/wire"
)

// expositionType is what scrapers call the text form.
const expositionType = "text/plain; version=0.0.4; charset=utf-8"

// family is a metric as scrapers name it, made of the figures of a kind. One with two
// directions is there twice.
type family struct {
	name, help string
	kind       *kind
	label      string // of whose figure it is, where there are several
	factor     float64
	only       string // value of a further label, "direction"
}

// line is one sample of a family.
type line struct {
	family *family
	labels string
	value  float64
}

// families are an interface: names and labels stay.
var families = []family{
	{"cairn_host_cpu_usage_ratio", "Use of a CPU of the host, 0 to 1.", hostCPU, "cpu", 1, ""},
	{"cairn_host_load", "How many wanted to run, on average of a minute.", hostLoad, "", 1, ""},
	{"cairn_host_memory_bytes", "Memory of the host.", hostTotal, "", 1024, ""},
	{"cairn_host_memory_free_bytes", "Memory of the host that is free, or free at once.", hostFree, "", 1024, ""},
	{"cairn_host_network_bytes_per_second", "Traffic of an interface of the host.", pif.received, "interface", 1, "receive"},
	{"cairn_host_network_bytes_per_second", "", pif.sent, "interface", 1, "transmit"},
	{"cairn_host_running_vms", "VMs that run on the host.", running, "", 1, ""},
	{"cairn_host_running_vcpus", "Virtual CPUs of VMs that run on the host.", runningCPUs, "", 1, ""},
	{"cairn_vm_cpu_usage_ratio", "Use of a virtual CPU, 0 to 1.", vmCPU, "cpu", 1, ""},
	{"cairn_vm_memory_bytes", "Memory the VM has.", vmMemory, "", 1, ""},
	{"cairn_vm_memory_target_bytes", "Memory the VM should have.", vmTarget, "", 1, ""},
	{"cairn_vm_memory_free_bytes", "Memory the guest's system says is free.", vmFree, "", 1024, ""},
	{"cairn_vm_disk_bytes_per_second", "Traffic of a disk.", vbdRead, "disk", 1, "read"},
	{"cairn_vm_disk_bytes_per_second", "", vbdWritten, "disk", 1, "write"},
	{"cairn_vm_disk_requests_per_second", "Requests to a disk.", vbdReads, "disk", 1, "read"},
	{"cairn_vm_disk_requests_per_second", "", vbdWrites, "disk", 1, "write"},
	{"cairn_vm_disk_latency_seconds", "How long a request took on average.", vbdSlowIn, "disk", 1e-6, "read"},
	{"cairn_vm_disk_latency_seconds", "", vbdSlowOut, "disk", 1e-6, "write"},
	{"cairn_vm_network_bytes_per_second", "Traffic of an interface of the VM.", vif.received, "interface", 1, "receive"},
	{"cairn_vm_network_bytes_per_second", "", vif.sent, "interface", 1, "transmit"},
	{"cairn_sr_size_bytes", "Size of a storage repository.", srSize, "", 1, ""},
	{"cairn_sr_used_bytes", "How much of a storage repository is in use.", srUsed, "", 1, ""},
	{"cairn_sr_allocated_bytes", "Size of all disks in a storage repository together.", srPromised, "", 1, ""},
	{"cairn_sr_bytes_per_second", "Traffic of a storage repository, of VMs of this host.", srRead, "", mib, "read"},
	{"cairn_sr_bytes_per_second", "", srWritten, "", mib, "write"},
}

// exposition answers /metrics: the newest figures, for scrapers that keep them
// themselves. Whoever may read the host's figures may read these.
func (m *Manager) exposition(r *wire.Request, _ rrd.Query) (text, error) {
	if err := r.Authorize("host_rrd"); err != nil {
		return text{}, err
	}
	lines := m.lines()
	return text{plain: func(w io.Writer) error { return writeLines(w, lines) }}, nil
}

// lines are the samples of all families, family by family.
func (m *Manager) lines() (all []line) {
	owners, snap := m.owners(), m.cfg.DB.Snapshot()
	for _, o := range owners {
		labels := label(string(o.Kind), o.UUID) + "," + label("name", db.NameOf(snap, o.class(), o.UUID))
		all = append(all, linesOf(labels, m.now(o))...)
	}
	slices.SortStableFunc(all, func(a, b line) int { return strings.Compare(a.family.name, b.family.name) })
	return all
}

// linesOf are the samples of one owner, whom labels name.
func linesOf(labels string, figures []figure) (all []line) {
	known := map[*kind][]figure{}
	for _, x := range figures {
		if !math.IsNaN(x.value) {
			known[x.kind] = append(known[x.kind], x)
		}
	}
	for i := range families {
		f := &families[i]
		for _, x := range known[f.kind] {
			all = append(all, line{f, labels + f.labels(x), x.value * f.factor})
		}
	}
	return all
}

// labels are those of a figure beside its owner's.
func (f *family) labels(x figure) (more string) {
	if f.label != "" {
		more = "," + label(f.label, x.of)
	}
	if f.only != "" {
		more += "," + label("direction", f.only)
	}
	return more
}

// escapes are those of label values.
var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func label(name, value string) string { return name + `="` + escapes.Replace(value) + `"` }

func writeLines(w io.Writer, lines []line) error {
	b := bufio.NewWriter(w)
	last := ""
	for _, l := range lines {
		if l.family.name != last {
			last = l.family.name
			fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s gauge\n", last, help(last), last)
		}
		fmt.Fprintf(b, "%s{%s} %s\n", l.family.name, l.labels, strconv.FormatFloat(l.value, 'g', -1, 64))
	}
	return b.Flush()
}

// help is what is said of a family, at its first mention.
func help(name string) string {
	i := slices.IndexFunc(families, func(f family) bool { return f.name == name })
	return families[i].help
}
