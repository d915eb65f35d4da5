package perfmon

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

func one(t testing.TB, elements string) Rule {
	t.Helper()
	rules, err := Parse("<config><variable>" + elements + "</variable></config>")
	if err != nil || len(rules) != 1 {
		t.Fatalf("%s: %v", elements, err)
	}
	return rules[0]
}

func TestParse(t *testing.T) {
	r := one(t, `<name value="cpu_usage"/><alarm_trigger_level value="0.5"/>`)
	if r.Priority != 3 || r.Level != 0.5 || r.Low || !r.Average || r.Period != time.Minute || r.Inhibit != time.Hour || !r.Match.MatchString("cpu12") || r.Match.MatchString("cpu_avg") {
		t.Errorf("%+v", r)
	}
	r = one(t, `
		<name value="x&quot;"/> <alarm_priority value="1"/> <alarm_trigger_level value="1E3"/> <alarm_trigger_sense value="low"/>
		<alarm_trigger_period value="120"/> <alarm_auto_inhibit_period value="0"/> <consolidation_fn value="average"/> <rrd_regex value="a|b"/>`)
	if r.Priority != 1 || r.Level != 1000 || !r.Low || !r.Average || r.Period != 2*time.Minute || r.Inhibit != 0 || !r.Match.MatchString("b") || r.Match.MatchString("ab") {
		t.Errorf("%+v", r)
	}
	if want := "<variable>\n\t<name value=\"x&#34;\"/>\n\t<alarm_priority value=\"1\"/>\n"; !strings.HasPrefix(r.Text, want) {
		t.Errorf("quoted as %s", r.Text)
	}
	for name, figures := range map[string][]string{
		"network_usage": {"vif_0_rx", "vif_12_tx", "pif_aggr_rx"}, "disk_usage": {"vbd_xvda_read", "vbd_xvdab_write"},
		"memory_free_kib": {"memory_free_kib"}, "sr_io_throughput_total_0a1b2c3d": {"io_throughput_total_0a1b2c3d"}, "a.c": {"a.c"},
	} {
		r := one(t, `<name value="`+name+`"/><alarm_trigger_level value="1"/>`)
		for _, f := range figures {
			if !r.Match.MatchString(f) || r.Match.MatchString(f+"_errors") || r.Low != (name == "memory_free_kib") {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
	if rules, err := Parse("<config/>"); err != nil || len(rules) != 0 {
		t.Errorf("nothing to watch: %v, %v", rules, err)
	}
}

func TestRefused(t *testing.T) {
	for _, elements := range []string{
		`<alarm_trigger_level value="1"/>`, `<name value="x"/>`, `<name value="x"/><alarm_trigger_level value="much"/>`, `<name value="x"/><alarm_trigger_level value="NaN"/>`,
		`<name value="x"/><alarm_trigger_level value="1"/><alarm_trigger_sense value="up"/>`, `<name value="x"/><alarm_trigger_level value="1"/><alarm_trigger_period value="-1"/>`,
		`<name value="x"/><alarm_trigger_level value="1"/><alarm_auto_inhibit_period value="1e99"/>`, `<name value="x"/><alarm_trigger_level value="1"/><rrd_regex value="("/>`,
		`<name value="x"/><alarm_trigger_level value="1"/><alarm_priority value="high"/>`,
		`<name value="x"/><alarm_trigger_level value="1"/><alarm_priority value="0"/>`, `<name value="x"/><alarm_trigger_level value="1"/><alarm_priority value="6"/>`, `<name value="x"/><alarm_trigger_level value="1"/><consolidation_fn value="best"/>`,
		`<name value="x"/><alarm_trigger_level value="1"/><rrd_regex value="` + strings.Repeat("a", 600) + `"/>`,
	} {
		if rules, err := Parse("<config><variable>" + elements + "</variable></config>"); err == nil {
			t.Errorf("%s is read as %+v", elements, rules)
		}
	}
	for _, text := range []string{"", "x", "<config>", "<other/>", "<config>" + strings.Repeat("<variable/>", 100) + "</config>", strings.Repeat(" ", maxText+1)} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%.40q is read", text)
		}
	}
}

func TestValue(t *testing.T) {
	sum, average := Rule{}, Rule{Average: true}
	values := []float64{1, math.NaN(), 3}
	if sum.Value(values) != 4 || average.Value(values) != 2 || !math.IsNaN(sum.Value(nil)) {
		t.Errorf("%v, %v", sum.Value(values), average.Value(values))
	}
}

// play runs minutes of values every five seconds and returns in which minutes there was
// an alarm.
func play(r Rule, minutes ...float64) (alarms []int) {
	var s State
	at := time.Unix(1e9, 0)
	s.Step(r, at, math.NaN())
	for i, v := range minutes {
		for range 12 {
			at = at.Add(5 * time.Second)
			if _, alarm := s.Step(r, at, v); alarm {
				alarms = append(alarms, i)
				s.Alarmed(at)
			}
		}
	}
	return alarms
}

func TestSteps(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		name    string
		rule    Rule
		minutes []float64
		want    []int
	}{
		{"at once", Rule{Level: 1, Period: time.Minute, Inhibit: time.Hour}, []float64{0, 2, 2, 2}, []int{1}},
		{"at the level", Rule{Level: 1, Period: time.Minute}, []float64{1, 1}, nil},
		{"below", Rule{Level: 1, Low: true, Period: time.Minute, Inhibit: time.Hour}, []float64{2, 0, 0}, []int{1}},
		{"three minutes", Rule{Level: 1, Period: 3 * time.Minute, Inhibit: time.Hour}, []float64{2, 2, 0, 2, 2, 2, 2}, []int{5}},
		{"unknown between", Rule{Level: 1, Period: 2 * time.Minute, Inhibit: time.Hour}, []float64{2, nan, 2}, []int{2}},
		{"again and again", Rule{Level: 1, Period: time.Minute, Inhibit: 3 * time.Minute}, []float64{2, 2, 2, 2, 2, 2, 2}, []int{0, 3, 6}},
		{"quiet in between", Rule{Level: 1, Period: time.Minute, Inhibit: 3 * time.Minute}, []float64{2, 0, 2, 0, 0, 2}, []int{0, 5}},
		{"no rest", Rule{Level: 1, Period: 0}, []float64{2, 2}, []int{0, 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := play(tt.rule, tt.minutes...); fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("alarms in %v, want %v", got, tt.want)
			}
		})
	}
}

