package rrd

import (
	"encoding/xml"
	"strconv"
	"strings"
	"testing"
)

// document describes what WriteXML writes.
type document struct {
	XMLName xml.Name     `xml:"rrd"`
	Version string       `xml:"version"`
	Step    int64        `xml:"step"`
	Last    number       `xml:"lastupdate"`
	Sources []sourceXML  `xml:"ds"`
	Rings   []archiveXML `xml:"rra"`
}

type sourceXML struct {
	Name      string `xml:"name"`
	Kind      string `xml:"type"`
	Heartbeat number `xml:"minimal_heartbeat"`
	Low       number `xml:"min"`
	High      number `xml:"max"`
	Sample    number `xml:"last_ds"`
	Sum       number `xml:"value"`
	Unknown   number `xml:"unknown_sec"`
}

type archiveXML struct {
	Function Function     `xml:"cf"`
	Steps    int64        `xml:"pdp_per_row"`
	Known    number       `xml:"params>xff"`
	Rows     []prepareXML `xml:"cdp_prep>ds"`
	Ring     []rowXML     `xml:"database>row"`
}

type prepareXML struct {
	Primary   number `xml:"primary_value"`
	Secondary number `xml:"secondary_value"`
	Value     number `xml:"value"`
	Unknown   int64  `xml:"unknown_datapoints"`
}

type rowXML struct {
	Values []number `xml:"v"`
}

// number is read as appendNumber spells it.
type number float64

// MarshalText implements encoding.TextMarshaler.
func (n number) MarshalText() ([]byte, error) { return appendNumber(nil, float64(n)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *number) UnmarshalText(b []byte) error {
	v, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
	*n = number(v)
	return err
}

// read makes a database of a document.
func read(t testing.TB, text string) *Database {
	t.Helper()
	var doc document
	must(t, xml.Unmarshal([]byte(text), &doc))
	d := &Database{last: float64(doc.Last)}
	for i, s := range doc.Sources {
		must(t, d.Add(Source{s.Name, float64(s.Low), float64(s.High)}))
		n := d.sources[i]
		n.sample, n.sum, n.seconds = float64(s.Sample), float64(s.Sum), d.intoStep()-float64(s.Unknown)
		for k, a := range shapes {
			r, of := n.rows[k], doc.Rings[k]
			r.value, r.unknown = float64(of.Rows[i].Value), of.Rows[i].Unknown
			for at, row := range of.Ring {
				if number := d.newest(a) - int64(a.rows-1-at); number >= 0 {
					r.ring[number%int64(a.rows)] = float32(row.Values[i])
				}
			}
		}
	}
	return d
}
