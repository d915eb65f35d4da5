package vmdk

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"cairn/toolstack/transfer/disk"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content is that of a disk of a size, with some grains of text and some of noise.
func content(seed uint64, size int64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for range 1 + size/(4*GrainSize) {
		at := r.Int64N(size)
		n := min(size, at+r.Int64N(2*GrainSize))
		if r.IntN(2) == 0 {
			for i := at; i < n; i++ {
				b[i] = byte(r.Uint32())
			}
			continue
		}
		copy(b[at:n], bytes.Repeat([]byte("a line of a log file\n"), int(n-at)/21+1))
	}
	return b
}

func write(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, int64(len(b)), 7)
	must(t, err)
	for at := int64(0); at < int64(len(b)); at += GrainSize {
		must(t, w.Grain(at, b[at:min(int64(len(b)), at+GrainSize)]))
	}
	must(t, w.Close())
	return out.Bytes()
}

func read(image []byte) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	if r.Size() > 1<<30 {
		return nil, errors.New("too large for this test")
	}
	b := make([]byte, r.Size())
	for {
		at, data, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		copy(b[at:], data)
	}
}

// TestUnmarked: an image with its tables in front may end with its last grain.
func TestUnmarked(t *testing.T) {
	const size = 3 * GrainSize
	b := content(size, size)
	image := write(t, b)
	copy(image[directoryAt:], make([]byte, 8))
	end := len(image) - sector*(1+1+1+1+1+tableSize/sector+1) // end, header, marker, directory, marker, table, marker
	if got, err := read(image[:end]); err != nil || !bytes.Equal(got, b) {
		t.Error(err)
	}
	if _, err := read(image[:end-7]); !errors.Is(err, ErrFormat) {
		t.Errorf("cut in its last grain: %v", err)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, size := range []int64{sector, GrainSize, 5*GrainSize + sector, 3*tableGrains*GrainSize + GrainSize} {
		b := content(uint64(size), size)
		got, err := read(write(t, b))
		if err != nil || int64(len(got)) != grains(size)*GrainSize || !bytes.Equal(got[:size], b) || !disk.Blank(got[size:]) {
			t.Errorf("%d bytes: %d, %v", size, len(got), err)
		}
	}
}

// TestEmpty: a disk of zeros is a head, an empty directory and an end.
func TestEmpty(t *testing.T) {
	if n := len(write(t, make([]byte, 100*GrainSize))); n != (overhead+1+1+1+1+1)*sector {
		t.Errorf("%d bytes", n)
	}
}

func TestHostile(t *testing.T) {
	image := write(t, content(9, 4*GrainSize))
	first := overhead * sector
	change := func(at int, b ...byte) []byte {
		c := bytes.Clone(image)
		copy(c[at:], b)
		return c
	}
	length := int(binary.LittleEndian.Uint32(image[first+8:]))
	bomb := func(n int) []byte {
		var packed bytes.Buffer
		z := zlib.NewWriter(&packed)
		_, err := z.Write(make([]byte, n))
		must(t, errors.Join(err, z.Close()))
		b := binary.LittleEndian.AppendUint64(bytes.Clone(image[:first]), 0)
		b = binary.LittleEndian.AppendUint32(b, uint32(packed.Len()))
		b = append(b, packed.Bytes()...)
		return append(b, make([]byte, 10*sector)...)
	}
	if _, err := read(bomb(GrainSize + 1)); err == nil || !strings.HasSuffix(err.Error(), ": it inflates to more than a grain") {
		t.Errorf("a byte too much: %v", err)
	}
	parent := bytes.Replace(image, []byte("parentCID=ffffffff"), []byte("parentCID=12345678"), 1)
	for name, b := range map[string][]byte{
		"empty": nil, "noise": bytes.Repeat([]byte("x"), 4096), "head alone": image[:first], "no end": image[:len(image)-sector], "half": image[:first+length/2],
		"version": change(versionAt, 9), "flags": change(flagsAt, 1, 0, 0, 0), "line ends": change(newlinesAt, '\n', '\n'), "grain size": change(grainAt, 1),
		"entries": change(entriesAt, 1), "size 0": change(capacityAt, 0, 0, 0, 0, 0, 0, 0, 0), "huge": change(capacityAt+7, 1), "compression": change(compressionAt, 9),
		"descriptor far away": change(textAt+4, 1), "long descriptor": change(textSizeAt, 200), "descriptor in the header": change(textAt, 0),
		"no overhead": change(overheadAt, 0), "overhead far away": change(overheadAt+4, 1), "parent": parent,
		"odd grain": change(first, 1), "grain beyond the end": change(first+4, 1), "long grain": change(first+8, 0xff, 0xff, 0xff), "spoilt grain": change(first+40, ^image[first+40], ^image[first+41]),
		"bomb": bomb(100 << 20), "small": bomb(GrainSize - 1), "long marker": change(len(image)-2*sector-sector, 9), "more behind": append(bytes.Clone(image), make([]byte, maxOverhead+1)...),
	} {
		if _, err := read(b); !errors.Is(err, ErrFormat) || strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFit: an image is as large as its grains, a disk may be less. What an image has
// behind the disk's end must be zero.
func TestFit(t *testing.T) {
	const size = 2*GrainSize + sector
	b := bytes.Repeat([]byte("x"), size)
	for fit, want := range map[int64]error{GrainSize + sector: ErrTooLarge, size - sector: ErrTooLarge, size: io.EOF, 3 * GrainSize: io.EOF, 9 * GrainSize: io.EOF} {
		r, err := NewReader(bytes.NewReader(write(t, b)))
		must(t, err)
		err = r.Fit(fit)
		n := 0
		for err == nil {
			var data []byte
			_, data, err = r.Next()
			n += len(data)
		}
		if !errors.Is(err, want) || errors.Is(want, io.EOF) && n != int(min(fit, 3*GrainSize)) {
			t.Errorf("%d bytes: %d, %v", fit, n, err)
		}
	}
}

func TestRefusedToWrite(t *testing.T) {
	for _, size := range []int64{0, -1, 513, MaxSize + sector} {
		if _, err := NewWriter(io.Discard, size, 0); err == nil {
			t.Errorf("a disk of %d bytes is written", size)
		}
	}
	w, err := NewWriter(io.Discard, 3*GrainSize, 0)
	must(t, err)
	must(t, w.Grain(GrainSize, make([]byte, GrainSize)))
	if w.Grain(0, make([]byte, GrainSize)) == nil || w.Grain(2*GrainSize, make([]byte, sector)) == nil || w.Grain(2*GrainSize+1, make([]byte, GrainSize)) == nil {
		t.Error("grains are written out of order")
	}
	must(t, w.Close())
}

// full is a socket that fails after some bytes.
type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestBrokenOutput(t *testing.T) {
	b := content(4, 300*GrainSize)
	if w, err := NewWriter(&full{}, int64(len(b)), 0); w != nil || !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("nothing is written: %v, %v", w, err)
	}
	for _, left := range []int{overhead * sector, 1 << 20} {
		w, err := NewWriter(&full{left}, int64(len(b)), 0)
		must(t, err)
		for at := int64(0); at < int64(len(b)) && err == nil; at += GrainSize {
			err = w.Grain(at, b[at:at+GrainSize])
		}
		if cerr := w.Close(); !errors.Is(cerr, io.ErrShortWrite) {
			t.Errorf("%d bytes: %v, %v", left, err, cerr)
		}
	}
}

// TestSpoiltInTheMiddle: grains before a spoilt one are returned, and nothing after it.
func TestSpoiltInTheMiddle(t *testing.T) {
	const all, spoilt = 40, 17
	b := bytes.Repeat([]byte("0123456789abcdef"), all*GrainSize/16)
	image := write(t, b)
	at := overhead * sector
	for range spoilt {
		at += (grainHead + int(binary.LittleEndian.Uint32(image[at+8:])) + sector - 1) / sector * sector
	}
	for name, change := range map[string]func([]byte) []byte{
		"its bytes": func(b []byte) []byte { b[at+grainHead+9] ^= 0xff; return b },
		"its place": func(b []byte) []byte { b[at]++; return b },
		"cut off":   func(b []byte) []byte { return b[:at+grainHead+9] },
	} {
		r, err := NewReader(bytes.NewReader(change(bytes.Clone(image))))
		must(t, err)
		for n := range int64(spoilt) {
			off, data, err := r.Next()
			if err != nil || off != n*GrainSize || !bytes.Equal(data, b[off:off+GrainSize]) {
				t.Fatalf("%s: grain %d: %d, %v", name, n, off, err)
			}
		}
		for range 2 {
			if _, _, err := r.Next(); !errors.Is(err, ErrFormat) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestMemory: what a grain needs is there already, however many there are.
func TestMemory(t *testing.T) {
	const size = 64 << 20
	b := content(5, size)
	w, err := NewWriter(io.Discard, size, 0)
	must(t, err)
	part := func(from, to int64) (allocated uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for at := from; at < to; at += GrainSize {
			must(t, w.Grain(at, b[at:at+GrainSize]))
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if n, most := part(0, size/4), uint64(runtime.GOMAXPROCS(0))*(4*4*GrainSize+2<<20); n > most {
		t.Errorf("%d bytes, at most %d are expected", n, most)
	}
	if n := part(size/4, size); n > 256<<10 {
		t.Errorf("%d bytes for %d more grains", n, 3*size/4/GrainSize)
	}
	must(t, w.Close())
}

func FuzzReader(f *testing.F) {
	f.Add(write(f, content(1, GrainSize)))
	f.Add(write(f, content(2, 3*GrainSize+sector)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		last := int64(-1)
		for {
			at, data, err := r.Next()
			if err != nil {
				return
			}
			if at <= last || len(data) == 0 || at+int64(len(data)) > r.Size() {
				t.Fatalf("%d bytes at %d after %d", len(data), at, last)
			}
			last = at
		}
	})
}

func BenchmarkRead(b *testing.B) {
	const size = 64 << 20
	image := write(b, content(1, size))
	b.SetBytes(size)
	for b.Loop() {
		_, err := read(image)
		must(b, err)
	}
}

func BenchmarkWrite(b *testing.B) {
	d := content(1, 64<<20)
	b.SetBytes(int64(len(d)))
	for b.Loop() {
		w, err := NewWriter(io.Discard, int64(len(d)), 0)
		must(b, err)
		for at := int64(0); at < int64(len(d)); at += GrainSize {
			must(b, w.Grain(at, d[at:at+GrainSize]))
		}
		must(b, w.Close())
	}
}
