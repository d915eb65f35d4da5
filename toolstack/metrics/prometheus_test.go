package metrics

import (
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/golden"
	"cairn/toolstack/db"
	"cairn/toolstack/metrics/proc"
)

func TestExposition(t *testing.T) {
	b, ref, _ := busy(t)
	b.update(func(tx *db.Tx) {
		vm, err := db.Edit(tx, ref)
		must(t, err)
		vm.NameLabel = "web \"1\"\\\n"
	})
	status, header, body := b.get("/metrics", nil, "text/plain")
	if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("%d %v", status, header)
	}
	golden.Equal(t, "testdata/exposition.txt", withoutUUIDs(body))
	for _, line := range strings.Split(strings.TrimSpace(body), "\n") {
		if !strings.HasPrefix(line, "# ") && !strings.HasPrefix(line, "cairn_") {
			t.Errorf("line %q", line)
		}
	}
}

// withoutUUIDs makes text the same in every run.
func withoutUUIDs(s string) string {
	var out []string
	for _, line := range strings.Split(s, "\n") {
		for _, kind := range []string{"host", "vm", "sr"} {
			if before, after, ok := strings.Cut(line, "{"+kind+`="`); ok {
				line = before + "{" + kind + `="UUID` + after[36:]
			}
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// TestFamilies: where there are several of a kind a label tells them apart, and a family
// that is there twice has a direction each and says once what it is.
func TestFamilies(t *testing.T) {
	kinds, names := map[*kind]bool{}, map[string]bool{}
	for _, f := range families {
		if several := strings.Contains(f.kind.description, "%s"); several != (f.label != "") || f.kind.optional || kinds[f.kind] {
			t.Errorf("%s, label %q, is of %+v", f.name, f.label, f.kind)
		}
		if names[f.name] != (f.help == "") || names[f.name] && f.only == "" {
			t.Errorf("%s, direction %q, has help %q", f.name, f.only, f.help)
		}
		kinds[f.kind], names[f.name] = true, true
	}
}

// TestLines: labels come of the figure's kind, not of its name, and what is unknown is
// left out.
func TestLines(t *testing.T) {
	var b strings.Builder
	all := linesOf(`host="h"`, slices.Concat([]figure{
		{name: "cpu_avg", value: 1, kind: hostCPUs}, {name: "pif_aggr_rx", value: 7, kind: allReceived},
		{name: "loadavg", value: 2, kind: hostLoad}, {name: "memory_total_kib", value: unknown, kind: hostTotal},
	}, pif.figures("aggr", proc.NIC{}, proc.NIC{Received: 5}, time.Second)))
	must(t, writeLines(&b, all))
	const want = `# HELP cairn_host_load How many wanted to run, on average of a minute.
# TYPE cairn_host_load gauge
cairn_host_load{host="h"} 2
# HELP cairn_host_network_bytes_per_second Traffic of an interface of the host.
# TYPE cairn_host_network_bytes_per_second gauge
cairn_host_network_bytes_per_second{host="h",interface="aggr",direction="receive"} 5
cairn_host_network_bytes_per_second{host="h",interface="aggr",direction="transmit"} 0
`
	if b.String() != want {
		t.Errorf("lines\n%s", b.String())
	}
}
