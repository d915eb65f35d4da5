package template

import (
	"fmt"
	"strings"
)

// maxDisks and maxNICs are how many devices a guest may have.
const (
	maxDisks = 255
	maxNICs  = 7
)

// recommendations is the text of VM.recommendations, whose form and field names
// clients read to bound what they offer.
func (t Template) recommendations() string {
	var b strings.Builder
	b.WriteString("<restrictions>")
	limit := func(field string, low, high int64) {
		fmt.Fprintf(&b, `<restriction field="%s" min="%d" max="%d"/>`, field, low, high)
	}
	value := func(field, v string) { fmt.Fprintf(&b, `<restriction field="%s" value="%s"/>`, field, v) }
	limit("memory-static-max", t.MinMemory, t.MaxMemory)
	limit("vcpus-max", 1, t.MaxVCPUs)
	value("has-vendor-device", "false")
	value("supports-bios", yes(t.Firmware == BIOS || !t.TPM))
	value("supports-uefi", yes(t.Firmware == UEFI || !t.Legacy))
	value("supports-secure-boot", yes(t.SecureBoot != ""))
	for _, field := range []string{"allow-gpu-passthrough", "allow-vgpu", "allow-network-sriov"} {
		value(field, "1")
	}
	fmt.Fprintf(&b, `<restriction property="number-of-vbds" max="%d"/>`, maxDisks)
	fmt.Fprintf(&b, `<restriction property="number-of-vifs" max="%d"/>`, maxNICs)
	b.WriteString("</restrictions>")
	return b.String()
}

func yes(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}
