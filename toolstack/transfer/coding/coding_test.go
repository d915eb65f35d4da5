package coding

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"cairn/toolstack/transfer/disk"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// part is bytes, or so many zeros that are not sent.
type part struct {
	data  []byte
	zeros int64
}

func sample() (parts []part, plain []byte) {
	text := bytes.Repeat([]byte("abcdefg"), block/4) // more than one block
	for _, p := range []part{{zeros: 5}, {data: []byte("x")}, {zeros: 3*block + 1}, {data: text}, {data: text[:block]}, {zeros: block}} {
		parts = append(parts, p)
		plain = append(append(plain, p.data...), make([]byte, p.zeros)...)
	}
	return parts, plain
}

func written(t testing.TB, parts []part) []byte {
	t.Helper()
	var b bytes.Buffer
	size := int64(0)
	for _, p := range parts {
		size += int64(len(p.data)) + p.zeros
	}
	w := NewWriter(&b, size)
	for _, p := range parts {
		if p.data != nil {
			n, err := w.Write(p.data)
			if must(t, err); n != len(p.data) {
				t.Fatalf("%d of %d bytes", n, len(p.data))
			}
		}
		must(t, w.Zero(p.zeros))
	}
	must(t, w.Close())
	return b.Bytes()
}

func TestOthersCanReadIt(t *testing.T) {
	parts, plain := sample()
	for name, c := range map[string]struct {
		parts []part
		plain []byte
	}{"sample": {parts, plain}, "nothing": {}} {
		z, err := zstd.NewReader(bytes.NewReader(written(t, c.parts)), zstd.WithDecoderMaxWindow(block))
		must(t, err)
		got, err := io.ReadAll(z)
		z.Close()
		if err != nil || !bytes.Equal(got, c.plain) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(c.plain), err)
		}
	}
}

func TestReadBack(t *testing.T) {
	parts, plain := sample()
	for name, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.HalfReader, "late EOF": iotest.DataErrReader} {
		got, err := io.ReadAll(NewReader(wrap(bytes.NewReader(written(t, parts)))))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(plain), err)
		}
	}
}

// read takes a stream apart again.
func read(r io.Reader) (parts []part, err error) {
	p := make([]byte, 1<<20)
	for {
		n, err := disk.ReadHoles(r, p)
		if n > 0 {
			parts = append(parts, part{data: bytes.Clone(p[:n])})
		}
		var hole disk.Hole
		switch {
		case errors.As(err, &hole):
			parts = append(parts, part{zeros: int64(hole)})
		case err == io.EOF:
			return parts, nil
		case err != nil:
			return parts, err
		}
	}
}

func TestHolesAreTold(t *testing.T) {
	parts, plain := sample()
	got, err := read(NewReader(bytes.NewReader(written(t, parts))))
	must(t, err)
	var holes []int64
	var sum []byte
	for _, p := range got {
		if p.zeros > 0 {
			holes = append(holes, p.zeros)
		}
		sum = append(append(sum, p.data...), make([]byte, p.zeros)...)
	}
	if !bytes.Equal(sum, plain) || len(holes) != 3 || holes[1] != 3*block+1 {
		t.Errorf("holes %d, %d bytes of %d", holes, len(sum), len(plain))
	}
}

// TestForeign: what others have packed is unpacked, and what repeats another byte than
// zero is no hole.
func TestForeign(t *testing.T) {
	_, plain := sample()
	z, err := zstd.NewWriter(nil)
	must(t, err)
	got, err := io.ReadAll(NewReader(bytes.NewReader(z.EncodeAll(plain, nil))))
	if err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%d bytes of %d, %v", len(got), len(plain), err)
	}
	head := begin(10)
	stream := append(head, 0, 0, 0, 7, 0, 0, 0)
	putHead(stream[len(head):], repeated, 10)
	putHead(stream[len(head)+4:], stored|last, 0)
	parts, err := read(NewReader(bytes.NewReader(stream)))
	if err != nil || len(parts) != 1 || string(parts[0].data) != strings.Repeat("\a", 10) {
		t.Errorf("%v, %v", parts, err)
	}
}

func TestCutAnywhere(t *testing.T) {
	stream := written(t, []part{{data: []byte("abc")}, {zeros: 300}})
	z, err := zstd.NewWriter(nil)
	must(t, err)
	for name, all := range map[string][]byte{"own": stream, "foreign": z.EncodeAll([]byte("abcdefgh"), nil)} {
		for n := 1; n < len(all); n++ {
			if _, err := read(NewReader(bytes.NewReader(all[:n]))); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrFormat) {
				t.Errorf("%s, %d bytes of %d: %v", name, n, len(all), err)
			}
		}
		gone := errors.New("the network is gone")
		_, err := read(NewReader(io.MultiReader(bytes.NewReader(all[:len(all)-1]), iotest.ErrReader(gone))))
		if !errors.Is(err, gone) || errors.Is(err, ErrFormat) {
			t.Errorf("%s: a source that fails: %v", name, err)
		}
	}
}

