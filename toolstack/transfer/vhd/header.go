package vhd

import (
	"encoding/binary"
	"strings"
	"time"
	wide "unicode/utf16"
)

// Places in the header of dynamic and differencing images.
const (
	nextAt         = 8
	tableAt        = 16
	headerVersion  = 24
	entriesAt      = 28
	blockSizeAt    = 32
	headerSumAt    = 36
	parentAt       = 40
	parentTimeAt   = 56
	parentNameAt   = 64
	parentNameSize = 512
	locatorsAt     = 576
	locatorSize    = 24
	locators       = 8
)

// locator says where the parent's path lies, in one of several spellings.
type locator struct {
	platform      [4]byte
	space, length uint32 // sectors kept for it, bytes used
	at            int64
}

// w2ku is a path on Windows in UTF-16, macX a URL in UTF-8: readers of the field
// take either.
var (
	w2ku = [4]byte{'W', '2', 'k', 'u'}
	macX = [4]byte{'M', 'a', 'c', 'X'}
)

func utf16(s string) (b []byte) {
	for _, u := range wide.Encode([]rune(s)) {
		b = binary.BigEndian.AppendUint16(b, u)
	}
	return b
}

func fromUTF16(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.BigEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(wide.Decode(units))
}

func appendHeader(b []byte, i Info, table int64, paths []locator) []byte {
	h := make([]byte, headerSize)
	be := binary.BigEndian
	copy(h, headerCookie)
	be.PutUint64(h[nextAt:], 1<<64-1)
	be.PutUint64(h[tableAt:], uint64(table))
	be.PutUint32(h[headerVersion:], version1)
	be.PutUint32(h[entriesAt:], uint32(blocks(i.Size)))
	be.PutUint32(h[blockSizeAt:], blockSize)
	if i.Kind == Differencing {
		copy(h[parentAt:], i.Parent[:])
		be.PutUint32(h[parentTimeAt:], uint32(max(0, i.Made.Sub(epoch)/time.Second)))
		copy(h[parentNameAt:parentNameAt+parentNameSize], utf16(i.ParentName))
	}
	for n, l := range paths {
		p := h[locatorsAt+n*locatorSize:]
		copy(p, l.platform[:])
		be.PutUint32(p[4:], l.space)
		be.PutUint32(p[8:], l.length)
		be.PutUint64(p[16:], uint64(l.at))
	}
	be.PutUint32(h[headerSumAt:], sum(h, headerSumAt))
	return append(b, h...)
}

// parseHeader reads 1024 bytes: where the table lies and how many entries of it
// count. It fills in the parent.
func parseHeader(h []byte, i *Info) (table int64, err error) {
	be := binary.BigEndian
	switch {
	case len(h) != headerSize || string(h[:8]) != headerCookie:
		return 0, malformed("no header")
	case be.Uint32(h[headerSumAt:]) != sum(h, headerSumAt):
		return 0, malformed("checksum of the header")
	case be.Uint32(h[headerVersion:])>>16 != version1>>16:
		return 0, malformed("version of the header")
	case be.Uint32(h[blockSizeAt:]) != blockSize:
		return 0, malformed("blocks of %d bytes", be.Uint32(h[blockSizeAt:]))
	case int64(be.Uint32(h[entriesAt:])) < blocks(i.Size):
		return 0, malformed("a table of %d entries for %d bytes", be.Uint32(h[entriesAt:]), i.Size)
	}
	at := be.Uint64(h[tableAt:])
	if at < footerSize+headerSize || at > 1<<40 || at%sector != 0 {
		return 0, malformed("a table at %d", at)
	}
	if i.Kind == Differencing {
		copy(i.Parent[:], h[parentAt:])
		i.ParentName = strings.ToValidUTF8(fromUTF16(h[parentNameAt:parentNameAt+parentNameSize]), "?")
	}
	return int64(at), nil
}
