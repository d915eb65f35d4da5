package archive

import (
	"bytes"
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
