// Package coding sends disks over HTTP without their zeros: as zstd, the content coding
// of RFC 8878, of which a Writer uses just the blocks that hold bytes as they are and
// those that say how often one byte follows. That costs neither side any computing, and
// every client that knows zstd can read it.
//
// What is kept: a stream is one frame that says how many bytes it holds, behind a frame to
// be skipped that names its kind, by which a Reader knows that it need not unpack anything
// and may tell of holes instead of making zeros. Any other zstd is unpacked, in a window
// of 8 MiB at most. A stream is whole when its last block has come, it holds what it said
// and nothing follows; one that ends before is io.ErrUnexpectedEOF, also between two frames
// where its source knows that more was to come, and one that is no zstd ErrFormat. What a
// stream of few bytes claims to hold is bounded by whoever reads it.
//
// Writers and Readers are for one goroutine each.
package coding

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
)

// Name is the coding's, in headers of HTTP.
const Name = "zstd"

// block is the most that one holds: what the format allows in its smallest window that
// does so.
const block = 128 << 10

// Types of blocks, in the second and third bit of their heads.
const (
	stored   = 0 << 1 // bytes as they are
	repeated = 1 << 1 // one byte, so many times
	last     = 1
	kinds    = 3 << 1
)

// kind is what streams of a Writer begin with: the frame to be skipped, and the head of
// the frame up to its size of 8 bytes; its window is one block, and it has no checksum.
var kind = func() []byte {
	const name = "cairn: stored"
	b := binary.LittleEndian.AppendUint32(nil, 0x184d2a5c)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(name)))
	b = append(b, name...)
	b = binary.LittleEndian.AppendUint32(b, 0xfd2fb528)
	return append(b, 3<<6, 7<<3)
}()

// begin is the head of a stream that holds so many bytes.
func begin(size int64) []byte {
	return binary.LittleEndian.AppendUint64(bytes.Clone(kind), uint64(size))
}

// putHead writes the three bytes before a block.
func putHead(b []byte, kind, size int) {
	h := kind | size<<3
	b[0], b[1], b[2] = byte(h), byte(h>>8), byte(h>>16)
}

// Accepted tells whether an Accept-Encoding header asks for the coding by name.
func Accepted(header string) bool {
	for _, part := range strings.Split(header, ",") {
		name, params, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), Name) {
			return wanted(params)
		}
	}
	return false
}

// wanted is false where the weight is zero.
func wanted(params string) bool {
	for _, p := range strings.Split(params, ";") {
		if name, value, _ := strings.Cut(p, "="); strings.EqualFold(strings.TrimSpace(name), "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return err == nil && q > 0
		}
	}
	return true
}