// TestLongSilence: a rule that was not asked for long, or whose clock went back, begins
// anew.
func TestLongSilence(t *testing.T) {
	r := Rule{Level: 1, Period: 2 * time.Minute}
	var s State
	at := time.Unix(1e9, 0)
	s.Step(r, at, 2)
	for _, pause := range []time.Duration{time.Minute, time.Hour, time.Minute, -time.Hour, time.Minute} {
		at = at.Add(pause)
		if _, alarm := s.Step(r, at, 2); alarm {
			t.Errorf("an alarm after %v", pause)
		}
	}
	if v, alarm := s.Step(r, at.Add(time.Minute), 4); !alarm || v != 4 {
		t.Errorf("%v, %v", v, alarm)
	}
}

// TestAlarmNobodyHeard is raised again.
func TestAlarmNobodyHeard(t *testing.T) {
	r := Rule{Level: 1, Period: time.Minute, Inhibit: time.Hour}
	var s State
	at := time.Unix(1e9, 0)
	s.Step(r, at, 2)
	for range 2 {
		at = at.Add(time.Minute)
		if _, alarm := s.Step(r, at, 2); !alarm {
			t.Error("no alarm")
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`<config><variable><name value="cpu_usage"/><alarm_trigger_level value="0.5"/><rrd_regex value="a+"/></variable></config>`)
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := Parse(text)
		if err != nil {
			return
		}
		for _, r := range rules {
			r.Match.MatchString(text)
			play(r, 1, 2)
		}
	})
}
