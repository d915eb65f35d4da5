package storage

import (
	"strconv"
	"strings"
)

// mountPoints returns what a /proc/self/mountinfo lists: the source of the last
// mount at each point.
func mountPoints(info string) map[string]string {
	points := map[string]string{}
	for line := range strings.Lines(info) {
		before, after, ok := strings.Cut(line, " - ")
		// The point is the fifth field, after id, parent, device and root;
		// behind the dash stand file system and source.
		head, tail := strings.Fields(before), strings.Fields(after)
		if ok && len(head) > 4 && len(tail) > 1 {
			points[unescape(head[4])] = unescape(tail[1])
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
