package vm_test

import (
	"errors"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/vm/template"
	"cairn/toolstack/wire/wiretest"
)

func TestProvisionMakesDisks(t *testing.T) {
	r := newRig(t)
	r.Covers("VM.provision")
	var ref string
	r.Must(&ref, "VM.clone", r.templates()["debian-13"], "web")
	other := r.makeSR("/srv/two")
	disks := template.Disks{
		{Device: "0", Size: 8 * gib, Bootable: true, Type: api.VDITypeSystem},
		{Device: "2", Size: 5 * gib, SR: wiretest.Get(r.Server, other).UUID, Type: api.VDITypeUser},
	}
	config := r.record(ref).OtherConfig
	config["disks"] = disks.String()
	r.Must(nil, "VM.set_other_config", ref, config)
	r.Must(nil, "VM.provision", ref)
	v := r.record(ref)
	if v.IsATemplate || v.OtherConfig["disks"] != "" || v.OtherConfig["mac_seed"] == "" || len(v.VBDs) != 2 {
		t.Fatalf("provisioned: %+v", v)
	}
	made := r.vdis(ref)
	for i, want := range []struct {
		sr   api.SRRef
		size int64
		name string
		kind api.VDIType
	}{{r.sr, 8 * gib, "web 0", api.VDITypeSystem}, {other, 5 * gib, "web 2", api.VDITypeUser}} {
		d := r.vdi(made[i])
		if d.SR != want.sr || d.VirtualSize != want.size || d.NameLabel != want.name || d.Type != want.kind || d.SMConfig["made-for"] != "" {
			t.Errorf("disk %d: %+v", i, d)
		}
	}
	boot := wiretest.Get(r.Server, v.VBDs[0])
	if second := wiretest.Get(r.Server, v.VBDs[1]); boot.Bootable == second.Bootable {
		t.Errorf("bootable: %v and %v", boot, second)
	}
}

func TestProvisionIsAllOrNothing(t *testing.T) {
	tests := []struct {
		name, disks, code string
		spoil             func(r *rig)
	}{
		{"no such SR", `<provision><disk device="0" size="1073741824" sr="nowhere"/></provision>`, api.CodeUUIDInvalid, nil},
		{"no default SR", `<provision><disk device="0" size="1073741824"/></provision>`, api.CodeDefaultSRNotFound, func(r *rig) {
			must(r.T, r.DB.Update(r.ctx, func(tx *db.Tx) error {
				p, err := db.Edit(tx, r.pool)
				p.DefaultSR = ""
				return err
			}))
		}},
		{"nonsense", `<provision><disk device="0"`, api.CodeInvalidValue, nil},
		{"same place", `<provision><disk device="0" size="1"/><disk device="0" size="1"/></provision>`, api.CodeInvalidValue, nil},
		{"second disk fails", `<provision><disk device="0" size="1073741824"/><disk device="1" size="1073741824"/></provision>`, "", func(r *rig) {
			n := 0
			r.hostd.Fail(func(verb, _, _ string) error {
				if verb == "create" {
					n++
				}
				if n == 2 {
					return errors.New("boom")
				}
				return nil
			})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			var ref string
			r.Must(&ref, "VM.clone", r.templates()["debian-13"], "x")
			config := r.record(ref).OtherConfig
			config["disks"] = tt.disks
			r.Must(nil, "VM.set_other_config", ref, config)
			if tt.spoil != nil {
				tt.spoil(r)
			}
			_, err := r.Call("VM.provision", ref)
			var e *api.Error
			if !errors.As(err, &e) || tt.code != "" && e.Code != tt.code {
				t.Fatalf("got %v, want %s", err, tt.code)
			}
			r.hostd.Fail(nil)
			r.onlyDisks(0)
			if v := r.record(ref); !v.IsATemplate || len(v.VBDs) != 0 || len(v.CurrentOperations) != 0 || v.OtherConfig["disks"] != tt.disks {
				t.Errorf("after a refused provision: %+v", v)
			}
		})
	}
}
