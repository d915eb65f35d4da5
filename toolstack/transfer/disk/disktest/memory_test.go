package disktest

import (
	"bytes"
	"testing"

	"cairn/toolstack/transfer/disk"
)

func TestMemory(t *testing.T) {
	for _, size := range []int64{Block, 9*Block + 512, 20 * Block} {
		Keeps(t, New(size))
	}
}

func TestOf(t *testing.T) {
	b := make([]byte, 3*Block+5)
	b[0], b[3*Block+4] = 1, 2
	m := Of(b)
	if !bytes.Equal(m.Bytes(), b) || m.Held() != 2*Block {
		t.Errorf("%d bytes are held", m.Held())
	}
	if err := m.Zero(3*Block, 5); err != nil || m.Held() != Block {
		t.Errorf("the last, short block is no hole: %v", err)
	}
}

// TestLarge: a disk of petabytes is told in extents without its bytes.
func TestLarge(t *testing.T) {
	m := New(5 << 40)
	if _, err := m.WriteAt([]byte("x"), 4<<40); err != nil {
		t.Fatal(err)
	}
	var data []disk.Extent
	for e, err := range disk.All(t.Context(), m) {
		if err != nil {
			t.Fatal(err)
		}
		if !e.Zero {
			data = append(data, e)
		}
	}
	if len(data) != 1 || data[0] != (disk.Extent{Off: 4 << 40, Len: Block}) {
		t.Errorf("%+v", data)
	}
}
