//go:build lab

package qcow2

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn/image/debian/debiantest"
)

// TestRealQEMU has QEMU check and read what is written here.
func TestRealQEMU(t *testing.T) {
	qemu := debiantest.Program(t, "qemu-img")
	image, raw := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "raw")
	for _, size := range []int64{512, 5*ClusterSize + 512, perTable*ClusterSize + 1024} {
		b := disk(size)
		must(t, os.WriteFile(image, write(t, b), 0o600))
		qemu("check", "-f", "qcow2", image)
		qemu("convert", "-f", "qcow2", "-O", "raw", image, raw)
		if got, err := os.ReadFile(raw); err != nil || !bytes.Equal(got, b) {
			t.Errorf("QEMU reads %d bytes as %d others, %v", size, len(got), err)
		}
	}
}

// TestRealCheck: what QEMU writes is whole, and wherever it is cut it is refused or
// reads as before.
func TestRealCheck(t *testing.T) {
	qemu, io := debiantest.Program(t, "qemu-img"), debiantest.Program(t, "qemu-io")
	dir := t.TempDir()
	image, part, raw := filepath.Join(dir, "image"), filepath.Join(dir, "part"), filepath.Join(dir, "raw")
	for _, options := range []string{
		"", "-c", "-c compression_type=zstd", " cluster_size=512", "-c cluster_size=512", "-c cluster_size=2M",
		" extended_l2=on,cluster_size=128k", "-c extended_l2=on", " compat=0.10", "-c compat=0.10", " lazy_refcounts=on",
		" preallocation=metadata", " preallocation=falloc", " preallocation=full", " refcount_bits=1", " refcount_bits=64",
		"snapshot", "snapshot extended_l2=on", "written", "written extended_l2=on",
	} {
		for _, size := range []int64{512, ClusterSize, 5*ClusterSize + 1024, 21 * ClusterSize} {
			b := disk(size)
			must(t, os.WriteFile(raw, b, 0o600))
			how, o, _ := strings.Cut(options, " ")
			args := []string{"convert", "-f", "raw", "-O", "qcow2"}
			if how == "-c" {
				args = append(args, "-c")
			}
			if o != "" {
				args = append(args, "-o", o)
			}
			qemu(append(args, raw, image)...)
			switch how {
			case "snapshot":
				qemu("snapshot", "-c", "before", image)
				qemu("snapshot", "-c", "again", image)
			case "written":
				qemu("create", "-q", "-f", "qcow2", "-o", cmp.Or(o, "compat=1.1"), image, fmt.Sprint(size))
				for at := int64(0); at < size; at += size/3 + 1 {
					io("-f", "qcow2", "-c", fmt.Sprint("write -P 7 ", at/512*512, " 512"), image)
				}
				qemu("convert", "-f", "qcow2", "-O", "raw", image, raw)
				got, err := os.ReadFile(raw)
				must(t, err)
				b = got
			}
			whole, err := os.ReadFile(image)
			must(t, err)
			if err := cut(whole, len(whole)); err != nil {
				t.Errorf("%q of %d bytes: %v", options, size, err)
			}
			for _, lacks := range []int{1, 8, 100, 511, 512, 513, 4096, 30000, 65535, 65536, 70000, 150000, len(whole) / 2} {
				n := len(whole) - lacks
				if n < 0 || cut(whole, n) != nil {
					continue
				}
				must(t, os.WriteFile(part, append(bytes.Clone(whole[:n]), make([]byte, lacks)...), 0o600))
				qemu("convert", "-f", "qcow2", "-O", "raw", part, raw)
				if got, err := os.ReadFile(raw); err != nil || !bytes.Equal(got, b) {
					t.Errorf("%q of %d bytes without the last %d reads as something else: %v", options, size, lacks, err)
				}
			}
		}
	}
}
