package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// took adds a piece of work that took so many ms in each round.
func (r *report) took(name string, ms ...int) {
	for _, n := range ms {
		r.add(name, cost{
			Wall: time.Duration(n) * time.Millisecond, Size: 48 << 20,
			CPU:  map[string]time.Duration{server: 300 * time.Millisecond, "client": 200 * time.Millisecond, keeper: 0},
			Peak: map[string]int64{server: int64(n) << 20},
		})
	}
}

func sample() *report {
	r := &report{Date: "2026-01-02", Size: 64 << 20, Rounds: 3, CPUs: 2, Load: [2]string{"0.10", "0.20"}, Libvirt: "No libvirt."}
	r.took(copied, 500, 400, 600)
	r.took(copiedDurably, 1000, 800, 1200)
	for _, f := range formats {
		r.took(exported(f.name), 1250, 1000, 1500)
		r.took(convertedTo(f.name), 5000, 4000, 6000)
		r.took(imported(f.name), 1250, 1000, 2400)
		r.took(convertedFrom(f.name), 5000, 4000, 6000)
	}
	r.took(exported("raw")+onHost, 1000, 800, 1200)
	r.took(imported("raw")+onHost, 1000, 800, 1200)
	return r
}

func TestTableAndVerdict(t *testing.T) {
	r := sample()
	text := r.table()
	for _, want := range []string{
		"2026-01-02, 2 CPUs", "load 0.10 before and 0.20 after, a disk of 64 MiB", "No libvirt.",
		"| work | s | of cp + fsync | of cp | of qemu-img | CPU, s | peak memory, MiB | result, MiB |\n|---|---|---|---|---|---|---|---|\n",
		"| cp | 0.50 (0.40–0.60) |  |  |  | 0.50: client 0.20, toolstackd 0.30 | toolstackd 600 | 48 |",
		"| export raw | 1.25 (1.00–1.50) | 0.80 | 0.40 | 4.00 |",
		"| export raw, on the host | 1.00 (0.80–1.20) | **1.00** (≥ 0.6) | 0.50 | 5.00 |",
		"| import raw, on the host | 1.00 (0.80–1.20) | **1.00** (≥ 0.6) | 0.50 | 5.00 |",
		"| export vmdk | 1.25 (1.00–1.50) | 0.80 | 0.40 | **4.00** (≥ 3.0) |",
		"| qemu-img from vhd | 5.00 (4.00–6.00) |  |  |  |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if err := r.verdict(); err != nil {
		t.Error(err)
	}
	if b, err := json.Marshal(r); err != nil || !strings.Contains(string(b), `"Name":"export vmdk"`) {
		t.Errorf("%s, %v", b, err)
	}
}

// TestBarsMissed: each bar that is not reached is told, and each that was not tried.
func TestBarsMissed(t *testing.T) {
	r := sample()
	for _, w := range r.Work {
		if strings.HasPrefix(w.Name, "export ") || strings.HasPrefix(w.Name, "import ") {
			for i := range w.Runs {
				w.Runs[i].Wall *= 2
			}
		}
	}
	err := r.verdict()
	if err == nil || strings.Count(err.Error(), "is wanted") != 3 || !strings.Contains(err.Error(), "export vmdk has 2.00 of the throughput of qemu-img to vmdk, at least 3.0") {
		t.Error(err)
	}
	if err := (&report{}).verdict(); err == nil || strings.Count(err.Error(), "was not measured") != 3 {
		t.Error(err)
	}
}
