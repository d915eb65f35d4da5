package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// minReserve is the least the kernel keeps free on this host, in KiB: a few
// times its own default for 2 GiB, because NIC drivers allocate in interrupts.
const minReserve = 16 << 10

// reserveFor is what the kernel should keep free of so much memory, in KiB:
// 1/128 of it. Where huge pages are enabled the kernel keeps a fixed 66 MiB and
// more instead, whatever the machine has, and half as much again behind it,
// which a small host misses.
func reserveFor(total int) int { return max(minReserve, total/128) }

// lowerReserve sets vm.min_free_kbytes, never above what the kernel chose.
func lowerReserve(proc string) error {
	total, err := memTotal(filepath.Join(proc, "meminfo"))
	if err != nil {
		return err
	}
	path := filepath.Join(proc, "sys/vm/min_free_kbytes")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	now, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	want := reserveFor(total)
	if want >= now {
		return nil
	}
	return os.WriteFile(path, []byte(strconv.Itoa(want)+"\n"), 0)
}

// memTotal reads the memory of the machine, in KiB.
func memTotal(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, fmt.Errorf("%s: no MemTotal", path)
}
