package api

import (
	"math"
	"testing"
	"time"
)

// The bytes of every type on both encodings, as clients of the API know them.
func TestBytesOfEveryType(t *testing.T) {
	number := 7
	text := func(b []byte, e Encoding, v int) []byte { return AppendInt(b, e, int64(v)) }
	for _, c := range []struct {
		name      string
		write     func(b []byte, e Encoding) []byte
		xml, json string
	}{
		{"string", func(b []byte, e Encoding) []byte { return AppendString(b, e, "a<b>&\"c'") },
			`<value>a&lt;b&gt;&amp;"c'</value>`, `"a<b>&\"c'"`},
		{"empty string", func(b []byte, e Encoding) []byte { return AppendString(b, e, "") }, `<value></value>`, `""`},
		{"control characters", func(b []byte, e Encoding) []byte { return AppendString(b, e, "a\x00\x01\x1f\tb\n\x7f") },
			"<value>a\tb\n\x7f</value>", `"a\u0000\u0001\u001f\u0009b\n` + "\x7f\""},
		{"not UTF-8", func(b []byte, e Encoding) []byte { return AppendString(b, e, "a\xffé😀") },
			"<value>a\ufffdé😀</value>", `"a\ufffdé😀"`},
		{"reference", func(b []byte, e Encoding) []byte { return AppendRef(b, e, "OpaqueRef:x") },
			`<value>OpaqueRef:x</value>`, `"OpaqueRef:x"`},
		{"null reference", func(b []byte, e Encoding) []byte { return AppendRef(b, e, "") },
			`<value>OpaqueRef:NULL</value>`, `"OpaqueRef:NULL"`},
		{"integer", func(b []byte, e Encoding) []byte { return AppendInt(b, e, math.MinInt64) },
			`<value>-9223372036854775808</value>`, `-9223372036854775808`},
		{"true", func(b []byte, e Encoding) []byte { return AppendBool(b, e, true) }, `<value><boolean>1</boolean></value>`, `true`},
		{"false", func(b []byte, e Encoding) []byte { return AppendBool(b, e, false) }, `<value><boolean>0</boolean></value>`, `false`},
		{"date", func(b []byte, e Encoding) []byte {
			return AppendTime(b, e, time.Date(2026, 2, 3, 5, 5, 6, 999, time.FixedZone("", 3600)))
		}, `<value><dateTime.iso8601>20260203T04:05:06Z</dateTime.iso8601></value>`, `"20260203T04:05:06Z"`},
		{"set", func(b []byte, e Encoding) []byte { return appendTexts(b, e, []string{"a", "b"}) },
			`<value><array><data><value>a</value><value>b</value></data></array></value>`, `["a","b"]`},
		{"empty set", func(b []byte, e Encoding) []byte { return appendTexts[string](b, e, nil) },
			`<value><array><data></data></array></value>`, `[]`},
		{"map", func(b []byte, e Encoding) []byte {
			return appendMap(b, e, map[int64]int{2: 4, 1: 3}, intKey, text)
		}, `<value><struct><member><name>1</name><value>3</value></member><member><name>2</name><value>4</value></member></struct></value>`,
			`{"1":3,"2":4}`},
		{"empty map", func(b []byte, e Encoding) []byte { return appendTextMap[string, string](b, e, nil, plainText) },
			`<value><struct></struct></value>`, `{}`},
		{"void", Void{}.AppendValue, `<value></value>`, `""`},
		{"no option", func(b []byte, e Encoding) []byte { return appendOption(b, e, nil, text) },
			`<value><array><data></data></array></value>`, `[]`},
		{"option", func(b []byte, e Encoding) []byte { return appendOption(b, e, &number, text) },
			`<value><array><data><value>7</value></data></array></value>`, `[7]`},
	} {
		if got := string(c.write(nil, XML)); got != c.xml {
			t.Errorf("%s: %q, want %q", c.name, got, c.xml)
		}
		if got := string(c.write(nil, JSON)); got != c.json {
			t.Errorf("%s: %q, want %q", c.name, got, c.json)
		}
	}
}

// Numbers have 16 significant digits and no more zeros than they need, as C's
// %.16g writes them.
func TestBytesOfNumbers(t *testing.T) {
	for in, want := range map[float64]string{
		0: "0", 1: "1", -1: "-1", 0.1: "0.1", 1.5: "1.5", 1.0 / 3: "0.3333333333333333", 2.0 / 3: "0.6666666666666666",
		100000: "100000", 1e15: "1000000000000000", 1e16: "1e+16", 123456789012345680: "1.234567890123457e+17",
		1e-4: "0.0001", 1e-5: "1e-05", 1e100: "1e+100", 1.7976931348623157e308: "1.797693134862316e+308",
		math.NaN(): "0", math.Inf(1): "0", math.Inf(-1): "0",
	} {
		if got := string(AppendFloat(nil, JSON, in)); got != want {
			t.Errorf("JSON %g: %s, want %s", in, got, want)
		}
		if got := string(AppendFloat(nil, XML, in)); got != "<value><double>"+want+"</double></value>" {
			t.Errorf("XML %g: %s", in, got)
		}
	}
}

// What clients may send for each type, and what they may not.
func TestAcceptedForms(t *testing.T) {
	value := func(k ValueKind, s string) *Value { return &Value{Kind: k, Text: s} }
	when := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, v := range []*Value{value(StringValue, "5"), value(StringValue, " 5 "), value(IntValue, "5"), value(FloatValue, "5.0")} {
		if n, err := decodeInt(v); n != 5 || err != nil {
			t.Errorf("%+v: %d, %v", v, n, err)
		}
	}
	for _, v := range []*Value{
		value(StringValue, ""), value(StringValue, "5.0"), value(FloatValue, "5.5"), value(FloatValue, "1e300"),
		value(IntValue, "9223372036854775808"), value(BoolValue, "1"), {}, {Kind: ArrayValue},
	} {
		if n, err := decodeInt(v); err == nil {
			t.Errorf("%+v was taken for %d", v, n)
		}
	}
	for _, v := range []*Value{value(FloatValue, "2.5"), value(StringValue, "2.5")} {
		if f, err := decodeFloat(v); f != 2.5 || err != nil {
			t.Errorf("%+v: %g, %v", v, f, err)
		}
	}
	for _, s := range []string{
		"20260203T04:05:06Z", "20260203T04:05:06", "2026-02-03T04:05:06Z", "2026-02-03T04:05:06", "20260203T040506Z",
		"20260203T05:05:06+01:00", "20260203T05:05:06+0100", "2026-02-03T04:05:06.000Z", " 20260203T04:05:06Z ",
	} {
		for _, kind := range []ValueKind{StringValue, TimeValue} {
			if got, err := decodeTime(value(kind, s)); err != nil || !got.Equal(when) {
				t.Errorf("%s: %v, %v", s, got, err)
			}
		}
	}
	for _, s := range []string{"", "tomorrow", "20260203", "20261303T04:05:06Z"} {
		if got, err := decodeTime(value(StringValue, s)); err == nil {
			t.Errorf("%q was taken for %v", s, got)
		}
	}
}
