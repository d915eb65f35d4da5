package machine_test

import (
	"encoding/base64"
	"maps"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire/wiretest"
)

// TestVariables: what clients keep in VM.NVRAM, as other products do with UEFI's
// variables, goes out and comes in again, a snapshot's own too; more than a record may
// hold is refused, and where there was none there is none.
func TestVariables(t *testing.T) {
	r := newRig(t)
	then := map[string]string{"EFI-variables": base64.StdEncoding.EncodeToString(noise(7, 4<<10))}
	now := map[string]string{"EFI-variables": base64.StdEncoding.EncodeToString(noise(8, 500<<10)), "EFI-variables-on-boot": "<reset> & go"}
	from, _ := r.insert("web", nil)
	snapshot, _ := r.snapshot(from, "before")
	set := func(ref api.VMRef, to map[string]string) {
		r.update(func(tx *db.Tx) {
			vm, err := db.Edit(tx, ref)
			must(t, err)
			vm.NVRAM = to
		})
	}
	set(snapshot, then)
	set(from, now)
	made := wiretest.Get(r.Server, r.mustImport("", r.get("/export?include_snapshots=true&ref="+string(from))))
	if !maps.Equal(made.NVRAM, now) || len(made.Snapshots) != 1 {
		t.Fatalf("%d keys came, %d snapshots", len(made.NVRAM), len(made.Snapshots))
	}
	if s := wiretest.Get(r.Server, made.Snapshots[0]); !maps.Equal(s.NVRAM, then) {
		t.Errorf("%d keys came with the snapshot", len(s.NVRAM))
	}
	set(from, map[string]string{"EFI-variables": strings.Repeat("A", 1<<20+4)})
	b, before := r.get("/export?ref="+string(from)), r.state()
	if _, err := r.importing("", b); err == nil || !strings.HasPrefix(code(err), "IMPORT_ERROR [") {
		t.Errorf("too large: %v", err)
	}
	r.unchanged("too large", before)
	set(from, nil)
	if made := wiretest.Get(r.Server, r.mustImport("", r.get("/export?ref="+string(from)))); len(made.NVRAM) != 0 {
		t.Errorf("%d keys came of none", len(made.NVRAM))
	}
}
