package storage_test

import (
	"slices"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// A host has the repositories of its drives from the first boot on, and once
// only; what is in a drive is there when they are attached.
func TestDrivesOfAHost(t *testing.T) {
	r := newRig(t)
	r.hostd.AddFile("/dev/xapi/cd", "sr0", mib)
	for range 2 {
		if err := r.m.EnsureDrives(t.Context(), r.host); err != nil {
			t.Fatal(err)
		}
	}
	r.run()
	found := map[string]api.SRRef{}
	for ref, sr := range db.All[api.SR](r.DB.Snapshot()) {
		if sr.Type != "udev" || found[sr.SMConfig["type"]] != "" {
			t.Errorf("repository %+v", sr)
		}
		found[sr.SMConfig["type"]] = ref
	}
	if len(found) != 2 || found["cd"] == "" || found["block"] == "" {
		t.Fatalf("repositories %v", found)
	}
	r.Until("the disc to be there", func() bool { return slices.Equal(r.names(found["cd"]), []string{"sr0"}) })
	r.Refused(api.ErrVDIIsAPhysicalDevice(r.only(found["cd"])), "VDI.destroy", r.only(found["cd"]))
}

// only is the one disk of a repository.
func (r *rig) only(sr api.SRRef) string {
	for ref, v := range db.All[api.VDI](r.DB.Snapshot()) {
		if v.SR == sr {
			return ref.String()
		}
	}
	return ""
}
