package wire

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

func TestWhere(t *testing.T) {
	d, err := db.Open(t.Context(), db.NewMemory(), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	err = d.Update(t.Context(), func(tx *db.Tx) error {
		for i, name := range []string{"a", "b", `it's "c"`} {
			vm := api.NewVM()
			vm.NameLabel, vm.VCPUsMax, vm.IsATemplate = name, int64(i), i == 1
			vm.UUID = fmt.Sprint("uuid", i)
			if i == 2 {
				vm.Affinity, vm.PowerState = "OpaqueRef:host", api.VMPowerStateRunning
			}
			db.InsertAs(tx, api.VMRef(fmt.Sprint("OpaqueRef:", i)), vm)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	class := api.ClassOf[api.VM]()
	for expr, want := range map[string]string{
		`true`: "012", ` false `: "", `not false`: "012", `not not true`: "012", `(((true)))`: "012",
		`field "name__label" = "a"`: "0", `field "name_label"="b"`: "1", `"b" = field 'name__label'`: "1",
		`field "name__label" = "it's \"c\""`: "2", `field "name__label" = 'it\'s "c"'`: "2",
		`field "VCPUs__max" = "2"`: "2", `field "is_a_template" = "true"`: "1", `not field "is_a_template" = "true"`: "02",
		`field "affinity" = "OpaqueRef:NULL"`: "01", `field "affinity" = "OpaqueRef:host"`: "2",
		`field "power_state" = "Running"`: "2", `field "uuid" = "uuid1"`: "1", `field "_ref" = "OpaqueRef:0"`: "0",
		`field "name__label" = field "uuid"`: "", `"x" = "x"`: "012",
		`(field "name__label" = "a") or (field "name__label" = "b")`:                             "01",
		`(not (field "is_a_template" = "true")) and (not (field "name__label" = "a"))`:           "2",
		`field "name__label" = "a" or field "name__label" = "b" and field "uuid" = "uuid0"`:      "0",
		`(field "name__label" = "a" or field "name__label" = "b") and field "uuid" = "uuid1"`:    "1",
		"(\tfield\n\"name__label\"=\"a\"\r\n)":                                                   "0",
		strings.Repeat("(", maxWhereDepth) + "true" + strings.Repeat(")", maxWhereDepth):         "012",
		strings.Repeat("true and ", 1000) + "true":                                               "012",
		`field "snapshot__time" = "19700101T00:00:00Z" and field "HVM__shadow_multiplier" = "1"`: "012",
	} {
		match, err := parseWhere(class, expr)
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		var got []string
		d.Snapshot().Objects(class, func(o *db.Object) bool {
			if match(o) {
				got = append(got, strings.TrimPrefix(o.Ref(), "OpaqueRef:"))
			}
			return true
		})
		slices.Sort(got)
		if s := strings.Join(got, ""); s != want {
			t.Errorf("%s: %s, want %s", expr, s, want)
		}
	}
	for _, expr := range []string{
		"", " ", "maybe", "true true", "(true", "true)", "true and", "or true", "not", `field = "a"`, `field "name__label"`,
		`field "name__label" == "a"`, `field "name__label" = a`, `field "no such" = "a"`, `field "tags" = "a"`, `field "other_config" = "a"`,
		`"a`, `"a" = "b`, `field "name__label" = "a\"`, "1 = 1", "TRUE", strings.Repeat("(", 1000), strings.Repeat("not ", 1000) + "true",
	} {
		if _, err := parseWhere(class, expr); err == nil {
			t.Errorf("%s was taken", expr)
		}
	}
}

// Whatever the text, reading it ends, and what it gives selects without a
// panic.
func FuzzWhere(f *testing.F) {
	f.Add(`(field "name__label" = "a") or not (field 'is_a_template' = "true") and true`)
	class := api.ClassOf[api.VM]()
	d, err := db.Open(f.Context(), db.NewMemory(), db.Options{})
	if err != nil {
		f.Fatal(err)
	}
	d.Update(f.Context(), func(tx *db.Tx) error { db.InsertAs(tx, "OpaqueRef:vm", api.NewVM()); return nil })
	o := d.Snapshot().Object(class, "OpaqueRef:vm")
	f.Fuzz(func(t *testing.T, text string) {
		if match, err := parseWhere(class, text); err == nil {
			match(o)
		}
	})
}
