package disk

import (
	"context"
	"io"
	"iter"
	"sync"
)

// Piece is how much a stream reads or writes at once, and ahead how many of them: all
// the memory that a stream takes of a disk.
const (
	Piece = 2 << 20
	ahead = 4
)

// piece is a part of a disk on its way.
type piece struct {
	Extent
	buf  []byte // as large as Piece
	err  error
	done chan struct{}
}

// Read calls f for parts of a disk in the order of the extents, in pieces that it reads
// ahead; data is nil for those that read as zeros, and good until f returns. It ends
// with the first error, or when the context does.
func Read(ctx context.Context, d io.ReaderAt, extents iter.Seq2[Extent, error], f func(e Extent, data []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	free, queue := make(chan []byte, ahead), make(chan *piece, ahead)
	for range ahead {
		free <- nil // made when it is needed
	}
	var reads sync.WaitGroup
	defer reads.Wait()
	defer cancel()
	reads.Go(func() {
		defer close(queue)
		fetch(ctx, d, extents, free, queue, &reads)
	})
	for p := range queue {
		<-p.done
		if p.err == nil {
			p.err = context.Cause(ctx)
		}
		var data []byte
		if !p.Zero && p.err == nil {
			data = p.buf[:p.Len]
		}
		if p.err == nil {
			p.err = f(p.Extent, data)
		}
		if p.err != nil {
			return p.err
		}
		free <- p.buf
	}
	return context.Cause(ctx)
}

// fetch begins to read the pieces that there is room for, in order.
func fetch(ctx context.Context, d io.ReaderAt, extents iter.Seq2[Extent, error], free <-chan []byte, queue chan<- *piece, reads *sync.WaitGroup) {
	send := func(e Extent, err error) bool {
		p := &piece{Extent: e, err: err, done: make(chan struct{})}
		select {
		case p.buf = <-free:
		case <-ctx.Done():
			return false
		}
		queue <- p // there is room: each has a buffer
		if e.Zero || err != nil {
			close(p.done)
			return err == nil
		}
		if p.buf == nil {
			p.buf = make([]byte, Piece)
		}
		reads.Go(func() {
			defer close(p.done)
			_, p.err = d.ReadAt(p.buf[:p.Len], p.Off)
		})
		return true
	}
	for e, err := range extents {
		if err != nil {
			send(Extent{}, err)
			return
		}
		for left := e; left.Len > 0; {
			next := left
			if !left.Zero {
				next.Len = min(Piece-left.Off%Piece, left.Len)
			}
			if !send(next, nil) {
				return
			}
			left.Off, left.Len = next.End(), left.End()-next.End()
		}
	}
}
