package ova

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"cairn/golden"
	"cairn/toolstack/api"
)

func sample() []Named {
	vm, vbd, vdi, vif := api.NewVM(), api.NewVBD(), api.NewVDI(), api.NewVIF()
	vm.UUID, vm.NameLabel, vm.NameDescription = "0f1e", "web <1> & \"two\"", "ümlaut\nline"
	vm.VBDs, vm.VIFs = []api.VBDRef{"OpaqueRef:vbd"}, []api.VIFRef{"OpaqueRef:vif", "OpaqueRef:elsewhere"}
	vm.ResidentOn, vm.MemoryStaticMax, vm.HVMShadowMultiplier = "OpaqueRef:host", 1<<40, 1.5
	vm.SnapshotTime = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	vm.OtherConfig = map[string]string{"mac_seed": "s", "b": ""}
	vm.Blobs = map[string]api.BlobRef{"icon": "OpaqueRef:blob"}
	vbd.VM, vbd.VDI, vbd.Type, vbd.Userdevice, vbd.Bootable = "OpaqueRef:vm", "OpaqueRef:vdi", api.VBDTypeDisk, "0", true
	vdi.VirtualSize, vdi.VBDs, vdi.SR = 5<<30, []api.VBDRef{"OpaqueRef:vbd"}, "OpaqueRef:sr"
	vif.VM, vif.MAC, vif.Network = "OpaqueRef:vm", "02:00:00:00:00:01", "OpaqueRef:net"
	return []Named{{"OpaqueRef:vm", vm}, {"OpaqueRef:vbd", vbd}, {"OpaqueRef:vdi", vdi}, {"OpaqueRef:vif", vif}}
}

func document() *Document {
	return &Document{Current("host1", "20260304T05:06:07Z", "Cairn", "1.0", "7"), Number(sample())}
}

func TestGolden(t *testing.T) {
	b := document().Append(nil)
	golden.Equal(t, "testdata/ours.xml", b)
	d, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(d.Append(nil), b) {
		t.Error("what was read is not what was written")
	}
	vm := Find[api.VM](d, "Ref:0")
	if vm == nil || vm.NameLabel != "web <1> & \"two\"" || fmt.Sprint(vm.VBDs, vm.VIFs) != "[Ref:1] [Ref:3]" || vm.ResidentOn != "" || len(vm.Blobs) != 0 ||
		vm.SnapshotTime.Year() != 2026 || vm.MemoryStaticMax != 1<<40 {
		t.Errorf("%+v", vm)
	}
	if vdi := Find[api.VDI](d, "Ref:2"); vdi == nil || vdi.SR != "" || fmt.Sprint(vdi.VBDs) != "[Ref:1]" {
		t.Errorf("%+v", vdi)
	}
	if Find[api.VBD](d, "Ref:0") != nil || Find[api.VBD](d, "Ref:9") != nil {
		t.Error("what is not there was found")
	}
}

// TestNumberLeavesRecords: those of a snapshot of the database are shared.
func TestNumberLeavesRecords(t *testing.T) {
	in := sample()
	Number(in)
	if !reflect.DeepEqual(in, sample()) {
		t.Error("the originals have changed")
	}
}

// TestOthers reads what an older product of another vendor writes: numbers in
// elements of their own, fields and classes of its own, no final newline.
func TestOthers(t *testing.T) {
	b, err := os.ReadFile("testdata/other.xml")
	if err != nil {
		t.Fatal(err)
	}
	d, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if d.Version != (Version{"xs-1", "2014", "6.2.0", "XenServer", "70446c", 1, 9, 2}) || !d.Version.Readable() {
		t.Errorf("%+v", d.Version)
	}
	vm := Find[api.VM](d, "Ref:0")
	if vm == nil || vm.NameLabel != "old" || vm.MemoryStaticMax != 536870912 || !vm.IsATemplate || vm.VCPUsMax != 2 || vm.HVMShadowMultiplier != 1 ||
		fmt.Sprint(vm.AllowedOperations) != "[export]" || vm.ActionsAfterCrash != "destroy" || fmt.Sprint(vm.BlockedOperations) != "map[start:no]" || vm.SnapshotTime.Unix() != 1393632000 {
		t.Errorf("%+v", vm)
	}
	if len(d.Objects) != 2 {
		t.Errorf("%d objects", len(d.Objects))
	}
}

