package changes

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// A log is a map as it is kept: magic, block size, size of the disk, all in big endian,
// the bits, and the SHA-256 of all that.
const (
	magic  = "CAIRNCB1"
	header = len(magic) + 4 + 8
)

// ErrDamaged is a log that is not what was written.
var ErrDamaged = errors.New("log of changed blocks is damaged")

// Encode is a map as a log.
func (m *Map) Encode() []byte {
	out := make([]byte, 0, header+len(m.bits)+sha256.Size)
	out = append(out, magic...)
	out = binary.BigEndian.AppendUint32(out, Block)
	out = binary.BigEndian.AppendUint64(out, uint64(m.size))
	out = append(out, m.bits...)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

// Decode reads a log. What may follow it is the rounding of what it is kept in, and
// zero.
func Decode(b []byte) (*Map, error) {
	if len(b) < header+sha256.Size || string(b[:len(magic)]) != magic {
		return nil, ErrDamaged
	}
	block, size := binary.BigEndian.Uint32(b[len(magic):]), binary.BigEndian.Uint64(b[len(magic)+4:])
	if block != Block || size > MaxSize {
		return nil, fmt.Errorf("%w: blocks of %d bytes, disk of %d", ErrDamaged, block, size)
	}
	end := header + int(Bytes(int64(size)))
	if len(b) < end+sha256.Size || len(bytes.TrimRight(b[end+sha256.Size:], "\x00")) > 0 {
		return nil, fmt.Errorf("%w: %d bytes of %d", ErrDamaged, len(b), end+sha256.Size)
	}
	if sum := sha256.Sum256(b[:end]); !bytes.Equal(sum[:], b[end:end+sha256.Size]) {
		return nil, fmt.Errorf("%w: its sum is wrong", ErrDamaged)
	}
	m, err := FromBits(int64(size), bytes.Clone(b[header:end]))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return m, nil
}
