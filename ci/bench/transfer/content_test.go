package main

import (
	"compress/flate"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSize(t *testing.T) {
	for text, want := range map[string]size{"64M": 64 << 20, "2G": 2 << 30, "16777216": 16 << 20, "16384K": 16 << 20} {
		var s size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "M", "0", "-16M", "17M", "x", "1T", "99999999999999999999"} {
		if err := new(size).Set(text); err == nil {
			t.Errorf("%q is a size", text)
		}
	}
}

// TestDisk: a disk is as the table says: holes, words that deflate to a third or so,
// and noise that does not.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, path := range []string{a, b} {
		if err := makeDisk(path, run16); err != nil {
			t.Fatal(err)
		}
	}
	if err := same(a, b); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(a)
	if err != nil || len(text) != run16 || strings.Trim(string(text[:holeEnd]), "\x00") != "" {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	if got := deflated(t, text[holeEnd:holeEnd+1<<20]); got < 0.25 || got > 0.5 {
		t.Errorf("words deflate to %.2f", got)
	}
	if got := deflated(t, text[wordsEnd:wordsEnd+1<<20]); got < 0.99 {
		t.Errorf("noise deflates to %.2f", got)
	}
	for change, path := range map[string]string{"a byte": a, "the end": b} {
		if change == "a byte" {
			text[5<<20] ^= 1
			err = os.WriteFile(path, text, 0o600)
		} else {
			err = os.Truncate(path, run16-1)
		}
		if err != nil || same(a, b) == nil {
			t.Errorf("%s has changed: %v", change, err)
		}
	}
}

func deflated(t *testing.T, b []byte) float64 {
	t.Helper()
	var n counted
	w, err := flate.NewWriter(&n, 6)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return float64(n) / float64(len(b))
}

type counted int

func (c *counted) Write(p []byte) (int, error) { *c += counted(len(p)); return len(p), nil }

var _ io.Writer = new(counted)
