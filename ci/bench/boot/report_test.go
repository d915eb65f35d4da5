package main

import (
	"strings"
	"testing"
	"time"

	"cairn/init/debug"
)

func samples(readies ...float64) (all []sample) {
	for _, r := range readies {
		all = append(all, sample{Ready: r, UsedKiB: int(r) << 20, Processes: []debug.Process{
			{Argv: "/usr/sbin/libvirtd --x", PSSKiB: 2048}, {Argv: "sshd: root", PSSKiB: 512}, {Argv: "/usr/sbin/libvirtd", PSSKiB: 1024},
		}})
	}
	return all
}

func TestMedian(t *testing.T) {
	for want, s := range map[float64]series{3: {9, 1, 3}, 2.5: {4, 1, 2, 3}, 7: {7}, 0: {}} {
		if got := s.median(); got != want {
			t.Errorf("median of %v is %v, want %v", []float64(s), got, want)
		}
	}
}

func TestTables(t *testing.T) {
	r := report{Cairn: samples(9, 10, 11), Debian: samples(30, 20, 40), PXEBytes: 100 << 20, Took: time.Minute}
	text := r.tables()
	for _, want := range []string{
		"| kernel start → API answers, s | 10.0 (9.0–11.0) | 30.0 (20.0–40.0) | 33 % | ≤ 40 % |",
		"| bytes of a netboot, MiB | 100.0 | | | ≤ 200 |",
		"| libvirtd | 3.0 | libvirtd | 3.0 |\n| sshd | 0.5 | sshd | 0.5 |\n| **sum** | 3.5 | **sum** | 3.5 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if err := r.verdict(); err != nil {
		t.Error(err)
	}
	r.Cairn, r.PXEBytes = samples(29), 201<<20
	if err := r.verdict(); err == nil || strings.Count(err.Error(), "budget") != 3 {
		t.Errorf("verdict %v", err)
	}
}

func TestUsed(t *testing.T) {
	if got, err := used("MemTotal:  2000 kB\nMemFree: 5 kB\nMemAvailable:  1500 kB\n"); err != nil || got != 500 {
		t.Errorf("got %d, %v", got, err)
	}
	if _, err := used("MemTotal: 5 kB\n"); err == nil {
		t.Error("half a meminfo is accepted")
	}
}

func TestPackages(t *testing.T) {
	list, err := packages("peer.list")
	if err != nil || len(list) < 10 || list[0] != "systemd" {
		t.Errorf("got %v, %v", list, err)
	}
	if got := versions("Package: a\nStatus: x\nVersion: 1-2\n\nPackage: b\nVersion: 3\n"); got != "a 1-2\nb 3\n" {
		t.Errorf("versions %q", got)
	}
}
