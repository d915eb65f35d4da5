package rrd

import (
	"bytes"
	"math"
	"testing"
	"time"
)

func filled(t testing.TB) *Database {
	d := database(t, free("g"), Source{"d", 0, math.Inf(1)})
	for i := range 500 {
		must(t, d.Update(begin.Add(time.Duration(i)*4700*time.Millisecond), map[string]float64{"g": 1 / float64(i+1), "d": float64(i * i)}))
	}
	return d
}

// TestBinary: what was read again goes on as if nothing had been, and so does a copy.
func TestBinary(t *testing.T) {
	d := filled(t)
	again, err := ReadBinary(d.AppendBinary(nil))
	must(t, err)
	copied := d.Clone()
	if !bytes.Equal(d.AppendBinary(nil), again.AppendBinary(nil)) {
		t.Error("it is read as another")
	}
	for i := range 300 {
		at, v := d.Last().Add(7*time.Second), map[string]float64{"g": float64(i), "d": 1e6 + float64(i)}
		must(t, d.Update(at, v))
		must(t, again.Update(at, v))
	}
	if !bytes.Equal(d.AppendBinary(nil), again.AppendBinary(nil)) {
		t.Error("they go on differently")
	}
	if !bytes.Equal(copied.AppendBinary(nil), filled(t).AppendBinary(nil)) {
		t.Error("the copy has changed")
	}
}

func TestBadBinary(t *testing.T) {
	good := filled(t).AppendBinary(nil)
	for n := 0; n < len(good); n += 997 {
		if _, err := ReadBinary(good[:n]); err == nil {
			t.Fatalf("the first %d bytes are read", n)
		}
	}
	if _, err := ReadBinary(append(good, 0)); err == nil {
		t.Error("more than all is read")
	}
	twice := bytes.Replace(good, []byte("\x01d\x05GAUGE"), []byte("\x01g\x05GAUGE"), 1)
	other := bytes.Replace(good, []byte("GAUGE"), []byte("COUNT"), 1)
	for _, b := range [][]byte{twice, other} {
		if bytes.Equal(b, good) {
			t.Fatal("nothing was replaced")
		}
		if _, err := ReadBinary(b); err == nil {
			t.Error("it is read")
		}
	}
}

func FuzzReadBinary(f *testing.F) {
	d := database(f, free("g"))
	must(f, d.Update(begin, map[string]float64{"g": 1}))
	f.Add(d.AppendBinary(nil))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ReadBinary(b)
		if err != nil {
			return
		}
		_ = d.Update(begin.AddDate(1, 0, 0), nil)
		d.Fetch("", begin, 0)
		Join([]Member{{"vm:x", d}}, Query{})
		written(t, d)
	})
}
