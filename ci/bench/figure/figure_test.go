package figure

import (
	"os"
	"testing"
	"time"
)

func TestAt(t *testing.T) {
	all := []time.Duration{4, 1, 3, 2}
	for share, want := range map[float64]time.Duration{0: 1, 0.5: 3, 0.99: 4, 1: 4} {
		if got := At(all, share); got != want {
			t.Errorf("%v is %d, want %d", share, got, want)
		}
	}
	if At(nil, 0.5) != 0 || MS(1500*time.Microsecond) != "1.5" {
		t.Error("nothing is something")
	}
}

// TestMemory: this process has some, and none has more now than at its largest.
func TestMemory(t *testing.T) {
	if now, peak, err := Memory(os.Getpid()); err != nil || now < 1<<20 || peak < now {
		t.Errorf("%d, %d, %v", now, peak, err)
	}
	if now, peak, err := Memory(0); err == nil {
		t.Errorf("nothing has %d, %d", now, peak)
	}
}

func TestKibibytes(t *testing.T) {
	const status = "Name:\tVmRSS: 7 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t1\n"
	for name, want := range map[string]int64{"VmRSS:": 1 << 20, "VmHWM:": 2 << 20, "VmSwap:": 0, "Threads:": 0} {
		if got, err := kibibytes(status, name); got != want || (err == nil) != (want > 0) {
			t.Errorf("%s %d, %v, want %d", name, got, err, want)
		}
	}
}
