package rrd

import (
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// format is the version of the documents, which rrdtool knows too.
const format = "0003"

// document is what WriteXML writes: a database as clients read it whole (/vm_rrd and its
// like).
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

// number is read as appendNumber spells it.
type number float64

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *number) UnmarshalText(b []byte) error {
	v, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
	*n = number(v)
	return err
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
