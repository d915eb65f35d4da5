package nbd

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// Options and answers that only a server has to know of.
const (
	optExportName = 1
	optAbort      = 2
	optList       = 3
	optInfo       = 6
	optListMeta   = 9

	refuseUnknown = errorReply | 1
	refusePolicy  = errorReply | 2
	refuseInvalid = errorReply | 3
	refuseTLS     = errorReply | 5
	refuseExport  = errorReply | 6
	refuseTooBig  = errorReply | 9

	maxOptions  = 32       // that one client may name
	maxAsked    = 16 << 10 // bytes of one
	allocatorID = 1        // of the context Allocation
)

// errTaken is a client that took leave.
var errTaken = errors.New("the client takes leave")

// haggle is the handshake of one client.
type haggle struct {
	s    *Server
	ctx  context.Context
	conn net.Conn
	tls  *tls.Config // to be spoken first; nil for none

	secret     bool // by TLS
	noZeroes   bool
	structured bool
	status     bool   // Allocation was asked for
	asked      string // for which export
	name       string // of what is open
	export     Export
}

// run goes through the handshake until an export is chosen.
func (h *haggle) run() error {
	hello := binary.BigEndian.AppendUint64(nil, magicServer)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	if _, err := h.conn.Write(binary.BigEndian.AppendUint16(hello, fixedNewstyle|noZeroes)); err != nil {
		return err
	}
	var b [4]byte
	if _, err := io.ReadFull(h.conn, b[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(b[:])
	if flags&^(fixedNewstyle|noZeroes) != 0 || flags&fixedNewstyle == 0 {
		return broken("the client's flags are %#x", flags)
	}
	h.noZeroes = flags&noZeroes != 0
	for range maxOptions {
		number, data, err := h.next()
		if err != nil {
			return err
		}
		chosen, err := h.option(number, data)
		if chosen || err != nil {
			return err
		}
	}
	return broken("more than %d options", maxOptions)
}

// next reads an option.
func (h *haggle) next() (uint32, []byte, error) {
	var b [16]byte
	if _, err := io.ReadFull(h.conn, b[:]); err != nil {
		return 0, nil, err
	}
	number, n := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	if binary.BigEndian.Uint64(b[:]) != magicOption {
		return 0, nil, broken("an option begins with %x", b[:8])
	}
	if n > maxAsked {
		return 0, nil, errors.Join(broken("option %d of %d bytes", number, n), h.answer(number, refuseTooBig, nil))
	}
	data := make([]byte, n)
	_, err := io.ReadFull(h.conn, data)
	return number, data, err
}

func (h *haggle) answer(number, kind uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, magicAnswer)
	b = binary.BigEndian.AppendUint32(b, number)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := h.conn.Write(append(b, data...))
	return err
}

// option answers one. chosen says that requests follow.
func (h *haggle) option(number uint32, data []byte) (chosen bool, err error) {
	switch number {
	case optAbort:
		return false, errors.Join(errTaken, h.answer(number, ack, nil))
	case optStartTLS:
		return false, h.startTLS(data)
	}
	if h.tls != nil && !h.secret {
		if number == optExportName { // it has no answer that says no
			return false, broken("an export is asked for without TLS")
		}
		return false, h.answer(number, refuseTLS, nil)
	}
	switch number {
	case optExportName:
		return true, h.old(string(data))
	case optList:
		return false, h.answer(number, refusePolicy, nil)
	case optStructured:
		if len(data) > 0 {
			return false, h.answer(number, refuseInvalid, nil)
		}
		h.structured = true
		return false, h.answer(number, ack, nil)
	case optSetContext, optListMeta:
		return false, h.contexts(number, data)
	case optInfo, optGo:
		return h.choose(number, data)
	}
	return false, h.answer(number, refuseUnknown, nil)
}

// startTLS begins anew, in secret: what was asked before may have been another's.
func (h *haggle) startTLS(data []byte) error {
	switch {
	case h.tls == nil:
		return h.answer(optStartTLS, refusePolicy, nil)
	case h.secret || len(data) > 0:
		return h.answer(optStartTLS, refuseInvalid, nil)
	}
	if err := h.answer(optStartTLS, ack, nil); err != nil {
		return err
	}
	c := tls.Server(h.conn, h.tls)
	if err := c.HandshakeContext(h.ctx); err != nil {
		return err
	}
	h.conn, h.secret, h.structured, h.status = c, true, false, false
	return nil
}

// words takes a text with its length before it.
func words(b []byte) (string, []byte, bool) {
	if len(b) < 4 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if b = b[4:]; uint64(n) > uint64(len(b)) {
		return "", nil, false
	}
	return string(b[:n]), b[n:], true
}

// contexts answers which of the contexts asked for there are: Allocation is.
func (h *haggle) contexts(number uint32, data []byte) error {
	name, rest, ok := words(data)
	if !ok || len(rest) < 4 || !h.structured {
		return h.answer(number, refuseInvalid, nil)
	}
	count := binary.BigEndian.Uint32(rest)
	rest = rest[4:]
	found := count == 0 && number == optListMeta
	for range min(count, maxAsked) {
		var query string
		if query, rest, ok = words(rest); !ok {
			return h.answer(number, refuseInvalid, nil)
		}
		found = found || query == Allocation || query == "base:" && number == optListMeta
	}
	if len(rest) > 0 {
		return h.answer(number, refuseInvalid, nil)
	}
	id := uint32(0)
	if number == optSetContext {
		h.status, h.asked, id = found, name, allocatorID
	}
	if found {
		if err := h.answer(number, contextName, append(binary.BigEndian.AppendUint32(nil, id), Allocation...)); err != nil {
			return err
		}
	}
	return h.answer(number, ack, nil)
}

// open opens an export, or finds it open.
func (h *haggle) open(name string) error {
	if h.export.Disk != nil && h.name == name {
		return nil
	}
	h.close()
	export, err := h.s.Open(h.ctx, name)
	if err != nil {
		h.s.log().Warn("nbd-refused", "remote", h.conn.RemoteAddr(), "err", err)
		return err
	}
	h.name, h.export = name, export
	return nil
}

func (h *haggle) close() {
	if h.export.Disk == nil {
		return
	}
	if err := h.export.Disk.Close(); err != nil {
		h.s.log().Info("nbd-disk", "remote", h.conn.RemoteAddr(), "err", err)
	}
	h.export = Export{}
}

const exportFlags = hasFlags | hasReadOnly | hasFlush | canMulti

// Flags of an export that the client has no use for.
const (
	hasFlags = 1 << 0
	canMulti = 1 << 8 // what one connection reads the others do
)

func (h *haggle) facts() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(h.export.Disk.Size()))
	return binary.BigEndian.AppendUint16(b, exportFlags)
}

// old chooses an export in the way of old clients.
func (h *haggle) old(name string) error {
	if err := h.open(name); err != nil {
		return err
	}
	b := h.facts()
	if !h.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	_, err := h.conn.Write(b)
	return err
}

// choose tells of an export, and chooses it.
func (h *haggle) choose(number uint32, data []byte) (bool, error) {
	name, rest, ok := words(data)
	if !ok || len(rest) < 2 || len(rest) != 2+2*int(binary.BigEndian.Uint16(rest)) {
		return false, h.answer(number, refuseInvalid, nil)
	}
	if h.open(name) != nil {
		return false, h.answer(number, refuseExport, nil)
	}
	about := binary.BigEndian.AppendUint16(nil, infoExport)
	if err := h.answer(number, infoReply, append(about, h.facts()...)); err != nil {
		return false, err
	}
	sizes := binary.BigEndian.AppendUint16(nil, infoBlockSize)
	for _, n := range []uint32{1, 64 << 10, maxRead} {
		sizes = binary.BigEndian.AppendUint32(sizes, n)
	}
	if err := h.answer(number, infoReply, sizes); err != nil {
		return false, err
	}
	return number == optGo, h.answer(number, ack, nil)
}
