package main

import (
	"strings"
	"testing"
	"time"
)

func of(ms ...int) (s series) {
	for _, m := range ms {
		s = append(s, time.Duration(m)*time.Millisecond)
	}
	return s
}

func TestTableAndVerdict(t *testing.T) {
	r := report{
		Rounds: 3, Listed: 40, Start: of(520, 500, 540), Create: of(495, 500, 505),
		Snapshot: of(30, 20, 40), Clone: of(50, 60, 70), Overlay: of(10, 11, 12), Records: of(2), Domains: of(4),
	}
	text := r.table()
	for _, want := range []string{
		"| VM.start; libvirt's create with the same XML | 520.0 (500.0–540.0) | 500.0 (495.0–505.0) | +20.0 | ≤ +30 |",
		"| VDI.clone of 10 GiB; qemu-img's overlay | 60.0 (50.0–70.0) | 11.0 (10.0–12.0) | +49.0 |",
		"| VM.get_all_records, 40 rows;",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if err := r.verdict(); err != nil {
		t.Error(err)
	}
	r.Start, r.Clone = of(531), of(151)
	if err := r.verdict(); err == nil || strings.Count(err.Error(), "budget") != 2 {
		t.Errorf("verdict %v", err)
	}
}
