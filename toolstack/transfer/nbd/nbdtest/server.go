// Package nbdtest serves disks over NBD for tests of what reads and writes them.
package nbdtest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"

	"cairn/toolstack/transfer/disk"
)

// Export is a disk and how it is served.
type Export struct {
	Name   string
	Device disk.Device
	// Plain serves without structured replies, so without contexts.
	Plain bool
	// ReadOnly tells clients that they may not write.
	ReadOnly bool
	// Status answers for contexts beside base:allocation.
	Status map[string]func(off, n int64) []Run
	// Pieces cuts what is read into chunks of that many bytes, and tells holes.
	Pieces int64
}

// Run is a run of bytes of which a context says the same.
type Run struct {
	Len   int64
	Flags uint32
}

type server struct {
	Export
	r          *bufio.Reader
	w          *bufio.Writer
	structured bool
	contexts   []string // by number
}

var be = binary.BigEndian

// Serve serves a connection until the client takes its leave, which is no error.
func Serve(conn net.Conn, e Export) error {
	s := &server{Export: e, r: bufio.NewReader(conn), w: bufio.NewWriter(conn)}
	s.put(uint64(0x4e42444d41474943), uint64(0x49484156454f5054), uint16(3))
	if err := s.w.Flush(); err != nil {
		return err
	}
	if flags, err := take[uint32](s); err != nil || flags != 3 {
		return errors.Join(err, errors.New("flags"))
	}
	for done := false; !done; {
		var err error
		if done, err = s.option(); err != nil {
			return err
		}
	}
	for {
		if again, err := s.request(); err != nil || !again {
			return err
		}
	}
}

func (s *server) put(all ...any) {
	for _, v := range all {
		_ = binary.Write(s.w, be, v) // an error stays with the writer
	}
}

func take[T any](s *server) (v T, err error) { return v, binary.Read(s.r, be, &v) }

func (s *server) answer(option, kind uint32, data []byte) {
	s.put(uint64(0x0003e889045565a9), option, kind, uint32(len(data)), data)
}

func (s *server) option() (done bool, err error) {
	h, err := take[struct {
		Magic          uint64
		Option, Length uint32
	}](s)
	if err != nil || h.Magic != 0x49484156454f5054 || h.Length > 64<<10 {
		return false, errors.Join(err, errors.New("no option"))
	}
	data := make([]byte, h.Length)
	if _, err := io.ReadFull(s.r, data); err != nil {
		return false, err
	}
	switch {
	case h.Option == 8 && !s.Plain:
		s.structured = true
		s.answer(h.Option, 1, nil)
	case h.Option == 10 && s.structured:
		s.setContexts(data)
	case h.Option == 7 && string(data[4:4+be.Uint32(data)]) == s.Name:
		s.export()
		done = true
	case h.Option == 7:
		s.answer(h.Option, 1<<31+6, []byte("unknown export"))
	default:
		s.answer(h.Option, 1<<31+1, nil)
	}
	return done, s.w.Flush()
}

func (s *server) setContexts(data []byte) {
	data = data[4+be.Uint32(data):]
	count := be.Uint32(data)
	data = data[4:]
	for range count {
		n := be.Uint32(data)
		name := string(data[4 : 4+n])
		data = data[4+n:]
		if name == "base:allocation" || s.Status[name] != nil {
			s.answer(10, 4, append(be.AppendUint32(nil, uint32(len(s.contexts))), name...))
			s.contexts = append(s.contexts, name)
		}
	}
	s.answer(10, 1, nil)
}

func (s *server) export() {
	flags := uint16(1 | 1<<2 | 1<<6)
	if s.ReadOnly {
		flags |= 2
	}
	b := be.AppendUint64([]byte{0, 0}, uint64(s.Device.Size()))
	s.answer(7, 3, be.AppendUint16(b, flags))
	b = be.AppendUint32([]byte{0, 3}, 1)
	s.answer(7, 3, be.AppendUint32(be.AppendUint32(b, 4096), 32<<20))
	s.answer(7, 1, nil)
}

