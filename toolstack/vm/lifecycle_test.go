package vm

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/hypervisor"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestLifecycleTable writes out who may do what when, so that a change of the
// table is seen as what it changes.
func TestLifecycleTable(t *testing.T) {
	var b strings.Builder
	kinds := []struct {
		name string
		vm   api.VM
	}{
		{"vm", api.VM{}},
		{"template", api.VM{IsATemplate: true}},
		{"default template", api.VM{IsATemplate: true, IsDefaultTemplate: true}},
		{"control domain", api.VM{IsControlDomain: true}},
	}
	for _, k := range kinds {
		for _, state := range anyState {
			vm := k.vm
			vm.PowerState = state
			fmt.Fprintf(&b, "%s, %s: %v\n", k.name, lower(state), allowed("OpaqueRef:x", &vm))
		}
	}
	b.WriteString("\n")
	for _, r := range lifecycle {
		if r.built {
			vm := api.VM{PowerState: r.in[0], CurrentOperations: map[string]api.VMOperations{"OpaqueRef:t": r.op}}
			fmt.Fprintf(&b, "during %s: %v\n", r.op, allowed("OpaqueRef:x", &vm))
		}
	}
	path := filepath.Join("testdata", "lifecycle.txt")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the life-cycle is now:\n%s", &b)
	}
}

// FuzzGuestFile: whatever path a client writes, what is opened lies in the guest
// directory.
func FuzzGuestFile(f *testing.F) {
	base := f.TempDir()
	guests := filepath.Join(base, "guest")
	for _, d := range []string{guests, guests + "-evil"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			f.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "vmlinuz"), nil, 0o644); err != nil {
			f.Fatal(err)
		}
	}
	if err := os.Symlink(guests+"-evil", guests+"/out"); err != nil {
		f.Fatal(err)
	}
	m := New(Config{GuestDir: guests, Hypervisor: hypervisor.NewFake()})
	for _, seed := range []string{"/vmlinuz", "/../guest-evil/vmlinuz", "/out/vmlinuz", "-evil/vmlinuz", "/./vmlinuz", "//vmlinuz", "", "/", "\x00"} {
		f.Add(guests + seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got, err := m.guestFile("PV_kernel", path)
		var refused *api.Error
		switch {
		case err == nil && got != filepath.Join(guests, "vmlinuz"):
			t.Errorf("%q opens %q", path, got)
		case err != nil && (!errors.As(err, &refused) || refused.Code != api.CodeValueNotSupported):
			t.Errorf("%q: %v", path, err)
		}
	})
}