// TestCutBetweenFrames: an end that only the source knows to be too early.
func TestCutBetweenFrames(t *testing.T) {
	z, err := zstd.NewWriter(nil)
	must(t, err)
	frame := z.EncodeAll([]byte("abcdefgh"), nil)
	skipped := append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0}, 'x')
	for name, all := range map[string][]byte{"a frame": frame, "two": append(bytes.Clone(frame), frame...), "one to be skipped": append(bytes.Clone(frame), skipped...)} {
		_, err := read(NewReader(io.MultiReader(bytes.NewReader(all), iotest.ErrReader(io.ErrUnexpectedEOF))))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := io.ReadAll(NewReader(bytes.NewReader(all))); err != nil || len(got)%8 != 0 {
			t.Errorf("%s, whole: %d bytes, %v", name, len(got), err)
		}
	}
}

// TestSize: what a stream holds is known before it is read, where a Writer made it; and
// one that writes something else has not ended well.
func TestSize(t *testing.T) {
	parts, plain := sample()
	r := NewReader(bytes.NewReader(written(t, parts)))
	if r.Size() != int64(len(plain)) {
		t.Errorf("%d bytes, it says", r.Size())
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%d bytes after that, %v", len(got), err)
	}
	z, err := zstd.NewWriter(nil)
	must(t, err)
	if n := NewReader(bytes.NewReader(z.EncodeAll(plain, nil))).Size(); n != -1 {
		t.Errorf("another's has %d bytes", n)
	}
	if n := NewReader(bytes.NewReader(nil)).Size(); n != -1 {
		t.Errorf("nothing has %d bytes", n)
	}
	w := NewWriter(io.Discard, 5)
	must(t, w.Zero(4))
	if w.Close() == nil {
		t.Error("4 bytes are 5")
	}
}

func TestNonsense(t *testing.T) {
	whole := written(t, nil)
	for name, b := range map[string][]byte{
		"text":               []byte("a disk image, and long enough to look into"),
		"bytes behind":       append(bytes.Clone(whole), 0),
		"a packed block":     append(begin(block), 5, 0, 0),
		"a block too large":  append(begin(block), 0xff, 0xff, 0xfd),
		"a size too large":   append(begin(-1), 1, 0, 0),
		"less than its size": append(begin(5), 1, 0, 0),
		"more than its size": append(begin(5), 6<<3|1, 0, 0, 1, 2, 3, 4, 5, 6),
		"an unknown block":   append(begin(block), 7, 0, 0),
		"a window too large": {0x28, 0xb5, 0x2f, 0xfd, 0, 20 << 3, 1, 0, 0},
	} {
		if _, err := io.ReadAll(NewReader(bytes.NewReader(b))); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFile(t *testing.T) {
	_, plain := sample()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	must(t, err)
	defer f.Close()
	const hole = 40 << 20
	must(t, f.Truncate(hole))
	_, err = f.WriteAt(plain, hole)
	must(t, err)
	must(t, f.Truncate(2*hole))
	plain = append(make([]byte, hole), plain...)
	plain = append(plain, make([]byte, 2*hole-len(plain))...)
	info, err := f.Stat()
	must(t, err)
	var streams [2][]byte
	for i := range streams {
		s, err := NewFile(f)
		must(t, err)
		if i == 0 {
			streams[i], err = io.ReadAll(iotest.OneByteReader(s))
		} else {
			var b bytes.Buffer
			var n int64
			n, err = s.WriteTo(&b)
			if streams[i] = b.Bytes(); n != int64(b.Len()) {
				t.Errorf("%d bytes of %d", n, b.Len())
			}
		}
		must(t, err)
		got, err := io.ReadAll(NewReader(bytes.NewReader(streams[i])))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes of %d, %v", len(got), len(plain), err)
		}
	}
	if !bytes.Equal(streams[0], streams[1]) {
		t.Error("read is not what is written")
	}
	if Sparse(info) != (len(streams[0]) < 2<<20) {
		t.Errorf("sparse %v, but %d bytes", Sparse(info), len(streams[0]))
	}
	for _, n := range []int64{hole + 1, 1} { // within its data, and its holes
		s, err := NewFile(f)
		must(t, err)
		_, err = s.Read(make([]byte, 1))
		must(t, err)
		must(t, f.Truncate(n))
		if _, err := io.ReadAll(s); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a file that is made shorter, %d: %v", n, err)
		}
		must(t, f.Truncate(2*hole))
	}
}

func TestAccepted(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip, br": false, "zstd": true, "gzip, ZSTD ;q=0.5": true, "zstd;q=0": false, "zstd; q=0.000": false,
		"zstd;q=x": false, "*": false, "zstdx": false, "gzip;q=0, zstd": true,
	} {
		if got := Accepted(header); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
}

func FuzzReader(f *testing.F) {
	parts, _ := sample()
	f.Add(written(f, parts[:3]))
	f.Add(append(begin(block), 0xff, 0xff, 0xff))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		defer r.Close()
		limit := int64(block) * int64(len(b)+1) * 64
		sum := int64(0)
		for p := make([]byte, 4096); ; {
			n, err := r.ReadHoles(p)
			var hole disk.Hole
			if errors.As(err, &hole) {
				err = nil
			}
			if sum += int64(n) + int64(hole); err != nil || sum > limit {
				break
			}
		}
		if r.other == nil && sum > int64(block)*int64(len(b)) {
			t.Errorf("%d bytes of %d", sum, len(b))
		}
	})
}
