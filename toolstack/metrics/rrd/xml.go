package rrd

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// format is the version of the documents, which rrdtool knows too.
const format = "0003"

// document is a database as clients read it whole (/vm_rrd and its like).
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
	Kind      Kind   `xml:"type"`
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

// number is spelled as clients expect it: NaN, Infinity, else digits.
type number float64

// MarshalText implements encoding.TextMarshaler.
func (n number) MarshalText() ([]byte, error) { return appendNumber(nil, float64(n)), nil }

func appendNumber(b []byte, v float64) []byte {
	switch {
	case math.IsNaN(v):
		return append(b, "NaN"...)
	case math.IsInf(v, 1):
		return append(b, "Infinity"...)
	case math.IsInf(v, -1):
		return append(b, "-Infinity"...)
	}
	return strconv.AppendFloat(b, v, 'f', -1, 64)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *number) UnmarshalText(b []byte) error {
	v, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
	*n = number(v)
	return err
}

// WriteXML writes all there is.
func (d *Database) WriteXML(w io.Writer) error {
	doc := document{Version: format, Step: step, Last: number(d.last)}
	for _, s := range d.sources {
		doc.Sources = append(doc.Sources, sourceXML{
			s.Name, s.Kind, heartbeat, number(s.Low), number(s.High), number(s.sample), number(s.sum), number(d.intoStep() - s.seconds),
		})
	}
	for i, a := range shapes {
		doc.Rings = append(doc.Rings, d.archive(i, a))
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	return xml.NewEncoder(w).Encode(doc)
}

// intoStep is how many seconds of the step under way have passed.
func (d *Database) intoStep() float64 { return d.last - float64(int64(d.last)/step*step) }

func (d *Database) archive(i int, a shape) archiveXML {
	x := archiveXML{Function: a.function, Steps: a.steps, Known: known}
	for _, s := range d.sources {
		x.Rows = append(x.Rows, prepareXML{Value: number(s.rows[i].value), Unknown: s.rows[i].unknown})
	}
	newest := d.newest(a)
	for n := newest - int64(a.rows) + 1; n <= newest; n++ {
		var r rowXML
		for _, s := range d.sources {
			v := math.NaN()
			if n >= 0 {
				v = float64(s.rows[i].ring[n%int64(a.rows)])
			}
			r.Values = append(r.Values, number(v))
		}
		x.Ring = append(x.Ring, r)
	}
	return x
}

// maxSources bounds what is read: a VM with all disks, NICs and CPUs there can be has
// some 3,000.
const maxSources = 1 << 14

// ReadXML reads what WriteXML has written. What does not fit is refused, and no
// database is better than half of one.
func ReadXML(r io.Reader) (*Database, error) {
	var doc document
	if err := xml.NewDecoder(r).Decode(&doc); err != nil {
		return nil, fmt.Errorf("figures: %w", err)
	}
	d := &Database{last: float64(doc.Last)}
	switch {
	case doc.Step != step || len(doc.Rings) != len(shapes):
		return nil, fmt.Errorf("figures: %d archives of %d s", len(doc.Rings), doc.Step)
	case !(d.last >= 0 && d.last < 1<<40) || len(doc.Sources) > maxSources:
		return nil, fmt.Errorf("figures: %d sources until %v", len(doc.Sources), d.last)
	}
	for _, s := range doc.Sources {
		one := Source{s.Name, s.Kind, float64(s.Low), float64(s.High)}
		before := len(d.sources)
		if err := d.Add(one); err != nil {
			return nil, fmt.Errorf("figures: %w", err)
		}
		if len(d.sources) == before {
			return nil, fmt.Errorf("figures: source %s is there twice", s.Name)
		}
		n := d.sources[before]
		n.sample, n.sum = float64(s.Sample), float64(s.Sum)
		n.seconds = min(max(0, d.intoStep()-float64(s.Unknown)), float64(step))
	}
	for i, a := range shapes {
		if err := d.restore(i, a, doc.Rings[i]); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *Database) restore(i int, a shape, x archiveXML) error {
	if x.Function != a.function || x.Steps != a.steps || len(x.Ring) != a.rows || len(x.Rows) != len(d.sources) {
		return fmt.Errorf("figures: archive %d is %s of %d steps, %d rows of %d sources", i, x.Function, x.Steps, len(x.Ring), len(x.Rows))
	}
	oldest := d.newest(a) - int64(a.rows) + 1
	for at, row := range x.Ring {
		if len(row.Values) != len(d.sources) {
			return fmt.Errorf("figures: archive %d has a row of %d values", i, len(row.Values))
		}
		n := oldest + int64(at)
		for k, v := range row.Values {
			if n >= 0 {
				d.sources[k].rows[i].ring[n%int64(a.rows)] = float32(v)
			}
		}
	}
	for k, p := range x.Rows {
		r := d.sources[k].rows[i]
		r.value, r.unknown = float64(p.Value), min(max(0, p.Unknown), a.steps)
	}
	return nil
}
