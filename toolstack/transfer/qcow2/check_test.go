package qcow2

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// cut checks an image of which the first n bytes have come, into room for more.
func cut(image []byte, n int) error {
	return Check(room(image[:n]), int64(n))
}

// room reads as zeros behind what is in it.
type room []byte

func (r room) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	copy(p, r[min(off, int64(len(r))):])
	return len(p), nil
}

// TestCut: an image that ends anywhere before its end is refused.
func TestCut(t *testing.T) {
	for name, image := range map[string][]byte{
		"one cluster":   write(t, disk(ClusterSize)),
		"several":       write(t, disk(30*ClusterSize)),
		"of zeros":      write(t, make([]byte, ClusterSize)),
		"half of one":   half(write(t, disk(ClusterSize))),
		"deflated":      pack(t, false),
		"zstd":          pack(t, true),
		"with snapshot": snapshot(write(t, disk(ClusterSize))),
	} {
		must(t, cut(image, len(image)))
		last := len(image) - 1
		switch name {
		case "of zeros":
			last = 3*ClusterSize + entry - 1 // all but the only entry of the L1 table is padding
		case "deflated":
			last -= 8 // the stream's own end
		}
		for n := 0; n < last; n += max(1, last/199) {
			if err := cut(image, n); !errors.Is(err, ErrFormat) {
				t.Fatalf("%s: %d of %d bytes: %v", name, n, len(image), err)
			}
		}
		if err := cut(image, last); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %d of %d bytes: %v", name, last, len(image), err)
		}
	}
}

// half makes a single cluster one of which only the first half is there.
func half(image []byte) []byte {
	binary.BigEndian.PutUint64(image[72:], isExtended)
	binary.BigEndian.PutUint32(image[l2At(image)+12:], 1<<16-1)
	return image[:len(image)-ClusterSize/2]
}

func l2At(image []byte) uint64 {
	return binary.BigEndian.Uint64(image[binary.BigEndian.Uint64(image[40:]):]) & offsetMask
}

// pack is an image of one cluster that is packed and ends where that does.
func pack(t *testing.T, asZstd bool) []byte {
	t.Helper()
	b := disk(ClusterSize)
	image := write(t, b)
	var out bytes.Buffer
	var w io.WriteCloser
	w, err := flate.NewWriter(&out, flate.BestCompression)
	must(t, err)
	if asZstd {
		w, err = zstd.NewWriter(&out)
		must(t, err)
		binary.BigEndian.PutUint64(image[72:], isZstd)
		image[104] = 1
	}
	_, err = w.Write(b)
	must(t, errors.Join(err, w.Close()))
	at := len(image) - ClusterSize
	if out.Len()%sector == 0 || out.Len() > ClusterSize {
		t.Fatalf("%d bytes", out.Len())
	}
	entry := uint64(isCompressed | out.Len()/sector<<54 | at)
	binary.BigEndian.PutUint64(image[l2At(image):], entry)
	return append(image[:at], bytes.TrimRight(out.Bytes(), "\x00")...)
}

// snapshot adds a former state, which is the present one, behind all else.
func snapshot(image []byte) []byte {
	be := binary.BigEndian
	be.PutUint32(image[60:], 1)
	be.PutUint64(image[64:], uint64(len(image)))
	s := make([]byte, 40)
	copy(s[:12], append(bytes.Clone(image[40:48]), image[36:40]...))
	be.PutUint16(s[14:], 4)
	return append(append(image, s...), "name"...)
}

