package disk_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/disk/disktest"
)

// content is a disk's: full, sparse or empty.
func content(kind string, size int64) []byte {
	b, r := make([]byte, size), rand.New(rand.NewPCG(1, uint64(size)))
	if kind == "full" {
		rand.NewChaCha8([32]byte{}).Read(b)
		return b
	}
	for at := int64(0); at < size && kind != "empty"; at += 512 {
		if r.IntN(300) == 0 {
			for i := at; i < min(at+512, size); i++ {
				b[i] = byte(r.Uint32()) | 1
			}
		}
	}
	return b
}

// read is what disk.Read makes of a disk, and how much of it came as zeros.
func read(ctx context.Context, d disk.Device) (got []byte, holes int64, err error) {
	err = disk.Read(ctx, d, disk.All(ctx, d), func(e disk.Extent, data []byte) error {
		if e.Off != int64(len(got)) || !e.Zero && int64(len(data)) != e.Len || e.Zero && data != nil {
			return errors.New("out of order")
		}
		if e.Zero {
			data, holes = make([]byte, e.Len), holes+e.Len
		}
		got = append(got, data...)
		return nil
	})
	return got, holes, err
}

func TestRoundTrip(t *testing.T) {
	for _, kind := range []string{"full", "sparse", "empty"} {
		for _, size := range []int64{512, disk.Piece, 2*disk.Piece + 1024} {
			want := content(kind, size)
			before := disktest.Of(want)
			got, holes, err := read(t.Context(), before)
			if err != nil || !bytes.Equal(got, want) || kind == "empty" && holes != size {
				t.Errorf("%s %d: %d bytes, %d zeros, %v", kind, size, len(got), holes, err)
			}
			after := disktest.Of(content("full", size))
			s := disk.NewSink(t.Context(), after)
			var last int64
			n, err := s.Copy(iotest.OneByteReader(bytes.NewReader(want[:min(size, 1000)])), func(n int64) { last = n })
			if err != nil || n != min(size, 1000) || last != n {
				t.Errorf("%s %d: %d written, %d told, %v", kind, size, n, last, err)
			}
			if _, err := s.Copy(bytes.NewReader(want), func(int64) {}); err != nil || s.Finish() != nil {
				t.Errorf("%s %d: %v", kind, size, err)
			}
			if !bytes.Equal(after.Bytes(), want) || after.Held() != before.Held() || after.Flushed() != 1 {
				t.Errorf("%s %d: %d bytes are held, want %d, flushed %d times", kind, size, after.Held(), before.Held(), after.Flushed())
			}
		}
	}
}

// TestAllTwice: what tells the extents of a disk may be asked again.
func TestAllTwice(t *testing.T) {
	m := disktest.New(3 << 30)
	all := disk.All(t.Context(), m)
	for range 2 {
		end := int64(0)
		for e, err := range all {
			if err != nil || e.Off != end {
				t.Fatal(e, err)
			}
			end = e.End()
		}
		if end != m.Size() {
			t.Errorf("it ends at %d", end)
		}
	}
}

func TestNothingIsWrittenOverZeros(t *testing.T) {
	m := disktest.New(1 << 40)
	m.Fail = func(what string, _ int64) error {
		if what == "zero" || what == "write" {
			return errors.New("it was written to")
		}
		return nil
	}
	s := disk.NewSink(t.Context(), m)
	if err := errors.Join(s.Write(make([]byte, 5<<20), 7), s.Zero(0, 1<<40), s.Finish()); err != nil {
		t.Error(err)
	}
}

func TestErrorsEndAStream(t *testing.T) {
	fire := errors.New("the disk is on fire")
	for _, what := range []string{"read", "write", "zero", "extents", "flush"} {
		m := disktest.Of(content("full", 7<<20))
		m.Fail = func(w string, off int64) error {
			if w == what && (off > 3<<20 || what == "flush" || what == "extents") {
				return fire
			}
			return nil
		}
		_, _, err := read(t.Context(), m)
		if want := what == "read" || what == "extents"; errors.Is(err, fire) != want {
			t.Errorf("reading, %s fails: %v", what, err)
		}
		s := disk.NewSink(t.Context(), m)
		_, err = s.Copy(io.LimitReader(half{}, 7<<20), func(int64) {})
		if err = errors.Join(err, s.Finish()); errors.Is(err, fire) != (what != "read") {
			t.Errorf("writing, %s fails: %v", what, err)
		}
	}
	m := disktest.New(1 << 20)
	s := disk.NewSink(t.Context(), m)
	if _, err := s.Copy(bytes.NewReader(make([]byte, 1<<20+1)), func(int64) {}); !errors.Is(err, disk.ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
	if _, err := s.Copy(iotest.ErrReader(io.ErrUnexpectedEOF), func(int64) {}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a stream that was cut: %v", err)
	}
	if err := s.Write(make([]byte, 2), 1<<20-1); err == nil {
		t.Error("bytes behind the end are taken")
	}
}

// half is a stream of data and zeros.
type half struct{}

func (half) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i >> 17)
	}
	return len(p), nil
}

func TestContextEndsAStream(t *testing.T) {
	m := disktest.Of(content("full", 7<<20))
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the task was cancelled")
	err := disk.Read(ctx, m, disk.All(ctx, m), func(e disk.Extent, _ []byte) error {
		if e.Off > 4<<20 {
			t.Error("it goes on")
		}
		if e.Off == 4<<20 {
			cancel(why)
		}
		return nil
	})
	if !errors.Is(err, why) {
		t.Error(err)
	}
	s := disk.NewSink(ctx, m)
	if err := s.Write(make([]byte, 1), 0); !errors.Is(err, why) || !errors.Is(s.Finish(), why) {
		t.Error(err)
	}
}

// TestBlank: a byte that is not zero is seen wherever it stands.
func TestBlank(t *testing.T) {
	for _, n := range []int{0, 1, 7, 64 << 10, 64<<10 + 1, 200_000} {
		b := make([]byte, n)
		if !disk.Blank(b) {
			t.Errorf("%d zeros are not", n)
		}
		for _, at := range []int{0, n / 2, 64<<10 - 1, 64 << 10, n - 1} {
			if at < 0 || at >= n {
				continue
			}
			if b[at] = 1; disk.Blank(b) {
				t.Errorf("%d bytes: the one at %d is not seen", n, at)
			}
			b[at] = 0
		}
	}
}
