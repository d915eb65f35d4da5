// Package inventory reads what hardware a host has from sysfs and procfs.
//
// It only reads, keeps nothing, and never fails as a whole: what a driver does
// not say is left empty, because an inventory with holes is worth more than
// none. All functions are safe for concurrent use.
package inventory

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Source is where to read; tests point it at fixtures.
type Source struct {
	Sys  string // normally /sys
	Proc string // normally /proc
}

// text reads a one-line attribute; a missing one is empty.
func text(elem ...string) string {
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// number reads a numeric attribute; a missing or strange one is 0.
func number(elem ...string) int64 {
	n, err := strconv.ParseInt(text(elem...), 0, 64)
	if err != nil {
		return 0
	}
	return n
}

// link returns the last element of what a symlink points to.
func link(elem ...string) string {
	target, err := os.Readlink(filepath.Join(elem...))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Name()
	}
	return out
}
