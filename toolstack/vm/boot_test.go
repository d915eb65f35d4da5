package vm_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/wire/wiretest"
)

// TestFirmware: what HVM_boot_params and platform say is what the next domain is.
func TestFirmware(t *testing.T) {
	r := newRig(t)
	r.Covers("VM.set_HVM_boot_policy", "VM.set_HVM_boot_params", "VM.set_platform", "VM.get_domain_type")
	ref := r.makeVM("windows")
	r.Must(nil, "VIF.create", map[string]any{
		"device": "0", "network": r.net, "VM": ref, "MAC": "", "MTU": 1500, "other_config": map[string]string{},
		"qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
	})
	r.Must(nil, "VM.set_HVM_boot_policy", ref, "BIOS order")
	for _, tt := range []struct {
		name             string
		params, platform map[string]string
		is               func(hypervisor.Spec) bool
	}{
		{"BIOS", map[string]string{"order": "ncd"}, map[string]string{}, func(s hypervisor.Spec) bool {
			return s.Firmware == hypervisor.BIOS && slices.Equal(s.BootOrder, []string{"network", "hd", "cdrom"}) && s.Graphics && !s.TPM
		}},
		{"UEFI", map[string]string{"firmware": "uefi", "order": "n"}, map[string]string{"secureboot": "true", "vtpm": "true"}, func(s hypervisor.Spec) bool {
			return s.Firmware == hypervisor.UEFI && s.SecureBoot && s.TPM
		}},
		{"sockets", map[string]string{"order": "n"}, map[string]string{"cores-per-socket": "2"}, func(s hypervisor.Spec) bool {
			return s.CoresPerSocket == 2 && s.Firmware == hypervisor.BIOS
		}},
	} {
		must(t, r.DB.Update(r.ctx, func(tx *db.Tx) error {
			v, err := db.Edit(tx, api.VMRef(ref))
			v.VCPUsMax = 4
			return err
		}))
		r.Must(nil, "VM.set_HVM_boot_params", ref, tt.params)
		r.Must(nil, "VM.set_platform", ref, tt.platform)
		r.Must(nil, "VM.start", ref, false, false)
		spec, _ := r.hv.Spec(r.uuid(ref))
		if !tt.is(spec) || spec.Boot.Kernel != "" {
			t.Errorf("%s: %+v", tt.name, spec)
		}
		r.Must(nil, "VM.hard_shutdown", ref)
	}
	machine := func(kind string) {
		must(t, r.DB.Update(r.ctx, func(tx *db.Tx) error { // as another pool may have written it
			v, err := db.Edit(tx, api.VMRef(ref))
			v.Platform = map[string]string{"machine-type": kind}
			return err
		}))
	}
	machine("pc-q35-99.0")
	r.refused(api.CodeValueNotSupported, []string{"platform:machine-type", "pc-q35-99.0", "must be one of pc-q35-10.0"}, "VM.start", ref, false, false)
	machine("pc-q35-10.0")
	r.Must(nil, "VM.set_HVM_boot_params", ref, map[string]string{"order": "dc"})
	r.refused(api.CodeOperationNotAllowed, nil, "VM.start", ref, false, false)
	var kind string
	r.Must(&kind, "VM.get_domain_type", ref)
	if kind != "hvm" {
		t.Errorf("domain type %s", kind)
	}
}

// TestConsoleRows: a terminal always, a screen where firmware draws one; gone with
// the domain.
func TestConsoleRows(t *testing.T) {
	r := newRig(t)
	r.Covers("VM.get_consoles")
	must(t, os.WriteFile(filepath.Join(r.guests, "vmlinuz"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(r.guests, "initrd.img"), nil, 0o644))
	ref := r.makeVM("x")
	r.Must(nil, "VIF.create", map[string]any{
		"device": "0", "network": r.net, "VM": ref, "MAC": "", "MTU": 1500, "other_config": map[string]string{},
		"qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
	})
	r.Must(nil, "VM.set_HVM_boot_params", ref, map[string]string{"order": "n"})
	for policy, want := range map[string]string{"": "vt100", "BIOS order": "rfb vt100"} {
		r.Must(nil, "VM.set_HVM_boot_policy", ref, policy)
		r.Must(nil, "VM.start", ref, false, false)
		var consoles []api.ConsoleRef
		r.Must(&consoles, "VM.get_consoles", ref)
		var got []string
		for _, c := range consoles {
			row := wiretest.Get(r.Server, c)
			got = append(got, string(row.Protocol))
			if !strings.HasSuffix(row.Location, "/console?uuid="+row.UUID) {
				t.Errorf("location %s of %s", row.Location, row.UUID)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("policy %q: consoles %v, want %s", policy, got, want)
		}
		r.Must(nil, "VM.hard_shutdown", ref)
		r.Must(&consoles, "VM.get_consoles", ref)
		if len(consoles) != 0 {
			t.Errorf("a halted VM has consoles %v", consoles)
		}
	}
}
