// Package budget holds what each part of the image may weigh, and prints what
// it does weigh. A part above its limit, or one that has no limit, is an error:
// growth is a decision, made in Limits.
//
// Everything here is pure.
package budget

import (
	"fmt"
	"slices"
	"strings"
)

const mib = 1 << 20

// Limits in MiB. A component "modules: x" counts for "modules" as well as being
// shown on its own. Sizes inside the root are before compression.
var Limits = map[string]float64{
	"cairn":            80,
	"u-root":           14,
	"QEMU":             40,
	"guest firmware":   16,
	"libvirt":          10,
	"udev and kmod":    10,
	"chrony":           1,
	"storage tools":    4,
	"shared libraries": 60,
	"modules":          260,
	"firmware":         24,
	"demo guest":       30,

	"root image (erofs)":        170,
	"hash tree (verity)":        2,
	"stage 1 initramfs":         16,
	"microcode":                 24,
	"host.efi":                  52,
	"rescue.efi":                60,
	"PXE bytes (UKI+root+hash)": 200,
}

// Row is one line of the table.
type Row struct {
	Name  string
	Bytes int64
	Limit float64 // MiB; 0 for the details of a group
}

// Table makes the rows for sizes by component; a detail "group: x" follows its
// group's sum.
func Table(sizes map[string]int64) []Row {
	sums, details := map[string]int64{}, map[string][]Row{}
	for name, n := range sizes {
		group, _, isDetail := strings.Cut(name, ": ")
		sums[group] += n
		if isDetail {
			details[group] = append(details[group], Row{Name: name, Bytes: n})
		}
	}
	var rows []Row
	for group, n := range sums {
		rows = append(rows, Row{Name: group, Bytes: n, Limit: Limits[group]})
	}
	bySize := func(a, b Row) int {
		if a.Bytes != b.Bytes {
			return int(b.Bytes - a.Bytes)
		}
		return strings.Compare(a.Name, b.Name)
	}
	slices.SortFunc(rows, bySize)
	var out []Row
	for _, r := range rows {
		slices.SortFunc(details[r.Name], bySize)
		out = append(append(out, r), details[r.Name]...)
	}
	return out
}

// Format writes rows as text, details indented.
func Format(title string, rows []Row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-34s %10s %8s\n", title, "MiB", "limit")
	for _, r := range rows {
		name, limit := r.Name, ""
		if _, detail, ok := strings.Cut(name, ": "); ok {
			name = "  " + detail
		} else if r.Limit > 0 {
			limit = fmt.Sprintf("%8.0f", r.Limit)
		}
		fmt.Fprintf(&b, "%-34s %10.2f %8s\n", name, MiB(r.Bytes), limit)
	}
	return b.String()
}

// Check returns an error that names every part above its limit or without one.
func Check(rows []Row) error {
	var over []string
	for _, r := range rows {
		if strings.Contains(r.Name, ": ") {
			continue
		}
		switch {
		case r.Limit == 0:
			over = append(over, fmt.Sprintf("%s has no limit", r.Name))
		case MiB(r.Bytes) > r.Limit:
			over = append(over, fmt.Sprintf("%s weighs %.1f MiB, limit %.0f", r.Name, MiB(r.Bytes), r.Limit))
		}
	}
	if len(over) > 0 {
		return fmt.Errorf("size budget: %s", strings.Join(over, "; "))
	}
	return nil
}

// MiB converts bytes.
func MiB(n int64) float64 { return float64(n) / mib }
