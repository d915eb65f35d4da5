package wire

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn/toolstack/api"
)

// show writes a decoded call so that two of them can be compared.
func show(r *request) string {
	b := []byte(r.method)
	for i := range r.args {
		b = append(b, ' ')
		b = api.AppendJSONValue(b, &r.args[i])
	}
	return string(b)
}

func TestParseXMLCall(t *testing.T) {
	call := func(params string) string {
		return "<methodCall><methodName> VM.x </methodName><params>" + params + "</params></methodCall>"
	}
	param := func(v string) string { return "<param><value>" + v + "</value></param>" }
	for in, want := range map[string]string{
		"<methodCall><methodName>a.b</methodName></methodCall>": "a.b",
		call(""):                                    "VM.x",
		call(param("")):                             `VM.x ""`,
		call(param(" x ")):                          `VM.x " x "`,
		call(param("<string></string>")):            `VM.x ""`,
		call(param("\n <string>a</string>\n ")):     `VM.x "a"`,
		call(param("<![CDATA[<b>]]>&lt;")):          `VM.x "<b><"`,
		call(param("<i4> 5 </i4>")):                 `VM.x 5`,
		call(param("<double>1.5</double>")):         `VM.x 1.5`,
		call(param("<boolean>1</boolean>")):         `VM.x true`,
		call(param("<nil/>")):                       `VM.x null`,
		call(param("<array><data></data></array>")): `VM.x []`,
		call(param("<array><data><value>1</value><value><int>2</int></value></data></array>")):   `VM.x ["1",2]`,
		call(param("<struct><member><name>k</name><value>v</value></member></struct>")):          `VM.x {"k":"v"}`,
		call(param("<dateTime.iso8601>20260203T04:05:06Z</dateTime.iso8601>")):                   `VM.x "20260203T04:05:06Z"`,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- c -->\n" + call(param("a<!-- b -->c")): `VM.x "ac"`,
		call(" \n " + param("1") + " " + param("2")):                                             `VM.x "1" "2"`,
		call("") + "\n <!-- c --> \n":                                                            "VM.x",
	} {
		r, err := parseXMLCall([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if got := show(r); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{
		"", "x", "<methodCall>", "<methodResponse/>", "<methodCall></methodCall>", call("<value>1</value>"),
		call("<param>1</param>"), call(param("<int>1")), call(param("<boolean>2</boolean>")), call(param("<blob>1</blob>")),
		call(param("<struct><name>k</name></struct>")), call(param("<array><value>1</value></array>")),
		call(param("<string>a</string><string>b</string>")), call(param("<string><i4>1</i4></string>")),
		call("") + "x", call("") + call(""), call("") + "</a>", call("") + "<a/>", "<methodCall><methodName>a.b</methodName></methodCall>;",
		call(param("&unknown;")), call(param("\xff")),
		call(param(strings.Repeat("<array><data><value>", 200) + strings.Repeat("</value></data></array>", 200))),
	} {
		if r, err := parseXMLCall([]byte(in)); err == nil {
			t.Errorf("%.80s was taken for %s", in, show(r))
		}
	}
}

func TestParseJSONCall(t *testing.T) {
	for in, want := range map[string]string{
		`{"method":"a.b","params":[1,"x"],"id":1}`:                `a.b 1 "x"`,
		`{"jsonrpc":"2.0","method":"a.b","params":{},"id":"i"}`:   `a.b {}`,
		`{"jsonrpc":"2.0","method":"system.listMethods","id":-1}`: `system.listMethods`,
	} {
		r, env, err := parseJSONCall([]byte(in))
		if err != nil || show(r) != want || env.version2 != strings.Contains(in, "2.0") {
			t.Errorf("%s: %v, %v", in, r, err)
		}
	}
	for _, in := range []string{
		`1`, `[]`, `{}`, `{"method":"a","params":[]}`, `{"method":"a","id":null}`, `{"method":1,"id":1}`,
		`{"method":"a","params":"x","id":1}`, `{"jsonrpc":"3.0","method":"a","id":1}`, `{"method":"a","id":{}}`,
	} {
		if r, _, err := parseJSONCall([]byte(in)); err == nil {
			t.Errorf("%s was taken for %s", in, show(r))
		}
	}
}

func seed(f *testing.F, prefix string) {
	files, err := filepath.Glob("testdata/" + prefix + "*.in")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		_, body, _ := strings.Cut(string(text), "\n")
		f.Add([]byte(strings.ReplaceAll(body, "<NUL>", "\x00")))
	}
}

// fuzzServer has neither sessions nor behaviour: all it can do is refuse.
var fuzzServer = &Server{Config: Config{Sessions: nobody{}, Registry: api.NewRegistry()}}

// all keeps an answer in one piece.
func all(b []byte) []byte { return b }

func FuzzXMLCall(f *testing.F) {
	seed(f, "xml")
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, err := parseXMLCall(body); err == nil {
			result, err := fuzzServer.call(r)
			appendXMLResponse(nil, result, err, all)
		}
	})
}

func FuzzJSONCall(f *testing.F) {
	seed(f, "json")
	f.Fuzz(func(t *testing.T, body []byte) {
		r, env, err := parseJSONCall(body)
		if err != nil {
			return
		}
		result, err := fuzzServer.call(r)
		out := appendJSONResponse(nil, env, result, err, all)
		if _, err := api.ParseJSON(out); err != nil {
			t.Errorf("answer %s: %v", out, err)
		}
	})
}

// FuzzCheckValue feeds arbitrary values to every message's parameters: what the
// check lets through must not panic in typed decoding.
func FuzzCheckValue(f *testing.F) {
	f.Add(uint16(0), []byte(`["a",1,{"k":"v"}]`))
	f.Fuzz(func(t *testing.T, n uint16, text []byte) {
		v, err := api.ParseJSON(text)
		if err != nil || v.Kind != api.ArrayValue {
			return
		}
		m := &api.Messages()[int(n)%len(api.Messages())]
		for i := range m.Params {
			if i < len(v.Items) {
				checkValue(&v.Items[i], m.Params[i].Type)
			}
		}
	})
}

type nobody struct{}

func (nobody) Check(s api.SessionRef) error { return api.ErrSessionInvalid(s.String()) }
func (nobody) Login(context.Context, string, string, string, string) (api.SessionRef, error) {
	return "", api.ErrSessionAuthenticationFailed()
}
func (nobody) LoginRoot(context.Context, string) (api.SessionRef, error) {
	return "", api.ErrSessionAuthenticationFailed()
}
func (nobody) Logout(api.SessionRef) {}
