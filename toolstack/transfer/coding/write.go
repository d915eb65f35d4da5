package coding

import (
	"fmt"
	"io"
)

// Writer writes a stream.
type Writer struct {
	w     io.Writer
	size  int64
	done  int64 // of it
	begun bool
	head  [4]byte
}

// NewWriter begins a stream that is to hold so many bytes.
func NewWriter(w io.Writer, size int64) *Writer { return &Writer{w: w, size: size} }

// start writes what comes before the first block.
func (w *Writer) start() error {
	if w.begun {
		return nil
	}
	w.begun = true
	_, err := w.w.Write(begin(w.size))
	return err
}

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (n int, err error) {
	if err := w.start(); err != nil {
		return 0, err
	}
	for len(p) > 0 {
		k := min(block, len(p))
		putHead(w.head[:], stored, k)
		if _, err := w.w.Write(w.head[:3]); err != nil {
			return n, err
		}
		k, err := w.w.Write(p[:k])
		w.done += int64(k)
		if n += k; err != nil {
			return n, err
		}
		p = p[k:]
	}
	return n, nil
}

// many zeros are written at once, in blocks of four bytes.
const many = 1024

// Zero writes n zeros.
func (w *Writer) Zero(n int64) error {
	if err := w.start(); err != nil {
		return err
	}
	w.done += n
	b := make([]byte, 0, 4*min(many, n/block+1))
	for n > 0 {
		k := min(block, n)
		b = append(b, 0, 0, 0, 0)
		putHead(b[len(b)-4:], repeated, int(k))
		if n -= k; n == 0 || len(b) == 4*many {
			if _, err := w.w.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	return nil
}

// Close ends the stream; what it is written to stays open.
func (w *Writer) Close() error {
	if err := w.start(); err != nil {
		return err
	}
	if w.done != w.size {
		return fmt.Errorf("%d bytes were written of %d", w.done, w.size)
	}
	putHead(w.head[:], stored|last, 0)
	_, err := w.w.Write(w.head[:3])
	return err
}