// TestDamaged: tables that lead anywhere else are refused as well, soon.
func TestDamaged(t *testing.T) {
	be := binary.BigEndian
	for want, damage := range map[string]func(image []byte){
		"no header":                  func(b []byte) { b[0] = 0 },
		"version 1":                  func(b []byte) { be.PutUint32(b[4:], 1) },
		"clusters of 2^8 bytes":      func(b []byte) { be.PutUint32(b[20:], 8) },
		"clusters of 2^22 bytes":     func(b []byte) { be.PutUint32(b[20:], 22) },
		"in another file":            func(b []byte) { be.PutUint64(b[72:], isElsewhere) },
		"an L1 table of 1 entries":   func(b []byte) { be.PutUint64(b[24:], 1<<62) },
		"entries for":                func(b []byte) { be.PutUint32(b[36:], 0) },
		"an L1 table of 4294967295 ": func(b []byte) { be.PutUint32(b[36:], 1<<32-1) },
		"the L1 table lies at 7":     func(b []byte) { be.PutUint64(b[40:], 7) },
		"the L1 table lies at 184467": func(b []byte) {
			be.PutUint64(b[40:], 1<<64-ClusterSize)
		},
		"a table of counts of":       func(b []byte) { be.PutUint32(b[56:], 1<<32-1) },
		"the table of counts lies":   func(b []byte) { be.PutUint64(b[48:], 1<<40) },
		"block of counts 1 lies":     func(b []byte) { be.PutUint64(b[ClusterSize+8:], 1<<40) },
		"1048576 snapshots":          func(b []byte) { be.PutUint32(b[60:], 1<<20) },
		"snapshot 0 lies":            func(b []byte) { be.PutUint32(b[60:], 1); be.PutUint64(b[64:], 1<<63) },
		"the table of snapshot 0":    func(b []byte) { be.PutUint32(b[60:], 1); be.PutUint64(b[64:], 0) },
		"L2 table 0 lies":            func(b []byte) { be.PutUint64(b[3*ClusterSize:], 1<<40) },
		"the disk's byte 0 lies":     func(b []byte) { be.PutUint64(b[4*ClusterSize:], 1<<40) },
		"no cluster begins":          func(b []byte) { be.PutUint64(b[4*ClusterSize:], ClusterSize+512) },
		"lies at 1099511627776, pac": func(b []byte) { be.PutUint64(b[4*ClusterSize:], isCompressed|1<<40) },
		"lies at 393215, packed":     func(b []byte) { be.PutUint64(b[4*ClusterSize:], isCompressed|1<<54|6*ClusterSize-1) },
		"more L2 tables than": func(b []byte) {
			be.PutUint32(b[36:], 8)
			for i := range 8 {
				copy(b[3*ClusterSize+8*i:], b[3*ClusterSize:][:8])
			}
		},
	} {
		image := write(t, append(disk(ClusterSize-512), make([]byte, 512)...))
		damage(image)
		if err := cut(image, len(image)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

// TestNotNeeded: what a disk does not read may be missing.
func TestNotNeeded(t *testing.T) {
	be := binary.BigEndian
	end := write(t, disk(ClusterSize+512))
	must(t, cut(end, len(end)-ClusterSize+512)) // the disk ends there
	zero := write(t, disk(ClusterSize))
	be.PutUint64(zero[l2At(zero):], be.Uint64(zero[l2At(zero):])|isZero)
	must(t, cut(zero, len(zero)-ClusterSize))
	long := write(t, disk(ClusterSize))
	be.PutUint64(long[l2At(long)+8:], 1<<40) // behind the disk's end
	must(t, cut(long, len(long)))
	old := write(t, disk(ClusterSize))
	be.PutUint32(old[4:], 2)
	must(t, cut(old, len(old)))
	must(t, cut(small(), 7*512))
	broken := errors.New("the medium")
	if err := Check(failing{broken}, 1<<20); !errors.Is(err, broken) || errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

type failing struct{ error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.error }

// small is an image of clusters of 512 bytes: one that is there and one that is packed.
func small() []byte {
	b, be := make([]byte, 7*512), binary.BigEndian
	copy(b, Magic)
	for at, value := range map[int]uint32{4: 3, 20: 9, 36: 1, 56: 1, 96: 4, 100: 112} {
		be.PutUint32(b[at:], value)
	}
	for at, value := range map[int]uint64{24: 1024, 40: 512, 48: 4 * 512, 512: 1024, 1024: 3 * 512, 1032: isCompressed | 6*512, 4 * 512: 5 * 512} {
		be.PutUint64(b[at:], value)
	}
	return b
}

func FuzzCheck(f *testing.F) {
	for _, image := range [][]byte{small(), snapshot(small()), small()[:6*512+9]} {
		f.Add(image)
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		if err := Check(bytes.NewReader(image), int64(len(image))); err != nil && !errors.Is(err, ErrFormat) {
			t.Error(err)
		}
	})
}
