package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"cairn/ci/bench/document"
	"cairn/ci/bench/figure"
)

// Budgets of the architecture. batching is how long a change waits for others
// before it is told, which clients of this API know; the budget is for what comes
// on top.
const (
	listVMs     = 1000
	listBudget  = 150 * time.Millisecond
	eventBudget = 20 * time.Millisecond
	batching    = 50 * time.Millisecond
)

// series is one figure, taken many times.
type series []time.Duration

func (s series) String() string {
	return figure.MS(figure.At(s, 0.5)) + " / " + figure.MS(figure.At(s, 0.99))
}

// beyond is the series without what batching takes.
func (s series) beyond() (rest series) {
	for _, d := range s {
		rest = append(rest, d-batching)
	}
	return rest
}

// report is what the run found.
type report struct {
	Sizes []measured
	Peer  *peer
	Load  [2]string // before and after
	Took  time.Duration
	CPUs  int
}

// publish prints the table, puts it into the document, and fails when a budget is
// missed.
func (r *report) publish(doc string) error {
	text := r.table()
	fmt.Print(text)
	fmt.Printf("\nThe run took %s.\n", r.Took.Round(time.Second))
	if doc != "" {
		if err := document.Replace(doc, "api", text); err != nil {
			return err
		}
	}
	return r.verdict()
}

func (r *report) verdict() error {
	var errs []error
	for _, m := range r.Sizes {
		if got := figure.At(m.JSON.Warm, 0.5); m.VMs <= listVMs && got > listBudget {
			errs = append(errs, fmt.Errorf("VM.get_all_records of %d VMs takes %s ms, budget %s", m.VMs, figure.MS(got), figure.MS(listBudget)))
		}
		if got := figure.At(m.Event.beyond(), 0.5); got > eventBudget {
			errs = append(errs, fmt.Errorf("an event takes %s ms beyond batching with %d VMs, budget %s", figure.MS(got), m.VMs, figure.MS(eventBudget)))
		}
	}
	return errors.Join(errs...)
}

func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d CPUs shared by server and clients, load %s before and %s after; p50 / p99 in ms where nothing else is said.\n\n",
		time.Now().UTC().Format("2006-01-02"), r.CPUs, r.Load[0], r.Load[1])
	row := func(name, budget string, cell func(m measured) string) {
		fmt.Fprintf(&b, "| %s |", name)
		for _, m := range r.Sizes {
			fmt.Fprintf(&b, " %s |", cell(m))
		}
		fmt.Fprintf(&b, " %s |\n", budget)
	}
	row("figure", "budget", func(m measured) string { return fmt.Sprintf("%d VMs", m.VMs) })
	fmt.Fprintln(&b, "|---|"+strings.Repeat("---|", len(r.Sizes))+"---|")
	row("VM.get_all_records, JSON-RPC", "1,000 VMs: ≤ 150", func(m measured) string { return m.JSON.Warm.String() })
	row("VM.get_all_records, XML-RPC", "", func(m measured) string { return m.XML.Warm.String() })
	row("the first one after a start, JSON-RPC and XML-RPC", "", func(m measured) string { return figure.MS(m.JSON.First) + ", " + figure.MS(m.XML.First) })
	row("its size, MiB, JSON-RPC and XML-RPC", "", func(m measured) string { return mib(m.JSON.Bytes) + ", " + mib(m.XML.Bytes) })
	row(fmt.Sprintf("requests/s, %d clients, VM.get_record, JSON-RPC and XML-RPC", clients), "", func(m measured) string {
		return fmt.Sprintf("%.0f, %.0f", m.Requests[0], m.Requests[1])
	})
	row(fmt.Sprintf("change → event.from, %d waiters, from the request", waiters), "", func(m measured) string { return m.Event.String() })
	row("the same without the 50 ms of batching", "≤ 20", func(m measured) string { return m.Event.beyond().String() })
	row("change → event.from, from the change's own answer", "", func(m measured) string { return m.AfterAck.String() })
	row("memory of toolstackd, MiB, filled and at most", "", func(m measured) string { return mib(m.RSS) + ", " + mib(m.Peak) })
	if p := r.Peer; p != nil {
		fmt.Fprintf(&b, "\nlibvirtd on the same machine, %d defined domains: the list alone %s, with each one's XML, as a client gets all there is to know, %s.\n",
			p.Domains, p.List, p.Full)
	}
	return b.String()
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/(1<<20)) }
