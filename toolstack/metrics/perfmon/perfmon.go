// Package perfmon decides when a figure has been beyond its limit for long enough to tell
// somebody. Limits are what clients write into other_config:perfmon of a VM, host or
// storage repository: a document of variables.
//
// A State is pure: Step takes the time with a value and knows no clock. Values are
// averaged over a minute. A minute beyond the limit counts, one within it makes the count
// begin anew, one of which nothing is known changes nothing. When the count reaches the
// rule's period there is an alarm, and then none for its inhibit period.
package perfmon

import (
	"encoding/xml"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"cairn/toolstack/alert"
)

// Rule is one variable.
type Rule struct {
	Name     string
	Priority int64
	Level    float64
	Low      bool // an alarm is for values below the level, not above
	// Period is how long values must be bad, Inhibit how long to be quiet afterwards.
	Period, Inhibit time.Duration
	// Match picks the figures; their average counts, or their sum.
	Match   *regexp.Regexp
	Average bool
	// Text is the rule as alarms quote it.
	Text string
}

// Names that stand for more than the figure of that name.
const (
	CPUUsage     = "cpu_usage"
	NetworkUsage = "network_usage"
	DiskUsage    = "disk_usage"
	MemoryUsage  = "mem_usage"
	MemoryFree   = "memory_free_kib"
	GuestFree    = "memory_internal_free"
	SRThroughput = "sr_io_throughput_total_"
)

// defaults are the figures of names that stand for others.
var defaults = map[string]string{
	CPUUsage:     `cpu[0-9]+`,
	NetworkUsage: `vif_[0-9]+_[rt]x|pif_aggr_[rt]x`,
	DiskUsage:    `vbd_(xvd|hd)[a-z]+_(read|write)`,
}

// Defaults of a rule.
const (
	defaultPriority = 3
	defaultPeriod   = 60 * time.Second
	defaultInhibit  = time.Hour
)

// Bounds of what is read.
const (
	maxText    = 64 << 10
	maxRules   = 64
	maxPattern = 512
	maxSeconds = 365 * 24 * 3600
)

// element is a child of a variable: <name value="cpu_usage"/>.
type element struct {
	XMLName xml.Name
	Value   string `xml:"value,attr"`
}

// Parse reads a document of rules. One that is not understood is refused whole: an alarm
// that nobody watches is worse than an error that somebody reads.
func Parse(text string) ([]Rule, error) {
	if len(text) > maxText {
		return nil, errors.New("perfmon: too long")
	}
	var doc struct {
		XMLName   xml.Name `xml:"config"`
		Variables []struct {
			Elements []element `xml:",any"`
		} `xml:"variable"`
	}
	if err := xml.Unmarshal([]byte(text), &doc); err != nil {
		return nil, fmt.Errorf("perfmon: %w", err)
	}
	if len(doc.Variables) > maxRules {
		return nil, fmt.Errorf("perfmon: %d variables", len(doc.Variables))
	}
	var rules []Rule
	for _, v := range doc.Variables {
		r, err := rule(v.Elements)
		if err != nil {
			return nil, fmt.Errorf("perfmon: variable %.80q: %w", r.Name, err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func rule(elements []element) (Rule, error) {
	values := map[string]string{}
	for _, e := range elements {
		values[e.XMLName.Local] = strings.TrimSpace(e.Value)
	}
	name := values["name"]
	r := Rule{
		Name: name, Priority: defaultPriority, Low: name == MemoryFree || name == GuestFree,
		Period: defaultPeriod, Inhibit: defaultInhibit, Average: name == CPUUsage, Text: quote(elements),
	}
	if name == "" {
		return r, errors.New("no name")
	}
	level, err := strconv.ParseFloat(values["alarm_trigger_level"], 64)
	if err != nil || math.IsNaN(level) {
		return r, fmt.Errorf("alarm_trigger_level is %.80q", values["alarm_trigger_level"])
	}
	r.Level = level
	if text := values["alarm_priority"]; text != "" {
		if r.Priority, err = strconv.ParseInt(text, 10, 32); err != nil || !alert.IsPriority(r.Priority) {
			return r, fmt.Errorf("alarm_priority is %.80q", text)
		}
	}
	if err := choice(values["alarm_trigger_sense"], "high", "low", &r.Low); err != nil {
		return r, fmt.Errorf("alarm_trigger_sense: %w", err)
	}
	if err := choice(values["consolidation_fn"], "sum", "average", &r.Average); err != nil {
		return r, fmt.Errorf("consolidation_fn: %w", err)
	}
	if err := seconds(values["alarm_trigger_period"], &r.Period); err != nil {
		return r, fmt.Errorf("alarm_trigger_period: %w", err)
	}
	if err := seconds(values["alarm_auto_inhibit_period"], &r.Inhibit); err != nil {
		return r, fmt.Errorf("alarm_auto_inhibit_period: %w", err)
	}
	r.Match, err = pattern(name, values["rrd_regex"])
	return r, err
}

// choice reads one of two words; nothing leaves the default.
func choice(text, no, yes string, to *bool) error {
	switch text {
	case "":
	case no, yes:
		*to = text == yes
	default:
		return fmt.Errorf("%.80q is neither %s nor %s", text, no, yes)
	}
	return nil
}

func seconds(text string, to *time.Duration) error {
	if text == "" {
		return nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= 0 && v <= maxSeconds) {
		return fmt.Errorf("%.80q is no number of seconds", text)
	}
	*to = time.Duration(v * float64(time.Second))
	return nil
}

// pattern makes an expression for whole names. Without one, a name stands for what it
// stands for, or for the figure of that name.
func pattern(name, expr string) (*regexp.Regexp, error) {
	if expr == "" {
		known, ok := defaults[name]
		if expr = known; !ok {
			expr = regexp.QuoteMeta(strings.TrimPrefix(name, "sr_"))
		}
	}
	if len(expr) > maxPattern {
		return nil, errors.New("rrd_regex is too long")
	}
	re, err := regexp.Compile("^(?:" + expr + ")$")
	if err != nil {
		return nil, fmt.Errorf("rrd_regex: %w", err)
	}
	return re, nil
}

// Value makes one of the values of the figures that match; NaN where none is known.
func (r Rule) Value(values []float64) float64 {
	sum, n := 0.0, 0
	for _, v := range values {
		if !math.IsNaN(v) {
			sum, n = sum+v, n+1
		}
	}
	switch {
	case n == 0:
		return math.NaN()
	case r.Average:
		return sum / float64(n)
	}
	return sum
}

// bad reports whether a value is beyond the limit.
func (r Rule) bad(value float64) bool {
	if r.Low {
		return value < r.Level
	}
	return value > r.Level
}
