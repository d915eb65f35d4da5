// Package mountinfo reads /proc/<pid>/mountinfo.
//
// A line that is not understood is passed over: at shutdown the rest must still
// be unmounted.
package mountinfo

import (
	"bytes"
	"strings"
)

// Mount is one mount, in the kernel's order: a later one may lie on an earlier.
type Mount struct {
	Path   string
	Type   string
	Source string
	// Options are those of the mount, not of the file system.
	Options string
}

// ReadOnly says whether this mount can be written.
func (m Mount) ReadOnly() bool {
	return m.Options == "ro" || strings.HasPrefix(m.Options, "ro,")
}

// Stored says whether the mount may hold data that has to reach a disk or a
// server: everything that is not made up by the kernel.
func (m Mount) Stored() bool { return !pseudo[m.Type] }

var pseudo = map[string]bool{
	"autofs": true, "binfmt_misc": true, "bpf": true, "cgroup": true, "cgroup2": true, "configfs": true,
	"debugfs": true, "devpts": true, "devtmpfs": true, "efivarfs": true, "fusectl": true, "hugetlbfs": true,
	"mqueue": true, "nsfs": true, "proc": true, "pstore": true, "ramfs": true, "rootfs": true,
	"rpc_pipefs": true, "securityfs": true, "sysfs": true, "tmpfs": true, "tracefs": true,
}

// Parse reads the file:
//
//	36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/sda1 rw
func Parse(data []byte) []Mount {
	var out []Mount
	for line := range bytes.Lines(data) {
		before, after, ok := strings.Cut(string(line), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 2 {
			continue
		}
		out = append(out, Mount{Path: unescape(f[4]), Options: f[5], Type: g[0], Source: unescape(g[1])})
	}
	return out
}

// unescape undoes the octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c, ok := octal(s[i:]); ok {
			b.WriteByte(c)
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(s string) (byte, bool) {
	if len(s) < 4 || s[0] != '\\' {
		return 0, false
	}
	n := 0
	for _, c := range s[1:4] {
		if c < '0' || c > '7' {
			return 0, false
		}
		n = n*8 + int(c-'0')
	}
	return byte(n), n < 256
}
