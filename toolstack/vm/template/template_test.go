package template

import (
	"encoding/xml"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"cairn/golden"
	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
)

// TestGolden shows every row as clients see it.
func TestGolden(t *testing.T) {
	var b strings.Builder
	for _, tt := range All() {
		vm := tt.VM()
		fmt.Fprintf(&b, "%s\n  %s\n  memory %d..%d vcpus %d\n", vm.NameLabel, vm.NameDescription, vm.MemoryStaticMin, vm.MemoryStaticMax, vm.VCPUsMax)
		fmt.Fprintf(&b, "  boot %v\n", vm.HVMBootParams)
		for _, m := range []map[string]string{vm.Platform, vm.OtherConfig} {
			for _, k := range slices.Sorted(maps.Keys(m)) {
				if k != StampKey { // it follows from the rest
					fmt.Fprintf(&b, "  %s: %s\n", k, m[k])
				}
			}
		}
		fmt.Fprintf(&b, "  %s\n\n", vm.Recommendations)
	}
	golden.Equal(t, "testdata/templates.txt", b.String()) // a difference raises the version as well
}

func TestNamesAndKeysAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, tt := range All() {
		for _, s := range []string{"key " + tt.Key, "name " + tt.Name} {
			if seen[s] {
				t.Errorf("%s is there twice", s)
			}
			seen[s] = true
		}
	}
	for _, want := range []string{"debian-13", "windows-11", "windows-server-2025", "other-install-media", "sles-16", "rhel-10", "ubuntu-26.04"} {
		if !seen["key "+want] {
			t.Errorf("no template %s", want)
		}
	}
}

func TestRecommendationsParse(t *testing.T) {
	for _, tt := range All() {
		var r struct {
			XMLName      xml.Name `xml:"restrictions"`
			Restrictions []struct {
				Field    string `xml:"field,attr"`
				Property string `xml:"property,attr"`
				Min      int64  `xml:"min,attr"`
				Max      int64  `xml:"max,attr"`
				Value    string `xml:"value,attr"`
			} `xml:"restriction"`
		}
		if err := xml.Unmarshal([]byte(tt.VM().Recommendations), &r); err != nil {
			t.Fatalf("%s: %v", tt.Name, err)
		}
		limits := map[string]int64{}
		for _, x := range r.Restrictions {
			limits[x.Field+x.Property] = x.Max
			if x.Min > x.Max {
				t.Errorf("%s: %s from %d to %d", tt.Name, x.Field, x.Min, x.Max)
			}
		}
		if limits["memory-static-max"] < tt.Memory || limits["vcpus-max"] < tt.VCPUs ||
			limits["number-of-vbds"] != 255 || limits["number-of-vifs"] != 7 {
			t.Errorf("%s: limits %v", tt.Name, limits)
		}
	}
}

func TestSizesAreLegal(t *testing.T) {
	for _, tt := range All() {
		vm := tt.VM()
		ordered := 16*mib <= vm.MemoryStaticMin && vm.MemoryStaticMin <= vm.MemoryDynamicMin &&
			vm.MemoryDynamicMin <= vm.MemoryDynamicMax && vm.MemoryDynamicMax <= vm.MemoryStaticMax && vm.MemoryStaticMax <= tt.MaxMemory
		if !ordered || vm.VCPUsAtStartup < 1 || vm.VCPUsAtStartup > vm.VCPUsMax || tt.MaxVCPUs > 288 || tt.MaxMemory > 16*tib {
			t.Errorf("%s: memory %d/%d/%d/%d, %d of %d vCPUs", tt.Name, vm.MemoryStaticMin, vm.MemoryDynamicMin,
				vm.MemoryDynamicMax, vm.MemoryStaticMax, vm.VCPUsAtStartup, vm.VCPUsMax)
		}
		disks, err := ParseDisks(vm.OtherConfig[DisksKey])
		if err != nil || tt.Disk > 0 && (len(disks) != 1 || !disks[0].Bootable || disks[0].Size != tt.Disk) {
			t.Errorf("%s: disks %v %v", tt.Name, disks, err)
		}
		if !slices.Contains(hypervisor.Machines, vm.Platform["machine-type"]) {
			t.Errorf("%s: machine type %s", tt.Name, vm.Platform["machine-type"])
		}
		if tt.TPM && tt.Firmware != UEFI {
			t.Errorf("%s: a TPM without UEFI", tt.Name)
		}
	}
}

