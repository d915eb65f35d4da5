package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func packed(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := w.WriteHeader(&tar.Header{Name: "a", Size: 3, Mode: 0o600, Typeflag: tar.TypeReg})
	_, werr := w.Write([]byte("abc"))
	if err := errors.Join(err, werr, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

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
	b, boom := packed(t), errors.New("boom")
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
