package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The generated files are committed; this fails when they are out of date.
// `go generate ./toolstack/api` brings them up to date.
func TestGeneratedFilesAreUpToDate(t *testing.T) {
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("../../../api", name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is out of date", name)
		}
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{
		"vm_power_state": "VMPowerState", "VCPUs_at_startup": "VCPUsAtStartup", "balance-slb": "BalanceSlb",
		"PV_kernel": "PVKernel", "get_all_records": "GetAllRecords", "uuid": "UUID", "network": "Network",
	} {
		if got := exported(in); got != want {
			t.Errorf("exported(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"type": "typeValue", "VM": "vm", "name_label": "nameLabel", "current auth_type": "currentAuthType"} {
		if got := local(in); got != want {
			t.Errorf("local(%q) = %q, want %q", in, got, want)
		}
	}
}
