package nbd

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
)

// export is what a server said of the disk.
type export struct {
	size       int64
	flags      uint16
	smallest   int64 // requests are multiples of
	largest    int64 // bytes of a request
	structured bool
	contexts   map[string]uint32
}

// greet goes through the handshake after hello and leaves the server waiting for requests.
func greet(rw io.ReadWriter, name string, contexts []string) (e export, err error) {
	e = export{size: -1, smallest: 1, largest: step, contexts: map[string]uint32{}}
	if e.structured, err = structured(rw); err != nil {
		return e, err
	}
	if e.structured && len(contexts) > 0 {
		if err := e.ask(rw, name, contexts); err != nil {
			return e, err
		}
	}
	return e, e.open(rw, name)
}

func hello(rw io.ReadWriter) error {
	var h [18]byte
	if _, err := io.ReadFull(rw, h[:]); err != nil {
		return fmt.Errorf("no greeting: %w", err)
	}
	flags := binary.BigEndian.Uint16(h[16:])
	if binary.BigEndian.Uint64(h[:]) != magicServer || binary.BigEndian.Uint64(h[8:]) != magicOption || flags&fixedNewstyle == 0 {
		return broken("the greeting is %x", h)
	}
	_, err := rw.Write(binary.BigEndian.AppendUint32(nil, uint32(flags&(fixedNewstyle|noZeroes))))
	return err
}

// hide begins TLS. What it returns is conn where that fails.
func hide(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	if err := option(conn, optStartTLS, nil); err != nil {
		return conn, err
	}
	kind, data, err := answer(conn, optStartTLS)
	switch {
	case err != nil:
		return conn, err
	case kind&errorReply != 0:
		return conn, refused(kind, data)
	case kind != ack:
		return conn, broken("answer %d to the wish for TLS", kind)
	}
	secret := tls.Client(conn, config)
	if err := secret.HandshakeContext(ctx); err != nil {
		return conn, err
	}
	return secret, nil
}

func option(w io.Writer, number uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, number)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := w.Write(append(b, data...))
	return err
}

func text(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// answer reads one to an option; a refusal is an error.
func answer(r io.Reader, number uint32) (kind uint32, data []byte, err error) {
	var h [20]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	kind, n := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
	if binary.BigEndian.Uint64(h[:]) != magicAnswer || binary.BigEndian.Uint32(h[8:]) != number || n > maxOption {
		return 0, nil, broken("the answer to option %d is %x", number, h)
	}
	data = make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, err
	}
	return kind, data, nil
}

func refused(kind uint32, data []byte) error {
	why := refusals[kind&^errorReply]
	if why == "" {
		why = fmt.Sprintf("refusal %d", kind&^errorReply)
	}
	if len(data) > 0 {
		why += fmt.Sprintf(": %q", data)
	}
	return fmt.Errorf("the server answers that %s", why)
}

// structured asks for replies in chunks; a server may not know them.
func structured(rw io.ReadWriter) (bool, error) {
	if err := option(rw, optStructured, nil); err != nil {
		return false, err
	}
	kind, _, err := answer(rw, optStructured)
	if err == nil && kind != ack && kind&errorReply == 0 {
		err = broken("answer %d to the wish for structured replies", kind)
	}
	return kind == ack, err
}

// ask names contexts; those that the server knows get a number.
func (e *export) ask(rw io.ReadWriter, name string, contexts []string) error {
	b := binary.BigEndian.AppendUint32(text(nil, name), uint32(len(contexts)))
	for _, c := range contexts {
		b = text(b, c)
	}
	if err := option(rw, optSetContext, b); err != nil {
		return err
	}
	for range len(contexts) + 1 {
		kind, data, err := answer(rw, optSetContext)
		switch {
		case err != nil:
			return err
		case kind == ack:
			return nil
		case kind&errorReply != 0:
			return refused(kind, data)
		case kind != contextName || len(data) < 5 || !slices.Contains(contexts, string(data[4:])):
			return broken("answer %d to the question for contexts", kind)
		}
		e.contexts[string(data[4:])] = binary.BigEndian.Uint32(data)
	}
	return broken("more contexts than were asked for")
}

// maxInfo is how many facts of an export a server may tell.
const maxInfo = 64

func (e *export) open(rw io.ReadWriter, name string) error {
	b := binary.BigEndian.AppendUint16(text(nil, name), 1)
	if err := option(rw, optGo, binary.BigEndian.AppendUint16(b, infoBlockSize)); err != nil {
		return err
	}
	for range maxInfo {
		kind, data, err := answer(rw, optGo)
		switch {
		case err != nil:
			return err
		case kind&errorReply != 0:
			return refused(kind, data)
		case kind == ack && e.size < 0:
			return broken("an export without a size")
		case kind == ack:
			return nil
		case kind != infoReply || len(data) < 2:
			return broken("answer %d to the wish for export %q", kind, name)
		}
		if err := e.learn(data); err != nil {
			return err
		}
	}
	return broken("no end of facts about export %q", name)
}

func (e *export) learn(data []byte) error {
	be := binary.BigEndian
	kind, data := be.Uint16(data), data[2:]
	switch {
	case kind == infoExport && len(data) == 10 && be.Uint64(data) <= math.MaxInt64:
		e.size, e.flags = int64(be.Uint64(data)), be.Uint16(data[8:])
	case kind == infoExport:
		return broken("an export of %x", data)
	case kind == infoBlockSize && len(data) == 12:
		small, large := int64(be.Uint32(data)), int64(be.Uint32(data[8:]))
		if small < 1 || small > 64<<10 || small&(small-1) != 0 || large < small {
			return broken("requests of %d to %d bytes", small, large)
		}
		e.smallest, e.largest = small, max(small, min(step, large)/small*small)
	case kind == infoBlockSize:
		return broken("block sizes of %x", data)
	}
	return nil // others may come, unasked
}
