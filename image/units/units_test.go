package units

import (
	"os"
	"strings"
	"testing"
)

const sample = `[Unit]
Description=x

[Service]
Type=notify
ExecStart=/usr/sbin/x \
   --flag
LimitNOFILE=1024:524288
ProtectSystem=full
`

func TestSummary(t *testing.T) {
	got, err := Summary(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	want := "ExecStart=/usr/sbin/x --flag\nLimitNOFILE=1024:524288\nType=notify\n"
	if got != want {
		t.Errorf("summary:\n%s\nwant:\n%s", got, want)
	}
}

func TestSummaryWithoutService(t *testing.T) {
	if _, err := Summary(strings.NewReader("[Unit]\nDescription=x\n")); err == nil {
		t.Error("a unit without [Service] was accepted")
	}
}

func TestDriftNamesBothSides(t *testing.T) {
	err := Drift("x.service", "ExecStart=/usr/sbin/x\nLimitNOFILE=1024:524288\nType=notify\n", strings.NewReader(sample))
	if err == nil {
		t.Fatal("a changed unit was accepted")
	}
	for _, want := range []string{"x.service", "-ExecStart=/usr/sbin/x", "+ExecStart=/usr/sbin/x --flag"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func FuzzSummary(f *testing.F) {
	f.Add(sample)
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := Summary(strings.NewReader(text)); err == nil && s == "" {
			t.Error("empty summary without an error")
		}
	})
}

func TestGoldenFilesAreThere(t *testing.T) {
	if entries, err := os.ReadDir("testdata"); err != nil || len(entries) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
}
