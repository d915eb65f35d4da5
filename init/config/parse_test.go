package config

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"cairn/golden"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// documents reads testdata/<dir>/*.yaml; the names come sorted.
func documents(t testing.TB, dir string) (names []string, texts [][]byte) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no documents in %s: %v", dir, err)
	}
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, strings.TrimSuffix(filepath.Base(p), ".yaml"))
		texts = append(texts, text)
	}
	return names, texts
}

func TestErrorsNameTheLine(t *testing.T) {
	for _, dir := range []string{"bad", "bad/beyond"} {
		var b strings.Builder
		names, texts := documents(t, dir)
		for i, text := range texts {
			doc, err := Parse(text)
			if err == nil {
				t.Errorf("%s: accepted as %+v", names[i], doc)
				continue
			}
			fmt.Fprintf(&b, "%s\n", names[i])
			for _, p := range err.(Problems) {
				fmt.Fprintf(&b, "    %s\n", p)
			}
		}
		golden.Equal(t, "testdata/"+strings.ReplaceAll(dir, "/", "-")+".golden", b.String())
	}
}

// schemaAccepts judges a text by the published schema alone.
func schemaAccepts(t *testing.T, schema *jsonschema.Schema, text []byte) bool {
	t.Helper()
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more any
	if dec.Decode(&doc) != nil || dec.Decode(&more) == nil {
		return false
	}
	return schema.Validate(doc) == nil
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// onlyGo are the documents whose fault lies in the YAML itself, below what a
// schema sees.
var onlyGo = map[string]bool{"alias": true}

func TestSchemaAgrees(t *testing.T) {
	schema := compileSchema(t)
	for _, dir := range []string{"good", "bad"} {
		names, texts := documents(t, dir)
		for i, text := range texts {
			_, err := Parse(text)
			if got := schemaAccepts(t, schema, text); got != (err == nil) && !onlyGo[names[i]] {
				t.Errorf("%s/%s: schema accepts: %v, Parse: %v", dir, names[i], got, err)
			}
		}
	}
	names, texts := documents(t, "bad/beyond")
	for i, text := range texts {
		if !schemaAccepts(t, schema, text) {
			t.Errorf("beyond/%s is refused by the schema too: move it to bad", names[i])
		}
	}
}

// TestSchemaDefaults keeps the defaults the schema publishes true.
func TestSchemaDefaults(t *testing.T) {
	var s struct {
		Properties map[string]struct{ Default any }
		Defs       map[string]struct {
			Properties map[string]struct{ Default any }
		} `yaml:"$defs"`
	}
	if err := yaml.Unmarshal(Schema, &s); err != nil {
		t.Fatal(err)
	}
	d, m := Default(), s.Defs["management"].Properties
	for _, c := range []struct{ published, real any }{
		{s.Properties["hostname"].Default, d.Hostname},
		{s.Properties["emulation"].Default, string(d.Emulation)},
		{m["mode"].Default, string(d.Management.Mode)},
		{m["interface"].Default, d.Management.Interface},
	} {
		if c.published != c.real {
			t.Errorf("schema publishes %v, the default is %v", c.published, c.real)
		}
	}
}

func TestParseFull(t *testing.T) {
	text, err := os.ReadFile("testdata/good/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	want := Document{
		Version:  1,
		Hostname: "cairn-1.lab.example",
		Management: Management{
			Interface: "52:54:00:12:34:56",
			Mode:      ModeStatic,
			Address:   netip.MustParsePrefix("10.0.0.2/24"),
			Gateway:   netip.MustParseAddr("10.0.0.1"),
			DNS:       []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::53")},
		},
		NTP:       []string{"0.pool.ntp.org", "10.0.0.1", "2001:db8::123"},
		Root:      Root{PasswordHash: "$argon2id$v=19$m=9216,t=4,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b1dWRWJTmaqwNgYFMsnyRgTXj0"},
		Emulation: EmulationAllowed,
		Storage:   Storage{Local: Local{Type: LocalLVM, Device: "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestMinimalIsDefault(t *testing.T) {
	got, err := Parse([]byte("version: 1\n"))
	if err != nil || !reflect.DeepEqual(got, Default()) {
		t.Errorf("got %+v, %v; want the defaults", got, err)
	}
}

func TestParseRefusesSize(t *testing.T) {
	_, err := Parse(append([]byte("version: 1\n"), bytes.Repeat([]byte("#\n"), maxDocument/2)...))
	if err == nil || !strings.Contains(err.Error(), "at most 65536") {
		t.Errorf("got %v, want a size error", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, dir := range []string{"good", "bad", "bad/beyond"} {
		_, texts := documents(f, dir)
		for _, text := range texts {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		doc, err := Parse(text)
		if err == nil {
			if doc.Version != Version || checkHostname(doc.Hostname) != nil {
				t.Fatalf("accepted an impossible document: %+v", doc)
			}
			return
		}
		lines := bytes.Count(text, []byte("\n")) + 1
		for _, p := range err.(Problems) {
			if p.Line < 1 || p.Line > lines+1 || p.Message == "" {
				t.Fatalf("problem %+v about a text of %d lines", p, lines)
			}
		}
	})
}
