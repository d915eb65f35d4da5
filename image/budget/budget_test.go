package budget

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	rows := Table(map[string]int64{"QEMU": 3 * mib, "modules: a": 1 * mib, "modules: b": 4 * mib, "chrony": 5})
	var names []string
	for _, r := range rows {
		names = append(names, r.Name)
	}
	if got, want := strings.Join(names, " | "), "modules | modules: b | modules: a | QEMU | chrony"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
	if rows[0].Bytes != 5*mib {
		t.Errorf("modules sum up to %d", rows[0].Bytes)
	}
	if err := Check(rows); err != nil {
		t.Error(err)
	}
	want := `part                                      MiB    limit
modules                                  5.00      260
  b                                      4.00         
  a                                      1.00         
QEMU                                     3.00       40
chrony                                   0.00        1
`
	if got := Format("part", rows); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestCheck(t *testing.T) {
	err := Check(Table(map[string]int64{"QEMU": 41 * mib, "surprise": 1, "modules: a": 261 * mib}))
	if err == nil {
		t.Fatal("an image above its budget was accepted")
	}
	for _, want := range []string{"QEMU weighs 41.0 MiB, limit 40", "surprise has no limit", "modules weighs 261.0"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

// The limits are promises of architecture.md and of this table itself.
func TestLimits(t *testing.T) {
	if l := Limits["PXE bytes (UKI+root+hash)"]; l > 200 {
		t.Errorf("PXE limit is %v MiB, the budget 200", l)
	}
	if Limits["stage 1 initramfs"]+Limits["microcode"] > Limits["host.efi"] {
		t.Error("the parts of host.efi may weigh more than the whole")
	}
}
