package metrics

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cairn/toolstack/db"
	"cairn/toolstack/wire"
)

// expositionType is what scrapers call the text form.
const expositionType = "text/plain; version=0.0.4; charset=utf-8"

// family is a metric as scrapers name it, made of the figures whose names fit.
type family struct {
	name, help string
	of         Kind
	figure     *regexp.Regexp // its one group, if any, is the value of label
	label      string
	factor     float64
	only       string // value of a further label, "direction"
}

// line is one sample of a family.
type line struct {
	family *family
	labels string
	value  float64
}

func named(pattern string) *regexp.Regexp { return regexp.MustCompile("^" + pattern + "$") }

// families are an interface: names and labels stay.
var families = []family{
	{"cairn_host_cpu_usage_ratio", "Use of a CPU of the host, 0 to 1.", HostKind, named(`cpu(\d+)`), "cpu", 1, ""},
	{"cairn_host_load", "How many wanted to run, on average of a minute.", HostKind, named("loadavg"), "", 1, ""},
	{"cairn_host_memory_bytes", "Memory of the host.", HostKind, named("memory_total_kib"), "", 1024, ""},
	{"cairn_host_memory_free_bytes", "Memory of the host that is free, or free at once.", HostKind, named("memory_free_kib"), "", 1024, ""},
	{"cairn_host_network_bytes_per_second", "Traffic of an interface of the host.", HostKind, named(`pif_(.+)_rx`), "interface", 1, "receive"},
	{"cairn_host_network_bytes_per_second", "", HostKind, named(`pif_(.+)_tx`), "interface", 1, "transmit"},
	{"cairn_host_running_vms", "VMs that run on the host.", HostKind, named("running_domains"), "", 1, ""},
	{"cairn_host_running_vcpus", "Virtual CPUs of VMs that run on the host.", HostKind, named("running_vcpus"), "", 1, ""},
	{"cairn_vm_cpu_usage_ratio", "Use of a virtual CPU, 0 to 1.", VMKind, named(`cpu(\d+)`), "cpu", 1, ""},
	{"cairn_vm_memory_bytes", "Memory the VM has.", VMKind, named("memory"), "", 1, ""},
	{"cairn_vm_memory_target_bytes", "Memory the VM should have.", VMKind, named("memory_target"), "", 1, ""},
	{"cairn_vm_memory_free_bytes", "Memory the guest's system says is free.", VMKind, named("memory_internal_free"), "", 1024, ""},
	{"cairn_vm_disk_bytes_per_second", "Traffic of a disk.", VMKind, named(`vbd_(xvd[a-z]+)_read`), "disk", 1, "read"},
	{"cairn_vm_disk_bytes_per_second", "", VMKind, named(`vbd_(xvd[a-z]+)_write`), "disk", 1, "write"},
	{"cairn_vm_disk_requests_per_second", "Requests to a disk.", VMKind, named(`vbd_(xvd[a-z]+)_iops_read`), "disk", 1, "read"},
	{"cairn_vm_disk_requests_per_second", "", VMKind, named(`vbd_(xvd[a-z]+)_iops_write`), "disk", 1, "write"},
	{"cairn_vm_disk_latency_seconds", "How long a request took on average.", VMKind, named(`vbd_(xvd[a-z]+)_read_latency`), "disk", 1e-6, "read"},
	{"cairn_vm_disk_latency_seconds", "", VMKind, named(`vbd_(xvd[a-z]+)_write_latency`), "disk", 1e-6, "write"},
	{"cairn_vm_network_bytes_per_second", "Traffic of an interface of the VM.", VMKind, named(`vif_(\d+)_rx`), "interface", 1, "receive"},
	{"cairn_vm_network_bytes_per_second", "", VMKind, named(`vif_(\d+)_tx`), "interface", 1, "transmit"},
	{"cairn_sr_size_bytes", "Size of a storage repository.", SRKind, named("size"), "", 1, ""},
	{"cairn_sr_used_bytes", "How much of a storage repository is in use.", SRKind, named("physical_utilisation"), "", 1, ""},
	{"cairn_sr_allocated_bytes", "Size of all disks in a storage repository together.", SRKind, named("virtual_allocation"), "", 1, ""},
	{"cairn_sr_bytes_per_second", "Traffic of a storage repository, of VMs of this host.", SRKind, named("io_throughput_read"), "", mib, "read"},
	{"cairn_sr_bytes_per_second", "", SRKind, named("io_throughput_write"), "", mib, "write"},
}

// exposition answers /metrics: the newest figures, for scrapers that keep them
// themselves. Whoever may read the host's figures may read these.
func (m *Manager) exposition(r *wire.Request) (text, error) {
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
		name, figures := db.NameOf(snap, o.class(), o.UUID), m.now(o)
		for i := range families {
			if f := &families[i]; f.of == o.Kind {
				all = append(all, f.lines(o, name, figures)...)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b line) int { return strings.Compare(a.family.name, b.family.name) })
	return all
}

func (f *family) lines(o Owner, name string, figures []figure) (all []line) {
	for _, x := range figures {
		parts := f.figure.FindStringSubmatch(x.name)
		if parts == nil || math.IsNaN(x.value) || parts[len(parts)-1] == "aggr" {
			continue
		}
		labels := []string{label(string(o.Kind), o.UUID), label("name", name)}
		if f.label != "" {
			labels = append(labels, label(f.label, parts[1]))
		}
		if f.only != "" {
			labels = append(labels, label("direction", f.only))
		}
		all = append(all, line{f, strings.Join(labels, ","), x.value * f.factor})
	}
	return all
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
