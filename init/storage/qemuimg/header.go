// Package qemuimg knows qemu-img: what to ask it for and how to read its answers,
// and the header of a qcow2 image, so that a list of volumes starts no process.
//
// Formats are always given and never found out: an image whose format is guessed
// can be made by a guest to be another one. Everything here is pure and may be
// used from many goroutines.
package qemuimg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Header is what the header of a qcow2 image says.
type Header struct {
	Size        int64
	ClusterBits uint32
	// Backing and BackingFormat are as written there; nothing vouches for them.
	Backing, BackingFormat string
	Encrypted, DataFile    bool
	// Corrupt is QEMU's own mark on an image it must not write to.
	Corrupt bool
	// unknown are features that this package has not heard of.
	unknown uint64
}

// Layout of the header, from docs/interop/qcow2.rst of QEMU.
const (
	magic         = 0x514649fb
	headerV2      = 72
	headerV3      = 104
	usualHeader   = 4 << 10
	maxHeader     = 64 << 10
	maxBacking    = 1023
	minBits       = 9
	maxBits       = 21
	extEnd        = 0
	extFormat     = 0xe2792aca
	featDirty     = 1 << 0
	featCorrupt   = 1 << 1
	featDataFile  = 1 << 2
	featKnown     = featDirty | featCorrupt | featDataFile | 1<<3 | 1<<4
	maxExtensions = 64
)

// errShort is a header that ends before it is complete.
var errShort = errors.New("qcow2 header is cut short")

// ReadHeader reads the header at the start of an image. Nearly all fit in a page,
// and a list reads thousands; what cannot be read from one is tried with more.
func ReadHeader(r io.ReaderAt) (Header, error) {
	h, err := readHeader(r, usualHeader)
	if err != nil {
		return readHeader(r, maxHeader)
	}
	return h, nil
}

func readHeader(r io.ReaderAt, size int) (Header, error) {
	buf := make([]byte, size)
	n, err := r.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Header{}, err
	}
	return ParseHeader(buf[:n])
}

// ParseHeader reads a header from the first bytes of an image.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < headerV2 {
		return Header{}, errShort
	}
	u32, u64 := binary.BigEndian.Uint32, binary.BigEndian.Uint64
	if u32(b) != magic {
		return Header{}, errors.New("not a qcow2 image")
	}
	h := Header{Size: int64(u64(b[24:])), ClusterBits: u32(b[20:]), Encrypted: u32(b[32:]) != 0}
	length := uint32(headerV2)
	switch version := u32(b[4:]); version {
	case 2:
	case 3:
		if len(b) < headerV3 {
			return Header{}, errShort
		}
		h.features(u64(b[72:]))
		length = u32(b[100:])
	default:
		return Header{}, fmt.Errorf("qcow2 version %d", version)
	}
	if h.Size < 0 || h.ClusterBits < minBits || h.ClusterBits > maxBits || length > maxHeader {
		return Header{}, fmt.Errorf("qcow2 header with size %d, cluster bits %d, length %d", h.Size, h.ClusterBits, length)
	}
	if err := h.extensions(b, int(length)); err != nil {
		return Header{}, err
	}
	return h, h.backing(b, u64(b[8:]), u32(b[16:]))
}

func (h *Header) features(bits uint64) {
	h.Corrupt = bits&featCorrupt != 0
	h.DataFile = bits&featDataFile != 0
	h.unknown = bits &^ featKnown
}

// extensions looks for the backing's format among the header's extensions.
func (h *Header) extensions(b []byte, at int) error {
	for range maxExtensions {
		if at+8 > len(b) {
			return nil // an old image ends its list with its cluster
		}
		kind, size := binary.BigEndian.Uint32(b[at:]), int(binary.BigEndian.Uint32(b[at+4:]))
		at += 8
		if kind == extEnd {
			return nil
		}
		if size > len(b)-at {
			return errShort
		}
		if kind == extFormat {
			h.BackingFormat = string(b[at : at+size])
		}
		at += (size + 7) &^ 7
	}
	return fmt.Errorf("qcow2 header with more than %d extensions", maxExtensions)
}

func (h *Header) backing(b []byte, offset uint64, size uint32) error {
	if offset == 0 || size == 0 {
		return nil
	}
	if size > maxBacking || offset > uint64(len(b)) || uint64(len(b))-offset < uint64(size) {
		return fmt.Errorf("qcow2 header names a backing of %d bytes at %d", size, offset)
	}
	h.Backing = string(b[offset : offset+uint64(size)])
	if !utf8.ValidString(h.Backing) || strings.ContainsRune(h.Backing, 0) {
		return errors.New("qcow2 header names a backing that is no text")
	}
	return nil
}

// Usable says why an image must not be opened: what it asks of QEMU goes beyond
// its own bytes and those of its backing.
func (h Header) Usable() error {
	switch {
	case h.DataFile:
		return errors.New("its data is in another file")
	case h.Encrypted:
		return errors.New("it is encrypted")
	case h.Corrupt:
		return errors.New("it is marked corrupt")
	case h.unknown != 0:
		return fmt.Errorf("it has unknown features %#x", h.unknown)
	case strings.Contains(h.Backing, ":"):
		return fmt.Errorf("its backing %q is not a file", h.Backing)
	case h.Backing != "" && h.BackingFormat == "":
		return errors.New("it does not say the format of its backing")
	}
	return nil
}
