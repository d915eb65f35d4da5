package rrd

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"math"
	"testing"
	"time"

	"cairn/golden"
)

// two is a host and a VM that came later and stopped before.
func two(t testing.TB) []Member {
	host, vm := database(t, gauge("cpu0"), gauge("memory_free_kib")), database(t, gauge("cpu0"))
	for i := range 40 {
		at := begin.Add(time.Duration(i) * Step)
		must(t, host.Update(at, map[string]float64{"cpu0": float64(i) / 40, "memory_free_kib": 1 << 20}))
		if i >= 32 && i < 38 {
			must(t, vm.Update(at, map[string]float64{"cpu0": 0.25}))
		}
	}
	return []Member{{"host:h", host}, {"vm:v<", vm}}
}

func TestJoin(t *testing.T) {
	u := Join(two(t), Query{Function: Average, Start: begin.Add(30 * Step)})
	var text bytes.Buffer
	must(t, u.WriteXML(&text))
	text.WriteString("\n")
	must(t, u.WriteJSON(&text))
	text.WriteString("\n")
	golden.Equal(t, "testdata/updates.txt", text.String())
}

// TestJoinReadable: both forms are what their readers expect, and say the same.
func TestJoinReadable(t *testing.T) {
	u := Join(two(t), Query{Start: begin, Interval: time.Minute})
	var x, j bytes.Buffer
	must(t, u.WriteXML(&x))
	must(t, u.WriteJSON(&j))
	var asXML struct {
		Start  int64    `xml:"meta>start"`
		Legend []string `xml:"meta>legend>entry"`
		Rows   []struct {
			At     int64    `xml:"t"`
			Values []string `xml:"v"`
		} `xml:"data>row"`
	}
	must(t, xml.Unmarshal(x.Bytes(), &asXML))
	var asJSON struct {
		Meta struct {
			Start, Step, End int64
			Rows, Columns    int
			Legend           []string
		}
		Data []struct {
			T      int64
			Values []any
		}
	}
	must(t, json.Unmarshal(j.Bytes(), &asJSON))
	m := asJSON.Meta
	if m.Step != 60 || m.Rows != 3 || m.Columns != 9 || len(asXML.Legend) != 9 || m.Legend[8] != "MAX:vm:v<:cpu0" || asXML.Legend[8] != m.Legend[8] {
		t.Errorf("%+v", m)
	}
	if m.Start != asXML.Start || asXML.Rows[0].At != m.End || asJSON.Data[2].T != m.Start || asXML.Rows[0].Values[2] != asJSON.Data[0].Values[2] && asXML.Rows[0].Values[2] != "NaN" {
		t.Errorf("%+v", asXML)
	}
	if asJSON.Data[0].Values[0] != 0.7625 || asJSON.Data[0].Values[2] != "NaN" {
		t.Errorf("%v", asJSON.Data[0])
	}
}

// TestJoinAgrees: each column is what its database answers alone.
func TestJoinAgrees(t *testing.T) {
	members := two(t)[:1]
	for _, q := range []Query{{}, {Function: Max}, {Start: begin, Interval: time.Minute}, {Function: Average, Start: begin.Add(-time.Hour)}, {Start: begin.AddDate(-1, 0, 0)}} {
		u, s := Join(members, q), members[0].Database.Fetch(q.Function, q.Start, q.Interval)
		if u.Len() != len(s.Rows) || u.Step != int64(s.Step/time.Second) || u.Len() > 0 && u.End != s.End.Unix() {
			t.Fatalf("%+v: %+v beside %+v", q, u, s)
		}
		for i := range u.Len() {
			_, values := u.Row(i)
			for k, v := range values {
				if w := s.Rows[len(s.Rows)-1-i][k]; float64(v) != w && !(math.IsNaN(w) && v != v) {
					t.Fatalf("%+v: row %d has %v, not %v", q, i, v, w)
				}
			}
		}
	}
}

func TestJoinNothing(t *testing.T) {
	for name, u := range map[string]*Updates{
		"no database": Join(nil, Query{}), "no sample": Join([]Member{{"vm:x", database(t, gauge("g"))}}, Query{}),
		"no function": Join(two(t), Query{Function: "LAST"}), "the future": Join(two(t), Query{Start: begin.AddDate(1, 0, 0)}),
	} {
		var b bytes.Buffer
		must(t, u.WriteJSON(&b))
		if u.Len() != 0 || !json.Valid(b.Bytes()) {
			t.Errorf("%s: %s", name, &b)
		}
	}
}

// BenchmarkJoin is the ten minutes of a host with 100 VMs of 25 sources.
func BenchmarkJoin(b *testing.B) {
	var members []Member
	for range 100 {
		d := New()
		for i := range 25 {
			must(b, d.Add(gauge(string(rune('a'+i)))))
		}
		for i := range 130 {
			must(b, d.Update(begin.Add(time.Duration(i)*Step), map[string]float64{"a": float64(i), "b": 1 / float64(i+1)}))
		}
		members = append(members, Member{"vm:x", d})
	}
	var out bytes.Buffer
	for b.Loop() {
		out.Reset()
		must(b, Join(members, Query{Function: Average, Start: begin}).WriteJSON(&out))
	}
}
