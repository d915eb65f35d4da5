package metrics

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairn/toolstack/metrics/perfmon"
	"cairn/toolstack/metrics/proc"
	"cairn/toolstack/metrics/rrd"
)

// kind is what there is to say of sources of one sort.
type kind struct {
	description string // with %s for whose it is, where there are several
	units       string
	low, high   float64
	optional    bool // recorded only when somebody asks for it
}

// figure is the value of a source at an instant.
type figure struct {
	name  string
	of    string // whose it is, where there are several
	value float64
	kind  *kind
}

func (f figure) source() rrd.Source {
	return rrd.Source{Name: f.name, Low: f.kind.low, High: f.kind.high}
}

func (f figure) description() string {
	if strings.Contains(f.kind.description, "%s") {
		return fmt.Sprintf(f.kind.description, f.of)
	}
	return f.kind.description
}

var (
	unbounded = math.Inf(1)
	unknown   = math.NaN()
)

// Units of figures.
const (
	fraction   = "(fraction)"
	wholeBytes = "B"
	kibibytes  = "KiB"
	byteRate   = "B/s"
	mibRate    = "MiB/s"
	rate       = "/s"
	micros     = "μs"
)

// rateOf is how much a counter grew a second; unknown when it began anew.
func rateOf(before, now uint64, over time.Duration) float64 {
	if now < before || over <= 0 {
		return unknown
	}
	return float64(now-before) / over.Seconds()
}

// share is the part of a time that something took. Clocks of two kinds never agree, so
// a little more than all is all.
func share(took, over time.Duration) float64 {
	if took < 0 || over <= 0 {
		return unknown
	}
	return min(1, took.Seconds()/over.Seconds())
}

// average makes one value of those that are known, as rules do.
var average = perfmon.Rule{Average: true}

// cpuFigures are of CPUs, each by the part of the time it was busy, and of all of them
// under a name.
func cpuFigures[T any](before, now map[int]T, busy func(before, now T) float64, one *kind, name string, all *kind) (list []figure) {
	var each []float64
	for _, n := range slices.Sorted(maps.Keys(now)) {
		value := unknown
		if old, known := before[n]; known {
			value = busy(old, now[n])
		}
		each = append(each, value)
		id := strconv.Itoa(n)
		list = append(list, figure{name: "cpu" + id, of: id, value: value, kind: one})
	}
	if len(each) > 0 {
		list = append(list, figure{name: name, value: average.Value(each), kind: all})
	}
	return list
}

// nicKinds are the sorts of an interface's figures, whose names begin with prefix.
type nicKinds struct {
	prefix                        string
	received, sent, badIn, badOut *kind
}

// figures are of the interface of a name: what it received, what it sent, and errors.
func (k *nicKinds) figures(of string, before, now proc.NIC, over time.Duration) []figure {
	name := k.prefix + of
	return []figure{
		{name: name + "_rx", of: of, value: rateOf(before.Received, now.Received, over), kind: k.received},
		{name: name + "_tx", of: of, value: rateOf(before.Sent, now.Sent, over), kind: k.sent},
		{name: name + "_rx_errors", of: of, value: rateOf(before.ReceiveErrors, now.ReceiveErrors, over), kind: k.badIn},
		{name: name + "_tx_errors", of: of, value: rateOf(before.SendErrors, now.SendErrors, over), kind: k.badOut},
	}
}
