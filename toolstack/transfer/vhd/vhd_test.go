package vhd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

var made = time.Date(2026, 11, 22, 12, 0, 1, 0, time.UTC)

// disk is a disk of a size with runs of random sectors.
func disk(seed uint64, size int64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for range 20 {
		from := r.Int64N(size / sector)
		to := min(size/sector, from+1+r.Int64N(600))
		for n := from * sector; n < to*sector; n++ {
			b[n] = byte(r.Uint32() | 1)
		}
	}
	return b
}

// write makes an image of the sectors in which a disk differs from another, or from
// zero where that is nil.
func write(t testing.TB, i Info, b, other []byte) []byte {
	t.Helper()
	if i.Kind == Fixed {
		return fixed(i, b)
	}
	var out bytes.Buffer
	if other == nil {
		other = make([]byte, len(b))
	}
	var numbers []int64
	maps := map[int64][]byte{}
	for s := int64(0); s < i.Size/sector; s++ {
		if n := s * sector; !bytes.Equal(b[n:n+sector], other[n:n+sector]) {
			block := n / blockSize
			if maps[block] == nil {
				maps[block] = make([]byte, blockBitmap)
				numbers = append(numbers, block)
			}
			in := n % blockSize / sector
			maps[block][in/8] |= 0x80 >> (in % 8)
		}
	}
	w, err := NewWriter(&out, i, numbers)
	must(t, err)
	for _, n := range numbers {
		must(t, w.Block(n, b[n*blockSize:min(i.Size, (n+1)*blockSize)], maps[n]))
	}
	must(t, w.Close())
	if want := Length(i, len(numbers)); int64(out.Len()) != want {
		t.Errorf("the image has %d bytes, %d were promised", out.Len(), want)
	}
	return out.Bytes()
}

// fixed is a fixed image, whose footer stands for no header.
func fixed(i Info, b []byte) []byte {
	footer := spoil(appendFooter(nil, i), dataAt, bytes.Repeat([]byte{0xff}, 8)...)
	return append(bytes.Clone(b), footer...)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// apply reads an image onto a disk.
func apply(image, onto []byte) (Info, error) {
	r, err := NewReader(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return Info{}, err
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Info(), nil
		}
		if err != nil {
			return Info{}, err
		}
		if e.Offset < 0 || e.Offset+int64(len(e.Data)) > int64(len(onto)) {
			return Info{}, errors.New("beyond the disk")
		}
		copy(onto[e.Offset:], e.Data)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, size := range []int64{sector, blockSize, blockSize + sector, 9*blockSize - 7*sector} {
		b := disk(uint64(size), size)
		for _, kind := range []Kind{Fixed, Dynamic} {
			i := Info{Kind: kind, Size: size, ID: ID{1, 2}, Made: made}
			got := make([]byte, size)
			info, err := apply(write(t, i, b, nil), got)
			if err != nil || !reflect.DeepEqual(info, i) || !bytes.Equal(got, b) {
				t.Errorf("%d bytes, kind %d: %+v, %v, equal %v", size, kind, info, err, bytes.Equal(got, b))
			}
		}
	}
}

// TestChain restores each of five states from one full image and what changed after.
func TestChain(t *testing.T) {
	const size = 5*blockSize + 3*sector
	states := [][]byte{disk(1, size)}
	images := [][]byte{write(t, Info{Kind: Dynamic, Size: size, ID: ID{0}, Made: made}, states[0], nil)}
	for n := uint64(1); n < 6; n++ {
		next := bytes.Clone(states[n-1])
		change := disk(n+1, size)
		for s := range size / sector {
			if at := s * sector; s%7 == int(n) {
				copy(next[at:at+sector], change[at:]) // zeros over data among them
			}
		}
		i := Info{Kind: Differencing, Size: size, ID: ID{byte(n)}, Made: made, Parent: ID{byte(n - 1)}, ParentName: "größe.vhd"}
		states, images = append(states, next), append(images, write(t, i, next, states[n-1]))
	}
	got := make([]byte, size)
	for n, image := range images {
		i, err := apply(image, got)
		if err != nil || !bytes.Equal(got, states[n]) {
			t.Fatalf("state %d: %+v, %v", n, i, err)
		}
		if n > 0 && (i.Parent != ID{byte(n - 1)} || i.ParentName != "größe.vhd") {
			t.Errorf("state %d: %+v", n, i)
		}
	}
}

func TestRuns(t *testing.T) {
	for bitmap, want := range map[string][][2]int{
		"\x00\x00": nil, "\xff\xff": {{0, 16}}, "\x80\x01": {{0, 1}, {15, 16}}, "\x0f\xf0": {{4, 12}}, "\xaa\x00": {{0, 1}, {2, 3}, {4, 5}, {6, 7}},
	} {
		var got [][2]int
		must(t, runs([]byte(bitmap), func(a, b int) error { got = append(got, [2]int{a, b}); return nil }))
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%x: %v, want %v", bitmap, got, want)
		}
	}
}

// TestGeometry compares with the specification's own cases and limits.
func TestGeometry(t *testing.T) {
	for size, want := range map[int64][3]uint32{
		2 << 20:   {60, 4, 17},
		127 << 30: {65278, 16, 255},
		MaxSize:   {65535, 16, 255},
	} {
		g := geometry(size)
		if got := [3]uint32{g >> 16, g >> 8 & 0xff, g & 0xff}; got != want {
			t.Errorf("%d: %v, want %v", size, got, want)
		}
	}
}

