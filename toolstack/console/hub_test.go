package console

import (
	"bytes"
	"errors"
	"net"
	"testing"
)

func TestAppendTail(t *testing.T) {
	var tail []byte
	chunk := bytes.Repeat([]byte("x"), 1000)
	for range 1000 {
		tail = appendTail(tail, chunk)
		if len(tail) > 2*tailLength {
			t.Fatalf("tail grew to %d", len(tail))
		}
	}
	if tail = appendTail(tail, []byte("end")); !bytes.HasSuffix(tail, []byte("xend")) || len(tail) < tailLength {
		t.Errorf("tail of %d bytes", len(tail))
	}
}

// TestSlowViewer: one who does not read is cut off, one who does is not.
func TestSlowViewer(t *testing.T) {
	guest, ours := net.Pipe()
	h := newHub(ours)
	go h.run()
	slow, err := h.join(nil)
	if err != nil {
		t.Fatal(err)
	}
	fast, err := h.join(nil)
	if err != nil {
		t.Fatal(err)
	}
	chunk := bytes.Repeat([]byte("y"), 4096)
	for sent := 0; sent <= lagLimit; sent += len(chunk) {
		if _, err := guest.Write(chunk); err != nil {
			t.Fatal(err)
		}
		if _, err := fast.next(); err != nil {
			t.Fatalf("the viewer that reads: %v", err)
		}
	}
	if _, err := slow.next(); !errors.Is(err, errLag) {
		t.Errorf("the viewer that does not: %v", err)
	}
	guest.Close()
	if _, err := fast.next(); err == nil {
		t.Error("the stream goes on without a guest")
	}
	if _, err := h.join(nil); err == nil {
		t.Error("joined what has ended")
	}
}
