package rrd

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"slices"
	"testing"
	"time"

	"cairn/golden"
)

// two is a host and a VM that came later and stopped before.
func two(t testing.TB) []Member {
	host, vm := database(t, free("cpu0"), free("memory_free_kib")), database(t, free("cpu0"))
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

// TestJoinAgrees: each column is what its database answers alone, and unknown before and
// after.
func TestJoinAgrees(t *testing.T) {
	members := two(t)
	for _, q := range []Query{{}, {Function: Max}, {Start: begin}, {Start: begin, Interval: time.Minute}, {Function: Average, Start: begin.Add(-time.Hour)}, {Start: begin.AddDate(-1, 0, 0)}} {
		all := Join(members, q)
		for _, m := range members {
			alone := Join([]Member{m}, q)
			if alone.Step != all.Step || alone.End > all.End {
				t.Fatalf("%+v: %+v beside %+v", q, alone, all)
			}
			for k, name := range alone.Legend {
				agrees(t, all, alone, slices.Index(all.Legend, name), k)
			}
		}
	}
}

// agrees compares a column of an answer with one of another, which ends no later.
func agrees(t *testing.T, all, alone *Updates, column, same int) {
	t.Helper()
	late := int((all.End - alone.End) / all.Step)
	for i, row := range all.rows {
		want := float32(nan)
		if at := i - late; at >= 0 && at < len(alone.rows) {
			want = alone.rows[at][same]
		}
		if v := row[column]; v != want && (v == v || want == want) {
			t.Fatalf("%s: row %d has %v, not %v", all.Legend[column], i, v, want)
		}
	}
}

func TestJoinNothing(t *testing.T) {
	for name, u := range map[string]*Updates{
		"no database": Join(nil, Query{}), "no sample": Join([]Member{{"vm:x", database(t, free("g"))}}, Query{}),
		"no function": Join(two(t), Query{Function: "LAST"}), "the future": Join(two(t), Query{Start: begin.AddDate(1, 0, 0)}),
	} {
		var b bytes.Buffer
		must(t, u.WriteJSON(&b))
		if len(u.rows) != 0 || !json.Valid(b.Bytes()) {
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
			must(b, d.Add(free(string(rune('a'+i)))))
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