// spoil changes an image and puts the checksums right where asked.
func spoil(image []byte, at int, b ...byte) []byte {
	image = bytes.Clone(image)
	copy(image[at:], b)
	if at < footerSize {
		binary.BigEndian.PutUint32(image[footerSumAt:], sum(image[:footerSize], footerSumAt))
	} else {
		h := image[footerSize : footerSize+headerSize]
		binary.BigEndian.PutUint32(h[headerSumAt:], sum(h, headerSumAt))
	}
	return image
}

func TestHostile(t *testing.T) {
	const size = 2 * blockSize
	i := Info{Kind: Dynamic, Size: size, Made: made}
	image := write(t, i, disk(3, size), nil)
	fixed := write(t, Info{Kind: Fixed, Size: size, Made: made}, disk(3, size), nil)
	table := int(tableAtOf(i))
	two := bytes.Clone(image)
	copy(two[table+4:], two[table:table+4]) // both blocks at one place
	inHead := bytes.Clone(image)
	copy(inHead[table:], []byte{0, 0, 0, 1})
	far := bytes.Clone(image)
	copy(far[table:], []byte{0xff, 0xff, 0xff, 0xfe})
	sumless := bytes.Clone(image)
	sumless[timeAt]++
	for name, b := range map[string][]byte{
		"empty": nil, "noise": bytes.Repeat([]byte("x"), 4096), "footer alone": image[:footerSize], "no table": image[:footerSize+headerSize],
		"half a block": image[:len(image)-blockSize], "half a fixed one": fixed[:len(fixed)/2],
		"checksum": sumless, "version": spoil(image, versionAt, 0, 2), "kind": spoil(image, kindAt, 0, 0, 0, 9), "fixed in front": spoil(image, kindAt, 0, 0, 0, 2),
		"size 0": spoil(image, sizeAt, make([]byte, 8)...), "odd size": spoil(image, sizeAt+7, 1), "huge": spoil(image, sizeAt, 0x7f),
		"header far away": spoil(image, dataAt, 0, 0, 1), "header in the footer": spoil(image, dataAt, 0, 0, 0, 0, 0, 0, 0, 0),
		"table in the header": spoil(image, footerSize+tableAt, 0, 0, 0, 0, 0, 0, 2, 0), "table far away": spoil(image, footerSize+tableAt, 0, 0, 1),
		"short table": spoil(image, footerSize+entriesAt, 0, 0, 0, 1), "small blocks": spoil(image, footerSize+blockSizeAt, 0, 0, 2, 0),
		"header version": spoil(image, footerSize+headerVersion, 9), "header cookie": spoil(image, footerSize, 'x'),
		"two at one place": two, "block in the head": inHead, "block far away": far,
		"more behind it": append(bytes.Clone(image), make([]byte, blockSize+1)...),
	} {
		if _, err := apply(b, make([]byte, size)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewReader(bytes.NewReader(fixed), -1); !errors.Is(err, ErrFormat) {
		t.Errorf("a fixed image of unknown length: %v", err)
	}
}

func TestRefusedToWrite(t *testing.T) {
	for name, i := range map[string]Info{
		"too large": {Kind: Dynamic, Size: MaxSize + sector}, "odd": {Kind: Dynamic, Size: 513}, "nothing": {Kind: Dynamic}, "fixed": {Kind: Fixed, Size: sector},
		"kind": {Kind: 7, Size: sector}, "name": {Kind: Differencing, Size: sector, ParentName: strings.Repeat("x", 257)},
	} {
		if _, err := NewWriter(io.Discard, i, nil); err == nil {
			t.Errorf("%s is written", name)
		}
	}
	for _, numbers := range [][]int64{{-1}, {2}, {1, 0}, {0, 0}} {
		if _, err := NewWriter(io.Discard, Info{Kind: Dynamic, Size: 2 * blockSize}, numbers); err == nil {
			t.Errorf("blocks %v are written", numbers)
		}
	}
	gone, out := io.Pipe()
	must(t, gone.Close())
	w, err := NewWriter(out, Info{Kind: Dynamic, Size: 2 * blockSize}, []int64{0})
	if w != nil || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("nobody takes an image: %v, %v", w, err)
	}
	w, err = NewWriter(io.Discard, Info{Kind: Dynamic, Size: 2 * blockSize}, []int64{0})
	must(t, err)
	if w.Block(1, make([]byte, blockSize), nil) == nil || w.Block(0, make([]byte, 3), nil) == nil || w.Close() == nil {
		t.Error("an image that was not announced is written")
	}
}

// TestEndless: a stream that is kept open ends with its footer.
func TestEndless(t *testing.T) {
	const size = 2 * blockSize
	image := write(t, Info{Kind: Dynamic, Size: size, Made: made}, disk(3, size), nil)
	open := io.MultiReader(bytes.NewReader(image), iotest.ErrReader(errors.New("it is read beyond its end")))
	r, err := NewReader(open, -1)
	must(t, err)
	for err == nil {
		_, err = r.Next()
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func FuzzReader(f *testing.F) {
	for _, size := range []int64{sector, blockSize + sector} {
		for _, kind := range []Kind{Fixed, Dynamic, Differencing} {
			f.Add(write(f, Info{Kind: kind, Size: size, Made: made}, disk(5, size), nil))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for {
			e, err := r.Next()
			if err != nil {
				return
			}
			if e.Offset < 0 || len(e.Data) == 0 || len(e.Data)%sector != 0 || e.Offset+int64(len(e.Data)) > r.Info().Size {
				t.Fatalf("%d bytes at %d of %d", len(e.Data), e.Offset, r.Info().Size)
			}
		}
	})
}
