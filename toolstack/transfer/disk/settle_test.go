package disk_test

import (
	"bytes"
	"context"
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

// late is a disk that holds writes up.
type late struct {
	*disktest.Memory
	write func(off int64)
}

func (l late) WriteAt(p []byte, off int64) (int, error) {
	l.write(off)
	return l.Memory.WriteAt(p, off)
}

// TestWritesOvertake: what was taken first need not be written first.
func TestWritesOvertake(t *testing.T) {
	const size = 5*disk.Piece + 512
	want := content("full", size)
	second := make(chan struct{})
	d := late{disktest.New(size), func(off int64) {
		switch off {
		case 0:
			<-second
		case disk.Piece:
			close(second)
		}
	}}
	s := disk.NewSink(t.Context(), d)
	if n, err := s.Copy(bytes.NewReader(want), func(int64) {}); n != size || errors.Join(err, s.Finish()) != nil || !bytes.Equal(d.Bytes(), want) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestASlowDiskHoldsAStreamUp: no more is taken than there is room for, and a stream
// that is cancelled meanwhile ends.
func TestASlowDiskHoldsAStreamUp(t *testing.T) {
	const size, room = 1 << 30, 4
	begun, release, taken := make(chan int64, 100), make(chan struct{}), atomic.Int64{}
	d := late{disktest.New(size), func(off int64) { begun <- off; <-release }}
	ctx, cancel := context.WithCancelCause(t.Context())
	why, ended := errors.New("the task was cancelled"), make(chan error, 1)
	s := disk.NewSink(ctx, d)
	go func() {
		_, err := s.Copy(io.TeeReader(ones{}, counter{&taken}), func(int64) {})
		ended <- err
	}()
	for range room {
		<-begun
	}
	if n := taken.Load(); n != room*disk.Piece {
		t.Errorf("%d bytes are taken", n)
	}
	cancel(why)
	close(release)
	if err := <-ended; !errors.Is(err, why) || !errors.Is(s.Finish(), why) || taken.Load() > (room+1)*disk.Piece {
		t.Errorf("%v, %d bytes were taken", err, taken.Load())
	}
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }

// TestTheMediumIsAskedMeanwhile: a long stream is brought onto the medium while it
// comes, without waiting for that, and not twice at once.
func TestTheMediumIsAskedMeanwhile(t *testing.T) {
	const size = 160 << 20
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
