package storage

import (
	"strconv"
	"strings"
)

// mountPoints returns the mount points a /proc/self/mountinfo lists.
func mountPoints(info string) map[string]bool {
	points := map[string]bool{}
	for line := range strings.Lines(info) {
		// The fifth field, after id, parent, device and root.
		if fields := strings.Fields(line); len(fields) > 4 {
			points[unescape(fields[4])] = true
		}
	}
	return points
}

// unescape undoes the kernel's octal escapes of blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
