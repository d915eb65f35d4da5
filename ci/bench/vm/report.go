package main

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"cairn/ci/bench/document"
	"cairn/ci/bench/figure"
)

// Budgets of the architecture: what a start may take beyond libvirt's own create,
// and how long a snapshot or clone of a disk of 10 GiB may take.
const (
	startBudget = 30 * time.Millisecond
	layerBudget = 150 * time.Millisecond
)

// series is one figure, taken many times.
type series []time.Duration

func (s series) String() string {
	return fmt.Sprintf("%s (%s–%s)", figure.MS(figure.At(s, 0.5)), figure.MS(figure.At(s, 0)), figure.MS(figure.At(s, 1)))
}

// report is what the run found.
type report struct {
	Rounds, Listed           int
	Start, Create            series // VM.start; libvirt's create of the same domain
	Snapshot, Clone, Overlay series // of a disk of 10 GiB; qemu-img's overlay
	Records, Domains         series // VM.get_all_records; libvirt's list with XML
	Load                     [2]string
	Took                     time.Duration
}

func (r *report) publish(doc string) error {
	text := r.table()
	fmt.Print(text)
	fmt.Printf("\nThe run took %s.\n", r.Took.Round(time.Second))
	if doc != "" {
		if err := document.Replace(doc, "vm", text); err != nil {
			return err
		}
	}
	return r.verdict()
}

// more is what Cairn takes beyond the other, by the medians.
func more(cairn, other series) time.Duration { return figure.At(cairn, 0.5) - figure.At(other, 0.5) }

func (r *report) verdict() error {
	var errs []error
	if got := more(r.Start, r.Create); got > startBudget {
		errs = append(errs, fmt.Errorf("VM.start takes %s ms more than libvirt's create, budget %s", figure.MS(got), figure.MS(startBudget)))
	}
	for _, l := range []struct {
		name string
		s    series
	}{{"VDI.snapshot", r.Snapshot}, {"VDI.clone", r.Clone}} {
		if got := figure.At(l.s, 0.5); got > layerBudget {
			errs = append(errs, fmt.Errorf("%s of 10 GiB takes %s ms, budget %s", l.name, figure.MS(got), figure.MS(layerBudget)))
		}
	}
	return errors.Join(errs...)
}

func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d CPUs, guests by emulation, load %s before and %s after, %d rounds, alternating; median (least–most) in ms.\n\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), r.Load[0], r.Load[1], r.Rounds)
	b.WriteString("| figure | Cairn | without | difference | budget |\n|---|---|---|---|---|\n")
	row := func(name string, cairn, other series, budget string) {
		fmt.Fprintf(&b, "| %s | %s | %s | %+.1f | %s |\n", name, cairn, other, float64(more(cairn, other).Microseconds())/1000, budget)
	}
	row("VM.start; libvirt's create with the same XML", r.Start, r.Create, "≤ +30")
	row("VDI.snapshot of 10 GiB; qemu-img's overlay", r.Snapshot, r.Overlay, "≤ 150 in all")
	row("VDI.clone of 10 GiB; qemu-img's overlay", r.Clone, r.Overlay, "≤ 150 in all")
	row(fmt.Sprintf("VM.get_all_records, %d rows; libvirt's list with XML, %d domains", r.Listed, machines), r.Records, r.Domains, "")
	return b.String()
}
