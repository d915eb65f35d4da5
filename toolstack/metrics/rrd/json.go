package rrd

import "io"

// WriteJSON writes what WriteXML writes, element by element; numbers that JSON does not
// know are strings.
func (d *Database) WriteJSON(w io.Writer) error {
	o := &output{w: w}
	o.text(`{"version":"` + format + `","step":`)
	o.int(step)
	o.field("lastupdate", d.last)
	o.text(`,"ds":[`)
	for i, s := range d.sources {
		o.comma(i)
		o.text(`{"name":`)
		o.string(s.Name)
		o.text(`,"type":"` + gauge + `"`)
		o.field("minimal_heartbeat", heartbeat)
		o.field("min", s.Low)
		o.field("max", s.High)
		o.field("last_ds", s.sample)
		o.field("value", s.sum)
		o.field("unknown_sec", d.intoStep()-s.seconds)
		o.text("}")
	}
	o.text(`],"rra":[`)
	for i, a := range shapes {
		o.comma(i)
		if err := d.archiveJSON(o, i, a); err != nil {
			return err
		}
	}
	o.text("]}")
	return o.flush(0)
}

func (d *Database) archiveJSON(o *output, i int, a shape) error {
	o.text(`{"cf":"` + string(a.function) + `","pdp_per_row":`)
	o.int(a.steps)
	o.text(`,"params":{"xff":`)
	o.number(known)
	o.text(`},"cdp_prep":{"ds":[`)
	for k, s := range d.sources {
		o.comma(k)
		o.text(`{"primary_value":0,"secondary_value":0`)
		o.field("value", s.rows[i].value)
		o.field("unknown_datapoints", float64(s.rows[i].unknown))
		o.text("}")
	}
	o.text(`]},"database":[`)
	newest := d.newest(a)
	for n := newest - int64(a.rows) + 1; n <= newest; n++ {
		o.text("[")
		for k, s := range d.sources {
			o.comma(k)
			o.value(float64(s.at(i, n, newest)), 64)
		}
		o.text("]")
		if n < newest {
			o.text(",")
		}
		if err := o.flush(piece); err != nil {
			return err
		}
	}
	o.text("]}")
	return nil
}

// field is one more of an object.
func (o *output) field(name string, v float64) {
	o.text(`,"` + name + `":`)
	o.value(v, 64)
}
