package ovf

import (
	"archive/tar"
	"crypto/sha256"
	"hash"
	"io"
)

// Writer writes an archive from front to back: the descriptor, images, the manifest of
// all of them.
type Writer struct {
	tar   *tar.Writer
	name  string // of the member under way
	sum   hash.Hash
	lines string
}

// NewWriter writes the descriptor.
func NewWriter(out io.Writer, name string, descriptor []byte) (*Writer, error) {
	w := &Writer{tar: tar.NewWriter(out)}
	if err := w.Begin(name, int64(len(descriptor))); err != nil {
		return nil, err
	}
	_, err := w.Write(descriptor)
	return w, err
}

// Begin begins the next member, of so many bytes.
func (w *Writer) Begin(name string, size int64) error {
	w.end()
	w.name, w.sum = name, sha256.New()
	return w.tar.WriteHeader(header(name, size))
}

// largest is what the tar of POSIX can say: above it is what GNU's says instead.
const largest = 1<<33 - 1

func header(name string, size int64) *tar.Header {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatUSTAR}
	if size > largest {
		h.Format = tar.FormatGNU
	}
	return h
}

// Write implements io.Writer for the member under way.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.tar.Write(p)
	w.sum.Write(p[:n])
	return n, err
}

// end writes down the digest of the member under way.
func (w *Writer) end() {
	if w.sum != nil {
		w.lines += line(w.name, w.sum.Sum(nil))
	}
}

// Close writes the manifest and ends the archive.
func (w *Writer) Close(manifest string) error {
	w.end()
	if err := w.tar.WriteHeader(header(manifest, int64(len(w.lines)))); err != nil {
		return err
	}
	if _, err := io.WriteString(w.tar, w.lines); err != nil {
		return err
	}
	return w.tar.Close()
}

// Length is that of an archive with these members, and the manifest of them.
func Length(members ...File) int64 {
	const block = 512
	n, lines := int64(2*block), int64(0) // the mark at the end
	padded := func(size int64) int64 { return block + (size+block-1)/block*block }
	for _, m := range members {
		n += padded(m.Size)
		lines += int64(len(line(m.Name, make([]byte, sha256.Size))))
	}
	return n + padded(lines)
}
