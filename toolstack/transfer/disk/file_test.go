package disk_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/iotest"

	"cairn/toolstack/transfer/disk"
)

// save saves a stream into a new file, which it returns, and how much room it takes.
func save(t *testing.T, r io.Reader) (got []byte, room int64, err error) {
	t.Helper()
	f, ferr := os.Create(filepath.Join(t.TempDir(), "f"))
	if ferr != nil {
		t.Fatal(ferr)
	}
	defer f.Close()
	err = disk.Save(t.Context(), f, r)
	info, ierr := f.Stat()
	got, rerr := os.ReadFile(f.Name())
	if err := errors.Join(ierr, rerr); err != nil {
		t.Fatal(err)
	}
	return got, info.Sys().(*syscall.Stat_t).Blocks * 512, err
}

// TestSave: a file holds what came, and what is zero takes no room.
func TestSave(t *testing.T) {
	for _, kind := range []string{"full", "sparse", "empty"} {
		for _, size := range []int64{0, 1, disk.Piece, 9*disk.Piece + 77} {
			want := content(kind, size)
			got, room, err := save(t, iotest.HalfReader(bytes.NewReader(want)))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s %d: %d bytes, %v", kind, size, len(got), err)
			}
			if kind == "empty" && room != 0 {
				t.Errorf("%d zeros take %d bytes", size, room)
			}
		}
	}
	part := append(bytes.Repeat([]byte{1}, 1<<20), make([]byte, 8<<20)...)
	if got, room, err := save(t, bytes.NewReader(part)); err != nil || !bytes.Equal(got, part) || room > 2<<20 {
		t.Errorf("with zeros at its end it has %d bytes and takes %d: %v", len(got), room, err)
	}
}

func TestSaveOfABrokenStream(t *testing.T) {
	gone := errors.New("the host has gone")
	_, _, err := save(t, io.MultiReader(io.LimitReader(ones{}, 5<<20), iotest.ErrReader(gone)))
	if !errors.Is(err, gone) {
		t.Error(err)
	}
	f, err := os.Open(os.DevNull) // nothing can be written to
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if disk.Save(t.Context(), f, io.LimitReader(ones{}, 5<<20)) == nil {
		t.Error("what cannot be written is said to be")
	}
}