func value(parts ...string) string {
	return "<value><struct>" + strings.Join(parts, "") + "</struct></value>"
}

func part(name, value string) string {
	return "<member><name>" + name + "</name>" + value + "</member>"
}

func list(items ...string) string {
	return "<value><array><data>" + strings.Join(items, "") + "</data></array></value>"
}

func object(class, id, snapshot string) string {
	return value(part("class", "<value>"+class+"</value>"), part("id", "<value>"+id+"</value>"), part("snapshot", snapshot))
}

func TestHostile(t *testing.T) {
	version := part("version", value(part("export_vsn", "<value>2</value>")))
	vm := object("VM", "Ref:0", value())
	for name, text := range map[string]string{
		"empty":        "",
		"no xml":       "ova",
		"other root":   "<methodCall/>",
		"no version":   value(part("objects", list(vm))),
		"cut":          value(version, part("objects", list(vm)))[:200],
		"twice":        value(version, part("objects", list(vm, vm))),
		"two values":   value(version) + value(version),
		"version":      value(part("version", value(part("export_vsn", "<value>x</value>")))),
		"no record":    value(version, part("objects", list(value(part("class", "<value>VM</value>"), part("id", "<value>a</value>"))))),
		"no id":        value(version, part("objects", list(object("VM", "", value())))),
		"objects":      value(version, part("objects", "<value>x</value>")),
		"record":       value(version, part("objects", list(object("VM", "a", "<value>x</value>")))),
		"wrong type":   value(version, part("objects", list(object("VM", "a", value(part("VCPUs_max", list())))))),
		"wrong number": value(version, part("objects", list(object("VM", "a", value(part("VCPUs_max", "<value>many</value>")))))),
		"wrong date":   value(version, part("objects", list(object("VM", "a", value(part("snapshot_time", "<value>now</value>")))))),
		"doctype":      `<!DOCTYPE v [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>` + value(version, part("objects", list())),
		"entity":       value(version, part("objects", list(object("VM", "&b;", value())))),
		"deep":         strings.Repeat("<value><array><data>", 10_000),
		"deep value":   value(version, part("objects", list(object("VM", "a", value(part("x", strings.Repeat("<value><array><data>", 10_000))))))),
		"many values":  value(version, part("objects", list(object("VM", "a", value(part("tags", list(strings.Repeat("<value/>", 1<<14)))))))),
		"many ids":     value(version, part("objects", list(many(maxObjects+1)...))),
		"wide":         value(version, part("x", list(strings.Repeat("<value/>", 1<<16)))),
		"utf-8":        value(version, part("objects", list(object("VM", "a", value(part("name_label", "<value>\xff</value>")))))),
	} {
		if _, err := Parse([]byte(text)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		} else if len(err.Error()) > 300 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

func many(n int) (list []string) {
	for i := range n {
		list = append(list, object("x", fmt.Sprint(i), "<value><struct/></value>"))
	}
	return list
}

// TestTolerated is what is not a reason to refuse.
func TestTolerated(t *testing.T) {
	version := part("version", value())
	for name, text := range map[string]string{
		"other class":   value(version, part("objects", list(object("console", "x", value()), object("nonsense", "y", value())))),
		"no objects":    value(version),
		"other members": value(part("more", list(value())), version, part("objects", list())),
		"white space":   "<?xml version='1.0'?>\n<value>\n <struct>\n " + version + part("objects", list(object("VM", "a", value(part("nothing", "<value><nil/></value>"))))) + "</struct>\n</value>\n",
	} {
		if _, err := Parse([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(document().Append(nil))
	other, err := os.ReadFile("testdata/other.xml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(other)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		again := d.Append(nil)
		e, err := Parse(again)
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if !bytes.Equal(e.Append(nil), again) {
			t.Error("it changes as it is read and written")
		}
	})
}
