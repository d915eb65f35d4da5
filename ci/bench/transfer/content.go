package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
)

// size is a number of bytes as a flag.
type size int64

func (s *size) String() string { return fmt.Sprint(int64(*s)) }

// Set implements flag.Value.
func (s *size) Set(text string) error {
	shift := 10 * (1 + strings.Index("KMG", text[max(0, len(text)-1):]))
	n, err := strconv.ParseInt(strings.TrimRight(text, "KMG"), 10, 34)
	if *s = size(n << shift); err != nil || n < 1 || *s%run16 != 0 {
		return fmt.Errorf("%q is not a multiple of 16M", text)
	}
	return nil
}

// What a disk holds repeats, so that every part of it is like the whole: of each 16 MiB
// the first 4 were never written, 8 are of words, which deflate to a third, and 4 are
// random, as what is compressed or encrypted.
const (
	run16    = 16 << 20
	holeEnd  = 4 << 20
	wordsEnd = 12 << 20
)

const mixture = "of each 16 MiB 4 never written, 8 of words, 4 random"

// makeDisk writes a disk into a new file.
func makeDisk(path string, n int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	words, noise := newProse(1), rand.NewChaCha8([32]byte{1})
	buf := make([]byte, run16)
	for at := int64(0); at < n && err == nil; at += run16 {
		words.read(buf[holeEnd:wordsEnd])
		_, _ = noise.Read(buf[wordsEnd:])
		_, err = f.WriteAt(buf[holeEnd:], at+holeEnd)
	}
	return errors.Join(err, f.Truncate(n), f.Sync(), f.Close())
}

// prose is text: words of a small vocabulary, some of them much more often than others.
type prose struct {
	words [1 << 16]string // as often in it as in the text
	r     *rand.Rand
}

func newProse(seed uint64) *prose {
	p := &prose{r: rand.New(rand.NewPCG(seed, seed))}
	var vocabulary [4096]string
	for n := range vocabulary {
		w := make([]byte, 2+p.r.IntN(9))
		for i := range w {
			w[i] = byte('a' + p.r.IntN(26))
		}
		vocabulary[n] = string(w)
	}
	often := rand.NewZipf(p.r, 1.1, 8, uint64(len(vocabulary)-1))
	for n := range p.words {
		p.words[n] = vocabulary[often.Uint64()]
	}
	return p
}

func (p *prose) read(b []byte) {
	for len(b) > 0 {
		n := copy(b, p.words[p.r.Uint32()>>16])
		if b = b[n:]; len(b) > 0 {
			b[0], b = ' ', b[1:]
		}
	}
}

// same fails unless two files hold the same bytes.
func same(a, b string) error {
	f, err := os.Open(a)
	if err != nil {
		return err
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		return err
	}
	defer g.Close()
	left, right := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; at += int64(len(left)) {
		n, err := io.ReadFull(f, left)
		m, gerr := io.ReadFull(g, right)
		if !bytes.Equal(left[:n], right[:m]) {
			return fmt.Errorf("%s and %s differ behind %d", a, b, at)
		}
		if err != nil || gerr != nil {
			return ended(err, gerr)
		}
	}
}

// ended are the errors of two files that were read that are more than their ends.
func ended(all ...error) (out error) {
	for _, err := range all {
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			out = errors.Join(out, err)
		}
	}
	return out
}
