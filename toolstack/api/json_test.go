package api

import (
	"encoding/json"
	"testing"
	"unicode/utf8"
)

func TestParseJSON(t *testing.T) {
	for in, want := range map[string]string{
		` {"a" : [1, -2.5e3, true,false,null,"\u00e9\ud83d\ude00\n\/"]} `: `{"a":[1,-2.5e3,true,false,null,"é😀\n/"]}`,
		`9223372036854775807`: `9223372036854775807`,
		`"\ud800x"`:           "\"\ufffdx\"",
		`{}`:                  `{}`,
		`[]`:                  `[]`,
		"\"\xff\"":            "\"\ufffd\"",
	} {
		v, err := ParseJSON([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if got := string(AppendJSONValue(nil, &v)); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{
		``, `{`, `[1,]`, `{"a":}`, `{"a" 1}`, `{a:1}`, `"x`, `"\x"`, `"\u12"`, `tru`, `1 2`, `--1`, `-`, "\"\n\"", `[1 2]`,
	} {
		if v, err := ParseJSON([]byte(in)); err == nil {
			t.Errorf("%q was taken for %v", in, v)
		}
	}
}

// What this parser accepts, the standard library accepts too, with the same
// meaning; depth and numbers aside, the reverse holds.
func FuzzParseJSON(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","method":"VM.start","params":["OpaqueRef:1",true,-1.5e9,{"a":[]}],"id":null}`))
	f.Add([]byte(`"\ud83d\ude00\u0000"`))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := ParseJSON(text)
		if err != nil {
			return
		}
		again := AppendJSONValue(nil, &v)
		w, err := ParseJSON(again)
		if err != nil {
			t.Fatalf("%q became %q: %v", text, again, err)
		}
		if string(AppendJSONValue(nil, &w)) != string(again) || !utf8.Valid(again) {
			t.Errorf("%q is not stable: %q", text, again)
		}
		if v.Kind == StringValue && !json.Valid(again) {
			t.Errorf("%q is no JSON", again)
		}
	})
}

// Encoders must give text that decodes to the same, whatever is in it.
func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("<&>\"\\\x00\r\n\u2028\xff")
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		if err := json.Unmarshal(AppendJSONString(nil, s), &got); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if utf8.ValidString(s) && got != s {
			t.Errorf("%q came back as %q", s, got)
		}
		if xml := AppendXMLText(nil, s); !utf8.Valid(xml) {
			t.Errorf("%q: %q is no UTF-8", s, xml)
		}
	})
}
