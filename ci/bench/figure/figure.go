// Package figure reads figures of a benchmark that were taken many times, and says how
// busy the machine was meanwhile.
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

// MS is a time in milliseconds.
func MS(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }
