package lvm

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

const volumes = `  {
      "report": [ { "lv": [
              {"lv_name":"base", "lv_size":"69206016", "lv_active":"active", "lv_device_open":"open", "lv_tags":"cairn.format=qcow2,cairn.size=67108864"},
              {"lv_name":"top", "lv_size":"69206016", "lv_active":"", "lv_device_open":"", "lv_tags":""}
          ] } ],
      "log": [ ]
  }`

func TestReports(t *testing.T) {
	list, err := ParseVolumes([]byte(volumes))
	want := []Volume{
		{Name: "base", Size: 69206016, Active: true, Open: true, Tags: []string{"cairn.format=qcow2", "cairn.size=67108864"}},
		{Name: "top", Size: 69206016},
	}
	if err != nil || !reflect.DeepEqual(list, want) {
		t.Errorf("%+v, %v", list, err)
	}
	size, free, err := ParseSpace([]byte(`{"report":[{"vg":[{"vg_size":"10733223936", "vg_free":"4194304"}]}]}`))
	if err != nil || size != 10733223936 || free != 4194304 {
		t.Errorf("%d, %d, %v", size, free, err)
	}
	owner, err := ParseOwner([]byte(`{"report":[{"pv":[{"vg_name":"g"}]}]}`))
	if err != nil || owner != "g" {
		t.Errorf("%q, %v", owner, err)
	}
	for _, bad := range []string{"", "{", `{"report":[{"vg":[]}]}`, `{"report":[{"vg":[{"vg_size":"1g"}]}]}`, `{"report":[{"vg":[{"vg_size":"-1","vg_free":"0"}]}]}`} {
		if _, _, err := ParseSpace([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func FuzzParseVolumes(f *testing.F) {
	f.Add([]byte(volumes))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := ParseVolumes(b)
		for _, v := range list {
			if err == nil && v.Size < 0 {
				t.Errorf("%+v", v)
			}
		}
	})
}

func TestTags(t *testing.T) {
	for _, m := range []Meta{
		{Format: "raw", Size: 512}, {Draft: true, Format: "qcow2", Size: 1 << 40, Backing: "b-1.x"},
		{Format: "qcow2", Note: strings.Repeat("{\"name\": \"ü,\\\"\"}", 220)},
	} {
		tags := m.Tags()
		for _, tag := range tags {
			if len(tag) > 1024 || strings.Trim(tag, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-/=!:&#") != "" {
				t.Errorf("LVM does not take tag %q", tag)
			}
		}
		if got, err := ParseTags(append(tags, "of-others")); err != nil || got != m {
			t.Errorf("%+v, %v, want %+v", got, err, m)
		}
	}
	for _, bad := range [][]string{
		nil, {"cairn.format=vmdk"}, {"cairn.format=raw", "cairn.size=x"}, {"cairn.format=raw", "cairn.note.1=aa"}, {"cairn.format=raw", "cairn.note.0=%"},
		{"cairn.format=raw", "cairn.note.99=aa"},
	} {
		if m, err := ParseTags(bad); err == nil {
			t.Errorf("%q is accepted as %+v", bad, m)
		}
	}
}

func FuzzParseTags(f *testing.F) {
	f.Add("cairn.draft,cairn.format=raw,cairn.size=7,cairn.note.0=aa")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseTags(strings.Split(text, ","))
		if err != nil || len(m.Note) > 4096 {
			return
		}
		if again, err := ParseTags(m.Tags()); err != nil || again != m {
			t.Errorf("%+v becomes %+v, %v", m, again, err)
		}
	})
}

// TestCommandsNameOneDisk: no command may look at any other.
func TestCommandsNameOneDisk(t *testing.T) {
	g := Group{Dir: "/run/lvm", Nodes: "/dev", Device: "/dev/sdx", Name: "g"}
	all := append(g.Make(), g.Remove()...)
	all = append(all, g.Create("v", 1, []string{"t"}), g.Delete("v"), g.Extend("v", 1), g.Activate("v", true), g.Activate("v", false), g.Owner(), g.Space(), g.Volumes(), *g.Retag("v", []string{"a", "b"}, []string{"b", "c"}))
	for _, c := range all {
		if i := slices.Index(c.Args, "--devices"); i != 1 || c.Args[2] != "/dev/sdx" || !slices.Contains(c.Env, "LVM_SYSTEM_DIR=/run/lvm") || c.Limit == 0 {
			t.Errorf("%v", c)
		}
	}
	if c := g.Retag("v", []string{"a"}, []string{"a"}); c != nil {
		t.Errorf("%v changes nothing", c)
	}
	if got, want := g.Retag("v", []string{"a", "b"}, []string{"b", "c"}).String(), "lvm lvchange --devices /dev/sdx --deltag a --addtag c g/v"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