func TestOnlyUntouchedRowsAreRenewed(t *testing.T) {
	fresh := All()[0].VM()
	if Outdated(fresh) {
		t.Error("a fresh row is outdated")
	}
	old := All()[0].VM()
	old.MemoryStaticMin = 64 * mib // as an earlier version had it
	old.OtherConfig[StampKey] = "0:" + digest(old)
	if !Outdated(old) {
		t.Error("an untouched row of an earlier version is not outdated")
	}
	changed := old.Clone()
	changed.NameDescription = "ours"
	if Outdated(changed) {
		t.Error("a row that somebody changed is outdated")
	}
	Renew(old, fresh)
	if Outdated(old) || old.MemoryStaticMin != fresh.MemoryStaticMin || !reflect.DeepEqual(old.OtherConfig, fresh.OtherConfig) {
		t.Errorf("after renewal: %+v", old)
	}
}

func TestParseDisks(t *testing.T) {
	tests := []struct {
		text string
		want Disks // nil: refused
	}{
		{`<provision><disk device="0" size="8589934592" sr="" bootable="true" type="system"/></provision>`,
			Disks{{"0", 8 * gib, "", true, api.VDITypeSystem}}},
		{`<provision><disk bootable='false' device='3' size='1' sr='x'></disk><disk device="0" size="2" type="user"/></provision>`,
			Disks{{"3", 1, "x", false, api.VDITypeUser}, {"0", 2, "", false, api.VDITypeUser}}},
		{`<provision/>`, Disks{}},
		{`<provision><disk device="0" size="8"/><disk device="0" size="8"/></provision>`, nil},
		{`<provision><disk device="00" size="8"/></provision>`, nil},
		{`<provision><disk device="255" size="8"/></provision>`, nil},
		{`<provision><disk device="a" size="8"/></provision>`, nil},
		{`<provision><disk device="0" size="0"/></provision>`, nil},
		{`<provision><disk device="0" size="-5"/></provision>`, nil},
		{`<provision><disk device="0" size="99999999999999999"/></provision>`, nil},
		{`<provision><disk device="0" size="1" bootable="maybe"/></provision>`, nil},
		{`<provision><disk device="0" size="1" type="suspend"/></provision>`, nil},
		{`<provision>`, nil},
		{`<disks/>`, nil},
		{`<provision/><provision/>`, nil},
		{`nonsense`, nil},
		{`<provision>` + strings.Repeat(" ", maxText) + `</provision>`, nil},
	}
	for _, tt := range tests {
		got, err := ParseDisks(tt.text)
		if (err == nil) != (tt.want != nil) || err == nil && !slices.Equal(got, tt.want) {
			t.Errorf("%.80s: %v %v", tt.text, got, err)
		}
	}
	if got, err := ParseDisks("  "); got != nil || err != nil {
		t.Errorf("no text: %v %v", got, err)
	}
}

func FuzzParseDisks(f *testing.F) {
	f.Add(`<provision><disk device="0" size="8589934592" sr="" bootable="true" type="system"/></provision>`)
	f.Add(`<provision><disk device='1' size='1'/><disk device='2' size='2' type='user'/></provision>`)
	f.Add(`<!DOCTYPE x [<!ENTITY a "b">]><provision><disk device="&a;" size="1"/></provision>`)
	f.Fuzz(func(t *testing.T, text string) {
		disks, err := ParseDisks(text)
		if err != nil {
			return
		}
		again, err := ParseDisks(disks.String())
		if err != nil || !slices.Equal(disks, again) {
			t.Errorf("%q: %v, and again %v %v", text, disks, again, err)
		}
	})
}
