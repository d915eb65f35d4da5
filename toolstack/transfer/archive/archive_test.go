package archive

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"cairn/toolstack/transfer/archive/archivetest"
)

// read returns what there is in the first member, how the archive ended and whether it
// said so.
func read(in io.Reader) (text string, marked bool, err error) {
	r, err := Open(in)
	if err != nil {
		return "", false, err
	}
	defer r.Close()
	if _, err = r.Next(); err != nil {
		return "", false, err
	}
	b, err := io.ReadAll(r)
	if err == nil {
		_, err = r.Next()
	}
	return string(b), r.Marked(), err
}

// TestEnds: an archive ends with its mark, with its last member, or too early; what
// happens to its source after that is none of its affair.
func TestEnds(t *testing.T) {
	b, boom := archivetest.Pack(archivetest.Member{Name: "a", Body: []byte("abc")}), errors.New("boom")
	for _, c := range []struct {
		what   string
		in     io.Reader
		text   string
		marked bool
		err    error
	}{
		{"whole", bytes.NewReader(b), "abc", true, io.EOF},
		{"whole, then an error", io.MultiReader(bytes.NewReader(b), iotest.ErrReader(boom)), "abc", true, io.EOF},
		{"without the mark", bytes.NewReader(b[:1024]), "abc", false, io.EOF},
		{"an error instead of the mark", io.MultiReader(bytes.NewReader(b[:1024]), iotest.ErrReader(boom)), "abc", false, boom},
		{"cut", bytes.NewReader(b[:514]), "ab", false, ErrShort},
		{"cut by an error", io.MultiReader(bytes.NewReader(b[:514]), iotest.ErrReader(boom)), "ab", false, boom},
		{"cut in the header", bytes.NewReader(b[:300]), "", false, ErrShort},
		{"nothing", bytes.NewReader(nil), "", false, ErrShort},
	} {
		text, marked, err := read(c.in)
		if text != c.text || marked != c.marked || !errors.Is(err, c.err) || errors.Is(c.err, boom) && errors.Is(err, ErrFormat) {
			t.Errorf("%s: %q, %v, %v", c.what, text, marked, err)
		}
	}
}

// TestWindow: what wants more memory than everybody needs to have is refused.
func TestWindow(t *testing.T) {
	b := archivetest.Pack(archivetest.Member{Name: "a", Body: make([]byte, 3<<20)})
	for size, want := range map[int]error{8 << 20: io.EOF, 16 << 20: ErrFormat} {
		var packed bytes.Buffer
		z, err := zstd.NewWriter(&packed, zstd.WithWindowSize(size), zstd.WithSingleSegment(false))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := read(&packed); !errors.Is(err, want) {
			t.Errorf("a window of %d: %v", size, err)
		}
	}
}

// TestFinish: what is packed ends with a checksum of it all.
func TestFinish(t *testing.T) {
	b := archivetest.Pack(archivetest.Member{Name: "a", Body: []byte("abc")})
	gz := pack(t, "gzip", b)
	wrong := bytes.Clone(gz)
	wrong[len(wrong)-8] ^= 1
	length := bytes.Clone(gz)
	length[len(length)-1] ^= 1
	zst := pack(t, "zstd", b)
	crc := bytes.Clone(zst)
	crc[len(crc)-1] ^= 1
	for _, c := range []struct {
		what string
		in   []byte
		err  error
	}{
		{"plain", b, nil},
		{"plain, cut in the mark", b[:len(b)-512], nil},
		{"gzip", gz, nil},
		{"gzip, cut by a byte", gz[:len(gz)-1], ErrShort},
		{"gzip without its trailer", gz[:len(gz)-8], ErrShort},
		{"gzip with a wrong checksum", wrong, ErrChecksum},
		{"gzip with a wrong length", length, ErrChecksum},
		{"gzip, padded", pack(t, "gzip", append(bytes.Clone(b), make([]byte, 9<<10)...)), nil},
		{"gzip, padded without end", pack(t, "gzip", append(bytes.Clone(b), make([]byte, padding+1)...)), ErrFormat},
		{"zstd", zst, nil},
		{"zstd, cut by a byte", zst[:len(zst)-1], ErrShort},
		{"zstd with a wrong checksum", crc, ErrChecksum},
	} {
		r, err := Open(bytes.NewReader(c.in))
		for err == nil {
			_, err = r.Next()
		}
		if errors.Is(err, io.EOF) {
			err = r.Finish()
		}
		if r != nil {
			r.Close()
		}
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// pack packs an archive.
func pack(t *testing.T, how string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&out)
	if how == "zstd" {
		z, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	}
	_, err := w.Write(b)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
