package rrd

import (
	"encoding/json"
	"io"
	"math"
	"strconv"
	"time"
)

// Member is a database in a joint answer.
type Member struct {
	Owner    string // what comes before the names of its sources: "vm:<uuid>"
	Database *Database
}

// Query says which rows an answer has: of all functions where none is named, those that
// end after an instant, of rows at least so long where there are such.
type Query struct {
	Function Function
	Start    time.Time
	Interval time.Duration
}

// Updates is an answer: rows of many databases side by side. It holds copies, so it
// may be written while the databases go on.
type Updates struct {
	Start, End int64 // of the oldest and the newest row, in seconds since the epoch
	Step       int64 // a row, in seconds
	Legend     []string
	rows       [][]float32 // the newest first
}

// Join answers a query of several databases. All are on the same grid of time; one that
// lags behind, or has begun late, is unknown where it has nothing.
func Join(members []Member, q Query) *Updates {
	var last float64
	for _, m := range members {
		last = max(last, m.Database.last)
	}
	u := &Updates{Step: step}
	columns := archives(last, q.Function, q.Start, q.Interval)
	if len(columns) == 0 {
		return u
	}
	for _, c := range columns {
		for _, m := range members {
			for _, s := range m.Database.sources {
				u.Legend = append(u.Legend, string(shapes[c].function)+":"+m.Owner+":"+s.Name)
			}
		}
	}
	u.fill(members, columns, q.Start.Unix(), last)
	return u
}

func (u *Updates) fill(members []Member, columns []int, start int64, last float64) {
	a := shapes[columns[0]]
	u.Step = a.steps * step
	newest := a.newest(last)
	oldest := max(newest-int64(a.rows)+1, start/u.Step+1)
	if last == 0 || oldest > newest {
		return
	}
	u.Start, u.End = oldest*u.Step, newest*u.Step
	for n := newest; n >= oldest; n-- {
		row := make([]float32, 0, len(u.Legend))
		for _, c := range columns {
			for _, m := range members {
				own := m.Database.newest(a)
				for _, s := range m.Database.sources {
					row = append(row, s.at(c, n, own))
				}
			}
		}
		u.rows = append(u.rows, row)
	}
}

// archives are those of the rows asked for, one for each function, of databases whose
// last sample is of an instant; none where no function of that name is kept.
func archives(last float64, f Function, start time.Time, interval time.Duration) (columns []int) {
	best := choose(last, f, start, interval)
	for i, o := range shapes {
		if best >= 0 && o.steps == shapes[best].steps && (f == "" || o.function == f) {
			columns = append(columns, i)
		}
	}
	return columns
}

// choose picks the finest archive that is at least as coarse as interval and reaches back
// to start; where none does, the coarsest. It is -1 where no function of that name is kept.
func choose(last float64, f Function, start time.Time, interval time.Duration) int {
	best := -1
	for i, a := range shapes {
		if f != "" && a.function != f {
			continue
		}
		fine := time.Duration(a.steps)*Step >= interval
		if best >= 0 && shapes[best].steps == a.steps {
			continue // its first function
		}
		best = i
		if newest := a.newest(last); fine && start.Unix() >= (newest-int64(a.rows))*a.steps*step {
			return i
		}
	}
	return best
}

// newest is the number of the newest row of an archive.
func (d *Database) newest(a shape) int64 { return a.newest(d.last) }

// newest is the number of the row that ended last at an instant.
func (a shape) newest(last float64) int64 { return int64(last) / (a.steps * step) }

// at is the time of a row, of which 0 is the newest.
func (u *Updates) at(i int) int64 { return u.End - int64(i)*u.Step }

// WriteXML writes the answer as rrdtool's xport does.
func (u *Updates) WriteXML(w io.Writer) error {
	o := &output{w: w}
	o.text("<xport><meta><start>")
	o.int(u.Start)
	o.text("</start><step>")
	o.int(u.Step)
	o.text("</step><end>")
	o.int(u.End)
	o.text("</end><rows>")
	o.int(int64(len(u.rows)))
	o.text("</rows><columns>")
	o.int(int64(len(u.Legend)))
	o.text("</columns><legend>")
	for _, name := range u.Legend {
		o.text("<entry>")
		o.quote(name)
		o.text("</entry>")
	}
	o.text("</legend></meta><data>")
	for i := range u.rows {
		o.text("<row><t>")
		o.int(u.at(i))
		o.text("</t>")
		for _, v := range u.rows[i] {
			o.text("<v>")
			o.b = appendFloat(o.b, float64(v), 32)
			o.text("</v>")
		}
		o.text("</row>")
		if err := o.flush(piece); err != nil {
			return err
		}
	}
	o.text("</data></xport>")
	return o.flush(0)
}

// WriteJSON writes the same as JSON, whose numbers know neither NaN nor Infinity: those
// are strings.
func (u *Updates) WriteJSON(w io.Writer) error {
	o := &output{w: w}
	o.text(`{"meta":{"start":`)
	o.int(u.Start)
	o.text(`,"step":`)
	o.int(u.Step)
	o.text(`,"end":`)
	o.int(u.End)
	o.text(`,"rows":`)
	o.int(int64(len(u.rows)))
	o.text(`,"columns":`)
	o.int(int64(len(u.Legend)))
	o.text(`,"legend":[`)
	for i, name := range u.Legend {
		o.comma(i)
		o.string(name)
	}
	o.text(`]},"data":[`)
	for i := range u.rows {
		o.comma(i)
		o.text(`{"t":`)
		o.int(u.at(i))
		o.text(`,"values":[`)
		for k, v := range u.rows[i] {
			o.comma(k)
			o.value(float64(v), 32)
		}
		o.text("]}")
		if err := o.flush(piece); err != nil {
			return err
		}
	}
	o.text("]}")
	return o.flush(0)
}

// comma comes before all but the first.
func (o *output) comma(i int) {
	if i > 0 {
		o.text(",")
	}
}

func (o *output) string(s string) {
	b, _ := json.Marshal(s) // a string is always one
	o.b = append(o.b, b...)
}

func (o *output) value(v float64, bits int) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		o.b = strconv.AppendQuote(o.b, string(appendNumber(nil, v)))
		return
	}
	o.b = strconv.AppendFloat(o.b, v, 'f', -1, bits)
}
