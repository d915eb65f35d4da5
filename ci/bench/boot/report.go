package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"cairn/ci/bench/document"
	"cairn/ci/lab"
)

// Budgets of architecture: Cairn's share of the peer, and the netboot bytes.
const (
	readyBudget  = 0.40
	memoryBudget = 0.90
	pxeBudget    = 200 << 20
)

// report is what the run found.
type report struct {
	Cairn, Debian []sample
	PXEBytes      int64
	Load          [2]string // before and after
	Took          time.Duration
}

// series is one figure over all boots of one side.
type series []float64

func (s series) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func (s series) String() string {
	return fmt.Sprintf("%.1f (%.1f–%.1f)", s.median(), slices.Min(s), slices.Max(s))
}

func ready(all []sample) (s series) {
	for _, x := range all {
		s = append(s, x.Ready)
	}
	return s
}

func outside(all []sample) (s series) {
	for _, x := range all {
		s = append(s, x.Outside)
	}
	return s
}

func memory(all []sample) (s series) {
	for _, x := range all {
		s = append(s, float64(x.UsedKiB)/1024)
	}
	return s
}

// publish prints the tables, puts them into the document, and fails when a
// budget is missed.
func (r *report) publish(doc string) error {
	text := r.tables()
	fmt.Print(text)
	fmt.Printf("\nThe run took %s.\n", r.Took.Round(time.Second))
	if doc != "" {
		if err := document.Replace(doc, "boot", text); err != nil {
			return err
		}
	}
	return r.verdict()
}

func (r *report) ratios() (boot, mem float64) {
	return ready(r.Cairn).median() / ready(r.Debian).median(), memory(r.Cairn).median() / memory(r.Debian).median()
}

func (r *report) verdict() error {
	boot, mem := r.ratios()
	var errs []error
	if boot > readyBudget {
		errs = append(errs, fmt.Errorf("boot to API takes %.0f %% of the peer's time, budget %.0f %%", boot*100, readyBudget*100))
	}
	if mem > memoryBudget {
		errs = append(errs, fmt.Errorf("memory in use is %.0f %% of the peer's, budget %.0f %%", mem*100, memoryBudget*100))
	}
	if r.PXEBytes > pxeBudget {
		errs = append(errs, fmt.Errorf("a netboot fetches %d MiB, budget %d MiB", r.PXEBytes>>20, pxeBudget>>20))
	}
	return errors.Join(errs...)
}

func (r *report) tables() string {
	boot, mem := r.ratios()
	how := "KVM"
	if lab.KVM() != nil {
		how = "TCG"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, QEMU with %s on %d CPUs, load %s before and %s after, %d boots of each, alternating; median (least–most).\n\n",
		time.Now().UTC().Format("2006-01-02"), how, runtime.NumCPU(), r.Load[0], r.Load[1], len(r.Cairn))
	b.WriteString("| figure | Cairn | Debian 13 | ratio | budget |\n|---|---|---|---|---|\n")
	fmt.Fprintf(&b, "| kernel start → API answers, s | %s | %s | %.0f %% | ≤ %.0f %% |\n", ready(r.Cairn), ready(r.Debian), boot*100, readyBudget*100)
	fmt.Fprintf(&b, "| kernel start → login over the network, s | %s | | | |\n", outside(r.Cairn))
	fmt.Fprintf(&b, "| memory in use after 60 s, MiB | %s | %s | %.0f %% | ≤ %.0f %% |\n", memory(r.Cairn), memory(r.Debian), mem*100, memoryBudget*100)
	fmt.Fprintf(&b, "| bytes of a netboot, MiB | %.1f | | | ≤ %d |\n\n", float64(r.PXEBytes)/(1<<20), pxeBudget>>20)
	b.WriteString("Processes of the last boot by proportional set size, MiB:\n\n| Cairn | | Debian 13 | |\n|---|---|---|---|\n")
	left, right := processes(r.Cairn), processes(r.Debian)
	for i := range max(len(left), len(right)) {
		fmt.Fprintf(&b, "| %s | %s |\n", cell(left, i), cell(right, i))
	}
	return b.String()
}

// usage is the memory of all processes of one program.
type usage struct {
	name string
	kib  int
}

// processes sums the last boot's processes by program, largest first, with the
// total at the end.
func processes(all []sample) []usage {
	if len(all) == 0 {
		return nil
	}
	sum := map[string]int{}
	total := 0
	for _, p := range all[len(all)-1].Processes {
		name, _, _ := strings.Cut(p.Argv, " ")
		sum[filepath.Base(strings.TrimSuffix(name, ":"))] += p.PSSKiB
		total += p.PSSKiB
	}
	var list []usage
	for name, kib := range sum {
		list = append(list, usage{name, kib})
	}
	slices.SortFunc(list, func(a, b usage) int {
		if a.kib != b.kib {
			return b.kib - a.kib
		}
		return strings.Compare(a.name, b.name)
	})
	return append(list, usage{"**sum**", total})
}

func cell(list []usage, i int) string {
	if i >= len(list) {
		return "|"
	}
	return fmt.Sprintf("%s | %.1f", list[i].name, float64(list[i].kib)/1024)
}
