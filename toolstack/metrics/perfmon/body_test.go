package perfmon

import (
	"math"
	"reflect"
	"strings"
	"testing"
)

// TestBody: what clients parse, and that it is read as it was written.
func TestBody(t *testing.T) {
	if got := (Rule{Text: "<variable/>"}).Body(0.5); got != "value: 0.500000\nconfig:\n<variable/>\n" {
		t.Errorf("body %q", got)
	}
	for _, elements := range []string{
		`<name value="cpu_usage"/><alarm_trigger_level value="0.5"/>`,
		`<name value="x&quot;&lt;/variable&gt;&#10;config:&#10;"/><alarm_trigger_level value="1"/><comment value="ä"/>`,
		`<name value="a b"/><alarm_priority value="1"/><alarm_trigger_level value="-1e3"/><alarm_trigger_sense value="low"/>
		<alarm_trigger_period value="120"/><alarm_auto_inhibit_period value="0"/><consolidation_fn value="average"/><rrd_regex value="a|b"/>`,
	} {
		r := one(t, elements)
		for _, v := range []float64{0, 0.986414, -12, 1 << 40, math.Inf(1)} {
			again, value, err := ReadBody(r.Body(v))
			if err != nil || value != v || !reflect.DeepEqual(again, r) {
				t.Errorf("%v of %+v is read as %v of %+v, %v", v, r, value, again, err)
			}
		}
	}
}

func TestOtherBodies(t *testing.T) {
	good := one(t, `<name value="x"/><alarm_trigger_level value="1"/>`).Body(2)
	for _, change := range [][2]string{
		{good, ""}, {good, "the disk is full"}, {"value: ", ""}, {"2.000000", ""}, {"2.000000", "much"}, {"2.000000", "2 3"}, {"2.000000\n", "2.000000"},
		{"config:", "rule:"}, {"<variable>", "<variable/><variable>"}, {"</variable>", ""}, {"<variable>", "</config>"}, {`level value="1"`, `level value="high"`},
		{"value: ", " value: "}, {"<variable>", strings.Repeat(" ", maxText) + "<variable>"},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if r, value, err := ReadBody(bad); err == nil || bad == good || value != 0 || r.Name != "" {
			t.Errorf("%.200q is %v of %+v, %v", bad, value, r, err)
		}
	}
}

func FuzzReadBody(f *testing.F) {
	f.Add("value: 0.500000\nconfig:\n<variable>\n\t<name value=\"cpu_usage\"/>\n\t<alarm_trigger_level value=\"0.5\"/>\n</variable>\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, value, err := ReadBody(text)
		if err != nil || len(r.Text) > maxText/2 { // the marks of XML are longer when they are quoted
			return
		}
		again, _, err := ReadBody(r.Body(value))
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v is read as %+v, %v", r, again, err)
		}
	})
}
