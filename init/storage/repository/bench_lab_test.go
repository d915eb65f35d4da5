//go:build lab

package repository

import (
	"fmt"
	"testing"

	"cairn/init/hostd/client"
)

// BenchmarkOverlay is hostd's part of a snapshot.
func BenchmarkOverlay(b *testing.B) {
	m, dir := realManager(b)
	config := fileConfig(dir + "/sr/one")
	_, err := m.Format(b.Context(), srA, config)
	must(b, err)
	_, err = m.Attach(b.Context(), srA, config)
	must(b, err)
	_, err = m.CreateVolume(b.Context(), srA, "base", client.VolumeSpec{Size: 10 << 30, Format: client.Qcow2})
	must(b, err)
	n := 0
	for b.Loop() {
		n++
		_, err := m.CreateVolume(b.Context(), srA, fmt.Sprint("v", n), client.VolumeSpec{Format: client.Qcow2, Backing: "base"})
		must(b, err)
	}
}

// BenchmarkList is a scan of a repository with a thousand volumes.
func BenchmarkList(b *testing.B) {
	f, m := newMachine(b)
	config := fileConfig(f.dir + "/sr/one")
	_, err := m.Format(b.Context(), srA, config)
	must(b, err)
	_, err = m.Attach(b.Context(), srA, config)
	must(b, err)
	for i := range 1000 {
		_, err := m.CreateVolume(b.Context(), srA, fmt.Sprint("v", i), client.VolumeSpec{Size: mib, Format: client.Qcow2, Note: "note"})
		must(b, err)
	}
	for b.Loop() {
		_, err := m.Volumes(b.Context(), srA)
		must(b, err)
	}
}
