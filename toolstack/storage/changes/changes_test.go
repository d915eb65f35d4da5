package changes

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

const mib = 1 << 20

func made(t testing.TB, size int64, marks ...int64) *Map {
	t.Helper()
	m, err := New(size)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range marks {
		m.Mark(b*Block, 1)
	}
	return m
}

func set(m *Map) (all []int64) {
	for i := range blocks(m.Size()) {
		if m.Has(i) {
			all = append(all, i)
		}
	}
	return all
}

// The first block is the most significant bit of the first byte.
func TestBits(t *testing.T) {
	m := made(t, mib, 0, 9, 15)
	if b, err := base64.StdEncoding.DecodeString(m.Base64()); err != nil || !bytes.Equal(b, []byte{0x80, 0x41}) {
		t.Errorf("%x, %v", b, err)
	}
	if m.Count() != 3 || m.Has(-1) || m.Has(16) || m.Has(1) || !m.Has(9) {
		t.Errorf("%d blocks: %v", m.Count(), set(m))
	}
}

func TestMark(t *testing.T) {
	for _, tt := range []struct {
		size, off, n int64
		want         string
	}{
		{mib, 0, 0, "[]"},
		{mib, 0, 1, "[0]"},
		{mib, Block - 1, 2, "[0 1]"},
		{mib, Block, Block, "[1]"},
		{mib, -1, 5, "[]"},
		{mib, mib, 5, "[]"},
		{mib, mib - 1, 1 << 62, "[15]"},
		{mib + 512, mib, 512, "[16]"},
		{mib, 7 * Block, 9 * Block, "[7 8 9 10 11 12 13 14 15]"},
		{0, 0, 1, "[]"},
	} {
		m := made(t, tt.size)
		m.Mark(tt.off, tt.n)
		if got := fmt.Sprint(set(m)); got != tt.want {
			t.Errorf("%d bytes at %d of %d: %s, want %s", tt.n, tt.off, tt.size, got, tt.want)
		}
	}
}

