package qcow2

import (
	"bytes"
	"compress/flate"
	"io"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

// compressed checks a cluster that is packed. Its length is told in sectors, of which
// the last need not be there to its end: what is there is unpacked then, to see whether
// it is enough.
func (m *image) compressed(e, off uint64) error {
	split := 62 - (bits.TrailingZeros64(uint64(m.cluster)) - 8)
	at := e & (1<<split - 1)
	end := at&^(sector-1) + (e&(isCompressed-1)>>split+1)*sector
	lacks := int64(end) - m.length
	switch {
	case at >= uint64(m.length) || lacks >= sector:
		return malformed("it ends after %d bytes, and the disk's byte %d lies at %d, packed", m.length, off, at)
	case lacks <= 0:
		return nil
	}
	b := make([]byte, m.length-int64(at))
	if err := m.read(b, int64(at)); err != nil {
		return err
	}
	if err := m.unpack(b, int64(min(uint64(m.cluster), m.size-off))); err != nil {
		return malformed("it ends after %d bytes, and the disk's byte %d, packed at %d, is not whole: %v", m.length, off, at, err)
	}
	return nil
}

// unpack reports whether b unpacks to so many bytes.
func (m *image) unpack(b []byte, n int64) error {
	var r io.Reader = flate.NewReader(bytes.NewReader(b))
	if m.zstd {
		z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(16<<20))
		if err != nil {
			return err
		}
		defer z.Close()
		r = z
	}
	_, err := io.CopyN(io.Discard, r, n)
	return err
}
