package storagetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"io"
	"net"
	"slices"
	"syscall"

	"cairn/init/hostd/client"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/disk/disktest"
	"cairn/toolstack/transfer/nbd"
	"cairn/toolstack/transfer/nbd/nbdtest"
)

// Lent is how many volumes are lent out.
func (h *Hostd) Lent() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.media {
		for _, v := range m.volumes {
			n += v.readers + v.writers
		}
	}
	return n
}

// ExportVolume implements storage.Hostd. What is written before a loan ends is there;
// the verbs read-bytes and write-bytes, and flush, can be made to fail.
func (h *Hostd) ExportVolume(ctx context.Context, sr, name string, req client.ExportRequest) (*client.Lent, error) {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "export", sr, name); err != nil {
		return nil, err
	}
	m, v, err := h.volume(ctx, sr, name)
	if err != nil {
		return nil, err
	}
	layers, err := m.layers(v, req.Layers)
	switch {
	case err != nil:
		return nil, err
	case v.writers > 0 || req.Writable && v.readers > 0:
		return nil, refuse(client.CodeInUse, "volume "+name+" is lent out")
	case req.Writable && (v.Active || v.ReadOnly || len(m.children(name)) > 0):
		return nil, refuse(client.CodeInUse, "volume "+name+" cannot be written to")
	}
	users := &v.readers
	if req.Writable {
		users = &v.writers
	}
	*users++
	mine, its := net.Pipe()
	b := &lent{h: h, m: m, v: v, sr: sr}
	served := disk.Device(b)
	if req.As == client.Qcow2 {
		if served, err = inside(b.all()); err != nil {
			*users--
			return nil, err
		}
	}
	ended := make(chan error, 1)
	go func() {
		err := nbdtest.Serve(its, nbdtest.Export{Device: served, ReadOnly: !req.Writable, Status: map[string]func(int64, int64) []nbdtest.Run{nbd.Depth: b.depth}})
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil // he has gone without a word
		}
		h.mu.Lock()
		*users--
		h.mu.Unlock()
		ended <- errors.Join(err, its.Close())
	}()
	return client.NewLent(mine, layers, func() error { return <-ended }), nil
}

// layers are the names of a volume and those it reads through, which others have named.
func (m *medium) layers(v *volume, known []string) ([]string, error) {
	out := []string{v.Name}
	for below := v.Backing; below != ""; below = m.volumes[below].Backing {
		if !slices.Contains(known, below) {
			return nil, refuse(client.CodeDamaged, "volume "+v.Name+" reads through "+below)
		}
		out = append(out, below)
	}
	return out, nil
}

// lent is a volume's bytes.
type lent struct {
	h  *Hostd
	m  *medium
	v  *volume
	sr string
}

var _ disk.Device = (*lent)(nil)

// bytesOf is what a cluster of a value holds: what was written, or the value over and
// over.
func (h *Hostd) bytesOf(value uint64) []byte {
	if b, ok := h.bytes[value]; ok || value == 0 {
		return append(make([]byte, 0, Cluster), b...)[:Cluster]
	}
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, value), Cluster/8)
}

var seed = maphash.MakeSeed()

// valueOf is the value of a cluster with these bytes.
func (h *Hostd) valueOf(b []byte) uint64 {
	if bytes.Equal(b[8:], b[:len(b)-8]) { // the same over and over
		return binary.BigEndian.Uint64(b)
	}
	value := maphash.Bytes(seed, b)
	if h.bytes == nil {
		h.bytes = map[uint64][]byte{}
	}
	h.bytes[value] = bytes.Clone(b)
	return value
}

// read is the value of a cluster as the volume reads it, and the layer it is in.
func (l *lent) read(at int64) (value uint64, depth uint32) {
	for v := l.v; v != nil; v = l.m.volumes[v.Backing] {
		depth++
		if value, ok := v.clusters[at]; ok {
			return value, depth
		}
	}
	return 0, 0
}

// Size implements disk.Device.
func (l *lent) Size() int64 { return l.v.VirtualSize }

// each calls f for the part of each cluster that [off, off+n) touches.
func each(off, n int64, f func(cluster, from, to, at int64) error) error {
	for at := int64(0); at < n; {
		from := (off + at) % Cluster
		to := min(Cluster, from+n-at)
		if err := f((off+at)/Cluster, from, to, at); err != nil {
			return err
		}
		at += to - from
	}
	return nil
}

// ReadAt implements disk.Device.
func (l *lent) ReadAt(p []byte, off int64) (int, error) {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	err := errors.Join(l.h.step("read-bytes", l.sr, l.v.Name), disk.Within(off, int64(len(p)), l.v.VirtualSize))
	if err != nil {
		return 0, err
	}
	return len(p), each(off, int64(len(p)), func(cluster, from, to, at int64) error {
		value, _ := l.read(cluster)
		copy(p[at:], l.h.bytesOf(value)[from:to])
		return nil
	})
}

// WriteAt implements disk.Device.
func (l *lent) WriteAt(p []byte, off int64) (int, error) {
	return len(p), l.change(off, int64(len(p)), func(b []byte, at int64) { copy(b, p[at:]) })
}

// Zero implements disk.Device.
func (l *lent) Zero(off, n int64) error {
	return l.change(off, n, func(b []byte, _ int64) { clear(b) })
}

func (l *lent) change(off, n int64, put func(b []byte, at int64)) error {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	err := errors.Join(l.h.step("write-bytes", l.sr, l.v.Name), disk.Within(off, n, l.v.VirtualSize))
	if err != nil {
		return err
	}
	return each(off, n, func(cluster, from, to, at int64) error {
		value, _ := l.read(cluster)
		b := l.h.bytesOf(value)
		put(b[from:to], at)
		if l.m.put(l.v, cluster, l.h.valueOf(b)) != nil {
			return syscall.ENOSPC
		}
		return nil
	})
}

// Flush implements disk.Device.
func (l *lent) Flush() error {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	return l.h.step("flush", l.sr, l.v.Name)
}

// Close implements disk.Device.
func (l *lent) Close() error { return nil }

// Extents implements disk.Device.
func (l *lent) Extents(_ context.Context, off, n int64) (list []disk.Extent, err error) {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	return list, each(off, n, func(cluster, from, to, at int64) error {
		value, _ := l.read(cluster)
		list = disk.Append(list, disk.Extent{Off: off + at, Len: to - from, Zero: value == 0})
		return nil
	})
}

func (l *lent) depth(off, n int64) (runs []nbdtest.Run) {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	_ = each(off, n, func(cluster, from, to, _ int64) error {
		_, depth := l.read(cluster)
		if last := len(runs) - 1; last >= 0 && runs[last].Flags == depth {
			runs[last].Len += to - from
		} else {
			runs = append(runs, nbdtest.Run{Len: to - from, Flags: depth})
		}
		return nil
	})
	return runs
}

// all is the volume's bytes; it needs h.mu.
func (l *lent) all() []byte {
	b := make([]byte, l.v.VirtualSize)
	for at := range int64(len(b)+Cluster-1) / Cluster {
		value, _ := l.read(at)
		copy(b[at*Cluster:], l.h.bytesOf(value))
	}
	return b
}

// inside is the content of a qcow2 image of clusters of 64 KiB that others have made.
func inside(image []byte) (disk.Device, error) {
	const offset, perTable = 1<<56 - 1, Cluster / 8
	be := binary.BigEndian
	if be.Uint32(image) != 0x514649fb || be.Uint64(image[8:]) != 0 {
		return nil, refuse(client.CodeDamaged, "it holds no image, or one that is based on another")
	}
	out := make([]byte, be.Uint64(image[24:]))
	l1 := image[be.Uint64(image[40:]):]
	for i := range int64(be.Uint32(image[36:])) {
		table := be.Uint64(l1[8*i:]) & offset
		for j := int64(0); table != 0 && j < perTable; j++ {
			if c := be.Uint64(image[table+uint64(8*j):]) & offset; c != 0 {
				copy(out[(i*perTable+j)*Cluster:], image[c:c+Cluster])
			}
		}
	}
	return disktest.Of(out), nil
}
