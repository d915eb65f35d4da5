package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"

	"cairn/toolstack/transfer/disk"
)

// inPieces tells whether what comes is not the disk's bytes from the first to the last,
// but pieces of them that say where they belong. It has nothing to do with HTTP's chunks.
func inPieces(q url.Values) bool {
	switch q.Get("chunked") {
	case "", "false", "0":
		return false
	}
	return true
}

// readPieces writes pieces to the disk and leaves all else of it alone. Before each one
// stand its place in 8 bytes and its length in 4, little-endian; one of no bytes at 0 is
// the end.
func readPieces(in *incoming) error {
	buf := make([]byte, disk.Piece)
	for {
		head := buf[:12]
		if _, err := io.ReadFull(in.body, head); err != nil {
			return cut(err)
		}
		off, left := binary.LittleEndian.Uint64(head), int64(binary.LittleEndian.Uint32(head[8:]))
		switch {
		case off == 0 && left == 0:
			return nil
		case off > uint64(in.d.Size()) || left > in.d.Size()-int64(off):
			at := min(off, uint64(math.MaxInt64-left)) // no size is larger than its end
			return in.tooLarge(int64(at) + left)
		}
		for at := int64(off); left > 0; {
			b := buf[:min(left, disk.Piece)]
			if _, err := io.ReadFull(in.body, b); err != nil {
				return cut(err)
			}
			if err := in.sink.Write(b, at); err != nil {
				return err
			}
			at, left = at+int64(len(b)), left-int64(len(b))
		}
		in.progress(float64(off) / float64(in.d.Size()))
	}
}

// cut is the end of a stream in the middle of what it had to say.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: it ends without an end", io.ErrUnexpectedEOF)
	}
	return refuse(err)
}
