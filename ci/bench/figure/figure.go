// Package figure reads figures of a benchmark that were taken many times, and says how
// busy the machine was meanwhile and how much memory a process takes.
package figure

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// At is the value below which a share of all lies, from 0 for the least to 1 for
// the most; 0 of none.
func At(all []time.Duration, share float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

// Load is the machine's over the last minute.
func Load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// Memory is how much of a process is resident, now and at its largest, in bytes.
func Memory(pid int) (now, peak int64, err error) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	now, err = kibibytes(string(text), "VmRSS:")
	if err == nil {
		peak, err = kibibytes(string(text), "VmHWM:")
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", path, err) // one that has ended has none
	}
	return now, peak, nil
}

// kibibytes is the amount that a process's status has after a name, in bytes.
func kibibytes(status, name string) (int64, error) {
	_, rest, _ := strings.Cut(status, "\n"+name)
	var n int64
	if _, err := fmt.Sscanf(rest, "%d kB\n", &n); err != nil {
		return 0, fmt.Errorf("%s %w", name, err)
	}
	return n << 10, nil
}

// MS is a time in milliseconds.
func MS(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }
