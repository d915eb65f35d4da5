package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"cairn/toolstack/transfer/disk"
)

// Bounds of one client: requests that are worked on, bytes that each has in memory,
// bytes and extents of one answer, how far one question about extents looks, and how
// often it is asked whether the client may still read.
const (
	maxWorked  = 4
	piece      = 512 << 10
	maxRead    = 32 << 20
	maxSpans   = 4096
	farthest   = 1 << 30
	aliveEvery = 10 * time.Second

	requestSize = 28
	onlyOne     = 1 << 3 // flag of a question about extents
	chunkFailed = chunkError | 1
	holeFlag    = 1 // of Allocation
)

// lender answers the requests of one client, some at a time.
type lender struct {
	conn       net.Conn
	disk       disk.Device
	alive      func() error
	ctx        context.Context
	idle       time.Duration
	structured bool
	status     bool

	asked time.Time // when it was last asked for alive

	writing sync.Mutex
	broken  error // why no more can be written
}

// request is one.
type request struct {
	flags, kind uint16
	cookie      uint64
	off         int64
	length      uint32
}

// run answers until the client goes.
func (l *lender) run() error {
	var all sync.WaitGroup
	defer all.Wait()
	defer l.conn.Close()
	in := bufio.NewReaderSize(l.conn, 4<<10)
	room := make(chan struct{}, maxWorked)
	for {
		r, err := l.next(in)
		if errors.Is(err, io.EOF) || err == nil && r.kind == cmdDisconnect {
			return nil
		}
		if err == nil {
			err = l.may()
		}
		if err != nil {
			return err
		}
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			if l.serve(r) != nil {
				l.conn.Close() // next fails, then
			}
		})
	}
}

// may asks now and then whether the client may still read.
func (l *lender) may() error {
	if l.alive == nil || time.Since(l.asked) < aliveEvery {
		return nil
	}
	l.asked = time.Now()
	return l.alive()
}

// next reads a request, and throws away what it brings.
func (l *lender) next(in *bufio.Reader) (r request, err error) {
	if err := l.conn.SetReadDeadline(time.Now().Add(l.idle)); err != nil {
		return r, err
	}
	var b [requestSize]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return r, err
	}
	if magic := binary.BigEndian.Uint32(b[:]); magic != magicRequest {
		return r, broken("a request begins with %08x", magic)
	}
	off := binary.BigEndian.Uint64(b[16:])
	r = request{
		flags: binary.BigEndian.Uint16(b[4:]), kind: binary.BigEndian.Uint16(b[6:]),
		cookie: binary.BigEndian.Uint64(b[8:]), off: int64(off & (1<<63 - 1)), length: binary.BigEndian.Uint32(b[24:]),
	}
	if off>>63 != 0 {
		r.off = -1 // behind the end of everything
	}
	if r.kind != cmdWrite {
		return r, nil
	}
	if r.length > maxRead {
		return r, broken("a write of %d bytes", r.length)
	}
	_, err = io.CopyN(io.Discard, in, int64(r.length))
	return r, err
}

// serve answers one request. An error is that the connection is no good any more.
func (l *lender) serve(r request) error {
	switch r.kind {
	case cmdRead:
		return l.read(r)
	case cmdFlush:
		return l.reply(r, 0, "")
	case cmdStatus:
		return l.spans(r)
	case cmdWrite, cmdTrim, cmdWriteZeroes:
		return l.reply(r, syscall.EPERM, "the disk can only be read")
	}
	return l.reply(r, syscall.EINVAL, "it is not known what that is")
}

// within refuses what is not in the disk.
func (l *lender) within(r request) error {
	if r.length == 0 {
		return errors.New("it asks for nothing")
	}
	return disk.Within(r.off, int64(r.length), l.disk.Size())
}