// What one of two sizes does not have has changed.
func TestJoinOfSizes(t *testing.T) {
	for _, tt := range []struct {
		a, b *Map
		want string
	}{
		{made(t, mib, 1), made(t, mib, 1, 3), "[1 3]"},
		{made(t, 3*Block, 1), made(t, 5*Block, 0), "[0 1 3 4]"},
		{made(t, 5*Block, 0), made(t, 3*Block, 1), "[0 1 3 4]"},
		{made(t, 3*Block-512), made(t, 3*Block), "[2]"},
		{made(t, 0), made(t, 2*Block), "[0 1]"},
	} {
		m, err := Join(tt.a, tt.b)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(set(m)); got != tt.want || m.Size() != max(tt.a.Size(), tt.b.Size()) {
			t.Errorf("%v of %d and %v of %d: %s of %d, want %s", set(tt.a), tt.a.Size(), set(tt.b), tt.b.Size(), got, m.Size(), tt.want)
		}
	}
	m, err := made(t, mib, 0, 5, 15).Resized(5*Block + 1)
	if err != nil || fmt.Sprint(set(m)) != "[0 5]" {
		t.Errorf("made smaller: %v, %v", set(m), err)
	}
	if _, err := FromBits(m.Size(), m.bits); err != nil {
		t.Errorf("made smaller: %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	for _, size := range []int64{-1, MaxSize + 1} {
		if _, err := New(size); err == nil {
			t.Errorf("a map of %d bytes", size)
		}
		if _, err := FromBits(size, nil); err == nil {
			t.Errorf("bits of %d bytes", size)
		}
	}
	if _, err := FromBits(mib, make([]byte, 3)); err == nil {
		t.Error("more bits than blocks")
	}
	if _, err := FromBits(Block, []byte{0x40}); err == nil {
		t.Error("a bit behind the end")
	}
}

// A log that was cut, changed or continued anywhere is refused.
func TestLog(t *testing.T) {
	m := made(t, 100*Block+512, 0, 7, 8, 100)
	b := m.Encode()
	for _, text := range [][]byte{b, append(bytes.Clone(b), make([]byte, 4096)...)} {
		got, err := Decode(text)
		if err != nil || got.Size() != m.Size() || !slices.Equal(set(got), set(m)) {
			t.Fatalf("read %v, %v", got, err)
		}
	}
	for n := range b {
		if _, err := Decode(b[:n]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
		torn := bytes.Clone(b)
		torn[n] ^= 0x10
		if _, err := Decode(torn); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d changed: %v", n, err)
		}
		zeroed := append(bytes.Clone(b[:n]), make([]byte, len(b)-n)...)
		if _, err := Decode(zeroed); !bytes.Equal(zeroed, b) && !errors.Is(err, ErrDamaged) {
			t.Fatalf("zeros from byte %d: %v", n, err)
		}
	}
	if _, err := Decode(append(bytes.Clone(b), 1)); !errors.Is(err, ErrDamaged) {
		t.Errorf("more than a log: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(made(f, 100*Block+512, 0, 7, 100).Encode())
	f.Add(made(f, 0).Encode())
	f.Add([]byte(magic + strings.Repeat("\xff", 60)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if again := m.Encode(); !bytes.HasPrefix(b, again) {
			t.Errorf("%x is read as %x", b, again)
		}
		if n := len(set(m)); n != m.Count() {
			t.Errorf("%d blocks of %d", n, m.Count())
		}
	})
}

func TestPath(t *testing.T) {
	before := map[string]string{"d": "c", "c": "b", "b": "a", "x": "", "p": "q", "q": "p"}
	since := func(at string) string { return before[at] }
	for _, tt := range []struct{ from, to, want string }{
		{"a", "d", "[d c b]"},
		{"c", "d", "[d]"},
		{"a", "a", "[]"},
	} {
		got, err := Path(tt.from, tt.to, since)
		if err != nil || fmt.Sprint(got) != tt.want {
			t.Errorf("from %s to %s: %v, %v", tt.from, tt.to, got, err)
		}
	}
	for _, tt := range [][2]string{{"d", "a"}, {"x", "d"}, {"a", "x"}, {"a", "p"}, {"a", ""}} {
		if got, err := Path(tt[0], tt[1], since); !errors.Is(err, ErrUnrelated) {
			t.Errorf("from %s to %s: %v, %v", tt[0], tt[1], got, err)
		}
	}
}

// disk is a model: what each moment's content was, and the map of each since the one
// before.
type disk struct {
	content [][]byte // a byte for each block, by moment
	maps    []*Map
}

// Whatever is written between moments, the maps of a path joined say each block that
// differs, and none that nobody wrote.
func TestPathsOfAModel(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		size := Block * (1 + r.Int64N(40))
		now := make([]byte, blocks(size))
		d := disk{content: [][]byte{bytes.Clone(now)}, maps: []*Map{nil}}
		wrote := []map[int64]bool{nil}
		for range 1 + r.IntN(6) {
			if r.IntN(4) == 0 {
				size += Block * r.Int64N(9)
			}
			m, ours := made(t, size), map[int64]bool{}
			for i := int64(len(now)); i < blocks(size); i++ {
				now, ours[i] = append(now, 0), true
			}
			for range r.IntN(12) {
				i := r.Int64N(blocks(size))
				now[i], ours[i] = byte(r.IntN(3)), true
				m.Mark(i*Block, 1)
			}
			d.content, d.maps, wrote = append(d.content, bytes.Clone(now)), append(d.maps, m), append(wrote, ours)
		}
		for from := range d.content {
			for to := from + 1; to < len(d.content); to++ {
				d.check(t, seed, from, to, wrote)
			}
		}
	}
}

func (d disk) check(t *testing.T, seed uint64, from, to int, wrote []map[int64]bool) {
	t.Helper()
	m := made(t, int64(len(d.content[from]))*Block)
	allowed := map[int64]bool{}
	for i := from + 1; i <= to; i++ {
		var err error
		if m, err = Join(m, d.maps[i]); err != nil {
			t.Fatal(err)
		}
		for b := range wrote[i] {
			allowed[b] = true
		}
	}
	for i, b := range d.content[to] {
		grown := i >= len(d.content[from])
		if differs := grown || b != d.content[from][i]; differs && !m.Has(int64(i)) {
			t.Fatalf("seed %d, %d to %d: block %d differs", seed, from, to, i)
		}
		if m.Has(int64(i)) && !allowed[int64(i)] {
			t.Fatalf("seed %d, %d to %d: nobody wrote block %d", seed, from, to, i)
		}
	}
}
