package db

import (
	"testing"

	"cairn/toolstack/api"
)

func TestNameOf(t *testing.T) {
	d, err := Open(t.Context(), NewMemory(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	vm, other := api.NewVM(), api.NewVMMetrics()
	vm.UUID, vm.NameLabel, other.UUID = api.NewUUID(), "wörk \"1\"", api.NewUUID()
	err = d.Update(t.Context(), func(tx *Tx) error { Insert(tx, vm); Insert(tx, other); return nil })
	if err != nil {
		t.Fatal(err)
	}
	s := d.Snapshot()
	for _, tt := range []struct {
		class *api.ClassInfo
		uuid  string
		want  string
	}{
		{api.FindClass("vm"), vm.UUID, vm.NameLabel}, {api.FindClass("Host"), vm.UUID, ""}, {api.FindClass("VM_metrics"), other.UUID, ""},
		{api.FindClass("VM"), "x", ""}, {nil, vm.UUID, ""},
	} {
		if got := NameOf(s, tt.class, tt.uuid); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.uuid, got, tt.want)
		}
	}
}
