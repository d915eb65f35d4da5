package disk_test

import (
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/disk/disktest"
)

// ones is a stream of bytes that are not zero.
type ones struct{}

func (ones) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 1
	}
	return len(p), nil
}

// medium is a disk that is slow to say that what it holds will stay.
type medium struct {
	*disktest.Memory
	flush func() error
}

func (m medium) Flush() error { return m.flush() }

// TestTheMediumIsAskedMeanwhile: a long stream is brought onto the medium while it
// comes, without waiting for that, and not twice at once.
func TestTheMediumIsAskedMeanwhile(t *testing.T) {
	const size = 80 << 20
	begun, release, under := make(chan struct{}, 100), make(chan struct{}), atomic.Int32{}
	m := medium{disktest.New(size), func() error {
		if under.Add(1) > 1 {
			t.Error("it is asked twice at once")
		}
		begun <- struct{}{}
		<-release
		under.Add(-1)
		return nil
	}}
	s := disk.NewSink(t.Context(), m)
	if n, err := s.Copy(io.LimitReader(ones{}, size), func(int64) {}); n != size || err != nil {
		t.Error(n, err) // though the first answer has not come
	}
	<-begun
	close(release)
	if err := s.Finish(); err != nil || len(begun) == 0 {
		t.Errorf("%v; at the end it was asked %d times", err, len(begun))
	}
}

// TestTheMediumFailsMeanwhile: what it says then ends the stream.
func TestTheMediumFailsMeanwhile(t *testing.T) {
	const size = 1 << 30
	fire := errors.New("the disk is on fire")
	m := disktest.New(size)
	m.Fail = func(what string, _ int64) error {
		if what == "flush" {
			return fire
		}
		return nil
	}
	s := disk.NewSink(t.Context(), m)
	n, err := s.Copy(io.LimitReader(ones{}, size), func(int64) {})
	if !errors.Is(err, fire) || n > size/2 || !errors.Is(s.Finish(), fire) {
		t.Errorf("after %d bytes: %v", n, err)
	}
}