type request struct {
	Magic       uint32
	Flags, Kind uint16
	Cookie      uint64
	Off         int64
	Length      uint32
}

// request serves one; again is false when the client takes its leave.
func (s *server) request() (again bool, err error) {
	q, err := take[request](s)
	if err != nil || q.Magic != 0x25609513 || q.Length > 32<<20 && q.Kind < 2 {
		return false, errors.Join(err, errors.New("no request"))
	}
	n := int64(q.Length)
	switch q.Kind {
	case 0:
		err = s.read(q)
	case 1:
		b := make([]byte, n)
		if _, err := io.ReadFull(s.r, b); err != nil {
			return false, err
		}
		_, err := s.Device.WriteAt(b, q.Off)
		s.done(q, err)
	case 2:
		return false, nil
	case 3:
		s.done(q, s.Device.Flush())
	case 6:
		s.done(q, s.Device.Zero(q.Off, n))
	case 7:
		s.status(q)
	default:
		s.done(q, errors.New("unknown request"))
	}
	return true, errors.Join(err, s.w.Flush())
}

// done answers a request that asks for nothing.
func (s *server) done(q request, err error) {
	number := uint32(0)
	var known syscall.Errno
	switch {
	case errors.As(err, &known):
		number = uint32(known)
	case err != nil:
		number = uint32(syscall.EIO)
	}
	if !s.structured {
		s.put(uint32(0x67446698), number, q.Cookie)
		return
	}
	if err == nil {
		s.chunk(q, 1, 0, nil)
		return
	}
	s.chunk(q, 1, 1<<15+1, append(be.AppendUint16(be.AppendUint32(nil, number), uint16(len(err.Error()))), err.Error()...))
}

func (s *server) chunk(q request, flags, kind uint16, data []byte) {
	s.put(uint32(0x668e33ef), flags, kind, q.Cookie, uint32(len(data)), data)
}

func (s *server) read(q request) error {
	b := make([]byte, q.Length)
	_, err := s.Device.ReadAt(b, q.Off)
	switch {
	case err != nil:
		s.done(q, err)
	case !s.structured:
		s.put(uint32(0x67446698), uint32(0), q.Cookie, b)
	default:
		s.pieces(q, b)
	}
	return nil
}

// pieces sends a read's bytes from the end to the beginning, zeros as holes.
func (s *server) pieces(q request, b []byte) {
	size := s.Pieces
	if size == 0 {
		size = int64(len(b))
	}
	for at := (int64(len(b)) - 1) / size * size; at >= 0; at -= size {
		piece := b[at:min(at+size, int64(len(b)))]
		off := be.AppendUint64(nil, uint64(q.Off+at))
		if disk.Blank(piece) {
			s.chunk(q, 0, 2, be.AppendUint32(off, uint32(len(piece))))
		} else {
			s.chunk(q, 0, 1, append(off, piece...))
		}
	}
	s.chunk(q, 1, 0, nil)
}

func (s *server) status(q request) {
	for id, name := range s.contexts {
		runs := s.runs(name, q.Off, int64(q.Length))
		if runs == nil {
			s.done(q, errors.New("no status"))
			return
		}
		b := be.AppendUint32(nil, uint32(id))
		for _, r := range runs {
			b = be.AppendUint32(be.AppendUint32(b, uint32(r.Len)), r.Flags)
		}
		s.chunk(q, 0, 5, b)
	}
	s.chunk(q, 1, 0, nil)
}

func (s *server) runs(name string, off, n int64) (runs []Run) {
	if f := s.Status[name]; f != nil {
		return f(off, n)
	}
	list, err := s.Device.Extents(context.Background(), off, n)
	if err != nil {
		return nil
	}
	for _, e := range list {
		flags := uint32(0)
		if e.Zero {
			flags = 3
		}
		runs = append(runs, Run{e.Len, flags})
	}
	return runs
}
