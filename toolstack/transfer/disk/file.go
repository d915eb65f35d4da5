package disk

import (
	"context"
	"errors"
	"io"
	"os"
)

// Save writes a stream into a new file. Runs of zeros become holes, and when it returns
// without an error the file is on its medium.
func Save(ctx context.Context, f *os.File, r io.Reader) error {
	s := NewSink(ctx, empty{f})
	n, err := s.Copy(r, func(int64) {})
	if err == nil {
		err = f.Truncate(n) // it may end with zeros
	}
	return errors.Join(err, s.Finish())
}

// empty is a new file as a device of any size, of which all that was not written reads
// as zeros.
type empty struct{ *os.File }

var _ Device = empty{}

// Size implements Device.
func (empty) Size() int64 { return 1 << 62 }

// Extents implements Device: a stream writes each place once.
func (empty) Extents(_ context.Context, off, n int64) ([]Extent, error) {
	return []Extent{{Off: off, Len: n, Zero: true}}, nil
}

// WriteAt implements Device. What it has written is on its way to the medium.
func (e empty) WriteAt(p []byte, off int64) (int, error) {
	n, err := e.File.WriteAt(p, off)
	begin(e.File, off, int64(n))
	return n, err
}

// Zero implements Device.
func (empty) Zero(int64, int64) error { return nil }

// Flush implements Device.
func (e empty) Flush() error { return e.Sync() }
