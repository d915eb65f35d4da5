package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cairn/ci/bench/document"
	"cairn/ci/bench/figure"
)

// Bars: what the raw bytes of a disk must reach of cp's throughput, and a VMDK of
// qemu-img's.
const (
	rawBar  = 0.6
	vmdkBar = 3.0
)

// Work that is measured.
const (
	copied        = "cp"
	copiedDurably = "cp, then fsync"
	copiedSparse  = "cp --sparse=always, then fsync"
)

func exported(format string) string      { return "export " + format }
func imported(format string) string      { return "import " + format }
func convertedTo(format string) string   { return "qemu-img to " + format }
func convertedFrom(format string) string { return "qemu-img from " + format }

// onHost is what work is called after that goes by the host's own socket.
const onHost = ", on the host"

// work is what one piece of it took, round by round.
type work struct {
	Name string
	Runs []cost
}

// report is what the run found.
type report struct {
	Date         string
	Size         int64 // of the disk
	Rounds, CPUs int
	Load         [2]string
	Took         time.Duration
	Work         []*work
	Libvirt      string
}

func (r *report) add(name string, c cost) {
	w := r.find(name)
	if w == nil {
		w = &work{Name: name}
		r.Work = append(r.Work, w)
	}
	w.Runs = append(w.Runs, c)
}

func (r *report) find(name string) *work {
	i := slices.IndexFunc(r.Work, func(w *work) bool { return w.Name == name })
	if i < 0 {
		return nil
	}
	return r.Work[i]
}

// throughput is that of one piece of work as a part of another's: the median of the
// rounds, in each of which both were done. ok is false when either was not.
func (r *report) throughput(name, beside string) (ratio float64, ok bool) {
	a, b := r.find(name), r.find(beside)
	if a == nil || b == nil {
		return 0, false
	}
	var all []float64
	for i := range min(len(a.Runs), len(b.Runs)) {
		all = append(all, b.Runs[i].Wall.Seconds()/a.Runs[i].Wall.Seconds())
	}
	slices.Sort(all)
	return all[len(all)/2], true
}

func (r *report) publish(doc string) error {
	text := r.table()
	fmt.Print(text)
	fmt.Printf("\nThe run took %s.\n", r.Took.Round(time.Second))
	if doc != "" {
		if err := document.Replace(doc, "transfer", text); err != nil {
			return err
		}
	}
	return r.verdict()
}

// bars are what must be reached.
var bars = []struct {
	work, beside string
	least        float64
}{
	{exported("raw") + onHost, copiedDurably, rawBar},
	{imported("raw") + onHost, copiedDurably, rawBar},
	{exported("vmdk"), convertedTo("vmdk"), vmdkBar},
}

func (r *report) verdict() error {
	var errs []error
	for _, b := range bars {
		switch got, ok := r.throughput(b.work, b.beside); {
		case !ok:
			errs = append(errs, fmt.Errorf("%s was not measured beside %s", b.work, b.beside))
		case got < b.least:
			errs = append(errs, fmt.Errorf("%s has %.2f of the throughput of %s, at least %.1f is wanted", b.work, got, b.beside, b.least))
		}
	}
	return errors.Join(errs...)
}

func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d CPUs shared by server, client and all else, load %s before and %s after, a disk of %d MiB (%s), %d rounds, alternating; median (least–most). %s\n\n",
		r.Date, r.CPUs, r.Load[0], r.Load[1], r.Size>>20, mixture, r.Rounds, r.Libvirt)
	b.WriteString("| work | s | of cp + fsync | of cp | of qemu-img | CPU, s | peak memory, MiB | result, MiB |\n|---|---|---|---|---|---|---|---|\n")
	for _, w := range r.Work {
		cells := []string{w.Name, w.wall()}
		for _, peer := range peers(w.Name) {
			cells = append(cells, r.ratio(w.Name, peer))
		}
		cells = append(cells, w.cpu(), w.peak(), w.size())
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	return b.String()
}

// peers are what a piece of Cairn's work stands beside, column by column.
func peers(name string) [3]string {
	name = strings.TrimSuffix(name, onHost)
	if format, ok := strings.CutPrefix(name, "export "); ok {
		return [3]string{copiedDurably, copied, convertedTo(format)}
	}
	if format, ok := strings.CutPrefix(name, "import "); ok {
		return [3]string{copiedDurably, copied, convertedFrom(format)}
	}
	return [3]string{}
}

// ratio is a throughput as it stands in the table, with the bar it is held to.
func (r *report) ratio(name, beside string) string {
	got, ok := r.throughput(name, beside)
	if !ok {
		return ""
	}
	for _, b := range bars {
		if b.work == name && b.beside == beside {
			return fmt.Sprintf("**%.2f** (≥ %.1f)", got, b.least)
		}
	}
	return fmt.Sprintf("%.2f", got)
}

func (w *work) wall() string {
	var all []time.Duration
	for _, c := range w.Runs {
		all = append(all, c.Wall)
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", figure.At(all, 0.5).Seconds(), figure.At(all, 0).Seconds(), figure.At(all, 1).Seconds())
}

// cpu is the median of each program that took any.
func (w *work) cpu() string {
	per := map[string][]time.Duration{}
	for _, c := range w.Runs {
		for name, d := range c.CPU {
			per[name] = append(per[name], d)
		}
	}
	var parts []string
	sum := time.Duration(0)
	for _, name := range slices.Sorted(maps.Keys(per)) {
		d := figure.At(per[name], 0.5)
		if sum += d; d >= tick {
			parts = append(parts, fmt.Sprintf("%s %.2f", name, d.Seconds()))
		}
	}
	if len(parts) < 2 {
		return fmt.Sprintf("%.2f", sum.Seconds())
	}
	return fmt.Sprintf("%.2f: %s", sum.Seconds(), strings.Join(parts, ", "))
}

// peak is the most that each program has had.
func (w *work) peak() string {
	most := map[string]int64{}
	for _, c := range w.Runs {
		for name, n := range c.Peak {
			most[name] = max(most[name], n)
		}
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(most)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, most[name]>>20))
	}
	return strings.Join(parts, ", ")
}

func (w *work) size() string {
	if n := w.Runs[0].Size; n > 0 {
		return fmt.Sprint(n >> 20)
	}
	return ""
}
