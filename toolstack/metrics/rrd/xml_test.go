package rrd

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func written(t testing.TB, d *Database) string {
	t.Helper()
	var b bytes.Buffer
	must(t, d.WriteXML(&b))
	return b.String()
}

// TestXML: what was written and read again goes on as if nothing had been.
func TestXML(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	d := database(t, free("g"), Source{"d", 0, math.Inf(1)})
	feed := func(d *Database, n int, r *rand.Rand, at time.Time) time.Time {
		counter := 0.0
		for range n {
			at = at.Add(time.Duration(3000+r.IntN(5000)) * time.Millisecond)
			counter += r.Float64()
			must(t, d.Update(at, map[string]float64{"g": r.Float64(), "d": counter}))
		}
		return at
	}
	at := feed(d, 500, r, begin)
	again := read(t, written(t, d))
	if a, b := written(t, d), written(t, again); a != b {
		t.Fatalf("it reads\n%s\nand writes\n%s", a[:1000], b[:1000])
	}
	feed(d, 300, rand.New(rand.NewPCG(5, 6)), at)
	feed(again, 300, rand.New(rand.NewPCG(5, 6)), at)
	if written(t, d) != written(t, again) {
		t.Error("they go on differently")
	}
	text := written(t, d)
	for _, part := range []string{"<version>0003</version><step>5</step>", "<name>g</name><type>GAUGE</type><minimal_heartbeat>300</minimal_heartbeat><min>-Infinity</min><max>Infinity</max>", "<cf>AVERAGE</cf><pdp_per_row>12</pdp_per_row><params><xff>0.5</xff></params><cdp_prep>", "<row><v>NaN</v><v>NaN</v></row>"} {
		if !strings.Contains(text, part) {
			t.Errorf("no %s in\n%s", part, text[:600])
		}
	}
}

// TestSameXML: what is appended by hand is what the document's description says.
func TestSameXML(t *testing.T) {
	d := database(t, free("g<&"), Source{"d", 0, math.Inf(1)}, Source{"a", -1, 1e6})
	for i := range 3000 {
		must(t, d.Update(begin.Add(time.Duration(i)*3*time.Second), map[string]float64{"g<&": 1 / float64(i+1), "d": float64(i * i)}))
	}
	text := written(t, d)
	var doc document
	must(t, xml.Unmarshal([]byte(text), &doc))
	same, err := xml.Marshal(doc)
	must(t, err)
	if text != xml.Header+string(same) {
		t.Errorf("it is\n%s\nand should be\n%s", text[:1000], same[:1000])
	}
}

// TestSameJSON: it holds what the XML does.
func TestSameJSON(t *testing.T) {
	d := filled(t)
	var b bytes.Buffer
	must(t, d.WriteJSON(&b))
	var got struct {
		Version string
		Step    int64
		Last    float64 `json:"lastupdate"`
		Sources []struct {
			Name, Type string
			Min, Max   any
		} `json:"ds"`
		Rings []struct {
			CF   string
			Rows [][]any `json:"database"`
		} `json:"rra"`
	}
	must(t, json.Unmarshal(b.Bytes(), &got))
	var doc document
	must(t, xml.Unmarshal([]byte(written(t, d)), &doc))
	if got.Version != doc.Version || got.Last != float64(doc.Last) || len(got.Sources) != 2 || got.Sources[0].Min != "-Infinity" || got.Sources[1].Min != 0.0 {
		t.Errorf("%+v", got.Sources)
	}
	for i, r := range doc.Rings {
		for k, row := range r.Ring {
			for n, v := range row.Values {
				is := got.Rings[i].Rows[k][n]
				if is != float64(v) && (is != "NaN" || !math.IsNaN(float64(v))) {
					t.Fatalf("archive %d, row %d: %v, want %v", i, k, is, v)
				}
			}
		}
	}
}

type brokenPipe struct{ left int }

func (b *brokenPipe) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// TestReaderGone: who does not read any more costs one piece.
func TestReaderGone(t *testing.T) {
	d := database(t, free("a"), free("b"))
	must(t, d.Update(begin, map[string]float64{"a": 1}))
	if err := d.WriteXML(&brokenPipe{1 << 10}); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

func BenchmarkWriteXML(b *testing.B) {
	d := New()
	for i := range 30 {
		must(b, d.Add(free(strings.Repeat("x", i+1))))
	}
	must(b, d.Update(begin, nil))
	for i := range 5000 {
		must(b, d.Update(begin.Add(time.Duration(i+1)*time.Minute), map[string]float64{"x": float64(i) / 7, "xx": float64(i)}))
	}
	for b.Loop() {
		must(b, d.WriteXML(io.Discard))
	}
}
