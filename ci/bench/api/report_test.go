package main

import (
	"strings"
	"testing"
	"time"

	"cairn/ci/bench/figure"
)

func of(n int, d time.Duration) (s series) {
	for i := range n {
		s = append(s, d+time.Duration(i)*time.Millisecond)
	}
	return s
}

func TestSeries(t *testing.T) {
	s := of(100, 10*time.Millisecond)
	if got := s.String(); got != "60.0 / 109.0" {
		t.Errorf("got %s", got)
	}
	if got := figure.At(s.beyond(), 0); got != -40*time.Millisecond {
		t.Errorf("beyond %s", got)
	}
	if got := figure.At(series(nil), 0.5); got != 0 {
		t.Errorf("nothing is %s", got)
	}
}

func TestTableAndVerdict(t *testing.T) {
	m := measured{
		VMs: 1000, JSON: listing{Warm: of(3, 9*time.Millisecond), Bytes: 3 << 20}, XML: listing{Warm: of(3, 20*time.Millisecond)},
		Requests: [2]float64{4000, 3000}, Event: of(3, 52*time.Millisecond), AfterAck: of(3, 50*time.Millisecond), RSS: 60 << 20, Peak: 90 << 20,
	}
	r := report{Sizes: []measured{m, {VMs: 4000}}, Peer: &peer{Domains: 1000, List: of(1, time.Millisecond), Full: of(1, time.Second)}, CPUs: 2}
	text := r.table()
	for _, want := range []string{
		"| figure | 1000 VMs | 4000 VMs | budget |",
		"| VM.get_all_records, JSON-RPC | 10.0 / 11.0 | 0.0 / 0.0 | 1,000 VMs: ≤ 150 |",
		"| the same without the 50 ms of batching | 3.0 / 4.0 |",
		"| memory of toolstackd, MiB, filled and at most | 60.0, 90.0 |",
		"1000 defined domains: the list alone 1.0 / 1.0,",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if err := r.verdict(); err != nil {
		t.Error(err)
	}
	r.Sizes[0].JSON.Warm, r.Sizes[0].Event = of(3, 150*time.Millisecond), of(3, 70*time.Millisecond)
	if err := r.verdict(); err == nil || strings.Count(err.Error(), "budget") != 2 {
		t.Errorf("verdict %v", err)
	}
}

func TestSizes(t *testing.T) {
	var s sizes
	if err := s.Set("10,20"); err != nil || s.String() != "10,20" {
		t.Errorf("%v, %v", s, err)
	}
	for _, bad := range []string{"", "x", "0", "1,-2"} {
		if s.Set(bad) == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}