// read answers with the bytes, piece by piece.
func (l *lender) read(r request) error {
	if err := l.within(r); err != nil {
		return l.reply(r, syscall.EINVAL, err.Error())
	}
	if r.length > maxRead {
		return l.reply(r, syscall.EOVERFLOW, "it asks for too much")
	}
	if !l.structured {
		l.writing.Lock() // nothing comes between the parts of a simple reply
		defer l.writing.Unlock()
	}
	buf := make([]byte, min(piece, int64(r.length)))
	for done := int64(0); done < int64(r.length); {
		b := buf[:min(piece, int64(r.length)-done)]
		if n, err := l.disk.ReadAt(b, r.off+done); n < len(b) {
			return l.unread(r, done, err)
		}
		if err := l.piece(r, b, done); err != nil {
			return err
		}
		done += int64(len(b))
	}
	return nil
}

// unread answers that the disk cannot be read. A simple reply that has begun can only be
// cut off.
func (l *lender) unread(r request, done int64, err error) error {
	switch {
	case l.structured:
		return l.reply(r, syscall.EIO, "the disk cannot be read")
	case done > 0:
		return fmt.Errorf("in the middle of an answer: %w", err)
	}
	return l.send(l.simple(r, syscall.EIO))
}

// piece writes a part of what a read asks for.
func (l *lender) piece(r request, b []byte, done int64) error {
	if l.structured {
		last := done+int64(len(b)) == int64(r.length)
		return l.write(binary.BigEndian.AppendUint64(l.chunk(r, chunkData, last, 8+len(b)), uint64(r.off+done)), b)
	}
	if done == 0 {
		return l.send(l.simple(r, 0), b)
	}
	return l.send(b)
}

func (l *lender) chunk(r request, kind uint16, last bool, n int) []byte {
	flags := uint16(0)
	if last {
		flags = chunkDone
	}
	b := binary.BigEndian.AppendUint32(nil, magicStructured)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint64(b, r.cookie)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func (l *lender) simple(r request, number syscall.Errno) []byte {
	b := binary.BigEndian.AppendUint32(nil, magicSimple)
	b = binary.BigEndian.AppendUint32(b, uint32(number))
	return binary.BigEndian.AppendUint64(b, r.cookie)
}

// reply answers without bytes: that it is done, or why not.
func (l *lender) reply(r request, number syscall.Errno, why string) error {
	switch {
	case !l.structured:
		return l.write(l.simple(r, number))
	case number == 0:
		return l.write(l.chunk(r, chunkNone, true, 0))
	}
	b := binary.BigEndian.AppendUint32(l.chunk(r, chunkFailed, true, 6+len(why)), uint32(number))
	return l.write(binary.BigEndian.AppendUint16(b, uint16(len(why))), []byte(why))
}

func (l *lender) write(parts ...[]byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.send(parts...)
}

// send needs writing.
func (l *lender) send(parts ...[]byte) error {
	if l.broken == nil {
		l.broken = l.conn.SetWriteDeadline(time.Now().Add(l.idle))
	}
	for _, b := range parts {
		if l.broken == nil {
			_, l.broken = l.conn.Write(b)
		}
	}
	return l.broken
}

// spans answers which parts of the disk are zero.
func (l *lender) spans(r request) error {
	if !l.status {
		return l.reply(r, syscall.EINVAL, "no context was asked for")
	}
	if err := l.within(r); err != nil {
		return l.reply(r, syscall.EINVAL, err.Error())
	}
	all, err := l.disk.Extents(l.ctx, r.off, min(int64(r.length), farthest))
	if err != nil || len(all) == 0 {
		return l.reply(r, syscall.EIO, "the disk cannot be looked at")
	}
	if r.flags&onlyOne != 0 {
		all = all[:1]
	}
	all = all[:min(len(all), maxSpans)]
	b := binary.BigEndian.AppendUint32(l.chunk(r, chunkStatus, true, 4+8*len(all)), allocatorID)
	for _, e := range all {
		flags := uint32(0)
		if e.Zero {
			flags = holeFlag | zeroFlag
		}
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, uint32(e.Len)), flags)
	}
	return l.write(b)
}
