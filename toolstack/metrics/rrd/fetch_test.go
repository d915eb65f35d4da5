package rrd

import "time"

// table is what clients are told of one database.
type table struct {
	Start, End time.Time // of the first and the last row
	Step       time.Duration
	Rows       [][]float64 // the oldest first
}

// Fetch answers as Join does of several.
func (d *Database) Fetch(f Function, start time.Time, interval time.Duration) table {
	u := Join([]Member{{"x", d}}, Query{f, start, interval})
	out := table{Start: time.Unix(u.Start, 0), End: time.Unix(u.End, 0), Step: time.Duration(u.Step) * time.Second}
	for i := range u.rows {
		var row []float64
		for _, v := range u.rows[len(u.rows)-1-i] {
			row = append(row, float64(v))
		}
		out.Rows = append(out.Rows, row)
	}
	return out
}

// names are those of the sources, in the order they came.
func (d *Database) names() (all []string) {
	for _, s := range d.sources {
		all = append(all, s.Name)
	}
	return all
}
