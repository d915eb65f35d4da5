package rrd

import (
	"math"
	"time"
)

// Series is what one archive knows of a span of time.
type Series struct {
	Start, End time.Time     // of the first and the last row
	Step       time.Duration // a row
	Functions  []Function    // of the columns, one for each source each
	// Rows are the oldest first; in each the functions one after another, in each of
	// those the sources.
	Rows [][]float64
}

// Fetch answers the rows that end after start, of the finest archive that is at least
// as coarse as interval and reaches back so far; where none does, of the coarsest. An
// empty function asks for all that archive has.
func (d *Database) Fetch(f Function, start time.Time, interval time.Duration) Series {
	columns := archives(d.last, f, start, interval)
	if len(columns) == 0 {
		return Series{}
	}
	return d.series(columns, start)
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

// choose picks an archive, or -1 where no function of that name is kept.
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

func (d *Database) series(columns []int, start time.Time) Series {
	a := shapes[columns[0]]
	seconds := a.steps * step
	newest := d.newest(a)
	oldest := max(newest-int64(a.rows)+1, start.Unix()/seconds+1)
	s := Series{Step: time.Duration(seconds) * time.Second}
	for _, c := range columns {
		s.Functions = append(s.Functions, shapes[c].function)
	}
	if d.last == 0 || oldest > newest {
		return s
	}
	s.Start, s.End = time.Unix(oldest*seconds, 0).UTC(), time.Unix(newest*seconds, 0).UTC()
	for n := oldest; n <= newest; n++ {
		s.Rows = append(s.Rows, d.row(columns, n))
	}
	return s
}

func (d *Database) row(columns []int, n int64) []float64 {
	var out []float64
	for _, c := range columns {
		for _, s := range d.sources {
			out = append(out, float64(s.rows[c].ring[n%int64(shapes[c].rows)]))
		}
	}
	return out
}

// Newest is the last value of a source in the finest archive, NaN where it is unknown.
func (d *Database) Newest(name string) float64 {
	for _, s := range d.sources {
		if s.Name == name && d.last > 0 {
			return float64(s.rows[0].ring[d.newest(shapes[0])%int64(shapes[0].rows)])
		}
	}
	return math.NaN()
}
