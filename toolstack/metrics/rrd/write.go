package rrd

import (
	"encoding/xml"
	"io"
	"math"
	"strconv"
)

// format is the version of the documents, which rrdtool knows too.
const format = "0003"

// piece is how much is gathered before it is written: a database of many sources is
// far larger than what should be held at once.
const piece = 64 << 10

// output gathers text and writes it in pieces. The first error stays, and all that
// follows is dropped.
type output struct {
	w   io.Writer
	b   []byte
	err error
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.b = append(o.b, p...)
	return len(p), nil
}

func (o *output) text(s string)    { o.b = append(o.b, s...) }
func (o *output) int(n int64)      { o.b = strconv.AppendInt(o.b, n, 10) }
func (o *output) number(v float64) { o.b = appendNumber(o.b, v) }

// quote is text that may hold anything.
func (o *output) quote(s string) { _ = xml.EscapeText(o, []byte(s)) } // an output takes all

// element is a tag around a number.
func (o *output) element(tag string, v float64) {
	o.b = append(append(append(o.b, '<'), tag...), '>')
	o.number(v)
	o.b = append(append(append(o.b, '<', '/'), tag...), '>')
}

// flush writes what was gathered, if it is at least so much.
func (o *output) flush(least int) error {
	if len(o.b) >= least {
		if o.err == nil {
			_, o.err = o.w.Write(o.b)
		}
		o.b = o.b[:0]
	}
	return o.err
}

// appendNumber spells a number as clients expect it: NaN, Infinity, else digits.
func appendNumber(b []byte, v float64) []byte { return appendFloat(b, v, 64) }

func appendFloat(b []byte, v float64, bits int) []byte {
	switch {
	case math.IsNaN(v):
		return append(b, "NaN"...)
	case math.IsInf(v, 1):
		return append(b, "Infinity"...)
	case math.IsInf(v, -1):
		return append(b, "-Infinity"...)
	}
	return strconv.AppendFloat(b, v, 'f', -1, bits)
}

// WriteXML writes all there is, as clients read a database whole (/vm_rrd and its like).
func (d *Database) WriteXML(w io.Writer) error {
	o := &output{w: w}
	o.text(xml.Header + "<rrd><version>" + format + "</version><step>")
	o.int(step)
	o.text("</step>")
	o.element("lastupdate", d.last)
	for _, s := range d.sources {
		d.source(o, s)
	}
	for i, a := range shapes {
		if err := d.archive(o, i, a); err != nil {
			return err
		}
	}
	o.text("</rrd>")
	return o.flush(0)
}

func (d *Database) source(o *output, s *source) {
	o.text("<ds><name>")
	o.quote(s.Name)
	o.text("</name><type>" + gauge + "</type>")
	o.element("minimal_heartbeat", heartbeat)
	o.element("min", s.Low)
	o.element("max", s.High)
	o.element("last_ds", s.sample)
	o.element("value", s.sum)
	o.element("unknown_sec", d.intoStep()-s.seconds)
	o.text("</ds>")
}

// intoStep is how many seconds of the step under way have passed.
func (d *Database) intoStep() float64 { return d.last - float64(int64(d.last)/step*step) }

func (d *Database) archive(o *output, i int, a shape) error {
	o.text("<rra><cf>" + string(a.function) + "</cf><pdp_per_row>")
	o.int(a.steps)
	o.text("</pdp_per_row><params>")
	o.element("xff", known)
	o.text("</params><cdp_prep>")
	for _, s := range d.sources {
		o.text("<ds><primary_value>0</primary_value><secondary_value>0</secondary_value>")
		o.element("value", s.rows[i].value)
		o.text("<unknown_datapoints>")
		o.int(s.rows[i].unknown)
		o.text("</unknown_datapoints></ds>")
	}
	o.text("</cdp_prep><database>")
	newest := d.newest(a)
	for n := newest - int64(a.rows) + 1; n <= newest; n++ {
		o.text("<row>")
		for _, s := range d.sources {
			o.element("v", float64(s.at(i, n, newest)))
		}
		o.text("</row>")
		if err := o.flush(piece); err != nil {
			return err
		}
	}
	o.text("</database></rra>")
	return nil
}

// at is the row of a number of an archive, whose newest is given; NaN where it is not
// kept any more, or not yet.
func (s *source) at(archive int, n, newest int64) float32 {
	ring := s.rows[archive].ring
	if n < 0 || n > newest || n <= newest-int64(len(ring)) {
		return float32(math.NaN())
	}
	return ring[n%int64(len(ring))]
}
